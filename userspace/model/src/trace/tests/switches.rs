//! What ports of Open vSwitch let through, and which way leads out of a bridge.

use super::{Verdict, plugged};
use crate::{
    fact::{ControllerFact, OvsPortFact},
    testing::{Host, PORT, ROUTER, codes, neutron},
    trace::{Hop, HopKind, Trace, path::LOST},
};

/// A container on `br-int` whose router is on this host.
pub(super) fn routed() -> Host {
    let mut host = Host::new();
    plugged(&mut host, "vxlan");
    let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
    let (qr, qg) = (host.link(router, "qr-1", Some("tun")), host.link(router, "qg-1", Some("tun")));
    host.address(qr, "10.0.0.1/24");
    host.address(qg, "172.24.4.2/24");
    host.route(qg, "0.0.0.0/0", Some("172.24.4.1"));
    neutron(host.ovs("br-int", "qr-1", "internal"), "1a2b3c4d-5e6f-4a1b-8c2d-000000000002", "fa:16:3e:00:00:02", 1);
    let port = host.ovs("br-int", "qg-1", "internal");
    neutron(port, "1a2b3c4d-5e6f-4a1b-8c2d-000000000003", "fa:16:3e:00:00:03", 2);
    port.other_config =
        [("network_type", "flat"), ("physical_network", "public")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    host.patch(("br-int", "int-br-ex"), ("br-ex", "phy-br-ex"));
    host.link(host.id, "eth1", None);
    host.ovs("br-ex", "eth1", "");
    host
}

fn port<'h>(host: &'h mut Host, name: &str) -> &'h mut OvsPortFact {
    let ports = host.facts.switches[0].bridges.iter_mut().flat_map(|bridge| &mut bridge.ports);
    ports.into_iter().find(|port| port.name == name).unwrap()
}

fn traced(change: impl Fn(&mut Host)) -> Trace {
    let mut host = routed();
    change(&mut host);
    host.trace("web-1")
}

#[test]
fn protected_ports_do_not_talk_to_each_other_and_one_alone_does_no_harm() {
    assert_eq!(traced(|_| ()).verdict, Verdict::Works);
    assert_eq!(traced(|host| port(host, "tap1").protected = true).verdict, Verdict::Works);
    for other in ["qr-1", "int-br-ex"] {
        let trace = traced(|host| {
            for name in ["tap1", "qg-1", other] {
                port(host, name).protected = true;
            }
        });
        assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["protected-ports"]), "{other}");
    }
}

#[test]
fn a_trunk_has_no_tag_of_its_own() {
    for (mode, codes_of) in [
        ("trunk", vec!["vlan-mode"]),
        ("native-tagged", vec!["vlan-mode"]),
        ("native-untagged", vec![]),
        ("access", vec![]),
    ] {
        let trace = traced(|host| port(host, "tap1").vlan_mode = Some(mode.to_owned()));
        assert_eq!(codes(&trace), codes_of, "{mode}");
    }
}

#[test]
fn a_port_without_a_tag_is_not_wired_whatever_vlans_it_lists() {
    let trace = traced(|host| {
        let port = port(host, "tap1");
        (port.tag, port.trunks) = (None, vec![5]);
    });
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["no-tag"]));
}

#[test]
fn a_patch_and_a_nic_must_carry_the_vlan_they_are_the_way_out_for() {
    for name in ["int-br-ex", "phy-br-ex"] {
        assert_eq!(traced(|host| port(host, name).trunks = vec![2, 7]).verdict, Verdict::Works, "{name}");
        let trace = traced(|host| port(host, name).trunks = vec![7]);
        assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["vlan-not-carried"]), "{name}");
    }
    // Frames of a flat network have no tag on its bridge.
    let trace = traced(|host| port(host, "eth1").tag = Some(7));
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["vlan-not-carried"]));
}

#[test]
fn a_gateway_in_another_vlan_is_not_taken_for_one_on_another_host() {
    let trace = traced(|host| {
        for name in ["tap1", "qr-1"] {
            port(host, name).other_config =
                [("net_uuid".to_owned(), PORT.to_owned()), ("network_type".to_owned(), "vxlan".to_owned())].into();
        }
        port(host, "qr-1").tag = Some(9);
    });
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["router-vlan"]), "{}", trace.sentence);
}

#[test]
fn of_several_physical_networks_the_ports_own_is_taken_or_none() {
    let second = |host: &mut Host| {
        host.patch(("br-int", "int-br-dmz"), ("br-dmz", "phy-br-dmz"));
        host.link(host.id, "eth2", None);
        host.ovs("br-dmz", "eth2", "");
    };
    let trace = traced(second);
    assert_eq!((trace.verdict, trace.interfaces[0].is_lost()), (Verdict::Inconclusive, true));
    let trace = traced(|host| {
        second(host);
        let mappings = ("ovn-bridge-mappings".to_owned(), "dmz:br-dmz,public:br-ex".to_owned());
        host.facts.switches[0].external_ids = [mappings].into();
    });
    assert!(trace.interfaces[0].hops.iter().any(|hop| hop.name == "eth1"), "{:#?}", trace.sentence);
    // A patch that does not carry the network's VLAN is not its way out.
    let trace = traced(|host| {
        second(host);
        port(host, "int-br-dmz").trunks = vec![9];
    });
    assert!(trace.interfaces[0].hops.iter().any(|hop| hop.name == "eth1"), "{:#?}", trace.sentence);
}

/// The port as OVN or OpenDaylight leaves it: known by its id, in no VLAN of the agent's.
fn without_the_agent(host: &mut Host) {
    for port in host.facts.switches[0].bridges.iter_mut().flat_map(|bridge| &mut bridge.ports) {
        (port.tag, port.other_config) = (None, [].into());
    }
}

fn ends(trace: &Trace) -> String {
    let lost = trace.interfaces[0].hops.iter().find(|hop| hop.name == LOST);
    lost.map_or_else(String::new, |hop| hop.note.clone())
}

#[test]
fn a_port_of_ovn_is_not_called_unwired_and_the_path_ends_where_its_flows_decide() {
    let ovn = |key: &str, value: &str| {
        traced(|host| {
            without_the_agent(host);
            let remote = ("ovn-remote".to_owned(), "tcp:192.0.2.1:6642".to_owned());
            host.facts.switches[0].external_ids = [remote, (key.to_owned(), value.to_owned())].into();
        })
    };
    let trace = ovn("ovn-encap-type", "geneve");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Inconclusive, vec![]), "{}", trace.sentence);
    assert!(ends(&trace).starts_with("OVN "), "{}", ends(&trace));
    // On any other bridge than the one OVN was given, a Neutron port without a tag is a mistake.
    let trace = ovn("ovn-bridge", "br-ovn");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["no-tag"]));
}

#[test]
fn a_port_of_opendaylight_is_not_called_unwired_either() {
    let controller = |target: &str| ControllerFact { target: target.to_owned(), connected: true };
    let trace = traced(|host| {
        without_the_agent(host);
        let key = ("odl_os_hostconfig_hostid".to_owned(), "compute-1".to_owned());
        host.facts.switches[0].external_ids = [key].into();
    });
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Inconclusive, vec![]), "{}", trace.sentence);
    assert!(ends(&trace).starts_with("OpenDaylight "), "{}", ends(&trace));
    // Without the host's configuration: the manager and the controller are one and the same, elsewhere.
    let called = |manager: &str, openflow: &str| {
        traced(|host| {
            without_the_agent(host);
            host.facts.switches[0].managers = vec![controller(manager)];
            host.facts.switches[0].bridges[0].controllers = vec![controller(openflow)];
        })
    };
    let trace = called("tcp:192.0.2.9:6640", "tcp:192.0.2.9:6653");
    assert!(ends(&trace).starts_with("OpenDaylight "), "{}", ends(&trace));
    // The agent's own manager and controller are on this host.
    let trace = called("ptcp:6640:127.0.0.1", "tcp:127.0.0.1:6633");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["no-tag"]));
}

#[test]
fn a_bridge_says_who_runs_it() {
    let trace = traced(|host| {
        let port = port(host, "tap1");
        port.other_config.insert("net_uuid".to_owned(), PORT.to_owned());
    });
    let bridges = || trace.interfaces[0].hops.iter().filter(|hop| hop.kind == HopKind::OvsBridge);
    let run_by = |hop: &Hop| hop.detail.iter().find(|(key, _)| key == "run by").map(|(_, by)| by.clone());
    assert_eq!(run_by(bridges().next().unwrap()).as_deref(), Some("Neutron's agent"));
}
