//! Real packets followed live in a lab: a healthy host gives journeys without a word of blame. Faults are those of
//! `live_faults`.

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
    is_read_by_others(&lab, &target);
}

/// A capture file is one that others can read.
fn is_read_by_others(lab: &Lab, target: &Target) {
    let traffic = ping_out(target);
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
