//! Products that no packet can meet, and questions whose answer another one has already.
//!
//! A packet has several layers: the frame of a tunnel and the packet inside, an ICMP error and what it quotes. So `tcp and udp`
//! is no contradiction, a segment in VXLAN is both. What is called impossible here is so for every packet.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::live::{Clause, End, packet};

/// Ports that frames in tunnels go to.
const TUNNELS: [u16; 3] = [4789, 6081, 8472];

/// The first port such a frame may come from: senders take theirs from the range of ephemeral ports.
const FIRST: u16 = 1024;

/// Questions about one layer that are tried in every order of its ends; more are taken for possible.
const MOST: usize = 8;

/// Whether a packet may be covered by some clauses and not by others.
pub(super) fn is_possible(covered: &[&Clause], uncovered: &[&Clause]) -> bool {
    if covered.iter().any(|one| uncovered.iter().any(|other| is_part(one, other))) {
        return false;
    }
    let inner = |clause: &&&Clause| !may_be_tunnel(clause) && !may_be_error(clause);
    let mut alone: Vec<&Clause> = covered.iter().filter(inner).copied().collect();
    // What an error quotes is an IP packet.
    if alone.iter().any(|clause| clause.ethertype.is_some_and(|ethertype| !is_ip(ethertype))) {
        alone.extend(covered.iter().filter(|clause| !may_be_tunnel(clause) && may_be_error(clause)));
    }
    is_one_layer(&alone)
}

/// Whether every layer that one clause covers is covered by another.
pub(super) fn is_part(one: &Clause, other: &Clause) -> bool {
    let kind = other.ethertype.is_none_or(|ethertype| one.ethertype == Some(ethertype))
        && other.protocol.is_none_or(|protocol| one.protocol == Some(protocol));
    let straight = is_within(&one.here, &other.here) && is_within(&one.there, &other.there);
    let crossed = is_within(&one.here, &other.there) && is_within(&one.there, &other.here);
    kind && if other.one_way { one.one_way && straight } else { straight || crossed }
}

fn is_within(end: &End, other: &End) -> bool {
    let prefix = other.prefix.is_none_or(|wide| end.prefix.is_some_and(|narrow| contains(wide, narrow)));
    let ports = other.ports.is_none_or(|(first, last)| end.ports.is_some_and(|(from, to)| first <= from && to <= last));
    prefix && ports
}

fn contains((wide, wide_length): (IpAddr, u8), (narrow, length): (IpAddr, u8)) -> bool {
    wide_length <= length && IpNet::new(wide, wide_length).is_ok_and(|net| net.contains(&narrow))
}

const fn is_ip(ethertype: u16) -> bool {
    matches!(ethertype, packet::ETHERTYPE_IPV4 | packet::ETHERTYPE_IPV6)
}

/// Whether the outer layer of a tunnel may be what a clause covers.
fn may_be_tunnel(clause: &Clause) -> bool {
    let within =
        |ports: Option<(u16, u16)>, port: u16| ports.is_none_or(|(first, last)| (first..=last).contains(&port));
    let to = |end: &End| TUNNELS.iter().any(|port| within(end.ports, *port));
    let from = |end: &End| end.ports.is_none_or(|(_, last)| last >= FIRST);
    let ends = |from_end: &End, to_end: &End| from(from_end) && to(to_end);
    let ports = ends(&clause.here, &clause.there) || (!clause.one_way && ends(&clause.there, &clause.here));
    ports
        && clause.protocol.is_none_or(|protocol| protocol == packet::UDP)
        && clause.ethertype.is_none_or(is_ip)
        && is_one_layer(&[clause])
}

/// Whether an ICMP error itself may be what a clause covers.
fn may_be_error(clause: &Clause) -> bool {
    let icmp = |protocol| matches!(protocol, packet::ICMP | packet::ICMPV6);
    clause.protocol.is_none_or(icmp)
        && clause.here.ports.is_none()
        && clause.there.ports.is_none()
        && clause.ethertype.is_none_or(is_ip)
        && is_one_layer(&[clause])
}

/// Whether all of these may cover one layer.
fn is_one_layer(clauses: &[&Clause]) -> bool {
    let Ok(ethertype) = same(clauses.iter().filter_map(|clause| clause.ethertype)) else { return false };
    let Ok(protocol) = same(clauses.iter().filter_map(|clause| clause.protocol)) else { return false };
    let ends = || clauses.iter().flat_map(|clause| [&clause.here, &clause.there]);
    let Ok(is_v4) = same(ends().filter_map(|end| end.prefix).map(|(address, _)| address.is_ipv4())) else {
        return false;
    };
    let ports = ends().any(|end| end.ports.is_some());
    let family = match (ethertype, is_v4) {
        (Some(packet::ETHERTYPE_IPV6), Some(is_v4)) => !is_v4,
        (Some(packet::ETHERTYPE_IPV4 | packet::ETHERTYPE_ARP), Some(is_v4)) => is_v4,
        (Some(_), Some(_)) => false,
        (_, None) | (None, _) => true,
    };
    let is_bare = ethertype.is_some_and(|ethertype| !is_ip(ethertype)) && (protocol.is_some() || ports);
    let has_none = protocol.is_some_and(|protocol| !matches!(protocol, packet::TCP | packet::UDP | packet::SCTP));
    family && !is_bare && !(ports && has_none) && fit(clauses, (End::default(), End::default()))
}

/// There are different values.
struct Different;

/// The one value there is; none where there is none.
fn same<T: PartialEq + Copy>(mut values: impl Iterator<Item = T>) -> Result<Option<T>, Different> {
    let first = values.next();
    if values.all(|value| Some(value) == first) { Ok(first) } else { Err(Different) }
}

/// Whether there are a source and a destination that all of these cover, one way or the other.
fn fit(clauses: &[&Clause], (source, destination): (End, End)) -> bool {
    let Some((first, rest)) = clauses.split_first() else { return true };
    if clauses.len() > MOST {
        return true;
    }
    let both = |from: &End, to: &End| Some((both(&source, from)?, both(&destination, to)?));
    let straight = both(&first.here, &first.there);
    let crossed = both(&first.there, &first.here).filter(|_| !first.one_way);
    straight.into_iter().chain(crossed).any(|ends| fit(rest, ends))
}

/// What is within two ends; none where nothing is.
fn both(one: &End, other: &End) -> Option<End> {
    let prefix = match (one.prefix, other.prefix) {
        (Some(one), Some(other)) if contains(one, other) => Some(other),
        (Some(one), Some(other)) if contains(other, one) => Some(one),
        (Some(_), Some(_)) => return None,
        (one, other) => one.or(other),
    };
    let ports = match (one.ports, other.ports) {
        (Some(one), Some(other)) => {
            let (first, last) = (one.0.max(other.0), one.1.min(other.1));
            if first > last {
                return None;
            }
            Some((first, last))
        }
        (one, other) => one.or(other),
    };
    Some(End { prefix, ports })
}
