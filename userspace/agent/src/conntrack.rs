//! The kernel's connection tracking of one network namespace, that of the calling thread, by ctnetlink: lists IPv4 entries,
//! removes them and adds some. Flow: policy.
//!
//! Messages are read attribute by attribute, as `linux/netfilter/nfnetlink_conntrack.h` has them.

use std::{io, net::Ipv4Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};
use rtnetlink::sys::{Socket, SocketAddr};

/// Connections that the kernel has not seen begin.
mod add;

pub(crate) use add::{Connection, Translated, add};

/// `NETLINK_NETFILTER`.
const NETLINK_NETFILTER: isize = 12;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`, `…_GET` and `…_DELETE`.
const NEW: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// `struct nfgenmsg` for `AF_INET`.
const IPV4: [u8; 4] = [2, 0, 0, 0];
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Attributes of an entry.
mod entry {
    pub(super) const ORIGINAL: u16 = 1;
    pub(super) const REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const PROTOCOL: u16 = 4;
    pub(super) const SOURCE_NAT: u16 = 6;
    pub(super) const TIMEOUT: u16 = 7;
    pub(super) const ID: u16 = 12;
    pub(super) const DESTINATION_NAT: u16 = 13;
    pub(super) const ZONE: u16 = 18;
}

/// Attributes of a tuple, and of what is in it.
mod tuple {
    pub(super) const IP: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const SOURCE: u16 = 1;
    pub(super) const DESTINATION: u16 = 2;
    pub(super) const NUMBER: u16 = 1;
    pub(super) const SOURCE_PORT: u16 = 2;
    pub(super) const DESTINATION_PORT: u16 = 3;
    pub(super) const ICMP_ID: u16 = 4;
    pub(super) const ICMP_TYPE: u16 = 5;
    pub(super) const ICMP_CODE: u16 = 6;
}

/// What packets of one direction look like when they come, before anything is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Who sends them.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// IP protocol.
    pub protocol: u8,
    /// The sender's port; the identifier of an ICMP query.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Type of an ICMP query.
    pub icmp_type: u8,
}

impl Tuple {
    /// True where one end is that address.
    pub fn is_of(&self, address: Ipv4Addr) -> bool {
        self.source == address || self.destination == address
    }
}

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The direction it began in.
    pub original: Tuple,
    /// The other one.
    pub reply: Tuple,
    /// What names it to the kernel: attributes with their headers.
    name: Vec<u8>,
}

impl Entry {
    /// An entry the kernel has no name for.
    #[cfg(test)]
    pub(crate) const fn between(original: Tuple, reply: Tuple) -> Self {
        Self { original, reply, name: Vec::new() }
    }

    /// True where one end of a direction is that address.
    pub fn is_of(&self, address: Ipv4Addr) -> bool {
        self.original.is_of(address) || self.reply.is_of(address)
    }
}

/// All IPv4 entries; none where the kernel tracks nothing.
///
/// # Errors
/// The kernel refuses, as where it has no connection tracking or `CAP_NET_ADMIN` is missing.
pub fn list() -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    exchange(GET, NLM_F_DUMP, &[], |payload| entries.extend(read(payload)))?;
    Ok(entries)
}

/// Removes entries; those that are gone already are no error.
///
/// # Errors
/// The kernel refuses to remove one.
pub fn remove(entries: &[Entry]) -> io::Result<()> {
    for entry in entries {
        match exchange(DELETE, NLM_F_ACK, &entry.name, |_| ()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => result?,
        }
    }
    Ok(())
}

// === messages ===

fn exchange(kind: u16, flags: u16, attributes: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
    ask(&open()?, (kind, flags), attributes, each)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn ask(socket: &Socket, (kind, flags): (u16, u16), attributes: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let length = u32::try_from(HEADER + IPV4.len() + attributes.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([1_u32.to_ne_bytes(), [0; 4]].concat());
    message.extend(IPV4);
    message.extend(attributes);
    socket.send(&message, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if take(&datagram, &mut each)? {
            return Ok(());
        }
    }
}

/// Takes the messages of one datagram; true at the end of the answer.
fn take(mut datagram: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while let Some((header, _)) = datagram.split_at_checked(HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).map_err(io::Error::other)?.max(HEADER);
        let payload = datagram.get(HEADER..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            netlink_packet_core::NLMSG_DONE => return Ok(true),
            netlink_packet_core::NLMSG_ERROR => {
                let code = payload.first_chunk().map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            _ => each(payload),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Attributes of a payload, by kind, as far as they are well-formed.
fn attributes(payload: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> {
    NlasIterator::new(payload).map_while(Result::ok).map(|nla| (nla.kind(), nla.value().to_vec()))
}

fn read(payload: &[u8]) -> Option<Entry> {
    let (mut original, mut reply, mut name) = (None, None, Vec::new());
    for (kind, value) in attributes(payload.get(IPV4.len()..)?) {
        match kind {
            entry::ORIGINAL => original = read_tuple(&value),
            entry::REPLY => reply = read_tuple(&value),
            _ => {}
        }
        // An id keeps a connection from being removed that has taken the place of this one.
        match kind {
            entry::ORIGINAL => put(&mut name, kind | NESTED, &value),
            entry::ID | entry::ZONE => put(&mut name, kind, &value),
            _ => {}
        }
    }
    Some(Entry { original: original?, reply: reply?, name })
}

/// `NLA_F_NESTED`: an attribute holds others.
const NESTED: u16 = 1 << 15;

/// Adds an attribute.
fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn read_tuple(payload: &[u8]) -> Option<Tuple> {
    let (mut source, mut destination, mut number) = (None, None, None);
    let (mut source_port, mut destination_port, mut id, mut icmp_type) = (0, 0, None, 0);
    for (kind, value) in attributes(payload) {
        for (inner, value) in attributes(&value) {
            match (kind, inner) {
                (tuple::IP, tuple::SOURCE) => source = ipv4(&value),
                (tuple::IP, tuple::DESTINATION) => destination = ipv4(&value),
                (tuple::PROTOCOL, tuple::NUMBER) => number = value.first().copied(),
                (tuple::PROTOCOL, tuple::SOURCE_PORT) => source_port = word(&value),
                (tuple::PROTOCOL, tuple::DESTINATION_PORT) => destination_port = word(&value),
                (tuple::PROTOCOL, tuple::ICMP_ID) => id = Some(word(&value)),
                (tuple::PROTOCOL, tuple::ICMP_TYPE) => icmp_type = value.first().copied().unwrap_or_default(),
                _ => {}
            }
        }
    }
    let source_port = id.unwrap_or(source_port);
    Some(Tuple {
        source: source?,
        destination: destination?,
        protocol: number?,
        source_port,
        destination_port,
        icmp_type,
    })
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

fn word(value: &[u8]) -> u16 {
    value.first_chunk().map_or(0, |octets| u16::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::{NESTED, entry, put, read, tuple};

    fn nested(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = Vec::new();
        for (kind, value) in parts {
            put(&mut message, *kind, value);
        }
        message
    }

    fn direction(source: [u8; 4], destination: [u8; 4], protocol: &[(u16, &[u8])]) -> Vec<u8> {
        let ip = nested(&[(tuple::SOURCE, &source), (tuple::DESTINATION, &destination)]);
        nested(&[(tuple::IP, &ip), (tuple::PROTOCOL, &nested(protocol))])
    }

    #[test]
    fn an_entry_is_read_with_what_both_directions_look_like() {
        let protocol: [(u16, &[u8]); 3] =
            [(tuple::NUMBER, &[17]), (tuple::SOURCE_PORT, &[0, 53]), (tuple::DESTINATION_PORT, &[1, 0])];
        let original = direction([10, 0, 0, 5], [192, 0, 2, 9], &protocol);
        let reply = direction([192, 0, 2, 9], [172, 24, 4, 6], &protocol);
        let mut message = super::IPV4.to_vec();
        message.extend(nested(&[(entry::ORIGINAL, &original), (entry::REPLY, &reply), (entry::ID, &[0, 0, 0, 7])]));
        let read = read(&message).unwrap();
        assert!(read.is_of("172.24.4.6".parse().unwrap()) && !read.is_of("172.24.4.7".parse().unwrap()));
        assert_eq!((read.original.source_port, read.original.destination_port, read.original.protocol), (53, 256, 17));
        assert_eq!(read.name, nested(&[(entry::ORIGINAL | NESTED, &original), (entry::ID, &[0, 0, 0, 7])]));
    }

    #[test]
    fn of_icmp_the_identifier_stands_for_the_port() {
        let protocol: [(u16, &[u8]); 3] = [(tuple::NUMBER, &[1]), (tuple::ICMP_ID, &[2, 1]), (tuple::ICMP_TYPE, &[8])];
        let both = direction([10, 0, 0, 5], [192, 0, 2, 9], &protocol);
        let mut message = super::IPV4.to_vec();
        message.extend(nested(&[(entry::ORIGINAL, &both), (entry::REPLY, &both)]));
        let original = read(&message).unwrap().original;
        assert_eq!((original.source_port, original.icmp_type), (0x201, 8));
    }

    #[test]
    fn a_message_that_is_cut_short_is_no_entry() {
        assert_eq!(read(&[2, 0, 0, 0, 20, 0, 1, 0, 9]), None);
        assert_eq!(read(&[2]), None);
    }
}
