//! The way in, from a floating IP or a published port.
//!
//! Packets come in by the devices the way out leaves by, in the other order; what differs is what rules do to them. So
//! the devices are taken from the way out, and every place with rules is asked again for a packet that comes in.

use super::{
    Direction, FloatingIp, Hop, HopKind, HopState, Publication, enforcement, filter, floating as fast, outward::Way,
    path::Path,
};

/// The way in; empty where nothing outside can open a connection.
pub(super) fn path(way: &Way<'_, '_>, floating: &[FloatingIp], published: &[Publication]) -> Path {
    let mut path = Path::new(Direction::Inward);
    let mut targets = filter::Targets::of(floating, published);
    // Where the way out ends before any router, there is no way in to follow.
    if targets.is_empty() || way.legs.is_empty() {
        return path;
    }
    path.push(Hop {
        kind: HopKind::Outside,
        name: targets.words(),
        state: HopState::Ok,
        status: "from outside".to_owned(),
        ..Hop::default()
    });
    for hop in way.path.hops.iter().rev() {
        match hop.kind {
            // The outside is where this path starts; rules are asked again below.
            HopKind::NextHop | HopKind::Nat | HopKind::Namespace | HopKind::Filter | HopKind::FastPath => {}
            HopKind::SecurityGroup => enforcement::inward(way, &mut path),
            HopKind::HostDevice => {
                filter::inward_at_host_device(way, &mut path);
                path.push(hop.clone());
            }
            HopKind::Router => {
                let leg = way.legs.iter().find(|leg| hop.netns.as_ref().is_some_and(|netns| netns.id == leg.netns));
                let goes_on = leg.is_none_or(|leg| filter::routed_inward(way, leg, &mut targets, &mut path));
                // The note is the route out.
                path.push(Hop { note: String::new(), ..hop.clone() });
                if !goes_on {
                    break;
                }
            }
            HopKind::InnerDevice => {
                path.push(hop.clone());
                filter::lets_in(way, &mut path);
            }
            HopKind::Patch => path.push(other_way(hop)),
            HopKind::Uplink => {
                path.push(hop.clone());
                fast::inward(way, &mut path, &hop.name);
            }
            HopKind::Instance
            | HopKind::LinuxBridge
            | HopKind::Veth
            | HopKind::OvsPort
            | HopKind::OvsBridge
            | HopKind::Tunnel
            | HopKind::RouterPort
            | HopKind::Vlan
            | HopKind::Outside
            | HopKind::Service => path.push(hop.clone()),
        }
    }
    path
}

/// A patch pair seen from its other end.
fn other_way(hop: &Hop) -> Hop {
    let turn =
        |text: &str| text.split_once(" to ").map_or_else(|| text.to_owned(), |(from, to)| format!("{to} to {from}"));
    Hop { name: turn(&hop.name), note: turn(&hop.note), ..hop.clone() }
}
