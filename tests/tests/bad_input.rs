//! What goes wrong at three in the morning: wrong words, sources that hang or are gone, hostile names, hosts half taken
//! down. A clear answer or a stated gap within a bounded time, never a panic.

use std::{
    fs,
    time::{Duration, Instant},
};

use netdiag_tests::{Lab, lab::Said};

const HOST: &str = "compute-1";

/// The time a source is given, in seconds.
const TIMEOUT: u64 = 3;

#[track_caller]
fn never_panics(said: &Said) {
    assert!(!said.err.contains("panicked"), "{said:#?}");
    assert!(said.code.is_some_and(|code| code != 101), "{said:#?}");
}

#[test]
fn an_unknown_name_lists_the_candidates_and_ends_with_4() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    for query in ["no-such-instance", "", " ", "10.99.99.99", "\u{1b}[31m", "'; rm -rf /", &"x".repeat(10_000)] {
        let said = lab.netdiag(HOST, &["trace", query]);
        never_panics(&said);
        assert_eq!((said.code, said.out.as_str()), (Some(4), ""), "{query:?}: {said:#?}");
        assert!(said.err.contains("nova-"), "{query:?}: no candidates in {}", said.err);
        assert!(!said.err.contains('\u{1b}'), "{query:?}: an escape sequence came through");
    }
    // One letter wrong: only what comes close is offered.
    let uuid = lab.instances(HOST)[0]["container_name"].as_str().expect("a name").replacen("nova", "nvoa", 1);
    let said = lab.netdiag(HOST, &["trace", &uuid]);
    assert_eq!(said.err.lines().count(), 2, "{}", said.err);
}

#[test]
fn wrong_usage_ends_with_2() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    for words in [
        &["trace"][..],
        &["trace", "x", "-o", "xml"],
        &["trace", "x", "--width", "3"],
        &["nonsense"],
        &["list", "--from", "/nonexistent"],
        &["list", "--from", "/etc/hostname"],
        &["trace", "x", "--timeout", "0"],
    ] {
        let said = lab.netdiag(HOST, words);
        never_panics(&said);
        assert_eq!(said.code, Some(2), "{words:?}: {said:#?}");
        assert!(!said.err.is_empty() && said.out.is_empty(), "{words:?}: {said:#?}");
    }
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let binary = lab.binary();
    let piped = lab.sh(HOST, &format!("{{ {binary} trace 172.24.4.6 -vv; echo \"rc $?\" >&2; }} | head -n 1"));
    never_panics(&piped);
    assert!(piped.err.contains("rc 0"), "{piped:#?}");
    let full = lab.sh(HOST, &format!("{binary} list > /dev/full"));
    assert_eq!(full.code, Some(1), "{full:#?}");
    assert!(full.err.contains("No space left"), "{full:#?}");
}

#[test]
fn a_docker_that_hangs_is_a_gap_within_a_bounded_time() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let trace = || {
        let started = Instant::now();
        let said = lab.netdiag(HOST, &["trace", "172.24.4.6", "--timeout", &TIMEOUT.to_string(), "-o", "json"]);
        (said, started.elapsed())
    };
    let (_, healthy) = trace();
    // A socket that accepts and never answers, as a dockerd that waits for a dead disk does.
    lab.sh(HOST, "kill -STOP $(cat /run/docker.pid)").ok();
    let (said, took) = trace();
    lab.sh(HOST, "kill -CONT $(cat /run/docker.pid)").ok();
    never_panics(&said);
    // A second more than the time a source is given, or what all the rest takes on a slow machine.
    let bound = Duration::from_secs(TIMEOUT) + (healthy * 4).max(Duration::from_secs(1));
    assert!(took < bound, "{took:?}, and {healthy:?} where Docker answers");
    let trace = said.json();
    // The container is still found by /proc, its path is whole, and the answer says what it does not know.
    assert_eq!(said.code, Some(6), "{trace:#}");
    assert_eq!(trace["verdict"], "inconclusive");
    assert!(trace["gaps"].as_array().is_some_and(|gaps| gaps.iter().any(|gap| gap["source"] == "docker")), "{trace:#}");
    assert_eq!(trace["interfaces"][0]["floating_ips"][0]["address"], "172.24.4.6");
}

#[test]
fn each_source_that_is_gone_is_named_and_the_rest_is_answered() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let device = lab.instances(HOST)[0]["ports"][0]["host_devices"][0].as_str().expect("a device").to_owned();
    let nowhere = lab.netdiag(HOST, &["trace", &device, "--ovsdb-socket", "/nonexistent", "-o", "json"]);
    never_panics(&nowhere);
    let trace = nowhere.json();
    assert_eq!(trace["interfaces"][0]["host_device"], device.as_str());
    assert_eq!(trace["interfaces"][0]["bridge"], serde_json::Value::Null);
    let refused = lab.netdiag(HOST, &["list", "--docker-socket", "/etc/hostname", "-o", "json"]);
    never_panics(&refused);
    let list = refused.json();
    assert!(list["gaps"].as_array().is_some_and(|gaps| gaps.iter().any(|gap| gap["source"] == "docker")), "{list:#}");
    assert!(list["instances"].as_array().is_some_and(|all| all.len() >= 6), "found by /proc all the same");
}

#[test]
fn hostile_names_are_shown_harmlessly() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let tap = lab.instances(HOST)[0]["ports"][0]["host_devices"][0].as_str().expect("a device").to_owned();
    let hostile = "a\u{1b}]0;owned\u{7}\u{1b}[2J\"'<script>&\u{202e}\nb";
    lab.on(
        HOST,
        &[
            "ovs-vsctl",
            "set",
            "interface",
            &tap,
            &format!("external_ids:evil=\"{}\"", hostile.replace('"', "\\\"").replace('\n', "\\n")),
        ],
    )
    .ok();
    lab.sh(HOST, "ip netns add \"$(printf 'evil\\033[31m\\nname')\" && ip link add ev0 type veth peer name ev1").ok();
    lab.sh(HOST, "ip link set ev1 netns \"$(printf 'evil\\033[31m\\nname')\" && ip link set ev0 alias \"$(printf 'x\\033[2Jy')\"").ok();
    for output in ["table", "wide", "json", "yaml", "dot", "mermaid", "svg"] {
        let said = lab.netdiag(HOST, &["trace", &tap, "-vv", "-o", output]);
        never_panics(&said);
        let control = |character: char| character.is_control() && character != '\n';
        assert!(!said.out.contains(control) && !said.out.contains('\u{202e}'), "{output}: {}", said.out.escape_debug());
    }
    let listed = lab.netdiag(HOST, &["list", "-o", "wide"]);
    never_panics(&listed);
    assert!(listed.out.contains("evil") && !listed.out.contains('\u{1b}'), "{listed:#?}");
    let svg = lab.netdiag(HOST, &["trace", &tap, "-vv", "-o", "svg"]).out;
    assert!(!svg.contains("<script"), "{svg}");
}

#[test]
fn a_snapshot_gives_the_same_answers_elsewhere_without_privilege() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("open the directory");
    let file = dir.path().join("host.json");
    fs::write(&file, lab.netdiag(HOST, &["snapshot", "-w", "-"]).ok()).expect("write the snapshot");
    let from = file.to_str().expect("a path");
    let inside =
        lab.sh(HOST, &format!("cat > /tmp/host.json; {} trace 172.24.4.6 --from /tmp/host.json -vv", lab.binary()));
    assert_eq!(inside.code, Some(2), "an empty file is no snapshot: {inside:#?}");
    for words in [
        &["trace", "172.24.4.6", "-vv"][..],
        &["trace", "172.24.4.6", "-o", "json"],
        &["list", "-o", "json"],
        &["trace", "no", "--ascii"],
    ] {
        let with: Vec<&str> = words.iter().copied().chain(["--from", from]).collect();
        let (here, there) = (lab.netdiag(HOST, &with), lab.netdiag_outside(&with).expect("start netdiag"));
        assert_eq!((here.code, &here.out), (there.code, &there.out), "{words:?}");
        assert!(!here.out.is_empty() || here.code == Some(4), "{words:?}: {here:#?}");
    }
}

#[test]
fn a_host_that_is_taken_down_while_it_is_read_never_makes_it_fail() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let churn = "for i in $(seq 1 60); do ip netns add churn$i; ip -n churn$i link add a type veth peer name b; \
                 ip netns del churn$i; ln -s /proc/999999/ns/net /run/netns/dangling$i; rm /run/netns/dangling$i; done";
    lab.sh(HOST, &format!("({churn}) > /dev/null 2>&1 &")).ok();
    for _ in 0..8 {
        let said = lab.netdiag(HOST, &["trace", "172.24.4.6", "-o", "json"]);
        never_panics(&said);
        assert!(matches!(said.code, Some(0 | 6)), "{said:#?}");
        assert_eq!(said.json()["interfaces"][0]["floating_ips"][0]["address"], "172.24.4.6");
    }
    // A container dies: its symbolic link dangles, as nova-docker leaves it, and is said to.
    let victim = &lab.instances(HOST)[1];
    lab.sh(HOST, &format!("docker kill {}", victim["container_id"].as_str().expect("an id"))).ok();
    let said = lab.netdiag(HOST, &["trace", victim["container_name"].as_str().expect("a name"), "-o", "json"]);
    never_panics(&said);
    assert_eq!(said.code, Some(3), "{said:#?}");
    assert_eq!(said.json()["findings"][0]["code"], "not-running");
    let doctor = lab.netdiag(HOST, &["doctor", "-o", "json"]);
    let checks = doctor.json();
    let stale = checks["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .find(|check| check["name"] == "stale namespace names")
        .cloned();
    assert_eq!(stale.expect("the check")["status"], "warning");
}
