//! How long a flow may stay silent, by protocol and state, on a real kernel with a real agent: it is alive until then to the programs
//! and to the agent, and neither knows it any more afterwards.
//!
//! No rule lets anything out, so an answer passes only as long as its flow is remembered. Days are not waited for: when a flow was
//! seen last is set back in the maps, which is all that silence does to it. `every_timeout_has_its_length_in_real_time` waits.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use netdiag_common::{
    ABI_VERSION,
    abi::flow::{Flow, FlowKey4, FlowKey6, Tick, tick},
    logic::flow::{
        State,
        protocol::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE},
        tcp::{ACK, FIN, RST, SYN},
    },
};
use netdiag_tests::{agent::PATIENCE, site::Site};
use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};

/// GRE, of which nothing but the number is known.
const GRE: u8 = 47;

/// A packet of a flow: whether it is an answer, and its flags if it is TCP.
type Step = (bool, u8);

/// What brings a flow into a state.
struct Kind {
    protocol: u8,
    ipv6: bool,
    state: State,
    /// Seconds it may stay silent then.
    seconds: u64,
    steps: &'static [Step],
    /// An answer that passes as long as the flow is alive.
    answer: u8,
}

const ASKED: &[Step] = &[(false, 0)];
const ANSWERED: &[Step] = &[(false, 0), (true, 0)];

const fn plain(protocol: u8, unreplied: u64, replied: u64) -> [Kind; 2] {
    let ipv6 = protocol == ICMPV6;
    [
        Kind { protocol, ipv6, state: State::Unreplied, seconds: unreplied, steps: ASKED, answer: 0 },
        Kind { protocol, ipv6, state: State::Replied, seconds: replied, steps: ANSWERED, answer: 0 },
    ]
}

const fn tcp(state: State, seconds: u64, steps: &'static [Step], answer: u8) -> Kind {
    Kind { protocol: TCP, ipv6: false, state, seconds, steps, answer }
}

const SENT: Step = (false, SYN);
const RECEIVED: Step = (true, SYN | ACK);
const AGREED: Step = (false, ACK);

/// What `docs/DATAPATH-details.md` says.
fn kinds() -> Vec<Kind> {
    let connections = [
        tcp(State::SynSent, 120, &[SENT], SYN | ACK),
        tcp(State::SynReceived, 60, &[SENT, RECEIVED], SYN | ACK),
        tcp(State::Established, 432_000, &[SENT, RECEIVED, AGREED], ACK),
        tcp(State::FinWait, 120, &[SENT, RECEIVED, AGREED, (false, FIN | ACK)], ACK),
        tcp(State::TimeWait, 120, &[SENT, RECEIVED, AGREED, (false, FIN | ACK), (true, FIN | ACK)], ACK),
        tcp(State::Closed, 10, &[SENT, RECEIVED, AGREED, (false, RST)], ACK),
        tcp(State::PickedUp, 300, &[AGREED], ACK),
    ];
    let others = [
        plain(UDP, 30, 120),
        plain(UDP, 30, 120).map(|kind| Kind { ipv6: true, ..kind }),
        plain(UDPLITE, 30, 120),
        plain(SCTP, 30, 210),
        plain(ICMP, 30, 30),
        plain(ICMPV6, 30, 30),
        plain(DCCP, 600, 600),
        plain(GRE, 600, 600),
    ];
    connections.into_iter().chain(others.into_iter().flatten()).collect()
}

impl Kind {
    fn name(&self) -> String {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        format!("protocol {} over {family}, {}", self.protocol, self.state.name())
    }

    /// What comes after the IP header.
    fn content(&self, reply: bool, flags: u8) -> Vec<u8> {
        let ports: [u8; 4] = if reply { [0, 7, 4, 0] } else { [4, 0, 0, 7] };
        let rest: &[u8] = match self.protocol {
            TCP => &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 4, 0, 0, 0, 0, 0],
            UDP | UDPLITE => &[0, 8, 0, 0],
            _ => &[0; 12],
        };
        match self.protocol {
            ICMP => vec![if reply { 0 } else { 8 }, 0, 0, 0, 0, 9, 0, 1],
            ICMPV6 => vec![if reply { 129 } else { 128 }, 0, 0, 0, 0, 9, 0, 1],
            _ => [&ports[..], rest].concat(),
        }
    }
}

/// A flow of a kind: each has another end of its own.
struct Tried {
    kind: Kind,
    number: u16,
}

/// Flows of every kind that does not outlive the test, so many of each.
fn flows(longest: u64, of_each: usize) -> Vec<Tried> {
    let kinds = (0..of_each).flat_map(|_| kinds()).filter(|kind| kind.seconds <= longest);
    kinds.zip(1..).map(|(kind, number)| Tried { kind, number }).collect()
}

impl Tried {
    /// Whether a packet of it passes.
    fn passes(&self, Site { world, first, .. }: &Site, (reply, flags): Step) -> bool {
        let (remote, local): (IpAddr, IpAddr) = if self.kind.ipv6 {
            (self.remote6().into(), first.address6.into())
        } else {
            (self.remote4().into(), first.address.into())
        };
        let content = self.kind.content(reply, flags);
        if reply {
            first.reaches(world, &first.ip(world.mac, (local, remote), self.kind.protocol, &content))
        } else {
            world.reaches(first, &world.ip(first.mac, (remote, local), self.kind.protocol, &content))
        }
    }

    fn remote4(&self) -> Ipv4Addr {
        let [upper, lower] = self.number.to_be_bytes();
        Ipv4Addr::new(198, 18, upper, lower)
    }

    fn remote6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, self.number)
    }

    fn begin(&self, site: &Site) {
        for step in self.kind.steps {
            assert!(self.passes(site, *step), "{}: {step:?}", self.kind.name());
        }
        assert_eq!(State::of(self.get(site).unwrap().state), self.kind.state, "{}", self.kind.name());
    }

    /// Whether an answer passes.
    fn answers(&self, site: &Site) -> bool {
        self.passes(site, (true, self.kind.answer))
    }

    /// What is remembered of it.
    fn get(&self, site: &Site) -> Option<Flow> {
        if self.kind.ipv6 {
            let is_it = |key: &FlowKey6| key.remote == words(self.remote6());
            return map(site, "FLOWS6").iter().flatten().find(|(key, _)| is_it(key)).map(|(_, flow)| flow);
        }
        let is_it = |key: &FlowKey4| key.remote == u32::from_ne_bytes(self.remote4().octets());
        map(site, "FLOWS4").iter().flatten().find(|(key, _)| is_it(key)).map(|(_, flow)| flow)
    }

    /// Makes it one that has been silent for so long.
    fn silent_for(&self, site: &Site, time: Duration) {
        let ticks = u32::try_from(time.as_nanos() >> 30).unwrap();
        let aged = |flow: Flow| Flow { seen: now().wrapping_sub(ticks), ..flow };
        if self.kind.ipv6 {
            let mut map = map::<FlowKey6>(site, "FLOWS6");
            let found = map.iter().flatten().find(|(key, _)| key.remote == words(self.remote6()));
            let (key, flow) = found.unwrap();
            return map.insert(key, aged(flow), 0).unwrap();
        }
        let mut map = map::<FlowKey4>(site, "FLOWS4");
        let own = u32::from_ne_bytes(self.remote4().octets());
        let (key, flow) = map.iter().flatten().find(|(key, _)| key.remote == own).unwrap();
        map.insert(key, aged(flow), 0).unwrap();
    }

    /// A time at which it is alive for certain, some seconds before it is over.
    fn alive(&self) -> Duration {
        Duration::from_secs(self.kind.seconds - 8)
    }

    /// A time at which it is over for certain: timeouts are rounded up to ticks, at most by a hundredth and some seconds.
    fn over(&self) -> Duration {
        Duration::from_secs(self.kind.seconds + self.kind.seconds / 100 + 5)
    }
}

fn words(address: Ipv6Addr) -> [u32; 4] {
    let octets = address.octets();
    [0, 4, 8, 12].map(|at| u32::from_ne_bytes(octets[at..at + 4].try_into().unwrap()))
}

fn map<K: aya::Pod>(site: &Site, name: &str) -> HashMap<MapData, K, Flow> {
    let path = site.host.root().join(format!("v{ABI_VERSION}")).join(name);
    HashMap::try_from(Map::HashMap(MapData::from_pin(path).unwrap())).unwrap()
}

fn now() -> Tick {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    tick(u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap())
}

/// A host where everything may come in and nothing may go out, and flows of every kind, so many of each.
fn begin(test: &str, longest: u64, of_each: usize) -> Option<(Site, Vec<Tried>)> {
    let mut site = Site::enter(test)?;
    site.host.start_with(&["--max-flows", "4096"]);
    let any = ["IPv4", "IPv6"].map(|family| format!(r#"{{"direction": "ingress", "ethertype": "{family}"}}"#));
    site.policy(&[("open", &any.join(","))], &[site.first.port("p1", &["open"])], "");
    let flows = flows(longest, of_each);
    for flow in &flows {
        flow.begin(&site);
    }
    Some((site, flows))
}

/// Names of those of which something is true.
fn those<'t>(flows: impl IntoIterator<Item = &'t Tried>, is_so: impl Fn(&Tried) -> bool) -> Vec<String> {
    flows.into_iter().filter(|flow| is_so(flow)).map(|flow| flow.kind.name()).collect()
}

/// Waits until the agent has looked for flows that are over.
fn wait_for_sweep(site: &Site) {
    // One that nobody could keep.
    let kind = kinds().pop().unwrap();
    let over = Tried { kind, number: u16::MAX };
    over.begin(site);
    over.silent_for(site, Duration::from_secs(100_000));
    wait_for(|| over.get(site).is_none());
}

fn wait_for(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never");
        thread::sleep(Duration::from_millis(50));
    }
}

const NONE: [String; 0] = [];

#[test]
fn a_flow_is_remembered_as_long_as_its_protocol_and_state_allow_and_no_longer() {
    let test = "a_flow_is_remembered_as_long_as_its_protocol_and_state_allow_and_no_longer";
    let Some((site, flows)) = begin(test, u64::MAX, 3) else { return };
    let of_each = kinds().len();
    let (asked, rest) = flows.split_at(of_each);
    let (refused, left) = rest.split_at(of_each);
    // A busy machine may take so long that flows are over meanwhile.
    let in_time = (0..5).any(|_| {
        let began = Instant::now();
        for flow in &flows {
            flow.silent_for(&site, flow.alive());
        }
        wait_for_sweep(&site);
        let gone = those(&flows, |flow| flow.get(&site).is_none());
        let in_time = began.elapsed() < Duration::from_secs(7);
        assert!(!in_time || gone.is_empty(), "the agent forgets too early: {gone:#?}");
        in_time
    });
    assert!(in_time, "the agent is too slow");
    site.host.signal(Signal::STOP);
    let over_too_early = those(asked, |flow| {
        flow.silent_for(&site, flow.alive());
        !flow.answers(&site)
    });
    assert_eq!(over_too_early, NONE, "over too early");

    for flow in rest {
        flow.silent_for(&site, flow.over());
    }
    assert_eq!(those(refused, |flow| flow.answers(&site)), NONE, "still alive");
    assert_eq!(those(rest, |flow| flow.get(&site).is_none()), NONE, "nobody has removed it yet");
    site.host.signal(Signal::CONT);
    wait_for_sweep(&site);
    assert_eq!(those(left, |flow| flow.get(&site).is_some()), NONE, "the agent remembers too long");
}

// That each timeout is kept is tried by the test above, which sets clocks back; this waits for real, as long as most of them are, and
// that is longer than all the other tests together may take.
#[test]
#[ignore = "takes ten minutes: cargo test -p netdiag-tests --test invariant_timeouts -- --ignored"]
fn every_timeout_has_its_length_in_real_time() {
    let Some((site, flows)) = begin("every_timeout_has_its_length_in_real_time", 600, 2) else { return };
    let began = Instant::now();
    let (before, after) = flows.split_at(flows.len() / 2);
    let early = before.iter().map(|flow| (Duration::from_secs(flow.kind.seconds - 2), flow, true));
    let late = after.iter().map(|flow| (flow.over(), flow, false));
    let mut times: Vec<_> = early.chain(late).collect();
    times.sort_by_key(|(time, ..)| *time);
    let mut wrong = Vec::new();
    for (time, flow, alive) in times {
        thread::sleep(time.saturating_sub(began.elapsed()));
        if flow.answers(&site) != alive {
            wrong.push(format!("{} after {time:?}", flow.kind.name()));
        }
    }
    assert_eq!(wrong, NONE);
}
