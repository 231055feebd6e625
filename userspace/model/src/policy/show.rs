//! What a policy means for a packet at one port, in words. Flow: explain.
//!
//! Answers here come from what is asked for. What is loaded may differ, and is read from the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    convert::protocol_name,
    types::{Ethertype, GroupId, Policy, PortId, Remote, Rule, Service},
};

/// What would become of a packet, and which rules nearly allow it.
mod explain;
#[cfg(test)]
mod tests;

pub use explain::{Condition, Detail, Explanation, NearMiss, Query, Unclear, explain};

/// Members of groups, resolved.
pub type Members = BTreeMap<GroupId, BTreeSet<IpNet>>;

/// Members of every group. `found` has the addresses of ports that were given none.
pub fn members(policy: &Policy, found: &BTreeMap<PortId, BTreeSet<IpAddr>>) -> Members {
    policy.groups.keys().map(|group| (group.clone(), policy.members_of(group, found))).collect()
}

/// Name of a group; its id where it has none.
fn group_name(policy: &Policy, id: &GroupId) -> String {
    let name = policy.groups.get(id).map(|group| group.name.clone()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| id.to_string())
}

/// Protocol and ports of a rule in words: `tcp 443`, `icmp type 8`, `any protocol`.
pub fn service_words(service: Service) -> String {
    match service {
        Service::Any => "any protocol".to_owned(),
        Service::Protocol(number) => protocol_words(number),
        Service::Ports { protocol, first, last } if first == last => format!("{} {first}", protocol_words(protocol)),
        Service::Ports { protocol, first, last } => format!("{} {first}-{last}", protocol_words(protocol)),
        Service::Icmp { protocol, kind, code: None } => format!("{} type {kind}", protocol_words(protocol)),
        Service::Icmp { protocol, kind, code: Some(code) } => {
            format!("{} type {kind} code {code}", protocol_words(protocol))
        }
    }
}

/// A protocol by its name, or as `protocol 99`.
fn protocol_words(number: u8) -> String {
    let name = protocol_name(number);
    if name.starts_with(|letter: char| letter.is_ascii_digit()) { format!("protocol {name}") } else { name }
}

/// Who may be at the other end, in words.
fn remote_words(policy: &Policy, remote: &Remote) -> String {
    match remote {
        Remote::Any => "anybody".to_owned(),
        Remote::Prefix(net) => net.to_string(),
        Remote::Group(id) => format!("group {}", group_name(policy, id)),
        Remote::AddressGroup(id) => {
            let name = policy.address_groups.get(id).map(|group| group.name.as_str()).filter(|name| !name.is_empty());
            format!("address group {}", name.unwrap_or(&id.0))
        }
    }
}

/// The networks a remote group stands for; none where the remote is no group.
fn networks<'m>(policy: &'m Policy, remote: &Remote, members: &'m Members) -> Option<&'m BTreeSet<IpNet>> {
    const NOBODY: &BTreeSet<IpNet> = &BTreeSet::new();
    match remote {
        Remote::Any | Remote::Prefix(_) => None,
        Remote::Group(id) => Some(members.get(id).unwrap_or(NOBODY)),
        Remote::AddressGroup(id) => Some(policy.address_groups.get(id).map_or(NOBODY, |group| &group.addresses)),
    }
}

fn of_family(networks: &BTreeSet<IpNet>, ethertype: Ethertype) -> usize {
    networks.iter().filter(|net| family(net.addr()) == ethertype).count()
}

/// Family of an address.
fn family(address: IpAddr) -> Ethertype {
    if address.is_ipv4() { Ethertype::IPv4 } else { Ethertype::IPv6 }
}

/// Whether an address may be at the other end of a rule.
fn is_remote(policy: &Policy, rule: &Rule, address: IpAddr, members: &Members) -> bool {
    match (&rule.remote, networks(policy, &rule.remote, members)) {
        (Remote::Prefix(net), _) => net.contains(&address),
        (_, Some(networks)) => networks.iter().any(|net| net.contains(&address)),
        (_, None) => true,
    }
}
