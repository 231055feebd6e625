//! The rules of one side of a policy. Flow: policy.

use crate::policy::types::{Direction, Ethertype, GroupId, Policy, Remote, Rule};

/// One direction and one family, by `abi::policy::side`.
pub(super) const SIDES: [(Direction, Ethertype); 4] = [
    (Direction::Egress, Ethertype::IPv4),
    (Direction::Egress, Ethertype::IPv6),
    (Direction::Ingress, Ethertype::IPv4),
    (Direction::Ingress, Ethertype::IPv6),
];

/// The rules of one direction and one family.
#[derive(Debug)]
pub(super) struct SideRules<'a> {
    /// Rules in the order of the port's groups.
    pub(super) rules: Vec<&'a Rule>,
    /// Their remotes, sorted: the place is the remote's number.
    pub(super) remotes: Vec<&'a Remote>,
    /// Number of the remote, by rule.
    of: Vec<u32>,
}

impl<'a> SideRules<'a> {
    /// Gathers the rules of a side.
    pub(super) fn gather(policy: &'a Policy, groups: &[GroupId], (direction, family): (Direction, Ethertype)) -> Self {
        let of_groups = groups.iter().filter_map(|group| policy.groups.get(group)).flat_map(|group| &group.rules);
        let rules: Vec<&Rule> =
            of_groups.filter(|rule| rule.direction == direction && rule.ethertype == family).collect();
        let mut remotes: Vec<&Remote> = rules.iter().map(|rule| &rule.remote).collect();
        remotes.sort_unstable();
        remotes.dedup();
        let number =
            |rule: &&Rule| remotes.binary_search(&&rule.remote).ok().and_then(|place| u32::try_from(place).ok());
        let of = rules.iter().filter_map(number).collect();
        Self { rules, remotes, of }
    }

    /// Number of the remote of the rule at a place.
    pub(super) fn remote_of(&self, rule: u32) -> u32 {
        self.of[rule as usize]
    }

    /// The remote with a number.
    pub(super) fn remote(&self, number: u32) -> &'a Remote {
        self.remotes[number as usize]
    }

    /// Groups that rules name as remote, sorted.
    pub(super) fn groups(&self) -> Vec<&'a GroupId> {
        let group = |remote: &&'a Remote| match remote {
            Remote::Group(group) => Some(group),
            Remote::Any | Remote::Prefix(_) | Remote::AddressGroup(_) => None,
        };
        self.remotes.iter().filter_map(group).collect()
    }
}
