//! Routers that are made anew, which have forgotten their flows. Flow: policy.
//!
//! The flows are still in netdiag's maps. What is kept here is which of them were whose: the ends of floating IPs by name of the
//! router, and which namespace it was. So the next namespace of that name is told of the flows as soon as it is there, before it has a rule
//! or a device, and translates what comes to it as it always was.
//!
//! ```text
//! a look: plan --seen--> kept, and in a file for the next start; or dropped, as what was told turns out to be wrong
//! a namespace of a name that is kept, and not the one that is known --recall--> told
//! ```
//!
//! It is a bet that the new router has the floating IPs of the old one, as its rules cannot be asked before they are there. A look decides
//! it: where somebody else has one, or the router has others and not that one, or none at all for a minute, its connections are
//! taken back. Until then a flow of before goes on to the instance whose it was, and no other, past that one's security groups.
//!
//! A router that is gone is kept as long as the maps have a flow of it, and a fixed address of a port is kept for the last one that
//! had it: so there are never more than fixed addresses of ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use netdiag_common::abi::flow::FlowKey4;
use netdiag_model::{
    floating::{Plan, tables::Places},
    id::NetnsId,
    inventory::{Inventory, Role},
};
use serde::{Deserialize, Serialize};

use super::{handover, held::HOST};
use crate::{
    conntrack::Entry,
    discover::{chain, routers},
    enforce::{Enforcer, Tracked},
    netns::Namespace,
    policy_source::stored,
};

/// Where it is kept.
const FILE: &str = "routers.json";
/// Seconds that a router may have no floating IP at all after it was told of flows.
const PATIENCE: u64 = 60;

/// Whose floating IPs are looked at, and on which namespace.
pub(super) type Present = BTreeMap<String, NetnsId>;

/// Both addresses of a floating IP, and where its port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Ends {
    /// The address the outside knows.
    pub(super) floating: Ipv4Addr,
    /// The address it stands for.
    pub(super) fixed: Ipv4Addr,
    /// Place of the port.
    pub(super) slot: u32,
    /// Epoch of the place.
    pub(super) epoch: u32,
}

impl Ends {
    /// The inner one.
    pub(super) const fn inner(&self) -> Inner {
        (self.slot, self.epoch, self.fixed)
    }

    /// True where a connection is translated between these ends.
    fn translates(&self, Entry { original, reply, .. }: &Entry) -> bool {
        (original.source, reply.destination) == (self.fixed, self.floating)
            || (original.destination, reply.source) == (self.floating, self.fixed)
    }

    /// True where both cannot be.
    fn excludes(&self, other: &Self) -> bool {
        self.floating == other.floating || (self.slot, self.fixed) == (other.slot, other.fixed)
    }
}

/// Place, epoch and fixed address of a port.
pub(super) type Inner = (u32, u32, Ipv4Addr);

/// The inner end of a flow.
pub(super) fn inner(Tracked { key, flow, .. }: &Tracked<FlowKey4>) -> Inner {
    (key.slot.into(), flow.epoch, Ipv4Addr::from(key.local.to_ne_bytes()))
}

/// A router, and what it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Router {
    netns: NetnsId,
    /// When it was told of flows it has not seen, in seconds since 1970; none once a look has seen that it has their floating IPs.
    told: Option<u64>,
    ends: BTreeSet<Ends>,
    /// The last look did not find it.
    #[serde(skip)]
    gone: bool,
}

/// What is kept for the next start. Namespaces and flows mean nothing after a boot.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    boot: String,
    routers: BTreeMap<String, Router>,
}

/// Routers by name, as they were last.
#[derive(Debug)]
pub(super) struct Anew {
    file: PathBuf,
    kept: Kept,
    /// What the file has differs.
    differs: bool,
}

/// Flows that a router was told of and that are not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    router: String,
    netns: NetnsId,
    ends: Vec<Ends>,
}

impl Anew {
    /// What was kept during this boot.
    pub(super) fn open(state: &Path, boot: &str) -> Self {
        let file = state.join(FILE);
        // What cannot be read is learned again by the next look; until then nobody is told.
        let kept: Kept = stored::read(&file).unwrap_or_default();
        let kept = if kept.boot == boot { kept } else { Kept { boot: boot.to_owned(), ..Kept::default() } };
        Self { file, kept, differs: false }
    }

    /// Keeps what has changed for the next start.
    pub(super) fn keep(&mut self) -> Result<(), String> {
        if self.differs {
            let written = stored::write(&self.file, &self.kept);
            written.map_err(|error| format!("{}: cannot be written: {error}", self.file.display()))?;
            self.differs = false;
        }
        Ok(())
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.retain(|_, _| false);
    }

    /// Forgets ports that are not at their places any more.
    pub(super) fn narrow(&mut self, there: impl Fn(u32, u32) -> bool) {
        self.retain(|_, ends| there(ends.slot, ends.epoch));
    }

    fn retain(&mut self, stays: impl Fn(&Router, &Ends) -> bool) {
        let size = |kept: &Kept| kept.routers.values().map(|router| router.ends.len()).sum::<usize>();
        let before = size(&self.kept);
        self.kept.routers.retain(|_, router| {
            let all = std::mem::take(&mut router.ends);
            router.ends = all.into_iter().filter(|ends| stays(router, ends)).collect();
            !router.ends.is_empty()
        });
        self.differs |= size(&self.kept) != before;
    }

    /// Routers that look other than they are known.
    pub(super) fn strangers(&self, present: &Present) -> Vec<String> {
        let strange = |(name, router): (&String, &Router)| {
            present.get(name).is_some_and(|netns| *netns != router.netns).then(|| name.clone())
        };
        self.kept.routers.iter().filter_map(strange).collect()
    }

    /// Tells the router of a name of its flows, if it is not the one that is known.
    pub(super) fn recall(&mut self, enforcer: &Enforcer, name: &str, netns: &[PathBuf]) -> Result<(), String> {
        let Some(router) = self.kept.routers.get_mut(name) else { return Ok(()) };
        // One that has gone again is told when it comes again.
        let Some(path) = routers::path(netns, name) else { return Ok(()) };
        let namespace = Namespace::open(&path).map_err(|error| chain(&error))?;
        if namespace.id == router.netns {
            return Ok(());
        }
        (router.netns, router.told, router.gone) = (namespace.id, Some(now()), false);
        let told = handover::recall(enforcer, &namespace, &router.ends);
        self.differs = true;
        told.and(self.keep())
    }

    /// Floating IPs of routers that were told of flows and do not have them yet.
    pub(super) fn awaited(&self) -> impl Iterator<Item = ((Ipv4Addr, Ipv4Addr), &str)> {
        let told = self.kept.routers.iter().filter(|(_, router)| router.told.is_some());
        told.flat_map(|(name, router)| router.ends.iter().map(move |ends| ((ends.floating, ends.fixed), name.as_str())))
    }

    /// Takes what a look has seen: what routers have now, and what those that were told of flows do not have.
    pub(super) fn seen(&mut self, plan: &Plan, places: &Places, present: &Present) -> Vec<Wrong> {
        self.seen_at(now(), plan, places, present)
    }

    fn seen_at(&mut self, now: u64, plan: &Plan, places: &Places, present: &Present) -> Vec<Wrong> {
        let planned = Planned::of(plan);
        let mut wrong = Vec::new();
        for (name, router) in &mut self.kept.routers {
            let seen = present.get(name);
            router.gone = seen.is_none();
            if seen.is_some_and(|netns| *netns != router.netns) {
                // The look is of another one than is there by now.
                continue;
            }
            let patient = router.told.is_some_and(|told| now.saturating_sub(told) < PATIENCE);
            let before = router.ends.len();
            let fate = |ends: &Ends| planned.fate(name, ends, seen.is_some(), patient);
            let dropped: Vec<_> = router.ends.iter().filter(|ends| fate(ends) == Fate::Wrong).copied().collect();
            let settled = seen.is_some() && router.ends.iter().all(|ends| fate(ends) != Fate::Waits);
            router.ends.retain(|ends| fate(ends) != Fate::Wrong);
            self.differs |= router.ends.len() != before || settled && router.told.is_some();
            if router.told.is_some() && seen.is_some() && !dropped.is_empty() {
                wrong.push(Wrong { router: name.clone(), netns: router.netns, ends: dropped });
            }
            if settled {
                router.told = None;
            }
        }
        self.learn(plan, places, present);
        self.kept.routers.retain(|_, router| !router.ends.is_empty());
        wrong
    }

    /// Keeps what goes past routers now.
    fn learn(&mut self, plan: &Plan, places: &Places, present: &Present) {
        for address in plan.floating_ips.iter().filter(|address| address.router != HOST) {
            let Some((path, fixed)) = address.fast().zip(address.fixed_ip_address) else { continue };
            let Some(&(slot, epoch)) = places.get(&path.port_ifindex) else { continue };
            let Some(&netns) = present.get(&address.router) else { continue };
            let ends = Ends { floating: address.floating_ip_address, fixed, slot, epoch };
            if self.kept.routers.get(&address.router).is_some_and(|router| router.ends.contains(&ends)) {
                continue;
            }
            self.differs = true;
            for router in self.kept.routers.values_mut() {
                router.ends.retain(|other| !ends.excludes(other));
            }
            let new = || Router { netns, told: None, ends: BTreeSet::new(), gone: false };
            self.kept.routers.entry(address.router.clone()).or_insert_with(new).ends.insert(ends);
        }
    }

    /// Forgets routers that are gone, with those of their floating IPs that have no flow any more.
    pub(super) fn sweep(&mut self, enforcer: &Enforcer) {
        if !self.kept.routers.values().any(|router| router.gone) {
            return;
        }
        // Flows that cannot be read now are read the next time.
        let Ok(flows) = enforcer.flows() else { return };
        let live = flows.ipv4.iter().filter(|tracked| handover::is_past_a_router(&tracked.flow));
        let live: BTreeSet<Inner> = live.map(inner).collect();
        self.retain(|router, ends| !router.gone || live.contains(&ends.inner()));
    }
}

/// What becomes of ends that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The router has them, or is gone.
    Stays,
    /// The router may not have its rules yet.
    Waits,
    /// They are somebody else's, or nobody's.
    Wrong,
}

/// Floating IPs of a plan.
struct Planned<'p> {
    fixed: BTreeMap<Ipv4Addr, Vec<(&'p str, Option<Ipv4Addr>)>>,
    routers: BTreeSet<&'p str>,
}

impl<'p> Planned<'p> {
    fn of(plan: &'p Plan) -> Self {
        let mut fixed: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for address in &plan.floating_ips {
            let whose = (address.router.as_str(), address.fixed_ip_address);
            fixed.entry(address.floating_ip_address).or_default().push(whose);
        }
        Self { fixed, routers: plan.floating_ips.iter().map(|address| address.router.as_str()).collect() }
    }

    fn fate(&self, router: &str, ends: &Ends, present: bool, patient: bool) -> Fate {
        let owners = self.fixed.get(&ends.floating).map_or(&[][..], Vec::as_slice);
        match (owners, present) {
            (owners, _) if owners.contains(&(router, Some(ends.fixed))) => Fate::Stays,
            ([], false) => Fate::Stays,
            ([], true) if patient && !self.routers.contains(router) => Fate::Waits,
            _ => Fate::Wrong,
        }
    }
}

/// Ends connections that routers were told of and that are not theirs; of which routers that failed, and why.
pub(super) fn take_back(wrong: Vec<Wrong>, netns: &[PathBuf]) -> Vec<(String, String)> {
    let failed = |Wrong { router, netns: id, ends }: Wrong| {
        let of_it = move |entry: &Entry| ends.iter().any(|ends| ends.translates(entry));
        let taken = handover::take_back(&router, id, of_it, netns);
        taken.err().map(|why| (router, why))
    };
    wrong.into_iter().filter_map(failed).collect()
}

/// Namespaces of routers that a look has found.
pub(super) fn present(inventory: &Inventory<'_>) -> Present {
    let routers = inventory.roles().filter(|(_, role)| matches!(role, Role::Router(_) | Role::Snat(_)));
    routers.map(|(netns, _)| (inventory.netns(netns).label, netns)).collect()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
