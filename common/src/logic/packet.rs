//! What is known of a packet, from Ethernet to ports. Flow: policy.
//!
//! Each stage reads a little more and fills it in, or gives the reason why the packet goes no further. Offsets and lengths
//! are bytes from the Ethernet header on.

use super::{
    flow::protocol::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE},
    frame::{Frame, Head},
};
use crate::abi::reason::Reason;

/// Ethertypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// RARP.
    pub const RARP: u16 = 0x8035;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A customer's VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Length of an Ethernet header.
pub const ETHERNET: u32 = 14;
/// IPv6 extension headers that are followed.
const EXTENSION_HEADERS: u32 = 6;

/// How a packet is part of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragmentation {
    /// It is the datagram.
    #[default]
    Whole,
    /// The first fragment.
    First,
    /// Another one.
    Later,
}

/// What is known of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packet {
    /// Source, in network byte order; IPv4 addresses are mapped.
    pub source: [u32; 4],
    /// Destination.
    pub destination: [u32; 4],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// Ethertype in host byte order.
    pub ethertype: u16,
    /// Where the transport header begins.
    pub transport: u32,
    /// Where the IP packet ends; what comes after is padding.
    pub end: u32,
    /// Identification of the datagram, as it lies in the packet.
    pub fragment_id: u32,
    /// Offset of a fragment in its datagram, in bytes.
    pub fragment_offset: u32,
    /// How it is part of a datagram.
    pub fragmentation: Fragmentation,
    /// True for IPv6, false for IPv4 and what is neither.
    pub ipv6: bool,
    /// IP protocol.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Source port in host byte order; the identifier of an ICMP query.
    pub source_port: u16,
    /// Destination port in host byte order; `type << 8 | code` of ICMP.
    pub destination_port: u16,
    /// The rule that allowed it, once that is decided; 0 is none.
    pub rule: u32,
    /// Flags of the flow it belongs to, once that is decided; 0 also where there is none.
    pub flow_flags: u8,
    /// It belongs to a flow, or is about one.
    pub tracked: bool,
}

/// An IPv4 address as IPv6 maps it.
#[inline(always)]
pub const fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// A MAC address as its half-words lie in a packet.
#[inline(always)]
pub const fn mac(halves: [u16; 3]) -> [u8; 6] {
    let [first, second, third] = [halves[0].to_ne_bytes(), halves[1].to_ne_bytes(), halves[2].to_ne_bytes()];
    [first[0], first[1], second[0], second[1], third[0], third[1]]
}

// What follows reads the same bytes in either of two ways: where they lie in one piece, which costs nothing, or by a call.

/// Source MAC address and ethertype.
#[inline(always)]
fn link<F: Frame>(frame: &F) -> Option<[u16; 4]> {
    if let Some(head) = frame.head(14) {
        return Some([head.half(3), head.half(4), head.half(5), head.half(6)]);
    }
    let [_, _, _, first, second, third, kind] = frame.load16::<7>(0)?;
    Some([first, second, third, kind])
}

/// An IPv4 header.
#[inline(always)]
fn network<F: Frame>(frame: &F) -> Option<[u32; 5]> {
    if let Some(head) = frame.head(34) {
        return Some([head.word::<7>(), head.word::<9>(), head.word::<11>(), head.word::<13>(), head.word::<15>()]);
    }
    frame.load32::<5>(ETHERNET)
}

/// The beginning of an IPv6 header, and the addresses in it.
#[inline(always)]
fn network6<F: Frame>(frame: &F) -> Option<([u32; 2], [u32; 4], [u32; 4])> {
    if let Some(head) = frame.head(54) {
        return Some((
            [head.word::<7>(), head.word::<9>()],
            [head.word::<11>(), head.word::<13>(), head.word::<15>(), head.word::<17>()],
            [head.word::<19>(), head.word::<21>(), head.word::<23>(), head.word::<25>()],
        ));
    }
    Some((frame.load32(ETHERNET)?, frame.load32(ETHERNET + 8)?, frame.load32(ETHERNET + 24)?))
}

/// The first words of a transport header.
#[inline(always)]
fn ports<F: Frame>(frame: &F, transport: u32) -> Option<[u32; 2]> {
    // Behind an IPv4 or an IPv6 header without anything more.
    if transport == 34
        && let Some(head) = frame.head(42)
    {
        return Some([head.word::<17>(), head.word::<19>()]);
    }
    if transport == 54
        && let Some(head) = frame.head(62)
    {
        return Some([head.word::<27>(), head.word::<29>()]);
    }
    frame.load32::<2>(transport)
}

/// The word of a TCP header that holds its flags.
#[inline(always)]
fn flags<F: Frame>(frame: &F, transport: u32) -> Option<u32> {
    if transport == 34
        && let Some(head) = frame.head(50)
    {
        return Some(head.word::<23>());
    }
    if transport == 54
        && let Some(head) = frame.head(70)
    {
        return Some(head.word::<33>());
    }
    let [flags] = frame.load32::<1>(transport + 12)?;
    Some(flags)
}

impl Packet {
    /// Reads the Ethernet header.
    #[inline(always)]
    pub fn ethernet<F: Frame>(&mut self, frame: &F) -> Option<Reason> {
        let Some([first, second, third, kind]) = link(frame) else { return Some(Reason::Truncated) };
        self.source_mac = mac([first, second, third]);
        self.ethertype = u16::from_be(kind);
        let tagged = frame.tagged() || matches!(self.ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN);
        tagged.then_some(Reason::VlanTagged)
    }

    /// Reads an IPv4 header.
    #[inline(always)]
    pub fn ipv4<F: Frame>(&mut self, frame: &F) -> Option<Reason> {
        let Some([first, second, third, source, destination]) = network(frame) else { return Some(Reason::Truncated) };
        let (first, second, third) = (u32::from_be(first), u32::from_be(second), u32::from_be(third));
        let header = (first >> 24 & 0xf) * 4;
        let total = match first & 0xffff {
            // What is longer than the field can say has 0 there (`iph_totlen` of `linux/ip.h`).
            0 if frame.aggregated() => frame.length().saturating_sub(ETHERNET),
            total => total,
        };
        if first >> 28 != 4 || header < 20 || total < header {
            return Some(Reason::Malformed);
        }
        if ETHERNET + total > frame.length() {
            return Some(Reason::Truncated);
        }
        self.transport = ETHERNET + header;
        self.end = ETHERNET + total;
        self.protocol = (third >> 16 & 0xff) as u8;
        self.source = mapped(source);
        self.destination = mapped(destination);
        self.fragment(second >> 16, (second & 0x1fff) * 8, second & 0x2000 != 0);
        None
    }

    /// Reads an IPv6 header and the extension headers that follow it.
    #[inline(always)]
    pub fn ipv6<F: Frame>(&mut self, frame: &F) -> Option<Reason> {
        let Some(([first, second], source, destination)) = network6(frame) else { return Some(Reason::Truncated) };
        let (first, second) = (u32::from_be(first), u32::from_be(second));
        if first >> 28 != 6 {
            return Some(Reason::Malformed);
        }
        self.ipv6 = true;
        self.source = source;
        self.destination = destination;
        self.protocol = (second >> 8 & 0xff) as u8;
        self.transport = ETHERNET + 40;
        self.end = match second >> 16 {
            // As for IPv4 (`ipv6_payload_len` of `linux/ipv6.h`); a jumbogram's extension header is followed like any other.
            0 if frame.aggregated() => frame.length(),
            payload => self.transport + payload,
        };
        if self.end > frame.length() {
            return Some(Reason::Truncated);
        }
        self.extensions(frame)
    }

    /// Follows the extension headers (RFC 8200 section 4) up to the transport header or into a later fragment.
    #[inline(always)]
    fn extensions<F: Frame>(&mut self, frame: &F) -> Option<Reason> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        let mut fragmented = false;
        for _ in 0..EXTENSION_HEADERS {
            if !matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
                return None;
            }
            if self.transport + 8 > self.end {
                return Some(Reason::Truncated);
            }
            let Some([first, id]) = frame.load32::<2>(self.transport) else { return Some(Reason::Truncated) };
            let first = u32::from_be(first);
            let length = if self.protocol == FRAGMENT { 8 } else { ((first >> 16 & 0xff) + 1) * 8 };
            if self.transport + length > self.end {
                return Some(Reason::Truncated);
            }
            if self.protocol == FRAGMENT {
                if fragmented {
                    return Some(Reason::Malformed);
                }
                fragmented = true;
                self.fragment(id, first & 0xfff8, first & 1 != 0);
            }
            self.protocol = (first >> 24) as u8;
            self.transport += length;
            if matches!(self.fragmentation, Fragmentation::Later) {
                return None;
            }
        }
        matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION).then_some(Reason::ExtensionHeaders)
    }

    /// Notes what a fragment header says.
    #[inline(always)]
    fn fragment(&mut self, id: u32, offset: u32, more: bool) {
        self.fragment_id = id;
        self.fragment_offset = offset;
        self.fragmentation = match (offset, more) {
            (0, false) => Fragmentation::Whole,
            (0, true) => Fragmentation::First,
            _ => Fragmentation::Later,
        };
    }

    /// Bytes the header of its protocol needs at least; 0 where nothing of it is read.
    #[inline(always)]
    pub const fn header_needed(&self) -> u32 {
        match self.protocol {
            TCP => 20,
            SCTP | DCCP => 12,
            UDP | UDPLITE => 8,
            ICMP if !self.ipv6 => 8,
            ICMPV6 if self.ipv6 => 8,
            _ => 0,
        }
    }

    /// True for ICMP in IPv4 and ICMPv6 in IPv6.
    #[inline(always)]
    pub const fn is_icmp(&self) -> bool {
        self.protocol == if self.ipv6 { ICMPV6 } else { ICMP }
    }

    /// Type of an ICMP packet.
    #[inline(always)]
    pub const fn icmp_type(&self) -> u8 {
        (self.destination_port >> 8) as u8
    }

    /// Reads ports, flags, ICMP type and identifier: of whole packets and first fragments.
    #[inline(always)]
    pub fn transport<F: Frame>(&mut self, frame: &F) -> Option<Reason> {
        let needed = self.header_needed();
        if needed == 0 {
            return None;
        }
        let short = match self.fragmentation {
            Fragmentation::First => Reason::TinyFragment,
            Fragmentation::Whole | Fragmentation::Later => Reason::Truncated,
        };
        if self.transport + needed > self.end {
            return Some(short);
        }
        let Some([first, second]) = ports(frame, self.transport) else { return Some(short) };
        let (first, second) = (u32::from_be(first), u32::from_be(second));
        if self.is_icmp() {
            self.destination_port = (first >> 16) as u16;
            self.source_port = (second >> 16) as u16;
            return None;
        }
        self.source_port = (first >> 16) as u16;
        self.destination_port = (first & 0xffff) as u16;
        if self.protocol == UDP && second >> 16 < 8 {
            return Some(Reason::Malformed);
        }
        if self.protocol == TCP {
            let Some(flags) = flags(frame, self.transport) else { return Some(short) };
            let flags = u32::from_be(flags);
            self.tcp_flags = (flags >> 16 & 0xff) as u8;
            if flags >> 28 < 5 {
                return Some(Reason::Malformed);
            }
        }
        None
    }
}
