//! Floating IPs and the way each of them takes: past the router, or through it and why. Flow: policy.
//!
//! A plan is a pure function of what was found on the host and of what is asked; tables are what the
//! programs need of it. A router here is a namespace whose rules translate: a router namespace of Neutron's L3 agent, or
//! the host itself where netdiag has written the rules.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{id::Mac, policy::types::PortId};

/// The plan of a host.
pub mod plan;
/// The floating IPs of a host and the ways they take.
pub mod show;
/// What the programs need of a plan.
pub mod tables;

pub use plan::{Service, Slow, Switches, plan};

/// What netdiag knows of the floating IPs of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Floating IPs, by address and then by router.
    pub floating_ips: Vec<FloatingIp>,
    /// Routers of those that go the fast way, by the number their paths name.
    pub routers: BTreeMap<u32, Router>,
    /// Floating IPs that the host is to serve by itself, whichever way they go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

/// A floating IP of this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FloatingIp {
    /// The address the outside knows.
    pub floating_ip_address: Ipv4Addr,
    /// The address it stands for; none while it is associated with no port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_ip_address: Option<Ipv4Addr>,
    /// The port that has that address, where netdiag enforces one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_id: Option<PortId>,
    /// The router: name of its namespace, or `host`.
    pub router: String,
    /// Who made it.
    pub owner: Owner,
    /// Which way its packets go.
    pub way: State,
}

/// Who made a floating IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Somebody else, as Neutron's L3 agent: found in a router namespace.
    Found,
    /// netdiag, from its policy.
    Netdiag,
}

/// Which way the packets of a floating IP go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum State {
    /// Past the router, both directions.
    Fast(Box<FastPath>),
    /// Through the router, which works as far as netdiag knows.
    Slow {
        /// Why not past it.
        why: String,
    },
    /// Nowhere.
    Broken {
        /// Why, with both sides where two disagree.
        why: String,
    },
}

/// All there is to know of a way past the router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FastPath {
    /// Number of the router in [`Plan::routers`].
    pub router: u32,
    /// The external device on this host: where frames for the floating IP come in and where those from it go out.
    pub device: String,
    /// Its index in the host's namespace.
    pub ifindex: u32,
    /// Where its frames are met.
    pub hook: ExternalHook,
    /// VLAN of the external network at that device; 0 is untagged.
    pub vlan: u16,
    /// MAC address of the router on the external network.
    pub outer_mac: Mac,
    /// Bytes an IP packet may have there.
    pub outer_mtu: u32,
    /// MAC address of the router on the instance's network.
    pub inner_mac: Mac,
    /// Bytes an IP packet may have there.
    pub inner_mtu: u32,
    /// MAC address of the instance.
    pub mac: Mac,
    /// The host's device of the instance.
    pub port_ifindex: u32,
    /// The instance's own device is the peer of that, in another namespace, and may be given packets directly.
    pub peer: bool,
    /// Routers on the slow way: 1, for DVR 2.
    pub hops: u16,
    /// The router's source translation may change ports (`--random-fully`), so that a flow cannot change ways.
    pub random: bool,
    /// New flows may begin the fast way.
    pub begins: bool,
}

/// Where frames at an external device are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalHook {
    /// At TC ingress of a NIC, a bond or a VLAN device.
    Tc,
    /// At TC egress of the internal device of a bridge without a NIC: what the host sends.
    Internal,
    /// At XDP: a user-space Open vSwitch takes frames off the device before TC sees them.
    Xdp,
}

/// Where a router sends what is translated.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Router {
    /// Name of the namespace, or `host`.
    pub name: String,
    /// By prefix; the longest one decides. What none covers goes the slow way.
    pub hops: BTreeMap<Ipv4Net, NextHop>,
}

/// Where a prefix leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// Inside, or by another device: not translated here.
    Slow,
    /// Outside, through this MAC address.
    Via(Mac),
    /// Outside, and the destination itself has this MAC address.
    OnLink(Mac),
    /// Outside, but nobody knows the MAC address.
    Unresolved,
}

impl FloatingIp {
    /// `fast`, `slow` or `broken`, as everybody is told, and why it is not fast.
    pub fn shown(&self) -> (&'static str, Option<&str>) {
        match &self.way {
            State::Fast(path) if path.begins => ("fast", None),
            State::Fast(_) => ("slow", Some("told to be slow; flows that began on the fast way end there")),
            State::Slow { why } => ("slow", Some(why)),
            State::Broken { why } => ("broken", Some(why)),
        }
    }

    /// The way past the router, if it goes there.
    pub const fn fast(&self) -> Option<&FastPath> {
        match &self.way {
            State::Fast(path) => Some(path),
            State::Slow { .. } | State::Broken { .. } => None,
        }
    }
}
