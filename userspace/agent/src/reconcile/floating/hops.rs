//! Next hops that are kept alive. Flow: policy.
//!
//! A router asks for the MAC address of a neighbour anew when it has not heard of it for a while and sends to it. On the fast way it does
//! not send, so it is told now and then that a neighbour is used: gateways always, others when flows go to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use netdiag_common::abi::flow::FLOW_FAST;
use netdiag_model::{
    floating::{NextHop, Plan},
    id::{Mac, NetnsId},
    inventory::{Inventory, Role},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
};
use tokio::runtime::Handle;

use crate::{
    discover::routers,
    enforce::{Enforcer, netlink::exchange},
    netns::Namespace,
};

/// A neighbour of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Neighbour {
    ifindex: u32,
    address: Ipv4Addr,
    /// It is asked for whoever goes there.
    gateway: bool,
}

/// Neighbours of the routers of fast floating IPs, by the name of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hops(BTreeMap<String, BTreeSet<Neighbour>>);

impl Hops {
    /// Those of a plan's routers, and of the namespaces that lead distributed ones out.
    pub(super) fn of(inventory: &Inventory<'_>, plan: &Plan) -> Self {
        let names: BTreeSet<&String> = plan.routers.values().map(|router| &router.name).collect();
        let macs: BTreeSet<Mac> =
            plan.routers.values().flat_map(|router| router.hops.values().copied()).filter_map(on_link).collect();
        let mut hops = BTreeMap::new();
        for (netns, role) in inventory.roles() {
            let name = inventory.netns(netns).label;
            if names.contains(&name) || !names.is_empty() && matches!(role, Role::Fip(_)) {
                hops.insert(name, neighbours(inventory, netns, &macs));
            }
        }
        Self(hops)
    }

    /// Tells routers that their neighbours are used.
    pub(super) fn ask(&self, enforcer: &Enforcer, plan: &Plan, directories: &[PathBuf]) {
        let direct =
            plan.routers.values().flat_map(|router| router.hops.values().copied()).any(|hop| on_link(hop).is_some());
        let used = if direct { used(enforcer) } else { BTreeSet::new() };
        for (name, neighbours) in &self.0 {
            let wanted = neighbours.iter().filter(|neighbour| neighbour.gateway || used.contains(&neighbour.address));
            let wanted: Vec<_> = wanted.copied().collect();
            // What cannot be asked for now is asked for in a few seconds.
            match routers::path(directories, name).map(|path| Namespace::open(&path)) {
                Some(Ok(namespace)) => drop(Handle::current().block_on(namespace.run(move || use_all(&wanted)))),
                None if name == "host" => use_all(&wanted),
                Some(Err(_)) | None => {}
            }
        }
    }
}

const fn on_link(hop: NextHop) -> Option<Mac> {
    match hop {
        NextHop::OnLink(mac) => Some(mac),
        NextHop::Slow | NextHop::Via(_) | NextHop::Unresolved => None,
    }
}

fn neighbours(inventory: &Inventory<'_>, netns: NetnsId, macs: &BTreeSet<Mac>) -> BTreeSet<Neighbour> {
    let Some(network) = inventory.network(netns) else { return BTreeSet::new() };
    let routes = network.routes.iter().flat_map(|route| &route.next_hops);
    let gateways = routes.filter_map(|hop| match (hop.gateway?, hop.ifindex?) {
        (IpAddr::V4(address), ifindex) => Some(Neighbour { ifindex: ifindex.0, address, gateway: true }),
        (IpAddr::V6(_), _) => None,
    });
    let known = network.neighbours.iter().filter(|entry| entry.mac.is_some_and(|mac| macs.contains(&mac)));
    let known = known.filter_map(|entry| match entry.address {
        IpAddr::V4(address) => Some(Neighbour { ifindex: entry.ifindex.0, address, gateway: false }),
        IpAddr::V6(_) => None,
    });
    gateways.chain(known).collect()
}

/// Remote ends of flows on the fast way.
fn used(enforcer: &Enforcer) -> BTreeSet<Ipv4Addr> {
    let flows = enforcer.flows().unwrap_or_default().ipv4.into_iter();
    let fast = flows.filter(|tracked| tracked.flow.flags & FLOW_FAST != 0);
    fast.map(|tracked| Ipv4Addr::from(tracked.key.remote.to_ne_bytes())).collect()
}

/// Tells the calling thread's namespace that these are used.
fn use_all(neighbours: &[Neighbour]) {
    for Neighbour { ifindex, address, gateway } in neighbours {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = *ifindex;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(*address)));
        // Only a gateway is asked for that the router knows nothing of.
        let flags = if *gateway { NLM_F_CREATE | NLM_F_ACK } else { NLM_F_ACK };
        drop(exchange(RouteNetlinkMessage::NewNeighbour(message), flags));
    }
}
