//! Which services the rules of a side tell apart. Flow: policy.
//!
//! A service class stands for the rules that know a service, reduced to what can make a difference: of the rules with the
//! same remote the first, and of those the one for every remote alone if there is one. Classes are numbered as they are first
//! met, by protocol and port, so the numbers say nothing of the rules' identity, and sides with rules of the same
//! shape share their tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use netdiag_common::abi::policy::{CLASS_ANY, CLASS_HOSTS, CLASS_PREFIXES, CLASS_SHIFT, Class, MAX_GRANTS, PAGE, Page};

use super::{TooLarge, rules::SideRules};
use crate::policy::types::{Remote, Service};

/// The rules of a service class: remotes by number, each with the first rule that has it.
pub(super) type Selectors = Vec<(u32, u32)>;

/// The services of a side.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// What holds for whole protocols.
    pub(super) whole: BTreeMap<u8, Class>,
    /// Classes of single services, by protocol and upper octet.
    pub(super) leaves: BTreeMap<u8, BTreeMap<u8, Page>>,
    /// Rules of the classes: class 1 is the first.
    pub(super) classes: Vec<Selectors>,
}

/// Sorts the services of a side into classes. `prefixed`: remotes by number that have prefixes.
pub(super) fn classify(rules: &SideRules<'_>, prefixed: &[bool]) -> Result<Services, TooLarge> {
    let mut classes = Classes { rules, prefixed, numbers: HashMap::new(), room: 4 * u64::from(MAX_GRANTS) };
    let mut services = Services::default();
    let mut by_protocol: BTreeMap<u8, Vec<(u16, u16, u32)>> = BTreeMap::new();
    let (mut every, mut whole) = (Vec::new(), BTreeMap::<u8, Vec<u32>>::new());
    for (place, rule) in (0..).zip(&rules.rules) {
        match rule.service {
            Service::Any => every.push(place),
            Service::Protocol(protocol) => whole.entry(protocol).or_default().push(place),
            Service::Ports { protocol, first, last } => {
                by_protocol.entry(protocol).or_default().push((first, last, place));
            }
            Service::Icmp { protocol, kind, code } => {
                let (first, last) = (code.unwrap_or(0), code.unwrap_or(u8::MAX));
                let service = |code| u16::from_be_bytes([kind, code]);
                by_protocol.entry(protocol).or_default().push((service(first), service(last), place));
            }
        }
    }
    let mut of_every = None;
    for protocol in 0..=u8::MAX {
        let own = whole.get(&protocol);
        let class = match of_every {
            Some(class) if own.is_none() => class,
            _ => {
                let mut active = Active::default();
                every
                    .iter()
                    .chain(own.into_iter().flatten())
                    .for_each(|place| active.add(rules.remote_of(*place), *place));
                classes.of(&active)?
            }
        };
        if own.is_none() {
            of_every = Some(class);
        }
        if class != 0 {
            services.whole.insert(protocol, class);
        }
        if let Some(ranges) = by_protocol.get(&protocol) {
            services.leaves.insert(protocol, sweep(rules, ranges, &mut classes)?);
        }
    }
    services.classes = classes.in_order();
    Ok(services)
}

/// Goes through the services of a protocol, and notes the class of each.
fn sweep(
    rules: &SideRules<'_>,
    ranges: &[(u16, u16, u32)],
    classes: &mut Classes<'_>,
) -> Result<BTreeMap<u8, Page>, TooLarge> {
    // Changes by place, beyond the last service too.
    let mut changes: BTreeMap<u32, Vec<(bool, u32)>> = BTreeMap::new();
    for (first, last, place) in ranges {
        changes.entry(u32::from(*first)).or_default().push((true, *place));
        changes.entry(u32::from(*last) + 1).or_default().push((false, *place));
    }
    let ends: Vec<u32> = changes.keys().skip(1).copied().collect();
    let (mut active, mut pages) = (Active::default(), BTreeMap::new());
    for ((first, changed), end) in changes.into_iter().zip(ends) {
        for (begins, place) in changed {
            let remote = rules.remote_of(place);
            if begins { active.add(remote, place) } else { active.remove(remote, place) }
        }
        let class = classes.of(&active)?;
        if class != 0 {
            fill(&mut pages, first, end, class);
        }
    }
    Ok(pages)
}

/// Writes the class of the services from `first` on and below `end`.
fn fill(pages: &mut BTreeMap<u8, Page>, first: u32, end: u32, class: Class) {
    for upper in 0..=u8::MAX {
        let start = u32::from(upper) << 8;
        let (from, to) = (first.max(start), end.min(start + 256));
        if from < to {
            let page = pages.entry(upper).or_default();
            let place = |service: u32| usize::try_from(service - start).unwrap_or(PAGE);
            page.0[place(from)..place(to)].fill(class);
        }
    }
}

/// The rules that know a service, by remote.
#[derive(Default)]
struct Active(BTreeMap<u32, BTreeSet<u32>>);

impl Active {
    fn add(&mut self, remote: u32, place: u32) {
        self.0.entry(remote).or_default().insert(place);
    }

    fn remove(&mut self, remote: u32, place: u32) {
        let Some(places) = self.0.get_mut(&remote) else { return };
        places.remove(&place);
        if places.is_empty() {
            self.0.remove(&remote);
        }
    }
}

/// Classes as they are met.
struct Classes<'a> {
    rules: &'a SideRules<'a>,
    prefixed: &'a [bool],
    numbers: HashMap<Selectors, u32>,
    /// How many selectors may still be noted: each leads to a grant or more, but for groups without members.
    room: u64,
}

impl Classes<'_> {
    /// The class of rules, with its flags.
    fn of(&mut self, active: &Active) -> Result<Class, TooLarge> {
        let first = |(remote, places): (&u32, &BTreeSet<u32>)| places.first().map(|place| (*remote, *place));
        let is_any = |remote: &u32| matches!(self.rules.remote(*remote), Remote::Any);
        let any = active.0.iter().find(|(remote, _)| is_any(remote)).and_then(first);
        let selectors: Selectors = match any {
            Some(any) => vec![any],
            None => active.0.iter().filter_map(first).collect(),
        };
        if selectors.is_empty() {
            return Ok(0);
        }
        let flags = selectors.iter().fold(0, |flags, (remote, _)| flags | self.flags(*remote));
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX) + 1;
        if let Some(number) = self.numbers.get(&selectors) {
            return Ok(number << CLASS_SHIFT | flags);
        }
        let limit = 4 * u64::from(MAX_GRANTS);
        let length = selectors.len() as u64;
        let too_large = TooLarge { what: "grants", needed: limit - self.room + length, limit: MAX_GRANTS.into() };
        self.room = self.room.checked_sub(length).ok_or(too_large)?;
        self.numbers.insert(selectors, next);
        Ok(next << CLASS_SHIFT | flags)
    }

    fn flags(&self, remote: u32) -> Class {
        let has_prefixes = self.prefixed.get(remote as usize).copied().unwrap_or(false);
        let prefixes = if has_prefixes { CLASS_PREFIXES } else { 0 };
        match self.rules.remote(remote) {
            Remote::Any => CLASS_ANY,
            Remote::Group(_) => CLASS_HOSTS | prefixes,
            Remote::Prefix(_) | Remote::AddressGroup(_) => prefixes,
        }
    }

    fn in_order(self) -> Vec<Selectors> {
        let mut classes: Vec<_> = self.numbers.into_iter().collect();
        classes.sort_unstable_by_key(|(_, number)| *number);
        classes.into_iter().map(|(selectors, _)| selectors).collect()
    }
}
