//! What netdiag serves by itself of a plan. Flow: policy.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use netdiag_model::{
    floating::{FloatingIp, Owner, Plan, State},
    inventory::Inventory,
    policy::types::Policy,
};

use super::{Served, Wanted};

/// Floating IPs of the policy that are to be reached: those that the plan does not find broken.
pub(super) fn wanted(plan: &Plan, policy: &Policy, inventory: &Inventory<'_>) -> Wanted {
    let own = plan.floating_ips.iter().filter(|address| address.owner == Owner::Netdiag);
    let served = own.filter_map(|address| {
        let fixed = address.fixed_ip_address?;
        let device = match &address.way {
            State::Fast(path) => path.device.clone(),
            State::Slow { .. } => device(policy, inventory, address)?,
            State::Broken { .. } => return None,
        };
        Some((address.floating_ip_address, Served { fixed, device, network: network(inventory, fixed) }))
    });
    served.collect()
}

/// The external device the policy names, or that of the default route.
fn device(policy: &Policy, inventory: &Inventory<'_>, address: &FloatingIp) -> Option<String> {
    let mut asked = policy.floating_ips.values();
    let asked = asked.find(|asked| asked.floating_ip_address == address.floating_ip_address)?;
    asked.device.clone().or_else(|| {
        let host = inventory.host?;
        let routes = inventory.network(host)?.routes.iter();
        let default = routes.filter(|route| matches!(route.destination, IpNet::V4(net) if net.prefix_len() == 0));
        let ifindex = default.flat_map(|route| &route.next_hops).find_map(|hop| hop.ifindex)?;
        let mut links = inventory.links_in(host);
        links.find(|(key, _)| key.ifindex == ifindex).map(|(_, link)| link.name.clone())
    })
}

/// The network an address is on, as the host's own devices have it.
fn network(inventory: &Inventory<'_>, fixed: Ipv4Addr) -> Option<Ipv4Net> {
    let links = inventory.links_in(inventory.host?);
    let mut nets = links.flat_map(|(_, link)| &link.addresses).filter_map(|held| match held.address {
        IpNet::V4(net) if net.prefix_len() < 32 => Some(net.trunc()),
        IpNet::V4(_) | IpNet::V6(_) => None,
    });
    nets.find(|net| net.contains(&fixed) && IpAddr::V4(fixed) != IpAddr::V4(net.network()))
}

/// Says of a floating IP that it cannot be served.
pub(super) fn refuse(plan: &mut Plan, address: Ipv4Addr, why: &str) {
    for floating in &mut plan.floating_ips {
        if floating.floating_ip_address == address && floating.owner == Owner::Netdiag {
            floating.way = State::Broken { why: why.to_owned() };
        }
    }
}
