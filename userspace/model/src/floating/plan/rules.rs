//! What the rules of a router do with packets of floating IPs. Flow: policy.
//!
//! Every rule such a packet can meet is one that Neutron's L3 agent writes, and its part in the way is known; with any other
//! rule nothing is known, and the router is left to do its work itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::{State, slow};
use crate::{
    fact::{Gap, RuleBackend, SourceKind},
    id::NetnsId,
    inventory::Inventory,
    netfilter::{ChainPolicy, Family, Hook, Rule, Ruleset, Table, Target, Test},
};

/// What single rules of Neutron's mean.
mod forms;

use forms::Form;

/// How deep chains may lead to one another; Neutron's lead four deep.
const DEEPEST: usize = 16;

/// How much of a rule is shown.
const SHOWN: usize = 160;

/// The rules of one namespace, as far as packets that are forwarded meet them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// What comes for an address goes to another; the first rule counts.
    pub(super) arrives: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// What comes from an address leaves as another; the first rule counts.
    pub(super) leaves: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Addresses some ports of which lead elsewhere.
    pub(super) forwarded: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Marks given before routing, in their order.
    before: Vec<Marking>,
    /// Marks given to what is forwarded.
    forward: Vec<Marking>,
    /// What is dropped for its mark.
    drops: Vec<MarkDrop>,
    /// Translated is only what leaves by these.
    guards: BTreeSet<String>,
    /// What leaves as the router, unless it has this mark.
    hairpins: Vec<Mark>,
    /// The router's own source translation has been met.
    gateway_met: bool,
}

/// A value of a mark, and which bits of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    value: u32,
    mask: u32,
}

impl Mark {
    const fn is(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }

    /// As `--set-xmark` does it.
    const fn set(self, mark: u32) -> u32 {
        (mark & !self.mask) ^ self.value
    }
}

/// A rule that gives a mark. What it does not name it is not for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marking {
    /// The device the packet comes in by, or goes out by where it is forwarded.
    device: Option<String>,
    /// Its destination, or its source where it is forwarded.
    address: Option<Ipv4Addr>,
    mark: Mark,
}

impl Marking {
    fn is_for(&self, device: &str, address: Ipv4Addr) -> bool {
        self.device.as_deref().is_none_or(|own| own == device) && self.address.is_none_or(|own| own == address)
    }
}

/// A rule that drops for a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MarkDrop {
    /// The device the packet leaves by; none is any.
    device: Option<String>,
    /// Drops what has not the mark.
    not: bool,
    mark: Mark,
}

/// The ends of a way through a router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Through<'n> {
    /// Name of the device to the outside.
    pub(super) outer: &'n str,
    /// Name of the device to the instance.
    pub(super) inner: &'n str,
    pub(super) floating: Ipv4Addr,
    pub(super) fixed: Ipv4Addr,
}

/// The rules of a namespace.
pub(super) fn read(inventory: &Inventory<'_>, netns: NetnsId, untracked: bool) -> Result<Rules, State> {
    let name = inventory.netns(netns).label;
    let mut gaps = inventory.snapshot.facts.gaps();
    let unread = gaps.any(|gap| {
        let concerns = gap.netns.is_none_or(|of| of == netns) && gap.object != Gap::EBTABLES;
        gap.source == SourceKind::Netfilter && !gap.absent && concerns
    });
    if unread {
        return slow(format!("the rules of {name} could not be read"));
    }
    let mut rules = Rules::default();
    for ruleset in inventory.rulesets(netns).iter().filter(|ruleset| !ruleset.ipv6) {
        for table in &ruleset.tables {
            Reader { rules: &mut rules, table, name: &name, untracked }.table(ruleset)?;
        }
    }
    Ok(rules)
}

struct Reader<'r> {
    rules: &'r mut Rules,
    table: &'r Table,
    /// Name of the namespace.
    name: &'r str,
    /// Nothing is tracked here, and that is as it should be.
    untracked: bool,
}

impl Reader<'_> {
    fn table(&mut self, ruleset: &Ruleset) -> Result<(), State> {
        if self.table.family == Some(Family::Ip6) {
            return Ok(());
        }
        let foreign = ruleset.backend == RuleBackend::Nft;
        for chain in self.table.chains() {
            let Some(base) = &chain.base else { continue };
            let (does_nothing, drops) = (chain.rules.is_empty(), chain.policy == Some(ChainPolicy::Drop));
            if does_nothing && !drops {
                continue;
            }
            if foreign {
                return slow(format!(
                    "{} has rules of nft in table {}, which only it can keep",
                    self.name, self.table.name
                ));
            }
            match base.hook {
                Hook::Input | Hook::Output => {}
                Hook::Prerouting | Hook::Forward | Hook::Postrouting | Hook::Ingress | Hook::Egress => {
                    if drops {
                        let (table, chain) = (&self.table.name, &chain.name);
                        return slow(format!(
                            "{} drops what no rule of chain {chain} (table {table}) lets pass",
                            self.name
                        ));
                    }
                    self.chain(&chain.rules, base.hook, (None, DEEPEST))?;
                }
            }
        }
        Ok(())
    }

    /// The rules of a chain; `source` is the address all packets that come here are from.
    fn chain(&mut self, rules: &[Rule], hook: Hook, (source, depth): (Option<Ipv4Addr>, usize)) -> Result<(), State> {
        for rule in rules {
            let (Target::Jump(to) | Target::Goto(to)) = &rule.target else {
                self.rule(rule, hook, source)?;
                continue;
            };
            let next = self.table.chain(to).map_or(&[][..], |chain| &chain.rules);
            if self.is_idle(next, depth) {
                continue;
            }
            let source = match (&rule.matches[..], forms::only_source(rule)) {
                ([], _) => source,
                // Marks of what one fixed address sends.
                (_, Some(address)) if hook == Hook::Forward && self.table.name == "mangle" => Some(address),
                _ => return self.unknown(rule),
            };
            let Some(depth) = depth.checked_sub(1) else { return self.unknown(rule) };
            self.chain(next, hook, (source, depth))?;
        }
        Ok(())
    }

    /// Whether a chain does nothing, wherever it leads.
    fn is_idle(&self, rules: &[Rule], depth: usize) -> bool {
        let leads_nowhere = |rule: &Rule| {
            let (Target::Jump(to) | Target::Goto(to)) = &rule.target else { return rule.target == Target::Return };
            let next = self.table.chain(to).map_or(&[][..], |chain| &chain.rules);
            depth > 0 && self.is_idle(next, depth - 1)
        };
        rules.iter().all(leads_nowhere)
    }

    fn rule(&mut self, rule: &Rule, hook: Hook, source: Option<Ipv4Addr>) -> Result<(), State> {
        let Some(form) = forms::form(&self.table.name, hook, rule) else { return self.unknown(rule) };
        let rules = &mut *self.rules;
        match form {
            Form::Nothing => {}
            Form::Untracked if self.untracked => {}
            Form::Untracked => return self.unknown(rule),
            Form::Arrives { floating, fixed } => {
                rules.arrives.entry(floating).or_insert(fixed);
            }
            Form::Forwarded { floating, fixed } => {
                rules.forwarded.entry(floating).or_insert(fixed);
            }
            Form::Leaves { .. } if rules.gateway_met => return self.unknown(rule),
            Form::Leaves { floating, fixed } => {
                rules.leaves.entry(fixed).or_insert(floating);
            }
            Form::Gateway => rules.gateway_met = true,
            Form::Hairpin(mark) => {
                rules.gateway_met = true;
                rules.hairpins.push(mark);
            }
            Form::Guard(device) => {
                rules.guards.insert(device);
            }
            Form::Marks { device, address, mark } => {
                let marks = if hook == Hook::Prerouting { &mut rules.before } else { &mut rules.forward };
                marks.push(Marking { device, address: address.or(source), mark });
            }
            Form::Drops { device, not, mark } => rules.drops.push(MarkDrop { device, not, mark }),
        }
        Ok(())
    }

    fn unknown<T>(&self, rule: &Rule) -> Result<T, State> {
        let shown: String = rule.raw.chars().take(SHOWN).collect();
        slow(format!("{} has a rule in table {} that only it can keep: {shown}", self.name, self.table.name))
    }
}

impl Rules {
    /// Whether the rules let a floating IP through as the fast way would, in both directions.
    pub(super) fn let_through(&self, name: &str, way: Through<'_>) -> Result<(), State> {
        if let Some(guard) = self.guards.iter().find(|guard| *guard != way.outer) {
            return slow(format!("{name} translates only what leaves by {guard}, and this leaves by {}", way.outer));
        }
        let marks = |marks: &[Marking], mark: u32, device: &str, address: Ipv4Addr| {
            marks.iter().filter(|one| one.is_for(device, address)).fold(mark, |mark, one| one.mark.set(mark))
        };
        let inward = marks(&self.before, 0, way.outer, way.floating);
        let outward = marks(&self.before, 0, way.inner, Ipv4Addr::UNSPECIFIED);
        let outward = marks(&self.forward, outward, way.outer, way.fixed);
        for (mark, device) in [(inward, way.inner), (outward, way.outer)] {
            let drops = |drop: &&MarkDrop| {
                drop.device.as_deref().is_none_or(|own| own == device) && drop.mark.is(mark) != drop.not
            };
            if self.drops.iter().any(|drop| drops(&drop)) {
                return slow(format!("{name} keeps the address scopes of {} and {} apart", way.outer, way.inner));
            }
        }
        if self.hairpins.iter().any(|hairpin| !hairpin.is(inward)) {
            return slow(format!("{name} does not mark what comes in by {}, and so translates its source", way.outer));
        }
        Ok(())
    }
}

/// The address of a /32.
fn four(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(four) => Some(four),
        IpAddr::V6(_) => None,
    }
}

/// Whether all tests of a rule are of these kinds.
fn only(rule: &Rule, kinds: impl Fn(&Test, bool) -> bool) -> bool {
    rule.matches.iter().all(|one| kinds(&one.test, one.not))
}
