//! Plain packets: TCP or UDP, whole, in IPv4 without options or IPv6 without extensions, and no tunnel's. Flow: observe.
//!
//! Most packets are. Whom they are between lies at fixed places, so they need not be read layer by layer; and the filter says
//! the same of every packet of a flow, so what it said is kept. Of what is not plain nothing is said here.

use super::{Layer, is_tunnel, wanted};
use crate::{
    abi::live::Config,
    logic::{
        flow::protocol::{TCP, UDP},
        frame::Head,
        packet::{ethertype, mapped},
    },
};

/// Bytes of an IPv4 header without options, and of two ports.
const HEAD4: usize = 24;
/// Bytes of an IPv6 header, and of two ports.
const HEAD6: usize = 44;

/// A packet whose IP header comes first, or right behind an Ethernet header without tags.
pub trait Packet {
    /// Ethertype and the two bytes behind it, as they lie in the packet; where it has no Ethernet header, the ethertype that
    /// `first`, the first two bytes of its IP header, would have. Asked for only where the IP header is there.
    fn kind(&self, first: impl FnOnce() -> u16) -> u32;

    /// Its first bytes from the IP header on; none if fewer lie in one piece.
    fn network(&self, length: usize) -> Option<impl Head>;
}

/// The kind of a packet without an Ethernet header, by the first two bytes of its IP header as they lie there.
#[inline(always)]
pub fn kind_of_network(first: u16) -> u32 {
    let ethertype = if u16::from_be(first) >> 12 == 6 { ethertype::IPV6 } else { ethertype::IPV4 };
    (u32::from(ethertype) << 16 | u32::from(u16::from_be(first))).to_be()
}

/// Whom a plain packet is between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// In IPv4.
    Four(Flow4),
    /// In IPv6.
    Six(Flow6),
}

/// Whom a plain packet of IPv4 is between.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow4 {
    /// Both addresses as they lie in the packet.
    addresses: u64,
    /// Both ports as they lie in the packet, then the protocol.
    rest: u64,
}

/// Whom a plain packet of IPv6 is between.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow6 {
    /// Each address in two, as they lie in the packet.
    addresses: [u64; 4],
    /// Both ports as they lie in the packet, then the protocol.
    rest: u64,
}

impl PartialEq for Flow6 {
    /// Without a branch, and without the loop over bytes that a derived one would be.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let [first, second, third, fourth] = self.addresses;
        let [other_first, other_second, other_third, other_fourth] = other.addresses;
        let addresses =
            (first ^ other_first) | (second ^ other_second) | (third ^ other_third) | (fourth ^ other_fourth);
        addresses | (self.rest ^ other.rest) == 0
    }
}

impl Eq for Flow6 {}

/// The kind of a packet of IPv4 without options: ethertype, version and length.
const PLAIN_IPV4: u32 = u32::to_be(0x0800_4500);
const FIRST_BYTE: u32 = u32::to_be(0xffff_ff00);
/// The kind of a packet of IPv6: ethertype and version.
const PLAIN_IPV6: u32 = u32::to_be(0x86dd_6000);
const VERSION: u32 = u32::to_be(0xffff_f000);
/// Of the word with it what a fragment has, and nothing else: more fragments, or an offset; and the protocol behind that.
const FRAGMENT_AND_PROTOCOL: u32 = u32::to_be(0x3fff_00ff);
/// Where what tells TCP and UDP apart is in the rest.
const PROTOCOL_BIT: u32 = 32;

/// Whom a packet is between; none if it is not plain.
#[inline(always)]
pub fn flow(packet: &impl Packet) -> Option<Flow> {
    let head = packet.network(HEAD4)?;
    let kind = packet.kind(|| head.half(0));
    if kind & FIRST_BYTE == PLAIN_IPV4 {
        return ipv4(&head).map(Flow::Four);
    }
    if kind & VERSION == PLAIN_IPV6 {
        return ipv6(&packet.network(HEAD6)?).map(Flow::Six);
    }
    None
}

#[inline(always)]
fn ipv4(head: &impl Head) -> Option<Flow4> {
    let protocol = head.word::<3>() & FRAGMENT_AND_PROTOCOL;
    let rest = transport(protocol, head.word::<10>(), || head.half(11))?;
    Some(Flow4 { addresses: head.long::<6>(), rest })
}

#[inline(always)]
fn ipv6(head: &impl Head) -> Option<Flow6> {
    let protocol = u32::from(u16::from_be(head.half(3)) >> 8).to_be();
    let rest = transport(protocol, head.word::<20>(), || head.half(21))?;
    Some(Flow6 { addresses: [head.long::<4>(), head.long::<8>(), head.long::<12>(), head.long::<16>()], rest })
}

/// Protocol and ports, if there is nothing else to be read behind them. The protocol is the last byte of a word as it lies in a packet.
#[inline(always)]
fn transport(protocol: u32, ports: u32, destination: impl FnOnce() -> u16) -> Option<u64> {
    let is = |number: u8| protocol == u32::from(number).to_be();
    let plain = is(TCP) || is(UDP) && !is_tunnel(u16::from_be(destination()).into());
    plain.then_some(u64::from(ports) | u64::from(protocol) << PROTOCOL_BIT)
}

/// Two words as they lie in the packet.
#[inline(always)]
fn halves(long: u64) -> [u32; 2] {
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = long.to_ne_bytes();
    [[first, second, third, fourth], [fifth, sixth, seventh, eighth]].map(u32::from_ne_bytes)
}

/// The ends of a layer, with the ports and the protocol of the rest.
#[inline(always)]
fn layer((source, destination): ([u32; 4], [u32; 4]), rest: u64, (ethertype, family): (u16, u16)) -> Layer {
    let [first, second, third, fourth] = (rest as u32).to_ne_bytes();
    let [source_port, destination_port] =
        [[first, second], [third, fourth]].map(|port| u16::from_be_bytes(port).into());
    let protocol = u32::from_be((rest >> PROTOCOL_BIT) as u32) as u16;
    Layer { source, destination, source_port, destination_port, ethertype, protocol, family, pad: 0 }
}

/// Where an answer is kept, of what is mixed of a flow.
#[inline(always)]
fn place(mixed: u64) -> usize {
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - ANSWERS_BITS)) as usize
}

impl Flow4 {
    /// The one layer a plain packet has.
    #[inline(always)]
    fn layer(self) -> Layer {
        let [source, destination] = halves(self.addresses);
        layer((mapped(source), mapped(destination)), self.rest, (ethertype::IPV4, 4))
    }

    #[inline(always)]
    fn place(self) -> usize {
        place(self.addresses ^ self.rest)
    }
}

impl Flow6 {
    #[inline(always)]
    fn layer(&self) -> Layer {
        let [first, second, third, fourth] = self.addresses.map(halves);
        layer((whole([first, second]), whole([third, fourth])), self.rest, (ethertype::IPV6, 6))
    }

    #[inline(always)]
    fn place(&self) -> usize {
        let [first, second, third, fourth] = self.addresses;
        place(first ^ second ^ third ^ fourth ^ self.rest)
    }
}

#[inline(always)]
fn whole([first, second]: [[u32; 2]; 2]) -> [u32; 4] {
    [first[0], first[1], second[0], second[1]]
}

/// How many answers are kept.
const ANSWERS_BITS: u32 = 6;

/// What the filter last said of a flow of IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer4 {
    flow: Flow4,
    /// Generation of the filter, none has 0, and in the lowest bit what it said.
    said: u64,
    /// Nothing: so that no two answers share what the processor fetches at once more than they have to.
    pad: u64,
}

/// What the filter last said of a flow of IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer6 {
    flow: Flow6,
    said: u64,
}

/// What the filter last said, by where a flow is kept. Flows that would be kept at the same place take turns.
pub type Answers4 = [Answer4; 1 << ANSWERS_BITS];
/// The same of IPv6.
pub type Answers6 = [Answer6; 1 << ANSWERS_BITS];

/// Where the answer about a flow is kept.
#[inline(always)]
pub fn of_four(answers: &mut Answers4, flow: Flow4) -> Option<&mut Answer4> {
    answers.get_mut(flow.place())
}

/// Where the answer about a flow is kept.
#[inline(always)]
pub fn of_six<'a>(answers: &'a mut Answers6, flow: &Flow6) -> Option<&'a mut Answer6> {
    answers.get_mut(flow.place())
}

impl Answer4 {
    /// What the filter said of this flow; none if that is not known.
    #[inline(always)]
    pub fn said(&self, config: &Config, flow: Flow4) -> Option<bool> {
        said(self.said, config, || (self.flow.addresses ^ flow.addresses) | (self.flow.rest ^ flow.rest) == 0)
    }

    /// What the filter says of this flow, which is kept. The same as `super::covers` of each packet of it, where `ask` is
    /// `super::ask` of this filter.
    #[inline(always)]
    pub fn say(&mut self, config: &Config, flow: Flow4, ask: impl FnOnce(&Layer) -> u16) -> bool {
        let (said, covered) = say(config, &flow.layer(), ask);
        *self = Self { flow, said, pad: 0 };
        covered
    }
}

impl Answer6 {
    /// What the filter said of this flow; none if that is not known.
    #[inline(always)]
    pub fn said(&self, config: &Config, flow: &Flow6) -> Option<bool> {
        said(self.said, config, || self.flow == *flow)
    }

    /// What the filter says of this flow, which is kept.
    #[inline(always)]
    pub fn say(&mut self, config: &Config, flow: &Flow6, ask: impl FnOnce(&Layer) -> u16) -> bool {
        let (said, covered) = say(config, &flow.layer(), ask);
        *self = Self { flow: *flow, said };
        covered
    }
}

#[inline(always)]
fn said(said: u64, config: &Config, same: impl FnOnce() -> bool) -> Option<bool> {
    let since = said ^ u64::from(config.generation);
    (since <= 1 && same()).then_some(since == 1)
}

#[inline(always)]
fn say(config: &Config, layer: &Layer, ask: impl FnOnce(&Layer) -> u16) -> (u64, bool) {
    // Before the clauses: while these are being changed the generation is one that nothing is kept of.
    let generation = u64::from(config.generation);
    let covered = config.products == 0 || wanted(config, ask(layer));
    (generation | u64::from(covered), covered)
}

#[cfg(test)]
mod tests;
