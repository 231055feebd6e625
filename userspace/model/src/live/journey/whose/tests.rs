use super::super::{
    simulation::{FIXED, FLOATING, Kind, Made, OWN_MAC, REMOTE, ROUTER_MAC, joined, link, neutron, points},
    *,
};
use crate::{
    id::Mac,
    live::points::{Points, segment},
    trace::HopKind,
};

const MS: u64 = 1_000_000;
/// The router of another tenant.
const STRANGE_ROUTER: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
/// An instance of another tenant.
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 0x98]);
/// Whoever is at the other end.
const FAR: Mac = Mac([2, 0, 0, 0, 0, 0x77]);

/// A path by Neutron's router, beside that of a known instance with the same address whose router has another MAC address.
fn beside_another() -> Points {
    let mut points = neutron();
    points.doubles.addresses.insert(FIXED.into());
    points.doubles.frames.entry(link(4)).or_default().insert(STRANGE_ROUTER);
    points
}

/// A path without a router: the network is the provider's, or its router is on another host.
fn bridged() -> Points {
    points(&[
        ("eth0", HopKind::InnerDevice, Side::Sent),
        ("tap1", HopKind::HostDevice, Side::Received),
        ("eth1", HopKind::Uplink, Side::Sent),
    ])
}

fn sent(from: Mac) -> Made {
    Made { macs: (from, FAR), ..Made::syn(7) }
}

fn answered(to: Mac) -> Made {
    Made { macs: (FAR, to), ..Made::syn(7).answer() }
}

/// How many journeys come of one sighting at a stop.
fn journeys(points: Points, made: &Made, stop: usize, side: Side) -> usize {
    joined(points, vec![made.at(MS, stop, side)]).len()
}

#[test]
fn what_another_tenants_router_sends_from_the_same_address_is_not_the_instances() {
    let strange = sent(STRANGE_ROUTER);
    assert_eq!(strange.source.0, FIXED);
    for points in [neutron(), beside_another()] {
        assert_eq!(joined(points.clone(), vec![strange.at(MS, 4, Side::Sent)]), []);
        // The same of its own router: what was seen of it before is lost.
        let found = joined(points, vec![sent(ROUTER_MAC).at(MS, 4, Side::Sent)]);
        assert_eq!((found.len(), &found[0].ended), (1, &Ended::Delivered));
    }
}

#[test]
fn what_comes_for_the_same_address_to_another_tenants_router_is_not_the_instances() {
    for (to, own) in [(STRANGE_ROUTER, 0), (ROUTER_MAC, 1)] {
        assert_eq!(journeys(neutron(), &answered(to), 4, Side::Received), own, "{to}");
        // A switch that does not know where the router is tells everybody.
        assert_eq!(journeys(neutron(), &answered(to), 3, Side::Received), own, "{to}");
    }
}

#[test]
fn a_single_sighting_is_anothers_where_its_frame_says_so_and_may_be_the_instances_where_nothing_does() {
    let anothers = |points: &Points, made: &Made, stop, side| is_anothers(&made.at(MS, stop, side), points);
    for points in [neutron(), beside_another()] {
        assert!(anothers(&points, &sent(STRANGE_ROUTER), 4, Side::Sent));
        assert!(anothers(&points, &answered(STRANGE_ROUTER), 4, Side::Received));
        assert!(!anothers(&points, &sent(ROUTER_MAC), 4, Side::Sent));
        assert!(!anothers(&points, &answered(ROUTER_MAC), 4, Side::Received));
        // In its own network, and by its floating IP, whatever the frame.
        assert!(!anothers(&points, &sent(STRANGE_ROUTER), 2, Side::Received));
        assert!(!anothers(&points, &Made { source: (FLOATING, 1), ..sent(STRANGE_ROUTER) }, 4, Side::Sent));
        assert!(!anothers(&points, &answered(Mac([0xff; 6])), 4, Side::Received));
    }
}

#[test]
fn a_floating_ip_means_the_instance_whatever_the_frame_says() {
    let out = Made { source: (FLOATING, 1), ..sent(STRANGE_ROUTER) };
    let back = Made { destination: (FLOATING, 1), ..answered(STRANGE_ROUTER) };
    assert_eq!(journeys(beside_another(), &out, 4, Side::Sent), 1);
    assert_eq!(journeys(beside_another(), &back, 4, Side::Received), 1);
}

#[test]
fn in_a_tunnel_and_without_a_router_the_instances_own_frame_tells() {
    for tunnelled in [false, true] {
        for (mac, own) in [(STRANGER, 0), (OWN_MAC, 1)] {
            let out = Made { tunnelled, ..sent(mac) };
            let back = Made { tunnelled, ..answered(mac) };
            assert_eq!(journeys(bridged(), &out, 2, Side::Sent), own, "{mac} {tunnelled}");
            assert_eq!(journeys(bridged(), &back, 2, Side::Received), own, "{mac} {tunnelled}");
        }
    }
}

#[test]
fn a_packet_is_not_taken_for_one_of_the_same_bytes_that_another_tenant_sends() {
    let hello = |from| Made { kind: Kind::Udp(b"hello".to_vec()), ..sent(from) };
    let own = hello(OWN_MAC);
    let died = vec![own.at(MS, 0, Side::Sent), own.at(MS + 1000, 1, Side::Received)];
    let passing = hello(STRANGE_ROUTER).at(MS + 2000, 4, Side::Sent);
    let found = joined(beside_another(), [died.clone(), vec![passing]].concat());
    assert_eq!((found.len(), &found[0].ended), (1, &Ended::NotSeenAfter));
    // Nor for one that is translated.
    let translated = Made { source: ([172, 24, 4, 9].into(), 1), ..hello(STRANGE_ROUTER) }.at(MS + 2000, 4, Side::Sent);
    assert_eq!(joined(beside_another(), [died.clone(), vec![translated]].concat())[0].ended, Ended::NotSeenAfter);
    // What leaves by the instance's own router is its packet.
    let found = joined(beside_another(), [died, vec![hello(ROUTER_MAC).at(MS + 2000, 4, Side::Sent)]].concat());
    assert_eq!((found.len(), &found[0].ended), (1, &Ended::Delivered));
    // A frame with an address that nobody is known by may have been changed on the way.
    let changed = vec![own.at(MS, 0, Side::Sent), hello(FAR).at(MS + 2000, 4, Side::Sent)];
    assert_eq!(joined(beside_another(), changed)[0].ended, Ended::Delivered);
}

#[test]
fn an_answer_to_another_tenant_is_not_taken_for_the_instances_who_has_asked_the_same() {
    // Neither router translates.
    let asked = sent(ROUTER_MAC).at(MS, 4, Side::Sent);
    let answer = |to| {
        let kind = Kind::Tcp { sequence: 99, flags: 18, payload: vec![] };
        let found =
            joined(neutron(), vec![asked.clone(), Made { kind, ..answered(to) }.at(500 * MS, 4, Side::Received)]);
        found.iter().filter(|journey| journey.direction == Direction::Inward).count()
    };
    assert_eq!((answer(STRANGE_ROUTER), answer(ROUTER_MAC)), (0, 1));
}

#[test]
fn behind_a_second_router_frames_are_alike_and_the_address_tells_only_where_nobody_else_has_it() {
    let way = || {
        points(&[
            ("eth0", HopKind::InnerDevice, Side::Sent),
            ("tap1", HopKind::HostDevice, Side::Received),
            ("qr-1", HopKind::RouterPort, Side::Received),
            ("qg-1", HopKind::RouterPort, Side::Sent),
            ("br-ex", HopKind::RouterPort, Side::Received),
            ("eth1", HopKind::RouterPort, Side::Sent),
        ])
    };
    let mut beside = way();
    beside.doubles.addresses.insert(FIXED.into());
    let made = sent(ROUTER_MAC);
    assert_eq!(journeys(way(), &made, 5, Side::Sent), 1);
    assert_eq!(journeys(beside.clone(), &made, 5, Side::Sent), 0);
    // The way it came tells.
    let found = joined(beside.clone(), vec![made.at(MS, 4, Side::Received), made.at(MS + 1000, 5, Side::Sent)]);
    assert_eq!((found.len(), found[0].steps.len()), (1, 2));
    let strange = sent(STRANGE_ROUTER);
    assert_eq!(joined(beside, vec![strange.at(MS, 4, Side::Received), made.at(MS + 1000, 5, Side::Sent)]), []);
}

#[test]
fn whoever_asks_for_an_address_asks_on_its_own_network() {
    let everybody = Mac([0xff; 6]);
    assert_eq!(journeys(bridged(), &answered(everybody), 2, Side::Received), 1);
    assert_eq!(journeys(neutron(), &answered(everybody), 4, Side::Received), 0);
    let mut beside = bridged();
    beside.doubles.addresses.insert(FIXED.into());
    assert_eq!(journeys(beside, &answered(everybody), 2, Side::Received), 0);
}

#[test]
fn a_packet_that_was_given_up_at_a_device_of_many_means_nobody_where_two_have_its_address() {
    let at = |points: Points, stop, made: &Made| joined(points, vec![made.dropped(MS, Some(stop), "QDISC_DROP")]).len();
    let made = Made::syn(7);
    assert_eq!((at(neutron(), 4, &made), at(beside_another(), 4, &made)), (1, 0));
    // In its own devices and its own router it can be nobody else's, and a floating IP is nobody else's anywhere.
    assert_eq!((at(beside_another(), 1, &made), at(beside_another(), 2, &made)), (1, 1));
    assert_eq!(at(beside_another(), 4, &Made { source: (FLOATING, 1), ..made }), 1);
}

#[test]
fn of_two_interfaces_with_one_address_a_packet_is_of_the_one_whose_frame_it_is_in() {
    let mut points = bridged();
    let mut second = points.tracks[0].clone();
    for stop in &mut second.stops[..2] {
        stop.link = link(usize::try_from(stop.link.ifindex.0).unwrap() + 10);
    }
    segment::tell(&mut second.stops, Some(STRANGER));
    points.tracks.push(second);
    for (mac, track) in [(OWN_MAC, 0), (STRANGER, 1)] {
        let found = joined(points.clone(), vec![sent(mac).at(MS, 2, Side::Sent)]);
        assert_eq!((found.len(), found[0].track), (1, track));
    }
    assert_eq!(sent(OWN_MAC).destination.0, REMOTE);
}

#[test]
fn what_netdiag_refused_where_two_have_the_address_is_the_instances_if_its_verdict_says_so() {
    let packet = Made::syn(7).answer();
    let verdict = VerdictEvent {
        number: 1,
        time_ns: 2 * MS,
        port_id: "p1".to_owned(),
        instance: Some("web-1".to_owned()),
        device: Some("tap1".to_owned()),
        direction: crate::policy::types::Direction::Ingress,
        verdict: Decision::Deny,
        reason: "no-rule".to_owned(),
        ethertype: 0x0800,
        protocol: Some(6),
        source: Some(packet.source.0.into()),
        destination: Some(packet.destination.0.into()),
        source_port: packet.source.1,
        destination_port: packet.destination.1,
        rule: None,
        length: 60,
    };
    let found = |verdict: VerdictEvent| {
        let mut journeys = Journeys::new(Points { instance: "web-1".to_owned(), ..beside_another() });
        // At the card, before anything could see it.
        journeys.see(packet.dropped(MS, Some(4), "NOT_SPECIFIED"));
        journeys.refused([verdict]);
        journeys.advance(2 * SETTLE_NS)
    };
    let own = found(verdict.clone());
    assert_eq!((own.len(), &own[0].ended), (1, &Ended::Dropped { drop: 0 }));
    assert_eq!(own[0].direction, Direction::Inward);
    for other in [
        VerdictEvent { instance: Some("web-2".to_owned()), ..verdict.clone() },
        VerdictEvent { verdict: Decision::Allow, ..verdict.clone() },
        VerdictEvent { time_ns: 500 * MS, ..verdict.clone() },
        VerdictEvent { destination_port: 1, ..verdict.clone() },
        VerdictEvent { protocol: Some(17), ..verdict },
    ] {
        assert_eq!(found(other.clone()), [], "{other:?}");
    }
}
