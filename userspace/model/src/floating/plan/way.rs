//! The way of one floating IP that somebody else made. Flow: policy.

use super::{
    State, broken,
    hops::{External, Routers},
    inside::{self, Inside},
    outside::{self, Outside},
    router::{Found, Router},
    rules::Through,
    slow,
    world::World,
};
use crate::{
    floating::{ExternalHook, FastPath},
    policy::types::Hook,
};

/// The way of a floating IP, and where its network is: the external device and the VLAN there.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) taken: Result<FastPath, State>,
    pub(super) network: Option<(u32, u16)>,
    /// The port it leads to, where there is one that is enforced.
    pub(super) port: Option<crate::policy::types::PortId>,
}

/// The way of a floating IP in a router's rules.
pub(super) fn find(world: &World<'_, '_>, router: &Router, found: &Found, routers: &mut Routers) -> Way {
    let standing = standing(router, found);
    if router.standby {
        return Way { taken: standing.and_then(|()| slow("")), network: None, port: None };
    }
    let name = router.name.as_str();
    let by = found.device.and_then(|own| world.inventory.link(own)).map_or("", |link| &link.name);
    let device = inside::device(world, (router.netns, name), by, found.fixed);
    let port = device.clone().and_then(|device| inside::port(world, device, found.fixed));
    let inner = device.ok().and_then(|device| world.inventory.link(device)).map_or("", |link| &link.name);
    let inside = inside::find(world, (router.netns, name), by, found.fixed);
    let outside = outside::find(world, router, found, inner);
    let network = outside.as_ref().ok().map(|outside| (outside.wire.device.ifindex.0, outside.wire.vlan));
    let port = port.ok().map(|port| port.id.clone());
    let way = match worst(standing, outside, inside) {
        Ok((outside, inside)) => {
            let ends = Ends { router, found, outside: &outside, inside: &inside };
            ends.path(world, routers)
        }
        Err(state) => Err(state),
    };
    Way { taken: way, network, port }
}

/// Both ends, or what says most: that nothing arrives, before why it goes through the router.
fn worst(
    standing: Result<(), State>,
    outside: Result<Outside, State>,
    inside: Result<Inside<'_>, State>,
) -> Result<(Outside, Inside<'_>), State> {
    let errors = [standing.err(), outside.as_ref().err().cloned(), inside.as_ref().err().cloned()];
    let mut errors: Vec<State> = errors.into_iter().flatten().collect();
    errors.sort_by_key(|state| !matches!(state, State::Broken { .. }));
    match errors.into_iter().next() {
        Some(state) => Err(state),
        None => Ok((outside?, inside?)),
    }
}

/// What the router's rules say of a floating IP, whatever is at its ends.
fn standing(router: &Router, found: &Found) -> Result<(), State> {
    let (name, floating, fixed) = (&router.name, found.floating, found.fixed);
    if router.standby {
        return slow(format!("{name} is on standby: the active router is on another host"));
    }
    match &found.missing[..] {
        [] => {}
        ["OUTPUT"] => return slow(format!("{name} has no rule for it in OUTPUT")),
        missing => return broken(format!("{name} has no rule for it in {}", missing.join(" and "))),
    }
    let rules = router.rules.as_ref().map_err(State::clone)?;
    match rules.arrives.get(&floating) {
        Some(to) if *to != fixed => {
            return broken(format!("a rule of {name} leads {floating} to {to} before this one"));
        }
        Some(_) => {}
        None => return broken(format!("no rule of {name} that packets meet leads {floating} to {fixed}")),
    }
    match rules.leaves.get(&fixed) {
        Some(other) if *other != floating => {
            return slow(format!("what {fixed} sends leaves {name} as {other}, its first floating IP"));
        }
        Some(_) => {}
        None => return broken(format!("no rule of {name} that packets meet lets {fixed} leave as {floating}")),
    }
    if rules.forwarded.contains_key(&floating) {
        return slow(format!("port forwarding: some ports of {floating} lead elsewhere"));
    }
    if router.half {
        return slow(format!(
            "what {fixed} sends comes to {name} by another router, and what it is sent does not go there"
        ));
    }
    Ok(())
}

/// A way whose both ends are understood.
struct Ends<'e, 'w> {
    router: &'e Router,
    found: &'e Found,
    outside: &'e Outside,
    inside: &'e Inside<'w>,
}

impl Ends<'_, '_> {
    fn path(&self, world: &World<'_, '_>, routers: &mut Routers) -> Result<FastPath, State> {
        let Self { router, found, outside, inside } = self;
        let rules = router.rules.as_ref().map_err(State::clone)?;
        let through = Through { outer: &outside.by, inner: &inside.name, floating: found.floating, fixed: found.fixed };
        rules.let_through(&router.name, through)?;
        if !world.switches.accelerate {
            return slow("netdiag is told to leave the floating IPs of others to their routers");
        }
        let wire = &outside.wire;
        if inside.port.hook == Hook::Xdp && (wire.hook == ExternalHook::Internal || wire.vlan != 0) {
            // From there a frame can be sent out of a device as it is, and nothing else.
            let (name, port) = (&wire.name, &inside.port.id);
            return slow(format!("what {port} sends is met at XDP, from where {name} can neither tag nor receive it"));
        }
        let external = External { device: wire.device, internal: wire.hook == ExternalHook::Internal };
        let number = routers.number(world, &router.name, external, &outside.steps)?;
        Ok(FastPath {
            router: number,
            device: wire.name.clone(),
            ifindex: wire.device.ifindex.0,
            hook: wire.hook,
            vlan: wire.vlan,
            outer_mac: outside.mac,
            outer_mtu: outside.mtu,
            inner_mac: inside.mac,
            inner_mtu: inside.mtu.min(outside.mtu_inward),
            mac: inside.port.mac,
            port_ifindex: inside.port.ifindex,
            peer: inside.peer,
            hops: if found.distributed { 2 } else { 1 },
            random: found.random,
            begins: !world.switches.slow.has(found.floating),
        })
    }
}
