//! Packets that netdiag sends itself: one, as announced, followed there and back, and nothing besides.

use netdiag_tests::{Lab, Target, lab::Said};
use serde_json::Value;

/// Where the instance runs.
const HOST: &str = "compute-1";

/// An address of the outside world, behind the gateway of the external network.
const OUTSIDE: &str = "203.0.113.10";

/// Where frames are counted.
const CAPTURE: &str = "/tmp/probe-sent.pcap";

/// The first instance with a floating IP.
fn instance(lab: &Lab) -> Value {
    let instances = lab.instances(HOST);
    let found = instances.iter().find(|one| one["ports"][0]["floating_ip"].is_string());
    found.expect("an instance with a floating IP").clone()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer}: {value:#}"))
}

/// Sends a probe; its answer as JSON.
fn probe(lab: &Lab, instance: &Value, words: &[&str]) -> (Said, Value) {
    let mut all = vec!["trace", text(instance, "/container_name"), "-o", "json", "--probe"];
    all.extend(words);
    let said = lab.netdiag(HOST, &all);
    let seen = said.json();
    (said, seen)
}

fn sentence(seen: &Value) -> &str {
    text(seen, "/summary/sentence")
}

/// It was announced in one line, answered, and followed there and back.
fn is_answered(said: &Said, seen: &Value, words: &str) {
    let announced = said.err.lines().filter(|line| line.starts_with("sends one packet: ")).count();
    assert_eq!((said.code, announced), (Some(0), 1), "{said:#?}");
    assert_eq!(text(seen, "/summary/verdict"), "works", "{seen:#}");
    assert!(sentence(seen).contains("it was answered after") && sentence(seen).contains(words), "{seen:#}");
}

/// Frames that an instance sends while netdiag sends a probe, as tcpdump has them, until after one of a kind.
fn frames(lab: &Lab, instance: &Value, words: &str, kind: &str) -> Vec<String> {
    let tap = text(instance, "/ports/0/host_devices/0");
    let (name, mac) = (text(instance, "/container_name"), text(instance, "/ports/0/mac"));
    // It says when it has begun.
    let line = format!(
        "rm -f {CAPTURE} {CAPTURE}.said; \
         tcpdump -Z root -U -nei {tap} -w {CAPTURE} ether src {mac} 2>{CAPTURE}.said & \
         for i in $(seq 300); do grep -q 'listening on' {CAPTURE}.said && break; sleep 0.2; done; \
         {} trace {name} --probe {words} >/dev/null 2>&1; \
         for i in $(seq 100); do tcpdump -ner {CAPTURE} 2>/dev/null | grep -q '{kind}' && break; sleep 0.2; done; \
         sleep 1; kill $!; wait; tcpdump -ner {CAPTURE} 2>/dev/null",
        lab.binary()
    );
    lab.sh(HOST, &line).out.lines().map(str::to_owned).collect()
}

#[test]
fn one_packet_goes_out_and_its_answer_comes_back() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let instance = instance(&lab);
    // The instance sends others meanwhile, to the same.
    let inside = format!("nsenter -n -t {}", instance["pid"]);
    lab.sh(HOST, &format!("({inside} ping -q -i 0.2 -w 4 {OUTSIDE} > /dev/null 2>&1 &)")).ok();
    let (said, seen) = probe(&lab, &instance, &["icmp", "--to", OUTSIDE]);
    is_answered(&said, &seen, "echo reply");
    let packets = seen["packets"].as_array().expect("packets");
    let ends: Vec<_> = packets.iter().map(|one| (text(one, "/direction"), text(one, "/ended"))).collect();
    assert_eq!(ends, [("outward", "delivered"), ("inward", "delivered")], "{seen:#}");
    for packet in packets {
        assert_eq!(packet["steps"].as_array().map(Vec::len), Some(5), "{packet:#}");
    }
    lab.sh(HOST, &format!("while pidof ping > /dev/null; do sleep 0.1; done; {inside} ip neigh flush all")).ok();
    let (said, seen) = probe(&lab, &instance, &["icmp", "--to", OUTSIDE]);
    is_answered(&said, &seen, "echo reply");
    assert_eq!(said.err.matches("sends one question first").count(), 1, "{said:#?}");
    let (said, seen) = probe(&lab, &instance, &["arp"]);
    is_answered(&said, &seen, "is at");
    let (said, seen) = probe(&lab, &instance, &["dhcp"]);
    is_answered(&said, &seen, &format!("offers {}", text(&instance, "/ports/0/address/address")));
    let (said, seen) = probe(&lab, &instance, &["icmp", "--from-outside"]);
    is_answered(&said, &seen, "echo reply");
    let (said, seen) = probe(&lab, &instance, &["tcp", "--to", &format!("{OUTSIDE}:9")]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(sentence(&seen).contains("nobody listens there (RST)"), "{seen:#}");
}

#[test]
fn a_probe_from_outside_comes_by_the_namespace_that_a_distributed_router_has_for_it() {
    let Some(lab) = Lab::up("dvr") else { return };
    let instance = instance(&lab);
    let (said, seen) = probe(&lab, &instance, &["icmp", "--from-outside"]);
    is_answered(&said, &seen, "echo reply");
}

#[test]
fn probes_of_ipv6_go_out_and_their_answers_come_back() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    let in_router = |line: &str| lab.sh(HOST, &target.in_router(line)).ok();
    let inside = |line: &str| lab.sh(HOST, &target.inside(line)).ok();
    // Neutron gives such addresses by router advertisements; here by hand.
    let on = |device: &str| format!("sysctl -qw net.ipv6.conf.{device}.disable_ipv6=0");
    in_router(&on(&target.qr));
    in_router(&on(&target.qg));
    inside(&on(&target.inner));
    in_router(&format!("ip address add 2001:db8:0:1::1/64 dev {} nodad", target.qr));
    in_router(&format!("ip address add 2001:db8:0:9::1/64 dev {} nodad", target.qg));
    inside(&format!("ip address add 2001:db8:0:1::2/64 dev {} nodad", target.inner));
    inside("ip route add default via 2001:db8:0:1::1");
    let far = "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip address add 2001:db8:0:9::7/64 dev eth0 nodad && \
               ip route add 2001:db8:0:1::/64 via 2001:db8:0:9::1";
    lab.sh("neighbour", far).ok();
    let lab_instance = instance(&lab);
    let ask = |words: &[&str]| probe(&lab, &lab_instance, words);
    let (said, seen) = ask(&["arp", "--to", "2001:db8:0:1::1"]);
    is_answered(&said, &seen, "2001:db8:0:1::1 is at");
    let (said, seen) = ask(&["icmp", "--to", "2001:db8:0:9::7"]);
    is_answered(&said, &seen, "echo reply");
    let (said, seen) = ask(&["tcp", "--to", "[2001:db8:0:9::7]:9"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(sentence(&seen).contains("nobody listens there (RST)"), "{seen:#}");
    let (said, seen) = ask(&["udp", "--to", "[2001:db8:0:9::7]:9"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(sentence(&seen).contains("nobody listens there (port unreachable)"), "{seen:#}");
    // Nobody has it: the router says so after it has asked in vain.
    let (said, seen) = ask(&["icmp", "--to", "2001:db8:0:9::99"]);
    assert_eq!(said.code, Some(3), "{said:#?} {seen:#}");
}

#[test]
fn nothing_is_sent_but_what_was_announced() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let instance = instance(&lab);
    // Questions of ARP are announced too; and the router asks now and then for the instance, which answers. What a kernel
    // of IPv6 says of itself (router solicitations, group reports) it says without being asked.
    let sent = |words: &str, kind: &str| {
        let frames = frames(&lab, &instance, words, kind);
        let (own, other): (Vec<_>, Vec<_>) = frames.iter().partition(|line| line.contains(kind));
        assert_eq!(own.len(), 1, "{words}: {frames:#?}");
        assert!(other.iter().all(|line| line.contains("ARP") || line.contains("IPv6")), "{words}: {frames:#?}");
    };
    sent(&format!("icmp --to {OUTSIDE}"), "ICMP echo request");
    sent("dhcp", "BOOTP/DHCP, Request");
    sent("arp", "Request who-has");
    // Nobody answers: it is not repeated either.
    sent("udp --to 203.0.113.99:9", "UDP");
}

#[test]
fn a_probe_that_dies_names_what_killed_it() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let instance = instance(&lab);
    let fixed = text(&instance, "/ports/0/address/address");
    let routers = lab.built["routers"].as_array().expect("routers");
    let router = routers.iter().find(|router| router["id"] == instance["ports"][0]["router"]).expect("its router");
    let rule = format!("FORWARD -s {fixed} -p tcp --dport 443 -j DROP");
    let iptables = |verb: &str| format!("ip netns exec {} iptables -{verb} {rule}", text(router, "/netns"));
    lab.sh(HOST, &iptables("A")).ok();
    let (said, seen) = probe(&lab, &instance, &["tcp", "--to", &format!("{OUTSIDE}:443")]);
    lab.sh(HOST, &iptables("D")).ok();
    assert_eq!(said.code, Some(3), "{said:#?}");
    assert!(sentence(&seen).contains("it died: "), "{seen:#}");
    let rules = seen.pointer("/summary/deaths/0/blame/rules/0/rule").and_then(Value::as_str);
    assert!(rules.is_some_and(|rule| rule.contains("--dport 443")), "{seen:#}");
}

#[test]
fn a_probe_that_no_security_group_lets_in_names_the_rule_that_keeps_it_out() {
    let Some(lab) = Lab::up("hybrid") else { return };
    let instance = instance(&lab);
    let (said, seen) = probe(&lab, &instance, &["tcp", "--from-outside", "--to", ":81"]);
    assert_eq!(said.code, Some(3), "{said:#?}");
    // Neutron's chain for whatever no rule of the port's groups allows.
    assert!(sentence(&seen).contains("is dropped by rule 1 of filter neutron-openvswi-sg-fallback"), "{seen:#}");
}

#[test]
fn what_makes_no_packet_is_refused_and_nothing_is_sent() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let instance = instance(&lab);
    let name = text(&instance, "/container_name");
    for (words, code, says) in [
        (vec!["tcp"], 2, "--to ADDRESS:PORT"),
        (vec!["icmp", "--to", "203.0.113.10:80"], 2, "have a port"),
        (vec!["icmp", "--to", text(&instance, "/ports/0/address/address")], 2, "own address"),
        (vec!["icmp", "--from-outside", "--to", "172.24.4.250"], 6, "no such floating IP"),
    ] {
        let said = lab.netdiag(HOST, &[&["trace", name, "--probe"], words.as_slice()].concat());
        assert_eq!(said.code, Some(code), "{said:#?}");
        assert!(said.err.contains(says) && !said.err.contains("sends one"), "{said:#?}");
    }
}

#[test]
fn a_probe_of_a_virtual_machine_comes_as_from_its_guest() {
    let Some(lab) = Lab::up("vm") else { return };
    let instance = instance(&lab);
    let floating = text(&instance, "/ports/0/floating_ip");
    let tap = text(&instance, "/ports/0/host_devices/0");
    for (words, says) in [(vec!["icmp", "--to", OUTSIDE], "echo reply"), (vec!["dhcp"], "offers")] {
        let said = lab.netdiag(HOST, &[&["trace", floating, "-o", "json", "--probe"], words.as_slice()].concat());
        assert!(said.err.contains(&format!("as if {tap} had received it from the guest")), "{said:#?}");
        is_answered(&said, &said.json(), says);
    }
}
