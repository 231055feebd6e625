//! How a journey ends: where it should come to, and what its silence means.

use std::net::IpAddr;

use super::{ARRIVED_NS, Counted, Drop, Ended, SETTLE_NS, Step, open::Open};
use crate::{
    id::{LinkKey, Mac},
    live::{
        packet::{Content, Headers},
        points::{Points, Stop, Track},
        reasons,
    },
    trace::{Direction, HopKind},
};

impl Open {
    /// How it ended, if it has by now.
    pub(super) fn ended(&self, (counted, points): (&Counted, &Points), now_ns: u64) -> Option<Ended> {
        // Most are asked about again and again while they are under way.
        if now_ns < self.last_ns() + ARRIVED_NS {
            return None;
        }
        let over_ns = self.over_ns(points);
        (now_ns >= over_ns).then(|| self.outcome((counted, points), over_ns))
    }

    /// When it is over, if nothing is heard of it until then.
    pub(super) fn over_ns(&self, points: &Points) -> u64 {
        let known = self.has_come(points) || self.fatal(points).is_some() || self.took_shortcut(points);
        self.last_ns() + if known { ARRIVED_NS } else { SETTLE_NS }
    }

    /// How it ended, when nobody looks any longer: what may have gone on is not known to be lost.
    pub(super) fn at_the_end(&self, (counted, points): (&Counted, &Points), now_ns: u64) -> Ended {
        let settled = now_ns.saturating_sub(self.last_ns()) >= SETTLE_NS;
        let ended = self.outcome((counted, points), now_ns);
        if ended == Ended::NotSeenAfter && !settled { Ended::Inconclusive } else { ended }
    }

    fn outcome(&self, (counted, points): (&Counted, &Points), until_ns: u64) -> Ended {
        if let Some(drop) = self.fatal(points) {
            return Ended::Dropped { drop };
        }
        if self.has_come(points) {
            Ended::Delivered
        } else if self.aside {
            Ended::Aside
        } else if counted.lossy(self.began_ns(), until_ns) || self.may_be_translated(points) {
            Ended::Inconclusive
        } else if self.took_shortcut(points) {
            // What is refused there is given up, which somebody has to see.
            if points.blind { Ended::Inconclusive } else { Ended::Delivered }
        } else {
            Ended::NotSeenAfter
        }
    }

    /// The drop that nothing comes after: what was seen later was not dropped, but a copy of it.
    fn fatal(&self, points: &Points) -> Option<usize> {
        if self.drops.is_empty() {
            return None;
        }
        let last_step = self.steps.last().map_or(0, |step| step.time_ns);
        let to_many = self.steps.last().is_some_and(|step| is_to_many(step.headers.innermost()));
        // What was for many, somebody else may well let go of.
        if to_many && (self.aside || self.arrived) {
            return None;
        }
        let harmless = |drop: &Drop| is_harmless(drop) && self.has_come(points);
        let dies = |drop: &Drop| !harmless(drop) && !self.came_by(drop, points);
        let counts = |drop: &Drop| if self.aside { self.died_aside(drop, points) } else { dies(drop) };
        self.drops.iter().position(|drop| drop.time_ns >= last_step && counts(drop))
    }

    /// Whether it came to its end: also where the sighting is missing that would say so, if whoever had it there has let go of it.
    fn has_come(&self, points: &Points) -> bool {
        let at_end = |drop: &Drop| drop.link.is_some() && drop.link == self.end(points);
        self.arrived || self.drops.iter().any(|drop| is_harmless(drop) && at_end(drop))
    }

    /// The last device on its way.
    fn end(&self, points: &Points) -> Option<LinkKey> {
        let track = points.tracks.get(self.track)?;
        let last = track.stops.len().checked_sub(1)?;
        track.at(last, self.direction).map(|stop| stop.link)
    }

    /// Whether a packet for somebody on its own segment was given up by others to whom a switch has flooded it: also where the sighting
    /// is missing that would say that it has left.
    fn came_by(&self, drop: &Drop, points: &Points) -> bool {
        let destination = drop.headers.innermost().addresses().map(|(_, destination)| destination);
        let beyond = points.tracks.get(self.track).zip(destination).is_some_and(|(track, to)| track.is_beyond(to));
        drop.reason == "OTHERHOST" && self.direction != Direction::Inward && !beyond
    }

    /// Whether a packet that went to somebody else was given up on its way there: where whoever it is for is, or in the router
    /// that was to lead it on. Copies come to others too, who let go of them.
    fn died_aside(&self, drop: &Drop, points: &Points) -> bool {
        let Some(link) = drop.link.filter(|_| drop.reason != "OTHERHOST") else { return false };
        let last = self.steps.last().and_then(|step| points.stop(step.place));
        let in_router = last.is_some_and(|stop| stop.routes && stop.link.netns == link.netns);
        let destination = drop.headers.innermost().addresses().map(|(_, destination)| destination);
        let at_whom = points.others.get(&link).zip(destination);
        at_whom.map_or(in_router, |(behind, destination)| behind.contains(&destination))
    }

    /// Whether it came to a router that may have given it addresses nobody looks for.
    fn may_be_translated(&self, points: &Points) -> bool {
        let stop = self.steps.last().and_then(|step| points.stop(step.place));
        let track = points.tracks.get(self.track);
        stop.zip(track).is_some_and(|(stop, track)| stop.routes && track.opaque.contains(&stop.link.netns))
    }

    /// Whether netdiag's fast path has the packet.
    fn took_shortcut(&self, points: &Points) -> bool {
        takes_shortcut((self.track, self.direction), &self.steps, points)
    }

    /// Whether it is where it was to go, or leaves what is watched.
    pub(super) fn has_arrived(&self, points: &Points) -> bool {
        let Some(track) = points.tracks.get(self.track) else { return false };
        let Some(last) = self.steps.last() else { return false };
        let position = track.position(last.place.stop, self.direction);
        let Some(stop) = points.stop(last.place) else { return false };
        let goes_on = self.direction != Direction::Inward && track.broken;
        (position + 1 == track.stops.len() && !goes_on)
            || ends_at(track, stop, self.direction, last.headers.innermost())
    }

    /// Whether it went to somebody on its segment, or behind another device of its router, instead of along the path.
    pub(super) fn has_left(&self, points: &Points) -> bool {
        let Some(track) = points.tracks.get(self.track) else { return false };
        let Some(last) = self.steps.last() else { return false };
        let position = track.position(last.place.stop, self.direction);
        let Some(stop) = points.stop(last.place) else { return false };
        let headers = last.headers.innermost();
        let outward = self.direction != Direction::Inward;
        if stop.routes && comes_out(stop, self.direction) {
            let to_others = headers.ip().is_some_and(|ip| outward && track.is_elsewhere(ip.destination));
            return to_others || (is_to_many(headers) && !is_for(track, stop, headers));
        }
        // What is for the host's own card goes on in the host's network stack.
        if stop.kind == HopKind::Uplink && !outward && headers.frame.is_some_and(|(_, to)| Some(to) == stop.mac) {
            return false;
        }
        // Past its last device before a router a frame is for the router, or for somebody else on the segment.
        let next = track.at(position + 1, self.direction).filter(|next| next.routes && !stop.routes);
        // What is for somebody beyond is for the router, whatever the frame says: a wrong address in it is a fault.
        let beyond = headers.ip().is_some_and(|ip| outward && track.is_beyond(ip.destination));
        next.is_some_and(|next| !beyond && !is_for(track, next, headers))
    }
}

/// Whether netdiag's fast path has a packet: it is for the outside, from an address that goes past the router, and was on its
/// way to the device where such packets are taken before anything can see them.
pub(super) fn takes_shortcut((track, direction): (usize, Direction), steps: &[Step], points: &Points) -> bool {
    let Some(track) = points.tracks.get(track).filter(|_| direction == Direction::Outward) else { return false };
    let Some(last) = steps.last() else { return false };
    let Some(ip) = last.headers.innermost().ip() else { return false };
    track.shortcut(ip.source) == Some(last.place.stop + 1)
        && track.is_beyond(ip.destination)
        && !track.is_elsewhere(ip.destination)
}

/// Whether whoever gave a packet up had it, and no use for it.
fn is_harmless(drop: &Drop) -> bool {
    reasons::of(&drop.reason).is_some_and(reasons::Meaning::is_harmless)
}

/// Whether packets of a direction come out of a device there, into a network stack.
fn comes_out(stop: &Stop, direction: Direction) -> bool {
    stop.side == if direction == Direction::Inward { super::Side::Sent } else { super::Side::Received }
}

/// Whether a packet is for many: by broadcast or multicast, in its frame or by its address.
pub(in crate::live) fn is_to_many(headers: &Headers) -> bool {
    let by_address = headers.ip().is_some_and(|ip| match ip.destination {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    });
    by_address || headers.frame.is_some_and(|(_, to)| is_group(to))
}

/// Whether a packet ends in the network stack behind a device: it came out of it, and its address is that stack's own.
fn ends_at(track: &Track, stop: &Stop, direction: Direction, headers: &Headers) -> bool {
    let Some((_, destination)) = headers.addresses() else { return false };
    if !stop.routes || !comes_out(stop, direction) {
        return false;
    }
    let held = track.routers.iter().any(|(netns, address)| *netns == stop.link.netns && *address == destination);
    match &headers.content {
        // Whoever routes answers for the addresses it translates.
        Content::Arp(_) => held || track.own.contains(&destination),
        // What comes for an address it shares with others goes on to whoever opened the connection.
        Content::Ip(_) => held && !(direction == Direction::Inward && track.shared.contains(&destination)),
        Content::Other { .. } => false,
    }
}

/// Whether a frame on its segment is for the end of a router.
fn is_for(track: &Track, router: &Stop, headers: &Headers) -> bool {
    if let Content::Arp(arp) = &headers.content
        && arp.operation == 1
    {
        return holds(track, router, arp.target);
    }
    let Some((_, to)) = headers.frame else { return true };
    let Some(own) = router.mac else { return true };
    if is_to_many(headers) {
        headers.addresses().is_none_or(|(_, address)| holds(track, router, address))
    } else {
        to == own
    }
}

fn holds(track: &Track, router: &Stop, address: IpAddr) -> bool {
    track.routers.iter().any(|(netns, held)| *netns == router.link.netns && *held == address)
}

/// Whether a MAC address is a multicast or broadcast address.
pub(super) const fn is_group(mac: Mac) -> bool {
    mac.0[0] & 1 != 0
}
