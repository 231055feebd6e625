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

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{FastPath, FloatingIp, Owner, Plan, State};
use crate::{
    inventory::Inventory,
    policy::types::{Attached, Policy},
};

/// Where a router sends what is translated.
mod hops;
/// From the router to the port of a fixed address.
mod inside;
/// From the router to the external device.
mod outside;
/// Routers and the floating IPs in their rules.
mod router;
/// Networks by what they are on this host.
mod segment;
#[cfg(test)]
mod tests;
/// What is known of the whole host.
mod world;

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
}

impl Default for Switches {
    fn default() -> Self {
        Self { accelerate: true, own: true, slow: Slow::None }
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
    let mut plan = Plan::default();
    for router in router::all(inventory) {
        for found in &router.floating {
            let way = world.way(&router, found, &mut plan.routers);
            plan.floating_ips.push(FloatingIp {
                floating_ip_address: found.floating,
                fixed_ip_address: Some(found.fixed),
                port_id: world.port(&router, found).ok().map(|port| port.id.clone()),
                router: router.name.clone(),
                owner: Owner::Found,
                way: way.map_or_else(|state| state, |path| State::Fast(Box::new(path))),
            });
        }
    }
    plan.floating_ips.sort();
    plan
}

fn slow<T>(why: impl Into<String>) -> Result<T, State> {
    Err(State::Slow { why: why.into() })
}

fn broken<T>(why: impl Into<String>) -> Result<T, State> {
    Err(State::Broken { why: why.into() })
}
