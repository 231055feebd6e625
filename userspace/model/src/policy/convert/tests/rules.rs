//! Rules as Neutron means them.

use super::*;

const TCP: u8 = 6;

#[test]
fn every_protocol_has_its_number_by_any_spelling() {
    let names = [
        ("ah", 51),
        ("dccp", 33),
        ("egp", 8),
        ("esp", 50),
        ("gre", 47),
        ("hopopt", 0),
        ("icmp", 1),
        ("igmp", 2),
        ("ip", 0),
        ("ipip", 4),
        ("ospf", 89),
        ("pgm", 113),
        ("rsvp", 46),
        ("sctp", 132),
        ("tcp", 6),
        ("udp", 17),
        ("udplite", 136),
        ("vrrp", 112),
        ("VRRP", 112),
        ("0", 0),
        ("'255'", 255),
    ];
    for (name, number) in names {
        assert_eq!(rule(&format!("protocol: {name}")).service, Service::Protocol(number), "{name}");
    }
    for (name, number) in [
        ("ipv6-encap", 41),
        ("ipv6-frag", 44),
        ("ipv6-icmp", 58),
        ("icmpv6", 58),
        ("ipv6-nonxt", 59),
        ("ipv6-opts", 60),
        ("ipv6-route", 43),
    ] {
        let fields = |ethertype| format!("protocol: {name}, ethertype: {ethertype}");
        assert_eq!(rule(&fields("IPv6")).service, Service::Protocol(number), "{name}");
        let told = mistake(&with_fields(&fields("IPv4")));
        assert_eq!((told.field.as_str(), told.line), ("protocol", 1));
        assert!(told.why.contains("IPv6 only"), "{told}");
    }
}

#[test]
fn icmp_of_ipv6_is_icmpv6_however_it_is_written() {
    for name in ["icmp", "icmpv6", "ipv6-icmp", "1", "58", "ICMP"] {
        let rule = rule(&format!("ethertype: ipv6, protocol: {name}"));
        assert_eq!(rule.service, Service::Protocol(58), "{name}");
    }
}

#[test]
fn no_protocol_any_and_minus_one_are_every_protocol() {
    for fields in
        ["ethertype: IPv4", "protocol: null", "protocol: any", "protocol: ANY", "protocol: -1", "protocol: '-1'"]
    {
        assert_eq!(rule(fields).service, Service::Any, "{fields}");
    }
}

#[test]
fn protocol_0_is_a_protocol_and_not_any() {
    assert_eq!(rule("protocol: 0").service, Service::Protocol(0));
}

#[test]
fn a_protocol_nobody_knows_is_refused_and_the_known_ones_are_listed() {
    for name in ["tpc", "256", "-2", "+6", "6.0"] {
        let told = mistake(&with_fields(&format!("protocol: {name}")));
        assert_eq!(told.object, "security group web, rule 1");
        assert!(told.valid.contains(&"tcp".to_owned()) && told.valid.contains(&"any".to_owned()), "{told}");
    }
}

#[test]
fn ports_are_kept_and_all_of_them_are_the_protocol() {
    let ports = |min, max| rule(&format!("protocol: tcp, port_range_min: {min}, port_range_max: {max}")).service;
    assert_eq!(ports(443, 443), Service::Ports { protocol: TCP, first: 443, last: 443 });
    assert_eq!(ports(1, 65534), Service::Ports { protocol: TCP, first: 1, last: 65534 });
    assert_eq!(ports(1, 65535), Service::Protocol(TCP));
    assert_eq!(
        rule("protocol: '17', port_range_min: '53', port_range_max: '53'").service,
        Service::Ports { protocol: 17, first: 53, last: 53 }
    );
}

#[test]
fn five_protocols_have_ports_and_no_other() {
    let fields = |protocol: &str| format!("protocol: {protocol}, port_range_min: 1, port_range_max: 2");
    for protocol in ["tcp", "udp", "sctp", "dccp", "udplite", "136"] {
        assert!(matches!(rule(&fields(protocol)).service, Service::Ports { first: 1, last: 2, .. }), "{protocol}");
    }
    for protocol in ["gre", "0", "ip", "any", "null", "112"] {
        let told = mistake(&with_fields(&fields(protocol)));
        assert_eq!((told.field.as_str(), told.valid.len()), ("port_range_min", 5), "{told}");
    }
}

#[test]
fn half_a_range_port_0_and_a_range_in_the_wrong_order_are_refused() {
    for (fields, field, why) in [
        ("port_range_min: 80", "port_range_max", "is missing beside port_range_min"),
        ("port_range_max: 80", "port_range_min", "is missing beside port_range_max"),
        ("port_range_min: 0, port_range_max: 80", "port_range_min", "0 is no port"),
        ("port_range_min: 0, port_range_max: 0", "port_range_min", "0 is no port"),
        ("port_range_min: 81, port_range_max: 80", "port_range_min", "81 is after port_range_max, 80"),
        ("port_range_min: 1, port_range_max: 65536", "port_range_max", "is `65536`, and should be a port"),
        ("port_range_min: -1, port_range_max: -1", "port_range_min", "is `-1`, and should be a port"),
        ("port_range_min: [1], port_range_max: 2", "port_range_min", "is a list, and should be a port"),
    ] {
        let told = mistake(&with_fields(&format!("protocol: tcp, {fields}")));
        assert_eq!((told.field.as_str(), told.why.as_str()), (field, why));
    }
}

#[test]
fn type_and_code_0_of_icmp_are_a_type_and_a_code() {
    let icmp = |fields: &str| rule(&format!("protocol: icmp, {fields}")).service;
    let of = |kind, code| Service::Icmp { protocol: 1, kind, code };
    assert_eq!(icmp("port_range_min: 0, port_range_max: 0"), of(0, Some(0)));
    assert_eq!(icmp("port_range_min: 0, port_range_max: null"), of(0, None));
    assert_eq!(icmp("port_range_min: 8"), of(8, None));
    assert_eq!(icmp("port_range_min: 3, port_range_max: 1"), of(3, Some(1)));
    assert_eq!(icmp("port_range_min: null"), Service::Protocol(1));
    let v6 = rule("ethertype: IPv6, protocol: icmp, port_range_min: 128").service;
    assert_eq!(v6, Service::Icmp { protocol: 58, kind: 128, code: None });
}

#[test]
fn a_code_without_its_type_and_one_above_255_are_refused() {
    let told = |fields: &str| mistake(&with_fields(&format!("protocol: icmp, {fields}")));
    assert_eq!(told("port_range_max: 0").why, "is an ICMP code, and needs the type in port_range_min");
    assert_eq!(told("port_range_min: 256").field, "port_range_min");
    assert_eq!(told("port_range_min: 3, port_range_max: 256").field, "port_range_max");
}

#[test]
fn direction_must_be_given_and_be_one_of_two() {
    let text =
        "security_groups:\n- name: web\n  rules:\n  - protocol: tcp\n  - direction: inbound\n  - direction: EGRESS\n";
    assert_eq!(
        refused(text),
        [
            "a.yaml:4: security group web, rule 1: direction: is missing; valid: ingress, egress",
            "a.yaml:5: security group web, rule 2: direction: `inbound` is no direction; valid: ingress, egress",
        ]
    );
}

#[test]
fn ethertype_is_ipv4_by_default_and_taken_in_any_case() {
    for (fields, family) in [
        ("protocol: tcp", Ethertype::IPv4),
        ("ethertype: ipv4", Ethertype::IPv4),
        ("ethertype: IPV6", Ethertype::IPv6),
        ("ether_type: IPv6", Ethertype::IPv6),
    ] {
        assert_eq!(rule(fields).ethertype, family, "{fields}");
    }
    let told = mistake(&with_fields("ethertype: IP"));
    assert_eq!((told.field.as_str(), &told.valid[..]), ("ethertype", &["IPv4".to_owned(), "IPv6".to_owned()][..]));
}

#[test]
fn a_remote_prefix_loses_its_host_bits_and_zero_length_is_everybody() {
    let remote = |fields: &str| rule(fields).remote;
    let prefix = |text: &str| Remote::Prefix(text.parse().unwrap());
    assert_eq!(remote("remote_ip_prefix: 10.1.2.3/8"), prefix("10.0.0.0/8"));
    assert_eq!(remote("remote_ip_prefix: 192.0.2.7"), prefix("192.0.2.7/32"));
    assert_eq!(remote("ethertype: IPv6, remote_ip_prefix: '2001:db8::1/32'"), prefix("2001:db8::/32"));
    assert_eq!(remote("remote_ip_prefix: 10.9.9.9/0"), Remote::Any);
    assert_eq!(remote("ethertype: IPv6, remote_ip_prefix: '::/0'"), Remote::Any);
    assert_eq!(remote("remote_ip_prefix: null, remote_group_id: null"), Remote::Any);
}

#[test]
fn a_remote_prefix_must_be_one_and_of_the_rules_family() {
    for (fields, why) in [
        ("remote_ip_prefix: '2001:db8::/32'", "2001:db8::/32 is IPv6, and the rule is for IPv4 (`ethertype`)"),
        ("ethertype: IPv6, remote_ip_prefix: 0.0.0.0/0", "0.0.0.0/0 is IPv4, and the rule is for IPv6 (`ethertype`)"),
        ("remote_ip_prefix: 10.0.0.0/33", "`10.0.0.0/33` is no prefix: 192.0.2.0/24, 2001:db8::/64, or an address"),
        ("remote_ip_prefix: ''", "is ``, and should be text"),
    ] {
        let told = mistake(&with_fields(fields));
        assert_eq!((told.field.as_str(), told.why.as_str()), ("remote_ip_prefix", why));
    }
}

#[test]
fn a_remote_group_is_found_by_name_and_two_remotes_are_refused() {
    assert_eq!(rule("remote_group_id: web").remote, Remote::Group(group("web")));
    let both = "remote_group_id: web, remote_ip_prefix: 10.0.0.0/8";
    let told = mistake(&with_fields(both));
    assert_eq!(
        (told.field.as_str(), told.why.as_str()),
        ("remote_group_id", "stands beside remote_ip_prefix; a rule has one remote at most")
    );
    let told = mistake(&with_fields("remote_address_group_id: office, remote_group_id: web"));
    assert_eq!(told.field, "remote_address_group_id");
}

#[test]
fn rules_without_an_id_are_named_by_their_place_in_their_direction() {
    let rules = rules_of(
        "security_groups:\n- name: web\n  rules:\n  - {direction: egress}\n  - {direction: ingress, protocol: tcp}\n  - {direction: ingress, id: mine, protocol: udp}\n  - {direction: ingress, protocol: icmp}\n",
    );
    let ids: Vec<&str> = rules.iter().map(|rule| rule.id.0.as_str()).collect();
    assert_eq!(ids, ["web/egress/1", "web/ingress/1", "mine", "web/ingress/3"]);
}

#[test]
fn the_same_rule_twice_is_refused_however_it_is_written() {
    let same = [
        ("protocol: tcp", "protocol: 6"),
        ("protocol: tcp", "protocol: TCP, port_range_min: 1, port_range_max: 65535"),
        ("remote_ip_prefix: 0.0.0.0/0", "ethertype: ipv4"),
        ("remote_ip_prefix: 10.0.0.1/8", "remote_ip_prefix: 10.2.0.0/8"),
        ("ethertype: IPv6, protocol: icmp", "ethertype: IPv6, protocol: 58"),
        ("remote_group_id: web", "remote_group_id: web, description: again"),
    ];
    for (one, other) in same {
        let text = format!(
            "security_groups:\n- name: web\n  rules:\n  - {{direction: ingress, {one}}}\n  - {{direction: ingress, {other}}}\n"
        );
        let told = mistake(&text).to_string();
        let expected =
            "a.yaml:5: security group web, rule 2: allows the same as security group web, rule 1 at a.yaml:4";
        assert_eq!(told, expected, "{one} / {other}");
    }
}

#[test]
fn rules_that_differ_in_one_thing_are_two() {
    let text = "security_groups:\n- name: web\n  rules:\n  - {direction: ingress, protocol: tcp}\n  - {direction: egress, protocol: tcp}\n  - {direction: ingress, protocol: tcp, ethertype: IPv6}\n  - {direction: ingress, protocol: udp}\n  - {direction: ingress, protocol: tcp, remote_ip_prefix: 10.0.0.0/8}\n  - {direction: ingress, protocol: tcp, port_range_min: 1, port_range_max: 2}\n  - {direction: ingress, protocol: icmp, port_range_min: 0}\n  - {direction: ingress, protocol: icmp, port_range_min: 0, port_range_max: 0}\n";
    assert_eq!(rules_of(text).len(), 8);
}

#[test]
fn the_description_of_a_rule_is_kept() {
    let made = rule("description: from the office");
    assert_eq!((made.description.as_str(), made.direction), ("from the office", Direction::Ingress));
    assert_eq!(made.id, RuleId("web/ingress/1".to_owned()));
}
