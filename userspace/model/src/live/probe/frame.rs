//! The bytes of a probe. Flow: observe.

use std::net::Ipv4Addr;

use super::{BROADCAST, Kind, Probe};
use crate::{
    id::Mac,
    live::packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ICMP, TCP, UDP},
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

impl Probe {
    /// The frame; none while the MAC address it goes to is not known.
    pub fn frame(&self) -> Option<Vec<u8>> {
        let to = self.next_mac?;
        Some(match self.kind {
            Kind::Tcp => self.packet(to, TCP, &self.tcp()),
            Kind::Udp => self.packet(to, UDP, &self.udp(TEXT)),
            Kind::Icmp => self.packet(to, ICMP, &self.echo()),
            Kind::Arp => self.asks(self.destination),
            Kind::Dhcp => self.packet(to, UDP, &self.udp(&self.discover())),
        })
    }

    /// The question for the MAC address the probe goes to.
    pub fn question(&self) -> Vec<u8> {
        self.asks(self.next_hop)
    }

    fn asks(&self, address: Ipv4Addr) -> Vec<u8> {
        let head = self.ethernet(BROADCAST, ETHERTYPE_ARP);
        let (mac, source) = (&self.source_mac.0, self.source.octets());
        [&head[..], &ARP_KIND, &ASKS, mac, &source, &[0; 6], &address.octets()].concat()
    }

    fn ethernet(&self, to: Mac, ethertype: u16) -> Vec<u8> {
        [&to.0[..], &self.source_mac.0, &ethertype.to_be_bytes()].concat()
    }

    /// With Ethernet's and IP's headers.
    fn packet(&self, to: Mac, protocol: u8, carried: &[u8]) -> Vec<u8> {
        let length = bytes(20 + carried.len());
        let id = self.mark.id.to_be_bytes();
        // May not be fragmented: it is small.
        let start = [0x45, 0, length[0], length[1], id[0], id[1], 0x40, 0, HOPS, protocol, 0, 0];
        let mut head = [&start[..], &self.source.octets(), &self.destination.octets()].concat();
        let sum = checksum(&[&head]);
        put(&mut head, 10, sum);
        [self.ethernet(to, ETHERTYPE_IPV4), head, carried.to_vec()].concat()
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
        let mut message = [&[8, 0, 0, 0][..], &id, &number, TEXT].concat();
        let sum = checksum(&[&message]);
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

    /// What the checksums of TCP and UDP cover besides.
    fn pseudo(&self, protocol: u8, length: usize) -> Vec<u8> {
        [&self.source.octets()[..], &self.destination.octets(), &[0, protocol], &bytes(length)].concat()
    }
}

/// The MAC address that a frame says an address has.
pub fn arp_answer(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let arp = frame.get(14..).filter(|_| frame.get(12..14) == Some(&ETHERTYPE_ARP.to_be_bytes()[..]))?;
    let answers = arp.get(..8)? == [&ARP_KIND[..], &ANSWERS].concat().as_slice();
    let is_it = arp.get(14..18)? == address.octets();
    let mac: [u8; 6] = arp.get(8..14)?.try_into().ok()?;
    (answers && is_it).then_some(Mac(mac))
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
