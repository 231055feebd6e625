//! Compiled tables go to the maps of a real kernel and come back; flows, counters, events and facts come out of them.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use netdiag_agent::{
    discover::{self, look},
    enforce::{ApplyError, Collected, Enforcer, Events, Hook, Options},
};
use netdiag_common::{
    ABI_VERSION,
    abi::{
        flow::{Flow, FlowKey4, FlowKey6, tick},
        policy::{
            GrantKey, Label, MacKey, PORT_CLOSED, PORT_MANAGED, Page, PairKey, Port, Protocol, RemoteKey4, RemoteKey6,
            Settings, Side, View, active,
        },
        reason::Reason,
    },
    logic::flow::{State, protocol},
};
use netdiag_model::{
    compile::{Change, Op, PAIR_BITS, Phase, SET_BITS, Stage, Tables, Trie, diff},
    event::{Decision, Event},
    fact::{SourceKind, enforcement::EnforcementFact},
    id::IfIndex,
    policy::types::{Direction, Mode},
};
use netdiag_tests::{Bpffs, private_host, program::has_tcx, require_ebpf};
use rustix::time::{ClockId, clock_gettime};

/// Runs the rest of a test on a host of its own.
macro_rules! host {
    ($test:literal) => {
        if !(require_ebpf() && private_host::enter($test)) {
            return;
        }
    };
}

/// Maps that nobody else sees.
struct Maps(Bpffs);

impl Maps {
    fn new() -> Self {
        Self(Bpffs::new())
    }

    fn root(&self) -> PathBuf {
        self.0.root()
    }

    fn load(&self) -> Enforcer {
        Enforcer::load(self.options()).unwrap()
    }

    fn options(&self) -> Options {
        Options { root: self.root(), max_flows: Some(4096), ..Options::default() }
    }
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn label(text: &str) -> Label {
    let mut label = Label::default();
    label.0[..text.len()].copy_from_slice(text.as_bytes());
    label
}

fn word(address: &str) -> u32 {
    u32::from_ne_bytes(address.parse::<Ipv4Addr>().unwrap().octets())
}

fn port(flags: u32, epoch: u32) -> Port {
    Port { flags: PORT_MANAGED | flags, policy: 1, epoch, mac: [2, 0, 0, 0, 0, 7], ..Port::default() }
}

/// Tables with something in every map.
fn everything() -> Tables {
    let remote4 = |set, address: &str| RemoteKey4 { set, address: word(address) };
    let remote6 = |set| RemoteKey6 { set, address: [0x0db8_2001_u32, 0, 0, set] };
    let side = Side { services: 1, grants: 1, hosts: 1, prefixes: 2 };
    let mut page = Page::default();
    page.0[80] = 9;
    let pair = PairKey {
        slot: 3,
        mac: [2, 0, 0, 0, 0, 7],
        family: 4,
        pad: 0,
        address: [0, 0, 0xffff_u32.to_be(), word("10.1.0.0")],
    };
    Tables {
        interfaces: [(12, 3), (70_000, 4)].into(),
        ports: [(3, port(0, 1)), (4, port(PORT_CLOSED, 1))].into(),
        macs: [MacKey { slot: 3, mac: [2, 0, 0, 0, 0, 8], pad: [0; 2] }].into(),
        pairs: [Trie { data: pair, bits: PAIR_BITS + 96 + 16 }].into(),
        active: [(0, active(0, 5)), (1, active(1, 5))].into(),
        views: [(1, View { generation: 5, flags: 0, sides: [side; 4] })].into(),
        protocols: [(256 + 6, Protocol { whole: 0, directory: 1 })].into(),
        pages: [(1, page)].into(),
        grants: [(GrantKey { grants: 1, remote: 2, class: 1 }, 1)].into(),
        remotes4: [(remote4(1, "10.0.0.1"), 2), (remote4(1, "10.0.0.2"), 2)].into(),
        remotes6: [(remote6(1), 2)].into(),
        prefixes4: [(Trie { data: remote4(2, "10.0.0.0"), bits: SET_BITS + 8 }, 3)].into(),
        prefixes6: [(Trie { data: remote6(2), bits: SET_BITS + 128 }, 3)].into(),
        rule_labels: [(1, label("rule-of-web"))].into(),
        port_labels: [(3, label("port-of-web")), (4, label("port-of-db"))].into(),
        policy_labels: [(1, label("web"))].into(),
        set_labels: [(1, label("web")), (2, label("prefixes"))].into(),
        settings: Settings {
            abi: ABI_VERSION.into(),
            events_per_second: 100,
            ethertypes: [0x88cc, 0, 0, 0, 0, 0, 0, 0],
        },
    }
}

#[test]
fn tables_come_back_as_they_were_written_and_go_when_they_are_taken_away() {
    host!("tables_come_back_as_they_were_written_and_go_when_they_are_taken_away");
    let bpffs = Maps::new();
    let enforcer = bpffs.load();
    assert_eq!(enforcer.read_tables().unwrap(), Tables::default());
    let tables = everything();
    enforcer.apply(&diff(&Tables::default(), &tables)).unwrap();
    assert_eq!(enforcer.read_tables().unwrap(), tables);
    assert_eq!(bpffs.0.array::<u32>("INTERFACES").get(&12, 0).unwrap(), 4, "a place plus one");
    assert_eq!(bpffs.0.hash::<u32, u32>("FAR_INTERFACES").get(&70_000, 0).unwrap(), 5);
    drop(enforcer);

    let enforcer = bpffs.load();
    assert_eq!(enforcer.read_tables().unwrap(), tables, "they outlive the enforcer");
    let mut fewer = everything();
    fewer.interfaces.remove(&70_000);
    fewer.remotes4.pop_first();
    fewer.macs.clear();
    fewer.pairs.clear();
    enforcer.apply(&diff(&tables, &fewer)).unwrap();
    assert_eq!(enforcer.read_tables().unwrap(), fewer);
    enforcer.apply(&diff(&fewer, &Tables::default())).unwrap();
    assert_eq!(enforcer.read_tables().unwrap().interfaces, Tables::default().interfaces);
}

#[test]
fn many_elements_go_in_batches_and_a_missing_one_stops_no_removal() {
    host!("many_elements_go_in_batches_and_a_missing_one_stops_no_removal");
    let bpffs = Maps::new();
    let enforcer = bpffs.load();
    let many: Vec<_> = (0..20_000).map(|address| RemoteKey4 { set: 1, address }).collect();
    let phase = |ops| [Phase { stage: Stage::Add, ops }];
    let puts = many.iter().map(|key| Op::Remote4(Change::Put(*key, 7))).collect();
    enforcer.apply(&phase(puts)).unwrap();
    assert_eq!(enforcer.read_tables().unwrap().remotes4.len(), 20_000);
    // Every fifth is gone already.
    let fifth = many.iter().step_by(5).map(|key| Op::Remote4(Change::Delete(*key)));
    enforcer.apply(&phase(fifth.collect())).unwrap();
    assert_eq!(enforcer.read_tables().unwrap().remotes4.len(), 16_000);
    let all = many.iter().map(|key| Op::Remote4(Change::Delete(*key)));
    enforcer.apply(&phase(all.collect())).unwrap();
    assert!(enforcer.read_tables().unwrap().remotes4.is_empty());
}

#[test]
fn writes_to_one_element_are_done_in_their_order() {
    host!("writes_to_one_element_are_done_in_their_order");
    let bpffs = Maps::new();
    let enforcer = bpffs.load();
    let key = RemoteKey4 { set: 1, address: 1 };
    let ops = vec![
        Op::Remote4(Change::Put(key, 1)),
        Op::Remote4(Change::Delete(key)),
        Op::Remote4(Change::Put(key, 2)),
        Op::Active(Change::Put(1, 10)),
        Op::Active(Change::Delete(1)),
        Op::Active(Change::Put(1, 11)),
    ];
    enforcer.apply(&[Phase { stage: Stage::Switch, ops }]).unwrap();
    let tables = enforcer.read_tables().unwrap();
    assert_eq!((tables.remotes4.get(&key), tables.active.get(&1)), (Some(&2), Some(&11)));
}

#[test]
fn a_write_that_is_refused_names_map_and_stage_and_leaves_what_came_before() {
    host!("a_write_that_is_refused_names_map_and_stage_and_leaves_what_came_before");
    let bpffs = Maps::new();
    let enforcer = bpffs.load();
    let ops = vec![
        Op::Active(Change::Put(1, 10)),
        Op::View(Change::Put(1_000_000, View::default())),
        Op::Active(Change::Put(2, 10)),
    ];
    let error = enforcer.apply(&[Phase { stage: Stage::Switch, ops }]).unwrap_err();
    let ApplyError::Write { stage: Stage::Switch, source } = error else { panic!("{error}") };
    assert!(source.to_string().contains("VIEWS"), "{source}");
    assert_eq!(enforcer.read_tables().unwrap().active, [(1, 10)].into());
}

// === flows ===

fn now() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    tick(u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap())
}

fn key(slot: u16, number: u32) -> FlowKey4 {
    FlowKey4 { local: 1, remote: number, slot, protocol: protocol::UDP, ..FlowKey4::default() }
}

fn flow(epoch: u32, silent: u32) -> Flow {
    let seen = now().wrapping_sub(silent);
    Flow { epoch, seen, born: seen, state: State::Replied as u8, ..Flow::default() }
}

#[test]
fn flows_that_are_over_are_collected_and_the_rest_counts_against_the_quota() {
    host!("flows_that_are_over_are_collected_and_the_rest_counts_against_the_quota");
    let bpffs = Maps::new();
    let enforcer = bpffs.load();
    let (mut flows, mut over) = (bpffs.0.hash::<FlowKey4, Flow>("FLOWS4"), bpffs.0.hash::<FlowKey4, Flow>("OVER4"));
    let mut flows6 = bpffs.0.hash::<FlowKey6, Flow>("FLOWS6");
    let ports = Tables { ports: [(3, port(0, 7)), (4, port(0, 2))].into(), ..Tables::default() };
    enforcer.apply(&diff(&Tables::default(), &ports)).unwrap();
    // Answered UDP flows may be silent for 120 s.
    for number in 0..500 {
        flows.insert(key(3, number), flow(7, 1), 0).unwrap();
    }
    for number in 500..900 {
        flows.insert(key(3, number), flow(7, 300), 0).unwrap();
    }
    // A packet of it comes in the tick that begins while the rest is looked through.
    flows.insert(key(3, 900), flow(7, 5_u32.wrapping_neg()), 0).unwrap();
    flows.insert(key(4, 1), flow(1, 0), 0).unwrap();
    flows.insert(key(9, 1), flow(1, 0), 0).unwrap();
    let key6 = FlowKey6 { slot: 4, protocol: protocol::UDP, ..FlowKey6::default() };
    flows6.insert(key6, flow(2, 0), 0).unwrap();
    over.insert(key(3, 1000), flow(7, 0), 0).unwrap();
    over.insert(key(3, 1001), flow(7, 300), 0).unwrap();
    bpffs.0.array::<u64>("TRACKED").set(3, 5000_u64, 0).unwrap();
    bpffs.0.array::<u64>("TRACKED").set(4, 2_u64, 0).unwrap();

    let collected = enforcer.collect().unwrap();
    assert_eq!(collected, Collected { live: 503, removed: 403 });
    let left = enforcer.flows().unwrap();
    let left4: BTreeSet<_> =
        left.ipv4.iter().map(|tracked| (tracked.key.slot, tracked.key.remote, tracked.overflow)).collect();
    let expected = (0..500).map(|number| (3, number, false)).chain([(3, 900, false), (3, 1000, true)]).collect();
    assert_eq!(left4, expected);
    assert_eq!(left.ipv6.len(), 1);
    // Half of the smaller map, which has room for 2048 flows, for two ports.
    let quota = 2048 / 2 / 2;
    let allowance = bpffs.0.array::<u64>("ALLOWANCE");
    assert_eq!(allowance.get(&3, 0).unwrap(), 5000 - 501 + quota);
    assert_eq!(allowance.get(&4, 0).unwrap(), 2 - 1 + quota);
    assert_eq!(enforcer.collect().unwrap(), Collected { live: 503, removed: 0 });
}

#[test]
fn a_port_that_is_new_may_track_flows_at_once() {
    host!("a_port_that_is_new_may_track_flows_at_once");
    let bpffs = Maps::new();
    let enforcer = bpffs.load();
    bpffs.0.array::<u64>("TRACKED").set(3, 100_u64, 0).unwrap();
    let ports = Tables { ports: [(3, port(0, 7))].into(), interfaces: [(12, 3)].into(), ..Tables::default() };
    enforcer.apply(&diff(&Tables::default(), &ports)).unwrap();
    assert_eq!(bpffs.0.array::<u64>("ALLOWANCE").get(&3, 0).unwrap(), 100 + 1024);
}

// === counters, events, facts ===

/// An instance behind a port whose policy is not known.
struct Closed {
    bpffs: Maps,
    enforcer: Enforcer,
    events: Events,
    tap: u32,
}

impl Closed {
    fn new() -> Self {
        let bpffs = Maps::new();
        run("ip netns add instance");
        run("ip link add tap0 index 50 type veth peer name eth0 netns instance");
        run("ip addr add 192.0.2.1/24 dev tap0");
        run("ip link set tap0 up");
        run("ip -n instance link set eth0 address 02:00:00:00:00:07");
        run("ip -n instance addr add 192.0.2.2/24 dev eth0");
        run("ip -n instance link set eth0 up");
        // Who is pinged is known: what is sent leaves at once.
        run("ip link set tap0 address 02:00:00:00:00:01");
        run("ip -n instance neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
        let mut enforcer = bpffs.load();
        let mut port = port(PORT_CLOSED, 1);
        port.ipv4[0] = word("192.0.2.2");
        let tables = Tables {
            interfaces: [(50, 3)].into(),
            ports: [(3, port)].into(),
            port_labels: [(3, label("port-of-web"))].into(),
            active: [(1, active(1, 1))].into(),
            views: [(1, View { generation: 1, ..View::default() })].into(),
            settings: Settings { abi: ABI_VERSION.into(), events_per_second: 5, ..Settings::default() },
            ..Tables::default()
        };
        enforcer.apply(&diff(&Tables::default(), &tables)).unwrap();
        enforcer.attach(50, Hook::Tc).unwrap();
        let events = enforcer.events().unwrap();
        Self { bpffs, enforcer, events, tap: 50 }
    }

    /// Sends echo requests, none of which is answered.
    fn ping(count: u32) {
        let ping = format!("netns exec instance ping -c {count} -i 0.01 -W 1 192.0.2.1");
        let output = Command::new("ip").args(ping.split(' ')).output().unwrap();
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    /// Facts of one look at this host.
    fn facts(&self, flows: bool) -> EnforcementFact {
        let options = discover::Options { pin_dir: self.bpffs.root(), flows, ..discover::Options::default() };
        let facts = tokio::runtime::Runtime::new().unwrap().block_on(look(options)).facts;
        let gaps: Vec<_> = facts.gaps().filter(|gap| gap.source == SourceKind::Enforcement).collect();
        assert!(gaps.is_empty(), "{gaps:?}");
        facts.enforcement.unwrap()
    }
}

#[test]
fn every_refused_packet_is_counted_and_has_a_record_or_is_counted_as_lost() {
    host!("every_refused_packet_is_counted_and_has_a_record_or_is_counted_as_lost");
    let mut closed = Closed::new();
    Closed::ping(20);
    let counters = closed.enforcer.port_counters(3).unwrap();
    let refused = counters.tallies[&(false, Reason::NoPolicy as u8)];
    assert_eq!((refused.packets, refused.bytes), (20, 20 * 98));
    let (events, more) = closed.events.drain();
    assert!(!more);
    let verdicts: Vec<_> = events.unwrap();
    let echoes = verdicts.iter().filter_map(|event| match event {
        Event::Verdict(verdict) if verdict.reason == "no-policy" => Some(verdict),
        Event::Verdict(_) | Event::Lost(_) => None,
    });
    let echoes: Vec<_> = echoes.collect();
    let echo = echoes[0];
    assert_eq!(
        (echo.port_id.as_str(), echo.direction, echo.verdict),
        ("port-of-web", Direction::Egress, Decision::Deny)
    );
    assert_eq!((echo.source, echo.protocol), (Some("192.0.2.2".parse().unwrap()), Some(1)));
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let age = since.saturating_sub(Duration::from_nanos(echo.time_ns));
    assert!(age < Duration::from_mins(1), "{age:?}");
    // No record without a verdict, no verdict without a record or a loss.
    let losses = closed.events.losses().unwrap();
    let suppressed: u64 =
        losses.iter().map(|event| if let Event::Lost(loss) = event { loss.suppressed } else { 0 }).sum();
    assert!(suppressed > 0, "20 packets in a second or two are more than 5 a second");
    let counted: u64 =
        counters.tallies.iter().filter(|((_, reason), _)| !passes(*reason)).map(|(_, tally)| tally.packets).sum();
    assert_eq!(u64::try_from(verdicts.len()).unwrap() + suppressed, counted);
    assert!(closed.events.losses().unwrap().is_empty(), "told once");
}

fn passes(reason: u8) -> bool {
    Reason::try_from(reason).unwrap().passes()
}

#[test]
fn a_look_at_the_host_finds_what_is_enforced_without_the_agent() {
    host!("a_look_at_the_host_finds_what_is_enforced_without_the_agent");
    let closed = Closed::new();
    Closed::ping(2);
    let fact = closed.facts(false);
    assert_eq!((fact.abi, fact.agent.is_none(), fact.tracked.is_none()), (ABI_VERSION.into(), true, true));
    let [port] = &fact.ports[..] else { panic!("{:?}", fact.ports) };
    assert_eq!((port.slot, port.port_id.as_str(), port.mode), (3, "port-of-web", Mode::Closed));
    assert_eq!((port.ifindex, port.mac.to_string().as_str()), (IfIndex(closed.tap), "02:00:00:00:00:07"));
    let refused = port.counters.iter().find(|count| count.reason == "no-policy").unwrap();
    assert_eq!((refused.direction, refused.packets), (Direction::Egress, 2));
    let hooks: Vec<_> =
        port.hooks.iter().map(|hook| (hook.direction, hook.hook.as_str(), hook.behind.as_deref())).collect();
    let method = if has_tcx(closed.tap) { "tcx" } else { "clsact" };
    assert_eq!(hooks, [(Direction::Egress, method, None), (Direction::Ingress, method, None)]);
    assert_eq!(fact.tables.unwrap().ports.len(), 1);
}

#[test]
fn a_look_at_the_host_lists_flows_when_asked() {
    host!("a_look_at_the_host_lists_flows_when_asked");
    let closed = Closed::new();
    let key = FlowKey4 {
        local: word("192.0.2.2"),
        remote: word("192.0.2.1"),
        local_port: 40_000_u16.to_be(),
        remote_port: 53_u16.to_be(),
        slot: 3,
        protocol: protocol::UDP,
        pad: 0,
    };
    let mut flows = closed.bpffs.0.hash::<FlowKey4, Flow>("FLOWS4");
    let began = Instant::now();
    flows.insert(key, flow(1, 10), 0).unwrap();
    flows.insert(FlowKey4 { local_port: 1, ..key }, flow(99, 10), 0).unwrap();
    let fact = closed.facts(true);
    assert_eq!((fact.flows, fact.ports[0].flows), (1, 1), "one is of a port that was there before");
    let [flow] = &fact.tracked.unwrap()[..] else { panic!("one flow") };
    assert_eq!((flow.local_port, flow.remote_port, flow.state.as_str()), (40_000, 53, "replied"));
    assert_eq!((flow.local.to_string(), flow.remote.to_string()), ("192.0.2.2".to_owned(), "192.0.2.1".to_owned()));
    assert!((10..=13 + began.elapsed().as_secs()).contains(&flow.idle), "{}", flow.idle);
}

#[test]
fn where_nothing_is_pinned_nothing_is_missing_and_other_maps_are_a_gap() {
    host!("where_nothing_is_pinned_nothing_is_missing_and_other_maps_are_a_gap");
    let bpffs = Maps::new();
    let gap = |root: &Path| {
        let options = discover::Options { pin_dir: root.to_owned(), ..discover::Options::default() };
        let facts = tokio::runtime::Runtime::new().unwrap().block_on(look(options)).facts;
        assert!(facts.enforcement.is_none());
        let gap = facts.gaps().find(|gap| gap.source == SourceKind::Enforcement).cloned();
        gap.unwrap()
    };
    assert!(gap(&bpffs.root()).absent);
    fs::create_dir_all(bpffs.root().join("v65000")).unwrap();
    let other = gap(&bpffs.root());
    assert!(!other.absent && other.why.contains("v65000"), "{other:?}");
}
