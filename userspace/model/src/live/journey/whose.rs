//! Whose a packet is: tenants may have the same addresses, and their packets the same devices.
//!
//! An address means the instance where nobody else can have it: at its own devices, at its router's end of its network, and
//! everywhere if it is a floating IP. At a device of many the frame tells, which has the MAC address of the instance's router, or its own.
//! Where frames tell nothing, the address does if nobody else on the host is known to have it.

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
};

use super::{Drop, Flow, ending::is_group, open::Open, open::flow};
use crate::{
    event::VerdictEvent,
    id::{LinkKey, Mac},
    live::{
        Sighting,
        packet::Headers,
        points::{Place, Points, Segment, Side, Stop, Track},
    },
    trace::Direction,
};

/// A verdict is of a packet that was given up if no more lies between them.
const NEAR_NS: u64 = 100_000_000;

/// Where a packet was seen.
#[derive(Debug)]
pub(super) struct Spot {
    /// The device on each track it is on, and the direction of what passes that side of it.
    pub(super) places: Vec<(Place, Direction)>,
    /// Its frame says that it is somebody else's with the same address.
    pub(super) of_double: bool,
}

impl Spot {
    pub(super) fn of(link: Option<LinkKey>, side: Side, headers: &Headers, points: &Points) -> Self {
        let places: Vec<_> = link.into_iter().flat_map(|link| points.places(link, side)).collect();
        let of_double = link.is_some_and(|link| {
            let of_track =
                |place: Place| points.tracks.get(place.track).is_some_and(|track| has_outside(track, headers));
            !places.iter().any(|(place, _)| of_track(*place))
                && places.iter().any(|(_, direction)| is_doubles(points, link, headers, *direction))
        });
        Self { places, of_double }
    }

    /// Where a journey begins that no other takes: on the track whose packet it is, else of the address it is from or for, else
    /// on the first.
    pub(super) fn first_place(&self, headers: &Headers, points: &Points) -> (Place, Direction) {
        let told = self.places.iter().find(|(place, direction)| tells(points, *place, headers, *direction));
        let owner = owner(headers, points);
        let own = told.or_else(|| self.places.iter().find(|(place, _)| Some(place.track) == owner));
        own.or(self.places.first()).copied().unwrap_or((Place { track: 0, stop: 0 }, Direction::Outward))
    }
}

/// Whether the frame of a sighting says that the packet is somebody else's who has an address of the instance; of one that was given
/// up, which has none, the place.
pub fn is_anothers(sighting: &Sighting, points: &Points) -> bool {
    let headers = Headers::of(sighting);
    let Some(side) = Side::of(&sighting.what) else { return !place_tells(points, sighting.link, &headers) };
    let spot = Spot::of(sighting.link, side, &headers, points);
    let belies = |(place, direction): &(Place, Direction)| {
        let (Some(track), Some(stop)) = (points.tracks.get(place.track), points.stop(*place)) else { return false };
        let mac = near_end(&headers, *direction).and_then(|(_, mac)| mac).filter(|mac| !is_group(*mac));
        let others = mac.zip(stop.segment.near).is_some_and(|(mac, near)| mac != near);
        others && !stop.segment.own && is_doubtful(track, &headers, *direction)
    };
    spot.of_double || (!spot.places.is_empty() && spot.places.iter().all(belies))
}

/// Track and direction of a packet that was given up before it was seen anywhere.
pub(super) fn of_drop(drop: &Drop, points: &Points) -> (usize, Direction) {
    let addresses = drop.headers.innermost().addresses();
    let outward = addresses.and_then(|(source, _)| points.owner(source));
    let inward = addresses.and_then(|(_, destination)| points.owner(destination));
    match (outward, inward) {
        (Some(track), _) => (track, Direction::Outward),
        (None, Some(track)) => (track, Direction::Inward),
        (None, None) => (0, Direction::Outward),
    }
}

impl Open {
    /// Whether anything says that it is the instance's packet: a device nobody else uses, its address where that means nobody
    /// else, or that it answers what the instance has sent.
    pub(super) fn is_own(&self, points: &Points, asked: &HashSet<Flow>) -> bool {
        let Some(track) = points.tracks.get(self.track) else { return false };
        let inward = self.direction == Direction::Inward;
        let is_told = |place: Place, headers: &Headers| {
            tells(points, place, headers, self.direction)
                || (inward && track.is_published(headers))
                || (!is_doubtful(track, headers, self.direction) && answers(headers, asked))
        };
        !self.of_double
            && (self.steps.iter().any(|step| is_told(step.place, &step.headers))
                || self
                    .drops
                    .iter()
                    .any(|drop| drop_tells(points, drop) || (inward && track.is_published(&drop.headers))))
    }

    /// Whether netdiag itself refused it, which knows whose it was.
    pub(super) fn is_refused(&self, refused: &VecDeque<VerdictEvent>) -> bool {
        // They are in the order of their times: of many, those of long ago are not asked.
        let late = |event: &&VerdictEvent, drop: &Drop| event.time_ns.saturating_add(2 * NEAR_NS) >= drop.time_ns;
        let is_it = |drop: &Drop| {
            let mut lately = refused.iter().rev().take_while(|event| late(event, drop));
            lately.any(|event| is_about(event, drop))
        };
        !self.of_double && self.drops.iter().any(is_it)
    }
}

/// Whether a verdict is about a packet that was given up: by its time, addresses and ports.
fn is_about(event: &VerdictEvent, drop: &Drop) -> bool {
    let Some(ip) = drop.headers.innermost().ip() else { return false };
    event.time_ns.abs_diff(drop.time_ns) <= NEAR_NS
        && event.protocol == Some(ip.protocol)
        && (event.source, event.destination) == (Some(ip.source), Some(ip.destination))
        && ip.transport.ports().is_none_or(|ports| ports == (event.source_port, event.destination_port))
}

/// The track whose instance a packet is from or for.
fn owner(headers: &Headers, points: &Points) -> Option<usize> {
    let (source, destination) = headers.innermost().addresses()?;
    points.owner(source).or_else(|| points.owner(destination))
}

fn answers(headers: &Headers, asked: &HashSet<Flow>) -> bool {
    flow(headers).is_some_and(|flow| asked.contains(&flow))
}

/// Whether the instance's end of a packet is an address that others may have too.
fn is_doubtful(track: &Track, headers: &Headers, direction: Direction) -> bool {
    near_end(headers, direction).is_some_and(|(address, _)| track.inside().any(|inside| inside == address))
}

/// Whether it is clear from where a packet was seen, and what it is, that it is the instance's.
fn tells(points: &Points, place: Place, headers: &Headers, direction: Direction) -> bool {
    let (Some(track), Some(stop)) = (points.tracks.get(place.track), points.stop(place)) else { return false };
    if stop.is_private() || has_outside(track, headers) {
        return true;
    }
    let Some((address, mac)) = near_end(headers, direction).filter(|(address, _)| track.own.contains(address)) else {
        return false;
    };
    stop.segment.own || tells_frame(stop.segment, mac, points.doubles.addresses.contains(&address))
}

/// Whether a frame with one of the instance's addresses is the instance's, which others may have or are known to.
fn tells_frame(segment: Segment, mac: Option<Mac>, doubled: bool) -> bool {
    match (mac, segment.near) {
        // Whoever asks for an address asks whom he can reach without a router.
        (Some(mac), _) if is_group(mac) => segment.routers == 0 && !doubled,
        // Behind a second router frames of all who are behind it are alike.
        (Some(mac), Some(near)) => mac == near && (segment.routers < 2 || !doubled),
        (Some(_) | None, None) | (None, Some(_)) => !doubled,
    }
}

/// The same of a packet that was given up, which has no frame.
fn drop_tells(points: &Points, drop: &Drop) -> bool {
    place_tells(points, drop.link, &drop.headers)
}

/// Whether it is clear from where a packet was given up that it is the instance's.
fn place_tells(points: &Points, link: Option<LinkKey>, headers: &Headers) -> bool {
    let Some((source, destination)) = headers.innermost().addresses() else { return false };
    let is_here = |stop: &Stop| {
        let same = |link: LinkKey| stop.link == link || (stop.link.netns == link.netns && stop.netns != "host");
        stop.segment.own && link.is_some_and(same)
    };
    let tells = |track: &Track| {
        let own = [source, destination].into_iter().filter(|address| track.own.contains(address));
        let means = |address: IpAddr| {
            let doubled = points.doubles.addresses.contains(&address);
            !doubled || track.outside.contains(&address) || track.stops.iter().any(is_here)
        };
        own.into_iter().any(means)
    };
    points.tracks.iter().any(tells)
}

/// Whether a frame is that of somebody who has the same address.
fn is_doubles(points: &Points, link: LinkKey, headers: &Headers, direction: Direction) -> bool {
    let mac = near_end(headers, direction).and_then(|(_, mac)| mac);
    points.doubles.frames.get(&link).zip(mac).is_some_and(|(known, mac)| known.contains(&mac))
}

fn has_outside(track: &Track, headers: &Headers) -> bool {
    let ends = headers.innermost().addresses();
    ends.is_some_and(|(source, destination)| [source, destination].iter().any(|end| track.outside.contains(end)))
}

/// The instance's end of a packet: its address and its frame's.
fn near_end(headers: &Headers, direction: Direction) -> Option<(IpAddr, Option<Mac>)> {
    let inner = headers.innermost();
    let (source, destination) = inner.addresses()?;
    Some(match direction {
        Direction::Outward | Direction::Lateral => (source, inner.frame.map(|(from, _)| from)),
        Direction::Inward => (destination, inner.frame.map(|(_, to)| to)),
    })
}

#[cfg(test)]
mod tests;
