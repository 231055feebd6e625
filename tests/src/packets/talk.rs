//! Conversations: who speaks with whom about what, and what is said next.

use std::net::IpAddr;

use netdiag_common::logic::flow::tcp::{ACK, FIN, RST, SYN};
use netdiag_model::{
    id::Mac,
    policy::types::{Attached, Direction, Ethertype, PortId, Remote, Rule, Service},
};

use super::{
    World,
    bytes::{self, Ip},
    dice::Dice,
    world::{self, PORTS},
};

const PSH: u8 = 0x08;

/// A life of a TCP connection: who speaks (true: who began), and with which flags.
const LIFE: [(bool, u8); 12] = [
    (true, SYN),
    (false, SYN | ACK),
    (true, ACK),
    (true, ACK | PSH),
    (false, ACK | PSH),
    (false, ACK),
    (true, ACK),
    (true, FIN | ACK),
    (false, ACK),
    (false, FIN | ACK),
    (true, ACK),
    (true, SYN),
];

/// A conversation of a port's instance with somebody.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    pub(super) port: PortId,
    pub(super) mac: Mac,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    /// Which way the first packet goes.
    pub(super) opens: Direction,
    pub(super) about: About,
    said: usize,
}

/// What a conversation is about. The ports are those at the instance and at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    Ports { protocol: u8, local: u16, remote: u16 },
    Icmp { kind: u8, code: u8, identifier: u16 },
    Plain { protocol: u8 },
}

impl Talk {
    /// A conversation that a rule of the port allows, or one that is made up.
    pub(super) fn random(dice: &mut Dice, world: &World, port: &Attached) -> Self {
        let aimed = if dice.chance(80) { aimed_rule(dice, world, port) } else { None };
        let family = aimed.map_or_else(|| dice.pick(&[Ethertype::IPv4, Ethertype::IPv6]), |rule| rule.ethertype);
        let opens = aimed.map_or_else(|| dice.pick(&[Direction::Ingress, Direction::Egress]), |rule| rule.direction);
        let (mac, local) = sender(dice, port, family);
        let remote = match aimed {
            Some(rule) => remote_of(dice, world, rule),
            None => world::host(dice, family),
        };
        let service = aimed.map_or(Service::Any, |rule| rule.service);
        let about = about(dice, service, family, opens);
        Self { port: port.id.clone(), mac, local, remote, opens, about, said: 0 }
    }

    /// The next packet in turn and which way it goes; now and then one out of turn.
    pub(super) fn next(&mut self, dice: &mut Dice, data: usize) -> (Direction, Ip, Vec<u8>) {
        let (mut first, mut flags) = LIFE[self.said % LIFE.len()];
        self.said += 1;
        if !matches!(self.about, About::Ports { protocol: 6, .. }) {
            first = self.said == 1 || dice.chance(45);
        }
        match dice.below(100) {
            0..4 => flags = dice.u8(),
            4..7 => flags = RST | dice.pick(&[0, ACK]),
            7..10 => flags = ACK,
            10..13 => first = !first,
            13..15 => self.said = 0,
            _ => {}
        }
        let direction = if first { self.opens } else { other(self.opens) };
        let (ip, payload) = self.packet(direction, flags, data);
        (direction, ip, payload)
    }

    /// A packet of the conversation.
    pub(super) fn packet(&self, direction: Direction, flags: u8, data: usize) -> (Ip, Vec<u8>) {
        let (source, destination) = self.ends(direction);
        let reply = direction != self.opens;
        let (protocol, payload) = match self.about {
            About::Ports { protocol, local, remote } => {
                let (from, to) = if direction == Direction::Egress { (local, remote) } else { (remote, local) };
                let payload = match protocol {
                    6 => bytes::tcp(from, to, flags, data),
                    17 => bytes::udp(from, to, data),
                    _ => bytes::with_ports(from, to, data),
                };
                (protocol, payload)
            }
            About::Icmp { kind, code, identifier } => {
                let kind = if reply { answer(kind, source.is_ipv6()) } else { kind };
                let protocol = if source.is_ipv6() { 58 } else { 1 };
                (protocol, bytes::icmp(kind, code, identifier, &vec![0xda; data]))
            }
            About::Plain { protocol } => (protocol, vec![0xda; data]),
        };
        (Ip::new(source, destination, protocol), payload)
    }

    /// Source and destination of what goes that way.
    pub(super) fn ends(&self, direction: Direction) -> (IpAddr, IpAddr) {
        match direction {
            Direction::Egress => (self.local, self.remote),
            Direction::Ingress => (self.remote, self.local),
        }
    }
}

pub(super) fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}

/// The type of the answer to an ICMP query.
fn answer(kind: u8, ipv6: bool) -> u8 {
    match (kind, ipv6) {
        (8, false) => 0,
        (13 | 15 | 17, false) | (128, true) => kind + 1,
        _ => kind,
    }
}

fn aimed_rule<'a>(dice: &mut Dice, world: &'a World, port: &Attached) -> Option<&'a Rule> {
    let group = world.policy.groups.get(dice.choose(&port.groups)?)?;
    dice.choose(&group.rules)
}

/// A MAC address and an IP address the port may send with, of that family if it has one.
pub(super) fn sender(dice: &mut Dice, port: &Attached, family: Ethertype) -> (Mac, IpAddr) {
    let fits = |address: &IpAddr| address.is_ipv6() == (family == Ethertype::IPv6);
    let fixed: Vec<_> = port.fixed_ips.iter().copied().filter(fits).map(|address| (port.mac, address)).collect();
    let pairs: Vec<_> = port.pairs.iter().filter(|(_, network)| fits(&network.addr())).collect();
    if family == Ethertype::IPv6 && dice.chance(15) {
        let mac = dice.choose(&pairs).filter(|_| dice.chance(30)).map_or(port.mac, |(mac, _)| *mac);
        return (mac, link_local(mac));
    }
    let pair = dice.choose(&pairs).copied().copied();
    if let Some((mac, network)) = pair.filter(|_| fixed.is_empty() || dice.chance(25)) {
        return (mac, world::host_within(dice, network));
    }
    match dice.choose(&fixed) {
        Some(pair) => *pair,
        None => (port.mac, world::host(dice, family)),
    }
}

pub(super) fn link_local(mac: Mac) -> IpAddr {
    let [first, second, third, rest @ ..] = mac.0;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..13].copy_from_slice(&[first ^ 2, second, third, 0xff, 0xfe]);
    octets[13..].copy_from_slice(&rest);
    IpAddr::from(octets)
}

fn remote_of(dice: &mut Dice, world: &World, rule: &Rule) -> IpAddr {
    let networks = match &rule.remote {
        Remote::Any => None,
        Remote::Prefix(prefix) => return world::host_within(dice, *prefix),
        Remote::Group(group) => world.members.get(group),
        Remote::AddressGroup(group) => world.policy.address_groups.get(group).map(|group| &group.addresses),
    };
    let fits = |network: &&ipnet::IpNet| network.addr().is_ipv6() == (rule.ethertype == Ethertype::IPv6);
    let networks: Vec<_> = networks.into_iter().flatten().filter(fits).collect();
    match dice.choose(&networks) {
        Some(network) => world::host_within(dice, **network),
        None => world::host(dice, rule.ethertype),
    }
}

fn about(dice: &mut Dice, service: Service, family: Ethertype, opens: Direction) -> About {
    let ipv6 = family == Ethertype::IPv6;
    match service {
        Service::Any => match dice.below(10) {
            0..4 => with_ports(dice, 6, None, opens),
            4..7 => with_ports(dice, 17, None, opens),
            7..9 => query(dice, ipv6),
            _ => About::Plain { protocol: dice.pick(&[2, 4, 41, 47, 50, 51, 59, 112, 255]) },
        },
        Service::Protocol(1) if !ipv6 => query(dice, ipv6),
        Service::Protocol(58) if ipv6 => query(dice, ipv6),
        Service::Protocol(protocol @ (6 | 17 | 33 | 132 | 136)) => with_ports(dice, protocol, None, opens),
        Service::Protocol(protocol) => About::Plain { protocol },
        Service::Ports { protocol, first, last } => {
            let edge = dice.pick(&[first, last]);
            let port = if dice.chance(50) { edge } else { dice.between(first, last) };
            with_ports(dice, protocol, Some(port), opens)
        }
        Service::Icmp { kind, code, .. } => {
            About::Icmp { kind, code: code.unwrap_or(0), identifier: dice.between(1, 3) }
        }
    }
}

fn with_ports(dice: &mut Dice, protocol: u8, asked: Option<u16>, opens: Direction) -> About {
    let asked = asked.unwrap_or_else(|| dice.pick(&PORTS));
    // Few of them, so that a conversation can begin anew with the ports of an earlier one.
    let own = 40_000 + dice.between(0, 7);
    let (local, remote) = if opens == Direction::Egress { (own, asked) } else { (asked, own) };
    About::Ports { protocol, local, remote }
}

fn query(dice: &mut Dice, ipv6: bool) -> About {
    let kind = if ipv6 { 128 } else { dice.pick(&[8, 8, 8, 13, 15, 17]) };
    About::Icmp { kind, code: 0, identifier: dice.between(1, 3) }
}
