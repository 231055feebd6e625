//! From the router to the port of a fixed address. Flow: policy.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    State, broken,
    fib::{self, Leads},
    obstacle, slow,
    world::World,
};
use crate::{
    id::{LinkKey, Mac, NetnsId},
    inventory::Nic,
    policy::types::{Attached, Mode},
};

/// The inner end of a way.
#[derive(Debug)]
pub(super) struct Inside<'w> {
    /// The port of the fixed address.
    pub(super) port: &'w Attached,
    /// The router's device there.
    pub(super) device: LinkKey,
    /// Name of that.
    pub(super) name: String,
    /// MAC address of that.
    pub(super) mac: Mac,
    /// Bytes an IP packet may have there.
    pub(super) mtu: u32,
    /// The port's device leads into another namespace.
    pub(super) peer: bool,
}

/// The device a namespace reaches a fixed address by, of what comes in by another.
pub(super) fn device(
    world: &World<'_, '_>,
    (netns, name): (NetnsId, &str),
    by: &str,
    fixed: Ipv4Addr,
) -> Result<LinkKey, State> {
    let Some(network) = world.network(netns) else { return slow(format!("the routes of {name} could not be read")) };
    match fib::toward(network, by, fixed) {
        Err(what) => slow(format!("{what} of {name} is not one that netdiag understands")),
        Ok(None) => broken(format!("{name} has no route to {fixed}")),
        Ok(Some(Leads::By(ifindex, None))) => Ok(LinkKey { netns, ifindex }),
        Ok(Some(Leads::By(_, Some(gateway)))) => slow(format!("{name} reaches {fixed} by another router, {gateway}")),
        Ok(Some(Leads::Nowhere)) => slow(format!("{name} reaches {fixed} by several ways, or by none")),
    }
}

/// The port of a fixed address on the network of a router's device.
pub(super) fn port<'w>(world: &World<'w, '_>, device: LinkKey, fixed: Ipv4Addr) -> Result<&'w Attached, State> {
    let label = obstacle::place(world, device);
    let Some(segment) = world.segment(device) else {
        return slow(format!("which network {label} is on cannot be told"));
    };
    match world.ports(&segment, fixed) {
        [port] => return Ok(port),
        [one, other, ..] => return slow(format!("ports {} and {} both have {fixed}", one.id, other.id)),
        [] => {}
    }
    let on_it = |device: Option<LinkKey>| device.and_then(|device| world.segment(device)).as_ref() == Some(&segment);
    let may_have = |port: &&Attached| port.pairs.iter().any(|(_, net)| net.contains(&IpAddr::V4(fixed)));
    if let Some(port) = world.enforced.iter().filter(may_have).find(|port| on_it(world.device(port.ifindex))) {
        return slow(format!("{fixed} is an allowed address pair of port {}, and may move to another", port.id));
    }
    let has = |nic: &Nic<'_>| nic.addresses.iter().any(|net| net.addr() == fixed) && on_it(nic.outer);
    match world.inventory.instances.iter().find(|instance| instance.nics.iter().any(has)) {
        Some(instance) => {
            let name = &instance.identity.name;
            slow(format!("{name}, which has {fixed}, is not held to security groups by netdiag"))
        }
        None => slow(format!("nobody on the network of {label} on this host has {fixed} and is enforced by netdiag")),
    }
}

/// The inner end of a way.
pub(super) fn find<'w>(
    world: &World<'w, '_>,
    (netns, name): (NetnsId, &str),
    by: &str,
    fixed: Ipv4Addr,
) -> Result<Inside<'w>, State> {
    let device = device(world, (netns, name), by, fixed)?;
    let port = port(world, device, fixed)?;
    enforced(world, port)?;
    let outer = world.device(port.ifindex);
    let Some(((link, outer), at)) =
        world.inventory.link(device).zip(outer.and_then(|key| world.inventory.link(key))).zip(outer)
    else {
        return broken(format!("the device of port {} is gone", port.id));
    };
    let Some(mac) = link.mac else { return slow(format!("{} has no MAC address", link.name)) };
    neighbour(world, (device, &link.name), fixed, port)?;
    obstacle::bypassed(world, device)?;
    obstacle::met(world, at, false)?;
    between(world, at, device)?;
    // A peer is given packets past the queue of the host's device.
    let peer =
        outer.kind.as_deref() == Some("veth") && outer.link_netnsid.is_some() && obstacle::shaped(outer).is_none();
    Ok(Inside { port, device, name: link.name.clone(), mac, mtu: link.mtu.min(outer.mtu), peer })
}

/// Whether a port is held to its security groups, flow by flow.
fn enforced(world: &World<'_, '_>, port: &Attached) -> Result<(), State> {
    match port.mode {
        Mode::Filtered => {}
        Mode::Trusted => return slow(format!("port {} is trusted, and held to no security groups", port.id)),
        Mode::Closed => return slow(format!("port {} is closed: what is to be enforced there is in doubt", port.id)),
    }
    let stateless = |id| world.policy.groups.get(id).is_some_and(|group| !group.stateful);
    match port.groups.iter().find(|id| stateless(*id)) {
        Some(group) => slow(format!("security group {group} of port {} is stateless: no flow is known there", port.id)),
        None => Ok(()),
    }
}

/// Whom the router itself takes for the owner of the fixed address.
fn neighbour(
    world: &World<'_, '_>,
    (device, name): (LinkKey, &str),
    fixed: Ipv4Addr,
    port: &Attached,
) -> Result<(), State> {
    let known = world.network(device.netns).map_or(&[][..], |network| &network.neighbours);
    let other = known.iter().filter(|entry| entry.ifindex == device.ifindex && entry.address == fixed && !entry.proxy);
    match other.filter_map(|entry| entry.mac).find(|mac| *mac != port.mac) {
        Some(mac) => slow(format!("{name} knows {fixed} at {mac}, and port {} has {}", port.id, port.mac)),
        None => Ok(()),
    }
}

/// What is between a port's device and its network: the bridge of hybrid plug, a trunk's.
fn between(world: &World<'_, '_>, device: LinkKey, router: LinkKey) -> Result<(), State> {
    let inventory = world.inventory;
    if let Some((near, far)) = inventory.port_of(device).and_then(|port| inventory.ports().trunk_parent(&port)) {
        obstacle::switched(&near)?;
        return obstacle::switched(&far);
    }
    let Some(bridge) = inventory.linux_bridge(device) else { return Ok(()) };
    for (key, _) in inventory.bridge_ports(bridge).filter(|(key, _)| *key != device) {
        let Some(peer) = inventory.peer(key).filter(|peer| inventory.port_of(*peer).is_some()) else { continue };
        obstacle::bypassed(world, key)?;
        obstacle::bypassed(world, peer)?;
    }
    // A bridge that is the router's own device forwards nothing of this: its packets are routed.
    if bridge == router { Ok(()) } else { obstacle::filtered(world, bridge) }
}
