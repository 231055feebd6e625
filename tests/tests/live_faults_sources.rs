//! Packets followed live while a source is missing: what is lost with each, as the table of docs/LIVE.md has it.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{fmt::Write as _, thread};

use netdiag_tests::{Lab, Target, lab::Said, require_ebpf};
use serde_json::Value;

/// Where the instance runs.
const HOST: &str = "compute-1";

/// Puts programs that only fail in the place of others, for whoever is started afterwards.
fn without(programs: &[&str]) -> String {
    let mut line = String::new();
    for program in programs {
        write!(line, "mount --bind /bin/false $(readlink -f $(command -v {program})) && ").unwrap();
    }
    line
}

/// A host whose packets are followed.
struct Site<'l> {
    lab: &'l Lab,
    target: Target,
}

impl Site<'_> {
    /// Follows a ping: `before` changes what netdiag can see and says how it is started, `options` are its own.
    fn follow(&self, (before, start): (&str, &str), instance: &str, options: &str) -> Said {
        let ping = self.target.inside("ping -q -c 2 -i 0.2 -W 1 203.0.113.10");
        let netdiag = format!("{} trace {instance} --live -o json {options} --cmd \"$PING\"", self.lab.binary());
        let line = format!("PING='{ping}' unshare -m sh -c '{before} {start} {netdiag}'");
        self.lab.sh(HOST, &line)
    }

    /// The same, of the container by its name.
    fn seen(&self, before: &str, options: &str) -> (Option<i32>, Value) {
        let said = self.follow((before, "exec"), &self.target.container, options);
        (said.code, said.json())
    }

    /// While a fault is there.
    fn with<T>(&self, (make, mend): (&str, &str), what: impl FnOnce() -> T) -> T {
        self.lab.sh(HOST, make).ok();
        let seen = what();
        self.lab.sh(HOST, mend).ok();
        seen
    }
}

fn blame(seen: &Value) -> &Value {
    &seen["summary"]["deaths"][0]["blame"]
}

fn devices(seen: &Value) -> usize {
    seen["watch"]["devices"].as_array().map_or(0, Vec::len)
}

/// No packet died, and nobody is blamed.
#[track_caller]
fn is_clean((code, seen): &(Option<i32>, Value), watched: usize) {
    assert_eq!((*code, devices(seen)), (Some(0), watched), "{seen:#}");
    assert_eq!(seen["summary"]["deaths"].as_array().map(Vec::len), Some(0), "{seen:#}");
    assert_eq!(seen["summary"]["findings"].as_array().map(Vec::len), Some(0), "{seen:#}");
}

/// Without the types of the kernel nobody sees what it gives up.
fn kernel_types(site: &Site<'_>) {
    let hidden = "mount -t tmpfs tmpfs /sys/kernel/btf &&";
    let healthy = site.seen(hidden, "");
    is_clean(&healthy, 5);
    assert_eq!(healthy.1["watch"]["drops"], false);
    let gaps = healthy.1["watch"]["gaps"].to_string();
    assert!(gaps.contains("packets the kernel gives up"), "{gaps}");
    let rule =
        |verb: &str| site.target.in_router(&format!("iptables -t raw -{verb} PREROUTING -i qr+ -p icmp -j DROP"));
    let (code, seen) = site.with((&rule("I"), &rule("D")), || site.seen(hidden, ""));
    assert_eq!((code, &blame(&seen)["rules"][0]), (Some(3), &Value::Null), "{seen:#}");
    assert!(blame(&seen)["sentence"].as_str().unwrap().contains("was not watched"), "{seen:#}");
}

/// Without the rules of the packet filter none of them is named.
fn rules(site: &Site<'_>) {
    let hidden = without(&["iptables-nft-save", "iptables-legacy-save", "nft"]);
    let rule =
        |verb: &str| site.target.in_router(&format!("iptables -t raw -{verb} PREROUTING -i qr+ -p icmp -j DROP"));
    let (code, seen) = site.with((&rule("I"), &rule("D")), || site.seen(&hidden, ""));
    let said = blame(&seen);
    assert_eq!((code, &said["code"], &said["guilty"]), (Some(3), &"kernel-drop".into(), &Value::Null), "{seen:#}");
    assert!(said["sentence"].as_str().unwrap().contains("a rule of the packet filter dropped it"), "{seen:#}");
}

/// Without an answer of Open vSwitch no flow is named, but the question is there.
fn flows(site: &Site<'_>) {
    let tap = &site.target.tap;
    let make = format!("ovs-ofctl add-flow br-int priority=500,in_port={tap},icmp,actions=drop");
    let mend = format!("ovs-ofctl del-flows br-int in_port={tap},icmp");
    let (code, seen) = site.with((&make, &mend), || site.seen(&without(&["ovs-appctl"]), ""));
    let said = blame(&seen);
    assert_eq!((code, &said["code"], &said["guilty"]), (Some(3), &"not-seen".into(), &Value::Null), "{seen:#}");
    assert!(said["verify"].as_str().unwrap().starts_with("ovs-appctl ofproto/trace br-int"), "{seen:#}");
}

/// Without Docker instances have no names, but their addresses.
fn docker(site: &Site<'_>) {
    // A file where nobody listens.
    let nowhere = "--docker-socket /run/nobody";
    site.lab.sh(HOST, "touch /run/nobody").ok();
    let said = site.follow(("", "exec"), &site.target.container, nowhere);
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.err.contains("not read: unix:/run/nobody"), "{said:#?}");
    let said = site.follow(("", "exec"), &site.target.floating, nowhere);
    is_clean(&(said.code, said.json()), 5);
}

/// Without privilege nothing is watched, which is said.
fn privilege(site: &Site<'_>) {
    let drop = |names: &str| format!("exec setpriv --bounding-set={names} --inh-caps={names}");
    for (start, says) in [
        (drop("-sys_admin"), "there is no device to watch"),
        (drop("-net_admin"), "nothing can be watched"),
        (drop("-sys_admin,-bpf,-perfmon"), "there is no device to watch"),
    ] {
        let said = site.follow(("", &start), &site.target.container, "");
        assert_eq!(said.code, Some(5), "{start}: {said:#?}");
        assert!(said.err.contains(says) && said.err.contains("root"), "{start}: {said:#?}");
    }
    let nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups";
    let said = site.follow(("", nobody), &site.target.container, "");
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.err.contains("not read: ") && said.err.contains("run as root"), "{said:#?}");
}

#[test]
fn each_source_that_is_missing_takes_away_what_the_documentation_says_and_blames_nobody() {
    if !require_ebpf() {
        return;
    }
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let site = Site { lab: &lab, target: Target::of(&lab, HOST) };
    // What makes no fault runs beside what does not mind.
    thread::scope(|scope| {
        scope.spawn(|| privilege(&site));
        scope.spawn(|| docker(&site));
        // Without the database the path ends where the switch begins.
        scope.spawn(|| is_clean(&site.seen("", "--ovsdb-socket /nowhere"), 2));
        scope.spawn(|| is_clean(&site.seen("", "--agent-socket /nowhere"), 5));
    });
    kernel_types(&site);
    rules(&site);
    flows(&site);
    is_clean(&site.seen("", ""), 5);
}
