//! Packets followed live among everything that comes, goes and looks alike: from the middle of a flow, while containers appear
//! and vanish, with one device name in a hundred namespaces, and with names that are meant to do harm.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::thread;

use netdiag_tests::{Lab, Target, lab::Said, require_ebpf};
use serde_json::Value;

/// Where the instance runs.
const HOST: &str = "compute-1";

fn packets(seen: &Value) -> &[Value] {
    seen["packets"].as_array().map_or(&[][..], Vec::as_slice)
}

/// No packet died, and nobody is blamed.
#[track_caller]
fn is_clean(said: &Said, least: usize) {
    let seen = said.json();
    assert_eq!((said.code, &seen["summary"]["verdict"]), (Some(0), &Value::from("works")), "{seen:#}");
    for nothing in ["deaths", "findings"] {
        assert_eq!(seen["summary"][nothing].as_array().map(Vec::len), Some(0), "{seen:#}");
    }
    assert!(packets(&seen).len() >= least, "{seen:#}");
}

/// Follows a download and an upload that are larger than any packet. The upload leaves in large segments, which the instance's
/// own device cuts.
fn bulk(lab: &Lab, target: &Target) {
    let port = 9_000;
    lab.sh("outside", &format!("(busybox nc -ll -p {port} -e cat > /dev/null 2>&1 &)")).ok();
    // Not more than what is watched without leaving anything out.
    let script = format!(
        "exec 3<>/dev/tcp/203.0.113.10/{port}; for i in 1 2 3 4; do head -c 9000 /dev/zero >&3; head -c 9000 <&3 >/dev/null; \
         sleep 0.1; done"
    );
    lab.sh(HOST, &format!("echo '{script}' > /run/bulk")).ok();
    let command = target.inside("bash /run/bulk");
    let said = lab.netdiag(HOST, &["trace", &target.container, "--live", "-o", "json", "--cmd", &command]);
    is_clean(&said, 20);
    let seen = said.json();
    let lengths = |packet: &Value| -> Vec<u64> {
        packet["steps"].as_array().unwrap().iter().filter_map(|step| step["length"].as_u64()).collect()
    };
    let cut =
        packets(&seen).iter().map(lengths).filter(|all| all[0] > 1_500 && all[1..].iter().all(|one| *one < 1_500));
    assert!(cut.count() >= 4, "{seen:#}");
}

/// Follows a flow that was there before, while containers come and go.
fn life(lab: &Lab, target: &Target) {
    let said = thread::scope(|scope| {
        let flow = format!("ping -q -i 0.2 -w 20 {}", target.floating);
        scope.spawn(move || lab.sh("outside", &flow));
        scope.spawn(|| {
            let one = "docker run -d --network none netdiag-lab/instance:latest";
            // Each with a device of the same name as the others', plugged and gone again.
            let line = format!(
                "for i in 1 2 3; do id=$({one}); pid=$(docker inspect -f '{{{{.State.Pid}}}}' $id); \
                 ip link add come$i type veth peer name eth0 netns $pid; ip link set come$i up; docker rm -f $id; done"
            );
            lab.sh(HOST, &line).ok();
        });
        lab.netdiag(HOST, &["trace", &target.container, "--live", "-o", "json", "--duration", "8s"])
    });
    is_clean(&said, 20);
    // What began before anybody watched is left out, and the rest is whole.
    let seen = said.json();
    assert!(packets(&seen).iter().all(|packet| packet["ended"] == "delivered"), "{seen:#}");
}

/// The instance itself ends while it is followed.
fn end_of(lab: &Lab, container: &str) {
    let end = format!("docker rm -f {container} >/dev/null; sleep 0.5");
    let said = lab.netdiag(HOST, &["trace", container, "--live", "-o", "json", "--cmd", &end]);
    // Nobody says that its packets died, and netdiag says what it saw.
    assert!(matches!(said.code, Some(0 | 6)), "{said:#?}");
    assert_eq!(said.json()["summary"]["deaths"].as_array().map(Vec::len), Some(0), "{said:#?}");
}

/// A hundred namespaces that each have a device of the instance's name, in which packets of its very addresses die.
fn alike(lab: &Lab, target: &Target) {
    let Target { inner, fixed, .. } = target;
    let line = format!(
        "for i in $(seq 100); do echo \"netns add like$i\"; done | ip -batch - && \
         for i in $(seq 100); do echo \"link add like$i type veth peer name {inner} netns like$i\"; done | ip -batch - && \
         for i in $(seq 100); do ip -n like$i -batch - <<END || exit 1\n\
         addr add {fixed}/24 dev {inner}\nlink set {inner} up\nlink set lo up\nroute add default via 10.0.0.1\nEND\n\
         done"
    );
    lab.sh(HOST, &line).ok();
    let others = "for i in 1 2 3 4 5 6 7 8; do ip netns exec like$i iptables -A OUTPUT -j DROP; \
                  ip netns exec like$i ping -q -c 1 -W 1 203.0.113.10; done >/dev/null 2>&1";
    let own = target.inside("ping -q -c 3 -i 0.2 -W 1 203.0.113.10");
    let command = format!("({others}) & {own}; wait");
    let said = lab.netdiag(HOST, &["trace", &target.container, "--live", "-o", "json", "--cmd", &command]);
    is_clean(&said, 6);
    lab.sh(HOST, "for i in $(seq 100); do echo \"netns del like$i\"; done | ip -batch -").ok();
}

/// Names with control characters in them are shown, and do nothing.
fn hostile(lab: &Lab, target: &Target) {
    let Target { inner, tap, .. } = target;
    let name = "$(printf '\\033[31mx\\007')";
    let link = |device: &str, name: &str| target.inside(&format!("ip link set {device} down name {name}"));
    let up = |device: &str| {
        target.inside(&format!("sh -c \"ip link set {device} up; ip route replace default via 10.0.0.1\""))
    };
    let note = |text: &str| format!("ovs-vsctl set interface {tap} external_ids:note=\"{text}\"");
    lab.sh(HOST, &format!("{}; {}; {}", link(inner, name), up(name), note("$(printf '\\033]0;x')"))).ok();
    let command = target.inside("ping -q -c 2 -i 0.2 -W 1 203.0.113.10");
    for form in ["table", "json"] {
        let said = lab.netdiag(HOST, &["trace", &target.container, "--live", "-o", form, "--cmd", &command]);
        assert_eq!(said.code, Some(0), "{said:#?}");
        assert!(!said.out.contains(['\u{1b}', '\u{7}']), "{said:#?}");
        assert!(said.out.contains("[31mx"), "{said:#?}");
    }
    lab.sh(HOST, &format!("{}; {}; ovs-vsctl remove interface {tap} external_ids note", link(name, inner), up(inner)))
        .ok();
}

#[test]
fn packets_are_followed_among_all_that_comes_and_goes_and_looks_alike() {
    if !require_ebpf() {
        return;
    }
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::named(&lab, HOST, "web-1");
    bulk(&lab, &target);
    life(&lab, &target);
    alike(&lab, &target);
    hostile(&lab, &target);
    let other = lab.instances(HOST).into_iter().find(|one| one["display_name"] == "other-2").unwrap();
    end_of(&lab, other["container_name"].as_str().unwrap());
}
