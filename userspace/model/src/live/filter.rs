//! Which packets are wanted, said by flags and in the language of pcap, and made into what the kernel asks. Flow: observe.
//!
//! ```text
//! flags, text --> Wanted (and, or, not over clauses) --aliases of the path--> Wanted --products--> Filter
//! ```
//!
//! A clause covers a packet if it covers one of its layers: its own headers, those of the packet in its tunnel, those of the
//! packet an ICMP error quotes. `covers` says so here as the programs do in the kernel.

use std::net::IpAddr;

use thiserror::Error;

use super::{
    Clause, End, Filter, Product,
    packet::{Content, Headers, Ip, Transport},
};

/// The language of pcap.
mod parse;
/// Questions that no packet meets.
mod possible;
/// Any expression as a sum of products.
mod products;
/// Filters in words.
mod words;

pub use parse::{Mistake, parse};
pub use words::words;

/// Which packets are wanted: any expression over clauses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Every packet.
    Any,
    /// Those a clause covers.
    Clause(Clause),
    /// Those that are not.
    Not(Box<Self>),
    /// Those that are all of these.
    All(Vec<Self>),
    /// Those that are one of these.
    One(Vec<Self>),
}

/// An expression that the programs have no room for, or that no packet fits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Too many different clauses.
    #[error("it asks {0} different questions of a packet, and there is room for {max}: ask fewer", max = Filter::CLAUSES)]
    Clauses(usize),
    /// Too many alternatives.
    #[error("it has {0} or more alternatives, and there is room for {max}: say less of what is or-ed together", max = Filter::PRODUCTS)]
    Products(usize),
    /// It contradicts itself.
    #[error("no packet fits it: it contradicts itself")]
    Nothing,
}

/// Two names of one end: before and after translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// One.
    pub one: (IpAddr, Option<u16>),
    /// The other.
    pub other: (IpAddr, Option<u16>),
}

impl Wanted {
    /// Packets that have an address at one end.
    pub fn host(address: IpAddr) -> Self {
        Self::Clause(Clause { here: end(address), ..Clause::default() })
    }

    /// Packets of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, other) => other,
            (one, Self::Any) => one,
            (one, other) => Self::All(vec![one, other]),
        }
    }

    /// What the kernel asks.
    ///
    /// # Errors
    /// It has no room for it.
    pub fn compile(&self) -> Result<Filter, Unfit> {
        products::compile(self)
    }

    /// The same packets and what translation makes of them.
    #[must_use]
    pub fn widened(&self, aliases: &[Alias]) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Clause(clause) => widened(clause, aliases),
            Self::Not(not) => Self::Not(Box::new(not.widened(aliases))),
            Self::All(all) => Self::All(all.iter().map(|one| one.widened(aliases)).collect()),
            Self::One(any) => Self::One(any.iter().map(|one| one.widened(aliases)).collect()),
        }
    }

    /// Whether a packet is wanted.
    pub fn covers(&self, headers: &Headers) -> bool {
        match self {
            Self::Any => true,
            Self::Clause(clause) => clause_covers(clause, headers),
            Self::Not(not) => !not.covers(headers),
            Self::All(all) => all.iter().all(|one| one.covers(headers)),
            Self::One(any) => any.iter().any(|one| one.covers(headers)),
        }
    }
}

fn end(address: IpAddr) -> End {
    End { prefix: Some((address, if address.is_ipv4() { 32 } else { 128 })), ports: None }
}

/// A clause, or what it becomes where one of its ends has another name.
fn widened(clause: &Clause, aliases: &[Alias]) -> Wanted {
    let mut all = vec![clause.clone()];
    let names = aliases.iter().flat_map(|alias| [(alias.one, alias.other), (alias.other, alias.one)]);
    for (from, to) in names {
        let here = renamed(&clause.here, from, to).map(|here| Clause { here, ..clause.clone() });
        let there = renamed(&clause.there, from, to).map(|there| Clause { there, ..clause.clone() });
        for clause in here.into_iter().chain(there) {
            if !all.contains(&clause) {
                all.push(clause);
            }
        }
    }
    match all.len() {
        1 => Wanted::Clause(all.swap_remove(0)),
        _ => Wanted::One(all.into_iter().map(Wanted::Clause).collect()),
    }
}

/// An end by its other name; none where it does not have it, or has it already.
fn renamed(end: &End, from: (IpAddr, Option<u16>), to: (IpAddr, Option<u16>)) -> Option<End> {
    let named = end.prefix.is_none_or(|prefix| in_prefix(prefix, from.0));
    let ports = match (end.ports, from.1, to.1) {
        (Some((first, last)), Some(port), Some(other)) if (first..=last).contains(&port) => Some((other, other)),
        (Some(_), Some(_), _) => return None,
        (ports, _, _) => ports,
    };
    let prefix = end
        .prefix
        .map(|prefix| if in_prefix(prefix, to.0) { prefix } else { self::end(to.0).prefix.unwrap_or(prefix) });
    let renamed = End { prefix, ports };
    (named && renamed != *end).then_some(renamed)
}

/// Whether a filter covers a packet, as the programs in the kernel decide it.
pub fn covers(filter: &Filter, headers: &Headers) -> bool {
    let answers = filter
        .clauses
        .iter()
        .enumerate()
        .fold(0_u16, |answers, (place, clause)| answers | u16::from(clause_covers(clause, headers)) << place);
    let wanted = |Product { covered, uncovered }: &Product| answers & covered == *covered && answers & uncovered == 0;
    filter.products.is_empty() || filter.products.iter().any(wanted)
}

/// Whether a clause covers one of a packet's layers.
fn clause_covers(clause: &Clause, headers: &Headers) -> bool {
    let own = match &headers.content {
        Content::Ip(ip) => return ip_covers(clause, ip),
        Content::Arp(arp) => Layer::new(super::packet::ETHERTYPE_ARP, Some((arp.sender, arp.target))),
        Content::Other { ethertype } => Layer::new(*ethertype, None),
    };
    layer_covers(clause, &own)
}

fn ip_covers(clause: &Clause, ip: &Ip) -> bool {
    let ethertype = if ip.source.is_ipv4() { super::packet::ETHERTYPE_IPV4 } else { super::packet::ETHERTYPE_IPV6 };
    let own = Layer {
        protocol: Some(ip.protocol),
        ports: ip.transport.ports(),
        ..Layer::new(ethertype, Some((ip.source, ip.destination)))
    };
    let inner = match &ip.transport {
        Transport::Tunnel { inner, .. } => clause_covers(clause, inner),
        Transport::Icmp(icmp) => icmp.quoted.as_deref().is_some_and(|quoted| ip_covers(clause, quoted)),
        Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Sctp { .. }
        | Transport::Ports { .. }
        | Transport::None => false,
    };
    inner || layer_covers(clause, &own)
}

/// One layer of a packet, as a clause asks about it.
struct Layer {
    ethertype: u16,
    protocol: Option<u8>,
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Option<(u16, u16)>,
}

impl Layer {
    const fn new(ethertype: u16, addresses: Option<(IpAddr, IpAddr)>) -> Self {
        Self { ethertype, protocol: None, addresses, ports: None }
    }
}

fn layer_covers(clause: &Clause, layer: &Layer) -> bool {
    let kind = clause.ethertype.is_none_or(|ethertype| ethertype == layer.ethertype)
        && clause.protocol.is_none_or(|protocol| Some(protocol) == layer.protocol);
    let source = (layer.addresses.map(|both| both.0), layer.ports.map(|both| both.0));
    let destination = (layer.addresses.map(|both| both.1), layer.ports.map(|both| both.1));
    let forward = is_end(&clause.here, source) && is_end(&clause.there, destination);
    let backward = !clause.one_way && is_end(&clause.here, destination) && is_end(&clause.there, source);
    kind && (forward || backward)
}

fn is_end(end: &End, (address, port): (Option<IpAddr>, Option<u16>)) -> bool {
    end.prefix.is_none_or(|prefix| address.is_some_and(|address| in_prefix(prefix, address)))
        && end.ports.is_none_or(|(first, last)| port.is_some_and(|port| (first..=last).contains(&port)))
}

fn in_prefix((network, length): (IpAddr, u8), address: IpAddr) -> bool {
    ipnet::IpNet::new(network, length).is_ok_and(|net| net.contains(&address))
}

#[cfg(test)]
mod tests;
