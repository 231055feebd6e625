//! The paths of one instance, hop by hop. Flow: explain.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    fact::{Gap, LinkStats, PublishedPort, RuleBackend},
    floating::show,
    groups::Summary,
    id::{Mac, NetnsId, Uuid},
    inventory::instance::GONE,
    netfilter::RuleCounters,
};

/// Linux bridges on a path.
mod bridge;
/// What is different between two looks.
pub mod changes;
/// Read-only commands that show the same by hand.
mod command;
/// Security groups that netdiag itself enforces.
mod enforcement;
/// The whole explanation of one instance.
mod explain;
/// Packet filter rules on a path.
mod filter;
/// Floating IPs that go past bridge and router.
mod floating;
/// The hops inside the instance.
mod inside;
/// The way in, from a floating IP or a published port.
mod inward;
/// Every instance on one page.
mod listing;
/// The way out, from the instance to the next hop outside.
mod outward;
/// A path while it is being built.
mod path;
/// The answer in one sentence.
mod sentence;
/// DHCP and metadata.
mod service;
/// Open vSwitch on a path.
pub(crate) mod switching;

#[cfg(test)]
mod tests;

pub(crate) use command::{in_netns, quote};
pub use explain::explain;
pub(crate) use filter::{ask, between_any, called, cross, rule_ref};
pub use listing::list;

/// The answer of `netdiag trace`: what the instance is, one path per interface, and what is wrong on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Host the look was taken on.
    pub hostname: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub taken_at: u64,
    /// The instance, by every identity it has.
    pub instance: Identity,
    /// One path per interface.
    pub interfaces: Vec<InterfaceTrace>,
    /// Contradictions and faults, worst first.
    pub findings: Vec<Finding>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<Gap>,
    /// The whole in one word.
    pub verdict: Verdict,
    /// The whole in one sentence, in the tenant's words.
    pub sentence: String,
}

/// The whole answer in one word; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing on the path speaks against it.
    Works,
    /// Something the path needs could not be read.
    Inconclusive,
    /// Something on the path is broken or denies.
    Broken,
}

/// Every identity an instance has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The name an operator would say: the container's, else the domain's, else the namespace's.
    pub name: String,
    /// `container`, `vm` or `namespace`.
    pub kind: InstanceKind,
    /// Who runs it: `docker`, `qemu`, `ip netns` …
    pub runtime: String,
    /// Container id.
    pub container_id: Option<String>,
    /// Container name.
    pub container_name: Option<String>,
    /// Image.
    pub image: Option<String>,
    /// Host name inside, which nova-docker sets to Nova's instance name.
    pub hostname: Option<String>,
    /// Name of the libvirt domain.
    pub libvirt_name: Option<String>,
    /// Nova instance (or Zun container).
    pub nova_uuid: Option<Uuid>,
    /// First process; qemu's for a virtual machine.
    pub pid: Option<u32>,
    /// `running`, `paused`, `exited` …
    pub state: String,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
}

impl Identity {
    /// Whether it has no process, and so no network. The words are Docker's (API, `State.Status`); one that is being
    /// restarted has none until it runs again.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state.as_str(), "exited" | "dead" | "created" | "removing" | "restarting") || self.is_gone()
    }
}

impl Identity {
    /// Whether nothing is left of it but its port.
    pub(crate) fn is_gone(&self) -> bool {
        self.state == GONE
    }
}

/// What an instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceKind {
    /// A container.
    Container,
    /// A virtual machine.
    Vm,
    /// A bare network namespace that somebody plugged in.
    #[default]
    Namespace,
}

impl InstanceKind {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "vm",
            Self::Namespace => "namespace",
        }
    }
}

/// A namespace as a reader wants to see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NetnsRef {
    /// Identity.
    pub id: NetnsId,
    /// `host`, `qrouter-…`, the container's name; the identity where nothing names it.
    pub label: String,
    /// True for the host's own.
    pub host: bool,
}

/// The path of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceTrace {
    /// Neutron port.
    pub port_id: Option<Uuid>,
    /// MAC address of the instance's end.
    pub mac: Option<Mac>,
    /// Addresses: those configured inside, for a VM those the host knows of.
    pub addresses: Vec<IpNet>,
    /// Namespace of the instance's end; none for a VM, whose end is inside the guest.
    pub netns: Option<NetnsRef>,
    /// The instance's end.
    pub device: Option<String>,
    /// The host's end.
    pub host_device: Option<String>,
    /// First bridge: br-int, qbr…, docker0.
    pub bridge: Option<String>,
    /// VLAN of this network on this host.
    pub vlan_tag: Option<u16>,
    /// Neutron or Docker network.
    pub network_id: Option<String>,
    /// Name of the network where something says it (Docker does, Neutron's agents do not).
    pub network_name: Option<String>,
    /// `vxlan`, `vlan`, `flat`, `gre`, `geneve`, `local`, Docker's driver.
    pub network_type: Option<String>,
    /// Physical network of a provider network.
    pub physical_network: Option<String>,
    /// VNI or provider VLAN.
    pub segmentation_id: Option<u32>,
    /// Router of its default route.
    pub router: Option<Router>,
    /// DHCP service of its network on this host.
    pub dhcp: Option<Service>,
    /// Metadata service of its network on this host.
    pub metadata: Option<Service>,
    /// Floating IPs.
    pub floating_ips: Vec<FloatingIp>,
    /// Published ports.
    pub published_ports: Vec<Publication>,
    /// How netdiag enforces security groups here; none where it does not.
    pub enforcement: Option<Summary>,
    /// Hops outward, then hops inward, each numbered from 1.
    pub hops: Vec<Hop>,
}

/// The router of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Router {
    /// Neutron router; none where the host itself routes.
    pub id: Option<Uuid>,
    /// Where it lives.
    pub netns: NetnsRef,
    /// Its end in the instance's network (`qr-…`, `docker0`).
    pub internal_device: String,
    /// Its end towards the outside (`qg-…`, the host's NIC).
    pub external_device: Option<String>,
    /// Address the instance uses as its gateway.
    pub gateway: IpAddr,
}

/// A service of the instance's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Where it lives.
    pub netns: NetnsRef,
    /// Its device in the network.
    pub device: Option<String>,
    /// Its addresses in the network.
    pub addresses: Vec<IpNet>,
    /// Process that serves (`dnsmasq`, `haproxy`), where one was found.
    pub process: Option<String>,
    /// Whether it can serve.
    pub state: HopState,
    /// How it is reached, in words.
    pub note: String,
}

/// A floating IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FloatingIp {
    /// The address the outside knows.
    pub address: IpAddr,
    /// The address it stands for.
    pub fixed_address: IpAddr,
    /// Device that answers for it.
    pub device: Option<String>,
    /// NAT rules that make it.
    pub rules: Vec<RuleRef>,
    /// Whether it is complete.
    pub state: HopState,
    /// Which way its packets take, where netdiag has to do with it.
    pub way: Option<show::Row>,
}

/// A published port with the rules that make it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Publication {
    /// The port.
    pub port: PublishedPort,
    /// NAT rules that make it.
    pub rules: Vec<RuleRef>,
    /// Process that carries it where no rule does (`docker-proxy`).
    pub process: Option<String>,
    /// Whether it is complete.
    pub state: HopState,
}

/// A rule of the packet filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// Who holds it.
    pub backend: RuleBackend,
    /// Where it is.
    pub netns: NetnsRef,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// Place in the chain, from 1.
    pub number: usize,
    /// The rule as the tool prints it, without its counters.
    pub rule: String,
    /// What it has counted.
    pub counters: RuleCounters,
    /// What it does to this path, in words.
    pub meaning: String,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the instance.
    #[default]
    Outward,
    /// To the instance.
    Inward,
    /// To the same network on other hosts, beside the way out.
    Lateral,
}

/// What a hop is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HopKind {
    /// The instance itself.
    #[default]
    Instance,
    /// The instance's network namespace.
    Namespace,
    /// The instance's end of the link.
    InnerDevice,
    /// The host's end of the link.
    HostDevice,
    /// A Linux bridge.
    LinuxBridge,
    /// A veth that joins two bridges (`qvb`/`qvo`).
    Veth,
    /// A port of an Open vSwitch bridge.
    OvsPort,
    /// An Open vSwitch bridge.
    OvsBridge,
    /// A patch port that joins two Open vSwitch bridges.
    Patch,
    /// A tunnel port.
    Tunnel,
    /// Rules that filter.
    Filter,
    /// A router's end in a network.
    RouterPort,
    /// A router: a namespace that forwards, or the host.
    Router,
    /// A rule that translates.
    Nat,
    /// A device of the host towards the outside.
    Uplink,
    /// A VLAN device.
    Vlan,
    /// The next hop outside this host.
    NextHop,
    /// The other end of a path inward: whoever talks to the floating IP.
    Outside,
    /// A service that answers here (docker-proxy, metadata).
    Service,
    /// Security groups that netdiag enforces.
    SecurityGroup,
    /// Where packets of a floating IP go on past bridge and router.
    FastPath,
}

impl HopKind {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Namespace => "namespace",
            Self::InnerDevice => "inner device",
            Self::HostDevice => "host device",
            Self::LinuxBridge => "linux bridge",
            Self::Veth => "veth",
            Self::OvsPort => "ovs port",
            Self::OvsBridge => "ovs bridge",
            Self::Patch => "patch",
            Self::Tunnel => "tunnel",
            Self::Filter => "filter",
            Self::RouterPort => "router port",
            Self::Router => "router",
            Self::Nat => "nat",
            Self::Uplink => "uplink",
            Self::Vlan => "vlan",
            Self::NextHop => "next hop",
            Self::Outside => "outside",
            Self::Service => "service",
            Self::SecurityGroup => "security group",
            Self::FastPath => "fast path",
        }
    }

    /// Whether it is a device of the kernel's.
    pub const fn is_device(self) -> bool {
        match self {
            Self::InnerDevice
            | Self::HostDevice
            | Self::LinuxBridge
            | Self::Veth
            | Self::RouterPort
            | Self::Uplink
            | Self::Vlan => true,
            Self::Instance
            | Self::Namespace
            | Self::OvsPort
            | Self::OvsBridge
            | Self::Patch
            | Self::Tunnel
            | Self::Filter
            | Self::Router
            | Self::Nat
            | Self::NextHop
            | Self::Outside
            | Self::Service
            | Self::SecurityGroup
            | Self::FastPath => false,
        }
    }
}

/// Whether a hop lets packets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HopState {
    /// It does.
    Ok,
    /// It does, but something about it deserves a look.
    Warning,
    /// Nothing says whether it does.
    #[default]
    Unknown,
    /// It does not.
    Broken,
}

impl HopState {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Broken => "broken",
        }
    }
}

/// What a translation makes of an address, in words: `172.24.4.6`, `10.0.0.2 port 80`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Translation {
    /// The source becomes this.
    Source(String),
    /// The destination becomes this.
    Destination(String),
}

/// One hop of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Which way.
    pub direction: Direction,
    /// Place on the path, from 1 in each direction.
    pub number: usize,
    /// What it is.
    pub kind: HopKind,
    /// Its name: a device's, a bridge's, an address.
    pub name: String,
    /// Where it lives.
    pub netns: Option<NetnsRef>,
    /// Whether it lets packets through.
    pub state: HopState,
    /// The state in the kernel's or Open vSwitch's own words (`UP`, `tag 1`, `FAILED`).
    pub status: String,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// MAC address.
    pub mac: Option<Mac>,
    /// Addresses.
    pub addresses: Vec<IpNet>,
    /// Counters of the device.
    pub counters: Option<LinkStats>,
    /// Rules that act here.
    pub rules: Vec<RuleRef>,
    /// What it makes of an address.
    pub translation: Option<Translation>,
    /// What it means for the tenant, in a few words (`network 5c1b…, vxlan 1001`).
    pub note: String,
    /// More, for `-v`: name and value.
    pub detail: Vec<(String, String)>,
    /// Read-only commands that show the same by hand, for `-vv`.
    pub verify: Vec<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Packets die here.
    Error,
    /// Packets may die here, or will when something else changes.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// A contradiction or a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word for scripts: `dead-vlan`, `link-down`, `no-default-route`.
    pub code: String,
    /// Where: the name of a device, chain, namespace.
    pub object: String,
    /// What is wrong and what follows, in one sentence.
    pub message: String,
    /// What was seen that says so.
    pub evidence: String,
    /// A read-only command that shows it by hand.
    pub verify: Option<String>,
    /// A command or step that would mend it; netdiag never runs it.
    pub fix: Option<String>,
}
