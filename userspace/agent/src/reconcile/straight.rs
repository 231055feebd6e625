//! Who may send to whom past the bridge, in a pass. Flow: policy.
//!
//! What nothing else needs to see is found out by a look at routers, rules and programs; that a port has left its bridge, by a
//! look for ports, and then it leaves its network at once.

use std::collections::BTreeMap;

use netdiag_model::{
    compile::Tables, floating::tables::Places, inventory::Inventory, policy::types::Attached, snapshot::Snapshot,
    straight::straight,
};

use super::floating::places;
use crate::{
    discover::chain,
    enforce::{Enforcer, Stations},
};

/// Who may send to whom.
pub(super) struct Straights {
    /// Whether anybody may.
    wanted: bool,
    /// What the maps hold; none where a write failed and they have to be read first.
    stations: Option<Stations>,
}

impl Straights {
    /// What was in force before.
    pub(super) fn open(wanted: bool, enforcer: &Enforcer) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self { wanted, stations: Some(enforcer.read_stations()?) })
    }

    /// Takes ports out that will not be at their places any more, or are not at their bridges.
    pub(super) fn narrow(
        &mut self,
        enforcer: &Enforcer,
        after: &Tables,
        inventory: &Inventory<'_>,
    ) -> Result<(), String> {
        let before = self.before(enforcer)?;
        let bridges = bridges(inventory);
        let stays = |device: &u32, network: u32| bridges.get(device) == Some(&network);
        let devices: BTreeMap<u32, u32> = after.interfaces.iter().map(|(device, slot)| (*slot, *device)).collect();
        let mut narrowed = before.clone();
        narrowed.networks.retain(|slot, network| devices.get(slot).is_some_and(|device| stays(device, *network)));
        narrowed.stations.retain(|key, device| after.interfaces.contains_key(device) && stays(device, key.network));
        self.write(enforcer, &before, narrowed)
    }

    /// Makes it what it shall be, as far as it was looked at.
    pub(super) fn run(
        &mut self,
        enforcer: &Enforcer,
        (ports, tables): (&[Attached], &Tables),
        seen: Option<&Snapshot>,
    ) -> Result<(), String> {
        let after = match seen {
            _ if !self.wanted => Stations::default(),
            None => return Ok(()),
            Some(seen) => lower(&Inventory::build(seen), ports, &places(tables)),
        };
        let before = self.before(enforcer)?;
        self.write(enforcer, &before, after)
    }

    fn before(&mut self, enforcer: &Enforcer) -> Result<Stations, String> {
        match self.stations.take() {
            Some(stations) => Ok(stations),
            None => enforcer.read_stations().map_err(|error| chain(&error)),
        }
    }

    fn write(&mut self, enforcer: &Enforcer, before: &Stations, after: Stations) -> Result<(), String> {
        // Where this fails, what the maps hold is not known any more and is read before the next pass.
        enforcer.apply_stations(before, &after).map_err(|error| chain(&error))?;
        self.stations = Some(after);
        Ok(())
    }
}

/// Bridges by device of the host.
fn bridges(inventory: &Inventory<'_>) -> BTreeMap<u32, u32> {
    let links = inventory.host.into_iter().flat_map(|host| inventory.links_in(host));
    links.filter_map(|(key, link)| Some((key.ifindex.0, link.master?.0))).collect()
}

fn lower(inventory: &Inventory<'_>, ports: &[Attached], places: &Places) -> Stations {
    let found = straight(inventory, ports);
    let networks = found.networks.into_iter();
    let networks = networks.filter_map(|(device, network)| Some((places.get(&device)?.0, network))).collect();
    Stations { networks, stations: found.stations }
}
