//! Policies and the ports they are enforced at: small enough that rules overlap and addresses meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netdiag_model::{
    id::Mac,
    policy::types::{
        AddressGroup, AddressGroupId, AddressPair, Attached, Binding, Direction, Ethertype, GroupId, Hook, Mode,
        Policy, Port, PortId, Remote, Rule, RuleId, SecurityGroup, Service,
    },
};

use super::{World, dice::Dice};

/// Ports that rules and conversations ask for.
pub(super) const PORTS: [u16; 16] = [1, 22, 53, 67, 68, 80, 255, 256, 443, 546, 547, 1000, 1500, 8000, 8080, 65535];
const WITH_PORTS: [u8; 8] = [6, 6, 6, 17, 17, 33, 132, 136];
const PROTOCOLS: [u8; 12] = [6, 6, 17, 17, 132, 33, 136, 0, 47, 50, 58, 112];
const ICMP_KINDS: [u8; 10] = [0, 3, 4, 8, 8, 8, 11, 13, 17, 5];
const ICMPV6_KINDS: [u8; 9] = [1, 2, 3, 128, 128, 128, 129, 134, 143];
const LENGTHS_V4: [u8; 10] = [1, 8, 16, 22, 24, 25, 28, 30, 31, 32];
const LENGTHS_V6: [u8; 9] = [1, 16, 48, 62, 64, 96, 120, 127, 128];

/// A policy and some ports.
pub(super) fn random(dice: &mut Dice) -> World {
    let mut policy = Policy::default();
    address_groups(dice, &mut policy);
    groups(dice, &mut policy);
    let local = 1 + dice.below(3);
    for number in 0..local + dice.below(4) {
        let port = port(dice, &policy, number, number < local);
        policy.ports.insert(port.id.clone(), port);
    }
    for id in policy.groups.keys().cloned().collect::<Vec<_>>() {
        let members = (0..dice.below(5)).map(|_| any_network(dice)).collect::<BTreeSet<_>>();
        policy.members.insert(id, members);
    }
    let ethertypes = (0..dice.below(3)).map(|_| dice.pick(&[0x88cc, 0x8847, 0x88e5, 0x0842, 0x0600]));
    policy.permitted_ethertypes = ethertypes.collect();
    let ports = policy.ports.values().filter(|port| port.binding.port_id).enumerate();
    let ports = ports.map(|(place, port)| attach(place, port, dice.chance(8))).collect();
    complete(policy, ports)
}

fn complete(policy: Policy, ports: Vec<Attached>) -> World {
    let found = BTreeMap::new();
    let members = policy.groups.keys().map(|id| (id.clone(), policy.members_of(id, &found))).collect();
    World { policy, ports, members }
}

/// The same world with one thing changed: a rule, a member, or an address group.
pub(super) fn change(dice: &mut Dice, world: &World) -> World {
    let mut policy = world.policy.clone();
    let ids: Vec<_> = policy.groups.keys().cloned().collect();
    let Some(id) = dice.choose(&ids).cloned() else { return world.clone() };
    let what = dice.below(100);
    if what < 30 {
        add_rule(dice, &mut policy, &id);
    } else if what < 60 {
        remove_rule(dice, &mut policy, &id);
    } else if what < 85 {
        change_member(dice, policy.members.entry(id).or_default());
    } else if let Some(group) = policy.address_groups.values_mut().next() {
        change_member(dice, &mut group.addresses);
    }
    let mut world = complete(policy, world.ports.clone());
    if dice.chance(5)
        && let Some(port) = world.ports.first_mut().filter(|port| port.mode != Mode::Trusted)
    {
        port.mode = if port.mode == Mode::Closed { Mode::Filtered } else { Mode::Closed };
    }
    world
}

fn add_rule(dice: &mut Dice, policy: &mut Policy, id: &GroupId) {
    let number = dice.u16();
    let rule = rule(dice, policy, id, format!("{id}/later/{number}"));
    if let Some(group) = policy.groups.get_mut(id)
        && group.rules.iter().all(|old| old.id != rule.id)
    {
        group.rules.push(rule);
    }
}

fn remove_rule(dice: &mut Dice, policy: &mut Policy, id: &GroupId) {
    if let Some(group) = policy.groups.get_mut(id)
        && !group.rules.is_empty()
    {
        group.rules.remove(dice.below(group.rules.len()));
    }
}

fn change_member(dice: &mut Dice, members: &mut BTreeSet<IpNet>) {
    let one = members.iter().nth(dice.below(members.len())).copied();
    match one.filter(|_| dice.chance(60)) {
        Some(member) => members.remove(&member),
        None => members.insert(any_network(dice)),
    };
}

fn address_groups(dice: &mut Dice, policy: &mut Policy) {
    for number in 0..dice.below(3) {
        let id = AddressGroupId(format!("a{number}"));
        let addresses = (0..dice.below(6)).map(|_| any_network(dice)).collect();
        policy.address_groups.insert(id.clone(), AddressGroup { id, name: String::new(), addresses });
    }
}

fn groups(dice: &mut Dice, policy: &mut Policy) {
    let ids: Vec<_> = (0..=dice.below(6)).map(|number| GroupId(format!("g{number}"))).collect();
    for id in &ids {
        let stateful = !dice.chance(12);
        let group = SecurityGroup { id: id.clone(), name: String::new(), stateful, rules: Vec::new() };
        policy.groups.insert(id.clone(), group);
    }
    for id in &ids {
        let mut rules: Vec<_> =
            (0..dice.below(12)).map(|number| rule(dice, policy, id, format!("{id}/{number}"))).collect();
        for (family, name) in [(Ethertype::IPv4, "any4"), (Ethertype::IPv6, "any6")] {
            if dice.chance(45) {
                rules.push(plain_rule(format!("{id}/{name}"), Direction::Egress, family));
            }
        }
        if let Some(group) = policy.groups.get_mut(id) {
            group.rules = rules;
        }
    }
}

/// Everything of one family to everybody.
fn plain_rule(id: String, direction: Direction, ethertype: Ethertype) -> Rule {
    let (service, remote) = (Service::Any, Remote::Any);
    Rule { id: RuleId(id), direction, ethertype, service, remote, description: String::new() }
}

fn rule(dice: &mut Dice, policy: &Policy, group: &GroupId, id: String) -> Rule {
    let direction = if dice.chance(60) { Direction::Ingress } else { Direction::Egress };
    let ethertype = if dice.chance(60) { Ethertype::IPv4 } else { Ethertype::IPv6 };
    let service = service(dice, ethertype);
    let remote = remote(dice, policy, group, ethertype);
    Rule { service, remote, ..plain_rule(id, direction, ethertype) }
}

fn service(dice: &mut Dice, family: Ethertype) -> Service {
    let what = dice.below(100);
    let icmp = if family == Ethertype::IPv4 { 1 } else { 58 };
    if what < 12 {
        Service::Any
    } else if what < 30 {
        Service::Protocol(if dice.chance(30) { icmp } else { dice.pick(&PROTOCOLS) })
    } else if what < 75 {
        let (one, other) = (dice.pick(&PORTS), dice.pick(&PORTS));
        let other = if dice.chance(50) { one } else { other };
        Service::Ports { protocol: dice.pick(&WITH_PORTS), first: one.min(other), last: one.max(other) }
    } else {
        let kind = if family == Ethertype::IPv4 { dice.pick(&ICMP_KINDS) } else { dice.pick(&ICMPV6_KINDS) };
        let code = dice.pick(&[None, None, Some(0), Some(1)]);
        Service::Icmp { protocol: icmp, kind, code }
    }
}

fn remote(dice: &mut Dice, policy: &Policy, group: &GroupId, family: Ethertype) -> Remote {
    let what = dice.below(100);
    let groups: Vec<_> = policy.groups.keys().collect();
    let lists: Vec<_> = policy.address_groups.keys().collect();
    if what < 40 {
        Remote::Any
    } else if what < 65 {
        Remote::Prefix(network(dice, family))
    } else if what < 85 || lists.is_empty() {
        Remote::Group(dice.choose(&groups).map_or_else(|| group.clone(), |id| (*id).clone()))
    } else {
        dice.choose(&lists).map_or(Remote::Any, |id| Remote::AddressGroup((*id).clone()))
    }
}

fn port(dice: &mut Dice, policy: &Policy, number: usize, local: bool) -> Port {
    let fixed = (0..=dice.below(2)).map(|_| host(dice, Ethertype::IPv4));
    let mut fixed_ips: BTreeSet<IpAddr> = fixed.collect();
    fixed_ips.extend((0..dice.below(3)).map(|_| host(dice, Ethertype::IPv6)));
    if dice.chance(10) {
        fixed_ips.extend((0..6).map(|_| host(dice, Ethertype::IPv4)));
        fixed_ips.extend((0..5).map(|_| host(dice, Ethertype::IPv6)));
    }
    if dice.chance(5) {
        fixed_ips.clear();
    }
    Port {
        id: PortId(format!("p{number}")),
        name: String::new(),
        binding: Binding { port_id: local, ..Binding::default() },
        mac: Some(mac(number)),
        fixed_ips: Some(fixed_ips),
        allowed_address_pairs: (0..dice.below(4)).map(|_| pair(dice)).collect(),
        groups: groups_of_port(dice, policy),
        filtered: !dice.chance(5),
        log_allowed: dice.chance(20),
    }
}

/// Groups of one kind: Neutron lets no port have stateful and stateless ones.
fn groups_of_port(dice: &mut Dice, policy: &Policy) -> Vec<GroupId> {
    let groups: Vec<_> = policy.groups.values().collect();
    let Some(first) = dice.choose(&groups).filter(|_| !dice.chance(5)) else { return Vec::new() };
    let alike = groups.iter().filter(|group| group.stateful == first.stateful);
    alike.filter(|group| group.id == first.id || dice.chance(50)).map(|group| group.id.clone()).collect()
}

fn pair(dice: &mut Dice) -> AddressPair {
    let family = dice.pick(&[Ethertype::IPv4, Ethertype::IPv6]);
    let mac = dice.chance(40).then(|| mac(dice.below(8)));
    let single = IpNet::from(host(dice, family));
    let address = match dice.below(100) {
        0..70 => single,
        70..97 => network(dice, family),
        _ => IpNet::new(single.addr(), 0).unwrap_or(single).trunc(),
    };
    AddressPair { mac, address }
}

fn attach(place: usize, port: &Port, closed: bool) -> Attached {
    let own = port.mac.unwrap_or(Mac([2, 0, 0, 0, 0, 0]));
    let pairs = port.allowed_address_pairs.iter().map(|pair| (pair.mac.unwrap_or(own), pair.address)).collect();
    let mode = match (port.filtered, closed) {
        (false, _) => Mode::Trusted,
        (true, true) => Mode::Closed,
        (true, false) => Mode::Filtered,
    };
    Attached {
        id: port.id.clone(),
        hook: Hook::default(),
        ifindex: 1 + u32::try_from(place).unwrap_or(0),
        mac: own,
        fixed_ips: port.fixed_ips.clone().unwrap_or_default(),
        pairs,
        groups: port.groups.clone(),
        mode,
        log_allowed: port.log_allowed,
    }
}

/// MAC addresses of ports and of address pairs, which meet now and then.
pub(super) fn mac(number: usize) -> Mac {
    Mac([0xfa, 0x16, 0x3e, 0, 0, u8::try_from(number).unwrap_or(0xff)])
}

/// An address of the few networks everything happens in.
pub(super) fn host(dice: &mut Dice, family: Ethertype) -> IpAddr {
    let (net, host) = (dice.below(4), 1 + dice.u8() % 24);
    match family {
        Ethertype::IPv4 => {
            let [a, b, c] = [[10, 0, 0], [10, 0, 1], [10, 0, 2], [192, 0, 2]][net];
            Ipv4Addr::new(a, b, c, host).into()
        }
        Ethertype::IPv6 => {
            let [a, b, d] = [[0xfd00, 0, 0], [0xfd00, 0, 1], [0x2001, 0xdb8, 0], [0x2001, 0xdb8, 1]][net];
            Ipv6Addr::new(a, b, 0, d, 0, 0, 0, host.into()).into()
        }
    }
}

/// A prefix around such an address.
fn network(dice: &mut Dice, family: Ethertype) -> IpNet {
    let address = host(dice, family);
    let length = if family == Ethertype::IPv4 { dice.pick(&LENGTHS_V4) } else { dice.pick(&LENGTHS_V6) };
    IpNet::new(address, length).unwrap_or_else(|_| address.into()).trunc()
}

fn any_network(dice: &mut Dice) -> IpNet {
    let family = dice.pick(&[Ethertype::IPv4, Ethertype::IPv6]);
    if dice.chance(60) { host(dice, family).into() } else { network(dice, family) }
}

/// An address within a prefix, near its beginning where it is wide.
pub(super) fn host_within(dice: &mut Dice, network: IpNet) -> IpAddr {
    let random = dice.u8() % 24;
    match network {
        IpNet::V4(network) => {
            let low = u32::from(random) & !u32::from(network.netmask());
            Ipv4Addr::from(u32::from(network.network()) | low).into()
        }
        IpNet::V6(network) => {
            let low = u128::from(random) & !u128::from(network.netmask());
            Ipv6Addr::from(u128::from(network.network()) | low).into()
        }
    }
}
