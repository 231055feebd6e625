//! A change of members by the shorter way gives what a whole lowering gives.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
};

use super::{
    numbers::attached,
    size::large,
    world::{Fate, Point, World, any_world, fate, group_id, points},
};
use crate::compile::{Compiled, Tables, diff, lower};

/// Hosts of either family that no rule names.
fn hosts() -> Vec<IpNet> {
    let hosts = (1..=16).flat_map(|number| [format!("10.7.0.{number}"), format!("2001:db8:7::{number}")]);
    hosts.map(|host| host.parse::<IpAddr>().unwrap().into()).collect()
}

/// A world in which every combination of groups has hosts, and in which what comes next may change nothing else.
fn any_crowded() -> impl Strategy<Value = World> {
    any_world().prop_map(|mut world| {
        for (place, host) in hosts().into_iter().enumerate() {
            for group in (0..3).filter(|group| (place / 2 % 8) & (1 << group) != 0) {
                world.members.entry(group_id(group)).or_default().insert(host);
            }
        }
        world
    })
}

/// Members that come where they are not, and go where they are.
type Toggles = Vec<(usize, IpNet)>;

fn any_toggles() -> impl Strategy<Value = Toggles> {
    let net = |text: &str| text.parse().unwrap();
    let others = [net("10.0.0.1/32"), net("192.0.2.1/32"), net("2001:db8::1/128")];
    let all: Vec<IpNet> = hosts().into_iter().chain(others).collect();
    let member = prop_oneof![20 => select(all), 1 => Just(net("10.7.0.0/24"))];
    vec((0..3_usize, member), 1..4)
}

fn toggle(world: &mut World, toggles: &Toggles) {
    for (group, member) in toggles {
        let members = world.members.entry(group_id(*group)).or_default();
        if !members.remove(member) {
            members.insert(*member);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_members_come_and_go_tables_and_writes_are_those_of_a_whole_lowering(
        mut world in any_crowded(),
        steps in vec(any_toggles(), 1..6),
    ) {
        let mut compiled = Compiled::default();
        compiled.advance(&world.input()).unwrap();
        for toggles in steps {
            toggle(&mut world, &toggles);
            let before = compiled.tables().clone();
            let whole = lower(&world.input(), &before).unwrap();
            let phases = compiled.advance(&world.input()).unwrap();
            prop_assert_eq!(&phases, &diff(&before, &whole));
            prop_assert_eq!(compiled.tables(), &whole);
        }
    }

    #[test]
    fn whatever_else_changes_tables_and_writes_are_those_of_a_whole_lowering(
        worlds in vec(any_crowded(), 1..4),
        toggles in any_toggles(),
    ) {
        let mut compiled = Compiled::default();
        for mut world in worlds {
            for _ in 0..2 {
                let before = compiled.tables().clone();
                let whole = lower(&world.input(), &before).unwrap();
                prop_assert_eq!(compiled.advance(&world.input()).unwrap(), diff(&before, &whole));
                prop_assert_eq!(compiled.tables(), &whole);
                toggle(&mut world, &toggles);
            }
        }
    }
}

/// A device no port of a world has.
const NEW: u32 = 99;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_port_that_is_closed_ahead_allows_nothing_at_any_moment_and_changes_nothing_for_others(
        mut world in any_world(),
        is_there in any::<bool>(),
        points in subsequence(points(), 32),
    ) {
        let mut compiled = Compiled::default();
        compiled.advance(&world.input()).unwrap();
        let number = if is_there { 0 } else { 9 };
        let mut port = attached(number, &[0, 1]);
        port.ifindex = NEW;
        let mut state = compiled.tables().clone();
        let others: Vec<u32> = state.interfaces.keys().copied().collect();
        let fates = |state: &Tables| -> Vec<Fate> {
            others.iter().flat_map(|other| points.iter().map(|point| fate(state, *other, point))).collect()
        };
        let before = fates(&state);
        for op in compiled.close(&port).unwrap().iter().flat_map(|phase| &phase.ops) {
            op.apply(&mut state);
            prop_assert_eq!(&fates(&state), &before);
            let new = |point: &Point| fate(&state, NEW, point);
            let closed = |point: &Point| matches!(new(point), Fate::Refused | Fate::Spoofed);
            prop_assert!(points.iter().all(|point| new(point) == Fate::Unmanaged) || points.iter().all(closed));
        }
        prop_assert_eq!(&state, compiled.tables());
        prop_assert!(state.interfaces.contains_key(&NEW));
        // The look finds it where it is, and its rules hold.
        world.attached.retain(|other| other.id != port.id);
        world.attached.push(port);
        compiled.advance(&world.input()).unwrap();
        prop_assert_eq!(lower(&world.input(), compiled.tables()).unwrap(), compiled.tables().clone());
        for point in &points {
            let fresh = fate(&world.lower(&Tables::default()), NEW, point).passes();
            prop_assert_eq!(fate(compiled.tables(), NEW, point).passes(), fresh);
        }
    }
}

#[test]
fn a_port_closed_ahead_that_nobody_asks_for_after_all_is_gone_with_the_next_lowering() {
    let world = large(1);
    let mut compiled = Compiled::default();
    compiled.advance(&world.input()).unwrap();
    let mut port = attached(9, &[]);
    port.ifindex = NEW;
    compiled.close(&port).unwrap();
    assert_eq!(compiled.close(&attached(10, &[])).unwrap().len(), 1, "the closed policy is there already");
    compiled.advance(&world.input()).unwrap();
    assert_eq!(compiled.tables().interfaces.keys().collect::<Vec<_>>(), [&world.attached[0].ifindex]);
}

/// A member more of the large policy, and then one less.
fn grow(world: &mut World, grown: bool) {
    let member: IpNet = "10.128.0.1/32".parse().unwrap();
    let members = world.members.get_mut(&group_id(0)).unwrap();
    if grown {
        members.insert(member)
    } else {
        members.remove(&member)
    };
}

#[test]
fn one_member_among_a_hundred_thousand_costs_a_small_part_of_a_whole_lowering() {
    let mut world = large(1);
    let mut compiled = Compiled::default();
    compiled.advance(&world.input()).unwrap();
    let (mut short, mut long) = (Duration::MAX, Duration::MAX);
    for grown in [true, false, true, false, true] {
        grow(&mut world, grown);
        let begin = Instant::now();
        let whole = lower(&world.input(), compiled.tables()).unwrap();
        let phases = diff(compiled.tables(), &whole);
        long = long.min(begin.elapsed());
        let begin = Instant::now();
        let part = compiled.advance(&world.input()).unwrap();
        short = short.min(begin.elapsed());
        assert_eq!(part, phases);
    }
    println!("the shorter way {short:?}, the long one {long:?}");
    assert!(short * 5 < long, "{short:?} {long:?}");
}

#[test]
fn tables_read_from_maps_are_lowered_whole_and_a_policy_that_does_not_fit_changes_nothing() {
    let mut world = large(1);
    let mut compiled = Compiled::default();
    compiled.advance(&world.input()).unwrap();
    let mut again = Compiled::from(compiled.tables().clone());
    grow(&mut world, true);
    assert_eq!(again.advance(&world.input()).unwrap(), compiled.advance(&world.input()).unwrap());
    let before = compiled.tables().clone();
    world.policy.permitted_ethertypes = (0x9000..0x9009).collect();
    compiled.advance(&world.input()).unwrap_err();
    assert_eq!(compiled.tables(), &before);
    world.policy.permitted_ethertypes.clear();
    assert_eq!(compiled.advance(&world.input()).unwrap(), vec![]);
}
