//! Which numbers are kept, and how little a small change costs.

use std::collections::{BTreeMap, BTreeSet};

use netdiag_common::abi::policy::active_generation;

use super::world::{World, group_id};
use crate::{
    compile::{Change, Op, Stage, Tables, diff, lower},
    id::Mac,
    policy::types::{
        Attached, Direction, Ethertype, GroupId, Hook, Mode, Policy, PortId, Remote, Rule, RuleId, SecurityGroup,
        Service,
    },
};

/// A rule of TCP to a port of the instance.
pub(super) fn rule(id: &str, port: u16, remote: Remote) -> Rule {
    Rule {
        id: RuleId(id.to_owned()),
        direction: Direction::Ingress,
        ethertype: Ethertype::IPv4,
        service: Service::Ports { protocol: 6, first: port, last: port },
        remote,
        description: String::new(),
    }
}

pub(super) fn group(id: GroupId, rules: Vec<Rule>) -> (GroupId, SecurityGroup) {
    (id.clone(), SecurityGroup { id, name: String::new(), stateful: true, rules })
}

pub(super) fn attached(number: u32, groups: &[usize]) -> Attached {
    Attached {
        id: PortId(format!("port-{number}")),
        ifindex: 10 + number,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        fixed_ips: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
        pairs: BTreeSet::new(),
        groups: groups.iter().copied().map(group_id).collect(),
        mode: Mode::Filtered,
        hook: Hook::Tc,
        log_allowed: false,
    }
}

/// Two groups whose members may reach each other, each with one member and one port.
fn world() -> World {
    let web = rule("web", 80, Remote::Group(group_id(0)));
    let data = rule("data", 5432, Remote::Group(group_id(1)));
    let groups = BTreeMap::from([group(group_id(0), vec![web]), group(group_id(1), vec![data])]);
    let member = |address: &str| BTreeSet::from([address.parse().unwrap()]);
    World {
        policy: Policy { groups, ..Policy::default() },
        attached: vec![attached(0, &[0]), attached(1, &[1])],
        members: BTreeMap::from([(group_id(0), member("10.0.0.1/32")), (group_id(1), member("10.0.0.2/32"))]),
    }
}

fn ops(before: &Tables, after: &Tables, stage: Stage) -> Vec<Op> {
    diff(before, after).into_iter().filter(|phase| phase.stage == stage).flat_map(|phase| phase.ops).collect()
}

#[test]
fn a_member_that_comes_or_goes_costs_its_own_element_and_a_new_view() {
    let (one, mut two) = (world(), world());
    two.members.get_mut(&group_id(0)).unwrap().insert("10.0.0.9/32".parse().unwrap());
    let small = one.lower(&Tables::default());
    let large = two.lower(&small);
    let [view] = &ops(&small, &large, Stage::Add)[1..] else { panic!("generations, a view") };
    assert!(matches!(view, Op::View(Change::Put(..))));
    assert!(matches!(ops(&small, &large, Stage::Narrow)[..], [Op::Remote4(Change::Put(..))]));
    assert!(matches!(ops(&small, &large, Stage::Switch)[..], [Op::Active(_)]));
    let again = one.lower(&large);
    assert!(matches!(ops(&large, &again, Stage::Narrow)[..], [Op::Remote4(Change::Delete(_))]));
    assert!(matches!(ops(&large, &again, Stage::Switch)[..], [Op::Active(_)]));
    assert!(matches!(ops(&large, &again, Stage::Retire)[..], [Op::View(Change::Delete(_))]));
}

#[test]
fn a_policy_that_nothing_happens_to_keeps_its_generation_and_flows_are_not_asked_again() {
    let (one, mut two) = (world(), world());
    two.policy.groups.get_mut(&group_id(0)).unwrap().rules.push(rule("more", 81, Remote::Any));
    let before = one.lower(&Tables::default());
    let after = two.lower(&before);
    let word = |tables: &Tables, slot| tables.active[&tables.ports[&slot].policy];
    assert_ne!(word(&before, 0), word(&after, 0));
    assert_eq!(word(&before, 1), word(&after, 1));
}

#[test]
fn groups_of_the_same_shape_share_service_tables_and_ports_of_the_same_groups_share_policies() {
    let mut world = world();
    let other = rule("other", 80, Remote::Group(group_id(1)));
    world.policy.groups.extend([group(group_id(1), vec![other])]);
    world.attached.push(attached(2, &[1]));
    let tables = world.lower(&Tables::default());
    assert_eq!(tables.protocols.len(), 1);
    assert_eq!(tables.ports[&1].policy, tables.ports[&2].policy);
    assert_ne!(tables.ports[&0].policy, tables.ports[&1].policy);
}

#[test]
fn a_place_that_goes_to_another_port_has_an_epoch_it_never_had() {
    let (mut one, mut other, none) = (world(), world(), World { attached: Vec::new(), ..world() });
    one.attached.truncate(1);
    other.attached.remove(0);
    let mut tables = Tables::default();
    let mut epochs = BTreeSet::new();
    for world in [&one, &none, &other, &none, &one] {
        tables = world.lower(&tables);
        assert!(world.attached.is_empty() || epochs.insert(tables.ports[&0].epoch));
    }
    assert_eq!(tables.ports.len(), 1);
    assert_eq!(one.lower(&tables).ports[&0].epoch, tables.ports[&0].epoch);
}

#[test]
fn a_generation_is_never_given_twice_even_if_nothing_has_it_any_more() {
    let (world, none) = (world(), World { attached: Vec::new(), ..world() });
    let first = world.lower(&Tables::default());
    let third = world.lower(&none.lower(&first));
    let generations = |tables: &Tables| tables.views.values().map(|view| view.generation).collect::<BTreeSet<_>>();
    assert!(generations(&first).is_disjoint(&generations(&third)));
}

#[test]
fn generations_wrap_around_without_zero_and_without_one_in_use() {
    let mut before = world().lower(&Tables::default());
    before.active.insert(0, u64::from(u32::MAX));
    let mut changed = world();
    changed.policy.groups.get_mut(&group_id(0)).unwrap().rules.clear();
    let after = changed.lower(&before);
    let used: BTreeSet<u32> = before.views.values().map(|view| view.generation).collect();
    let now = active_generation(after.active[&after.ports[&0].policy]);
    assert!(now != 0 && !used.contains(&now), "{now} {used:?}");
}

#[test]
fn what_does_not_fit_is_said_with_its_limit() {
    let mut world = world();
    world.attached = (0..1025).map(|number| attached(number, &[])).collect();
    let error = lower(&world.input(), &Tables::default()).unwrap_err();
    assert_eq!((error.what, error.needed, error.limit), ("ports", 1025, 1024));
    world.attached.clear();
    world.policy.permitted_ethertypes = (0x9000..0x9009).collect();
    assert_eq!(lower(&world.input(), &Tables::default()).unwrap_err().what, "permitted ethertypes");
}
