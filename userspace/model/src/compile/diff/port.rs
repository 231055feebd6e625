//! The writes to a port, and to the addresses it may send with. Flow: policy.

use std::collections::BTreeSet;

use netdiag_common::abi::policy::{MacKey, PORT_MORE_PAIRS, PORT_TRUSTED, PairKey, Port};

use super::{
    super::{
        port::{host, mapped},
        tables::{PAIR_BITS, Tables, Trie, cut},
    },
    Change, Op, Stage, Writes,
};

/// A port that was not there.
pub(super) fn begin(writes: &mut Writes<'_>, slot: u32, new: Port) {
    let (was, is) = (Senders::of(writes.before, slot, &Port::default()), Senders::of(writes.after, slot, &new));
    // What is there can only be left over from a change that was interrupted.
    writes.write(Stage::Add, was.pairs.difference(&is.pairs).map(|pair| Op::Pair(Change::Delete(*pair))));
    writes.write(Stage::Add, was.macs.difference(&is.macs).map(|mac| Op::Mac(Change::Delete(*mac))));
    writes.write(Stage::Add, is.pairs.difference(&was.pairs).map(|pair| Op::Pair(Change::Put(*pair, ()))));
    writes.write(Stage::Add, is.macs.difference(&was.macs).map(|mac| Op::Mac(Change::Put(*mac, ()))));
    writes.write(Stage::Add, [put(slot, new)]);
}

/// A port that is no more. Its place keeps the epoch.
pub(super) fn end(writes: &mut Writes<'_>, slot: u32, old: Port, new: Port) {
    if old != new {
        writes.write(Stage::Retire, [put(slot, new)]);
    }
    let was = Senders::of(writes.before, slot, &old);
    writes.write(Stage::Retire, was.pairs.iter().map(|pair| Op::Pair(Change::Delete(*pair))));
    writes.write(Stage::Retire, was.macs.iter().map(|mac| Op::Mac(Change::Delete(*mac))));
}

/// A port that stays.
pub(super) fn change(writes: &mut Writes<'_>, slot: u32, old: Port, new: Port) {
    let (was, is) = (Senders::of(writes.before, slot, &old), Senders::of(writes.after, slot, &new));
    let middle = Middle::between(&was, &is);
    let mut element = Element { writes, slot, now: old };
    element.become_trusted(&new);
    element.keep_common(&was, &middle);
    element.narrow(&was, &new, &middle);
    element.set(Stage::Switch, |port| port.policy = new.policy);
    element.widen(&is, &new, &middle);
    element.retire(&is, &new, &middle);
}

const fn put(slot: u32, port: Port) -> Op {
    Op::Port(Change::Put(slot, port))
}

/// Whom a port may send as.
struct Senders {
    own_mac: MacKey,
    /// The inline addresses, by their place in the element.
    inline: Vec<Option<Trie<PairKey>>>,
    macs: BTreeSet<MacKey>,
    pairs: BTreeSet<Trie<PairKey>>,
}

impl Senders {
    fn of(tables: &Tables, slot: u32, port: &Port) -> Self {
        let mac = |mac| MacKey { slot, mac, pad: [0; 2] };
        let ipv4 = port.ipv4.iter().map(|ip| (*ip != 0).then(|| host(slot, port.mac, 4, mapped(*ip))));
        let ipv6 = port.ipv6.iter().map(|ip| (*ip != [0; 4]).then(|| host(slot, port.mac, 6, *ip)));
        let first = Trie { data: PairKey { slot, ..PairKey::default() }, bits: 0 };
        let end = Trie { data: PairKey { slot: slot + 1, ..PairKey::default() }, bits: 0 };
        Self {
            own_mac: mac(port.mac),
            inline: ipv4.chain(ipv6).collect(),
            macs: tables.macs.range(mac([0; 6])..=mac([u8::MAX; 6])).copied().collect(),
            pairs: tables.pairs.range(first..end).copied().collect(),
        }
    }

    fn all_macs(&self) -> BTreeSet<MacKey> {
        self.macs.iter().chain([&self.own_mac]).copied().collect()
    }

    fn all_pairs(&self) -> BTreeSet<Trie<PairKey>> {
        self.inline.iter().flatten().chain(&self.pairs).copied().collect()
    }

    /// Pairs of either that the other covers: two prefixes that meet are one within the other.
    fn common_pairs(&self, other: &Self) -> BTreeSet<Trie<PairKey>> {
        let (here, there) = (self.all_pairs(), other.all_pairs());
        let of_here = here.iter().filter(|pair| is_covered(pair, &there));
        of_here.chain(there.iter().filter(|pair| is_covered(pair, &here))).copied().collect()
    }

    /// Inline addresses that stay where they are.
    fn kept(&self, other: &Self) -> BTreeSet<Trie<PairKey>> {
        self.inline.iter().zip(&other.inline).filter(|(one, other)| one == other).filter_map(|(one, _)| *one).collect()
    }
}

/// True if one of the pairs covers a pair.
fn is_covered(pair: &Trie<PairKey>, by: &BTreeSet<Trie<PairKey>>) -> bool {
    (PAIR_BITS..=pair.bits).any(|bits| {
        let data = PairKey { address: cut(pair.data.address, bits - PAIR_BITS), ..pair.data };
        by.contains(&Trie { data, bits })
    })
}

/// What stands beside a port while its addresses change: pairs and MAC addresses that it may send with before and after, but
/// for those that stay in the element.
struct Middle {
    pairs: BTreeSet<Trie<PairKey>>,
    macs: BTreeSet<MacKey>,
}

impl Middle {
    fn between(was: &Senders, is: &Senders) -> Self {
        let kept = was.kept(is);
        let pairs = was.common_pairs(is).into_iter().filter(|pair| was.pairs.contains(pair) || !kept.contains(pair));
        let macs = was.all_macs().intersection(&is.all_macs()).copied().collect::<Vec<_>>().into_iter();
        let macs = macs.filter(|mac| was.macs.contains(mac) || was.own_mac != is.own_mac);
        Self { pairs: pairs.collect(), macs: macs.collect() }
    }
}

/// The element of a port, and what stands in it after the writes so far.
struct Element<'a, 'b> {
    writes: &'a mut Writes<'b>,
    slot: u32,
    now: Port,
}

impl Element<'_, '_> {
    /// Writes one field.
    fn set(&mut self, stage: Stage, change: impl FnOnce(&mut Port)) {
        let old = self.now;
        change(&mut self.now);
        if self.now != old {
            self.writes.write(stage, [put(self.slot, self.now)]);
        }
    }

    fn put_pairs<'p>(&mut self, stage: Stage, pairs: impl IntoIterator<Item = &'p Trie<PairKey>>) {
        self.writes.write(stage, pairs.into_iter().map(|pair| Op::Pair(Change::Put(*pair, ()))));
    }

    fn put_macs<'m>(&mut self, stage: Stage, macs: impl IntoIterator<Item = &'m MacKey>) {
        self.writes.write(stage, macs.into_iter().map(|mac| Op::Mac(Change::Put(*mac, ()))));
    }

    fn delete_pairs<'p>(&mut self, stage: Stage, pairs: impl IntoIterator<Item = &'p Trie<PairKey>>) {
        self.writes.write(stage, pairs.into_iter().map(|pair| Op::Pair(Change::Delete(*pair))));
    }

    fn delete_macs<'m>(&mut self, stage: Stage, macs: impl IntoIterator<Item = &'m MacKey>) {
        self.writes.write(stage, macs.into_iter().map(|mac| Op::Mac(Change::Delete(*mac))));
    }

    fn become_trusted(&mut self, new: &Port) {
        self.set(Stage::Add, |port| port.flags |= new.flags & PORT_TRUSTED);
    }

    /// Makes the pairs that are common stand where nothing is changed.
    fn keep_common(&mut self, was: &Senders, middle: &Middle) {
        self.put_pairs(Stage::Add, middle.pairs.difference(&was.pairs));
        self.put_macs(Stage::Add, middle.macs.difference(&was.macs));
        if !middle.pairs.is_empty() || !middle.macs.is_empty() {
            self.set(Stage::Add, |port| port.flags |= PORT_MORE_PAIRS);
        }
    }

    /// Takes away what is not common.
    fn narrow(&mut self, was: &Senders, new: &Port, middle: &Middle) {
        let moves = self.now.mac != new.mac;
        for (place, address) in new.ipv4.iter().enumerate() {
            self.set(Stage::Narrow, |port| {
                if moves || port.ipv4[place] != *address {
                    port.ipv4[place] = 0;
                }
            });
        }
        for (place, address) in new.ipv6.iter().enumerate() {
            self.set(Stage::Narrow, |port| {
                if moves || port.ipv6[place] != *address {
                    port.ipv6[place] = [0; 4];
                }
            });
        }
        self.delete_pairs(Stage::Narrow, was.pairs.difference(&middle.pairs));
        self.delete_macs(Stage::Narrow, was.macs.difference(&middle.macs));
    }

    /// Gives the port the rest of its addresses, and opens one that was trusted to its rules.
    fn widen(&mut self, is: &Senders, new: &Port, middle: &Middle) {
        self.put_pairs(Stage::Widen, is.pairs.difference(&middle.pairs));
        self.put_macs(Stage::Widen, is.macs.difference(&middle.macs));
        self.set(Stage::Widen, |port| port.flags |= new.flags);
        self.set(Stage::Widen, |port| port.mac = new.mac);
        for (place, address) in new.ipv4.iter().enumerate() {
            self.set(Stage::Widen, |port| port.ipv4[place] = *address);
        }
        for (place, address) in new.ipv6.iter().enumerate() {
            self.set(Stage::Widen, |port| port.ipv6[place] = *address);
        }
        self.set(Stage::Widen, |port| port.flags &= new.flags | !PORT_TRUSTED);
    }

    /// Takes away the pairs that stood in for others.
    fn retire(&mut self, is: &Senders, new: &Port, middle: &Middle) {
        self.set(Stage::Retire, |port| port.flags = new.flags);
        self.delete_pairs(Stage::Retire, middle.pairs.difference(&is.pairs));
        self.delete_macs(Stage::Retire, middle.macs.difference(&is.macs));
    }
}
