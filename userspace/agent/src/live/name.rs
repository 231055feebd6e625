//! Names for the kernel's numbers, and devices for those the programs could not name. Flow: observe.

use std::sync::Arc;

use netdiag_model::{
    fact::Gap,
    id::LinkKey,
    live::{Sighting, What},
};

use super::{Point, btf::Btf, gap, reason::Reasons, record::Record, symbol::Symbols};

/// Names of reasons and functions.
#[derive(Debug)]
pub(super) struct Names {
    reasons: Reasons,
    symbols: Option<Symbols>,
}

impl Names {
    /// Those of the running kernel. Without names of functions places are not told, which is a gap where anybody would see one.
    pub(super) fn new(btf: Option<Arc<Btf>>, drops: bool, gaps: &mut Vec<Gap>) -> Self {
        let symbols = drops.then(Symbols::read).and_then(|symbols| {
            symbols.map_err(|error| gaps.push(gap("names of the kernel's functions", error.to_string()))).ok()
        });
        Self { reasons: Reasons::new(btf), symbols }
    }

    /// The packet of a record.
    pub(super) fn name(&mut self, record: Record, points: &[Point]) -> Sighting {
        let Record { mut sighting, ifindex, dropped } = record;
        if let Some((number, place)) = dropped {
            let (reason, subsystem) = self.reasons.name(number);
            let location = self.symbols.as_ref().and_then(|symbols| symbols.name(place));
            sighting.what = What::Dropped { reason, subsystem, location };
        } else if sighting.link.is_none() {
            sighting.link = only(points, ifindex);
        }
        sighting
    }
}

/// The device of an index, where only one of those that are watched has it.
fn only(points: &[Point], ifindex: u32) -> Option<LinkKey> {
    let mut links = points.iter().map(|point| point.link).filter(|link| link.ifindex.0 == ifindex);
    let first = links.next()?;
    links.all(|link| link == first).then_some(first)
}
