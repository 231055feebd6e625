//! From what is asked to the packet that is sent. A packet of which anything would be a guess is refused. Flow: observe.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use thiserror::Error;

use super::{Asked, BROADCAST, Entry, Kind, Probe};
use crate::{
    id::{LinkKey, Mac, NetnsId},
    inventory::{
        Inventory,
        route::{NoRoute, Question},
    },
    live::points::{Points, Side, Stop, Track},
    trace::{HopKind, InterfaceTrace, Trace},
};

/// The lowest of the ports that probes come from: above those Linux gives away itself.
const FIRST_PORT: u16 = 61_000;
/// How many there are.
const PORTS: u16 = 4_000;
/// Source of frames from outside, where nothing says the gateway's: an address that is nobody's (locally administered).
const STRANGER: Mac = Mac([0x02, b'p', b'r', b'o', b'b', b'e']);

/// Why there is no packet to send.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// What is asked makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something it takes is not known.
    #[error("{0}")]
    Unknown(String),
    /// No packet can get there.
    #[error("{0}")]
    NoWay(String),
}

/// The packet that is asked for.
///
/// # Errors
/// There is none, for the reason given.
pub fn plan(inventory: &Inventory<'_>, trace: &Trace, points: &Points, asked: &Asked) -> Result<Probe, Refusal> {
    port(asked)?;
    let cards: Vec<Card<'_>> = trace.interfaces.iter().zip(&points.tracks).filter_map(Card::of).collect();
    if cards.is_empty() {
        return Err(Refusal::Unknown("the instance has no network card on this host to send by".to_owned()));
    }
    let plan = Plan { inventory, asked };
    let mut refused = None;
    for card in cards {
        match if asked.from_outside { plan.outside(&card) } else { plan.inside(&card) } {
            Ok(probe) => return Ok(probe),
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    Err(refused.unwrap_or_else(|| Refusal::Unknown("nothing can be sent".to_owned())))
}

/// The port it is for; 0 for what has none.
fn port(asked: &Asked) -> Result<u16, Refusal> {
    let usage = |text: &str| Err(Refusal::Usage(text.to_owned()));
    let to = asked.to.unwrap_or_default();
    match (asked.kind, to.port) {
        (Kind::Tcp | Kind::Udp, Some(port)) => Ok(port),
        (Kind::Tcp | Kind::Udp, None) => usage("--probe tcp and udp need --to ADDRESS:PORT"),
        (Kind::Icmp | Kind::Arp | Kind::Dhcp, Some(_)) => usage("only --probe tcp and udp have a port"),
        (Kind::Dhcp, None) if to.address.is_some() => usage("--probe dhcp asks everybody: it takes no --to"),
        (Kind::Arp | Kind::Dhcp, None) if asked.from_outside => usage("--from-outside goes with tcp, udp and icmp"),
        (Kind::Icmp | Kind::Arp | Kind::Dhcp, None) => Ok(0),
    }
}

/// A network card with its devices on this host.
struct Card<'a> {
    interface: &'a InterfaceTrace,
    track: &'a Track,
    first: &'a Stop,
    mac: Mac,
}

impl<'a> Card<'a> {
    fn of((interface, track): (&'a InterfaceTrace, &'a Track)) -> Option<Self> {
        Some(Self { interface, track, first: track.stops.first()?, mac: interface.mac? })
    }

    /// The address a packet to somebody comes from: of the same family, and of IPv6 of the same scope.
    fn address(&self, to: Option<IpAddr>) -> Option<IpAddr> {
        let own = || self.interface.addresses.iter().map(IpNet::addr);
        match to {
            Some(to) => own().find(|own| own.is_ipv4() == to.is_ipv4() && is_near(*own) == is_near(to)),
            None => own().find(IpAddr::is_ipv4).or_else(|| own().find(|own| !is_near(*own))),
        }
    }

    fn needs_address(&self, to: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        self.address(to).ok_or_else(|| {
            let (scope, family) = match to {
                Some(to) if is_near(to) => ("link-local ", "IPv6"),
                Some(IpAddr::V6(_)) => ("", "IPv6"),
                Some(IpAddr::V4(_)) => ("", "IPv4"),
                None => ("", "IP"),
            };
            Refusal::Unknown(format!("no {scope}{family} address of the instance is known"))
        })
    }
}

struct Plan<'p, 'a> {
    inventory: &'p Inventory<'a>,
    asked: &'p Asked,
}

impl Plan<'_, '_> {
    /// A packet of the instance's.
    fn inside(&self, card: &Card<'_>) -> Result<Probe, Refusal> {
        let asked = self.asked;
        let to = asked.to.and_then(|to| to.address);
        if asked.kind == Kind::Dhcp {
            let all = IpAddr::from(Ipv4Addr::BROADCAST);
            return Ok(self.probe(card, (Ipv4Addr::UNSPECIFIED.into(), all), (all, Some(BROADCAST))));
        }
        let source = card.needs_address(to)?;
        let next_hop = self.next_hop(card, source, to)?;
        let destination = to.unwrap_or(next_hop);
        if asked.kind == Kind::Arp {
            let everybody = Probe::asked_of(destination);
            return Ok(self.probe(card, (source, destination), (destination, Some(everybody))));
        }
        if destination == source {
            return Err(Refusal::Usage(format!("{source} is the instance's own address: nothing would leave it")));
        }
        let mac = self.neighbour(card.first.link, next_hop);
        Ok(self.probe(card, (source, destination), (next_hop, mac)))
    }

    fn probe(
        &self,
        card: &Card<'_>,
        (source, destination): (IpAddr, IpAddr),
        (next_hop, next_mac): (IpAddr, Option<Mac>),
    ) -> Probe {
        let Asked { kind, mark, from_outside, .. } = *self.asked;
        let own_port = FIRST_PORT + mark.id % PORTS;
        let port = self.asked.to.and_then(|to| to.port).unwrap_or(0);
        Probe {
            kind,
            from_outside,
            link: card.first.link,
            device: card.first.label(),
            entry: if card.first.side == Side::Sent { Entry::Sent } else { Entry::Received },
            source,
            source_mac: card.mac,
            destination,
            next_hop,
            next_mac,
            ports: if kind == Kind::Dhcp { (68, 67) } else { (own_port, port) },
            mark,
        }
    }

    /// Who takes a packet on the instance's segment: by its own routes, or for a virtual machine by its router's network.
    fn next_hop(&self, card: &Card<'_>, source: IpAddr, to: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        if card.first.kind != HopKind::InnerDevice {
            return self.next_hop_of_guest(card, to);
        }
        match to {
            Some(to) if self.asked.kind == Kind::Arp || is_near(to) => return Ok(to),
            Some(_) | None => {}
        }
        let Some((found, hop)) = self.route(card.first.link.netns, Question { source, destination: to, iif: None })?
        else {
            let whom = to.map_or_else(|| "outside".to_owned(), |to| to.to_string());
            return Err(Refusal::NoWay(format!("nothing is sent: the instance has no way to {whom}")));
        };
        if found != card.first.link {
            return Err(Refusal::Unknown(format!("the way does not go by {}", card.first.label())));
        }
        Ok(hop)
    }

    fn next_hop_of_guest(&self, card: &Card<'_>, to: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        let router = card.interface.router.as_ref();
        let network = router.and_then(|router| self.inventory.link_named(router.netns.id, &router.internal_device));
        let nets = || network.map_or_else(Vec::new, |link| self.inventory.addresses(link));
        let gateway = match to {
            Some(IpAddr::V6(_)) => nets().iter().map(IpNet::addr).find(IpAddr::is_ipv6),
            Some(IpAddr::V4(_)) | None => router.map(|router| router.gateway),
        };
        let is_neighbour =
            |to: IpAddr| self.asked.kind == Kind::Arp || is_near(to) || nets().iter().any(|net| net.contains(&to));
        match (to, gateway) {
            (Some(to), _) if is_neighbour(to) => Ok(to),
            (_, Some(gateway)) => Ok(gateway),
            (_, None) => Err(Refusal::Unknown(
                "nothing on this host says what the gateway of the guest is: it has no router here".to_owned(),
            )),
        }
    }

    /// Device and next hop of a way; none where there is no way.
    fn route(&self, netns: NetnsId, question: Question<'_>) -> Result<Option<(LinkKey, IpAddr)>, Refusal> {
        let answer = match self.inventory.route(netns, question) {
            Ok(answer) => answer,
            Err(NoRoute::Unknown) => return Err(Refusal::Unknown("the routes there could not be read".to_owned())),
            Err(NoRoute::None | NoRoute::Refused(_) | NoRoute::Dead) => return Ok(None),
        };
        let hop = answer.neighbour(question.destination);
        let link = answer.ifindex().map(|ifindex| LinkKey { netns, ifindex });
        match (link, hop) {
            (Some(link), Some(hop)) => Ok(Some((link, hop))),
            _ => Err(Refusal::Unknown("the route does not say who the next hop is".to_owned())),
        }
    }

    fn neighbour(&self, link: LinkKey, address: IpAddr) -> Option<Mac> {
        let known = &self.inventory.network(link.netns)?.neighbours;
        let alive = known.iter().filter(|entry| !matches!(entry.state.as_str(), "FAILED" | "INCOMPLETE"));
        let mut here = alive.filter(|entry| entry.ifindex == link.ifindex && entry.address == address);
        here.find_map(|entry| entry.mac)
    }

    /// A packet from outside to the instance's floating IP: as the router's own next hop would send it.
    fn outside(&self, card: &Card<'_>) -> Result<Probe, Refusal> {
        let unknown = |text: &str| Refusal::Unknown(format!("nothing is sent from outside: {text}"));
        let wanted = self.asked.to.and_then(|to| to.address);
        let mut floating = card.interface.floating_ips.iter().map(|floating| floating.address);
        let floating = floating.find(|address| wanted.is_none_or(|wanted| wanted == *address));
        let floating = floating.ok_or_else(|| unknown("the instance has no such floating IP on this host"))?;
        let uplink = card.track.stops.last().filter(|stop| stop.kind == HopKind::Uplink);
        let uplink = uplink.ok_or_else(|| unknown("its path ends at no device of this host that leads outside"))?;
        let router = card.interface.router.as_ref().ok_or_else(|| unknown("it has no router on this host"))?;
        let named = |name: &str| self.inventory.link_named(router.netns.id, name);
        let near = || Some((None, named(router.external_device.as_deref()?)?));
        let (entered, external) = beyond(card.track, router.netns.id)
            .map(|(entered, external)| (Some(entered), external))
            .or_else(near)
            .ok_or_else(|| unknown("its router has no device towards the outside"))?;
        let own = self.inventory.link(external).and_then(|link| link.mac);
        let own = own.ok_or_else(|| unknown("the MAC address of its router is not known"))?;
        let gateway = self.route(external.netns, Question { source: floating, destination: None, iif: entered })?;
        let (_, gateway) = gateway.ok_or_else(|| unknown("its router has no way to the outside"))?;
        // Answers go to whom the router's ARP finds, wherever this one comes from.
        let mac = self.neighbour(external, gateway).unwrap_or(STRANGER);
        Ok(Probe {
            link: uplink.link,
            device: uplink.label(),
            entry: Entry::Received,
            source_mac: mac,
            ..self.probe(card, (gateway, floating), (floating, Some(own)))
        })
    }
}

/// Of a distributed router: the device by which packets come into the namespace that is next to the outside, and the one by
/// which they leave it.
fn beyond(track: &Track, router: NetnsId) -> Option<(&str, LinkKey)> {
    let mut ends = track.stops.iter().rev().filter(|stop| stop.routes);
    let external = ends.next().filter(|stop| stop.link.netns != router)?;
    let entered = ends.next().filter(|stop| stop.link.netns == external.link.netns)?;
    Some((&entered.name, external.link))
}

/// Whether an address of IPv6 is for its own segment alone.
const fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
