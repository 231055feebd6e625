//! Until when every record has been read. Flow: observe.
//!
//! Whoever looks late has not seen what was written meanwhile, and what comes after a record that is still being written cannot
//! be read: its program may have been put aside in the middle, for as long as the scheduler, or a hypervisor, likes. So nothing follows
//! from what is not there until it is known to have been read. Programs count a record before they take its time; once as many as had been
//! begun by a moment are read or lost, of each CPU and kind of program, none that is older can come.

use std::collections::HashMap;

/// What one kind of program has counted on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Kind and CPU.
    pub(super) of: (u32, u32),
    /// Records that were begun.
    pub(super) records: u64,
    /// Those that were lost.
    pub(super) lost: u64,
}

/// Records read so far, and until when that is all of them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    read: HashMap<(u32, u32), u64>,
    until_ns: u64,
}

impl Progress {
    /// Nothing read yet, and nothing to read before some time.
    pub(super) fn from(since_ns: u64) -> Self {
        Self { read: HashMap::new(), until_ns: since_ns }
    }

    /// Takes note of a record of a kind of program on a CPU.
    pub(super) fn read(&mut self, of: (u32, u32)) {
        *self.read.entry(of).or_default() += 1;
    }

    /// Takes note that everything was read that there was, some moment after so much had been begun.
    pub(super) fn looked(&mut self, moment_ns: u64, begun: &[Begun]) {
        let is_done = |begun: &Begun| {
            let read = self.read.get(&begun.of).copied().unwrap_or(0);
            read.saturating_add(begun.lost) >= begun.records
        };
        if begun.iter().all(is_done) {
            self.until_ns = self.until_ns.max(moment_ns);
        }
    }

    /// Until when everything that was seen has been read.
    pub(super) const fn until_ns(&self) -> u64 {
        self.until_ns
    }
}

#[cfg(test)]
mod tests {
    use super::{Begun, Progress};

    const fn begun(of: (u32, u32), records: u64, lost: u64) -> Begun {
        Begun { of, records, lost }
    }

    #[test]
    fn while_one_record_is_not_there_nothing_follows_from_what_is_missing() {
        let mut progress = Progress::from(5);
        progress.looked(10, &[begun((0, 0), 0, 0)]);
        assert_eq!(progress.until_ns(), 10, "nothing was begun");
        progress.read((0, 0));
        let all = [begun((0, 0), 1, 0), begun((0, 1), 1, 0)];
        progress.looked(20, &all);
        assert_eq!(progress.until_ns(), 10, "the other CPU is in the middle of one");
        progress.read((1, 1));
        progress.read((0, 0));
        progress.looked(30, &all);
        assert_eq!(progress.until_ns(), 10, "what others wrote is not what is missing");
        progress.read((0, 1));
        progress.looked(40, &all);
        assert_eq!(progress.until_ns(), 40);
    }

    #[test]
    fn what_is_lost_does_not_come_any_more() {
        let mut progress = Progress::from(5);
        progress.looked(10, &[begun((0, 0), 3, 2)]);
        assert_eq!(progress.until_ns(), 5);
        progress.looked(20, &[begun((0, 0), 3, 3)]);
        assert_eq!(progress.until_ns(), 20);
    }
}
