//! From the router to the port of a fixed address. Flow: policy.

use std::net::IpAddr;

use super::{
    State, broken,
    router::{Found, Router},
    segment, slow,
    world::World,
};
use crate::{
    id::{IfIndex, LinkKey, Mac},
    inventory::route::Question,
    policy::types::{Attached, Mode},
};

/// The inner end of a way.
#[derive(Debug)]
pub(super) struct Inside<'w> {
    /// The port of the fixed address.
    pub(super) port: &'w Attached,
    /// MAC address of the router there.
    pub(super) router_mac: Mac,
    /// Bytes an IP packet may have there.
    pub(super) mtu: u32,
    /// The port's device leads into another namespace.
    pub(super) peer: bool,
}

/// The port a floating IP leads to.
pub(super) fn port<'w>(world: &World<'w, '_>, router: &Router, found: &Found) -> Result<Inside<'w>, State> {
    let (inventory, fixed, name) = (world.inventory, found.fixed, &router.name);
    let question = Question { source: found.floating.into(), destination: Some(IpAddr::V4(fixed)), iif: None };
    let Ok(answer) = inventory.route(router.netns, question) else {
        return broken(format!("{name} has no route to {fixed}"));
    };
    let device = answer.ifindex().filter(|_| answer.next_hop.gateway.is_none());
    let Some(device) = device.map(|ifindex| LinkKey { netns: router.netns, ifindex }) else {
        return slow(format!("{name} reaches {fixed} by another router"));
    };
    let Some((link, segment)) = inventory.link(device).zip(segment::of(inventory, device)) else {
        return slow(format!("the network of {fixed} is not one of this host as {name} reaches it"));
    };
    let port = match world.ports(segment, fixed) {
        [port] => *port,
        [] => return slow(format!("no port enforced by netdiag has {fixed} on the network that {name} serves")),
        [one, other, ..] => return slow(format!("{} and {} both have {fixed}", one.id, other.id)),
    };
    match port.mode {
        Mode::Filtered => {}
        Mode::Trusted | Mode::Closed => {
            return slow(format!("port {} is {}, and not held to its security groups", port.id, port.mode.name()));
        }
    }
    let stateless = |id| world.policy.groups.get(id).is_some_and(|group| !group.stateful);
    if port.groups.iter().any(stateless) {
        return slow(format!("port {} has stateless security groups", port.id));
    }
    let outer = inventory.host.map(|netns| LinkKey { netns, ifindex: IfIndex(port.ifindex) });
    let outer = outer.and_then(|outer| inventory.link(outer));
    let Some((outer, router_mac)) = outer.zip(link.mac) else {
        return slow(format!("{} has no MAC address", link.name));
    };
    let peer = outer.kind.as_deref() == Some("veth") && outer.link_netnsid.is_some();
    Ok(Inside { port, router_mac, mtu: link.mtu.min(outer.mtu), peer })
}
