//! The maps of who may send to whom past the bridge. Flow: policy.
//!
//! A packet goes past the bridge where its port has a network and the MAC address it goes to is a station of it, so what goes, goes
//! first: a port leaves its network before the stations there change.

use std::collections::BTreeMap;

use netdiag_common::abi::floating::StationKey;

use super::{
    apply::elements,
    maps::{MapError, Maps},
};

/// What the maps hold, or shall hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stations {
    /// Networks by place of the port.
    pub networks: BTreeMap<u32, u32>,
    /// Devices of instances.
    pub stations: BTreeMap<StationKey, u32>,
}

/// What the maps hold.
pub(super) fn read(maps: &Maps) -> Result<Stations, MapError> {
    let networks = elements(&maps.networks)?.collect();
    Ok(Stations { networks, stations: maps.stations.read()?.into_iter().collect() })
}

/// Makes the maps hold `after`, where they hold `before`.
pub(super) fn apply(maps: &Maps, before: &Stations, after: &Stations) -> Result<(), MapError> {
    let left = before.networks.iter().filter(|(slot, network)| after.networks.get(slot) != Some(network));
    maps.networks.write(&left.map(|(slot, _)| (*slot, 0)).collect::<Vec<_>>())?;
    let gone = before.stations.keys().filter(|key| !after.stations.contains_key(key));
    maps.stations.remove(&gone.copied().collect::<Vec<_>>())?;
    let new = after.stations.iter().filter(|(key, device)| before.stations.get(key) != Some(device));
    maps.stations.write(&new.map(|(key, device)| (*key, *device)).collect::<Vec<_>>())?;
    let joined = after.networks.iter().filter(|(slot, network)| before.networks.get(slot) != Some(network));
    maps.networks.write(&joined.map(|(slot, network)| (*slot, *network)).collect::<Vec<_>>())
}
