//! Real packets followed live in a lab: a healthy host gives journeys without a word of blame; a host with a fault names
//! what is guilty, and nothing else.

use std::{thread, time::Duration};

use netdiag_tests::{Lab, Target};
use serde_json::Value;

/// Where the instance that is followed runs.
const HOST: &str = "compute-1";

/// An address of the outside world, behind the gateway of the external network.
const OUTSIDE: &str = "203.0.113.10";

/// Pings the outside from inside.
fn ping_out(target: &Target) -> String {
    target.inside(&format!("ping -q -c 3 -i 0.3 -W 1 {OUTSIDE}"))
}

/// Follows the packets of an instance while a command runs.
fn live(lab: &Lab, target: &Target, traffic: &str, words: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["trace", &target.container, "--live", "-o", "json", "--cmd", traffic];
    all.extend(words);
    let said = lab.netdiag(HOST, &all);
    (said.code, said.json())
}

/// Follows the packets of an instance while somebody outside sends some.
fn live_from_outside(lab: &Lab, target: &Target, traffic: &str, words: &[&str]) -> (Option<i32>, Value) {
    thread::scope(|scope| {
        // Traffic is there before anybody watches: packets are followed from the middle of a flow.
        let sender = scope.spawn(|| lab.sh("outside", traffic));
        thread::sleep(Duration::from_millis(300));
        let mut all = vec!["trace", &target.container, "--live", "-o", "json"];
        all.extend(words);
        let said = lab.netdiag(HOST, &all);
        // The traffic may have had no answer, which is what some tests are about.
        drop(sender.join().expect("the sender"));
        (said.code, said.json())
    })
}

fn packets(seen: &Value) -> &[Value] {
    seen["packets"].as_array().map_or(&[][..], Vec::as_slice)
}

fn devices(packet: &Value) -> Vec<&str> {
    let steps = packet["steps"].as_array().map_or(&[][..], Vec::as_slice);
    steps.iter().filter_map(|step| step["device"].as_str()).collect()
}

fn is_echo(packet: &Value) -> bool {
    packet["packet"].as_str().is_some_and(|words| words.contains("echo"))
}

/// Every packet of a ping, outward or inward, past these devices, translated once.
fn each_is_whole(seen: &Value, direction: &str, expected: &[&str]) {
    let of = |packet: &&Value| packet["direction"] == direction && is_echo(packet);
    let echoes: Vec<&Value> = packets(seen).iter().filter(of).collect();
    assert!(echoes.len() >= 3, "{direction}: {seen:#}");
    for packet in echoes {
        assert_eq!((devices(packet), &packet["ended"]), (expected.to_vec(), &Value::from("delivered")), "{packet:#}");
        let changes = packet["steps"].as_array().expect("steps").iter().filter_map(|step| step["changes"].as_array());
        assert_eq!(changes.flatten().count(), 1, "{packet:#}");
    }
}

/// No packet died, and nothing is found.
fn is_clean(code: Option<i32>, seen: &Value) {
    assert_eq!((code, &seen["summary"]["verdict"]), (Some(0), &Value::from("works")), "{seen:#}");
    for nothing in ["deaths", "findings"] {
        assert_eq!(seen["summary"][nothing].as_array().map(Vec::len), Some(0), "{seen:#}");
    }
    assert_eq!((&seen["summary"]["lost"], &seen["summary"]["throttled"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn a_healthy_instance_of_neutrons_is_followed_to_the_outside_and_back_without_a_word_of_blame() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    let way = [target.inner.as_str(), &target.tap, &target.qr, &target.qg, "eth1"];
    let back: Vec<&str> = way.iter().rev().copied().collect();
    let (code, seen) = live(&lab, &target, &ping_out(&target), &[]);
    is_clean(code, &seen);
    each_is_whole(&seen, "outward", &way);
    each_is_whole(&seen, "inward", &back);
    let ping = format!("ping -q -i 0.2 -w 20 {}", target.floating);
    let (code, seen) = live_from_outside(&lab, &target, &ping, &["--count", "12"]);
    is_clean(code, &seen);
    each_is_whole(&seen, "inward", &back);
    each_is_whole(&seen, "outward", &way);
}

/// A fault: how it is made and mended, what is sent, and what must be said to be guilty.
struct Fault<'t> {
    make: String,
    mend: String,
    traffic: &'t str,
    /// What kind of guilt; any, where that is not certain.
    code: &'static str,
    /// Words the blame must have.
    says: &'static str,
}

/// A fault that the same traffic finds as finds others.
fn fault<'t>(traffic: &'t str, (make, mend): (String, String), code: &'static str, says: &'static str) -> Fault<'t> {
    Fault { make, mend, traffic, code, says }
}

/// Rules, and what they do to packets.
fn rules<'t>(target: &Target, ping: &'t str) -> Vec<Fault<'t>> {
    let fixed = &target.fixed;
    let forward = (format!("iptables -I FORWARD 1 -s {fixed} -p icmp -j DROP"), "iptables -D FORWARD 1");
    let raw = (format!("iptables -t raw -I PREROUTING 1 -s {fixed} -j DROP"), "iptables -t raw -D PREROUTING 1");
    let in_router = |(make, mend): (String, &str)| (target.in_router(&make), target.in_router(mend));
    let inside = (target.inside("iptables -A OUTPUT -p icmp -j DROP"), target.inside("iptables -F OUTPUT"));
    vec![
        fault(ping, in_router(forward), "filter-rule", "-p icmp -j DROP"),
        fault(ping, in_router(raw), "filter-rule", "rule 1 of raw PREROUTING"),
        fault(ping, inside, "filter-rule", "-A OUTPUT -p icmp -j DROP"),
    ]
}

/// Routes, neighbours, sizes.
fn routing<'t>(target: &Target, ping: &'t str, big: &'t str) -> Vec<Fault<'t>> {
    let Target { qr, qg, inner, .. } = target;
    let route = format!("ip route replace default via 172.24.4.1 dev {qg}");
    let in_router = |make: &str, mend: &str| (target.in_router(make), target.in_router(mend));
    let silent = format!("ip route replace default via 172.24.4.99 dev {qg}");
    let wrong = format!("ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev {inner} nud permanent");
    let wrong = (target.inside(&wrong), target.inside(&format!("ip neigh del 10.0.0.1 dev {inner}")));
    let small = (format!("ip link set {qg} mtu 1400"), format!("ip link set {qg} mtu 1500"));
    let back_up = format!("sh -c 'ip link set {qr} up; {route}'");
    vec![
        fault(
            ping,
            in_router("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
            "",
            "does not forward",
        ),
        fault(ping, in_router("ip route replace unreachable default", &route), "", "no way to the outside"),
        fault(ping, in_router(&silent, &route), "kernel-drop", "does not answer ARP"),
        fault(ping, in_router(&format!("ip link set {qr} down"), &back_up), "", "switched off"),
        fault(ping, wrong, "", "02:00:00:00:00:99"),
        fault(big, in_router(&small.0, &small.1), "kernel-drop", "bigger than the next device"),
    ]
}

/// Devices, VLANs and flows: what carries frames.
fn wiring<'t>(target: &Target, ping: &'t str) -> Vec<Fault<'t>> {
    let tap = &target.tap;
    let tag = |tag: u16| (format!("ovs-vsctl set port {tap} tag={tag}"), format!("ovs-vsctl set port {tap} tag=1"));
    let down = (format!("ip link set {tap} down"), format!("ip link set {tap} up"));
    let flow = (
        format!("ovs-ofctl add-flow br-int 'priority=500,in_port={tap},icmp,actions=drop'"),
        format!("ovs-ofctl del-flows br-int in_port={tap},icmp"),
    );
    vec![
        fault(ping, tag(77), "path-fault", "77"),
        fault(ping, tag(4095), "path-fault", "dead VLAN"),
        fault(ping, flow, "switch-flow", "priority 500"),
        fault(ping, down, "", "switched off"),
    ]
}

/// What was said of packets that died.
fn blames(seen: &Value) -> Vec<&Value> {
    seen["summary"]["deaths"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|deaths| &deaths["blame"]).collect()
}

/// Whether a packet's death was put so: by this code, if one is wanted, and with these words.
fn is_said(blame: &Value, code: &str, says: &str) -> bool {
    let has = |field: &str| blame[field].as_str().is_some_and(|text| text.contains(says));
    (code.is_empty() || blame["code"] == code) && (has("sentence") || has("guilty"))
}

#[test]
fn every_fault_is_found_by_real_packets_and_names_what_is_guilty() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    let ping = ping_out(&target);
    let big = target.inside(&format!("ping -q -c 3 -i 0.3 -W 1 -s 1410 -M do {OUTSIDE}"));
    let faults = [rules(&target, &ping), routing(&target, &ping, &big), wiring(&target, &ping)];
    let mut wrong = Vec::new();
    for Fault { make, mend, traffic, code, says } in faults.into_iter().flatten() {
        lab.sh(HOST, &make).ok();
        let (exit, seen) = live(&lab, &target, traffic, &[]);
        lab.sh(HOST, &mend).ok();
        let blames = blames(&seen);
        if exit != Some(3) || !blames.iter().any(|blame| is_said(blame, code, says)) {
            wrong.push(format!("{make}: exit {exit:?}, wanted {code} {says:?}, said {blames:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let (code, seen) = live(&lab, &target, &ping, &[]);
    is_clean(code, &seen);
}

#[test]
fn what_comes_in_and_finds_nobody_or_no_translation_is_blamed_on_that() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    let Target { floating, fixed, .. } = &target;
    let knock =
        format!("bash -c 'for i in $(seq 20); do (echo > /dev/tcp/{floating}/81) 2>/dev/null; sleep 0.5; done'");
    let (exit, seen) = live_from_outside(&lab, &target, &knock, &["--until-drop", "--duration", "20s"]);
    let said = blames(&seen);
    assert_eq!(exit, Some(3), "{seen:#}");
    assert!(said.iter().any(|blame| is_said(blame, "kernel-drop", "nobody listens")), "{said:#?}");
    let dnat = format!("PREROUTING -d {floating}/32 -j DNAT --to-destination {fixed}");
    lab.sh(HOST, &target.nat("D", &dnat)).ok();
    let ping = format!("ping -q -i 0.3 -w 14 {floating}");
    let (exit, seen) = live_from_outside(&lab, &target, &ping, &["--until-drop", "--duration", "15s"]);
    lab.sh(HOST, &target.nat("A", &dnat)).ok();
    let said = blames(&seen);
    assert_eq!(exit, Some(3), "{seen:#}");
    assert!(said.iter().any(|blame| is_said(blame, "path-fault", floating)), "{said:#?}");
}

#[test]
fn packets_that_leave_with_a_private_address_are_found() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    lab.sh(HOST, &target.in_router("iptables -t nat -I POSTROUTING 1 -j ACCEPT")).ok();
    let (exit, seen) = live(&lab, &target, &ping_out(&target), &["--direction", "out"]);
    lab.sh(HOST, &target.in_router("iptables -t nat -D POSTROUTING 1")).ok();
    assert_eq!(exit, Some(3), "{seen:#}");
    let findings = seen["summary"]["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|finding| finding["code"] == "left-untranslated"), "{findings:#?}");
}

#[test]
fn a_capture_file_is_one_that_others_can_read() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    let traffic = ping_out(&target);
    let line = format!(
        "{} trace {} --live -o pcapng --cmd '{traffic}' > /tmp/live.pcapng; tcpdump -nr /tmp/live.pcapng 2>/dev/null | grep -c 'ICMP echo'",
        lab.binary(),
        target.container
    );
    let said = lab.sh(HOST, &line);
    let count: u32 = said.out.trim().parse().unwrap_or_else(|_| panic!("{said:#?}"));
    // Three requests and three answers, at five devices each.
    assert_eq!(count, 30, "{said:#?}");
}
