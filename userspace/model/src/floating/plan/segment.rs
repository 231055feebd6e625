//! Networks by what they are on this host: a VLAN of an Open vSwitch bridge, or a Linux bridge. Flow: policy.

use crate::{
    id::LinkKey,
    inventory::{Inventory, PortPlace, switch::DEAD_VLAN},
};

/// A network of this host: two devices on one of these reach each other without a router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Segment {
    /// A VLAN of an Open vSwitch bridge, by the switch's place in the facts.
    Vlan(usize, String, u16),
    /// A Linux bridge.
    Bridge(LinkKey),
}

/// The network a device is on: its own end of it, or the bridge itself.
pub(super) fn of(inventory: &Inventory<'_>, device: LinkKey) -> Option<Segment> {
    if inventory.kind(device) == Some("bridge") {
        return Some(Segment::Bridge(device));
    }
    if let Some(port) = inventory.port_of(device) {
        return vlan(inventory, &port);
    }
    match inventory.linux_bridge(device) {
        Some(bridge) => behind(inventory, bridge, device).or(Some(Segment::Bridge(bridge))),
        // A router's end of a veth pair: the other one is plugged in.
        None => inventory.peer(device).and_then(|peer| plugged(inventory, peer)),
    }
}

fn plugged(inventory: &Inventory<'_>, device: LinkKey) -> Option<Segment> {
    inventory
        .port_of(device)
        .and_then(|port| vlan(inventory, &port))
        .or_else(|| inventory.linux_bridge(device).map(Segment::Bridge))
}

/// The VLAN behind the bridge of one port that hybrid plug makes.
fn behind(inventory: &Inventory<'_>, bridge: LinkKey, device: LinkKey) -> Option<Segment> {
    let mut others = inventory.bridge_ports(bridge).map(|(key, _)| key).filter(|key| *key != device);
    let other = others.next().filter(|_| others.next().is_none())?;
    vlan(inventory, &inventory.port_of(inventory.peer(other)?)?)
}

fn vlan(inventory: &Inventory<'_>, port: &PortPlace<'_>) -> Option<Segment> {
    let ports = inventory.ports();
    let port = ports.trunk_parent(port).map_or(*port, |(_, parent)| parent);
    let vlan = port.untagged_vlan().filter(|vlan| *vlan != DEAD_VLAN)?;
    let switch = inventory.snapshot.facts.switches.iter().position(|switch| std::ptr::eq(switch, port.switch))?;
    Some(Segment::Vlan(switch, port.bridge.name.clone(), vlan))
}
