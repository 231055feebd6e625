//! One interface and what belongs to it.

use std::collections::BTreeMap;

use netdiag_model::{fact::LinkStats, trace as model};
use schemars::JsonSchema;
use serde::Serialize;

use super::{EnforcementDocument, FloatingIpDocument, published, texts};

/// A network namespace.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Netns {
    /// `host`, the name under `/run/netns`, or the container's name; `net:[inode]` where nothing names it.
    pub name: String,
    /// Inode of `/proc/<pid>/ns/net`.
    pub inode: u64,
    /// Cookie the kernel never gives out twice (`SO_NETNS_COOKIE`); 0 where the kernel has none to give.
    pub cookie: u64,
}

impl From<&model::NetnsRef> for Netns {
    fn from(netns: &model::NetnsRef) -> Self {
        Self { name: netns.label.clone(), inode: netns.id.inode, cookie: netns.id.cookie }
    }
}

/// Whether something lets packets through or can serve.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It does.
    Ok,
    /// It does, but something about it deserves a look.
    Warning,
    /// Nothing says whether it does.
    Unknown,
    /// It does not.
    Broken,
}

impl From<model::HopState> for State {
    fn from(state: model::HopState) -> Self {
        match state {
            model::HopState::Ok => Self::Ok,
            model::HopState::Warning => Self::Warning,
            model::HopState::Unknown => Self::Unknown,
            model::HopState::Broken => Self::Broken,
        }
    }
}

/// The path of one interface.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InterfaceDocument {
    /// UUID of the Neutron port.
    pub port_id: Option<String>,
    /// MAC address of the instance's end.
    pub mac: Option<String>,
    /// Addresses with the length of their prefix: those configured inside, for a VM those the host knows of.
    pub addresses: Vec<String>,
    /// Namespace of the instance's end; null for a VM, whose end is inside the guest.
    pub netns: Option<Netns>,
    /// Device of the instance's end.
    pub device: Option<String>,
    /// Device of the host's end.
    pub host_device: Option<String>,
    /// First bridge, such as `br-int`, `qbr…` or `docker0`.
    pub bridge: Option<String>,
    /// VLAN of this network on this host.
    pub vlan_tag: Option<u16>,
    /// Id of the Neutron or Docker network.
    pub network_id: Option<String>,
    /// Name of the network where something on this host says it.
    pub network_name: Option<String>,
    /// Type of the network: `vxlan`, `vlan`, `flat`, `gre`, `geneve`, `local`, or Docker's driver.
    pub network_type: Option<String>,
    /// Physical network of a provider network.
    pub physical_network: Option<String>,
    /// VNI or provider VLAN.
    pub segmentation_id: Option<u32>,
    /// Router of the default route.
    pub router: Option<RouterDocument>,
    /// DHCP service of the network on this host.
    pub dhcp: Option<ServiceDocument>,
    /// Metadata service of the network on this host.
    pub metadata: Option<ServiceDocument>,
    /// Floating IPs.
    pub floating_ips: Vec<FloatingIp>,
    /// Published ports.
    pub published_ports: Vec<PublishedPort>,
    /// How netdiag enforces security groups here; null where it does not.
    pub enforcement: Option<EnforcementDocument>,
    /// Hops outward, then hops inward, each numbered from 1.
    pub hops: Vec<HopDocument>,
}

impl From<&model::InterfaceTrace> for InterfaceDocument {
    fn from(interface: &model::InterfaceTrace) -> Self {
        Self {
            port_id: interface.port_id.as_ref().map(ToString::to_string),
            mac: interface.mac.map(|mac| mac.to_string()),
            addresses: texts(&interface.addresses),
            netns: interface.netns.as_ref().map(Netns::from),
            device: interface.device.clone(),
            host_device: interface.host_device.clone(),
            bridge: interface.bridge.clone(),
            vlan_tag: interface.vlan_tag,
            network_id: interface.network_id.clone(),
            network_name: interface.network_name.clone(),
            network_type: interface.network_type.clone(),
            physical_network: interface.physical_network.clone(),
            segmentation_id: interface.segmentation_id,
            router: interface.router.as_ref().map(RouterDocument::from),
            dhcp: interface.dhcp.as_ref().map(ServiceDocument::from),
            metadata: interface.metadata.as_ref().map(ServiceDocument::from),
            floating_ips: published(&interface.floating_ips),
            published_ports: published(&interface.published_ports),
            enforcement: interface.enforcement.as_ref().map(EnforcementDocument::from),
            hops: published(&interface.hops),
        }
    }
}

/// The router of an interface.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RouterDocument {
    /// UUID of the Neutron router; null where the host itself routes.
    pub id: Option<String>,
    /// Namespace it lives in.
    pub netns: Netns,
    /// Its device in the instance's network, such as `qr-…` or `docker0`.
    pub internal_device: String,
    /// Its device towards the outside, such as `qg-…`.
    pub external_device: Option<String>,
    /// Address the instance uses as its gateway.
    pub gateway: String,
}

impl From<&model::Router> for RouterDocument {
    fn from(router: &model::Router) -> Self {
        Self {
            id: router.id.as_ref().map(ToString::to_string),
            netns: (&router.netns).into(),
            internal_device: router.internal_device.clone(),
            external_device: router.external_device.clone(),
            gateway: router.gateway.to_string(),
        }
    }
}

/// A service of the instance's network.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ServiceDocument {
    /// Namespace it lives in.
    pub netns: Netns,
    /// Its device in the network.
    pub device: Option<String>,
    /// Its addresses in the network.
    pub addresses: Vec<String>,
    /// Process that serves, where one was found.
    pub process: Option<String>,
    /// Whether it can serve.
    pub state: State,
    /// How it is reached, in words.
    pub note: String,
}

impl From<&model::Service> for ServiceDocument {
    fn from(service: &model::Service) -> Self {
        Self {
            netns: (&service.netns).into(),
            device: service.device.clone(),
            addresses: texts(&service.addresses),
            process: service.process.clone(),
            state: service.state.into(),
            note: service.note.clone(),
        }
    }
}

/// A floating IP.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FloatingIp {
    /// The address the outside knows.
    pub address: String,
    /// The address it stands for.
    pub fixed_address: String,
    /// Device that answers for it.
    pub device: Option<String>,
    /// NAT rules that make it.
    pub rules: Vec<RuleDocument>,
    /// Whether it is complete.
    pub state: State,
    /// Which way its packets take; null where netdiag has nothing to do with it.
    pub way: Option<FloatingIpDocument>,
}

impl From<&model::FloatingIp> for FloatingIp {
    fn from(floating: &model::FloatingIp) -> Self {
        Self {
            address: floating.address.to_string(),
            fixed_address: floating.fixed_address.to_string(),
            device: floating.device.clone(),
            rules: published(&floating.rules),
            state: floating.state.into(),
            way: floating.way.as_ref().map(Into::into),
        }
    }
}

/// A port of the host that leads to a port of the instance.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PublishedPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address of the host it is published on; `0.0.0.0` and `::` are all of them.
    pub host_address: String,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the container.
    pub container_port: u16,
    /// NAT rules that make it.
    pub rules: Vec<RuleDocument>,
    /// Process that carries it where no rule does (`docker-proxy`).
    pub process: Option<String>,
    /// Whether it is complete.
    pub state: State,
}

impl From<&model::Publication> for PublishedPort {
    fn from(publication: &model::Publication) -> Self {
        Self {
            protocol: publication.port.protocol.clone(),
            host_address: publication.port.host_address.to_string(),
            host_port: publication.port.host_port,
            container_port: publication.port.container_port,
            rules: published(&publication.rules),
            process: publication.process.clone(),
            state: publication.state.into(),
        }
    }
}

/// A rule of the packet filter.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RuleDocument {
    /// Who holds it: `iptables-legacy`, `iptables-nft` or `nft`.
    pub backend: String,
    /// Namespace it lives in.
    pub netns: Netns,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// Place in the chain, from 1.
    pub number: usize,
    /// The rule as the tool prints it, without its counters.
    pub rule: String,
    /// Packets it has counted.
    pub packets: u64,
    /// Bytes it has counted.
    pub bytes: u64,
    /// What it does to this path, in words.
    pub meaning: String,
}

impl From<&model::RuleRef> for RuleDocument {
    fn from(rule: &model::RuleRef) -> Self {
        Self {
            backend: rule.backend.name().to_owned(),
            netns: (&rule.netns).into(),
            table: rule.table.clone(),
            chain: rule.chain.clone(),
            number: rule.number,
            rule: rule.rule.clone(),
            packets: rule.counters.packets,
            bytes: rule.counters.bytes,
            meaning: rule.meaning.clone(),
        }
    }
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the instance.
    Outward,
    /// To the instance.
    Inward,
    /// To the same network on other hosts, beside the way out.
    Lateral,
}

impl From<model::Direction> for Direction {
    fn from(direction: model::Direction) -> Self {
        match direction {
            model::Direction::Outward => Self::Outward,
            model::Direction::Inward => Self::Inward,
            model::Direction::Lateral => Self::Lateral,
        }
    }
}

/// One hop of a path.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HopDocument {
    /// Which way.
    pub direction: Direction,
    /// Place on the path, from 1 in each direction.
    pub number: usize,
    /// What it is, such as `ovs-port`; readers should expect words they do not know.
    pub kind: String,
    /// Its name: a device's, a bridge's, an address.
    pub name: String,
    /// Namespace it lives in; null for what is inside a guest or outside of this host.
    pub netns: Option<Netns>,
    /// Whether it lets packets through.
    pub state: State,
    /// The state in the kernel's or Open vSwitch's own words.
    pub status: String,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// MAC address.
    pub mac: Option<String>,
    /// Addresses with the length of their prefix.
    pub addresses: Vec<String>,
    /// Counters of the device.
    pub counters: Option<Counters>,
    /// Rules that act here.
    pub rules: Vec<RuleDocument>,
    /// What it means for the tenant, in a few words.
    pub note: String,
    /// More about it, by name; a name seen twice keeps both values.
    pub detail: BTreeMap<String, Vec<String>>,
    /// Read-only commands that show the same by hand.
    pub verify: Vec<String>,
}

impl From<&model::Hop> for HopDocument {
    fn from(hop: &model::Hop) -> Self {
        let mut detail = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in &hop.detail {
            detail.entry(name.clone()).or_default().push(value.clone());
        }
        Self {
            direction: hop.direction.into(),
            number: hop.number,
            kind: hop.kind.name().replace(' ', "-"),
            name: hop.name.clone(),
            netns: hop.netns.as_ref().map(Netns::from),
            state: hop.state.into(),
            status: hop.status.clone(),
            mtu: hop.mtu,
            mac: hop.mac.map(|mac| mac.to_string()),
            addresses: texts(&hop.addresses),
            counters: hop.counters.as_ref().map(Counters::from),
            rules: published(&hop.rules),
            note: hop.note.clone(),
            detail,
            verify: hop.verify.clone(),
        }
    }
}

/// Counters of a device since it was made.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets dropped before they were sent.
    pub tx_dropped: u64,
    /// Transmit errors.
    pub tx_errors: u64,
}

impl From<&LinkStats> for Counters {
    fn from(stats: &LinkStats) -> Self {
        Self {
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_dropped: stats.rx_dropped,
            rx_errors: stats.rx_errors,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            tx_dropped: stats.tx_dropped,
            tx_errors: stats.tx_errors,
        }
    }
}
