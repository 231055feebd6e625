//! Routers and the floating IPs in their rules. Flow: policy.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    id::{LinkKey, NetnsId},
    inventory::{Inventory, Role},
    netfilter::{
        Ruleset, Target,
        recognise::{self, FloatingIpRules, RuleAt},
    },
};

/// A namespace whose rules translate floating IPs.
#[derive(Debug)]
pub(super) struct Router {
    /// The namespace.
    pub(super) netns: NetnsId,
    /// Its name.
    pub(super) name: String,
    /// The floating IPs in its rules.
    pub(super) floating: Vec<Found>,
}

/// A floating IP in the rules of a router.
#[derive(Debug)]
pub(super) struct Found {
    /// The address the outside knows.
    pub(super) floating: Ipv4Addr,
    /// The address it stands for.
    pub(super) fixed: Ipv4Addr,
    /// The device the rules lead out by: the only one there is for them.
    pub(super) device: Option<LinkKey>,
    /// The rules are bound to that device: a distributed router.
    pub(super) distributed: bool,
    /// Rules that should be there and are not.
    pub(super) missing: Vec<&'static str>,
    /// The source translation may change ports.
    pub(super) random: bool,
}

/// Every router of a host, in the order of their names.
pub(super) fn all(inventory: &Inventory<'_>) -> Vec<Router> {
    let translates = |role: &Role| matches!(role, Role::Router(_) | Role::Snat(_));
    let routers = inventory.roles().filter(|(_, role)| translates(role)).map(|(netns, _)| Router {
        netns,
        name: inventory.netns(netns).label,
        floating: floating(inventory, netns),
    });
    let mut routers: Vec<_> = routers.collect();
    routers.sort_by(|a, b| (&a.name, a.netns).cmp(&(&b.name, b.netns)));
    routers
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
        let device = if rules.distributed() { bound } else { holders.get(&floating).copied().or(guarded) };
        Some(Found {
            floating,
            fixed,
            device,
            distributed: rules.distributed(),
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
