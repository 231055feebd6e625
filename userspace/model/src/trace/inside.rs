//! The hops inside the instance: itself, its namespace, its end of the link.

use super::{
    Hop, HopKind, HopState, Severity,
    command::in_netns,
    path::{Path, finding},
};
use crate::{
    id::{LinkKey, NetnsId},
    inventory::{Instance, Inventory, Nic, PortPlace},
};

/// The hops inside the instance: itself, its namespace, its end of the link.
pub(super) fn hops(path: &mut Path, inventory: &Inventory<'_>, instance: &Instance<'_>, nic: &Nic<'_>) {
    let identity = &instance.identity;
    path.push(Hop {
        kind: HopKind::Instance,
        name: identity.name.clone(),
        state: match identity.state.as_str() {
            _ if identity.is_stopped() => HopState::Broken,
            "running" => HopState::Ok,
            "paused" => HopState::Warning,
            _ => HopState::Unknown,
        },
        status: identity.state.clone(),
        ..Hop::default()
    });
    let Some(inner) = nic.inner else {
        path.push(Hop {
            kind: HopKind::InnerDevice,
            name: "guest NIC".to_owned(),
            state: HopState::Unknown,
            status: "inside the guest".to_owned(),
            mac: nic.mac,
            addresses: nic.addresses.clone(),
            note: "a guest's own network cannot be seen from its host".to_owned(),
            ..Hop::default()
        });
        return;
    };
    let netns = inventory.netns(inner.netns);
    let known = inventory.network(inner.netns).is_some();
    path.push(Hop {
        kind: HopKind::Namespace,
        name: inner.netns.to_string(),
        netns: Some(netns),
        state: if known { HopState::Ok } else { HopState::Unknown },
        status: default_route(inventory, inner),
        detail: namespace_names(inventory, inner.netns),
        verify: vec![in_netns(inventory, inner.netns, "ip route")],
        ..Hop::default()
    });
    path.device(inventory, HopKind::InnerDevice, inner);
    let link_mac = inventory.link(inner).and_then(|link| link.mac);
    let attached = nic.port.as_ref().and_then(PortPlace::attached_mac);
    if let (Some(own), Some(port)) = (link_mac, attached)
        && own != port
    {
        path.report(
            finding(
                Severity::Error,
                "mac-mismatch",
                own.to_string(),
                format!("the instance sends from {own}, its Neutron port is {port}: anti-spoofing drops it"),
            )
            .seen("the link's address is not external_ids:attached-mac of the port")
            .verify(in_netns(inventory, inner.netns, "ip link")),
        );
    }
}

/// Where the instance's default route leads, in words.
fn default_route(inventory: &Inventory<'_>, inner: LinkKey) -> String {
    let routes = inventory.network(inner.netns).map_or(&[][..], |network| &network.routes);
    let default = routes.iter().find(|route| route.destination.prefix_len() == 0 && route.kind == "unicast");
    let next_hop = default.and_then(|route| route.next_hops.first());
    let via = next_hop.map(|hop| hop.gateway.map_or_else(|| "on link".to_owned(), |gateway| format!("via {gateway}")));
    let other = next_hop.and_then(|hop| hop.ifindex).filter(|ifindex| *ifindex != inner.ifindex);
    let by = other.and_then(|ifindex| inventory.link(LinkKey { netns: inner.netns, ifindex }));
    match (via, by) {
        (None, _) => "no default route".to_owned(),
        (Some(via), None) => via,
        (Some(via), Some(link)) => format!("{via} by {}", link.name),
    }
}

fn namespace_names(inventory: &Inventory<'_>, netns: NetnsId) -> Vec<(String, String)> {
    let names = inventory.namespace(netns).map_or(&[][..], |namespace| &namespace.names);
    names.iter().map(|name| ("path".to_owned(), name.path.clone())).collect()
}
