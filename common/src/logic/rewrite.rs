//! Changes the addresses of an IPv4 packet, and every checksum that covers them. Flow: policy.
//!
//! One address of a packet changes, its MAC addresses become those of the next link, and its TTL shrinks as at a router. What an
//! ICMP error quotes changes with it (RFC 5508 section 4.2). Checksums are brought up to date, not computed (RFC 1624): one
//! that was wrong stays wrong.

use super::{
    flow::protocol::{DCCP, ICMP, TCP, UDP, UDPLITE},
    frame::{Frame, Head, Slice},
    packet::ETHERNET,
    short::halves,
    track::{Icmp, icmp},
};

/// Bytes of an Ethernet header and an IPv4 header without options.
pub const FRONT: usize = 34;
/// The same in half-words.
const FRONT_HALVES: usize = FRONT / 2;
/// Where the transport header of such a packet begins.
const TRANSPORT: u32 = FRONT as u32;
/// Where an ICMP error quotes a packet.
const QUOTED: u32 = TRANSPORT + 8;

/// Places of half-words in the front.
mod place {
    pub(super) const FRAGMENT: usize = 10;
    pub(super) const TTL: usize = 11;
    pub(super) const CHECKSUM: usize = 12;
    pub(super) const SOURCE: usize = 13;
    pub(super) const DESTINATION: usize = 15;
}

/// A packet that can be changed.
pub trait Rewrite: Frame {
    /// True if there is a device of that index, and it takes a packet as long as this one.
    fn fits(&self, device: u32) -> bool;

    /// Writes half-words from an offset on; false if the packet ends before, or cannot be written.
    fn store16<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool;

    /// Brings the transport checksum at an offset up to date with a word of the pseudo-header. `optional`: 0 there means that there
    /// is none (UDP). This one takes it for finished.
    #[inline(always)]
    fn pseudo_header(&mut self, offset: u32, from: u32, to: u32, optional: bool) -> bool {
        let Some([old]) = self.load16::<1>(offset) else { return false };
        self.store16(offset, &[refreshed(old, from, to, optional)])
    }
}

/// A transport checksum brought up to date. `optional`: 0 says that there is none and stays, and what comes to 0 is sent as its
/// other form.
#[inline(always)]
const fn refreshed(checksum: u16, from: u32, to: u32, optional: bool) -> u16 {
    if optional && checksum == 0 {
        return 0;
    }
    match updated_word(checksum, from, to) {
        0 if optional => 0xffff,
        new => new,
    }
}

/// A packet in memory that can be changed.
#[derive(Debug)]
pub struct Memory<'a>(pub &'a mut [u8]);

impl Memory<'_> {
    const fn slice(&self) -> Slice<'_> {
        Slice { bytes: self.0, tagged: false }
    }
}

impl Frame for Memory<'_> {
    fn length(&self) -> u32 {
        self.slice().length()
    }

    fn tagged(&self) -> bool {
        false
    }

    fn segment(&self) -> u32 {
        0
    }

    fn load16<const N: usize>(&self, offset: u32) -> Option<[u16; N]> {
        self.slice().load16(offset)
    }

    fn load32<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.slice().load32(offset)
    }

    fn head(&self, length: usize) -> Option<impl Head + '_> {
        (length <= self.0.len()).then_some(self.slice())
    }
}

impl Rewrite for Memory<'_> {
    fn fits(&self, _: u32) -> bool {
        true
    }

    fn store16<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool {
        let Some(place) = self.0.get_mut(offset as usize..offset as usize + 2 * N) else { return false };
        for (bytes, half) in place.chunks_mut(2).zip(halves) {
            bytes.copy_from_slice(&half.to_ne_bytes());
        }
        true
    }
}

/// Which address changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The source, of what leaves.
    Source,
    /// The destination, of what comes.
    Destination,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Which address.
    pub end: End,
    /// The address as it is, in network byte order.
    pub from: u32,
    /// The address as it shall be.
    pub to: u32,
    /// Destination and source MAC address as they shall be, by half-words.
    pub macs: [u16; 6],
    /// How much the TTL shrinks; it must have more.
    pub hops: u16,
}

/// A checksum brought up to date with a half-word that it covers.
#[inline(always)]
pub const fn updated(checksum: u16, from: u16, to: u16) -> u16 {
    let sum = !checksum as u32 + !from as u32 + to as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The same with a word.
#[inline(always)]
pub const fn updated_word(checksum: u16, from: u32, to: u32) -> u16 {
    let once = updated(checksum, from as u16, to as u16);
    updated(once, (from >> 16) as u16, (to >> 16) as u16)
}

/// Where the checksum with a pseudo-header is in a transport header; none where there is none.
#[inline(always)]
pub const fn checksum_place(protocol: u8) -> Option<u32> {
    match protocol {
        TCP => Some(16),
        UDP | UDPLITE | DCCP => Some(6),
        _ => None,
    }
}

/// True where a checksum is never 0, as 0 says that there is none (UDP) or is refused (UDP-Lite, RFC 3828 section 3.1): what comes to
/// 0 is sent as its other form.
#[inline(always)]
const fn is_never_zero(protocol: u8) -> bool {
    matches!(protocol, UDP | UDPLITE)
}

/// Does it, to a packet whose IP header has no options. False where the packet could not be changed whole: it must not go on.
#[inline(always)]
pub fn translate<R: Rewrite>(frame: &mut R, change: &Change) -> bool {
    let Some((front, protocol)) = front(frame, change) else { return false };
    if !frame.store16(0, &front) {
        return false;
    }
    let first = u16::from_be(front[place::FRAGMENT]).trailing_zeros() >= 13;
    match checksum_place(protocol) {
        Some(place) if first => frame.pseudo_header(TRANSPORT + place, change.from, change.to, is_never_zero(protocol)),
        None if protocol == ICMP && first => quoted(frame, change),
        _ => true,
    }
}

/// The front as it shall be, and the protocol.
#[inline(always)]
fn front<F: Frame>(frame: &F, change: &Change) -> Option<([u16; FRONT_HALVES], u8)> {
    let head = frame.head(FRONT)?;
    let mut front = [0; FRONT_HALVES];
    front[..6].copy_from_slice(&change.macs);
    for (place, half) in front.iter_mut().enumerate().skip(6) {
        *half = head.half(place);
    }
    let ttl = front[place::TTL];
    // The TTL is the upper octet as the packet has it.
    let shrunk = (u16::from_be(ttl).wrapping_sub(change.hops << 8)).to_be();
    let checksum = updated(front[place::CHECKSUM], ttl, shrunk);
    front[place::TTL] = shrunk;
    front[place::CHECKSUM] = updated_word(checksum, change.from, change.to);
    let [first, second] = halves(change.to);
    match change.end {
        End::Source => (front[place::SOURCE], front[place::SOURCE + 1]) = (first, second),
        End::Destination => (front[place::DESTINATION], front[place::DESTINATION + 1]) = (first, second),
    }
    Some((front, (u16::from_be(ttl) & 0xff) as u8))
}

/// Changes the packet that an ICMP error quotes: it went the other way. What is no error, or quotes something else, stays.
#[inline(always)]
fn quoted<R: Rewrite>(frame: &mut R, change: &Change) -> bool {
    let Some([kind]) = frame.load16::<1>(TRANSPORT) else { return true };
    if icmp(false, (u16::from_be(kind) >> 8) as u8) != Icmp::Error {
        return true;
    }
    let Some([first, fragment, protocol, source, destination]) = frame.load32::<5>(QUOTED) else { return true };
    let (address, at) = match change.end {
        End::Source => (destination, QUOTED + 16),
        End::Destination => (source, QUOTED + 12),
    };
    if address != change.from {
        return true;
    }
    let checksum = (u32::from_be(protocol) & 0xffff) as u16;
    let checksum = updated_word(checksum.to_be(), change.from, change.to);
    // The address and the checksum over it cancel out in the checksum of the ICMP packet.
    if !frame.store16(QUOTED + 10, &[checksum]) || !frame.store16(at, &halves(change.to)) {
        return false;
    }
    let later = u32::from_be(fragment) & 0x1fff != 0;
    let header = (u32::from_be(first) >> 24 & 0xf) * 4;
    let protocol = (u32::from_be(protocol) >> 16 & 0xff) as u8;
    later || quoted_transport(frame, change, QUOTED + header, protocol)
}

/// Brings the quoted transport checksum up to date, if as much is quoted, and the ICMP checksum with that.
#[inline(always)]
fn quoted_transport<R: Rewrite>(frame: &mut R, change: &Change, at: u32, protocol: u8) -> bool {
    let Some(place) = checksum_place(protocol) else { return true };
    // A header that is not quoted whole is left as it is, as netfilter leaves it.
    let needed = if protocol == TCP { 20 } else { 8 };
    if at + needed > end(frame) {
        return true;
    }
    let Some([old]) = frame.load16::<1>(at + place) else { return true };
    let new = refreshed(old, change.from, change.to, is_never_zero(protocol));
    let Some([icmp]) = frame.load16::<1>(TRANSPORT + 2) else { return false };
    frame.store16(at + place, &[new]) && frame.store16(TRANSPORT + 2, &[updated(icmp, old, new)])
}

/// Where the IP packet ends.
#[inline(always)]
fn end<F: Frame>(frame: &F) -> u32 {
    frame.load16::<1>(ETHERNET + 2).map_or(0, |[total]| ETHERNET + u32::from(u16::from_be(total)))
}

/// True if a transport checksum is as the sender leaves it for the hardware to finish: the sum of the pseudo-header alone. One in
/// 65,536 finished ones is that, too.
#[inline(always)]
pub fn is_partial<F: Frame>(frame: &F) -> bool {
    let Some(head) = frame.head(FRONT) else { return true };
    let protocol = (u16::from_be(head.half(place::TTL)) & 0xff) as u8;
    let total = u16::from_be(head.half(8));
    // A later fragment has none, and a packet is finished before it is taken to pieces.
    let later = u16::from_be(head.half(place::FRAGMENT)) & 0x1fff != 0;
    let Some(checksum) = checksum_place(protocol).filter(|_| !later) else { return false };
    let length = total.wrapping_sub(20).to_be();
    let addresses = [head.half(13), head.half(14), head.half(15), head.half(16)];
    let mut sum = u32::from(length) + u32::from(u16::from(protocol).to_be());
    for half in addresses {
        sum += u32::from(half);
    }
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    frame.load16::<1>(TRANSPORT + checksum).is_none_or(|[field]| field == sum)
}

#[cfg(test)]
mod tests;
