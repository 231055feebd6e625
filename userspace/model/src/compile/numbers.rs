//! Numbers for things in the maps: found again if they were there before, else not used by anything. Flow: policy.

use std::collections::{BTreeMap, BTreeSet};

use netdiag_common::abi::policy::Label;

use super::TooLarge;

/// Numbers of one kind that nothing has, neither before nor after.
#[derive(Debug)]
pub(super) struct Unused {
    what: &'static str,
    taken: BTreeSet<u32>,
    next: u32,
    end: u32,
}

impl Unused {
    /// Numbers from `first` on and below `end`, without those that are taken.
    pub(super) fn new(what: &'static str, (first, end): (u32, u32), taken: impl IntoIterator<Item = u32>) -> Self {
        Self { what, taken: taken.into_iter().collect(), next: first, end }
    }

    /// The lowest.
    pub(super) fn take(&mut self) -> Result<u32, TooLarge> {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        if self.next >= self.end {
            let needed = self.taken.len() as u64 + 1;
            return Err(TooLarge { what: self.what, needed, limit: self.end.into() });
        }
        let number = self.next;
        self.next += 1;
        self.taken.insert(number);
        Ok(number)
    }
}

/// Numbers of things that have a label.
#[derive(Debug)]
pub(super) struct Labelled {
    before: BTreeMap<[u8; 64], u32>,
    unused: Unused,
}

impl Labelled {
    /// Numbers in `range`, found again by `labels`, and without others that are taken.
    pub(super) fn new(labels: &BTreeMap<u32, Label>, unused: Unused) -> Self {
        let mut unused = unused;
        unused.taken.extend(labels.keys());
        // From the highest on, so that of two with one label the lower stays.
        let before = labels.iter().rev().map(|(number, label)| (label.0, *number)).collect();
        Self { before, unused }
    }

    /// The number the label had before, once.
    pub(super) fn again(&mut self, label: &Label) -> Option<u32> {
        self.before.remove(&label.0)
    }

    /// A number nothing has.
    pub(super) fn fresh(&mut self) -> Result<u32, TooLarge> {
        self.unused.take()
    }

    /// The number the label had before, or a fresh one.
    pub(super) fn of(&mut self, label: &Label) -> Result<u32, TooLarge> {
        self.again(label).map_or_else(|| self.fresh(), Ok)
    }
}

/// Numbers of things that are what they contain, and never change.
#[derive(Debug)]
pub(super) struct Contents<T> {
    known: BTreeMap<T, u32>,
    unused: Unused,
}

impl<T: Ord + Clone> Contents<T> {
    /// Numbers of what there was before.
    pub(super) fn new(before: impl IntoIterator<Item = (u32, T)>, unused: Unused) -> Self {
        let mut unused = unused;
        let mut known = BTreeMap::new();
        for (number, content) in before {
            unused.taken.insert(number);
            known.entry(content).or_insert(number);
        }
        Self { known, unused }
    }

    /// The number of a content, and whether it is new.
    pub(super) fn of(&mut self, content: &T) -> Result<u32, TooLarge> {
        if let Some(number) = self.known.get(content) {
            return Ok(*number);
        }
        let number = self.unused.take()?;
        self.known.insert(content.clone(), number);
        Ok(number)
    }
}
