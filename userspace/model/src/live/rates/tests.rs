use std::net::Ipv4Addr;

use super::{
    super::journey::simulation::{FIXED, Kind, Made, REMOTE, link},
    *,
};
use crate::policy::types::Direction;

const SECOND: u64 = 1_000_000_000;

/// At a device of an instance with a floating IP, which goes past the router or not.
fn counter_of(fast: bool) -> Counter {
    let end = End {
        name: "tap1".to_owned(),
        networks: vec!["10.0.0.0/24".parse().unwrap()],
        fast: if fast { vec![FIXED.into()] } else { Vec::new() },
    };
    Counter::new(HashMap::from([(link(1), end)]), 0, HashMap::new())
}

fn counter() -> Counter {
    counter_of(false)
}

fn flow(protocol: u8, local_port: u16, remote_port: u16) -> FlowRow {
    let flow = FlowFact {
        slot: 1,
        direction: Direction::Egress,
        protocol,
        local: FIXED.into(),
        local_port,
        remote: REMOTE.into(),
        remote_port,
        state: "established".to_owned(),
        rule: 1,
        age: 1,
        idle: 0,
        dead: false,
        expired: false,
    };
    FlowRow { instance: None, port_id: "port".to_owned(), device: Some("tap1".to_owned()), rule: None, flow }
}

/// The flow of [`Made::syn`].
fn https() -> FlowRow {
    flow(6, 40_000, 443)
}

fn losses(throttled: u64) -> Losses {
    Losses { lost: 0, throttled }
}

#[test]
fn what_comes_out_of_the_host_end_is_from_the_instance_and_what_goes_in_is_for_it() {
    let mut counter = counter();
    let out = Made::syn(7).at(1, 1, Side::Received);
    let back = Made::new(Kind::Tcp { sequence: 9, flags: 16, payload: vec![0; 100] }).answer().at(2, 1, Side::Sent);
    for sighting in [&out, &out, &back] {
        counter.see(sighting);
    }
    let rates = counter.turn(SECOND, losses(0), HashMap::new());
    let rate = rates.of(&https()).unwrap();
    assert_eq!(rate.outward, Amount { packets: 2, bytes: u64::from(2 * out.length) });
    assert_eq!(rate.inward, Amount { packets: 1, bytes: u64::from(back.length) });
    assert_eq!((rate.packets(), rate.bytes()), (3, u64::from(2 * out.length + back.length)));
    assert!(!rates.is_estimate());
}

#[test]
fn a_ping_and_its_answer_are_of_one_flow_by_identifier_and_type_of_the_question() {
    let mut counter = counter();
    let echo = |kind| Made::new(Kind::Echo { kind, identifier: 77, number: 1, payload: vec![] });
    counter.see(&echo(8).at(1, 1, Side::Received));
    counter.see(&echo(0).answer().at(2, 1, Side::Sent));
    let rate = counter.turn(SECOND, losses(0), HashMap::new()).of(&flow(1, 77, 8)).unwrap();
    assert_eq!((rate.outward.packets, rate.inward.packets), (1, 1));
}

#[test]
fn a_flow_of_which_nothing_passes_has_a_rate_of_nothing_and_one_that_nobody_watches_has_none() {
    let mut counter = counter();
    counter.see(&Made::syn(7).at(1, 0, Side::Sent));
    let rates = counter.turn(SECOND, losses(0), HashMap::new());
    assert_eq!(rates.of(&https()), Some(Rate::default()));
    assert_eq!(rates.of(&FlowRow { device: Some("tap2".to_owned()), ..https() }), None);
    assert_eq!(rates.of(&FlowRow { device: None, ..https() }), None);
    assert_eq!(Rates::default().of(&https()), None);
    assert_eq!(rates.seen, 0, "at another device");
}

#[test]
fn where_a_part_is_seen_the_rest_is_taken_to_be_like_it_and_the_rate_is_an_estimate() {
    let mut counter = counter();
    let packet = Made::syn(7).at(1, 1, Side::Received);
    for _ in 0..10 {
        counter.see(&packet);
    }
    let rates = counter.turn(SECOND, losses(30), HashMap::new());
    assert!(rates.is_estimate());
    assert_eq!((rates.seen, rates.missed), (10, 30));
    let rate = rates.of(&https()).unwrap();
    assert_eq!(rate.outward, Amount { packets: 40, bytes: u64::from(40 * packet.length) });
    // Of a flow that was not among what was seen nothing is known.
    assert_eq!(rates.of(&flow(17, 1, 2)), None);
}

#[test]
fn where_a_part_is_seen_what_each_device_has_counted_says_how_large_a_part_of_its_own() {
    let mut counter = counter();
    let out = Made::syn(7).at(1, 1, Side::Received);
    let back = Made::new(Kind::Tcp { sequence: 9, flags: 16, payload: vec![0; 100] }).answer().at(2, 1, Side::Sent);
    let passed = |out: u64, back: u64| {
        let amount = |packets, bytes| Amount { packets, bytes };
        HashMap::from([(link(1), Passed { received: amount(out, 100 * out), sent: amount(back, 1000 * back) })])
    };
    counter.turn(SECOND, losses(0), passed(1_000, 5_000));
    // Of five packets from the instance four are seen by chance, and one of the fifty to it.
    for sighting in [&out, &out, &out, &out, &back] {
        counter.see(sighting);
    }
    let rate = counter.turn(2 * SECOND, losses(50), passed(1_005, 5_050)).of(&https()).unwrap();
    // Two seconds.
    assert_eq!(rate.outward, Amount { packets: 3, bytes: 250 });
    assert_eq!(rate.inward, Amount { packets: 25, bytes: 25_000 });
    // A device that was made anew has counted less than was seen.
    counter.see(&out);
    let rate = counter.turn(3 * SECOND, losses(51), passed(0, 0)).of(&https()).unwrap();
    assert_eq!(rate.outward.packets, 2, "seven in three seconds");
}

#[test]
fn a_rate_is_that_of_the_last_spans_and_what_was_missed_long_ago_is_forgotten() {
    let mut counter = counter();
    let packet = Made::syn(7).at(1, 1, Side::Received);
    for _ in 0..30 {
        counter.see(&packet);
    }
    assert_eq!(counter.turn(SECOND, losses(5), HashMap::new()).of(&https()).unwrap().packets(), 35);
    assert_eq!(counter.turn(2 * SECOND, losses(5), HashMap::new()).of(&https()).unwrap().packets(), 18, "half of 35");
    assert!(counter.turn(3 * SECOND, losses(5), HashMap::new()).is_estimate());
    let rates = counter.turn(4 * SECOND, losses(5), HashMap::new());
    assert_eq!((rates.of(&https()), rates.is_estimate()), (Some(Rate::default()), false));
}

#[test]
fn of_too_many_flows_those_that_come_late_are_counted_together() {
    let mut counter = counter();
    for number in 0..20_000_u32 {
        let source = (Ipv4Addr::from(0x0a00_0000 + number), 1);
        counter.see(&Made { source, ..Made::syn(7) }.at(1, 1, Side::Received));
    }
    let rates = counter.turn(SECOND, losses(0), HashMap::new());
    assert_eq!((rates.seen, rates.crowded), (20_000, 20_000 - MOST as u64));
    // What was counted was counted whole.
    assert!(!rates.is_estimate());
    assert_eq!(rates.of(&https()), None, "it may be among the others");
}

#[test]
fn of_what_goes_past_the_router_before_anybody_sees_it_no_rate_is_known() {
    let mut counter = counter_of(true);
    counter.see(&Made::syn(7).at(1, 1, Side::Sent));
    let rates = counter.turn(SECOND, losses(0), HashMap::new());
    assert_eq!(rates.of(&https()), None);
    let mut near = https();
    near.flow.remote = IpAddr::from([10, 0, 0, 9]);
    assert_eq!((rates.is_unseen(&https()), rates.is_unseen(&near)), (true, false));
    assert_eq!(rates.of(&near), Some(Rate::default()), "in its own network nothing is taken");
}
