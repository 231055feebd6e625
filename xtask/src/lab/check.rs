//! Tries what has to work in a lab. Which probes there are follows from the inventory alone.
//!
//! Most probes are one HTTP request that is answered with who was reached and which address it was seen from, so a probe
//! that arrives at the wrong instance, or without the translation it should have, fails as one that does not arrive.

use std::{fmt, net::Ipv4Addr};

use anyhow::{Context as _, Result, bail};

use crate::lab::{
    command, enter, image,
    inventory::{Host, Instance, Inventory, Network, Port, Role, Router, Uuid},
    netns, parallel,
};

/// One thing to try.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Host it is tried from.
    host: Host,
    /// Namespace on that host; `None` for the host's own.
    netns: Option<String>,
    /// Who tries.
    from: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    /// An echo request is answered.
    Ping { to: Ipv4Addr, target: String },
    /// A TCP connection reaches `name`, which sees it come from `seen`.
    Fetch { to: Ipv4Addr, name: String, seen: Option<Ipv4Addr>, target: String },
    /// A DHCP request on a device is answered with this address.
    Lease { device: String, address: Ipv4Addr },
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.from)?;
        match &self.action {
            Action::Ping { to, target } => write!(f, "ping {to} ({target})"),
            Action::Fetch { to, target, seen: Some(seen), .. } => write!(f, "TCP to {to} ({target}), seen as {seen}"),
            Action::Fetch { to, target, seen: None, .. } => write!(f, "TCP to {to} ({target})"),
            Action::Lease { device, address } => write!(f, "DHCP on {device} offers {address}"),
        }
    }
}

/// A probe and what came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) probe: String,
    /// `Err` with the reason.
    pub(crate) result: Result<(), String>,
}

/// Tries everything and returns it in a fixed order.
pub(crate) fn run(lab: &Inventory) -> Result<Vec<Outcome>> {
    parallel::map(&probes(lab)?, |probe| {
        Ok(Outcome { probe: probe.to_string(), result: probe.run().map_err(|error| format!("{error:#}")) })
    })
}

/// Every probe of a lab.
pub(crate) fn probes(lab: &Inventory) -> Result<Vec<Probe>> {
    let mut probes = Vec::new();
    for network in &lab.networks {
        within(lab, network, &mut probes)?;
    }
    for router in &lab.routers {
        between(lab, router, &mut probes)?;
    }
    for instance in &lab.instances {
        outward(lab, instance, &mut probes)?;
        inward(lab, instance, &mut probes)?;
    }
    Ok(probes)
}

/// Instances on a network with their ports there.
fn members<'a>(lab: &'a Inventory, network: &'a Uuid) -> impl Iterator<Item = (&'a Instance, &'a Port)> {
    let ports = lab.instances.iter().flat_map(|instance| instance.ports.iter().map(move |port| (instance, port)));
    ports.filter(|(_, port)| port.network == *network)
}

/// Each instance to the next one on its network, and the network's DHCP service from the first.
fn within(lab: &Inventory, network: &Network, probes: &mut Vec<Probe>) -> Result<()> {
    let members: Vec<_> = members(lab, &network.id).collect();
    for ((from, own), (to, port)) in members.iter().zip(members.iter().cycle().skip(1)) {
        if from.uuid == to.uuid {
            continue;
        }
        let target = format!("{}, same network", to.display_name);
        probes.push(probe(lab, from, Action::Ping { to: port.address.address, target: target.clone() })?);
        probes.push(probe(lab, from, fetch(port.address.address, to, Some(own.address.address), target))?);
    }
    if let (Some((instance, port)), Some(_)) = (members.first(), &network.dhcp) {
        let lease = Action::Lease { device: port.device.clone(), address: port.address.address };
        probes.push(probe(lab, instance, lease)?);
    }
    Ok(())
}

/// From the first network of a router to each of its others.
fn between(lab: &Inventory, router: &Router, probes: &mut Vec<Probe>) -> Result<()> {
    let firsts: Vec<_> = router.interfaces.iter().filter_map(|port| members(lab, &port.network).next()).collect();
    let Some(((from, own), others)) = firsts.split_first() else { return Ok(()) };
    for (to, port) in others {
        let target = format!("{}, by {}", to.display_name, router.name);
        probes.push(probe(lab, from, Action::Ping { to: port.address.address, target: target.clone() })?);
        probes.push(probe(lab, from, fetch(port.address.address, to, Some(own.address.address), target))?);
    }
    Ok(())
}

/// From an instance to its gateway, to the machine outside, and to the metadata service.
fn outward(lab: &Inventory, instance: &Instance, probes: &mut Vec<Probe>) -> Result<()> {
    let Some(port) = instance.default_port() else { return Ok(()) };
    let Some(router) = port.router.as_ref().and_then(|id| lab.router(id)) else { return Ok(()) };
    probes.push(probe(lab, instance, Action::Ping { to: port.gateway, target: router.name.clone() })?);
    let seen = Some(port.floating_ip.unwrap_or(router.gateway.address.address));
    for (host, address) in outside(lab) {
        let target = host.name.clone();
        probes.push(probe(lab, instance, Action::Ping { to: address, target: target.clone() })?);
        let action = Action::Fetch { to: address, name: host.name.clone(), seen, target };
        probes.push(probe(lab, instance, action)?);
    }
    let metadata = Action::Fetch {
        to: Ipv4Addr::new(169, 254, 169, 254),
        name: router.host.clone(),
        seen: Some(port.address.address),
        target: "metadata".into(),
    };
    probes.push(probe(lab, instance, metadata)?);
    Ok(())
}

/// From the machine outside and from a neighbour to an instance's floating IP.
fn inward(lab: &Inventory, instance: &Instance, probes: &mut Vec<Probe>) -> Result<()> {
    for port in &instance.ports {
        let Some(floating) = port.floating_ip else { continue };
        let target = format!("floating IP of {}", instance.display_name);
        for (host, address) in outside(lab) {
            let place = |action| Probe { host: host.clone(), netns: None, from: host.name.clone(), action };
            probes.push(place(Action::Ping { to: floating, target: target.clone() }));
            probes.push(place(fetch(floating, instance, Some(address), target.clone())));
        }
        let neighbour = members(lab, &port.network).find(|(other, _)| other.uuid != instance.uuid);
        if let Some((neighbour, _)) = neighbour {
            probes.push(probe(lab, neighbour, fetch(floating, instance, None, target))?);
        }
    }
    Ok(())
}

fn outside(lab: &Inventory) -> impl Iterator<Item = (&Host, Ipv4Addr)> {
    let hosts = lab.hosts.iter().filter(|host| host.role == Role::Outside);
    hosts.flat_map(|host| host.uplinks.iter().filter_map(move |uplink| Some((host, uplink.address?.address))))
}

fn fetch(to: Ipv4Addr, instance: &Instance, seen: Option<Ipv4Addr>, target: String) -> Action {
    Action::Fetch { to, name: instance.name.clone(), seen, target }
}

/// A probe from inside an instance.
fn probe(lab: &Inventory, instance: &Instance, action: Action) -> Result<Probe> {
    let host = lab.host(&instance.host).with_context(|| format!("{} is on no host", instance.name))?.clone();
    let netns = instance.container_id.clone();
    if netns.is_none() {
        bail!("{} has no namespace", instance.name);
    }
    Ok(Probe { host, netns, from: instance.display_name.clone(), action })
}

impl Probe {
    fn run(&self) -> Result<()> {
        match &self.action {
            Action::Ping { to, .. } => self.busybox(&["ping", "-c", "1", "-W", "5", &to.to_string()], "").map(drop),
            Action::Fetch { to, name, seen, .. } => {
                // Not wget: the one of a static busybox crashes in glibc when it is given a timeout.
                let request = format!("GET {} HTTP/1.0\r\n\r\n", image::WHOAMI);
                let words = ["timeout", "8", "busybox", "nc", "-w", "5", &to.to_string(), "80"];
                let answer = self.busybox(&words, &request)?;
                expect_answer(answer.lines().next_back().unwrap_or_default(), name, *seen)
            }
            Action::Lease { device, address } => {
                let script = ["udhcpc", "-f", "-n", "-q", "-t", "3", "-T", "2", "-s", "/bin/true", "-i", device];
                let answer = self.busybox(&script, "")?;
                if !answer.contains(&format!("lease of {address} obtained")) {
                    bail!("another address: {}", answer.trim());
                }
                Ok(())
            }
        }
    }

    /// Runs a busybox applet where the probe starts, with `input` to read, and returns everything it says.
    fn busybox(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = enter::command(&self.host)?;
        if let Some(netns) = &self.netns {
            command.arg("nsenter").arg(format!("--net={}", netns::path(netns).display()));
        }
        command.arg("busybox").args(words);
        let output = command::collect(&mut command, input)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if !output.status.success() {
            bail!("busybox {}: {}: {}", words.join(" "), output.status, said.trim());
        }
        Ok(said)
    }
}

/// Compares `<name> saw <address>`; the address may come as an IPv4-mapped one in brackets.
fn expect_answer(answer: &str, name: &str, seen: Option<Ipv4Addr>) -> Result<()> {
    let (who, from) = answer.split_once(" saw ").with_context(|| format!("an answer of another form: {answer:?}"))?;
    if who != name {
        bail!("{who} answered instead of {name}");
    }
    let from = from.trim_start_matches("[::ffff:").trim_end_matches(']');
    match seen {
        Some(seen) if from != seen.to_string() => bail!("it was seen as {from}"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::expect_answer;

    #[test]
    fn answer_of_another_machine_or_for_another_source_is_a_failure() {
        let seen = Some([172, 24, 4, 6].into());
        assert!(expect_answer("web saw 172.24.4.6", "web", seen).is_ok());
        assert!(expect_answer("web saw [::ffff:172.24.4.6]", "web", seen).is_ok());
        assert!(expect_answer("web saw 10.0.0.2", "web", seen).is_err());
        assert!(expect_answer("other saw 172.24.4.6", "web", seen).is_err());
        assert!(expect_answer("404", "web", None).is_err());
    }
}
