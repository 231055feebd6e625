//! What watching came to: what was expected and what was seen, side by side, and the verdict. Flow: explain.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Cost, Losses,
    blame::{Blame, Code},
    journey::{Counted, Ended, Journey, statistics::Statistics},
    points::{Place, Points},
};
use crate::{
    fact::Gap,
    trace::{Direction, Finding, HopState, RuleRef, Severity, Trace, Verdict},
};

/// Packets that left by an address they should not have.
mod left;
/// Questions that the instance did not answer.
mod silent;
/// Questions that nobody answered.
mod unanswered;

use left::Left;
use silent::Silent;
use unanswered::Unanswered;

/// What is being watched; said first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The instance; none where the whole host is watched.
    pub instance: Option<String>,
    /// Devices, by name and namespace.
    pub devices: Vec<String>,
    /// By what: `TC`, `packet sockets`.
    pub by: Vec<String>,
    /// Where the kernel gives packets up is watched too.
    pub drops: bool,
    /// The filter in words, one alternative each.
    pub filter: Vec<String>,
    /// Addresses of the instance that netdiag's fast path leads past devices of the path: these see nothing of it.
    pub fast: Vec<IpAddr>,
    /// What could not be watched.
    pub gaps: Vec<Gap>,
}

/// One packet, and why it died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The packet.
    pub journey: Journey,
    /// Why it died; none if it did not.
    pub blame: Option<Blame>,
}

/// Deaths of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deaths {
    /// The first of them.
    pub first: Blame,
    /// How many.
    pub packets: u64,
}

/// A device with what was expected of it and what was seen at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Direction.
    pub direction: Direction,
    /// Number of its hop.
    pub hop: Option<usize>,
    /// The device.
    pub device: String,
    /// What the trace says of it.
    pub expected: HopState,
    /// Packets seen.
    pub seen: u64,
    /// Those that died after it.
    pub lost: u64,
    /// Those that repeat an earlier packet.
    pub repeated: u64,
    /// Half of the packets came here from the device before in no longer than this, in nanoseconds.
    pub p50_ns: Option<u64>,
    /// 99 of 100.
    pub p99_ns: Option<u64>,
}

/// What watching came to; said last.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The instance.
    pub instance: String,
    /// How long was watched, in nanoseconds.
    pub took_ns: u64,
    /// Numbers over all packets.
    pub statistics: Statistics,
    /// Every device in each direction that packets took.
    pub rows: Vec<Row>,
    /// Deaths, by what is guilty.
    pub deaths: Vec<Deaths>,
    /// Where what was expected and what was seen differ.
    pub findings: Vec<Finding>,
    /// Sightings of which there is no record.
    pub losses: Losses,
    /// Packets whose end was not waited for, because there were too many.
    pub evicted: u64,
    /// What watching cost.
    pub cost: Cost,
    /// What the trace expects.
    pub expected: Verdict,
    /// What was seen.
    pub verdict: Verdict,
    /// The whole in one sentence.
    pub sentence: String,
}

/// Everything that was told, being added up.
#[derive(Debug, Default)]
pub struct Tally {
    statistics: Statistics,
    deaths: Vec<Deaths>,
    left: Left,
    questions: Option<Questions>,
}

/// Questions in both directions.
#[derive(Debug, Default)]
struct Questions {
    unanswered: Unanswered,
    silent: Silent,
}

impl Questions {
    fn add(&mut self, journey: &Journey, points: &Points) {
        self.unanswered.add(journey, points);
        self.silent.add(journey, points);
    }

    fn hear(&mut self, journey: &Journey) {
        self.unanswered.hear(journey);
        self.silent.hear(journey);
    }

    /// What is to be said of those without an answer. Where sightings are missing, answers may be.
    fn findings(self, counted: &Counted, points: &Points, trace: &Trace) -> Vec<Finding> {
        if counted.losses != Losses::default() {
            return Vec::new();
        }
        let until_ns = counted.read_ns();
        let mut found = self.unanswered.findings(until_ns, points, trace);
        found.extend(self.silent.findings(until_ns, points, trace));
        found
    }
}

impl Tally {
    /// Nothing added yet, of packets of both directions: only then is it known what was not answered.
    pub fn of_both_ways() -> Self {
        Self { questions: Some(Questions::default()), ..Self::default() }
    }

    /// Adds a packet.
    pub fn add(&mut self, told: &Told, points: &Points) {
        self.statistics.add(&told.journey);
        self.left.add(&told.journey, points);
        if let Some(questions) = &mut self.questions {
            questions.add(&told.journey, points);
        }
        let Some(blame) = &told.blame else { return };
        match self.deaths.iter_mut().find(|deaths| is_like(&deaths.first, blame)) {
            Some(deaths) => deaths.packets += 1,
            None => self.deaths.push(Deaths { first: blame.clone(), packets: 1 }),
        }
    }

    /// Takes note of a packet that is not told of, because there were enough: it may answer one that was.
    pub fn overhear(&mut self, journey: &Journey) {
        if let Some(questions) = &mut self.questions {
            questions.hear(journey);
        }
    }

    /// Numbers so far.
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// What it comes to.
    pub fn summary(self, points: &Points, trace: &Trace, (counted, cost): (&Counted, Cost), took_ns: u64) -> Summary {
        let Self { statistics, deaths, left, questions } = self;
        let mut findings = disagreements(trace, &statistics, points);
        findings.extend(left.findings(trace));
        findings.extend(questions.map(|questions| questions.findings(counted, points, trace)).unwrap_or_default());
        let seen = verdict(&statistics, &deaths, &findings);
        // Of what the trace expects to die, and nobody saw die, what is missing may be what died, or that nobody answered.
        let doubtful = trace.verdict == Verdict::Broken && counted.losses != Losses::default();
        let verdict = if seen == Verdict::Works && doubtful { Verdict::Inconclusive } else { seen };
        let sentence = match verdict {
            Verdict::Inconclusive if statistics.journeys > 0 => unknown_ends(&statistics, counted.losses, points),
            Verdict::Inconclusive => nothing_seen(&points.instance, trace),
            Verdict::Works => all_came(&points.instance, &statistics),
            Verdict::Broken => died(&points.instance, (&statistics, &deaths, &findings)),
        };
        Summary {
            instance: points.instance.clone(),
            took_ns,
            rows: rows(points, trace, &statistics),
            sentence,
            findings,
            losses: counted.losses,
            evicted: counted.evicted,
            cost,
            expected: trace.verdict,
            verdict,
            statistics,
            deaths,
        }
    }
}

/// Whether two packets died of the same.
fn is_like(one: &Blame, other: &Blame) -> bool {
    let key = |blame: &Blame| (blame.direction, blame.place.clone(), blame.code, blame.reason.clone());
    let rules = |blame: &Blame| blame.rules.iter().map(|rule: &RuleRef| rule.rule.clone()).collect::<Vec<_>>();
    key(one) == key(other) && rules(one) == rules(other)
}

fn verdict(statistics: &Statistics, deaths: &[Deaths], findings: &[Finding]) -> Verdict {
    if !deaths.is_empty() || findings.iter().any(|finding| finding.severity == Severity::Error) {
        Verdict::Broken
    } else if statistics.inconclusive > 0 || statistics.journeys == 0 {
        Verdict::Inconclusive
    } else {
        Verdict::Works
    }
}

fn nothing_seen(instance: &str, trace: &Trace) -> String {
    match trace.verdict {
        Verdict::Broken => {
            let expected = trace.sentence.trim_end_matches('.');
            format!("no packet of {instance} was seen; the trace: {expected}")
        }
        Verdict::Works | Verdict::Inconclusive => format!("no packet of {instance} was seen"),
    }
}

/// That ends are not known, with all that may be why.
fn unknown_ends(Statistics { journeys, inconclusive, .. }: &Statistics, losses: Losses, points: &Points) -> String {
    let Losses { lost, throttled } = losses;
    let were = |number: u64| if number == 1 { "1 sighting was".to_owned() } else { format!("{number} sightings were") };
    let mut why = Vec::new();
    if lost > 0 {
        why.push(format!("{} lost", were(lost)));
    }
    if throttled > 0 {
        why.push(format!("{} left out to keep the cost down (--max-overhead)", were(throttled)));
    }
    if points.tracks.iter().any(|track| !track.opaque.is_empty()) {
        why.push("what a router translates could not be read".to_owned());
    }
    if why.is_empty() {
        why.push("watching ended while they were under way".to_owned());
    }
    let why = why.join(", ");
    if *inconclusive == 0 {
        return format!("the trace expects packets to die, and none of {journeys} was seen to, but {why}");
    }
    format!("of {inconclusive} of {journeys} packets the end is not known: {why}")
}

fn all_came(instance: &str, Statistics { journeys, delivered, aside, .. }: &Statistics) -> String {
    let aside = if *aside > 0 { format!(", {aside} went to others on its own segment") } else { String::new() };
    format!("{delivered} of {journeys} packets of {instance} came to the end of what is watched{aside}; none died")
}

fn died(instance: &str, (statistics, deaths, findings): (&Statistics, &[Deaths], &[Finding])) -> String {
    let Statistics { journeys, dead, .. } = statistics;
    match deaths {
        [] => {
            let error = findings.iter().find(|finding| finding.severity == Severity::Error);
            format!("{instance}: {}", error.map_or("", |error| &error.message))
        }
        [one] => format!("{dead} of {journeys} packets of {instance} died: {}", one.first.sentence),
        several => {
            let most = several.iter().max_by_key(|deaths| deaths.packets);
            let most = most.map_or_else(String::new, |deaths| {
                format!(", {} of them so: {}", deaths.packets, deaths.first.sentence)
            });
            format!("{dead} of {journeys} packets of {instance} died, for {} different reasons{most}", several.len())
        }
    }
}

/// Every device with what was expected of it and what was seen.
fn rows(points: &Points, trace: &Trace, statistics: &Statistics) -> Vec<Row> {
    let legs: BTreeMap<(Direction, Place), _> = statistics.legs().map(|leg| ((leg.direction, leg.to), leg)).collect();
    let mut rows = Vec::new();
    for (number, track) in points.tracks.iter().enumerate() {
        for direction in [Direction::Outward, Direction::Inward] {
            let places: Vec<Place> = (0..track.stops.len())
                .map(|position| Place { track: number, stop: track.position(position, direction) })
                .collect();
            if places.iter().all(|place| statistics.hop(direction, *place).seen == 0) {
                continue;
            }
            for place in places {
                let Some(stop) = points.stop(place) else { continue };
                let seen = statistics.hop(direction, place);
                let leg = legs.get(&(direction, place));
                rows.push(Row {
                    direction,
                    hop: stop.hop(direction),
                    device: stop.label(),
                    expected: expected(trace, number, (direction, stop.hop(direction))),
                    seen: seen.seen,
                    lost: seen.lost,
                    repeated: seen.repeated,
                    p50_ns: leg.map(|leg| leg.p50_ns),
                    p99_ns: leg.map(|leg| leg.p99_ns),
                });
            }
        }
    }
    rows
}

/// What the trace says of a hop.
fn expected(trace: &Trace, interface: usize, (direction, number): (Direction, Option<usize>)) -> HopState {
    let hops = trace.interfaces.get(interface).map_or(&[][..], |interface| &interface.hops);
    let hop = hops.iter().find(|hop| hop.direction == direction && Some(hop.number) == number);
    hop.map_or(HopState::Unknown, |hop| hop.state)
}

/// Where what was expected and what was seen differ.
fn disagreements(trace: &Trace, statistics: &Statistics, points: &Points) -> Vec<Finding> {
    let instance = &points.instance;
    let finding = |severity, code: &str, message: String, evidence: String| Finding {
        severity,
        code: code.to_owned(),
        object: instance.clone(),
        message,
        evidence,
        verify: None,
        fix: None,
    };
    let mut found = Vec::new();
    let Statistics { journeys, dead, delivered, .. } = statistics;
    match trace.verdict {
        Verdict::Broken if *dead == 0 && *delivered > 0 => found.push(finding(
            Severity::Warning,
            "expected-otherwise",
            format!("the trace expects packets to die, and all {delivered} that were seen came to their end"),
            format!("expected: {}", trace.sentence),
        )),
        Verdict::Works if *dead > 0 => found.push(finding(
            Severity::Warning,
            "seen-otherwise",
            format!("nothing on the path speaks against it, and {dead} of {journeys} packets died"),
            format!("expected: {}", trace.sentence),
        )),
        Verdict::Broken | Verdict::Works | Verdict::Inconclusive => {}
    }
    found
}

impl Ended {
    /// Mark of a packet's end, as of a hop.
    pub const fn state(&self) -> HopState {
        match self {
            Self::Delivered => HopState::Ok,
            Self::Aside | Self::Inconclusive => HopState::Unknown,
            Self::Dropped { .. } | Self::NotSeenAfter => HopState::Broken,
        }
    }
}

impl Deaths {
    /// Whether something is named that is guilty.
    pub fn is_explained(&self) -> bool {
        self.first.code != Code::NotSeen
    }
}

#[cfg(test)]
mod tests;
