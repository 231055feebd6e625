//! A policy turned into the tables the datapath looks things up in, and the change from some tables to others as writes in
//! an order that no packet can tell. Flow: policy.
//!
//! `lower` numbers everything in a way that the tables themselves remember: whoever reads them back from the kernel after a
//! restart gets the same numbers again, and lowering the same input twice changes nothing. `diff` knows nothing of
//! policies; what makes its order safe is that `lower` never changes in place what a port that moves from one policy
//! to another, or a policy whose rules change, still looks at.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::policy::types::{Attached, GroupId, Policy};

/// Tables that remember what they were lowered from.
mod compiled;
/// Tables to tables: ordered writes.
mod diff;
/// Which rule lets a class of remote addresses use a class of services.
mod grant;
/// Names beside numbers.
mod label;
/// A policy to tables.
mod lower;
/// Numbers for things in the maps.
mod numbers;
/// What there was before.
mod past;
/// Ports as the maps have them.
mod port;
/// Which remote addresses rules tell apart.
mod remote;
/// The rules of one side of a policy.
mod rules;
/// Which services rules tell apart.
mod service;
/// The compiled tables in memory.
mod tables;

#[cfg(test)]
mod tests;

pub use compiled::Compiled;
pub use diff::{Change, Op, Phase, Stage, diff};
pub use label::groups;
pub use lower::lower;
pub use tables::{PAIR_BITS, SET_BITS, Tables, Trie};

/// What is lowered.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What is asked for.
    pub policy: &'a Policy,
    /// Ports that were found on this host; each once, and each at a device of its own.
    pub attached: &'a [Attached],
    /// Every address that is a member of a group, for the groups that rules name.
    pub members: &'a BTreeMap<GroupId, BTreeSet<IpNet>>,
    /// Records a second that one port may cause.
    pub events_per_second: u32,
}

/// The policy does not fit into the maps. Nothing was changed.
///
/// Between the first and the last write of a change the maps hold what was before and what will be, so that is what is
/// counted: a policy that fits by itself may not fit beside the one before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "lower the policy: it needs at least {needed} {what}, counting those it replaces, and there is room for {limit}"
)]
pub struct TooLarge {
    /// What there is too much of.
    pub what: &'static str,
    /// How many are needed, at least.
    pub needed: u64,
    /// How many there can be.
    pub limit: u64,
}
