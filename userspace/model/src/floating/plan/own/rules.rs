//! Rules of the host that packets of its own floating IPs meet. Flow: policy.
//!
//! netdiag's own chains come first in the chains they hang in, and decide there: what comes for a floating IP is translated
//! and let pass, what leaves by the external device leaves as its floating IP. All other rules must let every packet of it
//! through as it is.
//!
//! What comes from an address that the host does not reach by the external device goes through the host whatever its rules
//! are, as its answers could not leave past it, and so does what is sent there. So rules for such sources alone are not met
//! on the way in, and those for such destinations not on the way out, as Docker's for its other networks.

use std::{cell::RefCell, collections::BTreeMap, net::Ipv4Addr, rc::Rc};

use ipnet::Ipv4Net;

use super::{
    super::{
        fib::{Prefixes, covering},
        obstacle::passes,
    },
    Service, State, ip, slow,
};
use crate::{
    fact::{Gap, RuleBackend, RulesetFact, SourceKind},
    floating::NextHop,
    id::NetnsId,
    inventory::Inventory,
    netfilter::{Address, Hook, Known, Packet, Rule, Ruleset, Target, walk::walk},
};

/// Start of the names of netdiag's own chains.
const OWN: &str = "netdiag-";

/// Chains of netdiag's: what comes is translated, what leaves is, and what was translated passes.
const ARRIVES: &str = "netdiag-PREROUTING";
const LEAVES: &str = "netdiag-float-snat";

/// Names of tables of iptables.
const NAT: &str = "nat";
const FILTER: &str = "filter";

/// The rules of the host.
#[derive(Debug)]
pub(super) struct HostRules {
    /// Why they are not known.
    unread: bool,
    /// What netdiag's own lead where.
    arrives: BTreeMap<Ipv4Addr, Ipv4Addr>,
    leaves: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Those of others.
    others: Vec<Ruleset>,
    /// Those that what comes from outside can meet, and what is sent there, by the router that says where that is.
    met: RefCell<BTreeMap<u32, Rc<[Others; 2]>>>,
}

/// Rules of others.
#[derive(Debug)]
struct Others {
    all: Vec<Ruleset>,
    /// Without tables in which netdiag's own decide before them.
    without_nat: Vec<Ruleset>,
    without_both: Vec<Ruleset>,
}

impl Others {
    fn of(all: Vec<Ruleset>) -> Self {
        let without = |tables: &[&str]| all.iter().map(|ruleset| without_tables(ruleset, tables)).collect();
        let (without_nat, without_both) = (without(&[NAT]), without(&[NAT, FILTER]));
        Self { all, without_nat, without_both }
    }
}

/// A router of the host: where it sends what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outward<'o> {
    /// Its number.
    pub(super) router: u32,
    /// Its next hops.
    pub(super) hops: &'o Prefixes<NextHop>,
}

impl Outward<'_> {
    /// Whether none of these addresses are reached by the external device.
    fn is_elsewhere(&self, net: Ipv4Net) -> bool {
        let within = self.hops.iter().filter(|(prefix, _)| net.contains(*prefix)).map(|(_, hop)| hop);
        let around = covering(self.hops, net).map(|(_, hop)| hop);
        around.into_iter().chain(within).all(|hop| *hop == NextHop::Slow)
    }
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
        Self { unread, arrives, leaves, others, met: RefCell::default() }
    }

    /// Rules of others that something from outside can meet, and something that is sent there.
    fn met(&self, leaves: Outward<'_>) -> Rc<[Others; 2]> {
        let without = |end: fn(&Rule) -> Option<ipnet::IpNet>| {
            let elsewhere = |rule: &Rule| end(rule).and_then(super::net4).is_some_and(|net| leaves.is_elsewhere(net));
            let kept = |ruleset: &Ruleset| Ruleset {
                tables: ruleset.tables.iter().map(|table| table.clone().without(elsewhere)).collect(),
                ..*ruleset
            };
            Others::of(self.others.iter().map(kept).collect())
        };
        let make = || Rc::new([without(Rule::source), without(Rule::destination)]);
        Rc::clone(self.met.borrow_mut().entry(leaves.router).or_insert_with(make))
    }

    /// Whether netdiag's own rules are there for an address.
    pub(super) fn serves(&self, floating: Ipv4Addr) -> bool {
        self.arrives.contains_key(&floating)
    }

    /// Whether every packet of a floating IP passes as it is, both directions.
    pub(super) fn let_through(&self, service: &Service, inner: &str, leaves: Outward<'_>) -> Result<(), State> {
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
        let met = self.met(leaves);
        let [from_outside, from_inside] = &*met;
        for (rulesets, hook, packet) in [
            (&from_outside.without_nat, Hook::Prerouting, inward(to(*floating))),
            (&from_outside.without_both, Hook::Forward, through(inward(to(*fixed)), inner)),
            (&from_outside.all, Hook::Postrouting, leaving(to(*fixed), inner)),
            (&from_inside.all, Hook::Prerouting, outward(from(*fixed))),
            (&from_inside.all, Hook::Forward, through(outward(from(*fixed)), outer)),
            (&from_inside.without_nat, Hook::Postrouting, leaving(from(*fixed), outer)),
        ] {
            let rulesets: Vec<&Ruleset> = rulesets.iter().collect();
            passes(&walk(&rulesets, hook, packet), hook)?;
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
