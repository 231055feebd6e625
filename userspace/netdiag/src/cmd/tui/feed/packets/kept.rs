//! Sightings of packets under way, so that a packet that is over can be written with its bytes at every device.

use std::collections::BTreeMap;

use netdiag_model::{
    id::LinkKey,
    live::{Sighting, journey::Journey, points::Points},
};

/// How long a packet may be under way: as long as it is waited for, and a while.
const UNDER_WAY_NS: u64 = 10_000_000_000;

/// The most that are kept.
const MOST: usize = 50_000;

/// Sightings by their time and device.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<(u64, Option<LinkKey>), Sighting>);

impl Kept {
    /// Keeps a sighting.
    pub(super) fn keep(&mut self, sighting: &Sighting) {
        if self.0.len() < MOST {
            self.0.insert((sighting.time_ns, sighting.link), sighting.clone());
        }
    }

    /// Those of a packet, in the order of its way.
    pub(super) fn of(&mut self, journey: &Journey, points: &Points) -> Vec<Sighting> {
        let steps = journey.steps.iter().map(|step| (step.time_ns, points.stop(step.place).map(|stop| stop.link)));
        let drops = journey.drops.iter().map(|drop| (drop.time_ns, drop.link));
        steps.chain(drops).filter_map(|key| self.0.remove(&key)).collect()
    }

    /// Lets those go whose packet must be over, and was not the instance's.
    pub(super) fn forget(&mut self, now_ns: u64) {
        self.0 = self.0.split_off(&(now_ns.saturating_sub(UNDER_WAY_NS), None));
    }
}

#[cfg(test)]
mod tests {
    use netdiag_model::live::{Layer, View, What};

    use super::*;

    fn sighting(time_ns: u64) -> Sighting {
        Sighting {
            time_ns,
            cpu: 0,
            link: None,
            what: What::Sent(View::Tc),
            buffer: 0,
            length: 60,
            mark: 0,
            tag: None,
            layer: Layer::Ethernet,
            head: vec![1],
        }
    }

    #[test]
    fn what_nobody_asked_for_is_let_go_after_a_while_and_never_piles_up() {
        let mut kept = Kept::default();
        kept.keep(&sighting(1));
        kept.keep(&sighting(UNDER_WAY_NS + 5));
        kept.forget(UNDER_WAY_NS + 6);
        assert_eq!(kept.0.keys().map(|(time, _)| *time).collect::<Vec<_>>(), [UNDER_WAY_NS + 5]);
        (0..2 * MOST as u64).for_each(|time| kept.keep(&sighting(time)));
        assert_eq!(kept.0.len(), MOST);
    }
}
