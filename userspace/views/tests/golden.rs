//! Every view of real hosts.
//!
//! A fixture is what `netdiag snapshot -w` wrote on a host, so these tests show what an operator sees there, and that a
//! view is a function of a snapshot and of nothing else. To add a host, put its snapshot into `fixtures` and a line into
//! [`HOSTS`]; to accept what changed, run `cargo insta review`.
#![cfg(test)]

use std::{fs, io, path::Path};

use insta::assert_snapshot;
use netdiag_model::{
    inventory::Inventory,
    list::Listing,
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
