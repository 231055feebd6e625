//! Flows that began past the router and come to it half way: they go on as if it had seen them all along, at full speed too,
//! whatever its rules do with ports and however strictly its connection tracking minds windows.

use std::net::Ipv4Addr;

use netdiag_tests::{
    agent::until,
    floating::{
        FIXED, FLOATING, FloatingHost, OPEN, OUTSIDE, QG, ROUTER,
        bulk::Bulk,
        cases::{CASES, Scene, exchange, observe},
        ends::End,
    },
    require_programs,
};
use rustix::process::Signal;

/// More than any window.
const MUCH: u64 = 32 << 20;
/// The biggest buffers of TCP: windows are told in KiB.
const BUFFERS: &str = "4096\t1048576\t33554432";

/// A host whose router chooses ports at random, and minds windows.
fn enter(test: &str) -> Option<(FloatingHost, End, End)> {
    if !require_programs(&["iptables", "iptables-restore", "conntrack", "tc"]) {
        return None;
    }
    let mut site = FloatingHost::enter(test)?;
    site.random = true;
    site.add_router();
    site.router("sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=0");
    let (instance, outside) = (site.end("instance", FIXED), site.end("outside", OUTSIDE));
    for end in [&instance, &outside] {
        for kind in ["rmem", "wmem"] {
            let set = format!("net.ipv4.tcp_{kind}={BUFFERS}");
            netdiag_tests::floating::ends::command(&end.netns, &["sysctl", "-qw", &set]);
        }
    }
    site.host.policy(OPEN);
    // What has changed must be heard of.
    site.host.start_with(&["--full-pass", "3600"]);
    site.wait_until_fast(FLOATING);
    Some((site, instance, outside))
}

/// What goes on while flows change ways.
struct Traffic {
    bulk: [Bulk; 2],
    /// Datagrams in both directions.
    udp: [(Scene, [std::net::UdpSocket; 2], (u16, u16)); 2],
}

impl Traffic {
    fn start(instance: &End, outside: &End) -> Self {
        let inward = Bulk::start(outside, instance, FLOATING, 7);
        let outward = Bulk::start(instance, outside, OUTSIDE, 8);
        assert_eq!(outward.seen_as.ip(), FLOATING);
        let udp = [
            (Scene::of(outside, instance, FLOATING, OUTSIDE, false), 20_000),
            (Scene::of(instance, outside, OUTSIDE, FLOATING, true), 20_010),
        ];
        let udp = udp.map(|(scene, port): (Scene, u16)| {
            let sockets = [scene.asker.udp(port), scene.answerer.udp(port + 1)];
            (scene, sockets, (port, port + 1))
        });
        let traffic = Self { bulk: [inward, outward], udp };
        traffic.goes_on("before anything happens");
        traffic
    }

    /// All of it goes on: much more comes, unchanged, and datagrams come from and to the ports they always did.
    #[track_caller]
    fn goes_on(&self, what: &str) {
        for (scene, [client, server], ports) in &self.udp {
            exchange(scene, (client, server), *ports);
        }
        for bulk in &self.bulk {
            bulk.goes_on(MUCH, what);
        }
    }
}

/// Packets of the floating IP by way, both directions.
fn packets(site: &FloatingHost, way: &str) -> [u64; 2] {
    ["ingress", "egress"].map(|direction| site.packets(FLOATING, direction, way))
}

/// What the router's devices have sent.
fn routed(site: &FloatingHost) -> u64 {
    site.router(&format!("cat /sys/class/net/{QG}/statistics/tx_packets")).trim().parse().expect("a number")
}

#[test]
fn connections_at_full_speed_go_on_when_all_of_them_comes_to_the_router_and_when_it_goes_past_again() {
    let test = "connections_at_full_speed_go_on_when_all_of_them_comes_to_the_router_and_when_it_goes_past_again";
    let Some((mut site, instance, outside)) = enter(test) else { return };
    let traffic = Traffic::start(&instance, &outside);
    assert!(site.tracked(Some(ROUTER), FLOATING).is_empty(), "the router has seen nothing");
    // Limits of Neutron's: nothing may go past them.
    for round in 0..2 {
        let what = format!("round {round}");
        site.router(&format!("tc qdisc add dev {QG} root handle 1: htb"));
        site.wait_for(FLOATING, "slow", |floating| floating["state"] == "slow");
        let before = routed(&site);
        traffic.goes_on(&format!("{what}, through the router"));
        assert!(routed(&site) > before + 1000, "{what}: it is the router that sends");
        let tracked = site.tracked(Some(ROUTER), FLOATING);
        assert!(tracked.iter().filter(|line| line.starts_with("tcp")).count() >= 2, "{what}: {tracked:#?}");
        site.router(&format!("tc qdisc del dev {QG} root"));
        site.wait_until_fast(FLOATING);
        let before = packets(&site, "fast");
        traffic.goes_on(&format!("{what}, past the router"));
        let after = packets(&site, "fast");
        assert!(after.iter().zip(before).all(|(after, before)| *after > before + 1000), "{what}: {before:?} {after:?}");
    }
    // The same by an agent that is told to leave routers alone; and there they end.
    site.host.end(Signal::TERM);
    site.host.start_with(&["--floating-ips", "off"]);
    until("it leaves the router alone", || site.floating(FLOATING).is_null());
    traffic.goes_on("through the router, for good");
    for bulk in traffic.bulk {
        bulk.end();
    }
    until("the router has seen them end", || {
        let tracked = site.tracked(Some(ROUTER), FLOATING);
        !tracked.iter().any(|line| line.contains("ESTABLISHED"))
    });
}

#[test]
fn connections_at_full_speed_go_on_when_only_what_they_send_comes_to_the_router() {
    let test = "connections_at_full_speed_go_on_when_only_what_they_send_comes_to_the_router";
    let Some((site, instance, outside)) = enter(test) else { return };
    let traffic = Traffic::start(&instance, &outside);
    site.from_outside("sysctl -qw net.ipv4.conf.all.arp_ignore=8");
    site.router(&format!("ip neigh replace 203.0.113.1 dev {QG} nud failed"));
    until("the next hop is lost", || packets(&site, "unresolved-neighbour")[1] > 0);
    // The router finds it again, and nobody says so to the programs.
    site.host.signal(Signal::STOP);
    site.from_outside("sysctl -qw net.ipv4.conf.all.arp_ignore=0");
    let before = routed(&site);
    traffic.goes_on("half of it through the router");
    assert!(routed(&site) > before + 1000, "it is the router that sends");
    site.host.signal(Signal::CONT);
    until("it goes past the router", || {
        let before = packets(&site, "unresolved-neighbour")[1];
        traffic.goes_on("past the router");
        packets(&site, "unresolved-neighbour")[1] == before
    });
    for bulk in traffic.bulk {
        bulk.end();
    }
}

#[test]
fn what_has_options_goes_through_the_router_in_the_middle_of_a_flow_past_it() {
    let test = "what_has_options_goes_through_the_router_in_the_middle_of_a_flow_past_it";
    if !require_programs(&["iptables", "iptables-restore", "conntrack"]) {
        return;
    }
    let Some(mut site) = FloatingHost::enter(test) else { return };
    site.add_router();
    site.host.policy(OPEN);
    site.host.start();
    site.wait_until_fast(FLOATING);
    let case = CASES.iter().find(|case| case.name == "udp with options in the middle").expect("the case");
    let ends: (End, End, Ipv4Addr) = (site.end("instance", FIXED), site.end("outside", OUTSIDE), OUTSIDE);
    let scene = Scene { asker: ends.0, answerer: ends.1, asked: ends.2, seen: FLOATING, outward: true };
    let words = observe(&scene, case, 20_000);
    let with = words.iter().filter(|line| {
        line.starts_with("answerer gets") && line.contains("options [7, 11, 12, 192, 0, 2, 2, 203, 0, 113, 20")
    });
    assert_eq!(with.count(), 1, "{words:#?}");
    assert_eq!(packets(&site, "ip-options"), [0, 1], "{:#}", site.floating(FLOATING));
}
