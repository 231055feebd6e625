//! What is random is of every kind, and valid.

use std::collections::BTreeMap;

use netdiag_common::logic::flow::protocol::{ICMP, SCTP, TCP, UDP, UDPLITE};

use super::{Kind, Talk, bytes::sum};

#[test]
fn packets_of_every_kind_come_in_both_directions() {
    let mut kinds: BTreeMap<(bool, u8, bool), usize> = BTreeMap::new();
    let mut errors = [0; 2];
    for packet in (1..500).flat_map(|seed| Talk::new(seed).packets) {
        *kinds.entry((packet.inward, packet.frames[0][23], packet.kind == Kind::Fragments)).or_default() += 1;
        errors[usize::from(packet.inward)] += usize::from(packet.kind == Kind::Error);
    }
    for protocol in [TCP, UDP, ICMP, SCTP, UDPLITE, 47, 50] {
        for inward in [false, true] {
            assert!(kinds.contains_key(&(inward, protocol, false)), "{protocol} {inward}: {kinds:?}");
        }
        assert!(kinds.contains_key(&(false, protocol, true)), "fragments of {protocol}: {kinds:?}");
    }
    assert!(kinds.contains_key(&(true, ICMP, true)), "answers to pings in fragments: {kinds:?}");
    assert!(errors.iter().all(|count| *count > 100), "{errors:?}");
}

#[test]
fn every_header_has_the_right_checksum_and_length() {
    for packet in (1..200).flat_map(|seed| Talk::new(seed).packets) {
        for frame in &packet.frames {
            assert_eq!(sum(0, &frame[14..34]), 0xffff, "{}", packet.what);
            assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14, "{}", packet.what);
            assert!(frame.len() <= 1514, "{}", packet.what);
        }
    }
}

#[test]
fn a_seed_gives_the_same_packets_again() {
    let frames = |seed| Talk::new(seed).packets.into_iter().map(|packet| packet.frames).collect::<Vec<_>>();
    assert_eq!(frames(9), frames(9));
    assert_ne!(frames(9), frames(10));
}
