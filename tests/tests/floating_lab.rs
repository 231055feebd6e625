//! Floating IPs of whole hosts, with peers outside of them: what a packet meets on the fast way is what it meets on the slow
//! one. Every case runs the slow way first; what both ends have seen then must be the same the fast way.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{net::Ipv4Addr, thread};

use netdiag_tests::{
    Lab,
    floating::{
        cases::{REFUSED, observe},
        ends::{End, command},
    },
};

/// What makes floating IPs slow that were fast.
#[path = "floating_lab/hindrances.rs"]
mod hindrances;
/// The slow way, then the fast one.
#[path = "floating_lab/proof.rs"]
mod proof;
/// Hosts, and who talks to them.
#[path = "floating_lab/stage.rs"]
mod stage;
/// Other ways out of a host.
#[path = "floating_lab/wires.rs"]
mod wires;

use proof::{Proof, Runs, between_hosts};
use stage::{Floating, Host, Plain, address, found, peer, pid, plain, policy, up};

/// The whole proof of a host all of whose floating IPs are fast.
fn prove(proof: &Proof<'_>, first: u16) {
    let runs = Runs::from(first);
    proof.same_both_ways(&runs);
    proof.closed_both_ways(&runs, &proof.closed());
}

#[test]
fn floating_ips_of_a_router_beside_open_vswitch_do_the_same_both_ways() {
    let Some(lab) = up("neutron-ovs") else { return };
    let mut proof = Proof::start(&lab, "compute-1");
    assert_eq!(proof.floating.len(), 3);
    // Its instance is on the other host.
    proof.host.wait_until_slow(Ipv4Addr::new(172, 24, 4, 9), "on this host has 10.0.0.5");
    let runs = Runs::from(18_000);
    hindrances::limited(&proof, &runs, "qg-");
    hindrances::mirrored(&proof, &runs);
    hindrances::highly_available(&proof);
    hindrances::forwarded(&proof);
    prove(&proof, 20_000);
    proof.open(&runs);
    wires::by_itself(&mut proof, &Runs::from(1_200));
    wires::with_a_vlan(&proof, &Runs::from(7_300));
}

#[test]
fn floating_ips_of_distributed_routers_do_the_same_both_ways_on_every_host() {
    let Some(lab) = up("dvr") else { return };
    let proofs = ["compute-1", "compute-2"].map(|name| Proof::start(&lab, name));
    between_hosts([&proofs[0], &proofs[1]], &Runs::from(17_000));
    let runs = Runs::from(19_500);
    hindrances::limited(&proofs[0], &runs, "rfp-");
    thread::scope(|scope| {
        for (proof, first) in proofs.iter().zip([20_000, 27_000]) {
            assert!(!proof.floating.is_empty(), "{}", proof.host.name);
            scope.spawn(move || prove(proof, first));
        }
    });
}

#[test]
fn floating_ips_of_virtual_machines_do_the_same_both_ways() {
    let Some(lab) = up("vm") else { return };
    let proof = Proof::start(&lab, "compute-1");
    assert_eq!(proof.floating.len(), 3);
    prove(&proof, 20_000);
}

#[test]
fn floating_ips_behind_a_bridge_for_each_port_do_the_same_both_ways() {
    let Some(lab) = up("hybrid") else { return };
    let (floating, plain) = (found(&lab, "compute-1"), plain(&lab, "compute-1"));
    let host = Host::start(&lab, "compute-1", &policy(&floating, &plain, true));
    let peers = ["neighbour", "outside"].map(|name| peer(&lab, name)).into();
    let proof = Proof { host, peers, floating, plain };
    assert_eq!(proof.floating.len(), 3);
    let refused = Runs::from(19_000);
    // Neutron's own groups are rules of iptables on the bridges; netdiag's are open.
    for floating in &proof.floating {
        proof.host.wait_until_slow(floating.address, "iptables of this host filters what bridge qbr");
        let words = observe(&proof.scenes(floating)[0].1, &REFUSED, refused.base());
        let arrived = words.iter().filter(|line| line.starts_with("answerer gets") && line.contains(" udp "));
        assert_eq!(arrived.count(), 0, "Neutron's groups refuse it: {words:#?}");
    }
    // What is left of them when Neutron filters nothing itself.
    proof.host.sh("for table in filter raw; do iptables -t $table -F && iptables -t $table -X || exit 1; done");
    proof.wait_until("fast");
    prove(&proof, 20_000);
}

// === a host without a router ===

/// The policy of a container with a floating IP of netdiag's own, and of one beside it that has none.
fn own((floating, device): (&Floating, &str), (other, beside): (&Floating, &str), open: bool) -> String {
    let Floating { address, port, .. } = floating;
    let bound = policy(&[floating.clone(), other.clone()], &[], open);
    let bind = |text: String, port: &str, device: &str| {
        text.replace(&format!("id: {port},"), &format!("id: {port}, binding: {{device: {device}}},"))
    };
    let bound = bind(bind(bound, port, device), &other.port, beside);
    format!("{bound}floatingips:\n  - {{floating_ip_address: {address}, port_id: {port}, device: eth1}}\n")
}

/// A container of plain Docker.
fn container(lab: &Lab, host: &str, name: &str) -> (Floating, String) {
    let first = pid(lab, host);
    let containers = lab.built["containers"].as_array().unwrap();
    let web = containers.iter().find(|container| container["name"] == name).unwrap();
    let path = format!("/proc/{first}/root/proc/{}/ns/net", web["pid"]);
    let instance = End { offload: true, ..End::new(&path, address(&web["nics"][0]["address"]["address"])) };
    let floating = Floating {
        address: Ipv4Addr::new(172, 24, 4, 50),
        instance,
        port: name.into(),
        router: End::new(&format!("/proc/{first}/ns/net"), Ipv4Addr::UNSPECIFIED).netns,
        router_name: "host".into(),
        has_metadata: false,
    };
    (floating, web["nics"][0]["host_device"].as_str().unwrap().to_owned())
}

#[test]
fn a_floating_ip_of_a_container_of_plain_docker_does_the_same_both_ways() {
    let Some(lab) = up("docker") else { return };
    let name = lab.hosts().remove(0);
    let (floating, device) = container(&lab, &name, "web-2");
    // The host is in the external network, and that is its way to everybody. Its card finishes checksums, as a real one does.
    lab.sh(&name, "ip addr add 172.24.4.10/24 dev eth1 && ip route replace default via 172.24.4.1").ok();
    command(&floating.router, &["ethtool", "-K", "eth1", "tx", "off"]);
    let (beside, device_beside) = container(&lab, &name, "web-1");
    let (of_it, of_other) = ((&floating, device.as_str()), (&beside, device_beside.as_str()));
    let host = Host::start(&lab, &name, &own(of_it, of_other, true));
    let peers = ["neighbour", "outside"].map(|name| peer(&lab, name)).into();
    // Docker has a second network, for which it has rules as well.
    assert!(host.sh("iptables-save -t nat").contains("-A POSTROUTING -s 172.20.0.0/16"));
    host.wait_for(floating.address, "fast");
    let closed = own(of_it, of_other, false);
    let plain = Plain {
        instance: beside.instance.clone(),
        port: beside.port.clone(),
        router_name: "host".into(),
        gateway: Ipv4Addr::new(172, 24, 4, 10),
        inside: Ipv4Addr::new(172, 17, 0, 1),
    };
    let proof = Proof { host, peers, floating: vec![floating.clone()], plain: vec![plain] };
    let runs = Runs::from(20_000);
    proof.is_straight(&runs);
    proof.same_both_ways(&runs);
    proof.closed_both_ways(&runs, &closed);
}
