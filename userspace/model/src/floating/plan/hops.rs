//! Where a router sends what is translated. Flow: policy.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};

use super::{
    State,
    outside::Outside,
    router::{Found, Router},
    slow,
    world::World,
};
use crate::{
    fact::{NeighbourFact, NetworkFact, RouteFact},
    floating::{self, NextHop},
    id::{IfIndex, Mac},
};

/// Main routing table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;

/// The number of a router's prefixes among all, which are added where they are not there yet.
pub(super) fn router(
    world: &World<'_, '_>,
    router: &Router,
    _found: &Found,
    outside: &Outside,
    routers: &mut BTreeMap<u32, floating::Router>,
) -> Result<u32, State> {
    let number = number(&format!("{} {} {}", router.netns.inode, router.netns.cookie, outside.own.ifindex));
    if !routers.contains_key(&number) {
        let Some(network) = world.inventory.network(router.netns) else {
            return slow(format!("the routes of {} could not be read", router.name));
        };
        let hops = hops(world, network, outside.own.ifindex);
        routers.insert(number, floating::Router { name: router.name.clone(), hops });
    }
    Ok(number)
}

/// A number made of a text (FNV-1a).
fn number(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn hops(world: &World<'_, '_>, network: &NetworkFact, out: IfIndex) -> BTreeMap<Ipv4Net, NextHop> {
    let mut hops = BTreeMap::new();
    for route in network.routes.iter().filter(|route| route.table == MAIN) {
        if let IpNet::V4(prefix) = route.destination {
            hops.insert(prefix, leads(world, network, route, out));
        }
    }
    for (address, mac) in neighbours(network, out) {
        let around =
            hops.iter().filter(|(prefix, _)| prefix.contains(&address)).max_by_key(|(prefix, _)| prefix.prefix_len());
        if around.is_some_and(|(_, hop)| *hop == NextHop::Unresolved) {
            let hop = if world.is_local(mac) { NextHop::Slow } else { NextHop::OnLink(mac) };
            hops.insert(Ipv4Net::from(address), hop);
        }
    }
    hops
}

fn leads(world: &World<'_, '_>, network: &NetworkFact, route: &RouteFact, out: IfIndex) -> NextHop {
    let [hop] = &route.next_hops[..] else { return NextHop::Slow };
    if route.kind != "unicast" || hop.dead || hop.ifindex != Some(out) {
        return NextHop::Slow;
    }
    match hop.gateway {
        None => NextHop::Unresolved,
        Some(IpAddr::V6(_)) => NextHop::Slow,
        Some(IpAddr::V4(gateway)) => match neighbours(network, out).find(|(address, _)| *address == gateway) {
            Some((_, mac)) if world.is_local(mac) => NextHop::Slow,
            Some((_, mac)) => NextHop::Via(mac),
            None => NextHop::Unresolved,
        },
    }
}

/// Neighbours whose MAC address is known.
fn neighbours(network: &NetworkFact, out: IfIndex) -> impl Iterator<Item = (Ipv4Addr, Mac)> {
    let usable = |entry: &&NeighbourFact| {
        matches!(entry.state.as_str(), "REACHABLE" | "STALE" | "DELAY" | "PROBE" | "PERMANENT" | "NOARP")
    };
    let known = network.neighbours.iter().filter(move |entry| entry.ifindex == out && !entry.proxy).filter(usable);
    known.filter_map(|entry| match entry.address {
        IpAddr::V4(address) => Some((address, entry.mac?)),
        IpAddr::V6(_) => None,
    })
}
