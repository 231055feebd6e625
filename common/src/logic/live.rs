//! Which packets somebody watches. Flow: observe.
//!
//! A packet is a row of layers: its own addresses, those of the packet in a tunnel's, those of the packet an ICMP error
//! quotes. A clause covers the packet if it covers one of them. Only the first bytes are known: what lies beyond has no
//! addresses and no ports.

use core::hint;

use super::{
    flow::protocol::{self, ICMP, ICMPV6, UDP},
    packet::{ETHERNET, ethertype, mapped},
};
use crate::abi::live::{CLAUSE_ONE_WAY, CLAUSES, Clause, Config, End, PRODUCTS};

/// Packets of which most are.
pub mod plain;

/// First bytes of a packet.
pub trait Bytes {
    /// Two bytes, as they lie in the packet; none where they are not known. Offsets are even.
    fn half(&self, offset: u32) -> Option<u16>;

    /// Four bytes.
    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u32> {
        let [first, second] = [self.half(offset)?.to_ne_bytes(), self.half(offset + 2)?.to_ne_bytes()];
        Some(u32::from_ne_bytes([first[0], first[1], second[0], second[1]]))
    }

    /// Two bytes as a number.
    #[inline(always)]
    fn number(&self, offset: u32) -> Option<u16> {
        self.half(offset).map(u16::from_be)
    }
}

/// Where a layer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// How many bytes from the beginning.
    pub offset: u32,
    /// It begins at an IP header, else at an Ethernet header.
    pub network: bool,
}

/// The port of what has none: no range goes so far.
const NO_PORT: u32 = 0x1_0000;
/// The protocol of what is not IP.
const NO_PROTOCOL: u16 = 0x100;

/// Whom a layer is between.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    source: [u32; 4],
    destination: [u32; 4],
    source_port: u32,
    destination_port: u32,
    ethertype: u16,
    protocol: u16,
    family: u16,
    /// Always 0: the kernel lets a program hand on only what has been written to the last byte.
    pad: u16,
}

/// How many layers are looked at: a packet in a tunnel may be an ICMP error.
const LAYERS: u32 = 3;
/// VLAN tags in the frame that are passed over.
const TAGS: u32 = 2;
/// IPv6 extension headers that are passed over.
const EXTENSIONS: u32 = 3;

/// True if the filter covers the packet.
#[inline(always)]
pub fn covers(config: &Config, bytes: &impl Bytes, start: Start) -> bool {
    let mut layer = NOBODY;
    covers_layers(config, start, |start| {
        layer = NOBODY;
        let inner = read(bytes, start, &mut layer);
        (ask(config, &layer), inner)
    })
}

/// The same, where somebody else reads the layers: which clauses cover one, and where the next one begins.
#[inline(always)]
pub fn covers_layers(config: &Config, start: Start, mut read: impl FnMut(Start) -> (u16, Option<Start>)) -> bool {
    if config.products == 0 {
        return true;
    }
    let mut answers = 0;
    let mut start = start;
    for _ in 0..LAYERS {
        let (layer, inner) = read(start);
        answers |= layer;
        let Some(inner) = inner else { break };
        start = inner;
    }
    wanted(config, answers)
}

/// True if one of the products has these answers.
#[inline(always)]
fn wanted(config: &Config, answers: u16) -> bool {
    let mut products = config.product.iter().take(PRODUCTS).zip(0..config.products);
    products.any(|(product, _)| answers & product.covered == product.covered && answers & product.uncovered == 0)
}

// === clauses ===

/// Which clauses cover a layer: a bit for each.
#[inline(always)]
pub fn ask(config: &Config, layer: &Layer) -> u16 {
    let mut answers = 0;
    for (clause, place) in config.clause.iter().take(CLAUSES).zip(0..config.clauses) {
        answers |= u16::from(clause_covers(clause, layer)) << place;
    }
    answers
}

#[inline(always)]
fn clause_covers(clause: &Clause, layer: &Layer) -> bool {
    let kind = (layer.ethertype ^ clause.ethertype) & clause.ethertype_mask
        | (layer.protocol ^ clause.protocol) & clause.protocol_mask
        | (layer.family ^ clause.family) & clause.family_mask;
    let (source, destination) = ((&layer.source, layer.source_port), (&layer.destination, layer.destination_port));
    let forward = differs(&clause.here, source) | differs(&clause.there, destination);
    let backward =
        differs(&clause.there, source) | differs(&clause.here, destination) | u64::from(clause.flags & CLAUSE_ONE_WAY);
    kind == 0 && (forward == 0 || backward == 0)
}

/// 0 if an address and a port are of an end. Without a branch: the verifier would follow each.
#[inline(always)]
fn differs(end: &End, (address, port): (&[u32; 4], u32)) -> u64 {
    let mut differs = 0;
    for ((address, wanted), mask) in address.iter().zip(&end.address).zip(&end.mask) {
        differs |= (address ^ wanted) & mask;
    }
    // Below the first port the first difference is negative, beyond the last one the second is.
    let over = u64::from(port).wrapping_sub(end.first_port.into());
    let left = u64::from(end.more_ports).wrapping_sub(over);
    // One end after the other: read all at once they fill a stack of which a program has 512 bytes.
    hint::black_box(u64::from(differs) | (over | left) >> 63)
}

// === layers ===

/// Nobody.
pub const NOBODY: Layer = Layer {
    source: [0; 4],
    destination: [0; 4],
    source_port: NO_PORT,
    destination_port: NO_PORT,
    ethertype: 0,
    protocol: NO_PROTOCOL,
    family: 0,
    pad: 0,
};

/// Reads one layer, as far as it is known; where there is another one in it, its beginning.
#[inline(always)]
pub fn read(bytes: &impl Bytes, start: Start, layer: &mut Layer) -> Option<Start> {
    let network = if start.network { start.offset } else { link(bytes, start.offset, layer)? };
    if start.network {
        layer.ethertype = version(bytes, network)?;
    }
    match layer.ethertype {
        ethertype::IPV4 => ipv4(bytes, network, layer),
        ethertype::IPV6 => ipv6(bytes, network, layer),
        ethertype::ARP => arp(bytes, network, layer),
        _ => None,
    }
}

/// Reads the ethertype behind tags; where the next header begins.
#[inline(always)]
fn link(bytes: &impl Bytes, start: u32, layer: &mut Layer) -> Option<u32> {
    let mut next = start + ETHERNET;
    let mut kind = bytes.number(next - 2)?;
    for _ in 0..TAGS {
        if kind == ethertype::VLAN || kind == ethertype::SERVICE_VLAN {
            next += 4;
            kind = bytes.number(next - 2)?;
        }
    }
    layer.ethertype = kind;
    Some(next)
}

/// The ethertype of what begins at an IP header.
#[inline(always)]
fn version(bytes: &impl Bytes, network: u32) -> Option<u16> {
    match bytes.number(network)? >> 12 {
        4 => Some(ethertype::IPV4),
        6 => Some(ethertype::IPV6),
        _ => None,
    }
}

/// Who asks for whom. Never another layer.
#[inline(always)]
fn arp(bytes: &impl Bytes, network: u32, layer: &mut Layer) -> Option<Start> {
    let [source, destination] = [bytes.word(network + 14)?, bytes.word(network + 24)?];
    (layer.source, layer.destination, layer.family) = (mapped(source), mapped(destination), 4);
    None
}

#[inline(always)]
fn ipv4(bytes: &impl Bytes, network: u32, layer: &mut Layer) -> Option<Start> {
    let length = u32::from(bytes.number(network)? >> 8 & 0xf) * 4;
    let continued = bytes.number(network + 6)? & 0x1fff != 0;
    let protocol = bytes.number(network + 8)? & 0xff;
    let [source, destination] = [bytes.word(network + 12)?, bytes.word(network + 16)?];
    (layer.source, layer.destination, layer.family) = (mapped(source), mapped(destination), 4);
    layer.protocol = protocol;
    if continued { None } else { transport(bytes, network + length, layer) }
}

#[inline(always)]
fn ipv6(bytes: &impl Bytes, network: u32, layer: &mut Layer) -> Option<Start> {
    let mut next = bytes.number(network + 6)? >> 8;
    layer.source = address(bytes, network + 8)?;
    layer.destination = address(bytes, network + 24)?;
    layer.family = 6;
    let mut transport_at = network + 40;
    for _ in 0..EXTENSIONS {
        layer.protocol = next;
        match next {
            // Hop by hop, routing, destination.
            0 | 43 | 60 => {
                let head = bytes.number(transport_at)?;
                transport_at += (u32::from(head & 0xff) + 1) * 8;
                next = head >> 8;
            }
            // Fragment.
            44 => {
                let head = bytes.number(transport_at)?;
                let continued = bytes.number(transport_at + 2)? & 0xfff8 != 0;
                transport_at += 8;
                next = head >> 8;
                layer.protocol = next;
                if continued {
                    return None;
                }
            }
            _ => break,
        }
    }
    layer.protocol = next;
    transport(bytes, transport_at, layer)
}

#[inline(always)]
fn address(bytes: &impl Bytes, offset: u32) -> Option<[u32; 4]> {
    Some([bytes.word(offset)?, bytes.word(offset + 4)?, bytes.word(offset + 8)?, bytes.word(offset + 12)?])
}

/// Reads ports; where a tunnel's or a quoted packet begins.
#[inline(always)]
fn transport(bytes: &impl Bytes, offset: u32, layer: &mut Layer) -> Option<Start> {
    let protocol = layer.protocol as u8;
    if protocol::has_ports(protocol) {
        layer.source_port = bytes.number(offset)?.into();
        layer.destination_port = bytes.number(offset + 2)?.into();
    }
    match protocol {
        UDP => tunnel(bytes, offset + 8, layer.destination_port),
        ICMP => quoted(bytes, offset, |kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        ICMPV6 => quoted(bytes, offset, |kind| (1..=4).contains(&kind)),
        _ => None,
    }
}

/// Where the packet an ICMP error quotes begins.
#[inline(always)]
fn quoted(bytes: &impl Bytes, offset: u32, is_error: impl FnOnce(u8) -> bool) -> Option<Start> {
    let kind = (bytes.number(offset)? >> 8) as u8;
    is_error(kind).then_some(Start { offset: offset + 8, network: true })
}

/// UDP port of VXLAN; Linux had another one before there was a standard.
const VXLAN: [u32; 2] = [4789, 8472];
/// UDP port of Geneve.
const GENEVE: u32 = 6081;
/// What a tunnel carries: Ethernet.
const TRANSPARENT_ETHERNET: u16 = 0x6558;

/// True if there is a packet in what goes to this UDP port.
#[inline(always)]
const fn is_tunnel(port: u32) -> bool {
    port == VXLAN[0] || port == VXLAN[1] || port == GENEVE
}

/// Where the packet in a tunnel begins.
#[inline(always)]
fn tunnel(bytes: &impl Bytes, offset: u32, port: u32) -> Option<Start> {
    if !is_tunnel(port) {
        return None;
    }
    if port != GENEVE {
        return Some(Start { offset: offset + 8, network: false });
    }
    let options = u32::from(bytes.number(offset)? >> 8 & 0x3f) * 4;
    let network = bytes.number(offset + 2)? != TRANSPARENT_ETHERNET;
    Some(Start { offset: offset + 8 + options, network })
}

#[cfg(test)]
mod tests;
