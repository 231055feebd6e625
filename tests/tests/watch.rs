//! An instance that is watched: every change is a line, with its time, while it happens.

use netdiag_tests::Lab;
use serde_json::Value;

/// Where the instance runs.
const HOST: &str = "compute-1";

/// Where the lines are written that are waited for.
const SAID: &str = "/tmp/watch-said";

#[test]
fn what_breaks_counts_and_is_mended_is_said_as_it_happens() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let instances = lab.instances(HOST);
    let instance = instances.iter().find(|one| one["ports"][0]["floating_ip"].is_string()).expect("a floating IP");
    let text = |pointer: &str| instance.pointer(pointer).and_then(Value::as_str).expect("text");
    let (name, tap) = (text("/container_name"), text("/ports/0/host_devices/0"));
    let until = |said: &str| {
        let seen = format!("grep '\"change\":\"{said}\"' {SAID} | grep -q '\"object\":\"{tap}'");
        format!("for i in $(seq 300); do {seen} && break; sleep 0.2; done")
    };
    let line = format!(
        "nsenter -n -t {} ping -q -i 0.2 -w 300 10.0.0.1 >/dev/null & ping=$!; \
         {} watch {name} -o jsonl --interval 500ms > {SAID} & watch=$!; \
         {}; ip link set {tap} down; {}; {}; ip link set {tap} up; {}; kill $watch $ping; wait; cat {SAID}",
        instance["pid"],
        lab.binary(),
        until("counted"),
        until("found"),
        until("hop"),
        until("mended"),
    );
    let said = lab.sh(HOST, &line);
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["change"], &lines[0]["state"]), (&"verdict".into(), &"ok".into()), "{said:#?}");
    let place = |what: &str, fits: &dyn Fn(&Value) -> bool| {
        let found = lines.iter().position(|line| line["change"] == what && fits(line));
        found.unwrap_or_else(|| panic!("no {what}: {lines:#?}"))
    };
    let about_tap = |line: &Value| line["object"].as_str().is_some_and(|object| object.starts_with(tap));
    let counted = place("counted", &|line| about_tap(line) && line["counters"]["rx_packets"].as_u64() > Some(0));
    let found = place("found", &about_tap);
    let broken = place("hop", &|line| about_tap(line) && line["after"] == "broken");
    let mended = place("mended", &about_tap);
    assert!(counted < found && found < broken && broken < mended, "{lines:#?}");
    // It ends by itself where it is to, with the last verdict.
    let said = lab.netdiag(HOST, &["watch", name, "-o", "jsonl", "--interval", "500ms", "--duration", "2s"]);
    assert_eq!(said.code, Some(0), "{said:#?}");
}

#[test]
fn as_many_lines_are_written_as_are_asked_for() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let instances = lab.instances(HOST);
    let name = instances[0]["container_name"].as_str().expect("a name");
    let said = lab.netdiag(HOST, &["watch", name, "--count", "1"]);
    assert_eq!(said.out.lines().count(), 1, "{said:#?}");
    let said = lab.netdiag(HOST, &["watch", "nobody-at-all", "--count", "1"]);
    assert_eq!(said.code, Some(4), "{said:#?}");
}
