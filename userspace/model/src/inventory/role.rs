//! What a namespace is and what to call it.

use std::collections::BTreeMap;

use super::instance::Joined;
use crate::{
    fact::{Facts, NamespaceFact, OvsInterfaceFact, ProcessFact},
    id::{NetnsId, Uuid},
};

/// What the host's own namespace is called, and no other.
const HOST: &str = "host";

/// What a namespace is. The prefixes are Neutron's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The host's own.
    Host,
    /// A container's.
    Container,
    /// A Neutron router (`qrouter-`); without an id where its namespace has lost its name and a process keeps it alive.
    Router(Option<Uuid>),
    /// The centralised SNAT of a distributed router (`snat-`).
    Snat(Uuid),
    /// The floating IPs of an external network on a distributed router's host (`fip-`).
    Fip(Uuid),
    /// The DHCP service of a network (`qdhcp-`); without an id as a router is.
    Dhcp(Option<Uuid>),
    /// OVN's metadata service of a network (`ovnmeta-`).
    OvnMetadata(Uuid),
    /// None of these.
    Other,
}

impl Role {
    fn of_name(name: &str) -> Option<Self> {
        let (prefix, id) = name.split_once('-')?;
        let id = id.parse().ok()?;
        match prefix {
            "qrouter" => Some(Self::Router(Some(id))),
            "snat" => Some(Self::Snat(id)),
            "fip" => Some(Self::Fip(id)),
            "qdhcp" => Some(Self::Dhcp(Some(id))),
            "ovnmeta" => Some(Self::OvnMetadata(id)),
            _ => None,
        }
    }

    /// True for namespaces Neutron's agents made.
    pub const fn is_neutron(&self) -> bool {
        matches!(self, Self::Router(_) | Self::Snat(_) | Self::Fip(_) | Self::Dhcp(_) | Self::OvnMetadata(_))
    }
}

/// Roles and labels of all namespaces.
pub(super) fn assign(facts: &Facts, containers: &[Joined<'_>]) -> (BTreeMap<NetnsId, Role>, BTreeMap<NetnsId, String>) {
    let mut roles = BTreeMap::new();
    let mut labels = BTreeMap::new();
    for namespace in &facts.namespaces {
        let role = role(namespace, containers);
        let role = if role == Role::Other { nameless(facts, namespace) } else { role };
        labels.insert(namespace.id, label(namespace, &role, containers));
        roles.insert(namespace.id, role);
    }
    (roles, labels)
}

fn role(namespace: &NamespaceFact, containers: &[Joined<'_>]) -> Role {
    if namespace.host {
        return Role::Host;
    }
    if let Some(role) = file_names(namespace).find_map(Role::of_name) {
        return role;
    }
    if containers.iter().any(|container| container.netns() == Some(namespace.id)) {
        Role::Container
    } else {
        Role::Other
    }
}

/// What a namespace without a name of Neutron's is, by the ports in it and what runs there.
fn nameless(facts: &Facts, namespace: &NamespaceFact) -> Role {
    let serves = |process: &ProcessFact| matches!(process.comm.as_str(), "dnsmasq" | "haproxy");
    if has_ports(facts, namespace.id, &["qr-", "qg-"]) {
        Role::Router(None)
    } else if namespace.processes.iter().any(serves) && has_ports(facts, namespace.id, &["tap"]) {
        Role::Dhcp(None)
    } else {
        Role::Other
    }
}

/// Whether a namespace has ports of Neutron's agents that begin so: internal ports of Open vSwitch that belong to no
/// instance. A tenant may give any name to a link, but cannot make it a port.
fn has_ports(facts: &Facts, netns: NetnsId, prefixes: &[&str]) -> bool {
    let bridges = facts.switches.iter().flat_map(|switch| &switch.bridges);
    let interfaces = bridges.flat_map(|bridge| &bridge.ports).flat_map(|port| &port.interfaces);
    let agents = |interface: &&OvsInterfaceFact| {
        let has = |key| interface.external_ids.contains_key(key);
        interface.kind == "internal" && has("iface-id") && !has("vm-uuid") && !has("vm-id")
    };
    let ports: Vec<&str> = interfaces.filter(agents).map(|interface| interface.name.as_str()).collect();
    let links = facts.networks.iter().filter(|network| network.netns == netns).flat_map(|network| &network.links);
    let made = |kind: Option<&str>| matches!(kind, Some("tun" | "openvswitch"));
    let begins = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let mut made = links.filter(|link| made(link.kind.as_deref()));
    made.any(|link| begins(&link.name) && ports.contains(&link.name.as_str()))
}

fn label(namespace: &NamespaceFact, role: &Role, containers: &[Joined<'_>]) -> String {
    if *role == Role::Host {
        return HOST.to_owned();
    }
    let label = other_label(namespace, role, containers);
    // A container may call itself as it likes.
    if label == HOST { format!("{label} ({})", namespace.id) } else { label }
}

fn other_label(namespace: &NamespaceFact, role: &Role, containers: &[Joined<'_>]) -> String {
    let owners: Vec<_> = containers.iter().filter(|container| container.netns() == Some(namespace.id)).collect();
    let named = file_names(namespace).find(|name| role.is_neutron() == Role::of_name(name).is_some());
    match (&owners[..], named) {
        // A container says more than the 64 digits nova-docker names its namespace by.
        ([owner, ..], _) if !role.is_neutron() => owner.display_name(),
        (_, Some(name)) => name.to_owned(),
        _ => namespace.processes.first().map_or_else(
            || namespace.id.to_string(),
            |process| format!("{} of {} ({})", namespace.id, process.comm, process.pid),
        ),
    }
}

fn file_names(namespace: &NamespaceFact) -> impl Iterator<Item = &str> {
    namespace.names.iter().filter_map(|name| name.path.rsplit('/').next())
}
