//! The source against sockets that are not there or misbehave, and hostile rows.

use std::{path::Path, time::Duration};

use netdiag_model::fact::{ControllerFact, Facts, Gap};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::{Builder, read};
use crate::{
    discover::{Options, Scope},
    ovsdb::table::Tables,
};

const TIMEOUT: Duration = Duration::from_secs(2);

async fn read_at(path: &Path) -> Facts {
    let options = Options { ovsdb_socket: path.into(), timeout: TIMEOUT, ..Options::default() };
    read(&Scope::new(options, Vec::new())).await
}

fn only_gap(facts: &Facts) -> &Gap {
    let [report] = facts.reports.as_slice() else { panic!("{facts:?}") };
    let [gap] = report.gaps.as_slice() else { panic!("{report:?}") };
    gap
}

#[tokio::test]
async fn a_socket_that_is_not_there_means_no_open_vswitch() {
    let directory = tempfile::tempdir().unwrap();
    let facts = read_at(&directory.path().join("db.sock")).await;
    assert!(only_gap(&facts).absent);
}

#[tokio::test]
async fn a_socket_nobody_listens_on_is_a_gap_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.sock");
    drop(UnixListener::bind(&path).unwrap());
    let facts = read_at(&path).await;
    let gap = only_gap(&facts);
    assert!(!gap.absent);
    assert!(gap.why.ends_with("Connection refused (os error 111)"), "{}", gap.why);
    assert!(gap.fix.starts_with("start Open vSwitch"), "{}", gap.fix);
}

#[tokio::test]
async fn a_server_that_hangs_is_a_gap_before_the_source_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let facts = tokio::time::timeout(TIMEOUT, read_at(&path)).await.unwrap();
    assert_eq!(only_gap(&facts).why, "get_schema: no answer within 600 ms");
}

fn build(tables: Value) -> (netdiag_model::fact::SwitchFact, Option<String>) {
    let mut builder = Builder::new(Tables::parse(tables).unwrap());
    (builder.switch("unix:test".into()), builder.odd())
}

fn row(cells: &Value) -> Value {
    json!({ "initial": cells })
}

#[test]
fn a_bridge_is_built_with_all_below_it() {
    let (switch, odd) = build(json!({
        "Open_vSwitch": { "o": row(&json!({
            "ovs_version": "3.1.0", "external_ids": ["map", [["system-id", "host"]]],
            "manager_options": ["uuid", "m"],
        })) },
        "Manager": { "m": row(&json!({ "target": "ptcp:6640:127.0.0.1", "is_connected": true })) },
        "Controller": { "c": row(&json!({ "target": "tcp:127.0.0.1:6633" })) },
        "Bridge": {
            "b": row(&json!({
                "name": "br-int", "datapath_type": "netdev", "fail_mode": "secure", "controller": ["uuid", "c"],
                "ports": ["set", [["uuid", "p2"], ["uuid", "p1"]]], "mirrors": ["uuid", "x"], "sflow": ["uuid", "s"],
            })),
            "a": row(&json!({ "name": "br-ex", "controller": ["set", [["uuid", "c"]]] })),
        },
        "Port": {
            "p1": row(&json!({ "name": "tap1", "tag": 1, "interfaces": ["uuid", "i1"], "qos": ["uuid", "q"] })),
            "p2": row(&json!({ "name": "bond0", "trunks": ["set", [1, 2]],
                              "interfaces": ["set", [["uuid", "i2"], ["uuid", "i3"]]] })),
        },
        "QoS": { "q": row(&json!({ "type": "linux-noop" })) },
        "Interface": {
            "i1": row(&json!({
                "name": "tap1", "ingress_policing_rate": 1000, "ofport": -1, "error": "could not open network device tap1 (No such device)",
                "external_ids": ["map", [["iface-id", "1a2b3c4d-5e6f-4a1b-8c2d-000000000001"]]],
                "statistics": ["map", [["rx_packets", 7]]],
            })),
            "i2": row(&json!({ "name": "eth0", "ifindex": 2, "mtu": 1500, "ofport": 1 })),
            "i3": row(&json!({ "name": "eth1", "type": "system" })),
        },
    }));
    assert_eq!(odd, None);
    let controller = ControllerFact { target: "tcp:127.0.0.1:6633".into(), connected: false };
    assert_eq!(switch.managers, [ControllerFact { target: "ptcp:6640:127.0.0.1".into(), connected: true }]);
    let [br_ex, br_int] = switch.bridges.as_slice() else { panic!("{switch:?}") };
    assert_eq!((br_ex.name.as_str(), br_ex.datapath_type.as_str()), ("br-ex", "system"));
    assert_eq!(br_ex.controllers, std::slice::from_ref(&controller));
    assert_eq!((br_int.datapath_type.as_str(), br_int.mirrors, br_int.exports), ("netdev", 1, 1));
    assert_eq!(br_int.controllers, [controller]);
    let [bond, tap] = br_int.ports.as_slice() else { panic!("{br_int:?}") };
    assert_eq!((bond.name.as_str(), bond.interfaces.len(), bond.trunks.as_slice()), ("bond0", 2, &[1, 2][..]));
    assert_eq!((tap.tag, tap.qos, tap.interfaces[0].ofport), (Some(1), true, Some(-1)));
    assert_eq!((tap.qos_type.as_deref(), tap.interfaces[0].policing), (Some("linux-noop"), Some(1000)));
    assert_eq!((bond.qos_type.as_deref(), bond.interfaces[0].policing), (None, None));
    assert_eq!(tap.interfaces[0].statistics["rx_packets"], 7);
    assert!(tap.interfaces[0].error.as_ref().unwrap().contains("No such device"));
}

#[test]
fn references_that_dangle_or_repeat_are_noted_and_the_rest_is_kept() {
    let (switch, odd) = build(json!({
        "Open_vSwitch": { "o": row(&json!({})) },
        "Bridge": {
            "a": row(&json!({ "name": "one", "ports": ["set", [["uuid", "p"], ["uuid", "gone"]]] })),
            "b": row(&json!({ "name": "two", "ports": ["uuid", "p"] })),
        },
        "Port": { "p": row(&json!({ "name": "tap", "interfaces": ["uuid", "gone"] })), "q": row(&json!({})) },
    }));
    assert_eq!((switch.bridges[0].ports.len(), switch.bridges[1].ports.len()), (1, 0));
    assert_eq!(
        odd.unwrap(),
        "a refers to Port gone, which is not there or in use twice; \
         p refers to Interface gone, which is not there or in use twice; \
         b refers to Port p, which is not there or in use twice; and 1 more"
    );
}

#[test]
fn a_database_vswitchd_never_used_says_so() {
    let (switch, odd) = build(json!({}));
    assert!(switch.bridges.is_empty());
    assert!(odd.unwrap().contains("has never run"));
}

#[test]
fn hostile_text_comes_through_as_it_is() {
    let name = "tap\u{1b}[2J\n\"'$(reboot)";
    let (switch, odd) = build(json!({
        "Open_vSwitch": { "o": row(&json!({})) },
        "Bridge": { "b": row(&json!({ "name": name, "external_ids": ["map", [[name, name]]] })) },
    }));
    assert_eq!((switch.bridges[0].name.as_str(), odd), (name, None));
    assert_eq!(switch.bridges[0].external_ids[name], name);
}
