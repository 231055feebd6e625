//! Packets as they are watched, in the words the tab Live shows.

use netdiag_model::{
    live::{
        Sighting,
        drops::Dropped,
        journey::{Change, Ended, Step},
        points::{Points, Stop},
        report::Told,
        words,
    },
    trace::Direction,
};

use super::sheet::Health;
use crate::{
    json,
    json_schema::{DropDocument, PacketDocument},
    pcapng,
    text::live::Epoch,
};

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When, in nanoseconds since 1970-01-01 UTC.
    pub(crate) time_ns: u64,
    /// Whose.
    pub(crate) instance: Option<String>,
    /// Which way, as the instance sees it; empty where that is not known.
    pub(crate) way: &'static str,
    /// How it ended.
    pub(crate) health: Health,
    /// The word for it.
    pub(crate) end: &'static str,
    /// The packet.
    pub(crate) what: String,
    /// Where it was seen last.
    pub(crate) place: String,
    /// Why it ended there; empty where it arrived.
    pub(crate) reason: String,
    /// The whole in one sentence; empty where there is nothing to say.
    pub(crate) sentence: String,
    /// Bytes; 0 where that is not known.
    pub(crate) length: u32,
    /// Where it was seen, and what became of it there.
    pub(crate) steps: Vec<(String, String)>,
    /// The same as the commands print it in JSON.
    pub(crate) document: String,
    /// Its bytes at each device, for a capture file.
    pub(crate) frames: Vec<Frame>,
}

/// A packet at one device, as it stands in a capture file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What was seen; its time is since 1970-01-01 UTC.
    pub(crate) sighting: Sighting,
    /// The device.
    pub(crate) name: String,
    /// Whose it is, at which hop, and what became of it.
    pub(crate) comment: String,
}

impl Packet {
    /// A packet of an instance, on its way.
    pub fn of_journey(told: &Told, points: &Points, epoch: Epoch, sightings: Vec<Sighting>) -> Self {
        let Told { journey, blame } = told;
        let last = journey.steps.last();
        let place = blame.as_ref().map(|blame| blame.place.clone());
        let seen = || last.and_then(|step| points.stop(step.place)).map(Stop::label);
        let reason = blame.as_ref().and_then(|blame| blame.guilty.clone().or_else(|| blame.reason.clone()));
        Self {
            time_ns: epoch.at(journey.began_ns()),
            instance: Some(points.instance.clone()),
            way: if journey.direction == Direction::Inward { "in" } else { "out" },
            health: journey.ended.state().into(),
            end: end(&journey.ended),
            what: words::packet(&journey.packet),
            place: place.or_else(seen).unwrap_or_default(),
            reason: reason.unwrap_or_default(),
            sentence: blame.as_ref().map(|blame| blame.sentence.clone()).unwrap_or_default(),
            length: journey.steps.first().map_or(0, |step| step.length),
            steps: steps(&journey.steps, points),
            document: document(&PacketDocument::of(told, points, epoch)),
            frames: frames(told, points, epoch, sightings),
        }
    }

    /// A packet that was given up somewhere on the host.
    pub fn of_drop(dropped: &Dropped, epoch: Epoch, sighting: Sighting) -> Self {
        let whose = dropped.instance.as_deref().map_or_else(String::new, |name| format!("instance {name}: "));
        let comment = format!("{whose}given up, reason {}", dropped.reason);
        let sighting = Sighting { time_ns: epoch.at(sighting.time_ns), ..sighting };
        Self {
            time_ns: epoch.at(dropped.time_ns),
            instance: dropped.instance.clone(),
            way: "",
            health: Health::Broken,
            end: "DROPPED",
            what: dropped.packet.clone(),
            place: dropped.place.clone(),
            reason: dropped.reason.clone(),
            sentence: dropped.because.map(str::to_owned).unwrap_or_default(),
            length: 0,
            steps: dropped.location.iter().map(|at| ("given up by".to_owned(), at.clone())).collect(),
            document: document(&DropDocument::of(dropped, epoch)),
            frames: vec![Frame { sighting, name: dropped.place.clone(), comment }],
        }
    }
}

/// A packet's words in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends<'p> {
    /// What it is.
    pub(crate) protocol: &'p str,
    /// Where it comes from; empty where its words do not say so.
    pub(crate) from: &'p str,
    /// Where it goes, and the rest of what is said of it.
    pub(crate) to: &'p str,
}

impl Packet {
    /// Its words in parts: `tcp`, `10.0.0.2:50312`, `192.0.2.1:53 SYN`.
    pub(crate) fn ends(&self) -> Ends<'_> {
        let split = || {
            let (protocol, rest) = self.what.split_once(' ')?;
            let (from, to) = rest.split_once(" > ").filter(|(from, _)| !from.contains(' '))?;
            Some(Ends { protocol, from, to })
        };
        split().unwrap_or(Ends { protocol: "", from: "", to: &self.what })
    }
}

/// The word for an end.
const fn end(ended: &Ended) -> &'static str {
    match ended {
        Ended::Delivered => "delivered",
        Ended::Aside => "aside",
        Ended::Dropped { .. } => "DROPPED",
        Ended::NotSeenAfter => "VANISHED",
        Ended::Inconclusive => "unclear",
    }
}

/// A packet at each device, with what became of it in the end.
fn frames(told: &Told, points: &Points, epoch: Epoch, sightings: Vec<Sighting>) -> Vec<Frame> {
    let why = told.blame.as_ref().map(|blame| format!(": {}", blame.sentence)).unwrap_or_default();
    let became = format!("{}{why}", end(&told.journey.ended));
    let frame = |sighting: Sighting| {
        let (name, said) = pcapng::at(&sighting, points);
        let comment = format!("{said}; packet {} {became}", told.journey.number);
        Frame { sighting: Sighting { time_ns: epoch.at(sighting.time_ns), ..sighting }, name, comment }
    };
    sightings.into_iter().map(frame).collect()
}

/// Each device with the time since the one before and what became of the packet.
fn steps(all: &[Step], points: &Points) -> Vec<(String, String)> {
    let mut before: Option<u64> = None;
    let mut steps = Vec::new();
    for step in all {
        let device = points.stop(step.place).map_or_else(|| "?".to_owned(), Stop::label);
        let since = before.map_or_else(
            || "seen first".to_owned(),
            |before| format!("{} us later", step.time_ns.saturating_sub(before) / 1000),
        );
        let changes: Vec<String> = step.changes.iter().map(change).collect();
        let changes = if changes.is_empty() { String::new() } else { format!("; {}", changes.join("; ")) };
        steps.push(("at".to_owned(), format!("{device}, {since}{changes}")));
        before = Some(step.time_ns);
    }
    steps
}

fn change(change: &Change) -> String {
    match change {
        Change::Source { from, to } => format!("source {from} becomes {to}"),
        Change::Destination { from, to } => format!("destination {from} becomes {to}"),
        Change::Vlans { from, to } => format!("VLAN {from:?} becomes {to:?}"),
        Change::Encapsulated { vni } => format!("into a tunnel, VNI {vni}"),
        Change::Decapsulated => "out of its tunnel".to_owned(),
    }
}

fn document(document: &impl serde::Serialize) -> String {
    let mut out = Vec::new();
    // Nothing that is written to memory fails, and what is not text would be no JSON.
    drop(json::write(document, &mut out));
    String::from_utf8(out).unwrap_or_default()
}
