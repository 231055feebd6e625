//! Who else is on a network card's segment: routers, DHCP services, other instances.

use super::{Inventory, Nic, PortPlace, Role, switch::DEAD_VLAN};
use crate::id::{LinkKey, NetnsId};

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
        let Some(tag) = port.port.tag.filter(|tag| *tag != DEAD_VLAN) else { return Vec::new() };
        self.ports()
            .on(port.bridge)
            .filter(|other| other.port.tag == Some(tag) && !other.is(port))
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

    fn members(&self, nic: &Nic<'a>, wanted: impl Fn(&Role) -> bool) -> Vec<Member<'a>> {
        let segment = nic.port.as_ref().map(|port| self.segment(port)).unwrap_or_default();
        segment.into_iter().filter(|member| wanted(self.role(member.device.netns))).collect()
    }

    /// Namespaces that translate addresses for a card: its routers, and the namespaces that share a router's id.
    pub fn translators(&self, nic: &Nic<'a>) -> Vec<NetnsId> {
        let mut found: Vec<NetnsId> = self.router_ports(nic).iter().map(|member| member.device.netns).collect();
        let ids: Vec<_> = found.iter().map(|netns| self.role(*netns).clone()).collect();
        for (netns, role) in self.roles() {
            if let Role::Snat(id) = role
                && ids.contains(&Role::Router(id.clone()))
            {
                found.push(netns);
            }
        }
        found.dedup();
        found
    }
}
