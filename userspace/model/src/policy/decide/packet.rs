//! Bytes to headers, or the reason why they are none. Flow: policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netdiag_common::{
    abi::reason::Reason,
    logic::flow::protocol::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE},
};

use super::super::types::Ethertype;
use crate::id::Mac;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const RARP: u16 = 0x8035;
pub(super) const IPV6: u16 = 0x86dd;
/// VLAN tags of customers and of providers.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// How many IPv6 extension headers are followed.
const EXTENSION_HEADERS: usize = 6;

/// A frame without its Ethernet header.
pub(super) struct Ethernet<'a> {
    pub(super) source: Mac,
    pub(super) ethertype: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Reason> {
        let header = bytes.get(..14).ok_or(Reason::Truncated)?;
        Ok(Self { source: mac_at(header, 6), ethertype: u16_at(header, 12), payload: &bytes[14..] })
    }

    pub(super) fn is_tagged(&self) -> bool {
        TAGS.contains(&self.ethertype)
    }
}

/// An IP packet.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) part: Part,
    /// Or the reason why it cannot be read, which matters once the sender is who it says it is.
    pub(super) transport: Result<Transport<'a>, Reason>,
}

/// How much of its datagram a packet holds. Fragments of protocols without ports and types are as good as whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    First { id: u32 },
    Later { id: u32 },
}

/// What follows the IP header, as far as decisions need it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transport<'a> {
    Tcp {
        source: u16,
        destination: u16,
        flags: u8,
    },
    Ports {
        source: u16,
        destination: u16,
    },
    Icmp(Icmp<'a>),
    /// A protocol that rules know by its number alone, or a later fragment.
    Opaque,
}

/// A message of ICMP in IPv4, or of ICMPv6 in IPv6, of at least 8 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Icmp<'a>(&'a [u8]);

impl<'a> Icmp<'a> {
    pub(super) fn kind(self) -> u8 {
        self.0[0]
    }

    pub(super) fn code(self) -> u8 {
        self.0[1]
    }

    pub(super) fn identifier(self) -> u16 {
        u16_at(self.0, 4)
    }

    /// What follows the first 8 bytes: the packet an error quotes.
    pub(super) fn body(self) -> &'a [u8] {
        &self.0[8..]
    }

    /// The address a neighbour solicitation or advertisement is about.
    pub(super) fn target(self) -> Option<IpAddr> {
        (self.0.len() >= 24).then(|| ipv6_at(self.0, 8))
    }
}

/// What a packet asks for, in the words of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) family: Ethertype,
    pub(super) protocol: u8,
    pub(super) detail: Detail,
}

/// What a protocol tells services apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    None,
    Port(u16),
    Icmp { kind: u8, code: u8 },
}

impl<'a> Packet<'a> {
    pub(super) fn parse(ethernet: &Ethernet<'a>) -> Result<Self, Reason> {
        let ip = if ethernet.ethertype == IPV4 { parse_ipv4(ethernet.payload) } else { parse_ipv6(ethernet.payload) }?;
        let (part, transport) = if has_transport(ip.protocol, ip.source.is_ipv6()) {
            (ip.part(), ip.transport())
        } else {
            (Part::Whole, Ok(Transport::Opaque))
        };
        Ok(Self { source: ip.source, destination: ip.destination, protocol: ip.protocol, part, transport })
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    pub(super) fn icmp(&self) -> Option<Icmp<'a>> {
        match self.transport {
            Ok(Transport::Icmp(icmp)) => Some(icmp),
            Ok(Transport::Tcp { .. } | Transport::Ports { .. } | Transport::Opaque) | Err(_) => None,
        }
    }

    /// Source and destination port.
    pub(super) fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Ok(Transport::Tcp { source, destination, .. } | Transport::Ports { source, destination }) => {
                Some((source, destination))
            }
            Ok(Transport::Icmp(_) | Transport::Opaque) | Err(_) => None,
        }
    }

    pub(super) fn tcp_flags(&self) -> Option<u8> {
        match self.transport {
            Ok(Transport::Tcp { flags, .. }) => Some(flags),
            Ok(Transport::Ports { .. } | Transport::Icmp(_) | Transport::Opaque) | Err(_) => None,
        }
    }

    pub(super) fn asked(&self) -> Asked {
        let detail = match (self.ports(), self.icmp()) {
            (Some((_, destination)), _) => Detail::Port(destination),
            (None, Some(icmp)) => Detail::Icmp { kind: icmp.kind(), code: icmp.code() },
            (None, None) => Detail::None,
        };
        let family = if self.is_ipv6() { Ethertype::IPv6 } else { Ethertype::IPv4 };
        Asked { family, protocol: self.protocol, detail }
    }
}

/// Protocols whose packets must show more than their number. ICMP and ICMPv6 are such only in their own family.
fn has_transport(protocol: u8, ipv6: bool) -> bool {
    match protocol {
        TCP | UDP | DCCP | SCTP | UDPLITE => true,
        ICMP => !ipv6,
        ICMPV6 => ipv6,
        _ => false,
    }
}

/// The IP headers of a packet, and what follows them up to the length they give.
struct Ip<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    fragment: Option<FragmentHeader>,
    payload: &'a [u8],
}

/// Where a fragment belongs; `offset` is in bytes. One that is all of its datagram is none.
#[derive(Clone, Copy)]
struct FragmentHeader {
    id: u32,
    offset: u16,
}

impl<'a> Ip<'a> {
    fn part(&self) -> Part {
        match self.fragment {
            None => Part::Whole,
            Some(FragmentHeader { id, offset: 0 }) => Part::First { id },
            Some(FragmentHeader { id, .. }) => Part::Later { id },
        }
    }

    fn transport(&self) -> Result<Transport<'a>, Reason> {
        match self.fragment {
            // What comes this early would overwrite the TCP header of the first fragment.
            Some(FragmentHeader { offset: 1..20, .. }) if self.protocol == TCP => Err(Reason::TinyFragment),
            Some(FragmentHeader { offset: 1.., .. }) => Ok(Transport::Opaque),
            Some(FragmentHeader { offset: 0, .. }) => self.header(Reason::TinyFragment),
            None => self.header(Reason::Truncated),
        }
    }

    fn header(&self, too_short: Reason) -> Result<Transport<'a>, Reason> {
        let needed = match self.protocol {
            TCP => 20,
            SCTP | DCCP => 12,
            _ => 8,
        };
        let bytes = self.payload;
        if bytes.len() < needed {
            return Err(too_short);
        }
        let (source, destination) = (u16_at(bytes, 0), u16_at(bytes, 2));
        match self.protocol {
            TCP if bytes[12] >> 4 < 5 => Err(Reason::Malformed),
            UDP if u16_at(bytes, 4) < 8 => Err(Reason::Malformed),
            TCP => Ok(Transport::Tcp { source, destination, flags: bytes[13] }),
            ICMP | ICMPV6 => Ok(Transport::Icmp(Icmp(bytes))),
            _ => Ok(Transport::Ports { source, destination }),
        }
    }
}

fn parse_ipv4(bytes: &[u8]) -> Result<Ip<'_>, Reason> {
    if bytes.len() < 20 {
        return Err(Reason::Truncated);
    }
    let header = usize::from(bytes[0] & 0x0f) * 4;
    let total = usize::from(u16_at(bytes, 2));
    if bytes[0] >> 4 != 4 || header < 20 || total < header {
        return Err(Reason::Malformed);
    }
    let packet = bytes.get(..total).ok_or(Reason::Truncated)?;
    let (more, offset) = (u16_at(packet, 6) & 0x2000 != 0, (u16_at(packet, 6) & 0x1fff) << 3);
    Ok(Ip {
        source: ipv4_at(packet, 12),
        destination: ipv4_at(packet, 16),
        protocol: packet[9],
        fragment: (more || offset != 0).then(|| FragmentHeader { id: u16_at(packet, 4).into(), offset }),
        payload: &packet[header..],
    })
}

fn parse_ipv6(bytes: &[u8]) -> Result<Ip<'_>, Reason> {
    if bytes.len() < 40 {
        return Err(Reason::Truncated);
    }
    if bytes[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let payload = bytes[40..].get(..u16_at(bytes, 4).into()).ok_or(Reason::Truncated)?;
    let mut ip =
        Ip { source: ipv6_at(bytes, 8), destination: ipv6_at(bytes, 24), protocol: bytes[6], fragment: None, payload };
    follow_extensions(&mut ip)?;
    Ok(ip)
}

fn follow_extensions(ip: &mut Ip<'_>) -> Result<(), Reason> {
    let (mut followed, mut fragmented) = (0, false);
    while matches!(ip.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
        followed += 1;
        if followed > EXTENSION_HEADERS {
            return Err(Reason::ExtensionHeaders);
        }
        let start = ip.payload.get(..8).ok_or(Reason::Truncated)?;
        let length = if ip.protocol == FRAGMENT { 8 } else { (usize::from(start[1]) + 1) * 8 };
        if ip.protocol == FRAGMENT {
            if fragmented {
                return Err(Reason::Malformed);
            }
            fragmented = true;
            ip.fragment = fragment_header(start);
        }
        ip.payload = ip.payload.get(length..).ok_or(Reason::Truncated)?;
        ip.protocol = start[0];
        // What follows is the middle of something, whatever it looks like.
        if matches!(ip.fragment, Some(FragmentHeader { offset: 1.., .. })) {
            return Ok(());
        }
    }
    Ok(())
}

fn fragment_header(bytes: &[u8]) -> Option<FragmentHeader> {
    let (more, offset) = (u16_at(bytes, 2) & 1 != 0, u16_at(bytes, 2) & 0xfff8);
    let id = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    (more || offset != 0).then_some(FragmentHeader { id, offset })
}

/// The packet an ICMP error quotes, which is seldom whole: addresses, protocol, and the first bytes after the IP header.
pub(super) struct Quoted<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) transport: Transport<'a>,
}

impl<'a> Quoted<'a> {
    /// None where too little is quoted to tell the flow, or what no flow begins with.
    pub(super) fn parse(bytes: &'a [u8], ipv6: bool) -> Option<Self> {
        let (source, destination, protocol, payload) =
            if ipv6 { quoted_ipv6(bytes) } else { quoted_ipv4(bytes) }.filter(|(.., payload)| payload.len() >= 8)?;
        let transport = match protocol {
            _ if !has_transport(protocol, ipv6) => Transport::Opaque,
            ICMP | ICMPV6 => Transport::Icmp(Icmp(payload)),
            _ => Transport::Ports { source: u16_at(payload, 0), destination: u16_at(payload, 2) },
        };
        Some(Self { source, destination, protocol, transport })
    }
}

fn quoted_ipv4(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    let later_fragment = bytes.len() < 20 || u16_at(bytes, 6) & 0x1fff != 0;
    if bytes[0] >> 4 != 4 || header < 20 || later_fragment {
        return None;
    }
    Some((ipv4_at(bytes, 12), ipv4_at(bytes, 16), bytes[9], bytes.get(header..)?))
}

fn quoted_ipv6(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    let extended = bytes.len() < 40 || matches!(bytes[6], HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS);
    if extended || bytes[0] >> 4 != 6 {
        return None;
    }
    Some((ipv6_at(bytes, 8), ipv6_at(bytes, 24), bytes[6], &bytes[40..]))
}

fn u16_at(bytes: &[u8], place: usize) -> u16 {
    u16::from_be_bytes([bytes[place], bytes[place + 1]])
}

fn ipv4_at(bytes: &[u8], place: usize) -> IpAddr {
    let octets: [u8; 4] = std::array::from_fn(|octet| bytes[place + octet]);
    Ipv4Addr::from(octets).into()
}

fn ipv6_at(bytes: &[u8], place: usize) -> IpAddr {
    let octets: [u8; 16] = std::array::from_fn(|octet| bytes[place + octet]);
    Ipv6Addr::from(octets).into()
}

pub(super) fn mac_at(bytes: &[u8], place: usize) -> Mac {
    Mac(std::array::from_fn(|octet| bytes[place + octet]))
}
