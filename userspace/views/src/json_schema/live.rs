//! What `netdiag trace --live` and `netdiag drops` write: as lines (`-o jsonl`), and as one document (`-o json`).

use netdiag_model::{
    live::{
        blame, drops,
        journey::{self, Ended},
        points::{self, Points},
        report::{self, Told},
        words,
    },
    trace,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Direction, FindingDocument, GapDocument, Published, RuleDocument, SCHEMA_VERSION, State, Verdict, published,
};
use crate::{text::live::Epoch, time};

/// One line.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag trace --live, one line")]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum LiveLine {
    /// What is watched: the first line.
    Watch(WatchDocument),
    /// A packet.
    Packet(Box<PacketDocument>),
    /// What it came to: the last line.
    Summary(Box<SummaryDocument>),
}

/// Everything of one run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag trace --live")]
pub struct LiveDocument {
    /// What was watched.
    pub watch: WatchDocument,
    /// Every packet, in the order in which they ended.
    pub packets: Vec<PacketDocument>,
    /// What it came to.
    pub summary: SummaryDocument,
}

impl Published for LiveLine {
    type Document = Self;

    fn document(&self) -> Self {
        self.clone()
    }
}

impl Published for LiveDocument {
    type Document = Self;

    fn document(&self) -> Self {
        self.clone()
    }
}

/// What is watched.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WatchDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// The instance; null where the whole host is watched.
    pub instance: Option<String>,
    /// Devices, with the namespace they are in where it is not the host's.
    pub devices: Vec<String>,
    /// By what, such as `TC`.
    pub by: Vec<String>,
    /// Whether it is watched where the kernel gives packets up.
    pub drops: bool,
    /// The filter in pcap's language, one alternative each.
    pub filter: Vec<String>,
    /// Addresses of the instance that netdiag's fast path leads past devices of the path: these see nothing of it.
    pub fast: Vec<String>,
    /// What could not be watched.
    pub gaps: Vec<GapDocument>,
}

impl From<&report::Watch> for WatchDocument {
    fn from(watch: &report::Watch) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            instance: watch.instance.clone(),
            devices: watch.devices.clone(),
            by: watch.by.clone(),
            drops: watch.drops,
            filter: watch.filter.clone(),
            fast: watch.fast.iter().map(ToString::to_string).collect(),
            gaps: published(&watch.gaps),
        }
    }
}

/// A packet and its way.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PacketDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// Its number, from 1.
    pub number: u64,
    /// When it was seen first, RFC 3339 in UTC; null where the clock gave no instant.
    pub time: Option<String>,
    /// The instance.
    pub instance: String,
    /// Which way.
    pub direction: Direction,
    /// The packet in words, as it was nearest to the instance.
    pub packet: String,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source address, nearest to the instance.
    pub source_address: Option<String>,
    /// Source port; of an ICMP echo its identifier.
    pub source_port: Option<u16>,
    /// Destination address, nearest to the instance.
    pub destination_address: Option<String>,
    /// Destination port; of an ICMP echo its identifier.
    pub destination_port: Option<u16>,
    /// Where it was seen.
    pub steps: Vec<StepDocument>,
    /// How it ended.
    pub ended: End,
    /// Why it died; null if it did not.
    pub blame: Option<BlameDocument>,
    /// Number of the packet it repeats.
    pub repeats: Option<u64>,
}

/// How a packet ended.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It came to the end of what is watched, or to the address it was for.
    Delivered,
    /// It went to somebody on its own segment.
    Aside,
    /// The kernel gave it up.
    Dropped,
    /// After its last step it was not seen again.
    NotSeenAfter,
    /// Sightings were lost, or watching ended: its end is not known.
    Inconclusive,
}

impl From<&Ended> for End {
    fn from(ended: &Ended) -> Self {
        match ended {
            Ended::Delivered => Self::Delivered,
            Ended::Aside => Self::Aside,
            Ended::Dropped { .. } => Self::Dropped,
            Ended::NotSeenAfter => Self::NotSeenAfter,
            Ended::Inconclusive => Self::Inconclusive,
        }
    }
}

/// A device a packet was seen at.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StepDocument {
    /// Number of its hop in `netdiag trace`, in the packet's direction.
    pub hop: Option<usize>,
    /// The device.
    pub device: String,
    /// The namespace it is in, as `netdiag trace` calls it.
    pub netns: String,
    /// Inode of that namespace.
    pub netns_inode: u64,
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Nanoseconds since the step before; null at the first.
    pub since_ns: Option<u64>,
    /// Length with its frame, in bytes.
    pub length: u32,
    /// VLANs, outermost first.
    pub vlans: Vec<u16>,
    /// The packet's mark.
    pub mark: u32,
    /// What became of it since the step before.
    pub changes: Vec<ChangeDocument>,
}

/// What became of a packet between two devices.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChangeDocument {
    /// What: `source`, `destination`, `vlan`, `encapsulated`, `decapsulated`.
    pub what: &'static str,
    /// Before.
    pub from: Option<String>,
    /// After.
    pub to: Option<String>,
}

impl From<&journey::Change> for ChangeDocument {
    fn from(change: &journey::Change) -> Self {
        let tags = |tags: &[u16]| Some(tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        match change {
            journey::Change::Source { from, to } => {
                Self { what: "source", from: Some(from.clone()), to: Some(to.clone()) }
            }
            journey::Change::Destination { from, to } => {
                Self { what: "destination", from: Some(from.clone()), to: Some(to.clone()) }
            }
            journey::Change::Vlans { from, to } => Self { what: "vlan", from: tags(from), to: tags(to) },
            journey::Change::Encapsulated { vni } => {
                Self { what: "encapsulated", from: None, to: Some(format!("vni {vni}")) }
            }
            journey::Change::Decapsulated => Self { what: "decapsulated", from: None, to: None },
        }
    }
}

/// Where and why a packet died.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BlameDocument {
    /// A stable word: `security-group`, `filter-rule`, `switch-flow`, `kernel-drop`, `path-fault`, `not-seen`.
    pub code: &'static str,
    /// Number of the hop it died at, or of the last that saw it.
    pub hop: Option<usize>,
    /// Where.
    pub place: String,
    /// The kernel's reason, or the name of netdiag's own.
    pub reason: Option<String>,
    /// What is guilty; null where nothing is known for sure.
    pub guilty: Option<String>,
    /// Rules that drop it: one is the guilty one, of several it is one.
    pub rules: Vec<RuleDocument>,
    /// The whole in one sentence.
    pub sentence: String,
    /// What was seen that says so.
    pub evidence: String,
    /// How to see it by hand.
    pub verify: Option<String>,
    /// A step that would mend it; netdiag never takes it.
    pub fix: Option<String>,
}

impl From<&blame::Blame> for BlameDocument {
    fn from(blame: &blame::Blame) -> Self {
        Self {
            code: blame.code.name(),
            hop: blame.hop,
            place: blame.place.clone(),
            reason: blame.reason.clone(),
            guilty: blame.guilty.clone(),
            rules: published(&blame.rules),
            sentence: blame.sentence.clone(),
            evidence: blame.evidence.clone(),
            verify: blame.verify.clone(),
            fix: blame.fix.clone(),
        }
    }
}

impl PacketDocument {
    /// A packet in its published shape.
    pub fn of(told: &Told, points: &Points, epoch: Epoch) -> Self {
        let journey = &told.journey;
        let addresses = journey.packet.addresses();
        let ports = journey.packet.ports();
        let mut before = None;
        let steps = journey.steps.iter().map(|step| {
            let since = before.replace(step.time_ns).map(|before: u64| step.time_ns.saturating_sub(before));
            StepDocument::of(step, points.stop(step.place), (journey.direction, since))
        });
        Self {
            schema_version: SCHEMA_VERSION,
            number: journey.number,
            time: time::rfc3339_exact(epoch.at(journey.began_ns())),
            instance: points.instance.clone(),
            direction: journey.direction.into(),
            packet: words::packet(&journey.packet),
            protocol: journey.packet.ip().map(|ip| ip.protocol),
            source_address: addresses.map(|both| both.0.to_string()),
            source_port: ports.map(|both| both.0),
            destination_address: addresses.map(|both| both.1.to_string()),
            destination_port: ports.map(|both| both.1),
            steps: steps.collect(),
            ended: (&journey.ended).into(),
            blame: told.blame.as_ref().map(BlameDocument::from),
            repeats: journey.repeats,
        }
    }
}

impl StepDocument {
    fn of(
        seen: &journey::Step,
        stop: Option<&points::Stop>,
        (direction, since_ns): (trace::Direction, Option<u64>),
    ) -> Self {
        Self {
            hop: stop.and_then(|stop| stop.hop(direction)),
            device: stop.map(|stop| stop.name.clone()).unwrap_or_default(),
            netns: stop.map(|stop| stop.netns.clone()).unwrap_or_default(),
            netns_inode: stop.map_or(0, |stop| stop.link.netns.inode),
            time_ns: seen.time_ns,
            since_ns,
            length: seen.length,
            vlans: seen.headers.vlans.clone(),
            mark: seen.mark,
            changes: published(&seen.changes),
        }
    }
}

/// What watching came to.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SummaryDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// The instance.
    pub instance: String,
    /// How long was watched, in nanoseconds.
    pub took_ns: u64,
    /// Packets that were seen.
    pub packets: u64,
    /// Those that were delivered.
    pub delivered: u64,
    /// Those that went to somebody on their own segment.
    pub aside: u64,
    /// Those that died.
    pub dead: u64,
    /// Those whose end is not known.
    pub inconclusive: u64,
    /// Those that repeat an earlier one.
    pub repeated: u64,
    /// Every device in each direction that packets took, with what was expected and what was seen.
    pub hops: Vec<HopSeenDocument>,
    /// What packets died of.
    pub deaths: Vec<DeathsDocument>,
    /// Where what was expected and what was seen differ.
    pub findings: Vec<FindingDocument>,
    /// Sightings for which the ring buffer had no room.
    pub lost: u64,
    /// Sightings that were left out to keep the cost down.
    pub throttled: u64,
    /// Packets whose end was not waited for, because there were too many.
    pub evicted: u64,
    /// Thousandths of a CPU that netdiag itself used.
    pub own_cpu_thousandths: u64,
    /// Thousandths of a CPU that its programs used in the kernel; null where the kernel does not count it.
    pub programs_cpu_thousandths: Option<u64>,
    /// Records a second.
    pub records_per_second: u64,
    /// What the trace expects.
    pub expected: Verdict,
    /// What was seen; decides the exit code.
    pub verdict: Verdict,
    /// The whole in one sentence.
    pub sentence: String,
}

/// A device with what was expected of it and what was seen at it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HopSeenDocument {
    /// Direction.
    pub direction: Direction,
    /// Number of its hop in `netdiag trace`.
    pub hop: Option<usize>,
    /// The device.
    pub device: String,
    /// What the trace says of it.
    pub expected: State,
    /// Packets seen.
    pub seen: u64,
    /// Those that died after it.
    pub lost: u64,
    /// Those that repeat an earlier one.
    pub repeated: u64,
    /// Half of the packets took no longer from the device before, in nanoseconds.
    pub p50_ns: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_ns: Option<u64>,
}

impl From<&report::Row> for HopSeenDocument {
    fn from(row: &report::Row) -> Self {
        Self {
            direction: row.direction.into(),
            hop: row.hop,
            device: row.device.clone(),
            expected: row.expected.into(),
            seen: row.seen,
            lost: row.lost,
            repeated: row.repeated,
            p50_ns: row.p50_ns,
            p99_ns: row.p99_ns,
        }
    }
}

/// Deaths of one kind.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DeathsDocument {
    /// How many packets.
    pub packets: u64,
    /// Which way they went.
    pub direction: Direction,
    /// Of what, for the first of them.
    pub blame: BlameDocument,
}

impl From<&report::Deaths> for DeathsDocument {
    fn from(deaths: &report::Deaths) -> Self {
        Self { packets: deaths.packets, direction: deaths.first.direction.into(), blame: (&deaths.first).into() }
    }
}

impl From<&report::Summary> for SummaryDocument {
    fn from(summary: &report::Summary) -> Self {
        let statistics = &summary.statistics;
        Self {
            schema_version: SCHEMA_VERSION,
            instance: summary.instance.clone(),
            took_ns: summary.took_ns,
            packets: statistics.journeys,
            delivered: statistics.delivered,
            aside: statistics.aside,
            dead: statistics.dead,
            inconclusive: statistics.inconclusive,
            repeated: statistics.repeated,
            hops: published(&summary.rows),
            deaths: published(&summary.deaths),
            findings: published(&summary.findings),
            lost: summary.losses.lost,
            throttled: summary.losses.throttled,
            evicted: summary.evicted,
            own_cpu_thousandths: whole(summary.cost.own_cpu * 1000.0),
            programs_cpu_thousandths: summary.cost.programs_cpu.map(|share| whole(share * 1000.0)),
            records_per_second: whole(summary.cost.records),
            expected: summary.expected.into(),
            verdict: summary.verdict.into(),
            sentence: summary.sentence.clone(),
        }
    }
}

/// One line of `netdiag drops -o json`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag drops")]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum DropsLine {
    /// A packet that was given up.
    Drop(DropDocument),
    /// How many of whom, where and why: the last line.
    Summary(CensusDocument),
}

impl Published for DropsLine {
    type Document = Self;

    fn document(&self) -> Self {
        self.clone()
    }
}

/// A packet that was given up.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DropDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// When, RFC 3339 in UTC; null where the clock gave no instant.
    pub time: Option<String>,
    /// Whose packet; null where nothing says.
    pub instance: Option<String>,
    /// Device and namespace.
    pub place: String,
    /// The kernel's reason, or the name of netdiag's own.
    pub reason: String,
    /// Who names it, such as `core`, `openvswitch` or `netdiag`.
    pub subsystem: String,
    /// What the reason means.
    pub because: Option<String>,
    /// Function that gave it up.
    pub location: Option<String>,
    /// The packet in words.
    pub packet: String,
    /// Rules of the packet filter that would drop it: one is the guilty one, of several it is one.
    pub rules: Vec<RuleDocument>,
}

impl DropDocument {
    /// A packet in its published shape.
    pub fn of(dropped: &drops::Dropped, epoch: Epoch) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            time: time::rfc3339_exact(epoch.at(dropped.time_ns)),
            instance: dropped.instance.clone(),
            place: dropped.place.clone(),
            reason: dropped.reason.clone(),
            subsystem: dropped.subsystem.clone(),
            because: dropped.because.map(str::to_owned),
            location: dropped.location.clone(),
            packet: dropped.packet.clone(),
            rules: published(&dropped.rules),
        }
    }
}

/// How many packets died.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CensusDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// All of them.
    pub packets: u64,
    /// By instance, place and reason, the most first.
    pub counts: Vec<CountDocument>,
    /// Copies that are not counted: Open vSwitch had taken the frame.
    pub copies: u64,
    /// Copies that are not counted: packet sockets were closed before anybody read them.
    pub unread: u64,
    /// Drops for which the ring buffer had no room.
    pub lost: u64,
    /// Drops that were left out to keep the cost down.
    pub throttled: u64,
}

/// How many packets of whom died where and why.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CountDocument {
    /// Whose; null where nothing says.
    pub instance: Option<String>,
    /// Where.
    pub place: String,
    /// Why.
    pub reason: String,
    /// The rule that did it; null where none did, or nobody knows which.
    pub rule: Option<String>,
    /// How many.
    pub packets: u64,
}

impl From<&drops::Census> for CensusDocument {
    fn from(census: &drops::Census) -> Self {
        let counts = census.rows().into_iter().map(|(cause, packets)| CountDocument {
            instance: cause.instance.clone(),
            place: cause.place.clone(),
            reason: cause.reason.clone(),
            rule: cause.rule.clone(),
            packets,
        });
        Self {
            schema_version: SCHEMA_VERSION,
            packets: census.packets,
            counts: counts.collect(),
            copies: census.copies,
            unread: census.unread,
            lost: census.losses.lost,
            throttled: census.losses.throttled,
        }
    }
}

/// The nearest whole number; measured shares are never below 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and what is measured is small and not negative"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
