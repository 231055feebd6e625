//! Headers that lie, end early, or never end.

use netdiag_common::abi::reason::Reason::{self, ExtensionHeaders, Malformed, Rule, TinyFragment, Truncated};

use super::{super::super::types::Remote, bench::*};

/// A frame with some of its bytes replaced.
fn patched(mut frame: Vec<u8>, place: usize, bytes: &[u8]) -> Vec<u8> {
    frame[place..place + bytes.len()].copy_from_slice(bytes);
    frame
}

fn ingress(frame: &[u8]) -> Reason {
    Bench::open().ingress(frame)
}

#[test]
fn a_frame_cut_anywhere_is_truncated() {
    for frame in [in4(udp(1, 2)), in4(tcp(1, 2, SYN)), in6(udp(1, 2)), in6(extended(&[0, 60, 43], udp(1, 2)))] {
        assert_eq!(ingress(&frame), Rule);
        for length in 0..frame.len() {
            assert_eq!(ingress(&frame[..length]), Truncated, "{length}");
        }
    }
}

#[test]
fn headers_that_contradict_themselves_are_malformed() {
    for (place, bytes, what) in [
        (14, vec![0x55], "version"),
        (14, vec![0x44], "header length"),
        (16, vec![0, 19], "total length"),
        (38, vec![0, 7], "UDP length"),
    ] {
        assert_eq!(ingress(&patched(in4(udp(1, 2)), place, &bytes)), Malformed, "{what}");
    }
    assert_eq!(ingress(&patched(in4(tcp(1, 2, SYN)), 46, &[0x40])), Malformed);
    assert_eq!(ingress(&patched(in6(udp(1, 2)), 14, &[0x45])), Malformed);
    assert_eq!(ingress(&patched(in4(udp(1, 2)), 14, &[0x4f])), Malformed, "options beyond the total length");
    assert_eq!(ingress(&patched(in4(udp(1, 2)), 16, &[0, 33])), Truncated);
}

#[test]
fn every_protocol_needs_its_whole_header() {
    let protocols = [(6, 20), (17, 8), (132, 12), (33, 12), (136, 8), (1, 8)];
    for (protocol, needed) in protocols {
        let (_, mut header) = if protocol == 6 { tcp(1, 2, SYN) } else { udp(1, 2) };
        if protocol == 1 {
            header[0] = 8;
        }
        header.resize(needed, 0);
        assert_eq!(ingress(&in4((protocol, header.clone()))), Rule, "{protocol}");
        assert_eq!(ingress(&in4((protocol, header[..needed - 1].to_vec()))), Truncated, "{protocol}");
    }
    assert_eq!(ingress(&in6((58, vec![128, 0, 0, 0, 0, 0, 0]))), Truncated);
    for protocol in [47, 50, 58, 112] {
        assert_eq!(ingress(&in4((protocol, vec![]))), Rule, "{protocol}");
    }
    assert_eq!(ingress(&in6((1, vec![]))), Rule);
    assert_eq!(ingress(&in6((59, vec![]))), Rule);
}

#[test]
fn bytes_behind_the_packet_are_padding() {
    let mut frame = in4((17, vec![0; 6]));
    frame.extend([0; 20]);
    assert_eq!(ingress(&frame), Truncated);
    let mut frame = in4(udp(1, 2));
    frame.extend([0; 20]);
    assert_eq!(ingress(&frame), Rule);
    let mut frame = in6(udp(1, 2));
    frame.extend([0; 20]);
    assert_eq!(ingress(&frame), Rule);
}

#[test]
fn ip_options_are_skipped() {
    let mut bench = Bench::new([tcp_in(22)]);
    let mut frame = patched(in4(tcp(1, 22, SYN)), 14, &[0x4f, 0, 0, 80]);
    frame.splice(34..34, [1; 40]);
    assert_eq!(bench.ingress(&frame), Rule);
}

/// A chain of extension headers before a packet.
fn extended(headers: &[u8], (protocol, payload): (u8, Vec<u8>)) -> (u8, Vec<u8>) {
    let mut chain = headers.to_vec();
    chain.push(protocol);
    let mut bytes = Vec::new();
    for pair in chain.windows(2) {
        bytes.extend([pair[1], 0, 0, 0, 0, 0, 0, 0]);
    }
    bytes.extend(payload);
    (chain[0], bytes)
}

#[test]
fn six_extension_headers_are_followed_and_no_more() {
    let rule = rule("dns", Ingress, V6, ports(17, 53, 53), Remote::Any);
    for (count, reason) in [(1, Rule), (6, Rule), (7, ExtensionHeaders), (8, ExtensionHeaders)] {
        let frame = in6(extended(&[60; 8][..count], udp(1, 53)));
        assert_eq!(Bench::new([rule.clone()]).ingress(&frame), reason, "{count}");
    }
    let frame = in6(extended(&[0, 43, 44, 60], udp(1, 53)));
    assert_eq!(Bench::new([rule]).ingress(&frame), Rule);
}

#[test]
fn an_extension_header_must_fit_and_there_is_one_fragment_header_at_most() {
    let (protocol, mut bytes) = extended(&[60], udp(1, 53));
    bytes[1] = 9;
    assert_eq!(ingress(&in6((protocol, bytes))), Truncated);
    assert_eq!(ingress(&in6((60, vec![17, 0, 0]))), Truncated);
    assert_eq!(ingress(&in6((0, vec![]))), Truncated);
    assert_eq!(ingress(&in6(extended(&[44, 44], udp(1, 53)))), Malformed);
    assert_eq!(ingress(&in6(extended(&[44, 60, 44], udp(1, 53)))), Malformed);
}

#[test]
fn an_authentication_header_is_a_protocol_of_its_own() {
    let mut bench = Bench::new([rule("dns", Ingress, V6, ports(17, 53, 53), Remote::Any)]);
    assert_eq!(bench.ingress(&in6(extended(&[51], udp(1, 53)))), Reason::NoRule);
}

#[test]
fn who_sends_it_comes_before_what_is_wrong_with_it() {
    let short = |mac, source| packet(mac, source, "10.0.0.9", (17, vec![0; 4]));
    let mut bench = Bench::open();
    bench.run(&[
        (Egress, short(PEER, "10.0.0.5"), Reason::MacSpoof),
        (Egress, short(OWN, "10.0.0.6"), Reason::IpSpoof),
        (Egress, short(OWN, "10.0.0.5"), Truncated),
        (Egress, patched(short(OWN, "10.0.0.5"), 20, &[0x20]), TinyFragment),
        (Egress, packet(OWN, "::", "ff02::1", (58, vec![135])), Reason::IpSpoof),
    ]);
}
