//! Tables that remember what they were lowered from, so that a change of members costs what it changes. Flow: policy.
//!
//! Most of what happens to a policy is a port that comes or goes on some other host: one member more or less, among rules and
//! members that stay. Lowering everything again would cost as much as all of them. What is remembered is only a shorter way to what
//! `lower` makes; where the shorter way is not certain to lead there, the long one is taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use netdiag_common::abi::policy::{MAX_REMOTES, View, active, active_view};

use super::{
    Input, Op, Phase, Stage, Tables, TooLarge, diff,
    lower::{Generations, Lowered, LoweredSet, lower_closed, lower_whole, unused_views},
    remote::Members,
};
use crate::policy::types::{AddressGroup, AddressGroupId, Attached, Ethertype, GroupId, SecurityGroup};

/// Tables, as the maps hold them.
#[derive(Debug, Default)]
pub struct Compiled {
    tables: Tables,
    /// None where the tables were read from maps.
    memory: Option<Memory>,
}

impl From<Tables> for Compiled {
    fn from(tables: Tables) -> Self {
        Self { tables, memory: None }
    }
}

impl Compiled {
    /// The tables.
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Makes the tables what is asked for; the writes that do the same to maps. Where it does not fit nothing changes.
    ///
    /// # Errors
    /// As of [`lower`](super::lower()).
    pub fn advance(&mut self, input: &Input<'_>) -> Result<Vec<Phase>, TooLarge> {
        if let Some(part) = self.memory.as_ref().and_then(|memory| memory.part(input, &self.tables)) {
            return Ok(self.take(part));
        }
        let lowered = lower_whole(input, &self.tables)?;
        let phases = diff(&self.tables, &lowered.tables);
        self.memory = Some(Memory::of(input, &lowered));
        self.tables = lowered.tables;
        Ok(phases)
    }

    /// Adds a closed port at a device that has none yet; the writes, in an order that needs no waiting as nothing leads to
    /// its place before the last one. What else is asked for is not looked at.
    ///
    /// # Errors
    /// There is no room for one more.
    pub fn close(&mut self, port: &Attached) -> Result<Vec<Phase>, TooLarge> {
        let (before, after) = lower_closed(port, &self.tables)?;
        let ops: Vec<Op> = diff(&before, &after).into_iter().flat_map(|phase| phase.ops).collect();
        for op in &ops {
            op.apply(&mut self.tables);
        }
        self.memory = None;
        Ok(vec![Phase { stage: Stage::Add, ops }])
    }

    fn take(&mut self, part: Part) -> Vec<Phase> {
        let phases = diff(&part.before, &part.after);
        phases.iter().flat_map(|phase| &phase.ops).for_each(|op| op.apply(&mut self.tables));
        if let Some(memory) = &mut self.memory {
            memory.take(part);
        }
        phases
    }
}

/// What the tables were lowered from, and how.
#[derive(Debug)]
struct Memory {
    groups: BTreeMap<GroupId, SecurityGroup>,
    address_groups: BTreeMap<AddressGroupId, AddressGroup>,
    permitted_ethertypes: BTreeSet<u16>,
    attached: Vec<Attached>,
    events_per_second: u32,
    members: Members,
    sets: Vec<Set>,
    /// Numbers of policies, in the order in which they get versions.
    policies: Vec<u32>,
}

/// A set of host addresses.
#[derive(Debug)]
struct Set {
    family: Ethertype,
    groups: Vec<GroupId>,
    number: u32,
    /// Class of each combination of groups, by their place among those of the set.
    classes: BTreeMap<Vec<u32>, u32>,
    /// How many hosts are of each class.
    counts: Counts,
}

type Counts = BTreeMap<u32, usize>;

/// What a change of members changes: elements of the tables before and after, and nothing that stays.
#[derive(Debug, Default)]
struct Part {
    before: Tables,
    after: Tables,
    /// Members that come and go.
    changed: Vec<(GroupId, IpNet)>,
    /// Hosts of each class, by set.
    counts: Vec<Counts>,
}

impl From<&LoweredSet> for Set {
    fn from(LoweredSet { family, groups, number, content }: &LoweredSet) -> Self {
        let classes = content.classes.iter().map(|(class, subset)| (subset.clone(), *class)).collect();
        let mut counts = Counts::new();
        content.hosts.values().for_each(|class| *counts.entry(*class).or_default() += 1);
        Self { family: *family, groups: groups.clone(), number: *number, classes, counts }
    }
}

impl Memory {
    fn of(input: &Input<'_>, lowered: &Lowered) -> Self {
        let policy = input.policy;
        Self {
            groups: policy.groups.clone(),
            address_groups: policy.address_groups.clone(),
            permitted_ethertypes: policy.permitted_ethertypes.clone(),
            attached: input.attached.to_vec(),
            events_per_second: input.events_per_second,
            members: input.members.clone(),
            sets: lowered.sets.iter().map(Set::from).collect(),
            policies: lowered.policies.clone(),
        }
    }

    /// What has to change; none where it takes a whole lowering to know.
    fn part(&self, input: &Input<'_>, tables: &Tables) -> Option<Part> {
        let mut part = Part { changed: self.changed(input)?, ..Part::default() };
        part.before.set_labels.clone_from(&tables.set_labels);
        part.after.set_labels.clone_from(&tables.set_labels);
        for set in &self.sets {
            let counts = set.change(input.members, tables, &mut part)?;
            part.counts.push(counts);
        }
        self.renew(tables, &mut part)?;
        part.fits(tables).then_some(part)
    }

    /// Members that come and go; none where anything else changes, or a member is a network.
    fn changed(&self, input: &Input<'_>) -> Option<Vec<(GroupId, IpNet)>> {
        let policy = input.policy;
        let same = self.groups == policy.groups
            && self.address_groups == policy.address_groups
            && self.permitted_ethertypes == policy.permitted_ethertypes
            && self.events_per_second == input.events_per_second
            && self.attached == input.attached
            && self.members.keys().eq(input.members.keys());
        if !same {
            return None;
        }
        let mut changed = Vec::new();
        for (group, old) in &self.members {
            let new = input.members.get(group)?;
            changed.extend(old.symmetric_difference(new).map(|member| (group.clone(), *member)));
        }
        let is_host = |member: &IpNet| member.prefix_len() == member.max_prefix_len();
        changed.iter().all(|(_, member)| is_host(member)).then_some(changed)
    }

    /// Gives policies that use what changes another version.
    fn renew(&self, tables: &Tables, part: &mut Part) -> Option<()> {
        let hosts4 = part.before.remotes4.keys().chain(part.after.remotes4.keys()).map(|key| key.set);
        let hosts6 = part.before.remotes6.keys().chain(part.after.remotes6.keys()).map(|key| key.set);
        let changed: BTreeSet<u32> = hosts4.chain(hosts6).collect();
        let (mut views, mut generations) = (unused_views(tables), Generations::of(tables));
        for policy in &self.policies {
            let word = *tables.active.get(policy)?;
            let view = tables.views.get(&active_view(word))?;
            if !view.sides.iter().any(|side| changed.contains(&side.hosts)) {
                continue;
            }
            let (number, generation) = (views.take().ok()?, generations.next());
            part.before.views.insert(active_view(word), *view);
            part.before.active.insert(*policy, word);
            part.after.views.insert(number, View { generation, ..*view });
            part.after.active.insert(*policy, active(number, generation));
        }
        if !part.after.active.is_empty() {
            part.before.active.extend(tables.active.get(&0).map(|word| (0, *word)));
            part.after.active.insert(0, active(0, generations.last));
        }
        Some(())
    }

    /// Remembers that a change has been made.
    fn take(&mut self, part: Part) {
        for (group, member) in part.changed {
            let members = self.members.entry(group).or_default();
            if !members.remove(&member) {
                members.insert(member);
            }
        }
        for (set, counts) in self.sets.iter_mut().zip(part.counts) {
            set.counts = counts;
        }
    }
}

impl Set {
    /// Moves hosts from class to class; how many there are of each afterwards. None where a class comes or goes: what the
    /// classes are decides about grants.
    fn change(&self, members: &Members, tables: &Tables, part: &mut Part) -> Option<Counts> {
        let Part { before, after, changed, .. } = part;
        let is_own = |(group, host): &&(GroupId, IpNet)| {
            host.addr().is_ipv4() == (self.family == Ethertype::IPv4) && self.groups.binary_search(group).is_ok()
        };
        let hosts: BTreeSet<IpAddr> = changed.iter().filter(is_own).map(|(_, host)| host.addr()).collect();
        let mut counts = self.counts.clone();
        for host in hosts {
            let old = tables.host(self.number, host);
            let new = match self.subset(members, host) {
                subset if subset.is_empty() => None,
                subset => Some(*self.classes.get(&subset)?),
            };
            if old == new {
                continue;
            }
            if let Some(class) = old {
                before.put_host(self.number, host, class);
                *counts.get_mut(&class)? -= 1;
            }
            if let Some(class) = new {
                after.put_host(self.number, host, class);
                *counts.get_mut(&class)? += 1;
            }
        }
        counts.values().all(|count| *count > 0).then_some(counts)
    }

    /// Which groups a host is in.
    fn subset(&self, members: &Members, host: IpAddr) -> Vec<u32> {
        let host = IpNet::from(host);
        let is_in = |(_, group): &(u32, &GroupId)| members.get(*group).is_some_and(|members| members.contains(&host));
        (0..).zip(&self.groups).filter(is_in).map(|(place, _)| place).collect()
    }
}

impl Part {
    /// Whether what was and what will be fit into the maps together.
    fn fits(&self, tables: &Tables) -> bool {
        let new4 = self.after.remotes4.keys().filter(|key| !self.before.remotes4.contains_key(key)).count();
        let new6 = self.after.remotes6.keys().filter(|key| !self.before.remotes6.contains_key(key)).count();
        let limit = MAX_REMOTES as usize;
        tables.remotes4.len() + new4 <= limit && tables.remotes6.len() + new6 <= limit
    }
}
