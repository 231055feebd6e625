//! Packets that become other packets on the way: devices cut what is larger than a segment and put segments together,
//! routers split datagrams.
//!
//! What the pieces share with the whole is the place of their bytes: in the stream of a connection, or in a datagram. Each
//! piece is a packet of its own from the beginning of the whole on, so that hops are compared by what is on the wire.

use std::collections::{BTreeMap, btree_map::Entry};

use super::content::Content;
use crate::live::packet::{Content as Carried, Headers, Ip, Transport};

/// Wholes that are looked at for one piece: the nearest, by where they begin.
const NEAREST: usize = 64;

/// Some bytes of something larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    of: Larger,
    start: u32,
    /// How many.
    pub(super) length: u32,
}

/// What bytes are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Larger {
    /// One direction of a connection: what is cut or put together has one acknowledgement number.
    Stream { acknowledgement: u32 },
    /// A datagram of IPv4.
    Datagram { protocol: u8, id: u16 },
}

impl Span {
    /// The bytes of a packet; none where nothing says of what they are.
    pub(super) fn of(headers: &Headers) -> Option<Self> {
        let ip = headers.innermost().ip()?;
        if let (Transport::Tcp { sequence, acknowledgement, length, .. }, None) = (&ip.transport, ip.fragment) {
            let of = Larger::Stream { acknowledgement: *acknowledgement };
            return (*length > 0).then_some(Self { of, start: *sequence, length: *length });
        }
        let of = Larger::Datagram { protocol: ip.protocol, id: ip.id };
        let start = ip.fragment.map_or(0, |(offset, _)| offset.into());
        (ip.id != 0).then_some(Self { of, start, length: ip.length })
    }

    /// Whether it has all bytes of another, and more.
    const fn exceeds(&self, part: &Self) -> bool {
        // Sequence numbers begin again behind the largest.
        let from = part.start.wrapping_sub(self.start) as u64;
        self.length > part.length && from + part.length as u64 <= self.length as u64
    }

    const fn at(self, start: u32, length: u32) -> Self {
        Self { start, length, ..self }
    }
}

/// Packets under way by their bytes. A whole that reaches over the largest sequence number is not found.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// Every packet.
    all: BTreeMap<Span, Vec<Content>>,
    /// Those that are not cut off others.
    wholes: BTreeMap<Span, Vec<Content>>,
}

impl Spans {
    /// Takes note of a packet.
    pub(super) fn add(&mut self, span: Span, content: &Content, is_part: bool) {
        for spans in [Some(&mut self.all), (!is_part).then_some(&mut self.wholes)].into_iter().flatten() {
            let known = spans.entry(span).or_default();
            if !known.contains(content) {
                known.push(content.clone());
            }
        }
    }

    /// Forgets a packet that is over.
    pub(super) fn remove(&mut self, span: Span, content: &Content) {
        for spans in [&mut self.all, &mut self.wholes] {
            let Entry::Occupied(mut known) = spans.entry(span) else { continue };
            known.get_mut().retain(|known| known != content);
            if known.get().is_empty() {
                known.remove();
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len().max(self.wholes.len())
    }

    /// Packets that a piece may have been cut off, the nearest first.
    pub(super) fn around(&self, piece: Span) -> Vec<Content> {
        let before = self.wholes.range(piece.at(0, 0)..=piece.at(piece.start, u32::MAX)).rev().take(NEAREST);
        before.filter(|(span, _)| span.exceeds(&piece)).flat_map(|(_, contents)| contents).cloned().collect()
    }

    /// Packets that one may have been put together from, in order.
    pub(super) fn within(&self, whole: Span) -> Vec<Content> {
        let last = whole.start.saturating_add(whole.length);
        let inside = self.all.range(whole.at(whole.start, 0)..whole.at(last, 0));
        inside.filter(|(span, _)| whole.exceeds(span)).flat_map(|(_, contents)| contents).cloned().collect()
    }
}

/// Whether a piece and a whole have one end in common: where both change at once nobody can say whose it is.
pub(super) fn share_an_end(whole: &Headers, piece: &Headers) -> bool {
    let (Some(one), Some(other)) = (whole.innermost().ip(), piece.innermost().ip()) else { return false };
    let ports = one.transport.ports().zip(other.transport.ports());
    let same = |addresses: bool, port: fn((u16, u16)) -> u16| {
        addresses && ports.is_none_or(|(one, other)| port(one) == port(other))
    };
    let split = one.fragment.is_some() || other.fragment.is_some();
    let is_piece = one.protocol == other.protocol && (one.protocol == super::TCP || split);
    is_piece
        && (same(one.source == other.source, |ports| ports.0)
            || same(one.destination == other.destination, |ports| ports.1))
}

/// A piece as it was while it was part of the whole: with the ends the whole had there, and its own bytes.
pub(super) fn as_part(whole: &Headers, piece: &Headers) -> Headers {
    let mut headers = whole.clone();
    if let (Some(to), Some(from)) = (innermost(&mut headers), piece.innermost().ip()) {
        (to.id, to.length, to.fragment) = (from.id, from.length, from.fragment);
        let ports = to.transport.ports();
        to.transport = from.transport.clone();
        if let (Some(ports), Transport::Tcp { ports: own, .. } | Transport::Udp { ports: own, .. }) =
            (ports, &mut to.transport)
        {
            *own = ports;
        }
    }
    headers
}

fn innermost(headers: &mut Headers) -> Option<&mut Ip> {
    let Carried::Ip(ip) = &mut headers.content else { return None };
    if !matches!(ip.transport, Transport::Tunnel { .. }) {
        return Some(ip);
    }
    let Transport::Tunnel { inner, .. } = &mut ip.transport else { return None };
    innermost(inner)
}
