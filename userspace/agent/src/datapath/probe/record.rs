//! Bytes of a ring-buffer record as a record. Flow: observe.

use std::mem::offset_of;

use netdiag_common::{
    ABI_VERSION,
    abi::{
        event::{Counted, Header, KIND_COUNTED},
        value::Counter,
    },
};

/// Where the counter lies in a record.
const COUNTER: usize = offset_of!(Counted, counter);

/// The record, if the bytes are one of this version and kind.
pub(super) fn counted(bytes: &[u8]) -> Option<Counted> {
    // The kernel rounds a record up to 8 bytes, so there may be more bytes than fields, but never fewer.
    let header = Header {
        version: u16::from_ne_bytes(field(bytes, offset_of!(Header, version))?),
        kind: u8::from_ne_bytes(field(bytes, offset_of!(Header, kind))?),
        pad: 0,
        ifindex: u32::from_ne_bytes(field(bytes, offset_of!(Header, ifindex))?),
    };
    let counter = Counter {
        packets: u64::from_ne_bytes(field(bytes, COUNTER + offset_of!(Counter, packets))?),
        bytes: u64::from_ne_bytes(field(bytes, COUNTER + offset_of!(Counter, bytes))?),
        lost: u64::from_ne_bytes(field(bytes, COUNTER + offset_of!(Counter, lost))?),
    };
    let length = u32::from_ne_bytes(field(bytes, offset_of!(Counted, length))?);
    let known = header.version == ABI_VERSION && header.kind == KIND_COUNTED;
    known.then_some(Counted { header, length, pad: 0, counter })
}

/// `N` bytes from an offset on.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::counted;
    use netdiag_common::{ABI_VERSION, abi::event::KIND_COUNTED};

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(ABI_VERSION.to_ne_bytes());
        bytes.extend([KIND_COUNTED, 0]);
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(62_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        for value in [3_u64, 186, 1] {
            bytes.extend(value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let record = counted(&bytes()).unwrap();
        assert_eq!((record.header.ifindex, record.length), (7, 62));
        assert_eq!((record.counter.packets, record.counter.bytes, record.counter.lost), (3, 186, 1));
    }

    #[test]
    fn a_record_of_another_version_or_kind_is_not_read() {
        for place in [0, 2] {
            let mut bytes = bytes();
            bytes[place] = bytes[place].wrapping_add(1);
            assert_eq!(counted(&bytes), None);
        }
    }

    #[test]
    fn a_record_that_is_cut_short_is_not_read() {
        let bytes = bytes();
        for length in 0..bytes.len() {
            assert_eq!(counted(&bytes[..length]), None, "{length}");
        }
    }
}
