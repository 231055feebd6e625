//! The kernel's reasons to give a packet up, in sentences. Flow: observe.
//!
//! Names are those of `enum skb_drop_reason` without their prefix, and of the subsystems that have reasons of their own. A
//! kernel that knows more, or names it otherwise, is shown in its own words.

use std::net::IpAddr;

use super::packet::{Headers, Transport};

/// What a reason means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The kernel's name.
    pub name: &'static str,
    /// What happened, after "because".
    pub because: &'static str,
    /// What to look at.
    pub advice: &'static str,
}

const fn meaning(name: &'static str, because: &'static str, advice: &'static str) -> Meaning {
    Meaning { name, because, advice }
}

/// What a reason means; none where it is not in the table.
pub fn of(name: &str) -> Option<&'static Meaning> {
    ALL.iter().find(|meaning| meaning.name == name)
}

/// What happened to a packet that was given up for a reason, in a function of the kernel (`do_xdp_generic+0x284`): where the
/// kernel does not say why, or says what is not the whole of it, the place may.
pub fn at(name: &str, location: Option<&str>) -> Option<&'static Meaning> {
    let function = location.and_then(|location| location.split('+').next());
    let told = PLACES.iter().find(|(said, place, _)| name == *said && function == Some(place));
    told.map(|(_, _, meaning)| meaning).or_else(|| of(name))
}

/// What the kernel says where it does not say why.
pub(super) const UNCLEAR: &str = "NOT_SPECIFIED";

/// Reasons that say nothing, or something else, where a function gives packets up for them, and what has happened there.
const PLACES: [(&str, &str, Meaning); 5] = [
    // The verdict of a program in generic XDP (`net/core/dev.c`); the compiler may put the second into the first.
    (UNCLEAR, "do_xdp_generic", XDP),
    (UNCLEAR, "netif_receive_generic_xdp", XDP),
    // What a program sends nowhere (`net/core/filter.c`), as netdiag's does at TC egress with what it refuses.
    (
        UNCLEAR,
        "skb_do_redirect",
        meaning(UNCLEAR, "a BPF program sent it to no device, which is to drop it", "bpftool net"),
    ),
    // The answer to a SYN cookie is right, and no connection is made of it (`net/ipv4/syncookies.c`): there is a listener.
    (NOBODY, "cookie_v4_check", LISTENER),
    (NOBODY, "cookie_v6_check", LISTENER),
];

/// What the kernel says where no socket takes a packet.
const NOBODY: &str = "NO_SOCKET";

const LISTENER: Meaning = meaning(
    "TCP_LISTEN_OVERFLOW",
    "the listener's queue is full",
    "see whether the application accepts: ss -tln, and nstat -az TcpExtListenOverflows; net.core.somaxconn",
);

const XDP: Meaning = meaning("XDP", "an XDP program dropped it", "bpftool net");

impl Meaning {
    /// Whether a packet that came to its end may be given up so without any harm.
    pub fn is_harmless(&self) -> bool {
        self.advice.starts_with("harmless")
    }
}

/// Whether a packet that was given up is what is left of one that has come to where it was going.
pub(super) fn is_left_over((name, location): (&str, Option<&str>), headers: &Headers) -> bool {
    is_part(name, location) || is_copied_answer(name, headers)
}

/// Fragments that were put together, and segments, end with the whole they are part of (`skb_release_data` of `net/core/skbuff.c`). Had
/// that been given up, it would be told of itself, and its parts with its reason.
fn is_part(name: &str, location: Option<&str>) -> bool {
    name == UNCLEAR && location.is_some_and(|location| location.starts_with("skb_release_data"))
}

/// Answers to pings are given to raw sockets, which is what most programs ping with, and then looked for sockets of another kind
/// (`ping_rcv` of `net/ipv4/ping.c`).
fn is_copied_answer(name: &str, headers: &Headers) -> bool {
    let Some(ip) = headers.innermost().ip() else { return false };
    let Transport::Icmp(icmp) = &ip.transport else { return false };
    name == "NO_SOCKET" && matches!((ip.source, icmp.kind), (IpAddr::V4(_), 0) | (IpAddr::V6(_), 129))
}

/// What the trace finds where the kernel has this reason to give packets up: codes of its findings.
pub fn findings(name: &str) -> &'static [&'static str] {
    match name {
        "OTHERHOST" => &["wrong-neighbour", "mac-mismatch"],
        "NEIGH_FAILED" => &["next-hop-silent", "gateway-silent"],
        "PKT_TOO_BIG" => &["mtu-mismatch"],
        "DEV_READY" | "QDISC_DROP" => &["link-down"],
        "IP_INADDRERRORS" => &["forwarding-off"],
        "IP_INNOROUTES" | "IP_OUTNOROUTES" => &["no-route", "no-default-route", "route-refuses", "no-route-back"],
        "IP_RPFILTER" => &["rp-filter", "no-route-back"],
        _ => &[],
    }
}

/// Reasons that are there, each once.
pub const ALL: &[Meaning] = &[
    // Filters and programs.
    meaning("NETFILTER_DROP", "a rule of the packet filter dropped it", "see the rules of this namespace"),
    meaning("BPF_CGROUP_EGRESS", "an eBPF program of its process's cgroup refused it", "bpftool cgroup tree"),
    XDP,
    meaning(
        "TC_INGRESS",
        "a TC filter or program dropped it as it came in",
        "tc filter show dev … ingress; bpftool net",
    ),
    meaning(
        "TC_EGRESS",
        "a TC filter or program dropped it as it went out",
        "tc filter show dev … egress; bpftool net",
    ),
    meaning("SOCKET_FILTER", "a filter on the receiving socket refused it", "ss -0 -b; ss -tulpne"),
    // Nobody is there.
    meaning("NO_SOCKET", "nobody listens there", "see whether the service runs and listens on this address and port"),
    meaning("TCP_CLOSE", "its connection is closed already", "ss -ti"),
    meaning("TCP_RESET", "its connection was reset", "see who sent the reset"),
    meaning("TCP_OLD_DATA", "it was received already", "harmless: a retransmission that came late"),
    meaning("TCP_OLD_ACK", "its acknowledgement is an old one", "harmless: packets overtook each other"),
    meaning("TCP_OLD_SEQUENCE", "its sequence number is an old one", "harmless: packets overtook each other"),
    meaning(
        "TCP_INVALID_SEQUENCE",
        "its sequence number fits no connection",
        "see whether both ways pass the same firewall",
    ),
    meaning("TCP_FLAGS", "its TCP flags make no sense here", "see what its sender is"),
    meaning("TCP_ZEROWINDOW", "the receiver has no room", "see whether the application reads"),
    LISTENER,
    meaning(
        "SOCKET_RCVBUFF",
        "the receiving socket's buffer is full",
        "see whether the application reads; net.core.rmem_max",
    ),
    meaning("QUEUE_PURGE", "its socket was closed before anybody read it", "harmless: whoever was to read it is gone"),
    meaning("SOCKET_CLOSE", "its socket was closed", "harmless: whoever was to read it is gone"),
    meaning("SOCKET_BACKLOG", "the receiving socket's backlog is full", "see whether the application reads"),
    meaning("PROTO_MEM", "the memory of its protocol is used up", "net.ipv4.tcp_mem, net.ipv4.udp_mem"),
    meaning("UNICAST_IN_L2_MULTICAST", "a packet for one came in a frame for many", "see who sends it"),
    // Routes.
    meaning(
        "IP_INNOROUTES",
        "there is no route for it, or routing is switched off",
        "ip route get …; sysctl net.ipv4.ip_forward",
    ),
    meaning(
        "IP_INADDRERRORS",
        "it is for an address this namespace neither has nor forwards to",
        "sysctl net.ipv4.ip_forward; ip route get …",
    ),
    meaning("IP_OUTNOROUTES", "there is no route to its destination", "ip route get …"),
    meaning(
        "IP_RPFILTER",
        "it came by a device by which its sender is not reached (reverse path filter)",
        "ip route get …; sysctl net.ipv4.conf.….rp_filter",
    ),
    meaning("IP_LOCALNET", "a loopback address came from outside", "see who sends from 127.0.0.0/8"),
    meaning(
        "IP_LOCAL_SOURCE",
        "its source is an address of this namespace itself",
        "see whether two machines have one address",
    ),
    meaning("IP_INVALID_SOURCE", "its source address is none that may send", "see its sender's addresses"),
    meaning("IP_INVALID_DEST", "its destination address is none that may receive", "see its sender's routes"),
    meaning("IPV6DISABLED", "IPv6 is switched off here", "sysctl net.ipv6.conf.….disable_ipv6"),
    meaning(
        "NEIGH_FAILED",
        "the next hop does not answer ARP or ND",
        "see whether the next hop is up and on this segment",
    ),
    meaning(
        "NEIGH_QUEUEFULL",
        "too many packets wait for the next hop's answer to ARP or ND",
        "see whether the next hop is up",
    ),
    meaning("NEIGH_CREATEFAIL", "the neighbour table is full", "sysctl net.ipv4.neigh.default.gc_thresh3"),
    meaning("NEIGH_DEAD", "the entry of the next hop is gone", "ip neigh"),
    meaning("ARP_PVLAN_DISABLE", "ARP proxying is switched off for it", "sysctl net.ipv4.conf.….proxy_arp_pvlan"),
    // Sizes and headers.
    meaning(
        "PKT_TOO_BIG",
        "it is bigger than the next device takes and may not be split",
        "compare the MTUs along the path",
    ),
    meaning("PKT_TOO_SMALL", "it is shorter than its headers say", "see its sender"),
    meaning("FRAG_TOO_FAR", "its fragments were too far apart", "see whether fragments are lost on the way"),
    meaning(
        "FRAG_REASM_TIMEOUT",
        "its other fragments did not come in time",
        "see whether fragments are lost on the way",
    ),
    meaning("DUP_FRAG", "one of its fragments came twice", "see its sender"),
    meaning("IP_INHDR", "its IP header is damaged", "see its sender"),
    meaning("IP_CSUM", "the checksum of its IP header is wrong", "see checksum offload on its way: ethtool -k"),
    meaning("TCP_CSUM", "its TCP checksum is wrong", "see checksum offload on its way: ethtool -k"),
    meaning("UDP_CSUM", "its UDP checksum is wrong", "see checksum offload on its way: ethtool -k"),
    meaning("ICMP_CSUM", "its ICMP checksum is wrong", "see checksum offload on its way: ethtool -k"),
    meaning("SKB_CSUM", "its checksum could not be worked out", "see checksum offload on its way: ethtool -k"),
    meaning("SKB_GSO_SEG", "it could not be cut into segments", "see segmentation offload: ethtool -k"),
    meaning("IP_NOPROTO", "nobody here knows its protocol", "see what its sender wants"),
    meaning("UNHANDLED_PROTO", "nobody here takes frames of its kind", "see what its sender wants"),
    meaning("HDR_TRUNC", "it ends inside its headers", "see its sender"),
    // Devices and queues.
    meaning(
        "OTHERHOST",
        "its frame is for another MAC address",
        "compare its destination with the device's address; ip neigh at its sender",
    ),
    meaning("DEV_READY", "the device is down", "ip link"),
    meaning("DEV_HDR", "no frame could be made for it", "ip link; ip neigh"),
    meaning("QDISC_DROP", "a queueing discipline dropped it: its queue is full, or a limit was reached", "tc -s qdisc"),
    meaning("QDISC_OVERLIMIT", "a queueing discipline's queue is full", "tc -s qdisc"),
    meaning("QDISC_CONGESTED", "a queueing discipline dropped it to slow its sender down", "tc -s qdisc"),
    meaning("CPU_BACKLOG", "the queue of a CPU is full", "sysctl net.core.netdev_max_backlog; /proc/net/softnet_stat"),
    meaning(
        "FULL_RING",
        "the queue of a device is full: its reader is too slow",
        "see whether the virtual machine or process behind it runs",
    ),
    meaning("TAP_FILTER", "a filter of the TAP refused it", "see the virtual machine's network card"),
    meaning("TAP_TXFILTER", "the TAP does not take this destination address", "see the virtual machine's network card"),
    meaning("NOMEM", "there was no memory for it", "free; dmesg"),
    meaning("TUNNEL_TXINFO", "it was to go into a tunnel without saying which", "see the tunnel's configuration"),
    meaning("LOCAL_MAC", "it came from a MAC address of this host itself", "see whether the network has a loop"),
    meaning("VXLAN_VNI_NOT_FOUND", "nobody here has the network of its VNI", "compare VNIs on both hosts"),
    meaning("VXLAN_INVALID_HDR", "its VXLAN header is damaged", "see its sender"),
    meaning("VXLAN_ENTRY_EXISTS", "its sender's address belongs to another port", "bridge fdb"),
    meaning("VXLAN_NO_REMOTE", "nobody knows which host has its destination", "bridge fdb show"),
    meaning("BRIDGE_INGRESS_STP_STATE", "the bridge port is blocked", "bridge link"),
    meaning("MAC_INVALID_SOURCE", "its source MAC address is none that may send", "see its sender"),
    // Open vSwitch in the kernel.
    meaning(
        "OVS_DROP_LAST_ACTION",
        "the flow that matches it has no action left: it says drop",
        "ovs-appctl ofproto/trace",
    ),
    meaning("OVS_DROP_EXPLICIT", "the flow that matches it says drop", "ovs-appctl ofproto/trace"),
    meaning(
        "OVS_DROP_EXPLICIT_WITH_ERROR",
        "the flow that matches it says drop because of an error",
        "ovs-appctl ofproto/trace",
    ),
    meaning("OVS_DROP_ACTION_ERROR", "an action of its flow failed", "ovs-appctl dpctl/show -s; ovs-vswitchd's log"),
    meaning("OVS_DROP_METER", "a meter of Open vSwitch limits it", "ovs-ofctl dump-meters"),
    meaning("OVS_DROP_RECURSION_LIMIT", "its flows recirculate too often", "ovs-appctl ofproto/trace"),
    meaning("OVS_DROP_DEFERRED_LIMIT", "Open vSwitch had too many actions waiting", "ovs-appctl dpctl/show -s"),
    meaning("OVS_DROP_FRAG_L2_TOO_LONG", "it is too long for its output port", "compare MTUs"),
    meaning("OVS_DROP_CONNTRACK", "connection tracking in Open vSwitch failed", "ovs-appctl dpctl/dump-conntrack"),
    meaning("OVS_DROP_IP_TTL", "its TTL ran out in Open vSwitch", "see whether it runs in a circle"),
    meaning("OVS_DROP_FRAG_INVALID_PROTO", "Open vSwitch cannot split packets of its protocol", "see its sender"),
    // The kernel says no more.
    meaning(UNCLEAR, "the kernel does not say why", "see where it was given up"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{ALL, at, of};

    #[test]
    fn the_place_says_what_the_kernel_does_not_and_nothing_against_it() {
        let because = |name, location| at(name, location).map(|meaning| meaning.because);
        let xdp = of("XDP").map(|meaning| meaning.because);
        assert_eq!(because("NOT_SPECIFIED", Some("do_xdp_generic+0x284")), xdp);
        assert_eq!(because("NO_SOCKET", Some("do_xdp_generic+0x284")), of("NO_SOCKET").map(|it| it.because));
        let full = of("TCP_LISTEN_OVERFLOW").map(|meaning| meaning.because);
        assert_eq!(because("NO_SOCKET", Some("cookie_v4_check+0x4e5")), full, "somebody listens there");
        assert_eq!(because("NO_SOCKET", Some("tcp_v4_rcv+0x91")), of("NO_SOCKET").map(|it| it.because));
        for location in [Some("ip_rcv+0x1"), Some("do_xdp_generic_of_mine+0x1"), Some(""), None] {
            assert_eq!(because("NOT_SPECIFIED", location), of("NOT_SPECIFIED").map(|it| it.because), "{location:?}");
        }
        let refused = because("NOT_SPECIFIED", Some("skb_do_redirect+0xd6"));
        assert!(refused.is_some_and(|because| because.contains("BPF program")), "{refused:?}");
    }

    #[test]
    fn every_reason_is_there_once_and_says_what_happened_and_what_to_look_at() {
        let names: BTreeSet<&str> = ALL.iter().map(|meaning| meaning.name).collect();
        assert_eq!(names.len(), ALL.len());
        for meaning in ALL {
            assert!(!meaning.because.is_empty() && !meaning.advice.is_empty(), "{}", meaning.name);
            assert!(!meaning.because.ends_with('.'), "{}", meaning.name);
        }
    }
}
