//! Frames, header by header, with checksums as a careful sender makes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netdiag_model::id::Mac;

/// Everybody on the link.
pub const BROADCAST: Mac = Mac([0xff; 6]);

/// An IP packet in its frame, before it is bytes. Whoever builds it may lie in every field.
#[derive(Clone, Debug)]
pub struct Packet {
    /// MAC address of the sender.
    pub from_mac: Mac,
    /// MAC address it goes to.
    pub to_mac: Mac,
    /// Source address.
    pub from: IpAddr,
    /// Destination address.
    pub to: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// What comes after the IP header.
    pub payload: Vec<u8>,
    /// Offset in octets, whether more follow, and the identification.
    pub fragment: Option<(u16, bool, u16)>,
    /// IPv4 options, a multiple of 4 octets.
    pub options: Vec<u8>,
    /// IPv6 extension headers by number, 8 octets each.
    pub extensions: Vec<u8>,
}

impl Packet {
    /// To an address, whatever the MAC address.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn to(mut self, address: &str) -> Self {
        self.to = address.parse().expect("an address");
        self
    }

    /// From an address, whatever the MAC address.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn from(mut self, address: &str) -> Self {
        self.from = address.parse().expect("an address");
        self
    }

    /// From another MAC address.
    #[must_use]
    pub const fn from_mac(mut self, mac: Mac) -> Self {
        self.from_mac = mac;
        self
    }

    /// To another MAC address.
    #[must_use]
    pub const fn to_mac(mut self, mac: Mac) -> Self {
        self.to_mac = mac;
        self
    }

    /// To the multicast MAC address of its destination.
    #[must_use]
    pub fn multicast(mut self) -> Self {
        self.to_mac = match self.to {
            IpAddr::V4(to) => {
                let [_, b, c, d] = to.octets();
                Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(to) => {
                let [.., a, b, c, d] = to.octets();
                Mac([0x33, 0x33, a, b, c, d])
            }
        };
        self
    }

    /// UDP.
    #[must_use]
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.protocol = 17;
        self.payload = [source.to_be_bytes(), destination.to_be_bytes(), [0, 16], [0, 0]].concat();
        self.payload.extend(*b"netdiag!");
        self.with_checksum(6)
    }

    /// TCP without data.
    #[must_use]
    pub fn tcp(mut self, source: u16, destination: u16, flags: u8) -> Self {
        self.protocol = 6;
        self.payload = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        self.payload.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x10, 0, 0, 0, 0, 0]);
        self.with_checksum(16)
    }

    /// ICMP or ICMPv6 with what follows the checksum.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, rest: &[u8]) -> Self {
        self.protocol = if self.from.is_ipv4() { 1 } else { 58 };
        self.payload = [&[kind, code, 0, 0], rest].concat();
        self.with_checksum(2)
    }

    /// Any other protocol that begins with two ports.
    #[must_use]
    pub fn ports(mut self, protocol: u8, source: u16, destination: u16) -> Self {
        self.protocol = protocol;
        self.payload = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        self.payload.resize(24, 0);
        self
    }

    /// Any protocol, with a payload that says nothing.
    #[must_use]
    pub fn other(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self.payload = vec![0; 24];
        self
    }

    /// A part of the packet: octets from `offset` on, `length` of them.
    ///
    /// # Panics
    /// The packet is too large.
    #[must_use]
    pub fn piece(&self, id: u16, offset: usize, length: usize) -> Self {
        let end = self.payload.len().min(offset + length);
        let more = end < self.payload.len();
        let start = u16::try_from(offset).expect("a small packet");
        Self { payload: self.payload[offset..end].to_vec(), fragment: Some((start, more, id)), ..self.clone() }
    }

    /// With this much data after its header; the UDP length is put right.
    ///
    /// # Panics
    /// It is too much.
    #[must_use]
    pub fn padded(mut self, length: usize) -> Self {
        self.payload.resize(length, b'.');
        if self.protocol == 17 {
            let length = u16::try_from(length).expect("a small packet");
            self.payload[4..6].copy_from_slice(&length.to_be_bytes());
            self.payload[6..8].fill(0);
            return self.with_checksum(6);
        }
        self
    }

    fn with_checksum(mut self, at: usize) -> Self {
        self.payload[at..at + 2].fill(0);
        let length = u32::try_from(self.payload.len()).expect("a small packet");
        let addresses = [octets(self.from), octets(self.to)].concat();
        let pseudo = [&addresses[..], &length.to_be_bytes(), &[0, 0, 0, self.protocol]].concat();
        let sum = match self.protocol {
            1 => checksum(&self.payload),
            _ => checksum(&[pseudo, self.payload.clone()].concat()),
        };
        // Zero means that there is none.
        let sum = if sum == 0 && self.protocol == 17 { 0xffff } else { sum };
        self.payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        self
    }

    /// The packet without its frame.
    ///
    /// # Panics
    /// It is too large, or its addresses are of two families.
    #[must_use]
    pub fn ip(&self) -> Vec<u8> {
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.ipv4(from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.ipv6(from, to),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("addresses of two families"),
        }
    }

    fn ipv4(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let header = 20 + self.options.len();
        let words = u8::try_from(header / 4).expect("few options");
        let total = u16::try_from(header + self.payload.len()).expect("a small packet");
        let (offset, more, id) = self.fragment.unwrap_or_default();
        let flags = (offset / 8) | if more { 0x2000 } else { 0 };
        let mut packet = vec![0x40 | words, 0];
        for field in [total, id, flags, 0x4000 | u16::from(self.protocol), 0] {
            packet.extend(field.to_be_bytes());
        }
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(&self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(&self.payload);
        packet
    }

    fn ipv6(&self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        chain.extend(self.fragment.map(|_| 44));
        chain.push(self.protocol);
        let mut inner = Vec::new();
        for pair in chain.windows(2) {
            match (pair[0], self.fragment) {
                (44, Some((offset, more, id))) => {
                    inner.extend([pair[1], 0]);
                    inner.extend((offset | u16::from(more)).to_be_bytes());
                    inner.extend([0, 0]);
                    inner.extend(id.to_be_bytes());
                }
                // Routing without segments left, of a type for experiments; else one option that pads.
                (43, _) => inner.extend([pair[1], 0, 253, 0, 0, 0, 0, 0]),
                _ => inner.extend([pair[1], 0, 1, 4, 0, 0, 0, 0]),
            }
        }
        inner.extend(&self.payload);
        let length = u16::try_from(inner.len()).expect("a small packet");
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([chain[0], 255]);
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(inner);
        packet
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let ethertype = if self.from.is_ipv4() { 0x0800 } else { 0x86dd };
        ethernet(self.to_mac, self.from_mac, ethertype, &self.ip())
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A frame around anything.
#[must_use]
pub fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), payload].concat()
}

/// The frame with a VLAN tag in it.
#[must_use]
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &[0x81, 0x00], &vlan.to_be_bytes(), rest].concat()
}

/// ARP, or RARP, with this operation.
#[must_use]
pub fn arp(ethertype: u16, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4];
    payload.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        payload.extend(mac.0);
        payload.extend(address.octets());
    }
    ethernet(BROADCAST, sender.0, ethertype, &payload)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}
