//! What became of the containers' cards, read from the kernel: which device of the host is the other end of each.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::lab::{
    command,
    host::Host,
    inventory::{
        Cidr,
        docker::{Container, DockerNetwork, NetworkMode, Nic},
    },
    parallel,
};

/// A device as `ip -json address` prints it.
#[derive(Clone, Debug, Deserialize)]
struct Device {
    ifindex: u32,
    ifname: String,
    /// Index of the other end of a veth pair.
    link_index: Option<u32>,
    master: Option<String>,
    address: Option<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    family: String,
    local: String,
    prefixlen: u8,
}

/// Fills in what only the kernel and Docker know of the containers.
pub(super) fn fill(host: &Host<'_>, networks: &[DockerNetwork], containers: &mut [Container]) -> Result<()> {
    let outer = links("ip", &["-json", "address"])?;
    let nics = parallel::map(containers, |container| nics(container, &outer, networks))?;
    for (container, nics) in containers.iter_mut().zip(nics) {
        container.nics = nics;
    }
    let own: Vec<_> = containers.iter().map(|container| (container.name.clone(), short_id(container))).collect();
    for container in containers {
        container.hostname = match &container.mode {
            NetworkMode::Network(_) | NetworkMode::None => short_id(container),
            NetworkMode::Host => Some(host.plan.name.clone()),
            NetworkMode::Container(other) => {
                own.iter().find(|(name, _)| name == other).and_then(|(_, hostname)| hostname.clone())
            }
        };
    }
    Ok(())
}

fn short_id(container: &Container) -> Option<String> {
    Some(container.id.as_ref()?.get(..12)?.to_owned())
}

/// The cards of a container, in the order of the plan.
fn nics(container: &Container, outer: &[Device], networks: &[DockerNetwork]) -> Result<Vec<Nic>> {
    if container.nics.is_empty() {
        return Ok(Vec::new());
    }
    let pid = container.pid.with_context(|| format!("{} has not been started", container.name))?;
    let namespace = format!("--net=/proc/{pid}/ns/net");
    let inner = links("nsenter", &[&namespace, "ip", "-json", "address"])?;
    container.nics.iter().map(|planned| nic(planned, &inner, (outer, networks))).collect()
}

fn nic(planned: &Nic, inner: &[Device], (outer, networks): (&[Device], &[DockerNetwork])) -> Result<Nic> {
    // Docker names its devices as it likes; the bridge they lead to says which network they are on.
    let bridge = networks
        .iter()
        .find(|network| Some(&network.name) == planned.network.as_ref())
        .and_then(|network| network.bridge.clone())
        .or_else(|| planned.bridge.clone());
    let peer = |link: &Device| outer.iter().find(|end| Some(end.ifindex) == link.link_index).cloned();
    let (link, end) = inner
        .iter()
        .filter_map(|link| Some((link, peer(link)?)))
        .find(|(_, end)| end.master == bridge)
        .with_context(|| format!("no device leads to {}", bridge.as_deref().unwrap_or("a bridge")))?;
    let v4 = link.addr_info.iter().find(|address| address.family == "inet").context("a card without address")?;
    let address = v4.local.parse().with_context(|| format!("understand the address {}", v4.local))?;
    Ok(Nic {
        device: link.ifname.clone(),
        bridge,
        host_device: Some(end.ifname),
        mac: link.address.clone(),
        address: Some(Cidr { address, prefix: v4.prefixlen }),
        network: planned.network.clone(),
    })
}

fn links(program: &str, words: &[&str]) -> Result<Vec<Device>> {
    serde_json::from_str(&command::run(program, words)?).context("understand what ip says of devices")
}
