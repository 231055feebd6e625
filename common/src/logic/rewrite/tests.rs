//! Checks every checksum by computing it anew.

use super::{Change, End, FRONT, Memory, is_partial, translate, updated};

/// Room for every packet here.
const ROOM: usize = 128;

const FIXED: [u8; 4] = [10, 0, 0, 2];
const FLOATING: [u8; 4] = [172, 24, 4, 6];
const REMOTE: [u8; 4] = [198, 51, 100, 9];

/// A packet with room behind it.
struct Packet {
    bytes: [u8; ROOM],
    length: usize,
}

impl Packet {
    fn memory(&mut self) -> Memory<'_> {
        Memory(&mut self.bytes[..self.length])
    }
}

/// The sum of big-endian half-words, folded.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for half in bytes.chunks(2) {
        sum += u32::from(half[0]) << 8 | u32::from(*half.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn put(bytes: &mut [u8], at: usize, half: u16) {
    bytes[at..at + 2].copy_from_slice(&half.to_be_bytes());
}

/// Finishes the checksums of an IPv4 packet, transport first.
fn finish(ip: &mut [u8]) {
    let header = usize::from(ip[0] & 0xf) * 4;
    let (protocol, length) = (ip[9], (ip.len() - header) as u32);
    let pseudo = u32::from(sum(&ip[12..20], 0)) + u32::from(protocol) + length;
    let transport = match protocol {
        6 => Some((16, pseudo)),
        17 => Some((6, pseudo)),
        1 => Some((2, 0)),
        _ => None,
    };
    if let Some((place, start)) = transport {
        put(ip, header + place, 0);
        let checksum = !sum(&ip[header..], start);
        put(ip, header + place, checksum);
    }
    put(ip, 10, 0);
    let checksum = !sum(&ip[..header], 0);
    put(ip, 10, checksum);
}

/// An IPv4 packet with finished checksums, and its length.
fn ip(ends: [[u8; 4]; 2], protocol: u8, payload: &[u8]) -> ([u8; ROOM], usize) {
    let mut bytes = [0; ROOM];
    let length = 20 + payload.len();
    bytes[0] = 0x45;
    put(&mut bytes, 2, length as u16);
    bytes[8] = 64;
    bytes[9] = protocol;
    bytes[12..16].copy_from_slice(&ends[0]);
    bytes[16..20].copy_from_slice(&ends[1]);
    bytes[20..length].copy_from_slice(payload);
    finish(&mut bytes[..length]);
    (bytes, length)
}

fn frame((packet, length): ([u8; ROOM], usize)) -> Packet {
    let mut bytes = [0; ROOM];
    bytes[12] = 0x08;
    bytes[14..14 + length].copy_from_slice(&packet[..length]);
    Packet { bytes, length: 14 + length }
}

fn change(end: End, from: [u8; 4], to: [u8; 4]) -> Change {
    Change { end, from: u32::from_ne_bytes(from), to: u32::from_ne_bytes(to), macs: [0x0202; 6], hops: 1 }
}

/// The packet as it should come out: built with the other address and one less to live.
fn expected(ends: [[u8; 4]; 2], protocol: u8, payload: &[u8]) -> Packet {
    let (mut packet, length) = ip(ends, protocol, payload);
    packet[8] = 63;
    finish(&mut packet[..length]);
    let mut frame = frame((packet, length));
    frame.bytes[..12].fill(2);
    frame
}

#[test]
fn what_leaves_and_what_comes_has_the_other_address_and_right_checksums() {
    let tcp = [0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0, 9, 8, 7];
    let udp = [0x12, 0x34, 0, 53, 0, 13, 0, 0, 1, 2, 3, 4, 5];
    let echo = [8, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3, 4];
    for (protocol, payload) in [(6, &tcp[..]), (17, &udp[..]), (1, &echo[..]), (132, &tcp[..]), (47, &udp[..])] {
        let mut out = frame(ip([FIXED, REMOTE], protocol, payload));
        assert!(translate(&mut out.memory(), &change(End::Source, FIXED, FLOATING)));
        assert_eq!(out.bytes, expected([FLOATING, REMOTE], protocol, payload).bytes, "out {protocol}");
        let mut inward = frame(ip([REMOTE, FLOATING], protocol, payload));
        assert!(translate(&mut inward.memory(), &change(End::Destination, FLOATING, FIXED)));
        assert_eq!(inward.bytes, expected([REMOTE, FIXED], protocol, payload).bytes, "in {protocol}");
    }
}

#[test]
fn a_udp_packet_without_a_checksum_stays_without() {
    let udp = [0x12, 0x34, 0, 53, 0, 13, 0, 0, 1, 2, 3, 4, 5];
    let mut packet = frame(ip([FIXED, REMOTE], 17, &udp));
    packet.bytes[40..42].fill(0);
    assert!(translate(&mut packet.memory(), &change(End::Source, FIXED, FLOATING)));
    assert_eq!(&packet.bytes[40..42], [0, 0]);
}

#[test]
fn an_icmp_error_quotes_the_address_that_its_reader_knows_with_right_checksums() {
    let tcp = [0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0, 9, 8];
    let udp = [0x12, 0x34, 0, 53, 0, 13, 0, 0, 1, 2, 3, 4, 5];
    let error = |quoted: ([u8; ROOM], usize)| {
        let mut payload = [0; ROOM];
        payload[0] = 3;
        payload[1] = 4;
        payload[8..8 + quoted.1].copy_from_slice(&quoted.0[..quoted.1]);
        (payload, 8 + quoted.1)
    };
    for (protocol, payload) in [(6, &tcp[..]), (17, &udp[..]), (47, &udp[..])] {
        // From a router outside, about what the instance sent.
        let (before, length) = error(ip([FLOATING, REMOTE], protocol, payload));
        let (after, _) = error(ip([FIXED, REMOTE], protocol, payload));
        let mut packet = frame(ip([[192, 0, 2, 1], FLOATING], 1, &before[..length]));
        assert!(translate(&mut packet.memory(), &change(End::Destination, FLOATING, FIXED)));
        assert_eq!(packet.bytes, expected([[192, 0, 2, 1], FIXED], 1, &after[..length]).bytes, "in {protocol}");
        // From the instance, about what it was sent.
        let (before, length) = error(ip([REMOTE, FIXED], protocol, payload));
        let (after, _) = error(ip([REMOTE, FLOATING], protocol, payload));
        let mut packet = frame(ip([FIXED, REMOTE], 1, &before[..length]));
        assert!(translate(&mut packet.memory(), &change(End::Source, FIXED, FLOATING)));
        assert_eq!(packet.bytes, expected([FLOATING, REMOTE], 1, &after[..length]).bytes, "out {protocol}");
    }
}

#[test]
fn a_later_fragment_changes_in_its_ip_header_alone() {
    let payload = [0xaa; 24];
    let (mut packet, length) = ip([FIXED, REMOTE], 47, &payload);
    packet[9] = 6;
    put(&mut packet, 6, 0x00b9);
    put(&mut packet, 10, 0);
    let checksum = !sum(&packet[..20], 0);
    put(&mut packet, 10, checksum);
    let mut frame = frame((packet, length));
    assert!(translate(&mut frame.memory(), &change(End::Source, FIXED, FLOATING)));
    assert_eq!(frame.bytes[FRONT..14 + length], payload);
    assert_eq!(sum(&frame.bytes[14..FRONT], 0), 0xffff);
}

#[test]
fn a_checksum_left_to_the_hardware_is_told_from_a_finished_one() {
    let udp = [0x12, 0x34, 0, 53, 0, 13, 0, 0, 1, 2, 3, 4, 5];
    let (mut packet, length) = ip([FIXED, REMOTE], 17, &udp);
    assert!(!is_partial(&frame((packet, length)).memory()));
    let pseudo = sum(&packet[12..20], 17 + udp.len() as u32);
    put(&mut packet, 26, pseudo);
    assert!(is_partial(&frame((packet, length)).memory()));
}

#[test]
fn updating_is_the_same_as_computing_anew() {
    for (checksum, from, to) in [(0x1234, 0, 0xffff), (0xffff, 1, 2), (0, 0xfffe, 1), (0xabcd, 0x8000, 0x7fff)] {
        // ~(~checksum - from + to), as whole numbers modulo 65,535.
        let wide = (65_535 * 2 + (65_535 - u32::from(checksum)) - u32::from(from) + u32::from(to)) % 65_535;
        assert_eq!(u32::from(!updated(checksum, from, to)) % 65_535, wide);
    }
}
