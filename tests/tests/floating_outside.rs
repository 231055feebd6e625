//! Ways of a floating IP out of the host that the lab has none of: a network with VLANs, and a bridge with nobody behind it but
//! the host itself. What both ends see is the same on the fast way as through the router.

use std::sync::atomic::Ordering;

use netdiag_tests::{
    agent::run,
    floating::{
        FIXED, FLOATING, FloatingHost, OPEN, OUTSIDE, QR,
        bulk::Bulk,
        cases::{REFUSED, Scene, observe},
        ends::{End, command},
        tagged::{self, TAG, VLAN},
    },
    require_programs,
};

fn enter(test: &str) -> Option<FloatingHost> {
    let programs = ["iptables", "iptables-restore", "conntrack", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ethtool"];
    if require_programs(&programs) { FloatingHost::enter(test) } else { None }
}

/// The network of the instance takes smaller packets than the external one.
fn narrow(site: &FloatingHost) {
    for device in ["tap0", "br0"] {
        run(&format!("ip link set {device} mtu 1450"));
    }
    run("ip -n instance link set eth0 mtu 1450");
    site.router(&format!("ip link set {QR} mtu 1450"));
}

/// Everything the slow way and the fast one, and the fast one with checksums and segments left to the hardware.
fn both_ways(site: &FloatingHost, instance: &End, (remote, device): (&End, &str)) {
    let offload = |how: &str| {
        command(&remote.netns, &["ethtool", "-K", device, "tx", how]);
        command(&instance.netns, &["ethtool", "-K", "eth0", "tx", how]);
    };
    // What others quote is to be compared.
    offload("off");
    site.same_both_ways(FLOATING, instance, remote);
    offload("on");
    let before = site.packets(FLOATING, "ingress", "fast");
    for bulk in [Bulk::start(remote, instance, FLOATING, 7), Bulk::start(instance, remote, OUTSIDE, 8)] {
        // However large the segments are that are left to the hardware, these are many.
        bulk.goes_on(20 << 20, "with offloads");
        bulk.end();
    }
    assert!(site.packets(FLOATING, "ingress", "fast") > before + 500);
}

#[test]
fn a_floating_ip_of_a_network_with_a_vlan_does_the_same_both_ways_and_what_has_another_tag_is_not_its() {
    let test = "a_floating_ip_of_a_network_with_a_vlan_does_the_same_both_ways_and_what_has_another_tag_is_not_its";
    let Some(mut site) = enter(test) else { return };
    let wiring = tagged::wire(&mut site);
    narrow(&site);
    site.host.policy(OPEN);
    site.host.start();
    let shown = site.wait_until_fast(FLOATING);
    assert_eq!((shown["device"].as_str(), shown["vlan"].as_u64()), (Some("ext0"), Some(VLAN.into())), "{shown:#}");
    let (instance, outside) = (site.end("instance", FIXED), site.end("outside", OUTSIDE));
    both_ways(&site, &instance, (&outside, "eth0"));
    // Another VLAN, none but a priority, a provider's tag: whatever the switch does with it.
    let scene = Scene { asker: outside, answerer: instance, asked: FLOATING, seen: OUTSIDE, outward: false };
    let counted = || site.floating(FLOATING)["packets"]["ingress"].clone();
    for (number, tag) in (0..).zip([TAG + 1, TAG & 0xffff_f000, TAG ^ (0x8100_0000 ^ 0x88a8_0000)]) {
        wiring.tag.store(tag, Ordering::Relaxed);
        let before = counted();
        let words = observe(&scene, &REFUSED, 30_000 + number * 32);
        let sent = words.iter().filter(|line| line.starts_with("asker sends")).count();
        assert_eq!((sent, words.len()), (3, 3), "tag {tag:x}: {words:#?}");
        assert_eq!(counted(), before, "tag {tag:x}");
    }
}

#[test]
fn what_the_host_itself_sends_and_gets_is_the_same_both_ways_where_its_external_bridge_has_no_card() {
    let test = "what_the_host_itself_sends_and_gets_is_the_same_both_ways_where_its_external_bridge_has_no_card";
    let Some(mut site) = enter(test) else { return };
    for line in [
        "ip link del ext0",
        "ip link add brex type bridge stp_state 0 forward_delay 0",
        "ip addr add 203.0.113.1/24 dev brex",
        "ip link set brex up",
    ] {
        run(line);
    }
    site.build_router(&[(FLOATING, FIXED)]);
    narrow(&site);
    site.host.policy(OPEN);
    site.host.start();
    let shown = site.wait_until_fast(FLOATING);
    assert_eq!(shown["device"], "brex", "{shown:#}");
    let host = End { device: Some("brex"), offload: true, ..End::new("/proc/self/ns/net", OUTSIDE) };
    both_ways(&site, &site.end("instance", FIXED), (&host, "brex"));
}
