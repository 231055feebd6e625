//! What is known of the whole host. Flow: policy.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;

use super::{
    State, Switches,
    outside::Wire,
    segment::{self, Segment},
};
use crate::{
    fact::NetworkFact,
    id::{IfIndex, LinkKey, Mac, NetnsId},
    inventory::{Inventory, PortPlace, Role},
    policy::types::{Attached, Policy},
};

/// What is known of the whole host.
pub(super) struct World<'w, 'a> {
    pub(super) inventory: &'w Inventory<'a>,
    pub(super) policy: &'w Policy,
    pub(super) enforced: &'w [Attached],
    pub(super) switches: &'w Switches,
    /// Ports by network and fixed address.
    ports: BTreeMap<(Segment, Ipv4Addr), Vec<&'w Attached>>,
    /// Subnets by device.
    subnets: RefCell<BTreeMap<LinkKey, Vec<Ipv4Net>>>,
    /// Networks by device.
    segments: RefCell<BTreeMap<LinkKey, Option<Segment>>>,
    /// Ways of routers to the external device, by the router's own.
    wires: RefCell<BTreeMap<LinkKey, Result<Wire, State>>>,
    /// MAC addresses of this host's devices, routers and instances, and the namespaces they are in.
    macs: BTreeMap<Mac, BTreeSet<Option<NetnsId>>>,
    /// Addresses of this host and its routers.
    addresses: BTreeSet<Ipv4Addr>,
}

impl<'w, 'a> World<'w, 'a> {
    pub(super) fn new(
        inventory: &'w Inventory<'a>,
        policy: &'w Policy,
        enforced: &'w [Attached],
        switches: &'w Switches,
    ) -> Self {
        let here = |netns: NetnsId| Some(netns) == inventory.host || inventory.role(netns).is_neutron();
        let links: Vec<_> = inventory.all_links().filter(|(key, _)| here(key.netns)).collect();
        let nics = inventory.instances.iter().flat_map(|instance| &instance.nics);
        let of_nics = nics.filter_map(|nic| Some((nic.mac?, nic.inner.map(|inner| inner.netns))));
        let of_links = links.iter().filter_map(|(key, link)| Some((link.mac?, Some(key.netns))));
        let attached = inventory.ports().all().iter().filter_map(PortPlace::attached_mac);
        let named = attached.chain(enforced.iter().map(|port| port.mac)).map(|mac| (mac, None));
        let mut macs: BTreeMap<Mac, BTreeSet<Option<NetnsId>>> = BTreeMap::new();
        for (mac, netns) in of_links.chain(of_nics).chain(named) {
            macs.entry(mac).or_default().insert(netns);
        }
        let held = links.iter().flat_map(|(_, link)| &link.addresses).map(|held| held.address.addr());
        let mut world = Self {
            inventory,
            policy,
            enforced,
            switches,
            ports: BTreeMap::new(),
            subnets: RefCell::default(),
            segments: RefCell::default(),
            wires: RefCell::default(),
            macs,
            addresses: held.filter_map(four).collect(),
        };
        world.index_ports();
        world
    }

    fn index_ports(&mut self) {
        for port in self.enforced {
            let Some(segment) = self.device(port.ifindex).and_then(|device| self.segment(device)) else { continue };
            for address in port.fixed_ips.iter().copied().filter_map(four) {
                self.ports.entry((segment.clone(), address)).or_default().push(port);
            }
        }
    }

    /// A device of the host by its index.
    pub(super) fn device(&self, ifindex: u32) -> Option<LinkKey> {
        Some(LinkKey { netns: self.inventory.host?, ifindex: IfIndex(ifindex) })
    }

    /// What rtnetlink said of a namespace.
    pub(super) fn network(&self, netns: NetnsId) -> Option<&'a NetworkFact> {
        self.inventory.network(netns)
    }

    /// The network a device is on.
    pub(super) fn segment(&self, device: LinkKey) -> Option<Segment> {
        let mut segments = self.segments.borrow_mut();
        segments.entry(device).or_insert_with(|| segment::of(self.inventory, device)).clone()
    }

    /// Prefixes that a device has addresses in, looked for once: a router's may have thousands of addresses.
    pub(super) fn subnets(&self, device: LinkKey) -> Vec<Ipv4Net> {
        let find = || self.held_by(device).filter(|net| net.prefix_len() < 32).collect();
        self.subnets.borrow_mut().entry(device).or_insert_with(find).clone()
    }

    /// The way from a router's own device to the external one, found once.
    pub(super) fn wire(&self, own: LinkKey, find: impl Fn() -> Result<Wire, State>) -> Result<Wire, State> {
        self.wires.borrow_mut().entry(own).or_insert_with(find).clone()
    }

    /// Ports with a fixed address on a network.
    pub(super) fn ports(&self, segment: &Segment, fixed: Ipv4Addr) -> &[&'w Attached] {
        self.ports.get(&(segment.clone(), fixed)).map_or(&[], Vec::as_slice)
    }

    /// Addresses of this host and its routers.
    pub(super) const fn addresses(&self) -> &BTreeSet<Ipv4Addr> {
        &self.addresses
    }

    /// Addresses a namespace has.
    pub(super) fn own_addresses(&self, netns: NetnsId) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
        let links = self.network(netns).map_or(&[][..], |network| &network.links);
        links.iter().flat_map(|link| &link.addresses).map(|held| held.address.addr()).filter_map(four)
    }

    /// Whether a MAC address is on this host, rather than behind its external device.
    pub(super) fn is_local(&self, mac: Mac, external: LinkKey) -> bool {
        let beyond = self.inventory.peer(external).map(|peer| peer.netns).filter(|netns| {
            // The other end of a NIC that is one of a pair is outside, whoever can see it from here.
            Some(*netns) != self.inventory.host
                && !matches!(self.inventory.role(*netns), Role::Router(_) | Role::Snat(_))
        });
        let places = self.macs.get(&mac);
        places.is_some_and(|places| places.iter().any(|place| place.is_none() || *place != beyond))
    }
}

/// An IPv4 address.
pub(super) fn four(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(four) => Some(four),
        IpAddr::V6(_) => None,
    }
}
