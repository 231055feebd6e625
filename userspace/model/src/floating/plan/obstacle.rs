//! What at the devices of a way needs to see its packets, or lets none through. Flow: policy.

use std::net::{IpAddr, Ipv4Addr};

use super::{State, broken, slow, world::World};
use crate::{
    fact::{Gap, LinkFact, OperState, ProgramFact, ProgramHook},
    id::LinkKey,
    inventory::PortPlace,
    netfilter::{
        Address, Hook, Known, Outcome, Packet, Ruleset,
        walk::{Effect, Layer, Walk, walk, walk_layer},
    },
    trace::{between_any, called},
};

/// How much of a rule is shown.
const SHOWN: usize = 160;

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
    // A port of a bridge, or the bridge itself, to which its ports send and which sends to them.
    let bridge =
        inventory.linux_bridge(device).or_else(|| (inventory.kind(device) == Some("bridge")).then_some(device));
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let rule = own.or_else(|| bridge.and_then(|_| met(Layer::Bridge, &hooks)));
    let unread = |gap: &Gap| !gap.absent && gap.object == Gap::EBTABLES;
    match rule {
        None if bridge.is_some() && inventory.snapshot.facts.gaps().any(unread) => slow(format!(
            "{} for frames of {} were not read, and may have to see its packets",
            Gap::EBTABLES,
            link.name
        )),
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

/// Rules of iptables for what a Linux bridge forwards of a floating IP, where `br_netfilter` asks them: they must let all of it
/// pass as it is. `ends`: the ports it crosses the bridge between, the inner one first; the bridge itself is none of its ports.
pub(super) fn bridged(
    world: &World<'_, '_>,
    bridge: LinkKey,
    ends: [Option<LinkKey>; 2],
    floating: Ipv4Addr,
) -> Result<(), State> {
    let inventory = world.inventory;
    let Some(link) = inventory.link(bridge).filter(|_| called(inventory, bridge)) else { return Ok(()) };
    let name = |end: Option<LinkKey>| match end.filter(|end| *end != bridge).and_then(|end| inventory.link(end)) {
        Some(port) => Known::Is(port.name.clone()),
        None => Known::Absent,
    };
    let [inner, outer] = ends;
    let rulesets: Vec<&Ruleset> = inventory.rulesets(bridge.netns).iter().collect();
    let at = Address::Is(IpAddr::V4(floating));
    for (packet, from, to) in
        [(Packet::between(Address::Unknown, at), outer, inner), (Packet::between(at, Address::Unknown), inner, outer)]
    {
        let packet = Packet {
            physdev_in: name(from),
            physdev_out: name(to),
            bridged: Known::Is(true),
            state: Known::Unknown,
            to_local: Known::Is(false),
            ..packet
        };
        let device = || Known::Is(link.name.clone());
        let comes = Packet { in_device: device(), ..packet.clone() };
        let crosses = Packet { out_device: device(), ..comes.clone() };
        let leaves = Packet { in_device: Known::Absent, ..crosses.clone() };
        for (hook, packet) in [(Hook::Prerouting, comes), (Hook::Forward, crosses), (Hook::Postrouting, leaves)] {
            passes(&walk(&rulesets, hook, packet), hook).or_else(|state| {
                slow(format!("bridge {} hands what it forwards to iptables: {}", link.name, why(state)))
            })?;
        }
    }
    Ok(())
}

fn why(state: State) -> String {
    match state {
        State::Slow { why } | State::Broken { why } => why,
        State::Fast(_) => String::new(),
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

/// Who has to see the packets: also where it is a filter that Neutron makes for a limit, which nobody knows by its kind.
fn sees(device: &str, program: &ProgramFact) -> String {
    let made_for = if program.name == "u32" { ", as with QoS of a floating IP" } else { "" };
    format!("{} at {} of {device} has to see its packets{made_for}", program.name, program.hook.name())
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

/// Whether a packet leaves a hook as it came, and nobody wanted to see it.
pub(super) fn passes(walk: &Walk, hook: Hook) -> Result<(), State> {
    let shown = |raw: &str| raw.chars().take(SHOWN).collect::<String>();
    let name = hook.name();
    match &walk.outcome {
        Outcome::Accept => {}
        Outcome::Drop { step, .. } | Outcome::Unknown { step: Some(step), .. } => {
            let rule = walk.steps.get(*step).map_or_else(String::new, |step| shown(&step.raw));
            return slow(format!("a rule of this host decides about its packets in {name}: {rule}"));
        }
        Outcome::Unknown { step: None, why } => {
            return slow(format!("what the rules of this host do with its packets in {name} is not known: {why}"));
        }
    }
    let seen = walk.steps.iter().find(|step| match step.effect {
        Effect::Accept | Effect::Return | Effect::Jump(_) | Effect::Goto(_) | Effect::Mark => false,
        Effect::Snat(..)
        | Effect::Drop
        | Effect::Reject(_)
        | Effect::Dnat(..)
        | Effect::Zone(_)
        | Effect::NoTrack
        | Effect::Pass
        | Effect::Queue
        | Effect::Unknown => true,
    });
    match seen {
        Some(step) => slow(format!("a rule of this host has to see its packets in {name}: {}", shown(&step.raw))),
        None => Ok(()),
    }
}
