//! Every view of real hosts.
//!
//! A fixture is what `netdiag snapshot -w` wrote on a host, so these tests show what an operator sees there, and that a
//! view is a function of a snapshot and of nothing else. To add a host, put its snapshot into `fixtures` and a line into
//! [`HOSTS`]; to accept what changed, run `cargo insta review`.
#![cfg(test)]

use std::{fs, io, path::Path};

use insta::assert_snapshot;
use netdiag_model::{
    fact::enforcement::{AgentFact, EnforcedPort, EnforcementFact, FlowFact, HookFact, LoadedFloating, WayCount},
    floating::{
        self,
        show::{self, Wanted},
    },
    groups::{self, Asking, Explained, FlowFilter, FlowOrder},
    id::IfIndex,
    inventory::{Instance, Inventory},
    list::Listing,
    policy::{
        binding, convert,
        types::{Attached, Direction, PortId},
        wire::Document,
    },
    resolve::resolve,
    snapshot::Snapshot,
    trace::{self, Trace},
};
use netdiag_views::{dot, json, mermaid, svg, text, text::Style, wide, yaml};

/// Snapshots by the names of their files, each with the instances to trace, as an operator asks for them.
const HOSTS: &[(&str, &[&str])] = &[
    // A floating IP; two networks of one instance; a second tenant with the addresses of the first.
    ("neutron-ovs-compute-1", &["172.24.4.6", "instance-00000004", "172.24.4.8"]),
    // The router is on another host.
    ("neutron-ovs-compute-2", &["10.0.0.5"]),
    // Security groups on a bridge between tap and Open vSwitch; a port whose groups let nobody in.
    ("hybrid-compute-1", &["172.24.4.6", "instance-00000002"]),
    // A distributed router: a floating IP through its own namespace, and source NAT in another one of this host.
    ("dvr-compute-1", &["172.24.4.6", "instance-00000002"]),
    // Source NAT on another host.
    ("dvr-compute-2", &["10.0.0.6"]),
    // A virtual machine, whose inside cannot be seen, with a floating IP.
    ("vm-compute-1", &["172.24.4.6"]),
    // Published ports and a card plugged by hand; two networks; the network of another container.
    ("docker-1", &["web-1", "api-1", "sidecar-1"]),
];

/// How a text is looked at.
const STYLES: &[(&str, Style)] = &[
    ("80", style(80)),
    ("200", style(200)),
    ("ascii", Style { ascii: true, ..style(80) }),
    ("colour", Style { colour: true, ..style(80) }),
    ("v", Style { detail: 1, ..style(80) }),
];

/// A page of a width without anything else.
const fn style(width: usize) -> Style {
    Style { width, colour: false, ascii: false, detail: 0, full_ids: false }
}

/// Reads a host as `--from` does.
fn host(name: &str) -> Snapshot {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.json"));
    Snapshot::from_json(&fs::read(&file).unwrap()).unwrap()
}

/// What a view writes; escape sequences made visible.
fn shown(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap().replace('\u{1b}', "␛")
}

/// Calls back with every trace of every host and a name for it.
fn every_trace(mut check: impl FnMut(&str, &Trace)) {
    for (name, queries) in HOSTS {
        let snapshot = host(name);
        let inventory = Inventory::build(&snapshot);
        for query in *queries {
            let place = resolve(&inventory, query).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let trace = trace::explain(&inventory, &inventory.instances[place]);
            check(&format!("{name}-{query}"), &trace);
        }
    }
}

/// Calls back with the listing of every host.
fn every_listing(mut check: impl FnMut(&str, &Listing)) {
    for (name, _) in HOSTS {
        let snapshot = host(name);
        check(name, &trace::list(&Inventory::build(&snapshot)));
    }
}

/// A Docker host some of whose ports netdiag enforces, each in another way: filtered, closed, with a program missing and
/// one of somebody else first, trusted, refused. Made by hand beside a real look.
fn enforced() -> Snapshot {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/docker-1-enforcement.json");
    let mut snapshot = host("docker-1");
    snapshot.facts.enforcement = Some(serde_json::from_slice(&fs::read(file).unwrap()).unwrap());
    snapshot
}

/// The same with nobody at the agent's socket.
fn without_agent() -> Snapshot {
    let mut snapshot = enforced();
    let loaded = snapshot.facts.enforcement.as_mut().unwrap();
    (loaded.agent, loaded.asked) = (None, None);
    loaded.refused.clear();
    snapshot
}

/// Calls back with the inventory of a snapshot and one of its instances.
fn with_instance(snapshot: &Snapshot, query: &str, look: impl FnOnce(&Inventory<'_>, &Instance<'_>)) {
    let inventory = Inventory::build(snapshot);
    let place = resolve(&inventory, query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    look(&inventory, &inventory.instances[place]);
}

/// Calls back with questions about packets and their answers.
fn every_explanation(mut check: impl FnMut(&str, &Explained)) {
    let (snapshot, blind) = (enforced(), without_agent());
    for (name, snapshot, instance, asking) in [
        ("allowed", &snapshot, "web-1", asking("203.0.113.7", "web-1", 6, Some(443))),
        ("denied", &snapshot, "web-1", asking("203.0.113.7", "web-1", 6, Some(22))),
        ("next-door", &snapshot, "web-1", asking("203.0.113.7", "web-1", 6, Some(444))),
        ("between", &snapshot, "web-1", asking("api-1", "web-1", 17, Some(53))),
        ("ping", &snapshot, "web-1", asking("web-1", "198.51.100.1", 1, None)),
        ("dead", &snapshot, "web-1", asking("172.17.0.12", "web-1", 6, Some(22))),
        ("closed", &snapshot, "web-2", asking("203.0.113.7", "web-2", 6, Some(22))),
        ("differs", &snapshot, "api-1", asking("172.17.0.2", "api-1", 17, Some(53))),
        ("unseen", &snapshot, "api-1", asking("api-1", "203.0.113.7", 17, Some(53))),
        ("refused", &snapshot, "shop-1", asking("203.0.113.7", "shop-1", 6, Some(22))),
        ("without-agent", &blind, "web-1", asking("203.0.113.7", "web-1", 6, Some(443))),
    ] {
        with_instance(snapshot, instance, |inventory, instance| {
            check(name, &groups::explain(inventory, instance, &asking).unwrap());
        });
    }
}

const fn asking<'q>(from: &'q str, to: &'q str, protocol: u8, service: Option<u16>) -> Asking<'q> {
    Asking { from, to, protocol, service }
}

#[test]
fn security_groups_of_an_instance() {
    let (snapshot, blind) = (enforced(), without_agent());
    for (name, snapshot, instance) in [
        ("web-1", &snapshot, "web-1"),
        ("web-2", &snapshot, "web-2"),
        ("api-1", &snapshot, "api-1"),
        ("shop-1", &snapshot, "shop-1"),
        ("db-1", &snapshot, "db-1"),
        ("without-agent", &blind, "web-1"),
    ] {
        with_instance(snapshot, instance, |inventory, instance| {
            let answer = groups::show(inventory, instance);
            for (style_name, style) in STYLES {
                let text = shown(|out| text::groups::render(&answer, style, out));
                assert_snapshot!(format!("enforced-{name}-sg-{style_name}"), text);
            }
            assert_snapshot!(format!("enforced-{name}-sg-json"), shown(|out| json::render(&answer, out)));
        });
    }
}

#[test]
fn what_would_become_of_a_packet() {
    every_explanation(|name, explained| {
        for (style_name, style) in &STYLES[..3] {
            let text = shown(|out| text::explain::render(explained, style, out));
            assert_snapshot!(format!("enforced-{name}-explain-{style_name}"), text);
        }
    });
    every_explanation(|name, explained| {
        if matches!(name, "denied" | "differs" | "ping") {
            assert_snapshot!(format!("enforced-{name}-explain-json"), shown(|out| json::render(explained, out)));
        }
    });
}

#[test]
fn tracked_flows() {
    let snapshot = enforced();
    let inventory = Inventory::build(&snapshot);
    let flows = groups::flows(&inventory, None, &FlowFilter::default(), FlowOrder::Address);
    for (style_name, style) in STYLES {
        let text = shown(|out| text::flows::render(&flows, style, out));
        assert_snapshot!(format!("enforced-flows-{style_name}"), text);
    }
    assert_snapshot!("enforced-flows-wide", shown(|out| wide::flows(&flows, &Style::default(), out)));
    assert_snapshot!("enforced-flows-json", shown(|out| json::render(&flows, out)));
    let dead = FlowFilter { state: Some("dead".to_owned()), ..FlowFilter::default() };
    with_instance(&snapshot, "web-1", |inventory, instance| {
        let flows = groups::flows(inventory, Some(instance), &dead, FlowOrder::Idle);
        assert_snapshot!("enforced-flows-dead", shown(|out| text::flows::render(&flows, &style(80), out)));
    });
}

#[test]
fn enforcement_on_a_path_and_in_a_list() {
    let snapshot = enforced();
    for instance in ["web-1", "web-2", "api-1", "shop-1", "db-1"] {
        with_instance(&snapshot, instance, |inventory, instance| {
            let trace = trace::explain(inventory, instance);
            let name = &instance.identity.name;
            let text = shown(|out| text::trace::render(&trace, &style(80), out));
            assert_snapshot!(format!("enforced-{name}-trace-80"), text);
            if name == "api-1" {
                assert_snapshot!("enforced-api-1-trace-json", shown(|out| json::render(&trace, out)));
            }
        });
    }
    let listing = trace::list(&Inventory::build(&snapshot));
    for (style_name, style) in STYLES {
        let text = shown(|out| text::list::render(&listing, style, out));
        assert_snapshot!(format!("enforced-list-{style_name}"), text);
    }
    assert_snapshot!("enforced-list-wide", shown(|out| wide::list(&listing, &Style::default(), out)));
    assert_snapshot!("enforced-list-json", shown(|out| json::render(&listing, out)));
}

/// A host with two routers and four floating IPs, one of which goes past its router, one past it no more for what is new, and
/// one that is asked of netdiag and held. What the agent says of them is what its planner finds.
fn floating() -> Snapshot {
    let mut snapshot = host("neutron-ovs-compute-1");
    let text = "security_groups: [{name: default}]\nports:\n- {id: web, binding: {device: tapf1a1de43-25}}\n\
                - {id: db, binding: {device: tap94d5ffd0-c7}}\nfloatingips:\n- {floating_ip_address: 203.0.113.7, port_id: web}\n";
    let policy = convert::policy(&[Document { name: "policy.yaml".to_owned(), text: text.to_owned() }]).unwrap();
    let inventory = Inventory::build(&snapshot);
    let bound = binding::bind(&policy, &inventory);
    let plan = floating::plan(&inventory, &policy, &bound.attached, &floating::Switches::default());
    let place = |id: &PortId| u32::try_from(bound.attached.iter().position(|port| port.id == *id).unwrap()).unwrap();
    let loaded = plan.floating_ips.iter().filter_map(|made| {
        let (path, id) = made.fast().zip(made.port_id.as_ref())?;
        Some(LoadedFloating {
            floating: made.floating_ip_address,
            fixed: made.fixed_ip_address?,
            slot: place(id),
            ifindex: IfIndex(path.ifindex),
            vlan: path.vlan,
            begins: id.0 == "web",
        })
    });
    let port = |(slot, port): (usize, &Attached)| EnforcedPort {
        slot: u32::try_from(slot).unwrap(),
        port_id: port.id.to_string(),
        ifindex: IfIndex(port.ifindex),
        mac: port.mac,
        mode: port.mode,
        stateless: false,
        groups: vec!["default".to_owned()],
        generation: 1,
        hooks: [Direction::Egress, Direction::Ingress].map(hook).to_vec(),
        counters: vec![],
        ways: ways(&port.id.0),
        flows: 0,
        suppressed: 0,
        lost: 0,
    };
    let fact = EnforcementFact {
        agent: Some(AgentFact::default()),
        ports: bound.attached.iter().enumerate().map(port).collect(),
        floating: loaded.collect(),
        floating_ips: Some(plan.floating_ips),
        ..EnforcementFact::default()
    };
    snapshot.facts.enforcement = Some(fact);
    snapshot
}

fn hook(direction: Direction) -> HookFact {
    HookFact { direction, hook: "tcx".to_owned(), program: 7, behind: None }
}

fn ways(port: &str) -> Vec<WayCount> {
    let counts = match port {
        "web" => {
            &[(Direction::Ingress, "fast", 1200), (Direction::Egress, "fast", 900), (Direction::Egress, "ttl", 3)][..]
        }
        _ => &[(Direction::Ingress, "draining", 7)],
    };
    let count = |(direction, way, packets): &(Direction, &str, u64)| WayCount {
        direction: *direction,
        way: (*way).to_owned(),
        packets: *packets,
        bytes: packets * 100,
    };
    counts.iter().map(count).collect()
}

#[test]
fn floating_ips_and_the_ways_they_take() {
    let snapshot = floating();
    let inventory = Inventory::build(&snapshot);
    let listed = show::list(&inventory, None);
    for (style_name, style) in STYLES {
        let text = shown(|out| text::floating::render(&listed, style, out));
        assert_snapshot!(format!("floating-fip-{style_name}"), text);
    }
    assert_snapshot!("floating-fip-wide", shown(|out| wide::floating(&listed, &Style::default(), out)));
    assert_snapshot!("floating-fip-json", shown(|out| json::render(&listed, out)));
    let one = show::list(&inventory, Some(Wanted::Address("172.24.4.6".parse().unwrap())));
    assert_snapshot!("floating-fip-one", shown(|out| text::floating::render(&one, &style(80), out)));
    let listing = trace::list(&inventory);
    for columns in [80, 200] {
        let text = shown(|out| text::list::render(&listing, &style(columns), out));
        assert_snapshot!(format!("floating-list-{columns}"), text);
    }
    with_instance(&snapshot, "172.24.4.6", |inventory, instance| {
        let trace = trace::explain(inventory, instance);
        assert_snapshot!("floating-trace-80", shown(|out| text::trace::render(&trace, &style(80), out)));
    });
}

#[test]
fn floating_ips_where_nobody_says_why_they_take_their_ways() {
    let snapshot = host("neutron-ovs-compute-1");
    let listed = show::list(&Inventory::build(&snapshot), None);
    assert_snapshot!("floating-fip-bare", shown(|out| text::floating::render(&listed, &style(80), out)));
    let mut snapshot = floating();
    let fact = snapshot.facts.enforcement.as_mut().unwrap();
    (fact.agent, fact.floating_ips) = (None, None);
    let listed = show::list(&Inventory::build(&snapshot), None);
    assert_snapshot!("floating-fip-dead", shown(|out| text::floating::render(&listed, &style(80), out)));
}

#[test]
fn ten_thousand_flows_are_listed_at_once() {
    let mut snapshot = enforced();
    let tracked = snapshot.facts.enforcement.as_mut().unwrap().tracked.as_mut().unwrap();
    let first = tracked[0].clone();
    tracked.extend((0..10_000).map(|number| FlowFact { remote_port: number, ..first.clone() }));
    let inventory = Inventory::build(&snapshot);
    let begun = std::time::Instant::now();
    let flows = groups::flows(&inventory, None, &FlowFilter::default(), FlowOrder::Address);
    let text = shown(|out| text::flows::render(&flows, &style(200), out));
    // A release build takes a tenth of this; what a reader would notice is something quadratic.
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    assert_eq!(text.lines().count(), 10_007 + 3);
}

#[test]
fn a_trace_as_text() {
    every_trace(|name, trace| {
        for (style_name, style) in STYLES {
            let text = shown(|out| text::trace::render(trace, style, out));
            assert_snapshot!(format!("{name}-trace-{style_name}"), text);
        }
        assert_snapshot!(format!("{name}-trace-wide"), shown(|out| wide::trace(trace, &Style::default(), out)));
    });
}

#[test]
fn a_trace_for_machines() {
    every_trace(|name, trace| {
        assert_snapshot!(format!("{name}-trace-json"), shown(|out| json::render(trace, out)));
    });
}

#[test]
fn a_trace_for_other_programs_to_draw() {
    every_trace(|name, trace| {
        assert_snapshot!(format!("{name}-trace-dot"), shown(|out| dot::render(trace, out)));
        assert_snapshot!(format!("{name}-trace-mermaid"), shown(|out| mermaid::render(trace, out)));
    });
}

#[test]
fn a_listing() {
    every_listing(|name, listing| {
        for (style_name, style) in STYLES {
            let text = shown(|out| text::list::render(listing, style, out));
            assert_snapshot!(format!("{name}-list-{style_name}"), text);
        }
        assert_snapshot!(format!("{name}-list-wide"), shown(|out| wide::list(listing, &Style::default(), out)));
        assert_snapshot!(format!("{name}-list-json"), shown(|out| json::render(listing, out)));
    });
}

#[test]
fn every_view_names_every_hop() {
    every_trace(|name, trace| {
        let in_full = Style { full_ids: true, ..style(200) };
        let views = [
            ("text", shown(|out| text::trace::render(trace, &in_full, out))),
            ("wide", shown(|out| wide::trace(trace, &Style::default(), out))),
            ("json", shown(|out| json::render(trace, out))),
            ("yaml", shown(|out| yaml::render(trace, out))),
            ("dot", shown(|out| dot::render(trace, out))),
            ("mermaid", shown(|out| mermaid::render(trace, out))),
            ("svg", shown(|out| svg::render(trace, out))),
        ];
        for hop in trace.interfaces.iter().flat_map(|interface| &interface.hops) {
            // Ids are cut in pictures, and long names broken; eight characters are there in any case.
            let start: String = hop.name.chars().take(8).collect();
            for (view, text) in &views {
                assert!(text.contains(&start), "{name}: {view} has no {} {}", hop.kind.name(), hop.name);
            }
        }
    });
}

#[test]
fn the_same_snapshot_gives_the_same_answer() {
    let mut first = Vec::new();
    every_trace(|_, trace| first.push(shown(|out| json::render(trace, out))));
    let mut second = Vec::new();
    every_trace(|_, trace| second.push(shown(|out| json::render(trace, out))));
    assert_eq!(first, second);
}

#[test]
fn a_picture() {
    every_trace(|name, trace| {
        assert_snapshot!(format!("{name}-trace-svg"), shown(|out| svg::render(trace, out)));
    });
}
