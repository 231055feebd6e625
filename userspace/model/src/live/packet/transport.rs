//! What an IP packet carries, as far as the probe has copied it.

use serde::{Deserialize, Serialize};

use super::{Headers, ICMP, ICMPV6, Ip, SCTP, TCP, UDP};

/// Ports of VXLAN: IANA's, and the one Linux had before.
const VXLAN: [u16; 2] = [4789, 8472];
/// Port of GENEVE.
const GENEVE: u16 = 6081;
/// Ethertype of a frame inside of GENEVE.
const FRAME: u16 = 0x6558;

/// Bytes of a payload that are kept to tell packets apart.
const KEPT: usize = 64;

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Sequence number of its first byte.
        sequence: u32,
        /// Acknowledgement number.
        acknowledgement: u32,
        /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
        flags: u8,
        /// Bytes of the stream.
        length: u32,
        /// The first of them.
        body: Vec<u8>,
    },
    /// UDP.
    Udp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Bytes it carries.
        length: u32,
        /// The first of them.
        body: Vec<u8>,
    },
    /// A frame in VXLAN or GENEVE.
    Tunnel {
        /// Source and destination port.
        ports: (u16, u16),
        /// VNI.
        vni: u32,
        /// The packet inside.
        inner: Box<Headers>,
    },
    /// ICMP or `ICMPv6`.
    Icmp(Icmp),
    /// SCTP.
    Sctp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Verification tag.
        tag: u32,
        /// Bytes behind the common header.
        body: Vec<u8>,
    },
    /// Only ports are known: what an ICMP error quotes of TCP.
    Ports {
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// Something else, or a fragment that is not the first.
    None,
}

/// ICMP or `ICMPv6`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Identifier and sequence number of an echo or its answer.
    pub echo: Option<(u16, u16)>,
    /// Bytes behind the header.
    pub length: u32,
    /// The first of them.
    pub body: Vec<u8>,
    /// What an error is about.
    pub quoted: Option<Box<Ip>>,
}

impl Transport {
    /// Reads the payload of an IP packet whose own fields are known.
    pub(super) fn read(ip: &Ip, payload: &[u8], depth: u8) -> Self {
        let bytes = Reader(payload);
        let read = match ip.protocol {
            TCP => tcp(bytes, ip.length),
            UDP => udp(bytes, ip.length, depth),
            ICMP | ICMPV6 => icmp(bytes, ip, depth),
            SCTP => sctp(bytes),
            _ => None,
        };
        read.unwrap_or(Self::None)
    }

    /// Source and destination port, where it has any.
    pub const fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Tcp { ports, .. }
            | Self::Udp { ports, .. }
            | Self::Tunnel { ports, .. }
            | Self::Sctp { ports, .. }
            | Self::Ports { ports } => Some(*ports),
            Self::Icmp(_) | Self::None => None,
        }
    }
}

fn tcp(bytes: Reader<'_>, total: u32) -> Option<Transport> {
    let ports = bytes.ports()?;
    let Some(offset) = bytes.u8(12) else { return Some(Transport::Ports { ports }) };
    let header = usize::from(offset >> 4) * 4;
    let length = total.saturating_sub(u32::from(offset >> 4) * 4);
    Some(Transport::Tcp {
        ports,
        sequence: bytes.u32(4)?,
        acknowledgement: bytes.u32(8)?,
        flags: bytes.u8(13)? & 0x3f,
        length,
        body: bytes.body(header, length),
    })
}

fn udp(bytes: Reader<'_>, total: u32, depth: u8) -> Option<Transport> {
    let ports = bytes.ports()?;
    if let Some((vni, inner)) = tunnelled(bytes, ports.1, depth) {
        return Some(Transport::Tunnel { ports, vni, inner: Box::new(inner) });
    }
    let length = total.saturating_sub(8);
    Some(Transport::Udp { ports, length, body: bytes.body(8, length) })
}

/// VNI and frame of a tunnel.
fn tunnelled(bytes: Reader<'_>, port: u16, depth: u8) -> Option<(u32, Headers)> {
    let vni = bytes.u32(12)? >> 8;
    let frame = if VXLAN.contains(&port) {
        // RFC 7348: the flag I says that there is a VNI.
        (bytes.u8(8)? & 0x08 != 0).then_some(16)?
    } else if port == GENEVE && bytes.u16(10)? == FRAME {
        16 + usize::from(bytes.u8(8)? & 0x3f) * 4
    } else {
        return None;
    };
    let depth = depth.checked_sub(1)?;
    Some((vni, Headers::ethernet(bytes.0.get(frame..)?, depth)))
}

fn icmp(bytes: Reader<'_>, ip: &Ip, depth: u8) -> Option<Transport> {
    let (kind, code) = (bytes.u8(0)?, bytes.u8(1)?);
    let v4 = ip.protocol == ICMP;
    let echo = if v4 { matches!(kind, 0 | 8) } else { matches!(kind, 128 | 129) };
    let error = if v4 { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { (1..=4).contains(&kind) };
    let quoted = depth.checked_sub(1).filter(|_| error).and_then(|depth| Ip::read(bytes.0.get(8..)?, depth));
    let length = ip.length.saturating_sub(8);
    Some(Transport::Icmp(Icmp {
        kind,
        code,
        echo: echo.then(|| Some((bytes.u16(4)?, bytes.u16(6)?))).flatten(),
        length,
        // Of an error the quoted packet is translated too, so nothing of it is kept.
        body: if error { Vec::new() } else { bytes.body(8, length) },
        quoted: quoted.map(Box::new),
    }))
}

fn sctp(bytes: Reader<'_>) -> Option<Transport> {
    let ports = bytes.ports()?;
    let Some(tag) = bytes.u32(4) else { return Some(Transport::Ports { ports }) };
    Some(Transport::Sctp { ports, tag, body: bytes.body(12, u32::MAX) })
}

/// Reads integers in network byte order, and nothing beyond the end.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn chunk<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn u8(self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    fn u16(self, offset: usize) -> Option<u16> {
        self.chunk(offset).map(u16::from_be_bytes)
    }

    fn u32(self, offset: usize) -> Option<u32> {
        self.chunk(offset).map(u32::from_be_bytes)
    }

    fn ports(self) -> Option<(u16, u16)> {
        Some((self.u16(0)?, self.u16(2)?))
    }

    /// The first bytes of a payload of a length; what follows it in the frame is padding.
    fn body(self, offset: usize, length: u32) -> Vec<u8> {
        let there = self.0.get(offset..).unwrap_or_default();
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(KEPT).min(there.len());
        there[..length].to_vec()
    }
}
