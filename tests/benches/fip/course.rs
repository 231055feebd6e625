//! The frames of one way: what is sent on it, and what is sent back.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use super::{
    batches::{BATCH, Frames},
    district::{BEYOND, District, INSTANCE},
    frames::{ACK, End, SYN, SYN_ACK, tcp},
    stats::Samples,
    world::OPEN,
};

/// Connections that are tracked: a multiple of the batch, and not less than there are floating IPs.
pub(super) const TRACKED: u32 = 10_048;
/// Connections that are new.
const FRESH: u32 = 2048;
/// Their first port outside: behind those that are tracked, and before those the kernel gives its sockets.
const FRESH_PORT: u16 = 30_100;
/// Length of the frames: the shortest there is.
pub(super) const LENGTH: usize = 60;
/// Where sockets outside are.
pub(super) const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Where the other end of a connection of frames is, by its port: anywhere in 198.18.0.0/15, in no order. Connections that differ
/// by one from the next fill a table more evenly than any do in life, or less, depending on its hash.
fn remote(port: u16) -> Ipv4Addr {
    // The mixing of MurmurHash3.
    let mixed = (u32::from(port) ^ u32::from(port) << 13).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    Ipv4Addr::from_bits(0xc612_0000 | (mixed ^ mixed >> 16) >> 15)
}

/// How an instance is reached on a way, and how it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// MAC addresses frames are sent to, inward and outward.
    pub(super) macs: [[u8; 6]; 2],
    /// Addresses the outside sends to, by place.
    pub(super) outside: (Ipv4Addr, u32),
    /// Addresses the instance has, by place; the number is how many there are.
    pub(super) inside: (Ipv4Addr, u32),
}

impl Ends {
    /// The place that is looked at alone: the one in the middle.
    pub(super) const fn middle(&self) -> u32 {
        self.outside.1 / 2
    }

    /// An address of a place.
    pub(super) fn address((first, count): (Ipv4Addr, u32), place: u32) -> Ipv4Addr {
        super::world::after(first, place % count)
    }

    pub(super) fn inward(&self, place: u32, flags: u8, port: u16) -> Vec<u8> {
        let to = End { mac: self.macs[0], address: IpAddr::V4(Self::address(self.outside, place)), port: OPEN };
        tcp(End { mac: BEYOND, address: IpAddr::V4(remote(port)), port }, to, flags, LENGTH)
    }

    pub(super) fn outward(&self, place: u32, flags: u8, port: u16) -> Vec<u8> {
        let from = End { mac: INSTANCE, address: IpAddr::V4(Self::address(self.inside, place)), port: OPEN };
        tcp(from, End { mac: self.macs[1], address: IpAddr::V4(remote(port)), port }, flags, LENGTH)
    }
}

/// What is measured of a way with frames.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) one: Samples,
    pub(super) turn: Samples,
    pub(super) new: Samples,
    pub(super) back: Samples,
}

/// Frames.
pub(super) struct Course {
    pub(super) ends: Ends,
    handshake: [Frames; 3],
    one: Frames,
    turn: Frames,
    fresh: Frames,
    back: Frames,
}

/// The port outside of a tracked connection.
fn port(place: u32) -> u16 {
    u16::try_from(20_000 + place).unwrap_or(u16::MAX)
}

impl Course {
    pub(super) fn new(ends: Ends) -> Self {
        let middle = ends.middle();
        let all = 0..TRACKED;
        let frames = |make: &dyn Fn(u32) -> Vec<u8>| Frames::new(all.clone().map(make).collect());
        let inward = |flags| frames(&|place| ends.inward(place, flags, port(place)));
        let [syn, answer, ack] = [inward(SYN), frames(&|place| ends.outward(place, SYN_ACK, port(place))), inward(ACK)];
        let fresh = (0..FRESH).map(|place| ends.inward(middle, SYN, FRESH_PORT + u16::try_from(place).unwrap_or(0)));
        Self {
            ends,
            handshake: [syn, answer, ack],
            one: Frames::new(vec![ends.inward(middle, ACK, port(middle)); BATCH]),
            turn: inward(ACK),
            fresh: Frames::new(fresh.collect()),
            back: Frames::new(vec![ends.outward(middle, ACK, port(middle)); BATCH]),
        }
    }

    /// Begins every connection that is tracked; how many frames that is, inward and outward.
    pub(super) fn begin(&mut self, district: &District) -> Result<[u64; 2]> {
        let (there, back) = (&district.outside.socket, &district.instance.socket);
        for (place, frames) in self.handshake.iter_mut().enumerate() {
            frames.send(if place == 1 { back } else { there })?;
        }
        Ok([u64::from(2 * TRACKED), u64::from(TRACKED)])
    }

    /// Measures; how many frames that is, inward and outward.
    pub(super) fn measure(
        &mut self,
        district: &District,
        (round, batches): (usize, usize),
        measured: &mut Measured,
    ) -> Result<[u64; 2]> {
        let (there, back) = (&district.outside.socket, &district.instance.socket);
        let part = (round * batches, batches);
        self.one.measure(there, part, &mut measured.one)?;
        self.turn.measure(there, part, &mut measured.turn)?;
        let new = self.fresh.batches();
        self.fresh.measure(there, (0, new), &mut measured.new)?;
        self.back.measure(back, part, &mut measured.back)?;
        let frames = |batches: usize| u64::try_from(batches * BATCH);
        Ok([frames(2 * batches + new)?, frames(batches)?])
    }
}
