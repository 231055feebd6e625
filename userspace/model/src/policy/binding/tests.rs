//! Ports and the cards they are tied to.

use super::{Bound, ahead, beside, bind};
use crate::{
    fact::{LinkFact, MachineFact, MachineNic},
    id::{IfIndex, LinkKey, NetnsId},
    inventory::Inventory,
    policy::{
        convert::{Document, policy},
        types::{Attached, Hook, Mode, PortId},
    },
    testing::{Host, PORT, mac, neutron},
};

const MAC: &str = "fa:16:3e:00:00:01";
const GROUPS: &str = "security_groups: [{name: web}, {name: db}, {name: raw, stateful: false}]\n";

/// What a host makes of a policy.
fn bound(host: Host, text: &str) -> Bound {
    let text = format!("{GROUPS}{text}");
    let policy = policy(&[Document { name: "a".to_owned(), text }]).unwrap();
    let snapshot = host.snapshot();
    bind(&policy, &Inventory::build(&snapshot))
}

fn problems(bound: &Bound) -> Vec<String> {
    bound.problems.iter().map(ToString::to_string).collect()
}

/// The only port that is attached, of a host without problems.
fn only(bound: &Bound) -> &Attached {
    assert_eq!((problems(bound), bound.attached.len()), (vec![], 1));
    &bound.attached[0]
}

/// A container with a card that has a MAC address and two addresses.
fn container(host: &mut Host, name: &str, outer: &str) -> (NetnsId, LinkKey, LinkKey) {
    let netns = host.netns(&[name]);
    let (outer, inner) = host.veth((host.id, outer), (netns, "eth0"));
    host.mac(inner, MAC);
    host.address(inner, "10.0.0.2/24");
    host.address(inner, "2001:db8::2/64");
    host.container(name, Some(netns));
    (netns, outer, inner)
}

/// A virtual machine that holds a tap in a bridge of Open vSwitch.
fn machine(host: &mut Host, tap: &str) -> LinkKey {
    let key = host.link(host.id, tap, Some("tun"));
    host.facts.machines.push(MachineFact {
        pid: 4000 + u32::try_from(host.facts.machines.len()).unwrap(),
        name: Some(format!("instance-{tap}")),
        uuid: Some("f0e1d2c3-0000-4000-8000-000000000001".to_owned()),
        netns: Some(host.id),
        nics: vec![MachineNic { tap: Some(tap.to_owned()), mac: Some(mac(MAC)) }],
    });
    key
}

fn web(binding: &str) -> String {
    format!("ports: [{{name: p, security_groups: [web], binding: {binding}}}]")
}

fn neutron_port(fields: &str) -> String {
    format!("ports: [{{id: {PORT}, security_groups: [web]{fields}}}]")
}

#[test]
fn a_container_is_found_by_name_id_and_nova_uuid_and_gives_its_addresses() {
    let uuid = "f0e1d2c3-0000-4000-8000-000000000001";
    let name = format!("nova-{uuid}");
    let id = format!("{:012x}{:052x}", 1, 0);
    for instance in [name.as_str(), &id, &id[..12], uuid] {
        let mut host = Host::new();
        let (_, outer, _) = container(&mut host, &name, "veth1");
        let bound = bound(host, &web(&format!("{{instance: '{instance}'}}")));
        let port = only(&bound);
        assert_eq!(
            (port.ifindex, port.mac, port.mode, port.hook),
            (outer.ifindex.0, mac(MAC), Mode::Filtered, Hook::Tc)
        );
        let addresses: Vec<String> = port.fixed_ips.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.2", "2001:db8::2"]);
        assert_eq!(bound.found[&port.id], port.fixed_ips);
    }
}

#[test]
fn a_beginning_of_an_id_too_short_to_be_one_finds_nothing() {
    let mut host = Host::new();
    container(&mut host, "web-1", "veth1");
    assert_eq!(
        problems(&bound(host, &web("{instance: '00000000000'}"))),
        ["port p: no instance 00000000000 with a network card on this host; there is web-1"]
    );
}

#[test]
fn a_port_follows_its_container_to_another_device() {
    let index = |devices: &[&str]| {
        let mut host = Host::new();
        for device in devices {
            host.link(host.id, device, Some("veth"));
        }
        container(&mut host, "web-1", "veth9");
        only(&bound(host, &web("{instance: web-1}"))).ifindex
    };
    assert_ne!(index(&[]), index(&["veth1"]));
}

#[test]
fn what_is_given_beats_what_is_found() {
    let mut host = Host::new();
    container(&mut host, "web-1", "veth1");
    let bound = bound(
        host,
        "ports: [{name: p, security_groups: [web, db], binding: {device: veth1}, fixed_ips: [10.0.0.7], log_allowed: true, \
         mac_address: 'fa:16:3e:00:00:01', allowed_address_pairs: [{ip_address: 10.9.0.0/16}, {ip_address: 10.8.0.1, mac_address: 'fa:16:3e:00:00:08'}]}]",
    );
    let port = only(&bound);
    assert_eq!(port.fixed_ips, ["10.0.0.7".parse().unwrap()].into());
    let pairs =
        [(mac(MAC), "10.9.0.0/16".parse().unwrap()), (mac("fa:16:3e:00:00:08"), "10.8.0.1/32".parse().unwrap())];
    assert_eq!(port.pairs, pairs.into());
    assert!(port.log_allowed && port.groups.len() == 2 && bound.found.is_empty());
}

#[test]
fn a_mac_address_other_than_the_instances_is_a_problem_and_enforced_as_asked() {
    let mut host = Host::new();
    container(&mut host, "web-1", "veth1");
    let bound = bound(
        host,
        "ports: [{name: p, security_groups: [web], binding: {device: veth1}, mac_address: 'fa:16:3e:00:00:99'}]",
    );
    assert_eq!(
        problems(&bound),
        ["port p: veth1: has the MAC address fa:16:3e:00:00:01 and not fa:16:3e:00:00:99, so what it sends is refused"]
    );
    assert_eq!((bound.attached[0].mac, bound.attached[0].mode), (mac("fa:16:3e:00:00:99"), Mode::Filtered));
}

#[test]
fn a_port_that_is_not_filtered_is_trusted() {
    let mut host = Host::new();
    container(&mut host, "web-1", "veth1");
    let text = "ports: [{name: p, port_security_enabled: false, binding: {device: veth1}}]";
    assert_eq!(only(&bound(host, text)).mode, Mode::Trusted);
}

#[test]
fn a_tap_in_open_vswitch_is_found_by_the_ports_id_and_has_the_addresses_given_alone() {
    for (datapath, hook) in [("", Hook::Tc), ("system", Hook::Tc), ("netdev", Hook::Xdp)] {
        let mut host = Host::new();
        let tap = machine(&mut host, "tap1a2b3c4d-5e");
        neutron(host.ovs("br-int", "tap1a2b3c4d-5e", ""), PORT, MAC, 1);
        datapath.clone_into(&mut host.facts.switches[0].bridges[0].datapath_type);
        let bound = bound(host, &neutron_port(""));
        let port = only(&bound);
        assert_eq!((port.ifindex, port.mac, port.hook), (tap.ifindex.0, mac(MAC), hook));
        assert!(port.fixed_ips.is_empty() && bound.candidates.is_empty());
    }
}

#[test]
fn hybrid_plug_is_held_at_the_tap_and_not_at_the_veth_pair() {
    for known in [true, false] {
        let mut host = Host::new();
        let tap = if known {
            machine(&mut host, "tap1a2b3c4d-5e")
        } else {
            host.link(host.id, "tap1a2b3c4d-5e", Some("tun"))
        };
        let (_, qvb) = host.veth((host.id, "qvo1a2b3c4d-5e"), (host.id, "qvb1a2b3c4d-5e"));
        host.bridge(host.id, "qbr1a2b3c4d-5e", &[tap, qvb]);
        neutron(host.ovs("br-int", "qvo1a2b3c4d-5e", ""), PORT, MAC, 1);
        "netdev".clone_into(&mut host.facts.switches[0].bridges[0].datapath_type);
        let bound = bound(host, &neutron_port(""));
        let port = only(&bound);
        assert_eq!((port.ifindex, port.mac, port.hook), (tap.ifindex.0, mac(MAC), Hook::Tc));
    }
}

#[test]
fn without_open_vswitch_a_port_is_found_by_what_neutron_cuts_its_id_to() {
    let mut host = Host::new();
    let tap = machine(&mut host, "tap1a2b3c4d-5e");
    assert_eq!(only(&bound(host, &neutron_port(""))).ifindex, tap.ifindex.0);
}

#[test]
fn two_ports_cut_to_one_name_are_closed() {
    let mut host = Host::new();
    machine(&mut host, "tap1a2b3c4d-5e");
    let twin = "1a2b3c4d-5e00-4a1b-8c2d-000000000009";
    let text = format!("ports: [{{id: {PORT}, security_groups: [web]}}, {{id: {twin}, security_groups: [db]}}]");
    let bound = bound(host, &text);
    assert_eq!((bound.attached.len(), bound.attached[0].mode), (1, Mode::Closed));
    assert!(problems(&bound).iter().any(|text| text.contains("which another port has, too")), "{:?}", bound.problems);
}

#[test]
fn a_device_of_the_cut_name_that_carries_another_ports_id_is_not_taken() {
    let mut host = Host::new();
    machine(&mut host, "tap1a2b3c4d-5e");
    neutron(host.ovs("br-int", "tap1a2b3c4d-5e", ""), "1a2b3c4d-5e00-4a1b-8c2d-000000000009", MAC, 1);
    let bound = bound(host, &neutron_port(""));
    assert_eq!((problems(&bound), bound.attached), (vec![], vec![]));
}

#[test]
fn a_neutron_port_that_is_not_here_is_a_problem_only_if_it_should_be() {
    let told = |host_id: &str| problems(&bound(Host::new(), &neutron_port(&format!(", binding_host_id: {host_id}"))));
    let missed = format!("port {PORT}: is bound to this host, and no device here carries its id");
    assert_eq!(told("compute-1"), [missed.as_str()]);
    assert_eq!(told("compute-1.example.org"), [missed.as_str()]);
    assert_eq!(told("compute-2"), [""; 0]);
    assert_eq!(problems(&bound(Host::new(), &neutron_port(""))), [""; 0]);
}

#[test]
fn a_port_of_another_host_is_a_member_and_attached_nowhere() {
    let mut host = Host::new();
    container(&mut host, "web-1", "veth1");
    let bound = bound(host, "ports: [{name: web-1, security_groups: [web], fixed_ips: [10.0.0.9]}]");
    assert_eq!((problems(&bound), bound.attached), (vec![], vec![]));
}

#[test]
fn cards_nobody_claims_are_candidates() {
    let mut host = Host::new();
    let (_, outer, _) = container(&mut host, "web-1", "veth1");
    let bound = bound(host, "");
    assert_eq!((bound.candidates.len(), bound.candidates[0].ifindex), (1, outer.ifindex));
    assert_eq!(
        (bound.candidates[0].instance.as_deref(), bound.candidates[0].device.as_str()),
        (Some("web-1"), "veth1")
    );
}

#[test]
fn a_device_nothing_can_hold_is_refused_with_the_reason() {
    let mut host = Host::new();
    let eth0 = host.link(host.id, "eth0", None);
    let netns = host.netns(&["lan-1"]);
    let inner = host.link(netns, "mac0", Some("macvlan"));
    host.network(netns).nsids.insert(3, eth0.netns);
    (host.edit(inner).link, host.edit(inner).link_netnsid) = (Some(eth0.ifindex), Some(3));
    host.container("lan-1", Some(netns));
    let text = "ports: [{name: a, security_groups: [web], binding: {instance: lan-1}}, {name: b, security_groups: [web], binding: {device: eth0}}]";
    let bound = bound(host, text);
    assert_eq!(
        problems(&bound),
        [
            "port a: eth0: not enforced: a macvlan shares eth0 with others, and has no device of its own on the host",
            "port b: eth0: not enforced: a physical device is no card of an instance",
        ]
    );
    assert_eq!(bound.attached, []);
}

#[test]
fn a_device_in_another_namespace_than_the_hosts_is_refused() {
    let mut host = Host::new();
    let netns = host.netns(&["inner"]);
    let moved = host.link(netns, "tap7", Some("openvswitch"));
    host.mac(moved, MAC);
    neutron(host.ovs("br-int", "tap7", "internal"), PORT, MAC, 1);
    host.container("web-1", Some(netns));
    let bound = bound(host, &web("{instance: web-1}"));
    assert_eq!(
        problems(&bound),
        ["port p: tap7: not enforced: its device is in namespace web-1, and not in the host's"]
    );
    assert_eq!(bound.attached, []);
}

#[test]
fn a_device_that_is_not_there_is_told() {
    assert_eq!(problems(&bound(Host::new(), &web("{device: tap9}"))), ["port p: no device tap9 on this host"]);
    let mut host = Host::new();
    let netns = host.netns(&["blue"]);
    host.link(netns, "dummy0", Some("dummy"));
    let told = problems(&bound(host, &web("{device: dummy0}")));
    assert_eq!(told, ["port p: device dummy0 is in namespace blue, and not in the host's"]);
}

#[test]
fn a_device_two_ports_claim_is_closed_and_both_are_named() {
    let mut host = Host::new();
    container(&mut host, "web-1", "veth1");
    let text = "ports: [{name: a, security_groups: [web], binding: {instance: web-1}}, {name: b, security_groups: [db], binding: {device: veth1}}]";
    let bound = bound(host, text);
    assert_eq!(problems(&bound), ["port a: veth1: is claimed by b too, and closed until one of them lets go"]);
    assert_eq!((bound.attached.len(), bound.attached[0].mode), (1, Mode::Closed));
}

#[test]
fn a_port_found_twice_is_closed_at_both_devices_and_both_are_named() {
    let mut host = Host::new();
    for tap in ["tap1", "tap2"] {
        machine(&mut host, tap);
        neutron(host.ovs("br-int", tap, ""), PORT, MAC, 1);
    }
    let bound = bound(host, &neutron_port(""));
    assert_eq!(problems(&bound), [format!("port {PORT}: is found 2 times, at tap1 and tap2; all are closed")]);
    let modes: Vec<Mode> = bound.attached.iter().map(|port| port.mode).collect();
    assert_eq!(modes, [Mode::Closed, Mode::Closed]);
    assert_ne!(bound.attached[0].id, bound.attached[1].id);
}

#[test]
fn an_instance_with_two_cards_needs_the_mac_address_of_one() {
    let host = || {
        let mut host = Host::new();
        let (netns, ..) = container(&mut host, "web-1", "veth1");
        let (outer, inner) = host.veth((host.id, "veth2"), (netns, "eth1"));
        host.mac(inner, "fa:16:3e:00:00:02");
        (host, outer)
    };
    let (one, _) = host();
    assert_eq!(
        problems(&bound(one, &web("{instance: web-1}"))),
        ["port p: is found 2 times, at veth1 and veth2; all are closed"]
    );
    let (other, outer) = host();
    let text =
        "ports: [{name: p, security_groups: [web], binding: {instance: web-1}, mac_address: 'fa:16:3e:00:00:02'}]";
    assert_eq!(only(&bound(other, text)).ifindex, outer.ifindex.0);
}

#[test]
fn a_card_without_any_mac_address_is_closed() {
    let mut host = Host::new();
    host.link(host.id, "tap1", Some("tun"));
    let bound = bound(host, &web("{device: tap1}"));
    assert_eq!(problems(&bound), ["port p: tap1: no MAC address is given or found, so it is closed"]);
    assert_eq!(bound.attached[0].mode, Mode::Closed);
}

fn labelled(label: &str) -> Host {
    let mut host = Host::new();
    let (netns, ..) = container(&mut host, "shop", "veth1");
    let (_, inner) = host.veth((host.id, "veth2"), (netns, "eth1"));
    host.mac(inner, "fa:16:3e:00:00:02");
    host.address(inner, "10.1.0.2/24");
    host.facts.containers[0].labels.insert("netdiag.security-groups".to_owned(), label.to_owned());
    host
}

#[test]
fn a_label_makes_a_port_of_each_card_of_its_container() {
    let bound = bound(labelled(" web, db,web "), "");
    let ids: Vec<String> = bound.attached.iter().map(|port| port.id.to_string()).collect();
    assert_eq!((problems(&bound), ids), (vec![], vec!["shop/eth0".to_owned(), "shop/eth1".to_owned()]));
    let groups: Vec<&str> = bound.attached[1].groups.iter().map(|group| group.0.as_str()).collect();
    assert_eq!((groups, bound.attached[1].mode), (vec!["web", "db"], Mode::Filtered));
    assert_eq!(bound.made.len(), 2);
}

#[test]
fn a_labelled_container_is_a_member_of_its_groups() {
    let bound = bound(labelled("web"), "");
    let documents = [Document { name: "a".to_owned(), text: GROUPS.to_owned() }];
    let policy = policy(&documents).unwrap();
    let whole = bound.complete(&policy);
    let members: Vec<String> =
        whole.members_of(&bound.attached[0].groups[0], &bound.found).iter().map(ToString::to_string).collect();
    assert_eq!(members, ["10.0.0.2/32", "10.1.0.2/32", "2001:db8::2/128"]);
}

#[test]
fn an_empty_label_is_no_group_at_all() {
    let bound = bound(labelled(""), "");
    assert_eq!((problems(&bound), bound.attached.len()), (vec![], 2));
    assert!(bound.attached.iter().all(|port| port.groups.is_empty() && port.mode == Mode::Filtered));
}

#[test]
fn a_label_that_cannot_be_followed_closes_the_container() {
    for (label, why) in
        [("web,wbe", "no security group wbe"), ("web,raw", "web,raw mixes stateful and stateless groups")]
    {
        let bound = bound(labelled(label), "");
        let told =
            format!("port shop/eth0: veth1: netdiag.security-groups: {why}; it is closed; there is db, raw, web");
        assert_eq!(problems(&bound)[0], told);
        assert!(bound.attached.len() == 2 && bound.attached.iter().all(|port| port.mode == Mode::Closed));
    }
}

#[test]
fn a_label_that_names_two_groups_at_once_closes_the_container() {
    let documents = [Document {
        name: "a".to_owned(),
        text: "security_groups: [{id: a, name: web}, {id: b, name: web}]".to_owned(),
    }];
    let policy = policy(&documents).unwrap();
    let snapshot = labelled("web").snapshot();
    let bound = bind(&policy, &Inventory::build(&snapshot));
    assert!(bound.problems[0].why.contains("web is the name of several security groups"));
    assert!(bound.attached.iter().all(|port| port.mode == Mode::Closed));
}

#[test]
fn a_port_of_a_document_comes_before_the_label() {
    let bound = bound(labelled("nonsense"), "ports: [{name: p, security_groups: [db], binding: {device: veth1}}]");
    let of = |device: &str| bound.attached.iter().find(|port| port.id.0 == device).map(|port| port.mode);
    assert_eq!((of("p"), of("shop/eth0"), of("shop/eth1")), (Some(Mode::Filtered), None, Some(Mode::Closed)));
}

#[test]
fn containers_that_share_a_namespace_share_their_card() {
    let mut host = Host::new();
    let (netns, ..) = container(&mut host, "pod", "veth1");
    host.container("sidecar", Some(netns));
    let text = web("{instance: sidecar}");
    assert_eq!(only(&bound(host, &text)).mode, Mode::Filtered);
}

#[test]
fn labels_that_differ_on_a_shared_card_close_it() {
    let mut host = Host::new();
    let (netns, ..) = container(&mut host, "pod", "veth1");
    host.container("sidecar", Some(netns));
    for (place, label) in ["web", "db"].iter().enumerate() {
        host.facts.containers[place].labels.insert(super::LABEL.to_owned(), (*label).to_owned());
    }
    let bound = bound(host, "");
    assert_eq!((bound.attached.len(), bound.attached[0].mode), (1, Mode::Closed));
}

#[test]
fn unknown_ports_of_neutron_are_closed_where_that_is_asked_for() {
    let host = || {
        let mut host = Host::new();
        machine(&mut host, "tap1");
        neutron(host.ovs("br-int", "tap1", ""), PORT, MAC, 1);
        // A router's port is the network's own, and none of an instance.
        host.link(host.id, "qr-1", Some("openvswitch"));
        neutron(host.ovs("br-int", "qr-1", "internal"), "1a2b3c4d-5e6f-4a1b-8c2d-000000000002", MAC, 1);
        container(&mut host, "no-neutron", "veth1");
        host
    };
    assert_eq!(bound(host(), "").attached, []);
    let closed = bound(host(), "close_unknown_ports: true");
    assert_eq!((only(&closed).id.0.as_str(), only(&closed).mode), (PORT, Mode::Closed));
    let known = bound(host(), &format!("close_unknown_ports: true\n{}", neutron_port("")));
    assert_eq!(only(&known).mode, Mode::Filtered);
}

#[test]
fn a_container_on_the_hosts_network_has_no_card_to_be_found() {
    let mut host = Host::new();
    host.link(host.id, "eth0", None);
    let own = host.id;
    host.container("exporter", Some(own)).labels.insert(super::LABEL.to_owned(), "web".to_owned());
    let bound = bound(host, &web("{instance: exporter}"));
    assert_eq!(bound.attached, []);
    assert_eq!(
        problems(&bound),
        [
            "port exporter: not enforced: netdiag.security-groups: it is on the host's network, and has no card of its own",
            "port p: no instance exporter with a network card on this host",
        ]
    );
}

fn link(name: &str, kind: Option<&str>) -> LinkFact {
    LinkFact { ifindex: IfIndex(77), name: name.to_owned(), kind: kind.map(str::to_owned), ..LinkFact::default() }
}

/// What a new device of a name and kind is closed as.
fn closed_ahead(text: &str, name: &str, kind: Option<&str>) -> Option<Attached> {
    let text = format!("{GROUPS}{text}");
    let policy = policy(&[Document { name: "a".to_owned(), text }]).unwrap();
    ahead(&policy, &link(name, kind), Hook::Tc)
}

#[test]
fn a_new_device_that_a_port_means_by_its_name_is_closed_ahead_of_the_look() {
    let by_device = "ports: [{id: p, security_groups: [web], fixed_ips: [10.0.0.2], binding: {device: vnet0}}]";
    let closed = closed_ahead(by_device, "vnet0", Some("tun")).unwrap();
    assert_eq!((closed.id.0.as_str(), closed.ifindex, closed.mode), ("p", 77, Mode::Closed));
    assert_eq!(closed.fixed_ips, ["10.0.0.2".parse().unwrap()].into());
    let tap = format!("tap{}", &PORT[..11]);
    let by_id = format!("ports: [{{id: {PORT}, security_groups: [web]}}]");
    assert_eq!(closed_ahead(&by_id, &tap, Some("veth")).unwrap().id.0, PORT);
}

#[test]
fn a_new_device_that_no_port_means_is_left_alone_ahead_of_the_look() {
    let tap = format!("tap{}", &PORT[..11]);
    let elsewhere = format!("ports: [{{id: {PORT}, security_groups: [web], binding: {{device: vnet0}}}}]");
    let by_instance = format!("ports: [{{id: {PORT}, security_groups: [web], binding: {{instance: vm}}}}]");
    let by_id = format!("ports: [{{id: {PORT}, security_groups: [web]}}]");
    let trusted = "ports: [{id: p, port_security_enabled: false, binding: {device: vnet0}}]";
    for (text, name, kind) in [
        (elsewhere.as_str(), tap.as_str(), Some("tun")),
        (&by_instance, &tap, Some("tun")),
        (&by_id, "tap0", Some("tun")),
        (&by_id, &format!("qvb{}", &PORT[..11]), Some("veth")),
        (&by_id, &tap, Some("bridge")),
        (&by_id, &tap, None),
        (trusted, "vnet0", Some("tun")),
    ] {
        assert_eq!(closed_ahead(text, name, kind), None, "{text} {name} {kind:?}");
    }
}

#[test]
fn a_port_closed_ahead_of_the_look_stands_beside_those_found_and_never_in_their_place() {
    let text = "ports: [{id: p, security_groups: [web], binding: {device: vnet0}}]";
    let port = closed_ahead(text, "vnet0", Some("tun")).unwrap();
    let at = |ifindex| Attached { ifindex, ..port.clone() };
    let mut found = vec![at(5), Attached { id: PortId("q".to_owned()), ..at(6) }];
    beside(&mut found, [at(6), at(77)]);
    let ids: Vec<_> = found.iter().map(|port| (port.id.0.as_str(), port.ifindex)).collect();
    assert_eq!(ids, [("p", 5), ("q", 6), ("p at device 77", 77)]);
}
