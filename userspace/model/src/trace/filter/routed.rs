//! Routed traffic: forward filters and address translation.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Place, Targets, answers, ask, device,
    entrance::{Answering, answering},
    push_filter, rule_ref, translated,
};
use crate::{
    fact::{NamespaceFact, SourceKind},
    id::{LinkKey, NetnsId},
    inventory::Role,
    netfilter::{Address, Effect, Hook, Known, Outcome, Packet, Step, Walk},
    trace::{
        Finding, Hop, HopKind, HopState, Severity, Translation,
        command::in_netns,
        outward::{Leg, Way},
        path::{Path, finding},
    },
};

/// Rules of a routing namespace for a packet on its way out.
pub(in crate::trace) fn routed(way: &mut Way<'_, '_>, inside: LinkKey, outside: LinkKey) {
    let inventory = way.inventory;
    let netns = inside.netns;
    let packet = Packet {
        in_device: device(inventory, inside),
        to_local: Known::Is(false),
        ..Packet::between(carried(way), Address::Outside)
    };
    let before = ask(inventory, netns, Hook::Prerouting, packet.clone());
    let through = forward(way, netns, &before, outside);
    let after = ask(inventory, netns, Hook::Postrouting, through.packet.clone());
    let what = way.carried.map_or_else(
        || "packets to the outside".to_owned(),
        |address| format!("packets from {address} to the outside"),
    );
    let label = inventory.netns(netns);
    let place = |name: &str| Place { netns, label: &label, name: name.to_owned(), what: &what };
    if is_dead(&before) {
        // What comes after it never sees the packet.
        return push_filter(&mut way.path, inventory, &place("before routing"), &before);
    }
    push_filter(&mut way.path, inventory, &place("forward filter"), &through);
    if is_dead(&through) {
        return;
    }
    if is_dead(&after) {
        return push_filter(&mut way.path, inventory, &place("after routing"), &after);
    }
    let becomes = translation(way, (netns, outside), &before, &after);
    under_way(way, (inside, outside), packet, &after.packet);
    way.carried = becomes.or(way.carried);
}

/// The source address a packet comes to a router with: the instance's own, until one before has translated it.
fn carried(way: &Way<'_, '_>) -> Address {
    way.carried.map_or(Address::Unknown, Address::Is)
}

/// What source translation makes of a packet on its way out: the address it goes on with, if it is another.
fn translation(
    way: &mut Way<'_, '_>,
    (netns, outside): (NetnsId, LinkKey),
    before: &Walk,
    after: &Walk,
) -> Option<IpAddr> {
    let translation = after.steps.iter().find(|step| matches!(step.effect, Effect::Snat(..)));
    let Some(step) = translation else {
        // What a router before it has translated needs nothing more, nor is `fip-` of a distributed router there for it.
        let done = way.carried != way.source || matches!(way.inventory.role(netns), Role::Fip(_));
        if !done && !untracked(way, netns, before) {
            untranslated(way, netns, outside);
        }
        return None;
    };
    let Effect::Snat(to, port) = &step.effect else { return None };
    let becomes = match to {
        Address::Local => {
            outside_address(way, outside).map_or_else(|| translated(*to, *port), |address| address.to_string())
        }
        Address::Is(_) | Address::Unknown | Address::Outside => translated(*to, *port),
    };
    let hop = nat_hop(way, netns, step, &format!("SNAT to {becomes}"));
    let detail = vec![("source becomes".to_owned(), becomes.clone())];
    way.path.push(Hop { detail, translation: Some(Translation::Source(becomes)), ..hop });
    unheld(way, netns, *to);
    match to {
        Address::Is(address) => Some(*address),
        Address::Local => outside_address(way, outside),
        Address::Unknown | Address::Outside => None,
    }
}

/// Adds a hop where the answers to a packet die in a routing namespace, or what follows it in its flow.
fn under_way(way: &mut Way<'_, '_>, (inside, outside): (LinkKey, LinkKey), first: Packet, left: &Packet) {
    let inventory = way.inventory;
    let netns = inside.netns;
    let label = inventory.netns(netns);
    let place = |what| Place { netns, label: &label, name: "flows under way".to_owned(), what };
    let back = Packet { in_device: device(inventory, outside), ..answers::answer(left) };
    let mut walked = answers::through(inventory, netns, &[Hook::Prerouting], back);
    if !is_dead(&walked) {
        // Connection tracking undoes the translation before the packet is routed.
        let routed = Packet {
            destination: carried(way),
            to_local: Known::Is(false),
            out_device: device(inventory, inside),
            ..walked.packet
        };
        walked = answers::through(inventory, netns, &[Hook::Forward, Hook::Postrouting], routed);
    }
    answers::report(&mut way.path, inventory, &place("answers to the instance"), &walked);
    if is_dead(&walked) {
        return;
    }
    let more = Packet { out_device: device(inventory, outside), ..answers::under_way(first) };
    let walked = answers::through(inventory, netns, &[Hook::Prerouting, Hook::Forward, Hook::Postrouting], more);
    answers::report(&mut way.path, inventory, &place("packets of a flow that was answered"), &walked);
}

/// Packets that connection tracking does not look at are never asked of the rules that translate.
fn untracked(way: &mut Way<'_, '_>, netns: NetnsId, before: &Walk) -> bool {
    let notrack = before.steps.iter().find(|step| step.effect == Effect::NoTrack && step.certain);
    let Some(step) = notrack else { return false };
    let label = way.inventory.netns(netns).label;
    let message = format!("{label} does not track what the instance sends, so nothing translates it");
    way.path.report(
        finding(Severity::Error, "untracked", label, message)
            .seen(step.raw.clone())
            .verify(in_netns(way.inventory, netns, super::save_command(step)))
            .fix("remove the rule: NAT and stateful filters need connection tracking"),
    );
    true
}

/// A hook before the forward filter that kills is a hop of its own; one that lets through is not worth a line.
const fn is_dead(walked: &Walk) -> bool {
    matches!(walked.outcome, Outcome::Drop { .. })
}

/// What is wrong with a source translation, and with the lack of one.
fn untranslated(way: &mut Way<'_, '_>, netns: NetnsId, outside: LinkKey) {
    let inventory = way.inventory;
    let external =
        inventory.addresses(outside).iter().any(|net| matches!(net, IpNet::V4(net) if !net.addr().is_private()));
    let private = matches!(way.source, Some(IpAddr::V4(source)) if source.is_private());
    // Where rules could not be read, nothing is known of what they translate.
    if !private || !external || inventory.unread(SourceKind::Netfilter, netns) {
        return;
    }
    let label = inventory.netns(netns).label;
    way.path.report(
        finding(
            Severity::Warning,
            "no-translation",
            &label,
            "packets leave with the instance's private address: answers find no way back unless the outside routes it",
        )
        .seen(format!("no SNAT or MASQUERADE of {label} matches"))
        .verify(in_netns(inventory, netns, "iptables-save -t nat -c"))
        .fix("normal where SNAT is switched off on the router; else see who removed the rule"),
    );
}

/// A translation to an address that nobody here answers for.
fn unheld(way: &mut Way<'_, '_>, netns: NetnsId, to: Address) {
    let Address::Is(address) = to else { return };
    if answering(way.inventory, netns, address) != Answering::Nobody {
        return;
    }
    let label = way.inventory.netns(netns).label;
    way.path.report(
        finding(
            Severity::Error,
            "snat-address",
            address.to_string(),
            format!("packets leave as {address}, which no device here answers for: the answers die outside"),
        )
        .seen(format!("no link of {label} holds it, and no fip- namespace routes it"))
        .verify(in_netns(way.inventory, netns, "ip addr")),
    );
}

fn forward(way: &Way<'_, '_>, netns: NetnsId, before: &Walk, out: LinkKey) -> Walk {
    let packet = Packet { out_device: device(way.inventory, out), ..before.packet.clone() };
    ask(way.inventory, netns, Hook::Forward, packet)
}

/// MASQUERADE takes the address of the device the packet leaves by.
fn outside_address(way: &Way<'_, '_>, outside: LinkKey) -> Option<IpAddr> {
    let ipv4 = way.source?.is_ipv4();
    let held = way.inventory.addresses(outside);
    held.iter().map(IpNet::addr).find(|address| address.is_ipv4() == ipv4)
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

/// Whether a translation led the packet to an address that is not the instance's.
fn leads_elsewhere(way: &Way<'_, '_>, packet: &Packet) -> bool {
    let Address::Is(to) = packet.destination else { return false };
    !way.nic.addresses.is_empty() && !way.nic.addresses.iter().any(|net| net.addr() == to)
}

/// A rule before the instance's own takes what comes for it.
fn elsewhere(targets: &Targets, label: &str, before: &Walk) -> Finding {
    let rule = before.steps.iter().find(|step| matches!(step.effect, Effect::Dnat(..)));
    let message = format!("{} leads to another address than the instance's", targets.words());
    finding(Severity::Error, "dnat-elsewhere", label, message)
        .seen(rule.map_or_else(String::new, |step| step.raw.clone()))
        .fix("remove the rule, or put it behind the one that leads to the instance")
}

/// Adds the hop that stands for a translation that does not happen, with the rule in its way where there is one.
fn no_dnat(way: &Way<'_, '_>, netns: NetnsId, targets: &Targets, (path, before): (&mut Path, &Walk)) {
    let label = way.inventory.netns(netns);
    let note = format!("nothing here leads {} to the instance", targets.words());
    path.push(Hop {
        kind: HopKind::Nat,
        name: "no DNAT".to_owned(),
        netns: Some(label.clone()),
        state: HopState::Broken,
        note: note.clone(),
        ..Hop::default()
    });
    // A floating IP that lacks its rule, or a port, has been reported as such.
    if way.path.findings.iter().any(|finding| matches!(&*finding.code, "floating-ip-dnat" | "published-port")) {
        return;
    }
    let in_the_way = |step: &&Step| step.certain && matches!(step.effect, Effect::NoTrack | Effect::Accept);
    let rule = before.steps.iter().find(in_the_way);
    path.report(
        finding(Severity::Error, "not-translated", &label.label, note)
            .seen(rule.map_or_else(|| "no DNAT matches it at PREROUTING".to_owned(), |step| step.raw.clone()))
            .verify(in_netns(way.inventory, netns, rule.map_or("iptables-save -c", super::save_command)))
            .fix("remove the rule before it, or put it behind the one that leads to the instance"),
    );
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
    if is_dead(&before) {
        push_filter(path, inventory, &place("before routing"), &before);
        return false;
    }
    for step in &before.steps {
        if let Effect::Dnat(to, port) = &step.effect {
            let becomes = translated(*to, *port);
            let hop = nat_hop(way, leg.netns, step, &format!("DNAT to {becomes}"));
            let detail = vec![("destination becomes".to_owned(), becomes.clone())];
            path.push(Hop { detail, translation: Some(Translation::Destination(becomes)), ..hop });
        }
    }
    let translated = before.steps.iter().any(|step| matches!(step.effect, Effect::Dnat(..)));
    if !translated && !targets.passes_untranslated(way, leg.netns) {
        no_dnat(way, leg.netns, targets, (path, &before));
        return false;
    }
    if !translated && targets.is_carried() {
        path.push(Hop {
            kind: HopKind::Service,
            name: NamespaceFact::DOCKER_PROXY.to_owned(),
            netns: Some(label),
            state: HopState::Ok,
            note: "a process of the host carries the bytes on".to_owned(),
            ..Hop::default()
        });
        return true;
    }
    if translated && leads_elsewhere(way, &before.packet) {
        path.report(elsewhere(targets, &label.label, &before));
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
