//! Rules in words, and packets explained.

use std::collections::BTreeMap;

use netdiag_common::abi::reason::Reason;

use super::{Condition, Detail, Explanation, Query, Unclear, explain, members};
use crate::policy::{
    convert::{Document, policy},
    types::{Attached, Direction, GroupId, Hook, Mode, Policy, PortId},
};

const POLICY: &str = "
security_groups:
- id: g-web
  name: web
  rules:
  - {id: https, direction: ingress, protocol: tcp, port_range_min: 443, port_range_max: 443}
  - {id: high, direction: ingress, protocol: tcp, port_range_min: 8000, port_range_max: 8100}
  - {id: ssh, direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_ip_prefix: 192.0.2.0/24}
  - {id: db, direction: ingress, protocol: tcp, port_range_min: 5432, port_range_max: 5432, remote_group_id: db}
  - {id: office, direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 53, remote_address_group_id: office}
  - {id: ping, direction: ingress, protocol: icmp, port_range_min: 8, port_range_max: 0}
  - {id: vrrp, direction: ingress, protocol: vrrp}
  - {id: v6, direction: ingress, ethertype: IPv6, protocol: tcp, port_range_min: 25, port_range_max: 25}
  - {id: out, direction: egress, description: everywhere}
- name: db
  rules:
  - {id: psql, direction: ingress, protocol: tcp, port_range_min: 5433, port_range_max: 5433}
  - {id: odd, direction: ingress, protocol: 99}
- {name: raw, stateful: false, rules: [{id: pong, direction: ingress, protocol: icmp, port_range_min: 0}]}
address_groups:
- {id: a-1, name: office, addresses: [198.51.100.0/24, 2001:db8::/32]}
ports:
- {id: db-1, security_groups: [db], fixed_ips: [10.0.0.30, '2001:db8::30'], allowed_address_pairs: [{ip_address: 10.3.0.0/16}]}
- {id: db-2, security_groups: [db], binding: {instance: db-2}}
members:
  db: [203.0.113.0/28]
";

fn made() -> Policy {
    policy(&[Document { name: "a".to_owned(), text: POLICY.to_owned() }]).unwrap()
}

fn port(groups: &[&str]) -> Attached {
    let mac = "fa:16:3e:00:00:01".parse().unwrap();
    Attached {
        id: PortId("p".to_owned()),
        ifindex: 7,
        mac,
        fixed_ips: ["10.0.0.2", "2001:db8::2"].iter().map(|text| text.parse().unwrap()).collect(),
        pairs: [(mac, "10.9.0.0/16".parse().unwrap())].into(),
        groups: groups.iter().map(|group| GroupId((*group).to_owned())).collect(),
        mode: Mode::Filtered,
        hook: Hook::Tc,
        log_allowed: false,
    }
}

fn query(from: &str, to: &str, protocol: u8, detail: Detail) -> Query {
    Query { from: from.parse().unwrap(), to: to.parse().unwrap(), protocol, detail }
}

fn ask(port: &Attached, query: &Query) -> Explanation {
    let policy = made();
    explain(&policy, port, &members(&policy, &BTreeMap::new()), query).unwrap()
}

/// A TCP packet to the port.
fn tcp(from: &str, port_: u16) -> Explanation {
    ask(&port(&["g-web"]), &query(from, "10.0.0.2", 6, Detail::Port(port_)))
}

fn rules(explanation: &Explanation) -> Vec<&str> {
    explanation.rules.iter().map(|rule| rule.0.as_str()).collect()
}

fn nearest(explanation: &Explanation) -> Vec<(&str, Condition)> {
    explanation.nearest.iter().map(|miss| (miss.rule.0.as_str(), miss.condition)).collect()
}

#[test]
fn a_packet_that_a_rule_allows_names_every_rule_that_does() {
    let https = tcp("203.0.113.200", 443);
    assert_eq!((https.verdict, rules(&https), https.direction), (Reason::Rule, vec!["https"], Direction::Ingress));
    assert!(https.nearest.is_empty());
    assert_eq!(rules(&tcp("192.0.2.77", 22)), ["ssh"]);
    let out = ask(&port(&["g-web"]), &query("10.0.0.2", "8.8.8.8", 17, Detail::Port(53)));
    assert_eq!((rules(&out), out.direction), (vec!["out"], Direction::Egress));
}

#[test]
fn members_are_fixed_addresses_pairs_and_what_was_said_of_other_hosts() {
    for from in ["10.0.0.30", "10.3.4.5", "203.0.113.1"] {
        assert_eq!(rules(&tcp(from, 5432)), ["db"], "{from}");
    }
    let stranger = tcp("10.0.0.32", 5432);
    assert_eq!((stranger.verdict, nearest(&stranger)[0]), (Reason::NoRule, ("db", Condition::Remote)));
    assert_eq!(stranger.nearest[0].why, "allows group db, and 10.0.0.32 is none of its 3 IPv4 addresses");
}

#[test]
fn the_nearest_miss_names_the_one_condition_that_fails() {
    let remote = tcp("198.51.100.1", 22);
    assert_eq!(remote.nearest[0].why, "allows 192.0.2.0/24, and 198.51.100.1 is outside");
    let port_ = tcp("198.51.100.1", 444);
    assert_eq!(port_.nearest[0].why, "allows tcp 443, and the packet is tcp 444");
    let family = tcp("198.51.100.1", 25);
    assert!(family.nearest.iter().any(|miss| miss.why == "is for IPv6, and the packet is IPv4" && miss.rule.0 == "v6"));
    let other = tcp("198.51.100.1", 5433);
    let of_group = other.nearest.iter().find(|miss| miss.condition == Condition::Group).unwrap();
    assert_eq!(
        (of_group.rule.0.as_str(), of_group.why.as_str()),
        ("psql", "allows it, and the port is not in group db")
    );
}

#[test]
fn nearer_ports_come_first_and_rules_two_conditions_away_not_at_all() {
    let told = tcp("198.51.100.1", 8150);
    assert_eq!(
        nearest(&told),
        [("high", Condition::Port), ("https", Condition::Port), ("vrrp", Condition::Protocol)],
        "and no rule of the other direction"
    );
    assert_eq!(nearest(&tcp("198.51.100.1", 53))[2], ("office", Condition::Protocol));
    assert_eq!(nearest(&tcp("198.51.100.1", 450))[..2], [("https", Condition::Port), ("high", Condition::Port)]);
}

#[test]
fn icmp_is_matched_by_type_and_code() {
    let icmp = |kind, code| ask(&port(&["g-web"]), &query("8.8.8.8", "10.0.0.2", 1, Detail::Icmp { kind, code }));
    assert_eq!(rules(&icmp(8, 0)), ["ping"]);
    let other = icmp(8, 1);
    assert_eq!((other.verdict, nearest(&other)[0]), (Reason::NoRule, ("ping", Condition::Port)));
    assert_eq!(other.nearest[0].why, "allows icmp type 8 code 0, and the packet is icmp type 8 code 1");
    assert_eq!((icmp(0, 0).verdict, icmp(3, 1).verdict), (Reason::Invalid, Reason::IcmpUnrelated));
}

#[test]
fn a_port_whose_groups_keep_no_state_asks_its_rules_about_answers_too() {
    let pong = query("8.8.8.8", "10.0.0.2", 1, Detail::Icmp { kind: 0, code: 0 });
    assert_eq!(rules(&ask(&port(&["raw"]), &pong)), ["pong"]);
    assert_eq!(ask(&port(&[]), &pong).verdict, Reason::Invalid);
}

#[test]
fn system_traffic_needs_no_rule_and_advertising_a_router_is_refused_with_one() {
    let icmp = |from, to, kind| ask(&port(&["g-web"]), &query(from, to, 58, Detail::Icmp { kind, code: 0 })).verdict;
    let (own, other) = ("2001:db8::2", "2001:db8::9");
    for (kind, out, inward) in [
        (130, Reason::System, Reason::System),
        (133, Reason::System, Reason::NoRule),
        (134, Reason::RouterAdvertisement, Reason::System),
        (135, Reason::System, Reason::System),
        (136, Reason::System, Reason::System),
        (129, Reason::Invalid, Reason::Invalid),
        (1, Reason::IcmpUnrelated, Reason::IcmpUnrelated),
    ] {
        assert_eq!((icmp(own, other, kind), icmp(other, own, kind)), (out, inward), "{kind}");
    }
}

#[test]
fn trusted_and_closed_ports_ask_no_rule() {
    let https = query("8.8.8.8", "10.0.0.2", 6, Detail::Port(443));
    let of = |mode| ask(&Attached { mode, ..port(&["g-web"]) }, &https).verdict;
    assert_eq!((of(Mode::Trusted), of(Mode::Closed)), (Reason::Trusted, Reason::NoPolicy));
}

#[test]
fn the_direction_follows_from_the_ports_addresses() {
    let direction = |from, to| ask(&port(&["g-web"]), &query(from, to, 17, Detail::Port(1))).direction;
    assert_eq!(direction("10.0.0.2", "10.0.0.30"), Direction::Egress);
    assert_eq!(direction("10.9.1.1", "10.0.0.30"), Direction::Egress);
    assert_eq!(direction("fe80::f816:3eff:fe00:1", "ff02::1"), Direction::Egress);
    assert_eq!(direction("10.0.0.30", "10.0.0.2"), Direction::Ingress);
    assert_eq!(direction("10.0.0.30", "255.255.255.255"), Direction::Ingress);
    assert_eq!(direction("10.0.0.30", "224.0.0.251"), Direction::Ingress);
}

#[test]
fn a_query_about_somebody_else_is_not_answered() {
    let policy = made();
    let told = |from, to| {
        explain(&policy, &port(&["g-web"]), &members(&policy, &BTreeMap::new()), &query(from, to, 6, Detail::Port(1)))
    };
    let own = vec!["10.0.0.2".to_owned(), "2001:db8::2".to_owned(), "10.9.0.0/16".to_owned()];
    assert_eq!(told("8.8.8.8", "10.0.0.3"), Err(Unclear::NotOfPort(own)));
    assert_eq!(told("10.0.0.2", "2001:db8::2"), Err(Unclear::Families));
}

#[test]
fn without_a_port_only_rules_for_the_whole_protocol_apply() {
    let told = ask(&port(&["g-web"]), &query("8.8.8.8", "10.0.0.2", 6, Detail::None));
    assert_eq!(told.verdict, Reason::NoRule);
    assert!(
        told.nearest[0].why.ends_with("and the packet is tcp of no port that was named"),
        "{}",
        told.nearest[0].why
    );
    assert_eq!(rules(&ask(&port(&["g-web"]), &query("8.8.8.8", "10.0.0.2", 112, Detail::None))), ["vrrp"]);
}

mod beside_the_evaluator {
    use std::{collections::BTreeMap, net::IpAddr};

    use netdiag_common::abi::reason::Reason;
    use proptest::{prelude::*, sample::select};

    use super::{super::explain, Detail, Direction, Query, made, members, port};
    use crate::policy::decide::{Context, Frame, Judge};

    const LOCAL: [&str; 4] = ["10.0.0.2", "10.9.1.1", "2001:db8::2", "fe80::f816:3eff:fe00:1"];
    const REMOTE: [&str; 9] = [
        "192.0.2.7",
        "198.51.100.1",
        "10.0.0.30",
        "10.3.4.5",
        "203.0.113.1",
        "203.0.113.99",
        "8.8.8.8",
        "2001:db8::30",
        "2001:db9::1",
    ];

    /// Groups the port is in.
    const GROUPS: [&[&str]; 5] = [&["g-web"], &["g-web", "db"], &["db"], &["raw"], &[]];

    /// What follows the IP header: enough for every protocol asked about. Neighbour discovery names the port's own address.
    fn transport(query: &Query) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        match query.detail {
            Detail::Port(port) => {
                bytes[0..2].copy_from_slice(&40_000_u16.to_be_bytes());
                bytes[2..4].copy_from_slice(&port.to_be_bytes());
                if query.protocol == 6 {
                    (bytes[12], bytes[13]) = (0x50, 0x02);
                } else {
                    bytes[5] = 64;
                }
            }
            Detail::Icmp { kind, code } => {
                (bytes[0], bytes[1]) = (kind, code);
                let own: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
                bytes[8..24].copy_from_slice(&own.octets());
            }
            Detail::None => {}
        }
        bytes
    }

    fn frame(query: &Query, source: [u8; 6]) -> Vec<u8> {
        let transport = transport(query);
        let length = u16::try_from(transport.len()).unwrap();
        let mut bytes = vec![0x02, 0, 0, 0, 0, 9];
        bytes.extend(source);
        match (query.from, query.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                bytes.extend([0x08, 0x00, 0x45, 0]);
                bytes.extend((length + 20).to_be_bytes());
                bytes.extend([0, 0, 0, 0, 255, query.protocol, 0, 0]);
                bytes.extend(from.octets().into_iter().chain(to.octets()));
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend([query.protocol, 255]);
                bytes.extend(from.octets().into_iter().chain(to.octets()));
            }
            _ => unreachable!("two families"),
        }
        bytes.extend(transport);
        bytes
    }

    fn detail(ipv6: bool) -> impl Strategy<Value = (u8, Detail)> {
        let ports = select(&[22_u16, 25, 53, 80, 443, 444, 5432, 5433, 7999, 8000, 8100, 8101][..]);
        let kinds = prop_oneof![0..20_u8, 127..144_u8];
        prop_oneof![
            (select(&[6_u8, 17][..]), ports).prop_map(|(protocol, port)| (protocol, Detail::Port(port))),
            (kinds, 0..3_u8).prop_map(move |(kind, code)| (if ipv6 { 58 } else { 1 }, Detail::Icmp { kind, code })),
            select(&[99_u8, 112][..]).prop_map(|protocol| (protocol, Detail::None)),
        ]
    }

    fn queries() -> impl Strategy<Value = (Query, Direction)> {
        let ends = (select(&LOCAL[..]), select(&REMOTE[..]), any::<bool>());
        let ends = ends.prop_map(|(local, remote, out)| {
            let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
            if out { (local, remote, Direction::Egress) } else { (remote, local, Direction::Ingress) }
        });
        let ends = ends.prop_filter("two families", |(from, to, _)| from.is_ipv4() == to.is_ipv4());
        ends.prop_flat_map(|(from, to, direction)| {
            detail(from.is_ipv6()).prop_map(move |(protocol, detail)| (Query { from, to, protocol, detail }, direction))
        })
    }

    proptest! {
        #![proptest_config(crate::testing::cases(5_000))]

        #[test]
        fn an_explanation_says_what_the_reference_evaluator_decides(
            (query, direction) in queries(),
            groups in select(&GROUPS[..]),
        ) {
            let (policy, port) = (made(), port(groups));
            let members = members(&policy, &BTreeMap::new());
            let source = if direction == Direction::Egress { port.mac.0 } else { [2, 0, 0, 0, 0, 7] };
            let bytes = frame(&query, source);
            let context = Context { policy: &policy, members: &members, port: &port };
            let frame = Frame { bytes: &bytes, vlan_beside: false, direction, now: 0 };
            let judged = Judge::default().judge(&context, &frame);
            let told = explain(&policy, &port, &members, &query).unwrap();
            let rules = told.rules.iter().cloned().collect();
            prop_assert_eq!((told.direction, told.verdict, rules), (direction, judged.reason, judged.rules));
            prop_assert!(told.verdict != Reason::Rule || told.nearest.is_empty());
        }
    }
}
