//! Facts joined into one picture of the host. Flow: discover.
//!
//! An `Inventory` borrows a snapshot and adds what no single source knows: which namespace is what, which link is the
//! other end of which, which device is which Open vSwitch port, and which instance owns them. Names are hints here:
//! everything is joined by identity (namespace and index, container id, port UUID) wherever a source gives one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::OnceLock,
};

use ipnet::IpNet;

use crate::{
    compile::Tables,
    fact::{LinkFact, NamespaceFact, NetworkFact, ProgramFact, RulesetFact, SourceKind, SysctlFact},
    groups::{self, Asked},
    id::{LinkKey, NetnsId},
    netfilter::{Ruleset, sets},
    snapshot::Snapshot,
    trace::NetnsRef,
};

/// Who runs a bridge of Open vSwitch.
pub mod control;
/// Which network card netdiag's own security groups hold at.
pub mod enforcement;
/// Containers, virtual machines and plugged namespaces, with every identity they have.
pub mod instance;
/// Address translation of a card.
pub mod nat;
/// Who else is on the segment of a network card.
pub mod neighbourhood;
/// The network cards of an instance and where they are plugged in.
pub mod nic;
/// What a namespace is and what to call it.
pub mod role;
/// Routes: which way a namespace sends a packet.
pub mod route;
/// Open vSwitch: ports, patch pairs, tunnels, and the devices behind them.
pub mod switch;
#[cfg(test)]
mod tests;

pub use enforcement::Enforcement;
pub use instance::Instance;
pub use nic::Nic;
pub use role::Role;
pub use switch::PortPlace;

/// One picture of a host.
#[derive(Debug)]
pub struct Inventory<'a> {
    /// What it was made from.
    pub snapshot: &'a Snapshot,
    /// The host's own namespace.
    pub host: Option<NetnsId>,
    /// Every instance, in the order of their names.
    pub instances: Vec<Instance<'a>>,
    namespaces: BTreeMap<NetnsId, &'a NamespaceFact>,
    networks: BTreeMap<NetnsId, &'a NetworkFact>,
    roles: BTreeMap<NetnsId, Role>,
    labels: BTreeMap<NetnsId, String>,
    links: HashMap<LinkKey, &'a LinkFact>,
    links_by_name: HashMap<&'a str, Vec<LinkKey>>,
    ports: switch::Ports<'a>,
    rulesets: BTreeMap<NetnsId, Vec<Ruleset>>,
    /// What is asked for, read where somebody wants to know.
    asked: OnceLock<Option<Asked>>,
    /// What is loaded, as tables to look things up in.
    loaded: OnceLock<Option<Tables>>,
}

impl<'a> Inventory<'a> {
    /// Joins what a snapshot holds.
    pub fn build(snapshot: &'a Snapshot) -> Self {
        let facts = &snapshot.facts;
        let namespaces: BTreeMap<_, _> = facts.namespaces.iter().map(|fact| (fact.id, fact)).collect();
        let networks: BTreeMap<_, _> = facts.networks.iter().map(|fact| (fact.netns, fact)).collect();
        let containers = instance::join(&facts.containers);
        let (roles, labels) = role::assign(facts, &containers);
        let mut links = HashMap::new();
        let mut links_by_name: HashMap<&str, Vec<LinkKey>> = HashMap::new();
        for network in &facts.networks {
            for link in &network.links {
                let key = LinkKey { netns: network.netns, ifindex: link.ifindex };
                links.insert(key, link);
                for name in [&link.name].into_iter().chain(&link.alt_names) {
                    links_by_name.entry(name).or_default().push(key);
                }
            }
        }
        let host = facts.namespaces.iter().find(|fact| fact.host).map(|fact| fact.id);
        let ports = switch::Ports::build(&facts.switches);
        let mut rulesets: BTreeMap<NetnsId, Vec<Ruleset>> = BTreeMap::new();
        let sets: BTreeMap<_, _> = facts.sets.iter().map(|fact| (fact.netns, sets::parse(&fact.text))).collect();
        for RulesetFact { netns, backend, ipv6, text } in &facts.rulesets {
            // A line that cannot be parsed stays in the rule set as raw text, which the walk treats as unknown.
            let (mut ruleset, _) = Ruleset::read(*backend, *ipv6, text);
            if let Some(sets) = sets.get(netns) {
                ruleset.fill(sets);
            }
            rulesets.entry(*netns).or_default().push(ruleset);
        }
        let mut inventory = Self {
            snapshot,
            host,
            instances: Vec::new(),
            namespaces,
            networks,
            roles,
            labels,
            links,
            links_by_name,
            ports,
            rulesets,
            asked: OnceLock::new(),
            loaded: OnceLock::new(),
        };
        inventory.instances = instance::list(&inventory, &containers);
        inventory
    }

    /// What is asked for; none where the snapshot does not have it.
    pub(crate) fn asked(&self) -> Option<&Asked> {
        let read = || Some(Asked::read(self.snapshot.facts.enforcement.as_ref()?)?.with_labelled(self));
        self.asked.get_or_init(read).as_ref()
    }

    /// What is loaded, as tables to look things up in; none where it was not read.
    pub(crate) fn loaded(&self) -> Option<&Tables> {
        let read = || self.snapshot.facts.enforcement.as_ref()?.tables.as_ref().map(groups::tables);
        self.loaded.get_or_init(read).as_ref()
    }

    /// A link by its identity.
    pub fn link(&self, key: LinkKey) -> Option<&'a LinkFact> {
        self.links.get(&key).copied()
    }

    /// A link by its name in one namespace.
    pub fn link_named(&self, netns: NetnsId, name: &str) -> Option<LinkKey> {
        self.links_named(name).find(|key| key.netns == netns)
    }

    /// Every link of a name, in whatever namespace.
    pub fn links_named(&self, name: &str) -> impl Iterator<Item = LinkKey> {
        self.links_by_name.get(name).into_iter().flatten().copied()
    }

    /// Every link of one namespace.
    pub fn links_in(&self, netns: NetnsId) -> impl Iterator<Item = (LinkKey, &'a LinkFact)> {
        let links = self.networks.get(&netns).map_or(&[][..], |network| &network.links);
        links.iter().map(move |link| (LinkKey { netns, ifindex: link.ifindex }, link))
    }

    /// Every link of the host.
    pub fn all_links(&self) -> impl Iterator<Item = (LinkKey, &'a LinkFact)> {
        self.networks.keys().flat_map(|netns| self.links_in(*netns))
    }

    /// What rtnetlink said of a namespace.
    pub fn network(&self, netns: NetnsId) -> Option<&'a NetworkFact> {
        self.networks.get(&netns).copied()
    }

    /// Whether a source could not read something that concerns a namespace: what is missing there may exist all the same.
    pub fn unread(&self, source: SourceKind, netns: NetnsId) -> bool {
        let mut gaps = self.snapshot.facts.gaps();
        gaps.any(|gap| gap.source == source && !gap.absent && gap.netns.is_none_or(|of| of == netns))
    }

    /// How a namespace was found, and the processes in it.
    pub fn namespace(&self, netns: NetnsId) -> Option<&'a NamespaceFact> {
        self.namespaces.get(&netns).copied()
    }

    /// Every namespace with what it is.
    pub fn roles(&self) -> impl Iterator<Item = (NetnsId, &Role)> {
        self.roles.iter().map(|(id, role)| (*id, role))
    }

    /// What a namespace is.
    pub fn role(&self, netns: NetnsId) -> &Role {
        self.roles.get(&netns).unwrap_or(&Role::Other)
    }

    /// A namespace as a reader wants to see it.
    pub fn netns(&self, id: NetnsId) -> NetnsRef {
        let label = self.labels.get(&id).cloned().unwrap_or_else(|| id.to_string());
        NetnsRef { id, label, host: Some(id) == self.host }
    }

    /// The device a link points at (`IFLA_LINK`): the other end of a veth, the lower device of a VLAN or macvlan; none
    /// where its namespace cannot be seen from here.
    pub fn lower(&self, key: LinkKey) -> Option<LinkKey> {
        let link = self.link(key)?;
        let ifindex = link.link?;
        let netns = match link.link_netnsid {
            None => key.netns,
            Some(id) => *self.network(key.netns)?.nsids.get(&id)?,
        };
        let lower = LinkKey { netns, ifindex };
        self.link(lower).map(|_| lower)
    }

    /// The other end of a veth.
    pub fn peer(&self, key: LinkKey) -> Option<LinkKey> {
        self.link(key)?.kind.as_deref().filter(|kind| *kind == "veth")?;
        self.lower(key)
    }

    /// The bridge, bond or VRF a link is enslaved to.
    pub fn master(&self, key: LinkKey) -> Option<LinkKey> {
        let master = LinkKey { netns: key.netns, ifindex: self.link(key)?.master? };
        self.link(master).map(|_| master)
    }

    /// The Linux bridge a link is a port of.
    pub fn linux_bridge(&self, key: LinkKey) -> Option<LinkKey> {
        self.master(key).filter(|master| self.kind(*master) == Some("bridge"))
    }

    /// The ports of a Linux bridge.
    pub fn bridge_ports(&self, bridge: LinkKey) -> impl Iterator<Item = (LinkKey, &'a LinkFact)> {
        self.links_in(bridge.netns).filter(move |(_, link)| link.master == Some(bridge.ifindex))
    }

    /// Kind of a link.
    pub fn kind(&self, key: LinkKey) -> Option<&'a str> {
        self.link(key)?.kind.as_deref()
    }

    /// The link of a namespace that holds an address.
    pub fn holder(&self, netns: NetnsId, address: std::net::IpAddr) -> Option<LinkKey> {
        self.links_in(netns)
            .find(|(_, link)| link.addresses.iter().any(|held| held.address.addr() == address))
            .map(|(key, _)| key)
    }

    /// Addresses of a link that mean something outside it: link-local ones are left out.
    pub fn addresses(&self, key: LinkKey) -> Vec<IpNet> {
        let held = self.link(key).map_or(&[][..], |link| &link.addresses);
        held.iter().filter(|held| held.scope != "link" && held.scope != "host").map(|held| held.address).collect()
    }

    /// Sysctl of a namespace.
    pub fn sysctl(&self, netns: NetnsId, name: &str) -> Option<&'a str> {
        let fact: &SysctlFact = self.snapshot.facts.sysctls.iter().find(|fact| fact.netns == netns)?;
        fact.values.get(name).map(String::as_str)
    }

    /// Programs attached to a device.
    pub fn programs(&self, key: LinkKey) -> impl Iterator<Item = &'a ProgramFact> {
        let programs = self.snapshot.facts.programs.iter();
        programs.filter(move |fact| fact.netns == key.netns && fact.ifindex == key.ifindex)
    }

    /// Open vSwitch.
    pub fn ports(&self) -> &switch::Ports<'a> {
        &self.ports
    }

    /// The device behind an Open vSwitch port: the link of that name in the switch's own namespace, or, for an internal
    /// port, wherever it was moved to.
    ///
    /// An internal port in another namespace has no index in OVSDB, so it is found by name. Whoever owns a namespace names
    /// links in it as they like: only a link of the kind Open vSwitch makes can be the port (`openvswitch` in the kernel
    /// datapath, a TAP in user space), and where several are, `attached-mac` must single one out.
    pub fn device(&self, port: &PortPlace<'a>) -> Option<LinkKey> {
        let name = &port.interface.name;
        if let Some(home) = port.switch.netns.and_then(|netns| self.link_named(netns, name)) {
            return Some(home);
        }
        let made = |key: &LinkKey| matches!(self.kind(*key), Some("openvswitch" | "tun"));
        let moved: Vec<LinkKey> =
            self.links_named(name).filter(|_| port.interface.kind == "internal").filter(made).collect();
        if let [only] = moved[..] {
            return Some(only);
        }
        let attached = port.attached_mac()?;
        let mut same = moved.into_iter().filter(|key| self.link(*key).is_some_and(|link| link.mac == Some(attached)));
        same.next().filter(|_| same.next().is_none())
    }

    /// The Open vSwitch port a device is.
    pub fn port_of(&self, key: LinkKey) -> Option<PortPlace<'a>> {
        let name = &self.link(key)?.name;
        self.ports.named(name).find(|port| self.device(port) == Some(key))
    }
}
