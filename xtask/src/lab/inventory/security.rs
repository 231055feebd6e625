//! The share of security groups in an inventory: groups with their rules, which ports have them, and what they became in
//! the packet filter.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Cidr, Inventory, Uuid};

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Neutron's id.
    pub id: Uuid,
    /// Human name.
    pub name: String,
    /// The project that owns it.
    pub project: Uuid,
    /// What it allows; everything else is denied.
    pub rules: Vec<SecurityRule>,
}

impl SecurityGroup {
    /// Name of the IPv4 ipset with the addresses of the group's members.
    pub fn set(&self) -> String {
        format!("NIPv4{}", self.id).chars().take(29).collect()
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityRule {
    /// Seen from the instance.
    pub direction: Direction,
    /// IP version.
    pub ethertype: Ethertype,
    /// Which packets.
    pub traffic: Traffic,
    /// Who at the other end.
    pub peer: Peer,
}

/// Direction of a packet, seen from the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the instance.
    Ingress,
    /// From the instance.
    Egress,
}

/// IP version of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ethertype {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// Which packets a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Traffic {
    /// All.
    Any,
    /// TCP to a range of ports.
    Tcp {
        /// First port.
        min: u16,
        /// Last port.
        max: u16,
    },
    /// ICMP.
    Icmp {
        /// Type; `None` for all.
        #[serde(rename = "type")]
        kind: Option<u8>,
        /// Code; `None` for all.
        code: Option<u8>,
    },
}

/// Whom a rule lets an instance talk to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Everybody.
    Any,
    /// Addresses.
    Prefix(Cidr),
    /// The fixed IPs of a group's members.
    Group(Uuid),
}

/// What became of a port's security groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSecurity {
    /// Port security; without it everything is accepted both ways.
    pub enabled: bool,
    /// Its groups.
    pub groups: Vec<Uuid>,
    /// Connection tracking zone.
    pub zone: Option<u16>,
    /// Its chains in the filter table.
    pub chains: Option<PortChains>,
}

/// The chains of a filtered port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortChains {
    /// For what goes to the instance.
    pub ingress: String,
    /// For what comes from it.
    pub egress: String,
    /// For the pairs of address and MAC it may send with.
    pub spoof: String,
}

/// How a host filters what its bridges forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketFilter {
    /// Prefix of the agent's chains.
    pub prefix: String,
    /// `net.bridge.bridge-nf-call-iptables`; `None` where the kernel has no such thing. Unless it is true, the rules are
    /// there and never asked.
    pub bridge_nf_call_iptables: Option<bool>,
    /// Whether remote groups are ipsets; else there is one rule per member.
    pub ipset: bool,
}

impl Inventory {
    /// The security group of this id.
    pub fn security_group(&self, id: &Uuid) -> Option<&SecurityGroup> {
        self.security_groups.iter().find(|group| group.id == *id)
    }

    /// The fixed IPs of a group's members, on whatever host.
    pub fn group_members(&self, group: &Uuid) -> Vec<Ipv4Addr> {
        let ports = self.instances.iter().flat_map(|instance| &instance.ports);
        let members = ports.filter(|port| port.security.as_ref().is_some_and(|own| own.groups.contains(group)));
        members.map(|port| port.address.address).collect()
    }
}
