//! Rules that do not stop the first packet of a flow and kill it all the same.

use super::{Verdict, docker, hybrid, plugged};
use crate::{
    fact::{Gap, SetsFact, SourceKind},
    id::NetnsId,
    testing::{Host, codes},
    trace::{HopState, Trace},
};

fn router(host: &Host) -> NetnsId {
    let named = |name: &crate::fact::NamespaceName| name.path.contains("qrouter");
    host.facts.namespaces.iter().find(|one| one.names.iter().any(named)).unwrap().id
}

/// The trace of a container behind a router with more rules there.
fn with_rules(rules: &str) -> Trace {
    let mut host = hybrid("");
    let router = router(&host);
    host.rules(router, rules);
    host.trace("web-1")
}

/// What the only error says.
fn error(trace: &Trace) -> (&str, &str, &str) {
    let errors: Vec<_> =
        trace.findings.iter().filter(|finding| finding.severity == crate::trace::Severity::Error).collect();
    assert_eq!((errors.len(), trace.verdict), (1, Verdict::Broken), "{:#?}", trace.findings);
    (&errors[0].code, &errors[0].message, &errors[0].evidence)
}

#[test]
fn a_rule_that_drops_answers_alone_breaks_the_path() {
    let drop = "-A FORWARD -i qg-1 -m conntrack --ctstate ESTABLISHED -j DROP";
    let trace = with_rules(&format!("*filter\n:FORWARD ACCEPT [0:0]\n{drop}\nCOMMIT\n"));
    let (code, message, evidence) = error(&trace);
    assert_eq!((code, evidence), ("filter-drop", drop));
    assert!(message.starts_with("answers to the instance die"), "{message}");
}

#[test]
fn a_rule_that_lets_only_the_first_packet_out_breaks_the_path() {
    let drop = "-A FORWARD -i qr-1 -m conntrack --ctstate ESTABLISHED -j DROP";
    let trace = with_rules(&format!("*filter\n:FORWARD ACCEPT [0:0]\n{drop}\nCOMMIT\n"));
    assert_eq!(error(&trace).2, drop);
    assert!(error(&trace).1.starts_with("packets of a flow that was answered die"), "{:?}", error(&trace));
}

#[test]
fn a_stateful_filter_that_takes_answers_does_no_harm() {
    let trace = with_rules(
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A FORWARD -i qr-1 -j ACCEPT\n-A FORWARD -d 10.0.0.2/32 -j ACCEPT\nCOMMIT\n",
    );
    assert!(!codes(&trace).contains(&"filter-drop"), "{:#?}", trace.findings);
}

#[test]
fn a_filter_that_lets_out_and_no_answer_in_breaks_the_path() {
    let trace = with_rules(
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i qr-1 -j ACCEPT\n-A FORWARD -d 10.0.0.2/32 -m \
         conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n",
    );
    assert!(trace.findings.iter().any(|finding| finding.message.starts_with("answers to the instance")));
}

#[test]
fn what_is_not_tracked_is_not_translated() {
    let rule = "-A PREROUTING -s 10.0.0.2/32 -j CT --notrack";
    let trace = with_rules(&format!("*raw\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n"));
    assert_eq!((error(&trace).0, error(&trace).2), ("untracked", rule));
    let rule = "-A PREROUTING -d 172.24.4.6/32 -j CT --notrack";
    let trace = with_rules(&format!("*raw\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n"));
    assert_eq!((error(&trace).0, error(&trace).2), ("not-translated", rule));
}

#[test]
fn a_rule_in_front_of_the_translation_that_accepts_leaves_it_undone() {
    let mut host = hybrid("");
    let router = router(&host);
    let rules = &mut host.facts.rulesets.iter_mut().find(|one| one.netns == router).unwrap().text;
    *rules = rules.replacen("-A PREROUTING", "-A PREROUTING -d 172.24.4.6/32 -j ACCEPT\n-A PREROUTING", 1);
    let trace = host.trace("web-1");
    assert_eq!(error(&trace).0, "not-translated");
}

#[test]
fn a_chain_after_routing_kills_like_any_other() {
    let trace = with_rules("*mangle\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o qg-1 -j DROP\nCOMMIT\n");
    assert_eq!(error(&trace).0, "filter-drop");
}

#[test]
fn security_groups_must_let_answers_back_and_raw_rules_are_asked_first() {
    let group = |answers: &str, raw: &str| {
        let mut host = hybrid("");
        let id = host.id;
        host.facts.rulesets.retain(|one| one.netns != id);
        host.rules(
            id,
            &format!(
                "*raw\n:PREROUTING ACCEPT [0:0]\n{raw}COMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n{answers}\
                 -A FORWARD -m physdev --physdev-in tap1 --physdev-is-bridged -j ACCEPT\n\
                 -A FORWARD -d 10.0.0.2/32 -p tcp -m conntrack --ctstate NEW -j ACCEPT\n\
                 -A FORWARD -m physdev --physdev-out tap1 --physdev-is-bridged -j DROP\nCOMMIT\n"
            ),
        );
        host.trace("web-1")
    };
    let answers = "-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT\n";
    assert!(!codes(&group(answers, "")).contains(&"filter-drop"));
    assert!(codes(&group("", "")).contains(&"filter-drop"));
    let notrack = "-A PREROUTING -m physdev --physdev-in qvb1 -j CT --notrack\n";
    assert!(codes(&group(answers, notrack)).contains(&"filter-drop"));
}

#[test]
fn inside_the_instance_every_hook_counts_and_answers_must_come_in() {
    for rules in [
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m conntrack --ctstate ESTABLISHED -j DROP\nCOMMIT\n",
        "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n",
        "*mangle\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j DROP\nCOMMIT\n",
    ] {
        let mut host = Host::new();
        let (netns, _) = docker(&mut host);
        host.rules(netns, rules);
        let trace = host.trace("web-1");
        assert_eq!(error(&trace).0, "filter-drop", "{rules}");
    }
}

#[test]
fn whether_metadata_is_let_out_is_not_known_where_rules_were_not_read() {
    for (unread, state) in [(false, HopState::Ok), (true, HopState::Unknown)] {
        let mut host = hybrid("");
        let (router, id) = (router(&host), host.id);
        host.rules(
            router,
            "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 169.254.169.254/32 -i qr-+ -p tcp -m tcp --dport 80 \
             -j REDIRECT --to-ports 9697\nCOMMIT\n",
        );
        host.process(router, 70, "haproxy");
        if unread {
            host.gap(SourceKind::Netfilter, Some(id));
        }
        let trace = host.trace("web-1");
        assert_eq!(trace.interfaces[0].metadata.as_ref().map(|one| one.state), Some(state), "{unread}");
    }
}

const DROP: &str = r#"[{"drop": null}]"#;

/// `ether type KIND drop`.
fn drop_type(kind: &str) -> String {
    let left = r#"{"payload": {"protocol": "ether", "field": "type"}}"#;
    format!(r#"[{{"match": {{"op": "==", "left": {left}, "right": "{kind}"}}}}, {{"drop": null}}]"#)
}

/// `iifname DEVICE drop`.
fn drop_from(device: &str) -> String {
    let left = r#"{"meta": {"key": "iifname"}}"#;
    format!(r#"[{{"match": {{"op": "==", "left": {left}, "right": "{device}"}}}}, {{"drop": null}}]"#)
}

#[test]
fn rules_about_bridged_frames_kill_packets_and_the_questions_of_arp() {
    let traced = |hook: &str, rule: &str| {
        let mut host = hybrid("");
        let id = host.id;
        host.nft(id, "bridge", &format!(r#""hook": "{hook}", "policy": "accept""#), &[rule]);
        host.trace("web-1")
    };
    for (hook, rule, words) in [
        ("forward", drop_type("arp"), Some("ARP questions of the instance")),
        ("prerouting", drop_type("ip"), Some("frames of the instance")),
        ("forward", drop_from("tap1"), Some("frames of the instance")),
        ("forward", drop_from("qvb1"), Some("frames to the instance")),
        ("forward", drop_from("qbr1"), None),
        ("forward", drop_type("ip6"), None),
        // Nothing of the instance ends at the bridge itself.
        ("input", DROP.to_owned(), None),
    ] {
        let trace = traced(hook, &rule);
        match words {
            Some(words) => assert!(trace.findings.iter().any(|one| one.message.starts_with(words)), "{hook} {rule}"),
            None => assert!(!codes(&trace).contains(&"filter-drop"), "{hook} {rule}: {:#?}", trace.findings),
        }
    }
}

#[test]
fn what_a_bridge_itself_routes_meets_the_rules_for_what_ends_there() {
    for (hook, found) in [("input", true), ("output", true), ("forward", false)] {
        let mut host = Host::new();
        docker(&mut host);
        let id = host.id;
        host.nft(id, "bridge", &format!(r#""hook": "{hook}", "policy": "accept""#), &[DROP]);
        assert_eq!(codes(&host.trace("web-1")).contains(&"filter-drop"), found, "{hook}");
    }
}

#[test]
fn a_rule_about_bridged_frames_that_is_not_understood_is_shown_as_such() {
    let mut host = hybrid("");
    let id = host.id;
    host.nft(id, "bridge", r#""hook": "forward""#, &[r#"[{"xt": {"type": "match", "name": "ip"}}, {"drop": null}]"#]);
    let trace = host.trace("web-1");
    let hop = trace.interfaces[0].hops.iter().find(|hop| hop.name == "bridge filter").unwrap();
    assert_eq!((hop.state, hop.status.as_str()), (HopState::Unknown, "depends on the packet"));
}

#[test]
fn rules_of_a_devices_own_hooks_kill_what_passes_it() {
    for (device, hook, broken) in [
        ("veth1", "ingress", Some(true)),
        ("veth1", "egress", Some(true)),
        ("eth0", "egress", Some(true)),
        ("eth9", "ingress", None),
        ("", "ingress", Some(false)),
    ] {
        let mut host = Host::new();
        docker(&mut host);
        let id = host.id;
        let dev = if device.is_empty() { String::new() } else { format!(r#", "dev": "{device}""#) };
        host.nft(id, "netdev", &format!(r#""hook": "{hook}"{dev}"#), &[DROP]);
        let trace = host.trace("web-1");
        let worst = trace.interfaces[0].hops.iter().map(|hop| hop.state).max().unwrap();
        let expected = broken.map_or(HopState::Ok, |broken| if broken { HopState::Broken } else { HopState::Unknown });
        assert_eq!(
            (worst, codes(&trace).contains(&"filter-drop")),
            (expected, broken == Some(true)),
            "{device} {hook}"
        );
    }
}

#[test]
fn legacy_ebtables_that_was_not_read_concerns_paths_over_a_linux_bridge_alone() {
    for bridged in [true, false] {
        let mut host = Host::new();
        let (_, _) = if bridged { docker(&mut host) } else { plugged(&mut host, "vxlan") };
        host.gap(SourceKind::Netfilter, None);
        host.facts.reports[0].gaps[0].object = Gap::EBTABLES.to_owned();
        let trace = host.trace("web-1");
        let noted = trace.interfaces[0].hops.iter().any(|hop| hop.note == "ebtables not evaluated");
        assert_eq!((trace.gaps.len(), noted), (usize::from(bridged), bridged));
    }
}

#[test]
fn a_rule_that_asks_for_a_set_is_decided_by_its_members_where_they_were_read() {
    for (members, codes_of) in [(Some("10.0.0.2"), vec!["filter-drop"]), (Some("10.0.0.3"), vec![]), (None, vec![])] {
        let mut host = hybrid("");
        let netns = router(&host);
        host.rules(netns, "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set bad src -j DROP\nCOMMIT\n");
        let text = members.map(|member| format!("create bad hash:ip family inet\nadd bad {member}\n"));
        host.facts.sets.extend(text.map(|text| SetsFact { netns, text }));
        let trace = host.trace("web-1");
        let errors = codes(&trace).into_iter().filter(|code| *code == "filter-drop");
        assert_eq!(errors.collect::<Vec<_>>(), codes_of, "{members:?}");
        let unknown = trace.interfaces[0].hops.iter().any(|hop| hop.status == "depends on the packet");
        assert_eq!(unknown, members.is_none(), "{members:?}");
    }
}

#[test]
fn what_was_not_read_is_not_said_to_be_missing_from_a_floating_ip() {
    let lost = |host: &mut Host| {
        let netns = router(host);
        host.network(netns).links.iter_mut().for_each(|link| link.addresses.clear());
        netns
    };
    for (source, state, found) in
        [(None, HopState::Broken, true), (Some(SourceKind::Netlink), HopState::Unknown, false)]
    {
        let mut host = hybrid("");
        let netns = lost(&mut host);
        if let Some(source) = source {
            host.gap(source, Some(netns));
        }
        let trace = host.trace("web-1");
        assert_eq!(codes(&trace).contains(&"floating-ip-address"), found, "{:?}", codes(&trace));
        assert_eq!(trace.interfaces[0].floating_ips[0].state, state);
    }
}

#[test]
fn a_published_port_is_not_said_to_be_closed_where_rules_were_not_read() {
    for (source, state) in [(None, HopState::Broken), (Some(SourceKind::Netfilter), HopState::Unknown)] {
        let mut host = Host::new();
        docker(&mut host);
        host.facts.containers[0].published = vec![super::published("0.0.0.0", 8080)];
        if let Some(source) = source {
            host.gap(source, None);
        }
        let trace = host.trace("web-1");
        assert_eq!(trace.interfaces[0].published_ports[0].state, state);
        assert_eq!(codes(&trace).contains(&"published-port"), source.is_none());
    }
}
