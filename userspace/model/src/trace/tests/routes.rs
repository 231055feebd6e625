//! Routes, neighbours, addresses and MTUs, inside the instance and at its router.

use super::{MAC, Verdict, docker, switches::routed};
use crate::{
    fact::RouteFact,
    id::{LinkKey, NetnsId},
    testing::{Host, codes, lookup, mac},
    trace::{HopKind, HopState, Severity, Trace},
};

/// A link by its name, wherever it is.
fn key(host: &Host, name: &str) -> LinkKey {
    let all = host.facts.networks.iter();
    let mut named = all.flat_map(|network| network.links.iter().map(|link| (network.netns, link)));
    let (netns, link) = named.find(|(_, link)| link.name == name).unwrap();
    LinkKey { netns, ifindex: link.ifindex }
}

fn traced(change: impl Fn(&mut Host)) -> Trace {
    let mut host = routed();
    change(&mut host);
    host.trace("web-1")
}

/// A route of a kind that leads nowhere.
fn refuse(host: &mut Host, netns: NetnsId, destination: &str, kind: &str) {
    let route = RouteFact {
        table: crate::testing::MAIN,
        destination: destination.parse().unwrap(),
        kind: kind.to_owned(),
        source: None,
        metric: 0,
        scope: "global".to_owned(),
        next_hops: vec![],
    };
    host.network(netns).routes.push(route);
}

#[test]
fn a_router_that_does_not_send_answers_back_breaks_the_path() {
    for kind in ["blackhole", "unreachable", "prohibit"] {
        let trace = traced(|host| {
            let router = key(host, "qr-1").netns;
            refuse(host, router, "10.0.0.2/32", kind);
        });
        assert_eq!((trace.verdict, codes(&trace)[0]), (Verdict::Broken, "no-route-back"), "{kind}");
    }
    let elsewhere = traced(|host| {
        let qg = key(host, "qg-1");
        host.route(qg, "10.0.0.2/32", Some("172.24.4.9"));
    });
    assert_eq!((elsewhere.verdict, codes(&elsewhere)), (Verdict::Broken, vec!["no-route-back"]));
}

#[test]
fn a_route_that_refuses_part_of_the_outside_is_told_of() {
    for name in ["ns1", "qr-1"] {
        let trace = traced(|host| {
            let netns = key(host, name).netns;
            refuse(host, netns, "198.51.100.0/24", "blackhole");
        });
        assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec!["route-refuses"]), "{name}");
    }
}

#[test]
fn two_halves_of_everything_are_a_default_route() {
    let trace = traced(|host| {
        let inner = key(host, "ns1");
        for half in ["0.0.0.0/1", "128.0.0.0/1"] {
            refuse(host, inner.netns, half, "unreachable");
        }
    });
    assert_eq!((trace.verdict, codes(&trace)[0]), (Verdict::Broken, "no-default-route"));
    let half = traced(|host| {
        let inner = key(host, "ns1");
        refuse(host, inner.netns, "128.0.0.0/1", "unreachable");
    });
    assert_eq!(half.verdict, Verdict::Works);
}

#[test]
fn a_neighbour_that_is_written_down_wrong_breaks_the_path_on_either_side() {
    for (at, address, own) in [("ns1", "10.0.0.1", "fa:16:3e:00:00:02"), ("qr-1", "10.0.0.2", MAC)] {
        for (written, state, found) in
            [("02:00:00:00:00:99", "PERMANENT", true), (own, "PERMANENT", false), ("02:00:00:00:00:99", "STALE", false)]
        {
            let trace = traced(|host| {
                let (at, qr) = (key(host, at), key(host, "qr-1"));
                host.mac(qr, "fa:16:3e:00:00:02");
                host.neighbour(at, address, state);
                host.network(at.netns).neighbours.last_mut().unwrap().mac = Some(mac(written));
            });
            let expected = if found { Verdict::Broken } else { Verdict::Works };
            assert_eq!(
                (trace.verdict, codes(&trace).contains(&"wrong-neighbour")),
                (expected, found),
                "{at} {written}"
            );
        }
    }
}

#[test]
fn of_several_default_routes_the_one_rules_and_metrics_choose_is_shown() {
    let status = |change: fn(&mut Host, LinkKey)| {
        let trace = traced(|host| {
            let inner = key(host, "ns1");
            change(host, inner);
        });
        trace.interfaces[0].hops.iter().find(|hop| hop.kind == HopKind::Namespace).unwrap().status.clone()
    };
    let by_metric = status(|host, inner| {
        host.network(inner.netns).routes.iter_mut().for_each(|route| route.metric = 100);
        host.route(inner, "0.0.0.0/0", Some("10.0.0.7"));
    });
    assert_eq!(by_metric, "via 10.0.0.7");
    let unused_table = status(|host, inner| {
        host.route(inner, "0.0.0.0/0", Some("10.0.0.7"));
        let routes = &mut host.network(inner.netns).routes;
        routes.last_mut().unwrap().table = 7;
        routes.rotate_right(1);
    });
    assert_eq!(unused_table, "via 10.0.0.1");
    let by_rule = status(|host, inner| {
        host.route(inner, "0.0.0.0/0", Some("10.0.0.7"));
        let network = host.network(inner.netns);
        network.routes.last_mut().unwrap().table = 7;
        network.rules.push(lookup(100, 7));
    });
    assert_eq!(by_rule, "via 10.0.0.7");
}

#[test]
fn a_card_without_an_address_is_warned_about() {
    let trace = traced(|host| {
        let inner = key(host, "ns1");
        host.edit(inner).addresses.clear();
    });
    assert!(codes(&trace).contains(&"no-address"), "{:?}", codes(&trace));
}

#[test]
fn a_router_that_takes_smaller_packets_outside_than_the_instance_sends_is_warned_about() {
    let trace = traced(|host| {
        let qg = key(host, "qg-1");
        host.edit(qg).mtu = 1400;
    });
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec!["mtu-mismatch"]));
    let mut host = Host::new();
    docker(&mut host);
    let eth0 = LinkKey { netns: host.id, ..key(&host, "docker0") };
    let uplink = host.facts.networks[0].links.iter().find(|link| link.name == "eth0").unwrap().ifindex;
    host.edit(LinkKey { ifindex: uplink, ..eth0 }).mtu = 1400;
    assert_eq!(codes(&host.trace("web-1")), ["mtu-mismatch"]);
}

#[test]
fn a_routers_end_with_another_mac_than_its_port_is_warned_about() {
    for (name, own, found) in
        [("qg-1", "fa:16:3e:00:00:03", false), ("qg-1", "02:00:00:00:00:99", true), ("qr-1", "02:00:00:00:00:99", true)]
    {
        let trace = traced(|host| {
            let key = key(host, name);
            host.mac(key, own);
        });
        assert_eq!(codes(&trace).contains(&"router-mac"), found, "{name} {own}");
    }
}

/// A trace where the router's next hop is in a state, for so many seconds.
fn next_hop(state: &str, age: Option<u64>) -> Trace {
    traced(|host| {
        let qg = key(host, "qg-1");
        host.network(qg.netns).neighbours.retain(|entry| entry.address.to_string() != "172.24.4.1");
        host.neighbour(qg, "172.24.4.1", state);
        if let Some(age) = age {
            host.for_seconds(qg, age);
        }
    })
}

#[test]
fn a_next_hop_that_is_silent_now_breaks_the_path() {
    for (state, age) in [("INCOMPLETE", Some(2)), ("FAILED", Some(0)), ("FAILED", Some(59)), ("FAILED", None)] {
        let trace = next_hop(state, age);
        assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["next-hop-silent"]), "{state} {age:?}");
    }
    assert_eq!(next_hop("FAILED", Some(12)).findings[0].evidence, "its neighbour entry is FAILED, for 12 seconds");
    assert_eq!(next_hop("FAILED", None).findings[0].evidence, "its neighbour entry is FAILED");
}

#[test]
fn a_next_hop_that_did_not_answer_long_ago_is_told_of_and_kills_no_packet() {
    for (age, ago) in [(60, "1 minute ago"), (3599, "59 minutes ago"), (7300, "2 hours ago"), (90_000, "1 day ago")] {
        let trace = next_hop("FAILED", Some(age));
        let [finding] = &trace.findings[..] else { panic!("{:#?}", trace.findings) };
        assert_eq!((trace.verdict, finding.code.as_str()), (Verdict::Works, "next-hop-silent"), "{age}");
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.message.contains("when it was last asked") && finding.message.contains(ago), "{finding:#?}");
        assert!(!finding.message.contains("die"), "{finding:#?}");
        let hops = &trace.interfaces[0].hops;
        let hop = hops.iter().find(|hop| hop.kind == HopKind::NextHop).unwrap();
        assert_eq!((hop.status.as_str(), hop.state), ("FAILED", HopState::Warning));
    }
}

#[test]
fn a_gateway_that_did_not_answer_is_told_of_with_the_time() {
    let trace = traced(|host| {
        let inner = key(host, "ns1");
        host.network(inner.netns).neighbours.clear();
        host.neighbour(inner, "10.0.0.1", "FAILED");
        host.for_seconds(inner, 300);
    });
    let finding = trace.findings.iter().find(|finding| finding.code == "gateway-silent").unwrap();
    assert!(finding.message.ends_with(", 5 minutes ago"), "{finding:#?}");
}
