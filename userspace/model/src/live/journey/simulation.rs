//! Packets on made-up paths, for tests: what probes would say of them.

use std::net::Ipv4Addr;

use super::*;
use crate::{
    id::{IfIndex, Mac, NetnsId},
    live::{
        Layer, View,
        points::{Segment, Stop, Track, segment},
    },
    trace::HopKind,
};

pub(crate) const FIXED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const FLOATING: Ipv4Addr = Ipv4Addr::new(172, 24, 4, 6);
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub(crate) const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(crate) const OWN_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A link by the number of its stop.
pub(crate) fn link(stop: usize) -> LinkKey {
    let number = stop as u64;
    LinkKey {
        netns: NetnsId { inode: 100 + number, cookie: number },
        ifindex: IfIndex(u32::try_from(stop).unwrap() + 2),
    }
}

/// A path of devices by kind and side.
pub(crate) fn points(kinds: &[(&str, HopKind, Side)]) -> Points {
    let stop = |(number, (name, kind, side)): (usize, &(&str, HopKind, Side))| Stop {
        link: link(number),
        name: (*name).to_owned(),
        netns: if *kind == HopKind::InnerDevice { "web-1".to_owned() } else { "host".to_owned() },
        kind: *kind,
        outward: Some(number + 1),
        inward: Some(kinds.len() - number),
        side: *side,
        view: View::Tc,
        mac: Some(ROUTER_MAC),
        routes: *kind == HopKind::RouterPort,
        copied: false,
        segment: Segment::default(),
    };
    let mut stops: Vec<Stop> = kinds.iter().enumerate().map(stop).collect();
    segment::tell(&mut stops, Some(OWN_MAC));
    let routers = stops.iter().filter(|stop| stop.routes).map(|stop| (stop.link.netns, GATEWAY.into())).collect();
    let subnets = vec!["10.0.0.0/24".parse().unwrap()];
    let elsewhere = vec!["10.0.1.0/24".parse().unwrap()];
    let own = vec![FIXED.into(), FLOATING.into()];
    let outside = vec![FLOATING.into()];
    let track = Track { stops, own, outside, subnets, elsewhere, routers, ..Track::default() };
    Points { instance: "web-1".to_owned(), tracks: vec![track], ..Points::default() }
}

/// Container, tap, router, NIC: as Neutron builds it.
pub(crate) fn neutron() -> Points {
    points(&[
        ("eth0", HopKind::InnerDevice, Side::Sent),
        ("tap1", HopKind::HostDevice, Side::Received),
        ("qr-1", HopKind::RouterPort, Side::Received),
        ("qg-1", HopKind::RouterPort, Side::Sent),
        ("eth1", HopKind::Uplink, Side::Sent),
    ])
}

/// What a packet is made of.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) source: (Ipv4Addr, u16),
    pub(crate) destination: (Ipv4Addr, u16),
    pub(crate) kind: Kind,
    pub(crate) id: u16,
    pub(crate) vlan: Option<u16>,
    pub(crate) tunnelled: bool,
    pub(crate) hops: u8,
    /// Source and destination of its frame.
    pub(crate) macs: (Mac, Mac),
}

/// A packet as bytes, from its IP header on.
#[derive(Clone, Debug)]
pub(crate) struct Piece(Vec<u8>);

/// What it carries.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Tcp { sequence: u32, flags: u8, payload: Vec<u8> },
    Udp(Vec<u8>),
    Echo { kind: u8, identifier: u16, number: u16, payload: Vec<u8> },
}

impl Made {
    pub(crate) fn new(kind: Kind) -> Self {
        let (source, destination) = ((FIXED, 40_000), (REMOTE, 443));
        let macs = (OWN_MAC, ROUTER_MAC);
        Self { source, destination, kind, id: 0, vlan: None, tunnelled: false, hops: 64, macs }
    }

    pub(crate) fn syn(sequence: u32) -> Self {
        Self::new(Kind::Tcp { sequence, flags: 2, payload: vec![] })
    }

    /// As its answer would come.
    pub(crate) fn answer(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }

    pub(crate) fn ip(&self) -> Vec<u8> {
        let ports = [self.source.1.to_be_bytes(), self.destination.1.to_be_bytes()].concat();
        let (protocol, carried) = match &self.kind {
            Kind::Tcp { sequence, flags, payload } => {
                let rest = [&[0, 0, 0, 9, 0x50, *flags, 1, 1, 0, 0, 0, 0][..], payload].concat();
                (6, [&ports[..], &sequence.to_be_bytes(), &rest].concat())
            }
            Kind::Udp(payload) => {
                let length = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
                (17, [&ports[..], &length, &[0, 0], payload].concat())
            }
            Kind::Echo { kind, identifier, number, payload } => {
                let head = [*kind, 0, 0, 0];
                (1, [&head[..], &identifier.to_be_bytes(), &number.to_be_bytes(), payload].concat())
            }
        };
        let total = u16::try_from(carried.len() + 20).unwrap().to_be_bytes();
        let id = self.id.to_be_bytes();
        let head = [0x45, 0, total[0], total[1], id[0], id[1], 0x40, 0, self.hops, protocol, 0, 0];
        [&head[..], &self.source.0.octets(), &self.destination.0.octets(), &carried].concat()
    }

    /// A fragment of it: so many bytes of what it carries, from one of them on.
    pub(crate) fn fragment(&self, offset: usize, length: usize) -> Piece {
        let whole = self.ip();
        let carried = &whole[20..];
        let mut head = whole[..20].to_vec();
        let more = if offset + length < carried.len() { 0x2000 } else { 0 };
        head[2..4].copy_from_slice(&u16::try_from(20 + length).unwrap().to_be_bytes());
        head[6..8].copy_from_slice(&(u16::try_from(offset / 8).unwrap() | more).to_be_bytes());
        Piece([&head, &carried[offset..offset + length]].concat())
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let tag = self.vlan.map(|vlan| [&[0x81, 0x00][..], &vlan.to_be_bytes()].concat()).unwrap_or_default();
        let (from, to) = self.macs;
        let frame = [&to.0[..], &from.0, &tag, &[0x08, 0x00], &self.ip()].concat();
        if !self.tunnelled {
            return frame;
        }
        let outside = Self {
            source: (Ipv4Addr::new(192, 0, 2, 1), 50_001),
            destination: (Ipv4Addr::new(192, 0, 2, 2), 4789),
            kind: Kind::Udp([&[8, 0, 0, 0, 0, 3, 0xe9, 0][..], &frame].concat()),
            id: 0,
            vlan: None,
            tunnelled: false,
            hops: 64,
            macs: (OWN_MAC, ROUTER_MAC),
        };
        outside.frame()
    }

    /// Seen at a stop, cut as the probes cut it.
    pub(crate) fn at(&self, time_ns: u64, stop: usize, side: Side) -> Sighting {
        let what = if side == Side::Sent { What::Sent(View::Tc) } else { What::Received(View::Tc) };
        self.seen(time_ns, (Some(link(stop)), what), Layer::Ethernet)
    }

    /// Given up at a stop.
    pub(crate) fn dropped(&self, time_ns: u64, stop: Option<usize>, reason: &str) -> Sighting {
        let what = What::Dropped {
            reason: reason.to_owned(),
            subsystem: "core".to_owned(),
            location: Some("nf_hook_slow+0xcd".to_owned()),
            copy: false,
        };
        self.seen(time_ns, (stop.map(link), what), Layer::Network)
    }

    fn seen(&self, time_ns: u64, (link, what): (Option<LinkKey>, What), layer: Layer) -> Sighting {
        let mut head = if layer == Layer::Ethernet { self.frame() } else { self.ip() };
        let length = u32::try_from(head.len()).unwrap();
        head.truncate(160);
        Sighting { time_ns, cpu: 0, link, what, buffer: 0, length, mark: 0, tag: None, layer, head }
    }
}

impl Piece {
    /// Seen at a stop, as a whole packet is.
    pub(crate) fn at(&self, time_ns: u64, stop: usize, side: Side) -> Sighting {
        let frame = [&ROUTER_MAC.0[..], &OWN_MAC.0, &[0x08, 0x00], &self.0].concat();
        let length = u32::try_from(frame.len()).unwrap();
        let head = frame[..frame.len().min(160)].to_vec();
        Sighting { length, head, ..Made::syn(0).at(time_ns, stop, side) }
    }
}

/// Everything that comes of some sightings, with all the time it takes.
pub(crate) fn joined(points: Points, sightings: Vec<Sighting>) -> Vec<Journey> {
    let mut journeys = Journeys::new(points);
    let end = sightings.iter().map(|sighting| sighting.time_ns).max().unwrap_or(0);
    let mut found = Vec::new();
    for sighting in sightings {
        let now = sighting.time_ns;
        journeys.see(sighting);
        found.extend(journeys.advance(now));
    }
    found.extend(journeys.advance(end + 2 * SETTLE_NS));
    found.extend(journeys.finish());
    found
}
