//! Open vSwitch on a path: ports with their VLAN, patch pairs, tunnels, and which way out of a bridge leads on.

use super::{
    Hop, HopKind, HopState, Severity,
    command::quote,
    path::{Path, finding},
};
use crate::{
    fact::{LinkStats, OvsInterfaceFact},
    inventory::{Inventory, PortPlace},
};

/// How ports are set up: VLANs, protection, whether Open vSwitch can use them at all.
mod wiring;

pub(super) use wiring::{between, carried, wiring};

/// Network types that leave a host by a tunnel.
const TUNNELLED: [&str; 3] = ["vxlan", "gre", "geneve"];

/// Adds a port as a hop, with what is wrong with its wiring.
pub(super) fn port(path: &mut Path, inventory: &Inventory<'_>, place: &PortPlace<'_>) {
    let (port, interface) = (place.port, place.interface);
    let mut detail = vec![("ofport".to_owned(), interface.ofport.map_or("none".to_owned(), |port| port.to_string()))];
    for (key, value) in &interface.external_ids {
        detail.push((key.clone(), value.clone()));
    }
    let network = place.network();
    detail.extend(network.id.map(|id| ("network".to_owned(), id.to_owned())));
    if port.qos {
        detail.push(("QoS".to_owned(), "a QoS row hangs on the port".to_owned()));
    }
    path.push(Hop {
        kind: HopKind::OvsPort,
        name: interface.name.clone(),
        netns: place.switch.netns.map(|id| inventory.netns(id)),
        state: HopState::Ok,
        status: port.tag.map_or_else(|| "no tag".to_owned(), |tag| format!("tag {tag}")),
        counters: counters(interface),
        note: network_words(place),
        detail,
        verify: vec![format!("ovs-vsctl list port {0} -- list interface {0}", quote(&interface.name))],
        ..Hop::default()
    });
    if inventory.ports().trunk_parent(place).is_none() {
        wiring(path, place);
    }
}

/// `Interface.statistics`, as the switch counts: what it received from the port and sent to it. None for patch ports and
/// for devices in other namespaces, whose statistics the user-space datapath does not have.
fn counters(interface: &OvsInterfaceFact) -> Option<LinkStats> {
    let count = |name: &str| interface.statistics.get(name).copied().unwrap_or(0);
    (!interface.statistics.is_empty()).then(|| LinkStats {
        rx_packets: count("rx_packets"),
        rx_bytes: count("rx_bytes"),
        rx_dropped: count("rx_dropped"),
        rx_errors: count("rx_errors"),
        tx_packets: count("tx_packets"),
        tx_bytes: count("tx_bytes"),
        tx_dropped: count("tx_dropped"),
        tx_errors: count("tx_errors"),
    })
}

/// The network of a port in a few words.
pub(super) fn network_words(place: &PortPlace<'_>) -> String {
    let network = place.network();
    let Some(id) = network.id else { return String::new() };
    let kind = network.kind.unwrap_or("unknown type");
    let segment = network.segmentation_id.map_or_else(String::new, |id| format!(" {id}"));
    format!("network {id}, {kind}{segment}")
}

/// Adds a patch pair as a hop and returns its far end.
pub(super) fn patch<'a>(path: &mut Path, inventory: &Inventory<'a>, near: &PortPlace<'a>) -> Option<PortPlace<'a>> {
    let peer = near.interface.options.get("peer").map_or("none", String::as_str);
    let far = inventory.ports().patch_peer(near);
    path.push(Hop {
        kind: HopKind::Patch,
        name: format!("{} to {peer}", near.interface.name),
        netns: near.switch.netns.map(|id| inventory.netns(id)),
        state: HopState::Ok,
        status: "patch".to_owned(),
        note: far.map_or_else(String::new, |far| format!("{} to {}", near.bridge.name, far.bridge.name)),
        verify: vec![format!("ovs-vsctl list interface {}", quote(&near.interface.name))],
        ..Hop::default()
    });
    if far.is_none() {
        let name = &near.interface.name;
        path.report(
            finding(
                Severity::Error,
                "patch-peer",
                name,
                format!("patch port {name} has no other end: nothing passes from {}", near.bridge.name),
            )
            .seen(format!("options:peer is {peer}, and no patch port of that name points back"))
            .verify("ovs-vsctl show")
            .fix("Neutron's agent makes both ends when it starts: restart it, or set options:peer by hand"),
        );
    }
    far
}

/// Which way the frames of a network leave a bridge.
#[derive(Debug)]
pub(crate) enum WayOut<'a> {
    /// By this patch port.
    By(PortPlace<'a>),
    /// By one of these patch ports, and nothing read says which.
    OneOf(Vec<&'a str>),
    /// By none.
    Nowhere,
}

/// The patch port of a bridge that the frames of a network leave by.
///
/// `bridge_mappings` is configuration of Neutron's agent and not in OVSDB (OVN writes its own there), so the choice
/// follows what is: a tunnelled network leaves towards the bridge that has tunnel ports, any other towards one that has
/// none. Where several have none and no mapping names the network's, the way is not known.
pub(crate) fn way_out<'a>(inventory: &Inventory<'a>, from: &PortPlace<'a>) -> WayOut<'a> {
    let network = from.network();
    let tunnelled = network.kind.is_some_and(|kind| TUNNELLED.contains(&kind));
    // A patch that carries a Neutron port leads to a trunk, which is an instance and no way out.
    let leads_out = |port: &PortPlace<'a>| port.is_patch() && port.port_id().is_none();
    let fits = |patch: &PortPlace<'a>| match inventory.ports().patch_peer(patch) {
        Some(peer) => inventory.ports().on(peer.bridge).any(|port| port.is_tunnel()) == tunnelled,
        // A patch without its other end is still the way, and broken: by its name where nothing else says.
        None => (patch.interface.name == "patch-tun") == tunnelled,
    };
    let all: Vec<_> = inventory.ports().on(from.bridge).filter(leads_out).filter(fits).collect();
    let mapped = network.physical_network.and_then(|physical| mapped_bridge(from, physical));
    let to_mapped = |patch: &&PortPlace<'a>| {
        mapped.is_some() && inventory.ports().patch_peer(patch).is_some_and(|peer| Some(&*peer.bridge.name) == mapped)
    };
    let carrying: Vec<_> = all.iter().copied().filter(|patch| patch.carries(from.untagged_vlan())).collect();
    match (all.iter().find(to_mapped), &carrying[..], &all[..]) {
        (Some(patch), ..) | (None, [patch], _) | (None, [], [patch]) => WayOut::By(*patch),
        (None, [patch, ..], _) if tunnelled => WayOut::By(*patch),
        (None, [], []) => WayOut::Nowhere,
        (None, ..) => WayOut::OneOf(all.iter().map(|patch| patch.interface.name.as_str()).collect()),
    }
}

/// The bridge of a physical network, where Open vSwitch's database says it (`ovn-bridge-mappings`: `physnet1:br-ex,…`).
fn mapped_bridge<'a>(from: &PortPlace<'a>, physical: &str) -> Option<&'a str> {
    let mappings = from.switch.external_ids.get("ovn-bridge-mappings")?;
    let mut pairs = mappings.split(',').filter_map(|pair| pair.trim().split_once(':'));
    pairs.find(|(network, _)| *network == physical).map(|(_, bridge)| bridge)
}

/// Adds the tunnels of a bridge that carry a network to other hosts.
pub(super) fn tunnels<'a>(path: &mut Path, inventory: &Inventory<'a>, on: &PortPlace<'a>, network: &str) {
    for tunnel in inventory.ports().on(on.bridge).filter(PortPlace::is_tunnel) {
        let interface = tunnel.interface;
        let local = tunnel.local_ip().map_or_else(|| "?".to_owned(), |ip| ip.to_string());
        let remote = tunnel.remote_ip().unwrap_or("?");
        let egress = interface.status.get("tunnel_egress_iface");
        let carrier = interface.status.get("tunnel_egress_iface_carrier").map(String::as_str);
        let mut detail = vec![("local".to_owned(), local.clone()), ("remote".to_owned(), remote.to_owned())];
        detail.extend(egress.map(|device| ("leaves by".to_owned(), device.clone())));
        path.push(Hop {
            kind: HopKind::Tunnel,
            name: interface.name.clone(),
            netns: tunnel.switch.netns.map(|id| inventory.netns(id)),
            state: HopState::Ok,
            status: format!("{} {local} to {remote}", interface.kind),
            counters: counters(interface),
            note: network.to_owned(),
            detail,
            verify: vec![format!("ovs-vsctl list interface {}", quote(&interface.name))],
            ..Hop::default()
        });
        if carrier == Some("down") {
            let device = egress.map_or("the underlay device", String::as_str);
            path.report(
                finding(
                    Severity::Error,
                    "tunnel-down",
                    &interface.name,
                    format!("the tunnel to {remote} leaves by {device}, which has no carrier"),
                )
                .seen("Interface.status:tunnel_egress_iface_carrier is down")
                .verify(format!("ovs-vsctl get interface {} status", quote(&interface.name))),
            );
        }
        wiring(path, &tunnel);
    }
}
