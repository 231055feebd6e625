//! What every port needs and what no instance may do: a table, judged without any rule and with rules that allow all.

use std::collections::BTreeSet;

use netdiag_common::abi::reason::Reason;
use netdiag_common::abi::reason::Reason::{
    ArpSpoof, DhcpServer, Ethertype, IpSpoof, MacSpoof, NdSpoof, NoRule, PermittedEthertype, RouterAdvertisement, Rule,
    System, Truncated, Trusted, VlanTagged,
};

use super::{
    super::super::types::{Direction, Mode},
    bench::*,
};

/// A frame, and what becomes of it without a rule and with rules that allow everything.
type Row = (&'static str, Direction, Vec<u8>, [Reason; 2]);

fn check(rows: Vec<Row>) {
    for (name, direction, bytes, [without, with]) in rows {
        assert_eq!(Bench::new([]).judge(direction, &bytes).reason, without, "{name}, no rule");
        assert_eq!(Bench::open().judge(direction, &bytes).reason, with, "{name}, all allowed");
    }
}

#[test]
fn arp_and_rarp_must_come_from_a_pair_of_the_port() {
    let rarp = |mac| ethernet(mac, 0x8035, &arp(mac, "0.0.0.0"));
    check(vec![
        ("own", Egress, ethernet(OWN, 0x0806, &arp(OWN, "10.0.0.5")), [System; 2]),
        ("a prefix of a pair", Egress, ethernet(OWN, 0x0806, &arp(OWN, "10.0.9.77")), [System; 2]),
        ("a pair", Egress, ethernet(PAIR, 0x0806, &arp(PAIR, "10.0.0.100")), [System; 2]),
        ("address of another pair", Egress, ethernet(OWN, 0x0806, &arp(OWN, "10.0.0.100")), [ArpSpoof; 2]),
        ("address of somebody else", Egress, ethernet(OWN, 0x0806, &arp(OWN, "10.0.0.9")), [ArpSpoof; 2]),
        ("probe", Egress, ethernet(OWN, 0x0806, &arp(OWN, "0.0.0.0")), [ArpSpoof; 2]),
        ("sender differs", Egress, ethernet(OWN, 0x0806, &arp(PAIR, "10.0.0.100")), [ArpSpoof; 2]),
        ("in the name of another", Egress, ethernet(PEER, 0x0806, &arp(OWN, "10.0.0.5")), [ArpSpoof; 2]),
        ("cut short", Egress, ethernet(OWN, 0x0806, &arp(OWN, "10.0.0.5")[..27]), [Truncated; 2]),
        ("another protocol", Egress, ethernet(OWN, 0x0806, &[0; 28]), [Reason::Malformed; 2]),
        ("to the instance", Ingress, ethernet(PEER, 0x0806, &arp(PEER, "10.0.0.5")), [System; 2]),
        ("to the instance, empty", Ingress, ethernet(PEER, 0x0806, &[]), [System; 2]),
        ("RARP", Egress, rarp(OWN), [System; 2]),
        ("RARP of a pair", Egress, rarp(PAIR), [System; 2]),
        ("RARP of another", Egress, rarp(PEER), [MacSpoof; 2]),
        ("RARP to the instance", Ingress, rarp(PEER), [System; 2]),
    ]);
}

/// An IPv4 frame as the first fragment of a datagram.
fn first_fragment(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] = 0x20;
    frame
}

#[test]
fn dhcp_clients_pass_and_dhcp_servers_never() {
    let discover = |mac| packet(mac, "0.0.0.0", "255.255.255.255", udp(68, 67));
    let offer = |to| packet(PEER, "10.0.0.1", to, udp(67, 68));
    check(vec![
        ("discover", Egress, discover(OWN), [System; 2]),
        ("discover of a pair", Egress, discover(PAIR), [IpSpoof; 2]),
        ("discover of another", Egress, discover(PEER), [MacSpoof; 2]),
        ("other ports", Egress, packet(OWN, "0.0.0.0", "255.255.255.255", udp(69, 67)), [IpSpoof; 2]),
        ("TCP", Egress, packet(OWN, "0.0.0.0", "255.255.255.255", tcp(68, 67, SYN)), [IpSpoof; 2]),
        ("discover in fragments", Egress, first_fragment(discover(OWN)), [IpSpoof; 2]),
        ("renewal", Egress, packet(OWN, "10.0.0.5", "10.0.0.1", udp(68, 67)), [System; 2]),
        ("renewal of another", Egress, packet(OWN, "10.0.0.6", "10.0.0.1", udp(68, 67)), [IpSpoof; 2]),
        ("server", Egress, packet(OWN, "10.0.0.5", "10.0.0.9", udp(67, 68)), [DhcpServer; 2]),
        ("offer", Ingress, offer("10.0.0.5"), [System; 2]),
        ("offer to all", Ingress, offer("255.255.255.255"), [System; 2]),
        ("offer to a pair of the port's own MAC", Ingress, offer("10.0.9.3"), [System; 2]),
        ("offer to a pair of another MAC", Ingress, offer("10.0.0.100"), [NoRule, Rule]),
        ("offer to another", Ingress, offer("10.0.0.6"), [NoRule, Rule]),
        ("discover of another to the instance", Ingress, in4(udp(68, 67)), [NoRule, Rule]),
        ("TCP from 67 to 68", Egress, packet(OWN, "10.0.0.5", "10.0.0.9", tcp(67, 68, SYN)), [NoRule, Rule]),
    ]);
}

#[test]
fn dhcpv6_clients_pass_and_dhcpv6_servers_never() {
    let solicit = |source| packet(OWN, source, "ff02::1:2", udp(546, 547));
    let advertise = |to| packet(PEER, "fe80::1", to, udp(547, 546));
    check(vec![
        ("link-local", Egress, solicit(OWN_LINK_LOCAL), [System; 2]),
        ("fixed", Egress, solicit("fd00::5"), [System; 2]),
        ("of another", Egress, solicit("fe80::1"), [IpSpoof; 2]),
        ("unspecified", Egress, solicit("::"), [IpSpoof; 2]),
        ("server", Egress, out6(udp(547, 546)), [DhcpServer; 2]),
        ("answer", Ingress, advertise("fd00::5"), [System; 2]),
        ("answer to any link-local address", Ingress, advertise("fe80::abcd"), [System; 2]),
        ("answer beyond fe80::/64", Ingress, advertise("fe80:1::5"), [NoRule, Rule]),
        ("answer to another", Ingress, advertise("fd00::6"), [NoRule, Rule]),
        ("answer to nobody", Ingress, advertise("::"), [NoRule, Rule]),
        ("IPv4 ports in IPv6", Egress, out6(udp(67, 68)), [NoRule, Rule]),
    ]);
}

#[test]
fn neighbour_discovery_passes_if_it_speaks_of_the_sender() {
    let from = |source, content| packet(OWN, source, "ff02::1", content);
    check(vec![
        ("query", Egress, out6(icmpv6(130, 0, 0)), [System; 2]),
        ("router solicitation", Egress, from(OWN_LINK_LOCAL, icmpv6(133, 0, 0)), [System; 2]),
        ("router advertisement", Egress, from(OWN_LINK_LOCAL, icmpv6(134, 0, 0)), [RouterAdvertisement; 2]),
        ("solicitation", Egress, out6(nd(135, "fd00::9")), [System; 2]),
        ("advertisement", Egress, out6(nd(136, "fd00::5")), [System; 2]),
        ("advertisement, link-local", Egress, out6(nd(136, OWN_LINK_LOCAL)), [System; 2]),
        ("advertisement of another", Egress, out6(nd(136, "fd00::9")), [NdSpoof; 2]),
        ("advertisement of nothing", Egress, out6(nd(136, "::")), [NdSpoof; 2]),
        ("advertisement of another pair", Egress, out6(nd(136, PAIR_LINK_LOCAL)), [NdSpoof; 2]),
        ("advertisement without target", Egress, out6(icmpv6(136, 0, 0)), [Truncated; 2]),
        ("report", Egress, out6(icmpv6(143, 0, 0)), [NoRule, Rule]),
        ("redirect", Egress, out6(icmpv6(137, 0, 0)), [NoRule, Rule]),
        ("echo", Egress, out6(icmpv6(128, 0, 0)), [NoRule, Rule]),
        ("in IPv4 it is no ICMPv6", Egress, out4((58, nd(136, "fd00::9").1)), [NoRule, Rule]),
        ("query in", Ingress, in6(icmpv6(130, 0, 0)), [System; 2]),
        ("router solicitation in", Ingress, in6(icmpv6(133, 0, 0)), [NoRule, Rule]),
        ("router advertisement in", Ingress, in6(icmpv6(134, 0, 0)), [System; 2]),
        ("solicitation in", Ingress, in6(nd(135, "fd00::5")), [System; 2]),
        ("advertisement in", Ingress, in6(nd(136, "fd00::9")), [System; 2]),
        ("report in", Ingress, in6(icmpv6(143, 0, 0)), [NoRule, Rule]),
    ]);
}

#[test]
fn nothing_comes_from_nowhere_but_detection_of_duplicates_and_reports() {
    let from = |mac, to, content| packet(mac, "::", to, content);
    let fragment = {
        let (_, solicitation) = nd(135, "fd00::5");
        (44, [vec![58, 0, 0, 1, 0, 0, 0, 1], solicitation].concat())
    };
    check(vec![
        ("own", Egress, from(OWN, "ff02::1:ff00:5", nd(135, "fd00::5")), [System; 2]),
        ("link-local", Egress, from(OWN, "ff02::1:ff00:5", nd(135, OWN_LINK_LOCAL)), [System; 2]),
        ("link-local of a pair", Egress, from(PAIR, "ff02::1:ff00:101", nd(135, PAIR_LINK_LOCAL)), [System; 2]),
        ("of another", Egress, from(OWN, "ff02::1:ff00:9", nd(135, "fd00::9")), [NdSpoof; 2]),
        ("from another", Egress, from(PEER, "ff02::1:ff00:5", nd(135, "fd00::5")), [NdSpoof; 2]),
        ("another, of itself", Egress, from(PEER, "ff02::1:ff00:9", nd(135, PEER_LINK_LOCAL)), [NdSpoof; 2]),
        ("without target", Egress, from(OWN, "ff02::1:ff00:5", icmpv6(135, 0, 0)), [Truncated; 2]),
        ("first fragment", Egress, from(OWN, "ff02::1:ff00:5", fragment), [IpSpoof; 2]),
        ("report", Egress, from(OWN, "ff02::16", icmpv6(131, 0, 0)), [System; 2]),
        ("report, version 2", Egress, from(PAIR, "ff02::16", icmpv6(143, 0, 0)), [System; 2]),
        ("report of another", Egress, from(PEER, "ff02::16", icmpv6(143, 0, 0)), [MacSpoof; 2]),
        ("report beyond the link", Egress, from(OWN, "ff05::16", icmpv6(143, 0, 0)), [IpSpoof; 2]),
        ("echo", Egress, from(OWN, "ff02::1", icmpv6(128, 0, 0)), [IpSpoof; 2]),
        ("UDP", Egress, from(OWN, "ff02::1", udp(1, 2)), [IpSpoof; 2]),
    ]);
}

#[test]
fn the_sender_must_be_a_pair_of_the_port() {
    let from = |mac, source| packet(mac, source, "10.0.0.9", udp(1, 2));
    let from6 = |mac, source| packet(mac, source, "fd00::9", udp(1, 2));
    check(vec![
        ("own", Egress, from(OWN, "10.0.0.5"), [NoRule, Rule]),
        ("prefix of a pair", Egress, from(OWN, "10.0.9.200"), [NoRule, Rule]),
        ("pair", Egress, from(PAIR, "10.0.0.100"), [NoRule, Rule]),
        ("own address, MAC of a pair", Egress, from(PAIR, "10.0.0.5"), [IpSpoof; 2]),
        ("address of a pair, own MAC", Egress, from(OWN, "10.0.0.100"), [IpSpoof; 2]),
        ("another address", Egress, from(OWN, "10.0.0.6"), [IpSpoof; 2]),
        ("another MAC", Egress, from(PEER, "10.0.0.5"), [MacSpoof; 2]),
        ("own, IPv6", Egress, from6(OWN, "fd00::5"), [NoRule, Rule]),
        ("link-local", Egress, from6(OWN, OWN_LINK_LOCAL), [NoRule, Rule]),
        ("link-local of a pair", Egress, from6(PAIR, PAIR_LINK_LOCAL), [NoRule, Rule]),
        ("link-local of the other MAC", Egress, from6(OWN, PAIR_LINK_LOCAL), [IpSpoof; 2]),
        ("another link-local", Egress, from6(OWN, "fe80::5"), [IpSpoof; 2]),
        ("the MAC of whoever sends to it matters not", Ingress, in4(udp(1, 2)), [NoRule, Rule]),
    ]);
}

#[test]
fn a_pair_of_one_family_says_nothing_about_the_other() {
    let mut bench = Bench::open();
    bench.port.pairs = BTreeSet::from([(OWN, net("::/0"))]);
    bench.run(&[
        (Egress, packet(OWN, "2001:db8::1", "fd00::9", udp(1, 2)), Rule),
        (Egress, packet(OWN, "10.0.0.6", "10.0.0.9", udp(1, 2)), IpSpoof),
        (Egress, ethernet(OWN, 0x0806, &arp(OWN, "10.0.0.6")), ArpSpoof),
        (Egress, packet(OWN, "::ffff:10.0.0.5", "fd00::9", udp(1, 2)), IpSpoof),
        (Egress, out6(nd(136, "::ffff:10.0.0.5")), NdSpoof),
    ]);
    bench.port.pairs = BTreeSet::from([(OWN, net("0.0.0.0/0"))]);
    bench.run(&[
        (Egress, packet(OWN, "10.0.0.6", "10.0.0.9", udp(1, 2)), Rule),
        (Egress, packet(OWN, "2001:db8::1", "fd00::9", udp(1, 2)), IpSpoof),
        (Egress, packet(OWN, "::ffff:10.0.0.5", "fd00::9", udp(1, 2)), IpSpoof),
    ]);
}

#[test]
fn a_port_without_addresses_asks_for_one_and_no_more() {
    let mut bench = Bench::open();
    bench.port.fixed_ips.clear();
    bench.port.pairs.clear();
    bench.run(&[
        (Egress, packet(OWN, "0.0.0.0", "255.255.255.255", udp(68, 67)), System),
        (Egress, out4(udp(1, 2)), IpSpoof),
        (Egress, out6(udp(1, 2)), IpSpoof),
        (Egress, packet(OWN, OWN_LINK_LOCAL, "fd00::9", udp(1, 2)), Rule),
    ]);
}

#[test]
fn router_advertisements_need_a_rule_where_the_port_has_no_ipv6_address() {
    let mut bench = Bench::new([]);
    bench.port.fixed_ips = BTreeSet::from([ip("10.0.0.5")]);
    assert_eq!(bench.ingress(&in6(icmpv6(134, 0, 0))), NoRule);
    assert_eq!(bench.egress(&out6(udp(1, 2))), IpSpoof);
    assert_eq!(bench.egress(&packet(OWN, OWN_LINK_LOCAL, "fd00::9", udp(1, 2))), NoRule);
}

#[test]
fn multicast_and_broadcast_to_the_instance_need_a_rule_like_anything_else() {
    check(vec![
        ("broadcast", Ingress, packet(PEER, "10.0.0.9", "10.0.0.255", udp(1, 2)), [NoRule, Rule]),
        ("multicast", Ingress, packet(PEER, "10.0.0.9", "224.0.0.18", (112, vec![0; 8])), [NoRule, Rule]),
        ("IPv6 multicast", Ingress, packet(PEER, "fd00::9", "ff02::fb", udp(5353, 5353)), [NoRule, Rule]),
    ]);
}

#[test]
fn other_ethertypes_pass_only_if_permitted_and_tagged_frames_never() {
    check(vec![
        ("permitted", Egress, ethernet(OWN, 0x88cc, &[]), [PermittedEthertype; 2]),
        ("permitted, of a pair", Egress, ethernet(PAIR, 0x88cc, &[]), [PermittedEthertype; 2]),
        ("permitted, of another", Egress, ethernet(PEER, 0x88cc, &[]), [MacSpoof; 2]),
        ("permitted, in", Ingress, ethernet(PEER, 0x88cc, &[]), [PermittedEthertype; 2]),
        ("not permitted", Egress, ethernet(PEER, 0x8847, &[]), [Ethertype; 2]),
        ("not permitted, in", Ingress, ethernet(PEER, 0x8847, &[]), [Ethertype; 2]),
        ("a length", Ingress, ethernet(PEER, 0x05ff, &[]), [Ethertype; 2]),
        ("a tag", Egress, ethernet(OWN, 0x8100, &[0; 50]), [VlanTagged; 2]),
        ("a provider's tag", Ingress, ethernet(PEER, 0x88a8, &[0; 50]), [VlanTagged; 2]),
    ]);
    assert_eq!(Bench::open().judge_frame(Ingress, &in4(udp(1, 2)), true).reason, VlanTagged);
    assert_eq!(Bench::open().judge_frame(Ingress, &in4(udp(1, 2))[..13], true).reason, Truncated);
}

#[test]
fn a_length_is_no_ethertype_even_if_an_operator_permits_it() {
    let mut bench = Bench::open();
    bench.policy.permitted_ethertypes = BTreeSet::from([0x05ff, 0x0600, 0x0800, 0x8100]);
    bench.run(&[
        (Ingress, ethernet(PEER, 0x05ff, &[]), Ethertype),
        (Ingress, ethernet(PEER, 0x0600, &[]), PermittedEthertype),
        (Ingress, ethernet(PEER, 0x0800, &[]), Truncated),
        (Ingress, ethernet(PEER, 0x8100, &[]), VlanTagged),
    ]);
}

#[test]
fn a_trusted_port_passes_everything() {
    let mut bench = Bench::new([]);
    bench.port.mode = Mode::Trusted;
    for frame in [vec![], out4(udp(67, 68)), ethernet(PEER, 0x8100, &[]), packet(PEER, "1.2.3.4", "5.6.7.8", udp(1, 2))]
    {
        assert_eq!(bench.egress(&frame), Trusted);
    }
}

#[test]
fn a_closed_port_passes_system_traffic_alone_and_says_why() {
    let mut bench = Bench::open();
    bench.run(&[(Ingress, in4(udp(1, 2)), Rule)]);
    bench.port.mode = Mode::Closed;
    bench.run(&[
        (Egress, packet(OWN, "0.0.0.0", "255.255.255.255", udp(68, 67)), System),
        (Ingress, ethernet(PEER, 0x0806, &arp(PEER, "10.0.0.9")), System),
        (Ingress, in4(udp(3, 4)), Reason::NoPolicy),
        (Egress, out4(tcp(3, 4, SYN)), Reason::NoPolicy),
        (Egress, out4(udp(67, 68)), DhcpServer),
        (Egress, packet(OWN, "10.0.0.6", "10.0.0.9", udp(1, 2)), IpSpoof),
        (Ingress, in4(udp(1, 2)), Reason::Revoked),
    ]);
}
