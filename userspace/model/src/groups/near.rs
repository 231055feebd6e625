//! Which rules would have allowed a packet but for one thing, and what that thing is. Flow: explain.

use std::net::IpAddr;

use serde::Serialize;

use super::asked::{Asked, RuleRef};
use crate::policy::{
    convert::protocol_name,
    types::{Direction, Ethertype, Port, Remote, Rule, Service},
};

/// How many rules are told of.
const TOLD: usize = 3;

/// A packet as rules look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Which way it goes.
    pub direction: Direction,
    /// The other end.
    pub remote: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, or ICMP type and code as `type * 256 + code`; none where the protocol has neither.
    pub service: Option<u16>,
}

/// A rule that nearly allows a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// Why it does not, in words; one reason where it is as near as can be.
    pub why: Vec<String>,
}

impl Seen {
    /// Its family.
    pub const fn ethertype(&self) -> Ethertype {
        if self.remote.is_ipv6() { Ethertype::IPv6 } else { Ethertype::IPv4 }
    }
}

/// The first rule of a port that allows a packet.
pub(super) fn allowing(asked: &Asked, port: &Port, seen: &Seen) -> Option<RuleRef> {
    let mut rules = asked.rules_of(port);
    rules.find(|(_, rule)| misses(asked, rule, seen).is_empty()).map(|(group, rule)| asked.refer(group, rule))
}

/// The rules of a port that come nearest to allowing a packet, the nearest first. Those with more against them are told
/// of only where none has but one thing.
pub(super) fn near(asked: &Asked, port: &Port, seen: &Seen) -> Vec<NearMiss> {
    let mut found: Vec<((usize, u32), NearMiss)> = Vec::new();
    for (group, rule) in asked.rules_of(port) {
        let misses = misses(asked, rule, seen);
        // A rule of the other direction and family about another service has nothing to do with the packet.
        if !misses.is_empty() && misses.len() <= 2 {
            let distance = misses.iter().map(|miss| miss.distance).sum();
            let why = misses.iter().map(|miss| miss.why.clone()).collect();
            found.push(((misses.len(), distance), NearMiss { rule: asked.refer(group, rule), why }));
        }
    }
    found.sort_by_key(|(distance, _)| *distance);
    let least = found.first().map_or(0, |((misses, _), _)| *misses);
    found.into_iter().filter(|((misses, _), _)| *misses == least).map(|(_, miss)| miss).take(TOLD).collect()
}

/// One thing that keeps a rule from allowing a packet.
struct Miss {
    why: String,
    /// How far off it is among others of its kind and against other kinds: a port next door is nearer than another family.
    distance: u32,
}

fn misses(asked: &Asked, rule: &Rule, seen: &Seen) -> Vec<Miss> {
    let mut misses = Vec::new();
    if rule.direction != seen.direction {
        let why = format!("it is for {}, the packet is {}", rule.direction.name(), seen.direction.name());
        misses.push(Miss { why, distance: 300_000 });
    }
    if rule.ethertype != seen.ethertype() {
        let name = |ethertype| if ethertype == Ethertype::IPv6 { "IPv6" } else { "IPv4" };
        let why = format!("it is for {}, the packet is {}", name(rule.ethertype), name(seen.ethertype()));
        misses.push(Miss { why, distance: 400_000 });
    }
    misses.extend(service(&rule.service, seen));
    // What is of the other family cannot be in the rule's remote; that has been said.
    if rule.ethertype == seen.ethertype() && !asked.has(&rule.remote, seen.remote) {
        misses.push(Miss { why: stranger(asked, &rule.remote, seen.remote), distance: 100_000 });
    }
    misses
}

/// What of the service does not fit.
fn service(service: &Service, seen: &Seen) -> Option<Miss> {
    let other_protocol = |own: u8| Miss {
        why: format!("its protocol is {}, not {}", protocol_name(own), protocol_name(seen.protocol)),
        distance: 200_000,
    };
    match *service {
        Service::Any => None,
        Service::Protocol(own) => (own != seen.protocol).then(|| other_protocol(own)),
        Service::Ports { protocol, .. } | Service::Icmp { protocol, .. } if protocol != seen.protocol => {
            Some(other_protocol(protocol))
        }
        Service::Ports { first, last, .. } => {
            let port = seen.service?;
            let ports = if first == last { format!("port is {first}") } else { format!("ports are {first} to {last}") };
            let off = u32::from(first.saturating_sub(port).max(port.saturating_sub(last)));
            (off > 0).then(|| Miss { why: format!("its {ports}, not {port}"), distance: off })
        }
        Service::Icmp { kind, code, .. } => icmp(kind, code, seen.service?),
    }
}

fn icmp(kind: u8, code: Option<u8>, service: u16) -> Option<Miss> {
    let [own_kind, own_code] = service.to_be_bytes();
    if kind != own_kind {
        return Some(Miss { why: format!("its ICMP type is {kind}, not {own_kind}"), distance: 1000 });
    }
    let code = code.filter(|code| *code != own_code)?;
    Some(Miss { why: format!("its ICMP code is {code}, not {own_code}"), distance: 1 })
}

/// Why an address is not in a remote.
fn stranger(asked: &Asked, remote: &Remote, address: IpAddr) -> String {
    let members = |number: usize, what: &str| match number {
        0 => format!("which has no {what}s"),
        1 => format!("which has 1 {what}"),
        more => format!("which has {more} {what}s"),
    };
    match remote {
        // Everybody is in it.
        Remote::Any => String::new(),
        Remote::Prefix(net) => format!("{address} is not in its remote prefix {net}"),
        Remote::Group(id) => {
            let number = asked.members(id).len();
            format!(
                "{address} is no member of its remote group {}, {}",
                asked.group(id).called(),
                members(number, "member")
            )
        }
        Remote::AddressGroup(id) => {
            let group = asked.policy.address_groups.get(id);
            let name = group.filter(|group| !group.name.is_empty()).map_or(&id.0, |group| &group.name);
            let number = group.map_or(0, |group| group.addresses.len());
            format!(
                "{address} is not in its remote address group {name}, {}",
                members(number, "prefix").replace("prefixs", "prefixes")
            )
        }
    }
}
