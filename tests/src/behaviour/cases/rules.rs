//! What a rule matches: direction, family, protocol, ports, ICMP type and code.

use serde_json::json;

use super::{Case, case};
use crate::behaviour::{
    Family::{V4, V6},
    Way::{In, Out},
    World,
    policy::rules,
    probe::BOTH,
};

pub(super) const CASES: &[Case] = &[
    case("without a rule nothing passes, either way", nothing),
    case("a rule allows its direction, family, protocol and port, and nothing else", one_port),
    case("a rule for the way out allows just that", way_out),
    case("a range of ports includes both its ends", range),
    case("all ports are the same as none given", all_ports),
    case("a rule without a protocol allows every protocol", any_protocol),
    case("a protocol is its number, in words or digits, in any case of letters", words),
    case("every protocol that has a name is told apart", names),
    case("SCTP, UDP-Lite and DCCP have ports", other_ports),
    case("protocol 0 is a protocol, not all of them", protocol_zero),
    case("an ICMP type without a code allows every code", icmp_type),
    case("an ICMP type with a code allows that code", icmp_code),
    case("ICMP type 0 and code 0 are a type and a code", icmp_zero),
    case("icmp in a rule for IPv6 is ICMPv6", icmp_of_ipv6),
    case("the groups of a port add up", union),
    case("what Neutron refuses is refused, and what was in force stays", impossible),
];

fn nothing(world: &mut World) {
    world.policy(&rules(&[]));
    for family in BOTH {
        for way in [In, Out] {
            world.tcp(way, family, 88, "no-rule");
            world.udp(way, family, 53, "no-rule");
            world.ping(way, family, "no-rule");
            world.packets(way, family, "no-rule", |packet| packet.other(47));
        }
    }
}

fn one_port(world: &mut World) {
    for (family, other, rule) in [(V4, V6, "ingress 4 tcp 88"), (V6, V4, "ingress 6 tcp 88")] {
        world.next_case();
        world.policy(&rules(&[rule]));
        world.tcp(In, family, 88, "rule");
        world.tcp(In, family, 89, "no-rule");
        world.tcp(In, other, 88, "no-rule");
        world.udp(In, family, 88, "no-rule");
        world.ping(In, family, "no-rule");
        world.tcp(Out, family, 88, "no-rule");
    }
    world.next_case();
    world.policy(&rules(&["ingress 4 udp 53", "ingress 6 udp 54"]));
    world.udp(In, V4, 53, "rule");
    world.udp(In, V6, 54, "rule");
    world.udp(In, V4, 54, "no-rule");
    world.udp(In, V6, 53, "no-rule");
    world.tcp(In, V4, 53, "no-rule");
}

fn way_out(world: &mut World) {
    world.policy(&rules(&["egress 4 tcp 443", "egress 6 udp 123"]));
    world.tcp(Out, V4, 443, "rule");
    world.udp(Out, V6, 123, "rule");
    world.tcp(Out, V4, 88, "no-rule");
    world.tcp(Out, V6, 443, "no-rule");
    world.udp(Out, V4, 123, "no-rule");
    world.tcp(In, V4, 443, "no-rule");
    world.udp(In, V6, 123, "no-rule");
}

fn range(world: &mut World) {
    world.policy(&rules(&["ingress 4 tcp 8000-8010", "ingress 6 udp 8000-8010"]));
    for (port, reason) in [(7999, "no-rule"), (8000, "rule"), (8005, "rule"), (8010, "rule"), (8011, "no-rule")] {
        world.tcp(In, V4, port, reason);
        world.udp(In, V6, port, reason);
    }
}

fn all_ports(world: &mut World) {
    world.policy(&rules(&["ingress 4 tcp 1-65535", "ingress 6 udp"]));
    for port in [0, 1, 65535] {
        world.packets(In, V4, "rule", |packet| packet.tcp(4000, port, 2));
        world.packets(In, V6, "rule", |packet| packet.udp(4000, port));
    }
}

fn any_protocol(world: &mut World) {
    world.policy(&rules(&["ingress 4 any", "egress 6 any"]));
    for (way, family) in [(In, V4), (Out, V6)] {
        world.tcp(way, family, 88, "rule");
        world.udp(way, family, 53, "rule");
        world.ping(way, family, "rule");
        for protocol in [47, 50, 112, 132, 253] {
            world.packets(way, family, "rule", |packet| packet.other(protocol));
        }
    }
    world.tcp(Out, V4, 88, "no-rule");
    world.tcp(In, V6, 88, "no-rule");
}

fn words(world: &mut World) {
    for (rule, reason) in [
        ("ingress 4 17 53", "rule"),
        ("ingress 4 UDP 53", "rule"),
        ("ingress 4 udp 53", "rule"),
        ("ingress 4 tcp 53", "no-rule"),
        ("ingress 4 6 53", "no-rule"),
    ] {
        world.next_case();
        world.policy(&rules(&[rule]));
        world.udp(In, V4, 53, reason);
    }
}

/// Names of protocols with neither ports nor types (IANA, Assigned Internet Protocol Numbers).
const NAMES: [(&str, u8); 11] = [
    ("ah", 51),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("igmp", 2),
    ("ipip", 4),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("vrrp", 112),
    ("253", 253),
];

fn names(world: &mut World) {
    // Half of them at a time: each is tried with and without its rule.
    for odd in [0, 1] {
        world.next_case();
        let (with, without): (Vec<_>, Vec<_>) = NAMES.iter().enumerate().partition(|(place, _)| place % 2 == odd);
        let texts: Vec<_> = with.iter().map(|(_, (name, _))| format!("ingress 4 {name}")).collect();
        world.policy(&rules(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
        for (_, (_, protocol)) in with {
            world.packets(In, V4, "rule", |packet| packet.other(*protocol));
        }
        for (_, (_, protocol)) in without {
            world.packets(In, V4, "no-rule", |packet| packet.other(*protocol));
        }
    }
    world.next_case();
    world.policy(&rules(&["ingress 6 ipv6-encap", "egress 6 ipv6-nonxt", "egress 6 112"]));
    world.packets(Out, V6, "no-rule", |packet| packet.other(41));
    world.packets(In, V6, "rule", |packet| packet.other(41));
    world.packets(In, V6, "no-rule", |packet| packet.other(59));
    world.packets(Out, V6, "rule", |packet| packet.other(59));
    world.packets(Out, V6, "rule", |packet| packet.other(112));
}

fn other_ports(world: &mut World) {
    world.policy(&rules(&["ingress 4 sctp 5000", "ingress 6 udplite 5000-5001", "egress 4 dccp 5000"]));
    for (way, family, protocol) in [(In, V4, 132), (In, V6, 136), (Out, V4, 33)] {
        world.packets(way, family, "rule", |packet| packet.ports(protocol, 4000, 5000));
        world.packets(way, family, "no-rule", |packet| packet.ports(protocol, 4000, 5002));
        world.packets(way.back(), family, "established", |packet| packet.ports(protocol, 5000, 4000));
        world.packets(way.back(), family, "no-rule", |packet| packet.ports(protocol, 5000, 4001));
    }
}

fn protocol_zero(world: &mut World) {
    world.policy(&rules(&["ingress 4 ip"]));
    world.packets(In, V4, "rule", |packet| packet.other(0));
    world.packets(In, V4, "no-rule", |packet| packet.other(47));
    world.tcp(In, V4, 88, "no-rule");
}

fn icmp_type(world: &mut World) {
    world.policy(&rules(&["ingress 4 icmp 8", "ingress 6 ipv6-icmp 128", "egress 4 icmp"]));
    world.ping(In, V4, "rule");
    world.ping(In, V6, "rule");
    world.ping(Out, V4, "rule");
    world.ping(Out, V6, "no-rule");
    world.packets(In, V4, "rule", |packet| packet.icmp(8, 1, &[0, 9, 0, 1]));
    world.packets(In, V6, "rule", |packet| packet.icmp(128, 7, &[0, 9, 0, 1]));
    world.packets(In, V4, "no-rule", |packet| packet.icmp(13, 0, &[0, 9, 0, 1]));
    world.packets(In, V4, "no-rule", |packet| packet.icmp(10, 0, &[0; 4]));
    world.packets(In, V6, "no-rule", |packet| packet.icmp(139, 0, &[0; 16]));
}

fn icmp_code(world: &mut World) {
    world.policy(&rules(&["ingress 4 icmp 8/1", "ingress 6 icmpv6 128/1"]));
    for (family, kind) in [(V4, 8), (V6, 128)] {
        world.packets(In, family, "rule", |packet| packet.icmp(kind, 1, &[0, 10, 0, 1]));
        world.packets(In, family, "no-rule", |packet| packet.icmp(kind, 0, &[0, 11, 0, 1]));
        world.ping(In, family, "no-rule");
    }
}

fn icmp_zero(world: &mut World) {
    world.policy(&rules(&["ingress 4 icmp 0", "ingress 4 icmp 8/0"]));
    world.ping(In, V4, "rule");
    world.packets(In, V4, "no-rule", |packet| packet.icmp(8, 1, &[0, 12, 0, 1]));
    world.next_case();
    world.policy(&rules(&["ingress 4 icmp 0/0"]));
    world.ping(In, V4, "no-rule");
    world.packets(In, V4, "no-rule", |packet| packet.icmp(10, 0, &[0; 4]));
}

fn icmp_of_ipv6(world: &mut World) {
    for name in ["icmp", "icmpv6", "ipv6-icmp", "1", "58"] {
        world.next_case();
        world.policy(&rules(&[&format!("ingress 6 {name} 128")]));
        world.packets(In, V6, "rule", |packet| packet.icmp(128, 0, &[0, 9, 0, 1]));
        world.packets(In, V6, "no-rule", |packet| packet.icmp(139, 0, &[0; 16]));
    }
}

fn union(world: &mut World) {
    world.policy(&rules(&["ingress 4 tcp 88"]).group("b", &["ingress 6 udp 53"]).group("c", &["egress 4 icmp"]));
    world.tcp(In, V4, 88, "rule");
    world.udp(In, V6, 53, "rule");
    world.ping(Out, V4, "rule");
    world.tcp(In, V6, 88, "no-rule");
    world.udp(In, V4, 53, "no-rule");
    world.ping(In, V4, "no-rule");
}

fn impossible(world: &mut World) {
    let good = rules(&["ingress 4 tcp 88"]);
    world.policy(&good);
    for rule in [
        "ingress 4 tcp 90-89",
        "ingress 4 tcp 0-10",
        "ingress 4 gre 88",
        "ingress 4 any 88",
        "ingress 4 ipv6-icmp",
        "ingress 4 60",
        "ingress 4 icmp 256",
        "ingress 4 icmp 8/256",
        "ingress 4 256",
        "ingress 4 nothing",
        "ingress 4 tcp 88 from fd77::/64",
        "ingress 6 tcp 88 from 10.77.0.0/24",
        "ingress 4 tcp 88 group nowhere",
        "ingress 4 tcp 88 addresses nowhere",
        "inward 4 tcp 88",
        "ingress 5 tcp 88",
    ] {
        world.refuses(&rules(&[rule]));
    }
    world.refuses(&good.clone().port("port_security_enabled", json!(false)));
    world.refuses(&good.clone().port("fixed_ips", json!([{ "ip_address": "10.77.0" }])));
    world.refuses(&good.clone().port("mac_address", json!("02:00")));
    world.refuses(&good.clone().stateless().group("b", &[]));
    world.tcp(In, V4, 88, "rule");
    world.tcp(In, V4, 89, "no-rule");
}
