//! The plan: which way every floating IP of a host takes, and why. Flow: policy.
//!
//! ```text
//! plan(&Inventory, &Policy, &[Attached], &Switches) -> Plan
//! ```
//!
//! `inventory` must hold what the sources netns, netlink, sysctl, bpf, netfilter and ovsdb saw of the whole host, `policy` the
//! policy with the ports that were made ([`Bound::complete`](crate::policy::binding::Bound::complete)), `enforced` the ports
//! as they are enforced ([`Bound::attached`](crate::policy::binding::Bound::attached)). The plan is a pure function of these:
//! the same host and the same policy give the same plan, numbers of routers included, and a change of one router leaves the
//! numbers of the others as they are.
//!
//! A floating IP is fast where all of its way through the router is understood, and else slow, with the first thing that was
//! not. What is not served by anybody is broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use netdiag_common::abi::floating::MAX_FLOATING;

use super::{FastPath, FloatingIp, Owner, Plan, State};
use crate::{
    inventory::Inventory,
    policy::types::{Attached, Policy, PortId},
};

/// Routes of a namespace, as prefixes.
mod fib;
/// Where a router sends what is translated.
mod hops;
/// From the router to the port of a fixed address.
mod inside;
/// What at the devices of a way needs to see its packets, or lets none through.
mod obstacle;
/// From the router to the external device.
mod outside;
/// Floating IPs that netdiag makes itself.
mod own;
/// Routers and the floating IPs in their rules.
mod router;
/// What the rules of a router do with packets of floating IPs.
mod rules;
/// Networks by what they are on this host.
mod segment;
#[cfg(test)]
mod tests;
/// The way of one floating IP that somebody else made.
mod way;
/// What is known of the whole host.
mod world;

use hops::Routers;
pub use own::Service;
use router::Router;
use world::World;

/// What of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switches {
    /// Lead floating IPs that were found in router namespaces past their routers.
    pub accelerate: bool,
    /// Serve the floating IPs of the policy.
    pub own: bool,
    /// Floating IPs whose new flows begin the slow way.
    pub slow: Slow,
    /// Addresses that netdiag served at some time since the look at the host began: what it saw of them may be from before
    /// they were given up, or half of it.
    pub ours: BTreeSet<Ipv4Addr>,
}

impl Default for Switches {
    fn default() -> Self {
        Self { accelerate: true, own: true, slow: Slow::None, ours: BTreeSet::new() }
    }
}

/// Floating IPs whose new flows begin the slow way; those that began the fast way end there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// None of them.
    #[default]
    None,
    /// All of them.
    All,
    /// These.
    These(BTreeSet<Ipv4Addr>),
}

impl Slow {
    fn has(&self, address: Ipv4Addr) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(addresses) => addresses.contains(&address),
        }
    }
}

/// Which way every floating IP of a host takes.
pub fn plan(inventory: &Inventory<'_>, policy: &Policy, enforced: &[Attached], switches: &Switches) -> Plan {
    let world = World::new(inventory, policy, enforced, switches);
    let mut routers = Routers::default();
    let mut entries = Vec::new();
    for router in router::all(inventory) {
        found(&world, &router, &mut routers, &mut entries);
    }
    twice(&mut entries);
    let (own, services) = own::all(&world, &entries, &mut routers);
    entries.extend(own);
    one_way_out(&mut entries);
    finish(entries, routers, services)
}

/// A floating IP while the plan is made.
#[derive(Debug)]
struct Entry {
    made: FloatingIp,
    /// Its network: the external device and the VLAN there.
    network: Option<(u32, u16)>,
    /// Another host serves it.
    standby: bool,
}

/// The floating IPs of a router.
fn found(world: &World<'_, '_>, router: &Router, routers: &mut Routers, entries: &mut Vec<Entry>) {
    let entry = |floating, fixed, port: Option<PortId>, way: Result<FastPath, State>, network| Entry {
        made: FloatingIp {
            floating_ip_address: floating,
            fixed_ip_address: fixed,
            port_id: port,
            router: router.name.clone(),
            owner: Owner::Found,
            way: way.map_or_else(|state| state, |path| State::Fast(Box::new(path))),
        },
        network,
        standby: router.standby,
    };
    for found in &router.floating {
        let way = way::find(world, router, found, routers);
        entries.push(entry(found.floating, Some(found.fixed), way.port, way.taken, way.network));
    }
    let own: BTreeSet<_> = router.floating.iter().map(|found| found.floating).collect();
    let forwarded = router.rules.iter().flat_map(|rules| &rules.forwarded);
    for (floating, _) in forwarded.filter(|(floating, _)| !own.contains(floating)) {
        entries.push(entry(*floating, None, None, slow("port forwarding: single ports of it lead to instances"), None));
    }
}

/// Floating IPs that two routers have on one network are nobody's: who answers ARP first gets the packets.
fn twice(entries: &mut [Entry]) {
    let mut owners: BTreeMap<(Ipv4Addr, (u32, u16)), Vec<usize>> = BTreeMap::new();
    for (place, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.standby) {
        if let Some(network) = entry.network {
            owners.entry((entry.made.floating_ip_address, network)).or_default().push(place);
        }
    }
    let routers =
        |places: &Vec<usize>| places.iter().map(|place| &entries[*place].made.router).collect::<BTreeSet<_>>().len();
    let several: Vec<_> = owners.into_values().filter(|places| routers(places) > 1).collect();
    for places in several {
        let name = |place: &usize| {
            let FloatingIp { router, fixed_ip_address, .. } = &entries[*place].made;
            let fixed = fixed_ip_address.map_or_else(String::new, |fixed| format!(" for {fixed}"));
            format!("{router}{fixed}")
        };
        let names: Vec<_> = places.iter().map(name).collect();
        let why = format!("two have it on one network: {}", names.join(" and "));
        for place in places {
            entries[place].made.way = State::Broken { why: why.clone() };
        }
    }
}

/// A fixed address of a port leaves as one floating IP alone.
fn one_way_out(entries: &mut [Entry]) {
    let mut leaving: BTreeMap<(u32, Ipv4Addr), Vec<usize>> = BTreeMap::new();
    for (place, entry) in entries.iter().enumerate() {
        if let Some((path, fixed)) = entry.made.fast().zip(entry.made.fixed_ip_address) {
            leaving.entry((path.port_ifindex, fixed)).or_default().push(place);
        }
    }
    for places in leaving.into_values().filter(|places| places.len() > 1) {
        let name = |made: &FloatingIp| format!("{} by {}", made.floating_ip_address, made.router);
        let names: Vec<_> = places.iter().map(|place| name(&entries[*place].made)).collect();
        for place in places {
            let why =
                format!("its port leaves as several floating IPs, as the router it chooses says: {}", names.join(", "));
            entries[place].made.way = State::Slow { why };
        }
    }
}

/// The plan of what was found, no more than there is room for.
fn finish(entries: Vec<Entry>, routers: Routers, services: Vec<Service>) -> Plan {
    let mut floating_ips: Vec<FloatingIp> = entries.into_iter().map(|entry| entry.made).collect();
    floating_ips.sort();
    let fast = floating_ips.iter_mut().filter(|made| made.fast().is_some());
    for made in fast.skip(MAX_FLOATING as usize) {
        made.way = State::Slow { why: format!("{MAX_FLOATING} others are served past their routers already") };
    }
    let used: BTreeSet<u32> = floating_ips.iter().filter_map(|made| Some(made.fast()?.router)).collect();
    let mut routers = routers.made;
    routers.retain(|number, _| used.contains(number));
    Plan { floating_ips, routers, services }
}

fn slow<T>(why: impl Into<String>) -> Result<T, State> {
    Err(State::Slow { why: why.into() })
}

fn broken<T>(why: impl Into<String>) -> Result<T, State> {
    Err(State::Broken { why: why.into() })
}
