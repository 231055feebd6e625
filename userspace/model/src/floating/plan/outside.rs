//! From the router to the external device. Flow: policy.

use super::{
    State, broken,
    router::{Found, Router},
    slow,
    world::World,
};
use crate::{
    floating::ExternalHook,
    id::{LinkKey, Mac},
    inventory::PortPlace,
    trace::switching::{self, WayOut},
};

/// Datapath of an Open vSwitch bridge that takes frames off its devices before TC sees them.
const USER_SPACE: &str = "netdev";

/// The outer end of a way.
#[derive(Debug)]
pub(super) struct Outside {
    /// The external device of the host.
    pub(super) device: LinkKey,
    /// Its name.
    pub(super) name: String,
    /// Where its frames are met.
    pub(super) hook: ExternalHook,
    /// VLAN of the external network there.
    pub(super) vlan: u16,
    /// The router's own device on the external network.
    pub(super) own: LinkKey,
    /// MAC address of that.
    pub(super) mac: Mac,
    /// Bytes an IP packet may have on the way out.
    pub(super) mtu: u32,
}

/// The external side of a router.
pub(super) fn find(world: &World<'_, '_>, router: &Router, found: &Found) -> Result<Outside, State> {
    let (inventory, name) = (world.inventory, &router.name);
    if found.distributed {
        return slow("distributed routers are not led past yet");
    }
    let Some((own, link)) = found.device.and_then(|own| Some((own, inventory.link(own)?))) else {
        return broken(format!("{name} has no device to the outside"));
    };
    if !link.addresses.iter().any(|held| held.address.addr() == found.floating) {
        return broken(format!("{} of {name} does not hold the address", link.name));
    }
    let Some(port) = inventory.port_of(own) else {
        return slow(format!("{} of {name} is no port of Open vSwitch", link.name));
    };
    let (on, vlan) = external_bridge(world, &port)?;
    let nics: Vec<_> = inventory.ports().on(on.bridge).filter(|other| other.interface.kind.is_empty()).collect();
    let nics: Vec<_> = nics.into_iter().filter(|nic| nic.port_id().is_none()).collect();
    let user_space = on.bridge.datapath_type == USER_SPACE;
    let bridge = &on.bridge.name;
    let (device, hook) = match &nics[..] {
        [] => (on.switch.netns.and_then(|netns| inventory.link_named(netns, bridge)), ExternalHook::Internal),
        [nic] => (inventory.device(nic), if user_space { ExternalHook::Xdp } else { ExternalHook::Tc }),
        [_, _, ..] => return slow(format!("{bridge} has several network cards")),
    };
    let Some((device, out)) = device.and_then(|device| Some((device, inventory.link(device)?))) else {
        return slow(format!("the device {bridge} leaves the host by cannot be found"));
    };
    let Some(mac) = link.mac else { return slow(format!("{} has no MAC address", link.name)) };
    Ok(Outside { device, name: out.name.clone(), hook, vlan, own, mac, mtu: link.mtu.min(out.mtu) })
}

/// The bridge the external network leaves the host by, and its VLAN there.
fn external_bridge<'a>(world: &World<'_, 'a>, port: &PortPlace<'a>) -> Result<(PortPlace<'a>, u16), State> {
    let network = port.network();
    let vlan = match (network.kind, network.segmentation_id.and_then(|id| u16::try_from(id).ok())) {
        (Some("flat"), _) => 0,
        (Some("vlan"), Some(vlan)) => vlan,
        (Some(kind), _) => return slow(format!("the external network is one of type {kind}")),
        (None, _) => return slow(format!("nothing says which network {} is on", port.interface.name)),
    };
    let WayOut::By(patch) = switching::way_out(world.inventory, port) else {
        return slow(format!("{} leads to no one external bridge", port.bridge.name));
    };
    match world.inventory.ports().patch_peer(&patch) {
        Some(far) => Ok((far, vlan)),
        None => broken(format!("patch port {} has no other end", patch.interface.name)),
    }
}
