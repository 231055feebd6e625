use super::from_facts;
use crate::{
    doctor::{Check, Status},
    fact::{
        Facts, Gap, NamespaceFact, OvsBridgeFact, ProgramFact, ProgramHook, SourceKind, SourceReport, StaleName,
        SwitchFact,
    },
    id::{IfIndex, NetnsId},
};

const HOST: NetnsId = NetnsId { inode: 1, cookie: 1 };
const GUEST: NetnsId = NetnsId { inode: 2, cookie: 2 };

fn check(facts: &Facts, name: &str) -> Check {
    from_facts(facts).into_iter().find(|check| check.name == name).unwrap()
}

fn with_gap(source: SourceKind, absent: bool) -> Facts {
    let gap = Gap {
        source,
        netns: None,
        object: "the thing".to_owned(),
        why: "permission denied".to_owned(),
        fix: "run as root".to_owned(),
        absent,
    };
    let report = SourceReport { source, how: String::new(), took_ms: 0, gaps: vec![gap] };
    Facts { reports: vec![report], ..Facts::default() }
}

fn namespace(id: NetnsId, host: bool) -> NamespaceFact {
    NamespaceFact { id, host, names: Vec::new(), processes: Vec::new(), process_count: 0, proxies: Vec::new() }
}

fn switch(datapath_type: &str) -> Facts {
    let bridge =
        OvsBridgeFact { name: "br-int".into(), datapath_type: datapath_type.into(), ..OvsBridgeFact::default() };
    let switch = SwitchFact {
        how: String::new(),
        netns: None,
        version: Some("3.1.0".to_owned()),
        external_ids: std::collections::BTreeMap::default(),
        other_config: std::collections::BTreeMap::default(),
        managers: Vec::new(),
        bridges: vec![bridge],
    };
    Facts { switches: vec![switch], ..Facts::default() }
}

#[test]
fn a_host_without_open_vswitch_has_nothing_wrong_with_it() {
    let check = check(&with_gap(SourceKind::Ovsdb, true), "Open vSwitch");
    assert_eq!((check.status, check.fix.as_str()), (Status::Ok, ""));
}

#[test]
fn what_could_not_be_read_is_unknown_and_comes_with_its_fix() {
    for (source, name) in [
        (SourceKind::Ovsdb, "Open vSwitch"),
        (SourceKind::Bpf, "eBPF programs of others"),
        (SourceKind::Process, "virtual machines"),
    ] {
        let check = check(&with_gap(source, false), name);
        assert_eq!((check.status, check.fix.as_str()), (Status::Unknown, "run as root"), "{name}");
        assert!(check.result.contains("permission denied") && !check.consequence.is_empty(), "{name}");
    }
}

#[test]
fn a_source_that_did_not_look_is_not_taken_for_absence() {
    for check in from_facts(&Facts::default()) {
        assert_eq!(check.status, Status::Unknown, "{check:?}");
    }
}

#[test]
fn a_source_that_looked_and_found_nothing_is_taken_at_its_word() {
    let looked = |source| SourceReport { source, how: String::new(), took_ms: 0, gaps: Vec::new() };
    let sources = [SourceKind::Netns, SourceKind::Ovsdb, SourceKind::Process, SourceKind::Bpf];
    let namespaces = vec![namespace(HOST, true)];
    let facts = Facts { reports: sources.map(looked).into(), namespaces, ..Facts::default() };
    for check in from_facts(&facts) {
        assert_eq!(check.status, Status::Ok, "{check:?}");
    }
}

#[test]
fn a_user_space_datapath_is_warned_about() {
    assert_eq!(check(&switch("netdev"), "Open vSwitch").status, Status::Warning);
    let kernel = check(&switch(""), "Open vSwitch");
    assert_eq!((kernel.status, kernel.result.as_str()), (Status::Ok, "3.1.0; bridges: 1; datapath: system"));
}

#[test]
fn who_runs_the_switch_is_said() {
    let mut facts = switch("");
    facts.switches[0].external_ids = [("ovn-remote".to_owned(), "tcp:192.0.2.1:6642".to_owned())].into();
    let check = check(&facts, "Open vSwitch");
    assert_eq!(check.result, "3.1.0; bridges: 1; datapath: system; run by OVN");
}

#[test]
fn only_programs_on_the_devices_of_the_host_itself_count() {
    let program = |netns, name: &str| ProgramFact {
        netns,
        ifindex: IfIndex(2),
        hook: ProgramHook::TcxIngress,
        id: Some(1),
        name: name.to_owned(),
        priority: None,
        xdp_mode: None,
    };
    let namespaces = vec![namespace(HOST, true), namespace(GUEST, false)];
    let looked = SourceReport { source: SourceKind::Bpf, how: String::new(), took_ms: 0, gaps: Vec::new() };
    let guest = Facts {
        reports: vec![looked],
        namespaces: namespaces.clone(),
        programs: vec![program(GUEST, "a")],
        ..Facts::default()
    };
    assert_eq!(check(&guest, "eBPF programs of others").status, Status::Ok);
    let host = Facts { namespaces, programs: vec![program(HOST, "a"), program(HOST, "a")], ..Facts::default() };
    let check = check(&host, "eBPF programs of others");
    assert_eq!((check.status, check.result.as_str()), (Status::Warning, "a (2)"));
}

#[test]
fn stale_names_are_listed_but_not_all_of_them() {
    let stale = |n: u32| StaleName { path: format!("/run/netns/{n}"), target: None, why: String::new() };
    let facts = Facts { stale_names: (0..5).map(stale).collect(), ..Facts::default() };
    let check = check(&facts, "stale namespace names");
    assert_eq!(check.status, Status::Warning);
    assert_eq!(check.result, "/run/netns/0, /run/netns/1, /run/netns/2 and 2 more");
}
