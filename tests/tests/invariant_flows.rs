//! Invariants of what is remembered and told, on a real kernel: no port starves another, full tables never allow, what is over makes
//! room, and every refusal has a record or is counted as lost.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use netdiag_agent::{
    discover::{self, look},
    enforce::{Enforcer, Hook, Options},
};
use netdiag_common::{
    ABI_VERSION,
    abi::{
        flow::{Flow, FlowKey4, MAX_OVERFLOW},
        policy::{PORT_CLOSED, PORT_MANAGED, Port, Settings, View, active},
        reason::Reason,
    },
    logic::flow::tcp,
};
use netdiag_model::{
    compile::{Tables, diff},
    event::Event,
    policy::types::Direction,
};
use netdiag_tests::{
    agent::PATIENCE,
    machine::Machine,
    site::{Site, both},
    traffic::handshake,
};
use rustix::process::Signal;

/// A map of flows.
fn map(site: &Site, name: &str) -> HashMap<MapData, FlowKey4, Flow> {
    let path = site.host.root().join(format!("v{ABI_VERSION}")).join(name);
    let data = MapData::from_pin(path).unwrap();
    let map = if name.starts_with("OVER") { Map::LruHashMap(data) } else { Map::HashMap(data) };
    HashMap::try_from(map).unwrap()
}

/// Flows of one machine in a map: with whom it speaks is always the same, so ports tell them apart.
fn flows(site: &Site, name: &str, machine: &Machine) -> BTreeSet<(u8, u16, u16)> {
    let map = map(site, name);
    let local = u32::from_ne_bytes(machine.address.octets());
    // A flow that goes while the map is walked is one that is not there.
    let keys = map.keys().flatten().filter(|key| key.local == local);
    keys.map(|key| (key.protocol, u16::from_be(key.local_port), u16::from_be(key.remote_port))).collect()
}

/// Forgets what has reached a machine; how many frames that were.
fn drain(machine: &Machine) -> usize {
    std::iter::from_fn(|| machine.receive()).count()
}

// === starvation ===

/// UDP flows and TCP connections that the first machine has before the flood.
const BEFORE: u16 = 100;
/// Rounds of the flood, in each of which a new connection comes.
const ROUNDS: u16 = 200;
/// Frames of the flood in a round.
const FLOOD: u32 = 500;

/// Frame number so many of a flood of the second machine's: UDP and SYN, both ways, each of another flow.
fn flood(site: &Site, number: u32) {
    let Site { world, second, .. } = site;
    let low = u16::try_from(number / 4 % 50_000).unwrap();
    let high = u16::try_from(number / 200_000).unwrap();
    let (outward, inward) = ((1000 + low, 1000 + high), (1000 + low, 7));
    match number % 4 {
        0 => second.send(&second.udp(world, outward.0, outward.1, b"flood")),
        1 => second.send(&second.tcp(world, outward, tcp::SYN, b"")),
        2 => world.send(&world.udp(second, inward.0, inward.1, b"flood")),
        _ => world.send(&world.tcp(second, inward, tcp::SYN, b"")),
    }
}

#[test]
fn a_flood_through_one_port_far_beyond_its_quota_costs_another_port_no_flow_and_no_new_connection() {
    let test = "a_flood_through_one_port_far_beyond_its_quota_costs_another_port_no_flow_and_no_new_connection";
    let Some(mut site) = Site::enter(test) else { return };
    // Room for 2048 flows of the rarer family: 512 for each of two ports.
    let quota = 512;
    site.host.start_with(&["--max-flows", "4096"]);
    let any = r#"{"direction": "egress", "ethertype": "IPv4"}"#;
    let groups = [("serve", both("ingress", 7, "")), ("any", any.to_owned())];
    let ports = [site.first.port("p1", &["serve"]), site.second.port("p2", &["serve", "any"])];
    site.policy(&groups.each_ref().map(|(id, rules)| (*id, rules.as_str())), &ports, "");
    let (world, first, second) = (&site.world, &site.first, &site.second);
    for number in 0..BEFORE {
        assert!(world.reaches(first, &world.udp(first, 20_000 + number, 7, b"ask")));
        assert!(handshake(world, first, (30_000 + number, 7)));
    }
    let answer = |number: u16| {
        first.reaches(world, &first.udp(world, 7, 20_000 + number, b"answer"))
            && first.reaches(world, &first.tcp(world, (7, 30_000 + number), tcp::ACK, b"answer"))
    };
    // A moment for the quota to be shared out between both.
    site.host.wait("a look at the flows", |status| status["flows"].as_u64() >= Some(200));
    // A flow that was answered is remembered for longer than any machine takes for what follows.
    assert!((0..BEFORE).all(answer));
    let mut passed = 0;
    for round in 0..ROUNDS {
        (0..FLOOD).for_each(|number| flood(&site, u32::from(round) * FLOOD + number));
        passed += drain(world) + drain(second);
        assert!(answer(round % BEFORE), "an established flow is gone in round {round}");
        assert!(handshake(world, first, (40_000 + round, 7)), "no new connection in round {round}");
    }
    assert_eq!(passed, usize::from(ROUNDS) * FLOOD as usize, "rules allow the flood");
    assert!((0..BEFORE).all(answer));
    let kept = flows(&site, "FLOWS4", first);
    assert_eq!(kept.len(), usize::from(2 * BEFORE + ROUNDS), "nothing of another port is evicted");
    assert_eq!(flows(&site, "OVER4", first).len(), 0);
    let (within, beyond) = (flows(&site, "FLOWS4", second).len(), flows(&site, "OVER4", second).len());
    assert!((quota / 2..=quota).contains(&within), "{within}");
    assert!(beyond > 30_000 && beyond <= MAX_OVERFLOW as usize, "{beyond}");
}

// === clocks ===

/// Makes all flows ones that were seen so many ticks later, as another CPU does that sees a packet in the tick that begins while
/// somebody who has read the clock already gets to them.
fn see_later(site: &Site, ticks: u32) {
    let mut map = map(site, "FLOWS4");
    let all: Vec<_> = map.iter().flatten().collect();
    for (key, flow) in all {
        map.insert(key, Flow { seen: flow.seen.wrapping_add(ticks), ..flow }, 0).unwrap();
    }
}

#[test]
fn a_flow_that_is_seen_after_the_clock_was_read_is_not_over() {
    let Some(mut site) = Site::enter("a_flow_that_is_seen_after_the_clock_was_read_is_not_over") else { return };
    site.host.start();
    site.policy(&[("serve", &both("ingress", 7, ""))], &[site.first.port("p1", &["serve"])], "");
    let (world, first) = (&site.world, &site.first);
    assert!(world.reaches(first, &world.udp(first, 6001, 7, b"question")));
    assert!(handshake(world, first, (6002, 7)));
    // No rule allows an answer: it passes by its flow alone.
    let answers = || {
        first.reaches(world, &first.udp(world, 7, 6001, b"answer"))
            && first.reaches(world, &first.tcp(world, (7, 6002), tcp::ACK, b"answer"))
    };
    assert!(answers());
    see_later(&site, 20);
    assert!(answers(), "to the programs");
    see_later(&site, 20);
    // The agent looks every two seconds.
    thread::sleep(Duration::from_secs(5));
    assert!(answers(), "to the agent");
}

// === full tables ===

#[test]
fn where_no_flow_can_be_tracked_any_more_rules_still_allow_and_nothing_else_passes_until_there_is_room_again() {
    let test =
        "where_no_flow_can_be_tracked_any_more_rules_still_allow_and_nothing_else_passes_until_there_is_room_again";
    let Some(mut site) = Site::enter(test) else { return };
    // Room for 4 flows of the rarer family: 2 by quota.
    site.host.start_with(&["--max-flows", "8"]);
    let serve = both("ingress", 7, "");
    site.policy(&[("serve", &serve)], &[site.first.port("p1", &["serve"])], "");
    let (world, first) = (&site.world, &site.first);
    for number in 0..2 {
        assert!(handshake(world, first, (100 + number, 7)));
        assert!(world.reaches(first, &world.tcp(first, (100 + number, 7), tcp::RST, b"")));
    }
    let closed = Instant::now();
    let by_quota = flows(&site, "FLOWS4", first);
    assert_eq!(by_quota.len(), 2);

    // More flows than there is room for beyond the quota, two at a time. The agent makes room for others when those are over, and on
    // a slow machine that would be meanwhile.
    site.host.signal(Signal::STOP);
    let tuples = (0..40_000_u16).flat_map(|number| [(number + 1000, 7_u16), (number + 1000, 8)]);
    let (mut allowed, mut refused) = (0, 0);
    for (source, port) in tuples {
        let udp = world.reaches(first, &world.udp(first, source, port, b"new"));
        let syn = world.reaches(first, &world.tcp(first, (source, port), tcp::SYN, b""));
        assert_eq!((udp, syn), (port == 7, port == 7), "{source} to {port}");
        if udp { allowed += 2 } else { refused += 2 }
    }
    assert_eq!((allowed, refused), (80_000, 80_000));
    assert_eq!(flows(&site, "FLOWS4", first), by_quota, "neither more nor others");
    let beyond = flows(&site, "OVER4", first);
    assert!(beyond.len() > 30_000 && beyond.len() <= MAX_OVERFLOW as usize, "{}", beyond.len());
    answers(&site, &beyond);
    site.host.signal(Signal::CONT);
    recovers(&site, &by_quota, closed);
}

/// Answers pass where the flow is remembered, and only there; what rules allow passes in any case.
fn answers(site: &Site, beyond: &BTreeSet<(u8, u16, u16)>) {
    let (world, first) = (&site.world, &site.first);
    let (newest, forgotten) = (40_999, (1000..41_000).find(|port| !beyond.contains(&(17, 7, *port))));
    let forgotten = forgotten.expect("a flow that made room for another");
    assert!(first.reaches(world, &first.udp(world, 7, newest, b"answer")));
    assert!(!first.reaches(world, &first.udp(world, 7, forgotten, b"answer")), "no rule allows it");
    assert!(!first.reaches(world, &first.udp(world, 8, newest, b"answer")), "nobody has asked");
    assert!(world.reaches(first, &world.udp(first, forgotten, 7, b"again")));
    assert!(first.reaches(world, &first.udp(world, 7, forgotten, b"answer")), "it is remembered again");
}

/// Connections that were reset are forgotten after ten seconds, and new flows take their places.
fn recovers(site: &Site, by_quota: &BTreeSet<(u8, u16, u16)>, closed: Instant) {
    let (world, first) = (&site.world, &site.first);
    let started = Instant::now();
    for source in 50_000.. {
        assert!(world.reaches(first, &world.udp(first, source, 7, b"new")));
        let tracked = flows(site, "FLOWS4", first);
        if tracked.contains(&(17, 7, source)) {
            assert!(tracked.is_disjoint(by_quota) && tracked.len() <= 2, "{tracked:?}");
            break;
        }
        assert!(started.elapsed() < PATIENCE, "never: {tracked:?}");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(closed.elapsed() > Duration::from_secs(10), "they had not expired: {:?}", closed.elapsed());
}

// === records ===

/// What the maps say of a port: refusals for want of a rule, and records suppressed and lost.
fn counted(site: &Site, id: &str) -> (u64, u64, u64) {
    let options = discover::Options { pin_dir: site.host.root(), ..discover::Options::default() };
    let facts = tokio::runtime::Runtime::new().unwrap().block_on(look(options)).facts;
    let port = facts.enforcement.unwrap().ports.into_iter().find(|port| port.port_id == id).unwrap();
    let refused = port.counters.iter().filter(|count| count.reason == "no-rule");
    (refused.map(|count| count.packets).sum(), port.suppressed, port.lost)
}

/// What the agent has told of a port: refusals, and how many records it says there are none of.
fn told(site: &Site, id: &str) -> (u64, u64) {
    let (mut verdicts, mut missing, mut next) = (0, 0, 0);
    loop {
        let batch = site.host.ok("GET", &format!("/v1/events?since={next}"), "");
        assert_eq!(batch["skipped"], 0);
        let events = batch["events"].as_array().unwrap();
        for event in events.iter().filter(|event| event["port_id"] == id) {
            if event["verdict"] == "deny" {
                verdicts += 1;
            } else {
                missing += event["suppressed"].as_u64().unwrap_or(0) + event["lost"].as_u64().unwrap_or(0);
            }
        }
        if events.is_empty() {
            return (verdicts, missing);
        }
        next = batch["next"].as_u64().unwrap();
    }
}

#[test]
fn every_refusal_is_told_or_counted_as_missing_though_nobody_reads_and_budgets_are_exceeded() {
    let test = "every_refusal_is_told_or_counted_as_missing_though_nobody_reads_and_budgets_are_exceeded";
    let Some(mut site) = Site::enter(test) else { return };
    site.host.start();
    site.policy(&[("none", "")], &[site.first.port("p1", &["none"]), site.second.port("p2", &["none"])], "");
    site.host.signal(Signal::STOP);
    let (world, first, second) = (&site.world, &site.first, &site.second);
    for number in 0..3000 {
        first.send(&first.udp(world, 1, number + 1, b"out"));
        world.send(&world.tcp(first, (1, number + 1), tcp::SYN, b""));
        if number % 50 == 0 {
            second.send(&second.udp(world, 1, number + 1, b"out"));
        }
    }
    assert_eq!(drain(world) + drain(first), 0, "nothing is allowed");
    site.host.signal(Signal::CONT);
    for (id, sent) in [("p1", 6000), ("p2", 60)] {
        let started = Instant::now();
        while {
            let (verdicts, missing) = told(&site, id);
            verdicts + missing < sent
        } {
            assert!(started.elapsed() < PATIENCE, "{:?} of {sent}", told(&site, id));
            thread::sleep(Duration::from_millis(100));
        }
        let (verdicts, missing) = told(&site, id);
        let (refused, suppressed, lost) = counted(&site, id);
        assert_eq!((refused, verdicts + missing, suppressed + lost), (sent, sent, missing), "{id}: {verdicts} told");
        assert!(verdicts >= sent.min(100), "{verdicts}");
        assert_eq!(missing > 0, id == "p1", "{missing}");
    }
}

/// A port of which nothing is known, with a budget no test exceeds.
fn closed_port(machine: &Machine, ifindex: u32) -> Tables {
    let Machine { mac, address, .. } = machine;
    let mut port = Port { flags: PORT_MANAGED | PORT_CLOSED, policy: 1, epoch: 1, mac: mac.0, ..Port::default() };
    port.ipv4[0] = word(*address);
    Tables {
        interfaces: [(ifindex, 3)].into(),
        ports: [(3, port)].into(),
        active: [(1, active(1, 1))].into(),
        views: [(1, View { generation: 1, ..View::default() })].into(),
        settings: Settings { abi: ABI_VERSION.into(), events_per_second: 1 << 30, ..Settings::default() },
        ..Tables::default()
    }
}

fn word(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

#[test]
fn where_the_ring_is_full_every_refusal_without_a_record_is_counted_and_reading_makes_room() {
    let test = "where_the_ring_is_full_every_refusal_without_a_record_is_counted_and_reading_makes_room";
    let Some(site) = Site::enter(test) else { return };
    let options = Options { root: site.host.root(), max_flows: Some(4096), ..Options::default() };
    let mut enforcer = Enforcer::load(options).unwrap();
    let (world, first) = (&site.world, &site.first);
    let ifindex = first.ifindex();
    enforcer.apply(&diff(&Tables::default(), &closed_port(first, ifindex))).unwrap();
    enforcer.attach(ifindex, Hook::Tc).unwrap();
    let mut events = enforcer.events().unwrap();
    let mut read = || {
        let (mut verdicts, mut more) = (0, true);
        while more {
            let (batch, again) = events.drain();
            let batch = batch.unwrap();
            assert!(
                batch
                    .iter()
                    .all(|event| matches!(event, Event::Verdict(verdict) if verdict.direction == Direction::Egress))
            );
            (verdicts, more) = (verdicts + batch.len() as u64, again);
        }
        verdicts
    };
    let send = |count: u16| (0..count).for_each(|number| first.send(&first.udp(world, 1, number, b"out")));
    let refused = || {
        let counters = enforcer.port_counters(3).unwrap();
        (counters.tallies[&(false, Reason::NoPolicy as u8)].packets, counters.losses)
    };
    send(30_000);
    let verdicts = read();
    let (packets, losses) = refused();
    assert_eq!((packets, losses.suppressed), (30_000, 0));
    assert!(verdicts > 10_000 && losses.lost > 10_000, "{verdicts} {losses:?}");
    assert_eq!(packets, verdicts + losses.lost);
    send(1000);
    assert_eq!(read(), 1000, "there is room again");
    assert_eq!(refused(), (31_000, losses));
    assert_eq!(drain(world), 0);
}
