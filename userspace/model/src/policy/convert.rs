//! Documents into a checked policy, and back. Flow: policy.
//!
//! Every mistake of every document is told at once, and one is enough for none of them to count: what is enforced changes as a
//! whole or not at all. References may cross documents, so all objects are gathered before the first is converted.

use std::collections::{BTreeMap, BTreeSet};

pub use super::wire::{Document, Mistake};
use super::{
    types::{AddressGroup, AddressGroupId, GroupId, Policy},
    wire::{
        field::{ADDRESS_GROUP, FLOATING_IP, GROUP, PORT},
        object::{Field, Object},
        tree,
    },
};

/// Addresses and prefixes.
mod address;
/// Floating IPs.
mod floating;
/// Objects out of documents.
mod gather;
/// Ids and names, and what they lead to.
mod names;
/// The checked policy as the wire has it.
mod out;
/// Ports.
mod port;
/// Names and numbers of protocols.
mod protocol;
/// Security groups and their rules.
mod rule;
#[cfg(test)]
mod tests;

use gather::Gathered;
use names::Names;
pub use out::to_wire;
pub use protocol::{protocol_name, protocol_number};

/// How many ethertypes can be permitted: as many as the datapath has room for.
const ETHERTYPES: usize = 8;

/// The policy that documents hold together.
///
/// # Errors
/// Every mistake in them, in the order of files and lines.
pub fn policy(documents: &[Document]) -> Result<Policy, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut trees = Vec::new();
    for Document { name, text } in documents {
        match tree::read(text) {
            Ok(nodes) => trees.push((name.as_str(), nodes)),
            Err(tree::Unreadable { line, why }) => mistakes.push(Mistake {
                file: name.clone(),
                line,
                object: String::new(),
                field: String::new(),
                why,
                valid: Box::default(),
            }),
        }
    }
    let mut gathered = Gathered::default();
    for (file, nodes) in &trees {
        for node in nodes {
            gathered.document(file, node, &mut mistakes);
        }
    }
    let policy = convert(&gathered, &mut mistakes);
    mistakes.sort();
    mistakes.dedup();
    if mistakes.is_empty() { Ok(policy) } else { Err(mistakes) }
}

fn convert(gathered: &Gathered<'_>, mistakes: &mut Vec<Mistake>) -> Policy {
    let groups = Names::index(&GROUP, &gathered.groups, mistakes);
    let address_groups = Names::index(&ADDRESS_GROUP, &gathered.address_groups, mistakes);
    let ports = Names::index(&PORT, &gathered.ports, mistakes);
    let refer = rule::References { groups: &groups, address_groups: &address_groups };
    let mut policy = Policy { groups: rule::groups(gathered, refer, mistakes), ..Policy::default() };
    for (id, name, object) in address_groups.objects() {
        let id = AddressGroupId(id.to_owned());
        let addresses = address_group(object, mistakes);
        policy.address_groups.insert(id.clone(), AddressGroup { id, name: name.to_owned(), addresses });
    }
    for (id, name, object) in ports.objects() {
        let made = port::port(object, (id, name), &groups, &policy.groups, mistakes);
        policy.ports.insert(made.id.clone(), made);
    }
    for (id, _, object) in Names::index(&FLOATING_IP, &gathered.floating_ips, mistakes).objects() {
        policy
            .floating_ips
            .extend(floating::floating_ip(object, id, &ports, mistakes).map(|made| (made.id.clone(), made)));
    }
    members(gathered, &groups, &mut policy, mistakes);
    settings(gathered, &mut policy, mistakes);
    policy
}

/// A value, or a mistake to tell.
fn note<T>(result: Result<T, Mistake>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

/// The items of a list each converted, those with a mistake left out.
fn each<'o, 'a, T>(
    list: Option<Field<'o, 'a>>,
    convert: impl Fn(&Field<'o, 'a>) -> Result<T, Mistake>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<T> {
    let items = list.and_then(|list| note(list.items(), mistakes)).unwrap_or_default();
    items.iter().filter_map(|item| note(convert(item), mistakes)).collect()
}

fn address_group(object: &Object<'_>, mistakes: &mut Vec<Mistake>) -> BTreeSet<ipnet::IpNet> {
    mistakes.extend(object.check(&ADDRESS_GROUP));
    each(object.field(&["addresses"]), address::prefix, mistakes).into_iter().collect()
}

fn members(gathered: &Gathered<'_>, groups: &Names<'_>, policy: &mut Policy, mistakes: &mut Vec<Mistake>) {
    for field in gathered.members.iter().flat_map(Object::fields) {
        let group = note(groups.find_text(&field, field.name), mistakes);
        let list = (!field.node.is_null()).then_some(field);
        let addresses = each(list, address::prefix, mistakes);
        if let Some(group) = group.filter(|_| !addresses.is_empty()) {
            policy.members.entry(GroupId(group)).or_default().extend(addresses);
        }
    }
}

fn settings(gathered: &Gathered<'_>, policy: &mut Policy, mistakes: &mut Vec<Mistake>) {
    let mut said: BTreeMap<bool, String> = BTreeMap::new();
    for state in &gathered.states {
        let list = state.field(&["permitted_ethertypes"]);
        policy.permitted_ethertypes.extend(each(list, permitted_ethertype, mistakes));
        if let Some(field) = list.filter(|_| policy.permitted_ethertypes.len() > ETHERTYPES) {
            mistakes.push(field.refuse(format!("are more than {ETHERTYPES}, all documents together")));
        }
        let Some(field) = state.field(&["close_unknown_ports"]) else { continue };
        let Some(close) = note(field.boolean(), mistakes) else { continue };
        if let Some(where_) = said.get(&!close) {
            mistakes.push(field.refuse(format!("is {close}, and {} in {where_}", !close)));
        }
        said.insert(close, format!("{}:{}", state.file, field.line()));
        policy.close_unknown_ports = close;
    }
}

/// An ethertype as a number or as `0x88cc`.
fn permitted_ethertype(field: &Field<'_, '_>) -> Result<u16, Mistake> {
    let number = |text: &str| match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let refuse = |why: &str| field.refuse(format!("{} {why}", field.node.describe()));
    match field.node.text().and_then(number) {
        None => Err(refuse("is no ethertype: give it as 0x88cc")),
        Some(0..0x600) => Err(refuse("is a length and no ethertype: those begin at 0x0600")),
        Some(0x0800 | 0x86dd | 0x0806 | 0x8035) => {
            Err(refuse("is filtered by the rules and cannot be permitted as a whole"))
        }
        Some(0x8100 | 0x88a8 | 0x9100) => Err(refuse("is a VLAN tag, which no instance may send")),
        Some(ethertype) => Ok(ethertype),
    }
}
