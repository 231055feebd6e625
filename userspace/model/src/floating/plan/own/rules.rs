//! Rules of the host that packets of its own floating IPs meet. Flow: policy.
//!
//! netdiag's own chains come first in the chains they hang in, and decide there: what comes for a floating IP is translated
//! and let pass, what leaves by the external device leaves as its floating IP. All other rules must let every packet of it
//! through as it is.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{Service, State, ip, slow};
use crate::{
    fact::{Gap, RuleBackend, RulesetFact, SourceKind},
    id::NetnsId,
    inventory::Inventory,
    netfilter::{
        Address, Hook, Known, Outcome, Packet, Rule, Ruleset, Step, Target,
        walk::{Effect, Walk, walk},
    },
};

/// Start of the names of netdiag's own chains.
const OWN: &str = "netdiag-";

/// Chains of netdiag's: what comes is translated, what leaves is, and what was translated passes.
const ARRIVES: &str = "netdiag-PREROUTING";
const LEAVES: &str = "netdiag-float-snat";

/// Names of tables of iptables.
const NAT: &str = "nat";
const FILTER: &str = "filter";

/// How much of a rule is shown.
const SHOWN: usize = 160;

/// The rules of the host.
#[derive(Debug)]
pub(super) struct HostRules {
    /// Why they are not known.
    unread: bool,
    /// What netdiag's own lead where.
    arrives: BTreeMap<Ipv4Addr, Ipv4Addr>,
    leaves: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Those of others: all, and without tables in which netdiag's decide before them.
    others: Vec<Ruleset>,
    without_nat: Vec<Ruleset>,
    without_both: Vec<Ruleset>,
}

impl HostRules {
    /// The rules of the host's namespace.
    pub(super) fn read(inventory: &Inventory<'_>, host: NetnsId) -> Self {
        let facts = &inventory.snapshot.facts;
        let unread = facts.gaps().any(|gap| {
            let concerns = gap.netns.is_none_or(|of| of == host) && gap.object != Gap::EBTABLES;
            gap.source == SourceKind::Netfilter && !gap.absent && concerns
        });
        let (mut arrives, mut leaves) = (BTreeMap::new(), BTreeMap::new());
        for table in inventory.rulesets(host).iter().flat_map(|ruleset| &ruleset.tables) {
            let own = |chain: &str| table.chain(chain).map_or(&[][..], |chain| &chain.rules);
            for rule in own(ARRIVES) {
                if let (Some(from), Target::Dnat(to)) = (rule.destination(), &rule.target) {
                    arrives.extend(pair(from, to.address()));
                }
            }
            for rule in own(LEAVES) {
                if let (Some(from), Target::Snat(to), Some(_)) = (rule.source(), &rule.target, rule.out_device()) {
                    leaves.extend(pair(from, to.address()));
                }
            }
        }
        let others: Vec<Ruleset> =
            facts.rulesets.iter().filter(|fact| fact.netns == host && !fact.ipv6).map(without_own).collect();
        let without = |tables: &[&str]| others.iter().map(|ruleset| without_tables(ruleset, tables)).collect();
        let (without_nat, without_both) = (without(&[NAT]), without(&[NAT, FILTER]));
        Self { unread, arrives, leaves, others, without_nat, without_both }
    }

    /// Whether netdiag's own rules are there for an address.
    pub(super) fn serves(&self, floating: Ipv4Addr) -> bool {
        self.arrives.contains_key(&floating)
    }

    /// Whether every packet of a floating IP passes as it is, both directions.
    pub(super) fn let_through(&self, service: &Service, inner: &str) -> Result<(), State> {
        let Service { floating_ip_address: floating, fixed_ip_address: fixed, device: outer, .. } = service;
        if self.unread {
            return slow("the rules of this host could not be read");
        }
        if self.arrives.get(floating) != Some(fixed) || self.leaves.get(fixed) != Some(floating) {
            return slow("the rules that translate it on this host are not there yet");
        }
        let device = |name: &str| Known::Is(name.to_owned());
        let to = |address: Ipv4Addr| Packet { destination: Address::Is(ip(address)), ..any() };
        let from = |address: Ipv4Addr| Packet { source: Address::Is(ip(address)), ..any() };
        let inward = |packet: Packet| Packet { in_device: device(outer), ..packet };
        let outward = |packet: Packet| Packet { in_device: device(inner), ..packet };
        let through = |packet: Packet, out: &str| Packet { out_device: device(out), ..packet };
        let leaving =
            |packet: Packet, out: &str| Packet { out_device: device(out), in_device: Known::Absent, ..packet };
        for (rulesets, hook, packet) in [
            (&self.without_nat, Hook::Prerouting, inward(to(*floating))),
            (&self.without_both, Hook::Forward, through(inward(to(*fixed)), inner)),
            (&self.others, Hook::Postrouting, leaving(to(*fixed), inner)),
            (&self.others, Hook::Prerouting, outward(from(*fixed))),
            (&self.others, Hook::Forward, through(outward(from(*fixed)), outer)),
            (&self.without_nat, Hook::Postrouting, leaving(from(*fixed), outer)),
        ] {
            let rulesets: Vec<&Ruleset> = rulesets.iter().collect();
            let walked = walk(&rulesets, hook, packet);
            passes(&walked, hook, |step| comes_from(&rulesets, step, service.network))?;
        }
        Ok(())
    }
}

/// A packet of which only its family is known, and that it is forwarded.
fn any() -> Packet {
    Packet { to_local: Known::Is(false), ..Packet::between(Address::Unknown, Address::Unknown) }
}

fn pair(from: ipnet::IpNet, to: Option<std::net::IpAddr>) -> Option<(Ipv4Addr, Ipv4Addr)> {
    Some((super::net4(from)?.addr(), super::super::world::four(to?)?))
}

/// Rules without those in netdiag's own chains, which then do nothing.
fn without_own(fact: &RulesetFact) -> Ruleset {
    let own = |line: &&str| line.contains(&format!("-A {OWN}"));
    let text: Vec<&str> = fact.text.lines().filter(|line| !own(line)).collect();
    let text = if fact.backend == RuleBackend::Nft { fact.text.clone() } else { text.join("\n") };
    Ruleset::read(fact.backend, fact.ipv6, &text).0
}

fn without_tables(ruleset: &Ruleset, tables: &[&str]) -> Ruleset {
    let foreign = ruleset.backend == RuleBackend::Nft;
    let kept = ruleset.tables.iter().filter(|table| foreign || !tables.contains(&table.name.as_str()));
    Ruleset { tables: kept.cloned().collect(), ..*ruleset }
}

/// Whether a rule is for what comes from a network, and so not for what comes from outside.
fn comes_from(rulesets: &[&Ruleset], step: &Step, network: Ipv4Net) -> bool {
    let of_step = |ruleset: &&&Ruleset| ruleset.backend == step.backend;
    let tables = rulesets.iter().filter(of_step).flat_map(|ruleset| &ruleset.tables);
    let mut rules = tables.filter(|table| table.name == step.table).filter_map(|table| {
        let place = usize::try_from(step.number?.checked_sub(1)?).ok()?;
        table.chain(&step.chain)?.rules.get(place)
    });
    let source = rules.next().and_then(Rule::source).and_then(super::net4);
    source.is_some_and(|source| network.contains(&source))
}

/// Whether a packet leaves a hook as it came, and nobody wanted to see it. `inside` tells of a rule that may match that it
/// does not.
fn passes(walk: &Walk, hook: Hook, inside: impl Fn(&Step) -> bool) -> Result<(), State> {
    let shown = |raw: &str| raw.chars().take(SHOWN).collect::<String>();
    let name = hook.name();
    match &walk.outcome {
        Outcome::Accept => {}
        Outcome::Drop { step, .. } | Outcome::Unknown { step: Some(step), .. } => {
            let rule = walk.steps.get(*step).map_or_else(String::new, |step| shown(&step.raw));
            return slow(format!("a rule of this host decides about its packets in {name}: {rule}"));
        }
        Outcome::Unknown { step: None, why } => {
            return slow(format!("what the rules of this host do with its packets in {name} is not known: {why}"));
        }
    }
    let seen = walk.steps.iter().find(|step| match step.effect {
        Effect::Accept | Effect::Return | Effect::Jump(_) | Effect::Goto(_) | Effect::Mark => false,
        Effect::Snat(..) => step.certain || !inside(step),
        Effect::Drop
        | Effect::Reject(_)
        | Effect::Dnat(..)
        | Effect::Zone(_)
        | Effect::NoTrack
        | Effect::Pass
        | Effect::Queue
        | Effect::Unknown => true,
    });
    match seen {
        Some(step) => slow(format!("a rule of this host has to see its packets in {name}: {}", shown(&step.raw))),
        None => Ok(()),
    }
}
