//! What packets of an instance did at each hop of its path while they were watched: how many were seen, how many died, how
//! long they took from the device before.

use std::collections::HashMap;

use netdiag_model::{
    live::{
        journey::statistics::Statistics,
        points::{Place, Points},
        report::Told,
    },
    trace::{Direction, Hop},
};

/// A hop: place of its interface, direction, number.
type At = (usize, Direction, usize);

/// Packets being added up.
#[derive(Debug, Default)]
pub struct Follower {
    statistics: Statistics,
    died: HashMap<At, Died>,
    /// What had been seen of each hop at the moment that was told last.
    told: Option<(u64, HashMap<At, u64>)>,
}

/// What was seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Whose.
    pub(crate) id: String,
    /// Packets.
    pub(crate) packets: u64,
    /// Those that died.
    pub(crate) dead: u64,
    /// Those of which nothing can be said.
    pub(crate) unclear: u64,
    seen: HashMap<At, Seen>,
    died: HashMap<At, Died>,
}

/// What was seen at a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its name.
    pub(crate) name: String,
    /// Packets.
    pub(crate) packets: u64,
    /// Packets a second, where that is known.
    pub(crate) rate: Option<u64>,
    /// Half of them, and 99 of 100, came here from the device before in no longer than this, in nanoseconds.
    pub(crate) took: Option<(u64, u64)>,
}

/// Packets that died at a hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Died {
    /// How many.
    pub(crate) packets: u64,
    /// Why the last of them did.
    pub(crate) sentence: String,
}

/// The way a hop of the trace stands for.
const fn way(direction: Direction) -> Direction {
    match direction {
        Direction::Outward | Direction::Lateral => Direction::Outward,
        Direction::Inward => Direction::Inward,
    }
}

impl Follower {
    /// Adds a packet.
    pub fn add(&mut self, told: &Told) {
        self.statistics.add(&told.journey);
        let Some((blame, hop)) = told.blame.as_ref().and_then(|blame| Some((blame, blame.hop?))) else { return };
        let died = self.died.entry((told.journey.track, way(blame.direction), hop)).or_default();
        died.packets += 1;
        died.sentence.clone_from(&blame.sentence);
    }

    /// What was seen so far, with how much a second since it was told last.
    pub fn tell(&mut self, id: &str, points: &Points, at_ms: u64) -> Followed {
        let at = |direction, place: Place| {
            let number = points.stop(place)?.hop(direction)?;
            Some((place.track, way(direction), number))
        };
        let legs =
            self.statistics.legs().filter_map(|leg| Some((at(leg.direction, leg.to)?, (leg.p50_ns, leg.p99_ns))));
        let took: HashMap<At, (u64, u64)> = legs.collect();
        let before = self.told.take();
        let rate = |at: &At, packets: u64| {
            let (then, counted) = before.as_ref()?;
            let more = packets - counted.get(at).copied().unwrap_or(0);
            more.saturating_mul(1000).checked_div(at_ms.saturating_sub(*then))
        };
        let mut seen = HashMap::new();
        for (direction, place, hop) in self.statistics.hops() {
            let Some((at, stop)) = at(direction, place).zip(points.stop(place)) else { continue };
            let took = took.get(&at).copied();
            seen.insert(at, Seen { name: stop.name.clone(), packets: hop.seen, rate: rate(&at, hop.seen), took });
        }
        self.told = Some((at_ms, seen.iter().map(|(at, seen)| (*at, seen.packets)).collect()));
        let Statistics { journeys: packets, dead, inconclusive: unclear, .. } = self.statistics;
        Followed { id: id.to_owned(), packets, dead, unclear, seen, died: self.died.clone() }
    }
}

impl Followed {
    /// What was seen at a hop. It may have got another number since; then nothing is known of it.
    pub(crate) fn seen(&self, interface: usize, hop: &Hop) -> Option<&Seen> {
        let seen = self.seen.get(&(interface, way(hop.direction), hop.number))?;
        (seen.name == hop.name && hop.direction != Direction::Lateral).then_some(seen)
    }

    /// Why the most of them died; none where nobody knows of any.
    pub(crate) fn worst(&self) -> Option<&str> {
        self.died.values().max_by_key(|died| died.packets).map(|died| &*died.sentence)
    }

    /// Packets that died at a hop.
    pub(crate) fn died(&self, interface: usize, hop: &Hop) -> Option<&Died> {
        let died = self.died.get(&(interface, way(hop.direction), hop.number))?;
        (hop.direction != Direction::Lateral).then_some(died)
    }
}

#[cfg(test)]
impl Followed {
    /// As if packets had been seen at every hop of a path that is a device's, and had died at one of them.
    pub(crate) fn made(id: &str, trace: &netdiag_model::trace::Trace, dies_at: usize) -> Self {
        let mut followed = Self { id: id.to_owned(), packets: 210, dead: 3, ..Self::default() };
        for (interface, _, hop) in super::sheet::hops::all(trace).filter(|(_, _, hop)| hop.counters.is_some()) {
            let at = (interface, way(hop.direction), hop.number);
            let took = (hop.number > 3).then(|| (1_500 * hop.number as u64, 90_000 * hop.number as u64));
            let seen = Seen { name: hop.name.clone(), packets: 210, rate: Some(21), took };
            followed.seen.insert(at, seen);
        }
        let sentence = "no rule of security group web allows tcp 22 from 203.0.113.7".to_owned();
        followed.died.insert((0, Direction::Outward, dies_at), Died { packets: 3, sentence });
        followed
    }
}
