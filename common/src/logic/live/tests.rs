//! Packets are written byte by byte, so that the reader under test is not also the writer.

use super::{Bytes, Start, covers};
use crate::abi::live::{CLAUSE_ONE_WAY, Clause, Config, End, Product};

pub(super) struct Packet(pub(super) Vec<u8>);

impl Bytes for Packet {
    fn half(&self, offset: u32) -> Option<u16> {
        let offset = offset as usize;
        Some(u16::from_ne_bytes([*self.0.get(offset)?, *self.0.get(offset + 1)?]))
    }
}

extern crate std;
use std::{vec, vec::Vec};

pub(super) const WEB: [u8; 4] = [10, 0, 0, 5];
pub(super) const DATABASE: [u8; 4] = [10, 0, 1, 9];
pub(super) const ROUTER: [u8; 4] = [10, 0, 0, 1];

pub(super) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(super) fn tagged(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut tag = vec![0, 7];
    tag.extend(ethertype.to_be_bytes());
    tag.extend(payload);
    ethernet(0x8100, &tag)
}

pub(super) fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

pub(super) fn ipv6(next: u8, source: [u8; 16], destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

pub(super) fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend([0; 4]);
    header
}

/// A segment of `WEB` to port 5432 of `DATABASE`.
pub(super) fn request() -> Vec<u8> {
    ipv4(6, WEB, DATABASE, &ports(40_000, 5432))
}

pub(super) fn answer() -> Vec<u8> {
    ipv4(6, DATABASE, WEB, &ports(5432, 40_000))
}

// === filters ===

/// Any port, and no port.
pub(super) const ANY_PORT: End = End { address: [0; 4], mask: [0; 4], first_port: 0, more_ports: u32::MAX };
pub(super) const ANYTHING: Clause = Clause {
    here: ANY_PORT,
    there: ANY_PORT,
    ethertype: 0,
    ethertype_mask: 0,
    protocol: 0,
    protocol_mask: 0,
    family: 0,
    family_mask: 0,
    flags: 0,
};

pub(super) fn at(address: [u8; 4], bits: u32) -> End {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    End {
        address: [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(address)],
        mask: [u32::MAX, u32::MAX, u32::MAX, mask.to_be()],
        ..ANY_PORT
    }
}

pub(super) fn port(first: u16, last: u16) -> End {
    End { first_port: first.into(), more_ports: u32::from(last - first), ..ANY_PORT }
}

pub(super) fn between(here: End, there: End) -> Clause {
    Clause { here, there, ..ANYTHING }
}

/// All of some clauses.
pub(super) fn all(clauses: &[Clause]) -> Config {
    let covered = u16::try_from((1_u32 << clauses.len()) - 1).unwrap();
    config(clauses, &[Product { covered, uncovered: 0 }])
}

pub(super) fn config(clauses: &[Clause], products: &[Product]) -> Config {
    let mut config = Config {
        clauses: u32::try_from(clauses.len()).unwrap(),
        products: u32::try_from(products.len()).unwrap(),
        ..Config::default()
    };
    config.clause[..clauses.len()].copy_from_slice(clauses);
    config.product[..products.len()].copy_from_slice(products);
    config
}

fn covers_frame(config: &Config, frame: &[u8]) -> bool {
    covers(config, &Packet(frame.to_vec()), Start { offset: 0, network: false })
}

fn covers_packet(config: &Config, packet: &[u8]) -> bool {
    covers(config, &Packet(packet.to_vec()), Start { offset: 0, network: true })
}

// === tests ===

#[test]
fn a_filter_without_products_covers_everything() {
    assert!(covers_frame(&Config::default(), &[]));
    assert!(covers_frame(&Config::default(), &ethernet(0x88cc, &[1, 2])));
}

#[test]
fn a_clause_covers_both_directions_unless_it_is_one_way() {
    let clause = between(at(WEB, 32), at(DATABASE, 32));
    let both = all(&[clause]);
    assert!(covers_packet(&both, &request()));
    assert!(covers_packet(&both, &answer()));
    let one = all(&[Clause { flags: CLAUSE_ONE_WAY, ..clause }]);
    assert!(covers_packet(&one, &request()));
    assert!(!covers_packet(&one, &answer()));
}

#[test]
fn a_prefix_covers_what_is_in_it_and_nothing_else() {
    let network = all(&[between(at([10, 0, 1, 0], 24), ANY_PORT)]);
    assert!(covers_packet(&network, &request()));
    assert!(!covers_packet(&network, &ipv4(6, WEB, [10, 0, 2, 9], &ports(1, 2))));
    let all_of_ipv4 = all(&[between(at([0; 4], 0), ANY_PORT)]);
    assert!(covers_packet(&all_of_ipv4, &request()));
    assert!(!covers_packet(&all_of_ipv4, &ipv6(6, [1; 16], [2; 16], &ports(1, 2))));
}

#[test]
fn ports_are_covered_from_the_first_to_the_last() {
    let range = all(&[between(ANY_PORT, port(5000, 5432))]);
    for (number, inside) in [(4999, false), (5000, true), (5432, true), (5433, false), (0, false), (65535, false)] {
        assert_eq!(covers_packet(&range, &ipv4(17, WEB, DATABASE, &ports(1, number))), inside, "{number}");
    }
    let last = all(&[between(ANY_PORT, port(65535, 65535))]);
    assert!(covers_packet(&last, &ipv4(6, WEB, DATABASE, &ports(1, 65535))));
}

#[test]
fn an_address_and_a_port_of_one_end_are_asked_of_the_same_end() {
    let end = End { first_port: 5432, more_ports: 0, ..at(DATABASE, 32) };
    let clause = all(&[between(end, ANY_PORT)]);
    assert!(covers_packet(&clause, &request()));
    assert!(covers_packet(&clause, &answer()));
    assert!(!covers_packet(&clause, &ipv4(6, WEB, DATABASE, &ports(5432, 40_000))));
}

#[test]
fn what_has_no_ports_is_covered_only_where_none_is_asked_for() {
    let ping = ipv4(1, WEB, DATABASE, &[8, 0, 0, 0, 0, 1, 0, 1]);
    let mut fragment = request();
    fragment[6..8].copy_from_slice(&[0x20, 0xb9]);
    let every_port = all(&[between(ANY_PORT, port(0, 65535))]);
    for packet in [&ping, &fragment] {
        assert!(!covers_packet(&every_port, packet));
        assert!(covers_packet(&all(&[between(at(WEB, 32), ANY_PORT)]), packet));
    }
}

#[test]
fn protocol_and_ethertype_are_told_apart_behind_tags_and_options() {
    let tcp = all(&[Clause { protocol: 6, protocol_mask: 0xffff, ..ANYTHING }]);
    assert!(covers_frame(&tcp, &ethernet(0x0800, &request())));
    assert!(covers_frame(&tcp, &tagged(0x0800, &request())));
    assert!(!covers_frame(&tcp, &ethernet(0x0800, &ipv4(17, WEB, DATABASE, &ports(1, 2)))));
    let mut options = request();
    options[0] = 0x46;
    options.splice(20..20, [1, 1, 1, 0]);
    assert!(covers_frame(&all(&[between(ANY_PORT, port(5432, 5432))]), &ethernet(0x0800, &options)));
    let ip = all(&[Clause { ethertype: 0x0800, ethertype_mask: 0xffff, ..ANYTHING }]);
    assert!(covers_frame(&ip, &tagged(0x0800, &request())));
    assert!(!covers_frame(&ip, &ethernet(0x0806, &[])));
}

#[test]
fn arp_is_between_who_asks_and_who_is_asked_for() {
    let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2];
    request.extend(WEB);
    request.extend([0; 6]);
    request.extend(ROUTER);
    let frame = ethernet(0x0806, &request);
    assert!(covers_frame(&all(&[between(at(WEB, 32), at(ROUTER, 32))]), &frame));
    assert!(!covers_frame(&all(&[between(at(WEB, 32), at(DATABASE, 32))]), &frame));
    assert!(!covers_frame(&all(&[Clause { protocol: 6, protocol_mask: 0xffff, ..ANYTHING }]), &frame));
}

#[test]
fn ipv6_ports_are_found_behind_extension_headers() {
    let wanted = all(&[between(ANY_PORT, port(443, 443))]);
    let mut hop_by_hop = vec![6, 0, 0, 0, 0, 0, 0, 0];
    hop_by_hop.extend(ports(40_000, 443));
    assert!(covers_packet(&wanted, &ipv6(0, [1; 16], [2; 16], &hop_by_hop)));
    let mut first = vec![6, 0, 0, 1, 0, 0, 0, 9];
    first.extend(ports(40_000, 443));
    assert!(covers_packet(&wanted, &ipv6(44, [1; 16], [2; 16], &first)));
    let mut later = first;
    later[2..4].copy_from_slice(&[0x05, 0xa0]);
    let packet = ipv6(44, [1; 16], [2; 16], &later);
    assert!(!covers_packet(&wanted, &packet));
    assert!(covers_packet(&all(&[Clause { protocol: 6, protocol_mask: 0xffff, ..ANYTHING }]), &packet));
}

#[test]
fn an_ipv6_prefix_covers_no_ipv4() {
    let six = End { address: [0; 4], mask: [0; 4], ..ANY_PORT };
    let clause = all(&[Clause { family: 6, family_mask: 0xffff, ..between(six, ANY_PORT) }]);
    assert!(covers_packet(&clause, &ipv6(6, [1; 16], [2; 16], &ports(1, 2))));
    assert!(!covers_packet(&clause, &request()));
}

/// A frame of `WEB` in a tunnel of two hosts.
pub(super) fn tunnelled(port: u16, header: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut payload = ports(50_000, port);
    payload.extend(header);
    payload.extend(inner);
    ethernet(0x0800, &ipv4(17, [192, 0, 2, 1], [192, 0, 2, 2], &payload))
}

#[test]
fn the_packet_in_a_tunnel_is_looked_at_as_well_as_the_tunnels() {
    let inner = all(&[between(at(WEB, 32), at(DATABASE, 32))]);
    let frame = ethernet(0x0800, &request());
    let vxlan = tunnelled(4789, &[8, 0, 0, 0, 0, 0, 7, 0], &frame);
    let geneve = tunnelled(6081, &[1, 0, 0x65, 0x58, 0, 0, 7, 0, 9, 9, 9, 9], &frame);
    let geneve_ip = tunnelled(6081, &[0, 0, 0x08, 0x00, 0, 0, 7, 0], &request());
    for packet in [&vxlan, &geneve, &geneve_ip] {
        assert!(covers_frame(&inner, packet));
        assert!(covers_frame(&all(&[between(at([192, 0, 2, 2], 32), ANY_PORT)]), packet));
    }
    // Something else on another port is not taken for a tunnel.
    assert!(!covers_frame(&inner, &tunnelled(4790, &[8, 0, 0, 0, 0, 0, 7, 0], &frame)));
}

#[test]
fn the_packet_an_icmp_error_quotes_is_looked_at_and_what_a_ping_carries_is_not() {
    let clause = all(&[between(at(WEB, 32), End { first_port: 5432, more_ports: 0, ..at(DATABASE, 32) })]);
    let quoting = |kind: u8| {
        let mut message = vec![kind, 1, 0, 0, 0, 0, 0, 0];
        message.extend(request());
        ipv4(1, ROUTER, WEB, &message)
    };
    assert!(covers_packet(&clause, &quoting(3)));
    assert!(covers_packet(&clause, &quoting(11)));
    assert!(!covers_packet(&clause, &quoting(0)));
    let mut error = vec![3, 0, 0, 0, 0, 0, 0, 0];
    error.extend(ipv6(6, [1; 16], [2; 16], &ports(1, 443)));
    assert!(covers_packet(&all(&[between(ANY_PORT, port(443, 443))]), &ipv6(58, [3; 16], [1; 16], &error)));
}

#[test]
fn an_icmp_error_in_a_tunnel_is_looked_through() {
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(request());
    let error = ethernet(0x0800, &ipv4(1, ROUTER, WEB, &message));
    let frame = tunnelled(4789, &[8, 0, 0, 0, 0, 0, 7, 0], &error);
    assert!(covers_frame(&all(&[between(ANY_PORT, port(5432, 5432))]), &frame));
}

#[test]
fn products_are_alternatives_and_may_want_a_clause_not_to_cover() {
    let clauses = [between(at(WEB, 32), ANY_PORT), between(ANY_PORT, port(22, 22)), between(at(ROUTER, 32), ANY_PORT)];
    let but_ssh = [Product { covered: 0b001, uncovered: 0b010 }, Product { covered: 0b100, uncovered: 0 }];
    let config = config(&clauses, &but_ssh);
    assert!(covers_packet(&config, &request()));
    assert!(!covers_packet(&config, &ipv4(6, WEB, DATABASE, &ports(1, 22))));
    assert!(covers_packet(&config, &ipv4(6, ROUTER, DATABASE, &ports(1, 22))));
    assert!(!covers_packet(&config, &ipv4(6, [10, 9, 9, 9], DATABASE, &ports(1, 2))));
}

#[test]
fn a_packet_that_ends_anywhere_is_read_as_far_as_it_goes() {
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(request());
    let error = ethernet(0x0800, &ipv4(1, ROUTER, WEB, &message));
    let frame = tunnelled(4789, &[8, 0, 0, 0, 0, 0, 7, 0], &error);
    let outer = all(&[between(at([192, 0, 2, 2], 32), ANY_PORT)]);
    let inner = all(&[between(ANY_PORT, port(5432, 5432))]);
    for length in 0..frame.len() {
        assert_eq!(covers_frame(&outer, &frame[..length]), length >= 34, "{length}");
        assert_eq!(covers_frame(&inner, &frame[..length]), length >= frame.len() - 4, "{length}");
    }
}
