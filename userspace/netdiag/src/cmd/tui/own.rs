//! What netdiag itself costs, and what the agent does.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Ticks of `/proc/*/stat` in a second: `USER_HZ`, which Linux shows as 100 everywhere (`times(2)`).
const TICKS: u64 = 100;

/// Over how long a share is taken at least.
const LEAST: Duration = Duration::from_millis(1900);

/// CPU time this process has used, and the programs it has run and waited for.
pub(super) fn used() -> Duration {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own = Duration::new(u64::try_from(own.tv_sec).unwrap_or(0), u32::try_from(own.tv_nsec).unwrap_or(0));
    own + ticks("/proc/self/stat", [15, 16]).unwrap_or_default()
}

/// CPU time a process has used; none where it cannot be read.
pub(super) fn used_by(pid: u32) -> Option<Duration> {
    ticks(&format!("/proc/{pid}/stat"), [13, 14])
}

/// The sum of two fields of a `stat`, counted from 0.
fn ticks(path: &str, fields: [usize; 2]) -> Option<Duration> {
    let text = fs::read_to_string(path).ok()?;
    // The second field is a name in brackets, which may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let rest: Vec<&str> = rest.split_whitespace().collect();
    let field = |place: usize| rest.get(place - 2)?.parse::<u64>().ok();
    let ticks = field(fields[0])? + field(fields[1])?;
    Some(Duration::from_millis(ticks * (1000 / TICKS)))
}

/// A share of a core, in thousandths.
pub(super) fn share(used: Duration, of: Duration) -> u32 {
    let thousandths = used.as_micros() * 1000 / of.as_micros().max(1);
    u32::try_from(thousandths).unwrap_or(u32::MAX)
}

/// Takes the share of a core over the last seconds.
pub(super) struct Meter {
    at: Instant,
    used: Duration,
    told: u32,
}

impl Meter {
    /// From now on.
    pub(super) fn start() -> Self {
        Self { at: Instant::now(), used: used(), told: 0 }
    }

    /// The share since the last time; none where that was just now.
    pub(super) fn share(&mut self) -> Option<u32> {
        let (now, used) = (Instant::now(), used());
        let passed = now.duration_since(self.at);
        if passed < LEAST {
            return None;
        }
        let share = share(used.saturating_sub(self.used), passed);
        (self.at, self.used) = (now, used);
        Some(share)
    }

    /// Whether a share is another one than was shown last.
    pub(super) const fn is_news(&mut self, share: u32) -> bool {
        std::mem::replace(&mut self.told, share) != share
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{share, used, used_by};

    #[test]
    fn work_is_seen_in_the_time_that_was_used() {
        let before = used();
        let mut sum = 0_u64;
        while used() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(used() > before);
        assert!(used_by(std::process::id()).is_some() && used_by(0).is_none());
    }

    #[test]
    fn a_share_is_in_thousandths_of_a_core() {
        assert_eq!(share(Duration::from_millis(10), Duration::from_secs(1)), 10);
        assert_eq!(share(Duration::from_secs(1), Duration::ZERO), 1_000_000_000);
    }
}
