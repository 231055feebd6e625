//! An instance that is watched: every change is a line, with its time, while it happens.

use netdiag_tests::Lab;
use serde_json::Value;

/// Where the instance runs.
const HOST: &str = "compute-1";

#[test]
fn what_breaks_counts_and_is_mended_is_said_as_it_happens() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let instances = lab.instances(HOST);
    let instance = instances.iter().find(|one| one["ports"][0]["floating_ip"].is_string()).expect("a floating IP");
    let text = |pointer: &str| instance.pointer(pointer).and_then(Value::as_str).expect("text");
    let (name, tap) = (text("/container_name"), text("/ports/0/host_devices/0"));
    let line = format!(
        "(sleep 3; ip link set {tap} down; sleep 4; ip link set {tap} up) & \
         nsenter -n -t {} ping -q -i 0.2 -w 9 10.0.0.1 >/dev/null & \
         {} watch {name} -o jsonl --interval 500ms --duration 12s; code=$?; wait; exit $code",
        instance["pid"],
        lab.binary()
    );
    let said = lab.sh(HOST, &line);
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((said.code, &lines[0]["change"], &lines[0]["state"]), (Some(0), &"verdict".into(), &"ok".into()));
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
