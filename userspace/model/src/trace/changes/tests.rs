//! Two looks at a made-up host.

use super::{Change, changes, first};
use crate::{
    fact::LinkStats,
    testing::Host,
    trace::{Finding, HopKind, HopState, Severity, Trace, Verdict, tests::docker},
};

fn explained() -> Trace {
    let mut host = Host::new();
    docker(&mut host);
    host.trace("web-1")
}

fn counters(trace: &mut Trace, device: &str, stats: LinkStats) {
    let hops = trace.interfaces.iter_mut().flat_map(|interface| &mut interface.hops);
    for hop in hops.filter(|hop| hop.name == device) {
        hop.counters = Some(stats);
    }
}

fn names(found: &[Change]) -> Vec<&'static str> {
    found.iter().map(Change::name).collect()
}

#[test]
fn two_looks_at_the_same_differ_in_nothing() {
    assert_eq!(changes(&explained(), &explained()), []);
}

#[test]
fn a_first_look_says_its_verdict_and_every_finding() {
    let trace = explained();
    assert_eq!(first(&trace).len(), 1 + trace.findings.len());
}

#[test]
fn a_device_both_ways_pass_counts_once() {
    let (mut before, mut after) = (explained(), explained());
    let old = LinkStats { rx_packets: 10, tx_packets: 5, ..LinkStats::default() };
    counters(&mut before, "veth1", old);
    counters(&mut after, "veth1", LinkStats { rx_packets: 12, rx_dropped: 1, ..old });
    let by = LinkStats { rx_packets: 2, rx_dropped: 1, ..LinkStats::default() };
    let counted = Change::Counted { device: "veth1".to_owned(), netns: "host".to_owned(), by };
    assert_eq!(counted.state(), HopState::Warning);
    assert_eq!(changes(&before, &after), [counted]);
    assert_eq!(names(&changes(&after, &before)), ["restarted"]);
}

#[test]
fn a_hop_that_breaks_vanishes_or_comes_is_said() {
    let before = explained();
    let mut after = explained();
    let hop = after.interfaces[0].hops.iter_mut().find(|hop| hop.name == "veth1").unwrap();
    (hop.state, hop.status) = (HopState::Broken, "DOWN".to_owned());
    let found = changes(&before, &after);
    assert!(matches!(&found[..], [Change::Hop { name, after: Some(HopState::Broken), .. }] if name == "veth1"));
    let mut without = explained();
    without.interfaces[0].hops.retain(|hop| hop.name != "eth0");
    let gone = changes(&before, &without);
    assert!(
        !gone.is_empty() && gone.iter().all(|change| matches!(change, Change::Hop { after: None, .. })),
        "{gone:?}"
    );
    let come = changes(&without, &before);
    assert!(come.iter().all(|change| matches!(change, Change::Hop { before: None, .. })) && come.len() == gone.len());
}

#[test]
fn findings_come_and_go_and_numbers_in_their_words_are_no_news() {
    let before = explained();
    let mut after = explained();
    let finding = Finding {
        severity: Severity::Error,
        code: "link-down".to_owned(),
        object: "veth1".to_owned(),
        message: "it dropped 3 packets".to_owned(),
        evidence: String::new(),
        verify: None,
        fix: None,
    };
    after.findings.push(finding);
    after.verdict = Verdict::Broken;
    assert_eq!(names(&changes(&before, &after)), ["verdict", "found"]);
    assert_eq!(names(&changes(&after, &before)), ["verdict", "mended"]);
    let mut grown = after.clone();
    grown.findings.last_mut().unwrap().message = "it dropped 4 packets".to_owned();
    assert_eq!(changes(&after, &grown), []);
}

#[test]
fn a_neighbour_that_is_asked_again_is_no_news_until_it_is_silent() {
    let look = |status: &str| {
        let mut trace = explained();
        let hops = trace.interfaces.iter_mut().flat_map(|interface| &mut interface.hops);
        for hop in hops.filter(|hop| hop.kind == HopKind::NextHop) {
            status.clone_into(&mut hop.status);
        }
        trace
    };
    for (before, after) in [("REACHABLE", "STALE"), ("STALE", "DELAY"), ("DELAY", "PROBE"), ("PROBE", "REACHABLE")] {
        assert_eq!(changes(&look(before), &look(after)), [], "{before} to {after}");
    }
    assert_eq!(names(&changes(&look("PROBE"), &look("FAILED"))), ["hop"]);
    assert_eq!(names(&changes(&look("FAILED"), &look("REACHABLE"))), ["hop"]);
}
