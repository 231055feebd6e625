//! What is loaded, as the tables the datapath's own logic looks things up in. Flow: explain.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netdiag_common::{
    abi::policy::{
        GrantKey, INLINE_IPV4, INLINE_IPV6, MacKey, Page, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, Side, View,
        active,
    },
    logic::{
        classify::{self, Question, in_force},
        packet::mapped,
    },
};

use crate::{
    compile::{PAIR_BITS, SET_BITS, Tables, Trie},
    fact::enforcement::{
        LoadedTables,
        tables::{LoadedPort, LoadedView},
    },
};

/// The tables of a snapshot, as far as a decision reads them.
pub(crate) fn tables(loaded: &LoadedTables) -> Tables {
    let mut tables = Tables {
        ports: loaded.ports.iter().map(|(slot, port)| (*slot, self::port(port))).collect(),
        macs: loaded.macs.iter().map(|(slot, mac)| MacKey { slot: *slot, mac: mac.0, pad: [0; 2] }).collect(),
        pairs: loaded.pairs.iter().map(|(slot, mac, net)| pair(*slot, mac.0, *net)).collect(),
        active: loaded.active.iter().map(|(policy, word)| (*policy, active(word.view, word.generation))).collect(),
        views: loaded.views.iter().map(|(number, view)| (*number, self::view(view))).collect(),
        ..Tables::default()
    };
    services(loaded, &mut tables);
    remotes(loaded, &mut tables);
    for (place, ethertype) in tables.settings.ethertypes.iter_mut().zip(&loaded.ethertypes) {
        *place = *ethertype;
    }
    tables
}

/// Number of the rule that lets a remote use a service at a port, 0 where none does; none where the port has no policy.
pub(super) fn rule(
    tables: &Tables,
    slot: u32,
    ingress: bool,
    remote: IpAddr,
    (protocol, service): (u8, u16),
) -> Option<u32> {
    let policy = tables.ports.get(&slot)?.policy;
    let view = in_force(tables, policy)?.view;
    let (ipv6, remote) = match remote {
        IpAddr::V4(address) => (false, mapped(word(address))),
        IpAddr::V6(address) => (true, words(address)),
    };
    Some(classify::rule(tables, view, &Question { policy, ingress, ipv6, protocol, service, remote }))
}

/// Which services rules tell apart, and which rule allows what.
fn services(loaded: &LoadedTables, tables: &mut Tables) {
    let protocol = |(whole, directory): (u32, u32)| Protocol { whole, directory };
    tables.protocols = loaded.protocols.iter().map(|(index, entry)| (*index, protocol(*entry))).collect();
    for (number, entries) in &loaded.pages {
        let mut page = Page::default();
        for (entry, value) in entries {
            page.0[usize::from(*entry)] = *value;
        }
        tables.pages.insert(*number, page);
    }
    let key = |grants, remote, class| GrantKey { grants, remote, class };
    let grants = loaded.grants.iter();
    tables.grants = grants.map(|(grants, remote, class, rule)| (key(*grants, *remote, *class), *rule)).collect();
}

/// Which remote addresses rules tell apart.
fn remotes(loaded: &LoadedTables, tables: &mut Tables) {
    for (set, address, class) in &loaded.remotes4 {
        tables.remotes4.insert(RemoteKey4 { set: *set, address: word(*address) }, *class);
    }
    for (set, address, class) in &loaded.remotes6 {
        tables.remotes6.insert(RemoteKey6 { set: *set, address: words(*address) }, *class);
    }
    for (set, net, class) in &loaded.prefixes4 {
        let data = RemoteKey4 { set: *set, address: word(net.network()) };
        tables.prefixes4.insert(Trie { data, bits: SET_BITS + u32::from(net.prefix_len()) }, *class);
    }
    for (set, net, class) in &loaded.prefixes6 {
        let data = RemoteKey6 { set: *set, address: words(net.network()) };
        tables.prefixes6.insert(Trie { data, bits: SET_BITS + u32::from(net.prefix_len()) }, *class);
    }
}

fn port(loaded: &LoadedPort) -> Port {
    let mut ipv4 = [0; INLINE_IPV4];
    let mut ipv6 = [[0; 4]; INLINE_IPV6];
    for (place, address) in ipv4.iter_mut().zip(&loaded.ipv4) {
        *place = word(*address);
    }
    for (place, address) in ipv6.iter_mut().zip(&loaded.ipv6) {
        *place = words(*address);
    }
    let LoadedPort { flags, policy, epoch, mac, .. } = loaded;
    Port { flags: *flags, policy: *policy, epoch: *epoch, mac: mac.0, pad: [0; 2], ipv4, ipv6 }
}

fn view(loaded: &LoadedView) -> View {
    let side = |(services, grants, hosts, prefixes)| Side { services, grants, hosts, prefixes };
    View { generation: loaded.generation, flags: loaded.flags, sides: loaded.sides.map(side) }
}

/// The key of an address pair; IPv4 is mapped.
fn pair(slot: u32, mac: [u8; 6], net: IpNet) -> Trie<PairKey> {
    let (family, address, length) = match net {
        IpNet::V4(net) => (4, mapped(word(net.network())), 96 + net.prefix_len()),
        IpNet::V6(net) => (6, words(net.network()), net.prefix_len()),
    };
    Trie { data: PairKey { slot, mac, family, pad: 0, address }, bits: PAIR_BITS + u32::from(length) }
}

/// An address in network byte order.
const fn word(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// An address in network byte order.
fn words(address: Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    let (words, _) = octets.as_chunks::<4>();
    [0, 1, 2, 3].map(|place: usize| u32::from_ne_bytes(words[place]))
}
