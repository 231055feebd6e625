//! ARP, DHCP, neighbour discovery, and what is not IP at all: as it should be, and as it should not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netdiag_model::{
    id::Mac,
    policy::types::{Attached, Direction, Ethertype},
};

use super::{
    World,
    bytes::{self, Ip},
    dice::Dice,
    talk, world,
};

/// What is written into an Ethernet frame: who sends it, the ethertype, and what follows.
pub(super) struct Content {
    pub(super) mac: Mac,
    pub(super) ethertype: u16,
    pub(super) payload: Vec<u8>,
}

impl Content {
    pub(super) fn ip(mac: Mac, ip: &Ip, payload: &[u8]) -> Self {
        Self { mac, ethertype: ip.ethertype(), payload: ip.packet(payload) }
    }
}

/// Something of the kind that never belongs to a flow.
pub(super) fn random(dice: &mut Dice, world: &World, port: &Attached, direction: Direction) -> Content {
    match dice.below(100) {
        0..20 => arp(dice, port),
        20..25 => Content { mac: some_mac(dice, port), ethertype: 0x8035, payload: vec![0; 28] },
        25..50 => dhcp(dice, port, direction),
        50..85 => neighbours(dice, port, direction),
        _ => other(dice, world, port),
    }
}

/// Mostly one the port may use.
fn some_mac(dice: &mut Dice, port: &Attached) -> Mac {
    if dice.chance(75) { port.mac } else { world::mac(dice.below(8)) }
}

fn arp(dice: &mut Dice, port: &Attached) -> Content {
    let (mac, address) = talk::sender(dice, port, Ethertype::IPv4);
    let address = match dice.below(100) {
        0..80 => address,
        80..85 => Ipv4Addr::UNSPECIFIED.into(),
        _ => world::host(dice, Ethertype::IPv4),
    };
    let claimed = if dice.chance(90) { mac } else { some_mac(dice, port) };
    let operation = dice.pick(&[1, 2]);
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, operation];
    payload.extend(claimed.0);
    payload.extend(octets(address));
    payload.extend([0; 6]);
    payload.extend(octets(world::host(dice, Ethertype::IPv4)));
    if dice.chance(5) {
        let place = dice.below(6);
        payload[place] ^= 1 + dice.u8() % 7;
    }
    Content { mac, ethertype: 0x0806, payload }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn dhcp(dice: &mut Dice, port: &Attached, direction: Direction) -> Content {
    let ipv6 = dice.chance(40);
    let (client, server) = if ipv6 { (546, 547) } else { (68, 67) };
    let asks = dice.chance(80) == (direction == Direction::Egress);
    let (from, to) = if asks { (client, server) } else { (server, client) };
    let family = if ipv6 { Ethertype::IPv6 } else { Ethertype::IPv4 };
    let (mac, local) = talk::sender(dice, port, family);
    let stranger = world::host(dice, family);
    let (source, destination) = match (direction, ipv6) {
        (Direction::Egress, false) => {
            let source = dice.pick(&[Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into(), local, stranger]);
            (source, dice.pick(&[Ipv4Addr::BROADCAST.into(), stranger]))
        }
        (Direction::Egress, true) => {
            let source = dice.pick(&[talk::link_local(mac), local, stranger, Ipv6Addr::UNSPECIFIED.into()]);
            (source, group_address(0xff02, 0x0001_0002))
        }
        (Direction::Ingress, false) => (stranger, dice.pick(&[Ipv4Addr::BROADCAST.into(), local, stranger])),
        (Direction::Ingress, true) => {
            let nobody = Ipv6Addr::UNSPECIFIED.into();
            (stranger, dice.pick(&[talk::link_local(mac), talk::link_local(mac), local, local, stranger, nobody]))
        }
    };
    let mut ip = Ip::new(source, destination, 17);
    ip.fragment = dice.chance(4).then_some((0, true));
    let mac = if dice.chance(90) { mac } else { some_mac(dice, port) };
    Content::ip(mac, &ip, &bytes::udp(from, to, 16))
}

fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(_) => address,
    }
}

fn group_address(first: u16, last: u32) -> IpAddr {
    let [a, b, c, d] = last.to_be_bytes();
    Ipv6Addr::new(first, 0, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])).into()
}

fn neighbours(dice: &mut Dice, port: &Attached, direction: Direction) -> Content {
    let kind = dice.pick(&[130, 131, 132, 133, 134, 135, 135, 135, 136, 136, 136, 137, 143]);
    let (mac, local) = talk::sender(dice, port, Ethertype::IPv6);
    let stranger = world::host(dice, Ethertype::IPv6);
    let source = match direction {
        Direction::Egress if dice.chance(30) => Ipv6Addr::UNSPECIFIED.into(),
        Direction::Egress => dice.pick(&[local, local, local, talk::link_local(mac), stranger]),
        Direction::Ingress => stranger,
    };
    let (_, own) = talk::sender(dice, port, Ethertype::IPv4);
    let groups = [group_address(0xff02, 0x16), group_address(0xff05, 0x16), local, stranger];
    let destination = if dice.chance(60) { groups[0] } else { dice.pick(&groups) };
    // An IPv4 address of the port as IPv6 maps it is none it may speak of, nor are the zeros that stand for no address.
    let odd = dice.pick(&[mapped(own), Ipv6Addr::UNSPECIFIED.into(), stranger]);
    let target = dice.pick(&[local, local, talk::link_local(mac), odd]);
    let mut body = octets(target);
    if dice.chance(8) {
        body.truncate(dice.below(16));
    }
    let mac = if dice.chance(92) { mac } else { some_mac(dice, port) };
    let mut ip = Ip::new(source, destination, 58);
    ip.fragment = dice.chance(3).then_some((0, true));
    Content::ip(mac, &ip, &bytes::icmp(kind, 0, 0, &body))
}

fn other(dice: &mut Dice, world: &World, port: &Attached) -> Content {
    let permitted: Vec<_> = world.policy.permitted_ethertypes.iter().copied().collect();
    let ethertype = match dice.choose(&permitted) {
        Some(permitted) if dice.chance(60) => *permitted,
        _ => dice.pick(&[0x8100, 0x88a8, 0x9100, 0x05ff, 0x0600, 0x0100, 0x88cc, 0x8847]),
    };
    Content { mac: some_mac(dice, port), ethertype, payload: vec![0x45; 46] }
}
