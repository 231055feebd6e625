//! What one source saw, with where it saw it. Flow: discover.
//!
//! A fact is as close to the source as a type can be: nothing is joined, guessed or left out here. A source that could
//! not read something says so in a [`Gap`](crate::fact::Gap); it never leaves a silent hole. Text from outside (container names, labels,
//! external ids) is kept as it came and is hostile: views escape it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{IfIndex, Mac, NetnsId};

/// Security groups as they are enforced.
pub mod enforcement;

/// Who saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Namespaces by `/proc/*/ns/net`, `/run/netns`, `/run/docker/netns`.
    Netns,
    /// Links, addresses, neighbours, routes, rules, FDB and VLANs by rtnetlink.
    Netlink,
    /// Sysctls that decide forwarding.
    Sysctl,
    /// TC, TCX and XDP programs.
    Bpf,
    /// iptables (legacy and nft) and nft rules.
    Netfilter,
    /// Open vSwitch by OVSDB.
    Ovsdb,
    /// Docker by its API.
    Docker,
    /// Containers and virtual machines by `/proc`.
    Process,
    /// netdiag's own maps and agent.
    Enforcement,
}

impl SourceKind {
    /// The word used in gaps and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Netlink => "netlink",
            Self::Sysctl => "sysctl",
            Self::Bpf => "bpf",
            Self::Netfilter => "netfilter",
            Self::Ovsdb => "ovsdb",
            Self::Docker => "docker",
            Self::Process => "process",
            Self::Enforcement => "enforcement",
        }
    }
}

/// Something a source could not read. Unknown is not "no": an answer that needed it says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gap {
    /// Who could not read.
    pub source: SourceKind,
    /// The namespace it concerns, where it concerns only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsId>,
    /// What could not be read: `/run/docker.sock`, `iptables-save in net:[4026532201]`.
    pub object: String,
    /// Why, with the errno in words.
    pub why: String,
    /// What the operator can do about it.
    pub fix: String,
    /// True where the thing is simply not there (no Docker on this host), so that nothing is missing from the answer.
    #[serde(default)]
    pub absent: bool,
}

impl Gap {
    /// What the gap of legacy `ebtables` is about. Its tables concern nothing but Linux bridges.
    pub const EBTABLES: &str = "rules of ebtables-legacy";
}

/// How one source fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Who.
    pub source: SourceKind,
    /// How it read: `unix:/run/openvswitch/db.sock`, `rtnetlink in 14 namespaces`.
    pub how: String,
    /// Time it took, in milliseconds.
    pub took_ms: u64,
    /// What it could not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// Everything the sources of one look at a host saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// How each source fared, in the order they finished.
    pub reports: Vec<SourceReport>,
    /// Network namespaces.
    pub namespaces: Vec<NamespaceFact>,
    /// Names under `/run/netns` and the like that lead nowhere.
    pub stale_names: Vec<StaleName>,
    /// What rtnetlink says, one per namespace.
    pub networks: Vec<NetworkFact>,
    /// Open vSwitch, one per OVSDB server.
    pub switches: Vec<SwitchFact>,
    /// Containers of every runtime.
    pub containers: Vec<ContainerFact>,
    /// Docker's networks.
    pub docker_networks: Vec<DockerNetworkFact>,
    /// Virtual machines by their process.
    pub machines: Vec<MachineFact>,
    /// Packet filter rules, one per namespace, backend and family.
    pub rulesets: Vec<RulesetFact>,
    /// ipsets, one per namespace whose rules ask for some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<SetsFact>,
    /// Sysctls, one per namespace.
    pub sysctls: Vec<SysctlFact>,
    /// eBPF programs attached to devices.
    pub programs: Vec<ProgramFact>,
    /// Security groups as netdiag enforces them; none where nothing of it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<enforcement::EnforcementFact>,
}

impl Facts {
    /// Adds what another source saw.
    pub fn merge(&mut self, other: Self) {
        // Taken apart by name, so that a new field cannot be forgotten here.
        let Self {
            reports,
            namespaces,
            stale_names,
            networks,
            switches,
            containers,
            docker_networks,
            machines,
            rulesets,
            sets,
            sysctls,
            programs,
            enforcement,
        } = other;
        self.reports.extend(reports);
        self.namespaces.extend(namespaces);
        self.stale_names.extend(stale_names);
        self.networks.extend(networks);
        self.switches.extend(switches);
        self.containers.extend(containers);
        self.docker_networks.extend(docker_networks);
        self.machines.extend(machines);
        self.rulesets.extend(rulesets);
        self.sets.extend(sets);
        self.sysctls.extend(sysctls);
        self.programs.extend(programs);
        self.enforcement = self.enforcement.take().or(enforcement);
    }

    /// All gaps of all sources.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.reports.iter().flat_map(|report| &report.gaps)
    }
}

// === namespaces ===

/// A network namespace and every way it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceFact {
    /// Identity.
    pub id: NetnsId,
    /// True for the namespace of process 1, which is the host's.
    pub host: bool,
    /// Paths that lead to it, `/proc` not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NamespaceName>,
    /// Processes in it, lowest pid first; of a crowded namespace only the first [`NamespaceFact::PROCESSES_KEPT`]
    /// and [`NamespaceFact::SERVERS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessFact>,
    /// How many processes are in it.
    pub process_count: usize,
    /// Those of them that carry published ports on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<ProxyFact>,
}

impl NamespaceFact {
    /// How many processes of a namespace a fact lists.
    pub const PROCESSES_KEPT: usize = 16;

    /// Processes whose absence says something: the first of each is kept however crowded its namespace.
    pub const SERVERS: [&str; 3] = ["dnsmasq", "haproxy", Self::DOCKER_PROXY];

    /// Command name of Docker's process for a published port.
    pub const DOCKER_PROXY: &str = "docker-proxy";
}

/// A path that leads to a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamespaceName {
    /// `/run/netns/qrouter-…`, `/run/docker/netns/1f0c…`.
    pub path: String,
    /// What lies at the path.
    pub kind: NameKind,
}

/// What lies at a path that names a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameKind {
    /// A bind mount of the namespace, as `ip netns add` makes it.
    Mount,
    /// A symbolic link to `/proc/<pid>/ns/net`, as nova-docker makes it.
    Symlink,
}

/// A name that leads nowhere: a dangling symbolic link, or a file that no namespace is mounted on any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StaleName {
    /// The path.
    pub path: String,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why it leads nowhere, in words.
    pub why: String,
}

/// A process in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessFact {
    /// Its pid, as the reader of `/proc` sees it.
    pub pid: u32,
    /// Its command name (`/proc/<pid>/comm`).
    pub comm: String,
}

/// A `docker-proxy`: it listens on a port of the host and carries what comes there on to a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProxyFact {
    /// Its pid.
    pub pid: u32,
    /// The port, by its command line.
    pub port: PublishedPort,
    /// Address it carries to.
    pub to: IpAddr,
}

// === rtnetlink ===

/// What rtnetlink says of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFact {
    /// The namespace.
    pub netns: NetnsId,
    /// Ids by which this namespace knows others (`RTM_GETNSID`): what `link_netnsid` of its links means.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nsids: BTreeMap<i32, NetnsId>,
    /// Links with their addresses and counters.
    pub links: Vec<LinkFact>,
    /// Neighbour table (ARP and ND).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<NeighbourFact>,
    /// Routes of all tables but `local`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteFact>,
    /// Policy rules (`ip rule`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRuleFact>,
    /// Forwarding databases of bridges and VXLAN devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fdb: Vec<FdbFact>,
    /// VLANs of bridge ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<BridgeVlanFact>,
}

/// One link.
#[expect(clippy::struct_excessive_bools, reason = "they are the kernel's flags, independent of one another")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkFact {
    /// Index.
    pub ifindex: IfIndex,
    /// Name.
    pub name: String,
    /// Alternative names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alt_names: Vec<String>,
    /// `IFLA_INFO_KIND` (`veth`, `bridge`, `tun`, `vxlan` …); none for physical devices and loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// True for loopback devices.
    pub loopback: bool,
    /// MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Operational state.
    pub state: OperState,
    /// `IFF_UP`: somebody switched it on.
    pub admin_up: bool,
    /// `IFF_LOWER_UP`: the driver sees a carrier.
    pub carrier: bool,
    /// `IFF_PROMISC`.
    pub promiscuous: bool,
    /// `IFLA_PROMISCUITY`: how many want all that passes. Packet sockets are counted here and have no flag.
    pub promiscuity: u32,
    /// Bridge, bond, VRF or `ovs-system` it is enslaved to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<IfIndex>,
    /// `IFLA_LINK`: the peer of a veth, the lower device of a VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<IfIndex>,
    /// Namespace of [`LinkFact::link`], as this namespace numbers it; none when it is this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_netnsid: Option<i32>,
    /// What only links of this kind have.
    #[serde(skip_serializing_if = "LinkDetail::is_none")]
    pub detail: LinkDetail,
    /// State as a port of a bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_port: Option<BridgePortFact>,
    /// Root queueing discipline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qdisc: Option<String>,
    /// `ip link set alias`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressFact>,
    /// Counters.
    pub stats: LinkStats,
}

impl Default for IfIndex {
    /// Index 0 is no link.
    fn default() -> Self {
        Self(0)
    }
}

/// `IFLA_OPERSTATE` (RFC 2863 section 3.1.14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperState {
    /// The driver does not say; normal for loopback, TAP and dummy devices.
    #[default]
    Unknown,
    /// Not there.
    NotPresent,
    /// Down.
    Down,
    /// A device below it is down.
    LowerLayerDown,
    /// In a test.
    Testing,
    /// Waiting for something outside, 802.1X say.
    Dormant,
    /// Passes packets.
    Up,
}

impl OperState {
    /// The word iproute2 prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::NotPresent => "NOTPRESENT",
            Self::Down => "DOWN",
            Self::LowerLayerDown => "LOWERLAYERDOWN",
            Self::Testing => "TESTING",
            Self::Dormant => "DORMANT",
            Self::Up => "UP",
        }
    }
}

/// What only links of one kind have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkDetail {
    /// Nothing more.
    #[default]
    None,
    /// A VLAN device.
    Vlan {
        /// VLAN id, 1 to 4094.
        id: u16,
    },
    /// A VXLAN device.
    Vxlan {
        /// VNI.
        vni: u32,
        /// Source address of the outer packet.
        local: Option<IpAddr>,
        /// Group or remote address.
        remote: Option<IpAddr>,
        /// UDP destination port.
        port: u16,
    },
    /// A Linux bridge.
    Bridge {
        /// STP switched on.
        stp: bool,
        /// VLAN filtering switched on.
        vlan_filtering: bool,
        /// Ageing time in seconds; 0 makes it a hub, as Neutron's hybrid plug wants it.
        ageing: u32,
        /// `nf_call_iptables` of this bridge.
        nf_call_iptables: bool,
    },
    /// A TUN or TAP device.
    Tun {
        /// TAP (layer 2) rather than TUN.
        tap: bool,
    },
    /// A macvlan, macvtap or ipvlan device.
    Macvlan {
        /// Mode as iproute2 names it.
        mode: String,
    },
    /// A VRF device.
    Vrf {
        /// Its routing table.
        table: u32,
    },
}

impl LinkDetail {
    /// True where there is nothing more to say.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// A link's state as a port of a bridge.
#[expect(clippy::struct_excessive_bools, reason = "they are the kernel's flags, independent of one another")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgePortFact {
    /// STP state.
    pub state: BridgePortState,
    /// Frames may leave by the port they came in on.
    pub hairpin: bool,
    /// Isolated from other isolated ports.
    pub isolated: bool,
    /// The bridge learns the source addresses of frames that come in by it.
    pub learning: bool,
    /// Frames to an address the bridge does not know leave by it.
    pub flood: bool,
    /// Broadcasts, ARP among them, leave by it.
    pub broadcast_flood: bool,
    /// Only frames from addresses the forwarding database has on this port come in.
    pub locked: bool,
}

impl Default for BridgePortFact {
    /// What the kernel gives a new port (`new_nbp` of `net/bridge/br_if.c`).
    fn default() -> Self {
        Self {
            state: BridgePortState::Disabled,
            hairpin: false,
            isolated: false,
            learning: true,
            flood: true,
            broadcast_flood: true,
            locked: false,
        }
    }
}

/// State of a bridge port, as `bridge link` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BridgePortState {
    /// Passes nothing.
    #[default]
    Disabled,
    /// STP listens.
    Listening,
    /// STP learns.
    Learning,
    /// Passes frames.
    Forwarding,
    /// STP blocks.
    Blocking,
}

impl BridgePortState {
    /// The word `bridge link` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Listening => "listening",
            Self::Learning => "learning",
            Self::Forwarding => "forwarding",
            Self::Blocking => "blocking",
        }
    }
}

/// Counters of a link (`IFLA_STATS64`), in packets and bytes since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Dropped before they were sent.
    pub tx_dropped: u64,
    /// Transmit errors.
    pub tx_errors: u64,
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFact {
    /// Address with the length of its prefix.
    pub address: IpNet,
    /// Scope as iproute2 names it (`global`, `link`, `host`).
    pub scope: String,
    /// Set on an IPv6 address that failed duplicate detection.
    #[serde(default)]
    pub dad_failed: bool,
    /// Set on an IPv6 address that has not passed duplicate detection yet.
    #[serde(default)]
    pub tentative: bool,
}

/// An entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourFact {
    /// Link.
    pub ifindex: IfIndex,
    /// Address asked for.
    pub address: IpAddr,
    /// Its MAC address, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// State as iproute2 names it (`REACHABLE`, `STALE`, `FAILED`, `PERMANENT` …).
    pub state: String,
    /// Seconds since it came into this state; snapshots of before that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// A proxy entry.
    #[serde(default)]
    pub proxy: bool,
}

/// Seconds for which silence of a neighbour says something of the next packet.
///
/// The kernel asks three times, a second apart (`retrans_time_ms`), and then keeps the entry as `FAILED` until something has it
/// collected, which may take for ever; but whoever sends asks anew at once. An answer is believed for 15 to 45 seconds
/// (`base_reachable_time_ms`, by half to one and a half), and what nobody uses is forgotten after 60 (`gc_stale_time`):
/// silence is believed no longer than that.
const SILENCE_COUNTS: u64 = 60;

impl NeighbourFact {
    /// Whether nobody answers for it now: it is being asked, or was a moment ago, in vain. An entry without an age is taken at
    /// its word.
    pub fn is_silent(&self) -> bool {
        match self.state.as_str() {
            "INCOMPLETE" => true,
            "FAILED" => self.age.is_none_or(|age| age < SILENCE_COUNTS),
            _ => false,
        }
    }

    /// Whether it did not answer when it was last asked, which was so long ago that it says little of the next packet.
    pub fn was_silent(&self) -> bool {
        self.state == "FAILED" && !self.is_silent()
    }

    /// How long it has been in its state, in words: `12 seconds`, `3 hours`.
    pub fn age_in_words(&self) -> Option<String> {
        let (number, unit) = match self.age? {
            seconds @ ..60 => (seconds, "second"),
            seconds @ 60..3600 => (seconds / 60, "minute"),
            seconds @ 3600..86_400 => (seconds / 3600, "hour"),
            seconds => (seconds / 86_400, "day"),
        };
        Some(format!("{number} {unit}{}", if number == 1 { "" } else { "s" }))
    }

    /// Whether the kernel sends to a neighbour in this state without waiting for an answer.
    pub fn is_usable_state(state: &str) -> bool {
        matches!(state, "REACHABLE" | "STALE" | "DELAY" | "PROBE" | "PERMANENT" | "NOARP")
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteFact {
    /// Table number; 254 is `main`.
    pub table: u32,
    /// Destination; the default route is `0.0.0.0/0` or `::/0`.
    pub destination: IpNet,
    /// Kind as iproute2 names it (`unicast`, `blackhole`, `unreachable`, `prohibit` …).
    pub kind: String,
    /// Preferred source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Metric; lower wins.
    pub metric: u32,
    /// Scope as iproute2 names it.
    pub scope: String,
    /// Next hops: one, or several for a multipath route, or none for a blackhole.
    pub next_hops: Vec<NextHop>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Gateway; none on a connected route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<IfIndex>,
    /// The kernel found the link down or the gateway dead.
    #[serde(default)]
    pub dead: bool,
    /// `onlink`.
    #[serde(default)]
    pub onlink: bool,
}

/// A policy rule (`ip rule`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRuleFact {
    /// True for an IPv6 rule.
    pub ipv6: bool,
    /// Priority; lower is looked at first.
    pub priority: u32,
    /// Source the rule is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
    /// Destination the rule is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpNet>,
    /// Incoming link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Outgoing link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oif: Option<String>,
    /// Firewall mark and mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<(u32, u32)>,
    /// `not`: the rule is for what does not match.
    #[serde(default)]
    pub inverted: bool,
    /// It asks for more, which is not read: protocol, ports, TOS, user, tunnel, or what a route must not be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conditional: bool,
    /// Action as iproute2 names it (`lookup`, `blackhole`, `unreachable`, `prohibit`, `goto`, `nop`).
    pub action: String,
    /// Table to look up.
    pub table: u32,
}

/// An entry of a forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbFact {
    /// Bridge port or VXLAN device the entry points at.
    pub ifindex: IfIndex,
    /// MAC address.
    pub mac: Mac,
    /// Bridge the entry belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<IfIndex>,
    /// VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Remote tunnel end of a VXLAN entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// A permanent entry: the device's own address or a static one, not a learned one.
    pub permanent: bool,
}

/// A VLAN of a bridge port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeVlanFact {
    /// Bridge port, or the bridge itself.
    pub ifindex: IfIndex,
    /// VLAN id.
    pub vlan: u16,
    /// Untagged frames that come in get this VLAN.
    pub pvid: bool,
    /// Frames of this VLAN leave untagged.
    pub untagged: bool,
}

// === Open vSwitch ===

/// One Open vSwitch, by its OVSDB server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchFact {
    /// Where it was read: `unix:/run/openvswitch/db.sock`.
    pub how: String,
    /// Namespace `ovs-vswitchd` is taken to run in: the reader's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsId>,
    /// Version of Open vSwitch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `Open_vSwitch.external_ids` (`system-id`, `ovn-remote` …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external_ids: BTreeMap<String, String>,
    /// `Open_vSwitch.other_config`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_config: BTreeMap<String, String>,
    /// Managers and whether they are connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managers: Vec<ControllerFact>,
    /// Bridges.
    pub bridges: Vec<OvsBridgeFact>,
}

/// An OpenFlow controller or OVSDB manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ControllerFact {
    /// `tcp:127.0.0.1:6633`, `ptcp:6640:127.0.0.1`.
    pub target: String,
    /// `is_connected`.
    pub connected: bool,
}

/// An Open vSwitch bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OvsBridgeFact {
    /// Name.
    pub name: String,
    /// `system` (kernel) or `netdev` (user space); empty in the database means `system`.
    pub datapath_type: String,
    /// Datapath id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datapath_id: Option<String>,
    /// `secure` or `standalone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_mode: Option<String>,
    /// Controllers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<ControllerFact>,
    /// `external_ids`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub external_ids: BTreeMap<String, String>,
    /// `other_config`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_config: BTreeMap<String, String>,
    /// Number of mirrors.
    pub mirrors: usize,
    /// How many collectors it tells of its packets (`NetFlow`, `sFlow`, `IPFIX`).
    #[serde(skip_serializing_if = "is_none_of_them")]
    pub exports: usize,
    /// Ports.
    pub ports: Vec<OvsPortFact>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it skips by reference")]
const fn is_none_of_them(count: &usize) -> bool {
    *count == 0
}

/// A port of an Open vSwitch bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OvsPortFact {
    /// Name.
    pub name: String,
    /// Local VLAN; none is a trunk of everything unless `trunks` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<u16>,
    /// `access`, `trunk`, `native-tagged`, `native-untagged`, `dot1q-tunnel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_mode: Option<String>,
    /// VLANs of a trunk.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trunks: Vec<u16>,
    /// Exchanges no frames with other protected ports of its bridge.
    pub protected: bool,
    /// `other_config`: Neutron's agent writes `net_uuid`, `network_type`, `physical_network`, `segmentation_id`, `tag`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_config: BTreeMap<String, String>,
    /// `external_ids`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub external_ids: BTreeMap<String, String>,
    /// True where a `QoS` row hangs on the port.
    pub qos: bool,
    /// Type of that row: `linux-noop`, which does nothing, `linux-htb`, `egress-policer` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_type: Option<String>,
    /// Interfaces: one, or several for a bond.
    pub interfaces: Vec<OvsInterfaceFact>,
}

/// An interface of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OvsInterfaceFact {
    /// Name: the name of a device, but for patch and tunnel ports.
    pub name: String,
    /// `Interface.type`: empty (a device of the host), `internal`, `patch`, `vxlan` …
    pub kind: String,
    /// Kernel index; 0 or none for devices in other namespaces and for user-space devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<IfIndex>,
    /// OpenFlow port; -1 where it could not be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ofport: Option<i64>,
    /// MAC address in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_in_use: Option<String>,
    /// `up` or `down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<String>,
    /// `up` or `down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_state: Option<String>,
    /// MTU in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Kilobits a second that come in, at most (`ingress_policing_rate`); none is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policing: Option<u64>,
    /// Why it does not work, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `external_ids`: `iface-id`, `attached-mac`, `iface-status`, `vm-uuid`, `vm-id` …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub external_ids: BTreeMap<String, String>,
    /// `options`: `peer` of a patch port, `remote_ip` and `local_ip` of a tunnel …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// `statistics`: `rx_packets`, `tx_dropped` …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub statistics: BTreeMap<String, u64>,
    /// `status`: `driver_name`, `tunnel_egress_iface` …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<String, String>,
}

// === instances ===

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd without Docker.
    Containerd,
    /// CRI-O.
    Crio,
    /// LXC or LXD.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// Some other: a network namespace of its own and a cgroup that looks like a container's.
    Other,
}

impl Runtime {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Lxc => "lxc",
            Self::Nspawn => "systemd-nspawn",
            Self::Other => "container",
        }
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFact {
    /// Who saw it: [`SourceKind::Docker`] or [`SourceKind::Process`].
    pub source: SourceKind,
    /// Who runs it.
    pub runtime: Runtime,
    /// Its full id.
    pub id: String,
    /// Its name, without Docker's leading slash; none where only `/proc` saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `running`, `paused`, `exited` …
    pub state: String,
    /// Pid of its first process; none when it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its network namespace; none when it does not run or could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsId>,
    /// `none`, `host`, `bridge`, `container:<id>`, a network's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Networks the runtime plugged it into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointFact>,
    /// Published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedPort>,
}

/// A container's place in a Docker network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointFact {
    /// Name of the network.
    pub network: String,
    /// Id of the network.
    pub network_id: String,
    /// Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpNet>,
    /// Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// A port of the host that leads to a port of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address of the host it is published on; `0.0.0.0` and `::` are all of them.
    pub host_address: IpAddr,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the container.
    pub container_port: u16,
}

/// A network of Docker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerNetworkFact {
    /// Full id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `bridge`, `overlay`, `macvlan`, `kuryr` …
    pub driver: String,
    /// The Linux bridge of a bridge network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Subnets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<IpNet>,
    /// Gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Internal networks have no way out.
    #[serde(default)]
    pub internal: bool,
    /// Options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// A virtual machine, by the process that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFact {
    /// Pid of qemu.
    pub pid: u32,
    /// Name of the domain (`-name guest=instance-0000002a`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// UUID (`-uuid`), which is Nova's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Namespace qemu runs in, and with it the taps it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsId>,
    /// Its network cards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<MachineNic>,
}

/// A network card of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MachineNic {
    /// Tap it holds open (`iff:` in `/proc/<pid>/fdinfo`, or `ifname=` on the command line).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// The guest's MAC address (`mac=` of `-device`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

// === packet filter, sysctls, programs ===

/// Which implementation holds rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleBackend {
    /// `iptables-legacy-save -c`, `ip6tables-legacy-save -c`.
    IptablesLegacy,
    /// `iptables-nft-save -c`, `ip6tables-nft-save -c`.
    IptablesNft,
    /// `nft -j list ruleset`; the tables iptables-nft keeps are left out.
    Nft,
}

impl RuleBackend {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Nft => "nft",
        }
    }
}

/// The rules of one namespace in one backend, as the backend's own tool prints them.
///
/// The text is kept, and parsed when an inventory is built, so that an old snapshot gains from a better parser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesetFact {
    /// The namespace.
    pub netns: NetnsId,
    /// Who holds the rules.
    pub backend: RuleBackend,
    /// IPv6 rules; false for IPv4, and for [`RuleBackend::Nft`], whose tables carry their own family.
    pub ipv6: bool,
    /// What the tool printed.
    pub text: String,
}

/// The ipsets of one namespace, as `ipset save` prints them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetsFact {
    /// The namespace.
    pub netns: NetnsId,
    /// What the tool printed.
    pub text: String,
}

/// Sysctls of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlFact {
    /// The namespace.
    pub netns: NetnsId,
    /// Value by name (`net.ipv4.ip_forward`, `net.ipv4.conf.eth0.rp_filter`); those that do not exist are left out.
    pub values: BTreeMap<String, String>,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramHook {
    /// XDP, native, generic or offloaded.
    Xdp,
    /// TCX, frames that come in.
    TcxIngress,
    /// TCX, frames that go out.
    TcxEgress,
    /// clsact or another qdisc's filter, frames that come in.
    TcIngress,
    /// clsact or another qdisc's filter, frames that go out.
    TcEgress,
}

impl ProgramHook {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::TcxIngress => "TCX ingress",
            Self::TcxEgress => "TCX egress",
            Self::TcIngress => "TC ingress",
            Self::TcEgress => "TC egress",
        }
    }
}

/// A program or TC filter attached to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramFact {
    /// The namespace of the device.
    pub netns: NetnsId,
    /// The device.
    pub ifindex: IfIndex,
    /// Where on the device.
    pub hook: ProgramHook,
    /// Id of the eBPF program; none for a filter without one (`u32`, `flower` …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Name of the program or kind of the filter.
    pub name: String,
    /// Priority (`pref`) of a TC filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// How an XDP program is attached; none at the other hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<XdpMode>,
}

/// Where in the receive path an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// In the driver (`xdpdrv`).
    Native,
    /// In the stack, after the driver made an skb (`xdpgeneric`).
    Generic,
    /// In the card (`xdpoffload`).
    Offloaded,
}

impl XdpMode {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        }
    }
}

/// Neutron's metadata address.
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
