use proptest::prelude::*;

use super::{
    simulation::{FIXED, FLOATING, GATEWAY, Kind, Made, OWN_MAC, REMOTE, ROUTER_MAC, joined, link, neutron},
    statistics::Statistics,
    *,
};
use crate::{testing::cases, trace::HopKind};

const MS: u64 = 1_000_000;

/// A packet on all devices of Neutron's path outward, translated in the router.
fn outward(packet: &Made, begin: u64, stops: usize) -> Vec<Sighting> {
    let translated = Made { source: (FLOATING, 50_000), hops: 63, ..packet.clone() };
    let way = neutron().tracks[0].stops.iter().map(|stop| stop.side).collect::<Vec<_>>();
    let seen = |stop: usize| if stop < 3 { packet } else { &translated };
    (0..stops).map(|stop| seen(stop).at(begin + stop as u64 * 10_000, stop, way[stop])).collect()
}

/// The same inward.
fn inward(packet: &Made, begin: u64) -> Vec<Sighting> {
    let untranslated = Made { destination: (FLOATING, packet.destination.1), ..packet.clone() };
    let way: Vec<Side> = neutron().tracks[0].stops.iter().map(|stop| stop.side.other()).collect();
    let seen = |stop: usize| if stop < 3 { packet } else { &untranslated };
    (0..5).rev().map(|stop| seen(stop).at(begin + (4 - stop) as u64 * 10_000, stop, way[stop])).collect()
}

fn places(journey: &Journey) -> Vec<usize> {
    journey.steps.iter().map(|step| step.place.stop).collect()
}

#[test]
fn a_packet_through_nat_is_one_journey_with_the_translation_where_it_was_made() {
    let found = joined(neutron(), outward(&Made::syn(7), MS, 5));
    let [journey] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((places(journey), &journey.ended), (vec![0, 1, 2, 3, 4], &Ended::Delivered));
    let changed: Vec<usize> =
        journey.steps.iter().filter(|step| !step.changes.is_empty()).map(|step| step.place.stop).collect();
    assert_eq!(changed, [3]);
    let expected = Change::Source { from: format!("{FIXED}:40000"), to: format!("{FLOATING}:50000") };
    assert_eq!(journey.steps[3].changes, [expected]);
    assert_eq!(journey.packet.addresses().unwrap().0, IpAddr::from(FIXED));
}

#[test]
fn a_packet_that_has_arrived_is_told_of_soon_and_one_that_was_given_up_as_well() {
    let soon = |seen: Vec<Sighting>| {
        let mut journeys = Journeys::new(neutron());
        let last_ns = seen.last().unwrap().time_ns;
        for sighting in seen {
            journeys.see(sighting);
        }
        assert_eq!(journeys.advance(last_ns + ARRIVED_NS), []);
        journeys.advance(last_ns + ARRIVED_NS + REORDER_NS).first().map(|journey| journey.ended.clone())
    };
    let packet = Made::syn(7);
    assert_eq!(soon(outward(&packet, MS, 4)), None, "it may yet come");
    assert_eq!(soon(outward(&packet, MS, 5)), Some(Ended::Delivered));
    let dies = packet.dropped(2 * MS, Some(2), "NETFILTER_DROP");
    assert_eq!(soon([outward(&packet, MS, 2), vec![dies]].concat()), Some(Ended::Dropped { drop: 0 }));
}

#[test]
fn an_answer_comes_inward_and_is_named_by_the_instances_own_address() {
    let packet = Made::syn(7).answer();
    let found = joined(neutron(), inward(&packet, MS));
    let [journey] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((journey.direction, &journey.ended), (Direction::Inward, &Ended::Delivered));
    assert_eq!(places(journey), [4, 3, 2, 1, 0]);
    assert_eq!(journey.packet.addresses().unwrap().1, IpAddr::from(FIXED));
}

#[test]
fn a_packet_that_is_not_seen_again_ended_after_its_last_device_and_not_before_the_kernel_gives_up_asking() {
    let mut journeys = Journeys::new(neutron());
    for sighting in outward(&Made::syn(7), MS, 3) {
        journeys.see(sighting);
    }
    assert_eq!(journeys.advance(3_000 * MS), []);
    let found = journeys.advance(4_000 * MS);
    assert_eq!(found[0].ended, Ended::NotSeenAfter);
    assert_eq!(places(&found[0]), [0, 1, 2]);
}

#[test]
fn a_packet_that_is_seen_again_at_the_last_moment_is_not_lost_though_nobody_looks_before_the_moment_is_over() {
    let seen = |rest: u64| {
        let mut journeys = Journeys::new(neutron());
        let mut all = outward(&Made::syn(7), MS, 5);
        let last = all[2].time_ns;
        all[3].time_ns = last + rest;
        all[4].time_ns = last + rest + 1;
        for sighting in all {
            journeys.see(sighting);
        }
        let mut found = journeys.advance(last + SETTLE_NS + MS);
        found.extend(journeys.advance(last + 2 * SETTLE_NS));
        found.first().map(|journey| journey.ended.clone())
    };
    assert_eq!(seen(SETTLE_NS - MS), Some(Ended::Delivered));
    assert_eq!(seen(SETTLE_NS + 100 * MS), Some(Ended::NotSeenAfter), "that is another");
}

#[test]
fn when_nobody_looks_any_longer_what_was_under_way_is_not_said_to_be_lost() {
    let ended = |looked_ns| {
        let mut journeys = Journeys::new(neutron());
        for sighting in outward(&Made::syn(7), MS, 3) {
            journeys.see(sighting);
        }
        let mut found = journeys.advance(looked_ns);
        found.extend(journeys.finish());
        found[0].ended.clone()
    };
    assert_eq!((ended(500 * MS), ended(4_000 * MS)), (Ended::Inconclusive, Ended::NotSeenAfter));
}

#[test]
fn a_drop_is_the_end_only_of_a_packet_that_is_not_seen_later() {
    let packet = Made::syn(7);
    let gone = packet.dropped(MS + 25_000, Some(2), "NETFILTER_DROP");
    let died = [outward(&packet, MS, 3), vec![gone.clone()]].concat();
    let found = joined(neutron(), died);
    assert_eq!(found[0].drop().map(|drop| drop.reason.as_str()), Some("NETFILTER_DROP"));
    let mut copy = [outward(&packet, MS, 5), vec![gone]].concat();
    copy.sort_by_key(|sighting| sighting.time_ns);
    let found = joined(neutron(), copy);
    assert_eq!((found.len(), &found[0].ended), (1, &Ended::Delivered));
}

/// Sightings with one that comes so much later than it should.
fn late(mut seen: Vec<Sighting>, place: usize, by: u64) -> Vec<Sighting> {
    seen[place].time_ns += by;
    seen.sort_by_key(|sighting| sighting.time_ns);
    seen
}

#[test]
fn what_open_vswitch_sends_on_before_its_copys_original_is_seen_is_one_packet() {
    // The copy is taken before TC, which an interrupt, or a hypervisor, may keep waiting.
    let copying = |stop: usize| {
        let mut points = neutron();
        points.tracks[0].stops[stop].copied = true;
        points
    };
    for by in [15_000, 25_000, 90 * MS] {
        let found = joined(copying(1), late(outward(&Made::syn(7), MS, 5), 1, by));
        let [journey] = &found[..] else { panic!("{by}: {found:#?}") };
        assert_eq!((places(journey), &journey.ended), (vec![0, 1, 2, 3, 4], &Ended::Delivered), "{by}");
        let changed = journey.steps.iter().filter(|step| !step.changes.is_empty()).map(|step| step.place.stop);
        assert_eq!(changed.collect::<Vec<_>>(), [3], "{by}");
        assert_eq!((journey.began_ns(), journey.took_ns()), (MS, 40_000), "{by}");
    }
    let mut statistics = Statistics::default();
    let found = joined(copying(1), late(outward(&Made::syn(7), MS, 5), 1, 15_000));
    for journey in &found {
        statistics.add(journey);
    }
    assert_eq!(statistics.legs().map(|leg| leg.p99_ns).collect::<Vec<_>>(), [20_000, 0, 10_000, 10_000]);
    let answer = Made::syn(7).answer();
    let found = joined(copying(4), late(inward(&answer, MS), 0, 35_000));
    let [journey] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((places(journey), &journey.ended), (vec![4, 3, 2, 1, 0], &Ended::Delivered));
    assert_eq!((journey.began_ns(), journey.took_ns()), (MS + 10_000, 30_000), "first seen behind it");
}

#[test]
fn only_where_copies_are_taken_may_a_packet_be_seen_late_and_only_once_there_and_soon() {
    let found = joined(neutron(), late(outward(&Made::syn(7), MS, 5), 1, 25_000));
    assert_eq!(found.len(), 2, "nothing can overtake it there");
    let mut points = neutron();
    points.tracks[0].stops[1].copied = true;
    let again = |begin| vec![Made::syn(7).at(begin, 1, Side::Received)];
    let twice = joined(points.clone(), [outward(&Made::syn(7), MS, 5), again(MS + 50_000)].concat());
    assert_eq!(twice.len(), 2, "it was there already");
    let mut seen = outward(&Made::syn(7), MS, 5);
    seen.remove(1);
    let later = joined(points, [seen, again(200 * MS)].concat());
    assert_eq!(later.len(), 2, "it is another, sent again");
}

#[test]
fn what_the_hosts_stack_does_to_a_copy_of_open_vswitchs_says_nothing() {
    let mut points = neutron();
    points.tracks[0].stops[1].copied = true;
    let packet = Made::syn(7);
    let copy = packet.dropped(MS + 11_000, Some(1), "OTHERHOST");
    let found = joined(points, [outward(&packet, MS, 2), vec![copy]].concat());
    assert_eq!((found.len(), &found[0].ended), (1, &Ended::NotSeenAfter));
    assert_eq!(found[0].drops, []);
}

#[test]
fn what_is_left_of_a_copied_packet_says_nothing_even_if_nobody_saw_it_there_and_what_dies_before_does() {
    let packet = Made::syn(7);
    let ended = |stops: usize, reason| {
        let mut points = neutron();
        points.tracks[0].stops[1].copied = true;
        let rest = packet.dropped(MS + 11_000, Some(1), reason);
        let found = joined(points, [outward(&packet, MS, stops), vec![rest]].concat());
        found.first().map(|journey| journey.ended.clone())
    };
    // Its sighting at the device was lost.
    assert_eq!(ended(1, "OTHERHOST"), Some(Ended::NotSeenAfter));
    assert_eq!(ended(0, "OTHERHOST"), None);
    assert_eq!(ended(1, "XDP"), Some(Ended::Dropped { drop: 0 }));
    assert_eq!(ended(1, "NOT_SPECIFIED"), Some(Ended::Dropped { drop: 0 }));
    assert_eq!(ended(2, "NOT_SPECIFIED"), Some(Ended::NotSeenAfter));
    // What goes into the device has no copies.
    let mut points = neutron();
    points.tracks[0].stops[1].copied = true;
    let answer = Made::syn(7).answer();
    let gone = answer.dropped(MS + 35_000, Some(1), "QDISC_DROP");
    let mut seen = inward(&answer, MS);
    seen.pop();
    let found = joined(points, [seen, vec![gone]].concat());
    assert_eq!(found[0].ended, Ended::Dropped { drop: 0 });
}

#[test]
fn a_fragment_that_ends_with_the_datagram_it_was_put_together_to_has_arrived() {
    let packet = Made::syn(7).answer();
    let ended = |place: &str| {
        let mut gone = packet.dropped(MS + 50_000, Some(0), reasons::UNCLEAR);
        if let What::Dropped { location, .. } = &mut gone.what {
            *location = Some(place.to_owned());
        }
        joined(neutron(), [inward(&packet, MS), vec![gone]].concat())[0].ended.clone()
    };
    assert_eq!(ended("skb_release_data+0x163"), Ended::Delivered);
    assert_eq!(ended("nf_hook_slow+0xcd"), Ended::Dropped { drop: 0 });
}

#[test]
fn an_answer_to_a_ping_of_which_raw_sockets_have_had_copies_has_arrived() {
    let echo = |kind| Made::new(Kind::Echo { kind, identifier: 7, number: 1, payload: vec![1; 8] }).answer();
    let ended = |packet: &Made, reason| {
        let rest = packet.dropped(MS + 50_000, Some(0), reason);
        let found = joined(neutron(), [inward(packet, MS), vec![rest]].concat());
        assert_eq!(found.len(), 1);
        found[0].ended.clone()
    };
    assert_eq!(ended(&echo(0), "NO_SOCKET"), Ended::Delivered);
    assert_eq!(ended(&echo(0), "NETFILTER_DROP"), Ended::Dropped { drop: 0 });
    assert_eq!(ended(&Made::syn(7).answer(), "NO_SOCKET"), Ended::Dropped { drop: 0 });
}

#[test]
fn what_is_given_up_in_another_namespace_is_not_this_packet_however_alike_it_is() {
    let packet = Made::syn(7);
    let gone = |stop| packet.dropped(MS + 60_000, Some(stop), "NETFILTER_DROP");
    let ended = |stop| joined(neutron(), [outward(&packet, MS, 5), vec![gone(stop)]].concat())[0].ended.clone();
    assert_eq!((ended(9), ended(4)), (Ended::Delivered, Ended::Dropped { drop: 0 }));
}

#[test]
fn what_the_kernel_lets_go_of_without_harm_has_arrived() {
    let ended = |reason| {
        let packet = Made::syn(7).answer();
        let gone = packet.dropped(MS + 50_000, Some(0), reason);
        joined(neutron(), [inward(&packet, MS), vec![gone]].concat())[0].ended.clone()
    };
    assert_eq!(ended("TCP_OLD_DATA"), Ended::Delivered);
    assert_eq!(ended("TCP_CSUM"), Ended::Dropped { drop: 0 });
}

#[test]
fn what_was_let_go_of_at_its_end_has_come_there_though_no_device_was_seen() {
    let ended = |stop, reason| {
        let found = joined(neutron(), vec![Made::syn(7).answer().dropped(MS, Some(stop), reason)]);
        found[0].ended.clone()
    };
    assert_eq!(ended(0, "QUEUE_PURGE"), Ended::Delivered);
    assert_eq!(ended(0, "NO_SOCKET"), Ended::Dropped { drop: 0 });
    assert_eq!(ended(2, "QUEUE_PURGE"), Ended::Dropped { drop: 0 }, "somebody else had it");
}

#[test]
fn of_two_datagrams_with_the_same_bytes_the_identification_says_which_is_seen() {
    let datagram = |id| Made { id, ..Made::new(Kind::Udp(vec![7; 20])) };
    let (lost, arrives) = (datagram(1), datagram(2));
    let mut seen = [outward(&lost, MS, 2), outward(&arrives, MS + 5_000, 5)].concat();
    seen.sort_by_key(|sighting| sighting.time_ns);
    let found = joined(neutron(), seen);
    let ways: Vec<_> = found.iter().map(|journey| (places(journey), journey.ended.clone())).collect();
    assert_eq!(ways, [(vec![0, 1], Ended::NotSeenAfter), (vec![0, 1, 2, 3, 4], Ended::Delivered)]);
}

#[test]
fn a_datagram_that_is_shorter_than_another_of_its_number_is_no_piece_of_it() {
    let datagram = |length| Made { id: 77, ..Made::new(Kind::Udp(vec![7; length])) };
    let mut seen = outward(&datagram(200), MS, 2);
    seen.push(datagram(100).at(MS + 30_000, 2, Side::Received));
    let found = joined(neutron(), seen);
    assert_eq!(found.iter().map(places).collect::<Vec<_>>(), [vec![0, 1], vec![2]]);
}

#[test]
fn a_packet_that_died_before_any_device_is_a_journey_of_its_drop_alone() {
    let found = joined(neutron(), vec![Made::syn(7).dropped(MS, Some(0), "NETFILTER_DROP")]);
    assert_eq!((found.len(), &found[0].ended, found[0].steps.len()), (1, &Ended::Dropped { drop: 0 }, 0));
    // The same addresses are somebody else's in other namespaces, and anybody's where nothing says in which.
    for elsewhere in [Some(9), None] {
        assert_eq!(joined(neutron(), vec![Made::syn(7).dropped(MS, elsewhere, "NETFILTER_DROP")]), []);
    }
}

#[test]
fn a_frame_for_others_that_nobody_saw_come_has_not_died_where_it_came_by() {
    // Its sightings were left out. One that was seen to go to the router by its address has died there.
    let packet = Made::syn(7);
    let gone = packet.dropped(MS + 25_000, Some(2), "OTHERHOST");
    assert_eq!(joined(neutron(), vec![gone.clone()]), []);
    let found = joined(neutron(), [outward(&packet, MS, 3), vec![gone]].concat());
    assert_eq!(found[0].ended, Ended::Dropped { drop: 0 });
    // To a neighbour; that it went into the switch was not seen.
    let packet = Made { destination: ([10, 0, 0, 222].into(), 80), ..packet };
    let gone = packet.dropped(MS + 25_000, Some(2), "OTHERHOST");
    let found = joined(neutron(), vec![packet.at(MS, 0, Side::Sent), gone]);
    assert_eq!(found[0].ended, Ended::NotSeenAfter);
}

#[test]
fn packets_of_others_on_shared_devices_are_no_journeys() {
    let other = Made { source: ([172, 24, 4, 2].into(), 1), ..Made::syn(7) };
    let mut journeys = Journeys::new(neutron());
    journeys.see(other.at(MS, 3, Side::Sent));
    journeys.see(other.at(2 * MS, 4, Side::Sent));
    assert_eq!((journeys.finish(), journeys.counted().foreign), (vec![], 1));
}

#[test]
fn an_answer_to_an_address_shared_with_others_is_known_by_what_it_answers() {
    let shared = [172, 24, 4, 2].into();
    let mut points = neutron();
    points.tracks[0].own.pop();
    points.tracks[0].shared.push(IpAddr::V4(shared));
    let out = Made::syn(7);
    let translated = Made { source: (shared, 61_000), ..out.clone() };
    let mut seen = outward(&out, MS, 3);
    seen.extend([translated.at(MS + 30_000, 3, Side::Sent), translated.at(MS + 40_000, 4, Side::Sent)]);
    let answer = Made { kind: Kind::Tcp { sequence: 99, flags: 18, payload: vec![] }, ..translated.answer() };
    seen.push(answer.at(20 * MS, 4, Side::Received));
    let found = joined(points, seen);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!((found[1].direction, &found[1].ended), (Direction::Inward, &Ended::NotSeenAfter));
}

#[test]
fn an_answer_to_what_the_host_itself_has_asked_is_not_the_instances() {
    // It leaves by the same device, and has nothing of the instance.
    let own = Made { source: ([172, 24, 4, 2].into(), 1), ..Made::syn(7) };
    let answer = Made { kind: Kind::Tcp { sequence: 99, flags: 18, payload: vec![] }, ..own.clone().answer() };
    let seen = vec![own.at(MS, 4, Side::Sent), answer.at(500 * MS, 4, Side::Received)];
    assert_eq!(joined(neutron(), seen), []);
}

#[test]
fn a_retransmission_after_a_loss_is_a_journey_of_its_own_that_repeats_the_first() {
    let packet = Made::syn(7);
    let found = joined(neutron(), [outward(&packet, MS, 2), outward(&packet, 1_000 * MS, 5)].concat());
    let mut by_begin: Vec<_> = found.iter().collect();
    by_begin.sort_by_key(|journey| journey.began_ns());
    assert_eq!((places(by_begin[0]), places(by_begin[1])), (vec![0, 1], vec![0, 1, 2, 3, 4]));
    assert_eq!(found.iter().filter(|journey| journey.repeats.is_some()).count(), 1);
}

/// Bytes of a stream, from a sequence number on.
fn stream(sequence: u32, length: usize) -> Made {
    // Every byte says where it is, so that no two parts are the same.
    let byte = |place: usize| u8::try_from((sequence as usize + place) % 251).unwrap();
    Made::new(Kind::Tcp { sequence, flags: 24, payload: (0..length).map(byte).collect() })
}

/// Numbers of stops of each journey, with its sequence number and how it ended.
fn parts(found: &[Journey]) -> Vec<(u32, Vec<usize>, Ended)> {
    let sequence = |journey: &Journey| match journey.packet.ip().map(|ip| &ip.transport) {
        Some(crate::live::packet::Transport::Tcp { sequence, .. }) => *sequence,
        _ => 0,
    };
    let mut parts: Vec<_> = found.iter().map(|one| (sequence(one), places(one), one.ended.clone())).collect();
    parts.sort_by_key(|part| part.0);
    parts
}

#[test]
fn segments_that_a_large_one_is_cut_into_have_its_way_behind_them() {
    let mut seen = vec![stream(1000, 3000).at(MS, 0, Side::Sent)];
    for (number, length) in [(0, 1448), (1, 1448), (2, 104)] {
        let segment = Made { id: 7 + number, ..stream(1000 + u32::from(number) * 1448, length) };
        let mut rest = outward(&segment, MS + u64::from(number) * 2_000, 5);
        rest.remove(0);
        seen.extend(rest);
    }
    let found = joined(neutron(), seen);
    let whole = vec![0, 1, 2, 3, 4];
    let expected = [1000, 2448, 3896].map(|sequence| (sequence, whole.clone(), Ended::Delivered));
    assert_eq!(parts(&found), expected);
    // What the instance had sent at once is said at the first device.
    assert!(found.iter().all(|journey| journey.steps[0].length > 3000 && journey.steps[1].length < 1600));
}

#[test]
fn a_segment_that_dies_after_the_cut_dies_alone_and_what_was_never_cut_off_died_as_a_whole() {
    let mut seen = vec![stream(1000, 2896).at(MS, 0, Side::Sent)];
    let (first, second) = (stream(1000, 1448), stream(2448, 1448));
    seen.extend(outward(&first, MS, 5).split_off(1));
    seen.extend(outward(&second, MS + 2_000, 2).split_off(1));
    seen.push(second.dropped(MS + 50_000, Some(1), "QDISC_DROP"));
    let found = joined(neutron(), seen);
    let expected = [(1000, vec![0, 1, 2, 3, 4], Ended::Delivered), (2448, vec![0, 1], Ended::Dropped { drop: 0 })];
    assert_eq!(parts(&found), expected);
    // Of what is not cut off nothing is known: one packet, and not as many as it would have been.
    let lone = [vec![stream(1000, 2896).at(MS, 0, Side::Sent)], outward(&first, MS, 5).split_off(1)].concat();
    let found = joined(neutron(), lone);
    let expected = [(1000, vec![0], Ended::NotSeenAfter), (1000, vec![0, 1, 2, 3, 4], Ended::Delivered)];
    let mut got = parts(&found);
    got.sort_by_key(|part| part.1.len());
    assert_eq!(got, expected);
}

#[test]
fn segments_that_are_put_together_on_the_way_have_arrived_each() {
    let segments: Vec<Made> =
        [(1000, 1448), (2448, 1448), (3896, 104)].map(|(sequence, length)| stream(sequence, length).answer()).into();
    let mut seen: Vec<Sighting> = Vec::new();
    for (number, segment) in (0_u64..).zip(&segments) {
        seen.extend(inward(segment, MS + number * 1_000).into_iter().take(4));
    }
    seen.push(stream(1000, 3000).answer().at(MS + 90_000, 0, Side::Received));
    seen.sort_by_key(|sighting| sighting.time_ns);
    let found = joined(neutron(), seen);
    let expected = [1000, 2448, 3896].map(|sequence| (sequence, vec![4, 3, 2, 1, 0], Ended::Delivered));
    assert_eq!(parts(&found), expected);
}

#[test]
fn a_router_may_put_segments_together_and_cut_them_again() {
    let segments = [stream(1000, 1448), stream(2448, 1448)];
    let mut seen: Vec<Sighting> = Vec::new();
    for (number, segment) in (0_u64..).zip(&segments) {
        let way = outward(segment, MS + number * 1_000, 5);
        seen.extend(way.into_iter().enumerate().filter(|(stop, _)| *stop != 2).map(|(_, sighting)| sighting));
    }
    seen.push(stream(1000, 2896).at(MS + 22_000, 2, Side::Received));
    seen.sort_by_key(|sighting| sighting.time_ns);
    let found = joined(neutron(), seen);
    let expected = [1000, 2448].map(|sequence| (sequence, vec![0, 1, 2, 3, 4], Ended::Delivered));
    assert_eq!(parts(&found), expected);
}

#[test]
fn the_same_bytes_of_another_connection_are_no_part_of_this_one() {
    let other = Made { source: ([10, 0, 0, 9].into(), 1), destination: (FIXED, 2), ..stream(1000, 1448) };
    let seen = [stream(1000, 2896).at(MS, 0, Side::Sent), other.at(MS + 10_000, 1, Side::Received)];
    let found = joined(neutron(), seen.into());
    assert_eq!(found.iter().map(places).collect::<Vec<_>>(), [vec![0], vec![1]]);
}

#[test]
fn fragments_of_a_datagram_that_a_router_splits_have_its_way_behind_them() {
    let whole =
        Made { id: 77, ..Made::new(Kind::Udp((0..2000).map(|place| u8::try_from(place % 251).unwrap()).collect())) };
    let mut seen = outward(&whole, MS, 3);
    let translated = Made { source: (FLOATING, 50_000), hops: 63, ..whole };
    for (offset, length) in [(0, 1376), (1376, 632)] {
        for stop in [3, 4] {
            seen.push(translated.fragment(offset, length).at(MS + 30_000 + stop as u64 * 1_000, stop, Side::Sent));
        }
    }
    let found = joined(neutron(), seen);
    assert_eq!(found.len(), 2, "{found:#?}");
    for journey in found {
        assert_eq!((places(&journey), journey.ended), (vec![0, 1, 2, 3, 4], Ended::Delivered));
    }
}

#[test]
fn fragments_of_which_a_datagram_is_put_together_have_arrived_each() {
    let payload = (0..2000).map(|place| u8::try_from(place % 251).unwrap()).collect();
    let whole = Made { id: 77, ..Made::new(Kind::Udp(payload)) }.answer();
    let untranslated = Made { destination: (FLOATING, whole.destination.1), ..whole.clone() };
    let mut seen = Vec::new();
    for (offset, length) in [(0, 1376), (1376, 632)] {
        for stop in [4, 3] {
            let time = MS + (4 - stop as u64) * 10_000;
            seen.push(untranslated.fragment(offset, length).at(time, stop, Side::Received));
        }
    }
    seen.extend(inward(&whole, MS).split_off(2));
    let found = joined(neutron(), seen);
    assert_eq!(found.len(), 2, "{found:#?}");
    for journey in found {
        assert_eq!((places(&journey), journey.ended), (vec![4, 3, 2, 1, 0], Ended::Delivered));
    }
}

#[test]
fn what_is_for_the_router_itself_or_for_a_neighbour_does_not_vanish() {
    let to_router = Made { destination: (GATEWAY, 53), ..Made::syn(7) };
    let found = joined(neutron(), outward(&to_router, MS, 3));
    assert_eq!(found[0].ended, Ended::Delivered);
    // The frame is for another MAC address than the router's: of somebody on the segment, or a wrong one.
    let to_neighbour = Made { destination: ([10, 0, 0, 9].into(), 53), ..Made::syn(7) };
    for (packet, ended) in [(to_neighbour, Ended::Aside), (Made::syn(7), Ended::NotSeenAfter)] {
        let mut points = neutron();
        points.tracks[0].stops[2].mac = Some(crate::id::Mac([2, 0, 0, 0, 0, 9]));
        assert_eq!(joined(points, outward(&packet, MS, 2))[0].ended, ended);
    }
}

#[test]
fn an_answer_of_arp_goes_to_whoever_has_asked() {
    let ended = |to: crate::id::Mac, target: [u8; 4]| {
        let head =
            [&to.0[..], &OWN_MAC.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &OWN_MAC.0, &FIXED.octets(), &to.0, &target]
                .concat();
        let way = neutron().tracks[0].stops.iter().map(|stop| stop.side).collect::<Vec<_>>();
        let seen =
            |stop: usize| Sighting { head: head.clone(), ..Made::syn(0).at(MS + stop as u64 * 1_000, stop, way[stop]) };
        joined(neutron(), vec![seen(0), seen(1)])[0].ended.clone()
    };
    let (neighbour, everybody) = (crate::id::Mac([2, 0, 0, 0, 0, 9]), crate::id::Mac([0xff; 6]));
    assert_eq!(ended(neighbour, [10, 0, 0, 9]), Ended::Aside);
    assert_eq!(ended(everybody, FIXED.octets()), Ended::Aside, "an announcement");
    assert_eq!(ended(ROUTER_MAC, GATEWAY.octets()), Ended::NotSeenAfter);
}

#[test]
fn what_the_router_leads_to_another_network_or_back_goes_aside_there() {
    for destination in [[10, 0, 1, 3].into(), FLOATING] {
        let packet = Made { destination: (destination, 80), ..Made::syn(7) };
        assert_eq!(joined(neutron(), outward(&packet, MS, 3))[0].ended, Ended::Aside, "{destination}");
    }
}

#[test]
fn what_goes_aside_has_died_where_the_kernel_gives_it_up_on_its_way_to_whom_it_is_for() {
    let neighbour = [10, 0, 0, 9].into();
    let packet = Made { destination: (neighbour, 53), ..Made::syn(7) };
    let ended = |behind: IpAddr, reason| {
        let mut points = neutron();
        points.tracks[0].stops[2].mac = Some(crate::id::Mac([2, 0, 0, 0, 0, 9]));
        // A device in the namespace of one that is on the path.
        let device = LinkKey { ifindex: crate::id::IfIndex(90), ..link(1) };
        points.others.insert(device, vec![behind]);
        let gone = Sighting { link: Some(device), ..packet.dropped(MS + 50_000, None, reason) };
        joined(points, [outward(&packet, MS, 2), vec![gone]].concat())[0].ended.clone()
    };
    assert_eq!(ended(neighbour.into(), "NETFILTER_DROP"), Ended::Dropped { drop: 0 });
    // A switch that does not know where somebody is sends copies to all.
    assert_eq!(ended([10, 0, 0, 8].into(), "NETFILTER_DROP"), Ended::Aside);
    assert_eq!(ended(neighbour.into(), "OTHERHOST"), Ended::Aside);
}

#[test]
fn what_the_router_leads_to_another_network_has_died_if_the_router_gives_it_up() {
    let packet = Made { destination: ([10, 0, 1, 3].into(), 80), ..Made::syn(7) };
    let gone = packet.dropped(MS + 50_000, Some(2), "NETFILTER_DROP");
    let found = joined(neutron(), [outward(&packet, MS, 3), vec![gone]].concat());
    assert_eq!(found[0].ended, Ended::Dropped { drop: 0 });
}

#[test]
fn what_netdiags_fast_path_takes_before_it_is_seen_has_left_and_what_else_vanishes_there_has_not() {
    let ended = |change: fn(&mut Points), packet: &Made| {
        let mut points = neutron();
        points.tracks[0].stops[1].copied = true;
        points.tracks[0].shortcut = vec![FIXED.into()];
        change(&mut points);
        joined(points, outward(packet, MS, 1))[0].ended.clone()
    };
    assert_eq!(ended(|_| {}, &Made::syn(7)), Ended::Delivered);
    assert_eq!(ended(|points| points.tracks[0].shortcut.clear(), &Made::syn(7)), Ended::NotSeenAfter);
    // What is not for the outside does not take it.
    let to_neighbour = Made { destination: ([10, 0, 0, 9].into(), 53), ..Made::syn(7) };
    assert_eq!(ended(|_| {}, &to_neighbour), Ended::NotSeenAfter);
    // Refused or taken: the kernel would say which, if anybody listened.
    assert_eq!(ended(|points| points.blind = true, &Made::syn(7)), Ended::Inconclusive);
}

#[test]
fn a_fast_path_that_came_while_watching_is_learned_of() {
    let mut journeys = Journeys::new(neutron());
    let vanished = joined(neutron(), outward(&Made::syn(7), MS, 1)).remove(0);
    assert_eq!(journeys.reconsidered(vanished.clone()).ended, Ended::NotSeenAfter);
    let mut now = neutron();
    now.tracks[0].shortcut = vec![FIXED.into()];
    journeys.points.tracks[0].stops[1].copied = true;
    for sighting in outward(&Made::syn(8), MS, 1) {
        journeys.see(sighting);
    }
    assert_eq!(journeys.advance(2 * MS + REORDER_NS), [], "it is under way");
    journeys.learn(&now);
    assert_eq!(journeys.reconsidered(vanished).ended, Ended::Delivered);
    let over = journeys.advance(2 * MS + ARRIVED_NS + REORDER_NS);
    assert_eq!(
        over.iter().map(|journey| &journey.ended).collect::<Vec<_>>(),
        [&Ended::Delivered],
        "and nothing else comes"
    );
}

#[test]
fn what_a_router_with_unread_rules_made_of_a_packet_is_not_known() {
    for (opaque, ended) in [(2, Ended::Inconclusive), (3, Ended::NotSeenAfter)] {
        let mut points = neutron();
        points.tracks[0].opaque.push(link(opaque).netns);
        assert_eq!(joined(points, outward(&Made::syn(7), MS, 3))[0].ended, ended);
    }
}

#[test]
fn what_comes_to_the_card_of_a_host_that_routes_itself_is_for_nobody_else() {
    let mut points = simulation::points(&[
        ("eth0", HopKind::InnerDevice, Side::Sent),
        ("veth1", HopKind::HostDevice, Side::Received),
        ("docker0", HopKind::RouterPort, Side::Received),
        ("eth0", HopKind::Uplink, Side::Sent),
    ]);
    // The bridge has an address of its own, and the frame has the card's.
    points.tracks[0].stops[2].mac = Some(crate::id::Mac([2, 0, 0, 0, 0, 7]));
    let packet = Made::syn(7).answer();
    let seen = vec![packet.at(MS, 3, Side::Received), packet.dropped(2 * MS, Some(3), "NETFILTER_DROP")];
    assert_eq!(joined(points, seen)[0].ended, Ended::Dropped { drop: 0 });
}

#[test]
fn what_comes_for_a_published_port_is_the_instances_though_the_address_is_the_hosts() {
    let host = [172, 24, 4, 2].into();
    let packet = Made { destination: (host, 8080), ..Made::syn(7).answer() };
    let come = |port| {
        let mut points = neutron();
        let published = crate::live::points::Published { address: [0, 0, 0, 0].into(), port, protocol: 6 };
        points.tracks[0].published.push(published);
        points.tracks[0].routers.push((link(3).netns, host.into()));
        let gone = packet.dropped(MS + 50_000, Some(3), "NO_SOCKET");
        joined(points, vec![packet.at(MS, 4, Side::Received), gone])
    };
    assert_eq!(come(8080)[0].ended, Ended::Dropped { drop: 0 });
    assert_eq!(come(8081), []);
}

#[test]
fn a_frame_for_all_that_also_comes_to_the_router_is_not_lost_in_it() {
    let mut everybody = Made { destination: ([255, 255, 255, 255].into(), 67), ..Made::syn(7) };
    everybody.kind = Kind::Udp(vec![1; 30]);
    let mut seen = outward(&everybody, MS, 3);
    seen.push(everybody.dropped(MS + 30_000, Some(2), "NO_SOCKET"));
    assert_eq!(joined(neutron(), seen)[0].ended, Ended::Aside);
}

#[test]
fn at_the_last_device_of_a_way_that_a_fault_ends_nobody_has_arrived() {
    let mut points = neutron();
    points.tracks[0].stops.truncate(2);
    points.tracks[0].broken = true;
    assert_eq!(joined(points, outward(&Made::syn(7), MS, 2))[0].ended, Ended::NotSeenAfter);
}

#[test]
fn losses_while_a_packet_is_under_way_leave_its_end_open_and_those_before_it_do_not() {
    for (noticed, ended) in [(500 * MS, Ended::NotSeenAfter), (1_500 * MS, Ended::Inconclusive)] {
        let mut journeys = Journeys::new(neutron());
        journeys.losses(400 * MS, Losses::default());
        journeys.losses(noticed, Losses { lost: 1, throttled: 0 });
        for sighting in outward(&Made::syn(7), 1_000 * MS, 3) {
            journeys.see(sighting);
        }
        assert_eq!(journeys.advance(6_000 * MS)[0].ended, ended);
    }
}

#[test]
fn two_clients_who_send_the_same_bytes_at_once_are_told_apart_by_their_addresses() {
    let one = Made::new(Kind::Udp(b"hello".to_vec())).answer();
    let two = Made { source: ([198, 51, 100, 9].into(), 443), ..one.clone() };
    let mut seen = [inward(&one, MS), inward(&two, MS + 5_000)].concat();
    seen.sort_by_key(|sighting| sighting.time_ns);
    let found = joined(neutron(), seen);
    assert_eq!(found.len(), 2);
    for journey in found {
        assert_eq!(journey.steps.len(), 5);
        let sources: Vec<_> = journey.steps.iter().map(|step| step.headers.addresses().unwrap().0).collect();
        assert!(sources.windows(2).all(|pair| pair[0] == pair[1]), "{sources:?}");
    }
    assert_ne!(one.source.0, two.source.0);
    assert_eq!(one.source.0, REMOTE);
}

#[test]
fn statistics_count_the_way_hop_by_hop() {
    let mut statistics = Statistics::default();
    for number in 0..10 {
        let stops = if number == 9 { 3 } else { 5 };
        for journey in joined(neutron(), outward(&Made::syn(number), MS, stops)) {
            statistics.add(&journey);
        }
    }
    assert_eq!((statistics.journeys, statistics.delivered, statistics.dead), (10, 9, 1));
    let router = statistics.hop(Direction::Outward, Place { track: 0, stop: 2 });
    assert_eq!((router.seen, router.lost), (10, 1));
    let leg = statistics.legs().next().unwrap();
    assert_eq!((leg.packets, leg.p50_ns, leg.p99_ns), (10, 10_000, 10_000));
}

/// A packet of a random run: what it is, when it begins, how far it comes.
#[derive(Clone, Debug)]
struct Run {
    kind: Kind,
    inward: bool,
    begin_ms: u64,
    stops: usize,
    gaps: Vec<u64>,
    port: u16,
    again: Option<usize>,
}

fn run() -> impl Strategy<Value = Run> {
    let payload = || prop::collection::vec(any::<u8>(), 0..200);
    let kind = prop_oneof![
        (any::<u32>(), payload()).prop_map(|(sequence, payload)| Kind::Tcp { sequence, flags: 24, payload }),
        payload().prop_map(Kind::Udp),
        (any::<bool>(), any::<u16>(), any::<u16>(), payload()).prop_map(|(asks, identifier, number, payload)| {
            Kind::Echo { kind: if asks { 8 } else { 0 }, identifier, number, payload }
        }),
    ];
    let times = prop::collection::vec(1..400_000_u64, 5);
    (kind, any::<bool>(), 1..400_u64, 1..=5_usize, times, 1024..60_000_u16, prop::option::of(1..=5_usize)).prop_map(
        |(kind, inward, begin_ms, stops, gaps, port, again)| Run { kind, inward, begin_ms, stops, gaps, port, again },
    )
}

/// Sightings of a run with what must come of them: places and times of each journey.
fn simulate(number: usize, run: &Run, translated_at: usize, wrapped: (Option<u16>, bool)) -> Vec<Vec<Sighting>> {
    // The number makes every packet's content its own.
    let kind = match run.kind.clone() {
        Kind::Tcp { flags, payload, sequence } => {
            Kind::Tcp { flags, payload, sequence: (sequence & !0xff) | u32::try_from(number).unwrap() }
        }
        Kind::Udp(mut payload) => {
            payload.insert(0, u8::try_from(number).unwrap());
            Kind::Udp(payload)
        }
        Kind::Echo { kind, identifier, number: _, payload } => {
            Kind::Echo { kind, identifier, number: u16::try_from(number).unwrap(), payload }
        }
    };
    let near = Made { source: (FIXED, run.port), ..Made::new(kind.clone()) };
    let far_kind = match kind {
        Kind::Echo { kind, identifier, number, payload } => {
            Kind::Echo { kind, identifier: identifier ^ 0x5555, number, payload }
        }
        other @ (Kind::Tcp { .. } | Kind::Udp(_)) => other,
    };
    let far = Made { source: (FLOATING, run.port ^ 0x2a), kind: far_kind, hops: 63, ..near.clone() };
    let far = Made { vlan: wrapped.0, ..far };
    let stops = neutron().tracks.swap_remove(0).stops;
    let pass = |begin: u64, come: usize| {
        let mut time = begin;
        let way: Vec<usize> = if run.inward { (0..5).rev().collect() } else { (0..5).collect() };
        let mut seen = Vec::new();
        for (place, stop) in way.into_iter().take(come).enumerate() {
            time += run.gaps[place];
            let mut made = if stop < translated_at { near.clone() } else { far.clone() };
            made.tunnelled = wrapped.1 && stop == 4;
            let (made, side) =
                if run.inward { (made.answer(), stops[stop].side.other()) } else { (made, stops[stop].side) };
            seen.push(made.at(time, stop, side));
        }
        seen
    };
    let first = pass(run.begin_ms * MS, run.stops);
    let again = run.again.map(|come| pass((run.begin_ms + 700) * MS, come));
    std::iter::once(first).chain(again).collect()
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn whatever_is_interleaved_translated_wrapped_lost_and_repeated_is_joined_exactly(
        runs in prop::collection::vec(run(), 1..24),
        translated_at in 1..5_usize,
        vlan in prop::option::of(1..4095_u16),
        tunnelled: bool,
        shuffle in prop::collection::vec(0..15 * MS, 240),
    ) {
        let expected: Vec<Vec<Sighting>> = runs
            .iter()
            .enumerate()
            .flat_map(|(number, run)| simulate(number, run, translated_at, (vlan, tunnelled)))
            .collect();
        // Each arrives up to some milliseconds after its time, so not in the order of the times.
        let late = expected.iter().flatten().cloned().zip(shuffle.iter().cycle());
        let mut arrivals: Vec<(u64, Sighting)> = late.map(|(seen, delay)| (seen.time_ns + delay, seen)).collect();
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let mut journeys = Journeys::new(neutron());
        let mut found = Vec::new();
        for (arrival, sighting) in arrivals {
            journeys.see(sighting);
            found.extend(journeys.advance(arrival));
        }
        found.extend(journeys.advance(60_000 * MS));
        let times = |one: &Journey| one.steps.iter().map(|step| step.time_ns).collect::<Vec<_>>();
        let mut got: Vec<Vec<u64>> = found.iter().map(times).collect();
        let mut wanted: Vec<Vec<u64>> =
            expected.iter().map(|seen| seen.iter().map(|sighting| sighting.time_ns).collect()).collect();
        got.sort();
        wanted.sort();
        prop_assert_eq!(got, wanted);
        for journey in &found {
            prop_assert_eq!(journey.ended == Ended::Delivered, journey.steps.len() == 5);
        }
    }

    #[test]
    fn what_becomes_of_packets_does_not_depend_on_when_somebody_looks(
        runs in prop::collection::vec(run(), 1..8),
        holds in prop::collection::vec((0..5_usize, 0..4_200 * MS), 16),
        looks in prop::collection::vec(1..9_000 * MS, 1..20),
    ) {
        let ways = runs.iter().enumerate().flat_map(|(number, run)| simulate(number, run, 3, (None, false)));
        let held = ways.zip(&holds).flat_map(|(mut way, (place, hold))| {
            way.iter_mut().skip(*place).for_each(|sighting| sighting.time_ns += hold);
            way
        });
        let mut seen: Vec<Sighting> = held.collect();
        seen.sort_by_key(|sighting| sighting.time_ns);
        let ends = |looks: &mut dyn Iterator<Item = u64>| {
            let mut journeys = Journeys::new(neutron());
            let mut rest = seen.iter().cloned().peekable();
            let mut found = Vec::new();
            for look in looks.chain([60_000 * MS]) {
                while let Some(sighting) = rest.next_if(|sighting| sighting.time_ns <= look) {
                    journeys.see(sighting);
                }
                found.extend(journeys.advance(look));
            }
            let end = |journey: &Journey| {
                let steps = journey.steps.iter().map(|step| (step.time_ns, step.place.stop));
                (steps.collect::<Vec<_>>(), journey.ended.clone())
            };
            let mut ends: Vec<_> = found.iter().map(end).collect();
            ends.sort_by_key(|(steps, _)| steps.clone());
            ends
        };
        let often = ends(&mut (0..10_000).map(|turn| turn * MS));
        let seldom = ends(&mut looks.iter().scan(0, |now, gap| { *now += gap; Some(*now) }).take_while(|now| *now < 60_000 * MS));
        prop_assert_eq!(often, seldom);
    }
}

#[test]
fn a_flood_of_packets_under_way_ends_the_oldest_early_and_is_not_looked_through_for_each() {
    let mut journeys = Journeys::new(neutron());
    // None of them is seen again, so all are under way for seconds.
    let mut flood = |numbers: std::ops::Range<u32>| {
        let end = MS + u64::from(numbers.end);
        for number in numbers {
            let data = Made::new(Kind::Tcp { sequence: number, flags: 0x10, payload: vec![0] });
            journeys.see(data.at(MS + u64::from(number), 0, neutron().tracks[0].stops[0].side));
        }
        let began = std::time::Instant::now();
        assert_eq!(journeys.advance(end + REORDER_NS), []);
        let open = journeys.open.len();
        assert_eq!(journeys.spans.len(), open, "what is over is forgotten");
        (began.elapsed(), open, journeys.counted.evicted)
    };
    let most = u32::try_from(MOST).unwrap();
    let (filling, open, evicted) = flood(0..most);
    assert_eq!((open, evicted), (MOST, 0));
    let (overflowing, open, evicted) = flood(most..2 * most);
    assert!(open <= MOST && open > MOST - EVICTED, "{open}");
    assert_eq!(open as u64 + evicted, 2 * u64::from(most));
    assert!(overflowing < filling * 4, "{filling:?}, then {overflowing:?}");
    let left = journeys.finish().iter().map(Journey::began_ns).min();
    assert_eq!(left, Some(MS + evicted), "the oldest went");
    assert_eq!(journeys.spans.len(), 0);
}
