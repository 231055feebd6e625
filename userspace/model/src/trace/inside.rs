//! The hops inside the instance: itself, its namespace, its end of the link.

use super::{
    Hop, HopKind, HopState, Severity,
    command::in_netns,
    path::{Path, finding},
};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::{
    id::{LinkKey, NetnsId},
    inventory::{
        Instance, Inventory, Nic, PortPlace,
        route::{NoRoute, Question},
    },
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
    no_address(path, inventory, inner);
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

fn no_address(path: &mut Path, inventory: &Inventory<'_>, inner: LinkKey) {
    if !inventory.addresses(inner).is_empty() {
        return;
    }
    let name = inventory.link(inner).map(|link| link.name.clone()).unwrap_or_default();
    let message = format!("{name} has no address: nothing reaches the instance by it but its own segment");
    path.report(
        finding(Severity::Warning, "no-address", name, message)
            .seen("no address but those of the link itself")
            .verify(in_netns(inventory, inner.netns, "ip addr"))
            .fix("see whether the instance asks DHCP for one, or give it the port's"),
    );
}

/// Where the instance's default route leads, in words: the one its policy rules and metrics choose.
fn default_route(inventory: &Inventory<'_>, inner: LinkKey) -> String {
    let source = inventory.addresses(inner).first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpNet::addr);
    let answer = match inventory.route(inner.netns, Question { source, destination: None, iif: None }) {
        Ok(answer) => answer,
        Err(NoRoute::Unknown) => return "routes not read".to_owned(),
        Err(NoRoute::None | NoRoute::Refused(_) | NoRoute::Dead) => return "no default route".to_owned(),
    };
    let via = answer.next_hop.gateway.map_or_else(|| "on link".to_owned(), |gateway| format!("via {gateway}"));
    let other = answer.ifindex().filter(|ifindex| *ifindex != inner.ifindex);
    let by = other.and_then(|ifindex| inventory.link(LinkKey { netns: inner.netns, ifindex }));
    by.map_or_else(|| via.clone(), |link| format!("{via} by {}", link.name))
}

fn namespace_names(inventory: &Inventory<'_>, netns: NetnsId) -> Vec<(String, String)> {
    let names = inventory.namespace(netns).map_or(&[][..], |namespace| &namespace.names);
    names.iter().map(|name| ("path".to_owned(), name.path.clone())).collect()
}
