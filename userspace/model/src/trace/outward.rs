//! The way out, from the instance to the next hop outside.
//!
//! The walk knows devices, bridges, switches and routing namespaces, not products: Neutron's routers, Docker's bridges
//! and a VM behind a hybrid plug are all the same few steps in another order. Every step either leads on or says why it
//! cannot be followed; a budget bounds a host whose plumbing runs in circles.

use std::net::IpAddr;

use super::{
    Direction, Hop, HopKind, HopState, Router, Severity,
    command::{in_netns, quote},
    filter,
    path::{Path, finding},
    switching,
};
use crate::{
    id::{LinkKey, NetnsId},
    inventory::{
        Inventory, Nic, PortPlace, Role,
        route::{Answer, NoRoute, Question},
    },
};

/// Bridges and routers a path may pass; more means that it runs in circles.
const BUDGET: usize = 16;

/// One namespace that routes on the path: the way in comes back through the same ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) netns: NetnsId,
    pub(super) inside: LinkKey,
    pub(super) outside: LinkKey,
}

/// The way out of one network card.
#[derive(Debug)]
pub(super) struct Way<'i, 'a> {
    pub(super) inventory: &'i Inventory<'a>,
    pub(super) nic: &'i Nic<'a>,
    pub(super) path: Path,
    pub(super) lateral: Path,
    pub(super) router: Option<Router>,
    pub(super) legs: Vec<Leg>,
    /// Source address: what the walk asks routes and rules about.
    pub(super) source: Option<IpAddr>,
    /// Gateway the instance sends to.
    gateway: Option<IpAddr>,
    /// Its network has a router by itself, whichever card the instance's default route takes: Docker publishes ports on
    /// every network it made.
    routed: bool,
    budget: usize,
}

impl<'i, 'a> Way<'i, 'a> {
    pub(super) fn new(inventory: &'i Inventory<'a>, nic: &'i Nic<'a>, routed: bool) -> Self {
        let addresses = &nic.addresses;
        let source = addresses.iter().find(|net| net.addr().is_ipv4()).or(addresses.first()).map(ipnet::IpNet::addr);
        Self {
            inventory,
            nic,
            path: Path::new(Direction::Outward),
            lateral: Path::new(Direction::Lateral),
            router: None,
            legs: Vec::new(),
            source,
            gateway: None,
            routed,
            budget: BUDGET,
        }
    }

    /// Follows the card outward; the hops before its host end are already on the path.
    pub(super) fn follow(&mut self) {
        self.gateway = self.instance_gateway();
        let Some(outer) = self.nic.outer else {
            self.stop("the other end of the link is in a namespace that cannot be seen from here");
            return;
        };
        if self.nic.inner != Some(outer) {
            self.path.device(self.inventory, HopKind::HostDevice, outer);
            self.mtu_step(outer);
            filter::at_host_device(self, outer);
        }
        self.enter_device(outer);
    }

    /// The gateway of the instance's default route, if that route leaves by this card.
    fn instance_gateway(&mut self) -> Option<IpAddr> {
        let (inner, source) = (self.nic.inner?, self.source?);
        let question = Question { source, destination: None, iif: None };
        match self.inventory.route(inner.netns, question) {
            Ok(answer) if answer.ifindex() == Some(inner.ifindex) => {
                self.silent_gateway(inner, &answer);
                answer.next_hop.gateway
            }
            Ok(_) | Err(NoRoute::Unknown) => None,
            Err(_) => {
                let elsewhere = self.inventory.links_in(inner.netns).filter(|(_, link)| !link.loopback).count() > 1;
                let severity = if elsewhere { Severity::Info } else { Severity::Error };
                let at = self.inventory.netns(inner.netns).label;
                self.path.report(
                    finding(
                        severity,
                        "no-default-route",
                        at,
                        "the instance has no default route: it reaches only its own subnet",
                    )
                    .seen("no route to 0.0.0.0/0 or ::/0 in its namespace")
                    .verify(in_netns(self.inventory, inner.netns, "ip route show table all"))
                    .fix("give the subnet a gateway and plug the port again, or add the route inside"),
                );
                None
            }
        }
    }

    fn silent_gateway(&mut self, inner: LinkKey, answer: &Answer<'_>) {
        let Some(gateway) = answer.next_hop.gateway else { return };
        let neighbours = self.inventory.network(inner.netns).map_or(&[][..], |network| &network.neighbours);
        let failed = neighbours.iter().find(|entry| entry.address == gateway && entry.state == "FAILED");
        if failed.is_some() {
            self.path.report(
                finding(
                    Severity::Warning,
                    "gateway-silent",
                    gateway.to_string(),
                    format!("the gateway {gateway} did not answer the instance's last question (ARP or ND)"),
                )
                .seen("its neighbour entry is FAILED")
                .verify(in_netns(self.inventory, inner.netns, "ip neigh show")),
            );
        }
    }

    /// Goes on from a device of the host that frames of the instance came in by.
    fn enter_device(&mut self, device: LinkKey) {
        if !self.spend() {
            return;
        }
        if let Some(port) = self.inventory.port_of(device) {
            self.enter_port(&port);
        } else if let Some(bridge) = self.inventory.linux_bridge(device) {
            self.through_linux_bridge(bridge, device);
        } else if matches!(self.inventory.kind(device), Some("veth" | "tun")) || self.answers_for_gateway(device) {
            self.route_in(device);
        } else {
            // A macvlan, ipvlan or VLAN on a physical device: the frame is on the wire.
            self.leave(None);
        }
    }

    fn answers_for_gateway(&self, device: LinkKey) -> bool {
        self.gateway.is_some_and(|gateway| self.inventory.holder(device.netns, gateway) == Some(device))
    }

    // === layer 2 ===

    fn through_linux_bridge(&mut self, bridge: LinkKey, from: LinkKey) {
        filter::linux_bridge(self, bridge, from);
        let own = self.inventory.addresses(bridge);
        // Behind a per-port bridge the segment goes on in Open vSwitch.
        if self.default_route_elsewhere() && self.nic.port.is_none() {
            self.end_of_segment(Some(bridge.netns));
            return;
        }
        let gateway_here = self.gateway.map_or(!own.is_empty(), |gateway| own.iter().any(|net| net.addr() == gateway));
        if gateway_here {
            self.route_in(bridge);
            return;
        }
        let Some(uplink) = self.bridge_uplink(bridge, from) else {
            let name = self.inventory.link(bridge).map_or("the bridge", |link| &link.name).to_owned();
            self.path.report(
                finding(
                    Severity::Warning,
                    "bridge-without-uplink",
                    &name,
                    format!("{name} has no way out: no address of its own and no port that leads on"),
                )
                .seen("no other port is a physical device, a VLAN, or a veth to another bridge")
                .verify(format!("bridge link show; ip -d link show master {}", quote(&name))),
            );
            return;
        };
        if let Some(peer) = self.inventory.peer(uplink) {
            self.path.device(self.inventory, HopKind::Veth, uplink);
            self.path.device(self.inventory, HopKind::Veth, peer);
            self.enter_device(peer);
        } else {
            self.path.device(self.inventory, HopKind::Uplink, uplink);
            self.leave(None);
        }
    }

    /// Whether the instance's default route is known to leave by another card, or by none, and nothing that comes in from
    /// outside makes it answer by this one.
    fn default_route_elsewhere(&self) -> bool {
        let entered = self.routed || !self.inventory.floating_ips(self.nic).is_empty();
        self.nic.inner.is_some() && self.gateway.is_none() && !entered
    }

    /// The instance's default route leaves by another card: by this one it reaches its own subnet.
    fn end_of_segment(&mut self, netns: Option<NetnsId>) {
        let subnet = self.nic.addresses.first().map_or_else(|| "the segment".to_owned(), |net| net.trunc().to_string());
        self.path.push(Hop {
            kind: HopKind::NextHop,
            name: subnet,
            netns: netns.map(|netns| self.inventory.netns(netns)),
            state: HopState::Ok,
            status: "this segment".to_owned(),
            note: "the default route does not leave by this card: it reaches its own subnet".to_owned(),
            ..Hop::default()
        });
    }

    /// The port of a Linux bridge that leads on: where the bridge learned the gateway, else the only one that is no
    /// instance's.
    fn bridge_uplink(&self, bridge: LinkKey, from: LinkKey) -> Option<LinkKey> {
        let inventory = self.inventory;
        let instances: Vec<_> =
            inventory.instances.iter().flat_map(|instance| &instance.nics).filter_map(|nic| nic.outer).collect();
        let leads_on = |key: &LinkKey| *key != from && !instances.contains(key);
        let learned = self.gateway_mac().and_then(|mac| {
            let fdb = &inventory.network(bridge.netns)?.fdb;
            let entry = fdb.iter().find(|entry| entry.mac == mac && entry.master == Some(bridge.ifindex))?;
            Some(LinkKey { netns: bridge.netns, ifindex: entry.ifindex })
        });
        learned.filter(leads_on).or_else(|| inventory.bridge_ports(bridge).map(|(key, _)| key).find(leads_on))
    }

    fn gateway_mac(&self) -> Option<crate::id::Mac> {
        let neighbours = &self.inventory.network(self.nic.inner?.netns)?.neighbours;
        neighbours.iter().find(|entry| Some(entry.address) == self.gateway)?.mac
    }

    /// Goes on from the instance's port of an Open vSwitch bridge: to the router on this host, or out by patch or tunnel.
    fn enter_port(&mut self, port: &PortPlace<'a>) {
        switching::port(&mut self.path, self.inventory, port);
        self.path.ovs_bridge(self.inventory, port);
        self.other_hosts(port);
        let segment = self.inventory.segment(port);
        let holds_gateway = |device: LinkKey| {
            self.gateway.is_some_and(|gateway| self.inventory.addresses(device).iter().any(|net| net.addr() == gateway))
        };
        let is_router = |device: LinkKey| matches!(self.inventory.role(device.netns), Role::Router(_));
        let router = segment
            .iter()
            .find(|member| holds_gateway(member.device))
            // A guest's default route cannot be seen from here; then the network's router is taken for it.
            .or_else(|| segment.iter().find(|member| self.gateway.is_none() && is_router(member.device)));
        match router {
            Some(member) if self.default_route_elsewhere() => {
                self.router = self.router_of(member.device);
                self.end_of_segment(port.switch.netns);
            }
            Some(member) => {
                switching::port(&mut self.path, self.inventory, &member.port);
                self.path.device(self.inventory, HopKind::RouterPort, member.device);
                self.mtu_step(member.device);
                self.route_in(member.device);
            }
            None => self.leave_switch(port, None),
        }
    }

    /// The tunnels to the same network on other hosts, beside the way out.
    fn other_hosts(&mut self, port: &PortPlace<'a>) {
        if self.inventory.segment(port).is_empty() || !self.lateral.hops.is_empty() {
            return;
        }
        let Some(patch) = switching::way_out(self.inventory, port) else { return };
        let Some(far) = self.inventory.ports().patch_peer(&patch) else { return };
        if self.inventory.ports().on(far.bridge).any(|port| port.is_tunnel()) {
            switching::patch(&mut self.lateral, self.inventory, &patch);
            self.lateral.ovs_bridge(self.inventory, &far);
            switching::tunnels(&mut self.lateral, self.inventory, &far, &switching::network_words(port));
        }
    }

    /// Leaves a bridge of Open vSwitch towards the outside: by a patch port and the next bridge's NIC or tunnel.
    fn leave_switch(&mut self, port: &PortPlace<'a>, neighbour: Option<(NetnsId, IpAddr)>) {
        if !self.spend() {
            return;
        }
        // A bridge that has its own NIC or is the host's own end needs no patch.
        if self.leave_by_nic(port, neighbour) {
            return;
        }
        let Some(patch) = switching::way_out(self.inventory, port) else {
            self.stop(format!("no port of {} leads out of this host for this network", port.bridge.name));
            return;
        };
        let Some(far) = switching::patch(&mut self.path, self.inventory, &patch) else { return };
        self.path.ovs_bridge(self.inventory, &far);
        if self.inventory.ports().on(far.bridge).any(|port| port.is_tunnel()) {
            self.lateral = Path::new(Direction::Lateral);
            switching::tunnels(&mut self.path, self.inventory, &far, &switching::network_words(port));
            self.path.push(Hop {
                kind: HopKind::NextHop,
                name: self.gateway.map_or_else(|| "another host".to_owned(), |gateway| gateway.to_string()),
                state: HopState::Unknown,
                status: "other host".to_owned(),
                note: "the router of this network is on another host: trace on from there".to_owned(),
                ..Hop::default()
            });
        } else if !self.leave_by_nic(&far, neighbour) {
            self.no_uplink(&far);
        }
    }

    fn no_uplink(&mut self, port: &PortPlace<'a>) {
        let bridge = &port.bridge.name;
        self.path.report(
            finding(
                Severity::Warning,
                "bridge-without-uplink",
                bridge,
                format!("{bridge} has no NIC and no address: nothing leaves the host by it"),
            )
            .seen("no port of the bridge is a device of the host, and the bridge's own device has no address")
            .verify(format!("ovs-vsctl list-ports {}", quote(bridge)))
            .fix(format!("ovs-vsctl add-port {} <NIC>", quote(bridge))),
        );
    }

    /// Leaves by a NIC that is a port of this bridge, or by the bridge's own device where the host itself is outside.
    fn leave_by_nic(&mut self, port: &PortPlace<'a>, neighbour: Option<(NetnsId, IpAddr)>) -> bool {
        let inventory = self.inventory;
        let nic = inventory.ports().on(port.bridge).find_map(|other| {
            let plain = other.interface.kind.is_empty() || other.interface.kind == "system";
            let foreign = !other.interface.external_ids.contains_key("iface-id") && !other.is(port);
            let device = inventory.device(&other)?;
            // The peer of an instance's veth is inside the instance; a NIC's wire end cannot be seen from here.
            let wire = inventory.peer(device).is_none();
            (plain && foreign && wire).then_some(device)
        });
        if let Some(nic) = nic {
            self.path.device(inventory, HopKind::Uplink, nic);
            self.leave(neighbour);
            return true;
        }
        let local = port.switch.netns.and_then(|netns| inventory.link_named(netns, &port.bridge.name));
        let Some(local) = local.filter(|local| !inventory.addresses(*local).is_empty()) else { return false };
        self.path.device(inventory, HopKind::Uplink, local);
        if let Some((_, address)) = neighbour.filter(|(_, address)| inventory.holder(local.netns, *address).is_some()) {
            self.path.push(Hop {
                kind: HopKind::NextHop,
                name: address.to_string(),
                netns: Some(inventory.netns(local.netns)),
                state: HopState::Ok,
                status: "this host".to_owned(),
                note: "the host itself is the gateway".to_owned(),
                ..Hop::default()
            });
        } else {
            self.leave(neighbour);
        }
        true
    }

    // === layer 3 ===

    /// A namespace that routes what came in by a device.
    fn route_in(&mut self, inside: LinkKey) {
        if !self.spend() {
            return;
        }
        let inventory = self.inventory;
        let netns = inside.netns;
        let Some(link) = inventory.link(inside) else { return };
        self.router_hop(inside);
        let Some(source) = self.source else {
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
        self.legs.push(Leg { netns, inside, outside });
        if let Some(router) = &mut self.router
            && router.external_device.is_none()
            && router.netns.id == netns
        {
            router.external_device = inventory.link(outside).map(|link| link.name.clone());
        }
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
        filter::routed(self, inside, outside);
        let neighbour = answer.neighbour(None).map(|address| (netns, address));
        self.leave_by(outside, neighbour);
    }

    fn router_hop(&mut self, inside: LinkKey) {
        let inventory = self.inventory;
        let netns = inventory.netns(inside.netns);
        if self.router.is_none() {
            self.router = self.router_of(inside);
        }
        let ipv6 = self.source.is_some_and(|source| source.is_ipv6());
        let name = if ipv6 { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" };
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

    /// The router behind its end in the instance's network; its external end is known once the route is looked up.
    fn router_of(&self, inside: LinkKey) -> Option<Router> {
        let inventory = self.inventory;
        let id = match inventory.role(inside.netns) {
            Role::Router(id) | Role::Snat(id) => Some(id.clone()),
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

    fn no_route(&mut self, netns: NetnsId, reason: &NoRoute) {
        let label = self.inventory.netns(netns).label;
        let (severity, seen) = match reason {
            NoRoute::Unknown => return self.stop(format!("the routes of {label} could not be read")),
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
            .fix("set the router's external gateway: openstack router set --external-gateway"),
        );
    }

    /// Leaves a routing namespace by one of its devices.
    fn leave_by(&mut self, outside: LinkKey, neighbour: Option<(NetnsId, IpAddr)>) {
        let inventory = self.inventory;
        if let Some(port) = inventory.port_of(outside) {
            self.path.device(inventory, HopKind::RouterPort, outside);
            switching::port(&mut self.path, inventory, &port);
            self.path.ovs_bridge(inventory, &port);
            self.leave_switch(&port, neighbour);
        } else if let Some(peer) = inventory.peer(outside) {
            self.path.device(inventory, HopKind::RouterPort, outside);
            self.path.device(inventory, HopKind::RouterPort, peer);
            self.enter_device(peer);
        } else {
            self.path.device(inventory, HopKind::Uplink, outside);
            self.leave(neighbour);
        }
    }

    // === the end ===

    /// The next hop outside this host, with what the neighbour table says of it.
    fn leave(&mut self, neighbour: Option<(NetnsId, IpAddr)>) {
        let Some((netns, address)) = neighbour.or_else(|| Some((self.nic.inner?.netns, self.gateway?))) else {
            self.path.push(Hop {
                kind: HopKind::NextHop,
                name: "the wire".to_owned(),
                status: "outside".to_owned(),
                note: "what follows is not on this host".to_owned(),
                ..Hop::default()
            });
            return;
        };
        let neighbours = self.inventory.network(netns).map_or(&[][..], |network| &network.neighbours);
        let entry = neighbours.iter().find(|entry| entry.address == address);
        let status = entry.map_or("not asked yet", |entry| &entry.state);
        let show = in_netns(self.inventory, netns, &format!("ip neigh show {address}"));
        self.path.push(Hop {
            kind: HopKind::NextHop,
            name: address.to_string(),
            netns: Some(self.inventory.netns(netns)),
            state: if entry.is_some() { HopState::Ok } else { HopState::Unknown },
            status: status.to_owned(),
            mac: entry.and_then(|entry| entry.mac),
            verify: vec![show.clone()],
            ..Hop::default()
        });
        if matches!(status, "FAILED" | "INCOMPLETE") {
            self.path.report(
                finding(
                    Severity::Error,
                    "next-hop-silent",
                    address.to_string(),
                    format!("the next hop {address} does not answer ARP or ND: packets out die here"),
                )
                .seen(format!("its neighbour entry is {status}"))
                .verify(show)
                .fix("see the external network's wiring: NIC, VLAN, and whether the gateway is up"),
            );
        }
    }

    /// Says that the path cannot be followed further from here.
    fn stop(&mut self, why: impl Into<String>) {
        self.path.push(Hop {
            kind: HopKind::NextHop,
            name: "unknown".to_owned(),
            state: HopState::Unknown,
            status: "not seen".to_owned(),
            note: why.into(),
            ..Hop::default()
        });
    }

    /// Reports a device that takes smaller packets than the instance sends.
    fn mtu_step(&mut self, device: LinkKey) {
        let inner = self.nic.inner.and_then(|inner| self.inventory.link(inner));
        let (Some(inner), Some(link)) = (inner, self.inventory.link(device)) else { return };
        if link.mtu < inner.mtu {
            let at = self.inventory.netns(device.netns).label;
            self.path.report(
                finding(
                    Severity::Warning,
                    "mtu-mismatch",
                    format!("{} in {at}", link.name),
                    format!(
                        "{} takes {} bytes, the instance sends {}: large packets die here",
                        link.name, link.mtu, inner.mtu
                    ),
                )
                .seen(format!("MTU {} against {} of {}", link.mtu, inner.mtu, inner.name))
                .verify(in_netns(self.inventory, device.netns, &format!("ip link show dev {}", quote(&link.name))))
                .fix("set both ends to the network's MTU"),
            );
        }
    }

    fn spend(&mut self) -> bool {
        if self.budget == 0 {
            self.stop("the path runs in circles");
            return false;
        }
        self.budget -= 1;
        true
    }
}
