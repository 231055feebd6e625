//! Views for machines and for other programs to draw, as a user gets them.

use std::io;

use insta::assert_snapshot;
use serde_json::Value;

use crate::{dot, escape, fixtures, json, json_schema::Published, mermaid, schema, svg, yaml};

fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn json_of_every_kind() {
    assert_snapshot!("healthy_json", text(|out| json::render(&fixtures::healthy(), out)));
    assert_snapshot!("list_json", text(|out| json::render(&fixtures::listing(), out)));
    assert_snapshot!("doctor_json", text(|out| json::render(&fixtures::report(), out)));
}

#[test]
fn yaml_of_every_kind() {
    assert_snapshot!("broken_yaml", text(|out| yaml::render(&fixtures::broken(), out)));
    assert_snapshot!("list_yaml", text(|out| yaml::render(&fixtures::listing(), out)));
    assert_snapshot!("doctor_yaml", text(|out| yaml::render(&fixtures::report(), out)));
}

#[test]
fn published_schemas() {
    for kind in schema::Kind::ALL {
        assert_snapshot!(format!("schema_{}", kind.name()), text(|out| schema::render(kind, out)));
    }
}

#[test]
fn graphs_of_a_trace() {
    assert_snapshot!("healthy_dot", text(|out| dot::render(&fixtures::healthy(), out)));
    assert_snapshot!("broken_dot", text(|out| dot::render(&fixtures::broken(), out)));
    assert_snapshot!("healthy_mermaid", text(|out| mermaid::render(&fixtures::healthy(), out)));
    assert_snapshot!("mesh_dot", text(|out| dot::render(&fixtures::mesh(), out)));
    assert_snapshot!("mesh_mermaid", text(|out| mermaid::render(&fixtures::mesh(), out)));
    assert_snapshot!("broken_mermaid", text(|out| mermaid::render(&fixtures::broken(), out)));
}

#[test]
fn json_is_exact_and_yet_safe_to_look_at() {
    let hostile = fixtures::hostile();
    let shown = text(|out| json::render(&hostile, out));
    assert!(!shown.chars().any(|found| found != '\n' && escape::is_hostile(found)), "{shown}");
    let read: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(read, serde_json::to_value(hostile.document()).unwrap());
    assert_eq!(read["instance"]["name"], Value::from(hostile.instance.name));
}

#[test]
fn yaml_holds_the_same_as_json() {
    for (name, fixture) in [("healthy", fixtures::healthy()), ("broken", fixtures::broken())] {
        let shown = text(|out| yaml::render(&fixture, out));
        let read: Value = serde_norway::from_str(&shown).unwrap();
        assert_eq!(read, serde_json::to_value(fixture.document()).unwrap(), "{name}");
    }
}

#[test]
fn nothing_hostile_reaches_a_picture_or_yaml() {
    let hostile = fixtures::hostile();
    let views = [
        ("dot", text(|out| dot::render(&hostile, out))),
        ("mermaid", text(|out| mermaid::render(&hostile, out))),
        ("svg", text(|out| svg::render(&hostile, out))),
        ("yaml", text(|out| yaml::render(&hostile, out))),
    ];
    for (name, shown) in views {
        assert!(!shown.chars().any(|found| found != '\n' && escape::is_hostile(found)), "{name}: {shown}");
        assert!(!shown.contains("<script") || matches!(name, "dot" | "yaml"), "{name}: {shown}");
        assert!(!shown.contains("%%{") || name != "mermaid", "{name}: {shown}");
    }
}

#[test]
fn every_quote_of_a_graph_is_closed_on_its_line() {
    let shown = text(|out| dot::render(&fixtures::hostile(), out));
    for line in shown.lines() {
        let bare = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(bare.matches('"').count() % 2, 0, "{line}");
    }
    let shown = text(|out| mermaid::render(&fixtures::hostile(), out));
    for line in shown.lines() {
        assert!(matches!(line.matches('"').count(), 0 | 2), "{line}");
    }
}
