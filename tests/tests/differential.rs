//! Three evaluators, one truth: the reference evaluator on the policy itself, the compiled tables in memory, and the programs
//! in the kernel must agree on random policies and on whole conversations of random packets, malformed ones included.
//!
//! The second evaluator goes both ways at once: the long way alone, and the short way of established flows first; they must
//! agree on every packet and on everything they remember.
//!
//! `NETDIAG_DIFFERENTIAL_PACKETS` says how many packets (1,000,000 in CI, 100,000 elsewhere), `NETDIAG_DIFFERENTIAL_SEED` where to
//! begin; a failure prints the seed of its scenario and the few steps it takes.

use std::{
    collections::BTreeMap,
    env,
    num::NonZero,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use netdiag_common::{
    abi::{
        flow::{Tick, tick},
        reason::Reason,
    },
    logic::{
        decide::{Ask, decide},
        frame::Slice,
        packet::Packet as Learnt,
        short,
        tables::PolicyTables as _,
    },
};
use netdiag_model::{
    compile::{Input, Tables, diff, lower},
    policy::{
        decide::{Context, Frame, Judge, Judgement},
        types::{Attached, Direction, Hook, RuleId},
    },
};
use netdiag_tests::{
    kernel::{Kernel, Program},
    memory::Memory,
    packets::{Packet, Scenario, Step, World},
};

/// Packets of one scenario.
const PACKETS: usize = 300;
/// Length of an Ethernet header: the kernel runs programs on nothing shorter.
const ETHERNET: usize = 14;

/// How often a scenario is played anew at most, where a tick has passed at the wrong moment.
const TRIES: u32 = 20;

/// In what evaluators differ.
struct Differ {
    why: String,
    /// A tick has passed while a packet was looked at, on a busy machine: the kernel may have decided about it in the next one, and
    /// remembers that.
    late: bool,
}

/// What one evaluator says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    reason: Reason,
    rule: Option<RuleId>,
}

/// All evaluators, and what they remember.
struct Evaluators<'a> {
    judge: Judge,
    tables: Tables,
    long: Memory,
    short: Memory,
    kernel: Option<&'a mut Kernel>,
    /// What was added to the clock.
    advanced: Tick,
    /// See [`Differ`].
    late: bool,
}

/// Nanoseconds of the coarse monotonic clock.
fn nanoseconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Seconds of the coarse monotonic clock, in ticks, at a moment that is not about to become the next tick.
fn clock() -> Tick {
    const MARGIN: u64 = 12_000_000;
    loop {
        let now = nanoseconds();
        if now % (1 << 30) < (1 << 30) - MARGIN {
            return tick(now);
        }
        thread::sleep(std::time::Duration::from_millis(2));
    }
}

impl<'a> Evaluators<'a> {
    fn new(world: &World, kernel: Option<&'a mut Kernel>) -> Self {
        let mut evaluators = Self {
            judge: Judge::default(),
            tables: Tables::default(),
            long: Memory::default(),
            short: Memory::default(),
            kernel,
            advanced: 0,
            late: false,
        };
        evaluators.change(world);
        evaluators
    }

    fn change(&mut self, world: &World) {
        let input =
            Input { policy: &world.policy, attached: &world.ports, members: &world.members, events_per_second: 100 };
        let after = lower(&input, &self.tables).expect("a small policy fits");
        self.replace(after);
    }

    fn replace(&mut self, after: Tables) {
        if let Some(kernel) = &mut self.kernel {
            kernel.apply(&diff(&self.tables, &after)).expect("write the maps");
        }
        self.tables = after;
    }

    fn advance(&mut self, ticks: Tick) {
        self.advanced = self.advanced.wrapping_add(ticks);
        if let Some(kernel) = &mut self.kernel {
            kernel.advance(&self.long, ticks).expect("what is remembered in memory is in the maps");
        }
    }

    /// Leaves the maps as they were before.
    fn finish(mut self) -> Result<(), String> {
        if self.long.flows4 != self.short.flows4 || self.long.flows6 != self.short.flows6 {
            return Err("the short way and the long way do not remember the same".to_owned());
        }
        self.replace(Tables::default());
        match self.kernel {
            Some(kernel) => kernel.forget(&self.long).map_err(|error| format!("{error:#}")),
            None => Ok(()),
        }
    }

    /// What all of them say of a packet, or in which they differ.
    fn packet(&mut self, world: &World, packet: &Packet) -> Result<Judgement, String> {
        let port = world.port(&packet.port).ok_or("no such port")?;
        let real = clock();
        let now = real.wrapping_add(self.advanced);
        let context = Context { policy: &world.policy, members: &world.members, port };
        let Packet { direction, vlan_beside, bytes, .. } = packet;
        let frame = Frame { bytes, vlan_beside: *vlan_beside, direction: *direction, now };
        let judged = self.judge.judge(&context, &frame);
        let slot = *self.tables.interfaces.get(&port.ifindex).ok_or("the port has no place")?;
        let ask = Ask { slot, ingress: *direction == Direction::Ingress, now, local: 0 };
        let slice = Slice { bytes, tagged: *vlan_beside };
        let long = self.decide(slice, ask, false);
        let short = self.decide(slice, ask, true);
        if short.reason != long.reason {
            return Err(format!("the long way says {:?}, the short way {:?}", long.reason, short.reason));
        }
        if long.reason != judged.reason {
            return Err(format!("the reference says {judged:?}, the tables {long:?}"));
        }
        if let Some(rule) = long.rule.filter(|rule| !judged.rules.contains(rule)) {
            return Err(format!("the tables name {rule}, the reference {:?}", judged.rules));
        }
        let agreed = self.in_kernel(port, packet, ask, long.reason);
        self.late |= tick(nanoseconds()) != real;
        agreed.map(|()| judged)
    }

    fn decide(&mut self, slice: Slice<'_>, ask: Ask, shorten: bool) -> Answer {
        let memory = if shorten { &mut self.short } else { &mut self.long };
        if let Some(port) = self.tables.port(ask.slot).filter(|_| shorten)
            && short::passes(&slice, &self.tables, memory, port, ask).is_some()
        {
            return Answer { reason: Reason::Established, rule: None };
        }
        let mut learnt = Learnt::default();
        let reason = decide(&slice, &self.tables, memory, ask, &mut learnt);
        let label = self.tables.rule_labels.get(&learnt.rule);
        let rule = label.map(|label| RuleId(String::from_utf8_lossy(&label.0).trim_end_matches('\0').to_owned()));
        Answer { reason, rule }
    }

    fn in_kernel(&mut self, port: &Attached, packet: &Packet, ask: Ask, expected: Reason) -> Result<(), String> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        // A tag beside the bytes cannot be handed to a test run.
        if packet.vlan_beside || packet.bytes.len() < ETHERNET {
            return Ok(());
        }
        let cut = is_cut(&packet.bytes);
        let program = match (packet.direction, port.hook) {
            (Direction::Ingress, _) if cut => return Ok(()),
            (Direction::Ingress, _) => Program::ToInstance,
            (Direction::Egress, Hook::Tc) if !cut => Program::FromInstance,
            (Direction::Egress, Hook::Tc | Hook::Xdp) => Program::FromInstanceXdp,
        };
        let passes = kernel.run(ask.slot, program, &packet.bytes).map_err(|error| format!("{error:#}"))?;
        let counted = kernel.counted(ask.slot, ask.ingress, expected).map_err(|error| format!("{error:#}"))?;
        match counted {
            None if passes == expected.passes() => Ok(()),
            None => Err(format!("the kernel counts {expected:?}, and passes: {passes}")),
            Some(others) => Err(format!("the tables say {expected:?}, the kernel counts {others:?}")),
        }
    }
}

/// True for what a test run takes for no packet of a classifier: one that ends in its IP header.
fn is_cut(bytes: &[u8]) -> bool {
    match bytes[12..14] {
        [0x08, 0x00] => bytes.len() < ETHERNET + 20,
        [0x86, 0xdd] => bytes.len() < ETHERNET + 40,
        _ => false,
    }
}

/// Goes through a scenario; how many packets met each reason, or where the evaluators differ.
fn play(scenario: &Scenario, kernel: Option<&mut Kernel>) -> Result<BTreeMap<Reason, u64>, Differ> {
    let mut world = scenario.world.clone();
    let mut evaluators = Evaluators::new(&world, kernel);
    let mut reasons = BTreeMap::new();
    for (place, step) in scenario.steps.iter().enumerate() {
        match step {
            Step::Packet(packet) => {
                let judged = evaluators.packet(&world, packet);
                let differ = |why| Differ { why: format!("step {place}: {why}\n{step}"), late: evaluators.late };
                let judged = judged.map_err(differ)?;
                *reasons.entry(judged.reason).or_insert(0) += 1;
            }
            Step::Advance(ticks) => evaluators.advance(*ticks),
            Step::Change(next) => {
                evaluators.change(next);
                world.clone_from(next);
            }
        }
    }
    let late = evaluators.late;
    evaluators.finish().map_err(|why| Differ { why, late })?;
    Ok(reasons)
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// What differs, without where.
fn kind(why: &str) -> String {
    why.lines()
        .next()
        .and_then(|line| line.split_once(": "))
        .map_or_else(|| why.to_owned(), |(_, kind)| kind.to_owned())
}

/// The scenarios that are left, shared by all who play them.
struct Play {
    /// The object with the programs; none where the kernel cannot be asked.
    object: Option<&'static [u8]>,
    packets: u64,
    seed: AtomicU64,
    done: AtomicU64,
}

impl Play {
    fn kernel(&self) -> Option<Kernel> {
        self.object.map(|object| Kernel::load(object).expect("load the programs"))
    }

    /// Plays until enough packets were played by all together; how many packets met each reason.
    fn scenarios(&self) -> BTreeMap<Reason, u64> {
        let mut kernel = self.kernel();
        let mut reasons: BTreeMap<Reason, u64> = BTreeMap::new();
        while self.done.load(Ordering::Relaxed) < self.packets {
            let seed = self.seed.fetch_add(1, Ordering::Relaxed);
            let scenario = Scenario::new(seed, PACKETS);
            let met = self.whole(&scenario, &mut kernel);
            self.done.fetch_add(met.values().sum(), Ordering::Relaxed);
            for (reason, count) in met {
                *reasons.entry(reason).or_insert(0) += count;
            }
        }
        reasons
    }

    /// Plays a scenario to its end; how many packets met each reason.
    fn whole(&self, scenario: &Scenario, kernel: &mut Option<Kernel>) -> BTreeMap<Reason, u64> {
        for _ in 0..TRIES {
            match play(scenario, kernel.as_mut()) {
                Ok(met) => return met,
                // What is in its maps is good for nothing any more.
                Err(differ) if differ.late => *kernel = self.kernel(),
                Err(differ) => self.fail(scenario, &differ.why),
            }
        }
        panic!("seed {}: a tick has passed at the wrong moment every time", scenario.seed);
    }

    /// Says what a failure is, in as few steps as show it.
    fn fail(&self, scenario: &Scenario, why: &str) -> ! {
        let mut fresh = self.kernel();
        let kind = kind(why);
        let small = scenario
            .shrink(|candidate| play(candidate, fresh.as_mut()).is_err_and(|differ| self::kind(&differ.why) == kind));
        let steps: Vec<String> = small.steps.iter().map(ToString::to_string).collect();
        panic!(
            "seed {}: {why}\nin {} steps, with {:#?}\n{}",
            scenario.seed,
            steps.len(),
            small.world,
            steps.join("\n")
        );
    }
}

#[test]
fn reference_tables_and_kernel_agree_on_every_packet() {
    let in_ci = env::var_os("NETDIAG_CI").is_some();
    let first = number("NETDIAG_DIFFERENTIAL_SEED").unwrap_or(1);
    let play = Play {
        object: netdiag_agent::datapath::OBJECT.filter(|_| netdiag_tests::require_ebpf()),
        packets: number("NETDIAG_DIFFERENTIAL_PACKETS").unwrap_or(if in_ci { 1_000_000 } else { 100_000 }),
        seed: AtomicU64::new(first),
        done: AtomicU64::new(0),
    };
    // Each has its own programs and maps: nothing one does is seen by another.
    let players = thread::available_parallelism().map_or(1, NonZero::get);
    let mut reasons: BTreeMap<Reason, u64> = BTreeMap::new();
    thread::scope(|scope| {
        let playing: Vec<_> = (0..players).map(|_| scope.spawn(|| play.scenarios())).collect();
        for player in playing {
            for (reason, count) in player.join().expect("the evaluators agree") {
                *reasons.entry(reason).or_insert(0) += count;
            }
        }
    });
    let (done, next) = (play.done.into_inner(), play.seed.into_inner());
    println!("{done} packets from seed {first} to {next}, no disagreement: {reasons:?}");
}
