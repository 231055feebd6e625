//! Security groups and their rules. Flow: policy.

use std::collections::BTreeMap;

use super::{
    Gathered, Names, address, note,
    protocol::{self, ICMP, ICMPV6},
};
use crate::policy::{
    types::{AddressGroupId, Direction, Ethertype, GroupId, Remote, Rule, RuleId, SecurityGroup, Service},
    wire::{
        Mistake,
        field::{GROUP, RULE},
        object::{Field, Object},
    },
};

/// What rules refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct References<'r> {
    pub(super) groups: &'r Names<'r>,
    pub(super) address_groups: &'r Names<'r>,
}

/// Where every rule of every group stands, by its id.
type Places = BTreeMap<RuleId, (String, String, usize)>;

/// Every security group.
pub(super) fn groups(
    gathered: &Gathered<'_>,
    refer: References<'_>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<GroupId, SecurityGroup> {
    let mut loose = loose(gathered, refer, mistakes);
    let mut places = Places::new();
    let mut groups = BTreeMap::new();
    for (id, name, object) in refer.groups.objects() {
        mistakes.extend(object.check(&GROUP));
        let id = GroupId(id.to_owned());
        let stateful = object.field(&["stateful"]).and_then(|field| note(field.boolean(), mistakes));
        let mut own = embedded(object, &id, refer, mistakes);
        own.extend(loose.remove(&id).unwrap_or_default());
        let rules = rules(&id, &own, (refer, &mut places), mistakes);
        let stateful = stateful.unwrap_or(true);
        groups.insert(id.clone(), SecurityGroup { id, name: name.to_owned(), stateful, rules });
    }
    groups
}

/// Rules that stand outside their group, by group.
fn loose<'a>(
    gathered: &Gathered<'a>,
    refer: References<'_>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<GroupId, Vec<Object<'a>>> {
    let mut loose: BTreeMap<GroupId, Vec<Object<'a>>> = BTreeMap::new();
    for object in &gathered.rules {
        let group = match object.field(&["security_group_id"]) {
            None => Err(object.missing("security_group_id", "is missing, and the rule stands in no group", &[])),
            Some(field) => refer.groups.find(&field),
        };
        if let Some(group) = note(group, mistakes) {
            loose.entry(GroupId(group)).or_default().push(object.clone());
        }
    }
    loose
}

/// Rules that stand in their group.
fn embedded<'a>(
    group: &Object<'a>,
    id: &GroupId,
    refer: References<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Object<'a>> {
    let Some(list) = group.field(&["security_group_rules", "rules"]) else { return Vec::new() };
    let items = note(list.items(), mistakes).unwrap_or_default();
    let mut rules = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let Some(rule) = note(item.object(&format!("rule {}", place + 1)), mistakes) else { continue };
        if let Some(field) = rule.field(&["security_group_id"]) {
            match refer.groups.find(&field) {
                Ok(named) if named != id.0 => {
                    mistakes.push(field.refuse(format!("is {named}, and the rule stands in group {id}")));
                }
                Ok(_) => {}
                Err(mistake) => mistakes.push(mistake),
            }
        }
        rules.push(rule);
    }
    rules
}

/// The rules of one group.
fn rules(
    group: &GroupId,
    objects: &[Object<'_>],
    (refer, places): (References<'_>, &mut Places),
    mistakes: &mut Vec<Mistake>,
) -> Vec<Rule> {
    let mut count: BTreeMap<Direction, usize> = BTreeMap::new();
    let mut seen: BTreeMap<(Direction, Ethertype, Service, Remote), &Object<'_>> = BTreeMap::new();
    let mut rules = Vec::new();
    for object in objects {
        mistakes.extend(object.check(&RULE));
        let Some(rule) = rule(object, refer, mistakes) else { continue };
        let place = count.entry(rule.direction).or_default();
        *place += 1;
        let id = match given_id(object, mistakes) {
            Some(id) => id,
            None => RuleId(format!("{group}/{}/{place}", word(rule.direction))),
        };
        let rule = Rule { id, ..rule };
        let key = (rule.direction, rule.ethertype, rule.service, rule.remote.clone());
        if let Some(first) = seen.insert(key, object) {
            mistakes.push(object.refuse(format!("allows the same as {} at {}:{}", first.what, first.file, first.line)));
        }
        let here = (object.what.clone(), object.file.to_owned(), object.line);
        if let Some((what, file, line)) = places.insert(rule.id.clone(), here) {
            let why = format!("{} is the id of {what} at {file}:{line} too", rule.id);
            mistakes.push(
                object.field(&["id"]).map_or_else(|| object.refuse(why.clone()), |field| field.refuse(why.clone())),
            );
        }
        rules.push(rule);
    }
    rules
}

fn given_id(object: &Object<'_>, mistakes: &mut Vec<Mistake>) -> Option<RuleId> {
    note(object.field(&["id"])?.text(), mistakes).map(|id| RuleId(id.to_owned()))
}

/// A rule, its id still to be given.
fn rule(object: &Object<'_>, refer: References<'_>, mistakes: &mut Vec<Mistake>) -> Option<Rule> {
    let direction = note(direction(object), mistakes);
    let ethertype = note(ethertype(object), mistakes)?;
    let service = note(service(object, ethertype), mistakes);
    let remote = note(remote(object, ethertype, refer), mistakes);
    let description = object.field(&["description"]).and_then(|field| field.node.text()).unwrap_or_default();
    Some(Rule {
        id: RuleId(String::new()),
        direction: direction?,
        ethertype,
        service: service?,
        remote: remote?,
        description: description.to_owned(),
    })
}

/// A direction as Neutron writes it.
pub(super) fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

fn direction(object: &Object<'_>) -> Result<Direction, Mistake> {
    const VALID: [&str; 2] = ["ingress", "egress"];
    let Some(field) = object.field(&["direction"]) else {
        return Err(object.missing("direction", "is missing", &VALID));
    };
    match field.text()?.to_ascii_lowercase().as_str() {
        "ingress" => Ok(Direction::Ingress),
        "egress" => Ok(Direction::Egress),
        other => Err(field.refuse_for(format!("`{other}` is no direction"), VALID.map(str::to_owned).to_vec())),
    }
}

/// IPv4 where nothing is said, as in Neutron.
fn ethertype(object: &Object<'_>) -> Result<Ethertype, Mistake> {
    let Some(field) = object.field(&["ethertype", "ether_type"]) else { return Ok(Ethertype::IPv4) };
    match field.text()?.to_ascii_lowercase().as_str() {
        "ipv4" => Ok(Ethertype::IPv4),
        "ipv6" => Ok(Ethertype::IPv6),
        other => {
            let why = format!("`{other}` is no family of addresses");
            Err(field.refuse_for(why, vec!["IPv4".to_owned(), "IPv6".to_owned()]))
        }
    }
}

/// Number of a rule's protocol as packets of its family carry it; none is any.
fn number(object: &Object<'_>, ethertype: Ethertype) -> Result<Option<u8>, Mistake> {
    let Some(field) = object.field(&["protocol"]) else { return Ok(None) };
    let text = field.text()?;
    if text.eq_ignore_ascii_case("any") || text == "-1" {
        return Ok(None);
    }
    let Some(number) = protocol::protocol_number(text) else {
        return Err(field.refuse_for(format!("`{text}` is no protocol"), protocol::valid()));
    };
    match ethertype {
        Ethertype::IPv6 if number == ICMP => Ok(Some(ICMPV6)),
        Ethertype::IPv4 if protocol::only_ipv6(number) => {
            Err(field.refuse(format!("`{text}` exists in IPv6 only, and the rule is for IPv4 (`ethertype`)")))
        }
        Ethertype::IPv4 | Ethertype::IPv6 => Ok(Some(number)),
    }
}

fn service(object: &Object<'_>, ethertype: Ethertype) -> Result<Service, Mistake> {
    let number = number(object, ethertype)?;
    let (min, max) = (object.field(&["port_range_min"]), object.field(&["port_range_max"]));
    match number {
        Some(protocol @ (ICMP | ICMPV6)) => icmp(protocol, min, max),
        Some(protocol) if protocol::has_ports(protocol) => ports(object, protocol, min, max),
        other => match min.or(max) {
            None => Ok(other.map_or(Service::Any, Service::Protocol)),
            Some(field) => {
                let valid = ["tcp", "udp", "sctp", "dccp", "udplite"].map(str::to_owned).to_vec();
                let named = other.map_or_else(|| "a rule for any protocol".to_owned(), protocol::protocol_name);
                Err(field.refuse_for(format!("{named} has no ports; `protocol` must be one that has"), valid))
            }
        },
    }
}

fn ports(
    object: &Object<'_>,
    protocol: u8,
    min: Option<Field<'_, '_>>,
    max: Option<Field<'_, '_>>,
) -> Result<Service, Mistake> {
    let (min, max) = match (min, max) {
        (None, None) => return Ok(Service::Protocol(protocol)),
        (Some(min), Some(max)) => (min, max),
        (Some(_), None) => return Err(object.missing("port_range_max", "is missing beside port_range_min", &[])),
        (None, Some(_)) => return Err(object.missing("port_range_min", "is missing beside port_range_max", &[])),
    };
    let port = |field: Field<'_, '_>| match field.parse::<u16>("a port")? {
        0 => Err(field.refuse_for("0 is no port".to_owned(), vec!["1 to 65535".to_owned()])),
        port => Ok(port),
    };
    let (first, last) = (port(min)?, port(max)?);
    match (first, last) {
        (1, u16::MAX) => Ok(Service::Protocol(protocol)),
        _ if first > last => Err(min.refuse(format!("{first} is after port_range_max, {last}"))),
        _ => Ok(Service::Ports { protocol, first, last }),
    }
}

/// The range's ends are type and code here, and 0 is one of each.
fn icmp(protocol: u8, kind: Option<Field<'_, '_>>, code: Option<Field<'_, '_>>) -> Result<Service, Mistake> {
    let Some(kind) = kind else {
        return match code {
            None => Ok(Service::Protocol(protocol)),
            Some(code) => Err(code.refuse("is an ICMP code, and needs the type in port_range_min".to_owned())),
        };
    };
    let kind = kind.parse("an ICMP type, 0 to 255")?;
    let code = code.map(|code| code.parse("an ICMP code, 0 to 255")).transpose()?;
    Ok(Service::Icmp { protocol, kind, code })
}

fn remote(object: &Object<'_>, ethertype: Ethertype, refer: References<'_>) -> Result<Remote, Mistake> {
    const FIELDS: [&str; 3] = ["remote_ip_prefix", "remote_group_id", "remote_address_group_id"];
    let given: Vec<Field<'_, '_>> = FIELDS.iter().filter_map(|name| object.field(&[name])).collect();
    let field = match given[..] {
        [] => return Ok(Remote::Any),
        [field] => field,
        [first, second, ..] => {
            return Err(second.refuse(format!("stands beside {}; a rule has one remote at most", first.name)));
        }
    };
    match field.name {
        "remote_group_id" => Ok(Remote::Group(GroupId(refer.groups.find(&field)?))),
        "remote_address_group_id" => Ok(Remote::AddressGroup(AddressGroupId(refer.address_groups.find(&field)?))),
        _ => prefix(&field, ethertype),
    }
}

fn prefix(field: &Field<'_, '_>, ethertype: Ethertype) -> Result<Remote, Mistake> {
    let net = address::prefix(field)?;
    let family = if net.addr().is_ipv4() { Ethertype::IPv4 } else { Ethertype::IPv6 };
    if family != ethertype {
        return Err(field.refuse(format!("{net} is {family:?}, and the rule is for {ethertype:?} (`ethertype`)")));
    }
    Ok(if net.prefix_len() == 0 { Remote::Any } else { Remote::Prefix(net) })
}
