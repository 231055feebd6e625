//! How many records there may be, so that watching costs no more than was allowed. Flow: observe.
//!
//! The programs count: so many records of a CPU in a tick, and beyond that every packet that is left out. How many are too many
//! depends on what else the CPU does and what a record takes there, so the number follows what the kernel says the programs took; and
//! on what becomes of the records, which whoever reads them pays for, so it follows what this process took as well.

use std::time::Duration;

use rustix::time::{ClockId, clock_getres};

/// The longest tick: what comes first in it is seen, and what comes after the number is reached is not. Long enough for a few packets
/// to be seen whole, at all their devices, where there may be few records a second.
const LONGEST: u64 = 128_000_000;
/// The fewest records a second, on each CPU: a glimpse of what goes on.
const FEWEST: u32 = 100;
/// What a record takes the programs at the most, in seconds: some forty times what it does. Fewer than take what is allowed at that
/// price would save nothing: then it is not records that take it, but packets of which there is none, or the programs were put
/// aside in the middle while the kernel took their time.
const DEAREST: f64 = 10e-6;
/// What a record takes this process at the most, in seconds: a few times what it does. What it takes besides, fewer would not save.
const DEAREST_TO_READ: f64 = 25e-6;
/// How much of what is allowed may be in use while there is still room for more.
const ROOM: f64 = 0.7;
/// How much less than what would do is allowed next, as what it is computed from changes.
const CAUTION: f64 = 0.9;
/// How often in a row this process has to take little before there are more: some ticks begin in one look at it, and more in the next.
const PATIENCE: u32 = 4;

/// A tick of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    /// How many of the kernel's ticks it is: 2 to the power of this.
    pub(super) shift: u32,
    /// Nanoseconds of it.
    length: u64,
}

impl Tick {
    /// That of the running kernel, whose own ticks are what its coarse clock goes by.
    pub(super) fn of_kernel() -> Self {
        let tick = clock_getres(ClockId::MonotonicCoarse);
        Self::of(Duration::new(tick.tv_sec.cast_unsigned(), u32::try_from(tick.tv_nsec).unwrap_or(0)))
    }

    fn of(kernel: Duration) -> Self {
        let kernel = u64::try_from(kernel.as_nanos()).unwrap_or(LONGEST).clamp(1, LONGEST);
        let shift = (LONGEST / kernel).ilog2();
        Self { shift, length: kernel << shift }
    }

    /// Records of a tick, for so many a second.
    pub(super) fn records(self, a_second: u32) -> u32 {
        let records = (u64::from(a_second) * self.length).div_ceil(1_000_000_000);
        u32::try_from(records).unwrap_or(u32::MAX).max(1)
    }
}

/// What was measured for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    /// What the programs took of one CPU, all of them together.
    pub(super) share: f64,
    /// Packets that were covered, of all CPUs.
    pub(super) covered: u64,
    /// Packets that were covered, of the CPU that had the most.
    pub(super) most_covered: u64,
    /// Records a second of that CPU.
    pub(super) records: f64,
}

/// What this process took for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Used {
    /// Of one CPU.
    pub(super) share: f64,
    /// Records it read, a second.
    pub(super) records: f64,
}

/// Keeps what the programs and this process take of a CPU, together, below a share of it: it may be the CPU that the packets need most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brake {
    allowed: f64,
    programs: Share,
    process: Share,
    now: u32,
}

impl Brake {
    /// Allows a share of a CPU, and so many records a second on each.
    pub(super) fn new(allowed: f64, most: u32) -> Self {
        let share = |dearest, patience| {
            let fewest = whole(allowed / dearest).max(FEWEST).min(most);
            Share { allowed, fewest, most, now: most, patience, calm: 0, took: 0.0 }
        };
        Self { allowed, programs: share(DEAREST, 1), process: share(DEAREST_TO_READ, PATIENCE), now: most }
    }

    /// How many records a second there may be on each CPU from now on, given what the programs took; none where that does not change.
    pub(super) fn measured(&mut self, measured: Measured) -> Option<u32> {
        let share = measured.of_busiest();
        self.programs.took(share, measured.records);
        // However much they take, somebody has to read what they wrote.
        self.process.allowed = (self.allowed - share).max(self.allowed / 2.0);
        self.changed()
    }

    /// The same given what this process took. It knows of no CPU how many of the records were written there: all, at the most.
    pub(super) fn used(&mut self, used: Used) -> Option<u32> {
        self.process.took(used.share, used.records);
        self.changed()
    }

    fn changed(&mut self) -> Option<u32> {
        let before = std::mem::replace(&mut self.now, self.programs.now.min(self.process.now));
        (self.now != before).then_some(self.now)
    }
}

/// How many records there may be, of those who take a share of a CPU for them.
#[derive(Clone, Copy, Debug)]
struct Share {
    allowed: f64,
    fewest: u32,
    most: u32,
    now: u32,
    /// How often in a row they have to take little before there are more.
    patience: u32,
    /// How often they did, and what they took, added up.
    calm: u32,
    took: f64,
}

impl Share {
    /// Fewer from now on, or more, after a share was taken for so many a second.
    fn took(&mut self, share: f64, records: f64) {
        if share > self.allowed {
            let records = records.min(f64::from(self.now));
            let fewer = whole(records * self.allowed / share * CAUTION);
            self.now = fewer.max(self.fewest).min(self.now);
            (self.calm, self.took) = (0, 0.0);
            return;
        }
        self.calm += 1;
        self.took += share;
        if self.calm >= self.patience {
            let mean = self.took / f64::from(self.calm);
            if mean < self.allowed * ROOM {
                let more = whole(f64::from(self.now) * self.allowed / mean * CAUTION);
                self.now = more.min(self.now.saturating_mul(2)).min(self.most);
            }
            (self.calm, self.took) = (0, 0.0);
        }
    }
}

impl Measured {
    /// The share of the CPU that had the most to do. The kernel takes the time of all CPUs together; they differ in how many
    /// packets came there.
    fn of_busiest(&self) -> f64 {
        if self.covered == 0 { self.share } else { self.share * ratio(self.most_covered, self.covered) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share has no use for more digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and rates are not negative"
)]
const fn whole(number: f64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Brake, FEWEST, LONGEST, Measured, Tick, Used};

    #[test]
    fn a_tick_is_as_many_of_the_kernels_as_fit_into_128_milliseconds() {
        for (hertz, shift, length) in [(100, 3, 80), (250, 5, 128), (1000, 7, 128)] {
            let tick = Tick::of(Duration::from_secs(1) / hertz);
            assert_eq!((tick.shift, tick.length), (shift, length * 1_000_000), "{hertz}");
        }
        assert_eq!(Tick::of(Duration::from_secs(1)).shift, 0, "a kernel that ticks by the second");
        assert!(Tick::of_kernel().length <= LONGEST);
    }

    #[test]
    fn a_budget_is_spread_over_the_ticks_of_a_second_and_never_none() {
        let tick = Tick::of(Duration::from_millis(4));
        assert_eq!([1, 62, 63, 50_000].map(|a_second| tick.records(a_second)), [1, 8, 9, 6_400]);
        assert!(tick.records(u32::MAX) > 50_000_000);
    }

    fn measured(share: f64, records: f64) -> Measured {
        Measured { share, covered: 100, most_covered: 100, records }
    }

    #[test]
    fn programs_that_take_too_much_get_as_many_records_as_take_what_is_allowed() {
        let mut brake = Brake::new(0.05, 50_000);
        assert_eq!(brake.measured(measured(0.10, 40_000.0)), Some(18_000));
        assert_eq!(brake.measured(measured(0.045, 18_000.0)), None, "near enough");
        assert_eq!(
            brake.measured(measured(0.06, 900_000.0)),
            Some(13_500),
            "there cannot have been more than were allowed"
        );
    }

    #[test]
    fn there_is_always_a_glimpse_though_the_packets_alone_take_too_much() {
        let mut brake = Brake::new(0.0001, 50_000);
        for _ in 0..20 {
            brake.measured(measured(0.5, 1_000.0));
        }
        assert_eq!(brake.now, FEWEST);
        assert_eq!(brake.measured(measured(0.5, 100.0)), None);
        assert_eq!(Brake::new(0.0001, 10).measured(measured(0.5, 10.0)), None, "no more than the most");
    }

    #[test]
    fn a_few_packets_are_seen_whole_whatever_the_kernel_says_they_took() {
        // A program that was put aside for 50 of 100 milliseconds, as a busy machine does with everybody.
        let mut brake = Brake::new(0.05, 20_000);
        assert_eq!(brake.measured(measured(0.5, 200.0)), Some(5_000));
        assert_eq!(Tick::of(Duration::from_millis(4)).records(5_000), 640, "of one tick");
    }

    #[test]
    fn where_there_is_room_there_are_more_records_up_to_the_most() {
        let mut brake = Brake::new(0.05, 50_000);
        brake.measured(measured(0.20, 50_000.0));
        let all: Vec<_> = std::iter::from_fn(|| brake.measured(measured(0.01, 10.0))).collect();
        assert_eq!(all, [22_500, 45_000, 50_000]);
    }

    #[test]
    fn this_process_gets_as_many_records_as_take_its_share() {
        let used = |share, records| Used { share, records };
        let mut brake = Brake::new(0.05, 20_000);
        assert_eq!(brake.used(used(0.04, 40_000.0)), None);
        assert_eq!(brake.used(used(0.10, 16_000.0)), Some(7_200));
        assert_eq!(brake.measured(measured(0.01, 7_200.0)), None, "the programs having room changes nothing");
        assert_eq!(brake.used(used(0.60, 7_200.0)), Some(2_000), "what it takes besides is not the records'");
        let mut calm = || [(); 4].map(|()| brake.used(used(0.01, 100.0)));
        assert_eq!(
            [calm(), calm()],
            [4_000, 8_000].map(|more| [None, None, None, Some(more)]),
            "where it takes little for a while"
        );
        let tick = Tick::of(Duration::from_millis(4));
        assert_eq!(tick.records(2_000), 256, "of one tick: some packets, whole");
    }

    #[test]
    fn looks_that_see_a_tick_less_and_a_tick_more_do_not_let_it_take_more_than_its_share() {
        // Ten microseconds a record, and in each quarter of a second the records of one to three ticks of an eighth.
        let mut brake = Brake::new(0.05, 20_000);
        let took = |ticks: u32, a_second: u32| f64::from(ticks * a_second / 8) * 10e-6 / 0.25;
        let mut shares = Vec::new();
        for ticks in [1, 3, 2, 2, 3, 1, 2, 1, 3].into_iter().cycle().take(400) {
            let share = took(ticks, brake.now);
            shares.push(share);
            brake.used(Used { share, records: share / 10e-6 });
        }
        let later = &shares[40..];
        let mean = later.iter().sum::<f64>() / 360.0;
        assert!((0.025..=0.05).contains(&mean), "{mean}");
    }

    #[test]
    fn what_the_programs_take_is_not_there_for_this_process() {
        let mut brake = Brake::new(0.05, 20_000);
        brake.measured(measured(0.02, 20_000.0));
        assert_eq!(brake.used(Used { share: 0.06, records: 20_000.0 }), Some(9_000), "three percent are left");
        brake.measured(measured(0.2, 20_000.0));
        assert!((brake.process.allowed - 0.025).abs() < 1e-9, "half of it at least");
    }

    #[test]
    fn what_counts_is_the_cpu_that_has_the_most_to_do() {
        let spread = Measured { share: 0.16, covered: 400, most_covered: 100, records: 10_000.0 };
        assert_eq!(Brake::new(0.05, 50_000).measured(spread), None, "four CPUs, of each four percent");
        let one = Measured { most_covered: 400, ..spread };
        assert!(Brake::new(0.05, 50_000).measured(one).is_some());
        assert!(Brake::new(0.05, 50_000).measured(Measured { covered: 0, most_covered: 0, ..spread }).is_some());
    }
}
