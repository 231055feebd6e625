//! Journeys that are not over.

use std::{cmp::Reverse, collections::BinaryHeap, net::IpAddr};

use super::{
    ARRIVED_NS, Change, Drop, Ended, Flow, Journey, Step,
    content::{self, Content},
    pieces::{self, Span},
    whose::Spot,
};
use crate::{
    live::{
        Sighting,
        packet::{Headers, Transport},
        points::{Place, Points, Side, Stop},
        reasons, words,
    },
    trace::Direction,
};

/// What the same buffer weighs, beside addresses: it says most where NAT leaves little else.
const BUFFER: u32 = 16;

/// Packets to look at again, by when: the earliest first.
pub(super) type Due = BinaryHeap<Reverse<(u64, Content)>>;

/// A journey that is not over.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is said of a packet whatever the others are")]
pub(super) struct Open {
    pub(super) content: Content,
    pub(super) track: usize,
    pub(super) direction: Direction,
    pub(super) steps: Vec<Step>,
    pub(super) drops: Vec<Drop>,
    /// Where it must have come to be at its end, as far as that is known.
    pub(super) arrived: bool,
    /// Whether it left the path that is watched for somebody on its segment.
    pub(super) aside: bool,
    /// It was cut off another.
    pub(super) is_part: bool,
    /// It is somebody else's with the same address, as its frame says.
    pub(super) of_double: bool,
    /// Bytes of it that were cut off, and are under way by themselves.
    cut: u32,
    /// The bytes it is noted by among those of larger things.
    pub(super) span: Option<Span>,
    /// When it is looked at again, to see whether it is over.
    due_ns: u64,
    ended: Option<Ended>,
}

/// Reasons for which a packet dies before a packet socket has its copy; those of queueing disciplines besides.
const BEFORE_COPIES: [&str; 4] = ["XDP", "CPU_BACKLOG", "DEV_READY", "NOMEM"];

/// Whether it is the host's own stack that gave up what was left of a packet when Open vSwitch had its copy, by the reason: no
/// sighting has to say so, which may be lost.
pub(super) fn is_of_rest(drop: &Drop, direction: Direction, points: &Points) -> bool {
    let reason = drop.reason.as_str();
    let before = BEFORE_COPIES.contains(&reason) || reason.starts_with("QDISC") || reason == reasons::UNCLEAR;
    let devices = points.tracks.iter().flat_map(|track| &track.stops);
    let mut copied = devices.filter(|stop| stop.copied && Some(stop.link) == drop.link);
    !before && copied.any(|stop| stop.direction(Side::Received) == direction)
}

impl Open {
    pub(super) const fn new(content: Content, track: usize, direction: Direction) -> Self {
        Self {
            content,
            track,
            direction,
            steps: Vec::new(),
            drops: Vec::new(),
            arrived: false,
            aside: false,
            is_part: false,
            of_double: false,
            cut: 0,
            span: None,
            due_ns: u64::MAX,
            ended: None,
        }
    }

    /// The packet as it was heard of last.
    pub(super) fn latest(&self) -> Option<&Headers> {
        let step = self.steps.last().map(|step| (step.time_ns, &step.headers));
        let drop = self.drops.last().map(|drop| (drop.time_ns, &drop.headers));
        step.max_by_time(drop).map(|(_, headers)| headers)
    }

    /// When it was heard of last.
    pub(super) fn last_ns(&self) -> u64 {
        let step = self.steps.iter().map(|step| step.time_ns).max();
        self.drops.last().map_or(0, |drop| drop.time_ns).max(step.unwrap_or(0))
    }

    pub(super) fn began_ns(&self) -> u64 {
        let step = super::began_ns(&self.steps).unwrap_or(u64::MAX);
        self.drops.first().map_or(u64::MAX, |drop| drop.time_ns).min(step)
    }

    /// Whether a sighting of the same key may be of this packet.
    pub(super) fn fits(&self, headers: &Headers) -> bool {
        self.latest().is_none_or(|latest| content::may_be_one(latest, headers))
    }

    /// The place of a spot that this packet may have come to: further on its way than all before.
    pub(super) fn reaches(&self, spot: &Spot, points: &Points) -> Option<Place> {
        let is_new = |place: &Place| self.steps.last().is_none_or(|last| last.place != *place);
        self.place(spot).filter(|place| is_new(place) && self.turn(*place, points) == self.steps.len())
    }

    /// The place of a spot on this packet's way.
    fn place(&self, spot: &Spot) -> Option<Place> {
        let is_here = |(place, direction): &&(Place, Direction)| {
            place.track == self.track && *direction == self.direction && spot.of_double == self.of_double
        };
        spot.places.iter().find(is_here).map(|(place, _)| *place)
    }

    /// How many of its steps are not behind a place on its way.
    fn turn(&self, place: Place, points: &Points) -> usize {
        let Some(track) = points.tracks.get(self.track) else { return 0 };
        let position = |place: Place| track.position(place.stop, self.direction);
        self.steps.partition_point(|step| position(step.place) <= position(place))
    }

    /// The place of a spot that a sighting may be of this packet at.
    pub(super) fn takes(&self, spot: &Spot, (headers, time_ns): (&Headers, u64), points: &Points) -> Option<Place> {
        let further = self.reaches(spot, points).filter(|_| self.fits(headers));
        further.or_else(|| self.was_at(spot, (headers, time_ns), points))
    }

    /// The place of a spot that this packet has passed just before, though it was seen further on its way first: Open vSwitch has its
    /// copy before TC has the packet, and may have sent it on while an interrupt, or a hypervisor, kept TC waiting.
    fn was_at(&self, spot: &Spot, (headers, time_ns): (&Headers, u64), points: &Points) -> Option<Place> {
        let place = self.place(spot)?;
        let stop = points.stop(place).filter(|stop| stop.copied)?;
        let turn = self.turn(place, points);
        let behind = self.steps.get(turn).filter(|step| time_ns.saturating_sub(step.time_ns) <= ARRIVED_NS)?;
        let before = turn.checked_sub(1).and_then(|before| self.steps.get(before));
        let is_new = before.is_none_or(|step| step.place != place);
        let beside = &before.unwrap_or(behind).headers;
        let is_it = stop.direction(Side::Received) == self.direction && content::may_be_one(beside, headers);
        (is_new && is_it).then_some(place)
    }

    /// Whether what was cut off a packet, or put together from some, can have come of this one.
    pub(super) fn shares_an_end(&self, headers: &Headers) -> bool {
        self.latest().is_some_and(|latest| pieces::share_an_end(latest, headers))
    }

    /// Cuts a piece off, which has the way so far behind it.
    pub(super) fn cut_off(&mut self, content: Content, span: Span, piece: &Headers) -> Self {
        self.cut = self.cut.saturating_add(span.length);
        let as_part = |step: &Step| Step { headers: pieces::as_part(&step.headers, piece), ..step.clone() };
        let steps = self.steps.iter().map(as_part).collect();
        let of_double = self.of_double;
        Self { steps, is_part: true, of_double, ..Self::new(content, self.track, self.direction) }
    }

    /// Whether every byte of it was cut off.
    pub(super) fn is_cut_up(&self) -> bool {
        self.cut > 0 && self.latest().and_then(Span::of).is_some_and(|whole| self.cut >= whole.length)
    }

    /// Adds a device where it was seen as a part of something larger.
    pub(super) fn step_within(&mut self, place: Place, sighting: &Sighting, whole: &Headers, points: &Points) {
        let own = self.latest().map_or_else(|| whole.clone(), |own| pieces::as_part(whole, own));
        self.step(place, sighting, own, points);
    }

    /// How much a sighting looks like this packet.
    pub(super) fn likeness(&self, headers: &Headers, buffer: u64) -> u32 {
        let same_buffer = buffer != 0 && self.steps.last().is_some_and(|step| step.buffer == buffer);
        let ends = self.latest().map_or(0, |latest| content::likeness(latest, headers));
        ends + if same_buffer { BUFFER } else { 0 }
    }

    /// Adds a device it was seen at.
    pub(super) fn step(&mut self, place: Place, sighting: &Sighting, headers: Headers, points: &Points) {
        let step = Step {
            place,
            time_ns: sighting.time_ns,
            cpu: sighting.cpu,
            changes: Vec::new(),
            headers,
            length: sighting.length,
            buffer: sighting.buffer,
            mark: sighting.mark,
        };
        let turn = self.turn(place, points);
        self.steps.insert(turn, step);
        self.compare(turn);
        self.compare(turn + 1);
        self.arrived = self.has_arrived(points);
        self.aside = self.has_left(points);
    }

    /// Says what became of it from the step before to one of its steps.
    fn compare(&mut self, step: usize) {
        let Some((before, [after, ..])) = self.steps.split_at_mut_checked(step) else { return };
        if let Some(before) = before.last() {
            after.changes = changes(&before.headers, &after.headers);
        }
    }

    /// Adds where it, or a copy of it, was given up. What Open vSwitch has taken a copy of dies in the host's own stack,
    /// which says nothing.
    pub(super) fn drop(&mut self, drop: Drop, points: &Points) {
        let unclear = drop.reason == reasons::UNCLEAR && self.passed(&drop, points);
        if !unclear && !is_of_rest(&drop, self.direction, points) {
            self.drops.push(drop);
        }
    }

    /// Whether the packet had come out of the device the drop is about, and copies are taken there.
    fn passed(&self, drop: &Drop, points: &Points) -> bool {
        let is_it = |step: &Step| {
            let stop = points.stop(step.place).filter(|stop| stop.copied && Some(stop.link) == drop.link);
            stop.is_some_and(|stop| stop.direction(Side::Received) == self.direction)
        };
        self.steps.iter().any(is_it)
    }

    /// Has it looked at when it would be over, unless it is before that: something was heard of it.
    pub(super) fn look_again(&mut self, points: &Points, due: &mut Due) {
        let over_ns = if self.is_cut_up() { 0 } else { self.over_ns(points) };
        if over_ns < self.due_ns {
            self.due_ns = over_ns;
            due.push(Reverse((over_ns, self.content.clone())));
        }
    }

    /// The same after it has been looked at, if it was its turn, and was not over.
    pub(super) fn look_later(&mut self, now_ns: u64, points: &Points, due: &mut Due) {
        if self.due_ns <= now_ns {
            self.due_ns = u64::MAX;
            self.look_again(points, due);
        }
    }

    /// Ends of its conversation, as it was seen first.
    pub(super) fn flow(&self) -> Option<Flow> {
        let headers = self.steps.first().map(|step| &step.headers).or(self.drops.first().map(|drop| &drop.headers))?;
        flow(headers)
    }

    /// Ends of the conversation of what was seen last, as an answer has them.
    pub(super) fn answer(&self) -> Option<Flow> {
        let (source, destination, ports) = flow(&self.steps.last()?.headers)?;
        Some((destination, source, (ports.1, ports.0)))
    }

    /// Takes it out of the open ones.
    pub(super) fn take(&mut self, ended: Ended) -> Self {
        let taken = Self { span: self.span, ..Self::new(self.content.clone(), self.track, self.direction) };
        let open = std::mem::replace(self, taken);
        Self { ended: Some(ended), ..open }
    }

    /// The journey it was.
    pub(super) fn journey(self, number: u64, repeats: Option<u64>, points: &Points) -> Journey {
        let nearest = match self.direction {
            Direction::Outward | Direction::Lateral => self.steps.first(),
            Direction::Inward => self
                .steps
                .last()
                .filter(|step| points.stop(step.place).is_some_and(Stop::is_private))
                .or(self.steps.first()),
        };
        let packet = nearest.map(|step| &step.headers).or(self.drops.first().map(|drop| &drop.headers));
        let packet = packet.map(|headers| headers.innermost().clone());
        Journey {
            number,
            track: self.track,
            direction: self.direction,
            packet: packet.unwrap_or_else(Headers::unknown),
            steps: self.steps,
            drops: self.drops,
            ended: self.ended.unwrap_or(Ended::NotSeenAfter),
            repeats,
        }
    }
}

/// Ends of a conversation.
pub(super) fn flow(headers: &Headers) -> Option<Flow> {
    let inner = headers.innermost();
    let (source, destination) = inner.addresses()?;
    Some((source, destination, inner.ports().unwrap_or_default()))
}

/// The later of two.
trait Later<T> {
    fn max_by_time(self, other: Option<(u64, T)>) -> Option<(u64, T)>;
}

impl<T> Later<T> for Option<(u64, T)> {
    fn max_by_time(self, other: Self) -> Self {
        match (self, other) {
            (Some(one), Some(two)) => Some(if two.0 > one.0 { two } else { one }),
            (one, two) => one.or(two),
        }
    }
}

/// What became of a packet between two sightings.
fn changes(before: &Headers, after: &Headers) -> Vec<Change> {
    let mut found = Vec::new();
    let vni = |headers: &Headers| match headers.ip()?.transport {
        Transport::Tunnel { vni, .. } => Some(vni),
        Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Icmp(_)
        | Transport::Sctp { .. }
        | Transport::Ports { .. }
        | Transport::None => None,
    };
    match (vni(before), vni(after)) {
        (None, Some(vni)) => found.push(Change::Encapsulated { vni }),
        (Some(_), None) => found.push(Change::Decapsulated),
        (None, None) | (Some(_), Some(_)) => {}
    }
    let (before, after) = (before.innermost(), after.innermost());
    if before.vlans != after.vlans {
        found.push(Change::Vlans { from: before.vlans.clone(), to: after.vlans.clone() });
    }
    let (Some(old), Some(new)) = (ends(before), ends(after)) else { return found };
    if old.0 != new.0 {
        found.push(Change::Source { from: words::end(old.0.0, old.0.1), to: words::end(new.0.0, new.0.1) });
    }
    if old.1 != new.1 {
        found.push(Change::Destination { from: words::end(old.1.0, old.1.1), to: words::end(new.1.0, new.1.1) });
    }
    found
}

/// An address, with its port where there are any.
type End = (IpAddr, Option<u16>);

/// Source and destination.
fn ends(headers: &Headers) -> Option<(End, End)> {
    let (source, destination) = headers.addresses()?;
    let ports = headers.ip().and_then(|ip| ip.transport.ports());
    Some(((source, ports.map(|ports| ports.0)), (destination, ports.map(|ports| ports.1))))
}
