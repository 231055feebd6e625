//! Ports. Flow: policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Names, address, each, note};
use crate::{
    id::Uuid,
    policy::{
        types::{AddressPair, Binding, GroupId, Port, PortId, SecurityGroup},
        wire::{
            Mistake,
            field::{BINDING, FIXED_IP, PAIR, PORT},
            object::{Field, Object},
            tree::Value,
        },
    },
};

/// What ports of the network itself begin their owner with; Neutron trusts them.
pub(super) const NETWORK: &str = "network:";

/// Group of whoever names none.
const DEFAULT: &str = "default";

/// A port; a field with a mistake is as if it were not there.
pub(super) fn port(
    object: &Object<'_>,
    (id, name): (&str, &str),
    names: &Names<'_>,
    known: &BTreeMap<GroupId, SecurityGroup>,
    mistakes: &mut Vec<Mistake>,
) -> Port {
    mistakes.extend(object.check(&PORT));
    let owner = object.field(&["device_owner"]).and_then(|field| field.node.text()).unwrap_or_default();
    let network = owner.starts_with(NETWORK);
    let secured = object.field(&["port_security_enabled", "is_port_security_enabled"]);
    let secured = secured.and_then(|field| note(field.boolean(), mistakes)).unwrap_or(true);
    let groups = groups(object, names, secured && !network, mistakes);
    if !secured && !groups.is_empty() && !network {
        let why = "has groups, which need port_security_enabled".to_owned();
        mistakes.extend(object.field(&GROUPS).map(|field| field.refuse(why)));
    }
    mistakes.extend(mixed(object, &groups, known));
    let pairs = each(object.field(&["allowed_address_pairs"]), |item| pair(item), mistakes);
    let made = Port {
        id: PortId(id.to_owned()),
        name: name.to_owned(),
        binding: binding(object, id, mistakes),
        mac: object.field(&["mac_address"]).and_then(|field| note(address::mac(&field), mistakes)),
        fixed_ips: fixed_ips(object, mistakes),
        allowed_address_pairs: pairs.into_iter().collect(),
        groups,
        filtered: secured && !network,
        log_allowed: object.field(&["log_allowed"]).and_then(|field| note(field.boolean(), mistakes)).unwrap_or(false),
    };
    mistakes.extend(nowhere(object, &made));
    made
}

const GROUPS: [&str; 2] = ["security_groups", "security_group_ids"];

/// Groups in the order given, without repetition. A port that does not mention them gets the default group, as in Neutron.
fn groups(object: &Object<'_>, names: &Names<'_>, filtered: bool, mistakes: &mut Vec<Mistake>) -> Vec<GroupId> {
    let Some(list) = object.field(&GROUPS) else {
        return match names.only_named(DEFAULT) {
            _ if !filtered => vec![],
            Some(default) => vec![GroupId(default.to_owned())],
            None => {
                let why = "is missing, and there is no one group named `default` in its place; [] is no group at all";
                mistakes.push(object.missing("security_groups", why, &[]));
                vec![]
            }
        };
    };
    let mut groups = Vec::new();
    for group in each(Some(list), |item| names.find(item), mistakes) {
        let group = GroupId(group);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

/// A port's groups either all keep state or none does.
fn mixed(object: &Object<'_>, groups: &[GroupId], known: &BTreeMap<GroupId, SecurityGroup>) -> Option<Mistake> {
    let of = |stateful: bool| groups.iter().find(|id| known.get(*id).is_some_and(|group| group.stateful == stateful));
    let (stateful, stateless) = (of(true)?, of(false)?);
    let why = format!("mixes {stateful}, which is stateful, with {stateless}, which is not");
    Some(object.field(&GROUPS)?.refuse(why))
}

/// Fixed addresses: `{ip_address: …}` as Neutron has them, or the addresses alone.
fn fixed_ips(object: &Object<'_>, mistakes: &mut Vec<Mistake>) -> Option<BTreeSet<IpAddr>> {
    let list = object.field(&["fixed_ips"])?;
    let fixed = |item: &Field<'_, '_>| {
        if !matches!(item.node.value, Value::Map(_)) {
            return address::address(item);
        }
        let object = checked(item, "fixed IP", &FIXED_IP)?;
        let field = object.field(&["ip_address"]);
        address::address(&field.ok_or_else(|| object.missing("ip_address", "is missing", &[]))?)
    };
    Some(each(Some(list), fixed, mistakes).into_iter().collect())
}

fn pair(item: &Field<'_, '_>) -> Result<AddressPair, Mistake> {
    let object = checked(item, "allowed address pair", &PAIR)?;
    let field = object.field(&["ip_address"]);
    let address = address::prefix(&field.ok_or_else(|| object.missing("ip_address", "is missing", &[]))?)?;
    let mac = object.field(&["mac_address"]).map(|field| address::mac(&field)).transpose()?;
    Ok(AddressPair { mac, address })
}

/// A small object of a list, whose first unknown field is its mistake.
fn checked<'a>(
    item: &Field<'_, 'a>,
    what: &str,
    kind: &crate::policy::wire::field::Kind,
) -> Result<Object<'a>, Mistake> {
    let object = item.object(what)?;
    object.check(kind).into_iter().next().map_or(Ok(object), Err)
}

/// How the port is found. One with a UUID is Neutron's, and found by it where nothing else is said.
fn binding(object: &Object<'_>, id: &str, mistakes: &mut Vec<Mistake>) -> Binding {
    let host = object.field(&["binding:host_id", "binding_host_id"]).and_then(|field| field.node.text());
    let host = host.filter(|host| !host.is_empty()).map(str::to_owned);
    let Some(field) = object.field(&["binding"]) else {
        return Binding { port_id: id.parse::<Uuid>().is_ok(), host, ..Binding::default() };
    };
    let Some(binding) = note(field.object("binding"), mistakes) else { return Binding::default() };
    mistakes.extend(binding.check(&BINDING));
    let text = |name: &str| binding.field(&[name]).map(|field| field.text().map(str::to_owned));
    let device = text("device").and_then(|text| note(text, mistakes));
    let instance = text("instance").and_then(|text| note(text, mistakes));
    let port_id = binding.field(&["port_id"]).and_then(|field| note(field.boolean(), mistakes)).unwrap_or(false);
    if usize::from(device.is_some()) + usize::from(instance.is_some()) + usize::from(port_id) > 1 {
        mistakes.push(field.refuse_for("says more than one thing; give one".to_owned(), BINDING.valid()));
    }
    Binding { device, instance, port_id, host }
}

/// A port that could neither be found here nor be a member of anything.
fn nowhere(object: &Object<'_>, port: &Port) -> Option<Mistake> {
    let bound = port.binding.port_id || object.has(&["binding"]);
    let says = port.fixed_ips.is_some() || !port.allowed_address_pairs.is_empty();
    let why = "is missing: the port has no UUID to be found by, and no fixed_ips to be a member with";
    (!bound && !says).then(|| object.missing("binding", why, BINDING.own))
}
