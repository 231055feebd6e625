//! Compiled tables as facts: numbers in network byte order become addresses. Flow: discover.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netdiag_common::abi::policy::{Page, PairKey, Port, View, active_generation, active_view};
use netdiag_model::{
    compile::{PAIR_BITS, SET_BITS, Tables, Trie},
    fact::enforcement::{
        LoadedTables,
        tables::{LoadedActive, LoadedPort, LoadedView},
    },
    id::Mac,
};

/// An IPv4 address in network byte order.
pub(super) fn ipv4(word: u32) -> Ipv4Addr {
    word.to_ne_bytes().into()
}

/// An IPv6 address in network byte order.
pub(super) fn ipv6(words: [u32; 4]) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (octets, word) in octets.chunks_exact_mut(4).zip(words) {
        octets.copy_from_slice(&word.to_ne_bytes());
    }
    octets.into()
}

/// Every table as facts. What cannot be read as an address and a length is left out: no policy could have put it there.
pub(super) fn loaded(tables: &Tables) -> LoadedTables {
    let word = |(policy, word): (&u32, &u64)| {
        (*policy, LoadedActive { view: active_view(*word), generation: active_generation(*word) })
    };
    let prefix4 = |(key, class): (&Trie<_>, &u32)| prefix4(key).map(|(set, net)| (set, net, *class));
    let prefix6 = |(key, class): (&Trie<_>, &u32)| prefix6(key).map(|(set, net)| (set, net, *class));
    LoadedTables {
        ports: tables.ports.iter().map(|(slot, port)| (*slot, self::port(port))).collect(),
        macs: tables.macs.iter().map(|key| (key.slot, Mac(key.mac))).collect(),
        pairs: tables.pairs.iter().filter_map(pair).collect(),
        active: tables.active.iter().map(word).collect(),
        views: tables.views.iter().map(|(number, view)| (*number, self::view(view))).collect(),
        protocols: tables.protocols.iter().map(|(index, entry)| (*index, (entry.whole, entry.directory))).collect(),
        pages: tables.pages.iter().map(|(number, page)| (*number, self::page(page))).collect(),
        grants: tables.grants.iter().map(|(key, rule)| (key.grants, key.remote, key.class, *rule)).collect(),
        remotes4: tables.remotes4.iter().map(|(key, class)| (key.set, ipv4(key.address), *class)).collect(),
        remotes6: tables.remotes6.iter().map(|(key, class)| (key.set, ipv6(key.address), *class)).collect(),
        prefixes4: tables.prefixes4.iter().filter_map(prefix4).collect(),
        prefixes6: tables.prefixes6.iter().filter_map(prefix6).collect(),
        ethertypes: tables.settings.ethertypes.iter().copied().filter(|ethertype| *ethertype != 0).collect(),
    }
}

fn port(port: &Port) -> LoadedPort {
    LoadedPort {
        flags: port.flags,
        policy: port.policy,
        epoch: port.epoch,
        mac: Mac(port.mac),
        ipv4: port.ipv4.iter().filter(|word| **word != 0).map(|word| ipv4(*word)).collect(),
        ipv6: port.ipv6.iter().filter(|words| **words != [0; 4]).map(|words| ipv6(*words)).collect(),
    }
}

fn view(view: &View) -> LoadedView {
    let sides = view.sides.map(|side| (side.services, side.grants, side.hosts, side.prefixes));
    LoadedView { generation: view.generation, flags: view.flags, sides }
}

fn page(page: &Page) -> BTreeMap<u8, u32> {
    (0..=u8::MAX).zip(page.0).filter(|(_, entry)| *entry != 0).collect()
}

/// IPv4 addresses are mapped: their prefixes are 96 bits longer.
fn pair(key: &Trie<PairKey>) -> Option<(u32, Mac, IpNet)> {
    let length = u8::try_from(key.bits.checked_sub(PAIR_BITS)?).ok()?;
    let address = ipv6(key.data.address);
    let net = match address.to_ipv4_mapped() {
        Some(address) if length >= 96 => Ipv4Net::new(address, length - 96).ok()?.into(),
        _ => Ipv6Net::new(address, length).ok()?.into(),
    };
    Some((key.data.slot, Mac(key.data.mac), net))
}

fn prefix4(key: &Trie<netdiag_common::abi::policy::RemoteKey4>) -> Option<(u32, Ipv4Net)> {
    let length = u8::try_from(key.bits.checked_sub(SET_BITS)?).ok()?;
    Some((key.data.set, Ipv4Net::new(ipv4(key.data.address), length).ok()?))
}

fn prefix6(key: &Trie<netdiag_common::abi::policy::RemoteKey6>) -> Option<(u32, Ipv6Net)> {
    let length = u8::try_from(key.bits.checked_sub(SET_BITS)?).ok()?;
    Some((key.data.set, Ipv6Net::new(ipv6(key.data.address), length).ok()?))
}
