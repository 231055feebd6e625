//! A host with Docker's default networking: docker0, a bridge network of its owner's, published ports, and containers
//! without, with the host's, and with another container's network.
//!
//! Two containers have a second card that was plugged by hand, the way the script pipework does it: a veth pair between a
//! Linux bridge of the host and the container, of which Docker knows nothing.

use anyhow::{Context as _, Result};

use crate::lab::{
    command,
    docker::Docker,
    host::Host,
    inventory::{
        self, Inventory,
        docker::{Container, DockerNetwork, NetworkMode, Transport},
    },
    parallel,
    report::Built,
    spec::Spec,
};

mod links;
mod pipework;
mod plan;

/// Docker's own name of its default network.
const DEFAULT: &str = "bridge";

/// What a container needs of the host to run dnsmasq, which is not in the image: the program and its libraries.
const DNSMASQ: [&str; 4] = ["/usr/sbin/dnsmasq", "/usr/lib", "/lib", "/lib64"];

/// The containers every lab has, and more on docker0 and the user-defined network.
pub(crate) fn plan(spec: &Spec) -> Inventory {
    plan::plan(spec)
}

/// Builds the Docker host.
pub(crate) fn build(host: &Host<'_>) -> Result<Built> {
    for uplink in &host.plan.uplinks {
        host.configure_uplink(uplink)?;
    }
    let docker = Docker::start(&[])?;
    let here = &host.plan.name;
    let networks: Vec<_> = host.lab.docker_networks.iter().filter(|network| network.host == *here).collect();
    let docker_networks = networks.into_iter().map(add_network).collect::<Result<Vec<_>>>()?;
    let planned: Vec<_> = host.lab.containers.iter().filter(|container| container.host == *here).collect();
    // The example's first, in order: addresses are given in the order of asking, and one container joins an earlier one.
    let (example, more) = planned.split_at(plan::EXAMPLE.min(planned.len()));
    let mut containers = example.iter().map(|container| start(&docker, container)).collect::<Result<Vec<_>>>()?;
    containers.extend(parallel::map(more, |container| start(&docker, container))?);
    pipework::plug(&containers)?;
    links::fill(host, &docker_networks, &mut containers)?;
    let host = inventory::Host { docker: Some(docker.version), ..host.plan.clone() };
    Ok(Built { host, instances: Vec::new(), docker_networks, containers })
}

/// Makes a network, if it is not Docker's default one, and says which bridge it became.
fn add_network(planned: &DockerNetwork) -> Result<DockerNetwork> {
    let subnet = format!("--subnet={}", planned.subnet);
    let gateway = format!("--gateway={}", planned.gateway);
    if planned.name != DEFAULT {
        command::run("docker", ["network", "create", "--driver=bridge", &subnet, &gateway, &planned.name])?;
    }
    let id = command::run("docker", ["network", "inspect", "--format", "{{.Id}}", &planned.name])?.trim().to_owned();
    let bridge = match planned.name.as_str() {
        DEFAULT => "docker0".to_owned(),
        _ => format!("br-{}", id.get(..12).context("a network with a short id")?),
    };
    Ok(DockerNetwork { id: Some(id), bridge: Some(bridge), ..planned.clone() })
}

/// Starts one container, and connects it to the networks beyond its first.
fn start(docker: &Docker, planned: &Container) -> Result<Container> {
    let options = options(planned);
    let words: Vec<_> = options.iter().map(String::as_str).collect();
    let started = docker.run(&words).with_context(|| format!("start {}", planned.name))?;
    for network in planned.nics.iter().skip(1).filter_map(|nic| nic.network.as_deref()) {
        command::run("docker", ["network", "connect", network, &planned.name])?;
    }
    Ok(Container { id: Some(started.id), pid: Some(started.pid), ..planned.clone() })
}

/// The options of `docker run`.
fn options(container: &Container) -> Vec<String> {
    let network = match &container.mode {
        NetworkMode::Network(name) => name.clone(),
        NetworkMode::None => "none".into(),
        NetworkMode::Host => "host".into(),
        NetworkMode::Container(name) => format!("container:{name}"),
    };
    let mut options = vec![format!("--name={}", container.name), format!("--network={network}")];
    options.extend(container.labels.iter().map(|(key, value)| format!("--label={key}={value}")));
    options.push(format!("--env=HTTP_PORT={}", container.web_port));
    for port in &container.published {
        let protocol = match port.protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let address = port.host_address.map(|address| format!("{address}:")).unwrap_or_default();
        options.push(format!("--publish={address}{}:{}/{protocol}", port.host_port, port.container_port));
    }
    if let Some(zone) = &container.dns_zone {
        options.push(format!("--env=DNS_ZONE={zone}"));
        let present = DNSMASQ.iter().filter(|path| std::path::Path::new(path).exists());
        options.extend(present.map(|path| format!("--volume={path}:{path}:ro")));
    }
    options
}
