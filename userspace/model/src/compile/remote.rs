//! Which remote addresses the rules of a side tell apart: sets of host addresses and sets of prefixes. Flow: policy.
//!
//! A remote class stands for what an address is to the rules: which groups it is a member of, which prefixes cover it. The
//! class of a host is a hash of its groups, so that it is the same in every version of a set, and a member that comes or goes
//! touches its own element only. Classes of prefixes are numbered as they are met, so that sets of the same shape are
//! one; such a set is never changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    label::{hash, names},
    rules::SideRules,
};
use crate::policy::types::{Ethertype, GroupId, Policy, Remote};

/// Set in classes of prefixes, never in those of hosts: both are keys of the same grants.
const OF_PREFIXES: u32 = 1 << 31;

/// Members of groups.
pub(super) type Members = BTreeMap<GroupId, BTreeSet<IpNet>>;

/// A set of host addresses.
#[derive(Debug)]
pub(super) struct HostSet {
    /// What identifies it: family, groups, and which try at numbering the classes it is.
    pub(super) name: String,
    /// Class of each address.
    pub(super) hosts: BTreeMap<IpAddr, u32>,
    /// Groups of each class, by their place in the set's list.
    pub(super) classes: BTreeMap<u32, Vec<u32>>,
}

impl HostSet {
    /// The hosts among the members of groups, of one family.
    pub(super) fn build(family: Ethertype, groups: &[&GroupId], members: &Members) -> Self {
        let hosts = hosts(family, groups, members);
        let subsets: BTreeSet<&Vec<u32>> = hosts.values().collect();
        let (attempt, numbers) = number(groups, &subsets);
        let name = format!("{family:?}.{attempt} {}", names(groups.iter().copied()));
        let classes = numbers.iter().map(|(subset, class)| (*class, (*subset).clone())).collect();
        let hosts = hosts.iter().map(|(address, subset)| (*address, numbers[subset])).collect();
        Self { name, hosts, classes }
    }
}

/// Groups of each host address, by place in the list.
fn hosts(family: Ethertype, groups: &[&GroupId], members: &Members) -> BTreeMap<IpAddr, Vec<u32>> {
    let mut all: Vec<(IpAddr, u32)> = Vec::new();
    for (place, group) in (0..).zip(groups) {
        let members = members.get(*group).into_iter().flatten();
        all.extend(
            members.filter(|member| is_of(family, member) && is_host(member)).map(|member| (member.addr(), place)),
        );
    }
    all.sort_unstable();
    let mut hosts: BTreeMap<IpAddr, Vec<u32>> = BTreeMap::new();
    for (address, group) in all {
        hosts.entry(address).or_default().push(group);
    }
    hosts
}

/// A class for each combination of groups: a hash of them, tried until all are different.
fn number<'a>(groups: &[&GroupId], subsets: &BTreeSet<&'a Vec<u32>>) -> (u32, HashMap<&'a Vec<u32>, u32>) {
    let mut attempt = 0;
    loop {
        let numbers: HashMap<_, _> =
            subsets.iter().map(|subset| (*subset, class_of(attempt, groups, subset))).collect();
        if numbers.values().collect::<BTreeSet<_>>().len() == subsets.len() {
            return (attempt, numbers);
        }
        attempt += 1;
    }
}

/// A hash of the groups of a class: never 0, and without [`OF_PREFIXES`].
fn class_of(attempt: u32, groups: &[&GroupId], subset: &[u32]) -> u32 {
    let mut text = attempt.to_ne_bytes().to_vec();
    for place in subset {
        text.extend_from_slice(groups[*place as usize].0.as_bytes());
        text.push(0);
    }
    let hash = hash(&text);
    let [a, b, c, d, ..] = (hash ^ hash >> 64 ^ hash >> 32).to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]) & !OF_PREFIXES).max(1)
}

/// A set of prefixes.
#[derive(Debug, Default)]
pub(super) struct PrefixSet {
    /// Class of each prefix.
    pub(super) prefixes: BTreeMap<IpNet, u32>,
    /// Remotes of each class, by number.
    pub(super) classes: BTreeMap<u32, Vec<u32>>,
    /// Remotes, by number, that have a prefix.
    pub(super) prefixed: Vec<bool>,
}

impl PrefixSet {
    /// The prefixes of the remotes of a side: a prefix, those of an address group, those among the members of a group.
    pub(super) fn build(rules: &SideRules<'_>, family: Ethertype, policy: &Policy, members: &Members) -> Self {
        let mut own: BTreeMap<IpNet, BTreeSet<u32>> = BTreeMap::new();
        for (number, remote) in (0..).zip(&rules.remotes) {
            for prefix in prefixes_of(remote, policy, members).into_iter().filter(|prefix| is_of(family, prefix)) {
                own.entry(prefix.trunc()).or_default().insert(number);
            }
        }
        let mut set = Self { prefixed: vec![false; rules.remotes.len()], ..Self::default() };
        own.values().flatten().for_each(|remote| set.prefixed[*remote as usize] = true);
        set.unite(own);
        set
    }

    /// Gives every prefix the remotes of those that cover it, too, so that the longest match knows all.
    fn unite(&mut self, own: BTreeMap<IpNet, BTreeSet<u32>>) {
        let mut numbers: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
        // A prefix comes after those that cover it, and what does not cover it covers nothing that follows.
        let mut around: Vec<(IpNet, BTreeSet<u32>)> = Vec::new();
        for (prefix, mut remotes) in own {
            while around.last().is_some_and(|(outer, _)| !outer.contains(&prefix)) {
                around.pop();
            }
            if let Some((_, outer)) = around.last() {
                remotes.extend(outer);
            }
            let next = OF_PREFIXES | (u32::try_from(numbers.len()).unwrap_or(u32::MAX) + 1);
            let class = *numbers.entry(remotes.iter().copied().collect()).or_insert(next);
            self.prefixes.insert(prefix, class);
            around.push((prefix, remotes));
        }
        self.classes = numbers.into_iter().map(|(remotes, class)| (class, remotes)).collect();
    }
}

fn prefixes_of(remote: &Remote, policy: &Policy, members: &Members) -> Vec<IpNet> {
    match remote {
        Remote::Any => Vec::new(),
        Remote::Prefix(prefix) => vec![*prefix],
        Remote::AddressGroup(id) => {
            policy.address_groups.get(id).map(|group| group.addresses.iter().copied().collect()).unwrap_or_default()
        }
        Remote::Group(id) => members.get(id).into_iter().flatten().filter(|member| !is_host(member)).copied().collect(),
    }
}

/// True for a single address.
fn is_host(member: &IpNet) -> bool {
    member.prefix_len() == member.max_prefix_len()
}

/// True for a network of the family.
fn is_of(family: Ethertype, member: &IpNet) -> bool {
    match family {
        Ethertype::IPv4 => matches!(member, IpNet::V4(_)),
        Ethertype::IPv6 => matches!(member, IpNet::V6(_)),
    }
}
