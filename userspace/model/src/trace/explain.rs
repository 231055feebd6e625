//! The whole explanation of one instance: its cards, their paths, what is wrong, and one sentence.

use std::collections::BTreeSet;

use super::{
    Finding, FloatingIp, HopKind, HopState, InstanceKind, InterfaceTrace, Publication, Severity, Trace, Verdict,
    command::{in_netns, quote},
    filter, floating, inside, inward,
    outward::Way,
    path::finding,
    sentence, service,
};
use crate::{
    fact::{DockerNetworkFact, Gap, SourceKind},
    groups::Summary,
    id::NetnsId,
    inventory::{Instance, Inventory, Nic, Role},
};

/// Explains the paths of one instance.
pub fn explain(inventory: &Inventory<'_>, instance: &Instance<'_>) -> Trace {
    let mut findings = instance_findings(inventory, instance);
    let mut interfaces = Vec::new();
    for nic in &instance.nics {
        let (interface, found) = interface(inventory, instance, nic);
        interfaces.push(interface);
        findings.extend(found);
    }
    // A lost carrier is what the fault at the other end of a link looks like: it comes after the fault itself.
    findings.sort_by_key(|finding| (finding.severity, finding.code == "no-carrier"));
    // The paths of two cards may meet the same fault, as may packets and the answers to them.
    let mut seen = BTreeSet::new();
    findings.retain(|Finding { code, object, message, evidence, .. }| {
        let what = if code == "filter-drop" { evidence } else { message };
        seen.insert((code.clone(), object.clone(), what.clone()))
    });
    let gaps = gaps(inventory, instance, &interfaces);
    let unknown = unread(inventory, instance) || !gaps.is_empty();
    let verdict = verdict(&findings, unknown, &interfaces);
    let sentence = sentence::compose(instance, &interfaces, &findings, verdict);
    Trace {
        hostname: inventory.snapshot.hostname.clone(),
        taken_at: inventory.snapshot.taken_at,
        instance: instance.identity.clone(),
        interfaces,
        findings,
        gaps,
        verdict,
        sentence,
    }
}

/// What there is to say of the instance before any card is looked at.
fn instance_findings(inventory: &Inventory<'_>, instance: &Instance<'_>) -> Vec<Finding> {
    let identity = &instance.identity;
    let name = &identity.name;
    let say = |severity, code, message: String, seen: String| finding(severity, code, name, message).seen(seen);
    // A virtual machine's process is in the host's namespace whatever the guest is plugged into.
    let on_host = identity.kind != InstanceKind::Vm
        && instance.nics.is_empty()
        && instance.netns.is_some()
        && instance.netns == inventory.host;
    let mut findings = Vec::new();
    if identity.is_gone() {
        let message = format!("nothing is behind {name} any more: the instance is gone, its port was left behind");
        let seen = "no process holds the device, and no namespace has its other end".to_owned();
        findings.push(
            say(Severity::Error, "port-left-behind", message, seen)
                .verify(format!("ovs-vsctl list interface {}", quote(name)))
                .fix(format!("ovs-vsctl del-port {}, if Neutron knows no such port", quote(name))),
        );
    } else if identity.is_stopped() {
        let message = format!("{name} is not running: it has no network");
        findings
            .push(say(Severity::Error, "not-running", message, format!("state {}", identity.state)).fix("start it"));
    } else if instance.network_mode == Some("host") || on_host {
        let held = instance.netns.or(inventory.host).map(|netns| host_addresses(inventory, netns)).unwrap_or_default();
        let message = format!("{name} uses the host's own network: the outside reaches it by {held}");
        findings.push(say(Severity::Info, "host-network", message, "its network namespace is the host's".to_owned()));
    } else if unread(inventory, instance) {
        let message = format!("what is plugged into {name} is not known: its network could not be read");
        let seen = "no link of its namespace was seen, not even loopback";
        findings.push(say(Severity::Warning, "namespace-unread", message, seen.to_owned()).fix("run as root"));
    } else if instance.nics.is_empty() && instance.network_mode == Some("none") && identity.nova_uuid.is_none() {
        let message = format!("{name} was started without a network, and nobody has plugged one in");
        let seen = "NetworkMode none, no link but loopback".to_owned();
        findings.push(say(Severity::Info, "no-network", message, seen));
    } else if instance.nics.is_empty() {
        findings.push(nothing_plugged(inventory, instance));
    }
    if let Some(owner) = instance.network_mode.and_then(|mode| mode.strip_prefix("container:")) {
        let owners = inventory.instances.iter().map(|other| &other.identity);
        let owner = owners
            .clone()
            .find(|other| other.container_id.as_deref() == Some(owner))
            .map_or(owner, |other| &other.name);
        let message = format!("{name} shares the network of {owner}: cards, addresses and ports are the same");
        findings.push(say(Severity::Info, "shared-network", message, format!("NetworkMode container:{owner}")));
    }
    findings
}

/// Whether the cards of an instance could not be looked for. A namespace always has loopback, so one without any link was
/// not read.
fn unread(inventory: &Inventory<'_>, instance: &Instance<'_>) -> bool {
    if !instance.nics.is_empty() || instance.identity.is_stopped() || instance.network_mode == Some("host") {
        return false;
    }
    if instance.identity.kind == InstanceKind::Vm {
        return instance.netns.or(inventory.host).is_none_or(|netns| inventory.unread(SourceKind::Process, netns));
    }
    instance.netns.is_none_or(|netns| inventory.links_in(netns).next().is_none())
}

fn nothing_plugged(inventory: &Inventory<'_>, instance: &Instance<'_>) -> Finding {
    let name = &instance.identity.name;
    let vm = instance.identity.kind == InstanceKind::Vm;
    let fix = if vm { "virsh domiflist shows what it should have" } else { "plug a port into it" };
    let show = instance.netns.map(|netns| in_netns(inventory, netns, "ip link"));
    let found =
        finding(Severity::Error, "no-interface", name, format!("{name} has no network card: nothing is plugged in"))
            .seen("no link but loopback in its namespace, no tap held open")
            .fix(fix);
    Finding { verify: show, ..found }
}

/// The addresses the host itself is reached by.
fn host_addresses(inventory: &Inventory<'_>, netns: NetnsId) -> String {
    let links = inventory.links_in(netns).filter(|(_, link)| !link.loopback);
    let held = links.flat_map(|(key, _)| inventory.addresses(key)).map(|net| net.addr().to_string());
    let held: Vec<String> = held.collect();
    if held.is_empty() { "no address of its own".to_owned() } else { held.join(", ") }
}

fn interface(inventory: &Inventory<'_>, instance: &Instance<'_>, nic: &Nic<'_>) -> (InterfaceTrace, Vec<Finding>) {
    let mut way = Way::new(inventory, nic, docker_network(inventory, instance, nic).is_some());
    inside::hops(&mut way.path, inventory, instance, nic);
    filter::lets_out(&mut way);
    way.follow();
    filter::at_devices(&mut way);
    let network = nic.port.as_ref().map(crate::inventory::PortPlace::network).unwrap_or_default();
    let docker = docker_network(inventory, instance, nic);
    let mut floating_ips = filter::floating_ips(&mut way);
    floating::ways(&mut way, &mut floating_ips);
    let published_ports = filter::publications(&mut way, instance);
    filter::lets_nobody_in(&mut way, !floating_ips.is_empty());
    let inward = inward::path(&way, &floating_ips, &published_ports);
    let (dhcp, metadata) = service::find(&mut way);
    let Way { path, lateral, router, .. } = way;
    let mut findings = path.findings;
    findings.extend(lateral.findings);
    findings.extend(inward.findings);
    let mut hops = path.hops;
    hops.extend(lateral.hops);
    hops.extend(inward.hops);
    let bridge = nic.bridge.and_then(|bridge| inventory.link(bridge)).map(|link| link.name.clone());
    let interface = InterfaceTrace {
        port_id: nic.port_id.clone(),
        mac: nic.mac,
        addresses: nic.addresses.clone(),
        netns: nic.inner.map(|inner| inventory.netns(inner.netns)),
        device: nic.inner_name(inventory).map(str::to_owned),
        host_device: nic.outer_name(inventory).map(str::to_owned),
        bridge: bridge.or_else(|| nic.port.map(|port| port.bridge.name.clone())),
        vlan_tag: nic.port.and_then(|port| port.port.tag),
        network_id: network.id.map(str::to_owned).or_else(|| docker.map(|docker| docker.id.clone())),
        network_name: docker.map(|docker| docker.name.clone()),
        network_type: network.kind.map(str::to_owned).or_else(|| docker.map(|docker| docker.driver.clone())),
        physical_network: network.physical_network.map(str::to_owned),
        segmentation_id: network.segmentation_id,
        router,
        dhcp,
        metadata,
        floating_ips,
        published_ports,
        enforcement: Summary::of(inventory, nic),
        hops,
    };
    (interface, findings)
}

/// The Docker network a card belongs to: the endpoint with its MAC address, or with its bridge.
fn docker_network<'a>(
    inventory: &Inventory<'a>,
    instance: &Instance<'_>,
    nic: &Nic<'_>,
) -> Option<&'a DockerNetworkFact> {
    let networks = &inventory.snapshot.facts.docker_networks;
    let endpoint = instance.endpoints.iter().find(|endpoint| endpoint.mac.is_some() && endpoint.mac == nic.mac);
    let by_endpoint = endpoint.and_then(|endpoint| networks.iter().find(|network| network.id == endpoint.network_id));
    let bridge = nic.bridge.and_then(|bridge| inventory.link(bridge)).map(|link| link.name.as_str());
    by_endpoint.or_else(|| networks.iter().find(|network| bridge.is_some() && network.bridge.as_deref() == bridge))
}

/// Gaps that could have changed this answer: those of the whole host, those of the instance and of namespaces on a path,
/// and namespaces whose links were not seen at all. The router of the path may be one of the last; other containers are
/// on nobody's path.
fn gaps(inventory: &Inventory<'_>, instance: &Instance<'_>, interfaces: &[InterfaceTrace]) -> Vec<Gap> {
    let hops = interfaces.iter().flat_map(|interface| &interface.hops);
    let bridged = hops.clone().any(|hop| hop.kind == HopKind::LinuxBridge);
    let on_path: BTreeSet<NetnsId> =
        hops.filter_map(|hop| Some(hop.netns.as_ref()?.id)).chain(instance.netns).collect();
    let touched = |netns| {
        let blank = inventory.links_in(netns).next().is_none() && *inventory.role(netns) != Role::Container;
        on_path.contains(&netns) || blank
    };
    let facts = &inventory.snapshot.facts;
    let concerns = |gap: &&Gap| gap.netns.is_none_or(touched) && (gap.object != Gap::EBTABLES || bridged);
    let mut gaps: Vec<Gap> = facts.gaps().filter(|gap| !gap.absent).filter(concerns).cloned().collect();
    gaps.sort();
    gaps.dedup();
    gaps
}

fn verdict(findings: &[Finding], unread: bool, interfaces: &[InterfaceTrace]) -> Verdict {
    let broken = findings.iter().any(|finding| finding.severity == Severity::Error);
    // The last hop outward leaves the host; what it does is unknown by nature and says nothing about this host.
    let lost = interfaces.iter().any(InterfaceTrace::is_lost);
    if broken {
        Verdict::Broken
    } else if lost || unread {
        Verdict::Inconclusive
    } else {
        Verdict::Works
    }
}

impl FloatingIp {
    /// True where packets reach the instance by it.
    pub fn works(&self) -> bool {
        self.state <= HopState::Warning
    }
}

impl Publication {
    /// True where packets reach the instance by it.
    pub fn works(&self) -> bool {
        self.state <= HopState::Warning
    }
}
