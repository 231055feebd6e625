//! Names for the kernel's numbers, and devices for those the programs could not name. Flow: observe.

use std::sync::Arc;

use netdiag_model::{
    fact::Gap,
    id::LinkKey,
    live::{Sighting, What},
};

use super::{
    Point,
    btf::Btf,
    gap,
    reason::Reasons,
    record::{GivenUp, Record},
    symbol::Symbols,
};

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
        if let Some(GivenUp { reason, place, of_socket }) = dropped {
            let (reason, subsystem) = self.reasons.name(reason);
            let location = self.symbols.as_ref().and_then(|symbols| symbols.name(place));
            let copy = of_socket && is_purge(&reason, location.as_deref());
            sighting.what = What::Dropped { reason, subsystem, location, copy };
        } else if sighting.link.is_none() {
            sighting.link = only(points, ifindex);
        }
        sighting
    }
}

/// Whether all that waited in a queue was given up; a kernel that has no such reason says where that was done.
fn is_purge(reason: &str, location: Option<&str>) -> bool {
    reason == "QUEUE_PURGE" || location.is_some_and(|location| location.starts_with("skb_queue_purge"))
}

/// The device of an index, where only one of those that are watched has it.
fn only(points: &[Point], ifindex: u32) -> Option<LinkKey> {
    let mut links = points.iter().map(|point| point.link).filter(|link| link.ifindex.0 == ifindex);
    let first = links.next()?;
    links.all(|link| link == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::is_purge;

    #[test]
    fn a_queue_is_purged_where_the_kernel_says_so_or_in_the_function_that_does_it() {
        assert!(is_purge("QUEUE_PURGE", None));
        assert!(is_purge("NOT_SPECIFIED", Some("skb_queue_purge+0x2b")), "before there was the reason");
        assert!(!is_purge("NOT_SPECIFIED", Some("packet_rcv+0x2b")));
        assert!(!is_purge("NO_SOCKET", None));
    }
}
