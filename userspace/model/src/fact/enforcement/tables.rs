//! The policy maps as a look at the host found them, entry by entry. Flow: discover.
//!
//! Numbers mean what `netdiag_common::abi::policy` says they mean. Entries that are all zero are left out.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::id::Mac;

/// Everything the decision about a packet reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadedTables {
    /// `PORTS`, by slot.
    pub ports: BTreeMap<u32, LoadedPort>,
    /// `MACS`: addresses a port may send with beside its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<(u32, Mac)>,
    /// `PAIRS`: slot, MAC address and what it may send from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<(u32, Mac, IpNet)>,
    /// `ACTIVE`: view and generation in force, by policy.
    pub active: BTreeMap<u32, LoadedActive>,
    /// `VIEWS`, by their number.
    pub views: BTreeMap<u32, LoadedView>,
    /// `PROTOCOLS`: `whole` and `directory`, by `table * 256 + protocol`.
    pub protocols: BTreeMap<u32, (u32, u32)>,
    /// `PAGES`, by their number: entries that are not 0.
    pub pages: BTreeMap<u32, BTreeMap<u8, u32>>,
    /// `GRANTS`: first half of the key, remote class, service class, and the rule.
    pub grants: Vec<(u32, u32, u32, u32)>,
    /// `REMOTES4`: set, address, class.
    pub remotes4: Vec<(u32, Ipv4Addr, u32)>,
    /// `REMOTES6`: set, address, class.
    pub remotes6: Vec<(u32, Ipv6Addr, u32)>,
    /// `PREFIXES4`: set, prefix, class.
    pub prefixes4: Vec<(u32, Ipv4Net, u32)>,
    /// `PREFIXES6`: set, prefix, class.
    pub prefixes6: Vec<(u32, Ipv6Net, u32)>,
    /// Ethertypes that are permitted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ethertypes: Vec<u16>,
}

/// A port in `PORTS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedPort {
    /// `PORT_*` bits.
    pub flags: u32,
    /// Index of `ACTIVE`.
    pub policy: u32,
    /// Epoch.
    pub epoch: u32,
    /// MAC address.
    pub mac: Mac,
    /// Fixed IPv4 addresses that are compared without a lookup.
    pub ipv4: Vec<Ipv4Addr>,
    /// The same for IPv6, the link-local address of the MAC address among them.
    pub ipv6: Vec<Ipv6Addr>,
}

/// A word of `ACTIVE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedActive {
    /// The view in force.
    pub view: u32,
    /// Its generation.
    pub generation: u32,
}

/// A view of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedView {
    /// Generation.
    pub generation: u32,
    /// `VIEW_*` bits.
    pub flags: u32,
    /// By `side`: service table, grants, set of hosts, set of prefixes.
    pub sides: [(u32, u32, u32, u32); 4],
}
