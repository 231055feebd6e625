use super::*;
use crate::{
    live::points::Points,
    testing::{Host, mac, neutron},
};

/// Numbers of two tenants.
const TENANTS: [u16; 2] = [1, 2];

fn address(kind: &str, tenant: u16) -> Mac {
    mac(&format!("02:00:00:00:{kind}:{tenant:02x}"))
}

/// A container behind br-int and a router of its own, by the same address as every other tenant's.
fn tenant(host: &mut Host, number: u16) {
    let (tap, qr, qg) = (format!("tap{number}"), format!("qr-{number}"), format!("qg-{number}"));
    let inside = host.netns(&[]);
    let (_, inner) = host.veth((host.id, &tap), (inside, "eth0"));
    host.mac(inner, &address("aa", number).to_string());
    host.address(inner, "10.0.0.2/24");
    host.route(inner, "0.0.0.0/0", Some("10.0.0.1"));
    let port = format!("1a2b3c4d-5e6f-4a1b-8c2d-00000000000{number}");
    neutron(host.ovs("br-int", &tap, ""), &port, &address("aa", number).to_string(), number);
    let router = host.netns(&[&format!("qrouter-77aa11bb-22cc-43dd-84ee-00000000000{number}")]);
    let (inner, outer) = (host.link(router, &qr, Some("tun")), host.link(router, &qg, Some("tun")));
    host.mac(inner, &address("bb", number).to_string());
    host.mac(outer, &address("cc", number).to_string());
    host.address(inner, "10.0.0.1/24");
    host.address(outer, &format!("172.24.4.{number}/24"));
    host.route(outer, "0.0.0.0/0", Some("172.24.4.254"));
    host.ovs("br-int", &qr, "internal").tag = Some(number);
    host.ovs("br-int", &qg, "internal").tag = Some(9);
    host.container(&format!("web-{number}"), Some(inside));
}

/// Two tenants whose networks are numbered alike, and who leave by one card.
fn points_of(name: &str) -> Points {
    let mut host = Host::new();
    host.link(host.id, "eth1", None);
    host.patch(("br-int", "int-br-ex"), ("br-ex", "phy-br-ex"));
    host.ovs("br-ex", "eth1", "");
    for number in TENANTS {
        tenant(&mut host, number);
    }
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let instance = inventory.instances.iter().find(|one| one.identity.name == name).unwrap();
    Points::of(&inventory, &explain(&inventory, instance))
}

#[test]
fn frames_on_a_path_have_the_instances_address_up_to_its_router_and_the_routers_behind_it() {
    let points = points_of("web-1");
    let stops = points.tracks[0].stops.iter();
    let seen: Vec<_> = stops.map(|stop| (stop.name.as_str(), stop.segment.near.unwrap(), stop.segment.own)).collect();
    let (own, router) = (address("aa", 1), address("cc", 1));
    let expected = [
        ("eth0", own, true),
        ("tap1", own, true),
        ("qr-1", own, true),
        ("qg-1", router, false),
        ("eth1", router, false),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn another_tenants_instance_with_the_same_address_is_known_by_its_routers_frames() {
    for (number, other) in [(1, 2), (2, 1)] {
        let points = points_of(&format!("web-{number}"));
        assert_eq!(points.doubles.addresses, BTreeSet::from(["10.0.0.2".parse().unwrap()]));
        let eth1 = points.tracks[0].stops.last().unwrap().link;
        assert_eq!(points.doubles.frames[&eth1], BTreeSet::from([address("cc", other)]));
    }
}

#[test]
fn a_router_of_both_tells_nothing() {
    let mut host = Host::new();
    let eth0 = host.link(host.id, "eth0", None);
    host.mac(eth0, &address("cc", 0).to_string());
    host.address(eth0, "192.0.2.10/24");
    host.route(eth0, "0.0.0.0/0", Some("192.0.2.1"));
    for number in TENANTS {
        let inside = host.netns(&[]);
        let (veth, inner) = host.veth((host.id, &format!("veth{number}")), (inside, "eth0"));
        let bridge = host.bridge(host.id, &format!("docker{number}"), &[veth]);
        host.address(inner, "172.17.0.2/16");
        host.address(bridge, "172.17.0.1/16");
        host.route(inner, "0.0.0.0/0", Some("172.17.0.1"));
        host.container(&format!("web-{number}"), Some(inside));
    }
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let instance = inventory.instances.iter().find(|one| one.identity.name == "web-1").unwrap();
    let points = Points::of(&inventory, &explain(&inventory, instance));
    let last = points.tracks[0].stops.last().unwrap();
    assert_eq!((last.link, last.segment.near), (eth0, Some(address("cc", 0))));
    assert_eq!((points.doubles.addresses.len(), points.doubles.frames[&eth0].len()), (1, 0));
}
