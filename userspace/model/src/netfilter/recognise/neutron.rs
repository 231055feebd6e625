//! Neutron's agents by their chains, and the floating IPs of its routers. Flow: explain.
//!
//! Legacy and HA routers translate in `qrouter-`, in the chains PREROUTING, OUTPUT and `float-snat`; distributed routers
//! match the device `rfp-` as well and have no OUTPUT rule. Half pairs are returned too: a floating IP that has lost one
//! of its rules is what an operator looks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{RuleAt, host, named, rules, whole};
use crate::netfilter::{Rule, Table, Target};

/// Prefixes of agents whose chains are in these tables, each once.
///
/// An agent's `<prefix>-PREROUTING` is jumped to from PREROUTING, and so on; that others name chains in that way too
/// (`KUBE-FORWARD`) is told apart by the chains only Neutron has.
pub fn prefixes(tables: &[Table]) -> Vec<String> {
    let mut found = BTreeSet::new();
    for table in tables {
        for chain in table.chains().iter().filter(|chain| chain.base.is_some()) {
            for rule in &chain.rules {
                let Target::Jump(name) = &rule.target else { continue };
                let prefix = name.strip_suffix(&chain.name).and_then(|start| start.strip_suffix('-'));
                found.extend(prefix.filter(|prefix| is_agent(tables, prefix)).map(str::to_owned));
            }
        }
    }
    found.into_iter().collect()
}

/// Neutron's binaries are called `neutron-…`; a renamed one still makes the chains `local`, `snat` and `sg-fallback`.
fn is_agent(tables: &[Table], prefix: &str) -> bool {
    let has =
        |table: &str, name: &str| named(tables, table).any(|table| table.chain(&format!("{prefix}-{name}")).is_some());
    prefix.starts_with("neutron-") || has("filter", "local") || has("nat", "float-snat") || has("filter", "sg-fallback")
}

/// The NAT rules of one floating IP with one fixed IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingIpRules {
    /// The address outside.
    pub floating: IpAddr,
    /// The instance's.
    pub fixed: IpAddr,
    /// The device the DNAT rule is bound to: `rfp-` of a distributed router, none of the others.
    pub device: Option<String>,
    /// Inward: `-d FLOATING -j DNAT --to-destination FIXED`.
    pub dnat: Option<RuleAt>,
    /// From the router itself; distributed routers have none.
    pub output: Option<RuleAt>,
    /// Outward: `-s FIXED -j SNAT --to-source FLOATING`.
    pub snat: Option<RuleAt>,
}

impl FloatingIpRules {
    /// Distributed: the router has this floating IP on this host only.
    pub fn distributed(&self) -> bool {
        self.device.is_some()
    }

    /// The rules that should be there and are not, by the chain they belong to.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        missing.extend(self.dnat.is_none().then_some("PREROUTING"));
        missing.extend((self.output.is_none() && !self.distributed()).then_some("OUTPUT"));
        missing.extend(self.snat.is_none().then_some("float-snat"));
        missing
    }
}

/// The floating IPs in a router's tables, in the order of their first rule.
pub fn floating_ips(tables: &[Table]) -> Vec<FloatingIpRules> {
    let mut found = Vec::new();
    let mut places = BTreeMap::new();
    for prefix in prefixes(tables) {
        for table in named(tables, "nat") {
            for (name, half) in [("PREROUTING", Half::Dnat), ("OUTPUT", Half::Output), ("float-snat", Half::Snat)] {
                let chain = format!("{prefix}-{name}");
                for rule in rules(table, &chain) {
                    add((&mut found, &mut places), rule, half, RuleAt::new(table, &chain, rule));
                }
            }
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Dnat,
    Output,
    Snat,
}

/// Floating IPs, and the place of each pair among them: a router may have thousands.
type Found<'f> = (&'f mut Vec<FloatingIpRules>, &'f mut BTreeMap<(IpAddr, IpAddr), usize>);

fn add((found, places): Found<'_>, rule: &Rule, half: Half, at: RuleAt) {
    let Some((floating, fixed)) = pair(rule, half) else { return };
    let place = *places.entry((floating, fixed)).or_insert_with(|| {
        found.push(FloatingIpRules { floating, fixed, device: None, dnat: None, output: None, snat: None });
        found.len() - 1
    });
    let one = &mut found[place];
    match half {
        Half::Dnat => {
            let device = rule.in_device().filter(|(not, _)| !not).map(|(_, pattern)| pattern.to_string());
            one.device = one.device.take().or(device);
            one.dnat.get_or_insert(at);
        }
        Half::Output => {
            one.output.get_or_insert(at);
        }
        Half::Snat => {
            one.snat.get_or_insert(at);
        }
    }
}

/// Floating and fixed address of a rule that translates the whole address, all protocols and ports.
fn pair(rule: &Rule, half: Half) -> Option<(IpAddr, IpAddr)> {
    match (&rule.target, half) {
        (Target::Dnat(to), Half::Dnat | Half::Output) => Some((host(rule.destination()?)?, whole(rule, to)?)),
        (Target::Snat(to), Half::Snat) => Some((whole(rule, to)?, host(rule.source()?)?)),
        _ => None,
    }
}

/// The rules of the chains `<prefix>-<name>` of all agents in a table, with their places.
pub(super) fn agent_rules<'a>(tables: &'a [Table], table: &str, name: &str) -> Vec<(RuleAt, &'a Rule)> {
    let mut found = Vec::new();
    for prefix in prefixes(tables) {
        let chain = format!("{prefix}-{name}");
        for table in named(tables, table) {
            found.extend(rules(table, &chain).iter().map(|rule| (RuleAt::new(table, &chain, rule), rule)));
        }
    }
    found
}
