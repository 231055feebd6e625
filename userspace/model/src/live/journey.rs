//! One packet recognised across its sightings, through NAT, VLANs and tunnels. Flow: observe.
//!
//! A packet is known again by what no hop changes (`content`), and placed by the device and side it was seen at. Sightings
//! are taken in the order of their times, a moment late, because those of other CPUs may come after their turn:
//!
//! ```text
//! see() --> waiting, by time --advance()--> joined to an open journey, or a new one --quiet--> Journey, ended
//! ```
//!
//! Where several open journeys fit, the one whose addresses fit best has it; among equals the one that was heard of last,
//! because a retransmission comes long after the packet it repeats was lost; and of those that follow each other closely
//! the first, because queues keep their order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map::Entry},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{
    Losses, Sighting, What,
    packet::{Headers, TCP},
    points::{Place, Points, Side},
    reasons,
};
use crate::{
    event::{Decision, VerdictEvent},
    id::LinkKey,
    trace::Direction,
};

/// What of a packet no hop changes.
mod content;
/// How a journey ends.
mod ending;
/// Journeys that are not over.
mod open;
/// Packets that become other packets on the way.
mod pieces;
/// Numbers over many journeys.
pub mod statistics;
/// Whose a packet is.
mod whose;

use content::Content;
pub(super) use ending::is_to_many;
use open::{Due, Open};
use pieces::{Span, Spans};
use whose::Spot;
pub use whose::is_anothers;

/// How long a sighting waits for earlier ones of other CPUs.
const REORDER_NS: u64 = 20_000_000;
/// Quiet after which a packet that has arrived, or was given up, is over.
const ARRIVED_NS: u64 = 100_000_000;
/// Quiet after which a packet is taken for lost: the kernel holds one for up to three seconds while it asks for a neighbour.
pub const SETTLE_NS: u64 = 3_500_000_000;
/// How long a packet is remembered, to know a retransmission of it.
const MEMORY_NS: u64 = 60_000_000_000;
/// Journeys that are open or remembered at a time.
const MOST: usize = 16_384;
/// How many of them end early at once where there are too many: to find the oldest takes a look at all, which is not to be had for each
/// packet of a flood.
const EVICTED: usize = MOST / 8;

/// A packet's way past what is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journey {
    /// Its number, from 1, in the order of first sightings.
    pub number: u64,
    /// Interface of the instance: place in [`Points::tracks`].
    pub track: usize,
    /// Which way.
    pub direction: Direction,
    /// The packet as it was seen nearest to the instance.
    pub packet: Headers,
    /// Where it was seen, in the order of its way.
    pub steps: Vec<Step>,
    /// Where the kernel gave it, or a copy of it, up.
    pub drops: Vec<Drop>,
    /// How it ended.
    pub ended: Ended,
    /// Number of the journey it repeats: a retransmission.
    pub repeats: Option<u64>,
}

/// A device a packet was seen at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where.
    pub place: Place,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The CPU.
    pub cpu: u32,
    /// What became of it since the step before.
    pub changes: Vec<Change>,
    /// The packet as it was here.
    pub headers: Headers,
    /// Its length with its frame, in bytes.
    pub length: u32,
    /// Address of the kernel's buffer.
    pub buffer: u64,
    /// Its mark.
    pub mark: u32,
}

/// A packet that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// When.
    pub time_ns: u64,
    /// Device it belonged to.
    pub link: Option<LinkKey>,
    /// Reason as the kernel names it.
    pub reason: String,
    /// Who names it.
    pub subsystem: String,
    /// Function that gave it up.
    pub location: Option<String>,
    /// The packet as it was.
    pub headers: Headers,
    /// Its mark.
    pub mark: u32,
}

/// What a hop, or what lies before it, made of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The source is another.
    Source {
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// The destination is another.
    Destination {
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// VLANs are others, outermost first.
    Vlans {
        /// Before.
        from: Vec<u16>,
        /// After.
        to: Vec<u16>,
    },
    /// It was put into a tunnel.
    Encapsulated {
        /// VNI.
        vni: u32,
    },
    /// It came out of a tunnel.
    Decapsulated,
}

/// How a journey ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Ended {
    /// It reached the end of what is watched, or the address it was for.
    Delivered,
    /// It went to somebody on its own segment, who is not on the path that is watched.
    Aside,
    /// The kernel gave it up: place in [`Journey::drops`].
    Dropped {
        /// Which drop.
        drop: usize,
    },
    /// After its last step it was not seen again.
    NotSeenAfter,
    /// Sightings were lost while it was under way: what is missing may have been seen.
    Inconclusive,
}

impl Ended {
    /// The word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Aside => "aside",
            Self::Dropped { .. } => "dropped",
            Self::NotSeenAfter => "not-seen-after",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Whether the packet died.
    pub const fn is_death(&self) -> bool {
        matches!(self, Self::Dropped { .. } | Self::NotSeenAfter)
    }
}

impl Journey {
    /// The drop it ended with.
    pub fn drop(&self) -> Option<&Drop> {
        match self.ended {
            Ended::Dropped { drop } => self.drops.get(drop),
            Ended::Delivered | Ended::Aside | Ended::NotSeenAfter | Ended::Inconclusive => None,
        }
    }

    /// When it was seen first.
    pub fn began_ns(&self) -> u64 {
        began_ns(&self.steps).or_else(|| self.drops.first().map(|drop| drop.time_ns)).unwrap_or(0)
    }

    /// From its first sighting to its last.
    pub fn took_ns(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.time_ns.saturating_sub(self.began_ns()))
    }
}

/// When the first of some steps was seen, which need not be the first of the way.
fn began_ns(steps: &[Step]) -> Option<u64> {
    steps.iter().map(|step| step.time_ns).min()
}

/// Sightings being joined to journeys.
#[derive(Debug)]
pub struct Journeys {
    points: Points,
    waiting: BTreeMap<(u64, u64), Sighting>,
    open: HashMap<Content, Vec<Open>>,
    /// When to look at which of them again: for every one that is open there is a time here that is not behind its end.
    due: Due,
    spans: Spans,
    past: Past,
    arrived: u64,
    numbered: u64,
    counted: Counted,
}

/// What was not made a journey, and losses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Sightings that were of no packet of the instance.
    pub foreign: u64,
    /// Journeys ended early because there were too many.
    pub evicted: u64,
    /// Sightings of which there is no record.
    pub losses: Losses,
    /// When that was noticed: begin and end of each span in which some were lost.
    spans: VecDeque<(u64, u64)>,
    read_ns: u64,
}

impl Counted {
    /// Until when everything that was seen has been taken.
    pub const fn read_ns(&self) -> u64 {
        self.read_ns
    }

    /// Whether sightings were lost in a span of time.
    fn lossy(&self, from_ns: u64, to_ns: u64) -> bool {
        self.spans.iter().any(|&(begin, end)| begin <= to_ns && from_ns <= end)
    }

    fn note(&mut self, now_ns: u64, losses: Losses) {
        if losses != self.losses {
            // What was lost before is among what was known then.
            self.spans.push_back((self.read_ns, now_ns));
            if self.spans.len() > MOST {
                self.spans.pop_front();
            }
        }
        self.losses = losses;
    }
}

/// Packets of the last while, to know those that are repeated.
#[derive(Debug, Default)]
struct Past {
    known: HashMap<(Content, Option<Flow>), (u64, u64)>,
    order: VecDeque<(u64, (Content, Option<Flow>))>,
    /// Conversations of the instance, as answers have them where they come in.
    asked: HashSet<Flow>,
    asked_order: VecDeque<Flow>,
    /// What netdiag itself refused of the instance's packets.
    refused: VecDeque<VerdictEvent>,
}

/// Ends of a conversation: source, destination, ports.
type Flow = (IpAddr, IpAddr, (u16, u16));

impl Past {
    /// Learns what answers to packets of the instance look like before translation is undone.
    fn asked<'o>(&mut self, own: impl Iterator<Item = &'o Open>) {
        let outward = own.filter(|open| open.direction == Direction::Outward);
        for flow in outward.filter_map(Open::answer) {
            if self.asked.insert(flow) {
                self.asked_order.push_back(flow);
            }
            if self.asked_order.len() > MOST
                && let Some(oldest) = self.asked_order.pop_front()
            {
                self.asked.remove(&oldest);
            }
        }
    }

    /// Learns what was refused.
    fn refused(&mut self, events: impl Iterator<Item = VerdictEvent>) {
        self.refused.extend(events);
        let many = self.refused.len().saturating_sub(MOST);
        self.refused.drain(..many);
    }

    /// The packet this one repeats; from now on it is known itself.
    fn repeats(&mut self, key: (Content, Option<Flow>), number: u64, time_ns: u64) -> Option<u64> {
        while self.order.len() >= MOST || self.order.front().is_some_and(|(then, _)| then + MEMORY_NS < time_ns) {
            let Some((then, old)) = self.order.pop_front() else { break };
            if self.known.get(&old).is_some_and(|(_, at)| *at == then) {
                self.known.remove(&old);
            }
        }
        self.order.push_back((time_ns, key.clone()));
        let first = self.known.get(&key).map(|(first, _)| *first);
        self.known.insert(key, (first.unwrap_or(number), time_ns));
        first
    }
}

impl Journeys {
    /// Nothing seen yet.
    pub fn new(points: Points) -> Self {
        Self {
            points,
            waiting: BTreeMap::new(),
            open: HashMap::new(),
            due: Due::new(),
            spans: Spans::default(),
            past: Past::default(),
            arrived: 0,
            numbered: 0,
            counted: Counted::default(),
        }
    }

    /// Whether any packet is under way that was there at some time already.
    pub fn any_since_before(&self, time_ns: u64) -> bool {
        self.waiting.keys().next().is_some_and(|(first_ns, _)| *first_ns <= time_ns)
            || self.open.values().flatten().any(|open| open.began_ns() <= time_ns)
    }

    /// What is watched.
    pub const fn points(&self) -> &Points {
        &self.points
    }

    /// Learns since watching began what has come to go past the router, and who has come to have the same address.
    pub fn learn(&mut self, now: &Points) {
        let mut other = false;
        for (known, now) in self.points.tracks.iter_mut().zip(&now.tracks) {
            other |= known.shortcut != now.shortcut;
            known.shortcut.clone_from(&now.shortcut);
        }
        self.points.doubles.clone_from(&now.doubles);
        if other {
            // What goes past the router is over sooner.
            for open in self.open.values_mut().flatten() {
                open.look_again(&self.points, &mut self.due);
            }
        }
    }

    /// A journey that is over, given what was learned since: what went past the router did not vanish.
    pub fn reconsidered(&self, journey: Journey) -> Journey {
        let place = (journey.track, journey.direction);
        let took = || ending::takes_shortcut(place, &journey.steps, &self.points);
        if journey.ended != Ended::NotSeenAfter || !took() {
            return journey;
        }
        let ended = if self.points.blind { Ended::Inconclusive } else { Ended::Delivered };
        Journey { ended, ..journey }
    }

    /// What was not made a journey.
    pub const fn counted(&self) -> &Counted {
        &self.counted
    }

    /// Takes a sighting.
    pub fn see(&mut self, sighting: Sighting) {
        self.arrived += 1;
        self.waiting.insert((sighting.time_ns, self.arrived), sighting);
    }

    /// Takes note of how many sightings there is no record of.
    pub fn losses(&mut self, now_ns: u64, losses: Losses) {
        self.counted.note(now_ns, losses);
    }

    /// Takes what netdiag itself refused, with times on the clock of sightings. A packet that died where its address does not
    /// tell whose it is, as at XDP of a card, is the instance's if such a verdict is about it.
    pub fn refused(&mut self, events: impl IntoIterator<Item = VerdictEvent>) {
        let instance = &self.points.instance;
        let of_it = events.into_iter().filter(|event| event.instance.as_ref() == Some(instance));
        self.past.refused(of_it.filter(|event| event.verdict == Decision::Deny));
    }

    /// Journeys that are over, where everything has been taken that was seen until some time: what is not there yet may have been
    /// seen since.
    pub fn advance(&mut self, read_ns: u64) -> Vec<Journey> {
        self.counted.read_ns = self.counted.read_ns.max(read_ns);
        let joined_ns = self.counted.read_ns.saturating_sub(REORDER_NS);
        self.join_until(joined_ns);
        let due = self.due(joined_ns);
        let over = self.close((due, joined_ns), |open, known| open.ended(known, joined_ns));
        self.tell(over)
    }

    /// All that are left, at the end: what may still have been under way is over too.
    pub fn finish(&mut self) -> Vec<Journey> {
        self.join_until(u64::MAX);
        let read_ns = self.counted.read_ns;
        let all = self.open.keys().cloned().collect();
        let over = self.close((all, u64::MAX), |open, known| Some(open.at_the_end(known, read_ns)));
        self.tell(over)
    }

    fn join_until(&mut self, time_ns: u64) {
        let later = self.waiting.split_off(&(time_ns, u64::MAX));
        for (_, sighting) in std::mem::replace(&mut self.waiting, later) {
            self.join(&sighting);
        }
    }

    /// Packets that may be over by some time.
    fn due(&mut self, time_ns: u64) -> Vec<Content> {
        let mut due = Vec::new();
        while self.due.peek().is_some_and(|Reverse((first_ns, _))| *first_ns <= time_ns) {
            due.extend(self.due.pop().map(|Reverse((_, content))| content));
        }
        due
    }

    /// Takes what is over, of packets that were due by some time, out of the open ones; the rest is due again when it would be over.
    fn close(
        &mut self,
        (due, time_ns): (Vec<Content>, u64),
        over: impl Fn(&Open, (&Counted, &Points)) -> Option<Ended>,
    ) -> Vec<Open> {
        let (mut closed, mut gone) = (Vec::new(), Vec::new());
        for content in due {
            let Entry::Occupied(mut journeys) = self.open.entry(content) else { continue };
            journeys.get_mut().retain_mut(|open| {
                match over(open, (&self.counted, &self.points)) {
                    // Its pieces are under way instead.
                    _ if open.is_cut_up() => {}
                    Some(ended) => closed.push(open.take(ended)),
                    None => {
                        open.look_later(time_ns, &self.points, &mut self.due);
                        return true;
                    }
                }
                gone.extend(open.span);
                false
            });
            for span in gone.drain(..) {
                if journeys.get().iter().all(|open| open.span != Some(span)) {
                    self.spans.remove(span, journeys.key());
                }
            }
            if journeys.get().is_empty() {
                journeys.remove();
            }
        }
        closed
    }

    /// Those of the packets that are over which are the instance's, in order.
    fn tell(&mut self, mut closed: Vec<Open>) -> Vec<Journey> {
        self.past.asked(closed.iter().filter(|open| open.is_own(&self.points, &HashSet::new())));
        let all = closed.len();
        closed.retain(|open| open.is_own(&self.points, &self.past.asked) || open.is_refused(&self.past.refused));
        self.counted.foreign += (all - closed.len()) as u64;
        closed.sort_by_key(Open::began_ns);
        closed.into_iter().map(|open| self.number(open)).collect()
    }

    /// Gives a journey that is over its number, and says what it repeats.
    fn number(&mut self, open: Open) -> Journey {
        self.numbered += 1;
        let key = (open.content.clone(), open.flow());
        let repeats = self.past.repeats(key, self.numbered, open.began_ns());
        open.journey(self.numbered, repeats, &self.points)
    }

    /// Joins a sighting to the journey it belongs to, or begins one with it.
    fn join(&mut self, sighting: &Sighting) {
        let headers = Headers::of(sighting);
        let Some(content) = Content::of(&headers) else {
            self.counted.foreign += 1;
            return;
        };
        match Side::of(&sighting.what) {
            Some(side) => self.join_step(sighting, side, (content, headers)),
            None => self.join_drop(sighting, (content, headers)),
        }
    }

    fn join_step(&mut self, sighting: &Sighting, side: Side, (content, headers): (Content, Headers)) {
        let spot = Spot::of(sighting.link, side, &headers, &self.points);
        if spot.places.is_empty() {
            self.counted.foreign += 1;
            return;
        }
        let journeys = self.open.get_mut(&content).map_or(&mut [][..], Vec::as_mut_slice);
        let candidates = under_way(journeys, sighting.time_ns, &self.points).filter_map(|(number, open)| {
            let place = open.takes(&spot, (&headers, sighting.time_ns), &self.points)?;
            Some((number, place, open.likeness(&headers, sighting.buffer), open.last_ns()))
        });
        if let Some((number, place)) = best(&candidates.collect::<Vec<_>>()) {
            journeys[number].step(place, sighting, headers, &self.points);
            journeys[number].look_again(&self.points, &mut self.due);
        } else if !self.join_piece(sighting, &spot, &headers) {
            let (place, direction) = spot.first_place(&headers, &self.points);
            let mut open = Open::new(content, place.track, direction);
            open.of_double = spot.of_double;
            open.step(place, sighting, headers, &self.points);
            self.begin(open);
        }
        self.bound();
    }

    /// A packet that is under way from now on.
    fn begin(&mut self, mut open: Open) {
        open.look_again(&self.points, &mut self.due);
        open.span = open.latest().and_then(Span::of);
        if let Some(span) = open.span {
            self.spans.add(span, &open.content, open.is_part);
        }
        self.open.entry(open.content.clone()).or_default().push(open);
    }

    /// Joins what was cut off a packet, or put together from some, to those; false where there are none.
    fn join_piece(&mut self, sighting: &Sighting, spot: &Spot, headers: &Headers) -> bool {
        let Some(span) = Span::of(headers) else { return false };
        if let Some(mut part) = self.cut_off(span, headers, Some(spot)) {
            if let Some(place) = part.reaches(spot, &self.points) {
                part.step(place, sighting, headers.clone(), &self.points);
            }
            self.begin(part);
            return true;
        }
        let mut joined = false;
        for content in self.spans.within(span) {
            let points = &self.points;
            let parts = self.open.get_mut(&content).into_iter().flatten();
            let fitting = parts.filter_map(|open| Some((open.reaches(spot, points)?, open)));
            let fitting = fitting.filter(|(_, open)| open.shares_an_end(headers));
            if let Some((place, open)) = fitting.max_by_key(|(_, open)| open.last_ns()) {
                open.step_within(place, sighting, headers, points);
                open.look_again(points, &mut self.due);
                joined = true;
            }
        }
        joined
    }

    /// A piece with the way of the packet it was cut off behind it, where that can have come to a spot.
    fn cut_off(&mut self, span: Span, headers: &Headers, spot: Option<&Spot>) -> Option<Open> {
        let content = Content::of(headers)?;
        for around in self.spans.around(span) {
            let points = &self.points;
            let reaches = |open: &Open| spot.is_none_or(|spot| open.reaches(spot, points).is_some());
            let mut wholes = self.open.get_mut(&around).into_iter().flatten();
            if let Some(whole) = wholes.find(|open| reaches(open) && open.shares_an_end(headers)) {
                let part = whole.cut_off(content, span, headers);
                whole.look_again(points, &mut self.due);
                return Some(part);
            }
        }
        None
    }

    fn join_drop(&mut self, sighting: &Sighting, (content, headers): (Content, Headers)) {
        let What::Dropped { reason, subsystem, location, copy: false } = &sighting.what else { return };
        // Addresses are the same in many namespaces: other tenants', other hosts' on this kernel.
        let elsewhere = sighting.link.is_some_and(|link| !self.points.has_namespace(link.netns));
        if elsewhere {
            self.counted.foreign += 1;
            return;
        }
        if reasons::is_left_over((reason, location.as_deref()), &headers) {
            return;
        }
        let drop = Drop {
            time_ns: sighting.time_ns,
            link: sighting.link,
            reason: reason.clone(),
            subsystem: subsystem.clone(),
            location: location.clone(),
            headers,
            mark: sighting.mark,
        };
        let journeys = self.open.get_mut(&content).map_or(&mut [][..], Vec::as_mut_slice);
        let candidates = under_way(journeys, drop.time_ns, &self.points)
            .filter(|(_, open)| open.fits(&drop.headers))
            .map(|(number, open)| (number, (), open.likeness(&drop.headers, sighting.buffer), open.last_ns()));
        match best(&candidates.collect::<Vec<_>>()) {
            Some((number, ())) => {
                journeys[number].drop(drop, &self.points);
                journeys[number].look_again(&self.points, &mut self.due);
            }
            None => self.begin_with_drop(content, drop),
        }
        self.bound();
    }

    /// Takes what was given up before it was seen anywhere, or is a piece of what was.
    fn begin_with_drop(&mut self, content: Content, drop: Drop) {
        let span = Span::of(&drop.headers);
        if let Some(mut part) = span.and_then(|span| self.cut_off(span, &drop.headers, None)) {
            part.drop(drop, &self.points);
            return self.begin(part);
        }
        let mut joined = false;
        for content in span.map(|span| self.spans.within(span)).unwrap_or_default() {
            let mut parts = self.open.get_mut(&content).into_iter().flatten();
            if let Some(open) = parts.find(|open| open.shares_an_end(&drop.headers)) {
                open.drop(drop.clone(), &self.points);
                open.look_again(&self.points, &mut self.due);
                joined = true;
            }
        }
        if joined {
            return;
        }
        let (track, direction) = whose::of_drop(&drop, &self.points);
        // Without a device, and without having been seen before, it may be anybody's.
        // Frames for others come by where a switch floods them: that is how nobody but they is told of.
        let for_others = drop.reason == "OTHERHOST";
        if for_others || !self.points.may_begin_at(drop.link) || open::is_of_rest(&drop, direction, &self.points) {
            self.counted.foreign += 1;
        } else {
            let mut open = Open::new(content, track, direction);
            open.drop(drop, &self.points);
            self.begin(open);
        }
    }

    /// Ends the oldest journeys early where there are too many.
    fn bound(&mut self) {
        // Counting is cheap beside what it bounds: keys are as many as packets but for repeated ones.
        if self.open.len() <= MOST {
            return;
        }
        let began = |journeys: &[Open]| journeys.first().map(Open::began_ns);
        let mut times: Vec<_> = self.open.values().map(|journeys| began(journeys)).collect();
        let (_, &mut until, _) = times.select_nth_unstable(EVICTED - 1);
        for (content, journeys) in self.open.extract_if(|_, journeys| began(journeys) <= until) {
            self.counted.evicted += journeys.len() as u64;
            for span in journeys.iter().filter_map(|open| open.span) {
                self.spans.remove(span, &content);
            }
        }
    }
}

/// Journeys that are not over at some time, with their places: they may still be here because nobody has looked for a while.
fn under_way<'o>(journeys: &'o [Open], time_ns: u64, points: &'o Points) -> impl Iterator<Item = (usize, &'o Open)> {
    journeys.iter().enumerate().filter(move |(_, open)| time_ns < open.over_ns(points))
}

/// Of journeys that fit, with how well and when they were heard of last, the one a sighting belongs to.
fn best<P: Copy>(candidates: &[(usize, P, u32, u64)]) -> Option<(usize, P)> {
    /// Packets that follow each other within this are in one queue.
    const QUEUE_NS: u64 = 2_000_000;
    let likest = candidates.iter().map(|candidate| candidate.2).max()?;
    let latest = candidates.iter().filter(|one| one.2 == likest).map(|one| one.3).max()?;
    let first = candidates.iter().find(|one| one.2 == likest && latest - one.3 <= QUEUE_NS)?;
    Some((first.0, first.1))
}

#[cfg(test)]
pub(crate) mod simulation;
#[cfg(test)]
mod tests;
