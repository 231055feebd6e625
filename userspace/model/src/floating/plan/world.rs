//! What is known of the whole host, and the way of one floating IP. Flow: policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::{
    FastPath, Policy, State, Switches, broken, hops, inside, outside,
    router::{Found, Router},
    segment::{self, Segment},
    slow,
};
use crate::{
    floating,
    id::{IfIndex, LinkKey, Mac},
    inventory::Inventory,
    policy::types::Attached,
};

/// What is known of the whole host.
pub(super) struct World<'w, 'a> {
    pub(super) inventory: &'w Inventory<'a>,
    pub(super) policy: &'w Policy,
    pub(super) switches: &'w Switches,
    /// Ports by network and fixed address.
    ports: BTreeMap<(Segment, Ipv4Addr), Vec<&'w Attached>>,
    /// MAC addresses of this host and its instances.
    macs: BTreeSet<Mac>,
}

impl<'w, 'a> World<'w, 'a> {
    pub(super) fn new(
        inventory: &'w Inventory<'a>,
        policy: &'w Policy,
        enforced: &'w [Attached],
        switches: &'w Switches,
    ) -> Self {
        let mut ports: BTreeMap<(Segment, Ipv4Addr), Vec<&Attached>> = BTreeMap::new();
        for port in enforced {
            let device = inventory.host.map(|netns| LinkKey { netns, ifindex: IfIndex(port.ifindex) });
            let Some(segment) = device.and_then(|device| segment::of(inventory, device)) else { continue };
            for address in &port.fixed_ips {
                if let IpAddr::V4(address) = address {
                    ports.entry((segment.clone(), *address)).or_default().push(port);
                }
            }
        }
        let links = inventory.all_links().filter_map(|(_, link)| link.mac);
        let attached = inventory.ports().all().iter().filter_map(crate::inventory::PortPlace::attached_mac);
        let macs = links.chain(attached).chain(enforced.iter().map(|port| port.mac)).collect();
        Self { inventory, policy, switches, ports, macs }
    }

    /// Whether a MAC address is one of this host or of its instances.
    pub(super) fn is_local(&self, mac: Mac) -> bool {
        self.macs.contains(&mac)
    }

    /// Ports with a fixed address on a network.
    pub(super) fn ports(&self, segment: Segment, fixed: Ipv4Addr) -> &[&'w Attached] {
        self.ports.get(&(segment, fixed)).map_or(&[], Vec::as_slice)
    }

    /// The port of a floating IP.
    pub(super) fn port(&self, router: &Router, found: &Found) -> Result<&'w Attached, State> {
        inside::port(self, router, found).map(|inside| inside.port)
    }

    /// The way past the router, or why there is none.
    pub(super) fn way(
        &self,
        router: &Router,
        found: &Found,
        routers: &mut BTreeMap<u32, floating::Router>,
    ) -> Result<FastPath, State> {
        if !found.missing.is_empty() {
            let missing = found.missing.join(" and ");
            return broken(format!("{} has no rule for it in {missing}", router.name));
        }
        if !self.switches.accelerate {
            return slow("netdiag was told to leave floating IPs of others to their routers");
        }
        let inside = inside::port(self, router, found)?;
        let outside = outside::find(self, router, found)?;
        let number = hops::router(self, router, found, &outside, routers)?;
        Ok(FastPath {
            router: number,
            device: outside.name,
            ifindex: outside.device.ifindex.0,
            hook: outside.hook,
            vlan: outside.vlan,
            outer_mac: outside.mac,
            outer_mtu: outside.mtu,
            inner_mac: inside.router_mac,
            inner_mtu: inside.mtu,
            mac: inside.port.mac,
            port_ifindex: inside.port.ifindex,
            peer: inside.peer,
            hops: 1,
            random: found.random,
            begins: !self.switches.slow.has(found.floating),
        })
    }
}
