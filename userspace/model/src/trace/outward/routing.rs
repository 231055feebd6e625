//! Layer 3 of the way out: namespaces that route.

use std::net::IpAddr;

use super::{Leg, Way};
use crate::{
    id::{LinkKey, NetnsId},
    inventory::{
        Role,
        route::{NoRoute, Question},
    },
    trace::{Hop, HopKind, HopState, Router, Severity, command::in_netns, filter, path::finding, switching},
};

impl Way<'_, '_> {
    /// A namespace that routes what came in by a device.
    pub(super) fn route_in(&mut self, inside: LinkKey) {
        if !self.spend() {
            return;
        }
        let inventory = self.inventory;
        let netns = inside.netns;
        let Some(link) = inventory.link(inside) else { return };
        self.router_hop(inside);
        let Some(source) = self.carried else {
            self.stop("the guest's address is not known here, so its route cannot be looked up");
            return;
        };
        let question = Question { source, destination: None, iif: Some(&link.name) };
        let answer = match inventory.route(netns, question) {
            Ok(answer) => answer,
            Err(reason) => return self.no_route(netns, &reason),
        };
        let Some(ifindex) = answer.ifindex() else { return self.no_route(netns, &NoRoute::None) };
        let outside = LinkKey { netns, ifindex };
        let leg = Leg { netns, inside, outside };
        self.legs.push(leg);
        self.external_device(leg);
        let out = inventory.link(outside).map_or("?", |link| &link.name);
        let via = answer.next_hop.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        if let Some(hop) = self.path.hops.last_mut() {
            hop.note = format!(
                "{}{via} dev {out}",
                if answer.route.destination.prefix_len() == 0 {
                    "default".to_owned()
                } else {
                    answer.route.destination.to_string()
                }
            );
        }
        if Some(netns) != inventory.host {
            self.refusals(inside);
        }
        self.route_back(leg);
        filter::routed(self, inside, outside);
        let neighbour = answer.neighbour(None).map(|address| (outside, address));
        self.leave_by(outside, neighbour);
    }

    pub(super) fn router_hop(&mut self, inside: LinkKey) {
        let inventory = self.inventory;
        let netns = inventory.netns(inside.netns);
        if self.router.is_none() {
            self.router = self.router_of(inside);
        }
        let ipv6 = self.source.is_some_and(|source| source.is_ipv6());
        let name = if ipv6 { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" };
        let device = inventory.link(inside).map_or("", |link| &link.name);
        let family = if ipv6 { "ipv6" } else { "ipv4" };
        let own = format!("net.{family}.conf.{device}.forwarding");
        // What decides is the switch of the device the packet comes in by; the one for all only sets it.
        let refused = inventory.sysctl(inside.netns, &own) == Some("0");
        let name = if refused { &own } else { name };
        let forwarding = inventory.sysctl(inside.netns, name);
        let route = if ipv6 { "ip -6 route show" } else { "ip route show" };
        self.path.push(Hop {
            kind: HopKind::Router,
            name: netns.label.clone(),
            netns: Some(netns.clone()),
            state: if forwarding.is_some() { HopState::Ok } else { HopState::Unknown },
            status: match forwarding {
                Some("0") => "forwarding off".to_owned(),
                Some(_) => "forwarding".to_owned(),
                None => "forwarding unknown".to_owned(),
            },
            detail: forwarding.map(|value| (name.to_owned(), value.to_owned())).into_iter().collect(),
            verify: vec![in_netns(inventory, inside.netns, route)],
            ..Hop::default()
        });
        if *inventory.role(inside.netns) == Role::Router(None) {
            self.path.report(
                finding(
                    Severity::Warning,
                    "router-unnamed",
                    &netns.label,
                    "the router's namespace has lost its name: Neutron's agent no longer reaches it and will make another",
                )
                .seen("it holds qr- and qg- ports, and nothing under /run/netns leads to it")
                .verify("ip netns list")
                .fix("restart neutron-l3-agent, and end the processes that keep the old namespace alive"),
            );
        }
        if forwarding == Some("0") {
            self.path.report(
                finding(
                    Severity::Error,
                    "forwarding-off",
                    &netns.label,
                    format!("{} does not forward: what comes from the instance dies here", netns.label),
                )
                .seen(format!("{name} = 0"))
                .verify(in_netns(inventory, inside.netns, &format!("sysctl {name}")))
                .fix(in_netns(inventory, inside.netns, &format!("sysctl -w {name}=1"))),
            );
        }
    }

    /// Notes the device the router leaves by, in its own namespace or in that of its source NAT. A distributed router sends
    /// what it does not translate itself back into the network, to its source NAT.
    fn external_device(&mut self, Leg { netns, inside, outside }: Leg) {
        let Some(router) = &mut self.router else { return };
        let snat = matches!(self.inventory.role(netns), Role::Snat(id) if Some(id) == router.id.as_ref());
        if router.external_device.is_none() && inside != outside && (router.netns.id == netns || snat) {
            router.external_device = self.inventory.link(outside).map(|link| link.name.clone());
        }
    }

    /// The router behind its end in the instance's network; its external end is known once the route is looked up.
    pub(super) fn router_of(&self, inside: LinkKey) -> Option<Router> {
        let inventory = self.inventory;
        let id = match inventory.role(inside.netns) {
            Role::Router(id) => id.clone(),
            Role::Snat(id) => Some(id.clone()),
            Role::Host | Role::Container | Role::Fip(_) | Role::Dhcp(_) | Role::OvnMetadata(_) | Role::Other => None,
        };
        let own = inventory.addresses(inside).first().map(ipnet::IpNet::addr);
        self.gateway.or(own).map(|gateway| Router {
            id,
            netns: inventory.netns(inside.netns),
            internal_device: inventory.link(inside).map(|link| link.name.clone()).unwrap_or_default(),
            external_device: None,
            gateway,
        })
    }

    /// Whether a namespace of Neutron's has an end towards the outside, so that it is meant to have a way there.
    fn has_external_end(&self, netns: NetnsId) -> bool {
        let external = |name: &str| ["qg-", "rfp-", "fpr-", "fg-"].iter().any(|prefix| name.starts_with(prefix));
        self.inventory.role(netns).is_neutron() && self.inventory.links_in(netns).any(|(_, link)| external(&link.name))
    }

    pub(super) fn no_route(&mut self, netns: NetnsId, reason: &NoRoute) {
        let label = self.inventory.netns(netns).label;
        let (severity, seen) = match reason {
            NoRoute::Unknown => return self.stop(format!("the routes of {label} could not be read")),
            NoRoute::None if self.has_external_end(netns) => (Severity::Error, "no default route".to_owned()),
            NoRoute::None => (Severity::Warning, "no default route".to_owned()),
            NoRoute::Refused(kind) => (Severity::Error, format!("a route of kind {kind}")),
            NoRoute::Dead => (Severity::Error, "the default route's link is down".to_owned()),
        };
        self.path.report(
            finding(
                severity,
                "no-route",
                &label,
                format!("{label} has no way to the outside: only its own networks are reached"),
            )
            .seen(seen)
            .verify(in_netns(self.inventory, netns, "ip route show table all"))
            .fix(if self.inventory.role(netns).is_neutron() {
                "set the router's external gateway: openstack router set --external-gateway"
            } else {
                "give it a default route"
            }),
        );
    }

    /// Leaves a routing namespace by one of its devices.
    pub(super) fn leave_by(&mut self, outside: LinkKey, neighbour: Option<(LinkKey, IpAddr)>) {
        let inventory = self.inventory;
        if let Some(port) = inventory.port_of(outside) {
            self.path.device(inventory, HopKind::RouterPort, outside);
            self.mtu_step(outside, true);
            self.router_mac(&port, outside);
            switching::port(&mut self.path, inventory, &port);
            self.path.ovs_bridge(inventory, &port);
            let next = neighbour.and_then(|(_, address)| self.next_router(&port, address));
            match next {
                Some(member) => self.enter_router(&port, &member),
                None => self.leave_switch(&port, neighbour),
            }
        } else if let Some(peer) = inventory.peer(outside) {
            self.path.device(inventory, HopKind::RouterPort, outside);
            self.path.device(inventory, HopKind::RouterPort, peer);
            self.enter_device(peer);
        } else {
            self.path.device(inventory, HopKind::Uplink, outside);
            self.mtu_step(outside, true);
            self.leave(neighbour);
        }
    }
}
