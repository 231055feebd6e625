//! Connections that the kernel has not seen begin, and that it shall translate all the same as their flows always were.
//! Flow: policy.

use std::{io, net::Ipv4Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};

use super::{NESTED, NEW, Tuple, ask, entry, open, put, tuple};

/// Protocols, as IP numbers them.
const ICMP: u8 = 1;
const TCP: u8 = 6;
/// `IPS_SEEN_REPLY`, `IPS_ASSURED` and `IPS_CONFIRMED`: it is established, and makes room for no other.
const ESTABLISHED: u32 = 2 | 4 | 8;
/// Attributes of a translation, and of its ports.
const NAT_FIRST: u16 = 1;
const NAT_LAST: u16 = 2;
const NAT_PORTS: u16 = 3;
const PORT_FIRST: u16 = 1;
const PORT_LAST: u16 = 2;
/// Attributes of a TCP connection, and `TCP_CONNTRACK_ESTABLISHED`.
const OF_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_FLAGS: [u16; 2] = [4, 5];
const TCP_ESTABLISHED: u8 = 3;
/// `IP_CT_TCP_FLAG_SACK_PERM` and `…_BE_LIBERAL`, as the kernel has them for connections it picks up half way: windows that
/// nobody has seen agreed on are not to be judged by.
const TCP_LIBERAL: u8 = 0x02 | 0x08;

/// A connection to be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The direction it began in, before anything is translated.
    pub(crate) original: Tuple,
    /// What its source becomes, or its destination; ports stay.
    pub(crate) translated: Translated,
    /// How long it may be silent, in seconds.
    pub(crate) timeout: u32,
}

/// What is translated of the direction in which a connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translated {
    /// The source.
    Source(Ipv4Addr),
    /// The destination.
    Destination(Ipv4Addr),
}

/// Adds connections; one that is tracked already stays as it is.
///
/// # Errors
/// The kernel refuses one.
pub(crate) fn add(connections: &[Connection]) -> io::Result<()> {
    let socket = open()?;
    for connection in connections {
        match ask(&socket, (NEW, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK), &message(connection), |_| ()) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            result => result?,
        }
    }
    Ok(())
}

fn message(connection: &Connection) -> Vec<u8> {
    let Connection { original, translated, timeout } = connection;
    let mut message = Vec::new();
    put(&mut message, entry::ORIGINAL | NESTED, &written(original));
    // As if nothing were translated: what is, the kernel works out itself.
    put(&mut message, entry::REPLY | NESTED, &written(&answer(original)));
    let (kind, address, port) = match translated {
        Translated::Source(address) => (entry::SOURCE_NAT, address, original.source_port),
        // An identifier is one for both directions.
        Translated::Destination(address) if original.protocol == ICMP => {
            (entry::DESTINATION_NAT, address, original.source_port)
        }
        Translated::Destination(address) => (entry::DESTINATION_NAT, address, original.destination_port),
    };
    put(&mut message, kind | NESTED, &translation(*address, port));
    if original.protocol == TCP {
        put(&mut message, entry::PROTOCOL | NESTED, &established());
    }
    put(&mut message, entry::STATUS, &ESTABLISHED.to_be_bytes());
    put(&mut message, entry::TIMEOUT, &timeout.to_be_bytes());
    message
}

/// What the other direction looks like where nothing is translated.
const fn answer(tuple: &Tuple) -> Tuple {
    let Tuple { source, destination, protocol, source_port, destination_port, icmp_type } = *tuple;
    if protocol == ICMP {
        // An answer to a ping has the type 0.
        return Tuple { source: destination, destination: source, icmp_type: 0, ..*tuple };
    }
    Tuple {
        source: destination,
        destination: source,
        protocol,
        source_port: destination_port,
        destination_port: source_port,
        icmp_type,
    }
}

fn written(tuple: &Tuple) -> Vec<u8> {
    let (mut ip, mut protocol, mut message) = (Vec::new(), Vec::new(), Vec::new());
    put(&mut ip, tuple::SOURCE, &tuple.source.octets());
    put(&mut ip, tuple::DESTINATION, &tuple.destination.octets());
    put(&mut protocol, tuple::NUMBER, &[tuple.protocol]);
    if tuple.protocol == ICMP {
        put(&mut protocol, tuple::ICMP_ID, &tuple.source_port.to_be_bytes());
        put(&mut protocol, tuple::ICMP_TYPE, &[tuple.icmp_type]);
        put(&mut protocol, tuple::ICMP_CODE, &[0]);
    } else {
        put(&mut protocol, tuple::SOURCE_PORT, &tuple.source_port.to_be_bytes());
        put(&mut protocol, tuple::DESTINATION_PORT, &tuple.destination_port.to_be_bytes());
    }
    put(&mut message, tuple::IP | NESTED, &ip);
    put(&mut message, tuple::PROTOCOL | NESTED, &protocol);
    message
}

/// One address and one port, which leaves no choice.
fn translation(address: Ipv4Addr, port: u16) -> Vec<u8> {
    let (mut ports, mut message) = (Vec::new(), Vec::new());
    for kind in [PORT_FIRST, PORT_LAST] {
        put(&mut ports, kind, &port.to_be_bytes());
    }
    for kind in [NAT_FIRST, NAT_LAST] {
        put(&mut message, kind, &address.octets());
    }
    put(&mut message, NAT_PORTS | NESTED, &ports);
    message
}

fn established() -> Vec<u8> {
    let (mut of_tcp, mut message) = (Vec::new(), Vec::new());
    put(&mut of_tcp, TCP_STATE, &[TCP_ESTABLISHED]);
    for kind in TCP_FLAGS {
        // Flags, and which of them are meant.
        put(&mut of_tcp, kind, &[TCP_LIBERAL, TCP_LIBERAL]);
    }
    put(&mut message, OF_TCP | NESTED, &of_tcp);
    message
}
