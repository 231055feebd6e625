//! Which rule lets a class of remote addresses use a class of services. Flow: policy.

use std::collections::BTreeMap;

use netdiag_common::abi::policy::MAX_GRANTS;

use super::{
    TooLarge,
    remote::{HostSet, PrefixSet},
    rules::SideRules,
    service::Selectors,
};
use crate::policy::types::Remote;

/// Rules by class of remote addresses and class of services.
pub(super) type Grants = BTreeMap<(u32, u32), u32>;

/// Where classes of the two kinds meet, and the first rule, by place, that makes them.
pub(super) fn meet(
    rules: &SideRules<'_>,
    classes: &[Selectors],
    hosts: Option<&HostSet>,
    prefixes: &PrefixSet,
) -> Result<Grants, TooLarge> {
    let by_remote = classes_by_remote(rules, hosts, prefixes);
    let mut grants = Grants::new();
    for (class, selectors) in (1..).zip(classes) {
        for (remote, rule) in selectors {
            for remote in &by_remote[*remote as usize] {
                let first = grants.entry((*remote, class)).or_insert(*rule);
                *first = (*first).min(*rule);
            }
        }
        if grants.len() > MAX_GRANTS as usize {
            return Err(TooLarge { what: "grants", needed: grants.len() as u64, limit: MAX_GRANTS.into() });
        }
    }
    Ok(grants)
}

/// Classes of addresses that a remote of the rules has, by its number.
fn classes_by_remote(rules: &SideRules<'_>, hosts: Option<&HostSet>, prefixes: &PrefixSet) -> Vec<Vec<u32>> {
    let mut by_remote = vec![Vec::new(); rules.remotes.len()];
    let is_group = |remote: &&Remote| matches!(remote, Remote::Group(_));
    // Groups are neighbours among the sorted remotes, in the order they have in the set.
    let first_group = rules.remotes.iter().position(is_group).unwrap_or(0);
    for (class, groups) in hosts.into_iter().flat_map(|hosts| &hosts.classes) {
        for group in groups {
            by_remote[first_group + *group as usize].push(*class);
        }
    }
    for (class, remotes) in &prefixes.classes {
        for remote in remotes {
            by_remote[*remote as usize].push(*class);
        }
    }
    if let Some(place) = rules.remotes.iter().position(|remote| **remote == Remote::Any) {
        by_remote[place].push(0);
    }
    by_remote
}
