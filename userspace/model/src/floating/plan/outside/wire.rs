//! From a device of a router to one of the host. Flow: policy.

use std::collections::BTreeSet;

use super::{State, World, broken, obstacle, slow};
use crate::{
    fact::LinkDetail,
    floating::ExternalHook,
    id::LinkKey,
    inventory::{PortPlace, switch::VlanMode},
    trace::{
        InstanceKind,
        switching::{self, WayOut},
    },
};

/// Datapath of an Open vSwitch bridge that takes frames off its devices before TC sees them.
const USER_SPACE: &str = "netdev";

/// The way between a router's own device and the one of the host where its frames are met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Wire {
    /// The external device of the host.
    pub(in super::super) device: LinkKey,
    /// Its name.
    pub(in super::super) name: String,
    /// Where its frames are met.
    pub(in super::super) hook: ExternalHook,
    /// VLAN of the external network there; 0 is untagged.
    pub(in super::super) vlan: u16,
    /// Bytes an IP packet may have there.
    pub(in super::super) mtu: u32,
    /// The Linux bridge before it.
    pub(in super::super) bridge: Option<LinkKey>,
}

/// The way out of a router's own device.
pub(super) fn find(world: &World<'_, '_>, own: LinkKey) -> Result<Wire, State> {
    let inventory = world.inventory;
    if let Some(port) = inventory.port_of(own) {
        return through_switch(world, &port);
    }
    let bridged = inventory.peer(own).and_then(|peer| Some((peer, inventory.linux_bridge(peer)?)));
    match bridged {
        Some((peer, bridge)) => {
            obstacle::bypassed(world, peer)?;
            through_bridge(world, bridge)
        }
        None => slow(format!("{} leads into no bridge of this host", obstacle::place(world, own))),
    }
}

fn through_switch(world: &World<'_, '_>, port: &PortPlace<'_>) -> Result<Wire, State> {
    if let Some(plane) = port.by_flows_of() {
        return slow(format!(
            "{} takes frames of {} on by flows, which are not read",
            plane.name(),
            port.interface.name
        ));
    }
    let direct = port.port.tag.is_none() && !nics(port).is_empty();
    let (on, vlan) = if direct { (*port, 0) } else { external_bridge(world, port)? };
    let bridge = &on.bridge.name;
    obstacle::switched(&on)?;
    let user_space = on.bridge.datapath_type == USER_SPACE;
    let ports = world.inventory.ports();
    let opaque = ports
        .on(on.bridge)
        .find(|other| !matches!(other.interface.kind.as_str(), "" | "system" | "internal" | "patch"));
    if let Some(other) = opaque {
        let (name, kind) = (&other.interface.name, &other.interface.kind);
        return slow(format!("{bridge} leaves the host by {name} too, a port of type {kind}"));
    }
    let (device, hook) = match &nics_of(world, &on)[..] {
        [] => (on.switch.netns.and_then(|netns| world.inventory.link_named(netns, bridge)), ExternalHook::Internal),
        [nic] => {
            carries(nic, vlan)?;
            (world.inventory.device(nic), if user_space { ExternalHook::Xdp } else { ExternalHook::Tc })
        }
        [one, other, ..] => {
            let (one, other) = (&one.interface.name, &other.interface.name);
            return slow(format!("{bridge} leaves the host by {one} and by {other}"));
        }
    };
    match (hook, vlan) {
        (_, 0) | (ExternalHook::Tc, _) => wire(world, (device, bridge), hook, vlan),
        (ExternalHook::Xdp | ExternalHook::Internal, _) => {
            slow(format!("VLAN {vlan} of the external network cannot be put on frames where those of {bridge} are met"))
        }
    }
}

/// Ports of a bridge that lead out of the host.
fn nics_of<'a>(world: &World<'_, 'a>, on: &PortPlace<'a>) -> Vec<PortPlace<'a>> {
    let plain =
        |port: &PortPlace<'_>| matches!(port.interface.kind.as_str(), "" | "system") && port.port_id().is_none();
    world.inventory.ports().on(on.bridge).filter(plain).collect()
}

/// Interfaces of a port's bridge that lead out of the host.
fn nics<'a>(port: &PortPlace<'a>) -> Vec<&'a str> {
    let interfaces = port.bridge.ports.iter().flat_map(|port| &port.interfaces);
    let plain = interfaces
        .filter(|one| matches!(one.kind.as_str(), "" | "system") && !one.external_ids.contains_key("iface-id"));
    plain.map(|one| one.name.as_str()).collect()
}

/// Whether frames of a VLAN leave by a port as they are.
fn carries(nic: &PortPlace<'_>, vlan: u16) -> Result<(), State> {
    let name = &nic.interface.name;
    if nic.port.interfaces.len() > 1 {
        return slow(format!("{name} is one of a bond of Open vSwitch, which chooses between several"));
    }
    if nic.vlan_mode() != VlanMode::Trunk {
        return slow(format!("port {name} of {} changes the VLAN of frames", nic.bridge.name));
    }
    if nic.carries(Some(vlan)) {
        Ok(())
    } else {
        broken(format!("port {name} of {} does not carry VLAN {vlan}", nic.bridge.name))
    }
}

/// The bridge the external network leaves the host by, and its VLAN there.
fn external_bridge<'a>(world: &World<'_, 'a>, port: &PortPlace<'a>) -> Result<(PortPlace<'a>, u16), State> {
    let network = port.network();
    let name = &port.interface.name;
    let vlan = match (network.kind, network.segmentation_id.and_then(|id| u16::try_from(id).ok())) {
        (Some("flat"), _) => 0,
        (Some("vlan"), Some(vlan)) => vlan,
        (Some(kind), _) => return slow(format!("the external network of {name} is one of type {kind}")),
        (None, _) => return slow(format!("Open vSwitch's database does not say which network {name} is on")),
    };
    obstacle::switched(port)?;
    let patch = match switching::way_out(world.inventory, port) {
        WayOut::By(patch) => patch,
        WayOut::OneOf(patches) => {
            let patches = patches.join(" or ");
            return slow(format!(
                "{} leads on by {patches}: only bridge_mappings of Neutron's agent say which",
                port.bridge.name
            ));
        }
        WayOut::Nowhere => return broken(format!("no port of {} leads out of the host for {name}", port.bridge.name)),
    };
    match world.inventory.ports().patch_peer(&patch) {
        Some(far) => Ok((far, vlan)),
        None => broken(format!("patch port {} has no other end", patch.interface.name)),
    }
}

/// Out of a Linux bridge.
fn through_bridge(world: &World<'_, '_>, bridge: LinkKey) -> Result<Wire, State> {
    let inventory = world.inventory;
    let name = obstacle::place(world, bridge);
    if let Some(LinkDetail::Bridge { vlan_filtering: true, .. }) = inventory.link(bridge).map(|link| &link.detail) {
        return slow(format!("{name} tells VLANs apart"));
    }
    let instances = Ends::of(world);
    let leads_out = |key: &LinkKey| {
        let router = inventory.peer(*key).is_some_and(|peer| inventory.role(peer.netns).is_neutron());
        !router && !instances.surely.contains(key) && inventory.kind(*key) != Some("tun")
    };
    let (perhaps, mut uplinks): (Vec<LinkKey>, Vec<LinkKey>) = inventory
        .bridge_ports(bridge)
        .map(|(key, _)| key)
        .filter(leads_out)
        .partition(|key| instances.perhaps.contains(key));
    // The host has no address there, and so is not what is outside.
    if uplinks.is_empty() && perhaps.len() == 1 && world.held_by(bridge).next().is_none() {
        uplinks = perhaps;
    }
    let wire = match uplinks[..] {
        [] => wire(world, (Some(bridge), &name), ExternalHook::Internal, 0),
        [only] => match inventory.kind(only) {
            Some(kind @ ("vxlan" | "gretap" | "geneve")) => {
                slow(format!("the external network leaves the host by a tunnel ({kind})"))
            }
            Some(_) | None => wire(world, (Some(only), &name), ExternalHook::Tc, 0),
        },
        [one, other, ..] => {
            let [one, other] = [one, other].map(|key| obstacle::place(world, key));
            slow(format!("{name} leaves the host by {one} and by {other}"))
        }
    };
    wire.map(|wire| Wire { bridge: Some(bridge), ..wire })
}

/// The host's ends of instances.
struct Ends {
    /// Those of containers, of machines, and of whatever is held to security groups.
    surely: Vec<LinkKey>,
    /// Those of namespaces, which are seen as long as they have a name or a process: whatever is in them may be an instance, or all
    /// that is outside.
    perhaps: Vec<LinkKey>,
}

impl Ends {
    fn of(world: &World<'_, '_>) -> Self {
        let enforced: BTreeSet<LinkKey> = world.enforced.iter().filter_map(|port| world.device(port.ifindex)).collect();
        let (mut surely, mut perhaps) = (Vec::new(), Vec::new());
        for instance in &world.inventory.instances {
            for outer in instance.nics.iter().filter_map(|nic| nic.outer) {
                let plain = instance.identity.kind == InstanceKind::Namespace && !enforced.contains(&outer);
                if plain { &mut perhaps } else { &mut surely }.push(outer);
            }
        }
        Self { surely, perhaps }
    }
}

fn wire(
    world: &World<'_, '_>,
    (device, bridge): (Option<LinkKey>, &str),
    hook: ExternalHook,
    vlan: u16,
) -> Result<Wire, State> {
    let Some((device, link)) = device.and_then(|device| Some((device, world.inventory.link(device)?))) else {
        return slow(format!("the device that {bridge} leaves the host by cannot be found"));
    };
    if Some(device.netns) != world.inventory.host {
        return slow(format!("{} is not in the host's namespace", obstacle::place(world, device)));
    }
    obstacle::met(world, device, hook == ExternalHook::Xdp)?;
    Ok(Wire { device, name: link.name.clone(), hook, vlan, mtu: link.mtu, bridge: None })
}
