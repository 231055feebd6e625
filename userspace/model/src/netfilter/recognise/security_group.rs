//! Neutron's security groups as the hybrid and Linux bridge drivers write them. Flow: explain.
//!
//! A port has three chains, named by a letter and the first ten characters of its id: `i` for what goes to the instance,
//! `o` for what comes from it, `s` for the pairs of address and MAC it may send with. Ports without port security have
//! no chains and an ACCEPT by their device.

use std::collections::{BTreeMap, BTreeSet};

use super::{RuleAt, named, neutron::agent_rules, prefixes, rules};
use crate::netfilter::{Chain, Rule, Table, Target, Test};

/// How a port's packets are filtered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortClass {
    /// By the rules of its security groups.
    #[default]
    Filtered,
    /// Not: port security is off, or the port is the network's own.
    Open,
}

/// A port in the packet filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HybridPort {
    /// First ten characters of the port's id.
    pub key: String,
    /// The whole id, where a rule's comment holds it. Hostile text.
    pub id: Option<String>,
    /// The device its rules are for: `tap1a2b3c4d-5e`.
    pub device: Option<String>,
    /// Filtered or open.
    pub class: PortClass,
    /// Chain for what goes to the instance.
    pub ingress: Option<String>,
    /// Chain for what comes from it.
    pub egress: Option<String>,
    /// Chain of the addresses it may send from.
    pub spoof: Option<String>,
    /// The rules that lead into those chains, or that accept for an open port.
    pub entries: Vec<RuleAt>,
    /// Connection tracking zone.
    pub zone: Option<u16>,
    /// Its groups are stateless: not tracked.
    pub stateless: bool,
    /// ipsets its rules look into, each once.
    pub sets: BTreeSet<String>,
}

impl HybridPort {
    /// What a filtered port should have and has not.
    pub fn missing(&self) -> Vec<&'static str> {
        if self.class == PortClass::Open {
            return Vec::new();
        }
        let mut missing = Vec::new();
        missing.extend(self.ingress.is_none().then_some("the chain for what goes to the instance"));
        missing.extend(self.egress.is_none().then_some("the chain for what comes from the instance"));
        missing.extend(self.entries.is_empty().then_some("the rules that lead into its chains"));
        missing.extend((self.zone.is_none() && !self.stateless).then_some("its connection tracking zone"));
        missing
    }
}

/// All ports in the packet filter, by the start of their id.
pub fn hybrid_ports(tables: &[Table]) -> Vec<HybridPort> {
    let mut ports = BTreeMap::new();
    for prefix in prefixes(tables) {
        for table in named(tables, "filter") {
            chains(table, &prefix, &mut ports);
        }
    }
    for (chain, open) in [("FORWARD", true), ("INPUT", false), ("sg-chain", false)] {
        for (at, rule) in agent_rules(tables, "filter", chain) {
            entry(&mut ports, at, rule, open);
        }
    }
    for (_, rule) in agent_rules(tables, "raw", "PREROUTING") {
        tracking(&mut ports, rule);
    }
    ports.into_values().collect()
}

type Ports = BTreeMap<String, HybridPort>;

fn port<'a>(ports: &'a mut Ports, key: &str) -> &'a mut HybridPort {
    ports.entry(key.to_owned()).or_insert_with(|| HybridPort { key: key.to_owned(), ..HybridPort::default() })
}

fn chains(table: &Table, prefix: &str, ports: &mut Ports) {
    for Chain { name, .. } in table.chains() {
        let Some((letter, key)) = port_chain(prefix, name) else { continue };
        let port = port(ports, key);
        match letter {
            'i' => port.ingress = Some(name.clone()),
            'o' => port.egress = Some(name.clone()),
            _ => port.spoof = Some(name.clone()),
        }
        for rule in rules(table, name) {
            let set = rule.find(|test| if let Test::Set { name, .. } = test { Some(name) } else { None });
            port.sets.extend(set.map(|(_, name)| name.clone()));
        }
    }
}

/// Letter and key of `<prefix>-i1a2b3c4d-5`; none for `<prefix>-sg-fallback`, which is as long.
pub(super) fn port_chain<'a>(prefix: &str, chain: &'a str) -> Option<(char, &'a str)> {
    let name = chain.strip_prefix(prefix)?.strip_prefix('-')?;
    let letter = name.chars().next().filter(|letter| matches!(letter, 'i' | 'o' | 's'))?;
    let key = &name[1..];
    is_key(key).then_some((letter, key))
}

/// Whether it is the first ten characters of a UUID.
fn is_key(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(place, byte)| if place == 8 { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

/// A rule that leads into a port's chains, or accepts by its device.
fn entry(ports: &mut Ports, at: RuleAt, rule: &Rule, open: bool) {
    let Some(device) = bridge_port(rule) else { return };
    let Some(key) = key_of(device) else { return };
    let accepts = open && rule.target == Target::Accept;
    if !accepts && !matches!(rule.target, Target::Jump(_) | Target::Goto(_)) {
        return;
    }
    let port = port(ports, key);
    if accepts {
        port.class = PortClass::Open;
    }
    port.device.get_or_insert_with(|| device.to_owned());
    port.entries.push(at);
}

/// A rule of the raw table that sets a port's zone or leaves it untracked.
fn tracking(ports: &mut Ports, rule: &Rule) {
    let Target::Track { zone, notrack } = rule.target else { return };
    let device = bridge_port(rule).or_else(|| rule.in_device().and_then(|(_, pattern)| pattern.exact()));
    let Some(key) = device.and_then(key_of) else { return };
    let port = port(ports, key);
    port.zone = port.zone.or(zone);
    port.stateless |= notrack;
    // `Set zone for <id>`, `Make <id> stateless`.
    let id = rule.comment.as_deref().and_then(|comment| comment.split(' ').find(|word| word.starts_with(&port.key)));
    port.id = port.id.take().or(id.map(str::to_owned));
}

fn bridge_port(rule: &Rule) -> Option<&str> {
    let device =
        rule.find(
            |test| {
                if let Test::PhysdevIn(pattern) | Test::PhysdevOut(pattern) = test { Some(pattern) } else { None }
            },
        );
    device.filter(|(not, _)| !not).and_then(|(_, pattern)| pattern.exact())
}

/// The start of the port's id in a device name of three letters and eleven characters of the id.
fn key_of(device: &str) -> Option<&str> {
    device.get(3..13).filter(|key| is_key(key))
}
