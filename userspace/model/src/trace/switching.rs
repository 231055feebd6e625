//! Open vSwitch on a path: ports with their VLAN, patch pairs, tunnels, and which way out of a bridge leads on.

use super::{
    Hop, HopKind, HopState, Severity,
    command::quote,
    path::{Path, finding},
};
use crate::{
    fact::{LinkStats, OvsInterfaceFact},
    inventory::{Inventory, PortPlace, switch::DEAD_VLAN},
};

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

fn wiring(path: &mut Path, place: &PortPlace<'_>) {
    let (port, interface) = (place.port, place.interface);
    let name = &interface.name;
    let list = format!("ovs-vsctl list port {}", quote(&port.name));
    let neutron = interface.external_ids.contains_key("iface-id") || !port.other_config.is_empty();
    match port.tag {
        Some(DEAD_VLAN) => path.report(
            finding(Severity::Error, "dead-vlan", name, format!("{name} is in the dead VLAN {DEAD_VLAN}: every frame is dropped"))
                .seen(format!("Port.tag is {DEAD_VLAN}"))
                .verify(list.clone())
                .fix("the port is down in Neutron, unknown to it or not bound to this host: openstack port show, then the agent's log"),
        ),
        None if neutron && port.trunks.is_empty() => path.report(
            finding(Severity::Error, "no-tag", name, format!("{name} has no VLAN tag: Neutron's agent has not wired it"))
                .seen("Port.tag is empty, which makes it a trunk of every VLAN")
                .verify(list.clone())
                .fix("see whether neutron-openvswitch-agent runs and what its log says of this port"),
        ),
        None | Some(_) => {}
    }
    if let (Some(tag), Some(wanted)) = (port.tag, port.other_config.get("tag").and_then(|tag| tag.parse::<u16>().ok()))
        && tag != wanted
        && tag != DEAD_VLAN
    {
        path.report(
            finding(
                Severity::Error,
                "wrong-tag",
                name,
                format!("{name} is in VLAN {tag}, the agent wired it to {wanted}: it is on another network"),
            )
            .seen(format!("Port.tag is {tag}, Port.other_config:tag is {wanted}"))
            .verify(list.clone())
            .fix(format!("ovs-vsctl set port {} tag={wanted}", quote(&port.name))),
        );
    }
    let broken = interface.ofport.is_some_and(|number| number < 0);
    if let Some(error) = interface.error.as_deref().or(broken.then_some("ofport is -1")) {
        path.report(
            finding(Severity::Error, "ovs-interface", name, format!("Open vSwitch cannot use {name}: {error}"))
                .seen(format!("Interface.error, ofport {}", interface.ofport.unwrap_or(-1)))
                .verify(format!("ovs-vsctl list interface {}", quote(name)))
                .fix("the device is gone or in another namespace: plug the port again, or delete it from the bridge"),
        );
    }
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

/// The patch port of a bridge that the frames of a network leave by.
///
/// `bridge_mappings` is configuration of Neutron's agent and not in OVSDB, so the choice follows what is: a tunnelled
/// network leaves towards the bridge that has tunnel ports, any other towards one that has none.
pub(super) fn way_out<'a>(inventory: &Inventory<'a>, from: &PortPlace<'a>) -> Option<PortPlace<'a>> {
    let tunnelled = from.network().kind.is_some_and(|kind| TUNNELLED.contains(&kind));
    let mut patches = inventory.ports().on(from.bridge).filter(|port| port.is_patch() && port.carries(from.port.tag));
    patches.find(|patch| match inventory.ports().patch_peer(patch) {
        Some(peer) => inventory.ports().on(peer.bridge).any(|port| port.is_tunnel()) == tunnelled,
        // A patch without its other end is still the way, and broken: by its name where nothing else says.
        None => (patch.interface.name == "patch-tun") == tunnelled,
    })
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
