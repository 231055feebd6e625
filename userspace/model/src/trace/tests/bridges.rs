//! What ports of Linux bridges let through.

use super::{MAC, Verdict, docker, hybrid};
use crate::{
    fact::{BridgePortFact, BridgePortState, BridgeVlanFact, FdbFact, LinkDetail},
    id::{IfIndex, LinkKey},
    testing::{Host, codes, mac},
};

fn key(host: &Host, name: &str) -> LinkKey {
    let links = &host.facts.networks[0].links;
    LinkKey { netns: host.id, ifindex: links.iter().find(|link| link.name == name).unwrap().ifindex }
}

/// A forwarding port of the host, changed.
fn port(host: &mut Host, name: &str, change: impl Fn(&mut BridgePortFact)) {
    let key = key(host, name);
    let mut port = BridgePortFact { state: BridgePortState::Forwarding, ..BridgePortFact::default() };
    change(&mut port);
    host.edit(key).bridge_port = Some(port);
}

#[test]
fn two_isolated_ports_of_a_bridge_exchange_nothing() {
    let mut host = hybrid("");
    port(&mut host, "tap1", |port| port.isolated = true);
    port(&mut host, "qvb1", |_| ());
    assert!(!codes(&host.trace("web-1")).contains(&"isolated-ports"));
    let mut host = hybrid("");
    port(&mut host, "tap1", |port| port.isolated = true);
    port(&mut host, "qvb1", |port| port.isolated = true);
    let trace = host.trace("web-1");
    assert_eq!((trace.verdict, codes(&trace)[0]), (Verdict::Broken, "isolated-ports"));
}

#[test]
fn an_isolated_port_reaches_the_bridge_itself() {
    let mut host = Host::new();
    docker(&mut host);
    port(&mut host, "veth1", |port| port.isolated = true);
    assert_eq!(host.trace("web-1").verdict, Verdict::Works);
}

#[test]
fn a_port_of_either_side_that_does_not_forward_ends_the_path() {
    for name in ["tap1", "qvb1"] {
        for state in [BridgePortState::Disabled, BridgePortState::Blocking, BridgePortState::Learning] {
            let mut host = hybrid("");
            port(&mut host, name, |port| port.state = state);
            let trace = host.trace("web-1");
            assert!(codes(&trace).contains(&"stp-blocked"), "{name} {state:?}: {:?}", codes(&trace));
        }
    }
}

#[test]
fn a_port_that_neither_learns_nor_floods_needs_an_entry_of_whoever_is_behind_it() {
    let deaf = |port: &mut BridgePortFact| (port.learning, port.flood) = (false, false);
    let entry = |host: &mut Host, of: &str| {
        let port = key(host, "tap1");
        let master = host.edit(port).master;
        let entry = FdbFact { ifindex: port.ifindex, mac: mac(of), master, vlan: None, remote: None, permanent: true };
        let id = host.id;
        host.network(id).fdb.push(entry);
    };
    for (of, found) in [(None, true), (Some("fe:16:3e:00:00:01"), true), (Some(MAC), false)] {
        let mut host = hybrid("");
        port(&mut host, "tap1", deaf);
        if let Some(of) = of {
            entry(&mut host, of);
        }
        assert_eq!(codes(&host.trace("web-1")).contains(&"bridge-port-deaf"), found, "{of:?}");
    }
    for one in [|port: &mut BridgePortFact| port.learning = false, |port: &mut BridgePortFact| port.flood = false] {
        let mut host = hybrid("");
        port(&mut host, "tap1", one);
        assert!(!codes(&host.trace("web-1")).contains(&"bridge-port-deaf"));
    }
}

#[test]
fn a_locked_port_takes_frames_of_known_addresses_alone() {
    let mut host = hybrid("");
    port(&mut host, "tap1", |port| port.locked = true);
    assert!(codes(&host.trace("web-1")).contains(&"bridge-port-locked"));
}

#[test]
fn a_question_for_the_gateway_must_leave_by_the_port_to_it_unless_the_answer_is_written_down() {
    for (state, found) in [(None, true), (Some("REACHABLE"), true), (Some("PERMANENT"), false)] {
        let mut host = hybrid("");
        port(&mut host, "qvb1", |port| port.broadcast_flood = false);
        let inner = LinkKey { netns: host.facts.containers[0].netns.unwrap(), ifindex: IfIndex(2) };
        if let Some(state) = state {
            host.neighbour(inner, "10.0.0.1", state);
        }
        assert_eq!(codes(&host.trace("web-1")).contains(&"broadcast-flood-off"), found, "{state:?}");
    }
}

#[test]
fn a_bridge_that_filters_vlans_passes_frames_between_ports_of_one() {
    let vlan = |host: &Host, name: &str, vlan, pvid| BridgeVlanFact {
        ifindex: key(host, name).ifindex,
        vlan,
        pvid,
        untagged: true,
    };
    for (inside, outside, found) in [((1, true), 1, false), ((5, true), 1, true), ((1, false), 1, true)] {
        let mut host = Host::new();
        docker(&mut host);
        let docker0 = key(&host, "docker0");
        host.edit(docker0).detail =
            LinkDetail::Bridge { stp: false, vlan_filtering: true, ageing: 300, nf_call_iptables: false };
        let vlans = vec![vlan(&host, "veth1", inside.0, inside.1), vlan(&host, "docker0", outside, true)];
        let id = host.id;
        host.network(id).vlans = vlans;
        assert_eq!(codes(&host.trace("web-1")).contains(&"bridge-vlan"), found, "{inside:?} {outside}");
    }
}
