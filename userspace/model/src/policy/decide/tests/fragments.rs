//! Datagrams in pieces.

use netdiag_common::abi::reason::Reason::{
    self, Established, Fragment, IpSpoof, NoRule, OrphanFragment, RefusedFragment, Revoked, Rule, System, TinyFragment,
};

use super::{
    super::{
        super::types::{Remote, Service},
        Judge,
    },
    bench::*,
};

/// An IPv4 frame as a fragment: offset in units of 8 bytes.
fn piece(mut frame: Vec<u8>, id: u16, offset: u16, more: bool) -> Vec<u8> {
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
    frame
}

/// What comes after an IPv6 header for a fragment of some protocol.
fn piece6((protocol, payload): (u8, Vec<u8>), id: u32, offset: u16, more: bool) -> (u8, Vec<u8>) {
    let mut bytes = vec![protocol, 0];
    bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    (44, bytes)
}

fn data(protocol: u8) -> (u8, Vec<u8>) {
    (protocol, vec![0xda; 16])
}

fn dns() -> Bench {
    Bench::new([
        rule("dns4", Ingress, V4, ports(17, 53, 53), Remote::Any),
        rule("dns6", Ingress, V6, ports(17, 53, 53), Remote::Any),
    ])
}

#[test]
fn later_fragments_share_the_fate_of_the_first() {
    dns().run(&[
        (Ingress, piece(in4(udp(9, 53)), 1, 0, true), Rule),
        (Ingress, piece(in4(data(17)), 1, 4, false), Fragment),
        (Ingress, piece(in4(data(17)), 1, 2, true), Fragment),
        (Ingress, piece(in4(udp(9, 54)), 2, 0, true), NoRule),
        (Ingress, piece(in4(data(17)), 2, 2, false), RefusedFragment),
        (Ingress, piece(in4(data(17)), 3, 2, false), OrphanFragment),
        (Ingress, in6(piece6(udp(9, 53), 70_000, 0, true)), Rule),
        (Ingress, in6(piece6(data(17), 70_000, 2, false)), Fragment),
        (Ingress, in6(piece6(data(17), 4_464, 2, false)), OrphanFragment),
    ]);
}

#[test]
fn what_makes_fragments_belong_together_is_more_than_their_number() {
    let mut bench = dns();
    assert_eq!(bench.ingress(&piece(in4(udp(9, 53)), 1, 0, true)), Rule);
    let other_source = packet(PEER, "10.0.0.8", "10.0.0.5", data(17));
    assert_eq!(bench.ingress(&piece(other_source, 1, 2, false)), OrphanFragment);
    assert_eq!(bench.ingress(&piece(in4(data(6)), 1, 3, false)), OrphanFragment);
    assert_eq!(bench.egress(&piece(out4(data(17)), 1, 2, false)), OrphanFragment);
    assert_eq!(bench.egress(&piece(packet(OWN, "10.0.0.9", "10.0.0.5", data(17)), 1, 2, false)), IpSpoof);
    assert_eq!(bench.ingress(&in6(piece6(data(17), 1, 2, false))), OrphanFragment);
    let mut elsewhere = dns();
    std::mem::swap(&mut elsewhere.judge, &mut bench.judge);
    elsewhere.port.id.0 = "q".into();
    assert_eq!(elsewhere.ingress(&piece(in4(data(17)), 1, 2, false)), OrphanFragment);
}

#[test]
fn a_first_fragment_is_remembered_for_thirty_seconds() {
    for (ticks, reason) in [(28, Fragment), (29, OrphanFragment)] {
        let mut bench = dns();
        assert_eq!(bench.ingress(&piece(in4(udp(9, 53)), 1, 0, true)), Rule);
        bench.pass_time(ticks);
        assert_eq!(bench.ingress(&piece(in4(data(17)), 1, 2, false)), reason, "{ticks}");
    }
}

#[test]
fn the_last_first_fragment_decides() {
    dns().run(&[
        (Ingress, piece(in4(udp(9, 53)), 1, 0, true), Rule),
        (Ingress, piece(in4(udp(9, 54)), 1, 0, true), NoRule),
        (Ingress, piece(in4(data(17)), 1, 2, false), RefusedFragment),
        (Ingress, piece(in4(udp(9, 53)), 1, 0, true), Established),
        (Ingress, piece(in4(data(17)), 1, 2, false), Fragment),
        (Ingress, piece(in4((17, vec![0; 4])), 1, 0, true), TinyFragment),
        (Ingress, piece(in4(data(17)), 1, 2, false), RefusedFragment),
    ]);
}

#[test]
fn fragments_that_hide_or_overwrite_ports_are_tiny() {
    let mut bench = Bench::open();
    for (protocol, needed) in [(6, 20), (17, 8), (1, 8), (132, 12)] {
        let short = in4((protocol, vec![0; needed - 1]));
        assert_eq!(bench.ingress(&piece(short, 1, 0, true)), TinyFragment, "{protocol}");
    }
    assert_eq!(bench.ingress(&in6(piece6((58, vec![128; 7]), 1, 0, true))), TinyFragment);
    for (protocol, offset, reason) in [
        (6, 1, TinyFragment),
        (6, 2, TinyFragment),
        (6, 3, OrphanFragment),
        (17, 1, OrphanFragment),
        (132, 1, OrphanFragment),
        (17, 0x1000, OrphanFragment),
        (6, 0x1fff, OrphanFragment),
    ] {
        assert_eq!(bench.ingress(&piece(in4(data(protocol)), 9, offset, false)), reason, "{protocol} at {offset}");
    }
}

#[test]
fn fragments_of_protocols_without_ports_are_like_whole_packets() {
    let mut bench = Bench::new([rule("gre", Ingress, V4, Service::Protocol(47), Remote::Any)]);
    bench.run(&[
        (Ingress, piece(in4(data(47)), 1, 5, false), Rule),
        (Ingress, piece(in4(data(47)), 1, 0, true), Established),
        (Ingress, piece(in4(data(50)), 1, 5, false), NoRule),
    ]);
}

#[test]
fn an_atomic_fragment_is_none() {
    let mut bench = dns();
    assert_eq!(bench.ingress(&in6(piece6(udp(9, 53), 1, 0, false))), Rule);
    assert_eq!(bench.ingress(&in6(piece6(data(17), 1, 2, false))), OrphanFragment);
}

#[test]
fn nothing_is_read_in_the_middle_of_a_datagram() {
    // Its next header would be a header of destination options, were it the beginning of something.
    let (_, middle) = piece6((60, vec![17, 200, 0, 0]), 1, 3, false);
    assert_eq!(Bench::open().ingress(&in6((44, middle))), Rule);
}

#[test]
fn fragments_of_system_traffic_errors_and_other_messages_pass_with_the_first() {
    let mut bench = Bench::open();
    let quoted = inner(&out4(udp(7, 8)));
    bench.run(&[
        (Ingress, piece(in4(udp(67, 68)), 1, 0, true), System),
        (Ingress, piece(in4(data(17)), 1, 2, false), Fragment),
        (Egress, out4(udp(7, 8)), Rule),
        (Ingress, piece(in4(error(1, 3, &quoted)), 2, 0, true), Reason::Related),
        (Ingress, piece(in4(data(1)), 2, 5, false), Fragment),
        (Ingress, piece(in4(icmp(5, 0, 0)), 3, 0, true), Rule),
        (Ingress, piece(in4(data(1)), 3, 5, false), Fragment),
        (Egress, piece(out4(udp(67, 68)), 4, 0, true), Reason::DhcpServer),
        (Egress, piece(out4(data(17)), 4, 2, false), RefusedFragment),
    ]);
}

#[test]
fn fragments_of_a_stateless_port_share_the_fate_of_the_first() {
    dns().stateless().run(&[
        (Ingress, piece(in4(udp(9, 53)), 1, 0, true), Rule),
        (Ingress, piece(in4(data(17)), 1, 2, false), Fragment),
        (Ingress, piece(in4(udp(9, 54)), 2, 0, true), NoRule),
        (Ingress, piece(in4(data(17)), 2, 2, false), RefusedFragment),
    ]);
}

#[test]
fn a_later_fragment_is_a_packet_of_its_flow() {
    let mut bench = dns();
    let later = piece(in4(data(17)), 1, 2, false);
    assert_eq!(bench.ingress(&piece(in4(udp(9, 53)), 1, 0, true)), Rule);
    assert_eq!(bench.judge(Ingress, &later).rules.len(), 1);
    let rules = std::mem::take(&mut bench.group().rules);
    assert_eq!(bench.ingress(&later), Revoked);
    assert_eq!(bench.ingress(&in4(udp(9, 53))), Revoked);
    bench.group().rules = rules;
    assert_eq!(bench.ingress(&later), Fragment);
    // It has kept the flow, too: 30 s without an answer are 30 ticks here.
    bench.pass_time(20);
    assert_eq!(bench.ingress(&later), Fragment);
    bench.pass_time(20);
    assert_eq!(bench.ingress(&in4(udp(9, 53))), Established);
}

#[test]
fn fragments_of_a_flow_nobody_tracks_need_a_rule() {
    let mut bench = dns();
    bench.judge = Judge::with_room(0);
    let later = piece(in4(data(17)), 1, 2, false);
    assert_eq!(bench.ingress(&piece(in4(udp(9, 53)), 1, 0, true)), Reason::Untracked);
    assert_eq!(bench.ingress(&later), Fragment);
    bench.group().rules.clear();
    assert_eq!(bench.ingress(&later), RefusedFragment);
}
