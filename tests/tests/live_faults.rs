//! Every fault there is, each made in a lab and found by real packets: who is blamed, and that nobody else is.
//!
//! | file | faults |
//! |---|---|
//! | `router` | of a router: rules, routes, sizes, queues, translation |
//! | `edge` | at the instance, its card and its port of the switch; what comes in and finds nobody |
//! | `elsewhere` | of the wires of the host, and of another host |
//! | `profiles` | Neutron's own filter, plain Docker, virtual machines |
//! | `agent` | netdiag's own security groups and its fast path |
//! | `six` | of IPv6 |
//! | `distributed` | of distributed routers |
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    io::{self, Write as _},
    thread,
    time::Instant,
};

use netdiag_tests::{Lab, Target, agent::until, require_ebpf, require_programs};

/// netdiag's own security groups and its fast path.
#[path = "live_faults/agent.rs"]
mod agent;
/// Distributed routers.
#[path = "live_faults/distributed.rs"]
mod distributed;
/// At the instance and its port.
#[path = "live_faults/edge.rs"]
mod edge;
/// Wires, and another host.
#[path = "live_faults/elsewhere.rs"]
mod elsewhere;
/// A fault, and what must be said of it.
#[path = "live_faults/fault.rs"]
mod fault;
/// Neutron's own filter, plain Docker, virtual machines.
#[path = "live_faults/profiles.rs"]
mod profiles;
/// Of a router.
#[path = "live_faults/router.rs"]
mod router;
/// Packets that no command sends.
#[path = "live_faults/senders.rs"]
mod senders;
/// IPv6.
#[path = "live_faults/six.rs"]
mod six;

use fault::{Lane, Outcome};

/// An address of the outside world, behind the gateway of the external network.
const OUTSIDE: &str = "203.0.113.10";

/// Faults of Neutron beside Open vSwitch: of two tenants at once, whose instances have the same address; then those of the
/// host, then those beside an agent.
fn neutron(lab: &Lab) -> Vec<Outcome> {
    let (demo, other) = (Target::named(lab, "compute-1", "web-1"), Target::named(lab, "compute-1", "other-1"));
    let lanes = [&demo, &other].map(|target| Lane::of(lab, "compute-1", &target.container));
    let mut outcomes = thread::scope(|scope| {
        let first = scope.spawn(|| lanes[0].each(&router::faults(&demo)));
        let second = scope.spawn(|| lanes[1].each(&edge::faults(lab, &other)));
        let third = scope.spawn(|| agent::groups(lab));
        [first, second, third].map(|lane| lane.join().unwrap()).concat()
    });
    outcomes.push(alike(lab, &lanes[1], (&demo, &other)));
    outcomes.extend(lanes[0].each(&elsewhere::faults(lab, &demo)));
    outcomes.extend(agent::fast_path(lab));
    for (lane, target) in lanes.iter().zip([&demo, &other]) {
        // A next hop that was asked in vain while its wire was down is taken for silent for a minute, or until a packet asks it
        // again.
        let once = target.inside(&format!("ping -q -c 1 -W 1 {OUTSIDE}"));
        until("the next hop answers again", || lab.sh("compute-1", &once).code == Some(0));
        outcomes.push(lane.healthy("healthy again", &router::ping(target)));
    }
    outcomes
}

/// While the first tenant's router does not translate, its instance's packets leave by the address that the other's instance has
/// too, with which nothing is wrong.
fn alike(lab: &Lab, lane: &Lane<'_>, (demo, other): (&Target, &Target)) -> Outcome {
    let [make, mend] = ["I POSTROUTING 1 -j ACCEPT", "D POSTROUTING 1"]
        .map(|rule| demo.in_router(&format!("iptables -t nat -{rule}")));
    let pings = demo.inside(&format!("ping -q -i 0.1 -w 60 {OUTSIDE}"));
    lab.sh("compute-1", &format!("{make} && ({pings} > /dev/null 2>&1 & echo $! > /run/alike)")).ok();
    let outcome = lane.healthy("beside a tenant who leaves by the same address", &router::ping(other));
    lab.sh("compute-1", &format!("kill $(cat /run/alike); {mend}")).ok();
    outcome
}

#[test]
fn nine_of_ten_faults_are_found_by_real_packets_and_nobody_is_blamed_for_what_another_did() {
    if !(require_ebpf() && require_programs(&["conntrack", "iptables", "tc", "ping"])) {
        return;
    }
    let began = Instant::now();
    let profile = |name: &'static str, run: fn(&Lab) -> Vec<Outcome>| {
        move || Lab::up(name).map(|lab| run(&lab)).unwrap_or_default()
    };
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let all = [
            scope.spawn(profile("neutron-ovs", neutron)),
            scope.spawn(profile("hybrid", profiles::hybrid)),
            scope.spawn(profile("docker", profiles::docker)),
            scope.spawn(profile("vm", profiles::machines)),
            scope.spawn(profile("dvr", distributed::faults)),
        ];
        all.into_iter().flat_map(|lab| lab.join().unwrap()).collect()
    });
    if outcomes.is_empty() {
        return;
    }
    let (healthy, faults): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|outcome| outcome.healthy);
    let found = faults.iter().filter(|outcome| outcome.found).count();
    let wrong: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.wrong.is_empty()).collect();
    // Not `println!`, which the test harness keeps to itself unless the test fails.
    let mut score = io::stderr().lock();
    for outcome in &outcomes {
        writeln!(score, "{outcome}").unwrap();
    }
    let (all, seconds) = (faults.len(), began.elapsed().as_secs());
    writeln!(score, "{found} of {all} faults found, {} with a wrong word, {seconds} s", wrong.len()).unwrap();
    drop(score);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let missed = |of: &[&Outcome]| of.iter().filter(|outcome| !outcome.found).map(ToString::to_string).collect();
    let (missed, alarms): (Vec<String>, Vec<String>) = (missed(&faults), missed(&healthy));
    assert!(found * 10 >= all * 9, "{missed:#?}");
    assert!(alarms.is_empty(), "{alarms:#?}");
}
