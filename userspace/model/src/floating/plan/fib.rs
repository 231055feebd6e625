//! Routes of a namespace, as prefixes. Flow: policy.
//!
//! The kernel asks tables in the order of its rules, and in each the longest prefix decides. Here that is one set of prefixes of
//! which the longest decides. A rule that asks for more than a packet's source and its device makes the answer unknown.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    fact::{NetworkFact, PolicyRuleFact, RouteFact},
    id::IfIndex,
};

/// Main routing table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;

/// Table of a namespace's own addresses (`RT_TABLE_LOCAL`), whose routes are not among the facts.
const LOCAL: u32 = 255;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// Out of a device, to a gateway or to the destination itself.
    By(IfIndex, Option<Ipv4Addr>),
    /// Not to one next hop.
    Nowhere,
}

/// A packet to be routed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'n> {
    /// Its source; none is any.
    pub(super) source: Option<Ipv4Addr>,
    /// The device it came in by.
    pub(super) by: &'n str,
}

/// Prefixes of which the longest decides.
pub(super) type Prefixes<T> = BTreeMap<Ipv4Net, T>;

/// The longest prefix that covers another.
pub(super) fn covering<T>(prefixes: &Prefixes<T>, of: Ipv4Net) -> Option<(Ipv4Net, &T)> {
    let shorter = (0..=of.prefix_len()).rev().filter_map(|length| Ipv4Net::new(of.network(), length).ok());
    shorter.map(|net| net.trunc()).find_map(|net| prefixes.get(&net).map(|found| (net, found)))
}

/// The tables a packet is looked up in, in their order; the error is what is not understood.
pub(super) fn tables(network: &NetworkFact, asked: Asked<'_>) -> Result<Vec<u32>, String> {
    let mut rules: Vec<_> = network.rules.iter().filter(|rule| !rule.ipv6).collect();
    rules.sort_by_key(|rule| rule.priority);
    if rules.is_empty() {
        // A kernel without CONFIG_IP_MULTIPLE_TABLES has no rules.
        return Ok(vec![MAIN]);
    }
    let mut tables = Vec::new();
    for rule in rules {
        match (applies(rule, asked), rule.action.as_str()) {
            (Some(false), _) | (Some(true), "nop") => {}
            (Some(true), "lookup") if rule.table == LOCAL || tables.contains(&rule.table) => {}
            (Some(true), "lookup") => tables.push(rule.table),
            (None | Some(true), _) => return Err(format!("its routing rule of priority {}", rule.priority)),
        }
    }
    Ok(tables)
}

/// Whether a rule is for a packet; none where that depends on more than is known.
fn applies(rule: &PolicyRuleFact, asked: Asked<'_>) -> Option<bool> {
    let by = rule.iif.as_deref().is_none_or(|iif| iif == asked.by);
    // What is forwarded is bound to no device.
    if rule.oif.is_some() || !by {
        return if rule.inverted { None } else { Some(false) };
    }
    let from = match (rule.source, asked.source) {
        (None, _) => Some(true),
        (Some(net), _) if net.prefix_len() == 0 => Some(net.addr().is_ipv4()),
        (Some(net), Some(source)) => Some(net.contains(&std::net::IpAddr::V4(source))),
        (Some(_), None) => None,
    };
    let plain = rule.destination.is_none() && rule.fwmark.is_none() && !rule.inverted && !rule.conditional;
    match from {
        Some(false) if !rule.inverted => Some(false),
        Some(_) | None => from.filter(|_| plain),
    }
}

/// The routes of some tables, the first before the others.
pub(super) fn prefixes(network: &NetworkFact, tables: &[u32]) -> Prefixes<Leads> {
    let mut all = Prefixes::new();
    for table in tables {
        let mut of_table: Prefixes<(u32, Leads)> = Prefixes::new();
        for route in network.routes.iter().filter(|route| route.table == *table) {
            let IpNet::V4(prefix) = route.destination else { continue };
            // An earlier table has a route for all of it.
            if covering(&all, prefix).is_some() {
                continue;
            }
            let known = of_table.entry(prefix).or_insert((route.metric, leads(route)));
            if known.0 > route.metric {
                *known = (route.metric, leads(route));
            } else if known.0 == route.metric && known.1 != leads(route) {
                // Which of two counts is not told, as they differ in what is not known.
                known.1 = Leads::Nowhere;
            }
        }
        all.extend(of_table.into_iter().map(|(prefix, (_, leads))| (prefix, leads)));
    }
    all
}

fn leads(route: &RouteFact) -> Leads {
    let [hop] = &route.next_hops[..] else { return Leads::Nowhere };
    let gateway = match hop.gateway {
        None => None,
        Some(std::net::IpAddr::V4(gateway)) => Some(gateway),
        Some(std::net::IpAddr::V6(_)) => return Leads::Nowhere,
    };
    match hop.ifindex {
        Some(device) if route.kind == "unicast" && !hop.dead => Leads::By(device, gateway),
        Some(_) | None => Leads::Nowhere,
    }
}

/// Where a packet from anywhere to one address is sent; the error is what is not understood.
pub(super) fn toward(network: &NetworkFact, by: &str, address: Ipv4Addr) -> Result<Option<Leads>, String> {
    let mut rules: Vec<_> = network.rules.iter().filter(|rule| !rule.ipv6).collect();
    rules.sort_by_key(|rule| rule.priority);
    let of_table = |table: u32| {
        let known = prefixes(network, &[table]);
        covering(&known, Ipv4Net::from(address)).map(|(_, leads)| *leads)
    };
    if rules.is_empty() {
        return Ok(of_table(MAIN));
    }
    for rule in rules {
        let found = match (applies(rule, Asked { source: None, by }), rule.action.as_str()) {
            (Some(false), _) | (Some(true), "nop") => None,
            (Some(true), "lookup") if rule.table == LOCAL => None,
            (Some(true), "lookup") => of_table(rule.table),
            (None | Some(true), _) => return Err(format!("its routing rule of priority {}", rule.priority)),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
