//! What is said of a plain packet is what is said of the same packet read layer by layer.

extern crate std;
use std::{vec, vec::Vec};

use super::{
    super::{Layer, ask},
    ANSWERS_BITS, Answer4, Answer6, Answers4, Answers6, Flow, Flow4, Flow6, Packet, flow, kind_of_network, of_four,
    of_six,
};
use crate::{
    abi::live::{Clause, Config, Product},
    logic::{
        frame::{Head, Slice},
        live::{
            self, Start,
            tests::{
                ANY_PORT, ANYTHING, DATABASE, ROUTER, WEB, all, answer, at, between, config, ethernet, ipv4, ipv6,
                port, ports, request, tagged, tunnelled,
            },
        },
    },
};

/// A packet that begins at an Ethernet header or at an IP header.
struct Bytes {
    bytes: Vec<u8>,
    network: bool,
}

impl Bytes {
    const fn begin(&self) -> usize {
        if self.network { 0 } else { 14 }
    }
}

impl Packet for Bytes {
    fn kind(&self, first: impl FnOnce() -> u16) -> u32 {
        if self.network {
            kind_of_network(first())
        } else {
            u32::from_ne_bytes(*self.bytes[12..].first_chunk().unwrap())
        }
    }

    fn network(&self, length: usize) -> Option<impl Head> {
        let bytes = self.bytes.get(self.begin()..self.begin() + length)?;
        Some(Slice { bytes, tagged: false })
    }
}

/// Every shape of packet that is told apart, each with its Ethernet header.
fn shapes() -> Vec<(&'static str, Vec<u8>, bool)> {
    let mut options = request();
    options[0] = 0x46;
    options.splice(20..20, [1, 1, 1, 0]);
    let fragment = |bytes: [u8; 2]| {
        let mut packet = request();
        packet[6..8].copy_from_slice(&bytes);
        ethernet(0x0800, &packet)
    };
    let [here, there] = [[7; 16], [8; 16]];
    let six = |next, payload: &[u8]| ethernet(0x86dd, &ipv6(next, here, there, payload));
    let mut hop_by_hop = vec![6, 0, 0, 0, 0, 0, 0, 0];
    hop_by_hop.extend(ports(40_000, 443));
    let four = |packet: &[u8]| ethernet(0x0800, packet);
    let vxlan = [8, 0, 0, 0, 0, 0, 7, 0];
    vec![
        ("TCP", four(&request()), true),
        ("its answer", four(&answer()), true),
        ("UDP", four(&ipv4(17, WEB, ROUTER, &ports(40_000, 53))), true),
        ("from a tunnel's port", four(&ipv4(17, WEB, ROUTER, &ports(4789, 53))), true),
        ("of TCP to a tunnel's port", four(&ipv4(6, WEB, ROUTER, &ports(1, 4789))), true),
        ("not to be fragmented", fragment([0x40, 0]), true),
        ("TCP in IPv6", six(6, &ports(40_000, 443)), true),
        ("UDP in IPv6", six(17, &ports(40_000, 53)), true),
        ("a tunnel", tunnelled(4789, &vxlan, &four(&request())), false),
        ("an old tunnel", tunnelled(8472, &vxlan, &four(&request())), false),
        ("Geneve", tunnelled(6081, &[0, 0, 0x08, 0, 0, 0, 7, 0], &request()), false),
        ("a tunnel in IPv6", six(17, &ports(1, 8472)), false),
        ("ping", four(&ipv4(1, WEB, DATABASE, &[8, 0, 0, 0, 0, 1, 0, 1])), false),
        ("SCTP", four(&ipv4(132, WEB, DATABASE, &ports(1, 2))), false),
        ("the first fragment", fragment([0x20, 0]), false),
        ("a later fragment", fragment([0, 0xb9]), false),
        ("options", four(&options), false),
        ("extensions", six(0, &hop_by_hop), false),
        ("tagged", tagged(0x0800, &request()), false),
        ("of another ethertype", ethernet(0x86dd, &request()), false),
        ("IPv6 of another ethertype", ethernet(0x0800, &ipv6(6, here, there, &ports(1, 2))), false),
        ("ARP", ethernet(0x0806, &[0; 46]), false),
    ]
}

/// Filters of every kind, those of one clause as well as sums of several.
fn filters() -> Vec<Config> {
    let tcp = Clause { protocol: 6, protocol_mask: 0xffff, ..ANYTHING };
    let ipv6 = Clause { ethertype: 0x86dd, ethertype_mask: 0xffff, ..ANYTHING };
    let family = Clause { family: 4, family_mask: 0xffff, ..ANYTHING };
    let one_way = Clause { flags: live::CLAUSE_ONE_WAY, ..between(at(WEB, 32), ANY_PORT) };
    let but = [Product { covered: 0b01, uncovered: 0b10 }, Product { covered: 0b100, uncovered: 0 }];
    let web = between(at(WEB, 32), ANY_PORT);
    vec![
        Config::default(),
        all(&[tcp]),
        all(&[ipv6]),
        all(&[family]),
        all(&[one_way]),
        all(&[web]),
        all(&[between(at(WEB, 32), at(DATABASE, 32)), tcp]),
        all(&[between(ANY_PORT, port(443, 443))]),
        all(&[between(at([10, 0, 0, 0], 8), port(5432, 5432))]),
        config(&[web, between(ANY_PORT, port(53, 53)), between(ANY_PORT, port(443, 443))], &but),
    ]
}

/// What is said of a packet read layer by layer.
fn layered(config: &Config, packet: &Bytes) -> bool {
    let start = Start { offset: 0, network: packet.network };
    live::covers(config, &live::tests::Packet(packet.bytes.clone()), start)
}

/// The packet as a frame, and from its IP header on.
fn both(frame: &[u8]) -> [Bytes; 2] {
    [Bytes { bytes: frame.to_vec(), network: false }, Bytes { bytes: frame[14..].to_vec(), network: true }]
}

#[test]
fn only_what_has_one_layer_at_a_fixed_place_is_plain() {
    for (name, frame, plain) in shapes() {
        let frame = Bytes { bytes: frame, network: false };
        assert_eq!(flow(&frame).is_some(), plain, "{name}");
    }
}

/// What is kept of both versions of IP.
struct Answers(Answers4, Answers6);

impl Default for Answers {
    fn default() -> Self {
        Self([Answer4::default(); 1 << ANSWERS_BITS], [Answer6::default(); 1 << ANSWERS_BITS])
    }
}

fn said(Answers(four, six): &mut Answers, filter: &Config, flow: &Flow) -> bool {
    let ask = |layer: &Layer| ask(filter, layer);
    match flow {
        Flow::Four(flow) => {
            let answer = of_four(four, *flow).unwrap();
            answer.said(filter, *flow).unwrap_or_else(|| answer.say(filter, *flow, ask))
        }
        Flow::Six(flow) => {
            let answer = of_six(six, flow).unwrap();
            answer.said(filter, flow).unwrap_or_else(|| answer.say(filter, flow, ask))
        }
    }
}

fn place(flow: &Flow) -> usize {
    match flow {
        Flow::Four(flow) => flow.place(),
        Flow::Six(flow) => flow.place(),
    }
}

#[test]
fn the_same_is_said_of_a_plain_packet_as_of_its_layers_and_of_the_next_of_its_flow() {
    let mut answers = Answers::default();
    for (generation, filter) in (2..).step_by(2).zip(filters()) {
        let filter = Config { generation, ..filter };
        for (name, frame, _) in shapes() {
            for packet in both(&frame) {
                let Some(flow) = flow(&packet) else { continue };
                let expected = layered(&filter, &packet);
                assert_eq!(said(&mut answers, &filter, &flow), expected, "{name}, {generation}");
                assert_eq!(said(&mut answers, &filter, &flow), expected, "{name}, {generation}, once more");
            }
        }
    }
}

#[test]
fn a_packet_that_ends_before_its_ports_do_is_not_plain() {
    for frame in [ethernet(0x0800, &request()), ethernet(0x86dd, &ipv6(6, [7; 16], [8; 16], &ports(1, 443)))] {
        let whole = frame.len() - 4;
        for length in 14..=frame.len() {
            let packet = Bytes { bytes: frame[..length].to_vec(), network: false };
            assert_eq!(flow(&packet).is_some(), length >= whole, "{length}");
        }
    }
}

#[test]
fn every_part_of_a_flow_tells_it_from_another() {
    let of = |packet: &[u8]| flow(&Bytes { bytes: packet.to_vec(), network: true }).unwrap();
    let four =
        |protocol, from, to, ports: [u16; 2]| of(&ipv4(protocol, from, to, &super::tests::ports(ports[0], ports[1])));
    let six = |from: u8, to: u8| of(&ipv6(6, [from; 16], [to; 16], &ports(1, 2)));
    let mut half = [7; 16];
    half[15] = 9;
    let flows = [
        four(6, WEB, DATABASE, [1, 2]),
        four(17, WEB, DATABASE, [1, 2]),
        four(6, DATABASE, WEB, [1, 2]),
        four(6, WEB, ROUTER, [1, 2]),
        four(6, WEB, DATABASE, [2, 1]),
        four(6, WEB, DATABASE, [1, 3]),
        six(7, 8),
        six(8, 7),
        of(&ipv6(6, half, [8; 16], &ports(1, 2))),
        of(&ipv6(6, [7; 16], half, &ports(1, 2))),
    ];
    for (place, flow) in flows.iter().enumerate() {
        assert!(!flows[place + 1..].contains(flow), "{place}");
    }
}

#[test]
fn flows_that_are_kept_at_the_same_place_take_turns() {
    let filter = Config { generation: 2, ..all(&[between(ANY_PORT, port(22, 22))]) };
    let of =
        |from: u16, to: u16| flow(&Bytes { bytes: ipv4(6, WEB, DATABASE, &ports(from, to)), network: true }).unwrap();
    let wanted = of(1, 22);
    let other = (1..u16::MAX).map(|from| of(from, 23)).find(|flow| place(flow) == place(&wanted)).unwrap();
    let mut answers = Answers::default();
    for _ in 0..2 {
        assert!(said(&mut answers, &filter, &wanted));
        assert!(!said(&mut answers, &filter, &other));
    }
}

#[test]
fn another_generation_is_asked_again_and_what_was_never_asked_is_not_kept() {
    let mut answers = Answers::default();
    let flow = flow(&Bytes { bytes: request(), network: true }).unwrap();
    let [yes, no] = [6, 17].map(|protocol| all(&[Clause { protocol, protocol_mask: 0xffff, ..ANYTHING }]));
    assert!(said(&mut answers, &Config { generation: 2, ..yes }, &flow));
    assert!(said(&mut answers, &Config { generation: 2, ..no }, &flow), "as it was said for this generation");
    assert!(!said(&mut answers, &Config { generation: 4, ..no }, &flow));
    for flow in [Flow::Four(Flow4::default()), Flow::Six(Flow6::default())] {
        assert!(said(&mut Answers::default(), &Config { generation: 2, ..Config::default() }, &flow));
    }
}
