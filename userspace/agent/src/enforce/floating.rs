//! The maps of floating IPs. Flow: policy.
//!
//! **Order.** A flow goes the fast way in both directions or in neither, so a floating IP that comes is written twice: first
//! without leave to begin flows, inward and outward, then with it. When one half may begin a flow, the other
//! knows already how to carry its answers on. Where packets leave to is there before anything leaves, and goes after it.
//!
//! ```text
//! hops that come -> floating IPs that go -> those that come, without beginning -> with it -> hops that go
//! ```
//!
//! **Words.** What a port leaves as is an element of an array, which the kernel writes in place while programs read it. One that
//! becomes another is made to fit no fixed address first, then, when no program reads it any longer, written, its fixed
//! address last.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::Key;
use netdiag_common::abi::{
    floating::{FLOATING_BEGINS, Floating, HopKey, Leaving, LeavingKey, WAYS, Way, way_index},
    flow::FlowKey4,
    value::Tally,
};
use netdiag_model::floating::tables::FloatingTables;

use super::{
    apply::{elements, key, trie},
    counters::sum,
    maps::{MapError, Maps},
    syscall,
};

/// Packets and bytes by direction (true: to the instance) and way, those of zero left out.
pub type Ways = BTreeMap<(bool, Way), Tally>;

/// Value of a map that is used as a set.
const MEMBER: u32 = 1;

/// What the maps hold.
pub(super) fn read(maps: &Maps) -> Result<FloatingTables, MapError> {
    Ok(FloatingTables {
        floating: maps.floating.read()?.into_iter().collect(),
        leaving: elements(&maps.leaving)?.collect(),
        more_leaving: maps.more_leaving.read()?.into_iter().collect(),
        hops: maps.hops.read()?.into_iter().map(|(key, hop)| (trie(key), hop)).collect(),
    })
}

/// Makes the maps hold `after`, where they hold `before`.
pub(super) fn apply(maps: &Maps, before: &FloatingTables, after: &FloatingTables) -> Result<(), MapError> {
    let hops: Vec<_> = changed(&before.hops, &after.hops).map(|(trie, hop)| (key(*trie), *hop)).collect();
    maps.hops.write(&hops)?;
    let new = without_beginning(before, after);
    let (promoted, gone): (Vec<_>, Vec<_>) =
        missing(&before.more_leaving, &after.more_leaving).copied().partition(|key| is_promoted(*key, after));
    maps.floating.remove(&missing(&before.floating, &after.floating).copied().collect::<Vec<_>>())?;
    maps.more_leaving.remove(&gone)?;
    // A fixed address that was the first of its port and is another now must not be without its floating IP in between.
    maps.more_leaving.write(&pairs(changed(&before.more_leaving, &new.more_leaving)))?;
    blank(maps, before, after)?;
    put(maps, before, &new)?;
    put(maps, &new, after)?;
    maps.more_leaving.remove(&promoted)?;
    let gone = missing(&before.hops, &after.hops);
    let gone: Vec<Key<HopKey>> = gone.map(|trie| key(*trie)).collect();
    maps.hops.remove(&gone).map(drop)
}

/// Elements that are not there yet, or have another value.
fn changed<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    after.iter().filter(|(key, value)| before.get(key) != Some(value))
}

/// Keys that shall not be there any more.
fn missing<'a, K: Ord, V>(before: &'a BTreeMap<K, V>, after: &'a BTreeMap<K, V>) -> impl Iterator<Item = &'a K> {
    before.keys().filter(|key| !after.contains_key(key))
}

fn pairs<'a, K: Copy + 'a, V: Copy + 'a>(elements: impl Iterator<Item = (&'a K, &'a V)>) -> Vec<(K, V)> {
    elements.map(|(key, value)| (*key, *value)).collect()
}

/// A fixed address that was another of its port and is the first one afterwards.
fn is_promoted(key: LeavingKey, after: &FloatingTables) -> bool {
    after.leaving.get(&key.slot).is_some_and(|leaving| leaving.fixed == key.fixed)
}

/// True where a program that reads half of one and half of the other does the right thing all the same.
fn blends(before: &Leaving, after: &Leaving) -> bool {
    let identity = |leaving: &Leaving| {
        let Leaving { fixed, floating, epoch, router, device, vlan, .. } = *leaving;
        (fixed, floating, epoch, router, device, vlan)
    };
    identity(before) == identity(after)
}

/// Makes what ports leave as fit no address, where it goes or becomes something else, and waits until no program reads it.
fn blank(maps: &Maps, before: &FloatingTables, after: &FloatingTables) -> Result<(), MapError> {
    let other = |slot: &u32, old: &Leaving| after.leaving.get(slot).is_none_or(|new| !blends(old, new));
    let old = before.leaving.iter().filter(|(slot, old)| other(slot, old));
    let blank: Vec<_> = old.map(|(slot, old)| (*slot, Leaving { fixed: 0, ..*old })).collect();
    if blank.is_empty() {
        return Ok(());
    }
    maps.leaving.write(&blank)?;
    maps.leaving.settle(syscall::wait_for_readers())?;
    let zeros: Vec<_> = blank.iter().map(|(slot, _)| (*slot, Leaving::default())).collect();
    maps.leaving.write(&zeros)
}

/// What shall be, where what was not there yet may not begin flows.
fn without_beginning(before: &FloatingTables, after: &FloatingTables) -> FloatingTables {
    let mut new = after.clone();
    let identity = |floating: &Floating| (floating.fixed, floating.slot, floating.epoch);
    for (key, floating) in &mut new.floating {
        if before.floating.get(key).map(identity) != Some(identity(floating)) {
            floating.flags &= !FLOATING_BEGINS;
        }
    }
    let first = new.leaving.iter_mut().map(|(slot, leaving)| (before.leaving.get(slot), leaving));
    let more = new.more_leaving.iter_mut().map(|(key, leaving)| (before.more_leaving.get(key), leaving));
    for (old, leaving) in first.chain(more) {
        if !old.is_some_and(|old| blends(old, leaving)) {
            leaving.flags &= !FLOATING_BEGINS;
        }
    }
    new
}

/// Writes floating IPs that come or change.
fn put(maps: &Maps, before: &FloatingTables, after: &FloatingTables) -> Result<(), MapError> {
    maps.floating.write(&pairs(changed(&before.floating, &after.floating)))?;
    maps.more_leaving.write(&pairs(changed(&before.more_leaving, &after.more_leaving)))?;
    let leaving = pairs(changed(&before.leaving, &after.leaving));
    let fresh = |slot: &u32, new: &Leaving| before.leaving.get(slot).is_none_or(|old| !blends(old, new));
    let unread = leaving.iter().filter(|(slot, new)| fresh(slot, new));
    let unread: Vec<_> = unread.map(|(slot, new)| (*slot, Leaving { fixed: 0, ..*new })).collect();
    maps.leaving.write(&unread)?;
    maps.leaving.write(&leaving)
}

// === flows that stay slow ===

/// Flows that are held on the slow way.
pub(super) fn held(maps: &Maps) -> Result<Vec<FlowKey4>, MapError> {
    Ok(maps.held.read()?.into_iter().map(|(key, _)| key).collect())
}

/// Holds more flows.
pub(super) fn hold(maps: &Maps, flows: &[FlowKey4]) -> Result<(), MapError> {
    let members: Vec<_> = flows.iter().map(|key| (*key, MEMBER)).collect();
    maps.held.write(&members)
}

/// Holds flows no longer.
pub(super) fn release(maps: &Maps, flows: &[FlowKey4]) -> Result<(), MapError> {
    maps.held.remove(flows).map(drop)
}

// === counters ===

/// Which ways packets of a port have taken, on all CPUs together.
pub(super) fn ways(maps: &Maps, slot: u32) -> Result<Ways, MapError> {
    let first = way_index(slot, false, 0);
    let both = way_index(slot + 1, false, 0) - first;
    let mut ways = Ways::new();
    maps.ways.range(first, both, |index, cpus| {
        let tally = sum(cpus);
        if tally.packets != 0
            && let Some(of) = place(index - first)
        {
            ways.insert(of, tally);
        }
    })?;
    Ok(ways)
}

/// Direction and way of a counter, by its place among those of a port.
fn place(index: u32) -> Option<(bool, Way)> {
    let index = usize::try_from(index).ok()?;
    Some((index >= WAYS, *Way::ALL.get(index % WAYS)?))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netdiag_common::abi::floating::{FLOATING_BEGINS, FloatingKey, Way, way_index};

    use super::{Floating, FloatingTables, Leaving, blends, is_promoted, place, without_beginning};
    use netdiag_common::abi::floating::LeavingKey;

    fn address(octet: u8) -> u32 {
        u32::from_ne_bytes(Ipv4Addr::new(192, 0, 2, octet).octets())
    }

    fn tables(fixed: u8, slot: u32) -> FloatingTables {
        let mut tables = FloatingTables::default();
        let key = FloatingKey { device: 2, vlan: 0, address: address(100) };
        let flags = FLOATING_BEGINS;
        tables.floating.insert(key, Floating { flags, fixed: address(fixed), slot, epoch: 1, ..Floating::default() });
        let floating = address(100);
        let leaving = Leaving { flags, fixed: address(fixed), floating, epoch: 1, device: 2, ..Leaving::default() };
        tables.leaving.insert(slot, leaving);
        tables
    }

    fn begins(tables: &FloatingTables) -> (bool, bool) {
        let floating = tables.floating.values().all(|floating| floating.flags & FLOATING_BEGINS != 0);
        (floating, tables.leaving.values().all(|leaving| leaving.flags & FLOATING_BEGINS != 0))
    }

    #[test]
    fn what_comes_or_moves_may_begin_flows_only_once_both_halves_are_there() {
        let none = FloatingTables::default();
        assert_eq!(begins(&without_beginning(&none, &tables(1, 5))), (false, false));
        assert_eq!(begins(&without_beginning(&tables(1, 5), &tables(2, 6))), (false, false));
    }

    #[test]
    fn what_stays_goes_on_beginning_flows_while_its_router_changes() {
        let (before, mut after) = (tables(1, 5), tables(1, 5));
        after.floating.values_mut().for_each(|floating| floating.outer_mac = [2; 6]);
        after.leaving.values_mut().for_each(|leaving| leaving.outer_mac = [2; 6]);
        assert_eq!(begins(&without_beginning(&before, &after)), (true, true));
        assert!(blends(&before.leaving[&5], &after.leaving[&5]));
    }

    #[test]
    fn a_fixed_address_that_becomes_the_first_of_its_port_is_kept_until_it_is() {
        let key = LeavingKey { slot: 5, fixed: address(1) };
        assert!(is_promoted(key, &tables(1, 5)));
        assert!(!is_promoted(key, &tables(2, 5)) && !is_promoted(key, &tables(1, 6)));
    }

    #[test]
    fn a_counter_of_a_way_is_found_by_the_place_the_programs_count_at() {
        for ingress in [false, true] {
            for way in Way::ALL {
                let index = way_index(7, ingress, *way as u8) - way_index(7, false, 0);
                assert_eq!(place(index), Some((ingress, *way)));
            }
        }
        assert_eq!(place(31), None);
    }
}
