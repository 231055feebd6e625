//! Security groups that netdiag enforces: where they stand on a path, and what is said of them.

use super::{MAC, docker};
use crate::{
    fact::{
        SourceKind,
        enforcement::{
            EnforcedPort, EnforcementFact, HookFact, LoadedTables, ReasonCount, RefusedPort, WayCount,
            tables::{LoadedActive, LoadedPort, LoadedView},
        },
    },
    id::{IfIndex, LinkKey},
    policy::types::{Direction, Mode},
    testing::{Host, codes, mac},
    trace::{HopKind, HopState, Trace, Verdict},
};

const PORT_ID: &str = "a1000001-5e6f-4a1b-8c2d-000000000001";

/// A container behind a bridge and a published port, and the host's end of its card.
fn host() -> (Host, IfIndex) {
    let mut host = Host::new();
    let (netns, _) = docker(&mut host);
    let veth = host.network(host.id).links.iter().find(|link| link.name == "veth1").unwrap().ifindex;
    assert_eq!(host.network(netns).links.len(), 2);
    (host, veth)
}

fn hook(direction: Direction, program: u32) -> HookFact {
    HookFact { direction, hook: "tcx".to_owned(), program, behind: None }
}

/// A port that is enforced in both directions.
fn port(ifindex: IfIndex) -> EnforcedPort {
    EnforcedPort {
        slot: 0,
        port_id: PORT_ID.to_owned(),
        ifindex,
        mac: mac(MAC),
        mode: Mode::Filtered,
        stateless: false,
        groups: vec!["web".to_owned()],
        generation: 1,
        hooks: vec![hook(Direction::Egress, 7), hook(Direction::Ingress, 8)],
        ways: vec![],
        counters: vec![],
        flows: 0,
        suppressed: 0,
        lost: 0,
    }
}

/// The trace of the container with this port enforced.
fn trace(change: impl FnOnce(&mut EnforcedPort)) -> Trace {
    let (mut host, veth) = host();
    let mut port = port(veth);
    change(&mut port);
    host.facts.enforcement = Some(EnforcementFact { ports: vec![port], ..EnforcementFact::default() });
    host.trace("web-1")
}

fn group_hop(trace: &Trace) -> &crate::trace::Hop {
    let mut hops = trace.interfaces[0].hops.iter().filter(|hop| hop.kind == HopKind::SecurityGroup);
    hops.next().expect("a hop of security groups")
}

#[test]
fn groups_stand_behind_the_hosts_device_on_the_way_out() {
    let trace = trace(|_| {});
    let kinds: Vec<HopKind> = trace.interfaces[0].hops.iter().map(|hop| hop.kind).collect();
    let place = kinds.iter().position(|kind| *kind == HopKind::SecurityGroup).unwrap();
    assert_eq!(kinds[place - 1], HopKind::HostDevice);
    assert_eq!((group_hop(&trace).name.as_str(), group_hop(&trace).state), ("web", HopState::Ok));
    assert_eq!(codes(&trace), [""; 0]);
    assert_eq!(trace.verdict, Verdict::Works);
}

#[test]
fn a_direction_without_a_program_is_an_error_that_names_it() {
    let trace = trace(|port| port.hooks.retain(|hook| hook.direction == Direction::Egress));
    assert_eq!(codes(&trace), ["security-group-unattached"]);
    assert!(trace.findings[0].message.contains("packets to the instance"), "{:?}", trace.findings);
    assert_eq!(trace.verdict, Verdict::Broken);
    // The hop on the way out is about the other direction.
    assert_eq!(group_hop(&trace).state, HopState::Ok);
}

#[test]
fn a_port_whose_policy_is_not_known_is_broken() {
    let trace = trace(|port| port.mode = Mode::Closed);
    assert_eq!(codes(&trace), ["policy-unknown"]);
    assert_eq!(group_hop(&trace).state, HopState::Broken);
}

#[test]
fn a_trusted_port_lacks_nothing_whatever_is_attached() {
    let trace = trace(|port| {
        port.mode = Mode::Trusted;
        port.hooks.clear();
    });
    assert_eq!(codes(&trace), [""; 0]);
    assert_eq!(group_hop(&trace).note, "everything passes");
}

#[test]
fn a_program_of_somebody_else_in_front_is_a_warning() {
    let trace = trace(|port| port.hooks[0].behind = Some("cil_from_container".to_owned()));
    assert_eq!(codes(&trace), ["foreign-program-first"]);
    assert_eq!(group_hop(&trace).state, HopState::Warning);
}

#[test]
fn what_differs_from_what_is_asked_is_quoted() {
    let rules = serde_json::json!([{"id": "https", "direction": "ingress", "protocol": "tcp",
                                     "port_range_min": 443, "port_range_max": 443}]);
    let asked = serde_json::json!({
        "security_groups": [{"id": "web", "security_group_rules": rules}],
        "ports": [{"id": PORT_ID, "security_groups": ["web"], "mac_address": MAC, "fixed_ips": ["10.9.9.9"]}]});
    let fact = |port, tables| EnforcementFact {
        ports: vec![port],
        asked: Some(asked.clone()),
        tables,
        ..EnforcementFact::default()
    };
    let traced = |fact: &dyn Fn(EnforcedPort) -> EnforcementFact| {
        let (mut host, veth) = host();
        host.facts.enforcement = Some(fact(port(veth)));
        host.trace("web-1")
    };
    // A port whose policy has no rule.
    let side = (0, 0, 0, 0);
    let entry = LoadedPort { flags: 1, policy: 1, epoch: 1, mac: mac(MAC), ipv4: vec![], ipv6: vec![] };
    let tables = LoadedTables {
        ports: [(0, entry)].into(),
        active: [(1, LoadedActive { view: 2, generation: 1 })].into(),
        views: [(2, LoadedView { generation: 1, flags: 0, sides: [side; 4] })].into(),
        ..LoadedTables::default()
    };
    let trace = traced(&|port| fact(port, Some(tables.clone())));
    assert_eq!(codes(&trace), ["policy-differs"]);
    assert_eq!(
        trace.findings[0].evidence,
        "asked for, and nothing may be sent from it: 10.9.9.9; asked for and not in force: rule https of web"
    );
    let trace = traced(&|port| fact(EnforcedPort { mode: Mode::Trusted, ..port }, None));
    assert_eq!(codes(&trace), ["policy-differs"]);
    assert_eq!(trace.findings[0].evidence, "rules are asked for, and everything passes");
}

#[test]
fn drops_of_both_directions_are_told_where_there_is_no_way_in() {
    let trace = trace(|port| {
        let count =
            |direction, reason: &str, packets| ReasonCount { direction, reason: reason.to_owned(), packets, bytes: 0 };
        port.counters = vec![
            count(Direction::Ingress, "no-rule", 3),
            count(Direction::Ingress, "established", 9),
            count(Direction::Egress, "ip-spoof", 2),
        ];
    });
    assert_eq!(group_hop(&trace).note, "dropped out: 2 ip-spoof, dropped in: 3 no-rule");
}

#[test]
fn what_is_sent_past_the_bridge_is_told_on_the_way_out() {
    let trace = trace(|port| {
        let count =
            |way: &str, packets| WayCount { direction: Direction::Egress, way: way.to_owned(), packets, bytes: 0 };
        port.ways = vec![count("fast", 3), count("straight", 7)];
    });
    assert_eq!(group_hop(&trace).note, "7 packets past the bridge, straight to instances at it");
}

#[test]
fn groups_that_no_hook_can_hold_are_a_warning_and_everything_passes() {
    let (mut host, veth) = host();
    let refused = RefusedPort { port_id: PORT_ID.to_owned(), ifindex: Some(veth), why: "it is in a bond".to_owned() };
    host.facts.enforcement = Some(EnforcementFact { refused: vec![refused], ..EnforcementFact::default() });
    let trace = host.trace("web-1");
    assert_eq!(codes(&trace), ["security-group-refused"]);
    assert_eq!(group_hop(&trace).state, HopState::Warning);
}

#[test]
fn a_port_of_another_device_is_not_the_cards_even_with_the_same_index_elsewhere() {
    let (mut host, veth) = host();
    let other = LinkKey { netns: host.id, ifindex: IfIndex(veth.0 + 100) };
    host.facts.enforcement = Some(EnforcementFact { ports: vec![port(other.ifindex)], ..EnforcementFact::default() });
    let trace = host.trace("web-1");
    assert!(trace.interfaces[0].enforcement.is_none());
    assert!(!trace.interfaces[0].hops.iter().any(|hop| hop.kind == HopKind::SecurityGroup));
}

#[test]
fn what_could_not_be_read_makes_the_answer_inconclusive() {
    let (mut host, _) = host();
    host.gap(SourceKind::Enforcement, None);
    assert_eq!(host.trace("web-1").verdict, Verdict::Inconclusive);
}
