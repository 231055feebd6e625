//! From some tables to others, as writes in an order that no packet can tell. Flow: policy.

use std::collections::{BTreeMap, BTreeSet};

use netdiag_common::abi::policy::{
    GrantKey, Label, MacKey, PORT_MANAGED, Page, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, Settings, View,
};

use super::tables::{Tables, Trie};

/// The writes to a port, and to the addresses it may send with.
mod port;

/// One write to one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<K, V> {
    /// The element gets a value, whether it is there or not.
    Put(K, V),
    /// The element goes; in an array map it becomes zeros.
    Delete(K),
}

impl<K: Copy, V> Change<K, V> {
    /// Which element.
    pub const fn key(&self) -> K {
        match self {
            Self::Put(key, _) | Self::Delete(key) => *key,
        }
    }

    fn map<W>(self, with: impl FnOnce(V) -> W) -> Change<K, W> {
        match self {
            Self::Put(key, value) => Change::Put(key, with(value)),
            Self::Delete(key) => Change::Delete(key),
        }
    }
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

impl Op {
    /// Does the write to tables in memory.
    pub fn apply(&self, tables: &mut Tables) {
        match self {
            Self::Interface(change) => change.apply(&mut tables.interfaces),
            Self::Port(change) => change.apply(&mut tables.ports),
            Self::Mac(change) => change.apply_to_set(&mut tables.macs),
            Self::Pair(change) => change.apply_to_set(&mut tables.pairs),
            Self::Active(change) => change.apply(&mut tables.active),
            Self::View(change) => change.apply(&mut tables.views),
            Self::Protocol(change) => change.apply(&mut tables.protocols),
            Self::Page(change) => change.clone().map(|page| *page).apply(&mut tables.pages),
            Self::Grant(change) => change.apply(&mut tables.grants),
            Self::Remote4(change) => change.apply(&mut tables.remotes4),
            Self::Remote6(change) => change.apply(&mut tables.remotes6),
            Self::Prefix4(change) => change.apply(&mut tables.prefixes4),
            Self::Prefix6(change) => change.apply(&mut tables.prefixes6),
            Self::RuleLabel(change) => change.apply(&mut tables.rule_labels),
            Self::PortLabel(change) => change.apply(&mut tables.port_labels),
            Self::PolicyLabel(change) => change.apply(&mut tables.policy_labels),
            Self::SetLabel(change) => change.apply(&mut tables.set_labels),
            Self::Settings(settings) => tables.settings = *settings,
        }
    }
}

impl<K: Ord + Copy, V: Copy> Change<K, V> {
    fn apply(&self, table: &mut BTreeMap<K, V>) {
        match self {
            Self::Put(key, value) => table.insert(*key, *value),
            Self::Delete(key) => table.remove(key),
        };
    }

    fn apply_to_set(&self, set: &mut BTreeSet<K>) {
        match self {
            Self::Put(key, _) => set.insert(*key),
            Self::Delete(key) => set.remove(key),
        };
    }
}

/// What the writes of a phase do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Writes what nothing leads to yet: labels, service tables, grants, sets, views, ports at new places, and the last of
    /// the generations that are given out.
    /// Ports that become trusted do so here.
    Add,
    /// Takes away, or changes in place, what is in use: addresses of ports, then members of sets; new members of these come last. Whoever still meets the
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
    writes.names();
    writes.services();
    writes.grants();
    writes.views();
    // Addresses of ports are narrowed before members of sets change: who loses an address never meets a rule with it that it did
    // not have before.
    writes.ports();
    writes.changed_members();
    writes.new_members();
    writes.interfaces();
    writes.retire();
    writes.phases.into_iter().map(|(stage, ops)| Phase { stage, ops }).collect()
}

/// Writes as they are found.
struct Writes<'a> {
    before: &'a Tables,
    after: &'a Tables,
    phases: BTreeMap<Stage, Vec<Op>>,
}

/// Elements of `after` that `before` has not, or not so.
fn puts<K: Ord + Copy, V: PartialEq + Copy>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> impl Iterator<Item = Change<K, V>> {
    after.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, value)| Change::Put(*key, *value))
}

/// Elements of `before` that `after` has not.
fn deletes<K: Ord + Copy, V>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> impl Iterator<Item = Change<K, V>> {
    before.keys().filter(|key| !after.contains_key(key)).map(|key| Change::Delete(*key))
}

impl Writes<'_> {
    fn write(&mut self, stage: Stage, ops: impl IntoIterator<Item = Op>) {
        let mut ops = ops.into_iter().peekable();
        if ops.peek().is_some() {
            self.phases.entry(stage).or_default().extend(ops);
        }
    }

    /// Names of numbers, and generations: whoever continues after an interruption must know them.
    fn names(&mut self) {
        let (before, after) = (self.before, self.after);
        self.write(Stage::Add, puts(&before.rule_labels, &after.rule_labels).map(Op::RuleLabel));
        self.write(Stage::Add, puts(&before.set_labels, &after.set_labels).map(Op::SetLabel));
        self.write(Stage::Add, puts(&before.policy_labels, &after.policy_labels).map(Op::PolicyLabel));
        let generations = puts(&before.active, &after.active).filter(|change| change.key() == 0);
        self.write(Stage::Add, generations.map(Op::Active));
    }

    fn services(&mut self) {
        let (before, after) = (self.before, self.after);
        let page = |change: Change<u32, Page>| Op::Page(change.map(Box::new));
        self.write(Stage::Add, puts(&before.pages, &after.pages).map(page));
        self.write(Stage::Add, puts(&before.protocols, &after.protocols).map(Op::Protocol));
    }

    fn grants(&mut self) {
        self.write(Stage::Add, puts(&self.before.grants, &self.after.grants).map(Op::Grant));
    }

    /// Sets. A number in use before and after belongs to one set whose content may change.
    /// A set nobody uses yet is complete before somebody does. One in use gets its new members when all that narrows is done, and
    /// before the views that count on them are in force.
    fn new_members(&mut self) {
        let (before, after) = (self.before, self.after);
        self.write(Stage::Add, puts(&before.prefixes4, &after.prefixes4).map(Op::Prefix4));
        self.write(Stage::Add, puts(&before.prefixes6, &after.prefixes6).map(Op::Prefix6));
        let stage = |set: u32| if before.set_labels.contains_key(&set) { Stage::Narrow } else { Stage::Add };
        for change in puts(&before.remotes4, &after.remotes4).filter(|new| !before.remotes4.contains_key(&new.key())) {
            self.write(stage(change.key().set), [Op::Remote4(change)]);
        }
        for change in puts(&before.remotes6, &after.remotes6).filter(|new| !before.remotes6.contains_key(&new.key())) {
            self.write(stage(change.key().set), [Op::Remote6(change)]);
        }
    }

    /// Members that are in another class now, and those that leave a set that stays.
    fn changed_members(&mut self) {
        let (before, after) = (self.before, self.after);
        let moved4 = puts(&before.remotes4, &after.remotes4).filter(|put| before.remotes4.contains_key(&put.key()));
        self.write(Stage::Narrow, moved4.map(Op::Remote4));
        let moved6 = puts(&before.remotes6, &after.remotes6).filter(|put| before.remotes6.contains_key(&put.key()));
        self.write(Stage::Narrow, moved6.map(Op::Remote6));
        let stays = |set: u32| after.set_labels.contains_key(&set);
        let gone4 = deletes(&before.remotes4, &after.remotes4).filter(|change| stays(change.key().set));
        self.write(Stage::Narrow, gone4.map(Op::Remote4));
        let gone6 = deletes(&before.remotes6, &after.remotes6).filter(|change| stays(change.key().set));
        self.write(Stage::Narrow, gone6.map(Op::Remote6));
    }

    fn views(&mut self) {
        let (before, after) = (self.before, self.after);
        self.write(Stage::Add, puts(&before.views, &after.views).map(Op::View));
        let words = puts(&before.active, &after.active).filter(|change| change.key() != 0);
        self.write(Stage::Switch, words.map(Op::Active));
    }

    fn ports(&mut self) {
        for (slot, new) in &self.after.ports {
            let old = self.before.ports.get(slot).copied().unwrap_or_default();
            let is_managed = |port: &Port| port.flags & PORT_MANAGED != 0;
            match (is_managed(&old) && old.epoch == new.epoch, is_managed(new)) {
                (true, true) => port::change(self, *slot, old, *new),
                (false, true) => port::begin(self, *slot, *new),
                (_, false) => port::end(self, *slot, old, *new),
            }
        }
        // What `lower` makes keeps its free places; tables from elsewhere may not. And a change that was interrupted may have
        // left addresses at a place where the port itself never came to be.
        let with_pairs = self.before.pairs.iter().map(|pair| pair.data.slot);
        let with_macs = self.before.macs.iter().map(|mac| mac.slot);
        let places: BTreeSet<u32> = self.before.ports.keys().copied().chain(with_pairs).chain(with_macs).collect();
        for slot in places.into_iter().filter(|slot| !self.after.ports.contains_key(slot)) {
            let old = self.before.ports.get(&slot).copied().unwrap_or_default();
            port::end(self, slot, old, Port::default());
        }
        self.write(Stage::Add, puts(&self.before.port_labels, &self.after.port_labels).map(Op::PortLabel));
    }

    fn interfaces(&mut self) {
        let (before, after) = (self.before, self.after);
        self.write(Stage::Retire, deletes(&before.interfaces, &after.interfaces).map(Op::Interface));
        self.write(Stage::Widen, puts(&before.interfaces, &after.interfaces).map(Op::Interface));
        if before.settings != after.settings {
            self.write(Stage::Switch, [Op::Settings(after.settings)]);
        }
    }

    /// What nothing leads to any more. Views are the last: one that no policy has tells whoever continues after an
    /// interruption that it must make tracked flows ask again.
    fn retire(&mut self) {
        let (before, after) = (self.before, self.after);
        self.write(Stage::Retire, deletes(&before.ports, &after.ports).map(Op::Port));
        self.write(Stage::Retire, deletes(&before.port_labels, &after.port_labels).map(Op::PortLabel));
        self.write(Stage::Retire, deletes(&before.active, &after.active).map(Op::Active));
        let stays = |set: u32| after.set_labels.contains_key(&set);
        let gone4 = deletes(&before.remotes4, &after.remotes4).filter(|change| !stays(change.key().set));
        self.write(Stage::Retire, gone4.map(Op::Remote4));
        let gone6 = deletes(&before.remotes6, &after.remotes6).filter(|change| !stays(change.key().set));
        self.write(Stage::Retire, gone6.map(Op::Remote6));
        self.write(Stage::Retire, deletes(&before.prefixes4, &after.prefixes4).map(Op::Prefix4));
        self.write(Stage::Retire, deletes(&before.prefixes6, &after.prefixes6).map(Op::Prefix6));
        self.write(Stage::Retire, deletes(&before.grants, &after.grants).map(Op::Grant));
        self.write(Stage::Retire, deletes(&before.protocols, &after.protocols).map(Op::Protocol));
        self.write(Stage::Retire, deletes(&before.pages, &after.pages).map(|change| Op::Page(change.map(Box::new))));
        self.write(Stage::Retire, deletes(&before.policy_labels, &after.policy_labels).map(Op::PolicyLabel));
        self.write(Stage::Retire, deletes(&before.set_labels, &after.set_labels).map(Op::SetLabel));
        self.write(Stage::Retire, deletes(&before.rule_labels, &after.rule_labels).map(Op::RuleLabel));
        self.write(Stage::Retire, deletes(&before.views, &after.views).map(Op::View));
    }
}
