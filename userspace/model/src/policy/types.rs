//! Checked types of a policy. Flow: policy.
//!
//! Every reference in a `Policy` leads somewhere, every range is in order, every address fits its family. Default deny is no
//! flag: it is a port whose groups have no rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::Mac;

/// Names an object of a policy: a Neutron UUID, or the name an operator without Neutron gave it.
macro_rules! id {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct $name(pub String);

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )+
    };
}

id! {
    /// A security group: its UUID, or its name where it was given none.
    GroupId;
    /// A security group rule: its UUID, or `<group>/<direction>/<place>` where it was given none, so that it keeps its name
    /// while rules of the other direction change.
    RuleId;
    /// An address group.
    AddressGroupId;
    /// A port: its UUID, or the name an operator without Neutron gave it.
    PortId;
    /// A floating IP: its UUID or name, or its address where it was given neither.
    FloatingIpId;
}

impl PortId {
    /// The id of a port at a device that is not the only one it has.
    #[must_use]
    pub fn at_device(&self, ifindex: u32) -> Self {
        Self(format!("{self} at device {ifindex}"))
    }

    /// The id of the port that has this one at a device, among others.
    #[must_use]
    pub fn elsewhere(&self, ifindex: u32) -> Option<Self> {
        let id = self.0.strip_suffix(&format!(" at device {ifindex}"))?;
        Some(Self(id.to_owned()))
    }
}

/// What is asked for: everything that shall be enforced on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Security groups.
    pub groups: BTreeMap<GroupId, SecurityGroup>,
    /// Address groups: lists of prefixes that rules name as remote.
    pub address_groups: BTreeMap<AddressGroupId, AddressGroup>,
    /// Ports, those of other hosts too: a port that is not here is nonetheless a member of its groups.
    pub ports: BTreeMap<PortId, Port>,
    /// Floating IPs that netdiag is to serve.
    pub floating_ips: BTreeMap<FloatingIpId, FloatingIp>,
    /// Members of groups beyond [`Policy::ports`]: what another host's agent or an operator says of them.
    pub members: BTreeMap<GroupId, BTreeSet<IpNet>>,
    /// Ethertypes that pass unfiltered, beyond IPv4, IPv6, ARP and RARP (Neutron's `permitted_ethertypes`); at most eight.
    pub permitted_ethertypes: BTreeSet<u16>,
    /// Close ports of Neutron that are found on this host and are not in [`Policy::ports`], instead of leaving them alone.
    pub close_unknown_ports: bool,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Identity.
    pub id: GroupId,
    /// Name; empty where it has none.
    pub name: String,
    /// False: replies need rules of their own.
    pub stateful: bool,
    /// What it allows; nothing else is.
    pub rules: Vec<Rule>,
}

/// Direction as Neutron means it: relative to the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the instance.
    Egress,
    /// To the instance.
    Ingress,
}

impl Direction {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// Address family of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ethertype {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// One security group rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Identity.
    pub id: RuleId,
    /// Direction.
    pub direction: Direction,
    /// Family.
    pub ethertype: Ethertype,
    /// Protocol and ports.
    pub service: Service,
    /// Who may be at the other end.
    pub remote: Remote,
    /// What its author says about it; empty where nothing.
    pub description: String,
}

/// Protocol and ports of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Every protocol.
    Any,
    /// A whole protocol, 0 to 255.
    Protocol(u8),
    /// Destination ports of a protocol that has some (TCP, UDP, SCTP, DCCP, UDP-Lite), first to last, in order, first at least 1.
    Ports {
        /// Protocol number.
        protocol: u8,
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// ICMP (IPv4) or `ICMPv6` (IPv6) of one type, and of one code or any. 0 is a type and a code like others.
    Icmp {
        /// 1 or 58, as the family has it.
        protocol: u8,
        /// Type.
        kind: u8,
        /// Code; none is any.
        code: Option<u8>,
    },
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// Everybody.
    Any,
    /// Addresses of a prefix of the rule's family, host bits cleared, not of length 0.
    Prefix(IpNet),
    /// Members of a security group, which exists.
    Group(GroupId),
    /// Prefixes of an address group, which exists.
    AddressGroup(AddressGroupId),
}

/// An address group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressGroup {
    /// Identity.
    pub id: AddressGroupId,
    /// Name; empty where it has none.
    pub name: String,
    /// Its prefixes, host bits cleared.
    pub addresses: BTreeSet<IpNet>,
}

/// A port of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Identity.
    pub id: PortId,
    /// Name; empty where it has none.
    pub name: String,
    /// How it is found on this host.
    pub binding: Binding,
    /// MAC address; none means that of the device the port is found at.
    pub mac: Option<Mac>,
    /// Fixed addresses; none means those of the device the port is found at.
    pub fixed_ips: Option<BTreeSet<IpAddr>>,
    /// What else it may send from.
    pub allowed_address_pairs: BTreeSet<AddressPair>,
    /// Groups it is in, in the order given, without repetition; every one exists. None at all leaves system traffic.
    pub groups: Vec<GroupId>,
    /// False (`port_security_enabled: false`, or `device_owner` of `network:*`): everything passes.
    pub filtered: bool,
    /// Say of every new flow that is allowed, too.
    pub log_allowed: bool,
}

/// A floating IP that netdiag is to serve. Two of them may ask for the same address: the plan holds both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingIp {
    /// Identity.
    pub id: FloatingIpId,
    /// The address the outside knows.
    pub floating_ip_address: Ipv4Addr,
    /// The address it stands for; none means the only fixed IPv4 address of its port.
    pub fixed_ip_address: Option<Ipv4Addr>,
    /// The port that has that address; none while it is associated with none. It need not be among [`Policy::ports`].
    pub port_id: Option<PortId>,
    /// The external network, in Neutron's words; netdiag only gives it back.
    pub network: Option<String>,
    /// The host's device that leads to the external network; none means that of the host's default route.
    pub device: Option<String>,
    /// Neutron's `QoS` policy of it, which nothing here could hold it to.
    pub qos_policy: Option<String>,
}

/// An allowed address pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressPair {
    /// MAC address; none is the port's own.
    pub mac: Option<Mac>,
    /// Address or prefix, host bits cleared.
    pub address: IpNet,
}

/// How a port is found on this host. The first that is given decides; a port with none is on another host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Name of the host's device: tap or veth.
    pub device: Option<String>,
    /// Name or id of the container, or its whole Nova UUID.
    pub instance: Option<String>,
    /// True: by the port's id, as Open vSwitch has it in `external_ids:iface-id`, or as Neutron cuts it into a device name.
    pub port_id: bool,
    /// Host Neutron says the port is bound to. It finds nothing; it tells whether a port that is not found is missed here.
    pub host: Option<String>,
}

impl Policy {
    /// Every address that is a member of a group: fixed addresses and allowed address pairs of the ports bound to it, whether
    /// filtered or not, and [`Policy::members`]. Floating IPs are none.
    ///
    /// `found` has the addresses of ports whose own are not given but were found at their device.
    pub fn members_of(&self, group: &GroupId, found: &BTreeMap<PortId, BTreeSet<IpAddr>>) -> BTreeSet<IpNet> {
        let bound = self.ports.values().filter(|port| port.groups.contains(group));
        let of_ports = bound.flat_map(|port| {
            let fixed = port.fixed_ips.as_ref().or_else(|| found.get(&port.id));
            let fixed = fixed.into_iter().flatten().map(|address| IpNet::from(*address));
            fixed.chain(port.allowed_address_pairs.iter().map(|pair| pair.address))
        });
        of_ports.chain(self.members.get(group).into_iter().flatten().copied()).collect()
    }
}

/// A port as it is enforced on this host: what was asked for, completed by what was found at its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The port.
    pub id: PortId,
    /// Index of the host's device.
    pub ifindex: u32,
    /// MAC address.
    pub mac: Mac,
    /// Fixed addresses.
    pub fixed_ips: BTreeSet<IpAddr>,
    /// What else it may send from, with the MAC address in full.
    pub pairs: BTreeSet<(Mac, IpNet)>,
    /// Groups it is in.
    pub groups: Vec<GroupId>,
    /// What becomes of its packets.
    pub mode: Mode,
    /// Where its packets are met.
    pub hook: Hook,
    /// Say of every new flow that is allowed, too.
    pub log_allowed: bool,
}

/// Where packets from the instance are met; those to it always at TC egress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// At TC ingress of the host's device.
    #[default]
    Tc,
    /// At XDP: a user-space Open vSwitch takes frames off the device before TC sees them.
    Xdp,
}

/// What becomes of a port's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its groups decide.
    Filtered,
    /// Everything passes.
    Trusted,
    /// Its policy is not known: system traffic alone passes.
    Closed,
}

impl Mode {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Trusted => "trusted",
            Self::Closed => "closed",
        }
    }
}
