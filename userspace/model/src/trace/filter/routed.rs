//! Routed traffic: forward filters and address translation.

use super::{Place, Targets, ask, device, push_filter, rule_ref, source, translated};
use crate::{
    id::{LinkKey, NetnsId},
    netfilter::{Address, Effect, Hook, Known, Packet, Step, Walk},
    trace::{
        Hop, HopKind, HopState,
        command::in_netns,
        outward::{Leg, Way},
        path::Path,
    },
};

/// Rules of a routing namespace for a packet on its way out.
pub(in crate::trace) fn routed(way: &mut Way<'_, '_>, inside: LinkKey, outside: LinkKey) {
    let inventory = way.inventory;
    let netns = inside.netns;
    let packet = Packet {
        in_device: device(inventory, inside),
        to_local: Known::Is(false),
        ..Packet::between(source(way), Address::Outside)
    };
    let before = ask(inventory, netns, Hook::Prerouting, packet);
    let through = forward(way, netns, &before, outside);
    let after = ask(inventory, netns, Hook::Postrouting, through.packet.clone());
    let what = way.source.map_or_else(
        || "packets to the outside".to_owned(),
        |address| format!("packets from {address} to the outside"),
    );
    let label = inventory.netns(netns);
    let place = |name: &str| Place { netns, label: &label, name: name.to_owned(), what: &what };
    push_dead(way, &place("before routing"), &before);
    push_filter(&mut way.path, inventory, &place("forward filter"), &through);
    let translation = after.steps.iter().find(|step| matches!(step.effect, Effect::Snat(..)));
    let Some(step) = translation else { return };
    let Effect::Snat(to, port) = &step.effect else { return };
    let becomes = match to {
        Address::Local => outside_address(way, outside).unwrap_or_else(|| translated(*to, *port)),
        Address::Is(_) | Address::Unknown | Address::Outside => translated(*to, *port),
    };
    let hop = nat_hop(way, netns, step, &format!("SNAT to {becomes}"));
    way.path.push(Hop { detail: vec![("source becomes".to_owned(), becomes)], ..hop });
}

/// A hook before the forward filter that kills is a hop of its own; one that lets through is not worth a line.
fn push_dead(way: &mut Way<'_, '_>, place: &Place<'_>, walked: &Walk) {
    if matches!(walked.outcome, crate::netfilter::Outcome::Drop { .. }) {
        push_filter(&mut way.path, way.inventory, place, walked);
    }
}

fn forward(way: &Way<'_, '_>, netns: NetnsId, before: &Walk, out: LinkKey) -> Walk {
    let packet = Packet { out_device: device(way.inventory, out), ..before.packet.clone() };
    ask(way.inventory, netns, Hook::Forward, packet)
}

/// MASQUERADE takes the address of the device the packet leaves by.
fn outside_address(way: &Way<'_, '_>, outside: LinkKey) -> Option<String> {
    let ipv4 = way.source?.is_ipv4();
    let held = way.inventory.addresses(outside);
    held.iter().map(ipnet::IpNet::addr).find(|address| address.is_ipv4() == ipv4).map(|address| address.to_string())
}

fn nat_hop(way: &Way<'_, '_>, netns: NetnsId, step: &Step, name: &str) -> Hop {
    let rule = rule_ref(way.inventory, netns, step);
    Hop {
        kind: HopKind::Nat,
        name: name.to_owned(),
        netns: Some(way.inventory.netns(netns)),
        state: if step.certain { HopState::Ok } else { HopState::Unknown },
        verify: vec![in_netns(way.inventory, netns, super::save_command(step))],
        rules: vec![rule],
        ..Hop::default()
    }
}

/// Rules of a routing namespace for a packet on its way in: what a client sent to a floating IP or a published port.
/// False where the packet goes no further.
pub(in crate::trace) fn routed_inward(way: &Way<'_, '_>, leg: &Leg, targets: &mut Targets, path: &mut Path) -> bool {
    let inventory = way.inventory;
    let packet = Packet { in_device: device(inventory, leg.outside), ..targets.packet() };
    let before = ask(inventory, leg.netns, Hook::Prerouting, packet);
    let what = format!("packets to {}", targets.words());
    let label = inventory.netns(leg.netns);
    let place = |name: &str| Place { netns: leg.netns, label: &label, name: name.to_owned(), what: &what };
    if matches!(before.outcome, crate::netfilter::Outcome::Drop { .. }) {
        push_filter(path, inventory, &place("before routing"), &before);
    }
    for step in &before.steps {
        if let Effect::Dnat(to, port) = &step.effect {
            let becomes = translated(*to, *port);
            let hop = nat_hop(way, leg.netns, step, &format!("DNAT to {becomes}"));
            path.push(Hop { detail: vec![("destination becomes".to_owned(), becomes)], ..hop });
        }
    }
    let translated = before.steps.iter().any(|step| matches!(step.effect, Effect::Dnat(..)));
    if !translated && !targets.passes_untranslated(way, leg.netns) {
        path.push(Hop {
            kind: HopKind::Nat,
            name: "no DNAT".to_owned(),
            netns: Some(label),
            state: HopState::Broken,
            note: format!("nothing here leads {} to the instance", targets.words()),
            ..Hop::default()
        });
        return false;
    }
    let through = forward(way, leg.netns, &before, leg.inside);
    push_filter(path, inventory, &place("forward filter"), &through);
    let after = ask(inventory, leg.netns, Hook::Postrouting, through.packet);
    if let Some(step) = after.steps.iter().find(|step| step.certain && matches!(step.effect, Effect::Snat(..))) {
        let hop = nat_hop(way, leg.netns, step, "SNAT of the client's address");
        path.push(hop);
    }
    targets.translated(&before.packet);
    true
}
