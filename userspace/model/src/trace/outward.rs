//! The way out, from the instance to the next hop outside.
//!
//! The walk knows devices, bridges, switches and routing namespaces, not products: Neutron's routers, Docker's bridges
//! and a VM behind a hybrid plug are all the same few steps in another order. Every step either leads on or says why it
//! cannot be followed; a budget bounds a host whose plumbing runs in circles.

use std::net::IpAddr;

use super::{
    Direction, Hop, HopKind, HopState, Router, Severity,
    command::in_netns,
    enforcement, filter, floating,
    path::{LOST, Path, finding},
};
use crate::{
    fact::{NeighbourFact, SourceKind},
    id::{LinkKey, NetnsId},
    inventory::{
        Inventory, Nic,
        route::{Answer, NoRoute, Question},
    },
};

/// Linux bridges and Open vSwitch.
mod bridging;
/// Where two places of a path contradict each other.
mod contradictions;
/// Namespaces that route.
mod routing;

/// The device of Open vSwitch's user-space datapath (`dpif-netdev`).
const USERSPACE_DATAPATH: &str = "ovs-netdev";

/// Bridges and routers a path may pass; more means that it runs in circles.
const BUDGET: usize = 16;

/// One namespace that routes on the path: the way in comes back through the same ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) netns: NetnsId,
    pub(super) inside: LinkKey,
    pub(super) outside: LinkKey,
}

/// Whether the instance's default route leaves by the card that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DefaultRoute {
    /// It does, by a gateway or on the link.
    Here,
    /// It leaves by another card, or there is none.
    Elsewhere,
    /// A guest's routes cannot be seen from its host; a namespace's may not have been read.
    Unknown,
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
    /// The instance's own address.
    pub(super) source: Option<IpAddr>,
    /// Source address where the walk is, once it was translated: what it asks routes and rules about.
    pub(super) carried: Option<IpAddr>,
    /// Gateway the instance sends to.
    gateway: Option<IpAddr>,
    default_route: DefaultRoute,
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
            carried: source,
            gateway: None,
            default_route: DefaultRoute::Unknown,
            routed,
            budget: BUDGET,
        }
    }

    /// Follows the card outward; the hops before its host end are already on the path.
    pub(super) fn follow(&mut self) {
        self.find_gateway();
        let Some(outer) = self.nic.outer else {
            self.stop("the other end of the link is in a namespace that cannot be seen from here");
            return;
        };
        if self.nic.inner != Some(outer) {
            self.path.device(self.inventory, HopKind::HostDevice, outer);
            self.mtu_step(outer, false);
        }
        enforcement::outward(self);
        floating::outward(self);
        if self.nic.inner != Some(outer) {
            filter::at_host_device(self, outer);
        }
        self.enter_device(outer);
    }

    /// Looks up the instance's default route, and its gateway if that route leaves by this card.
    fn find_gateway(&mut self) {
        let Some(inner) = self.nic.inner else { return };
        self.default_route = DefaultRoute::Elsewhere;
        let Some(source) = self.source else { return };
        self.refusals(inner);
        let question = Question { source, destination: None, iif: None };
        match self.inventory.route(inner.netns, question) {
            Ok(answer) if answer.ifindex() == Some(inner.ifindex) => {
                self.silent_gateway(inner, &answer);
                self.gateway = answer.next_hop.gateway;
                self.default_route = DefaultRoute::Here;
            }
            Ok(_) => {}
            // A dead route is there; that its link is down is said of the link.
            Err(NoRoute::Unknown | NoRoute::Dead) => self.default_route = DefaultRoute::Unknown,
            Err(reason) => {
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
                    .seen(match reason {
                        NoRoute::Refused(kind) => format!("a route or a policy rule of kind {kind} is in the way"),
                        NoRoute::None | NoRoute::Unknown | NoRoute::Dead => {
                            "no route to 0.0.0.0/0 or ::/0 in its namespace".to_owned()
                        }
                    })
                    .verify(in_netns(self.inventory, inner.netns, "ip route show table all"))
                    .fix("give the subnet a gateway and plug the port again, or add the route inside"),
                );
            }
        }
    }

    fn silent_gateway(&mut self, inner: LinkKey, answer: &Answer<'_>) {
        let Some(gateway) = answer.next_hop.gateway else { return };
        let neighbours = self.inventory.network(inner.netns).map_or(&[][..], |network| &network.neighbours);
        let of_gateway = |entry: &&NeighbourFact| {
            entry.ifindex == inner.ifindex && entry.address == gateway && entry.state == "FAILED"
        };
        if let Some(entry) = neighbours.iter().find(of_gateway) {
            let ago = entry.age_in_words().map_or_else(String::new, |age| format!(", {age} ago"));
            self.path.report(
                finding(
                    Severity::Warning,
                    "gateway-silent",
                    gateway.to_string(),
                    format!("the gateway {gateway} did not answer the instance's last question (ARP or ND){ago}"),
                )
                .seen(state_of(entry))
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
        } else if self.answers_for_gateway(device) {
            self.route_in(device);
        } else if self.may_be_switched(device) {
            self.stop("Open vSwitch may have this device, and its database could not be read");
        } else if matches!(self.inventory.kind(device), Some("veth" | "tun")) {
            self.route_in(device);
        } else {
            // A macvlan, ipvlan or VLAN on a physical device: the frame is on the wire.
            self.leave(None);
        }
    }

    fn answers_for_gateway(&self, device: LinkKey) -> bool {
        self.gateway.is_some_and(|gateway| self.inventory.holder(device.netns, gateway) == Some(device))
    }

    /// Whether a device may be a port of an Open vSwitch that was not read. The kernel datapath enslaves its ports
    /// (`ovs-system`); the user-space datapath leaves no trace on them, but has a device of its own as long as it runs.
    fn may_be_switched(&self, device: LinkKey) -> bool {
        let enslaved = self.inventory.master(device).is_some_and(|on| self.inventory.kind(on) == Some("openvswitch"));
        let none_read = self.inventory.snapshot.facts.switches.is_empty();
        let runs = || self.inventory.links_in(device.netns).any(|(_, link)| link.name == USERSPACE_DATAPATH);
        enslaved || (none_read && (self.inventory.unread(SourceKind::Ovsdb, device.netns) || runs()))
    }

    /// The next hop outside this host, with what the neighbour table says of it.
    fn leave(&mut self, neighbour: Option<(LinkKey, IpAddr)>) {
        let Some((link, address)) = neighbour.or_else(|| Some((self.nic.inner?, self.gateway?))) else {
            self.path.push(Hop {
                kind: HopKind::NextHop,
                name: "the wire".to_owned(),
                status: "outside".to_owned(),
                note: "what follows is not on this host".to_owned(),
                ..Hop::default()
            });
            return;
        };
        let netns = link.netns;
        let neighbours = self.inventory.network(netns).map_or(&[][..], |network| &network.neighbours);
        // Two links of a host may know the same address.
        let asked = |entry: &&NeighbourFact| entry.ifindex == link.ifindex && entry.address == address && !entry.proxy;
        let entry = neighbours.iter().find(asked);
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
        if let Some(entry) = entry {
            self.silent_next_hop(entry, show);
        }
    }

    /// Reports a next hop that does not answer, or did not when it was last asked.
    fn silent_next_hop(&mut self, entry: &NeighbourFact, show: String) {
        let address = entry.address;
        let say = |severity, message: String| {
            finding(severity, "next-hop-silent", address.to_string(), message).seen(state_of(entry)).verify(show)
        };
        if entry.is_silent() {
            self.path.report(
                say(Severity::Error, format!("the next hop {address} does not answer ARP or ND: packets out die here"))
                    .fix("see the external network's wiring: NIC, VLAN, and whether the gateway is up"),
            );
        } else if entry.was_silent() {
            let ago = entry.age_in_words().unwrap_or_default();
            let message = format!(
                "the next hop {address} did not answer ARP or ND when it was last asked, {ago} ago; the next packet asks again"
            );
            self.path.report(say(Severity::Warning, message).fix("ask it: netdiag trace --probe icmp"));
        }
    }

    /// Says that the path cannot be followed further from here.
    fn stop(&mut self, why: impl Into<String>) {
        self.path.push(Hop {
            kind: HopKind::NextHop,
            name: LOST.to_owned(),
            state: HopState::Unknown,
            status: "not seen".to_owned(),
            note: why.into(),
            ..Hop::default()
        });
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

/// What a neighbour entry says.
fn state_of(entry: &NeighbourFact) -> String {
    let age = entry.age_in_words().map_or_else(String::new, |age| format!(", for {age}"));
    format!("its neighbour entry is {}{age}", entry.state)
}
