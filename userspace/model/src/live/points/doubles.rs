//! Other instances of the host that have an address of this one: another tenant's network may be numbered alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Stop, Track, track};
use crate::{
    id::{LinkKey, Mac},
    inventory::Inventory,
    trace::{Trace, explain},
};

/// What tells packets of those who have the same address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubles {
    /// Addresses that somebody else has too.
    pub addresses: BTreeSet<IpAddr>,
    /// MAC addresses of their ends of the segments of devices that packets of both pass.
    pub frames: BTreeMap<LinkKey, BTreeSet<Mac>>,
}

impl Doubles {
    /// Of an instance with the devices of its paths.
    pub(super) fn of(inventory: &Inventory<'_>, trace: &Trace, tracks: &[Track]) -> Self {
        let wanted: BTreeSet<IpAddr> = tracks.iter().flat_map(Track::inside).collect();
        let has_one = |addresses: &[ipnet::IpNet]| addresses.iter().any(|net| wanted.contains(&net.addr()));
        let others = inventory.instances.iter().filter(|other| other.identity != trace.instance);
        let mut doubles = Self::default();
        for other in others.filter(|other| other.nics.iter().any(|nic| has_one(&nic.addresses))) {
            for interface in explain(inventory, other).interfaces.iter().filter(|one| has_one(&one.addresses)) {
                doubles.add(&track(inventory, interface), &wanted);
            }
        }
        doubles.spare(tracks.iter().flat_map(|track| &track.stops));
        doubles
    }

    fn add(&mut self, track: &Track, wanted: &BTreeSet<IpAddr>) {
        self.addresses.extend(track.inside().filter(|address| wanted.contains(address)));
        for stop in track.stops.iter().filter(|stop| !stop.segment.own) {
            self.frames.entry(stop.link).or_default().extend(stop.segment.near);
        }
    }

    /// What the instance's own frames look like tells nothing.
    fn spare<'s>(&mut self, own: impl Iterator<Item = &'s Stop>) {
        for stop in own {
            if let Some((macs, near)) = self.frames.get_mut(&stop.link).zip(stop.segment.near) {
                macs.remove(&near);
            }
        }
    }
}

#[cfg(test)]
mod tests;
