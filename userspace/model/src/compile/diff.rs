//! From some tables to others, as writes in an order that no packet can tell. Flow: policy.

use std::collections::{BTreeMap, BTreeSet};

use netdiag_common::abi::policy::{
    GrantKey, Label, MacKey, PORT_MANAGED, PORT_MORE_PAIRS, PORT_TRUSTED, Page, PairKey, Port, Protocol, RemoteKey4,
    RemoteKey6, Settings, View,
};

use super::tables::{PAIR_BITS, Tables, Trie, cut};

/// One write to one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<K, V> {
    /// The element gets a value, whether it is there or not.
    Put(K, V),
    /// The element goes; in an array map it becomes zeros.
    Delete(K),
}

/// A write to one element of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`Tables::interfaces`].
    Interface(Change<u32, u32>),
    /// [`Tables::ports`].
    Port(Change<u32, Port>),
    /// [`Tables::macs`].
    Mac(Change<MacKey, ()>),
    /// [`Tables::pairs`].
    Pair(Change<Trie<PairKey>, ()>),
    /// [`Tables::active`].
    Active(Change<u32, u64>),
    /// [`Tables::views`].
    View(Change<u32, View>),
    /// [`Tables::protocols`].
    Protocol(Change<u32, Protocol>),
    /// [`Tables::pages`].
    Page(Change<u32, Box<Page>>),
    /// [`Tables::grants`].
    Grant(Change<GrantKey, u32>),
    /// [`Tables::remotes4`].
    Remote4(Change<RemoteKey4, u32>),
    /// [`Tables::remotes6`].
    Remote6(Change<RemoteKey6, u32>),
    /// [`Tables::prefixes4`].
    Prefix4(Change<Trie<RemoteKey4>, u32>),
    /// [`Tables::prefixes6`].
    Prefix6(Change<Trie<RemoteKey6>, u32>),
    /// [`Tables::rule_labels`].
    RuleLabel(Change<u32, Label>),
    /// [`Tables::port_labels`].
    PortLabel(Change<u32, Label>),
    /// [`Tables::policy_labels`].
    PolicyLabel(Change<u32, Label>),
    /// [`Tables::set_labels`].
    SetLabel(Change<u32, Label>),
    /// [`Tables::settings`].
    Settings(Settings),
}

/// What the writes of a phase do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Writes what nothing leads to yet: labels, service tables, grants, sets, views, ports at new places, and the
    /// generations that will have been given out. New members of sets in use come last, when there are grants for their class.
    /// Ports that become trusted do so here.
    Add,
    /// Takes away, or changes in place, what is in use: members of sets, addresses of ports. Whoever still meets the
    /// view that was in force is refused what the new one refuses, as far as it depends on that.
    Narrow,
    /// Puts the new views in force, then moves ports to other policies: one word each.
    Switch,
    /// Lets ports use addresses that are new, opens ports that were trusted to their rules, and leads new devices to their ports.
    Widen,
    /// Takes away what nothing leads to any more; devices without a port first.
    Retire,
}

impl Stage {
    /// True if a program that runs now may not run into this phase: it could take the new of one table with the old of another.
    /// The writer waits for a grace period first.
    pub const fn after_grace_period(self) -> bool {
        match self {
            Self::Add | Self::Switch => false,
            Self::Narrow | Self::Widen | Self::Retire => true,
        }
    }
}

/// Writes, in the order in which they must be done.
///
/// At every moment each port allows what the tables before and those after both allow, and nothing that neither does:
///
/// - A policy that changes does so by its word of `ACTIVE`: view, service tables, sets of prefixes and, where rules change, grants are
///   new things, complete before the word is written and left alone until nobody reads the old ones.
/// - A set of host addresses is changed in place only where nothing else changes for anybody who uses it. Every address then is
///   in its class before or in its class after, and the grants of both are there; so each packet is decided as
///   before or as after. The word of `ACTIVE` that follows makes tracked flows ask again, and since the set comes first they get
///   the new answer: once all is written, nothing passes that only a removed member allowed.
/// - A port that goes from one policy to another does so by one word of `PORTS`. The policy it leaves is not changed at all; if it
///   lives on for other ports and changes, it has become another policy with another number, and those ports move as well.
/// - The addresses of a port are first reduced to those it had and will have, then its policy changes, then it gets those that are
///   new: an address is never used under rules it never had. The common ones stand among the pairs meanwhile.
///   An element of `PORTS` is written once for each field that changes, so a program that reads it meanwhile sees one field
///   old or new. Of a MAC or IPv6 address it may see a half; such an address is written from or to zeros, and for
///   the length of one copy in memory is one that nobody can have been told to use.
/// - A port that becomes trusted does so before anything else, one that was trusted is opened to its rules after everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What the writes do.
    pub stage: Stage,
    /// The writes.
    pub ops: Vec<Op>,
}

/// The writes that make `after` of `before`. Phases without any are left out.
pub fn diff(before: &Tables, after: &Tables) -> Vec<Phase> {
    let mut writes = Writes { before, after, phases: BTreeMap::new() };
    writes.flags_of_trusted(Stage::Add, PORT_TRUSTED);
    writes.names();
    writes.services();
    writes.grants();
    writes.remotes();
    writes.views();
    writes.ports();
    writes.flags_of_trusted(Stage::Widen, 0);
    writes.interfaces();
    writes.retire();
    writes.phases.into_iter().map(|(stage, ops)| Phase { stage, ops }).collect()
}
