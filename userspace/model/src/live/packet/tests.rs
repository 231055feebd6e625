use proptest::prelude::*;

use super::*;
use crate::{
    live::{View, What},
    testing::cases,
};

/// A frame as a probe hands it over.
fn seen(layer: Layer, tag: Option<u16>, head: Vec<u8>) -> Sighting {
    Sighting {
        time_ns: 0,
        cpu: 0,
        link: None,
        what: What::Received(View::Tc),
        buffer: 0,
        length: u32::try_from(head.len()).unwrap(),
        mark: 0,
        tag,
        layer,
        head,
    }
}

const TO: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FROM: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&TO[..], &FROM, &ethertype.to_be_bytes(), payload].concat()
}

/// IPv4 with a whole header.
fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let header = [0x45, 0, length[0], length[1], 0x12, 0x34, 0x40, 0, 63, protocol, 0, 0, 10, 0, 0, 2, 192, 0, 2, 7];
    [&header[..], payload].concat()
}

fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    [&head[..], payload].concat()
}

fn transport(headers: &Headers) -> &Transport {
    &headers.ip().expect("an IP packet").transport
}

#[test]
fn a_segment_of_tcp_is_read_field_by_field() {
    let headers = Headers::of(&seen(Layer::Ethernet, None, frame(0x0800, &ipv4(6, &tcp(0x18, b"hello")))));
    assert_eq!(headers.frame, Some((Mac(FROM), Mac(TO))));
    let ip = headers.ip().unwrap();
    assert_eq!((ip.source.to_string(), ip.destination.to_string()), ("10.0.0.2".into(), "192.0.2.7".into()));
    assert_eq!((ip.id, ip.hops, ip.protocol), (0x1234, 63, 6));
    let expected = Transport::Tcp {
        ports: (40_000, 80),
        sequence: 7,
        acknowledgement: 9,
        flags: 0x18,
        length: 5,
        body: b"hello".to_vec(),
    };
    assert_eq!(ip.transport, expected);
}

#[test]
fn padding_of_a_short_frame_is_no_payload() {
    let padded = [ipv4(6, &tcp(0x10, b"")), vec![0; 6]].concat();
    let headers = Headers::of(&seen(Layer::Ethernet, None, frame(0x0800, &padded)));
    assert!(matches!(transport(&headers), Transport::Tcp { length: 0, body, .. } if body.is_empty()));
}

#[test]
fn a_tag_beside_the_frame_comes_before_the_tags_in_it() {
    let inside = [&7_u16.to_be_bytes()[..], &0x0800_u16.to_be_bytes(), &ipv4(17, &udp((1, 2), b""))].concat();
    let headers = Headers::of(&seen(Layer::Ethernet, Some(0x2005), frame(0x8100, &inside)));
    assert_eq!(headers.vlans, [5, 7]);
    assert!(headers.ip().is_some());
}

#[test]
fn a_packet_without_its_frame_is_read_from_its_ip_header() {
    let headers = Headers::of(&seen(Layer::Network, None, ipv4(17, &udp((53, 4000), b"x"))));
    assert_eq!(headers.frame, None);
    assert_eq!(transport(&headers).ports(), Some((53, 4000)));
}

#[test]
fn arp_says_who_asks_for_whom() {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &FROM, &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat();
    let headers = Headers::of(&seen(Layer::Ethernet, None, frame(0x0806, &body)));
    let Content::Arp(arp) = headers.content else { panic!("{headers:?}") };
    assert_eq!((arp.operation, arp.sender_mac), (1, Mac(FROM)));
    assert_eq!((arp.sender.to_string(), arp.target.to_string()), ("10.0.0.2".into(), "10.0.0.1".into()));
}

#[test]
fn the_packet_inside_of_vxlan_and_of_geneve_is_the_innermost() {
    let inner = frame(0x0800, &ipv4(6, &tcp(0x02, b"")));
    let vxlan = [&[8, 0, 0, 0, 0, 0x03, 0xe9, 0][..], &inner].concat();
    let geneve = [&[1, 0, 0x65, 0x58, 0, 0x03, 0xe9, 0, 1, 2, 3, 4][..], &inner].concat();
    for (port, payload) in [(4789, vxlan), (6081, geneve)] {
        let headers =
            Headers::of(&seen(Layer::Ethernet, None, frame(0x0800, &ipv4(17, &udp((55_555, port), &payload)))));
        assert!(matches!(transport(&headers), Transport::Tunnel { vni: 1001, .. }), "{port}: {headers:?}");
        assert_eq!(transport(headers.innermost()).ports(), Some((40_000, 80)), "{port}");
    }
}

#[test]
fn an_icmp_error_names_the_ports_of_the_packet_it_is_about() {
    let quoted = &ipv4(6, &tcp(0x02, b""))[..28];
    let error = [&[3, 4, 0, 0, 0, 0, 5, 0x78][..], quoted].concat();
    let headers = Headers::of(&seen(Layer::Network, None, ipv4(1, &error)));
    let quoted = headers.ip().unwrap().quoted().expect("the quoted packet");
    assert_eq!((quoted.protocol, quoted.transport.ports()), (6, Some((40_000, 80))));
}

#[test]
fn an_echo_has_an_identifier_and_a_number() {
    let headers = Headers::of(&seen(Layer::Network, None, ipv4(1, &[8, 0, 0, 0, 0, 9, 0, 3, 1, 2])));
    assert!(matches!(transport(&headers), Transport::Icmp(Icmp { echo: Some((9, 3)), length: 2, .. })));
}

#[test]
fn a_fragment_that_is_not_the_first_has_no_ports() {
    let mut bytes = ipv4(17, &udp((1, 2), b"abc"));
    bytes[6..8].copy_from_slice(&[0x20, 0x10]);
    let headers = Headers::of(&seen(Layer::Network, None, bytes));
    assert_eq!(headers.ip().unwrap().fragment, Some((128, true)));
    assert_eq!(*transport(&headers), Transport::None);
}

#[test]
fn a_fragment_behind_other_extension_headers_is_one_and_none_is_where_they_are_cut() {
    let whole = samples().swap_remove(4);
    let fragment = |head: &[u8]| Headers::of(&seen(Layer::Ethernet, None, head.to_vec())).ip().unwrap().fragment;
    assert_eq!(fragment(&whole), Some((0, true)));
    for cut in 54..78 {
        assert_eq!(fragment(&whole[..cut]), None, "{cut} bytes");
    }
}

/// Packets of every kind there is, to be cut and damaged.
fn samples() -> Vec<Vec<u8>> {
    let inner = frame(0x0800, &ipv4(6, &tcp(0x02, b"")));
    let vxlan = [&[8, 0, 0, 0, 0, 0x03, 0xe9, 0][..], &inner].concat();
    let ipv6 = [&[0x60, 0, 0, 0, 0, 16, 44, 64][..], &[1; 32], &[17, 0, 0, 1, 0, 0, 0, 9], &udp((1, 2), b"")].concat();
    // Hop-by-hop options, destination options, fragment: each may be the one that is cut.
    let options = [&[60, 0, 5, 2, 0, 0, 1, 0][..], &[44, 0, 1, 4, 0, 0, 0, 0], &[58, 0, 0, 1, 0, 0, 0, 9], &[128; 8]];
    let extended = [&[0x60, 0, 0, 0, 0, 32, 0, 1][..], &[1; 32], &options.concat()].concat();
    vec![
        frame(0x0800, &ipv4(6, &tcp(0x18, b"hello"))),
        frame(0x0800, &ipv4(17, &udp((1, 4789), &vxlan))),
        frame(0x0800, &ipv4(1, &[&[3, 4, 0, 0, 0, 0, 0, 0][..], &ipv4(17, &udp((1, 2), b"x"))].concat())),
        frame(0x86dd, &ipv6),
        frame(0x86dd, &extended),
        frame(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]),
    ]
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn no_bytes_make_the_reader_panic(head in prop::collection::vec(any::<u8>(), 0..200), tag: Option<u16>, network: bool) {
        let layer = if network { Layer::Network } else { Layer::Ethernet };
        let headers = Headers::of(&seen(layer, tag, head));
        prop_assert!(headers.innermost().vlans.len() < 8);
    }

    #[test]
    fn a_real_packet_cut_or_damaged_anywhere_is_read_as_far_as_it_goes(
        which in 0..6_usize,
        cut in 0..160_usize,
        damage in prop::collection::vec((0..160_usize, any::<u8>()), 0..4),
    ) {
        let mut head = samples().swap_remove(which);
        for (place, value) in damage {
            if let Some(byte) = head.get_mut(place) {
                *byte = value;
            }
        }
        head.truncate(cut);
        let headers = Headers::of(&seen(Layer::Ethernet, None, head));
        prop_assert!(headers.innermost().vlans.len() < 8);
    }
}
