use super::*;
use crate::testing::{Host, PORT, ROUTER, neutron};

const MAC: &str = "fa:16:3e:00:00:01";

/// A container behind br-int, Neutron's router and its floating IP.
fn neutron_host() -> Host {
    let mut host = Host::new();
    let netns = host.netns(&[]);
    let (_, inner) = host.veth((host.id, "tap1"), (netns, "ns1"));
    host.mac(inner, MAC);
    host.address(inner, "10.0.0.2/24");
    host.route(inner, "0.0.0.0/0", Some("10.0.0.1"));
    neutron(host.ovs("br-int", "tap1", ""), PORT, MAC, 1);
    let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
    let (qr, qg) = (host.link(router, "qr-1", Some("tun")), host.link(router, "qg-1", Some("tun")));
    host.address(qr, "10.0.0.1/24");
    host.address(qg, "172.24.4.2/24");
    host.address(qg, "172.24.4.6/32");
    host.route(qg, "0.0.0.0/0", Some("172.24.4.1"));
    host.ovs("br-int", "qr-1", "internal").tag = Some(1);
    host.ovs("br-int", "qg-1", "internal").tag = Some(2);
    host.patch(("br-int", "int-br-ex"), ("br-ex", "phy-br-ex"));
    host.link(host.id, "eth1", None);
    host.ovs("br-ex", "eth1", "");
    host.facts.switches[0].bridges.iter_mut().for_each(|bridge| bridge.datapath_type = "netdev".to_owned());
    host.rules(router, NAT);
    host.container("web-1", Some(netns));
    host
}

const NAT: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
    :neutron-l3-agent-PREROUTING - [0:0]\n:neutron-l3-agent-float-snat - [0:0]\n\
    -A PREROUTING -j neutron-l3-agent-PREROUTING\n-A POSTROUTING -j neutron-l3-agent-float-snat\n\
    -A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2\n\
    -A neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6 --random-fully\nCOMMIT\n";

fn points(host: Host) -> Points {
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let instance = inventory.instances.iter().find(|one| one.identity.name == "web-1").unwrap();
    Points::of(&inventory, &crate::trace::explain(&inventory, instance))
}

fn names(track: &Track) -> Vec<(&str, Side)> {
    track.stops.iter().map(|stop| (stop.name.as_str(), stop.side)).collect()
}

#[test]
fn the_devices_of_a_neutron_path_are_watched_in_its_order_and_on_the_side_packets_pass() {
    let points = points(neutron_host());
    let expected = [
        ("ns1", Side::Sent),
        ("tap1", Side::Received),
        ("qr-1", Side::Received),
        ("qg-1", Side::Sent),
        ("eth1", Side::Sent),
    ];
    assert_eq!(names(&points.tracks[0]), expected);
}

#[test]
fn every_device_knows_the_numbers_of_its_hops_both_ways() {
    let points = points(neutron_host());
    let stops = &points.tracks[0].stops;
    assert!(stops.is_sorted_by_key(|stop| stop.outward));
    assert!(stops.iter().all(|stop| stop.outward.is_some() && stop.inward.is_some()), "{stops:#?}");
    assert!(stops.is_sorted_by_key(|stop| std::cmp::Reverse(stop.inward)));
}

#[test]
fn floating_ip_and_fixed_address_mean_the_instance_and_the_rest_of_the_router_does_not() {
    let points = points(neutron_host());
    let track = &points.tracks[0];
    let own: Vec<String> = track.own.iter().map(ToString::to_string).collect();
    assert_eq!(own, ["10.0.0.2", "172.24.4.6"]);
    let held = |address: &str| track.routers.iter().any(|(_, held)| held.to_string() == address);
    assert!(held("10.0.0.1") && held("172.24.4.2") && !held("172.24.4.6"));
}

#[test]
fn only_devices_a_switch_takes_copies_of_are_copied() {
    let points = points(neutron_host());
    let copied: Vec<&str> =
        points.tracks[0].stops.iter().filter(|stop| stop.copied).map(|stop| stop.name.as_str()).collect();
    assert_eq!(copied, ["tap1", "eth1"]);
}

#[test]
fn where_the_switch_could_not_be_asked_a_device_of_the_host_may_have_copies() {
    let copied = |read: bool| {
        let mut host = neutron_host();
        if !read {
            host.facts.switches.clear();
            host.gap(SourceKind::Ovsdb, None);
        }
        points(host).tracks[0].stops.iter().filter(|stop| stop.copied).map(|stop| stop.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((copied(true), copied(false)), (vec!["tap1".to_owned(), "eth1".to_owned()], vec!["tap1".to_owned()]));
}

#[test]
fn of_a_pair_between_two_bridges_what_went_into_one_end_comes_out_of_the_other() {
    let mut host = Host::new();
    host.hybrid_plug("web-1", MAC);
    let points = points(host);
    let expected = [("ns1", Side::Sent), ("tap1", Side::Received), ("qvb1", Side::Sent), ("qvo1", Side::Received)];
    let found = names(&points.tracks[0]);
    assert!(expected.iter().zip(&found).all(|((name, side), found)| found.0.starts_with(name) && found.1 == *side));
    assert_eq!(found.len(), expected.len(), "{found:?}");
}

#[test]
fn a_routing_bridge_is_watched_and_one_that_only_passes_frames_on_is_not() {
    let mut host = Host::new();
    let netns = host.netns(&[]);
    let (veth, inner) = host.veth((host.id, "veth1"), (netns, "eth0"));
    let docker0 = host.bridge(host.id, "docker0", &[veth]);
    let eth0 = host.link(host.id, "eth0", None);
    for (key, address) in [(inner, "172.17.0.2/16"), (docker0, "172.17.0.1/16"), (eth0, "192.0.2.10/24")] {
        host.address(key, address);
    }
    host.route(inner, "0.0.0.0/0", Some("172.17.0.1"));
    host.route(eth0, "0.0.0.0/0", Some("192.0.2.1"));
    host.container("web-1", Some(netns));
    let points = points(host);
    let expected = [("eth0", Side::Sent), ("veth1", Side::Received), ("docker0", Side::Received), ("eth0", Side::Sent)];
    assert_eq!(names(&points.tracks[0]), expected);
}
