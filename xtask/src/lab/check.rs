//! Tries what has to work in a lab. Which probes there are follows from the inventory alone.
//!
//! Most probes are one HTTP request that is answered with who was reached and which address it was seen from, so a probe
//! that arrives at the wrong instance, or without the translation it should have, fails as one that does not arrive.

use std::{fmt, net::Ipv4Addr, path::PathBuf, process::ExitStatus};

use anyhow::{Context as _, Result, bail};

use crate::lab::{
    command, enter, image,
    inventory::{Host, Instance, Inventory, Network, Port, Role, Router, Uuid},
    netns, parallel,
};

mod docker;
mod security;

use security::Flow;

/// Exit code of busybox `timeout` when it had to end the program (128 and SIGTERM).
const TIMED_OUT: i32 = 143;

/// The port of every instance's web server.
const WEB: u16 = 80;

/// One thing to try.
#[derive(Debug)]
pub(crate) struct Probe {
    place: Place,
    /// Who tries.
    from: String,
    action: Action,
}

/// Where it is tried from.
#[derive(Debug)]
enum Place {
    /// A host, in the namespace of this file if not in its own.
    Host(Box<Host>, Option<PathBuf>),
    /// The guest of a virtual machine, by its process 1.
    Guest(u32),
}

#[derive(Debug)]
enum Action {
    /// An echo request is answered.
    Ping { to: Ipv4Addr, target: String },
    /// A TCP connection reaches `name`, which sees it come from `seen`.
    Fetch { to: Ipv4Addr, port: u16, name: String, seen: Option<Ipv4Addr>, target: String },
    /// A TCP connection is accepted or refused: what is sent arrives, whether or not somebody listens.
    Knock { to: Ipv4Addr, port: u16, target: String },
    /// Nothing answers an echo request, or a TCP connection to this port.
    Silence { to: Ipv4Addr, port: Option<u16>, target: String },
    /// A DNS server, asked over UDP, knows this name.
    Resolve { to: Ipv4Addr, query: String, target: String },
    /// A DHCP request on a device is answered with this address.
    Lease { device: String, address: Ipv4Addr },
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.from)?;
        match &self.action {
            Action::Ping { to, target } => write!(f, "ping {to} ({target})"),
            Action::Fetch { to, port, target, seen: Some(seen), .. } => {
                write!(f, "TCP to {to}:{port} ({target}), seen as {seen}")
            }
            Action::Fetch { to, port, target, seen: None, .. } => write!(f, "TCP to {to}:{port} ({target})"),
            Action::Knock { to, port, target } => write!(f, "TCP to {to}:{port} ({target}) arrives"),
            Action::Silence { to, port: Some(port), target } => write!(f, "no TCP to {to}:{port} ({target})"),
            Action::Silence { to, port: None, target } => write!(f, "no ping to {to} ({target})"),
            Action::Resolve { to, query, target } => write!(f, "UDP to {to}:53 ({target}), asking for {query}"),
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
    security::probes(lab, &mut probes)?;
    docker::probes(lab, &mut probes)?;
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
        let flow = Flow::between(own, port);
        for action in [
            Action::Ping { to: port.address.address, target: target.clone() },
            fetch(port.address.address, to, Some(own.address.address), target),
        ] {
            probes.push(probe(lab, from, flow.judge(lab, action))?);
        }
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
        let flow = Flow::between(own, port);
        for action in [
            Action::Ping { to: port.address.address, target: target.clone() },
            fetch(port.address.address, to, Some(own.address.address), target),
        ] {
            probes.push(probe(lab, from, flow.judge(lab, action))?);
        }
    }
    Ok(())
}

/// From an instance to its gateway, to the machines outside, and to the metadata service.
fn outward(lab: &Inventory, instance: &Instance, probes: &mut Vec<Probe>) -> Result<()> {
    let Some(port) = instance.default_port() else { return Ok(()) };
    let Some(router) = port.router.as_ref().and_then(|id| lab.router(id)) else { return Ok(()) };
    let mut actions = vec![Action::Ping { to: port.gateway, target: router.name.clone() }];
    let seen = Some(port.floating_ip.unwrap_or(router.gateway.address.address));
    for (host, address) in outside(lab) {
        let target = host.name.clone();
        actions.push(Action::Ping { to: address, target: target.clone() });
        actions.push(Action::Fetch { to: address, port: WEB, name: host.name.clone(), seen, target });
    }
    actions.push(Action::Fetch {
        to: Ipv4Addr::new(169, 254, 169, 254),
        port: WEB,
        // A distributed router answers wherever it is.
        name: if router.distributed.is_some() { instance.host.clone() } else { router.host.clone() },
        seen: Some(port.address.address),
        target: "metadata".into(),
    });
    for action in actions {
        let flow = Flow::outward(port, action.destination());
        probes.push(probe(lab, instance, flow.judge(lab, action))?);
    }
    Ok(())
}

/// From the machines outside and from an instance on the same network to an instance's floating IP.
fn inward(lab: &Inventory, instance: &Instance, probes: &mut Vec<Probe>) -> Result<()> {
    for port in &instance.ports {
        let Some(floating) = port.floating_ip else { continue };
        let target = format!("floating IP of {}", instance.display_name);
        for (host, address) in outside(lab) {
            let flow = Flow::inward(address, port);
            for action in [
                Action::Ping { to: floating, target: target.clone() },
                fetch(floating, instance, Some(address), target.clone()),
            ] {
                probes.push(probe_from_host(host, flow.judge(lab, action)));
            }
        }
        let neighbour = members(lab, &port.network).find(|(other, _)| other.uuid != instance.uuid);
        if let Some((neighbour, _)) = neighbour {
            let Some(flow) = Flow::hairpin(lab, neighbour, (port, floating)) else { continue };
            let action = fetch(floating, instance, Some(flow.seen), target);
            probes.push(probe(lab, neighbour, flow.judge(lab, action))?);
        }
    }
    Ok(())
}

fn outside(lab: &Inventory) -> impl Iterator<Item = (&Host, Ipv4Addr)> {
    let hosts = lab.hosts.iter().filter(|host| host.role == Role::Outside);
    hosts.flat_map(|host| host.uplinks.iter().filter_map(move |uplink| Some((host, uplink.address?.address))))
}

fn fetch(to: Ipv4Addr, instance: &Instance, seen: Option<Ipv4Addr>, target: String) -> Action {
    Action::Fetch { to, port: WEB, name: instance.name.clone(), seen, target }
}

/// A probe from a host itself.
fn probe_from_host(host: &Host, action: Action) -> Probe {
    Probe { place: Place::Host(Box::new(host.clone()), None), from: host.name.clone(), action }
}

/// A probe from inside an instance.
fn probe(lab: &Inventory, instance: &Instance, action: Action) -> Result<Probe> {
    let place = if let Some(machine) = &instance.machine {
        Place::Guest(machine.guest_pid.with_context(|| format!("{} has no guest", instance.name))?)
    } else {
        let host = lab.host(&instance.host).with_context(|| format!("{} is on no host", instance.name))?.clone();
        let id = instance.container_id.as_deref().with_context(|| format!("{} has no namespace", instance.name))?;
        Place::Host(Box::new(host), Some(netns::path(id)))
    };
    Ok(Probe { place, from: instance.display_name.clone(), action })
}

impl Probe {
    fn run(&self) -> Result<()> {
        match &self.action {
            Action::Ping { to, .. } => self.busybox(&["ping", "-c", "1", "-W", "10", &to.to_string()], "").map(drop),
            Action::Fetch { to, port, name, seen, .. } => {
                // Not wget: the one of a static busybox crashes in glibc when it is given a timeout.
                let request = format!("GET {} HTTP/1.0\r\n\r\n", image::WHOAMI);
                let words = ["timeout", "15", "busybox", "nc", "-w", "10", &to.to_string(), &port.to_string()];
                let answer = self.busybox(&words, &request)?;
                expect_answer(answer.lines().next_back().unwrap_or_default(), name, *seen)
            }
            Action::Knock { to, port, .. } => match self.knock(*to, *port)? {
                Answer::Accepted | Answer::Refused => Ok(()),
                Answer::Nothing => bail!("no answer"),
            },
            Action::Silence { to, port: Some(port), .. } => match self.knock(*to, *port)? {
                Answer::Nothing => Ok(()),
                Answer::Accepted => bail!("the connection was accepted"),
                Answer::Refused => bail!("the connection was refused, so it had arrived"),
            },
            Action::Silence { to, port: None, .. } => {
                let said = self.attempt(&["ping", "-c", "1", "-W", "2", &to.to_string()], "")?.1;
                if said.contains("100% packet loss") || said.contains("Network is unreachable") {
                    return Ok(());
                }
                bail!("there was an answer, or no try: {}", said.trim().replace('\n', "; "))
            }
            Action::Resolve { to, query, .. } => {
                self.busybox(&["timeout", "8", "busybox", "nslookup", "-type=a", query, &to.to_string()], "").map(drop)
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

    /// Begins a TCP connection and says what came of it.
    fn knock(&self, to: Ipv4Addr, port: u16) -> Result<Answer> {
        let words = ["timeout", "5", "busybox", "nc", "-w", "3", &to.to_string(), &port.to_string()];
        let (status, said) = self.attempt(&words, "\n")?;
        match said.as_str() {
            _ if said.contains("Connection refused") => Ok(Answer::Refused),
            _ if said.contains("nc: timed out") || said.contains("Network is unreachable") => Ok(Answer::Nothing),
            // A server may close the connection, or keep it until the time is over.
            _ if status.success() || status.code() == Some(TIMED_OUT) => Ok(Answer::Accepted),
            _ => bail!("{status}: {}", said.trim()),
        }
    }

    /// Runs a busybox applet where the probe starts, with `input` to read, and returns everything it says.
    fn busybox(&self, words: &[&str], input: &str) -> Result<String> {
        let (status, said) = self.attempt(words, input)?;
        if !status.success() {
            bail!("busybox {}: {status}: {}", words.join(" "), said.trim());
        }
        Ok(said)
    }

    /// The same, whatever its exit code, which is returned as well.
    fn attempt(&self, words: &[&str], input: &str) -> Result<(ExitStatus, String)> {
        let mut command = match &self.place {
            Place::Host(host, netns) => {
                let mut command = enter::command(host)?;
                if let Some(netns) = netns {
                    command.arg("nsenter").arg(format!("--net={}", netns.display()));
                }
                command
            }
            Place::Guest(pid) => enter::guest(*pid),
        };
        command.arg("busybox").args(words);
        let output = command::collect(&mut command, input)?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8_lossy(&said).into_owned()))
    }
}

/// What came of a TCP connection.
enum Answer {
    Accepted,
    Refused,
    Nothing,
}

impl Action {
    /// The address it is about.
    fn destination(&self) -> Ipv4Addr {
        match self {
            Self::Ping { to, .. }
            | Self::Fetch { to, .. }
            | Self::Knock { to, .. }
            | Self::Silence { to, .. }
            | Self::Resolve { to, .. } => *to,
            Self::Lease { address, .. } => *address,
        }
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
    use super::{expect_answer, probes};
    use crate::lab::{
        inventory::{Inventory, Profile},
        profile,
        spec::Spec,
    };

    /// The example as it is once its instances run.
    fn running() -> Inventory {
        let spec = Spec { name: "lab".into(), profile: Profile::NeutronOvs, instances: 0, no_docker: false };
        let mut lab = profile::plan(&spec);
        for instance in &mut lab.instances {
            instance.container_id = Some(instance.uuid.to_string());
        }
        lab
    }

    #[test]
    fn every_way_a_packet_can_take_is_tried() {
        let texts: Vec<_> = probes(&running()).unwrap().iter().map(ToString::to_string).collect();
        for expected in [
            "web-1: TCP to 10.0.0.3:80 (web-2, same network), seen as 10.0.0.2",
            "db-2: TCP to 10.0.0.5:80 (web-3, same network), seen as 10.0.0.4",
            "web-1: TCP to 10.0.1.2:80 (db-1, by demo-router), seen as 10.0.0.2",
            "web-1: ping 10.0.0.1 (demo-router)",
            "web-1: TCP to 203.0.113.10:80 (outside), seen as 172.24.4.6",
            "web-2: TCP to 203.0.113.10:80 (outside), seen as 172.24.4.2",
            "outside: TCP to 172.24.4.9:80 (floating IP of web-3), seen as 203.0.113.10",
            "web-2: TCP to 172.24.4.6:80 (floating IP of web-1), seen as 172.24.4.2",
            "other-1: TCP to 169.254.169.254:80 (metadata), seen as 10.0.0.2",
        ] {
            assert!(texts.iter().any(|text| text == expected), "{expected} is not among\n{}", texts.join("\n"));
        }
        assert_eq!(texts.iter().filter(|text| text.contains("DHCP")).count(), 3);
    }

    #[test]
    fn instance_that_was_not_started_is_an_error_instead_of_a_probe_left_out() {
        let mut lab = running();
        lab.instances[0].container_id = None;
        assert!(probes(&lab).is_err());
    }

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
