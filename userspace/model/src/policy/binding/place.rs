//! Network cards, and whether anything can hold them. Flow: policy.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    id::{LinkKey, Mac, Uuid},
    inventory::{Inventory, Nic, PortPlace, instance::GONE},
    policy::types::{Hook, Policy},
    trace::Identity,
};

/// Datapath of an Open vSwitch bridge that takes frames off its devices before TC sees them.
pub(super) const USER_SPACE: &str = "netdev";

/// A network card of this host.
#[derive(Debug)]
pub(super) struct Place<'i, 'a> {
    /// Whose it is; several share one where containers share a namespace, nobody's where only its device is known.
    pub(super) instances: Vec<&'i Identity>,
    /// The device to hold it by, or why there is none.
    pub(super) outer: Result<LinkKey, String>,
    /// The device that is this card's alone, whether or not anything can hold it.
    pub(super) own: Option<LinkKey>,
    /// Name of that device, or of the nearest there is.
    pub(super) name: Option<&'a str>,
    /// The end inside the instance.
    pub(super) inner: Option<LinkKey>,
    /// Name of that end.
    pub(super) inner_name: Option<&'a str>,
    mac: Option<Mac>,
    /// Its Neutron port, as Open vSwitch has it.
    pub(super) port_id: Option<Uuid>,
}

/// Every network card of every instance, every Neutron port nobody seems to be behind, and every device a port asks for.
pub(super) fn all<'i, 'a>(policy: &Policy, inventory: &'i Inventory<'a>) -> Vec<Place<'i, 'a>> {
    let mut places: Vec<Place<'i, 'a>> = Vec::new();
    for instance in &inventory.instances {
        for nic in &instance.nics {
            let same = places.iter_mut().find(|place| place.is(nic));
            match same {
                Some(place) => place.instances.push(&instance.identity),
                None => places.push(of_nic(inventory, nic, &instance.identity)),
            }
        }
    }
    for port in inventory.ports().all() {
        if let Some(place) = of_port(inventory, port).filter(|new| !places.iter().any(|place| place.own == new.own)) {
            places.push(place);
        }
    }
    for name in policy.ports.values().filter_map(|port| port.binding.device.as_deref()) {
        let device = inventory.host.and_then(|host| inventory.link_named(host, name));
        if let Some(key) = device.filter(|key| !places.iter().any(|place| place.own == Some(*key))) {
            places.push(of_device(inventory, key));
        }
    }
    places
}

fn of_nic<'i, 'a>(inventory: &Inventory<'a>, nic: &Nic<'a>, identity: &'i Identity) -> Place<'i, 'a> {
    Place {
        instances: vec![identity],
        outer: holdable(inventory, nic),
        own: nic.outer.filter(|_| !nic.inner.and_then(|inner| inventory.kind(inner)).is_some_and(shares)),
        name: nic.outer_name(inventory).or_else(|| nic.inner_name(inventory)),
        inner: nic.inner,
        inner_name: nic.inner_name(inventory),
        mac: nic.mac,
        port_id: nic.port_id.clone(),
    }
}

/// The card behind an Open vSwitch port that carries a Neutron port: its own device, or, where that is one end of the veth
/// pair of hybrid plug, the only other port of the bridge the other end is in.
fn of_port<'i, 'a>(inventory: &Inventory<'a>, port: &PortPlace<'a>) -> Option<Place<'i, 'a>> {
    let id = port.port_id()?;
    let own = inventory.device(port).filter(|_| !port.is_patch() && port.interface.kind != "internal")?;
    let behind = inventory.peer(own).and_then(|peer| {
        let mut others = inventory.bridge_ports(inventory.linux_bridge(peer)?).filter(|(key, _)| *key != peer);
        others.next().filter(|_| others.next().is_none()).map(|(key, _)| key)
    });
    let device = of_device(inventory, behind.unwrap_or(own));
    Some(Place { mac: port.attached_mac(), port_id: Some(id), ..device })
}

fn of_device<'i, 'a>(inventory: &Inventory<'a>, key: LinkKey) -> Place<'i, 'a> {
    Place {
        instances: vec![],
        outer: host_device(inventory, key),
        own: Some(key),
        name: inventory.link(key).map(|link| link.name.as_str()),
        inner: inventory.peer(key),
        inner_name: None,
        mac: None,
        port_id: inventory.port_of(key).and_then(|port| port.port_id()),
    }
}

/// The device that sees exactly this card's packets.
fn holdable(inventory: &Inventory<'_>, nic: &Nic<'_>) -> Result<LinkKey, String> {
    let inner = nic.inner.and_then(|inner| inventory.link(inner));
    if let Some(kind) = inner.and_then(|link| link.kind.as_deref()).filter(|kind| shares(kind)) {
        let below = nic.outer_name(inventory).unwrap_or("a device");
        return Err(format!("a {kind} shares {below} with others, and has no device of its own on the host"));
    }
    match nic.outer {
        Some(outer) => host_device(inventory, outer),
        None if inner.is_some() => Err("its other end is not on this host, or could not be seen".to_owned()),
        None => Err("it has no device on the host (vhost-user, or a function of a card)".to_owned()),
    }
}

fn host_device(inventory: &Inventory<'_>, key: LinkKey) -> Result<LinkKey, String> {
    if Some(key.netns) != inventory.host {
        return Err(format!("its device is in namespace {}, and not in the host's", inventory.netns(key.netns).label));
    }
    match inventory.kind(key) {
        Some("veth" | "tun") => Ok(key),
        Some(kind) if shares(kind) => Err(format!("a {kind} shares the device below it with others")),
        Some(kind) => Err(format!("a {kind} is no card of an instance")),
        None => Err("a physical device is no card of an instance".to_owned()),
    }
}

/// Whether links of a kind sit on a device that others sit on, too.
fn shares(kind: &str) -> bool {
    matches!(kind, "macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "vlan")
}

impl Place<'_, '_> {
    /// Whether a card is this one: containers of one namespace share their cards.
    fn is(&self, nic: &Nic<'_>) -> bool {
        (nic.inner.is_some() && self.inner == nic.inner) || nic.outer.is_some_and(|outer| self.own == Some(outer))
    }

    /// Name of the host's device.
    pub(super) fn device(&self) -> Option<String> {
        self.name.map(str::to_owned)
    }

    /// Nothing is left of its instance but the port.
    pub(super) fn gone(&self) -> bool {
        !self.instances.is_empty() && self.instances.iter().all(|identity| identity.state == GONE)
    }

    /// MAC address of the instance.
    pub(super) fn mac(&self, inventory: &Inventory<'_>) -> Option<Mac> {
        self.mac.or_else(|| inventory.link(self.inner?)?.mac)
    }

    /// Addresses of the device inside the instance. What others learned of a virtual machine is hearsay.
    pub(super) fn addresses(&self, inventory: &Inventory<'_>) -> BTreeSet<IpAddr> {
        let held = self.inner.map_or_else(Vec::new, |inner| inventory.addresses(inner));
        held.iter().map(ipnet::IpNet::addr).collect()
    }

    /// Where packets from the instance can be met.
    pub(super) fn hook(&self, inventory: &Inventory<'_>) -> Hook {
        let port = self.outer.as_ref().ok().and_then(|outer| inventory.port_of(*outer));
        if port.is_some_and(|port| port.bridge.datapath_type == USER_SPACE) { Hook::Xdp } else { Hook::Tc }
    }
}
