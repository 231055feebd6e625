//! Filters in words, in the language they are read in.

use std::net::IpAddr;

use crate::{
    live::{Clause, End, Filter, packet},
    policy::convert::protocol_name,
};

/// A filter in the language of pcap: one alternative a line.
pub fn words(filter: &Filter) -> Vec<String> {
    if filter.products.is_empty() {
        return vec!["every packet".to_owned()];
    }
    let product = |product: &crate::live::Product| {
        let literals = filter.clauses.iter().enumerate().filter_map(|(place, one)| {
            match (product.covered >> place & 1, product.uncovered >> place & 1) {
                (1, _) => Some(clause(one)),
                (_, 1) => Some(format!("not ({})", clause(one))),
                _ => None,
            }
        });
        literals.collect::<Vec<_>>().join(" and ")
    };
    filter.products.iter().map(product).collect()
}

fn clause(clause: &Clause) -> String {
    let mut words = Vec::new();
    words.extend(clause.ethertype.map(ethertype));
    words.extend(clause.protocol.map(protocol));
    let (one, other) = if clause.one_way { ("src ", "dst ") } else { ("", "") };
    words.extend(end(&clause.here, one));
    words.extend(end(&clause.there, other));
    if words.is_empty() { "any".to_owned() } else { words.join(" and ") }
}

fn ethertype(number: u16) -> String {
    match number {
        packet::ETHERTYPE_IPV4 => "ip".to_owned(),
        packet::ETHERTYPE_IPV6 => "ip6".to_owned(),
        packet::ETHERTYPE_ARP => "arp".to_owned(),
        other => format!("ether proto {other:#06x}"),
    }
}

fn protocol(number: u8) -> String {
    match number {
        packet::TCP | packet::UDP | packet::ICMP | packet::SCTP => protocol_name(number),
        packet::ICMPV6 => "icmp6".to_owned(),
        other => format!("proto {other}"),
    }
}

fn end(end: &End, side: &str) -> Vec<String> {
    let whole = |(address, length): &(IpAddr, u8)| *length == if address.is_ipv4() { 32 } else { 128 };
    let prefix = end.prefix.map(|prefix| match prefix {
        (address, _) if whole(&prefix) => format!("{side}host {address}"),
        (address, length) => format!("{side}net {address}/{length}"),
    });
    let ports = end.ports.map(|(first, last)| {
        if first == last { format!("{side}port {first}") } else { format!("{side}portrange {first}-{last}") }
    });
    prefix.into_iter().chain(ports).collect()
}
