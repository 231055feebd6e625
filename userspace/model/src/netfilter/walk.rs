//! Walks one packet through one hook, as the kernel would. Flow: explain.
//!
//! All base chains of all backends and tables that are called at the hook run, in order of their priority: a packet must
//! be let through by every one, a drop in any is the end. iptables' own order follows from its priorities: raw (-300),
//! connection tracking (-200), mangle (-150), destination NAT (-100), filter (0), security (50), source NAT (100).
//! NAT chains are asked only for the first packet of a flow, and at most one translates it.
//!
//! # What is not known
//!
//! The walk follows all worlds at once: where it is unknown whether a rule matches, the packet goes on in one world as
//! if it had matched and in another as if it had not. Worlds that come to the same rule again are joined, and what
//! differs between them (a mark, an address) is unknown from there on.
//!
//! | rule matches | target | here the packet | what follows |
//! |---|---|---|---|
//! | no | any | goes on | unchanged |
//! | yes | ACCEPT, DROP, REJECT | ends this chain | nothing in this base chain |
//! | yes | RETURN | leaves this chain | the rule after the jump |
//! | yes | jump, goto | runs the other chain | goes on with what returns from it |
//! | yes | MARK, CONNMARK, CT, LOG, none | goes on | changed |
//! | yes | a chain that was not read, a target not understood, NFQUEUE | goes on, is accepted and is dropped | in doubt |
//! | unknown | MARK, CONNMARK, CT | goes on | changed bits unknown |
//! | unknown | LOG, none | goes on | unchanged |
//! | unknown | any other | both as under "yes" and as under "no" | in doubt |
//!
//! At the end of a base chain:
//!
//! | worlds that are accepted | worlds that are dropped | outcome |
//! |---|---|---|
//! | some | none | next base chain; [`Outcome::Accept`] after the last |
//! | none | some | [`Outcome::Drop`], whatever was in doubt before |
//! | some | some | next base chain with the accepted ones; after the last [`Outcome::Unknown`] |
//!
//! So a rule that is not understood makes the outcome unknown only where it can make a difference: an ipset that may
//! let a packet return to an ACCEPT, before a DROP, does; the same before another ACCEPT does not.

use std::net::IpAddr;

use crate::fact::RuleBackend;

use super::{
    Address, BaseChain, Chain, ChainKind, ChainPolicy, CtState, Family, Hook, Known, Packet, Rule, RuleCounters,
    Ruleset, Table, Target,
    matching::{self, Truth},
};

/// What a target does to a packet it lets go on.
mod change;
/// Worlds, and where they end.
mod world;

use world::{Doubt, Dropped, Ends, World};

/// What a rule did to the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Accepted by this base chain.
    Accept,
    /// Dropped silently.
    Drop,
    /// Dropped with an answer, and which (`--reject-with`).
    Reject(Option<String>),
    /// Back to the chain that jumped here.
    Return,
    /// On in another chain.
    Jump(String),
    /// On in another chain, not coming back.
    Goto(String),
    /// The destination is now this.
    Dnat(Address, Known<u16>),
    /// The source is now this.
    Snat(Address, Known<u16>),
    /// Its mark, or its flow's, was written.
    Mark,
    /// Its zone was set.
    Zone(u16),
    /// Connection tracking does not look at it.
    NoTrack,
    /// Counted, logged, or changed in what no rule looks at.
    Pass,
    /// A process decides.
    Queue,
    /// Not understood.
    Unknown,
}

/// A rule, or a policy, that the packet met and that matched or may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who holds the rule.
    pub backend: RuleBackend,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number in the chain, from 1; `None` for the chain's policy.
    pub number: Option<u32>,
    /// Its text. Hostile.
    pub raw: String,
    /// What it counted.
    pub counters: RuleCounters,
    /// What it does.
    pub effect: Effect,
    /// The packet is sure to meet it and to match it.
    pub certain: bool,
    /// Why that is not sure, where this rule is what is not known.
    pub why: Option<String>,
}

/// How a walk ends. Steps are places in [`Walk::steps`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The packet leaves the hook.
    Accept,
    /// The packet dies.
    Drop {
        /// By which rule or policy.
        step: usize,
        /// With an answer to its sender.
        reject: bool,
    },
    /// It may die.
    Unknown {
        /// The rule that is in doubt; `None` where it is not a rule.
        step: Option<usize>,
        /// What is not known.
        why: String,
    },
}

/// A packet's way through one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The rules that matched or may have, in the order they were met.
    pub steps: Vec<Step>,
    /// How it ends.
    pub outcome: Outcome,
    /// The packet as it leaves the hook, after marks and NAT; where it died, as it was.
    pub packet: Packet,
}

impl Walk {
    /// The step the outcome is about.
    pub fn deciding(&self) -> Option<&Step> {
        let place = match self.outcome {
            Outcome::Accept => None,
            Outcome::Drop { step, .. } => Some(step),
            Outcome::Unknown { step, .. } => step,
        };
        place.and_then(|place| self.steps.get(place))
    }
}

/// Which tables are asked: those of one layer know a packet by other names than those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer<'a> {
    /// IP: routed packets, those of the namespace itself, and bridged ones that `br_netfilter` hands up.
    Network,
    /// Frames of Linux bridges, whose devices are the bridge's ports.
    Bridge,
    /// Frames of one device, at its ingress or egress.
    Device(&'a str),
}

/// Follows a packet through the IP rules of one namespace at one hook.
///
/// Tables of the other address family are passed by. A rule set that could not be read is not known here: the caller has
/// its gap.
pub fn walk(rulesets: &[&Ruleset], hook: Hook, packet: Packet) -> Walk {
    walk_layer(rulesets, Layer::Network, hook, packet)
}

/// The same for the rules of any layer.
pub fn walk_layer(rulesets: &[&Ruleset], layer: Layer<'_>, hook: Hook, packet: Packet) -> Walk {
    let mut walker = Walker { steps: Vec::new(), budget: Walker::BUDGET };
    let mut doubt: Option<Doubt> = None;
    let mut world = World::new(packet);
    for place in base_chains(rulesets, layer, hook, &world.packet) {
        let before = world.packet.clone();
        let ends = walker.base_chain(place, world);
        doubt = doubt.or_else(|| ends.dropped.iter().find_map(|dropped| dropped.doubt.clone()));
        let Some(accepted) = ends.accepted else {
            return walker.dead(&ends.dropped, before);
        };
        world = World { doubt: None, ..accepted };
    }
    let outcome = match doubt {
        None => Outcome::Accept,
        Some(doubt) => Outcome::Unknown { step: doubt.step, why: doubt.why.to_string() },
    };
    Walk { steps: walker.steps, outcome, packet: world.packet }
}

/// A chain and where it stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    hook: Hook,
    ruleset: &'a Ruleset,
    table: &'a Table,
    chain: &'a Chain,
}

/// The base chains a packet meets at a hook, in the kernel's order.
fn base_chains<'a>(rulesets: &[&'a Ruleset], layer: Layer<'_>, hook: Hook, packet: &Packet) -> Vec<Place<'a>> {
    let mut found = Vec::new();
    for &ruleset in rulesets {
        for table in &ruleset.tables {
            let family = table.family.unwrap_or(if ruleset.ipv6 { Family::Ip6 } else { Family::Ip });
            let called = table.chains().iter().filter_map(|chain| chain.base.as_ref().map(|base| (chain, base)));
            for (chain, base) in called.filter(|(_, base)| base.hook == hook && sees(family, base, layer, packet)) {
                found.push((base.priority, Place { hook, ruleset, table, chain }));
            }
        }
    }
    found.sort_by_key(|&(order, _)| order);
    found.into_iter().map(|(_, place)| place).collect()
}

/// Whether a base chain is of a layer, and of the packet's family.
fn sees(family: Family, base: &BaseChain, layer: Layer<'_>, packet: &Packet) -> bool {
    match (layer, family) {
        (Layer::Network, Family::Ip) => !packet.ipv6,
        (Layer::Network, Family::Ip6) => packet.ipv6,
        (Layer::Network, Family::Inet) | (Layer::Bridge, Family::Bridge) => true,
        (Layer::Device(name), Family::Netdev | Family::Inet) => {
            base.devices.as_ref().is_none_or(|devices| devices.iter().any(|device| device == name))
        }
        (Layer::Network | Layer::Bridge | Layer::Device(_), _) => false,
    }
}

struct Walker {
    steps: Vec<Step>,
    /// Rules that may still be looked at.
    budget: u32,
}

impl Walker {
    /// Rules looked at in one walk. The kernel refuses chains that jump in a circle, but text may hold them.
    const BUDGET: u32 = 1 << 20;
    /// Steps kept in one walk, which is more than anybody reads.
    const STEPS: usize = 1 << 14;
    /// Jumps inside of jumps; nftables allows 16, iptables as many as there are chains.
    const DEPTH: u32 = 128;

    fn dead(self, dropped: &[Dropped], packet: Packet) -> Walk {
        // All worlds die. The one that is sure to is the answer, else the last, which the others ran into.
        let decisive = dropped.iter().find(|one| one.doubt.is_none()).or(dropped.last());
        let outcome = match decisive.and_then(|one| one.step) {
            Some(step) => Outcome::Drop { step, reject: matches!(self.steps[step].effect, Effect::Reject(_)) },
            None => Outcome::Unknown {
                step: None,
                why: decisive
                    .and_then(|one| one.doubt.as_ref())
                    .map_or_else(String::new, |doubt| doubt.why.to_string()),
            },
        };
        Walk { steps: self.steps, outcome, packet }
    }

    /// Runs a base chain; every world is accepted or dropped at its end.
    fn base_chain(&mut self, place: Place<'_>, world: World) -> Ends {
        let (asks, why) = match &place.chain.base {
            Some(BaseChain { kind: ChainKind::Nat, .. }) => {
                (asks_nat(&world), "whether the packet is the first of its flow is not known")
            }
            Some(BaseChain { devices: None, .. }) => (Truth::Unknown, "which devices the chain is for is not known"),
            Some(_) | None => (Truth::Yes, ""),
        };
        match asks {
            Truth::No => Ends::accepted(world),
            Truth::Yes => self.base_rules(place, world),
            Truth::Unknown => {
                let mut asked = world.clone();
                asked.doubt(None, why);
                let mut ends = self.base_rules(place, asked);
                ends.accept(world);
                ends
            }
        }
    }

    fn base_rules(&mut self, place: Place<'_>, world: World) -> Ends {
        let mut ends = self.chain(place, world, 0);
        if let Some(world) = ends.returned.take() {
            if place.chain.policy == Some(ChainPolicy::Drop) {
                let step = self.policy(place, &world);
                ends.drop(Some(step), &world);
            } else {
                ends.accept(world);
            }
        }
        ends
    }

    /// Runs the rules of a chain.
    fn chain(&mut self, place: Place<'_>, world: World, depth: u32) -> Ends {
        let mut ends = Ends::default();
        let mut here = Some(world);
        for rule in &place.chain.rules {
            let Some(world) = here.take() else { break };
            if self.budget == 0 || self.steps.len() >= Self::STEPS {
                ends.anything(None, world, "the chains are too many or jump in a circle");
                return ends;
            }
            self.budget -= 1;
            here = match matching::rule(rule, &world.packet) {
                (Truth::No, _) => Some(world),
                (Truth::Yes, _) => self.matched(&Met { place, rule, depth, why: None }, world, &mut ends),
                (Truth::Unknown, test) => {
                    let why = test.map(change::unknown_test);
                    Some(self.perhaps(&Met { place, rule, depth, why }, world, &mut ends))
                }
            };
        }
        ends.give_back(here);
        ends
    }

    /// A rule that may match: both what it does and the packet passing it by.
    fn perhaps(&mut self, met: &Met<'_>, world: World, ends: &mut Ends) -> World {
        let step = self.steps.len();
        let why = met.why.clone().unwrap_or_default();
        let mut passing = world.clone();
        let mut hit = world;
        hit.doubt(Some(step), &why);
        let mut local = Ends::default();
        let goes_on = self.matched(met, hit, &mut local);
        if local.any() {
            passing.doubt(Some(step), &why);
            ends.merge(local);
        }
        match goes_on {
            // Where nothing has ended all worlds are together again, and nothing is in doubt that was not before.
            Some(changed) => World { doubt: passing.doubt.clone(), ..passing.join(changed) },
            None => passing,
        }
    }

    /// A rule that matches; what goes on to the next rule.
    fn matched(&mut self, met: &Met<'_>, mut world: World, ends: &mut Ends) -> Option<World> {
        match &met.rule.target {
            Target::Accept => {
                self.step(met, Effect::Accept, &world);
                ends.accept(world);
                None
            }
            Target::Drop => self.die(met, Effect::Drop, &world, ends),
            Target::Reject(with) => self.die(met, Effect::Reject(with.clone()), &world, ends),
            Target::Return => {
                self.step(met, Effect::Return, &world);
                ends.give_back(Some(world));
                None
            }
            Target::Jump(name) => {
                let step = self.step(met, Effect::Jump(name.clone()), &world);
                let inner = self.enter(met, name, world, step);
                ends.after_jump(inner)
            }
            Target::Goto(name) => {
                let step = self.step(met, Effect::Goto(name.clone()), &world);
                let inner = self.enter(met, name, world, step);
                // What returns goes where this chain would have returned to.
                ends.merge(inner);
                None
            }
            Target::Queue => self.undecided(met, Effect::Queue, world, ends),
            Target::Other(_) => self.undecided(met, Effect::Unknown, world, ends),
            target @ (Target::None
            | Target::Dnat(_)
            | Target::Snat(_)
            | Target::Masquerade(_)
            | Target::Redirect(_)
            | Target::Mark { .. }
            | Target::Connmark(_)
            | Target::Track { .. }
            | Target::Passes(_)) => {
                let effect = change::apply(target, met.place, &mut world);
                self.step(met, effect, &world);
                if world.translated_now() {
                    ends.accept(world);
                    return None;
                }
                Some(world)
            }
        }
    }

    fn die(&mut self, met: &Met<'_>, effect: Effect, world: &World, ends: &mut Ends) -> Option<World> {
        let step = self.step(met, effect, world);
        ends.drop(Some(step), world);
        None
    }

    /// Runs the chain a rule jumps to.
    fn enter(&mut self, met: &Met<'_>, name: &str, world: World, step: usize) -> Ends {
        match met.place.table.chain(name) {
            Some(chain) if met.depth < Self::DEPTH => {
                let before = world.doubt.clone();
                let mut ends = self.chain(Place { chain, ..met.place }, world, met.depth + 1);
                if !ends.decided() {
                    // Everything came back, so nothing is in doubt that was not before.
                    ends.returned.iter_mut().for_each(|world| world.doubt.clone_from(&before));
                }
                ends
            }
            Some(_) => Ends::of_anything(Some(step), world, "the chains jump too deep or in a circle"),
            None => Ends::of_anything(Some(step), world, "the chain was not read"),
        }
    }

    /// A target that may do anything.
    fn undecided(&mut self, met: &Met<'_>, effect: Effect, world: World, ends: &mut Ends) -> Option<World> {
        let why = if effect == Effect::Queue { "a process decides" } else { "the target is not understood" };
        let step = self.step(met, effect, &world);
        ends.after_jump(Ends::of_anything(Some(step), world, why))
    }

    fn step(&mut self, met: &Met<'_>, effect: Effect, world: &World) -> usize {
        let Met { place, rule, .. } = met;
        self.steps.push(Step {
            backend: place.ruleset.backend,
            table: place.table.name.clone(),
            chain: place.chain.name.clone(),
            number: Some(rule.number),
            raw: rule.raw.clone(),
            counters: rule.counters,
            effect,
            certain: met.why.is_none() && world.doubt.is_none(),
            why: met.why.clone(),
        });
        self.steps.len() - 1
    }

    fn policy(&mut self, place: Place<'_>, world: &World) -> usize {
        self.steps.push(Step {
            backend: place.ruleset.backend,
            table: place.table.name.clone(),
            chain: place.chain.name.clone(),
            number: None,
            raw: format!("-P {} DROP", place.chain.name),
            counters: place.chain.counters,
            effect: Effect::Drop,
            certain: world.doubt.is_none(),
            why: None,
        });
        self.steps.len() - 1
    }
}

/// A rule that matches or may match.
struct Met<'a> {
    place: Place<'a>,
    rule: &'a Rule,
    depth: u32,
    /// Why it is not known whether it matches.
    why: Option<String>,
}

/// Whether the kernel asks NAT rules for the packet: the first of its flow, not translated at this hook yet.
fn asks_nat(world: &World) -> Truth {
    let first = match world.packet.state {
        Known::Is(CtState::New | CtState::Related) => Truth::Yes,
        Known::Is(CtState::Established | CtState::Invalid | CtState::Untracked) | Known::Absent => Truth::No,
        Known::Unknown => Truth::Unknown,
    };
    match (first, world.bound) {
        (Truth::No, _) | (_, Truth::Yes) => Truth::No,
        (Truth::Unknown, _) | (_, Truth::Unknown) => Truth::Unknown,
        (Truth::Yes, Truth::No) => Truth::Yes,
    }
}

/// The address `REDIRECT` translates to.
const fn redirect_to(hook: Hook, ipv6: bool) -> Address {
    match (hook, ipv6) {
        (Hook::Output, false) => Address::Is(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
        (Hook::Output, true) => Address::Is(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
        _ => Address::Local,
    }
}

#[cfg(test)]
mod tests;
