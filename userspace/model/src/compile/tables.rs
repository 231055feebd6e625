//! The compiled tables in memory: what the maps hold, or shall hold. Flow: policy.
//!
//! An element of an array map that is all zeros is no element here, so that what is read back compares equal to what was
//! written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netdiag_common::{
    abi::policy::{
        GrantKey, Label, MAX_ETHERTYPES, MacKey, PAGE, Page, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, Settings,
        View,
    },
    logic::tables::PolicyTables,
};

use super::port::words6;

/// A key of a trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trie<K> {
    /// The data part.
    pub data: K,
    /// How many bits of the data count, those before the address included: what the kernel calls `prefixlen`.
    pub bits: u32,
}

/// Bits of a key of `PREFIXES*` before the address.
pub const SET_BITS: u32 = 32;
/// Bits of a key of `PAIRS` before the address.
pub const PAIR_BITS: u32 = 96;

/// The compiled tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Places of ports, by index of the host's device. The map has the place plus one.
    pub interfaces: BTreeMap<u32, u32>,
    /// Ports by place. A place nobody has keeps its epoch, so that the next port there gets another.
    pub ports: BTreeMap<u32, Port>,
    /// MAC addresses a port may send with beside its own.
    pub macs: BTreeSet<MacKey>,
    /// Address pairs a port may send with beside the inline ones.
    pub pairs: BTreeSet<Trie<PairKey>>,
    /// Views in force by policy. No port has policy 0; its word has view 0 and the last generation that was given out.
    pub active: BTreeMap<u32, u64>,
    /// Views.
    pub views: BTreeMap<u32, View>,
    /// Protocols of service tables.
    pub protocols: BTreeMap<u32, Protocol>,
    /// Pages of service tables.
    pub pages: BTreeMap<u32, Page>,
    /// Rules of pairs of classes.
    pub grants: BTreeMap<GrantKey, u32>,
    /// Classes of IPv4 host addresses.
    pub remotes4: BTreeMap<RemoteKey4, u32>,
    /// Classes of IPv6 host addresses.
    pub remotes6: BTreeMap<RemoteKey6, u32>,
    /// Classes of IPv4 prefixes.
    pub prefixes4: BTreeMap<Trie<RemoteKey4>, u32>,
    /// Classes of IPv6 prefixes.
    pub prefixes6: BTreeMap<Trie<RemoteKey6>, u32>,
    /// Ids of rules by number.
    pub rule_labels: BTreeMap<u32, Label>,
    /// Ids of ports by place.
    pub port_labels: BTreeMap<u32, Label>,
    /// Groups of policies by number.
    pub policy_labels: BTreeMap<u32, Label>,
    /// Family and groups of sets of host addresses by number.
    pub set_labels: BTreeMap<u32, Label>,
    /// What holds for all ports.
    pub settings: Settings,
}

impl Tables {
    /// Grants with a number.
    pub(super) fn grants_of(&self, grants: u32) -> impl Iterator<Item = (&GrantKey, &u32)> {
        let first = GrantKey { grants, remote: 0, class: 0 };
        let last = GrantKey { grants, remote: u32::MAX, class: u32::MAX };
        self.grants.range(first..=last)
    }

    /// IPv4 host addresses of a set.
    pub(super) fn hosts4_of(&self, set: u32) -> impl Iterator<Item = (&RemoteKey4, &u32)> {
        self.remotes4.range(RemoteKey4 { set, address: 0 }..=RemoteKey4 { set, address: u32::MAX })
    }

    /// IPv6 host addresses of a set.
    pub(super) fn hosts6_of(&self, set: u32) -> impl Iterator<Item = (&RemoteKey6, &u32)> {
        self.remotes6.range(RemoteKey6 { set, address: [0; 4] }..=RemoteKey6 { set, address: [u32::MAX; 4] })
    }

    /// Class of a host address in a set.
    pub(super) fn host(&self, set: u32, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => {
                self.remotes4.get(&RemoteKey4 { set, address: u32::from_ne_bytes(address.octets()) }).copied()
            }
            IpAddr::V6(address) => self.remotes6.get(&RemoteKey6 { set, address: words6(address) }).copied(),
        }
    }

    /// Puts a host address into a set.
    pub(super) fn put_host(&mut self, set: u32, address: IpAddr, class: u32) {
        match address {
            IpAddr::V4(address) => {
                self.remotes4.insert(RemoteKey4 { set, address: u32::from_ne_bytes(address.octets()) }, class)
            }
            IpAddr::V6(address) => self.remotes6.insert(RemoteKey6 { set, address: words6(address) }, class),
        };
    }
}

/// The first `bits` bits of an address in network byte order.
pub(super) fn cut<const N: usize>(address: [u32; N], bits: u32) -> [u32; N] {
    let mut left = bits;
    address.map(|word| {
        let here = left.min(32);
        left -= here;
        let mask = u32::MAX.checked_shl(32 - here).unwrap_or(0);
        word & mask.to_be()
    })
}

impl PolicyTables for Tables {
    fn port(&self, slot: u32) -> Option<&Port> {
        self.ports.get(&slot)
    }

    fn mac(&self, key: &MacKey) -> bool {
        self.macs.contains(key)
    }

    fn pair(&self, key: &PairKey) -> bool {
        (0..=128).any(|length| {
            let data = PairKey { address: cut(key.address, length), ..*key };
            self.pairs.contains(&Trie { data, bits: PAIR_BITS + length })
        })
    }

    fn active(&self, policy: u32) -> Option<u64> {
        self.active.get(&policy).copied()
    }

    fn view(&self, view: u32) -> Option<&View> {
        self.views.get(&view)
    }

    fn protocol(&self, index: u32) -> Option<Protocol> {
        self.protocols.get(&index).copied()
    }

    fn page(&self, page: u32, entry: u8) -> Option<u32> {
        const { assert!(PAGE == 256, "an octet is an index of a page") };
        self.pages.get(&page).map(|page| page.0[usize::from(entry)])
    }

    fn grant(&self, key: &GrantKey) -> Option<u32> {
        self.grants.get(key).copied()
    }

    fn remote4(&self, key: &RemoteKey4) -> Option<u32> {
        self.remotes4.get(key).copied()
    }

    fn remote6(&self, key: &RemoteKey6) -> Option<u32> {
        self.remotes6.get(key).copied()
    }

    fn prefix4(&self, key: &RemoteKey4) -> Option<u32> {
        (0..=32).rev().find_map(|length| {
            let [address] = cut([key.address], length);
            self.prefixes4.get(&Trie { data: RemoteKey4 { address, ..*key }, bits: SET_BITS + length }).copied()
        })
    }

    fn prefix6(&self, key: &RemoteKey6) -> Option<u32> {
        (0..=128).rev().find_map(|length| {
            let address = cut(key.address, length);
            self.prefixes6.get(&Trie { data: RemoteKey6 { address, ..*key }, bits: SET_BITS + length }).copied()
        })
    }

    fn ethertypes(&self) -> Option<&[u16; MAX_ETHERTYPES]> {
        Some(&self.settings.ethertypes)
    }
}
