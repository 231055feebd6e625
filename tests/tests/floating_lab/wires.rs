//! Other ways out of a host than its network card: a bridge with nobody behind it but the host, a VLAN, a bond.
//!
//! Only the datapath in the kernel lets floating IPs of these be fast, and only some kernels have a bond; where they have not,
//! it is shown that they are slow, and why.

use netdiag_tests::floating::ends::{End, command};

use super::{
    proof::{Proof, Runs},
    stage::{in_kernel, pid},
};

/// The VLAN of the external network.
const VLAN: u16 = 107;
/// What Neutron's agent calls it on br-int.
const TAG: u16 = 2;

/// Fast, and the same both ways; or slow, for a reason that contains these words.
fn shown(proof: &Proof<'_>, runs: &Runs, why: &str) {
    if in_kernel(proof.host.lab, &proof.host.name) {
        proof.wait_until("fast");
        proof.same_both_ways(runs);
        return;
    }
    for floating in &proof.floating {
        proof.host.wait_until_slow(floating.address, why);
    }
}

/// The external bridge has no card, and the host itself is the gateway.
pub(crate) fn by_itself(proof: &mut Proof<'_>, runs: &Runs) {
    proof.host.sh(
        "ovs-vsctl --timeout=30 del-port br-ex eth1 && ip addr add 172.24.4.1/24 dev br-ex && ip link set br-ex up && \
         sysctl -qw net.ipv4.icmp_ratelimit=0",
    );
    let path = format!("/proc/{}/ns/net", pid(proof.host.lab, &proof.host.name));
    let device = Some("br-ex");
    let itself = End { device, offload: true, ..End::new(&path, "172.24.4.1".parse().unwrap()) };
    command(&itself.netns, &["ethtool", "-K", "br-ex", "tx", "off"]);
    for floating in &proof.floating {
        // Its router knows the gateway elsewhere until it hears of this one.
        drop(command(&floating.router, &["ip", "neigh", "flush", "all"]));
        drop(command(&floating.router, &["ping", "-c", "1", "-W", "10", "172.24.4.1"]));
    }
    let others = std::mem::replace(&mut proof.peers, vec![("itself", itself)]);
    shown(proof, runs, "is met at XDP");
    proof.peers = others;
    proof.host.sh("ip addr del 172.24.4.1/24 dev br-ex && ovs-vsctl --timeout=30 add-port br-ex eth1 && \
         for netns in $(ip netns list | grep -o '^qrouter[^ ]*'); do ip netns exec $netns ip neigh flush all; \
         ip netns exec $netns ping -c 1 -W 60 172.24.4.1 || exit 1; done");
}

/// The external network is a VLAN of the bridge's wires, which are a bond where the kernel has bonds.
pub(crate) fn with_a_vlan(proof: &Proof<'_>, runs: &Runs) {
    let kind = proof.host.sh("ovs-vsctl get bridge br-ex datapath_type").trim().to_owned();
    let set = format!("other_config:network_type=vlan other_config:segmentation_id=\"{VLAN}\"");
    let uplink = proof.host.sh(
        "ip link add wire0 type veth peer name wire1 && ethtool -K wire0 tx off >&2 && ip link set wire1 up && \
         if modprobe -q bonding 2> /dev/null; ip link add bond1 type bond mode active-backup miimon 100 2> /dev/null; then \
         ip link set wire0 master bond1 && ip link set bond1 up && echo bond1; \
         else ip link set wire0 up && echo wire0; fi",
    );
    let uplink = uplink.trim();
    proof.host.sh(&format!(
        "ovs-vsctl --timeout=30 del-port br-ex eth1 -- add-port br-ex {uplink} -- add-br br-wire -- \
         set bridge br-wire datapath_type={kind} fail_mode=standalone -- \
         add-port br-wire eth1 tag={VLAN} -- add-port br-wire wire1 trunks={VLAN} && \
         for port in $(ovs-vsctl list-ports br-int | grep ^qg-); do ovs-vsctl set port $port {set} || exit 1; done && \
         ovs-ofctl -O OpenFlow14 add-flow br-ex \
         priority=5,in_port=phy-br-ex,dl_vlan={TAG},actions=set_field:{on_wire}-\\>vlan_vid,NORMAL && \
         ovs-ofctl -O OpenFlow14 add-flow br-int \
         priority=4,in_port=int-br-ex,dl_vlan={VLAN},actions=set_field:{inside}-\\>vlan_vid,resubmit\\(,58\\)",
        on_wire = 0x1000 | VLAN,
        inside = 0x1000 | TAG,
    ));
    shown(proof, runs, "VLAN 107 of the external network cannot be put on frames");
    if in_kernel(proof.host.lab, &proof.host.name) {
        let shown = proof.host.shown(proof.floating[0].address);
        assert_eq!((shown["device"].as_str(), shown["vlan"].as_u64()), (Some(uplink), Some(VLAN.into())), "{shown:#}");
    }
}
