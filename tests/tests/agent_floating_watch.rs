//! What changes inside a router's namespace alone, where nothing of the host's does: it is followed, though no look is due.

use netdiag_tests::{
    floating::{FLOATING, FloatingHost, OPEN},
    require_programs,
};

/// What is done in the router, how it is undone, and whether the floating IP is slow or broken meanwhile.
const CHANGES: [(&str, &str, &str); 5] = [
    ("ip addr del 203.0.113.50/32 dev qg-22222222-22", "ip addr add 203.0.113.50/32 dev qg-22222222-22", "broken"),
    ("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1", "broken"),
    ("ip rule add from 192.0.2.2 prohibit", "ip rule del from 192.0.2.2 prohibit", "slow"),
    ("iptables -A FORWARD -p sctp -j DROP", "iptables -D FORWARD -p sctp -j DROP", "slow"),
    ("tc qdisc add dev qg-22222222-22 root handle 1: htb", "tc qdisc del dev qg-22222222-22 root", "slow"),
];

/// A host whose floating IP goes past its router, and whose agent looks at nothing unless something has changed.
fn enter(test: &str) -> Option<FloatingHost> {
    if !require_programs(&["iptables", "iptables-restore", "tc"]) {
        return None;
    }
    let mut site = FloatingHost::enter(test)?;
    site.add_router();
    site.host.policy(OPEN);
    site.host.start_with(&["--full-pass", "3600"]);
    site.wait_until_fast(FLOATING);
    Some(site)
}

#[test]
fn a_change_inside_a_router_alone_is_followed() {
    let Some(site) = enter("a_change_inside_a_router_alone_is_followed") else { return };
    for (change, back, state) in CHANGES {
        site.router(change);
        site.wait_for(FLOATING, change, |floating| floating["state"] == state);
        site.router(back);
        site.wait_until_fast(FLOATING);
    }
}
