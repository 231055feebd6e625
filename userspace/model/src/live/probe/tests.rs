//! Probes as bytes, and as what is heard of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{LinkSlice, NetSlice, SlicedPacket, TransportSlice};

use super::*;
use crate::{
    id::{IfIndex, NetnsId},
    live::{
        Layer, Sighting, View, What,
        journey::{Drop, Ended, Journey, Step},
        packet::Headers,
        points::Place,
        report::Told,
    },
    trace::{Direction, Verdict},
};

const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 9, 0, 0, 0, 7);
const OWN: Mac = Mac([2, 0, 0, 0, 0, 2]);
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn probe(kind: Kind) -> Probe {
    let asks_all = matches!(kind, Kind::Arp | Kind::Dhcp);
    Probe {
        kind,
        from_outside: false,
        link: LinkKey { netns: NetnsId { inode: 1, cookie: 1 }, ifindex: IfIndex(2) },
        device: "eth0 in web-1".to_owned(),
        entry: Entry::Sent,
        source: if kind == Kind::Dhcp { Ipv4Addr::UNSPECIFIED } else { SOURCE }.into(),
        source_mac: OWN,
        destination: if kind == Kind::Dhcp { Ipv4Addr::BROADCAST } else { REMOTE }.into(),
        next_hop: Ipv4Addr::new(10, 0, 0, 1).into(),
        next_mac: Some(if asks_all { BROADCAST } else { ROUTER }),
        ports: if kind == Kind::Dhcp { (68, 67) } else { (61_234, 443) },
        mark: Mark { id: 0x1a2b, number: 0x0102_0304 },
    }
}

/// The same of IPv6.
fn probe_v6(kind: Kind) -> Probe {
    let (source, destination) = (SOURCE_V6.into(), REMOTE_V6.into());
    Probe { source, destination, next_hop: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(), ..probe(kind) }
}

fn headers(frame: &[u8]) -> Headers {
    Headers::of(&Sighting {
        time_ns: 0,
        cpu: 0,
        link: None,
        what: What::Sent(View::Tc),
        buffer: 0,
        length: 0,
        mark: 0,
        tag: None,
        layer: Layer::Ethernet,
        head: frame.to_vec(),
    })
}

/// A packet that was seen once, and ended so.
fn told(headers: Headers, (at, ended): (u64, Ended)) -> Told {
    let step = Step {
        place: Place { track: 0, stop: 0 },
        time_ns: at,
        cpu: 0,
        changes: vec![],
        headers: headers.clone(),
        length: 0,
        buffer: 0,
        mark: 0,
    };
    let journey = Journey {
        number: 1,
        track: 0,
        direction: Direction::Outward,
        packet: headers,
        steps: vec![step],
        drops: vec![],
        ended,
        repeats: None,
    };
    Told { journey, blame: None }
}

/// The answer as somebody else would build it: the probe turned round, changed by a test.
fn turned(probe: &Probe, change: impl Fn(&mut Vec<u8>)) -> Headers {
    let (source, destination) = (probe.destination, probe.source);
    let back = Probe { source, destination, ports: (probe.ports.1, probe.ports.0), ..probe.clone() };
    let mut frame = back.frame().unwrap();
    change(&mut frame);
    headers(&frame)
}

fn verdict(probe: &Probe, packets: &[Told]) -> (Verdict, String) {
    let mut heard = Heard::default();
    for told in packets {
        heard.hear(probe, told);
    }
    heard.verdict(probe)
}

#[test]
fn every_probe_is_a_whole_frame_with_the_checksums_another_implementation_counts() {
    for kind in [Kind::Tcp, Kind::Udp, Kind::Icmp, Kind::Dhcp] {
        let frame = probe(kind).frame().unwrap();
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else { panic!("{kind:?}") };
        assert_eq!(ethernet.source(), OWN.0);
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("{kind:?}") };
        let head = ip.header().to_header();
        assert_eq!(head.calc_header_checksum(), head.header_checksum, "{kind:?}");
        assert_eq!((head.identification, usize::from(head.total_len)), (0x1a2b, frame.len() - 14));
        assert!(head.time_to_live > 0);
        match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                assert_eq!(tcp.calc_checksum_ipv4(head.source, head.destination), Ok(tcp.checksum()));
                assert!(tcp.syn() && !tcp.ack());
            }
            TransportSlice::Udp(udp) => {
                let sum = udp.to_header().calc_checksum_ipv4(&head, udp.payload());
                assert_eq!(sum, Ok(udp.checksum()), "{kind:?}");
            }
            TransportSlice::Icmpv4(icmp) => {
                let sum = icmp.header().icmp_type.calc_checksum(icmp.payload());
                assert_eq!(sum, icmp.header().checksum);
            }
            TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => panic!("{kind:?}"),
        }
    }
}

#[test]
fn a_probe_knows_itself_and_no_packet_with_another_mark() {
    for kind in [Kind::Tcp, Kind::Udp, Kind::Icmp, Kind::Dhcp] {
        let probe = probe(kind);
        let own = told(headers(&probe.frame().unwrap()), (0, Ended::Delivered));
        assert!(probe.concerns(&own.journey), "{kind:?}");
        let other = Probe { mark: Mark { id: 7, number: 9 }, ..probe.clone() };
        assert!(!other.concerns(&own.journey), "{kind:?}");
    }
    let arp = probe(Kind::Arp);
    assert!(arp.concerns(&told(headers(&arp.frame().unwrap()), (0, Ended::Delivered)).journey));
}

#[test]
fn a_probe_without_the_mac_address_it_goes_to_is_no_frame() {
    assert_eq!(Probe { next_mac: None, ..probe(Kind::Icmp) }.frame(), None);
}

#[test]
fn an_answer_of_arp_is_read_and_nothing_else_is_taken_for_one() {
    let probe = probe(Kind::Icmp);
    let question = probe.question();
    assert_eq!(neighbour_answer(&question, SOURCE.into()), None);
    let mut answer = question;
    answer[21] = 2;
    assert_eq!(neighbour_answer(&answer, SOURCE.into()), Some(OWN));
    assert_eq!(neighbour_answer(&answer, REMOTE.into()), None);
    assert_eq!(neighbour_answer(&answer[..30], SOURCE.into()), None);
}

#[test]
fn an_answer_makes_it_work_and_its_time_is_said() {
    let probe = probe(Kind::Icmp);
    let sent = told(headers(&probe.frame().unwrap()), (1_000_000, Ended::Delivered));
    let reply = told(turned(&probe, |frame| frame[34] = 0), (2_234_000, Ended::Delivered));
    let (verdict, said) = verdict(&probe, &[sent, reply]);
    assert_eq!(verdict, Verdict::Works);
    assert_eq!(said, "icmp 10.0.0.2 > 203.0.113.7 echo request: it was answered after 1.234 ms: echo reply");
}

#[test]
fn a_reset_means_that_it_came_there_and_nobody_listens() {
    let probe = probe(Kind::Tcp);
    let reset = turned(&probe, |frame| {
        frame[42..46].copy_from_slice(&0x0102_0305_u32.to_be_bytes());
        frame[47] = 0x14;
    });
    let (verdict, said) = verdict(&probe, &[told(reset, (5, Ended::Delivered))]);
    assert_eq!(verdict, Verdict::Works);
    assert!(said.contains("nobody listens there (RST)"), "{said}");
}

#[test]
fn an_acknowledgement_of_something_else_is_no_answer() {
    let probe = probe(Kind::Tcp);
    let other = turned(&probe, |frame| frame[47] = 0x12);
    assert!(!probe.concerns(&told(other, (5, Ended::Delivered)).journey));
}

#[test]
fn an_icmp_error_about_it_says_who_stops_it() {
    let probe = probe(Kind::Tcp);
    let quoted = &probe.frame().unwrap()[14..];
    let outer =
        Probe { source: Ipv4Addr::new(10, 0, 0, 1).into(), destination: SOURCE.into(), ..self::probe(Kind::Icmp) };
    let mut frame = outer.frame().unwrap();
    frame.truncate(34);
    frame.extend([3, 1, 0, 0, 0, 0, 0, 0]);
    frame.extend(quoted);
    let length = u16::try_from(frame.len() - 14).unwrap();
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    let (verdict, said) = verdict(&probe, &[told(headers(&frame), (5, Ended::Delivered))]);
    assert_eq!(verdict, Verdict::Broken);
    assert!(said.contains("10.0.0.1 says that it goes no further") && said.contains("host unreachable"), "{said}");
}

#[test]
fn an_offer_of_dhcp_says_what_it_offers() {
    let probe = probe(Kind::Dhcp);
    let offer = turned(&Probe { destination: Ipv4Addr::new(10, 0, 0, 3).into(), ..probe.clone() }, |frame| {
        frame[42] = 2;
        frame[58..62].copy_from_slice(&SOURCE.octets());
    });
    let (verdict, said) = verdict(&probe, &[told(offer, (5, Ended::Delivered))]);
    assert_eq!(verdict, Verdict::Works);
    assert!(said.ends_with("it was answered: 10.0.0.3 offers 10.0.0.2"), "{said}");
}

#[test]
fn what_dies_is_broken_and_what_is_not_answered_is_not_known() {
    let probe = probe(Kind::Tcp);
    let sent = |ended| vec![told(headers(&probe.frame().unwrap()), (1, ended))];
    for (packets, expected) in [
        (sent(Ended::NotSeenAfter), Verdict::Broken),
        (sent(Ended::Delivered), Verdict::Inconclusive),
        (sent(Ended::Aside), Verdict::Inconclusive),
        (sent(Ended::Inconclusive), Verdict::Inconclusive),
        (vec![], Verdict::Inconclusive),
    ] {
        assert_eq!(verdict(&probe, &packets).0, expected, "{packets:?}");
    }
    let reply = told(turned(&self::probe(Kind::Icmp), |frame| frame[34] = 0), (2, Ended::NotSeenAfter));
    let (died, said) = verdict(&self::probe(Kind::Icmp), &[reply]);
    assert_eq!(died, Verdict::Broken);
    assert!(said.contains("the answer died"), "{said}");
}

#[test]
fn an_answer_that_nobody_in_the_instance_waits_for_has_come_back() {
    let ended = |probe: &Probe, headers: Headers, reason: &str| {
        let Told { journey, .. } = told(headers.clone(), (5, Ended::Dropped { drop: 0 }));
        let (reason, subsystem) = (reason.to_owned(), "core".to_owned());
        let drop = Drop { time_ns: 6, link: None, reason, subsystem, location: None, headers, mark: 0 };
        probe.settled(Journey { direction: Direction::Inward, drops: vec![drop], ..journey }).ended
    };
    let probe = probe(Kind::Icmp);
    let reply = turned(&probe, |frame| frame[34] = 0);
    assert_eq!(ended(&probe, reply.clone(), "NO_SOCKET"), Ended::Delivered);
    assert_eq!(ended(&probe, reply, "NETFILTER_DROP"), Ended::Dropped { drop: 0 });
    let other = turned(&probe, |frame| frame[41] ^= 1);
    assert_eq!(ended(&probe, other, "NO_SOCKET"), Ended::Dropped { drop: 0 });
    let asks = probe_v6(Kind::Arp);
    let mut answer = asks.frame().unwrap();
    answer[54] = 136;
    answer[78] = 2;
    assert_eq!(ended(&asks, headers(&answer), "NOT_SPECIFIED"), Ended::Delivered);
    assert_eq!(ended(&asks, headers(&answer), "NETFILTER_DROP"), Ended::Dropped { drop: 0 });
}

#[test]
fn a_target_is_an_address_a_port_or_both() {
    let target = |address, port| Ok(Target { address, port });
    assert_eq!("203.0.113.7:443".parse(), target(Some(REMOTE.into()), Some(443)));
    assert_eq!("203.0.113.7".parse(), target(Some(REMOTE.into()), None));
    assert_eq!("2001:db8:0:9::7".parse(), target(Some(REMOTE_V6.into()), None));
    assert_eq!("[2001:db8:0:9::7]".parse(), target(Some(REMOTE_V6.into()), None));
    assert_eq!("[2001:db8:0:9::7]:443".parse(), target(Some(REMOTE_V6.into()), Some(443)));
    assert_eq!(":22".parse(), target(None, Some(22)));
    for text in
        ["", ":", ":0", "web-1", "203.0.113.7:", "203.0.113.7:99999", "[203.0.113.7]:1", "[2001:db8::1]:0", "[]:1"]
    {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}

#[test]
fn every_probe_of_ipv6_is_a_whole_frame_with_the_checksums_another_implementation_counts() {
    for kind in [Kind::Tcp, Kind::Udp, Kind::Icmp, Kind::Arp] {
        let frame = probe_v6(kind).frame().unwrap();
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("{kind:?}") };
        let head = ip.header().to_header();
        let is_question = kind == Kind::Arp;
        assert_eq!(head.hop_limit, if is_question { 255 } else { 64 });
        assert_eq!((head.source, head.destination == REMOTE_V6.octets()), (SOURCE_V6.octets(), !is_question));
        let counted = match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                (tcp.calc_checksum_ipv6(head.source, head.destination).unwrap(), tcp.checksum())
            }
            TransportSlice::Udp(udp) => {
                (udp.to_header().calc_checksum_ipv6(&head, udp.payload()).unwrap(), udp.checksum())
            }
            TransportSlice::Icmpv6(icmp) => {
                assert!(icmp.is_checksum_valid(head.source, head.destination), "{kind:?}");
                (icmp.header().checksum, icmp.checksum())
            }
            TransportSlice::Icmpv4(_) | TransportSlice::Igmp(_) => panic!("{kind:?}"),
        };
        assert_eq!(counted.0, counted.1, "{kind:?}");
    }
}

#[test]
fn a_probe_of_ipv6_knows_itself_and_no_packet_with_another_mark_or_of_the_other_family() {
    for kind in [Kind::Tcp, Kind::Udp, Kind::Icmp, Kind::Arp] {
        let probe = probe_v6(kind);
        let own = told(headers(&probe.frame().unwrap()), (0, Ended::Delivered));
        assert!(probe.concerns(&own.journey), "{kind:?}");
        assert!(!self::probe(kind).concerns(&own.journey), "{kind:?}");
        // What comes from it has its port: a plan makes one of the other.
        let other = Probe { mark: Mark { id: 7, number: 9 }, ports: (61_007, 443), ..probe.clone() };
        let asks = kind == Kind::Arp;
        assert_eq!(other.concerns(&own.journey), asks, "{kind:?}");
    }
}

#[test]
fn a_question_of_neighbour_discovery_goes_to_the_group_of_who_is_asked_and_its_answer_is_read() {
    let probe = probe_v6(Kind::Arp);
    let frame = probe.frame().unwrap();
    assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0, 0, 7]);
    assert_eq!(frame[38..54], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 7).octets());
    assert_eq!(neighbour_answer(&frame, REMOTE_V6.into()), None);
    let mut answer = frame;
    answer[54] = 136;
    answer[78] = 2;
    answer[80..86].copy_from_slice(&ROUTER.0);
    assert_eq!(neighbour_answer(&answer, REMOTE_V6.into()), Some(ROUTER));
    assert_eq!(neighbour_answer(&answer, SOURCE_V6.into()), None);
    assert_eq!(neighbour_answer(&answer[..80], REMOTE_V6.into()), None);
    let packets =
        [told(headers(&probe.frame().unwrap()), (1, Ended::Aside)), told(headers(&answer), (5, Ended::Delivered))];
    let (verdict, said) = verdict(&probe, &packets);
    assert_eq!(verdict, Verdict::Works);
    assert!(said.ends_with("2001:db8:0:9::7 is at 02:00:00:00:00:01"), "{said}");
}

#[test]
fn an_answer_of_ipv6_is_heard_and_so_is_who_refuses_or_stops_it() {
    let probe = probe_v6(Kind::Icmp);
    let reply = told(turned(&probe, |frame| frame[54] = 129), (5, Ended::Delivered));
    assert!(verdict(&probe, &[reply]).1.ends_with("it was answered: echo reply"));
    let about = |probe: &Probe, code: u8, source: Ipv6Addr| {
        let quoted = &probe.frame().unwrap()[14..];
        let outer = Probe { source: source.into(), destination: SOURCE_V6.into(), ..probe_v6(Kind::Icmp) };
        let mut frame = outer.frame().unwrap();
        frame.truncate(54);
        frame.extend([1, code, 0, 0, 0, 0, 0, 0]);
        frame.extend(quoted);
        let length = u16::try_from(frame.len() - 54).unwrap();
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        told(headers(&frame), (5, Ended::Delivered))
    };
    let udp = probe_v6(Kind::Udp);
    let (verdict, said) = verdict(&udp, &[about(&udp, 4, REMOTE_V6)]);
    assert_eq!(verdict, Verdict::Works);
    assert!(said.contains("nobody listens there (port unreachable)"), "{said}");
    let router = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
    let (verdict, said) = self::verdict(&udp, &[about(&udp, 0, router)]);
    assert_eq!(verdict, Verdict::Broken);
    assert!(said.contains("2001:db8:0:1::1 says that it goes no further"), "{said}");
    // About another conversation: none of this probe's.
    let other = Probe { ports: (61_007, 443), ..udp.clone() };
    assert!(!udp.concerns(&about(&other, 0, router).journey));
}

#[test]
fn what_will_be_sent_is_said_in_one_line() {
    assert_eq!(
        probe(Kind::Icmp).announcement(),
        "sends one packet: icmp 10.0.0.2 > 203.0.113.7 echo request, 55 bytes, 02:00:00:00:00:02 > 02:00:00:00:00:01, \
         IP id 0x1a2b, sent by eth0 in web-1, behind the rules of that namespace"
    );
}

#[test]
fn what_will_be_sent_of_ipv6_is_said_in_one_line() {
    let line = |kind| probe_v6(kind).announcement();
    assert!(line(Kind::Tcp).starts_with(
        "sends one packet: tcp [2001:db8:0:1::2]:61234 > [2001:db8:0:9::7]:443 SYN, 78 bytes, 02:00:00:00:00:02 > \
         02:00:00:00:00:01, sequence number 16909060, sent by eth0 in web-1"
    ));
    assert!(line(Kind::Icmp).contains("icmpv6 2001:db8:0:1::2 > 2001:db8:0:9::7 echo request, 75 bytes"));
    assert!(line(Kind::Arp).contains("ndp 2001:db8:0:1::2 asks for 2001:db8:0:9::7"));
    assert_eq!(
        probe_v6(Kind::Icmp).question_announcement(),
        "sends one question first, as no neighbour table says the MAC address of fe80::1: ndp 2001:db8:0:1::2 asks for \
         fe80::1, 02:00:00:00:00:02 > 33:33:ff:00:00:01, by eth0 in web-1"
    );
}
