//! Ports as the maps have them, and with which addresses they may send. Flow: policy.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use netdiag_common::abi::policy::{
    MacKey, PORT_CLOSED, PORT_HAS_IPV6, PORT_LOG_ALLOWED, PORT_MANAGED, PORT_MORE_PAIRS, PORT_TRUSTED, PairKey, Port,
};

use super::tables::{PAIR_BITS, Trie};
use crate::{
    id::Mac,
    policy::types::{Attached, Mode},
};

/// A port and what does not fit into it.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) port: Port,
    pub(super) macs: BTreeSet<MacKey>,
    pub(super) pairs: BTreeSet<Trie<PairKey>>,
}

/// Lowers a port for a place. `old` is the same port before, whose addresses keep their places.
pub(super) fn lower(attached: &Attached, slot: u32, old: Option<&Port>) -> Lowered {
    let old = old.copied().unwrap_or_default();
    let (ipv4, mut ipv6) = inline(attached);
    ipv6.insert(words6(link_local(attached.mac)));
    let (ipv4, more4) = place(old.ipv4, ipv4);
    let (ipv6, more6) = place(old.ipv6, ipv6);
    let mut pairs: BTreeSet<_> = attached.pairs.iter().map(|(mac, network)| pair(slot, *mac, *network)).collect();
    let host = |address: [u32; 4]| Trie {
        data: PairKey { slot, mac: attached.mac.0, pad: [0; 2], address },
        bits: PAIR_BITS + 128,
    };
    pairs.extend(more4.into_iter().map(mapped).chain(more6).map(host));
    let others: BTreeSet<Mac> = attached.pairs.iter().map(|(mac, _)| *mac).filter(|mac| *mac != attached.mac).collect();
    pairs.extend(others.iter().map(|mac| pair(slot, *mac, IpAddr::from(link_local(*mac)).into())));
    let macs: BTreeSet<_> = others.iter().map(|mac| MacKey { slot, mac: mac.0, pad: [0; 2] }).collect();
    let more = if pairs.is_empty() && macs.is_empty() { 0 } else { PORT_MORE_PAIRS };
    let port =
        Port { flags: flags(attached) | more, policy: 0, epoch: 0, mac: attached.mac.0, pad: [0; 2], ipv4, ipv6 };
    Lowered { port, macs, pairs }
}

fn flags(attached: &Attached) -> u32 {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    PORT_MANAGED
        | bit(attached.mode == Mode::Trusted, PORT_TRUSTED)
        | bit(attached.mode == Mode::Closed, PORT_CLOSED)
        | bit(attached.fixed_ips.iter().any(IpAddr::is_ipv6), PORT_HAS_IPV6)
        | bit(attached.log_allowed, PORT_LOG_ALLOWED)
}

/// Fixed addresses by family. The unspecified one is none.
fn inline(attached: &Attached) -> (BTreeSet<u32>, BTreeSet<[u32; 4]>) {
    let (mut ipv4, mut ipv6) = (BTreeSet::new(), BTreeSet::new());
    for address in attached.fixed_ips.iter().filter(|address| !address.is_unspecified()) {
        match address {
            IpAddr::V4(address) => ipv4.insert(u32::from_ne_bytes(address.octets())),
            IpAddr::V6(address) => ipv6.insert(words6(*address)),
        };
    }
    (ipv4, ipv6)
}

/// Puts values into places: those that have one keep it, others take what is free, and the rest is left over.
pub(super) fn place<T: Copy + Default + Ord, const N: usize>(
    old: [T; N],
    mut wanted: BTreeSet<T>,
) -> ([T; N], BTreeSet<T>) {
    let mut places = old.map(|value| if wanted.remove(&value) { value } else { T::default() });
    for place in places.iter_mut().filter(|place| **place == T::default()) {
        *place = wanted.pop_first().unwrap_or_default();
    }
    (places, wanted)
}

/// The key of an address pair.
fn pair(slot: u32, Mac(mac): Mac, network: IpNet) -> Trie<PairKey> {
    let (address, length) = match network.trunc() {
        IpNet::V4(network) => (mapped(u32::from_ne_bytes(network.network().octets())), 96 + network.prefix_len()),
        IpNet::V6(network) => (words6(network.network()), network.prefix_len()),
    };
    Trie { data: PairKey { slot, mac, pad: [0; 2], address }, bits: PAIR_BITS + u32::from(length) }
}

/// An IPv4 address as IPv6 maps it, in network byte order.
pub(super) const fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// An IPv6 address in network byte order.
pub(super) fn words6(address: Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    let mut words = [0; 4];
    for (word, octets) in words.iter_mut().zip(octets.as_chunks().0) {
        *word = u32::from_ne_bytes(*octets);
    }
    words
}

/// The link-local address of a MAC address (RFC 4291, appendix A).
fn link_local(Mac(mac): Mac) -> Ipv6Addr {
    let [first, second, third, fourth, low @ ..] = mac;
    let (high, middle) = ([first ^ 2, second], [[third, 0xff], [0xfe, fourth]].map(u16::from_be_bytes));
    let (high, low) = (u16::from_be_bytes(high), u16::from_be_bytes(low));
    Ipv6Addr::new(0xfe80, 0, 0, 0, high, middle[0], middle[1], low)
}
