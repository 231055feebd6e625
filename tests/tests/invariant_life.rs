//! The agent is killed, restarted, replaced by another netdiag and back under traffic, on a real kernel: no packet of what is
//! allowed is lost, and nothing else passes meanwhile.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use aya::programs::loaded_programs;
use netdiag_agent::{
    discover::{self, look},
    enforce::{Change, Enforcer, Hook, Method, Options},
};
use netdiag_common::ABI_VERSION;
use netdiag_tests::{
    agent::names,
    program::has_tcx,
    site::{Site, both, document},
    traffic::{Log, Traffic, answers_alone, fresh, handshake, tcp, udp},
};
use rustix::process::Signal;

/// Numbers of the streams that live by rules that always stay.
const ALLOWED: std::ops::Range<usize> = 0..7;
/// Of those that live by rules that go.
const OUT: std::ops::Range<usize> = 7..9;
/// Of one that lives by a rule that comes.
const LATE: usize = 9;
/// Of those that are never allowed.
const REFUSED: std::ops::Range<usize> = 10..15;

fn traffic(site: &Site) -> Traffic {
    assert!(handshake(&site.world, &site.first, (5007, 7)));
    let (to, from) = ((&site.world, &site.first), (&site.first, &site.world));
    let [silent_udp, silent_tcp] = answers_alone(&site.world, &site.first, 7);
    let traffic = Traffic::start(vec![
        silent_udp,
        silent_tcp,
        udp("udp to the service", to, (5007, 7)),
        udp("udp back from the service", from, (7, 5007)),
        tcp("tcp to the service", to, (5007, 7)),
        tcp("tcp back from the service", from, (7, 5007)),
        fresh("new flows to the service", to, 7),
        udp("udp out", from, (5009, 9)),
        udp("udp in answer", to, (9, 5009)),
        udp("udp to a service that comes", to, (5070, 70)),
        udp("refused udp", to, (5008, 8)),
        tcp("refused tcp", to, (5008, 8)),
        fresh("refused new flows", to, 8),
        udp("refused udp out", from, (5010, 10)),
        fresh("refused new flows out", from, 10),
    ]);
    traffic.more(50);
    traffic
}

/// The services 7, and 9 outwards.
fn first_policy(site: &Site) -> String {
    let rules = [both("ingress", 7, ""), both("egress", 9, "")].join(",");
    document(&[("serve", &rules)], &[site.first.port("p1", &["serve"])], "")
}

/// The services 7 and 70, and nothing outwards.
fn second_policy(site: &Site) -> String {
    let rules = [both("ingress", 7, ""), both("ingress", 70, "")].join(",");
    document(&[("serve", &rules)], &[site.first.port("p1", &["serve"])], "")
}

fn start(site: &mut Site) {
    site.host.start();
    site.host.wait_for_ports(&["p1"]);
}

fn check(logs: &[Log], what: &str, since: Instant) {
    let time = since..Instant::now();
    logs[ALLOWED].iter().for_each(|log| log.all_arrived(what, &time, 100));
    for log in &logs[REFUSED] {
        log.none_arrived(what, &time, 100);
        assert_eq!(log.arrived(), 0);
    }
}

#[test]
fn an_agent_that_is_killed_again_and_again_under_traffic_loses_nothing_and_lets_nothing_through() {
    let test = "an_agent_that_is_killed_again_and_again_under_traffic_loses_nothing_and_lets_nothing_through";
    let Some(mut site) = Site::enter(test) else { return };
    site.host.policy(&first_policy(&site));
    start(&mut site);
    let traffic = traffic(&site);
    let began = Instant::now();
    for _ in 0..3 {
        site.host.end(Signal::KILL);
        traffic.more(50);
        start(&mut site);
        traffic.more(20);
    }
    // In the middle of a change, early and late.
    for milliseconds in [0, 3, 8, 15, 30] {
        let extra = document(&[("extra", &both("ingress", 11 + milliseconds, ""))], &[], "");
        let mut stream = site.host.connect().unwrap();
        write!(stream, "PUT /v1/policy HTTP/1.1\r\nhost: agent\r\ncontent-length: {}\r\n\r\n{extra}", extra.len())
            .unwrap();
        thread::sleep(Duration::from_millis(milliseconds.into()));
        site.host.end(Signal::KILL);
        traffic.more(20);
        start(&mut site);
    }
    assert_eq!(site.host.end(Signal::TERM), Some(0));
    traffic.more(50);
    site.host.policy(&second_policy(&site));
    traffic.more(50);
    let restarted = Instant::now();
    start(&mut site);
    site.host.wait("the other policy", |status| status["asked"]["rules"].as_u64() >= Some(4));
    let other = Instant::now();
    traffic.more(100);
    let end = Instant::now();
    let logs = traffic.stop();
    check(&logs, "killed and restarted", began);
    logs[OUT].iter().for_each(|log| log.all_arrived("until the other policy", &(began..restarted), 100));
    logs[OUT].iter().for_each(|log| log.none_arrived("under the other policy", &(other..end), 100));
    logs[LATE].none_arrived("until the other policy", &(began..restarted), 100);
    logs[LATE].all_arrived("under the other policy", &(other..end), 100);
}

// === other netdiags ===

/// `r2 = BPF_RB_NO_WAKEUP; call bpf_ringbuf_submit`: where a program hands over a record without waking anybody.
const QUIET: [u8; 16] = [0xb7, 2, 0, 0, 1, 0, 0, 0, 0x85, 0, 0, 0, 132, 0, 0, 0];
/// In `QUIET`, the lowest byte of the flags.
const FLAGS: usize = 4;
/// Programs that decide.
const PROGRAMS: usize = 3;

/// A netdiag with other programs: they wake whoever waits for records, which changes nothing about any packet.
fn another(site: &Site) -> PathBuf {
    let mut binary = fs::read(std::env::var_os("NETDIAG_BIN").unwrap()).unwrap();
    let mut places = Vec::new();
    let mut from = 0;
    while let Some(place) = find(&binary[from..], &QUIET) {
        places.push(from + place);
        from += place + QUIET.len();
    }
    // A build without optimisation carries an object more than once, and the programs that watch hand over records too.
    assert!(places.len() >= PROGRAMS, "{places:?}");
    for place in places {
        binary[place + FLAGS] = 0;
    }
    let path = site.host.path("other-netdiag");
    fs::write(&path, binary).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// What the kernel calls the programs at the port: hashes of their instructions.
fn attached(site: &Site) -> Vec<u64> {
    let options = discover::Options { pin_dir: site.host.root(), ..discover::Options::default() };
    let facts = tokio::runtime::Runtime::new().unwrap().block_on(look(options)).facts;
    let ports = facts.enforcement.unwrap().ports;
    let ids: Vec<_> = ports.iter().flat_map(|port| &port.hooks).map(|hook| hook.program).collect();
    let tag = |id: &u32| loaded_programs().flatten().find(|program| program.id() == *id).unwrap().tag();
    let tags: Vec<_> = ids.iter().map(tag).collect();
    assert_eq!(tags.len(), 2);
    tags
}

#[test]
fn a_netdiag_with_other_programs_takes_over_and_back_and_no_packet_of_a_flow_is_lost() {
    let test = "a_netdiag_with_other_programs_takes_over_and_back_and_no_packet_of_a_flow_is_lost";
    let Some(mut site) = Site::enter(test) else { return };
    let other = another(&site);
    site.host.policy(&first_policy(&site));
    start(&mut site);
    let traffic = traffic(&site);
    let began = Instant::now();
    let before = attached(&site);
    for (round, signal) in [Signal::TERM, Signal::KILL].into_iter().enumerate() {
        site.host.end(signal);
        let this = site.host.take(other.clone());
        traffic.more(20);
        start(&mut site);
        traffic.more(20);
        let upgraded = attached(&site);
        assert!(upgraded.iter().all(|tag| !before.contains(tag)), "round {round}: {before:?} {upgraded:?}");
        site.host.end(signal);
        site.host.take(this);
        traffic.more(20);
        start(&mut site);
        traffic.more(20);
        assert_eq!(attached(&site), before, "round {round}");
    }
    let logs = traffic.stop();
    check(&logs, "replaced and put back", began);
    logs[OUT].iter().for_each(|log| log.all_arrived("replaced and put back", &(began..Instant::now()), 100));
    logs[LATE].none_arrived("replaced and put back", &(began..Instant::now()), 100);
}

#[test]
fn a_netdiag_with_other_maps_is_taken_over_from_with_nothing_let_through_and_what_goes_on_is_picked_up() {
    let test = "a_netdiag_with_other_maps_is_taken_over_from_with_nothing_let_through_and_what_goes_on_is_picked_up";
    let Some(mut site) = Site::enter(test) else { return };
    site.host.policy(&first_policy(&site));
    start(&mut site);
    let traffic = traffic(&site);
    let began = Instant::now();
    site.host.end(Signal::KILL);
    // What an older netdiag would have left: programs at the port, and maps under another version.
    let (own, older) = (format!("v{ABI_VERSION}"), "v1".to_owned());
    assert_ne!(own, older);
    fs::rename(site.host.root().join(&own), site.host.root().join(&older)).unwrap();
    traffic.more(50);
    let taken = Instant::now();
    start(&mut site);
    traffic.more(50);
    let over = Instant::now();
    traffic.more(100);
    let end = Instant::now();
    let left = names(&site.host.root());
    assert!(left.contains(&own) && !left.contains(&older), "{left:?}");
    let logs = traffic.stop();
    for log in &logs[REFUSED] {
        log.none_arrived("taken over", &(began..end), 200);
        assert_eq!(log.arrived(), 0);
    }
    // What rules allow in its own direction is not interrupted; answers wait for the first packet that is.
    for number in [2, 4, 6, 7] {
        logs[number].all_arrived("taken over", &(began..end), 200);
    }
    for number in [3, 5, 8] {
        logs[number].all_arrived("before", &(began..taken), 50);
        logs[number].all_arrived("afterwards", &(over..end), 100);
        assert!(logs[number].len() - logs[number].arrived() <= 1, "{}", logs[number].arrived());
    }
}

// === hooks ===

/// Where programs are put one after the other: in place of the same, to XDP, there in place of the same, and back.
const WAYS: [Hook; 4] = [Hook::Tc, Hook::Xdp, Hook::Xdp, Hook::Tc];

#[test]
fn programs_that_are_replaced_and_moved_between_hooks_lose_nothing_and_let_nothing_through() {
    let test = "programs_that_are_replaced_and_moved_between_hooks_lose_nothing_and_let_nothing_through";
    let Some(mut site) = Site::enter(test) else { return };
    site.host.policy(&first_policy(&site));
    start(&mut site);
    let ifindex = site.first.ifindex();
    assert_eq!(site.host.end(Signal::TERM), Some(0));
    let traffic = traffic(&site);
    let began = Instant::now();
    let (mut changes, mut times) = (Vec::new(), Vec::new());
    let mut attach = |clsact, hook| {
        let options = Options { root: site.host.root(), clsact, ..Options::default() };
        let states = Enforcer::load(options).unwrap().attach(ifindex, hook).unwrap();
        changes.extend(states.map(|state| (state.method, state.change)));
        traffic.more(10);
    };
    for clsact in [false, true] {
        // Where the kernel gets or loses a clsact qdisc, it stops sending to the device for a moment, and frames are lost.
        attach(clsact, Hook::Tc);
        let settled = Instant::now();
        for hook in WAYS {
            attach(clsact, hook);
        }
        times.push(settled..Instant::now());
    }
    attach(false, Hook::Tc);
    let logs = traffic.stop();
    for time in times {
        logs[ALLOWED.start..OUT.end].iter().for_each(|log| log.all_arrived("hooks", &time, 40));
    }
    let time = began..Instant::now();
    logs[LATE..].iter().for_each(|log| log.none_arrived("hooks", &time, 100));
    let usual = if has_tcx(ifindex) { Method::Tcx } else { Method::Clsact };
    for method in [usual, Method::Clsact, Method::Xdp] {
        assert!(changes.contains(&(method, Change::Updated)), "never: {method}");
    }
}
