//! How ports of Open vSwitch are set up: VLANs, protection, whether it can use them at all.
//!
//! What a bridge does with a frame is its flows' to say; all of Neutron's end in `NORMAL`, which is what is judged here.

use super::super::{
    Severity,
    command::quote,
    path::{Path, finding},
};
use crate::inventory::{
    PortPlace,
    switch::{DEAD_VLAN, VlanMode},
};

/// Reports what is wrong with the way a port is set up.
pub(in crate::trace) fn wiring(path: &mut Path, place: &PortPlace<'_>) {
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
        None if neutron && place.by_flows_of().is_none() => path.report(
            finding(Severity::Error, "no-tag", name, format!("{name} has no VLAN tag: Neutron's agent has not wired it"))
                .seen(if port.trunks.is_empty() {
                    "Port.tag is empty, which makes it a trunk of every VLAN".to_owned()
                } else {
                    format!("Port.tag is empty, which makes it a trunk of the VLANs {:?}", port.trunks)
                })
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
    vlan_mode(path, place);
    unusable(path, place);
}

/// Whoever is behind a port sends and takes frames without a tag.
fn vlan_mode(path: &mut Path, place: &PortPlace<'_>) {
    let Some(tag) = place.port.tag.filter(|tag| *tag != DEAD_VLAN) else { return };
    let name = &place.interface.name;
    let (mode, message) = match place.vlan_mode() {
        VlanMode::Trunk => {
            ("trunk", format!("{name} is a trunk, which has no tag of its own: its frames are not in VLAN {tag}"))
        }
        VlanMode::NativeTagged => (
            "native-tagged",
            format!("{name} hands frames of VLAN {tag} out with their tag: what is behind it does not take them"),
        ),
        VlanMode::Access | VlanMode::NativeUntagged | VlanMode::Tunnel => return,
    };
    path.report(
        finding(Severity::Error, "vlan-mode", name, message)
            .seen(format!("Port.vlan_mode is {mode}, Port.tag is {tag}"))
            .verify(format!("ovs-vsctl list port {}", quote(&place.port.name)))
            .fix(format!("ovs-vsctl clear port {} vlan_mode trunks", quote(&place.port.name))),
    );
}

fn unusable(path: &mut Path, place: &PortPlace<'_>) {
    let interface = place.interface;
    let name = &interface.name;
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

/// Reports what keeps frames from going from one port of a bridge to another.
pub(in crate::trace) fn between(path: &mut Path, near: &PortPlace<'_>, far: &PortPlace<'_>) {
    let (one, other) = (&near.interface.name, &far.interface.name);
    if near.port.protected && far.port.protected {
        let message = format!("{one} and {other} are both protected: no frame goes from one to the other");
        path.report(
            finding(Severity::Error, "protected-ports", other, message)
                .seen("Port.protected is true on both")
                .verify(format!("ovs-vsctl get port {} protected", quote(&far.port.name)))
                .fix(format!("ovs-vsctl set port {} protected=false", quote(&far.port.name))),
        );
    }
    carried(path, far, near.untagged_vlan().unwrap_or(0));
}

/// Reports a port that frames of a VLAN do not pass; 0 stands for those without a tag.
pub(in crate::trace) fn carried(path: &mut Path, place: &PortPlace<'_>, vlan: u16) {
    if place.carries(Some(vlan)) {
        return;
    }
    let name = &place.interface.name;
    let what = if vlan == 0 { "frames without a tag".to_owned() } else { format!("frames of VLAN {vlan}") };
    let message = format!("{name} does not carry {what}: they die here");
    path.report(
        finding(Severity::Error, "vlan-not-carried", name, message)
            .seen(format!("Port.tag is {}, Port.trunks is {:?}", words(place.port.tag), place.port.trunks))
            .verify(format!("ovs-vsctl list port {}", quote(&place.port.name)))
            .fix(format!("ovs-vsctl clear port {} tag trunks", quote(&place.port.name))),
    );
}

fn words(tag: Option<u16>) -> String {
    tag.map_or_else(|| "empty".to_owned(), |tag| tag.to_string())
}
