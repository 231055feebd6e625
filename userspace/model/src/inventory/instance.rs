//! Containers, virtual machines and plugged namespaces, with every identity they have.

use std::collections::BTreeMap;

use super::{
    Inventory, Nic, PortPlace, Role,
    nic::{container_nics, machine_nics},
};
use crate::{
    fact::{ContainerFact, EndpointFact, MachineFact, PublishedPort, SourceKind},
    id::{LinkKey, NetnsId, Uuid},
    trace::{Identity, InstanceKind},
};

/// State of an instance of which nothing is left but its port.
pub const GONE: &str = "gone";

/// An instance: whatever sends and receives packets on this host and is not the host's own plumbing.
#[derive(Debug)]
pub struct Instance<'a> {
    /// Every identity it has.
    pub identity: Identity,
    /// Its network namespace; the host's for a virtual machine, whose taps live there.
    pub netns: Option<NetnsId>,
    /// Its network cards.
    pub nics: Vec<Nic<'a>>,
    /// Where Docker plugged it in.
    pub endpoints: &'a [EndpointFact],
    /// Published ports.
    pub published: &'a [PublishedPort],
    /// `NetworkMode` of the container.
    pub network_mode: Option<&'a str>,
}

/// A container as all sources together saw it: the runtime's own words first, `/proc`'s where only it knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined<'a> {
    best: &'a ContainerFact,
    other: Option<&'a ContainerFact>,
}

impl<'a> Joined<'a> {
    pub(super) fn netns(&self) -> Option<NetnsId> {
        self.best.netns.or_else(|| self.other.and_then(|other| other.netns))
    }

    pub(super) fn display_name(&self) -> String {
        self.best.name.clone().unwrap_or_else(|| self.best.id.chars().take(12).collect())
    }

    fn pick<T>(&self, field: impl Fn(&'a ContainerFact) -> Option<T>) -> Option<T> {
        field(self.best).or_else(|| self.other.and_then(field))
    }
}

/// Joins what several sources saw of one container, by its id.
pub(super) fn join(facts: &[ContainerFact]) -> Vec<Joined<'_>> {
    let mut joined: BTreeMap<&str, Joined<'_>> = BTreeMap::new();
    for fact in facts {
        joined
            .entry(&fact.id)
            .and_modify(|seen| {
                // The source with a name is the runtime itself, and knows more than `/proc` does.
                let (best, other) = if fact.name.is_some() { (fact, seen.best) } else { (seen.best, fact) };
                *seen = Joined { best, other: Some(other) };
            })
            .or_insert(Joined { best: fact, other: None });
    }
    joined.into_values().collect()
}

/// Every instance of a host, in the order of their names.
pub(super) fn list<'a>(inventory: &Inventory<'a>, containers: &[Joined<'a>]) -> Vec<Instance<'a>> {
    let machines = &inventory.snapshot.facts.machines;
    let mut instances: Vec<_> = containers.iter().map(|joined| container(inventory, joined)).collect();
    instances.extend(machines.iter().map(|fact| machine(inventory, fact)));
    instances.extend(namespaces(inventory));
    let left = gone(inventory, &instances);
    instances.extend(left);
    instances.sort_by(|a, b| a.identity.name.cmp(&b.identity.name).then(a.identity.pid.cmp(&b.identity.pid)));
    instances
}

fn container<'a>(inventory: &Inventory<'a>, joined: &Joined<'a>) -> Instance<'a> {
    let fact = joined.best;
    let name = joined.display_name();
    let nova_uuid = ["nova-", "zun-"].iter().find_map(|prefix| name.strip_prefix(prefix)?.parse().ok());
    let identity = Identity {
        kind: InstanceKind::Container,
        runtime: fact.runtime.name().to_owned(),
        container_id: Some(fact.id.clone()),
        container_name: fact.name.clone(),
        image: joined.pick(|fact| fact.image.clone()),
        hostname: joined.pick(|fact| fact.hostname.clone()),
        libvirt_name: None,
        nova_uuid,
        pid: joined.pick(|fact| fact.pid),
        state: fact.state.clone(),
        labels: fact.labels.clone(),
        name,
    };
    let netns = joined.netns();
    // A container on the host's network owns no link: the host's NICs are not its network cards.
    let own = netns.filter(|id| Some(*id) != inventory.host);
    Instance {
        nics: own.map_or_else(Vec::new, |netns| container_nics(inventory, netns)),
        identity,
        netns,
        endpoints: &fact.endpoints,
        published: &fact.published,
        network_mode: fact.network_mode.as_deref(),
    }
}

fn machine<'a>(inventory: &Inventory<'a>, fact: &'a MachineFact) -> Instance<'a> {
    let nova_uuid: Option<Uuid> = fact.uuid.as_ref().and_then(|uuid| uuid.parse().ok());
    let name = fact.name.clone().or_else(|| fact.uuid.clone()).unwrap_or_else(|| format!("qemu-{}", fact.pid));
    Instance {
        identity: Identity {
            name,
            kind: InstanceKind::Vm,
            runtime: "qemu".to_owned(),
            libvirt_name: fact.name.clone(),
            nova_uuid,
            pid: Some(fact.pid),
            state: "running".to_owned(),
            ..Identity::default()
        },
        netns: fact.netns.or(inventory.host),
        nics: machine_nics(inventory, fact),
        endpoints: &[],
        published: &[],
        network_mode: None,
    }
}

/// Namespaces that somebody plugged into this host and that are no container and none of Neutron's own.
fn namespaces<'a>(inventory: &Inventory<'a>) -> Vec<Instance<'a>> {
    let mut instances = Vec::new();
    for (netns, role) in inventory.roles() {
        if *role != Role::Other {
            continue;
        }
        let nics = container_nics(inventory, netns);
        if nics.is_empty() {
            continue;
        }
        let process = inventory.namespace(netns).and_then(|fact| fact.processes.first());
        instances.push(Instance {
            identity: Identity {
                name: inventory.netns(netns).label,
                kind: InstanceKind::Namespace,
                runtime: "netns".to_owned(),
                pid: process.map(|process| process.pid),
                state: if process.is_some() { "running" } else { "no process" }.to_owned(),
                ..Identity::default()
            },
            netns: Some(netns),
            nics,
            endpoints: &[],
            published: &[],
            network_mode: None,
        });
    }
    instances
}

/// Ports of Neutron with nobody behind them: a tap no process holds, a veth whose other end nobody took, a device that is
/// not there. What is behind a device that cannot be looked behind (a namespace that was not seen, a function of a card) is
/// not said to be gone.
fn gone<'a>(inventory: &Inventory<'a>, others: &[Instance<'a>]) -> Vec<Instance<'a>> {
    let host = inventory.host;
    if host.is_none_or(|host| inventory.unread(SourceKind::Process, host) || inventory.unread(SourceKind::Netns, host))
    {
        return Vec::new();
    }
    let taken: Vec<Uuid> = others.iter().flat_map(|other| &other.nics).filter_map(|nic| nic.port_id.clone()).collect();
    let ports = inventory.ports().all().iter().filter(|port| matches!(port.interface.kind.as_str(), "" | "system"));
    let left = ports.filter_map(|port| {
        port.port_id().filter(|id| !taken.contains(id))?;
        let device = inventory.device(port);
        let nobody = match device {
            None => port.switch.netns.is_some_and(|netns| !inventory.unread(SourceKind::Netlink, netns)),
            Some(key) => match inventory.kind(key) {
                // A tap has a carrier while a process holds it, whichever hypervisor it is.
                Some("tun") => inventory.link(key).is_some_and(|link| !link.carrier),
                Some("veth") => inventory.peer(key).is_some(),
                Some(_) | None => false,
            },
        };
        nobody.then(|| remnant(inventory, port, device))
    });
    left.collect()
}

fn remnant<'a>(inventory: &Inventory<'a>, port: &PortPlace<'a>, device: Option<LinkKey>) -> Instance<'a> {
    let veth = device.is_some_and(|key| inventory.kind(key) == Some("veth"));
    Instance {
        identity: Identity {
            name: port.interface.name.clone(),
            kind: if veth { InstanceKind::Container } else { InstanceKind::Vm },
            runtime: "Open vSwitch port".to_owned(),
            nova_uuid: port.instance_id().and_then(|id| id.parse().ok()),
            state: GONE.to_owned(),
            ..Identity::default()
        },
        netns: None,
        nics: vec![Nic::left_behind(inventory, port, device)],
        endpoints: &[],
        published: &[],
        network_mode: None,
    }
}
