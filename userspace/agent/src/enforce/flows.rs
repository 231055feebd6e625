//! Tracked flows: reading them, and removing those that are over. Flow: observe.
//!
//! **Quota.** A port that has as many live flows as its quota tracks what comes next in the maps of overflow, where the oldest
//! makes room for the newest; so a flood through one port never costs another port a flow. Half of the capacity is shared out
//! evenly among the ports there are (`quota = max(1, capacity / 2 / ports)`), the other half is kept for flows that ports have
//! beyond their quota since more ports came. The sum of all quotas thus is at most half of the capacity, unless there are more
//! ports than that. The programs count both families together, so the capacity is that of the smaller of the two maps. Where a
//! map is full all the same, a new flow is tracked as overflow; none is ever evicted from `FLOWS*`.
//!
//! **Who writes what.** The program adds one to `TRACKED[slot]` for each flow it begins in `FLOWS*`; user space, which knows how
//! many are live, sets `ALLOWANCE[slot] = tracked - live + quota`: each map has one writer. The count is read before the flows
//! are, so a flow that begins meanwhile is at worst counted twice, and the quota never exceeded.
//!
//! **Removal.** A flow found over is read again before it is removed: one that a packet has refreshed since stays. Between that
//! look and the removal there is still a window of some microseconds in which a packet may refresh it. The flow then is lost:
//! its next packet is judged as a first one. It had been silent for its whole timeout, as with any connection tracker.

use std::collections::BTreeMap;

use aya::Pod;
use netdiag_common::{
    abi::flow::{Flow, FlowKey4, FlowKey6, Tick, tick},
    abi::policy::{PORT_MANAGED, Port},
    logic::flow::expired,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    apply::elements,
    maps::{MapError, Maps, Table},
};

/// One tracked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked<K> {
    /// Which.
    pub key: K,
    /// What is known of it.
    pub flow: Flow,
    /// It is beyond the quota of its port.
    pub overflow: bool,
}

/// All tracked flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// IPv4 flows.
    pub ipv4: Vec<Tracked<FlowKey4>>,
    /// IPv6 flows.
    pub ipv6: Vec<Tracked<FlowKey6>>,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Flows that are live, by quota and beyond.
    pub live: u64,
    /// Flows that were removed.
    pub removed: u64,
}

/// What tells flows of either family apart.
pub(super) trait FlowKey: Pod {
    /// Place of the port.
    fn slot(&self) -> u32;
    /// IP protocol.
    fn protocol(&self) -> u8;
}

impl FlowKey for FlowKey4 {
    fn slot(&self) -> u32 {
        self.slot.into()
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }
}

impl FlowKey for FlowKey6 {
    fn slot(&self) -> u32 {
        self.slot.into()
    }

    fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// The tick it is now.
pub(super) fn now() -> Tick {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let nanoseconds = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
    tick(nanoseconds)
}

/// Reads all flows.
pub(super) fn read(maps: &Maps) -> Result<Flows, MapError> {
    Ok(Flows { ipv4: both(&maps.flows4, &maps.over4)?, ipv6: both(&maps.flows6, &maps.over6)? })
}

fn both<K: FlowKey>(quota: &Table<K, Flow>, over: &Table<K, Flow>) -> Result<Vec<Tracked<K>>, MapError> {
    let tracked = |overflow| move |(key, flow)| Tracked { key, flow, overflow };
    let flows = quota.read()?.into_iter().map(tracked(false));
    Ok(flows.chain(over.read()?.into_iter().map(tracked(true))).collect())
}

/// Removes flows that have expired, and those of ports that are gone; then says how many more each port may track.
pub(super) fn collect(maps: &Maps, now: Tick) -> Result<Collected, MapError> {
    let ports: BTreeMap<u32, Port> = elements(&maps.ports)?.collect();
    let tracked = tracked(maps, ports.iter().filter(|(_, port)| is_managed(port)).map(|(slot, _)| *slot))?;
    let mut walk = Walk { ports: &ports, now, live: BTreeMap::new(), collected: Collected::default() };
    walk.table(&maps.flows4, true)?;
    walk.table(&maps.flows6, true)?;
    walk.table(&maps.over4, false)?;
    walk.table(&maps.over6, false)?;
    let (live, collected) = (walk.live, walk.collected);
    let quota = quota(capacity(maps), tracked.len());
    let allowance = tracked.into_iter().map(|(slot, tracked)| {
        let live = live.get(&slot).copied().unwrap_or(0);
        (slot, allowance_of(tracked, live, quota))
    });
    maps.allowance.write(&allowance.collect::<Vec<_>>())?;
    Ok(collected)
}

/// One walk over all flows.
struct Walk<'a> {
    ports: &'a BTreeMap<u32, Port>,
    now: Tick,
    /// Live flows by quota, by place of the port.
    live: BTreeMap<u32, u64>,
    collected: Collected,
}

impl Walk<'_> {
    fn is_over<K: FlowKey>(&self, key: &K, flow: &Flow) -> bool {
        let port = self.ports.get(&key.slot());
        port.is_none_or(|port| port.epoch != flow.epoch || !is_managed(port)) || expired(flow, key.protocol(), self.now)
    }

    fn table<K: FlowKey>(&mut self, table: &Table<K, Flow>, quota: bool) -> Result<(), MapError> {
        let mut over = Vec::new();
        table.walk(|key, flows| {
            let Some(flow) = flows.first() else { return };
            if self.is_over(key, flow) {
                over.push(*key);
            } else {
                self.count(key, quota);
            }
        })?;
        let mut removed = Vec::new();
        for key in over {
            match table.get(&key)? {
                Some(flow) if self.is_over(&key, &flow) => removed.push(key),
                Some(_) => self.count(&key, quota),
                None => {}
            }
            // A look that was long ago says little.
            if removed.len() == AT_ONCE {
                self.remove(table, &mut removed)?;
            }
        }
        self.remove(table, &mut removed)
    }

    fn count<K: FlowKey>(&mut self, key: &K, quota: bool) {
        self.collected.live += 1;
        if quota {
            *self.live.entry(key.slot()).or_default() += 1;
        }
    }

    fn remove<K: FlowKey>(&mut self, table: &Table<K, Flow>, keys: &mut Vec<K>) -> Result<(), MapError> {
        let removed = table.remove(keys)?;
        self.collected.removed += u64::try_from(removed).unwrap_or(0);
        keys.clear();
        Ok(())
    }
}

/// How many flows are looked at again before they are removed: the window between the look and the removal is that of so
/// many system calls.
const AT_ONCE: usize = 32;

/// Lets ports that are new at their places track flows. It is done before their devices lead to them; how much they may track beside the
/// others is said exactly by the next collection.
pub(super) fn welcome(maps: &Maps, slots: &[u32]) -> Result<(), MapError> {
    let ports = elements(&maps.ports)?.filter(|(_, port)| is_managed(port)).count() + slots.len();
    let quota = quota(capacity(maps), ports);
    let tracked = tracked(maps, slots.iter().copied())?;
    let allowance: Vec<_> =
        tracked.into_iter().map(|(slot, tracked)| (slot, allowance_of(tracked, 0, quota))).collect();
    maps.allowance.write(&allowance)
}

/// Flows that ports at these places have ever begun to track by quota.
fn tracked(maps: &Maps, slots: impl Iterator<Item = u32>) -> Result<Vec<(u32, u64)>, MapError> {
    slots.map(|slot| Ok((slot, maps.tracked.get(&slot)?.unwrap_or(0)))).collect()
}

fn capacity(maps: &Maps) -> u32 {
    maps.flows4.capacity().min(maps.flows6.capacity())
}

const fn is_managed(port: &Port) -> bool {
    port.flags & PORT_MANAGED != 0
}

/// Flows each of so many ports may have by quota.
pub(super) fn quota(capacity: u32, ports: usize) -> u64 {
    let ports = u64::try_from(ports).unwrap_or(u64::MAX).max(1);
    (u64::from(capacity) / 2 / ports).max(1)
}

/// Up to where the count of tracked flows may grow so that no more than the quota are live.
fn allowance_of(tracked: u64, live: u64, quota: u64) -> u64 {
    tracked.saturating_sub(live).saturating_add(quota)
}

#[cfg(test)]
mod tests {
    use super::{allowance_of, quota};

    #[test]
    fn the_quotas_of_all_ports_never_exceed_half_of_the_capacity() {
        for capacity in [2048, 4096, 131_072, 262_144] {
            for ports in 1..=1024_usize {
                let sum = quota(capacity, ports) * u64::try_from(ports).unwrap();
                assert!(sum <= u64::from(capacity / 2), "{capacity} {ports}");
            }
        }
    }

    #[test]
    fn a_map_smaller_than_the_ports_leaves_each_one_flow() {
        assert_eq!(quota(100, 1024), 1);
        assert_eq!(quota(100, 0), 50);
    }

    #[test]
    fn a_port_may_track_as_many_as_its_quota_less_those_that_are_live() {
        // 1000 were tracked, 300 of them are live, the quota is 500: 200 more.
        assert_eq!(allowance_of(1000, 300, 500), 1200);
        // More are live than the quota since there are more ports: none.
        assert!(allowance_of(1000, 600, 500) < 1000);
        // The walk counted a flow of which the count is not yet there.
        assert_eq!(allowance_of(0, 1, 500), 500);
    }
}
