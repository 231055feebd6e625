use std::path::Path;

use netdiag_model::floating::{ExternalHook, FastPath, FloatingIp, Owner, State};

use super::{Anew, Ends, Entry, Ipv4Addr, NetnsId, PATIENCE, Places, Plan, Present, Wrong};
use crate::conntrack::Tuple;

const ROUTER: &str = "qrouter-a";
const PORT: u32 = 7;
const PLACE: (u32, u32) = (3, 9);

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

const fn netns(cookie: u64) -> NetnsId {
    // The kernel gives the number of one that is gone to the next one.
    NetnsId { inode: 1, cookie }
}

fn fast() -> State {
    State::Fast(Box::new(FastPath {
        router: 1,
        device: "eth1".to_owned(),
        ifindex: 2,
        hook: ExternalHook::Tc,
        vlan: 0,
        outer_mac: "fa:16:3e:00:00:22".parse().unwrap(),
        outer_mtu: 1500,
        inner_mac: "fa:16:3e:00:00:11".parse().unwrap(),
        inner_mtu: 1500,
        mac: "fa:16:3e:00:00:33".parse().unwrap(),
        port_ifindex: PORT,
        peer: true,
        hops: 1,
        random: true,
        begins: true,
    }))
}

fn slow() -> State {
    State::Broken { why: "it is being made".to_owned() }
}

fn plan(floating_ips: &[(&str, &str, &str, State)]) -> Plan {
    let planned = |(router, floating, fixed, way): &(&str, &str, &str, State)| FloatingIp {
        floating_ip_address: address(floating),
        fixed_ip_address: Some(address(fixed)),
        port_id: None,
        router: (*router).to_owned(),
        owner: Owner::Found,
        way: way.clone(),
    };
    Plan { floating_ips: floating_ips.iter().map(planned).collect(), ..Plan::default() }
}

fn places() -> Places {
    [(PORT, PLACE)].into()
}

fn present(routers: &[(&str, u64)]) -> Present {
    routers.iter().map(|(name, cookie)| ((*name).to_owned(), netns(*cookie))).collect()
}

/// What is kept after a look at a router with one floating IP past it.
fn known(state: &Path) -> Anew {
    let mut anew = Anew::open(state, "boot");
    let plan = plan(&[(ROUTER, "172.24.4.6", "10.0.0.5", fast())]);
    assert_eq!(anew.seen_at(0, &plan, &places(), &present(&[(ROUTER, 1)])), []);
    anew
}

/// The same, after it was made anew and told of its flows.
fn told(state: &Path) -> Anew {
    let mut anew = known(state);
    assert_eq!(anew.seen_at(1, &plan(&[]), &places(), &present(&[])), []);
    let router = anew.kept.routers.get_mut(ROUTER).unwrap();
    (router.netns, router.told) = (netns(2), Some(2));
    anew
}

fn ends(anew: &Anew) -> Vec<(&str, &str)> {
    let all = anew.kept.routers.iter().flat_map(|(name, router)| router.ends.iter().map(move |ends| (name, ends)));
    let shown = all.map(|(name, ends)| {
        assert_eq!((ends.slot, ends.epoch), PLACE);
        (name.as_str(), if ends.floating == address("172.24.4.6") { "172.24.4.6" } else { "another" })
    });
    shown.collect()
}

fn end() -> Ends {
    Ends { floating: address("172.24.4.6"), fixed: address("10.0.0.5"), slot: PLACE.0, epoch: PLACE.1 }
}

#[test]
fn a_router_that_is_gone_is_kept_and_one_of_its_name_is_a_stranger_whatever_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let mut anew = known(directory.path());
    assert_eq!(anew.strangers(&present(&[(ROUTER, 1)])), [] as [&str; 0]);
    anew.seen_at(PATIENCE * 9, &plan(&[]), &places(), &present(&[]));
    assert_eq!(ends(&anew), [(ROUTER, "172.24.4.6")]);
    assert_eq!(anew.strangers(&present(&[("qrouter-b", 2), (ROUTER, 2)])), [ROUTER]);
    assert_eq!(anew.awaited().count(), 0, "it has not been told yet");
}

#[test]
fn what_is_kept_outlives_the_agent_and_not_the_boot() {
    let directory = tempfile::tempdir().unwrap();
    let mut anew = told(directory.path());
    anew.keep().unwrap();
    let again = Anew::open(directory.path(), "boot");
    assert_eq!(ends(&again), [(ROUTER, "172.24.4.6")]);
    assert_eq!(again.awaited().collect::<Vec<_>>(), [((end().floating, end().fixed), ROUTER)]);
    assert_eq!(ends(&Anew::open(directory.path(), "another boot")), []);
}

#[test]
fn a_router_that_lives_and_has_a_floating_ip_no_longer_is_not_told_of_it_when_it_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let mut anew = known(directory.path());
    let wrong = anew.seen_at(1, &plan(&[]), &places(), &present(&[(ROUTER, 1)]));
    assert_eq!(wrong, [], "nobody has told it anything");
    assert_eq!(ends(&anew), []);
}

#[test]
fn a_port_that_leaves_its_place_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let mut anew = told(directory.path());
    anew.narrow(|slot, epoch| (slot, epoch) == PLACE);
    assert_eq!(ends(&anew), [(ROUTER, "172.24.4.6")]);
    anew.narrow(|slot, epoch| (slot, epoch) == (PLACE.0, PLACE.1 + 1));
    assert_eq!(ends(&anew), []);
}

#[test]
fn a_router_that_is_told_may_take_its_time_and_is_known_once_its_rules_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut anew = told(directory.path());
    let there = present(&[(ROUTER, 2)]);
    assert_eq!(anew.seen_at(3, &plan(&[]), &places(), &there), []);
    assert_eq!(anew.awaited().count(), 1);
    let rules = plan(&[(ROUTER, "172.24.4.6", "10.0.0.5", slow())]);
    assert_eq!(anew.seen_at(4, &rules, &places(), &there), []);
    assert_eq!(anew.awaited().count(), 0);
    assert_eq!(anew.seen_at(PATIENCE * 9, &rules, &places(), &there), []);
    assert_eq!(ends(&anew), [(ROUTER, "172.24.4.6")]);
}

#[test]
fn what_a_router_was_told_is_taken_back_where_the_floating_ip_is_not_its_own_any_more() {
    let expected = Wrong { router: ROUTER.to_owned(), netns: netns(2), ends: vec![end()] };
    for (seen, now) in [
        // Another instance has it.
        (plan(&[(ROUTER, "172.24.4.6", "10.0.0.6", slow())]), 3),
        // Another router has it.
        (plan(&[("qrouter-b", "172.24.4.6", "10.0.0.5", slow())]), 3),
        // The router has its rules, and it is not among them.
        (plan(&[(ROUTER, "172.24.4.7", "10.0.0.5", slow())]), 3),
        // It never has any.
        (plan(&[]), 2 + PATIENCE),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut anew = told(directory.path());
        let wrong = anew.seen_at(now, &seen, &places(), &present(&[(ROUTER, 2), ("qrouter-b", 3)]));
        assert_eq!(wrong, std::slice::from_ref(&expected), "{seen:?}");
        assert_eq!(ends(&anew), [], "{seen:?}");
    }
}

#[test]
fn a_look_that_began_before_the_router_came_says_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut anew = told(directory.path());
    let stale = plan(&[(ROUTER, "172.24.4.7", "10.0.0.9", slow())]);
    assert_eq!(anew.seen_at(3, &stale, &places(), &present(&[(ROUTER, 1)])), []);
    assert_eq!(anew.awaited().count(), 1);
}

#[test]
fn a_fixed_address_is_kept_for_the_last_router_that_had_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut anew = known(directory.path());
    let moved = plan(&[("qrouter-b", "172.24.4.7", "10.0.0.5", fast())]);
    anew.seen_at(1, &moved, &places(), &present(&[("qrouter-b", 3)]));
    assert_eq!(ends(&anew), [("qrouter-b", "another")]);
}

#[test]
fn connections_between_other_ends_are_not_taken_back() {
    let tuple = |source: &str, destination: &str| Tuple {
        source: address(source),
        destination: address(destination),
        protocol: 6,
        source_port: 1,
        destination_port: 2,
        icmp_type: 0,
    };
    let between = |original: (&str, &str), reply: (&str, &str)| {
        end().translates(&Entry::between(tuple(original.0, original.1), tuple(reply.0, reply.1)))
    };
    assert!(between(("10.0.0.5", "192.0.2.9"), ("192.0.2.9", "172.24.4.6")));
    assert!(between(("192.0.2.9", "172.24.4.6"), ("10.0.0.5", "192.0.2.9")));
    assert!(!between(("10.0.0.5", "192.0.2.9"), ("192.0.2.9", "172.24.4.7")));
    assert!(!between(("192.0.2.9", "172.24.4.6"), ("10.0.0.6", "192.0.2.9")));
    assert!(!between(("10.0.0.5", "192.0.2.9"), ("192.0.2.9", "10.0.0.5")));
}
