//! One line of `netdiag watch -o jsonl`.

use netdiag_model::trace::changes::Change;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Counters, Direction, FindingDocument, Published, RuleDocument, SCHEMA_VERSION, State};
use crate::time;

/// A change with its time and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// When it was noticed, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The instance.
    pub instance: String,
    /// What is different.
    pub change: Change,
}

/// One thing that is different from the look before; the first look gives its verdict and findings.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag watch, one line")]
pub struct WatchLine {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// When it was noticed, RFC 3339 in UTC; null where the clock gave no instant.
    pub time: Option<String>,
    /// The instance.
    pub instance: String,
    /// What kind of change: `verdict`, `found`, `mended`, `hop`, `counted`, `hits`, `restarted`.
    pub change: String,
    /// How it looks.
    pub state: State,
    /// What it is about: a device, a hop, a rule; null for the verdict.
    pub object: Option<String>,
    /// Namespace of the device; null where the change has none.
    pub netns: Option<String>,
    /// Which way the hop is passed; null for everything but hops.
    pub direction: Option<Direction>,
    /// State of the hop before; null where it was not there, and for everything but hops.
    pub before: Option<State>,
    /// State of the hop now; null where it is gone, and for everything but hops.
    pub after: Option<State>,
    /// The sentence of the verdict, or the status of the hop; null for everything else.
    pub says: Option<String>,
    /// The finding that is new or gone; null for everything else.
    pub finding: Option<FindingDocument>,
    /// By how much the counters of the device have grown; null for everything else.
    pub counters: Option<Counters>,
    /// The rule that has counted; null for everything else.
    pub rule: Option<RuleDocument>,
    /// How many packets the rule has counted; null for everything else.
    pub packets: Option<u64>,
}

impl Published for Watched {
    type Document = WatchLine;

    fn document(&self) -> WatchLine {
        let bare = WatchLine {
            schema_version: SCHEMA_VERSION,
            time: time::rfc3339_exact(self.time_ns),
            instance: self.instance.clone(),
            change: self.change.name().to_owned(),
            state: self.change.state().into(),
            object: None,
            netns: None,
            direction: None,
            before: None,
            after: None,
            says: None,
            finding: None,
            counters: None,
            rule: None,
            packets: None,
        };
        fill(bare, &self.change)
    }
}

fn fill(bare: WatchLine, change: &Change) -> WatchLine {
    match change {
        Change::Verdict { sentence, .. } => WatchLine { says: Some(sentence.clone()), ..bare },
        Change::Found(finding) | Change::Mended(finding) => {
            WatchLine { object: Some(finding.object.clone()), finding: Some(finding.as_ref().into()), ..bare }
        }
        Change::Hop { direction, name, before, after, status } => WatchLine {
            object: Some(name.clone()),
            direction: Some((*direction).into()),
            before: before.map(Into::into),
            after: after.map(Into::into),
            says: Some(status.clone()),
            ..bare
        },
        Change::Counted { device, netns, by } => {
            WatchLine { object: Some(device.clone()), netns: Some(netns.clone()), counters: Some(by.into()), ..bare }
        }
        Change::Hits { rule, packets } => WatchLine {
            object: Some(rule.chain.clone()),
            netns: Some(rule.netns.label.clone()),
            rule: Some(rule.as_ref().into()),
            packets: Some(*packets),
            ..bare
        },
        Change::Restarted { object } => WatchLine { object: Some(object.clone()), ..bare },
    }
}
