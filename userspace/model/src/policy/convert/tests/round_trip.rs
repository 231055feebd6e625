//! What goes out comes in again as the same.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::{collection, option, prelude::*, sample::select};

use super::*;
use crate::{
    id::Mac,
    policy::{
        convert::to_wire,
        types::{AddressGroup, AddressGroupId, FloatingIpId, SecurityGroup},
    },
};

/// Ids and names with what YAML and JSON make most of.
const WORDS: [&str; 12] = [
    "web",
    "db",
    "true",
    "null",
    "~",
    "6",
    "a: b",
    "- x",
    "\"q\" \\ 'r'",
    "# no comment",
    "caf\u{e9} \u{1f600}",
    "5f3b1c0e-6d0a-4f57-9a53-0d5a1c2e7b11",
];

fn word() -> impl Strategy<Value = String> {
    select(&WORDS[..]).prop_map(str::to_owned)
}

fn net4() -> impl Strategy<Value = IpNet> {
    (any::<u32>(), 0..=32_u8)
        .prop_map(|(bits, length)| IpNet::V4(Ipv4Net::new(Ipv4Addr::from(bits), length).unwrap().trunc()))
}

fn net6() -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 0..=128_u8)
        .prop_map(|(bits, length)| IpNet::V6(Ipv6Net::new(Ipv6Addr::from(bits), length).unwrap().trunc()))
}

fn net() -> impl Strategy<Value = IpNet> {
    prop_oneof![net4(), net6()]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1_u32..0xe000_0000).prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        (1_u128..0xff << 120).prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 5]>().prop_map(|[a, b, c, d, e]| Mac([0xfa, a, b, c, d, e]))
}

fn service(ethertype: Ethertype) -> BoxedStrategy<Service> {
    let icmp = if ethertype == Ethertype::IPv4 { 1 } else { 58 };
    let exists = move |number: &u8| match ethertype {
        Ethertype::IPv4 => ![41, 43, 44, 58, 59, 60].contains(number),
        Ethertype::IPv6 => *number != 1,
    };
    let ports = (select(&[6_u8, 17, 33, 132, 136][..]), 1..=u16::MAX, 1..=u16::MAX);
    prop_oneof![
        Just(Service::Any),
        any::<u8>().prop_filter("not of this family", exists).prop_map(Service::Protocol),
        ports.prop_map(|(protocol, a, b)| match (a.min(b), a.max(b)) {
            (1, u16::MAX) => Service::Protocol(protocol),
            (first, last) => Service::Ports { protocol, first, last },
        }),
        (any::<u8>(), any::<Option<u8>>()).prop_map(move |(kind, code)| Service::Icmp { protocol: icmp, kind, code }),
    ]
    .boxed()
}

fn remote(ethertype: Ethertype, groups: Vec<GroupId>, address_groups: Vec<AddressGroupId>) -> BoxedStrategy<Remote> {
    let prefix = if ethertype == Ethertype::IPv4 { net4().boxed() } else { net6().boxed() };
    let mut remotes = vec![
        Just(Remote::Any).boxed(),
        prefix.prop_map(|net| if net.prefix_len() == 0 { Remote::Any } else { Remote::Prefix(net) }).boxed(),
        select(groups).prop_map(Remote::Group).boxed(),
    ];
    if !address_groups.is_empty() {
        remotes.push(select(address_groups).prop_map(Remote::AddressGroup).boxed());
    }
    proptest::strategy::Union::new(remotes).boxed()
}

fn rule(groups: Vec<GroupId>, address_groups: Vec<AddressGroupId>) -> impl Strategy<Value = Rule> {
    let family = prop_oneof![Just(Ethertype::IPv4), Just(Ethertype::IPv6)];
    let direction = prop_oneof![Just(Direction::Egress), Just(Direction::Ingress)];
    family.prop_flat_map(move |ethertype| {
        let remote = remote(ethertype, groups.clone(), address_groups.clone());
        (direction.clone(), service(ethertype), remote, word()).prop_map(
            move |(direction, service, remote, description)| Rule {
                id: RuleId(String::new()),
                direction,
                ethertype,
                service,
                remote,
                description,
            },
        )
    })
}

/// Rules no two of which allow the same.
fn distinct(group: &GroupId, rules: Vec<Rule>) -> Vec<Rule> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<Rule> = rules
        .into_iter()
        .filter(|rule| seen.insert((rule.direction, rule.ethertype, rule.service, rule.remote.clone())))
        .collect();
    for (place, rule) in kept.iter_mut().enumerate() {
        rule.id = RuleId(format!("{group} {place}"));
    }
    kept
}

fn binding() -> impl Strategy<Value = Binding> {
    let host = option::of(word());
    (0..4_u8, word(), host).prop_map(|(how, text, host)| Binding {
        device: (how == 0).then(|| text.clone()),
        instance: (how == 1).then_some(text),
        port_id: how == 2,
        host,
    })
}

fn port(groups: Vec<GroupId>) -> impl Strategy<Value = Port> {
    let addresses = option::of(collection::btree_set(address(), 0..3));
    let pair = (option::of(mac()), net()).prop_map(|(mac, address)| AddressPair { mac, address });
    let own = (option::of(mac()), addresses, collection::btree_set(pair, 0..3));
    let flags = (any::<bool>(), any::<bool>());
    let groups = collection::btree_set(select(groups), 0..3);
    (word(), binding(), own, groups, flags).prop_map(|(name, binding, own, groups, (filtered, log_allowed))| Port {
        id: PortId(String::new()),
        name,
        binding,
        mac: own.0,
        fixed_ips: own.1,
        allowed_address_pairs: own.2,
        groups: groups.into_iter().collect(),
        filtered,
        log_allowed,
    })
}

fn floating_ip(ports: Vec<PortId>) -> impl Strategy<Value = FloatingIp> {
    let address = || (0x0b00_0000_u32..0x7f00_0000).prop_map(Ipv4Addr::from);
    let port = option::of((select(ports), option::of(address())));
    let words = (option::of(word()), option::of(word()), option::of(word()));
    (address(), port, words).prop_map(|(floating_ip_address, port, (network, device, qos_policy))| FloatingIp {
        id: FloatingIpId(String::new()),
        floating_ip_address,
        fixed_ip_address: port.as_ref().and_then(|(_, fixed)| *fixed),
        port_id: port.map(|(id, _)| id),
        network,
        device,
        qos_policy,
    })
}

/// A policy with floating IPs of its ports, and of one it does not have.
fn with_floating(policy: Policy) -> impl Strategy<Value = Policy> {
    let elsewhere = PortId("on another host".to_owned());
    let ports = policy.ports.keys().cloned().chain([elsewhere]).collect();
    collection::btree_map(word(), floating_ip(ports), 0..4).prop_map(move |floating| {
        let with_id =
            |(id, one): (String, FloatingIp)| (FloatingIpId(id.clone()), FloatingIp { id: FloatingIpId(id), ..one });
        Policy { floating_ips: floating.into_iter().map(with_id).collect(), ..policy.clone() }
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let ids = (collection::btree_set(word(), 1..4), collection::btree_set(word(), 0..3));
    ids.prop_flat_map(|(groups, address_groups)| {
        let groups: Vec<GroupId> = groups.into_iter().map(GroupId).collect();
        let address_groups: Vec<AddressGroupId> = address_groups.into_iter().map(AddressGroupId).collect();
        let rules = collection::vec(rule(groups.clone(), address_groups.clone()), 0..5);
        let of_groups = collection::vec((word(), rules), groups.len());
        let of_addresses = collection::vec((word(), collection::btree_set(net(), 0..4)), address_groups.len());
        let ports = collection::btree_map(word(), port(groups.clone()), 0..4);
        let members = collection::btree_map(select(groups.clone()), collection::btree_set(net(), 1..4), 0..3);
        let settings = (any::<bool>(), collection::btree_set(select(&[0x88cc_u16, 0x8863, 0x8864][..]), 0..3));
        (of_groups, of_addresses, ports, members, (any::<bool>(), settings)).prop_map(
            move |(
                of_groups,
                of_addresses,
                ports,
                members,
                (stateful, (close_unknown_ports, permitted_ethertypes)),
            )| {
                let group = |(id, (name, rules)): (&GroupId, (String, Vec<Rule>))| {
                    let rules = distinct(id, rules);
                    (id.clone(), SecurityGroup { id: id.clone(), name, stateful, rules })
                };
                let address_group = |(id, (name, addresses)): (&AddressGroupId, (String, BTreeSet<IpNet>))| {
                    (id.clone(), AddressGroup { id: id.clone(), name, addresses })
                };
                let port = |(id, port): (String, Port)| (PortId(id.clone()), Port { id: PortId(id), ..port });
                Policy {
                    groups: groups.iter().zip(of_groups).map(group).collect(),
                    address_groups: address_groups.iter().zip(of_addresses).map(address_group).collect(),
                    ports: ports.into_iter().map(port).collect(),
                    members: BTreeMap::clone(&members),
                    floating_ips: BTreeMap::new(),
                    permitted_ethertypes,
                    close_unknown_ports,
                }
            },
        )
    })
}

proptest! {
    #[test]
    fn what_goes_out_comes_in_again_as_the_same_policy(made in policies().prop_flat_map(with_floating)) {
        let wire = to_wire(&made);
        let json = serde_json::to_string_pretty(&wire).unwrap();
        let yaml = serde_norway::to_string(&wire).unwrap();
        for text in [json, yaml] {
            let again = policy(&[document("a", &text)]);
            prop_assert_eq!(again.as_ref(), Ok(&made), "{}", text);
        }
    }
}
