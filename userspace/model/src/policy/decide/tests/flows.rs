//! State: replies, revocation, errors, ends.

use netdiag_common::abi::reason::Reason::{
    Established, IcmpUnrelated, Invalid, NoRule, Related, Revoked, Rule, Untracked,
};

use super::{
    super::super::types::{Direction, Mode, PortId, Remote, Service},
    super::Judge,
    bench::*,
};

#[test]
fn replies_pass_without_a_rule_and_nothing_else_does() {
    let mut bench = Bench::new([tcp_in(22), any_out(V6)]);
    bench.run(&[
        (Egress, out4(tcp(22, 9, SYN_ACK)), Invalid),
        (Ingress, in4(tcp(9, 22, SYN)), Rule),
        (Egress, out4(tcp(22, 9, SYN_ACK)), Established),
        (Ingress, in4(tcp(9, 22, ACK)), Established),
        (Egress, out4(tcp(22, 10, SYN_ACK)), Invalid),
        (Egress, out4(tcp(22, 10, ACK)), NoRule),
        (Egress, packet(OWN, "10.0.9.5", "10.0.0.9", tcp(22, 9, ACK)), NoRule),
        (Egress, out6(udp(5, 53)), Rule),
        (Ingress, in6(udp(53, 5)), Established),
        (Ingress, in6(udp(53, 6)), NoRule),
    ]);
}

#[test]
fn every_protocol_is_tracked() {
    for protocol in [17, 33, 132, 136] {
        Bench::new([any_out(V4)]).run(&[
            (Egress, out4(with_ports_or_udp(protocol, 5, 80)), Rule),
            (Ingress, in4(with_ports_or_udp(protocol, 80, 5)), Established),
            (Ingress, in4(with_ports_or_udp(protocol, 80, 6)), NoRule),
        ]);
    }
    for protocol in [47, 50, 58, 112, 255] {
        Bench::new([any_out(V4)]).run(&[
            (Ingress, in4((protocol, vec![0; 8])), NoRule),
            (Egress, out4((protocol, vec![0; 8])), Rule),
            (Ingress, in4((protocol, vec![1; 8])), Established),
            (Ingress, packet(PEER, "10.0.0.8", "10.0.0.5", (protocol, vec![0; 8])), NoRule),
        ]);
    }
}

fn with_ports_or_udp(protocol: u8, source: u16, destination: u16) -> (u8, Vec<u8>) {
    if protocol == 17 { udp(source, destination) } else { with_ports(protocol, source, destination) }
}

#[test]
fn a_flow_dies_with_its_rule_in_both_directions_and_lives_again_with_it() {
    let mut bench = Bench::new([tcp_in(22)]);
    bench.run(&[(Ingress, in4(tcp(9, 22, SYN)), Rule), (Egress, out4(tcp(22, 9, SYN_ACK)), Established)]);
    let rules = std::mem::take(&mut bench.group().rules);
    bench.run(&[(Egress, out4(tcp(22, 9, ACK)), Revoked), (Ingress, in4(tcp(9, 22, ACK)), Revoked)]);
    bench.group().rules = rules;
    bench.run(&[(Ingress, in4(tcp(9, 22, ACK)), Established), (Egress, out4(tcp(22, 9, ACK)), Established)]);
}

#[test]
fn a_flow_lives_while_any_rule_allows_it() {
    let mut bench = Bench::new([tcp_in(22), rule("all", Ingress, V4, Service::Protocol(6), Remote::Any)]);
    bench.run(&[(Ingress, in4(tcp(9, 22, SYN)), Rule)]);
    bench.group().rules.remove(0);
    bench.run(&[(Ingress, in4(tcp(9, 22, ACK)), Established)]);
    bench.group().rules.push(tcp_in(23));
    bench.run(&[(Egress, out4(tcp(22, 9, ACK)), Established)]);
    bench.group().rules.remove(0);
    bench.run(&[(Egress, out4(tcp(22, 9, ACK)), Revoked)]);
}

#[test]
fn a_flow_dies_with_the_member_the_group_or_the_policy_that_had_allowed_it() {
    let begun = || {
        let mut bench =
            Bench::new([rule("db", Egress, V4, Service::Any, group("db"))]).with_members("db", &["10.0.0.9/32"]);
        bench.run(&[(Egress, out4(udp(5, 6)), Rule), (Ingress, in4(udp(6, 5)), Established)]);
        bench
    };
    let mut bench = begun().with_members("db", &["10.0.0.8/32"]);
    bench.run(&[(Ingress, in4(udp(6, 5)), Revoked), (Egress, out4(udp(5, 6)), Revoked)]);
    let mut bench = bench.with_members("db", &["10.0.0.0/24"]);
    bench.run(&[(Ingress, in4(udp(6, 5)), Established)]);
    let mut bench = begun();
    bench.port.groups.clear();
    bench.run(&[(Ingress, in4(udp(6, 5)), Revoked)]);
}

#[test]
fn a_flow_is_judged_by_the_way_it_began_however_its_replies_would_be() {
    let mut bench = Bench::new([tcp_in(22), any_out(V4)]);
    bench.run(&[(Ingress, in4(udp(22, 9)), NoRule), (Egress, out4(udp(9, 22)), Rule)]);
    bench.group().rules.remove(1);
    bench.group().rules.push(rule("in", Ingress, V4, Service::Any, Remote::Any));
    bench.run(&[(Ingress, in4(udp(22, 9)), Revoked), (Egress, out4(udp(9, 22)), Revoked)]);
}

#[test]
fn a_new_connection_takes_the_place_of_a_dead_or_finished_one() {
    let mut bench = Bench::new([tcp_in(22)]);
    bench.run(&[(Ingress, in4(tcp(9, 22, SYN)), Rule), (Ingress, in4(tcp(9, 22, RST)), Established)]);
    bench.run(&[(Egress, out4(tcp(22, 9, SYN)), NoRule), (Ingress, in4(tcp(9, 22, ACK)), Established)]);
    bench.run(&[(Ingress, in4(tcp(9, 22, SYN)), Rule), (Egress, out4(tcp(22, 9, SYN)), Established)]);
    let rules = std::mem::replace(&mut bench.group().rules, vec![any_out(V4)]);
    // Not known to be dead until something has looked.
    bench.run(&[(Egress, out4(tcp(22, 9, SYN)), Revoked), (Ingress, in4(tcp(9, 22, SYN)), NoRule)]);
    bench.run(&[(Egress, out4(tcp(22, 9, SYN)), Rule), (Ingress, in4(tcp(9, 22, SYN_ACK)), Established)]);
    bench.group().rules = rules;
    bench.run(&[(Ingress, in4(tcp(9, 22, ACK)), Revoked), (Ingress, in4(tcp(9, 22, SYN)), Rule)]);
}

#[test]
fn a_connection_is_finished_once_both_sides_have_said_so() {
    let mut bench = Bench::new([tcp_in(22)]);
    bench.run(&[
        (Ingress, in4(tcp(9, 22, SYN)), Rule),
        (Egress, out4(tcp(22, 9, SYN_ACK)), Established),
        (Ingress, in4(tcp(9, 22, ACK)), Established),
        (Ingress, in4(tcp(9, 22, FIN_ACK)), Established),
        (Egress, out4(tcp(22, 9, SYN)), Established),
        (Egress, out4(tcp(22, 9, FIN_ACK)), Established),
        (Ingress, in4(tcp(9, 22, ACK)), Established),
        (Egress, out4(tcp(22, 9, SYN)), NoRule),
        (Ingress, in4(tcp(9, 22, SYN)), Rule),
    ]);
}

#[test]
fn flags_that_no_connection_has_are_invalid_even_within_one() {
    let mut bench = Bench::open();
    for flags in [0x00, 0x03, 0x06, 0x01, 0x29, 0xff] {
        assert_eq!(bench.ingress(&in4(tcp(9, 22, flags))), Invalid, "{flags:#x}");
    }
    bench.run(&[
        (Ingress, in4(tcp(9, 22, RST)), Invalid),
        (Ingress, in4(tcp(9, 22, FIN_ACK)), Invalid),
        (Ingress, in4(tcp(9, 22, SYN_ACK)), Invalid),
        (Ingress, in4(tcp(9, 22, SYN)), Rule),
        (Ingress, in4(tcp(9, 22, 0x03)), Invalid),
        (Ingress, in4(tcp(9, 22, ACK)), Established),
    ]);
}

#[test]
fn a_connection_begun_before_anybody_looked_is_picked_up_if_a_rule_allows_it() {
    Bench::new([tcp_in(22)]).run(&[
        (Egress, out4(tcp(22, 9, ACK)), NoRule),
        (Ingress, in4(tcp(9, 22, ACK)), Rule),
        (Egress, out4(tcp(22, 9, ACK)), Established),
    ]);
}

/// Ticks after which a flow begun by these frames is forgotten, from the last of them on.
fn lasts(frames: &[(Direction, Vec<u8>)], reply: &[u8]) -> u32 {
    let passes_after = |ticks| {
        let mut bench = Bench::new([any_out(V4)]);
        for (direction, bytes) in frames {
            assert!(bench.judge(*direction, bytes).reason.passes());
        }
        bench.pass_time(ticks);
        bench.ingress(reply) == Established
    };
    let (mut known, mut forgotten) = (0, 1 << 20);
    while forgotten - known > 1 {
        let middle = u32::midpoint(known, forgotten);
        if passes_after(middle) {
            known = middle;
        } else {
            forgotten = middle;
        }
    }
    known
}

#[test]
fn every_state_lasts_as_long_as_it_should() {
    let seconds = |ticks: u32| f64::from(ticks) * 1.073_741_824;
    let out = |content| (Egress, out4(content));
    let into = |content| (Ingress, in4(content));
    let syn = || vec![out(tcp(9, 22, SYN))];
    let answered = || vec![out(tcp(9, 22, SYN)), into(tcp(22, 9, SYN_ACK))];
    let agreed = || [answered(), vec![out(tcp(9, 22, ACK))]].concat();
    let half = || [agreed(), vec![out(tcp(9, 22, FIN_ACK))]].concat();
    let reply = in4(tcp(22, 9, ACK));
    for (what, frames, reply, expected) in [
        ("SYN", syn(), &reply, 120.0),
        ("SYN answered", answered(), &reply, 60.0),
        ("agreed", agreed(), &reply, 432_000.0),
        ("one FIN", half(), &reply, 120.0),
        ("both FIN", [half(), vec![into(tcp(22, 9, FIN_ACK))]].concat(), &reply, 120.0),
        ("RST", [agreed(), vec![into(tcp(22, 9, RST))]].concat(), &reply, 10.0),
        ("picked up", vec![out(tcp(9, 22, ACK))], &reply, 300.0),
        ("picked up, both seen", vec![out(tcp(9, 22, ACK)), into(tcp(22, 9, ACK))], &reply, 432_000.0),
        ("UDP", vec![out(udp(9, 22))], &in4(udp(22, 9)), 30.0),
        ("UDP answered", vec![out(udp(9, 22)), into(udp(22, 9))], &in4(udp(22, 9)), 120.0),
        ("ICMP", vec![out(icmp(8, 0, 1))], &in4(icmp(0, 0, 1)), 30.0),
        ("GRE", vec![out((47, vec![]))], &in4((47, vec![])), 600.0),
    ] {
        let lasts = seconds(lasts(&frames, reply));
        assert!(lasts >= expected && lasts <= expected * 1.1 + 3.0, "{what}: {lasts} s, not {expected} s");
    }
}

#[test]
fn a_refused_packet_keeps_a_dead_flow_dead() {
    let mut bench = Bench::new([any_out(V4)]);
    bench.run(&[(Egress, out4(udp(5, 6)), Rule)]);
    bench.group().rules.clear();
    for _ in 0..5 {
        bench.pass_time(25);
        bench.run(&[(Ingress, in4(udp(6, 5)), Revoked)]);
    }
    bench.pass_time(60);
    bench.run(&[(Ingress, in4(udp(6, 5)), NoRule)]);
}

#[test]
fn an_answer_to_a_query_passes_and_an_answer_to_none_is_invalid() {
    for (request, reply) in [(8, 0), (13, 14), (15, 16), (17, 18)] {
        Bench::new([any_out(V4)]).run(&[
            (Ingress, in4(icmp(reply, 0, 1)), Invalid),
            (Egress, out4(icmp(request, 0, 1)), Rule),
            (Ingress, in4(icmp(reply, 0, 1)), Established),
            (Ingress, in4(icmp(reply, 0, 2)), Invalid),
            (Egress, out4(icmp(request, 0, 1)), Established),
        ]);
    }
    Bench::new([any_out(V6)]).run(&[
        (Egress, out6(icmpv6(128, 0, 1)), Rule),
        (Ingress, in6(icmpv6(129, 0, 1)), Established),
        (Ingress, in6(icmpv6(129, 0, 2)), Invalid),
    ]);
}

#[test]
fn an_answer_is_of_the_type_that_was_asked_for() {
    Bench::new([any_out(V4)]).run(&[(Egress, out4(icmp(8, 0, 1)), Rule), (Ingress, in4(icmp(14, 0, 1)), Invalid)]);
}

#[test]
fn a_query_does_not_let_the_other_end_ask() {
    Bench::new([any_out(V4)]).run(&[
        (Egress, out4(icmp(8, 0, 1)), Rule),
        (Ingress, in4(icmp(8, 0, 1)), NoRule),
        (Egress, out4(icmp(0, 0, 1)), Invalid),
    ]);
    Bench::open().run(&[
        (Egress, out4(icmp(8, 0, 1)), Rule),
        (Ingress, in4(icmp(8, 0, 1)), Rule),
        (Ingress, in4(icmp(0, 0, 1)), Established),
        (Egress, out4(icmp(0, 0, 1)), Established),
    ]);
}

#[test]
fn other_icmp_messages_need_a_rule_each_time() {
    let redirect = Service::Icmp { protocol: 1, kind: 5, code: None };
    let mut bench = Bench::new([rule("redirect", Ingress, V4, redirect, Remote::Any)]);
    bench.run(&[
        (Ingress, in4(icmp(5, 0, 1)), Rule),
        (Ingress, in4(icmp(5, 0, 1)), Rule),
        (Egress, out4(icmp(5, 0, 1)), NoRule),
    ]);
}

#[test]
fn errors_about_a_flow_go_to_who_sent_the_packet_they_quote() {
    let mut bench = Bench::new([any_out(V4), any_out(V6)]);
    let sent = inner(&out4(udp(5, 6)));
    let received = inner(&in4(udp(6, 5)));
    let from_router = |quoted: &[u8], kind| packet(PEER, "10.0.0.1", "10.0.0.5", error(1, kind, quoted));
    bench.run(&[(Ingress, from_router(&sent, 3), IcmpUnrelated), (Egress, out4(udp(5, 6)), Rule)]);
    for kind in [3, 4, 11, 12] {
        bench.run(&[(Ingress, from_router(&sent, kind), Related)]);
    }
    bench.run(&[
        (Egress, out4(error(1, 3, &received)), Related),
        (Egress, packet(OWN, "10.0.0.5", "10.0.0.1", error(1, 3, &received)), IcmpUnrelated),
        (Ingress, packet(PEER, "10.0.0.1", "10.0.9.1", error(1, 3, &sent)), IcmpUnrelated),
        (Ingress, from_router(&received, 3), IcmpUnrelated),
        (Ingress, from_router(&inner(&out4(udp(5, 7))), 3), IcmpUnrelated),
        (Ingress, from_router(&sent, 5), NoRule),
        (Egress, out6(tcp(5, 6, SYN)), Rule),
    ]);
    let sent6 = inner(&out6(tcp(5, 6, SYN)));
    for kind in 1..=4 {
        bench.run(&[(Ingress, packet(PEER, "fd00::1", "fd00::5", error(58, kind, &sent6)), Related)]);
    }
    let (_, chain) = (60, [vec![6, 0, 0, 0, 0, 0, 0, 0], tcp(5, 6, SYN).1].concat());
    let chained = inner(&out6((60, chain)));
    bench.run(&[(Ingress, packet(PEER, "fd00::1", "fd00::5", error(58, 1, &chained)), IcmpUnrelated)]);
}

#[test]
fn errors_quote_enough_or_nothing() {
    let mut bench = Bench::new([any_out(V4)]);
    bench.run(&[(Egress, out4(tcp(5, 6, SYN)), Rule)]);
    let sent = inner(&out4(tcp(5, 6, SYN)));
    let about = |quoted: &[u8]| in4(error(1, 3, quoted));
    for length in 0..sent.len() {
        let reason = if length < 28 { IcmpUnrelated } else { Related };
        assert_eq!(bench.ingress(&about(&sent[..length])), reason, "{length}");
    }
    let patched = |place: usize, byte: u8| {
        let mut bytes = sent.clone();
        bytes[place] = byte;
        about(&bytes)
    };
    bench.run(&[
        (Ingress, patched(0, 0x65), IcmpUnrelated),
        (Ingress, patched(0, 0x44), IcmpUnrelated),
        (Ingress, patched(7, 1), IcmpUnrelated),
        (Ingress, patched(6, 0x20), Related),
        (Ingress, patched(9, 17), IcmpUnrelated),
    ]);
    // Options of the quoted packet move what comes after.
    let mut bytes = sent.clone();
    bytes[0] = 0x46;
    bytes.splice(20..20, [1; 4]);
    assert_eq!(bench.ingress(&about(&bytes)), Related);
    // What is quoted behind the end of the packet is padding.
    let mut padded = about(&sent[..24]);
    padded.extend(&sent[24..]);
    assert_eq!(bench.ingress(&padded), IcmpUnrelated);
}

#[test]
fn errors_about_queries_pass_and_errors_about_errors_never() {
    let mut bench = Bench::new([any_out(V4)]);
    bench.run(&[(Egress, out4(icmp(8, 0, 1)), Rule), (Egress, out4((47, vec![])), Rule)]);
    let about = |content| in4(error(1, 3, &inner(&out4(content))));
    bench.run(&[
        (Ingress, about(icmp(8, 0, 1)), Related),
        (Ingress, about(icmp(8, 0, 2)), IcmpUnrelated),
        (Ingress, about(icmp(0, 0, 1)), IcmpUnrelated),
        (Ingress, about(icmp(3, 0, 1)), IcmpUnrelated),
        (Ingress, about(icmp(5, 0, 1)), IcmpUnrelated),
        (Ingress, about((47, vec![0; 8])), Related),
        (Ingress, about((47, vec![0; 7])), IcmpUnrelated),
        (Egress, out4(error(1, 3, &inner(&in4(icmp(0, 0, 1))))), Related),
    ]);
}

#[test]
fn errors_about_dead_or_forgotten_flows_are_unrelated() {
    let mut bench = Bench::new([any_out(V4)]);
    let about = in4(error(1, 3, &inner(&out4(udp(5, 6)))));
    bench.run(&[(Egress, out4(udp(5, 6)), Rule), (Ingress, about.clone(), Related)]);
    let rules = std::mem::take(&mut bench.group().rules);
    bench.run(&[(Ingress, about.clone(), IcmpUnrelated)]);
    bench.group().rules = rules;
    bench.run(&[(Ingress, about.clone(), Related)]);
    bench.pass_time(31);
    bench.run(&[(Ingress, about, IcmpUnrelated)]);
}

#[test]
fn errors_that_quote_a_chain_of_headers_are_unrelated_even_if_a_flow_has_the_number_of_the_first() {
    let mut bench = Bench::new([any_out(V6)]);
    // The middle of a datagram whose next header has the number of destination options.
    let middle = [vec![60, 0, 0, 24, 0, 0, 0, 1], vec![0; 8]].concat();
    bench.run(&[(Egress, out6((44, middle)), Rule)]);
    let quoted = inner(&out6((60, vec![0; 8])));
    bench.run(&[(Ingress, in6(error(58, 1, &quoted)), IcmpUnrelated)]);
}

#[test]
fn an_error_does_not_keep_a_flow() {
    let mut bench = Bench::new([any_out(V4)]);
    let about = in4(error(1, 3, &inner(&out4(udp(5, 6)))));
    bench.run(&[(Egress, out4(udp(5, 6)), Rule)]);
    bench.pass_time(20);
    bench.run(&[(Ingress, about, Related)]);
    bench.pass_time(20);
    bench.run(&[(Ingress, in4(udp(6, 5)), NoRule)]);
}

#[test]
fn without_state_everything_needs_a_rule_and_any_flags_will_do() {
    let mut bench = Bench::new([tcp_in(22), rule("ping", Egress, V4, Service::Protocol(1), Remote::Any)]).stateless();
    bench.run(&[
        (Ingress, in4(tcp(9, 22, SYN)), Rule),
        (Egress, out4(tcp(22, 9, SYN_ACK)), NoRule),
        (Ingress, in4(tcp(9, 22, 0xff)), Rule),
        (Ingress, in4(tcp(9, 22, 0)), Rule),
        (Egress, out4(icmp(8, 0, 1)), Rule),
        (Ingress, in4(icmp(0, 0, 1)), NoRule),
        (Egress, out4(icmp(0, 0, 1)), Rule),
        (Ingress, in4(error(1, 3, &inner(&out4(icmp(8, 0, 1))))), NoRule),
        (Egress, out4(error(1, 3, &inner(&in4(tcp(9, 22, SYN))))), Rule),
    ]);
    assert_eq!(bench.judge.flows(&bench.port.id), 0);
}

#[test]
fn a_closed_port_has_no_groups_that_could_make_it_stateless() {
    let mut bench = Bench::open().stateless();
    bench.run(&[(Ingress, in4(tcp(9, 22, 0)), Rule)]);
    bench.port.mode = Mode::Closed;
    bench.run(&[(Ingress, in4(tcp(9, 22, 0)), Invalid)]);
}

#[test]
fn a_flow_without_room_is_not_tracked_and_its_replies_need_a_rule() {
    let mut bench = Bench::new([any_out(V4)]);
    bench.judge = Judge::with_room(1);
    bench.run(&[
        (Egress, out4(udp(5, 6)), Rule),
        (Egress, out4(udp(5, 7)), Untracked),
        (Egress, out4(udp(5, 7)), Untracked),
        (Ingress, in4(udp(7, 5)), NoRule),
        (Ingress, in4(udp(6, 5)), Established),
    ]);
    bench.pass_time(500);
    bench.run(&[(Egress, out4(udp(5, 6)), Rule)]);
    assert!(!bench.judge(Egress, &out4(udp(5, 8))).rules.is_empty());
}

#[test]
fn ports_share_no_flows_even_where_their_addresses_are_the_same() {
    let mut bench = Bench::new([any_out(V4)]);
    bench.run(&[(Egress, out4(udp(5, 6)), Rule)]);
    bench.port.id = PortId("q".into());
    bench.run(&[(Ingress, in4(udp(6, 5)), NoRule), (Egress, out4(udp(5, 6)), Rule)]);
}

#[test]
fn time_may_wrap() {
    let mut bench = Bench::new([any_out(V4)]);
    bench.now = u32::MAX;
    bench.run(&[(Egress, out4(udp(5, 6)), Rule)]);
    bench.pass_time(3);
    bench.run(&[(Ingress, in4(udp(6, 5)), Established)]);
}
