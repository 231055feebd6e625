use std::time::{Duration, Instant};

use super::{Effect, Outcome, Walk, walk};
use crate::{
    fact::RuleBackend,
    netfilter::{
        Address, Hook, Known, Packet, Ruleset,
        packet::{Bits, CtState},
        parse::tests::{DOCKER, HYBRID, ROUTER},
    },
};

fn ruleset(text: &str) -> Ruleset {
    let (ruleset, problems) = Ruleset::read(RuleBackend::IptablesLegacy, false, text);
    assert_eq!(problems, []);
    ruleset
}

fn filter(rules: &str) -> Ruleset {
    ruleset(&format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:a - [0:0]\n:b - [0:0]\n{}\nCOMMIT\n",
        rules.trim()
    ))
}

fn ip(text: &str) -> Address {
    Address::Is(text.parse().unwrap())
}

fn device(name: &str) -> Known<String> {
    Known::Is(name.to_owned())
}

/// The table, chain and number of the step the outcome is about.
fn place(walk: &Walk) -> (&str, &str, Option<u32>) {
    let step = walk.deciding().unwrap();
    (&step.table, &step.chain, step.number)
}

/// A packet through PREROUTING and then POSTROUTING of a router, as a routed one goes.
fn routed(packet: Packet, out: &str) -> (Walk, Walk) {
    let router = ruleset(ROUTER);
    let before = walk(&[&router], Hook::Prerouting, packet);
    assert_eq!(before.outcome, Outcome::Accept);
    let leaving = Packet { out_device: device(out), ..before.packet.clone() };
    let after = walk(&[&router], Hook::Postrouting, leaving);
    assert_eq!(after.outcome, Outcome::Accept);
    (before, after)
}

const OUTER: &str = "qg-3f1d2c4b-5a";
const INNER: &str = "qr-9b8a7c6d-5e";

// === Neutron's router ===

#[test]
fn a_packet_to_a_floating_ip_goes_to_the_fixed_ip_and_keeps_its_source() {
    let packet = Packet::between(Address::Outside, ip("172.24.4.6")).tcp(22);
    let (before, after) = routed(Packet { in_device: device(OUTER), ..packet }, INNER);
    assert_eq!(before.packet.destination, ip("10.0.0.2"));
    assert_eq!(before.packet.dnatted, Known::Is(true));
    assert_eq!(after.packet.source, Address::Outside);
    let nat: Vec<_> = before.steps.iter().filter(|step| matches!(step.effect, Effect::Dnat(..))).collect();
    assert_eq!((nat.len(), nat[0].certain), (1, true));
    assert_eq!(nat[0].raw, "-A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2");
}

#[test]
fn an_instance_with_a_floating_ip_leaves_as_that_and_not_as_the_gateway() {
    let packet = Packet::between(ip("10.0.0.2"), Address::Outside).tcp(443);
    let (_, after) = routed(Packet { in_device: device(INNER), ..packet }, OUTER);
    assert_eq!(after.packet.source, ip("172.24.4.6"));
    assert!(after.steps.iter().all(|step| step.certain));
}

#[test]
fn an_instance_without_a_floating_ip_leaves_as_the_gateway() {
    let packet = Packet::between(ip("10.0.0.3"), Address::Outside).echo_request();
    let (_, after) = routed(Packet { in_device: device(INNER), ..packet }, OUTER);
    assert_eq!(after.packet.source, ip("172.24.4.2"));
}

#[test]
fn an_instance_that_calls_its_neighbours_floating_ip_comes_from_the_gateway() {
    let packet = Packet::between(ip("10.0.0.3"), ip("172.24.4.6")).tcp(80);
    let (before, after) = routed(Packet { in_device: device(INNER), ..packet }, INNER);
    assert_eq!(before.packet.destination, ip("10.0.0.2"));
    assert_eq!(after.packet.source, ip("172.24.4.2"));
}

#[test]
fn an_instance_with_a_floating_ip_that_calls_another_comes_from_its_own() {
    let packet = Packet::between(ip("10.0.0.7"), ip("172.24.4.6")).tcp(80);
    let (_, after) = routed(Packet { in_device: device(INNER), ..packet }, INNER);
    assert_eq!(after.packet.source, ip("172.24.4.7"));
}

#[test]
fn a_packet_between_two_subnets_is_not_translated() {
    let packet = Packet::between(ip("10.0.0.2"), ip("10.1.0.9")).tcp(80);
    let (_, after) = routed(Packet { in_device: device(INNER), ..packet }, "qr-00000000-00");
    assert_eq!((after.packet.source, after.packet.destination), (ip("10.0.0.2"), ip("10.1.0.9")));
    // The guard accepts in the nat table, and nothing after it is asked.
    let last = after.steps.last().unwrap();
    assert_eq!((last.chain.as_str(), &last.effect), ("neutron-l3-agent-POSTROUTING", &Effect::Accept));
}

#[test]
fn a_metadata_request_is_marked_redirected_and_let_in() {
    let router = ruleset(ROUTER);
    let packet = Packet::between(ip("10.0.0.2"), ip("169.254.169.254")).tcp(80);
    let before = walk(&[&router], Hook::Prerouting, Packet { in_device: device(INNER), ..packet });
    assert_eq!(before.packet.destination, Address::Local);
    assert_eq!(before.packet.destination_port, Known::Is(9697));
    assert_eq!(before.packet.mark.equal(1, 0xffff), Some(true));
    let inside = walk(&[&router], Hook::Input, before.packet);
    assert_eq!(inside.outcome, Outcome::Accept);
    assert_eq!(inside.steps.last().unwrap().effect, Effect::Accept);
}

#[test]
fn the_metadata_proxy_cannot_be_reached_without_the_mark() {
    let router = ruleset(ROUTER);
    let packet = Packet::between(Address::Outside, ip("172.24.4.2")).tcp(9697);
    let before = walk(&[&router], Hook::Prerouting, Packet { in_device: device(OUTER), ..packet });
    let inside = walk(&[&router], Hook::Input, before.packet);
    assert!(matches!(inside.outcome, Outcome::Drop { reject: false, .. }));
    assert_eq!(place(&inside), ("filter", "neutron-l3-agent-INPUT", Some(2)));
}

#[test]
fn a_forwarded_port_is_shifted_within_its_range() {
    let packet = |port| {
        let packet = Packet::between(Address::Outside, ip("172.24.4.9")).tcp(port);
        let (before, _) = routed(Packet { in_device: device(OUTER), ..packet }, INNER);
        (before.packet.destination, before.packet.destination_port)
    };
    assert_eq!(packet(2222), (ip("10.0.0.9"), Known::Is(22)));
    assert_eq!(packet(43), (ip("10.0.0.9"), Known::Is(63)));
    assert_eq!(packet(2223), (ip("172.24.4.9"), Known::Is(2223)));
}

#[test]
fn an_established_flow_is_not_asked_of_nat_rules() {
    let router = ruleset(ROUTER);
    let packet =
        Packet { state: Known::Is(CtState::Established), ..Packet::between(Address::Outside, ip("172.24.4.6")) };
    let walked = walk(&[&router], Hook::Prerouting, packet);
    assert_eq!(walked.packet.destination, ip("172.24.4.6"));
    assert!(walked.steps.iter().all(|step| step.table != "nat"));
}

#[test]
fn where_the_state_is_not_known_the_translated_address_is_not_either() {
    let router = ruleset(ROUTER);
    let packet = Packet { state: Known::Unknown, ..Packet::between(Address::Outside, ip("172.24.4.6")).tcp(22) };
    let walked = walk(&[&router], Hook::Prerouting, packet);
    assert_eq!((walked.outcome, walked.packet.destination), (Outcome::Accept, Address::Unknown));
}

// === hybrid security groups ===

/// A packet to the instance's port of the hybrid rule set.
fn inward(source: Address) -> Packet {
    Packet {
        in_device: device("qbr1a2b3c4d-5e"),
        out_device: device("qbr1a2b3c4d-5e"),
        physdev_in: device("qvb1a2b3c4d-5e"),
        physdev_out: device("tap1a2b3c4d-5e"),
        bridged: Known::Is(true),
        ..Packet::between(source, ip("10.0.0.5"))
    }
}

/// A packet from it.
fn outward(mac: &str) -> Packet {
    let Packet { physdev_in, physdev_out, .. } = inward(Address::Outside);
    Packet {
        physdev_in: physdev_out,
        physdev_out: physdev_in,
        source_mac: Known::Is(mac.parse().unwrap()),
        source: ip("10.0.0.5"),
        destination: Address::Outside,
        ..inward(Address::Outside)
    }
}

fn hybrid_without_sets() -> Ruleset {
    let text: String =
        HYBRID.lines().filter(|line| !line.contains("match-set")).fold(String::new(), |all, line| all + line + "\n");
    ruleset(&text)
}

#[test]
fn a_security_group_lets_in_what_its_rule_names() {
    let walked = walk(&[&hybrid_without_sets()], Hook::Forward, inward(ip("192.0.2.9")).tcp(22));
    assert_eq!(walked.outcome, Outcome::Accept);
    let rule = walked.steps.iter().find(|step| step.effect == Effect::Return).unwrap();
    assert_eq!(rule.raw, "-A neutron-openvswi-i1a2b3c4d-5 -s 192.0.2.0/24 -p tcp -m tcp --dport 22 -j RETURN");
}

#[test]
fn a_security_group_drops_what_no_rule_names_in_the_fallback_chain() {
    let walked = walk(&[&hybrid_without_sets()], Hook::Forward, inward(Address::Outside).tcp(22));
    assert_eq!(place(&walked), ("filter", "neutron-openvswi-sg-fallback", Some(1)));
    assert!(walked.deciding().unwrap().certain);
}

#[test]
fn an_ipset_that_may_let_a_packet_in_makes_the_answer_unknown_and_is_named() {
    let walked = walk(&[&ruleset(HYBRID)], Hook::Forward, inward(ip("10.0.0.9")).tcp(443));
    let Outcome::Unknown { why, .. } = &walked.outcome else { panic!("{walked:?}") };
    assert_eq!(why, "the members of the set NIPv45f0a1b2c-3d4e-4f5a-8b9c-0 are not known");
    assert_eq!(place(&walked), ("filter", "neutron-openvswi-i1a2b3c4d-5", Some(7)));
}

#[test]
fn an_ipset_after_the_rule_that_allows_changes_nothing() {
    let walked = walk(&[&ruleset(HYBRID)], Hook::Forward, inward(ip("192.0.2.9")).tcp(22));
    assert_eq!(walked.outcome, Outcome::Accept);
    assert!(walked.steps.iter().all(|step| step.certain));
}

#[test]
fn outward_the_group_lets_out_its_ports_and_only_from_the_ports_own_mac() {
    let rules = ruleset(HYBRID);
    let own = walk(&[&rules], Hook::Forward, outward("fa:16:3e:11:22:33").tcp(22));
    assert_eq!(own.outcome, Outcome::Accept);
    let spoofed = walk(&[&rules], Hook::Forward, outward("fa:16:3e:99:99:99").tcp(22));
    assert_eq!(place(&spoofed), ("filter", "neutron-openvswi-s1a2b3c4d-5", Some(2)));
    let other = walk(&[&rules], Hook::Forward, outward("fa:16:3e:11:22:33").tcp(23));
    assert_eq!(place(&other), ("filter", "neutron-openvswi-sg-fallback", Some(1)));
}

#[test]
fn the_zone_of_a_port_is_set_before_connection_tracking() {
    let walked = walk(&[&ruleset(HYBRID)], Hook::Prerouting, outward("fa:16:3e:11:22:33").tcp(22));
    assert_eq!(walked.packet.zone, Known::Is(4097));
    let stateless = Packet { physdev_in: device("tapaabbccdd-ee"), ..outward("fa:16:3e:11:22:33") };
    let walked = walk(&[&ruleset(HYBRID)], Hook::Prerouting, stateless);
    assert_eq!(walked.packet.state, Known::Is(CtState::Untracked));
}

#[test]
fn a_port_without_port_security_passes() {
    let packet = Packet { physdev_out: device("tap77777777-77"), ..inward(Address::Outside).udp(9) };
    assert_eq!(walk(&[&ruleset(HYBRID)], Hook::Forward, packet).outcome, Outcome::Accept);
}

// === Docker ===

#[test]
fn a_published_port_leads_to_the_container_and_is_let_through() {
    let docker = ruleset(DOCKER);
    let packet = Packet::between(Address::Outside, ip("192.0.2.1")).tcp(8080);
    let packet = Packet { in_device: device("eth0"), to_local: Known::Is(true), ..packet };
    let before = walk(&[&docker], Hook::Prerouting, packet);
    assert_eq!((before.packet.destination, before.packet.destination_port), (ip("172.17.0.2"), Known::Is(80)));
    let through = Packet { out_device: device("docker0"), ..before.packet };
    assert_eq!(walk(&[&docker], Hook::Forward, through.clone()).outcome, Outcome::Accept);
    let other = walk(&[&docker], Hook::Forward, Packet { destination_port: Known::Is(81), ..through });
    assert_eq!(place(&other), ("filter", "DOCKER", Some(2)));
}

#[test]
fn direct_access_to_a_container_dies_in_the_raw_table_before_any_filter() {
    let packet = Packet::between(Address::Outside, ip("172.17.0.2")).tcp(80);
    let walked = walk(&[&ruleset(DOCKER)], Hook::Prerouting, Packet { in_device: device("eth0"), ..packet });
    assert_eq!(place(&walked), ("raw", "PREROUTING", Some(1)));
    assert_eq!(walked.steps.len(), 1);
}

#[test]
fn a_container_leaves_under_an_address_of_the_host() {
    let packet = Packet::between(ip("172.17.0.2"), Address::Outside).tcp(443);
    let walked = walk(&[&ruleset(DOCKER)], Hook::Postrouting, Packet { out_device: device("eth0"), ..packet });
    assert_eq!((walked.packet.source, walked.packet.snatted), (Address::Local, Known::Is(true)));
}

#[test]
fn a_policy_that_drops_is_named_by_its_chain() {
    let walked = walk(
        &[&ruleset(DOCKER)],
        Hook::Forward,
        Packet {
            in_device: device("eth0"),
            out_device: device("eth1"),
            ..Packet::between(Address::Outside, ip("198.51.100.7")).tcp(80)
        },
    );
    assert_eq!(place(&walked), ("filter", "FORWARD", None));
    assert_eq!(walked.deciding().unwrap().raw, "-P FORWARD DROP");
}

// === several backends ===

#[test]
fn a_drop_in_either_backend_is_a_drop() {
    let open = filter("-A FORWARD -j ACCEPT");
    let mut closed = filter("-A FORWARD -j REJECT --reject-with icmp-port-unreachable");
    closed.backend = RuleBackend::IptablesNft;
    for rulesets in [[&open, &closed], [&closed, &open]] {
        let walked = walk(&rulesets, Hook::Forward, Packet::ipv4());
        assert!(matches!(walked.outcome, Outcome::Drop { reject: true, .. }));
        assert_eq!(walked.deciding().unwrap().backend, RuleBackend::IptablesNft);
    }
}

#[test]
fn rules_of_the_other_family_are_passed_by() {
    let mut closed = filter("-A FORWARD -j DROP");
    closed.ipv6 = true;
    assert_eq!(walk(&[&closed], Hook::Forward, Packet::ipv4()).outcome, Outcome::Accept);
    assert!(matches!(walk(&[&closed], Hook::Forward, Packet::ipv6()).outcome, Outcome::Drop { .. }));
}

// === the truth table of the header ===

/// Outcome of rules for a packet of which nothing but its family is known.
fn outcome(rules: &str) -> Outcome {
    walk(&[&filter(rules)], Hook::Forward, Packet::ipv4()).outcome
}

fn is_drop(rules: &str) -> bool {
    matches!(outcome(rules), Outcome::Drop { .. })
}

fn is_unknown(rules: &str) -> bool {
    matches!(outcome(rules), Outcome::Unknown { .. })
}

const MAYBE: &str = "-A FORWARD -m set --match-set s src";

#[test]
fn an_unknown_match_matters_only_where_it_makes_a_difference() {
    assert_eq!(outcome(&format!("{MAYBE} -j ACCEPT\n-A FORWARD -j ACCEPT")), Outcome::Accept);
    assert!(is_unknown(&format!("{MAYBE} -j ACCEPT\n-A FORWARD -j DROP")));
    assert!(is_unknown(&format!("{MAYBE} -j DROP")));
    assert!(is_drop(&format!("{MAYBE} -j DROP\n-A FORWARD -j DROP")));
    assert_eq!(outcome(&format!("{MAYBE} -j LOG\n{MAYBE}")), Outcome::Accept);
    assert!(is_unknown(&format!("{MAYBE} -j NFQUEUE --queue-num 1\n-A FORWARD -j ACCEPT")));
}

#[test]
fn an_unknown_target_or_a_missing_chain_may_do_anything() {
    assert!(is_unknown("-A FORWARD -j NEWTARGET --option"));
    assert!(is_unknown("-A FORWARD -g nowhere"));
    assert!(is_unknown("-A FORWARD -j NEWTARGET\n-A FORWARD -j DROP"));
}

#[test]
fn return_and_goto_leave_a_chain_as_in_the_kernel() {
    assert!(is_drop("-A FORWARD -j a\n-A FORWARD -j DROP\n-A a -j RETURN\n-A a -j ACCEPT"));
    assert_eq!(outcome("-A FORWARD -j a\n-A FORWARD -j DROP\n-A a -j ACCEPT"), Outcome::Accept);
    // What b returns goes to FORWARD, not to the rest of a.
    assert_eq!(outcome("-A FORWARD -j a\n-A a -g b\n-A a -j DROP\n-A b -j RETURN"), Outcome::Accept);
    assert!(is_drop("-A FORWARD -j a\n-A a -j b\n-A a -j DROP\n-A b -j RETURN"));
}

#[test]
fn an_unknown_return_before_a_drop_is_unknown_and_after_the_jump_nothing_is_in_doubt() {
    assert!(is_unknown("-A FORWARD -j a\n-A a -m set --match-set s src -j RETURN\n-A a -j DROP"));
    let walked = walk(
        &[&filter("-A FORWARD -j a\n-A FORWARD -j DROP\n-A a -m set --match-set s src -j RETURN\n-A a -j LOG")],
        Hook::Forward,
        Packet::ipv4(),
    );
    assert!(matches!(walked.outcome, Outcome::Drop { .. }) && walked.deciding().unwrap().certain);
}

#[test]
fn an_unknown_mark_is_unknown_only_in_the_bits_it_may_have_changed() {
    let marks = "-A FORWARD -m set --match-set s src -j MARK --set-xmark 0x1/0xff\n";
    assert!(is_unknown(&format!("{marks}-A FORWARD -m mark --mark 0x1/0xff -j DROP")));
    assert!(is_drop(&format!("{marks}-A FORWARD -m mark --mark 0x0/0xff00 -j DROP")));
    let unmarked = Packet { mark: Bits::UNKNOWN, ..Packet::ipv4() };
    let rules = filter("-A FORWARD -j MARK --set-xmark 0x1/0xff\n-A FORWARD -m mark --mark 0x1/0xff -j DROP");
    assert!(matches!(walk(&[&rules], Hook::Forward, unmarked).outcome, Outcome::Drop { .. }));
}

#[test]
fn a_negated_match_of_an_unknown_field_stays_unknown_and_of_an_absent_one_matches() {
    assert!(is_unknown("-A FORWARD ! -s 10.0.0.0/8 -j DROP"));
    let from_here = Packet { in_device: Known::Absent, ..Packet::ipv4() };
    let rules = filter("-A FORWARD ! -i docker0 -j DROP");
    assert!(matches!(walk(&[&rules], Hook::Forward, from_here).outcome, Outcome::Drop { .. }));
}

#[test]
fn an_address_outside_is_in_no_prefix_but_the_whole() {
    let packet = || Packet::between(Address::Outside, ip("10.0.0.1"));
    let drops = |rules: &str| matches!(walk(&[&filter(rules)], Hook::Forward, packet()).outcome, Outcome::Drop { .. });
    assert!(!drops("-A FORWARD -s 203.0.113.0/24 -j DROP"));
    assert!(drops("-A FORWARD ! -s 203.0.113.0/24 -j DROP"));
    assert!(drops("-A FORWARD -s 0.0.0.0/0 -j DROP"));
}

// === bounds ===

#[test]
fn chains_that_jump_in_a_circle_end_in_unknown_soon() {
    let started = Instant::now();
    assert!(is_unknown("-A FORWARD -j a\n-A a -j b\n-A a -j b\n-A b -j a\n-A b -j a"));
    assert!(is_unknown("-A FORWARD -g a\n-A a -g a"));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_thousand_ports_are_walked_in_no_time() {
    let port = |port| {
        let rules = (0..20).map(|rule| format!("-A i{port} -p tcp -m tcp --dport {rule} -j RETURN\n"));
        format!(":i{port} - [0:0]\n-A FORWARD -m physdev --physdev-out tap{port} -j i{port}\n")
            + &rules.collect::<String>()
            + &format!("-A i{port} -j DROP\n")
    };
    let text = String::from("*filter\n:FORWARD ACCEPT [0:0]\n") + &(0..1000).map(port).collect::<String>();
    let rules = ruleset(&(text + "COMMIT\n"));
    let started = Instant::now();
    for port in 0..100 {
        let packet = Packet { physdev_out: device(&format!("tap{port}")), ..inward(Address::Outside) };
        assert!(matches!(walk(&[&rules], Hook::Forward, packet.tcp(80)).outcome, Outcome::Drop { .. }));
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
