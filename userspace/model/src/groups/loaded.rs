//! What is loaded, as the tables the datapath's own logic looks things up in. Flow: explain.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netdiag_common::{
    abi::policy::{
        GrantKey, INLINE_IPV4, INLINE_IPV6, MAX_ETHERTYPES, MacKey, PairKey, Port, Protocol, RemoteKey4, RemoteKey6,
        Side, View, active,
    },
    logic::{
        classify::{self, Question, in_force},
        packet::mapped,
        tables::PolicyTables,
    },
};

use crate::fact::enforcement::{
    LoadedTables,
    tables::{LoadedPort, LoadedView},
};

/// Tables a look at the host brought home.
#[derive(Debug, Default)]
pub(super) struct Tables {
    ports: BTreeMap<u32, Port>,
    macs: BTreeSet<MacKey>,
    pairs: BTreeMap<(u32, [u8; 6]), Vec<IpNet>>,
    active: BTreeMap<u32, u64>,
    views: BTreeMap<u32, View>,
    protocols: BTreeMap<u32, Protocol>,
    pages: BTreeMap<u32, BTreeMap<u8, u32>>,
    grants: BTreeMap<GrantKey, u32>,
    remotes4: BTreeMap<RemoteKey4, u32>,
    remotes6: BTreeMap<RemoteKey6, u32>,
    /// Prefixes by set, with their classes.
    prefixes: BTreeMap<u32, Vec<(IpNet, u32)>>,
    ethertypes: [u16; MAX_ETHERTYPES],
}

/// Takes the tables of a snapshot apart.
pub(super) fn tables(loaded: &LoadedTables) -> Tables {
    let mut tables = Tables {
        ports: loaded.ports.iter().map(|(slot, port)| (*slot, self::port(port))).collect(),
        macs: loaded.macs.iter().map(|(slot, mac)| MacKey { slot: *slot, mac: mac.0, pad: [0; 2] }).collect(),
        active: loaded.active.iter().map(|(policy, word)| (*policy, active(word.view, word.generation))).collect(),
        views: loaded.views.iter().map(|(number, view)| (*number, self::view(view))).collect(),
        protocols: loaded
            .protocols
            .iter()
            .map(|(index, (whole, directory))| (*index, Protocol { whole: *whole, directory: *directory }))
            .collect(),
        pages: loaded.pages.clone(),
        grants: loaded
            .grants
            .iter()
            .map(|(grants, remote, class, rule)| (GrantKey { grants: *grants, remote: *remote, class: *class }, *rule))
            .collect(),
        remotes4: loaded
            .remotes4
            .iter()
            .map(|(set, address, class)| (RemoteKey4 { set: *set, address: word(*address) }, *class))
            .collect(),
        remotes6: loaded
            .remotes6
            .iter()
            .map(|(set, address, class)| (RemoteKey6 { set: *set, address: words(*address) }, *class))
            .collect(),
        ..Tables::default()
    };
    for (slot, mac, net) in &loaded.pairs {
        tables.pairs.entry((*slot, mac.0)).or_default().push(*net);
    }
    let prefixes4 = loaded.prefixes4.iter().map(|(set, net, class)| (set, IpNet::V4(*net), *class));
    let prefixes6 = loaded.prefixes6.iter().map(|(set, net, class)| (set, IpNet::V6(*net), *class));
    for (set, net, class) in prefixes4.chain(prefixes6) {
        tables.prefixes.entry(*set).or_default().push((net, class));
    }
    for (place, ethertype) in tables.ethertypes.iter_mut().zip(&loaded.ethertypes) {
        *place = *ethertype;
    }
    tables
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

/// Address words as an address; those that IPv6 maps from IPv4 as IPv4.
fn address(words: [u32; 4]) -> IpAddr {
    let octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let octets: [u8; 16] = octets.try_into().unwrap_or_default();
    Ipv6Addr::from(octets).to_canonical()
}

impl Tables {
    /// Number of the rule that lets a remote use a service at a port, 0 where none does; none where the port has no policy.
    pub(super) fn rule(&self, slot: u32, ingress: bool, remote: IpAddr, (protocol, service): (u8, u16)) -> Option<u32> {
        let policy = self.ports.get(&slot)?.policy;
        let view = in_force(self, policy)?.view;
        let (ipv6, remote) = match remote {
            IpAddr::V4(address) => (false, mapped(word(address))),
            IpAddr::V6(address) => (true, words(address)),
        };
        Some(classify::rule(self, view, &Question { policy, ingress, ipv6, protocol, service, remote }))
    }

    /// Class of the longest prefix of a set that covers an address.
    fn longest(&self, set: u32, address: [u32; 4]) -> Option<u32> {
        let address = self::address(address);
        let covering = self.prefixes.get(&set)?.iter().filter(|(net, _)| net.contains(&address));
        covering.max_by_key(|(net, _)| net.prefix_len()).map(|(_, class)| *class)
    }
}

impl PolicyTables for Tables {
    fn port(&self, slot: u32) -> Option<&Port> {
        self.ports.get(&slot)
    }

    fn mac(&self, key: &MacKey) -> bool {
        self.macs.contains(key)
    }

    fn pair(&self, key: &PairKey) -> bool {
        let nets = self.pairs.get(&(key.slot, key.mac));
        nets.is_some_and(|nets| nets.iter().any(|net| net.contains(&address(key.address))))
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
        Some(self.pages.get(&page)?.get(&entry).copied().unwrap_or(0))
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
        self.longest(key.set, mapped(key.address))
    }

    fn prefix6(&self, key: &RemoteKey6) -> Option<u32> {
        self.longest(key.set, key.address)
    }

    fn ethertypes(&self) -> Option<&[u16; MAX_ETHERTYPES]> {
        Some(&self.ethertypes)
    }
}
