//! Numbers over many journeys: how long each part of the way takes, where packets are lost, and what is sent again.

use std::collections::{BTreeMap, VecDeque};

use super::{Ended, Journey};
use crate::{live::points::Place, trace::Direction};

/// Times of a part of the way that are kept; older ones are forgotten.
const KEPT: usize = 10_000;

/// Numbers over many journeys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Journeys.
    pub journeys: u64,
    /// Those that were delivered.
    pub delivered: u64,
    /// Those that left the path for somebody on their segment.
    pub aside: u64,
    /// Those that died: given up, or not seen again.
    pub dead: u64,
    /// Those of which nothing can be said, because sightings were lost.
    pub inconclusive: u64,
    /// Those that repeat an earlier packet.
    pub repeated: u64,
    hops: BTreeMap<(Direction, Place), Hop>,
    legs: BTreeMap<(Direction, Place, Place), VecDeque<u64>>,
}

/// Numbers of one device in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Packets seen there.
    pub seen: u64,
    /// Those that died after it.
    pub lost: u64,
    /// Those that repeat an earlier packet.
    pub repeated: u64,
}

/// How long a part of the way takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Direction.
    pub direction: Direction,
    /// From where.
    pub from: Place,
    /// To where.
    pub to: Place,
    /// How many packets were measured.
    pub packets: usize,
    /// Half of them took no longer than this, in nanoseconds.
    pub p50_ns: u64,
    /// 99 of 100 took no longer than this.
    pub p99_ns: u64,
}

impl Statistics {
    /// Counts a journey.
    pub fn add(&mut self, journey: &Journey) {
        self.journeys += 1;
        self.repeated += u64::from(journey.repeats.is_some());
        match journey.ended {
            Ended::Delivered => self.delivered += 1,
            Ended::Aside => self.aside += 1,
            Ended::Dropped { .. } | Ended::NotSeenAfter => self.dead += 1,
            Ended::Inconclusive => self.inconclusive += 1,
        }
        for step in &journey.steps {
            let hop = self.hops.entry((journey.direction, step.place)).or_default();
            hop.seen += 1;
            hop.repeated += u64::from(journey.repeats.is_some());
        }
        if let Some(last) = journey.steps.last().filter(|_| journey.ended.is_death()) {
            self.hops.entry((journey.direction, last.place)).or_default().lost += 1;
        }
        let mut behind = journey.steps.last().map_or(0, |step| step.time_ns);
        for pair in journey.steps.windows(2).rev() {
            let [from, to] = pair else { continue };
            // What was seen late at a device had left it by when it was seen behind.
            let reached = behind;
            behind = behind.min(from.time_ns);
            let times = self.legs.entry((journey.direction, from.place, to.place)).or_default();
            if times.len() == KEPT {
                times.pop_front();
            }
            times.push_back(reached - behind);
        }
    }

    /// Numbers of every device that was passed, in the order of the way.
    pub fn hops(&self) -> impl Iterator<Item = (Direction, Place, Hop)> {
        self.hops.iter().map(|((direction, place), hop)| (*direction, *place, *hop))
    }

    /// Numbers of one device.
    pub fn hop(&self, direction: Direction, place: Place) -> Hop {
        self.hops.get(&(direction, place)).copied().unwrap_or_default()
    }

    /// How long every part of the way takes.
    pub fn legs(&self) -> impl Iterator<Item = Leg> {
        self.legs.iter().map(|((direction, from, to), times)| {
            let mut sorted: Vec<u64> = times.iter().copied().collect();
            sorted.sort_unstable();
            let (direction, from, to) = (*direction, *from, *to);
            Leg {
                direction,
                from,
                to,
                packets: sorted.len(),
                p50_ns: quantile(&sorted, 50),
                p99_ns: quantile(&sorted, 99),
            }
        })
    }
}

/// The least of sorted times that so many of a hundred do not exceed (nearest rank).
fn quantile(sorted: &[u64], hundredths: usize) -> u64 {
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((quantile(&hundred, 50), quantile(&hundred, 99)), (50, 99));
        assert_eq!((quantile(&[7], 50), quantile(&[7], 99)), (7, 7));
        assert_eq!((quantile(&[1, 9], 50), quantile(&[1, 9], 99)), (1, 9));
        assert_eq!(quantile(&[], 50), 0);
    }
}
