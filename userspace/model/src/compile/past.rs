//! What there was before, as far as it binds what comes after. Flow: policy.

use std::collections::{BTreeMap, BTreeSet};

use netdiag_common::abi::policy::{Side, View, active_generation, active_view};

use super::tables::Tables;

/// The tables before, and what they say of themselves.
pub(super) struct Past<'a> {
    /// The tables.
    pub(super) tables: &'a Tables,
    /// Views in force, by policy.
    pub(super) in_force: BTreeMap<u32, View>,
    /// Policies that a port leaves for another: until it has left, nothing that belongs to them may change.
    pub(super) left: BTreeSet<u32>,
    /// A change was begun and not brought to its end. What has been removed since can no longer be known.
    pub(super) interrupted: bool,
    classes: BTreeMap<(bool, Side), BTreeSet<u32>>,
}

impl<'a> Past<'a> {
    /// Looks at tables.
    pub(super) fn of(tables: &'a Tables) -> Self {
        let policies = || tables.active.iter().filter(|(policy, _)| **policy != 0);
        let view =
            |word: u64| tables.views.get(&active_view(word)).filter(|view| view.generation == active_generation(word));
        let in_force = policies().filter_map(|(policy, word)| Some((*policy, *view(*word)?))).collect();
        let named: BTreeSet<u32> = policies().map(|(_, word)| active_view(*word)).collect();
        let interrupted = tables.views.keys().any(|view| !named.contains(view));
        Self { tables, in_force, left: BTreeSet::new(), interrupted, classes: BTreeMap::new() }
    }

    /// The sides of the views in force, with the policy they belong to and their place.
    pub(super) fn sides(&self) -> impl Iterator<Item = (u32, usize, &Side)> {
        self.in_force
            .iter()
            .flat_map(|(policy, view)| view.sides.iter().enumerate().map(|(place, side)| (*policy, place, side)))
    }

    /// True if one side, and one only, uses grants of this number.
    pub(super) fn is_only_user_of_grants(&self, grants: u32) -> bool {
        self.sides().filter(|(_, _, side)| side.grants == grants).count() == 1
    }

    /// Classes of remote addresses that a lookup on a side can meet, 0 among them.
    pub(super) fn classes(&mut self, ipv6: bool, side: &Side) -> &BTreeSet<u32> {
        let tables = self.tables;
        let key = (ipv6, Side { services: 0, grants: 0, ..*side });
        self.classes.entry(key).or_insert_with(|| {
            let mut classes = BTreeSet::from([0]);
            if ipv6 {
                classes.extend(tables.hosts6_of(side.hosts).map(|(_, class)| *class));
                classes.extend(
                    tables.prefixes6.iter().filter(|(key, _)| key.data.set == side.prefixes).map(|(_, class)| *class),
                );
            } else {
                classes.extend(tables.hosts4_of(side.hosts).map(|(_, class)| *class));
                classes.extend(
                    tables.prefixes4.iter().filter(|(key, _)| key.data.set == side.prefixes).map(|(_, class)| *class),
                );
            }
            classes
        })
    }
}
