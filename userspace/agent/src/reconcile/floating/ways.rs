//! Which floating IPs were told to be slow; kept for the next start. Flow: policy.
//!
//! New flows of such a floating IP begin on the slow way. Those that began on the fast one end there, so nothing breaks.

use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use netdiag_model::floating::Slow;
use serde::{Deserialize, Serialize};

use crate::policy_source::stored;

/// Where it is kept.
const FILE: &str = "ways.json";

/// Whom an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All floating IPs.
    All,
    /// One of them.
    One(Ipv4Addr),
}

/// What was ordered.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    file: PathBuf,
    given: Given,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Given {
    /// All are slow.
    all: bool,
    /// These are slow.
    slow: BTreeSet<Ipv4Addr>,
}

impl Orders {
    /// What was ordered before, as it is kept below a directory.
    pub(super) fn open(state: &Path) -> Self {
        let file = state.join(FILE);
        // What cannot be read is an order to be given again; being fast harms nobody.
        let given = stored::read(&file).unwrap_or_default();
        Self { file, given }
    }

    /// Takes an order; true where it changes anything. That all are fast ends the orders for single ones as well.
    ///
    /// # Errors
    /// It cannot be kept. Nothing has changed then.
    pub(super) fn give(&mut self, target: Target, slow: bool) -> io::Result<bool> {
        let mut given = self.given.clone();
        match (target, slow) {
            (Target::All, true) => given.all = true,
            (Target::All, false) => given = Given::default(),
            (Target::One(address), true) => drop(given.slow.insert(address)),
            (Target::One(address), false) => drop(given.slow.remove(&address)),
        }
        if given == self.given {
            return Ok(false);
        }
        stored::write(&self.file, &given)?;
        self.given = given;
        Ok(true)
    }

    /// All are slow.
    pub(crate) const fn all(&self) -> bool {
        self.given.all
    }

    /// Whether all are slow, and which ones are.
    pub(crate) fn given(&self) -> (bool, BTreeSet<Ipv4Addr>) {
        (self.given.all, self.given.slow.clone())
    }

    /// As plans have it.
    pub(super) fn slow(&self) -> Slow {
        match &self.given {
            Given { all: true, .. } => Slow::All,
            Given { slow, .. } if slow.is_empty() => Slow::None,
            Given { slow, .. } => Slow::These(slow.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Orders, Target};
    use netdiag_model::floating::Slow;

    #[test]
    fn orders_outlive_a_restart_and_all_fast_ends_all_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let address = "172.24.4.6".parse().unwrap();
        let mut orders = Orders::open(directory.path());
        assert!(orders.give(Target::One(address), true).unwrap());
        assert!(!orders.give(Target::One(address), true).unwrap(), "nothing new");
        let mut orders = Orders::open(directory.path());
        assert_eq!(orders.slow(), Slow::These([address].into()));
        orders.give(Target::All, true).unwrap();
        assert_eq!(orders.slow(), Slow::All);
        orders.give(Target::All, false).unwrap();
        assert_eq!(Orders::open(directory.path()).slow(), Slow::None);
    }
}
