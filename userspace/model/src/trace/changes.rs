//! What is different between two looks at one instance: its verdict, findings, hops, and what was counted. Flow: explain.

use std::collections::BTreeMap;

use super::{Direction, Finding, Hop, HopKind, HopState, RuleRef, Severity, Trace, Verdict};
use crate::{
    fact::{LinkStats, NeighbourFact, RuleBackend},
    id::NetnsId,
};

/// One thing that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The verdict, or the sentence that gives it.
    Verdict {
        /// Now.
        state: HopState,
        /// What it says now.
        sentence: String,
    },
    /// A finding that was not there.
    Found(Box<Finding>),
    /// A finding that is gone.
    Mended(Box<Finding>),
    /// A hop that was not there, is gone, or lets packets through otherwise than before.
    Hop {
        /// Which way.
        direction: Direction,
        /// Its name.
        name: String,
        /// Before; none where it was not there.
        before: Option<HopState>,
        /// Now; none where it is gone.
        after: Option<HopState>,
        /// The state now, in the kernel's or Open vSwitch's own words.
        status: String,
    },
    /// A device has counted.
    Counted {
        /// Its name.
        device: String,
        /// Namespace it lives in.
        netns: String,
        /// By how much.
        by: LinkStats,
    },
    /// A rule has counted packets.
    Hits {
        /// The rule.
        rule: Box<RuleRef>,
        /// How many more.
        packets: u64,
    },
    /// Counters that went back: the device or the rules are new.
    Restarted {
        /// Of what.
        object: String,
    },
}

impl Verdict {
    /// The state of a path of which this is said.
    pub const fn state(self) -> HopState {
        match self {
            Self::Works => HopState::Ok,
            Self::Inconclusive => HopState::Unknown,
            Self::Broken => HopState::Broken,
        }
    }
}

impl Change {
    /// How it looks: bad, doubtful, good.
    pub fn state(&self) -> HopState {
        match self {
            Self::Verdict { state, .. } => *state,
            Self::Found(finding) => match finding.severity {
                Severity::Error => HopState::Broken,
                Severity::Warning => HopState::Warning,
                Severity::Info => HopState::Unknown,
            },
            Self::Mended(_) | Self::Hits { .. } => HopState::Ok,
            Self::Hop { after, .. } => after.unwrap_or(HopState::Unknown),
            Self::Counted { by, .. } => {
                let bad = by.rx_dropped + by.rx_errors + by.tx_dropped + by.tx_errors;
                if bad > 0 { HopState::Warning } else { HopState::Ok }
            }
            Self::Restarted { .. } => HopState::Unknown,
        }
    }

    /// A word for scripts.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Verdict { .. } => "verdict",
            Self::Found(_) => "found",
            Self::Mended(_) => "mended",
            Self::Hop { .. } => "hop",
            Self::Counted { .. } => "counted",
            Self::Hits { .. } => "hits",
            Self::Restarted { .. } => "restarted",
        }
    }
}

/// Everything a first look says: its verdict and findings.
pub fn first(trace: &Trace) -> Vec<Change> {
    let verdict = Change::Verdict { state: trace.verdict.state(), sentence: trace.sentence.clone() };
    let findings = trace.findings.iter().map(|finding| Change::Found(Box::new(finding.clone())));
    std::iter::once(verdict).chain(findings).collect()
}

/// What is different: the verdict first, then findings, hops, counters.
pub fn changes(before: &Trace, after: &Trace) -> Vec<Change> {
    let mut found = Vec::new();
    if (before.verdict, &before.sentence) != (after.verdict, &after.sentence) {
        found.push(Change::Verdict { state: after.verdict.state(), sentence: after.sentence.clone() });
    }
    let is_new = |finding: &&Finding, others: &Trace| !others.findings.iter().any(|other| is_same(finding, other));
    let new = after.findings.iter().filter(|finding| is_new(finding, before));
    found.extend(new.map(|finding| Change::Found(Box::new(finding.clone()))));
    let gone = before.findings.iter().filter(|finding| is_new(finding, after));
    found.extend(gone.map(|finding| Change::Mended(Box::new(finding.clone()))));
    found.extend(hops(before, after));
    found.extend(devices(before, after));
    found.extend(rules(before, after));
    found
}

/// Findings are the same if they say the same of the same thing; numbers in their words may grow.
fn is_same(one: &Finding, other: &Finding) -> bool {
    (one.severity, &one.code, &one.object) == (other.severity, &other.code, &other.object)
}

fn all(trace: &Trace) -> impl Iterator<Item = (usize, &Hop)> {
    let interfaces = trace.interfaces.iter().enumerate();
    interfaces.flat_map(|(number, interface)| interface.hops.iter().map(move |hop| (number, hop)))
}

/// What a hop is known by when other hops come and go before it.
type Key = (usize, Direction, HopKind, String, Option<NetnsId>, usize);

/// Hops by what they are; of several alike the first, the second and so on.
fn keyed(trace: &Trace) -> BTreeMap<Key, &Hop> {
    let mut found = BTreeMap::new();
    for (interface, hop) in all(trace) {
        let netns = hop.netns.as_ref().map(|netns| netns.id);
        let key = |place| (interface, hop.direction, hop.kind, hop.name.clone(), netns, place);
        // There are no more alike than there are hops.
        let place = (0..found.len()).find(|place| !found.contains_key(&key(*place))).unwrap_or(found.len());
        found.insert(key(place), hop);
    }
    found
}

fn hops(before: &Trace, after: &Trace) -> Vec<Change> {
    let (old, new) = (keyed(before), keyed(after));
    let change = |hop: &Hop, before, after| Change::Hop {
        direction: hop.direction,
        name: hop.name.clone(),
        before,
        after,
        status: hop.status.clone(),
    };
    let mut found = Vec::new();
    for (key, hop) in &new {
        let was = old.get(key);
        if was.is_none_or(|was| is_other(was, hop)) {
            found.push(change(hop, was.map(|was| was.state), Some(hop.state)));
        }
    }
    let gone = old.iter().filter(|(key, _)| !new.contains_key(key));
    found.extend(gone.map(|(_, hop)| change(hop, Some(hop.state), None)));
    found
}

/// Whether a hop is otherwise than before. A neighbour that is asked again now and then is no news while it is known.
fn is_other(was: &Hop, hop: &Hop) -> bool {
    let known = |hop: &Hop| hop.kind == HopKind::NextHop && NeighbourFact::is_usable_state(&hop.status);
    was.state != hop.state || (was.status != hop.status && !(known(was) && known(hop)))
}

/// Devices that have counters, each once though both ways pass it.
fn counting(trace: &Trace) -> BTreeMap<(Option<NetnsId>, &str), (&Hop, &LinkStats)> {
    let counting = all(trace).filter_map(|(_, hop)| Some((hop, hop.counters.as_ref()?)));
    counting
        .map(|(hop, counters)| ((hop.netns.as_ref().map(|netns| netns.id), hop.name.as_str()), (hop, counters)))
        .collect()
}

fn devices(before: &Trace, after: &Trace) -> Vec<Change> {
    let old = counting(before);
    let both = counting(after).into_iter().filter_map(|(key, new)| Some((new, *old.get(&key)?)));
    let changed = both.filter(|((_, new), (_, old))| new != old);
    changed
        .map(|((hop, new), (_, old))| match grown(old, new) {
            Some(by) => {
                let netns = hop.netns.as_ref().map_or_else(String::new, |netns| netns.label.clone());
                Change::Counted { device: hop.name.clone(), netns, by }
            }
            None => Change::Restarted { object: hop.name.clone() },
        })
        .collect()
}

/// By how much counters have grown; none where one went back.
fn grown(old: &LinkStats, new: &LinkStats) -> Option<LinkStats> {
    Some(LinkStats {
        rx_packets: new.rx_packets.checked_sub(old.rx_packets)?,
        rx_bytes: new.rx_bytes.checked_sub(old.rx_bytes)?,
        rx_dropped: new.rx_dropped.checked_sub(old.rx_dropped)?,
        rx_errors: new.rx_errors.checked_sub(old.rx_errors)?,
        tx_packets: new.tx_packets.checked_sub(old.tx_packets)?,
        tx_bytes: new.tx_bytes.checked_sub(old.tx_bytes)?,
        tx_dropped: new.tx_dropped.checked_sub(old.tx_dropped)?,
        tx_errors: new.tx_errors.checked_sub(old.tx_errors)?,
    })
}

/// Identity of a rule: a rule that moves in its chain is still that rule.
type RuleKey<'t> = (RuleBackend, NetnsId, &'t str, &'t str, &'t str);

/// Rules by what they are; of several alike the first, which is the one that counts.
fn known(trace: &Trace) -> BTreeMap<RuleKey<'_>, &RuleRef> {
    let mut found: BTreeMap<RuleKey<'_>, &RuleRef> = BTreeMap::new();
    for rule in all(trace).flat_map(|(_, hop)| &hop.rules) {
        let key = (rule.backend, rule.netns.id, rule.table.as_str(), rule.chain.as_str(), rule.rule.as_str());
        let first = found.entry(key).or_insert(rule);
        if rule.number < first.number {
            *first = rule;
        }
    }
    found
}

fn rules(before: &Trace, after: &Trace) -> Vec<Change> {
    let old = known(before);
    let both = known(after).into_iter().filter_map(|(key, new)| Some((new, *old.get(&key)?)));
    let changed = both.filter(|(new, old)| new.counters.packets != old.counters.packets);
    changed
        .map(|(new, old)| match new.counters.packets.checked_sub(old.counters.packets) {
            Some(packets) => Change::Hits { rule: Box::new(new.clone()), packets },
            None => Change::Restarted { object: new.rule.clone() },
        })
        .collect()
}

#[cfg(test)]
mod tests;
