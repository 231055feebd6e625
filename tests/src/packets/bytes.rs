//! Headers to bytes. Checksums are left 0: nothing that is tested here looks at them.

use std::net::IpAddr;

use netdiag_model::id::Mac;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

pub(crate) fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(destination.0);
    frame.extend(source.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IP header, or a chain of them.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) id: u32,
    /// Offset in units of 8 bytes, and whether more follow.
    pub(crate) fragment: Option<(u16, bool)>,
    /// IPv4: words of options. IPv6: extension headers before the fragment header, by number.
    pub(crate) extra: Vec<u8>,
}

impl Ip {
    pub(crate) fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self { source, destination, protocol, id: 0, fragment: None, extra: Vec::new() }
    }

    pub(crate) fn ethertype(&self) -> u16 {
        if self.source.is_ipv4() { IPV4 } else { IPV6 }
    }

    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source.octets(), destination.octets(), payload),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source.octets(), destination.octets(), payload),
            // Nothing else can be written down; an empty packet is as wrong as the wish.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
        }
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let words = 5 + self.extra.len().min(10);
        let (offset, more) = self.fragment.unwrap_or_default();
        let [_, _, id_high, id_low] = self.id.to_be_bytes();
        let [total_high, total_low] = length(words * 4 + payload.len());
        let [flags, offset_low] = (offset & 0x1fff | if more { 0x2000 } else { 0 }).to_be_bytes();
        let mut packet = vec![0x40 | small(words), 0, total_high, total_low, id_high, id_low, flags, offset_low];
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(source);
        packet.extend(destination);
        packet.resize(words * 4, 1);
        packet.extend(payload);
        packet
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let mut chain = self.extra.clone();
        chain.extend(self.fragment.map(|_| 44));
        chain.push(self.protocol);
        let mut inner = Vec::new();
        for pair in chain.windows(2) {
            inner.extend(self.extension(pair[0], pair[1]));
        }
        inner.extend(payload);
        let [high, low] = length(inner.len());
        let mut packet = vec![0x60, 0, 0, 0, high, low, chain[0], 64];
        packet.extend(source);
        packet.extend(destination);
        packet.extend(inner);
        packet
    }

    fn extension(&self, number: u8, next: u8) -> Vec<u8> {
        if number != 44 {
            return vec![next, 0, 1, 4, 0, 0, 0, 0];
        }
        // An extension that is asked for by number is an atomic fragment.
        let (offset, more) = self.fragment.unwrap_or_default();
        let mut header = vec![next, 0];
        header.extend((offset << 3 | u16::from(more)).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header
    }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

pub(crate) fn tcp(source: u16, destination: u16, flags: u8, data: usize) -> Vec<u8> {
    let mut bytes = ports(source, destination);
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 4, 0, 0, 0, 0, 0]);
    bytes.resize(bytes.len() + data, 0xda);
    bytes
}

pub(crate) fn udp(source: u16, destination: u16, data: usize) -> Vec<u8> {
    let mut bytes = ports(source, destination);
    bytes.extend(length(8 + data));
    bytes.resize(8 + data, 0xda);
    bytes
}

/// SCTP, DCCP, UDP-Lite: ports, and enough behind them.
pub(crate) fn with_ports(source: u16, destination: u16, data: usize) -> Vec<u8> {
    let mut bytes = ports(source, destination);
    bytes.resize(12 + data, 0xda);
    bytes
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes
}

pub(crate) fn icmp(kind: u8, code: u8, identifier: u16, body: &[u8]) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    let mut bytes = vec![kind, code, 0, 0, high, low, 0, 1];
    bytes.extend(body);
    bytes
}
