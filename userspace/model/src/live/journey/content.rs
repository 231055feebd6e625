//! What of a packet no hop changes: neither NAT nor routers, bridges, VLANs or tunnels.
//!
//! Addresses and ports are left out, as NAT changes them, and so are the identifiers of ICMP echoes, which it changes too.

use std::net::IpAddr;

use crate::live::packet::{Content as Carried, Headers, Icmp, Ip, Transport};

/// PSH, which devices that put segments together or take them apart set anew.
const PSH: u8 = 8;

/// Key of a packet: the same at all its sightings, and of few others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Content {
    Tcp {
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        length: u32,
    },
    Udp {
        length: u32,
    },
    Echo {
        kind: u8,
        number: u16,
        length: u32,
    },
    Icmp {
        kind: u8,
        code: u8,
        length: u32,
        about: Option<Box<Self>>,
    },
    Sctp {
        tag: u32,
    },
    /// A fragment that is not the first, or a protocol without anything known of it.
    Ip {
        protocol: u8,
        id: u16,
        offset: u16,
        length: u32,
    },
    /// What an ICMP error quotes, of which only ports are known.
    Quoted {
        protocol: u8,
        id: u16,
        length: u32,
    },
    Arp {
        operation: u16,
        sender: IpAddr,
        target: IpAddr,
    },
}

impl Content {
    /// Of the innermost packet; none where nothing tells it from others.
    pub(super) fn of(headers: &Headers) -> Option<Self> {
        match &headers.innermost().content {
            Carried::Ip(ip) => Some(Self::of_ip(ip)),
            Carried::Arp(arp) => Some(Self::Arp { operation: arp.operation, sender: arp.sender, target: arp.target }),
            Carried::Other { .. } => None,
        }
    }

    fn of_ip(ip: &Ip) -> Self {
        let &Ip { protocol, id, length, .. } = ip;
        match &ip.transport {
            Transport::Tcp { sequence, acknowledgement, flags, length, .. } => Self::Tcp {
                sequence: *sequence,
                acknowledgement: *acknowledgement,
                flags: flags & !PSH,
                length: *length,
            },
            Transport::Udp { length, .. } => Self::Udp { length: *length },
            Transport::Icmp(Icmp { kind, echo: Some((_, number)), length, .. }) => {
                Self::Echo { kind: *kind, number: *number, length: *length }
            }
            Transport::Icmp(Icmp { kind, code, length, quoted, .. }) => {
                let about = quoted.as_ref().map(|quoted| Box::new(Self::of_quoted(quoted)));
                Self::Icmp { kind: *kind, code: *code, length: *length, about }
            }
            Transport::Sctp { tag, .. } => Self::Sctp { tag: *tag },
            Transport::Tunnel { .. } | Transport::Ports { .. } => Self::Quoted { protocol, id, length },
            Transport::None => Self::Ip { protocol, id, offset: ip.fragment.map_or(0, |(offset, _)| offset), length },
        }
    }

    /// Of what an error quotes the ports are translated, and everything behind them may be missing.
    const fn of_quoted(ip: &Ip) -> Self {
        Self::Quoted { protocol: ip.protocol, id: ip.id, length: ip.length }
    }
}

/// Whether two packets of the same key may be one: nothing that both sightings have differs.
pub(super) fn may_be_one(one: &Headers, other: &Headers) -> bool {
    let (one, other) = (one.innermost(), other.innermost());
    let (Some(one), Some(other)) = (one.ip(), other.ip()) else { return one.ip().is_none() && other.ip().is_none() };
    let ids = one.id == other.id || one.id == 0 || other.id == 0;
    ids && one.source.is_ipv4() == other.source.is_ipv4() && same_start(body(one), body(other))
}

/// Whether one of two beginnings of a payload goes on as the other does: heads are cut at different places.
fn same_start(one: &[u8], other: &[u8]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

fn body(ip: &Ip) -> &[u8] {
    match &ip.transport {
        Transport::Tcp { body, .. } | Transport::Udp { body, .. } | Transport::Sctp { body, .. } => body,
        Transport::Icmp(icmp) => &icmp.body,
        Transport::Tunnel { .. } | Transport::Ports { .. } | Transport::None => &[],
    }
}

/// How alike the ends of two packets of the same key are, from 0: NAT changes one end at a time.
pub(super) fn likeness(one: &Headers, other: &Headers) -> u32 {
    let ends = |headers: &Headers| {
        let inner = headers.innermost();
        let ports = inner.ip().and_then(|ip| ip.transport.ports()).unwrap_or_default();
        inner.addresses().map(|(source, destination)| ((source, ports.0), (destination, ports.1)))
    };
    let (Some(one_ends), Some(other_ends)) = (ends(one), ends(other)) else { return 0 };
    let same = u32::from(one_ends.0 == other_ends.0) + u32::from(one_ends.1 == other_ends.1);
    let addresses = u32::from(one_ends.0.0 == other_ends.0.0) + u32::from(one_ends.1.0 == other_ends.1.0);
    // The identifier of an echo stays where nothing translates it.
    let echo = |headers: &Headers| match headers.innermost().ip().map(|ip| &ip.transport) {
        Some(Transport::Icmp(icmp)) => icmp.echo.map(|(identifier, _)| identifier),
        _ => None,
    };
    let identifiers = u32::from(echo(one).is_some() && echo(one) == echo(other));
    same * 4 + addresses * 2 + identifiers
}
