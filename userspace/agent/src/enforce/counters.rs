//! Counters, added up over all CPUs. Flow: observe.

use std::collections::BTreeMap;

use netdiag_common::abi::{
    reason::REASONS,
    value::{Losses, Tally, tally_index},
};

use super::maps::{MapError, Maps};

/// What was counted for one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Packets by direction (true: to the instance) and number of the reason, those of zero left out.
    pub tallies: BTreeMap<(bool, u8), Tally>,
    /// Records that did not come out.
    pub losses: Losses,
}

/// Counters of one port, by its place.
pub(super) fn port(maps: &Maps, slot: u32) -> Result<PortCounters, MapError> {
    let mut counters = PortCounters::default();
    let first = tally_index(slot, false, 0);
    let both = tally_index(slot + 1, false, 0) - first;
    maps.tallies.range(first, both, |index, cpus| {
        let sum = sum(cpus);
        if sum.packets != 0
            && let Some(of) = place(index - first)
        {
            counters.tallies.insert(of, sum);
        }
    })?;
    maps.losses.range(slot, 1, |_, cpus| counters.losses = sum_losses(cpus))?;
    Ok(counters)
}

/// Records that did not come out, by place of the port; ports without any are left out.
pub(super) fn losses(maps: &Maps) -> Result<BTreeMap<u32, Losses>, MapError> {
    let mut losses = BTreeMap::new();
    maps.losses.walk(|slot, cpus| {
        let sum = sum_losses(cpus);
        if sum != Losses::default() {
            losses.insert(*slot, sum);
        }
    })?;
    Ok(losses)
}

fn sum_losses(cpus: &[Losses]) -> Losses {
    cpus.iter().fold(Losses::default(), |sum, cpu| Losses {
        suppressed: sum.suppressed + cpu.suppressed,
        lost: sum.lost + cpu.lost,
    })
}

pub(super) fn sum(cpus: &[Tally]) -> Tally {
    cpus.iter()
        .fold(Tally::default(), |sum, cpu| Tally { packets: sum.packets + cpu.packets, bytes: sum.bytes + cpu.bytes })
}

/// Direction and reason of a counter, by its place among those of a port.
fn place(index: u32) -> Option<(bool, u8)> {
    let reasons = u32::try_from(REASONS).ok()?;
    Some((index >= reasons, u8::try_from(index % reasons).ok()?))
}

/// Flows each rule has allowed, by the rule's number; rules that never did are left out.
pub(super) fn hits(maps: &Maps) -> Result<BTreeMap<u32, u64>, MapError> {
    let mut hits = BTreeMap::new();
    maps.hits.walk(|rule, cpus| {
        let sum: u64 = cpus.iter().sum();
        if sum != 0 {
            hits.insert(*rule, sum);
        }
    })?;
    Ok(hits)
}

#[cfg(test)]
mod tests {
    use netdiag_common::abi::value::tally_index;

    use super::place;

    #[test]
    fn a_counter_is_found_by_the_place_the_programs_count_at() {
        for ingress in [false, true] {
            for reason in [0_u8, 1, 35, 63] {
                let index = tally_index(7, ingress, reason) - tally_index(7, false, 0);
                assert_eq!(place(index), Some((ingress, reason)));
            }
        }
    }
}
