//! A policy to tables. Flow: policy.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use ipnet::IpNet;
use netdiag_common::{
    ABI_VERSION,
    abi::policy::{
        GrantKey, Label, MAX_ETHERTYPES, MAX_GRANTS, MAX_MACS, MAX_PAGES, MAX_PAIRS, MAX_POLICIES, MAX_PORTS,
        MAX_PREFIXES, MAX_REMOTES, MAX_RULES, MAX_SERVICE_TABLES, MAX_SETS, MAX_VIEWS, PAGE, PORT_MANAGED,
        PORT_TRUSTED, Page, Port, Protocol, RemoteKey4, RemoteKey6, Settings, Side, VIEW_STATELESS, View, active,
        active_generation, active_view,
    },
};

use super::{
    Input, TooLarge,
    grant::{self, Grants},
    label::{label, names},
    numbers::{Contents, Labelled, Unused},
    past::Past,
    port,
    remote::{HostSet, PrefixSet},
    rules::{SIDES, SideRules},
    service::{self, Services},
    tables::{SET_BITS, Tables, Trie},
};
use crate::policy::types::{Attached, Direction, Ethertype, GroupId, Mode, RuleId};

/// Lowers a policy. `before` is what the maps have now: numbers are kept where they mean the same.
pub fn lower(input: &Input<'_>, before: &Tables) -> Result<Tables, TooLarge> {
    lower_whole(input, before).map(|lowered| lowered.tables)
}

/// Tables, and what a change of members needs to know of how they came to be.
pub(super) struct Lowered {
    /// The tables.
    pub(super) tables: Tables,
    /// Sets of host addresses.
    pub(super) sets: Vec<LoweredSet>,
    /// Numbers of policies, in the order in which they get versions.
    pub(super) policies: Vec<u32>,
}

/// A set of host addresses.
pub(super) struct LoweredSet {
    /// Of which family.
    pub(super) family: Ethertype,
    /// Its groups, in their order.
    pub(super) groups: Vec<GroupId>,
    /// Its number.
    pub(super) number: u32,
    /// What is in it.
    pub(super) content: HostSet,
}

/// Lowers a policy, and says how.
pub(super) fn lower_whole(input: &Input<'_>, before: &Tables) -> Result<Lowered, TooLarge> {
    let mut past = Past::of(before);
    let mut after = Tables { settings: settings(input, &before.settings)?, ..Tables::default() };
    let places = lower_ports(input.attached, before, &mut after)?;
    let mut sets = HostSets::default();
    let mut drafts = draft(input, &mut sets)?;
    number_rules(&mut drafts, before, &mut after)?;
    let mut policies = number_policies(&mut drafts, before)?;
    for (place, attached) in places.iter().zip(input.attached) {
        let number = Draft::key(input, attached).and_then(|key| drafts.get(&key)).map_or(0, |draft| draft.number);
        past.left.extend(place.leaves(number));
    }
    number_services(&mut drafts, before, &mut after)?;
    number_prefixes(&mut drafts, before, &mut after)?;
    number_grants(&mut drafts, &mut past, &sets, &mut after)?;
    let numbers = number_hosts(&mut drafts, &past, &sets, &mut after)?;
    put_in_force(&mut drafts, &past, &mut policies, &mut after)?;
    for (place, attached) in places.iter().zip(input.attached) {
        let policy = Draft::key(input, attached).and_then(|key| drafts.get(&key)).map_or(0, |draft| draft.number);
        after.ports.entry(place.slot).and_modify(|port| port.policy = policy);
    }
    check(before, &after)?;
    let policies = drafts.values().map(|draft| draft.number).collect();
    Ok(Lowered { tables: after, sets: sets.numbered(&numbers), policies })
}

/// Where a port is.
struct Place {
    slot: u32,
    /// The port as it was, if it was there.
    old: Option<Port>,
    trusted: bool,
}

impl Place {
    /// The policy the port leaves for `policy`, with packets that both have to answer for.
    fn leaves(&self, policy: u32) -> Option<u32> {
        let old = self.old.filter(|old| old.flags & PORT_TRUSTED == 0 && !self.trusted)?;
        (old.policy != policy).then_some(old.policy)
    }
}

/// Gives every port a place and lowers what belongs to it alone. Its policy is not known yet.
fn lower_ports(ports: &[Attached], before: &Tables, after: &mut Tables) -> Result<Vec<Place>, TooLarge> {
    let managed = |port: &Port| port.flags & PORT_MANAGED != 0;
    let taken = before.ports.iter().filter(|(_, port)| managed(port)).map(|(slot, _)| *slot);
    let mut slots = Labelled::new(&before.port_labels, Unused::new("ports", (0, MAX_PORTS), taken));
    let mut places = Vec::new();
    for attached in ports {
        let label = label(&attached.id.0);
        let slot = slots.of(&label)?;
        let there = before.ports.get(&slot);
        // A label beside an unmanaged port is half of a change that was never finished.
        let old = there.filter(|port| managed(port) && before.port_labels.get(&slot) == Some(&label)).copied();
        let epoch =
            old.map_or_else(|| there.map_or(1, |port| port.epoch.checked_add(1).unwrap_or(1)), |port| port.epoch);
        let lowered = port::lower(attached, slot, old.as_ref());
        after.ports.insert(slot, Port { epoch, ..lowered.port });
        after.macs.extend(lowered.macs);
        after.pairs.extend(lowered.pairs);
        after.port_labels.insert(slot, label);
        after.interfaces.insert(attached.ifindex, slot);
        places.push(Place { slot, old, trusted: attached.mode == Mode::Trusted });
    }
    for (slot, port) in &before.ports {
        after.ports.entry(*slot).or_insert(Port { epoch: port.epoch, ..Port::default() });
    }
    Ok(places)
}

/// What a closed port more changes at a place nobody has: elements of the tables before and after, and nothing that stays.
pub(super) fn lower_closed(port: &Attached, before: &Tables) -> Result<(Tables, Tables), TooLarge> {
    let (mut was, mut all) = (Tables::default(), Tables::default());
    let own = label(&port.id.0);
    let is_taken = before.port_labels.values().any(|label| *label == own);
    let id = if is_taken { port.id.at_device(port.ifindex) } else { port.id.clone() };
    let port = Attached { id, groups: Vec::new(), mode: Mode::Closed, ..port.clone() };
    lower_ports(std::slice::from_ref(&port), before, &mut all)?;
    let slot = all.interfaces[&port.ifindex];
    was.ports.extend(before.ports.get(&slot).map(|port| (slot, *port)));
    was.port_labels.extend(before.port_labels.get(&slot).map(|label| (slot, *label)));
    all.ports.retain(|place, _| *place == slot);
    let (label, mut numbers) = (label(&names([])), policy_numbers(before));
    let number = numbers.of(&label)?;
    all.ports.entry(slot).and_modify(|port| port.policy = number);
    if !before.active.contains_key(&number) {
        let (view, mut generations) = (unused_views(before).take()?, Generations::of(before));
        let generation = generations.next();
        was.active.extend(before.active.get(&0).map(|word| (0, *word)));
        all.views.insert(view, View { generation, ..View::default() });
        all.active.extend([(number, active(view, generation)), (0, active(0, generation))]);
        all.policy_labels.insert(number, label);
    }
    Ok((was, all))
}

/// A policy on its way: the groups of a port, whichever port it is.
struct Draft<'a> {
    label: Label,
    /// Number, as far as is known: it changes once more where a port leaves the policy while the policy changes.
    number: u32,
    flags: u32,
    sides: Vec<SideDraft<'a>>,
}

/// One side of a policy on its way.
struct SideDraft<'a> {
    rules: SideRules<'a>,
    services: Services,
    prefixes: PrefixSet,
    /// Place of the set of host addresses among all.
    hosts: Option<usize>,
    grants: Grants,
    /// Numbers, as far as they are known.
    side: Side,
}

impl<'a> Draft<'a> {
    /// What makes the policy of a port the same as another's; none where no policy decides.
    fn key(input: &Input<'_>, attached: &Attached) -> Option<Vec<GroupId>> {
        let mut groups = Vec::new();
        match attached.mode {
            Mode::Trusted => return None,
            Mode::Closed => {}
            Mode::Filtered => {
                for group in &attached.groups {
                    if input.policy.groups.contains_key(group) && !groups.contains(group) {
                        groups.push(group.clone());
                    }
                }
            }
        }
        Some(groups)
    }

    fn new(input: &Input<'a>, groups: &[GroupId], sets: &mut HostSets) -> Result<Self, TooLarge> {
        let stateful = |group: &GroupId| input.policy.groups.get(group).is_none_or(|group| group.stateful);
        let flags = if groups.is_empty() || groups.iter().any(stateful) { 0 } else { VIEW_STATELESS };
        let sides = SIDES.map(|side| SideDraft::new(input, groups, side, sets));
        let sides = sides.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { label: label(&names(groups)), number: 0, flags, sides })
    }
}

impl<'a> SideDraft<'a> {
    fn new(
        input: &Input<'a>,
        groups: &[GroupId],
        side: (Direction, Ethertype),
        sets: &mut HostSets,
    ) -> Result<Self, TooLarge> {
        let rules = SideRules::gather(input.policy, groups, side);
        let prefixes = PrefixSet::build(&rules, side.1, input.policy, input.members);
        let services = service::classify(&rules, &prefixes.prefixed)?;
        let hosts = sets.of(input, side.1, &rules.groups());
        let grants = grant::meet(&rules, &services.classes, hosts.map(|hosts| &sets.sets[hosts].1), &prefixes)?;
        Ok(Self { rules, services, prefixes, hosts, grants, side: Side::default() })
    }
}

/// Policies by what makes them the same.
type Drafts<'a> = BTreeMap<Vec<GroupId>, Draft<'a>>;

fn draft<'a>(input: &Input<'a>, sets: &mut HostSets) -> Result<Drafts<'a>, TooLarge> {
    let mut drafts = Drafts::new();
    for key in input.attached.iter().filter_map(|attached| Draft::key(input, attached)) {
        if let Entry::Vacant(entry) = drafts.entry(key) {
            let draft = Draft::new(input, entry.key(), sets)?;
            entry.insert(draft);
        }
    }
    Ok(drafts)
}

/// Sets of host addresses, each once however many sides use it.
#[derive(Default)]
struct HostSets {
    by_groups: BTreeMap<(Ethertype, Vec<GroupId>), usize>,
    sets: Vec<(Ethertype, HostSet)>,
}

impl HostSets {
    /// Place of the set of the groups; none for no groups.
    fn of(&mut self, input: &Input<'_>, family: Ethertype, groups: &[&GroupId]) -> Option<usize> {
        if groups.is_empty() {
            return None;
        }
        let key = (family, groups.iter().map(|group| (*group).clone()).collect());
        let place = *self.by_groups.entry(key).or_insert_with(|| {
            self.sets.push((family, HostSet::build(family, groups, input.members)));
            self.sets.len() - 1
        });
        Some(place)
    }

    /// All sets with their numbers.
    fn numbered(self, numbers: &[u32]) -> Vec<LoweredSet> {
        let mut of_place: BTreeMap<usize, Vec<GroupId>> =
            self.by_groups.into_iter().map(|((_, groups), place)| (place, groups)).collect();
        let sets = self.sets.into_iter().zip(numbers).enumerate();
        let set = |(place, ((family, content), number)): (usize, ((Ethertype, HostSet), &u32))| LoweredSet {
            family,
            groups: of_place.remove(&place).unwrap_or_default(),
            number: *number,
            content,
        };
        sets.map(set).collect()
    }
}

/// Numbers the rules, and names them in the grants.
fn number_rules(drafts: &mut Drafts<'_>, before: &Tables, after: &mut Tables) -> Result<(), TooLarge> {
    let mut numbers = Labelled::new(&before.rule_labels, Unused::new("rules", (1, MAX_RULES), []));
    let mut known: BTreeMap<&RuleId, u32> = BTreeMap::new();
    for side in drafts.values_mut().flat_map(|draft| &mut draft.sides) {
        let mut of_place = Vec::with_capacity(side.rules.rules.len());
        for rule in &side.rules.rules {
            let number = if let Some(number) = known.get(&rule.id) {
                *number
            } else {
                let label = label(&rule.id.0);
                let number = numbers.of(&label)?;
                after.rule_labels.insert(number, label);
                known.insert(&rule.id, number);
                number
            };
            of_place.push(number);
        }
        side.grants.values_mut().for_each(|rule| *rule = of_place[*rule as usize]);
    }
    Ok(())
}

/// Numbers the policies as they were before, and returns what is left.
fn number_policies(drafts: &mut Drafts<'_>, before: &Tables) -> Result<Labelled, TooLarge> {
    let mut numbers = policy_numbers(before);
    for draft in drafts.values_mut() {
        draft.number = numbers.of(&draft.label)?;
    }
    Ok(numbers)
}

/// Numbers of policies that are free, and those that labels had.
fn policy_numbers(before: &Tables) -> Labelled {
    let taken = before.active.keys().chain(&[0]).copied();
    Labelled::new(&before.policy_labels, Unused::new("policies", (1, MAX_POLICIES), taken))
}

/// Numbers the service tables and their pages.
fn number_services(drafts: &mut Drafts<'_>, before: &Tables, after: &mut Tables) -> Result<(), TooLarge> {
    let mut pages = Contents::new(
        before.pages.iter().map(|(number, page)| (*number, *page)),
        Unused::new("pages of services", (1, MAX_PAGES), []),
    );
    let mut before_tables: BTreeMap<u32, BTreeMap<u8, Protocol>> = BTreeMap::new();
    for (index, protocol) in &before.protocols {
        let [number, ..] = index.to_le_bytes();
        before_tables.entry(index / 256).or_default().insert(number, *protocol);
    }
    let mut tables = Contents::new(before_tables, Unused::new("service tables", (1, MAX_SERVICE_TABLES), []));
    for side in drafts.values_mut().flat_map(|draft| &mut draft.sides) {
        let services = &side.services;
        let mut table: BTreeMap<u8, Protocol> = BTreeMap::new();
        for (protocol, class) in &services.whole {
            table.entry(*protocol).or_default().whole = *class;
        }
        for (protocol, leaves) in &services.leaves {
            if !leaves.is_empty() {
                table.entry(*protocol).or_default().directory = number_pages(leaves, &mut pages, after)?;
            }
        }
        if table.is_empty() {
            continue;
        }
        side.side.services = tables.of(&table)?;
        for (protocol, content) in table {
            after.protocols.insert(side.side.services * 256 + u32::from(protocol), content);
        }
    }
    Ok(())
}

/// Numbers the leaves of a protocol, and the directory that leads to them.
fn number_pages(leaves: &BTreeMap<u8, Page>, pages: &mut Contents<Page>, after: &mut Tables) -> Result<u32, TooLarge> {
    let mut directory = Page([0; PAGE]);
    for (upper, leaf) in leaves {
        let number = pages.of(leaf)?;
        after.pages.insert(number, *leaf);
        directory.0[usize::from(*upper)] = number;
    }
    let number = pages.of(&directory)?;
    after.pages.insert(number, directory);
    Ok(number)
}

/// A set of prefixes as the maps have it: family, and addresses with their length and class.
type Prefixes = (bool, Vec<([u32; 4], u32, u32)>);

/// Numbers the sets of prefixes.
fn number_prefixes(drafts: &mut Drafts<'_>, before: &Tables, after: &mut Tables) -> Result<(), TooLarge> {
    let mut known: BTreeMap<u32, Prefixes> = BTreeMap::new();
    for (key, class) in &before.prefixes4 {
        let set = known.entry(key.data.set).or_default();
        set.1.push(([key.data.address, 0, 0, 0], key.bits, *class));
    }
    for (key, class) in &before.prefixes6 {
        let set = known.entry(key.data.set).or_default();
        set.0 = true;
        set.1.push((key.data.address, key.bits, *class));
    }
    let mut numbers = Contents::new(known, Unused::new("sets of prefixes", (1, u32::MAX), []));
    for (place, side) in drafts.values_mut().flat_map(|draft| draft.sides.iter_mut().enumerate()) {
        if side.prefixes.prefixes.is_empty() {
            continue;
        }
        let ipv6 = SIDES[place].1 == Ethertype::IPv6;
        let mut content: Vec<_> =
            side.prefixes.prefixes.iter().map(|(prefix, class)| in_words(prefix, *class)).collect();
        content.sort_unstable();
        let content = (ipv6, content);
        side.side.prefixes = numbers.of(&content)?;
        let set = side.side.prefixes;
        for (address, bits, class) in content.1 {
            if ipv6 {
                after.prefixes6.insert(Trie { data: RemoteKey6 { set, address }, bits }, class);
            } else {
                let [address, ..] = address;
                after.prefixes4.insert(Trie { data: RemoteKey4 { set, address }, bits }, class);
            }
        }
    }
    Ok(())
}

fn in_words(prefix: &IpNet, class: u32) -> ([u32; 4], u32, u32) {
    let address = match prefix {
        IpNet::V4(prefix) => [u32::from_ne_bytes(prefix.network().octets()), 0, 0, 0],
        IpNet::V6(prefix) => port::words6(prefix.network()),
    };
    (address, SET_BITS + u32::from(prefix.prefix_len()), class)
}

/// Numbers the grants: as before where what is in force does not mind their new content.
fn number_grants(
    drafts: &mut Drafts<'_>,
    past: &mut Past<'_>,
    sets: &HostSets,
    after: &mut Tables,
) -> Result<(), TooLarge> {
    let before = past.tables;
    let taken = before.grants.keys().map(|key| key.grants).chain(past.sides().map(|(_, _, side)| side.grants));
    let mut numbers = Unused::new("tables of grants", (1, u32::MAX), taken.collect::<BTreeSet<_>>());
    for draft in drafts.values_mut() {
        for (place, side) in draft.sides.iter_mut().enumerate().filter(|(_, side)| side.side.services != 0) {
            let old = past.in_force.get(&draft.number).map(|view| view.sides[place]);
            let kept = old.filter(|old| may_keep_grants(past, (draft.number, place), old, side, sets));
            side.side.grants = kept.map_or_else(|| numbers.take(), |old| Ok(old.grants))?;
            let grants = side.side.grants;
            let key = |(remote, class): &(u32, u32)| GrantKey { grants, remote: *remote, class: *class };
            after.grants.extend(side.grants.iter().map(|(pair, rule)| (key(pair), *rule)));
        }
    }
    Ok(())
}

/// True if the grants of a side may have their number although they change: no lookup by what is in force, and none by
/// what will be, can tell.
fn may_keep_grants(
    past: &mut Past<'_>,
    (policy, place): (u32, usize),
    old: &Side,
    side: &SideDraft<'_>,
    sets: &HostSets,
) -> bool {
    if old.grants == 0 || old.services != side.side.services || !past.is_only_user_of_grants(old.grants) {
        return false;
    }
    let content: Grants =
        past.tables.grants_of(old.grants).map(|(key, rule)| ((key.remote, key.class), *rule)).collect();
    if content == side.grants {
        return true;
    }
    let left = past.left.contains(&policy);
    let before = past.classes(SIDES[place].1 == Ethertype::IPv6, old);
    let is_met = |remote: u32| {
        remote == 0
            || side.prefixes.classes.contains_key(&remote)
            || side.hosts.is_some_and(|hosts| sets.sets[hosts].1.classes.contains_key(&remote))
    };
    let agrees = |key: &(u32, u32)| content.get(key) == side.grants.get(key);
    let is_new = |key: &(u32, u32)| !before.contains(&key.0) && !content.contains_key(key);
    let keys = content.keys().chain(side.grants.keys());
    !left && keys.filter(|(remote, _)| is_met(*remote)).all(|key| agrees(key) || is_new(key))
}

/// Numbers the sets of host addresses: as before where what is in force does not mind their new content. The numbers.
fn number_hosts(
    drafts: &mut Drafts<'_>,
    past: &Past<'_>,
    sets: &HostSets,
    after: &mut Tables,
) -> Result<Vec<u32>, TooLarge> {
    let before = past.tables;
    let taken = before.remotes4.keys().map(|key| key.set).chain(before.remotes6.keys().map(|key| key.set));
    let taken = taken.chain(past.sides().map(|(_, _, side)| side.hosts)).chain([0]).collect::<BTreeSet<_>>();
    let mut numbers = Labelled::new(&before.set_labels, Unused::new("sets of host addresses", (1, MAX_SETS), taken));
    let mut of_set = Vec::new();
    for (place, (family, set)) in sets.sets.iter().enumerate() {
        let label = label(&set.name);
        let kept = numbers
            .again(&label)
            .filter(|number| is_same(before, *number, *family, set) || may_keep_hosts(drafts, past, *number, place));
        let number = kept.map_or_else(|| numbers.fresh(), Ok)?;
        after.set_labels.insert(number, label);
        for (address, class) in &set.hosts {
            after.put_host(number, *address, *class);
        }
        of_set.push(number);
    }
    for side in drafts.values_mut().flat_map(|draft| &mut draft.sides) {
        side.side.hosts = side.hosts.map_or(0, |place| of_set[place]);
    }
    Ok(of_set)
}

/// True if a set had the same content before.
fn is_same(before: &Tables, set: u32, family: Ethertype, content: &HostSet) -> bool {
    let count = match family {
        Ethertype::IPv4 => before.hosts4_of(set).count(),
        Ethertype::IPv6 => before.hosts6_of(set).count(),
    };
    let there = |(address, class): (&IpAddr, &u32)| before.host(set, *address) == Some(*class);
    count == content.hosts.len() && content.hosts.iter().all(there)
}

/// True if a set may have its number although its content changes: all that differs, for everybody who uses it now, is which
/// of its hosts are which.
fn may_keep_hosts(drafts: &Drafts<'_>, past: &Past<'_>, set: u32, place: usize) -> bool {
    let by_number: BTreeMap<u32, &Draft<'_>> = drafts.values().map(|draft| (draft.number, draft)).collect();
    past.sides().filter(|(_, _, old)| old.hosts == set).all(|(policy, side, old)| {
        let stays = |draft: &&Draft<'_>| {
            let new = &draft.sides[side];
            new.hosts == Some(place) && Side { hosts: set, ..new.side } == *old
        };
        !past.left.contains(&policy) && by_number.get(&policy).is_none_or(stays)
    })
}

/// Numbers the views and puts them in force.
fn put_in_force(
    drafts: &mut Drafts<'_>,
    past: &Past<'_>,
    policies: &mut Labelled,
    after: &mut Tables,
) -> Result<(), TooLarge> {
    let before = past.tables;
    let mut views = unused_views(before);
    let mut generations = Generations::of(before);
    let changed = changed_sets(before, after);
    for draft in drafts.values_mut() {
        let sides = [0, 1, 2, 3].map(|place: usize| draft.sides[place].side);
        let is_kept = |old: &&View| {
            let same = old.flags == draft.flags && old.sides == sides;
            same && !past.interrupted && !sides.iter().any(|side| changed.contains(&side.hosts))
        };
        if let Some(view) = past.in_force.get(&draft.number).filter(is_kept) {
            let word = before.active[&draft.number];
            after.active.insert(draft.number, word);
            after.views.insert(active_view(word), *view);
        } else {
            if past.left.contains(&draft.number) {
                draft.number = policies.fresh()?;
            }
            let (number, generation) = (views.take()?, generations.next());
            after.views.insert(number, View { generation, flags: draft.flags, sides });
            after.active.insert(draft.number, active(number, generation));
        }
        after.policy_labels.insert(draft.number, draft.label);
    }
    if generations.last != 0 {
        after.active.insert(0, active(0, generations.last));
    }
    Ok(())
}

/// Numbers of views that are free.
pub(super) fn unused_views(before: &Tables) -> Unused {
    let views = before.views.keys().copied().chain(before.active.values().map(|word| active_view(*word)));
    Unused::new("versions of policies", (1, MAX_VIEWS), views)
}

/// Sets of host addresses that keep their number and not their content.
fn changed_sets(before: &Tables, after: &Tables) -> BTreeSet<u32> {
    let kept = |set: &u32| *set != 0 && before.set_labels.contains_key(set) && after.set_labels.contains_key(set);
    let differs = |set: &u32| {
        !before.hosts4_of(*set).eq(after.hosts4_of(*set)) || !before.hosts6_of(*set).eq(after.hosts6_of(*set))
    };
    after.set_labels.keys().copied().filter(kept).filter(differs).collect()
}

/// Generations of views. Each is given once, to one view of one policy: a port may go from policy to policy.
pub(super) struct Generations {
    /// The one that was given last.
    pub(super) last: u32,
    used: BTreeSet<u32>,
}

impl Generations {
    /// Those that follow on tables.
    pub(super) fn of(before: &Tables) -> Self {
        let used: BTreeSet<u32> = before.views.values().map(|view| view.generation).collect();
        let remembered = before.active.get(&0).map(|word| active_generation(*word));
        Self { last: remembered.or(used.last().copied()).unwrap_or(0), used }
    }

    /// One that no view has.
    pub(super) fn next(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.used.contains(&self.last) {
                return self.last;
            }
        }
    }
}

/// What holds for all ports. Ethertypes keep their places.
fn settings(input: &Input<'_>, before: &Settings) -> Result<Settings, TooLarge> {
    let permitted = &input.policy.permitted_ethertypes;
    let (ethertypes, more) =
        port::place(before.ethertypes, permitted.iter().copied().filter(|ethertype| *ethertype != 0).collect());
    if !more.is_empty() {
        let needed = permitted.len() as u64;
        return Err(TooLarge { what: "permitted ethertypes", needed, limit: MAX_ETHERTYPES as u64 });
    }
    Ok(Settings { abi: ABI_VERSION.into(), events_per_second: input.events_per_second, ethertypes })
}

/// Whether what was and what will be fit into the maps together.
fn check(before: &Tables, after: &Tables) -> Result<(), TooLarge> {
    fn union<K: Ord, V>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> usize {
        after.len() + before.keys().filter(|key| !after.contains_key(key)).count()
    }
    let needs = [
        ("grants", union(&before.grants, &after.grants), MAX_GRANTS),
        ("IPv4 members of remote groups", union(&before.remotes4, &after.remotes4), MAX_REMOTES),
        ("IPv6 members of remote groups", union(&before.remotes6, &after.remotes6), MAX_REMOTES),
        ("IPv4 prefixes", union(&before.prefixes4, &after.prefixes4), MAX_PREFIXES),
        ("IPv6 prefixes", union(&before.prefixes6, &after.prefixes6), MAX_PREFIXES),
        ("MAC addresses of ports", before.macs.union(&after.macs).count(), MAX_MACS),
        ("address pairs of ports", before.pairs.union(&after.pairs).count(), MAX_PAIRS),
    ];
    for (what, needed, limit) in needs {
        if needed > limit as usize {
            return Err(TooLarge { what, needed: needed as u64, limit: limit.into() });
        }
    }
    Ok(())
}
