//! Devices of other instances, which packets of this one come to on their segment.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::Track;
use crate::{
    id::LinkKey,
    inventory::{Inventory, Nic},
};

/// Devices on the host that lead to one instance only, with its addresses.
pub(super) fn devices(inventory: &Inventory<'_>, tracks: &[Track]) -> BTreeMap<LinkKey, Vec<IpAddr>> {
    let mut found: BTreeMap<LinkKey, Vec<IpAddr>> = BTreeMap::new();
    let nics = inventory.instances.iter().flat_map(|instance| &instance.nics);
    for nic in nics {
        for device in own(inventory, nic) {
            found.entry(device).or_default().extend(nic.addresses.iter().map(IpNet::addr));
        }
    }
    let is_on_path = |link: &LinkKey| tracks.iter().flat_map(|track| &track.stops).any(|stop| stop.link == *link);
    found.retain(|link, _| !is_on_path(link));
    found
}

/// The host's end of a card, and of the bridge that is the card's alone: it and its ports.
fn own(inventory: &Inventory<'_>, nic: &Nic<'_>) -> Vec<LinkKey> {
    let Some(outer) = nic.outer else { return Vec::new() };
    let Some(bridge) = inventory.linux_bridge(outer) else { return vec![outer] };
    let ports: Vec<LinkKey> = inventory.bridge_ports(bridge).map(|(port, _)| port).collect();
    // A bridge of many is nobody's.
    if ports.len() == 2 { [vec![bridge], ports].concat() } else { vec![outer] }
}
