//! Probes of Docker containers.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{Action, Place, Probe, WEB, outside, probe_from_host};
use crate::lab::inventory::{
    Host, Inventory, Role,
    docker::{Container, DockerNetwork, NetworkMode, Nic, Transport},
};

/// Every probe of a lab's containers.
pub(super) fn probes(lab: &Inventory, probes: &mut Vec<Probe>) -> Result<()> {
    for network in &lab.docker_networks {
        let members = on(lab, Some(&network.name));
        ring(lab, &members, probes)?;
        isolation(lab, network, probes)?;
        for (container, nic) in members {
            outward(lab, network, container, probes)?;
            let to = address(nic)?;
            let host = host(lab, container)?;
            probes.push(probe_from_host(host, fetch(container, (to, container.web_port), Some(network.gateway))?));
        }
    }
    ring(lab, &on(lab, None), probes)?;
    for container in &lab.containers {
        published(lab, container, probes)?;
        shared(lab, container, probes)?;
    }
    Ok(())
}

/// Containers with their card on a Docker network, or, without a name, those plugged by hand.
fn on<'a>(lab: &'a Inventory, network: Option<&str>) -> Vec<(&'a Container, &'a Nic)> {
    let cards = lab.containers.iter().flat_map(|container| container.nics.iter().map(move |nic| (container, nic)));
    cards.filter(|(_, nic)| nic.network.as_deref() == network).collect()
}

/// Each to the next.
fn ring(lab: &Inventory, members: &[(&Container, &Nic)], probes: &mut Vec<Probe>) -> Result<()> {
    for ((from, own), (to, nic)) in members.iter().zip(members.iter().cycle().skip(1)) {
        if from.name == to.name {
            continue;
        }
        let there = address(nic)?;
        probes.push(probe(lab, from, Action::Ping { to: there, target: to.name.clone() })?);
        probes.push(probe(lab, from, fetch(to, (there, to.web_port), Some(address(own)?))?)?);
    }
    Ok(())
}

/// To the bridge, the gateways of the fabric and the machine outside.
fn outward(lab: &Inventory, network: &DockerNetwork, from: &Container, probes: &mut Vec<Probe>) -> Result<()> {
    let target = format!("gateway of {}", network.name);
    probes.push(probe(lab, from, Action::Ping { to: network.gateway, target })?);
    let seen = Some(own_address(host(lab, from)?)?);
    let gateways = lab.segments.iter().filter_map(|segment| Some((segment.gateway?.address, "gateway")));
    let machines = outside(lab).map(|(machine, address)| (address, machine.name.as_str()));
    for (to, name) in gateways.chain(machines) {
        probes.push(probe(lab, from, Action::Ping { to, target: name.into() })?);
        let action = Action::Fetch { to, port: WEB, name: name.into(), seen, target: name.into() };
        probes.push(probe(lab, from, action)?);
    }
    Ok(())
}

/// From a container that is on one network alone to one that is on another alone: Docker keeps them apart.
fn isolation(lab: &Inventory, network: &DockerNetwork, probes: &mut Vec<Probe>) -> Result<()> {
    let alone =
        |(container, _): &(&Container, &Nic)| container.nics.iter().filter(|nic| nic.network.is_some()).count() == 1;
    let Some((from, _)) = on(lab, Some(&network.name)).into_iter().find(alone) else { return Ok(()) };
    for other in lab.docker_networks.iter().filter(|other| other.name != network.name) {
        let Some((to, nic)) = on(lab, Some(&other.name)).into_iter().find(alone) else { continue };
        let target = format!("{}, another network", to.name);
        let there = address(nic)?;
        probes.push(probe(lab, from, Action::Silence { to: there, port: None, target: target.clone() })?);
        probes.push(probe(lab, from, Action::Silence { to: there, port: Some(to.web_port), target })?);
    }
    Ok(())
}

/// From outside, from the host and from a container to each published port.
fn published(lab: &Inventory, container: &Container, probes: &mut Vec<Probe>) -> Result<()> {
    let host = host(lab, container)?;
    for port in &container.published {
        let to = port.host_address.map_or_else(|| own_address(host), Ok)?;
        if port.protocol == Transport::Udp {
            let query = format!("www.{}", container.dns_zone.as_deref().unwrap_or_default());
            let resolve = || Action::Resolve { to, query: query.clone(), target: container.name.clone() };
            probes.extend(outside(lab).map(|(machine, _)| probe_from_host(machine, resolve())));
            probes.push(probe_from_host(host, resolve()));
            continue;
        }
        for (machine, address) in outside(lab) {
            probes.push(probe_from_host(machine, fetch(container, (to, port.host_port), Some(address))?));
        }
        probes.push(probe_from_host(host, fetch(container, (to, port.host_port), Some(to))?));
        let loopback = Ipv4Addr::LOCALHOST;
        // docker-proxy answers here, and asks the container from the bridge's address.
        let proxied = gateway(lab, container).filter(|_| port.host_address.is_none());
        if let Some(gateway) = proxied {
            probes.push(probe_from_host(host, fetch(container, (loopback, port.host_port), Some(gateway))?));
        }
        let neighbour = lab.containers.iter().find(|other| !other.nics.is_empty() && other.name != container.name);
        if let (Some(neighbour), Some(gateway)) = (neighbour, gateway(lab, container)) {
            probes.push(probe(lab, neighbour, fetch(container, (to, port.host_port), Some(gateway))?)?);
        }
    }
    Ok(())
}

/// Containers whose namespace is not their own, and the one with nothing in it.
fn shared(lab: &Inventory, container: &Container, probes: &mut Vec<Probe>) -> Result<()> {
    let host = host(lab, container)?;
    match &container.mode {
        NetworkMode::Network(_) => {}
        NetworkMode::None => {
            for (machine, to) in outside(lab) {
                let target = machine.name.clone();
                probes.push(probe(lab, container, Action::Silence { to, port: None, target })?);
            }
        }
        NetworkMode::Host => {
            let to = own_address(host)?;
            for (machine, address) in outside(lab) {
                probes.push(probe_from_host(machine, fetch(container, (to, container.web_port), Some(address))?));
            }
        }
        NetworkMode::Container(other) => {
            let nic = lab.containers.iter().find(|joined| joined.name == *other).and_then(|joined| joined.nics.first());
            let to = address(nic.with_context(|| format!("{other} has no card to share"))?)?;
            probes.push(probe_from_host(host, fetch(container, (to, container.web_port), None)?));
        }
    }
    Ok(())
}

/// The bridge's address on the container's first network.
fn gateway(lab: &Inventory, container: &Container) -> Option<Ipv4Addr> {
    let name = container.nics.first()?.network.as_ref()?;
    Some(lab.docker_networks.iter().find(|network| network.name == *name)?.gateway)
}

fn fetch(target: &Container, (to, port): (Ipv4Addr, u16), seen: Option<Ipv4Addr>) -> Result<Action> {
    let name = target.hostname.clone().with_context(|| format!("{} has no host name", target.name))?;
    Ok(Action::Fetch { to, port, name, seen, target: target.name.clone() })
}

/// A probe from inside a container.
fn probe(lab: &Inventory, from: &Container, action: Action) -> Result<Probe> {
    let pid = from.pid.with_context(|| format!("{} has no process", from.name))?;
    let netns = Some(PathBuf::from(format!("/proc/{pid}/ns/net")));
    let place = Place::Host(Box::new(host(lab, from)?.clone()), netns);
    Ok(Probe { place, from: from.name.clone(), action })
}

fn host<'a>(lab: &'a Inventory, container: &Container) -> Result<&'a Host> {
    lab.host(&container.host).with_context(|| format!("{} is on no host", container.name))
}

/// The address containers of the host are seen with.
fn own_address(host: &Host) -> Result<Ipv4Addr> {
    debug_assert_eq!(host.role, Role::Compute);
    let address = host.uplinks.iter().find_map(|uplink| uplink.address);
    Ok(address.with_context(|| format!("{} has no address", host.name))?.address)
}

fn address(nic: &Nic) -> Result<Ipv4Addr> {
    Ok(nic.address.with_context(|| format!("{} has no address", nic.device))?.address)
}
