//! Bytes of a record as a sighting. Flow: observe.

use std::mem::offset_of;

use netdiag_common::abi::live::{
    SEEN_BY_SOCKET, SEEN_DROPPED, SEEN_NETWORK, SEEN_OF_SOCKET, SEEN_RECEIVED, SEEN_SENT, SEEN_TAGGED, Seen,
    TALLY_DROPPED, TALLY_SOCKET, TALLY_WAY,
};
use netdiag_model::{
    id::{IfIndex, LinkKey, NetnsId},
    live::{Layer, Sighting, View, What},
};

/// What is known of a packet but for names, which the kernel's numbers have to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The packet; what became of it is only right where it was not given up.
    pub(super) sighting: Sighting,
    /// Index of the device, also where its namespace is not known; 0 is none.
    pub(super) ifindex: u32,
    /// Where the kernel gave it up.
    pub(super) dropped: Option<GivenUp>,
}

impl Record {
    /// The tally of its CPU that counts it.
    pub(super) const fn tally(&self) -> u32 {
        match self.sighting.what {
            What::Received(View::Tc) | What::Sent(View::Tc) => TALLY_WAY,
            What::Received(View::Socket) | What::Sent(View::Socket) => TALLY_SOCKET,
            What::Dropped { .. } => TALLY_DROPPED,
        }
    }
}

/// What is known of a packet that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// Why.
    pub(super) reason: u32,
    /// Address of the instruction.
    pub(super) place: u64,
    /// It belonged to a packet socket.
    pub(super) of_socket: bool,
}

/// The record, if the bytes are one.
pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    let [kind, flags] = [byte(bytes, offset_of!(Seen, kind))?, byte(bytes, offset_of!(Seen, flags))?];
    let known = usize::from(half(bytes, offset_of!(Seen, known))?);
    let from = offset_of!(Seen, head);
    let view = if flags & SEEN_BY_SOCKET != 0 { View::Socket } else { View::Tc };
    let what = match kind {
        SEEN_RECEIVED => What::Received(view),
        SEEN_SENT => What::Sent(view),
        SEEN_DROPPED => What::Dropped { reason: String::new(), subsystem: String::new(), location: None, copy: false },
        _ => return None,
    };
    let ifindex = word(bytes, offset_of!(Seen, ifindex))?;
    let [inode, cookie] = [word(bytes, offset_of!(Seen, inode))?.into(), long(bytes, offset_of!(Seen, cookie))?];
    let tag = half(bytes, offset_of!(Seen, tag))?;
    let sighting = Sighting {
        time_ns: long(bytes, offset_of!(Seen, time))?,
        cpu: word(bytes, offset_of!(Seen, cpu))?,
        link: link(inode, cookie, ifindex),
        what,
        buffer: long(bytes, offset_of!(Seen, buffer))?,
        length: word(bytes, offset_of!(Seen, length))?,
        mark: word(bytes, offset_of!(Seen, mark))?,
        tag: (flags & SEEN_TAGGED != 0).then_some(tag),
        layer: if flags & SEEN_NETWORK != 0 { Layer::Network } else { Layer::Ethernet },
        head: bytes.get(from..from + known)?.to_vec(),
    };
    let (reason, place) = (word(bytes, offset_of!(Seen, reason))?, long(bytes, offset_of!(Seen, location))?);
    let dropped = GivenUp { reason, place, of_socket: flags & SEEN_OF_SOCKET != 0 };
    Some(Record { sighting, ifindex, dropped: (kind == SEEN_DROPPED).then_some(dropped) })
}

/// The device; none where there is none, or its namespace is not known.
fn link(inode: u64, cookie: u64, ifindex: u32) -> Option<LinkKey> {
    let netns = NetnsId { inode, cookie };
    (ifindex != 0 && inode != 0).then_some(LinkKey { netns, ifindex: IfIndex(ifindex) })
}

fn byte(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    field(bytes, offset).map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    field(bytes, offset).map(u32::from_ne_bytes)
}

fn long(bytes: &[u8], offset: usize) -> Option<u64> {
    field(bytes, offset).map(u64::from_ne_bytes)
}

/// `N` bytes from an offset on.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use netdiag_common::abi::live::{SEEN_DROPPED, SEEN_NETWORK, SEEN_OF_SOCKET, SEEN_SENT, SEEN_TAGGED};
    use netdiag_model::{
        id::{IfIndex, LinkKey, NetnsId},
        live::{Layer, View, What},
    };

    use super::{GivenUp, decode};

    fn bytes(kind: u8, flags: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for long in [11_u64, 22, 33, 44] {
            bytes.extend(long.to_ne_bytes());
        }
        for word in [55_u32, 66, 77, 88, 99, 111] {
            bytes.extend(word.to_ne_bytes());
        }
        for half in [122_u16, 3] {
            bytes.extend(half.to_ne_bytes());
        }
        bytes.extend([kind, flags, 0, 0, 7, 8, 9]);
        bytes.resize(248, 0xee);
        bytes
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let record = decode(&bytes(SEEN_SENT, SEEN_TAGGED)).unwrap();
        let seen = record.sighting;
        let link = LinkKey { netns: NetnsId { inode: 55, cookie: 33 }, ifindex: IfIndex(66) };
        assert_eq!((seen.time_ns, seen.cpu, seen.link, seen.buffer), (11, 99, Some(link), 22));
        assert_eq!((seen.length, seen.mark, seen.tag, seen.layer), (77, 88, Some(122), Layer::Ethernet));
        assert_eq!((seen.what, &seen.head[..]), (What::Sent(View::Tc), &[7, 8, 9][..]));
        assert_eq!((record.ifindex, record.dropped), (66, None));
    }

    #[test]
    fn reason_and_place_are_told_of_what_was_given_up() {
        let record = decode(&bytes(SEEN_DROPPED, SEEN_NETWORK)).unwrap();
        assert_eq!(record.dropped, Some(GivenUp { reason: 111, place: 44, of_socket: false }));
        assert_eq!((record.sighting.layer, record.sighting.tag), (Layer::Network, None));
        let owned = decode(&bytes(SEEN_DROPPED, SEEN_OF_SOCKET)).unwrap();
        assert_eq!(owned.dropped, Some(GivenUp { reason: 111, place: 44, of_socket: true }));
    }

    #[test]
    fn a_device_of_which_the_namespace_is_not_known_is_no_link() {
        let mut bytes = bytes(SEEN_SENT, 0);
        bytes[32..36].fill(0);
        let record = decode(&bytes).unwrap();
        assert_eq!((record.sighting.link, record.ifindex), (None, 66));
    }

    #[test]
    fn what_is_cut_short_or_of_no_known_kind_is_not_read() {
        let whole = bytes(SEEN_SENT, 0);
        for length in 0..67 {
            assert!(decode(&whole[..length]).is_none(), "{length}");
        }
        assert!(decode(&bytes(9, 0)).is_none());
    }
}
