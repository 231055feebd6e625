//! What frames of an instance look like at the devices of its path: tenants may have the same addresses, and a device of many
//! has packets of all of them.

use crate::id::{Mac, NetnsId};

use super::{Side, Stop};

/// The segment a device is on, as seen from the instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// MAC address of the instance's end of it, its own or its router's: what leaves comes from there, what comes in goes
    /// there. None where nothing tells.
    pub near: Option<Mac>,
    /// Routers between the instance and it.
    pub routers: usize,
    /// Nobody else can have the instance's address here: its own devices, and its router's end of its network.
    pub own: bool,
}

/// Tells every stop of a path its segment, from the instance with its MAC address outward.
pub(in crate::live) fn tell(stops: &mut [Stop], instance: Option<Mac>) {
    let mut segment = Segment { near: instance, ..Segment::default() };
    let mut inside: Option<NetnsId> = None;
    for stop in stops {
        let leaves = stop.routes && stop.side == Side::Sent;
        if leaves && inside.is_none() {
            segment.routers += 1;
        }
        if leaves || inside == Some(stop.link.netns) {
            segment.near = stop.mac;
        } else if inside.is_some() {
            // It left the router by a device that is not on the path.
            segment.near = None;
        }
        let entrance = stop.routes && !leaves;
        stop.segment = Segment { own: stop.is_private() || (entrance && segment.routers == 0), ..segment };
        segment.routers += usize::from(entrance);
        inside = entrance.then_some(stop.link.netns);
    }
}
