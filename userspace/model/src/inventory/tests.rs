//! What is joined, on hosts small enough to see why.

use std::collections::BTreeMap;

use super::{Instance, Inventory, Role};
use crate::{
    fact::{ContainerFact, NeighbourFact, NetworkFact, SourceKind},
    id::{LinkKey, NetnsId},
    testing::{Host, PORT, ROUTER, mac, neutron},
};

const MAC: &str = "fa:16:3e:00:00:01";

fn named<'i, 'a>(inventory: &'i Inventory<'a>, name: &str) -> &'i Instance<'a> {
    inventory.instances.iter().find(|instance| instance.identity.name == name).unwrap()
}

/// Name of the Open vSwitch port a link is.
fn port_of(inventory: &Inventory<'_>, key: LinkKey) -> Option<String> {
    inventory.port_of(key).map(|port| format!("{} {}", port.bridge.name, port.interface.name))
}

#[test]
fn a_veth_finds_its_peer_by_nsid_and_not_by_index_alone() {
    let mut host = Host::new();
    let (one, two) = (host.netns(&["one"]), host.netns(&["two"]));
    // Both inner ends have index 2, as every first link of a container has.
    let (outer_one, inner_one) = host.veth((host.id, "veth1"), (one, "eth0"));
    let (outer_two, inner_two) = host.veth((host.id, "veth2"), (two, "eth0"));
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    assert_eq!(inner_one.ifindex, inner_two.ifindex);
    assert_eq!(inventory.peer(outer_one), Some(inner_one));
    assert_eq!(inventory.peer(outer_two), Some(inner_two));
    assert_eq!(inventory.peer(inner_two), Some(outer_two));
}

#[test]
fn a_veth_into_a_namespace_that_was_not_seen_has_no_peer() {
    let mut host = Host::new();
    let one = host.netns(&["one"]);
    let (outer, inner) = host.veth((host.id, "veth1"), (one, "eth0"));
    host.network(host.id).nsids.clear();
    host.network(one).links.retain(|link| link.ifindex != inner.ifindex);
    let snapshot = host.snapshot();
    assert_eq!(Inventory::build(&snapshot).peer(outer), None);
}

#[test]
fn a_vlan_device_has_a_lower_device_and_no_peer() {
    let mut host = Host::new();
    let eth0 = host.link(host.id, "eth0", None);
    let vlan = host.link(host.id, "eth0.7", Some("vlan"));
    host.edit(vlan).link = Some(eth0.ifindex);
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    assert_eq!((inventory.lower(vlan), inventory.peer(vlan)), (Some(eth0), None));
}

#[test]
fn a_namespace_is_called_what_an_operator_calls_it() {
    let mut host = Host::new();
    let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
    let container = host.netns(&["0f3c9a"]);
    let (named, nameless) = (host.netns(&["blue"]), host.netns(&[]));
    host.process(nameless, 77, "sleep");
    host.container("web-1", Some(container));
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let label = |id: NetnsId| inventory.netns(id).label;
    let own = inventory.host.unwrap();
    assert_eq!(label(own), "host");
    assert_eq!(label(router), format!("qrouter-{ROUTER}"));
    assert_eq!(label(container), "web-1");
    assert_eq!(label(named), "blue");
    assert_eq!(label(nameless), format!("{nameless} of sleep (77)"));
    assert_eq!(inventory.role(router), &Role::Router(ROUTER.parse().ok()));
    assert_eq!((inventory.role(container), inventory.role(named)), (&Role::Container, &Role::Other));
}

#[test]
fn a_name_that_only_begins_as_neutrons_is_none_of_neutrons() {
    let mut host = Host::new();
    let fake = host.netns(&["qrouter-of-mine"]);
    let snapshot = host.snapshot();
    assert_eq!(Inventory::build(&snapshot).role(fake), &Role::Other);
}

#[test]
fn docker_and_proc_describe_one_container_whichever_came_first() {
    for docker_first in [true, false] {
        let mut host = Host::new();
        let netns = host.netns(&[]);
        let docker = host.container("web-1", None).clone();
        let proc = ContainerFact {
            source: SourceKind::Process,
            name: None,
            hostname: Some("inside".to_owned()),
            pid: Some(42),
            netns: Some(netns),
            ..docker.clone()
        };
        let docker = ContainerFact { pid: None, labels: BTreeMap::from([("a".into(), "b".into())]), ..docker };
        host.facts.containers = if docker_first { vec![docker, proc] } else { vec![proc, docker] };
        let snapshot = host.snapshot();
        let inventory = Inventory::build(&snapshot);
        assert_eq!(inventory.instances.len(), 1);
        let instance = named(&inventory, "web-1");
        assert_eq!((instance.netns, instance.identity.pid), (Some(netns), Some(42)));
        assert_eq!(instance.identity.hostname.as_deref(), Some("inside"));
        assert_eq!(instance.identity.labels.len(), 1);
    }
}

#[test]
fn an_internal_port_is_found_in_the_namespace_it_was_moved_to() {
    let mut host = Host::new();
    let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
    let inside = host.link(router, "qr-1a2b3c4d-5e", Some("tun"));
    host.mac(inside, MAC);
    neutron(host.ovs("br-int", "qr-1a2b3c4d-5e", "internal"), PORT, MAC, 1);
    let snapshot = host.snapshot();
    assert_eq!(port_of(&Inventory::build(&snapshot), inside).as_deref(), Some("br-int qr-1a2b3c4d-5e"));
}

#[test]
fn a_device_named_as_anothers_port_is_not_that_port() {
    let mut host = Host::new();
    let (router, tenant) = (host.netns(&[&format!("qrouter-{ROUTER}")]), host.netns(&["tenant"]));
    // A tenant may name a link in its namespace and choose its MAC address as it likes.
    let forged = host.link(tenant, "qr-1a2b3c4d-5e", Some("dummy"));
    let real = host.link(router, "qr-1a2b3c4d-5e", Some("tun"));
    for key in [forged, real] {
        host.mac(key, MAC);
    }
    host.facts.networks.sort_by_key(|network| network.netns != tenant);
    neutron(host.ovs("br-int", "qr-1a2b3c4d-5e", "internal"), PORT, MAC, 1);
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    assert_eq!(port_of(&inventory, forged), None);
    assert_eq!(port_of(&inventory, real).as_deref(), Some("br-int qr-1a2b3c4d-5e"));
}

#[test]
fn equal_names_without_a_mac_address_to_tell_them_apart_are_not_guessed_at() {
    let mut host = Host::new();
    let (one, two) = (host.netns(&["one"]), host.netns(&["two"]));
    let keys = [one, two].map(|netns| host.link(netns, "tap0", Some("tun")));
    host.ovs("br-int", "tap0", "internal");
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    assert_eq!(keys.map(|key| port_of(&inventory, key)), [None, None]);
}

#[test]
fn the_eth0_of_a_container_is_not_the_hosts_nic_of_that_name() {
    let mut host = Host::new();
    let tenant = host.netns(&["tenant"]);
    let nic = host.link(host.id, "eth0", None);
    let (_, inner) = host.veth((host.id, "veth1"), (tenant, "eth0"));
    host.ovs("br-ex", "eth0", "");
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    assert_eq!(port_of(&inventory, nic).as_deref(), Some("br-ex eth0"));
    assert_eq!(port_of(&inventory, inner), None);
}

#[test]
fn a_card_behind_a_hybrid_plug_has_the_port_at_the_far_end_of_its_bridge() {
    let mut host = Host::new();
    let tap = host.hybrid_plug("web-1", MAC);
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let [nic] = &named(&inventory, "web-1").nics[..] else { panic!("one card") };
    assert_eq!(nic.outer, Some(tap));
    assert_eq!(nic.port_id.as_ref().map(ToString::to_string).as_deref(), Some(PORT));
    let bridge = nic.bridge.and_then(|bridge| inventory.link(bridge));
    assert_eq!(bridge.map(|link| link.name.as_str()), Some("qbr1a2b3c4d-5e"));
}

#[test]
fn a_segment_is_a_bridge_and_a_vlan_and_the_dead_vlan_is_none() {
    let mut host = Host::new();
    for (name, tag) in
        [("a", Some(1)), ("b", Some(1)), ("c", Some(2)), ("d", Some(4095)), ("e", Some(4095)), ("f", None)]
    {
        host.link(host.id, name, Some("tun"));
        host.ovs("br-int", name, "").tag = tag;
    }
    host.link(host.id, "x", Some("tun"));
    host.ovs("br-other", "x", "").tag = Some(1);
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let segment = |name: &str| {
        let port = inventory.ports().named(name).next().unwrap();
        inventory.segment(&port).iter().map(|member| member.port.interface.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(segment("a"), ["b"]);
    assert!(segment("c").is_empty() && segment("d").is_empty() && segment("f").is_empty());
}

#[test]
fn a_patch_port_has_a_peer_only_where_that_points_back() {
    let mut host = Host::new();
    host.patch(("br-int", "int-br-ex"), ("br-ex", "phy-br-ex"));
    host.patch(("br-int", "patch-tun"), ("br-tun", "patch-int"));
    let broken = &mut host.facts.switches[0].bridges[0].ports[1].interfaces[0];
    assert_eq!(broken.name, "patch-tun");
    broken.options.insert("peer".to_owned(), "phy-br-ex".to_owned());
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let peer = |name: &str| {
        let port = inventory.ports().named(name).next().unwrap();
        inventory.ports().patch_peer(&port).map(|peer| peer.interface.name.as_str())
    };
    assert_eq!(peer("int-br-ex"), Some("phy-br-ex"));
    assert_eq!((peer("patch-tun"), peer("patch-int")), (None, None));
}

/// A router with one or more ends on the segment of a container, and a floating IP for 10.0.0.2.
fn routed(host: &mut Host, ends: &[&str], router: &str, tag: u16, floating: &str) -> NetnsId {
    let netns = host.netns(&[&format!("qrouter-{router}")]);
    for end in ends {
        host.link(netns, end, Some("tun"));
        host.ovs("br-int", end, "internal").tag = Some(tag);
    }
    host.rules(
        netns,
        &format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:neutron-l3-agent-PREROUTING - [0:0]\n\
             :neutron-l3-agent-float-snat - [0:0]\n-A PREROUTING -j neutron-l3-agent-PREROUTING\n\
             -A POSTROUTING -j neutron-l3-agent-float-snat\n\
             -A neutron-l3-agent-PREROUTING -d {floating}/32 -j DNAT --to-destination 10.0.0.2\n\
             -A neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source {floating} --random-fully\nCOMMIT\n"
        ),
    );
    netns
}

fn plugged(host: &mut Host, name: &str, tag: u16) {
    let netns = host.netns(&[]);
    let tap = format!("tap-{name}");
    let (_, inner) = host.veth((host.id, &tap), (netns, "eth0"));
    host.address(inner, "10.0.0.2/24");
    host.ovs("br-int", &tap, "").tag = Some(tag);
    host.container(name, Some(netns));
}

#[test]
fn tenants_with_the_same_address_have_each_their_own_floating_ip() {
    let mut host = Host::new();
    plugged(&mut host, "red", 1);
    plugged(&mut host, "blue", 2);
    routed(&mut host, &["qr-red"], ROUTER, 1, "172.24.4.6");
    routed(&mut host, &["qr-blue"], "77aa11bb-22cc-43dd-84ee-00000000000c", 2, "172.24.4.8");
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let floating = |name: &str| {
        let found = inventory.floating_ips(&named(&inventory, name).nics[0]);
        found.iter().map(|floating| floating.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(floating("red"), ["172.24.4.6"]);
    assert_eq!(floating("blue"), ["172.24.4.8"]);
}

#[test]
fn a_router_with_two_ends_on_a_segment_translates_once() {
    let mut host = Host::new();
    plugged(&mut host, "red", 1);
    routed(&mut host, &["qr-1"], ROUTER, 1, "172.24.4.6");
    routed(&mut host, &["qr-2"], "77aa11bb-22cc-43dd-84ee-00000000000c", 1, "172.24.4.7");
    // The first router's second end comes after the other router's.
    let first = host.facts.namespaces.iter().find(|fact| fact.names.iter().any(|name| name.path.ends_with(ROUTER)));
    let first = first.unwrap().id;
    host.link(first, "qr-3", Some("tun"));
    host.ovs("br-int", "qr-3", "internal").tag = Some(1);
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let found = inventory.floating_ips(&named(&inventory, "red").nics[0]);
    assert_eq!(found.iter().map(|one| one.address.to_string()).collect::<Vec<_>>(), ["172.24.4.6", "172.24.4.7"]);
}

#[test]
fn a_guests_addresses_are_those_its_own_segment_learned() {
    let mut host = Host::new();
    host.link(host.id, "tap0", Some("tun"));
    neutron(host.ovs("br-int", "tap0", ""), PORT, MAC, 1);
    let mine = routed(&mut host, &["qr-1"], ROUTER, 1, "172.24.4.6");
    let other = routed(&mut host, &["qr-2"], "77aa11bb-22cc-43dd-84ee-00000000000c", 2, "172.24.4.7");
    for (netns, address) in [(mine, "10.0.0.5"), (other, "10.9.9.9"), (mine, "fe80::1")] {
        let NetworkFact { links, neighbours, .. } = host.network(netns);
        neighbours.push(NeighbourFact {
            ifindex: links[1].ifindex,
            address: address.parse().unwrap(),
            mac: Some(mac(MAC)),
            state: "REACHABLE".to_owned(),
            age: None,
            proxy: false,
        });
    }
    host.facts.machines.push(crate::fact::MachineFact {
        pid: 9,
        name: Some("instance-00000001".to_owned()),
        uuid: None,
        netns: None,
        nics: vec![crate::fact::MachineNic { tap: Some("tap0".to_owned()), mac: Some(mac(MAC)) }],
    });
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let addresses = &named(&inventory, "instance-00000001").nics[0].addresses;
    assert_eq!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.5/32"]);
}
