//! Which devices to watch for an instance, in the order of its path. Flow: observe.
//!
//! The hops of a trace are more than its devices: bridges, rules and routers have none of their own. Every device stands in
//! a track once, with the side its packets pass on the way out: into it, or out of it into a network stack. On the way in
//! it is the other side, so device and side tell a packet's direction.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use serde::{Deserialize, Serialize};

use super::{
    Clause, End, View, What,
    filter::{Alias, Wanted},
    packet::{Headers, SCTP, TCP, UDP},
};
use crate::{
    fact::{PublishedPort, SourceKind},
    floating::show::Standing,
    id::{LinkKey, Mac, NetnsId},
    inventory::Inventory,
    trace::{Direction, Hop, HopKind, HopState, InterfaceTrace, Trace, Translation},
};

/// Others with the same address.
mod doubles;
/// Devices of other instances.
mod others;
/// What frames look like on the way.
pub(in crate::live) mod segment;

pub use doubles::Doubles;
pub use segment::Segment;

/// Which side of a device a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Out of it, into the network stack.
    Received,
    /// Into it.
    Sent,
}

impl Side {
    /// The side of a sighting at a device; none where the kernel gave the packet up.
    pub const fn of(what: &What) -> Option<Self> {
        match what {
            What::Received(_) => Some(Self::Received),
            What::Sent(_) => Some(Self::Sent),
            What::Dropped { .. } => None,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Received => Self::Sent,
            Self::Sent => Self::Received,
        }
    }
}

/// A device on the path of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub link: LinkKey,
    /// Its name.
    pub name: String,
    /// Namespace it lives in, as a reader wants to see it.
    pub netns: String,
    /// What it is on the path.
    pub kind: HopKind,
    /// Number of its hop outward.
    pub outward: Option<usize>,
    /// Number of its hop inward.
    pub inward: Option<usize>,
    /// The side that packets of the instance pass on their way out.
    pub side: Side,
    /// Through what it is watched.
    pub view: View,
    /// MAC address.
    pub mac: Option<Mac>,
    /// It is an end of a namespace that routes: what is sent to an address of that namespace ends here.
    pub routes: bool,
    /// Open vSwitch's user-space datapath reads from it: the host's own stack then drops a copy of every frame.
    pub copied: bool,
    /// What the instance's frames look like there.
    pub segment: Segment,
}

/// The devices of one interface, from the instance outward.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// In order.
    pub stops: Vec<Stop>,
    /// The way out ends at its last device because of a fault: whoever comes there goes no further.
    pub broken: bool,
    /// Addresses that mean the instance: its own, and those translation gives to it alone.
    pub own: Vec<IpAddr>,
    /// Those of them that it has outside of its networks only, where nobody else can have them: its floating IPs.
    pub outside: Vec<IpAddr>,
    /// Networks it is in: what it sends elsewhere is for a router.
    pub subnets: Vec<IpNet>,
    /// Networks that its routers reach by other devices than the way out.
    pub elsewhere: Vec<IpNet>,
    /// Addresses its packets may have on the way that others' packets have too: its router's.
    pub shared: Vec<IpAddr>,
    /// Addresses of the namespaces that route, which are ends of their own.
    pub routers: Vec<(NetnsId, IpAddr)>,
    /// Routers whose rules could not be read: what they make of addresses is not known, and not asked of the kernel.
    pub opaque: Vec<NetnsId>,
    /// Ports of the host that lead to the instance.
    pub published: Vec<Published>,
    /// What these addresses send to the outside is taken at its host device before anything can see it there: netdiag's fast path
    /// at XDP.
    pub shortcut: Vec<IpAddr>,
}

/// A port of the host that leads to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Address of the host; unspecified where it is any.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
}

/// What to watch for an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// The instance, by its name.
    pub instance: String,
    /// One track an interface, as the trace has them.
    pub tracks: Vec<Track>,
    /// Devices of other instances of the host, with the addresses behind each.
    pub others: BTreeMap<LinkKey, Vec<IpAddr>>,
    /// Other instances of the host with an address of this one.
    pub doubles: Doubles,
    /// Where the kernel gives packets up is not watched.
    pub blind: bool,
}

/// A place on a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Which track.
    pub track: usize,
    /// Which of its stops.
    pub stop: usize,
}

impl Stop {
    /// Number of its hop in a direction.
    pub const fn hop(&self, direction: Direction) -> Option<usize> {
        match direction {
            Direction::Outward | Direction::Lateral => self.outward,
            Direction::Inward => self.inward,
        }
    }

    /// The direction of a packet that passes a side.
    pub fn direction(&self, side: Side) -> Direction {
        if side == self.side { Direction::Outward } else { Direction::Inward }
    }

    /// Name and place: `tap1a2b3c4d-5e`, `eth0 in web-1`.
    pub fn label(&self) -> String {
        if self.netns == "host" { self.name.clone() } else { format!("{} in {}", self.name, self.netns) }
    }

    /// Whether nobody else's packets pass it.
    pub const fn is_private(&self) -> bool {
        matches!(self.kind, HopKind::InnerDevice | HopKind::HostDevice | HopKind::Veth)
    }
}

impl Track {
    /// How far along the way a stop is, for a direction: more is later.
    pub const fn position(&self, stop: usize, direction: Direction) -> usize {
        match direction {
            Direction::Outward | Direction::Lateral => stop,
            Direction::Inward => self.stops.len().saturating_sub(stop + 1),
        }
    }

    /// Whether an address is beyond all networks the instance is in, so that only a router leads to it.
    pub fn is_beyond(&self, address: IpAddr) -> bool {
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        let same = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
        let mut subnets = self.subnets.iter().filter(same).peekable();
        !address.is_multicast() && !broadcast && subnets.peek().is_some() && !subnets.any(|net| net.contains(&address))
    }

    /// Whether the routers of the path lead an address elsewhere than along it: to another network of theirs, or back to the
    /// instance itself.
    pub fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.elsewhere.iter().any(|net| net.contains(&address))
    }

    /// Addresses it has in its networks, which others may have in theirs.
    pub fn inside(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().filter(|address| !self.outside.contains(address)).copied()
    }

    /// Whether a packet is for a port of the host that leads to the instance.
    pub fn is_published(&self, headers: &Headers) -> bool {
        let Some(ip) = headers.innermost().ip() else { return false };
        let Some((_, port)) = ip.transport.ports() else { return false };
        let held = || self.routers.iter().any(|(_, address)| *address == ip.destination);
        self.published.iter().any(|one| {
            (one.protocol, one.port) == (ip.protocol, port)
                && (one.address == ip.destination || (one.address.is_unspecified() && held()))
        })
    }

    /// The position outward of the device at which netdiag's fast path takes what an address sends.
    pub fn shortcut(&self, source: IpAddr) -> Option<usize> {
        let host = self.stops.iter().position(|stop| stop.kind == HopKind::HostDevice && stop.copied)?;
        self.shortcut.contains(&source).then_some(host)
    }

    /// The stop at a position.
    pub fn at(&self, position: usize, direction: Direction) -> Option<&Stop> {
        // Its own inverse.
        self.stops.get(self.position(position, direction)).filter(|_| position < self.stops.len())
    }
}

impl Points {
    /// The devices of an instance's paths, as the trace has found them.
    pub fn of(inventory: &Inventory<'_>, trace: &Trace) -> Self {
        let tracks: Vec<Track> = trace.interfaces.iter().map(|interface| track(inventory, interface)).collect();
        let others = others::devices(inventory, &tracks);
        let doubles = Doubles::of(inventory, trace, &tracks);
        Self { instance: trace.instance.name.clone(), tracks, others, doubles, blind: false }
    }

    /// Where a device is on the tracks, with the direction of what passes that side of it.
    pub fn places(&self, link: LinkKey, side: Side) -> impl Iterator<Item = (Place, Direction)> {
        let tracks = self.tracks.iter().enumerate();
        tracks.flat_map(move |(track, one)| {
            let stops = one.stops.iter().enumerate().filter(move |(_, stop)| stop.link == link);
            stops.map(move |(number, stop)| (Place { track, stop: number }, stop.direction(side)))
        })
    }

    /// A stop.
    pub fn stop(&self, place: Place) -> Option<&Stop> {
        self.tracks.get(place.track)?.stops.get(place.stop)
    }

    /// Whether anything of the path is in a namespace.
    pub fn has_namespace(&self, netns: NetnsId) -> bool {
        self.tracks.iter().flat_map(|track| &track.stops).any(|stop| stop.link.netns == netns)
    }

    /// Whether a packet that was given up at a device before it was seen anywhere can be the instance's: the device is on the
    /// path, or in a namespace that is not everybody's.
    pub fn may_begin_at(&self, link: Option<LinkKey>) -> bool {
        let Some(link) = link else { return false };
        let mut stops = self.tracks.iter().flat_map(|track| &track.stops);
        stops.any(|stop| stop.link == link || (stop.link.netns == link.netns && stop.netns != "host"))
    }

    /// Every device once.
    pub fn devices(&self) -> Vec<&Stop> {
        let mut found: Vec<&Stop> = Vec::new();
        for stop in self.tracks.iter().flat_map(|track| &track.stops) {
            if !found.iter().any(|one| one.link == stop.link) {
                found.push(stop);
            }
        }
        found
    }

    /// Leaves out devices that could not be watched.
    pub fn forget(&mut self, unwatched: impl Fn(LinkKey) -> bool) {
        for track in &mut self.tracks {
            track.stops.retain(|stop| !unwatched(stop.link));
        }
    }

    /// Takes note of devices that are watched by packet sockets.
    pub fn see_by_socket(&mut self, links: &[LinkKey]) {
        let stops = self.tracks.iter_mut().flat_map(|track| &mut track.stops);
        stops.filter(|stop| links.contains(&stop.link)).for_each(|stop| stop.view = View::Socket);
    }

    /// Names that one end of the instance's packets has on its way, before and after translation.
    pub fn aliases(&self, trace: &Trace) -> Vec<Alias> {
        let mut found = Vec::new();
        for (track, interface) in self.tracks.iter().zip(&trace.interfaces) {
            let fixed = || interface.addresses.iter().map(IpNet::addr);
            for floating in &interface.floating_ips {
                found.push(Alias { one: (floating.fixed_address, None), other: (floating.address, None) });
            }
            for shared in &track.shared {
                let same = fixed().filter(|address| address.is_ipv4() == shared.is_ipv4());
                found.extend(same.map(|address| Alias { one: (address, None), other: (*shared, None) }));
            }
            for published in &interface.published_ports {
                let port = &published.port;
                let outside: Vec<IpAddr> =
                    if port.host_address.is_unspecified() { track.shared.clone() } else { vec![port.host_address] };
                for (inside, outside) in
                    fixed().flat_map(|inside| outside.iter().map(move |outside| (inside, *outside)))
                {
                    let (one, other) = ((inside, Some(port.container_port)), (outside, Some(port.host_port)));
                    if inside.is_ipv4() == outside.is_ipv4() {
                        found.push(Alias { one, other });
                    }
                }
            }
        }
        found.dedup();
        found
    }

    /// Packets that can be the instance's: by every address they have on their way, and its questions to DHCP, which have
    /// none yet.
    pub fn scope(&self) -> Wanted {
        let mut addresses: Vec<IpAddr> =
            self.tracks.iter().flat_map(|track| track.own.iter().chain(&track.shared)).copied().collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            return Wanted::Any;
        }
        let dhcp =
            Clause { protocol: Some(UDP), here: End { prefix: None, ports: Some((67, 68)) }, ..Clause::default() };
        Wanted::One(addresses.into_iter().map(Wanted::host).chain([Wanted::Clause(dhcp)]).collect())
    }

    /// The track whose instance an address means.
    pub fn owner(&self, address: IpAddr) -> Option<usize> {
        self.tracks.iter().position(|track| track.own.contains(&address))
    }
}

/// The devices of an interface: those of the way out, and what the way in has besides.
fn track(inventory: &Inventory<'_>, interface: &InterfaceTrace) -> Track {
    let mut stops: Vec<Stop> = Vec::new();
    let outward: Vec<&Hop> = interface.hops.iter().filter(|hop| hop.direction == Direction::Outward).collect();
    for (place, hop) in outward.iter().enumerate() {
        let Some(link) = device(inventory, hop) else { continue };
        // An internal port is the end of a switch and of a namespace, and so two hops.
        if stops.iter().any(|stop| stop.link == link) {
            continue;
        }
        let before = stops.last().map(|stop| stop.link);
        let Some(side) = side(inventory, &outward, place, (before, link)) else { continue };
        stops.push(stop(inventory, hop, (link, side), routes(&outward, place)));
    }
    for stop in &mut stops {
        let is_it = |hop: &&Hop| hop.direction == Direction::Inward && device(inventory, hop) == Some(stop.link);
        stop.inward = interface.hops.iter().find(is_it).map(|hop| hop.number);
    }
    segment::tell(&mut stops, interface.mac);
    let (own, shared) = addresses(interface);
    let outside = interface.floating_ips.iter().map(|floating| floating.address).collect();
    let routers = stops.iter().filter(|stop| stop.routes).map(|stop| stop.link.netns);
    let mut routers: Vec<(NetnsId, IpAddr)> = routers
        .flat_map(|netns| {
            let links = inventory.links_in(netns).flat_map(|(_, link)| &link.addresses);
            links.map(move |held| (netns, held.address.addr()))
        })
        .filter(|(_, address)| !own.contains(address))
        .collect();
    routers.sort();
    routers.dedup();
    // A guest's addresses are known without their networks.
    let is_network = |net: &&IpNet| net.prefix_len() < net.max_prefix_len();
    let subnets = interface.addresses.iter().filter(is_network).map(IpNet::trunc).collect();
    let elsewhere = elsewhere(inventory, &stops);
    // What is behind the last device of this host is not this host's: whoever comes to that device has left.
    let inside = stops.last().filter(|stop| stop.kind != HopKind::Uplink);
    let last = inside.and_then(|stop| stop.outward).unwrap_or(usize::MAX);
    let broken = outward.iter().any(|hop| hop.number > last && hop.state == HopState::Broken);
    let (published, shortcut) = (published(interface), shortcut(interface));
    let routing = stops.iter().filter(|stop| stop.routes).map(|stop| stop.link.netns);
    let opaque = routing.filter(|netns| inventory.unread(SourceKind::Netfilter, *netns)).collect();
    Track { stops, broken, own, outside, subnets, elsewhere, shared, routers, opaque, published, shortcut }
}

fn published(interface: &InterfaceTrace) -> Vec<Published> {
    let one = |port: &PublishedPort| {
        let protocol = match port.protocol.as_str() {
            "tcp" => TCP,
            "udp" => UDP,
            "sctp" => SCTP,
            _ => return None,
        };
        Some(Published { address: port.host_address, port: port.host_port, protocol })
    };
    interface.published_ports.iter().filter_map(|published| one(&published.port)).collect()
}

/// Addresses whose packets may take the fast path out.
fn shortcut(interface: &InterfaceTrace) -> Vec<IpAddr> {
    let is_fast = |standing: Standing| matches!(standing, Standing::Fast | Standing::Draining);
    let fast =
        interface.floating_ips.iter().filter(|floating| floating.way.as_ref().is_some_and(|row| is_fast(row.standing)));
    fast.map(|floating| floating.fixed_address).collect()
}

/// Networks behind devices of the path's routers that are not on the path.
fn elsewhere(inventory: &Inventory<'_>, stops: &[Stop]) -> Vec<IpNet> {
    let mut found = Vec::new();
    for stop in stops.iter().filter(|stop| stop.routes) {
        let others = inventory
            .links_in(stop.link.netns)
            .filter(|(key, link)| !link.loopback && !stops.iter().any(|stop| stop.link == *key));
        let nets = others.flat_map(|(_, link)| &link.addresses).map(|held| held.address.trunc());
        found.extend(nets.filter(|net| net.prefix_len() < net.max_prefix_len()));
    }
    found.sort();
    found.dedup();
    found
}

/// The device a hop is.
fn device(inventory: &Inventory<'_>, hop: &Hop) -> Option<LinkKey> {
    if !hop.kind.is_device() {
        return None;
    }
    inventory.link_named(hop.netns.as_ref()?.id, &hop.name)
}

/// The side of a device that packets of the instance pass on their way out; none where they pass neither.
fn side(
    inventory: &Inventory<'_>,
    outward: &[&Hop],
    place: usize,
    (before, link): (Option<LinkKey>, LinkKey),
) -> Option<Side> {
    // What went into one end of a veth comes out of the other.
    if before.is_some() && inventory.peer(link) == before {
        return Some(Side::Received);
    }
    match outward[place].kind {
        HopKind::HostDevice => Some(Side::Received),
        HopKind::RouterPort if routes(outward, place) => Some(Side::Received),
        // A bridge that only passes frames on has no packet of theirs itself.
        HopKind::LinuxBridge => routes(outward, place).then_some(Side::Received),
        HopKind::InnerDevice
        | HopKind::Veth
        | HopKind::RouterPort
        | HopKind::Uplink
        | HopKind::Vlan
        | HopKind::Instance
        | HopKind::Namespace
        | HopKind::OvsPort
        | HopKind::OvsBridge
        | HopKind::Patch
        | HopKind::Tunnel
        | HopKind::Filter
        | HopKind::Router
        | HopKind::Nat
        | HopKind::NextHop
        | HopKind::Outside
        | HopKind::Service
        | HopKind::SecurityGroup
        | HopKind::FastPath => Some(Side::Sent),
    }
}

/// Whether the next hop that is more than rules is the router, so that this device is its entrance.
fn routes(outward: &[&Hop], place: usize) -> bool {
    let own = outward[place].netns.as_ref().map(|netns| netns.id);
    let next = outward[place + 1..].iter().find(|hop| !matches!(hop.kind, HopKind::Filter | HopKind::Nat));
    next.is_some_and(|hop| hop.kind == HopKind::Router && hop.netns.as_ref().map(|netns| netns.id) == own)
}

fn stop(inventory: &Inventory<'_>, hop: &Hop, (link, side): (LinkKey, Side), entrance: bool) -> Stop {
    let routes = entrance || matches!(hop.kind, HopKind::RouterPort);
    Stop {
        link,
        name: hop.name.clone(),
        netns: hop.netns.as_ref().map_or_else(String::new, |netns| netns.label.clone()),
        kind: hop.kind,
        outward: Some(hop.number),
        inward: None,
        side,
        view: View::Tc,
        mac: inventory.link(link).and_then(|link| link.mac),
        routes,
        copied: is_copied(inventory, link),
        segment: Segment::default(),
    }
}

/// The device that a switch in user space makes for itself, whoever can ask its database.
const DATAPATH: &str = "ovs-netdev";

/// Whether Open vSwitch's user-space datapath takes copies of a device's frames (`AF_PACKET`), or may: its database could not be
/// read, and it leaves no trace on its ports. Its internal ports are TAPs, whose frames it has for itself.
pub(super) fn is_copied(inventory: &Inventory<'_>, link: LinkKey) -> bool {
    if let Some(port) = inventory.port_of(link) {
        return port.bridge.datapath_type == "netdev" && matches!(port.interface.kind.as_str(), "" | "system");
    }
    let datapath = || inventory.link_named(link.netns, DATAPATH).is_some();
    let is_there = || inventory.unread(SourceKind::Ovsdb, link.netns) || datapath();
    let none_read = inventory.snapshot.facts.switches.is_empty() && is_there();
    none_read && Some(link.netns) == inventory.host && inventory.master(link).is_none()
}

/// Addresses that mean the instance alone, and those it shares with others.
fn addresses(interface: &InterfaceTrace) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let mut own: Vec<IpAddr> = interface.addresses.iter().map(IpNet::addr).collect();
    own.extend(interface.floating_ips.iter().map(|floating| floating.address));
    let becomes = interface.hops.iter().filter_map(|hop| match hop.translation.as_ref()? {
        Translation::Source(words) => words.split(' ').next()?.parse::<IpAddr>().ok(),
        Translation::Destination(_) => None,
    });
    let mut shared: Vec<IpAddr> = becomes.filter(|address| !own.contains(address)).collect();
    shared.sort();
    shared.dedup();
    own.dedup();
    (own, shared)
}

#[cfg(test)]
mod tests;
