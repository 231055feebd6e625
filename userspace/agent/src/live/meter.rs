//! What watching costs. Flow: observe.
//!
//! The kernel takes the time of programs only when asked, and then of every program on the host, which costs each of them some ten
//! nanoseconds a packet. So it is asked for a twentieth of the time, in turn with nineteen twentieths without.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use aya::sys::{Stats, enable_stats};
use netdiag_model::live::Cost;
use rustix::time::{ClockId, clock_gettime};

/// How long a measurement takes.
const SAMPLE: Duration = Duration::from_millis(100);
/// From the beginning of one measurement to that of the next.
const PERIOD: Duration = Duration::from_secs(2);

/// Measures.
#[derive(Debug)]
pub(super) struct Meter {
    /// What this process had used, what was read, and when.
    since: (Duration, u64, Instant),
    /// Time of the programs while the kernel takes it, and since when.
    sample: Option<(OwnedFd, u64, Instant)>,
    next: Instant,
    cost: Cost,
}

impl Meter {
    /// Begins to measure.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { since: (used(), 0, now), sample: None, next: now, cost: Cost::default() }
    }

    /// What was measured last.
    pub(super) const fn cost(&self) -> Cost {
        self.cost
    }

    /// Goes on, with the programs that are loaded and the records read so far. It is called often.
    pub(super) fn tick(&mut self, programs: &[OwnedFd], records: u64) {
        let now = Instant::now();
        if let Some((_, before, since)) = &self.sample
            && now.duration_since(*since) >= SAMPLE
        {
            self.cost.programs_cpu = share(run_time(programs).saturating_sub(*before), now.duration_since(*since));
            self.sample = None;
        }
        if now < self.next {
            return;
        }
        self.next = now + PERIOD;
        if let Ok(asked) = enable_stats(Stats::RunTime) {
            self.sample = Some((asked, run_time(programs), now));
        }
        self.measure_own(now, records);
    }

    fn measure_own(&mut self, now: Instant, records: u64) {
        let (used_before, records_before, since) = self.since;
        let elapsed = now.duration_since(since).as_secs_f64();
        if elapsed < SAMPLE.as_secs_f64() {
            return;
        }
        let used = used();
        self.cost.own_cpu = used.saturating_sub(used_before).as_secs_f64() / elapsed;
        #[expect(clippy::cast_precision_loss, reason = "a rate has no use for more digits")]
        let read = records.saturating_sub(records_before) as f64;
        self.cost.records = read / elapsed;
        self.since = (used, records, now);
    }
}

/// CPU time of this process.
fn used() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.cast_unsigned(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// Nanoseconds as a share of one CPU.
#[expect(clippy::unnecessary_wraps, reason = "it is a value that may be missing")]
fn share(nanoseconds: u64, elapsed: Duration) -> Option<f64> {
    Some(Duration::from_nanos(nanoseconds).as_secs_f64() / elapsed.as_secs_f64())
}

/// Time the programs have run, as far as the kernel took it.
fn run_time(programs: &[OwnedFd]) -> u64 {
    programs.iter().filter_map(|program| number(program, "run_time_ns")).sum()
}

/// Times a program was not run because it was running already on the same CPU.
pub(super) fn missed(programs: &[OwnedFd]) -> u64 {
    programs.iter().filter_map(|program| number(program, "recursion_misses")).sum()
}

/// A number the kernel tells of a descriptor.
fn number(descriptor: &impl AsFd, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}
