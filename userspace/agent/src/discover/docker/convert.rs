//! Answers of Docker's API to facts. Flow: discover.
//!
//! Everything in an answer may be missing, and text may be anything. A value that is in none of the forms the API
//! promises is left out and noted.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, EndpointSettings, Network, PortMap, PortSummary, SystemVersion,
};
use ipnet::IpNet;
use netdiag_model::fact::{ContainerFact, DockerNetworkFact, EndpointFact, PublishedPort, Runtime, SourceKind};

use crate::oddities::Oddities;

/// The option that names the Linux bridge of a bridge network.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// Whose daemon it is.
pub(super) fn runtime(version: &SystemVersion) -> Runtime {
    let podman = |name: &str| name.contains("Podman");
    let is_podman = version.components.iter().flatten().any(|component| podman(&component.name));
    if is_podman { Runtime::Podman } else { Runtime::Docker }
}

/// What the list of containers says of one; none where it has no id to tell it by.
pub(super) fn listed(runtime: Runtime, summary: ContainerSummary, odd: &mut Oddities) -> Option<ContainerFact> {
    let Some(id) = filled(summary.id) else {
        odd.note("a container without an id");
        return None;
    };
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let endpoints = endpoints(networks, odd);
    let published = summary.ports.iter().flatten().filter_map(|port| listed_port(port, odd)).collect();
    Some(ContainerFact {
        source: SourceKind::Docker,
        runtime,
        id,
        name: summary.names.and_then(own_name),
        hostname: None,
        image: filled(summary.image),
        state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
        pid: None,
        netns: None,
        network_mode: summary.host_config.and_then(|host| filled(host.network_mode)),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        endpoints,
        published,
    })
}

/// Adds what inspecting a container says, which is newer and more than what the list says.
pub(super) fn inspected(fact: &mut ContainerFact, answer: ContainerInspectResponse, odd: &mut Oddities) {
    if let Some(name) = filled(answer.name) {
        fact.name = own_name(vec![name]);
    }
    if let Some(state) = answer.state {
        fact.state = state.status.map_or_else(|| std::mem::take(&mut fact.state), |status| status.to_string());
        fact.pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    }
    if let Some(config) = answer.config {
        fact.hostname = filled(config.hostname);
        fact.image = filled(config.image).or_else(|| fact.image.take());
        fact.labels = config.labels.unwrap_or_default().into_iter().collect();
    }
    if let Some(mode) = answer.host_config.and_then(|host| filled(host.network_mode)) {
        fact.network_mode = Some(mode);
    }
    if let Some(settings) = answer.network_settings {
        fact.endpoints = endpoints(settings.networks.unwrap_or_default(), odd);
        fact.published = published(settings.ports.unwrap_or_default(), odd);
    }
}

/// A network; none where it has no id.
pub(super) fn network(runtime: Runtime, network: Network, odd: &mut Oddities) -> Option<DockerNetworkFact> {
    let Some(id) = filled(network.id) else {
        odd.note("a network without an id");
        return None;
    };
    let driver = network.driver.unwrap_or_default();
    let options = network.options.unwrap_or_default();
    let ipam = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let subnets = ipam.iter().filter_map(|config| parsed(config.subnet.as_deref(), odd)).collect();
    let gateways = ipam.iter().filter_map(|config| parsed(config.gateway.as_deref(), odd)).collect();
    Some(DockerNetworkFact {
        bridge: (driver == "bridge").then(|| bridge(runtime, &id, &options)).flatten(),
        id,
        name: network.name.unwrap_or_default(),
        driver,
        subnets,
        gateways,
        internal: network.internal.unwrap_or(false),
        options: options.into_iter().collect(),
    })
}

/// The Linux bridge of a bridge network: Docker calls it after the id where no option says otherwise, Podman does not.
fn bridge(runtime: Runtime, id: &str, options: &HashMap<String, String>) -> Option<String> {
    let named = options.get(BRIDGE_NAME).filter(|name| !name.is_empty()).cloned();
    let after_id = || (runtime == Runtime::Docker).then(|| id.get(..12).map(|id| format!("br-{id}"))).flatten();
    named.or_else(after_id)
}

/// A container's own name has one slash, in front; names with more are links of other containers to it.
fn own_name(names: Vec<String>) -> Option<String> {
    let bare = names.into_iter().map(|name| name.strip_prefix('/').map(str::to_owned).unwrap_or(name));
    filled(bare.into_iter().find(|name| !name.contains('/')))
}

/// The places of a container in its networks: one for each address, or one without an address.
fn endpoints(networks: HashMap<String, EndpointSettings>, odd: &mut Oddities) -> Vec<EndpointFact> {
    let mut endpoints = Vec::new();
    for (network, settings) in networks {
        let mac = parsed(settings.mac_address.as_deref(), odd);
        let network_id = settings.network_id.unwrap_or_default();
        let v4 = address(settings.ip_address.as_deref(), settings.ip_prefix_len, odd);
        let v6 = address(settings.global_ipv6_address.as_deref(), settings.global_ipv6_prefix_len, odd);
        let endpoint = |address: Option<IpNet>, gateway: Option<IpAddr>| EndpointFact {
            network: network.clone(),
            network_id: network_id.clone(),
            address,
            gateway,
            mac,
        };
        if v4.is_some() || v6.is_none() {
            endpoints.push(endpoint(v4, parsed(settings.gateway.as_deref(), odd)));
        }
        if v6.is_some() {
            endpoints.push(endpoint(v6, parsed(settings.ipv6_gateway.as_deref(), odd)));
        }
    }
    endpoints.sort();
    endpoints
}

fn address(text: Option<&str>, length: Option<i64>, odd: &mut Oddities) -> Option<IpNet> {
    let address: IpAddr = parsed(text, odd)?;
    let length = length.and_then(|length| u8::try_from(length).ok());
    let net = length.and_then(|length| IpNet::new(address, length).ok());
    if net.is_none() {
        odd.note(format_args!("the prefix length of {address}"));
    }
    net
}

/// Published ports, by `80/tcp`; a port without bindings is exposed and not published.
fn published(ports: PortMap, odd: &mut Oddities) -> Vec<PublishedPort> {
    let mut published = Vec::new();
    for (container, bindings) in ports {
        for binding in bindings.unwrap_or_default() {
            // A binding without a port is one the daemon has not allocated yet.
            let Some(host_port) = filled(binding.host_port) else { continue };
            let numbers = container
                .split_once('/')
                .and_then(|(port, protocol)| Some((port.parse().ok()?, protocol, host_port.parse().ok()?)));
            let Some((container_port, protocol, host_port)) = numbers else {
                odd.note(format_args!("port {container} published on {host_port}"));
                continue;
            };
            let Some(host_address) = host_address(binding.host_ip.as_deref(), odd) else { continue };
            published.push(PublishedPort { protocol: protocol.to_owned(), host_address, host_port, container_port });
        }
    }
    published.sort();
    published
}

fn listed_port(port: &PortSummary, odd: &mut Oddities) -> Option<PublishedPort> {
    Some(PublishedPort {
        protocol: port.typ.map(|protocol| protocol.to_string()).unwrap_or_default(),
        host_port: port.public_port.filter(|port| *port != 0)?,
        host_address: host_address(port.ip.as_deref(), odd)?,
        container_port: port.private_port,
    })
}

/// No address is all IPv4 addresses of the host, as old daemons have it.
fn host_address(text: Option<&str>, odd: &mut Oddities) -> Option<IpAddr> {
    match text {
        None | Some("") => Some(Ipv4Addr::UNSPECIFIED.into()),
        some => parsed(some, odd),
    }
}

fn parsed<T: FromStr>(text: Option<&str>, odd: &mut Oddities) -> Option<T> {
    let text = text.filter(|text| !text.is_empty())?;
    let value = text.parse().ok();
    if value.is_none() {
        odd.note(format_args!("{text:?}"));
    }
    value
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
