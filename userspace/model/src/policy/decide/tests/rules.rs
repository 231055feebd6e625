//! Which rules match, and that every one that does is named.

use netdiag_common::abi::reason::Reason::{self, NoRule, Rule};

use super::{
    super::super::types::{AddressGroupId, GroupId, Remote, RuleId, SecurityGroup, Service},
    bench::*,
};

/// True if a rule for that service lets a packet in.
fn lets_in(service: Service, frame: &[u8]) -> bool {
    let family = if frame[12] == 0x08 { V4 } else { V6 };
    Bench::new([rule("r", Ingress, family, service, Remote::Any)]).ingress(frame) == Rule
}

#[test]
fn ports_are_destination_ports_of_one_protocol_both_ends_included() {
    for (destination, matches) in [(999, false), (1000, true), (1500, true), (2000, true), (2001, false)] {
        assert_eq!(lets_in(ports(17, 1000, 2000), &in4(udp(1500, destination))), matches, "{destination}");
    }
    assert!(lets_in(ports(17, 1, 65535), &in6(udp(1, 65535))));
    assert!(!lets_in(ports(17, 1, 65535), &in4(udp(1, 0))));
    assert!(!lets_in(ports(17, 80, 80), &in4(tcp(1, 80, SYN))));
    for protocol in [33, 132, 136] {
        assert!(lets_in(ports(protocol, 80, 80), &in4(with_ports(protocol, 1, 80))), "{protocol}");
        assert!(!lets_in(ports(protocol, 80, 80), &in4(with_ports(protocol, 80, 81))), "{protocol}");
    }
}

#[test]
fn a_protocol_is_its_number_and_0_is_one() {
    assert!(lets_in(Service::Protocol(47), &in4((47, vec![0; 8]))));
    assert!(lets_in(Service::Protocol(6), &in4(tcp(1, 2, SYN))));
    assert!(lets_in(Service::Protocol(1), &in4(icmp(8, 0, 1))));
    assert!(lets_in(Service::Protocol(112), &in4((112, vec![0; 8]))));
    assert!(lets_in(Service::Protocol(0), &in4((0, vec![0; 8]))));
    assert!(!lets_in(Service::Protocol(0), &in4(udp(1, 2))));
    assert!(lets_in(Service::Any, &in4((255, vec![]))));
    assert!(!lets_in(Service::Any, &in4(icmp(0, 0, 1))), "an answer begins nothing");
}

#[test]
fn icmp_types_and_codes_may_be_0() {
    let icmp_of = |protocol, kind, code| Service::Icmp { protocol, kind, code };
    assert!(lets_in(icmp_of(1, 8, None), &in4(icmp(8, 3, 1))));
    assert!(lets_in(icmp_of(1, 8, Some(0)), &in4(icmp(8, 0, 1))));
    assert!(!lets_in(icmp_of(1, 8, Some(0)), &in4(icmp(8, 1, 1))));
    assert!(!lets_in(icmp_of(1, 0, None), &in4(icmp(8, 0, 1))));
    assert!(lets_in(icmp_of(58, 128, Some(0)), &in6(icmpv6(128, 0, 1))));
    assert!(!lets_in(icmp_of(58, 128, Some(0)), &in6(icmpv6(128, 2, 1))));
    let stateless = |service, frame: &[u8]| {
        Bench::new([rule("r", Ingress, V4, service, Remote::Any)]).stateless().ingress(frame) == Rule
    };
    assert!(stateless(icmp_of(1, 0, Some(0)), &in4(icmp(0, 0, 1))));
    assert!(!stateless(icmp_of(1, 0, Some(0)), &in4(icmp(0, 1, 1))));
}

#[test]
fn direction_and_family_must_be_those_of_the_rule() {
    let mut bench = Bench::new([rule("r", Ingress, V4, Service::Any, Remote::Any)]);
    bench.run(&[
        (Ingress, in4(udp(1, 2)), Rule),
        (Ingress, in6(udp(1, 2)), NoRule),
        (Egress, out4(udp(3, 4)), NoRule),
        (Egress, out6(udp(3, 4)), NoRule),
    ]);
}

#[test]
fn a_remote_is_everybody_a_prefix_a_group_or_an_address_group() {
    let with = |remote| {
        let rules = [rule("r", Ingress, V4, Service::Any, remote), any_out(V6)];
        Bench::new(rules)
            .with_members("db", &["10.0.0.9/32", "fd00::9/128"])
            .with_address_group("office", &["10.0.0.8/29"])
    };
    let office = Remote::AddressGroup(AddressGroupId("office".into()));
    for (remote, allowed) in [
        (Remote::Any, ["10.0.0.9", "10.0.0.10", "192.0.2.1"].as_slice()),
        (Remote::Prefix(net("10.0.0.8/31")), &["10.0.0.9"]),
        (group("db"), &["10.0.0.9"]),
        (office, &["10.0.0.9", "10.0.0.10"]),
    ] {
        for source in ["10.0.0.9", "10.0.0.10", "192.0.2.1"] {
            let reason = with(remote.clone()).ingress(&packet(PEER, source, "10.0.0.5", udp(1, 2)));
            assert_eq!(reason == Rule, allowed.contains(&source), "{remote:?} {source}");
        }
    }
}

#[test]
fn members_are_matched_by_address_prefixes_of_pairs_included() {
    let mut bench = Bench::new([rule("r", Egress, V4, Service::Any, group("db"))]).with_members("db", &["10.9.0.0/16"]);
    bench.run(&[
        (Egress, packet(OWN, "10.0.0.5", "10.9.200.1", udp(1, 2)), Rule),
        (Egress, packet(OWN, "10.0.0.5", "10.8.0.1", udp(1, 2)), NoRule),
    ]);
}

#[test]
fn a_group_without_members_lets_nobody_in() {
    let mut bench = Bench::new([rule("r", Ingress, V4, Service::Any, group("db"))]).with_members("db", &[]);
    assert_eq!(bench.ingress(&in4(udp(1, 2))), NoRule);
}

#[test]
fn a_policy_is_the_union_of_its_groups_and_every_rule_that_allows_is_named() {
    let mut bench =
        Bench::new([tcp_in(22), rule("from9", Ingress, V4, ports(6, 20, 30), Remote::Prefix(net("10.0.0.9/32")))]);
    let id = GroupId("ops".into());
    let rules = vec![rule("ops", Ingress, V4, Service::Protocol(6), Remote::Any), tcp_in(23)];
    let ops = SecurityGroup { id: id.clone(), name: String::new(), stateful: true, rules };
    bench.policy.groups.insert(id.clone(), ops);
    let names = |bench: &mut Bench, frame: &[u8]| {
        let judgement = bench.judge(Ingress, frame);
        (judgement.reason, judgement.rules.into_iter().map(|RuleId(id)| id).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names(&mut bench, &in4(tcp(1, 22, SYN))), (Rule, "from9 tcp22".into()));
    bench.port.groups.push(id);
    assert_eq!(names(&mut bench, &in4(tcp(2, 22, SYN))), (Rule, "from9 ops tcp22".into()));
    assert_eq!(names(&mut bench, &in4(tcp(2, 22, ACK))), (Reason::Established, "from9 ops tcp22".into()));
    assert_eq!(names(&mut bench, &in4(udp(2, 22))), (NoRule, String::new()));
    assert_eq!(names(&mut bench, &ethernet(PEER, 0x0806, &[])), (Reason::System, String::new()));
}

#[test]
fn a_port_in_no_group_passes_system_traffic_alone() {
    let mut bench = Bench::open();
    bench.port.groups.clear();
    bench.run(&[(Ingress, in4(udp(1, 2)), NoRule), (Egress, out4(udp(68, 67)), Reason::System)]);
}
