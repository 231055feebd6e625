//! Packets in words. Flow: observe.

use std::net::{IpAddr, SocketAddr};

use super::packet::{Content, Headers, ICMPV6, Icmp, Ip, Transport};
use crate::{policy::convert::protocol_name, trace::RuleRef};

/// The packet as an operator says it: `tcp 10.0.0.2:40000 > 203.0.113.7:443 SYN`.
pub fn packet(headers: &Headers) -> String {
    match &headers.content {
        Content::Ip(ip) => format!("{} {} > {}{}", protocol(ip), source(ip), destination(ip), detail(ip)),
        Content::Arp(arp) if arp.operation == 1 => format!("arp {} asks for {}", arp.sender, arp.target),
        Content::Arp(arp) => format!("arp {} is at {}, says it to {}", arp.sender, arp.sender_mac, arp.target),
        Content::Other { ethertype: 0 } => "a frame that is too short to read".to_owned(),
        Content::Other { ethertype } => format!("ethertype {ethertype:#06x}"),
    }
}

/// A rule of the packet filter by its place: `rule 3 of filter FORWARD`.
pub(super) fn rule(rule: &RuleRef) -> String {
    if rule.number == 0 {
        format!("the policy of {} {}", rule.table, rule.chain)
    } else {
        format!("rule {} of {} {}", rule.number, rule.table, rule.chain)
    }
}

/// So many packets.
pub(super) fn packets(number: u64) -> String {
    if number == 1 { "1 packet".to_owned() } else { format!("{number} packets") }
}

/// Name of what an IP packet carries.
pub fn protocol(ip: &Ip) -> String {
    if ip.protocol == ICMPV6 { "icmpv6".to_owned() } else { protocol_name(ip.protocol) }
}

/// Where an IP packet comes from.
pub fn source(ip: &Ip) -> String {
    end(ip.source, ip.transport.ports().map(|ports| ports.0))
}

/// Where an IP packet goes.
pub fn destination(ip: &Ip) -> String {
    end(ip.destination, ip.transport.ports().map(|ports| ports.1))
}

/// An address, with its port where there is one.
pub(super) fn end(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

/// What tells this packet from others between the same ends.
fn detail(ip: &Ip) -> String {
    match &ip.transport {
        Transport::Tcp { flags, length, .. } => {
            let flags = tcp_flags(*flags);
            if *length > 0 { format!(" {flags}, {length} bytes") } else { format!(" {flags}") }
        }
        Transport::Udp { length, .. } => format!(" {length} bytes"),
        Transport::Icmp(icmp) => format!(" {}", icmp_words(icmp, ip.protocol == ICMPV6)),
        Transport::Tunnel { vni, inner, .. } => format!(" vni {vni} ({})", packet(inner)),
        Transport::Sctp { .. } | Transport::Ports { .. } | Transport::None => String::new(),
    }
}

fn tcp_flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    let set = names.iter().enumerate().filter(|(bit, name)| flags >> bit & 1 == 1 && **name != "PSH");
    let set: Vec<&str> = set.map(|(_, name)| *name).collect();
    if set.is_empty() { "without flags".to_owned() } else { set.join(" ") }
}

fn icmp_words(icmp: &Icmp, v6: bool) -> String {
    let what = match (v6, icmp.kind, icmp.code) {
        (false, 8, _) | (true, 128, _) => "echo request",
        (false, 0, _) | (true, 129, _) => "echo reply",
        (false, 3, 0) | (true, 1, 0) => "network unreachable",
        (false, 3, 1) | (true, 1, 3) => "host unreachable",
        (false, 3, 3) | (true, 1, 4) => "port unreachable",
        (false, 3, 4) => "fragmentation needed",
        (true, 2, _) => "packet too big",
        (false, 3, 9 | 10 | 13) | (true, 1, 1) => "administratively prohibited",
        (false, 11, _) | (true, 3, _) => "time exceeded",
        (true, 133, _) => "router solicitation",
        (true, 134, _) => "router advertisement",
        (true, 135, _) => "neighbour solicitation",
        (true, 136, _) => "neighbour advertisement",
        (_, kind, code) => return format!("type {kind} code {code}"),
    };
    match (&icmp.echo, &icmp.quoted) {
        (Some((_, number)), _) => format!("{what} {number}"),
        (None, Some(quoted)) => format!("{what}, about {} > {}", source(quoted), destination(quoted)),
        (None, None) => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::packet;
    use crate::live::{
        journey::simulation::{Kind, Made},
        packet::Headers,
        points::Side,
    };

    fn said(made: &Made) -> String {
        packet(&Headers::of(&made.at(0, 0, Side::Sent)))
    }

    #[test]
    fn packets_are_said_as_people_say_them() {
        assert_eq!(said(&Made::syn(1)), "tcp 10.0.0.2:40000 > 203.0.113.7:443 SYN");
        assert_eq!(said(&Made::new(Kind::Udp(vec![0; 30]))), "udp 10.0.0.2:40000 > 203.0.113.7:443 30 bytes");
        let echo = Kind::Echo { kind: 8, identifier: 9, number: 3, payload: vec![] };
        assert_eq!(said(&Made::new(echo)), "icmp 10.0.0.2 > 203.0.113.7 echo request 3");
        let data = Kind::Tcp { sequence: 1, flags: 0x18, payload: vec![1; 5] };
        assert_eq!(said(&Made::new(data)), "tcp 10.0.0.2:40000 > 203.0.113.7:443 ACK, 5 bytes");
    }
}
