//! Real packets followed live in a lab: a healthy host gives journeys without a word of blame. Faults are those of
//! `live_faults`.

use std::{thread, time::Duration};

use netdiag_tests::{Lab, Target, require_ebpf, require_programs};
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
    if !(require_ebpf() && require_programs(&["tcpdump", "tshark"])) {
        return;
    }
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
    is_read_by_others(&lab, &target);
    drops_are_told_with_their_rule(&lab, &target);
    questions_the_instance_does_not_answer(&lab, &target);
    an_instance_that_never_rests(&lab, &target);
}

/// A capture file is one that others can read, with device and namespace, instance and hop at each packet.
fn is_read_by_others(lab: &Lab, target: &Target) {
    let traffic = ping_out(target);
    let line = format!(
        "{} trace {} --live -o pcapng --cmd '{traffic}' > /tmp/live.pcapng; \
         tcpdump -nr /tmp/live.pcapng 2>/dev/null | grep -c 'ICMP echo'; \
         tshark -nr /tmp/live.pcapng -Y icmp -T fields -e frame.interface_name -e frame.comment 2>/dev/null",
        lab.binary(),
        target.container
    );
    let said = lab.sh(HOST, &line);
    let (count, lines) = said.out.split_once('\n').unwrap_or_else(|| panic!("{said:#?}"));
    // Three requests and three answers, at five devices each.
    assert_eq!((count, lines.lines().count()), ("30", 30), "{said:#?}");
    let Target { container, inner, router, qr, .. } = target;
    let first = format!("{inner}@{container}\tinstance {container}: hop 3 outward, sent");
    assert_eq!(lines.lines().next(), Some(first.as_str()), "{said:#?}");
    assert!(lines.lines().all(|line| line.contains('@') && line.contains(&format!("instance {container}: hop "))));
    assert_eq!(lines.matches(&format!("{qr}@{router}")).count(), 6, "{said:#?}");
}

/// What a router drops is said to be the instance's, though another tenant's has the same address, and the rule is named; also
/// one that came while somebody watched. Whoever ends netdiag is told what it came to.
fn drops_are_told_with_their_rule(lab: &Lab, target: &Target) {
    let Target { container, fixed, router, .. } = target;
    let rule = |verb: &str| target.in_router(&format!("iptables -t raw -{verb} PREROUTING -s {fixed} -p icmp -j DROP"));
    let ping = target.inside(&format!("ping -q -i 0.3 -w 40 {OUTSIDE} >/dev/null"));
    // What is known of the rules is good for three seconds, on a busy machine for longer.
    let line = format!(
        "{} drops --instance {container} --reason NETFILTER_DROP -o json > /tmp/drops & drops=$!; sleep 1; {}; {ping} & ping=$!; \
         for i in $(seq 100); do grep -q PREROUTING /tmp/drops && break; sleep 0.2; done; kill $ping; {}; \
         kill $drops; wait $drops; echo $?; cat /tmp/drops",
        lab.binary(),
        rule("I"),
        rule("D"),
    );
    let said = lab.sh(HOST, &line);
    let (code, lines) = said.out.split_once('\n').unwrap_or_else(|| panic!("{said:#?}"));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (summary, drops) = lines.split_last().expect("a summary");
    assert_eq!((code, &summary["packets"]), ("130", &drops.len().into()), "{said:#?}");
    assert!(drops.iter().all(|drop| drop["instance"] == container.as_str()), "{drops:#?}");
    let words = format!("rule 1 of raw PREROUTING of {router}: ");
    let named = drops.iter().filter(|drop| drop["rules"][0]["table"] == "raw" && drop["rules"][1].is_null()).count();
    let rows = summary["counts"].as_array().map_or(&[][..], Vec::as_slice);
    let row = rows.iter().find(|row| row["rule"].as_str().is_some_and(|rule| rule.starts_with(&words)));
    assert_eq!(row.map(|row| &row["packets"]), Some(&named.into()), "{said:#?}");
}

/// An instance that hears a ping and is told not to answer is not called healthy; nor is whoever answers called silent where
/// watching ends before the answer.
fn questions_the_instance_does_not_answer(lab: &Lab, target: &Target) {
    let ignore = |on: u8| target.inside(&format!("sysctl -qw net.ipv4.icmp_echo_ignore_all={on}"));
    lab.sh(HOST, &ignore(1)).ok();
    let ping = format!("ping -q -i 0.2 -w 20 {}", target.floating);
    let (_, seen) = live_from_outside(lab, target, &ping, &["--duration", "6s"]);
    lab.sh(HOST, &ignore(0)).ok();
    let findings = seen["summary"]["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let codes: Vec<_> = findings.iter().map(|finding| (&finding["code"], &finding["object"])).collect();
    assert_eq!(codes, [(&"no-answer".into(), &target.container.as_str().into())], "{seen:#}");
    let (code, seen) = live(lab, target, &ping_out(target), &["--count", "1"]);
    is_clean(code, &seen);
}

/// Watching ends when it was asked to though packets go on and on, and nothing is unknown of those that came later.
fn an_instance_that_never_rests(lab: &Lab, target: &Target) {
    let ping = format!("ping -q -i 0.02 -w 12 {}", target.floating);
    let (code, seen) = live_from_outside(lab, target, &ping, &["--duration", "1s"]);
    is_clean(code, &seen);
    // What is under way may take three seconds and a half more, so what is still coming would make it more than that.
    let took_ns = seen["summary"]["took_ns"].as_u64().expect("a time");
    assert!((1_000_000_000..4_500_000_000).contains(&took_ns), "{seen:#}");
}
