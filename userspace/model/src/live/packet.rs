//! Bytes of a sighting to what its headers say. Flow: observe.
//!
//! A head is cut where the probe stopped copying, so every field beyond the addresses may be missing. Ethernet, VLAN and
//! IP are etherparse's; what follows is read here, because an ICMP error quotes no more than eight bytes of it.

use std::net::IpAddr;

use etherparse::{ArpPacketSlice, IpNumber, Ipv6Extensions, LaxNetSlice, LaxSlicedPacket, LinkSlice};
use serde::{Deserialize, Serialize};

use super::{Layer, Sighting};
use crate::id::Mac;

/// What IP carries.
mod transport;

pub use transport::{Icmp, Transport};

/// IP protocol numbers.
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

/// Ethertypes.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Bits of a VLAN tag that are the VLAN.
const VLAN: u16 = 0x0fff;

/// Packets inside of packets that are looked into.
const DEPTH: u8 = 2;

/// What the headers of a packet say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// Source and destination of the frame; none where the packet was seen without one.
    pub frame: Option<(Mac, Mac)>,
    /// VLANs, outermost first.
    pub vlans: Vec<u16>,
    /// What the frame carries.
    pub content: Content,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// IPv4 or IPv6.
    Ip(Ip),
    /// ARP.
    Arp(Arp),
    /// Something else, or too short to say.
    Other {
        /// Ethertype; 0 where the frame is too short.
        ethertype: u16,
    },
}

/// A question of ARP, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// MAC address of who speaks.
    pub sender_mac: Mac,
    /// Address of who speaks.
    pub sender: IpAddr,
    /// Who is asked for, or answered.
    pub target: IpAddr,
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol of what it carries.
    pub protocol: u8,
    /// Identification of IPv4; 0 where nobody gave it one.
    pub id: u16,
    /// Place of a fragment in its datagram, in bytes, and whether more follow; none for a whole packet.
    pub fragment: Option<(u16, bool)>,
    /// TTL or hop limit.
    pub hops: u8,
    /// Length of what it carries, in bytes, by its header.
    pub length: u32,
    /// What it carries.
    pub transport: Transport,
}

impl Headers {
    /// Reads what a probe has seen.
    pub fn of(sighting: &Sighting) -> Self {
        let mut headers = match sighting.layer {
            Layer::Ethernet => Self::ethernet(&sighting.head, DEPTH),
            Layer::Network => Self::network(&sighting.head, DEPTH),
        };
        headers.vlans.splice(0..0, sighting.tag.map(|tag| tag & VLAN));
        headers
    }

    /// Reads a frame.
    fn ethernet(bytes: &[u8], depth: u8) -> Self {
        let Ok(sliced) = LaxSlicedPacket::from_ethernet(bytes) else { return Self::other(0) };
        let frame = match &sliced.link {
            Some(LinkSlice::Ethernet2(frame)) => Some((Mac(frame.source()), Mac(frame.destination()))),
            Some(LinkSlice::LinuxSll(_) | LinkSlice::EtherPayload(_) | LinkSlice::LinuxSllPayload(_)) | None => None,
        };
        let vlans = sliced.vlan_ids().iter().map(|id| id.value()).collect();
        Self { frame, vlans, content: content(&sliced, depth) }
    }

    /// Reads a packet that begins with its IP header.
    fn network(bytes: &[u8], depth: u8) -> Self {
        let Ok(sliced) = LaxSlicedPacket::from_ip(bytes) else { return Self::other(0) };
        Self { frame: None, vlans: Vec::new(), content: content(&sliced, depth) }
    }

    /// Nothing is known.
    pub const fn unknown() -> Self {
        Self::other(0)
    }

    const fn other(ethertype: u16) -> Self {
        Self { frame: None, vlans: Vec::new(), content: Content::Other { ethertype } }
    }

    /// The IP packet, if it is one.
    pub const fn ip(&self) -> Option<&Ip> {
        match &self.content {
            Content::Ip(ip) => Some(ip),
            Content::Arp(_) | Content::Other { .. } => None,
        }
    }

    /// The packet inside of all tunnels: the one an instance sent.
    pub fn innermost(&self) -> &Self {
        match self.ip().and_then(Ip::tunnelled) {
            Some(inner) => inner.innermost(),
            None => self,
        }
    }

    /// Source and destination port; of an ICMP echo its identifier for both, which plays their part.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let transport = &self.ip()?.transport;
        if let Transport::Icmp(icmp) = transport {
            return icmp.echo.map(|(identifier, _)| (identifier, identifier));
        }
        transport.ports()
    }

    /// Ethertype of what the frame carries.
    pub const fn ethertype(&self) -> u16 {
        match &self.content {
            Content::Ip(ip) if ip.source.is_ipv4() => ETHERTYPE_IPV4,
            Content::Ip(_) => ETHERTYPE_IPV6,
            Content::Arp(_) => ETHERTYPE_ARP,
            Content::Other { ethertype } => *ethertype,
        }
    }

    /// Source and destination address, where it has any: of ARP, who speaks and who is asked for.
    pub const fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match &self.content {
            Content::Ip(ip) => Some((ip.source, ip.destination)),
            Content::Arp(arp) => Some((arp.sender, arp.target)),
            Content::Other { .. } => None,
        }
    }
}

impl Ip {
    /// The packet inside of it, where it is a tunnel's.
    pub fn tunnelled(&self) -> Option<&Headers> {
        if let Transport::Tunnel { inner, .. } = &self.transport { Some(inner) } else { None }
    }

    /// The packet an ICMP error is about, as far as it quotes it.
    pub fn quoted(&self) -> Option<&Self> {
        if let Transport::Icmp(icmp) = &self.transport { icmp.quoted.as_deref() } else { None }
    }

    /// Reads an IP packet, whole or cut.
    fn read(bytes: &[u8], depth: u8) -> Option<Self> {
        let sliced = LaxSlicedPacket::from_ip(bytes).ok()?;
        match content(&sliced, depth) {
            Content::Ip(ip) => Some(ip),
            Content::Arp(_) | Content::Other { .. } => None,
        }
    }
}

fn content(sliced: &LaxSlicedPacket<'_>, depth: u8) -> Content {
    let ethertype = || sliced.ether_payload().map_or(0, |payload| payload.ether_type.0);
    match &sliced.net {
        Some(LaxNetSlice::Ipv4(slice)) => {
            let header = slice.header();
            let (offset, more) = (header.fragments_offset().byte_offset(), header.more_fragments());
            let header_length = u32::from(header.ihl()) * 4;
            Content::Ip(whole(
                depth,
                slice.payload().payload,
                Ip {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    protocol: slice.payload_ip_number().0,
                    id: header.identification(),
                    fragment: (offset > 0 || more).then_some((offset, more)),
                    hops: header.ttl(),
                    length: u32::from(header.total_len()).saturating_sub(header_length),
                    transport: Transport::None,
                },
            ))
        }
        Some(LaxNetSlice::Ipv6(slice)) => {
            let header = slice.header();
            let extensions = u32::try_from(slice.extensions().slice().len()).unwrap_or(u32::MAX);
            let fragment = fragment(header.next_header(), slice.extensions().slice());
            Content::Ip(whole(
                depth,
                slice.payload().payload,
                Ip {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    protocol: slice.payload().ip_number.0,
                    id: 0,
                    fragment,
                    hops: header.hop_limit(),
                    length: u32::from(header.payload_length()).saturating_sub(extensions),
                    transport: Transport::None,
                },
            ))
        }
        Some(LaxNetSlice::Arp(slice)) => {
            arp(slice).map_or_else(|| Content::Other { ethertype: ETHERTYPE_ARP }, Content::Arp)
        }
        None => Content::Other { ethertype: ethertype() },
    }
}

/// Place of a fragment of IPv6, and whether more follow.
///
/// The headers are read again, each only as far as it is there: the iterator over extension headers trusts that the last one
/// it finds is not followed by a cut one, and reads past the end where it is.
fn fragment(first: IpNumber, extensions: &[u8]) -> Option<(u16, bool)> {
    if extensions.is_empty() {
        return None;
    }
    let (read, _, _, _) = Ipv6Extensions::from_slice_lax(first, extensions);
    let fragment = read.fragment?;
    let (offset, more) = (fragment.fragment_offset.byte_offset(), fragment.more_fragments);
    (offset > 0 || more).then_some((offset, more))
}

/// With what it carries; only a first fragment has any headers of it.
fn whole(depth: u8, payload: &[u8], ip: Ip) -> Ip {
    if ip.fragment.is_some_and(|(offset, _)| offset > 0) {
        return ip;
    }
    Ip { transport: Transport::read(&ip, payload, depth), ..ip }
}

fn arp(slice: &ArpPacketSlice<'_>) -> Option<Arp> {
    let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    Some(Arp {
        operation: slice.operation().0,
        sender_mac: Mac(slice.sender_hw_addr().try_into().ok()?),
        sender: address(slice.sender_protocol_addr())?,
        target: address(slice.target_protocol_addr())?,
    })
}

#[cfg(test)]
mod tests;
