//! What at the devices of a way needs to see its packets, or lets none through. Flow: policy.

use super::{State, broken, slow, world::World};
use crate::{
    fact::{LinkFact, OperState, ProgramFact, ProgramHook},
    id::LinkKey,
    inventory::PortPlace,
    netfilter::{
        Hook, Outcome, Packet, Ruleset,
        walk::{Layer, walk_layer},
    },
    trace::between_any,
};

/// Queueing disciplines that only order what waits, as kernels give them to devices without being asked.
const PLAIN: [&str; 8] = ["noqueue", "pfifo_fast", "pfifo", "fq_codel", "fq", "mq", "noop", "bfifo"];

/// A device that nothing is left of but its place: the fast way goes past it.
pub(super) fn bypassed(world: &World<'_, '_>, device: LinkKey) -> Result<(), State> {
    let link = up(world, device)?;
    let label = place(world, device);
    if let Some(qdisc) = shaped(link) {
        return slow(format!("{label} has the queueing discipline {qdisc}, which limits or delays what passes"));
    }
    match foreign(world, device, |_| true).next() {
        Some(program) => slow(sees(&label, program)),
        None => port(world, device),
    }
}

/// A device the fast way begins or ends at.
pub(super) fn met(world: &World<'_, '_>, device: LinkKey, xdp: bool) -> Result<(), State> {
    up(world, device)?;
    // Where netdiag itself is met by XDP, nobody else can be.
    let sees_less = |hook: ProgramHook| xdp || hook != ProgramHook::Xdp;
    if let Some(program) = foreign(world, device, sees_less).next() {
        return slow(sees(&place(world, device), program));
    }
    frames(world, device)?;
    port(world, device)
}

/// Rules of nft for the frames of one device, and for those of the Linux bridge it is a port of.
fn frames(world: &World<'_, '_>, device: LinkKey) -> Result<(), State> {
    let inventory = world.inventory;
    let Some(link) = inventory.link(device) else { return Ok(()) };
    let rulesets: Vec<&Ruleset> = inventory.rulesets(device.netns).iter().collect();
    let met = |layer: Layer<'_>, hooks: &[Hook]| {
        let walks = hooks.iter().map(|hook| walk_layer(&rulesets, layer, *hook, Packet::default()));
        walks.flat_map(|walk| walk.steps).next()
    };
    let own = met(Layer::Device(&link.name), &[Hook::Ingress, Hook::Egress]);
    let bridged = || met(Layer::Bridge, &[Hook::Prerouting, Hook::Forward, Hook::Postrouting]);
    let rule = own.or_else(|| inventory.linux_bridge(device).and_then(|_| bridged()));
    match rule {
        Some(rule) => slow(format!("a rule for frames of {} has to see its packets: {}", link.name, rule.raw)),
        None => Ok(()),
    }
}

/// Rules of iptables for what a Linux bridge forwards, as Neutron's own security groups are with the hybrid plug.
pub(super) fn filtered(world: &World<'_, '_>, bridge: LinkKey) -> Result<(), State> {
    match between_any(world.inventory, bridge, Packet::ipv4()) {
        None | Some(Outcome::Accept) => Ok(()),
        Some(_) => slow(format!("iptables of this host filters what bridge {} forwards", place(world, bridge))),
    }
}

/// Whether a device limits or delays what leaves by it.
pub(super) fn shaped(link: &LinkFact) -> Option<&str> {
    link.qdisc.as_deref().filter(|qdisc| !PLAIN.contains(qdisc))
}

fn up<'a>(world: &World<'_, 'a>, device: LinkKey) -> Result<&'a LinkFact, State> {
    let Some(link) = world.inventory.link(device) else {
        return broken("a device of its way is gone");
    };
    let down =
        !link.admin_up || matches!(link.state, OperState::Down | OperState::LowerLayerDown | OperState::NotPresent);
    if down { broken(format!("{} is down", place(world, device))) } else { Ok(link) }
}

/// A device by its name, and by its namespace where that is not the host's.
pub(super) fn place(world: &World<'_, '_>, device: LinkKey) -> String {
    let name = world.inventory.link(device).map_or("a device", |link| &link.name);
    let netns = world.inventory.netns(device.netns);
    if netns.host { name.to_owned() } else { format!("{name} of {}", netns.label) }
}

/// Programs and filters of others.
fn foreign<'a>(
    world: &World<'_, 'a>,
    device: LinkKey,
    counts: impl Fn(ProgramHook) -> bool,
) -> impl Iterator<Item = &'a ProgramFact> {
    world.inventory.foreign_programs(device).filter(move |program| counts(program.hook))
}

fn sees(device: &str, program: &ProgramFact) -> String {
    format!("{} at {} of {device} has to see its packets", program.name, program.hook.name())
}

/// The port of Open vSwitch a device is, where it is one.
fn port(world: &World<'_, '_>, device: LinkKey) -> Result<(), State> {
    world.inventory.port_of(device).map_or(Ok(()), |port| switched(&port))
}

/// A port of Open vSwitch, and its bridge.
pub(super) fn switched(port: &PortPlace<'_>) -> Result<(), State> {
    let (name, bridge) = (&port.interface.name, port.bridge);
    if port.limits() {
        return slow(format!("Open vSwitch limits port {name} of {}: its QoS has to see the packets", bridge.name));
    }
    if bridge.mirrors > 0 {
        return slow(format!("bridge {} has a mirror, which has to see its packets", bridge.name));
    }
    if bridge.exports > 0 {
        return slow(format!("bridge {} tells a collector of its packets, and has to see them", bridge.name));
    }
    Ok(())
}
