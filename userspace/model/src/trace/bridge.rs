//! Linux bridges on a path: what the settings of their ports let through.
//!
//! A bridge passes a frame by the state, the VLANs and the flags of the port it comes in by and of the one it leaves by
//! (`br_handle_frame_finish` and `should_deliver` of `net/bridge`); every one of them can end a path without a trace in any
//! rule or counter of the host.

use super::{
    Finding, Severity,
    command::{in_netns, quote},
    path::{Path, finding},
};
use crate::{
    fact::{BridgePortFact, BridgePortState, LinkDetail, NeighbourFact, SourceKind},
    id::{LinkKey, Mac},
    inventory::Inventory,
};

/// A port of a bridge, with what is known of whoever is behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    /// The port.
    pub(super) port: LinkKey,
    /// MAC address of whoever is behind it.
    pub(super) mac: Option<Mac>,
}

/// What keeps one port of a bridge from passing frames, and what keeps them from an instance behind it.
pub(super) fn port(path: &mut Path, inventory: &Inventory<'_>, side: Side) {
    let Some((name, fact)) = fact(inventory, side.port) else { return };
    let at = |code, message: String| faulty(inventory, side.port, code, message);
    if fact.state != BridgePortState::Forwarding {
        let state = fact.state.name();
        path.report(
            at("stp-blocked", format!("{name} does not forward: the bridge holds it in state {state}"))
                .seen(format!("bridge port state {state}"))
                .fix("wait for STP, or set stp_state 0 on a bridge without loops"),
        );
    }
    if !fact.flood && !fact.learning && !known(inventory, side) {
        path.report(
            at("bridge-port-deaf", format!("the bridge never learns who is behind {name}, and floods nothing to it"))
                .seen("learning off, flood off, and no entry of the forwarding database on this port")
                .fix(format!("bridge link set dev {} learning on flood on", quote(&name))),
        );
    }
    if fact.locked && !known(inventory, side) {
        path.report(
            at("bridge-port-locked", format!("{name} is locked: frames of whoever is behind it are dropped"))
                .seen("locked on, and no entry of the forwarding database on this port")
                .fix(format!("bridge link set dev {} locked off", quote(&name))),
        );
    }
}

/// What keeps frames from going from one port of a bridge to another.
pub(super) fn between(path: &mut Path, inventory: &Inventory<'_>, (from, to): (LinkKey, LinkKey)) {
    let (Some((one, near)), Some((other, far))) = (fact(inventory, from), fact(inventory, to)) else { return };
    if near.isolated && far.isolated {
        let message = format!("{one} and {other} are both isolated: no frame goes from one to the other");
        path.report(
            faulty(inventory, to, "isolated-ports", message)
                .seen("isolated on at both ports")
                .fix(format!("bridge link set dev {} isolated off", quote(&other))),
        );
    }
}

/// An ARP question that cannot leave by the port it must leave by. Whoever has a permanent entry does not ask.
pub(super) fn silenced(path: &mut Path, inventory: &Inventory<'_>, to: LinkKey, gateway: Option<&NeighbourFact>) {
    let Some((name, fact)) = fact(inventory, to) else { return };
    if fact.broadcast_flood || gateway.is_some_and(|entry| entry.state == "PERMANENT") {
        return;
    }
    let message = format!("no broadcast leaves by {name}: the instance's ARP questions for its gateway die here");
    path.report(
        faulty(inventory, to, "broadcast-flood-off", message)
            .seen("bcast_flood off")
            .fix(format!("bridge link set dev {} bcast_flood on", quote(&name))),
    );
}

/// What VLAN filtering of the bridge does to frames without a tag that come in by one port and leave by another, which may
/// be the bridge itself.
pub(super) fn vlans(path: &mut Path, inventory: &Inventory<'_>, bridge: LinkKey, (from, to): (LinkKey, LinkKey)) {
    let filtering = inventory
        .link(bridge)
        .is_some_and(|link| matches!(link.detail, LinkDetail::Bridge { vlan_filtering: true, .. }));
    let Some(network) = inventory.network(bridge.netns).filter(|_| filtering) else { return };
    // Where not all VLANs could be read, nothing is said of one that is not there.
    if network.vlans.is_empty() || inventory.unread(SourceKind::Netlink, bridge.netns) {
        return;
    }
    let of = |key: LinkKey| network.vlans.iter().filter(move |vlan| vlan.ifindex == key.ifindex);
    let name = |key| inventory.link(key).map(|link| link.name.clone()).unwrap_or_default();
    let (one, other) = (name(from), name(to));
    let Some(own) = of(from).find(|vlan| vlan.pvid) else {
        let message = format!("{one} has no VLAN for frames without a tag: the bridge drops them");
        return path.report(faulty(inventory, from, "bridge-vlan", message).seen("vlan_filtering 1, and no PVID"));
    };
    if !own.untagged {
        let message =
            format!("{one} hands frames of VLAN {} out with their tag: the instance does not take them", own.vlan);
        path.report(faulty(inventory, from, "bridge-vlan", message).seen("its PVID is not Egress Untagged"));
    }
    if !of(to).any(|vlan| vlan.vlan == own.vlan) {
        let message =
            format!("{other} is not in VLAN {}, which {one} puts frames in: they die in the bridge", own.vlan);
        path.report(faulty(inventory, to, "bridge-vlan", message).seen(format!("no VLAN {} on {other}", own.vlan)));
    }
}

fn fact(inventory: &Inventory<'_>, key: LinkKey) -> Option<(String, BridgePortFact)> {
    let link = inventory.link(key)?;
    Some((link.name.clone(), link.bridge_port?))
}

/// Whether the forwarding database has whoever is behind a port; where that is not known, whether it has anybody but the
/// port's own device.
fn known(inventory: &Inventory<'_>, side: Side) -> bool {
    let own = inventory.link(side.port).and_then(|link| link.mac);
    let fdb = inventory.network(side.port.netns).map_or(&[][..], |network| &network.fdb);
    let mut here = fdb.iter().filter(|entry| entry.ifindex == side.port.ifindex && entry.master.is_some());
    here.any(|entry| side.mac.map_or(Some(entry.mac) != own, |mac| entry.mac == mac))
        || inventory.unread(SourceKind::Netlink, side.port.netns)
}

fn faulty(inventory: &Inventory<'_>, at: LinkKey, code: &str, message: String) -> Finding {
    let name = inventory.link(at).map(|link| link.name.clone()).unwrap_or_default();
    let show = if code == "bridge-vlan" { "bridge vlan show" } else { "bridge -d link show" };
    let show = in_netns(inventory, at.netns, &format!("{show} dev {}", quote(&name)));
    finding(Severity::Error, code, name, message).verify(show)
}
