//! Docker's rules, releases 20.10 to 29. Flow: explain.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{RuleAt, host, named, rules};
use crate::netfilter::{PortRange, Rule, Table, Target};

/// A published port: `docker run -p`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The host's address it is published on; `None` for all.
    pub address: Option<IpAddr>,
    /// IP protocol number.
    pub protocol: u8,
    /// The host's ports.
    pub ports: PortRange,
    /// The container's address.
    pub to: IpAddr,
    /// The container's ports; the same where none.
    pub to_ports: Option<PortRange>,
    /// The bridge the container is on, whose own packets are not translated.
    pub bridge: Option<String>,
    /// The rule.
    pub rule: RuleAt,
}

/// Published ports: the DNAT rules of chain DOCKER.
pub fn publications(tables: &[Table]) -> Vec<Publication> {
    let all = named(tables, "nat").flat_map(|table| rules(table, "DOCKER").iter().map(move |rule| (table, rule)));
    all.filter_map(|(table, rule)| publication(rule, RuleAt::new(table, "DOCKER", rule))).collect()
}

fn publication(rule: &Rule, at: RuleAt) -> Option<Publication> {
    let Target::Dnat(to) = &rule.target else { return None };
    Some(Publication {
        address: rule.destination().and_then(host),
        protocol: rule.protocol()?,
        ports: rule.destination_ports()?,
        to: to.address()?,
        to_ports: to.ports.map(|ports| ports.range),
        bridge: except_device(rule),
        rule: at,
    })
}

/// A subnet that leaves under an address of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The subnet; `None` for all.
    pub source: Option<IpNet>,
    /// The bridge that does not count as leaving.
    pub bridge: Option<String>,
    /// The rule.
    pub rule: RuleAt,
}

/// The MASQUERADE rules of POSTROUTING, whoever made them.
pub fn masquerades(tables: &[Table]) -> Vec<Masquerade> {
    let chain = "POSTROUTING";
    let all = named(tables, "nat").flat_map(|table| rules(table, chain).iter().map(move |rule| (table, rule)));
    all.filter(|(_, rule)| matches!(rule.target, Target::Masquerade(_)))
        .map(|(table, rule)| Masquerade {
            source: rule.source(),
            bridge: match rule.out_device() {
                Some((true, pattern)) => pattern.exact().map(str::to_owned),
                _ => None,
            },
            rule: RuleAt::new(table, chain, rule),
        })
        .collect()
}

/// A container's address that is closed to packets which come by another device than its bridge (Docker 28 and later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectAccessDrop {
    /// The container's address, or the loopback address a port is published on.
    pub destination: IpNet,
    /// The only device packets may come by.
    pub device: String,
    /// The rule, in table raw: it drops before any filter and before DOCKER-USER.
    pub rule: RuleAt,
}

/// `*raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP`.
pub fn direct_access_drops(tables: &[Table]) -> Vec<DirectAccessDrop> {
    let chain = "PREROUTING";
    let all = named(tables, "raw").flat_map(|table| rules(table, chain).iter().map(move |rule| (table, rule)));
    all.filter_map(|(table, rule)| {
        let destination = rule.destination().filter(|_| rule.target == Target::Drop)?;
        Some(DirectAccessDrop { destination, device: except_device(rule)?, rule: RuleAt::new(table, chain, rule) })
    })
    .collect()
}

/// The device of `! -i docker0`.
pub(super) fn except_device(rule: &Rule) -> Option<String> {
    match rule.in_device() {
        Some((true, pattern)) => pattern.exact().map(str::to_owned),
        _ => None,
    }
}
