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
    /// True if it has no Ethernet header, or one with this ethertype.
    fn carries(&self, ethertype: u16) -> bool;

    /// Its first bytes from the IP header on; none if fewer lie in one piece.
    fn network(&self, length: usize) -> Option<impl Head>;
}

/// Whom a plain packet is between.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// Of IPv4 both addresses in the first, of IPv6 each in two; as they lie in the packet.
    addresses: [u64; 4],
    /// Both ports as they lie in the packet, then protocol and version of IP.
    rest: u64,
}

impl PartialEq for Flow {
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

impl Eq for Flow {}

/// Where the protocol is in the rest.
const PROTOCOL_BIT: u32 = 32;
/// Where the version of IP is in the rest.
const VERSION_BIT: u32 = 40;

/// The first byte of a header without options: version and length.
const PLAIN_IPV4: u16 = u16::to_be(0x4500);
const FIRST_BYTE: u16 = u16::to_be(0xff00);
/// The version of IP.
const IPV6: u16 = u16::to_be(0x6000);
const VERSION: u16 = u16::to_be(0xf000);
/// What a fragment has, and nothing else: more fragments, or an offset.
const FRAGMENT: u16 = u16::to_be(0x3fff);

/// Whom a packet is between; none if it is not plain.
#[inline(always)]
pub fn flow(packet: &impl Packet) -> Option<Flow> {
    let head = packet.network(HEAD4)?;
    let first = head.half(0);
    if first & FIRST_BYTE == PLAIN_IPV4 && packet.carries(ethertype::IPV4) {
        return ipv4(&head);
    }
    if first & VERSION == IPV6 && packet.carries(ethertype::IPV6) {
        return ipv6(&packet.network(HEAD6)?);
    }
    None
}

#[inline(always)]
fn ipv4(head: &impl Head) -> Option<Flow> {
    if head.half(3) & FRAGMENT != 0 {
        return None;
    }
    let protocol = u16::from_be(head.half(4)) as u8;
    let rest = transport(protocol, head.word::<10>(), || head.half(11))?;
    Some(Flow { addresses: [two(head.word::<6>(), head.word::<8>()), 0, 0, 0], rest: rest | 4 << VERSION_BIT })
}

#[inline(always)]
fn ipv6(head: &impl Head) -> Option<Flow> {
    let protocol = (u16::from_be(head.half(3)) >> 8) as u8;
    let rest = transport(protocol, head.word::<20>(), || head.half(21))?;
    let source = [two(head.word::<4>(), head.word::<6>()), two(head.word::<8>(), head.word::<10>())];
    let destination = [two(head.word::<12>(), head.word::<14>()), two(head.word::<16>(), head.word::<18>())];
    let [[first, second], [third, fourth]] = [source, destination];
    Some(Flow { addresses: [first, second, third, fourth], rest: rest | 6 << VERSION_BIT })
}

/// Protocol and ports, if there is nothing else to be read behind them.
#[inline(always)]
fn transport(protocol: u8, ports: u32, destination: impl FnOnce() -> u16) -> Option<u64> {
    let plain = protocol == TCP || protocol == UDP && !is_tunnel(u16::from_be(destination()).into());
    plain.then_some(u64::from(ports) | u64::from(protocol) << PROTOCOL_BIT)
}

#[inline(always)]
fn two(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

#[inline(always)]
fn halves(two: u64) -> [u32; 2] {
    [two as u32, (two >> 32) as u32]
}

impl Flow {
    /// The one layer a plain packet has.
    #[inline(always)]
    fn layer(&self) -> Layer {
        let [first, second, third, fourth] = self.addresses.map(halves);
        let version = (self.rest >> VERSION_BIT) as u16;
        let (source, destination, ethertype) = if version == 4 {
            (mapped(first[0]), mapped(first[1]), ethertype::IPV4)
        } else {
            let [source, destination] = [[first, second], [third, fourth]];
            (whole(source), whole(destination), ethertype::IPV6)
        };
        let [source_port, destination_port] = self.ports();
        let protocol = (self.rest >> PROTOCOL_BIT) as u16 & 0xff;
        Layer { source, destination, source_port, destination_port, ethertype, protocol, family: version, pad: 0 }
    }

    #[inline(always)]
    fn ports(&self) -> [u32; 2] {
        let [first, second, third, fourth] = (self.rest as u32).to_ne_bytes();
        [[first, second], [third, fourth]].map(|port| u16::from_be_bytes(port).into())
    }

    /// Where an answer about it is kept.
    #[inline(always)]
    fn place(&self) -> usize {
        let [first, second, third, fourth] = self.addresses;
        let mixed = (first ^ second ^ third ^ fourth ^ self.rest).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (u64::BITS - ANSWERS_BITS)) as usize
    }
}

#[inline(always)]
fn whole([first, second]: [[u32; 2]; 2]) -> [u32; 4] {
    [first[0], first[1], second[0], second[1]]
}

/// How many answers are kept.
const ANSWERS_BITS: u32 = 6;

/// What the filter last said of some flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    flow: Flow,
    /// Generation of the filter, none has 0, and in the lowest bit what it said.
    said: u64,
}

/// What the filter last said, by where a flow is kept. Flows that would be kept at the same place take turns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Answers([Answer; 1 << ANSWERS_BITS]);

impl Default for Answers {
    fn default() -> Self {
        Self([Answer::default(); 1 << ANSWERS_BITS])
    }
}

impl Answers {
    /// True if the filter covers packets of this flow. The same as `super::covers` of each of them, where `ask` is `super::ask`
    /// of this filter.
    #[inline(always)]
    pub fn covers(&mut self, config: &Config, flow: &Flow, ask: impl FnOnce(&Layer) -> u16) -> bool {
        let Some(answer) = self.0.get_mut(flow.place()) else { return false };
        // Before the clauses: while these are being changed the generation is one that nothing is kept of.
        let generation = generation(config);
        if answer.said >> 1 == generation && answer.flow == *flow {
            return answer.said & 1 != 0;
        }
        let covered = covers(config, flow, ask);
        *answer = Answer { flow: *flow, said: generation << 1 | u64::from(covered) };
        covered
    }
}

#[inline(always)]
fn generation(config: &Config) -> u64 {
    config.generation.into()
}

/// True if the filter covers packets of this flow.
#[inline(never)]
fn covers(config: &Config, flow: &Flow, ask: impl FnOnce(&Layer) -> u16) -> bool {
    config.products == 0 || wanted(config, ask(&flow.layer()))
}

#[cfg(test)]
mod tests;
