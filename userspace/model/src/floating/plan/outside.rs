//! From the router to the external device. Flow: policy.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::{
    State, broken,
    fib::{self, Leads},
    hops::Step,
    obstacle,
    router::{Found, Router},
    rules, slow,
    world::World,
};
use crate::{
    id::{LinkKey, Mac, NetnsId},
    inventory::Role,
};

/// From a device of a router to one of the host.
mod wire;

pub(super) use wire::Wire;

/// Start of the name of the device that the floating IPs of a distributed router leave by.
const DISTRIBUTED: &str = "fg-";

/// The outer end of a way.
#[derive(Debug)]
pub(super) struct Outside {
    /// From the router's own device to the external one.
    pub(super) wire: Wire,
    /// MAC address of the router's own device.
    pub(super) mac: Mac,
    /// Bytes an IP packet may have on the way out.
    pub(super) mtu: u32,
    /// Bytes an IP packet may have on the way in, before the router.
    pub(super) mtu_inward: u32,
    /// Name of the device by which packets leave the namespace that translates, and come to it.
    pub(super) by: String,
    /// Namespaces on the way out, but for the names and addresses at the instance's end.
    pub(super) steps: Vec<Step>,
}

/// The external side of a router.
pub(super) fn find(world: &World<'_, '_>, router: &Router, found: &Found, inner: &str) -> Result<Outside, State> {
    let inventory = world.inventory;
    let Some((own, link)) = found.device.and_then(|own| Some((own, inventory.link(own)?))) else {
        return broken(format!("{} has no device that leads outside", router.name));
    };
    forwards(world, router.netns)?;
    let step = Step { netns: router.netns, by: inner.to_owned(), out: own, next: vec![], source: found.fixed };
    if found.distributed {
        return distributed(world, found, (own, &link.name), step);
    }
    if !found.held {
        return broken(format!("no device of {} has the address {}", router.name, found.floating));
    }
    in_subnet(world, own, found.floating)?;
    obstacle::bypassed(world, own)?;
    let wire = leads_out(world, own, found.floating)?;
    let Some(mac) = link.mac else { return slow(format!("{} has no MAC address", link.name)) };
    let mtu = link.mtu.min(wire.mtu);
    Ok(Outside { wire, mac, mtu, mtu_inward: u32::MAX, by: link.name.clone(), steps: vec![step] })
}

/// The external side of a distributed router: through the namespace that all of them share.
fn distributed(
    world: &World<'_, '_>,
    found: &Found,
    (rfp, name): (LinkKey, &str),
    step: Step,
) -> Result<Outside, State> {
    let inventory = world.inventory;
    let shared = inventory.peer(rfp).filter(|fpr| matches!(inventory.role(fpr.netns), Role::Fip(_)));
    let Some(fpr) = shared else { return broken(format!("{name} does not lead into a fip- namespace")) };
    let label = inventory.netns(fpr.netns).label;
    forwards(world, fpr.netns)?;
    rules::read(inventory, fpr.netns, true)?;
    let mut outer = inventory.links_in(fpr.netns).filter(|(_, link)| link.name.starts_with(DISTRIBUTED));
    let (Some((own, link)), None) = (outer.next(), outer.next()) else {
        return slow(format!("{label} has no one device that leads outside"));
    };
    comes_in(world, (fpr, rfp), &link.name, found.floating)?;
    let proxy = format!("net.ipv4.conf.{}.proxy_arp", link.name);
    if inventory.sysctl(fpr.netns, &proxy) == Some("0") {
        return broken(format!("{} of {label} does not answer ARP: {proxy} is 0", link.name));
    }
    in_subnet(world, own, found.floating)?;
    for device in [rfp, fpr, own] {
        obstacle::bypassed(world, device)?;
    }
    let wire = leads_out(world, own, found.floating)?;
    let Some(mac) = link.mac else { return slow(format!("{} has no MAC address", link.name)) };
    let mtu = |key: LinkKey| inventory.link(key).map_or(0, |link| link.mtu);
    let second = Step {
        netns: fpr.netns,
        by: inventory.link(fpr).map_or_else(String::new, |link| link.name.clone()),
        out: own,
        next: vec![],
        source: found.floating,
    };
    let first = Step { next: world.held_by(fpr).map(|net| net.addr()).collect(), ..step };
    Ok(Outside {
        mtu: mtu(rfp).min(link.mtu).min(wire.mtu),
        mtu_inward: mtu(fpr),
        wire,
        mac,
        by: name.to_owned(),
        steps: vec![first, second],
    })
}

/// The way out of a router's own device for one floating IP.
fn leads_out(world: &World<'_, '_>, own: LinkKey, floating: Ipv4Addr) -> Result<Wire, State> {
    let wire = world.wire(own, || wire::find(world, own))?;
    if let Some(bridge) = wire.bridge {
        obstacle::bridged(world, bridge, [world.inventory.peer(own), Some(wire.device)], floating)?;
    }
    Ok(wire)
}

/// Whether what comes to a floating IP is sent on to its router.
fn comes_in(world: &World<'_, '_>, (fpr, rfp): (LinkKey, LinkKey), by: &str, floating: Ipv4Addr) -> Result<(), State> {
    let label = world.inventory.netns(fpr.netns).label;
    let Some(network) = world.network(fpr.netns) else {
        return slow(format!("the routes of {label} could not be read"));
    };
    let to_router = |gateway: Ipv4Addr| world.held_by(rfp).any(|net| net.addr() == gateway);
    match fib::toward(network, by, floating) {
        Err(what) => slow(format!("{what} of {label} is not one that netdiag understands")),
        Ok(Some(Leads::By(device, Some(gateway)))) if device == fpr.ifindex && to_router(gateway) => Ok(()),
        Ok(_) => broken(format!("{label} has no route for {floating} to its router")),
    }
}

/// Whether a namespace forwards.
pub(super) fn forwards(world: &World<'_, '_>, netns: NetnsId) -> Result<(), State> {
    let label = world.inventory.netns(netns).label;
    match world.inventory.sysctl(netns, "net.ipv4.ip_forward") {
        Some("0") => broken(format!("{label} does not forward: net.ipv4.ip_forward is 0")),
        Some(_) => Ok(()),
        None => slow(format!("whether {label} forwards could not be read")),
    }
}

/// Whether an address is of the network a device is on.
fn in_subnet(world: &World<'_, '_>, device: LinkKey, floating: Ipv4Addr) -> Result<(), State> {
    let nets = world.subnets(device);
    if nets.iter().any(|net| net.contains(&floating)) {
        return Ok(());
    }
    let label = obstacle::place(world, device);
    let nets: Vec<String> = nets.iter().map(|net| net.trunc().to_string()).collect();
    let nets = if nets.is_empty() { "none".to_owned() } else { nets.join(", ") };
    slow(format!("{floating} is in no subnet of {label}, which has {nets}"))
}

impl<'a> World<'_, 'a> {
    /// IPv4 addresses of a device, with their prefixes.
    pub(super) fn held_by(&self, device: LinkKey) -> impl Iterator<Item = Ipv4Net> + use<'a> {
        let held = self.inventory.link(device).map_or(&[][..], |link| &link.addresses);
        held.iter().filter_map(|held| match held.address {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        })
    }
}
