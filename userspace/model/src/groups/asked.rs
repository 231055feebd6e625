//! What is asked for, as far as the snapshot has it: names for what is loaded, and the other side of every comparison.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    fact::enforcement::EnforcementFact,
    inventory::Inventory,
    policy::{
        binding,
        convert::{self, Document},
        show::{self, Members},
        types::{Direction, Ethertype, GroupId, Policy, Port, PortId, Remote, Rule, Service},
    },
};

/// A group by id and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GroupRef {
    /// Its id.
    pub id: String,
    /// Its name; empty where it has none.
    pub name: String,
}

impl GroupRef {
    /// What an operator calls it: its name, or its id where it has none.
    pub fn called(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }
}

/// A rule in the words of whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// Its id.
    pub id: String,
    /// The group it is in.
    pub group: GroupRef,
    /// Direction.
    pub direction: Direction,
    /// Family.
    pub ethertype: Ethertype,
    /// Protocol and ports.
    #[serde(skip)]
    pub service: Service,
    /// Who may be at the other end.
    pub remote: RemoteRef,
    /// What its author says about it.
    pub description: String,
}

/// Who may be at the other end, with how many that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum RemoteRef {
    /// Everybody.
    Any,
    /// A prefix.
    Prefix(IpNet),
    /// Members of a group, and how many there are.
    Group(GroupRef, usize),
    /// Prefixes of an address group, and how many there are.
    AddressGroup(GroupRef, usize),
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) policy: Policy,
    /// Addresses of ports that were found at their devices.
    found: BTreeMap<PortId, BTreeSet<IpAddr>>,
}

impl Asked {
    /// Reads the document of a snapshot; none where there is none, or one this netdiag does not understand.
    pub(crate) fn read(loaded: &EnforcementFact) -> Option<Self> {
        let document = Document { name: "the agent's policy".to_owned(), text: loaded.asked.as_ref()?.to_string() };
        let policy = convert::policy(&[document]).ok()?;
        let ports = loaded.tables.iter().flat_map(|tables| &tables.ports);
        let found = ports.filter_map(|(slot, entry)| {
            let port = loaded.ports.iter().find(|port| port.slot == *slot)?;
            let v4 = entry.ipv4.iter().copied().map(IpAddr::V4);
            let v6 = entry.ipv6.iter().filter(|address| !address.is_unicast_link_local()).copied().map(IpAddr::V6);
            Some((PortId(port.port_id.clone()), v4.chain(v6).collect()))
        });
        Some(Self { policy, found: found.collect() })
    }

    /// The same with the ports of labelled containers, which no document has and which ask for their groups all the same.
    pub(crate) fn with_labelled(mut self, inventory: &Inventory<'_>) -> Self {
        let made = binding::bind(&self.policy, inventory).made;
        self.policy.ports.extend(made.into_iter().map(|port| (port.id.clone(), port)));
        self
    }

    /// A port by its id.
    pub(super) fn port(&self, id: &str) -> Option<&Port> {
        self.policy.ports.get(&PortId(id.to_owned()))
    }

    /// A group by its id, with its name.
    pub(super) fn group(&self, id: &GroupId) -> GroupRef {
        let name = self.policy.groups.get(id).map(|group| group.name.clone()).unwrap_or_default();
        GroupRef { id: id.0.clone(), name }
    }

    /// The rules of a port, in the order of its groups.
    pub(super) fn rules_of<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = (&'a GroupId, &'a Rule)> {
        let groups = port.groups.iter().filter_map(|id| self.policy.groups.get(id));
        groups.flat_map(|group| group.rules.iter().map(move |rule| (&group.id, rule)))
    }

    /// A rule by its id, with the group it is in.
    pub(super) fn rule(&self, id: &str) -> Option<RuleRef> {
        let all = self.policy.groups.values().flat_map(|group| group.rules.iter().map(move |rule| (&group.id, rule)));
        all.filter(|(_, rule)| rule.id.0 == id).map(|(group, rule)| self.refer(group, rule)).next()
    }

    /// A rule in words.
    pub(super) fn refer(&self, group: &GroupId, rule: &Rule) -> RuleRef {
        RuleRef {
            id: rule.id.0.clone(),
            group: self.group(group),
            direction: rule.direction,
            ethertype: rule.ethertype,
            service: rule.service,
            remote: self.remote(&rule.remote),
            description: rule.description.clone(),
        }
    }

    fn remote(&self, remote: &Remote) -> RemoteRef {
        match remote {
            Remote::Any => RemoteRef::Any,
            Remote::Prefix(net) => RemoteRef::Prefix(*net),
            Remote::Group(id) => RemoteRef::Group(self.group(id), self.members(id).len()),
            Remote::AddressGroup(id) => {
                let group = self.policy.address_groups.get(id);
                let name = group.map(|group| group.name.clone()).unwrap_or_default();
                let number = group.map_or(0, |group| group.addresses.len());
                RemoteRef::AddressGroup(GroupRef { id: id.0.clone(), name }, number)
            }
        }
    }

    /// Members of a group.
    pub(super) fn members(&self, id: &GroupId) -> BTreeSet<IpNet> {
        self.policy.members_of(id, &self.found)
    }

    /// Members of all groups.
    pub(super) fn all_members(&self) -> Members {
        show::members(&self.policy, &self.found)
    }

    /// Somebody who is in a remote; none where nobody of the family is.
    pub(super) fn somebody(&self, remote: &Remote, ethertype: Ethertype) -> Option<IpAddr> {
        let of_family = |net: &&IpNet| net.addr().is_ipv6() == (ethertype == Ethertype::IPv6);
        let first = |nets: &BTreeSet<IpNet>| nets.iter().find(of_family).map(IpNet::addr);
        match remote {
            // Addresses for documentation (RFC 5737, RFC 3849): no set has them by chance.
            Remote::Any if ethertype == Ethertype::IPv6 => {
                Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)))
            }
            Remote::Any => Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
            Remote::Prefix(net) => Some(net.addr()),
            Remote::Group(id) => first(&self.members(id)),
            Remote::AddressGroup(id) => first(&self.policy.address_groups.get(id)?.addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{fact::enforcement::EnforcementFact, inventory::Inventory, policy::types::GroupId, testing::Host};

    #[test]
    fn a_labelled_container_asks_for_the_groups_of_its_label() {
        let mut host = Host::new();
        let netns = host.netns(&["shop"]);
        host.container("shop", Some(netns));
        let (_, inner) = host.veth((host.id, "veth1"), (netns, "eth0"));
        host.mac(inner, "fa:16:3e:00:00:01");
        host.facts.containers[0].labels.insert("netdiag.security-groups".to_owned(), "web".to_owned());
        let asked = json!({"security_groups": [{"id": "web", "security_group_rules": []}]});
        host.facts.enforcement = Some(EnforcementFact { asked: Some(asked), ..EnforcementFact::default() });
        let snapshot = host.snapshot();
        let inventory = Inventory::build(&snapshot);
        let port = inventory.asked().and_then(|asked| asked.port("shop/eth0"));
        assert_eq!(port.map(|port| port.groups.clone()), Some(vec![GroupId("web".to_owned())]));
    }
}
