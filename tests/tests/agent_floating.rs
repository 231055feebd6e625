//! Floating IPs of an agent, found and its own, on a real kernel with real traffic.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::{
    agent::{PATIENCE, command, names, run},
    floating::{FIXED, FLOATING, FloatingHost, OPEN, OTHER, OUTSIDE, ROUTER},
    require_programs,
};
use rustix::process::Signal;

/// The same with a floating IP of netdiag's own.
fn own(address: Ipv4Addr, port: &str) -> String {
    format!("{OPEN}\nfloatingips:\n  - {{floating_ip_address: {address}, port_id: {port}, device: ext0}}\n")
}

fn enter(test: &str) -> Option<FloatingHost> {
    if !require_programs(&["iptables", "iptables-restore", "conntrack", "ping"]) {
        return None;
    }
    FloatingHost::enter(test)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_of_a_router_goes_past_it_in_both_directions() {
    let Some(mut site) = enter("a_floating_ip_of_a_router_goes_past_it_in_both_directions") else { return };
    site.add_router();
    site.host.policy(OPEN);
    site.host.start();
    site.wait_until_fast(FLOATING);
    assert!(site.pings("outside", FLOATING).await, "{:#}", site.floating(FLOATING));
    let mut inward = site.connect(("outside", "instance"), FLOATING, 7).await;
    assert!(inward.works(PATIENCE));
    let mut outward = site.connect(("instance", "outside"), OUTSIDE, 8).await;
    assert!(outward.works(PATIENCE));
    assert_eq!(outward.seen_as().ip(), FLOATING);
    let udp = site.datagrams(("instance", "outside"), OUTSIDE, 9).await;
    assert_eq!(udp.exchange().unwrap().ip(), FLOATING);
    assert_eq!(site.tracked(Some(ROUTER), FLOATING), Vec::<String>::new(), "the router has seen nothing");
    let floating = site.floating(FLOATING);
    assert!(site.packets(FLOATING, "ingress", "fast") > 8, "{floating:#}");
    assert!(site.packets(FLOATING, "egress", "fast") > 8, "{floating:#}");
    assert_eq!(floating["port_id"], "p1");
}
