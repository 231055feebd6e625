//! Policies as large as they come.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    numbers::{attached, group, rule},
    world::{World, group_id},
};
use crate::{
    compile::{Tables, diff},
    policy::types::{Policy, Remote},
};

/// Far above what it takes: a build without optimisation on a busy machine.
const BOUND: Duration = Duration::from_secs(30);

/// 10,000 rules of three kinds in one group with 100,000 members, and ports that are in it.
pub(super) fn large(ports: u32) -> World {
    let prefix = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Remote::Prefix(format!("172.{high}.{low}.0/24").parse().unwrap())
    };
    let remote = |number: u16| match number % 3 {
        0 => Remote::Any,
        1 => Remote::Group(group_id(0)),
        _ => prefix(number),
    };
    let rules = (1..=10_000).map(|number| rule(&format!("rule-{number}"), number, remote(number))).collect();
    let members = (0..100_000).map(|number| Ipv4Addr::from_bits(0x0a00_0000 + number).into());
    World {
        policy: Policy { groups: BTreeMap::from([group(group_id(0), rules)]), ..Policy::default() },
        attached: (0..ports).map(|number| attached(number, &[0])).collect(),
        members: BTreeMap::from([(
            group_id(0),
            members.map(|address: std::net::IpAddr| address.into()).collect::<BTreeSet<_>>(),
        )]),
    }
}

#[test]
fn ten_thousand_rules_and_a_hundred_thousand_members_take_no_time_to_speak_of() {
    let world = large(1);
    let begin = Instant::now();
    let tables = world.lower(&Tables::default());
    let first = begin.elapsed();
    let again = world.lower(&tables);
    assert_eq!(diff(&tables, &again), vec![]);
    println!("{first:?}, again and compared {:?}", begin.elapsed().saturating_sub(first));
    assert!(first < BOUND, "{first:?}");
    assert_eq!((tables.rule_labels.len(), tables.remotes4.len(), tables.grants.len()), (10_000, 100_000, 10_000));
}

#[test]
fn a_thousand_ports_with_the_same_groups_cost_what_one_costs() {
    let (one, thousand) = (large(1).lower(&Tables::default()), large(1000).lower(&Tables::default()));
    assert_eq!(thousand.ports.len(), 1000);
    assert_eq!(
        (one.grants.len(), one.pages.len(), one.views),
        (thousand.grants.len(), thousand.pages.len(), thousand.views)
    );
}
