//! What an operator may type, and whom it means.

use super::{CANDIDATES, Unresolved, distance, resolve};
use crate::{
    fact::{MachineFact, MachineNic, PublishedPort},
    id::{IfIndex, LinkKey},
    inventory::Inventory,
    testing::{Host, PORT, ROUTER, neutron},
};

const MAC: &str = "fa:16:3e:00:00:01";

/// A container with one card of this address.
fn plugged(host: &mut Host, name: &str, address: &str) {
    let netns = host.netns(&[]);
    let (_, inner) = host.veth((host.id, &format!("veth-{name}")), (netns, "eth0"));
    host.address(inner, address);
    host.container(name, Some(netns));
}

/// Name of the instance a query means.
fn meant(host: Host, query: &str) -> Result<String, Unresolved> {
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    resolve(&inventory, query).map(|place| inventory.instances[place].identity.name.clone())
}

fn web() -> Host {
    let mut host = Host::new();
    plugged(&mut host, "web", "10.0.0.2/24");
    plugged(&mut host, "web-1", "10.0.0.3/24");
    plugged(&mut host, "web-2", "10.0.0.2/24");
    host
}

fn refused(query: &str) -> (bool, Vec<(String, String)>) {
    let Unresolved { ambiguous, candidates, total, .. } = meant(web(), query).unwrap_err();
    assert_eq!(total, candidates.len());
    (ambiguous, candidates.into_iter().map(|one| (one.name, one.by)).collect())
}

#[test]
fn an_exact_name_beats_the_names_it_begins() {
    assert_eq!(meant(web(), "web").as_deref(), Ok("web"));
    assert_eq!(meant(web(), " WEB-2 ").as_deref(), Ok("web-2"));
}

#[test]
fn a_prefix_of_one_means_it_and_of_several_is_ambiguous() {
    let mut host = web();
    plugged(&mut host, "database", "10.0.0.9/24");
    assert_eq!(meant(host, "data").as_deref(), Ok("database"));
    let (ambiguous, candidates) = refused("web-");
    let names: Vec<_> = candidates.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((ambiguous, names), (true, vec!["web-1", "web-2"]));
}

#[test]
fn an_address_two_tenants_use_is_never_guessed_at() {
    let by = |name: &str| (name.to_owned(), "fixed IP 10.0.0.2".to_owned());
    assert_eq!(refused("10.0.0.2"), (true, vec![by("web"), by("web-2")]));
    assert_eq!(meant(web(), "10.0.0.3").as_deref(), Ok("web-1"));
}

#[test]
fn a_prefix_of_an_address_means_nobody() {
    let mut host = web();
    plugged(&mut host, "far", "10.9.0.25/24");
    assert!(!meant(host, "10.9.0.2").unwrap_err().ambiguous);
}

#[test]
fn a_pid_of_one_and_the_name_of_another_are_ambiguous() {
    let mut host = web();
    plugged(&mut host, "1001", "10.0.0.9/24");
    assert!(meant(host, "1001").unwrap_err().ambiguous);
}

#[test]
fn every_identity_of_a_port_means_its_instance() {
    for query in [PORT, "1a2b3c4d-5e", "FA-16-3E-00-00-01", "fa:16:3e:00:00:01", "veth-web-1", "1A2B3C4D"] {
        let mut host = web();
        neutron(host.ovs("br-int", "veth-web-1", ""), PORT, MAC, 1);
        let inner = host.facts.networks[2].links[1].ifindex;
        let key = LinkKey { netns: host.facts.networks[2].netns, ifindex: inner };
        host.mac(key, MAC);
        assert_eq!(meant(host, query).as_deref(), Ok("web-1"), "{query}");
    }
}

/// A router on a VLAN of its own, with the rules of this floating IP or without any.
fn routed(host: &mut Host, id: &str, tag: u16, floating: Option<&str>) {
    let router = host.netns(&[&format!("qrouter-{id}")]);
    let device = format!("qr-{}", &id[..11]);
    let mac = format!("fa:16:3e:00:01:{tag:02x}");
    let inside = host.link(router, &device, Some("tun"));
    host.mac(inside, &mac);
    neutron(host.ovs("br-int", &device, "internal"), id, &mac, tag);
    if let Some(floating) = floating {
        host.rules(
            router,
            &format!(
                "*nat\n:PREROUTING ACCEPT [0:0]\n:neutron-l3-agent-PREROUTING - [0:0]\n\
                 -A PREROUTING -j neutron-l3-agent-PREROUTING\n\
                 -A neutron-l3-agent-PREROUTING -d {floating}/32 -j DNAT --to-destination 10.0.0.2\nCOMMIT\n"
            ),
        );
    }
}

const OTHER_ROUTER: &str = "99cc11bb-22cc-43dd-84ee-00000000000c";

#[test]
fn a_floating_ip_is_not_that_of_another_tenants_instance_with_the_same_fixed_address() {
    let query = "172.24.4.6";
    // `web`, in the dead VLAN, is known to nobody's router; `web-2` is behind the router of another tenant.
    let mut host = web();
    routed(&mut host, ROUTER, 1, Some(query));
    routed(&mut host, OTHER_ROUTER, 2, None);
    neutron(host.ovs("br-int", "veth-web-2", ""), PORT, MAC, 2);
    neutron(host.ovs("br-int", "veth-web", ""), "1a2b3c4d-5e6f-4a1b-8c2d-000000000002", "fa:16:3e:00:00:02", 4095);
    assert_eq!(meant(host, query).as_deref(), Ok("web"));

    // Where nobody else has that address, nobody is meant.
    let mut host = Host::new();
    plugged(&mut host, "web-2", "10.0.0.2/24");
    routed(&mut host, ROUTER, 1, Some(query));
    routed(&mut host, OTHER_ROUTER, 2, None);
    neutron(host.ovs("br-int", "veth-web-2", ""), PORT, MAC, 2);
    let Unresolved { ambiguous, candidates, .. } = meant(host, query).unwrap_err();
    assert!(!ambiguous);
    assert_eq!(candidates[0].by, "fixed IP 10.0.0.2");
}

#[test]
fn a_guest_in_a_wrong_vlan_keeps_the_address_and_the_floating_ip_of_its_network() {
    let mut host = Host::new();
    routed(&mut host, ROUTER, 1, Some("172.24.4.6"));
    let router = host.facts.namespaces[1].id;
    let inside = LinkKey { netns: router, ifindex: IfIndex(2) };
    host.neighbour(inside, "10.0.0.2", "stale");
    host.network(router).neighbours[0].mac = MAC.parse().ok();
    let network = || [("net_uuid".to_owned(), "0a0b0c0d-0000-4000-8000-000000000001".to_owned())].into();
    for port in &mut host.facts.switches[0].bridges[0].ports {
        port.other_config = network();
    }
    host.link(host.id, "tap1a2b3c4d-5e", Some("tun"));
    let card = MachineNic { tap: Some("tap1a2b3c4d-5e".to_owned()), mac: MAC.parse().ok() };
    let name = Some("web".to_owned());
    host.facts.machines.push(MachineFact { pid: 9, name, uuid: None, netns: Some(host.id), nics: vec![card] });
    let port = host.ovs("br-int", "tap1a2b3c4d-5e", "");
    neutron(port, PORT, MAC, 77);
    port.other_config = network();
    assert_eq!(meant(host, "172.24.4.6").as_deref(), Ok("web"));
}

#[test]
fn an_address_is_compared_as_an_address() {
    let mut host = web();
    plugged(&mut host, "six", "2001:db8::5/64");
    assert_eq!(meant(host, "2001:0DB8:0::5").as_deref(), Ok("six"));
}

#[test]
fn what_ip_prints_of_an_address_or_a_device_means_as_much_as_the_bare_word() {
    for (query, name) in
        [("10.0.0.3/24", "web-1"), ("2001:db8::5/128", "six"), ("veth-web-1@if2:", "web-1"), ("veth-web-2:", "web-2")]
    {
        let mut host = web();
        plugged(&mut host, "six", "2001:db8::5/64");
        assert_eq!(meant(host, query).as_deref(), Ok(name), "{query}");
    }
    let mut host = Host::new();
    plugged(&mut host, "10.0.0.3/24", "10.0.0.9/24");
    plugged(&mut host, "web", "10.0.0.3/24");
    assert_eq!(meant(host, "10.0.0.3/24").as_deref(), Ok("10.0.0.3/24"), "a name is what it is");
}

#[test]
fn every_device_of_a_hybrid_plug_means_its_instance() {
    for query in ["tap1a2b3c4d-5e", "qbr1a2b3c4d-5e", "qvb1a2b3c4d-5e", "qvo1a2b3c4d-5e"] {
        let mut host = web();
        host.hybrid_plug("plugged", MAC);
        assert_eq!(meant(host, query).as_deref(), Ok("plugged"), "{query}");
    }
}

#[test]
fn the_inner_name_every_container_has_means_none_of_them() {
    assert!(!meant(web(), "eth0").unwrap_err().ambiguous);
}

#[test]
fn a_typing_mistake_is_offered_what_comes_close_and_nonsense_everything() {
    let (ambiguous, near) = refused("wbe-1");
    assert!(!ambiguous && near.iter().any(|(name, _)| name == "web-1"), "{near:?}");
    assert_eq!(refused("nonsense").1.len(), 3);
    assert_eq!(refused("").1.len(), 3);
}

#[test]
fn hostile_queries_and_names_are_compared_and_nothing_more() {
    for query in ["é", "wé", "we\u{301}b", "\u{1b}[31m", "日本語日本語", &"x".repeat(10_000)] {
        assert!(meant(web(), query).is_err(), "{query:?}");
    }
    let mut host = Host::new();
    plugged(&mut host, "日本語", "10.0.0.2/24");
    assert_eq!(meant(host, "日").as_deref(), Ok("日本語"));
}

#[test]
fn no_more_candidates_are_listed_than_a_screen_holds_and_the_rest_is_counted() {
    let mut host = Host::new();
    for number in 0..CANDIDATES + 5 {
        plugged(&mut host, &format!("web-{number:02}"), "10.0.0.2/24");
    }
    let Unresolved { ambiguous, candidates, total, .. } = meant(host, "web-").unwrap_err();
    assert_eq!((ambiguous, candidates.len(), total), (true, CANDIDATES, CANDIDATES + 5));
}

#[test]
fn what_a_candidate_offers_instead_means_that_candidate() {
    let Unresolved { candidates, .. } = meant(web(), "10.0.0.2").unwrap_err();
    for candidate in candidates {
        assert_eq!(meant(web(), &candidate.unique), Ok(candidate.name));
    }
}

#[test]
fn distance_counts_edits_up_to_two() {
    assert_eq!(distance("web-1", "web-1"), 0);
    assert_eq!(distance("web-1", "wbe-1"), 2);
    assert_eq!(distance("web-1", "web1"), 1);
    assert_eq!(distance("web-1", "database"), 3);
}

#[test]
fn a_published_port_means_the_container_behind_it_however_it_is_written() {
    let published = |number: u16| PublishedPort {
        protocol: "tcp".to_owned(),
        host_address: "0.0.0.0".parse().unwrap(),
        host_port: number,
        container_port: 80,
    };
    for query in ["8080", "8080/tcp", "tcp/8080", "0.0.0.0:8080"] {
        let mut host = web();
        host.facts.containers[1].published = vec![published(8080)];
        host.facts.containers[2].published = vec![published(8081)];
        assert_eq!(meant(host, query).as_deref(), Ok("web-1"), "{query}");
    }
}
