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

use super::{
    budget::{Measured, Used},
    load::Maps,
};

/// How long a measurement takes.
const SAMPLE: Duration = Duration::from_millis(100);
/// From the beginning of one measurement to that of the next.
const PERIOD: Duration = Duration::from_secs(2);

/// How long this process is measured: what one record leads to comes in bursts.
const WHILE: Duration = Duration::from_millis(250);

/// Measures.
#[derive(Debug)]
pub(super) struct Meter {
    /// What this process had used, and when.
    began: (Duration, Instant),
    /// The same, and how many records it had read, when that was looked at last.
    looked: (Duration, Instant, u64),
    sample: Option<Sample>,
    next: Instant,
    /// What the programs took of a CPU in each measurement, added up, and how many there were.
    programs: (f64, u32),
}

/// What there was when the kernel began to take the time.
#[derive(Debug)]
struct Sample {
    /// Keeps the kernel at it.
    _asked: OwnedFd,
    since: Instant,
    run_time: u64,
    counts: Vec<Count>,
}

/// Packets the filter covered, of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Of which there are records, or were to be.
    pub(super) records: u64,
    /// That were left out.
    pub(super) throttled: u64,
}

impl Meter {
    /// Begins to measure.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let used = used();
        Self { began: (used, now), looked: (used, now, 0), sample: None, next: now, programs: (0.0, 0) }
    }

    /// What watching took since the beginning, of the programs as far as they were measured.
    pub(super) fn cost(&self, records: u64) -> Cost {
        let (used_before, began) = self.began;
        let elapsed = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate has no use for more digits")]
        let records = records as f64 / elapsed;
        let (programs, times) = self.programs;
        Cost {
            own_cpu: used().saturating_sub(used_before).as_secs_f64() / elapsed,
            programs_cpu: (times > 0).then(|| programs / f64::from(times)),
            records,
        }
    }

    /// What this process took since that was asked last, with so many records read since the beginning; none while that is not long ago.
    pub(super) fn used(&mut self, read: u64) -> Option<Used> {
        let (used_before, then, read_before) = self.looked;
        let elapsed = then.elapsed();
        if elapsed < WHILE {
            return None;
        }
        let (used, elapsed) = (used(), elapsed.as_secs_f64());
        self.looked = (used, Instant::now(), read);
        #[expect(clippy::cast_precision_loss, reason = "a rate has no use for more digits")]
        let records = read.saturating_sub(read_before) as f64 / elapsed;
        Some(Used { share: used.saturating_sub(used_before).as_secs_f64() / elapsed, records })
    }

    /// Goes on, with the programs that are loaded and the records read so far. It is called often; now and then something was measured.
    pub(super) fn tick(&mut self, programs: &[OwnedFd], maps: &Maps) -> Option<Measured> {
        let now = Instant::now();
        let over = self.sample.take_if(|sample| now.duration_since(sample.since) >= SAMPLE);
        let measured = over.map(|sample| sample.measured(now, run_time(programs), &maps.counts()));
        if let Some(measured) = measured {
            self.programs.0 += measured.share;
            self.programs.1 += 1;
        }
        if now >= self.next {
            self.next = now + PERIOD;
            if let Ok(asked) = enable_stats(Stats::RunTime) {
                let (run_time, counts) = (run_time(programs), maps.counts());
                self.sample = Some(Sample { _asked: asked, since: now, run_time, counts });
            }
        }
        measured
    }
}

/// CPU time of this process.
fn used() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.cast_unsigned(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

impl Sample {
    /// What has happened since.
    fn measured(&self, now: Instant, run_time: u64, counts: &[Count]) -> Measured {
        let elapsed = now.duration_since(self.since).as_secs_f64();
        let took = Duration::from_nanos(run_time.saturating_sub(self.run_time));
        let since = self.counts.iter().zip(counts).map(|(before, after)| Count {
            records: after.records.saturating_sub(before.records),
            throttled: after.throttled.saturating_sub(before.throttled),
        });
        let (mut covered, mut busiest) = (0, Count::default());
        for count in since {
            covered += count.covered();
            busiest = if count.covered() > busiest.covered() { count } else { busiest };
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate has no use for more digits")]
        let records = busiest.records as f64 / elapsed;
        Measured { share: took.as_secs_f64() / elapsed, covered, most_covered: busiest.covered(), records }
    }
}

impl Count {
    const fn covered(self) -> u64 {
        self.records + self.throttled
    }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Count, Measured, Sample};

    #[test]
    fn what_was_measured_is_about_the_time_since_it_began_and_the_cpu_that_had_the_most() {
        let count = |records, throttled| Count { records, throttled };
        let since = Instant::now();
        let sample = Sample {
            _asked: std::fs::File::open("/dev/null").unwrap().into(),
            since,
            run_time: 1_000_000,
            counts: vec![count(1_000, 0), count(50, 50)],
        };
        let after = [count(1_100, 0), count(70, 330)];
        let measured = sample.measured(since + Duration::from_millis(100), 9_000_000, &after);
        assert_eq!(measured, Measured { share: 0.08, covered: 400, most_covered: 300, records: 200.0 });
    }
}
