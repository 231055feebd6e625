//! Who else is on a network card's segment: routers, DHCP services, other instances.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Inventory, Nic, PortPlace, Role, switch::DEAD_VLAN};
use crate::{
    id::{LinkKey, NetnsId},
    netfilter::{Table, Test},
};

/// A device on the same segment.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its port.
    pub port: PortPlace<'a>,
    /// Its device.
    pub device: LinkKey,
}

impl<'a> Inventory<'a> {
    /// Every other device on the bridge and VLAN of a port. A port without a VLAN, or in the dead one, has no segment:
    /// Neutron's agent has not wired it.
    pub fn segment(&self, port: &PortPlace<'a>) -> Vec<Member<'a>> {
        let Some(vlan) = port.untagged_vlan().filter(|vlan| *vlan != DEAD_VLAN) else { return Vec::new() };
        self.ports()
            .on(port.bridge)
            .filter(|other| other.untagged_vlan() == Some(vlan) && !other.is(port))
            .filter_map(|other| Some(Member { port: other, device: self.device(&other)? }))
            .collect()
    }

    /// Ends of Neutron routers on a card's segment.
    pub fn router_ports(&self, nic: &Nic<'a>) -> Vec<Member<'a>> {
        self.members(nic, |role| matches!(role, Role::Router(_)))
    }

    /// Ends of DHCP namespaces on a card's segment.
    pub fn dhcp_ports(&self, nic: &Nic<'a>) -> Vec<Member<'a>> {
        self.members(nic, |role| matches!(role, Role::Dhcp(_)))
    }

    /// Addresses of a guest, which only the guest itself knows for sure: those that the devices of its network have learned for
    /// its MAC address, and those the packet filter lets it send from.
    pub fn learned_addresses(&self, nic: &Nic<'a>) -> Vec<IpNet> {
        let Some(mac) = nic.mac else { return Vec::new() };
        let members = self.members(nic, |_| true);
        let neighbours = members.iter().flat_map(|member| {
            let known = self.network(member.device.netns).map_or(&[][..], |network| &network.neighbours);
            known.iter().filter(move |entry| entry.ifindex == member.device.ifindex && entry.mac == Some(mac))
        });
        let mut found: Vec<IpNet> = neighbours.map(|entry| IpNet::from(entry.address)).collect();
        let rulesets = nic.outer.map_or(&[][..], |outer| self.rulesets(outer.netns));
        let tables = rulesets.iter().flat_map(|ruleset| &ruleset.tables);
        for rule in tables.flat_map(Table::chains).flat_map(|chain| &chain.rules) {
            if rule.matches.iter().any(|one| one.test == Test::SourceMac(mac)) {
                found.extend(rule.source().filter(|net| net.prefix_len() == net.max_prefix_len()));
            }
        }
        found.retain(|net| !is_link_local(net));
        found.sort();
        found.dedup();
        found
    }

    /// Devices of the network a card is meant to be on. That is not always the segment it is on: a port in the dead VLAN,
    /// or in a wrong one, still belongs to the network Neutron's agent wrote on it, and its floating IP is still its own.
    fn members(&self, nic: &Nic<'a>, wanted: impl Fn(&Role) -> bool) -> Vec<Member<'a>> {
        let Some(port) = &nic.port else { return Vec::new() };
        let network = port.network().id;
        let ports = self.ports().on(port.bridge).filter(|other| !other.is(port));
        let meant = ports.filter(|other| network.is_some() && other.network().id == network);
        let named = meant.filter_map(|port| Some(Member { port, device: self.device(&port)? }));
        let mut found: Vec<Member<'a>> = named.collect();
        if network.is_none() {
            found = self.segment(port);
        }
        found.retain(|member| wanted(self.role(member.device.netns)));
        found
    }

    /// Namespaces that translate addresses for a card: its routers, and the namespaces that share a router's id.
    pub fn translators(&self, nic: &Nic<'a>) -> Vec<NetnsId> {
        let mut found: Vec<NetnsId> = self.router_ports(nic).iter().map(|member| member.device.netns).collect();
        let ids: Vec<_> = found.iter().map(|netns| self.role(*netns).clone()).collect();
        for (netns, role) in self.roles() {
            if let Role::Snat(id) = role
                && ids.contains(&Role::Router(Some(id.clone())))
            {
                found.push(netns);
            }
        }
        // A router may have several ends on one segment, with other routers' between them.
        let mut seen = BTreeSet::new();
        found.retain(|netns| seen.insert(*netns));
        found
    }
}

fn is_link_local(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}
