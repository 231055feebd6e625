//! Docker's share of an inventory: networks, containers, their cards and published ports.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::Cidr;

/// A network of Docker's bridge driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerNetwork {
    /// Name, as `bridge` or `shop`.
    pub name: String,
    /// Host it is on.
    pub host: String,
    /// Full id.
    pub id: Option<String>,
    /// Device on the host: `docker0`, or `br-` and the first 12 digits of the id.
    pub bridge: Option<String>,
    /// Its subnet.
    pub subnet: Cidr,
    /// Address of the bridge on the host.
    pub gateway: Ipv4Addr,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Host it runs on.
    pub host: String,
    /// Where its network comes from.
    pub mode: NetworkMode,
    /// Host name inside: the start of the id, but where the host's or another container's is shared.
    pub hostname: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its cards, Docker's first and in Docker's order; none where it shares another's namespace.
    pub nics: Vec<Nic>,
    /// Ports of the host that lead to it.
    pub published: Vec<PublishedPort>,
    /// TCP port its web server listens on.
    pub web_port: u16,
    /// The DNS zone it answers for, on UDP port 53.
    pub dns_zone: Option<String>,
    /// Full id.
    pub id: Option<String>,
    /// Process 1 of the container, as the lab host counts pids.
    pub pid: Option<u32>,
}

/// What `docker run --network` was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Networks of Docker's: the one it was started on; more may have been connected later.
    Network(String),
    /// A namespace with nothing but loopback.
    None,
    /// The host's own namespace.
    Host,
    /// The namespace of another container, by its name.
    Container(String),
}

/// A network card in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Device inside.
    pub device: String,
    /// Docker network it is on; `None` for a card plugged by hand, of which Docker knows nothing.
    pub network: Option<String>,
    /// Bridge on the host.
    pub bridge: Option<String>,
    /// The other end of the veth pair, on the host.
    pub host_device: Option<String>,
    /// MAC address.
    pub mac: Option<String>,
    /// Address inside.
    pub address: Option<Cidr>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Protocol.
    pub protocol: Transport,
    /// Address of the host it is bound to; `None` for all.
    pub host_address: Option<Ipv4Addr>,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the container.
    pub container_port: u16,
}
