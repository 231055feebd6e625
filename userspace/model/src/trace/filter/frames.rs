//! Rules about frames: nftables' `bridge` family, where `ebtables` keeps its own too, and the hooks of devices.
//!
//! They see ARP as well as IP: a bridge that passes packets and drops the question for the gateway's address passes nothing.

use super::{Place, push_filter, rule_ref};
use crate::{
    fact::Gap,
    id::{LinkKey, NetnsId},
    inventory::Inventory,
    netfilter::{Address, Family, Hook, Known, Layer, Outcome, Packet, Walk, walk_layer},
    trace::{
        Direction, HopKind, HopState, Severity,
        command::in_netns,
        outward::Way,
        path::{Path, finding},
    },
};

/// Adds what rules about bridged frames do to frames of the instance between a port of a bridge and another one, or the
/// bridge itself, there and back.
pub(in crate::trace) fn at_bridge(way: &mut Way<'_, '_>, from: LinkKey, to: Option<LinkKey>) {
    let inventory = way.inventory;
    let legacy = inventory.snapshot.facts.gaps().any(|gap| !gap.absent && gap.object == Gap::EBTABLES);
    if let Some(hop) = way.path.hops.last_mut().filter(|_| legacy) {
        "ebtables not evaluated".clone_into(&mut hop.note);
        hop.state = hop.state.max(HopState::Unknown);
    }
    let tables = inventory.rulesets(from.netns).iter().flat_map(|ruleset| &ruleset.tables);
    if !tables.into_iter().any(|table| table.family == Some(Family::Bridge)) {
        return;
    }
    let (out, back): (Vec<_>, Vec<_>) = match to {
        Some(to) => {
            let crossing = |from, to| {
                vec![
                    (Hook::Prerouting, Some(from), None),
                    (Hook::Forward, Some(from), Some(to)),
                    (Hook::Postrouting, None, Some(to)),
                ]
            };
            (crossing(from, to), crossing(to, from))
        }
        None => (
            vec![(Hook::Prerouting, Some(from), None), (Hook::Input, Some(from), None)],
            vec![(Hook::Output, None, Some(from)), (Hook::Postrouting, None, Some(from))],
        ),
    };
    let label = inventory.netns(from.netns);
    for (what, packet) in questions(way, Direction::Outward) {
        let place = Place { netns: from.netns, label: &label, name: "bridge filter".to_owned(), what };
        push_filter(&mut way.path, inventory, &place, &across(inventory, from.netns, &out, packet));
    }
    for (what, packet) in questions(way, Direction::Inward) {
        let walked = across(inventory, from.netns, &back, packet);
        let place = Place { netns: from.netns, label: &label, name: "bridge filter".to_owned(), what };
        if walked.outcome != Outcome::Accept {
            push_filter(&mut way.path, inventory, &place, &walked);
        }
    }
}

/// A hook with the port a frame comes in by there, and the one it leaves by.
type Step = (Hook, Option<LinkKey>, Option<LinkKey>);

fn across(inventory: &Inventory<'_>, netns: NetnsId, steps: &[Step], packet: Packet) -> Walk {
    let mut walked = Walk { steps: Vec::new(), outcome: Outcome::Accept, packet };
    for &(hook, from, to) in steps {
        let device = |key: Option<LinkKey>| key.map_or(Known::Absent, |key| super::device(inventory, key));
        let packet = Packet { in_device: device(from), out_device: device(to), ..walked.packet };
        let rulesets: Vec<_> = inventory.rulesets(netns).iter().collect();
        let next = walk_layer(&rulesets, Layer::Bridge, hook, packet);
        // What is not known of one hook stays so, unless a later one kills for sure.
        let settled = walked.outcome == Outcome::Accept || matches!(next.outcome, Outcome::Drop { .. });
        walked = if settled { next } else { Walk { packet: next.packet, ..walked } };
        if matches!(walked.outcome, Outcome::Drop { .. }) {
            break;
        }
    }
    walked
}

/// What a working path takes in one direction, in words and as packets. Connection tracking is not asked about frames.
fn questions(way: &Way<'_, '_>, direction: Direction) -> Vec<(&'static str, Packet)> {
    let own = super::source(way);
    let mac = way.nic.mac.map_or(Known::Unknown, Known::Is);
    let (packets, questions, between, source_mac) = match direction {
        Direction::Outward | Direction::Lateral => {
            ("frames of the instance", "ARP questions of the instance", (own, Address::Outside), mac)
        }
        Direction::Inward => {
            ("frames to the instance", "ARP answers to the instance", (Address::Outside, own), Known::Unknown)
        }
    };
    let frame = |packet: Packet| Packet { source_mac, state: Known::Unknown, ..packet };
    let mut all = vec![(packets, frame(Packet::between(between.0, between.1)))];
    if !matches!(own, Address::Is(address) if address.is_ipv6()) {
        all.push((questions, frame(Packet::arp())));
    }
    all
}

/// Marks the devices of the way out whose own rules, at ingress or egress, kill what has to pass.
pub(in crate::trace) fn at_devices(way: &mut Way<'_, '_>) {
    let inventory = way.inventory;
    let (mut routed, mut veths) = (false, 0_usize);
    for place in 0..way.path.hops.len() {
        let hop = &way.path.hops[place];
        let key = hop.netns.as_ref().and_then(|netns| inventory.link_named(netns.id, &hop.name));
        let (Some(key), kind) = (key, hop.kind) else { continue };
        let leaves = way.legs.iter().any(|leg| leg.outside == key);
        veths += usize::from(kind == HopKind::Veth);
        let left = if kind == HopKind::Veth { veths % 2 == 1 } else { leaves };
        let Some(out) = hook_out(kind, left) else { continue };
        at_device(way, place, (key, out), routed);
        // Behind a router, the address may be another.
        routed |= leaves;
    }
}

/// The hook of a device that what leaves the host meets. Of a router's ends, and of a veth between two bridges, one is left
/// by and the other entered by.
const fn hook_out(kind: HopKind, left: bool) -> Option<Hook> {
    match kind {
        HopKind::InnerDevice | HopKind::Uplink => Some(Hook::Egress),
        HopKind::RouterPort | HopKind::Veth if left => Some(Hook::Egress),
        HopKind::HostDevice | HopKind::LinuxBridge | HopKind::RouterPort | HopKind::Veth => Some(Hook::Ingress),
        HopKind::Instance
        | HopKind::Namespace
        | HopKind::OvsPort
        | HopKind::OvsBridge
        | HopKind::Patch
        | HopKind::Tunnel
        | HopKind::Filter
        | HopKind::Router
        | HopKind::Nat
        | HopKind::Vlan
        | HopKind::NextHop
        | HopKind::Outside
        | HopKind::Service
        | HopKind::SecurityGroup
        | HopKind::FastPath => None,
    }
}

/// Both ways through one device: `out` is the hook of what leaves the host.
fn at_device(way: &mut Way<'_, '_>, place: usize, (key, out): (LinkKey, Hook), routed: bool) {
    let inventory = way.inventory;
    let rulesets: Vec<_> = inventory.rulesets(key.netns).iter().collect();
    let Some(link) = inventory.link(key) else { return };
    let back = if out == Hook::Egress { Hook::Ingress } else { Hook::Egress };
    for (hook, direction) in [(out, Direction::Outward), (back, Direction::Inward)] {
        for (what, packet) in questions(way, direction) {
            let address = |address| if routed && address != Address::Outside { Address::Unknown } else { address };
            let (source, destination) = (address(packet.source), address(packet.destination));
            let source_mac = if routed { Known::Unknown } else { packet.source_mac };
            let device = super::device(inventory, key);
            let (in_device, out_device) =
                if hook == Hook::Egress { (Known::Unknown, device) } else { (device, Known::Absent) };
            let packet = Packet { source, destination, in_device, out_device, source_mac, ..packet };
            let walked = walk_layer(&rulesets, Layer::Device(&link.name), hook, packet);
            mark(&mut way.path, inventory, place, (key.netns, hook, what), &walked);
        }
    }
}

fn mark(path: &mut Path, inventory: &Inventory<'_>, place: usize, at: (NetnsId, Hook, &str), walked: &Walk) {
    let (netns, hook, what) = at;
    let hop = &mut path.hops[place];
    hop.rules.extend(walked.deciding().map(|step| rule_ref(inventory, netns, step)));
    if let Outcome::Unknown { why, .. } = &walked.outcome {
        hop.state = hop.state.max(HopState::Unknown);
        hop.detail.push(("depends on".to_owned(), why.clone()));
    }
    let (Outcome::Drop { .. }, Some(step)) = (&walked.outcome, walked.deciding()) else { return };
    hop.state = HopState::Broken;
    let hook = hook.name().to_ascii_lowercase();
    let message = format!("{what} die at {}: a rule of its {hook} hook drops them", hop.name);
    path.findings.push(
        finding(Severity::Error, "filter-drop", &hop.name, message).seen(step.raw.clone()).verify(in_netns(
            inventory,
            netns,
            "nft list ruleset",
        )),
    );
}
