//! The bytes of a probe. Flow: observe.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{BROADCAST, Kind, Probe};
use crate::{
    id::Mac,
    live::packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6, TCP, UDP},
};

/// What UDP and echoes carry, for whoever captures them.
const TEXT: &[u8] = b"netdiag probe";
/// Hops a probe may take.
const HOPS: u8 = 64;
/// ARP: Ethernet, IPv4, lengths of their addresses (RFC 826).
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// ARP operations.
const ASKS: [u8; 2] = [0, 1];
const ANSWERS: [u8; 2] = [0, 2];

/// An echo request of ICMP (RFC 792).
pub(super) const ECHO: u8 = 8;
/// Types of `ICMPv6` (RFC 4443, RFC 4861).
pub(super) const ECHO_V6: u8 = 128;
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
/// Options of neighbour discovery that say a MAC address: of who asks, of who is asked for; 1 for eight bytes.
const ASKER: [u8; 2] = [1, 1];
const OWNER: [u8; 2] = [2, 1];
/// Hops of neighbour discovery: whoever gets one with fewer knows that it comes from another segment.
const NEIGHBOUR_HOPS: u8 = 255;

impl Probe {
    /// The frame; none while the MAC address it goes to is not known.
    pub fn frame(&self) -> Option<Vec<u8>> {
        let to = self.next_mac?;
        Some(match self.kind {
            Kind::Tcp => self.packet(to, TCP, &self.tcp()),
            Kind::Udp => self.packet(to, UDP, &self.udp(TEXT)),
            Kind::Icmp => self.packet(to, self.icmp(), &self.echo()),
            Kind::Arp => self.ask(self.destination),
            Kind::Dhcp => self.packet(to, UDP, &self.udp(&self.discover())),
        })
    }

    /// The question for the MAC address the probe goes to.
    pub fn question(&self) -> Vec<u8> {
        self.ask(self.next_hop)
    }

    fn ask(&self, address: IpAddr) -> Vec<u8> {
        match (self.source, address) {
            (IpAddr::V4(source), IpAddr::V4(address)) => {
                let head = self.ethernet(BROADCAST, ETHERTYPE_ARP);
                let (mac, source) = (&self.source_mac.0, source.octets());
                [&head[..], &ARP_KIND, &ASKS, mac, &source, &[0; 6], &address.octets()].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(address)) => self.solicit(source, address),
            // A plan has addresses of one family.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
        }
    }

    /// Neighbour solicitation (RFC 4861, 4.3).
    fn solicit(&self, source: Ipv6Addr, address: Ipv6Addr) -> Vec<u8> {
        let (group, mac) = solicited(address);
        let head = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        let mut message = [&head[..], &address.octets(), &ASKER, &self.source_mac.0].concat();
        let sum = checksum(&[&pseudo_v6((source, group), ICMPV6, message.len()), &message]);
        put(&mut message, 2, sum);
        let ip = header_v6((source, group), ICMPV6, NEIGHBOUR_HOPS, message.len());
        [self.ethernet(mac, ETHERTYPE_IPV6), ip, message].concat()
    }

    fn ethernet(&self, to: Mac, ethertype: u16) -> Vec<u8> {
        [&to.0[..], &self.source_mac.0, &ethertype.to_be_bytes()].concat()
    }

    /// With Ethernet's and IP's headers.
    fn packet(&self, to: Mac, protocol: u8, carried: &[u8]) -> Vec<u8> {
        let (ethertype, head) = match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                (ETHERTYPE_IPV6, header_v6((source, destination), protocol, HOPS, carried.len()))
            }
            (source, destination) => {
                (ETHERTYPE_IPV4, self.header_v4((&octets(source), &octets(destination)), protocol, carried.len()))
            }
        };
        [self.ethernet(to, ethertype), head, carried.to_vec()].concat()
    }

    fn header_v4(&self, (source, destination): (&[u8], &[u8]), protocol: u8, carried: usize) -> Vec<u8> {
        let length = bytes(20 + carried);
        let id = self.mark.id.to_be_bytes();
        // May not be fragmented: it is small.
        let start = [0x45, 0, length[0], length[1], id[0], id[1], 0x40, 0, HOPS, protocol, 0, 0];
        let mut head = [&start[..], source, destination].concat();
        let sum = checksum(&[&head]);
        put(&mut head, 10, sum);
        head
    }

    /// A SYN.
    fn tcp(&self) -> Vec<u8> {
        let (from, to) = self.ports;
        let options = [2, 4, 0x05, 0xb4]; // Largest segment: 1460.
        let rest = [0, 0, 0, 0, 0x60, 2, 0xfa, 0xf0, 0, 0, 0, 0];
        let number = self.mark.number.to_be_bytes();
        let mut segment = [&from.to_be_bytes()[..], &to.to_be_bytes(), &number, &rest, &options].concat();
        let sum = checksum(&[&self.pseudo(TCP, segment.len()), &segment]);
        put(&mut segment, 16, sum);
        segment
    }

    fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let (from, to) = self.ports;
        let length = bytes(8 + payload.len());
        let mut datagram = [&from.to_be_bytes()[..], &to.to_be_bytes(), &length, &[0, 0], payload].concat();
        let sum = checksum(&[&self.pseudo(UDP, datagram.len()), &datagram]);
        // Zero would mean that there is none (RFC 768).
        put(&mut datagram, 6, if sum == 0 { u16::MAX } else { sum });
        datagram
    }

    fn echo(&self) -> Vec<u8> {
        let (id, number) = (self.mark.id.to_be_bytes(), self.echo_number().to_be_bytes());
        let kind = if self.is_v6() { ECHO_V6 } else { ECHO };
        let mut message = [&[kind, 0, 0, 0][..], &id, &number, TEXT].concat();
        // Of IPv4 it covers nothing besides.
        let besides = if self.is_v6() { self.pseudo(ICMPV6, message.len()) } else { Vec::new() };
        let sum = checksum(&[&besides, &message]);
        put(&mut message, 2, sum);
        message
    }

    /// A DISCOVER (RFC 2131). It asks for an answer to everybody: one to its own address would be refused by ICMP, as
    /// nobody there has asked.
    fn discover(&self) -> Vec<u8> {
        let head = [&[1, 1, 6, 0][..], &self.mark.number.to_be_bytes(), &[0, 0, 0x80, 0], &[0; 16]].concat();
        // Hardware address with its padding, server's name, file.
        let names = [&self.source_mac.0[..], &[0; 10], &[0; 64], &[0; 128]].concat();
        // Cookie, DISCOVER, wanted: mask, router, name server; end. Servers expect no less than 300 bytes.
        let options = [&[99, 130, 83, 99, 53, 1, 1, 55, 3, 1, 3, 6, 255][..], &[0; 51]].concat();
        [head, names, options].concat()
    }

    /// Number of an echo: the half of the mark that fits.
    pub(super) const fn echo_number(&self) -> u16 {
        let [_, _, high, low] = self.mark.number.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// What the checksums of TCP, UDP and `ICMPv6` cover besides.
    fn pseudo(&self, protocol: u8, length: usize) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => pseudo_v6((source, destination), protocol, length),
            (source, destination) => {
                [&octets(source)[..], &octets(destination), &[0, protocol], &bytes(length)].concat()
            }
        }
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The group in which whoever has an address listens for questions (RFC 4291, 2.7.1), and its MAC address (RFC 2464, 7).
pub(super) fn solicited(address: Ipv6Addr) -> (Ipv6Addr, Mac) {
    let [.., a, b, c] = address.octets();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    (Ipv6Addr::from(group), Mac([0x33, 0x33, 0xff, a, b, c]))
}

fn header_v6((source, destination): (Ipv6Addr, Ipv6Addr), protocol: u8, hops: u8, carried: usize) -> Vec<u8> {
    let start = [0x60, 0, 0, 0];
    [&start[..], &bytes(carried), &[protocol, hops], &source.octets(), &destination.octets()].concat()
}

fn pseudo_v6((source, destination): (Ipv6Addr, Ipv6Addr), protocol: u8, length: usize) -> Vec<u8> {
    [&source.octets()[..], &destination.octets(), &[0, 0], &bytes(length), &[0, 0, 0, protocol]].concat()
}

/// The MAC address that a frame says an address has: an answer of ARP, or of neighbour discovery.
pub fn neighbour_answer(frame: &[u8], address: IpAddr) -> Option<Mac> {
    match address {
        IpAddr::V4(address) => arp_answer(frame, address),
        IpAddr::V6(address) => advertised(frame, address),
    }
}

fn arp_answer(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let arp = frame.get(14..).filter(|_| frame.get(12..14) == Some(&ETHERTYPE_ARP.to_be_bytes()[..]))?;
    let answers = arp.get(..8)? == [&ARP_KIND[..], &ANSWERS].concat().as_slice();
    let is_it = arp.get(14..18)? == address.octets();
    let mac: [u8; 6] = arp.get(8..14)?.try_into().ok()?;
    (answers && is_it).then_some(Mac(mac))
}

fn advertised(frame: &[u8], address: Ipv6Addr) -> Option<Mac> {
    let ip = frame.get(14..).filter(|_| frame.get(12..14) == Some(&ETHERTYPE_IPV6.to_be_bytes()[..]))?;
    let message = ip.get(40..).filter(|_| ip[6..8] == [ICMPV6, NEIGHBOUR_HOPS])?;
    advertisement(*message.first()?, message.get(8..)?, address)
}

/// What a neighbour advertisement says of an address, of the bytes behind its flags (RFC 4861, 4.4).
pub(super) fn advertisement(kind: u8, body: &[u8], address: Ipv6Addr) -> Option<Mac> {
    let is_it = kind == ADVERTISEMENT && body.get(..16)? == address.octets();
    let mac: [u8; 6] = body.get(18..24).filter(|_| body[16..18] == OWNER)?.try_into().ok()?;
    is_it.then_some(Mac(mac))
}

/// A length; nothing here is longer than some hundreds of bytes.
fn bytes(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn put(bytes: &mut [u8], place: usize, value: u16) {
    if let Some(field) = bytes.get_mut(place..place + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The Internet's checksum (RFC 1071) over parts, of which all but the last are of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}
