//! The network cards of an instance and where they are plugged in.

use ipnet::IpNet;

use super::{Inventory, PortPlace};
use crate::{
    fact::{LinkFact, MachineFact, MachineNic},
    id::{LinkKey, Mac, NetnsId, Uuid},
};

/// A network card of an instance.
#[derive(Clone, Debug)]
pub struct Nic<'a> {
    /// The end inside the instance; none for a virtual machine.
    pub inner: Option<LinkKey>,
    /// The end on the host: tap, veth, or the device a macvlan sits on.
    pub outer: Option<LinkKey>,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Its addresses; for a virtual machine those that were learned from outside it.
    pub addresses: Vec<IpNet>,
    /// The Linux bridge between host end and Open vSwitch, or the bridge it is plugged into.
    pub bridge: Option<LinkKey>,
    /// The Open vSwitch port that carries its Neutron port.
    pub port: Option<PortPlace<'a>>,
    /// Neutron port: `iface-id` in full; none where nothing carries it.
    pub port_id: Option<Uuid>,
}

impl<'a> Nic<'a> {
    /// A card with a host end: follows it to the bridge and to the Open vSwitch port.
    fn plugged(inventory: &Inventory<'a>, inner: Option<LinkKey>, outer: Option<LinkKey>) -> Self {
        let bridge = outer.and_then(|outer| inventory.linux_bridge(outer));
        let direct = outer.and_then(|outer| inventory.port_of(outer));
        // A trunk's tap has a bridge of its own; its VLAN and its network are written on br-int's side.
        let direct = direct.map(|port| inventory.ports().trunk_parent(&port).map_or(port, |(_, parent)| parent));
        let port = direct.or_else(|| uplink_port(inventory, bridge?, outer?));
        let inner_link = inner.and_then(|inner| inventory.link(inner));
        Self {
            inner,
            outer,
            mac: inner_link.and_then(|link| link.mac).or_else(|| port.as_ref().and_then(PortPlace::attached_mac)),
            addresses: inner.map_or_else(Vec::new, |inner| inventory.addresses(inner)),
            bridge,
            port_id: port.as_ref().and_then(PortPlace::port_id),
            port,
        }
    }

    /// The card of an instance that is gone: its port, and the device of that name if there is one.
    pub(super) fn left_behind(inventory: &Inventory<'a>, port: &PortPlace<'a>, device: Option<LinkKey>) -> Self {
        let card = Self { port: Some(*port), port_id: port.port_id(), ..Self::plugged(inventory, None, device) };
        let card = Self { mac: card.mac.or(port.attached_mac()), ..card };
        Self { addresses: inventory.learned_addresses(&card), ..card }
    }

    /// Name of the inner end.
    pub fn inner_name(&self, inventory: &Inventory<'a>) -> Option<&'a str> {
        Some(&inventory.link(self.inner?)?.name)
    }

    /// Name of the host end.
    pub fn outer_name(&self, inventory: &Inventory<'a>) -> Option<&'a str> {
        Some(&inventory.link(self.outer?)?.name)
    }
}

/// The Open vSwitch port behind a per-port Linux bridge (hybrid plug): the peer of another port of the bridge.
fn uplink_port<'a>(inventory: &Inventory<'a>, bridge: LinkKey, outer: LinkKey) -> Option<PortPlace<'a>> {
    inventory
        .bridge_ports(bridge)
        .filter(|(key, _)| *key != outer)
        .find_map(|(key, _)| inventory.port_of(inventory.peer(key)?))
}

/// The cards of a container or another namespace: every link in it that leads out of it.
pub(super) fn container_nics<'a>(inventory: &Inventory<'a>, netns: NetnsId) -> Vec<Nic<'a>> {
    inventory
        .links_in(netns)
        .filter(|(_, link)| leads_out(link))
        .map(|(key, link)| {
            let outer = inventory.lower(key).or_else(|| {
                // An internal port of Open vSwitch that was moved here is its own host end.
                (link.kind.as_deref() == Some("tun") || link.kind.as_deref() == Some("openvswitch")).then_some(key)
            });
            Nic::plugged(inventory, Some(key), outer)
        })
        .collect()
}

/// Whether a link of a container leads out of it. VLANs and bridges a tenant builds inside do not, and neither do the
/// fallback tunnel devices the kernel adds to every namespace.
fn leads_out(link: &LinkFact) -> bool {
    match link.kind.as_deref() {
        Some("veth" | "tun" | "openvswitch") => true,
        Some("macvlan" | "ipvlan" | "macvtap" | "vlan") => link.link_netnsid.is_some(),
        // A physical device, or an SR-IOV function, handed to the instance.
        None => !link.loopback,
        Some(_) => false,
    }
}

/// The cards of a virtual machine: the taps its process holds open.
pub(super) fn machine_nics<'a>(inventory: &Inventory<'a>, machine: &'a MachineFact) -> Vec<Nic<'a>> {
    let Some(netns) = machine.netns.or(inventory.host) else { return Vec::new() };
    machine.nics.iter().map(|nic| machine_nic(inventory, netns, nic)).collect()
}

fn machine_nic<'a>(inventory: &Inventory<'a>, netns: NetnsId, nic: &MachineNic) -> Nic<'a> {
    let outer = nic.tap.as_ref().and_then(|tap| inventory.link_named(netns, tap));
    let plugged = Nic::plugged(inventory, None, outer);
    let known = Nic { mac: nic.mac.or(plugged.mac), ..plugged };
    Nic { addresses: inventory.learned_addresses(&known), ..known }
}
