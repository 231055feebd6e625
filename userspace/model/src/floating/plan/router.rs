//! Routers and the floating IPs in their rules. Flow: policy.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    State,
    rules::{self, Rules},
    slow,
};
use crate::{
    fact::LinkFact,
    id::{LinkKey, NetnsId},
    inventory::{Inventory, Role},
    netfilter::{
        Ruleset, Target,
        recognise::{self, FloatingIpRules, RuleAt},
    },
};

/// Start of the name of the device that the routers of a highly available one hear each other by.
const HA_DEVICE: &str = "ha-";

/// Start of the name of a device to the outside.
const GATEWAY_DEVICE: &str = "qg-";

/// A namespace whose rules translate floating IPs.
#[derive(Debug)]
pub(super) struct Router {
    /// The namespace.
    pub(super) netns: NetnsId,
    /// Its name.
    pub(super) name: String,
    /// The centralised half of a distributed router: what the instances send comes by another namespace.
    pub(super) half: bool,
    /// The other router of a highly available pair is the active one.
    pub(super) standby: bool,
    /// The floating IPs in its rules.
    pub(super) floating: Vec<Found>,
    /// What its rules do, or the one that is not understood.
    pub(super) rules: Result<Rules, State>,
}

/// A floating IP in the rules of a router.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The address the outside knows.
    pub(super) floating: Ipv4Addr,
    /// The address it stands for.
    pub(super) fixed: Ipv4Addr,
    /// The device its rules lead out by.
    pub(super) device: Option<LinkKey>,
    /// The rules are bound to that device: a distributed router.
    pub(super) distributed: bool,
    /// Some device of the router holds the address.
    pub(super) held: bool,
    /// Rules that should be there and are not.
    pub(super) missing: Vec<&'static str>,
    /// The source translation may change ports.
    pub(super) random: bool,
}

/// Every router of a host, in the order of their names.
pub(super) fn all(inventory: &Inventory<'_>) -> Vec<Router> {
    let mut routers: Vec<_> = inventory
        .roles()
        .filter(|(_, role)| matches!(role, Role::Router(_) | Role::Snat(_)))
        .map(|(netns, role)| router(inventory, netns, role))
        .collect();
    routers.sort_by(|a, b| (&a.name, a.netns).cmp(&(&b.name, b.netns)));
    routers
}

fn router(inventory: &Inventory<'_>, netns: NetnsId, role: &Role) -> Router {
    let floating = floating(inventory, netns);
    let rules = if floating.is_empty() && !has_forwardings(inventory, netns) {
        slow("it has no floating IPs")
    } else {
        rules::read(inventory, netns, false)
    };
    Router {
        netns,
        name: inventory.netns(netns).label,
        half: matches!(role, Role::Snat(_)),
        standby: is_standby(inventory, netns),
        floating,
        rules,
    }
}

fn has_forwardings(inventory: &Inventory<'_>, netns: NetnsId) -> bool {
    inventory.rulesets(netns).iter().any(|ruleset| !recognise::port_forwardings(&ruleset.tables).is_empty())
}

/// Whether a router is one of a pair, and the other has the addresses: its own device to the outside has none.
fn is_standby(inventory: &Inventory<'_>, netns: NetnsId) -> bool {
    let named = |start: &'static str| inventory.links_in(netns).filter(move |(_, link)| link.name.starts_with(start));
    let has_address = |link: &LinkFact| link.addresses.iter().any(|held| held.address.addr().is_ipv4());
    named(HA_DEVICE).next().is_some() && !named(GATEWAY_DEVICE).any(|(_, link)| has_address(link))
}

fn floating(inventory: &Inventory<'_>, netns: NetnsId) -> Vec<Found> {
    let rulesets = inventory.rulesets(netns).iter().filter(|ruleset| !ruleset.ipv6);
    let holders = holders(inventory, netns);
    rulesets.flat_map(|ruleset| in_rules(inventory, netns, ruleset, &holders)).collect()
}

fn in_rules(
    inventory: &Inventory<'_>,
    netns: NetnsId,
    ruleset: &Ruleset,
    holders: &BTreeMap<Ipv4Addr, LinkKey>,
) -> Vec<Found> {
    let guards = recognise::guard(&ruleset.tables);
    let guarded = guards.first().and_then(|guard| inventory.link_named(netns, &guard.device));
    let found = recognise::floating_ips(&ruleset.tables).into_iter().filter_map(|rules| {
        let (IpAddr::V4(floating), IpAddr::V4(fixed)) = (rules.floating, rules.fixed) else { return None };
        let bound = rules.device.as_deref().and_then(|device| inventory.link_named(netns, device));
        let holder = holders.get(&floating).copied();
        Some(Found {
            floating,
            fixed,
            device: if rules.distributed() { bound } else { holder.or(guarded) },
            distributed: rules.distributed(),
            held: holder.is_some(),
            missing: rules.missing(),
            random: random(ruleset, &rules),
        })
    });
    found.collect()
}

/// Which device of a namespace holds which address.
fn holders(inventory: &Inventory<'_>, netns: NetnsId) -> BTreeMap<Ipv4Addr, LinkKey> {
    let held = inventory.links_in(netns).flat_map(|(key, link)| link.addresses.iter().map(move |held| (key, held)));
    held.filter_map(|(key, held)| match held.address.addr() {
        IpAddr::V4(address) => Some((address, key)),
        IpAddr::V6(_) => None,
    })
    .collect()
}

fn random(ruleset: &Ruleset, rules: &FloatingIpRules) -> bool {
    let target = |at: &RuleAt| at.rule(&ruleset.tables).map(|rule| &rule.target);
    matches!(rules.snat.as_ref().and_then(target), Some(Target::Snat(to)) if to.random)
}
