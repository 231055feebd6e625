//! Small policies, and what may happen to the ports they are for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use netdiag_common::{
    abi::policy::{
        CLASS_ANY, CLASS_HOSTS, CLASS_PREFIXES, CLASS_SHIFT, GrantKey, MacKey, PORT_MANAGED, PORT_MORE_PAIRS,
        PORT_TRUSTED, PairKey, RemoteKey4, RemoteKey6, active_generation, active_view, side,
    },
    logic::tables::PolicyTables,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    compile::{
        Input, Tables, lower,
        port::{mapped, words6},
    },
    id::Mac,
    policy::types::{
        AddressGroup, AddressGroupId, Attached, Direction, Ethertype, GroupId, Mode, Policy, PortId, Remote, Rule,
        RuleId, SecurityGroup, Service,
    },
};

/// All that is lowered.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) policy: Policy,
    pub(super) attached: Vec<Attached>,
    pub(super) members: BTreeMap<GroupId, BTreeSet<IpNet>>,
}

impl World {
    pub(super) fn input(&self) -> Input<'_> {
        Input { policy: &self.policy, attached: &self.attached, members: &self.members, events_per_second: 10 }
    }

    pub(super) fn lower(&self, before: &Tables) -> Tables {
        lower(&self.input(), before).unwrap()
    }
}

pub(super) fn group_id(number: usize) -> GroupId {
    GroupId(format!("group-{number}"))
}

const GROUPS: usize = 3;
/// IPv4 hosts, neighbours of the prefixes below.
pub(super) const HOSTS4: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1"];
pub(super) const HOSTS6: [&str; 3] = ["2001:db8::1", "2001:db8::2", "2001:db8:1::1"];
const NETS4: [&str; 5] = ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "10.0.1.0/24", "192.0.2.0/24"];
const NETS6: [&str; 3] = ["2001:db8::/32", "2001:db8::/48", "2001:db8::1/128"];
/// Where ranges begin and end.
pub(super) const PORTS: [u16; 6] = [1, 80, 255, 256, 600, 65_535];
const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn any_service(family: Ethertype) -> impl Strategy<Value = Service> {
    let icmp = if family == Ethertype::IPv4 { 1 } else { 58 };
    prop_oneof![
        1 => Just(Service::Any),
        1 => select(vec![6_u8, 17, icmp]).prop_map(Service::Protocol),
        4 => (select(vec![6_u8, 17]), select(&PORTS[..]), select(&PORTS[..])).prop_map(|(protocol, one, other)| {
            Service::Ports { protocol, first: one.min(other), last: one.max(other) }
        }),
        1 => (select(vec![0_u8, 8]), select(vec![None, Some(0_u8), Some(3)]))
            .prop_map(move |(kind, code)| Service::Icmp { protocol: icmp, kind, code }),
    ]
}

fn any_remote(family: Ethertype) -> impl Strategy<Value = Remote> {
    let nets: &[&str] = if family == Ethertype::IPv4 { &NETS4 } else { &NETS6 };
    prop_oneof![
        1 => Just(Remote::Any),
        2 => select(nets).prop_map(|prefix| Remote::Prefix(net(prefix))),
        4 => (0..GROUPS).prop_map(|group| Remote::Group(group_id(group))),
        1 => (0..2_usize).prop_map(|group| Remote::AddressGroup(AddressGroupId(group.to_string()))),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let family = prop_oneof![3 => Just(Ethertype::IPv4), 1 => Just(Ethertype::IPv6)];
    let direction = prop_oneof![Just(Direction::Egress), Just(Direction::Ingress)];
    (family, direction).prop_flat_map(|(ethertype, direction)| {
        (any_service(ethertype), any_remote(ethertype)).prop_map(move |(service, remote)| Rule {
            id: RuleId(String::new()),
            direction,
            ethertype,
            service,
            remote,
            description: String::new(),
        })
    })
}

fn any_group(number: usize) -> impl Strategy<Value = SecurityGroup> {
    vec(any_rule(), 0..6).prop_map(move |mut rules| {
        for (place, rule) in rules.iter_mut().enumerate() {
            rule.id = RuleId(format!("{}/{place}", group_id(number)));
        }
        SecurityGroup { id: group_id(number), name: String::new(), stateful: true, rules }
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let address_group = || vec(select([&NETS4[..], &NETS6[..]].concat()), 0..3);
    ((any_group(0), any_group(1), any_group(2)), [address_group(), address_group()]).prop_map(|(groups, lists)| {
        let (first, second, third) = groups;
        let groups = [first, second, third].into_iter().map(|group| (group.id.clone(), group)).collect();
        let address_groups = lists.into_iter().enumerate().map(|(number, list)| {
            let id = AddressGroupId(number.to_string());
            let addresses = list.into_iter().map(net).collect();
            (id.clone(), AddressGroup { id, name: String::new(), addresses })
        });
        Policy { groups, address_groups: address_groups.collect(), ..Policy::default() }
    })
}

fn any_members() -> impl Strategy<Value = BTreeMap<GroupId, BTreeSet<IpNet>>> {
    let hosts: Vec<IpNet> = HOSTS4.iter().chain(&HOSTS6).map(|host| host.parse::<IpAddr>().unwrap().into()).collect();
    let member = prop_oneof![8 => select(hosts), 1 => select(vec![net("10.0.0.0/24"), net("2001:db8::/48")])];
    vec(vec(member, 0..5), GROUPS).prop_map(|lists| {
        let sets = lists.into_iter().map(|list| list.into_iter().collect());
        (0..).map(group_id).zip(sets).collect()
    })
}

fn any_attached(number: u32) -> impl Strategy<Value = Attached> {
    let mode = prop_oneof![8 => Just(Mode::Filtered), 1 => Just(Mode::Closed), 1 => Just(Mode::Trusted)];
    let addresses = vec(select([&HOSTS4[..], &HOSTS6[..]].concat()), 0..5);
    let pair = (
        select(&MACS[..]),
        select(vec!["10.0.0.0/24", "10.0.0.1/32", "10.0.0.2/32", "2001:db8::/48", "2001:db8::1/128"]),
    );
    let groups = vec(0..GROUPS, 0..3);
    (mode, addresses, vec(pair, 0..3), groups, select(&MACS[..])).prop_map(
        move |(mode, addresses, pairs, groups, mac)| Attached {
            id: PortId(format!("port-{number}")),
            ifindex: 10 + number,
            mac,
            fixed_ips: addresses.into_iter().map(|address| address.parse().unwrap()).collect(),
            pairs: pairs.into_iter().map(|(mac, prefix)| (mac, net(prefix))).collect(),
            groups: groups.into_iter().map(group_id).collect(),
            mode,
            log_allowed: false,
        },
    )
}

pub(super) fn any_world() -> impl Strategy<Value = World> {
    let attached = (any_attached(0), any_attached(1), any_attached(2), 1..=3_usize);
    let attached = attached.prop_map(|(first, second, third, count)| {
        let mut all = vec![first, second, third];
        all.truncate(count);
        all
    });
    (any_policy(), attached, any_members()).prop_map(|(policy, attached, members)| World { policy, attached, members })
}

/// Two worlds, of which the second is the first with some of its parts changed.
pub(super) fn any_change() -> impl Strategy<Value = (World, World)> {
    (any_world(), any_world(), any::<[bool; 9]>()).prop_map(|(first, other, changed)| {
        let mut second = first.clone();
        let [group0, group1, group2, members0, members1, members2, addresses, bindings, lists] = changed;
        for (number, changed) in [group0, group1, group2].into_iter().enumerate().filter(|(_, changed)| *changed) {
            assert!(changed);
            let id = group_id(number);
            second.policy.groups.insert(id.clone(), other.policy.groups[&id].clone());
        }
        for (number, changed) in [members0, members1, members2].into_iter().enumerate().filter(|(_, changed)| *changed)
        {
            assert!(changed);
            let id = group_id(number);
            second.members.insert(id.clone(), other.members[&id].clone());
        }
        if lists {
            second.policy.address_groups = other.policy.address_groups;
        }
        if addresses {
            let bound: Vec<_> = second.attached.iter().map(|port| port.groups.clone()).collect();
            second.attached = other.attached.clone();
            second.attached.iter_mut().zip(bound).for_each(|(port, bound)| port.groups = bound);
        }
        if bindings {
            second
                .attached
                .iter_mut()
                .zip(&other.attached)
                .for_each(|(port, other)| port.groups = other.groups.clone());
        }
        (first, second)
    })
}

/// A packet as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) direction: Direction,
    pub(super) protocol: u8,
    pub(super) service: u16,
    pub(super) remote: IpAddr,
    /// Sender, where the instance sends.
    pub(super) sender: (Mac, IpAddr),
}

impl Point {
    fn family(&self) -> Ethertype {
        if self.remote.is_ipv4() { Ethertype::IPv4 } else { Ethertype::IPv6 }
    }
}

/// Points at which random policies differ.
pub(super) fn points() -> Vec<Point> {
    let services = PORTS.iter().flat_map(|port| [*port, port.saturating_add(1)]).map(|port| (6, port));
    let services = services.chain([(17, 80), (17, 300), (47, 0), (1, 0), (1, 3), (1, 0x0800), (58, 0x0803), (58, 1)]);
    let services: Vec<(u8, u16)> = services.collect();
    let parse = |host: &&str| host.parse::<IpAddr>().unwrap();
    let families = [
        (HOSTS4.iter().chain(&["10.9.9.9", "8.8.8.8"]).map(parse).collect::<Vec<_>>(), "10.0.0.1"),
        (HOSTS6.iter().chain(&["2001:db8:2::1", "2001:db9::1"]).map(parse).collect(), "2001:db8::1"),
    ];
    let mut points = Vec::new();
    for (remotes, sender) in families {
        for (place, remote) in remotes.iter().enumerate() {
            for (protocol, service) in &services {
                let sender = (MACS[0], sender.parse().unwrap());
                let point = Point {
                    direction: Direction::Ingress,
                    protocol: *protocol,
                    service: *service,
                    remote: *remote,
                    sender,
                };
                points.push(point);
                points.push(Point { direction: Direction::Egress, ..point });
                if place == 0 && *service == 80 {
                    let senders = MACS.iter().flat_map(|mac| remotes.iter().map(|address| (*mac, *address)));
                    points.extend(senders.map(|sender| Point { direction: Direction::Egress, sender, ..point }));
                }
            }
        }
    }
    points
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody looks at it.
    Unmanaged,
    /// The port is trusted.
    Trusted,
    /// The sender is none the port may use.
    Spoofed,
    /// No rule allows it.
    Refused,
    /// The rule with this number allows it.
    Allowed(u32),
}

impl Fate {
    pub(super) fn passes(self) -> bool {
        matches!(self, Self::Unmanaged | Self::Trusted | Self::Allowed(_))
    }
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => mapped(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => words6(address),
    }
}

/// Looks a packet up as `abi/policy.rs` says, at the port of a device.
pub(super) fn fate(tables: &Tables, ifindex: u32, point: &Point) -> Fate {
    let Some(slot) = tables.interfaces.get(&ifindex).copied() else { return Fate::Unmanaged };
    let port = tables.port(slot).copied().unwrap_or_default();
    if port.flags & PORT_MANAGED == 0 {
        return Fate::Unmanaged;
    }
    if port.flags & PORT_TRUSTED != 0 {
        return Fate::Trusted;
    }
    if point.direction == Direction::Egress {
        let (Mac(mac), address) = (point.sender.0, words(point.sender.1));
        let inline = port.ipv4.iter().filter(|word| **word != 0).any(|word| mapped(*word) == address)
            || port.ipv6.contains(&address);
        let more = port.flags & PORT_MORE_PAIRS != 0;
        let owns_mac = mac == port.mac || more && tables.mac(&MacKey { slot, mac, pad: [0; 2] });
        let owns_pair = mac == port.mac && inline || more && tables.pair(&PairKey { slot, mac, pad: [0; 2], address });
        if !owns_mac || !owns_pair {
            return Fate::Spoofed;
        }
    }
    by_rule(tables, port.policy, point).map_or(Fate::Refused, Fate::Allowed)
}

/// The rule that allows a packet, whoever sends it.
fn by_rule(tables: &Tables, policy: u32, point: &Point) -> Option<u32> {
    let word = tables.active(policy)?;
    let view = tables.view(active_view(word))?;
    assert_eq!(view.generation, active_generation(word), "the view in force is whole");
    let ipv6 = point.family() == Ethertype::IPv6;
    let side = view.sides[side(point.direction == Direction::Ingress, ipv6)];
    let protocol = tables.protocol(side.services * 256 + u32::from(point.protocol)).unwrap_or_default();
    let [upper, lower] = point.service.to_be_bytes();
    let leaf = tables.page(protocol.directory, upper).and_then(|leaf| tables.page(leaf, lower)).unwrap_or(0);
    let address = words(point.remote);
    let host = || {
        if ipv6 {
            return tables.remote6(&RemoteKey6 { set: side.hosts, address });
        }
        tables.remote4(&RemoteKey4 { set: side.hosts, address: address[3] })
    };
    let prefix = || {
        if ipv6 {
            return tables.prefix6(&RemoteKey6 { set: side.prefixes, address });
        }
        tables.prefix4(&RemoteKey4 { set: side.prefixes, address: address[3] })
    };
    let granted = |flag: u32, remote: Option<u32>| {
        let remote = remote?;
        let classes = [leaf, protocol.whole].into_iter().filter(|class| class & flag != 0);
        let key = |class: u32| GrantKey { grants: side.grants, remote, class: class >> CLASS_SHIFT };
        classes.map(key).find_map(|key| tables.grant(&key))
    };
    granted(CLASS_ANY, Some(0)).or_else(|| granted(CLASS_HOSTS, host())).or_else(|| granted(CLASS_PREFIXES, prefix()))
}

/// Generation of the policy of the port at a device.
pub(super) fn generation(tables: &Tables, ifindex: u32) -> Option<u32> {
    let port = tables.ports.get(tables.interfaces.get(&ifindex)?)?;
    Some(active_generation(*tables.active.get(&port.policy)?))
}

impl World {
    /// Ids of the rules that allow a packet: a walk over all of them.
    pub(super) fn allowing(&self, port: &Attached, point: &Point) -> Vec<&RuleId> {
        if port.mode != Mode::Filtered {
            return Vec::new();
        }
        let rules = port.groups.iter().flat_map(|group| &self.policy.groups[group].rules);
        let direction = |rule: &&Rule| rule.direction == point.direction && rule.ethertype == point.family();
        let rules = rules.filter(direction).filter(|rule| knows_service(rule.service, point));
        rules.filter(|rule| self.knows_remote(&rule.remote, point.remote)).map(|rule| &rule.id).collect()
    }

    fn knows_remote(&self, remote: &Remote, address: IpAddr) -> bool {
        match remote {
            Remote::Any => true,
            Remote::Prefix(prefix) => prefix.contains(&address),
            Remote::Group(group) => {
                self.members.get(group).into_iter().flatten().any(|member| member.contains(&address))
            }
            Remote::AddressGroup(id) => {
                self.policy.address_groups[id].addresses.iter().any(|prefix| prefix.contains(&address))
            }
        }
    }
}

fn knows_service(service: Service, point: &Point) -> bool {
    match service {
        Service::Any => true,
        Service::Protocol(protocol) => protocol == point.protocol,
        Service::Ports { protocol, first, last } => {
            protocol == point.protocol && (first..=last).contains(&point.service)
        }
        Service::Icmp { protocol, kind, code } => {
            let [asked, asked_code] = point.service.to_be_bytes();
            protocol == point.protocol && kind == asked && code.is_none_or(|code| code == asked_code)
        }
    }
}

/// True for a sender the port may use.
pub(super) fn may_send(port: &Attached, (mac, address): (Mac, IpAddr)) -> bool {
    mac == port.mac && port.fixed_ips.contains(&address)
        || port.pairs.iter().any(|(pair, prefix)| *pair == mac && prefix.contains(&address))
}
