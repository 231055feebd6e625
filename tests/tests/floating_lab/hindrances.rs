//! What Neutron does to a router that makes its floating IPs slow, and what it undoes again.

use std::net::Ipv4Addr;

use netdiag_agent::netns::Namespace;
use netdiag_tests::floating::ends::within;

use super::{
    proof::{Proof, Runs},
    stage::Floating,
};

/// Runs a line of shell in a namespace.
fn sh(netns: &Namespace, line: &str) -> String {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("set -e; {line}")]);
    let output = within(netns, move || shell.output()).unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A device of a namespace whose name begins so.
fn device(netns: &Namespace, start: &str) -> String {
    let shown = sh(netns, &format!("ip -o link | cut -d: -f2 | tr -d ' ' | cut -d@ -f1 | grep '^{start}'"));
    shown.lines().next().unwrap().to_owned()
}

/// A limit (`fip_qos`) of a floating IP as Neutron's L3 agent sets it up on the device outside, each direction by itself.
pub(crate) fn limited(proof: &Proof<'_>, runs: &Runs, start: &str) {
    let floating = &proof.floating[0];
    let outer = device(&floating.router, start);
    let filter = |parent: &str, end: &str| {
        let filter = format!(
            "tc filter add dev {outer} parent {parent} protocol ip prio 1 u32 match ip {end} {}/32",
            floating.address
        );
        // A kernel may have no policing; that somebody looks for the address is enough.
        format!("{filter} police rate 1000kbit burst 800kb drop flowid :1 || {filter} flowid :1")
    };
    let egress = format!("tc qdisc add dev {outer} root handle 1: htb; {}", filter("1:", "src"));
    let ingress = format!("tc qdisc add dev {outer} ingress; {}", filter("ffff:", "dst"));
    for (set, why, remove) in [
        (egress, format!("{outer} of {} has the queueing discipline htb", floating.router_name), "root"),
        (ingress, format!("at TC ingress of {outer} of {}", floating.router_name), "ingress"),
    ] {
        sh(&floating.router, &set);
        proof.host.wait_until_slow(floating.address, &why);
        proof.is_routed(floating, runs, &why);
        sh(&floating.router, &format!("tc qdisc del dev {outer} {remove}"));
        proof.host.wait_for(floating.address, "fast");
    }
}

/// A mirror of a bridge, which sees everything that goes over it.
pub(crate) fn mirrored(proof: &Proof<'_>, runs: &Runs) {
    for bridge in ["br-int", "br-ex"] {
        proof.host.sh(&format!(
            "ovs-vsctl --timeout=30 add-port {bridge} copies -- set interface copies type=internal -- \
             --id=@port get port copies -- --id=@all create mirror name=all select-all=true output-port=@port -- \
             set bridge {bridge} mirrors=@all"
        ));
        let why = format!("bridge {bridge} has a mirror, which has to see its packets");
        for floating in &proof.floating {
            proof.host.wait_until_slow(floating.address, &why);
        }
        proof.is_routed(&proof.floating[0], runs, &why);
        proof.host.sh(&format!("ovs-vsctl --timeout=30 clear bridge {bridge} mirrors -- del-port copies"));
        proof.wait_until("fast");
    }
}

/// A highly available router as the active one of the pair, then as the other, then as the active one again.
pub(crate) fn highly_available(proof: &Proof<'_>) {
    let floating = &proof.floating[0];
    let outer = device(&floating.router, "qg-");
    let of_it = |other: &&Floating| other.router_name == floating.router_name;
    let addresses = sh(&floating.router, &format!("ip -o -4 addr show dev {outer} | awk '{{print $4}}'"));
    let route = sh(&floating.router, "ip route show default");
    sh(
        &floating.router,
        "ip link add ha-0a1b2c3d-4e type veth peer name other; ip addr add 169.254.192.5/18 dev ha-0a1b2c3d-4e",
    );
    sh(&floating.router, "ip link set ha-0a1b2c3d-4e up");
    for other in proof.floating.iter().filter(of_it) {
        proof.host.wait_for(other.address, "fast");
    }
    // keepalived takes the addresses away, and the rules stay.
    sh(&floating.router, &format!("ip addr flush dev {outer}"));
    for other in proof.floating.iter().filter(of_it) {
        proof.host.wait_until_slow(other.address, "is on standby: the active router is on another host");
    }
    for address in addresses.split_whitespace() {
        sh(&floating.router, &format!("ip addr add {address} dev {outer}"));
    }
    sh(
        &floating.router,
        &format!(
            "ip route replace {}; for i in 1 2 3 4 5 6; do ping -c 1 -W 10 172.24.4.1 && break; [ $i -lt 6 ]; done",
            route.trim()
        ),
    );
    for other in proof.floating.iter().filter(of_it) {
        proof.host.wait_for(other.address, "fast");
    }
    sh(&floating.router, "ip link del ha-0a1b2c3d-4e");
}

/// Port forwarding as Neutron's L3 agent writes it: one port of an address that has no other rules.
pub(crate) fn forwarded(proof: &Proof<'_>) {
    let address = Ipv4Addr::new(172, 24, 4, 60);
    let plain = &proof.plain[0];
    let router = &proof.floating[0].router;
    let outer = device(router, "qg-");
    let fixed = plain.instance.address;
    sh(
        router,
        &format!(
            "iptables -t nat -N neutron-l3-agent-fip-pf; iptables -t nat -N neutron-l3-agent-pf-0a1b2c3d; \
             iptables -t nat -A neutron-l3-agent-PREROUTING -j neutron-l3-agent-fip-pf; \
             iptables -t nat -A neutron-l3-agent-fip-pf -j neutron-l3-agent-pf-0a1b2c3d; \
             iptables -t nat -A neutron-l3-agent-pf-0a1b2c3d -d {address}/32 -p tcp -m tcp --dport 2222 -j DNAT --to-destination {fixed}:22; \
             ip addr add {address}/32 dev {outer}"
        ),
    );
    proof.host.wait_until_slow(address, "port forwarding");
    // The others of the router go past it all the same.
    for way in ["slow", "fast"] {
        proof.host.all(way);
        proof.wait_until(way);
        proof.is_forwarded((address, 2222), &plain.instance, 22);
    }
    sh(
        router,
        &format!(
            "ip addr del {address}/32 dev {outer}; iptables -t nat -D neutron-l3-agent-PREROUTING -j neutron-l3-agent-fip-pf; \
             iptables -t nat -F neutron-l3-agent-fip-pf; iptables -t nat -F neutron-l3-agent-pf-0a1b2c3d; \
             iptables -t nat -X neutron-l3-agent-pf-0a1b2c3d; iptables -t nat -X neutron-l3-agent-fip-pf"
        ),
    );
}
