//! Words for what packets carry: protocols, endpoints, services.

use std::net::IpAddr;

use netdiag_model::{
    fact::enforcement::{FlowFact, has_ports},
    groups::{RemoteRef, RuleRef},
    policy::{
        convert::protocol_name,
        show::service_words,
        types::{Direction, Ethertype},
    },
};

/// ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];

/// A protocol by its name, or by its number.
pub(crate) fn protocol(number: u8) -> String {
    match number {
        // As people and tools say it; Neutron's own name of it is longer.
        58 => "icmpv6".to_owned(),
        _ => protocol_name(number),
    }
}

/// An address with a port.
pub(crate) fn endpoint(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// Both ends of a flow: the instance's and the other.
pub(crate) fn flow_ends(flow: &FlowFact) -> (String, String) {
    if has_ports(flow.protocol) {
        return (endpoint(flow.local, flow.local_port), endpoint(flow.remote, flow.remote_port));
    }
    if ICMP.contains(&flow.protocol) {
        return (
            format!("{} id {}", flow.local, flow.local_port),
            format!("{} type {}", flow.remote, flow.remote_port),
        );
    }
    (flow.local.to_string(), flow.remote.to_string())
}

/// Whether a protocol has a type and a code.
pub(crate) fn is_icmp(protocol: u8) -> bool {
    ICMP.contains(&protocol)
}

/// Who may be at the other end.
pub(crate) fn remote(remote: &RemoteRef) -> String {
    let counted = |number: usize, one: &str, more: &str| match number {
        1 => format!("1 {one}"),
        number => format!("{number} {more}"),
    };
    match remote {
        RemoteRef::Any => "anybody".to_owned(),
        RemoteRef::Prefix(net) => net.to_string(),
        RemoteRef::Group(group, members) => {
            format!("group {} ({})", group.called(), counted(*members, "member", "members"))
        }
        RemoteRef::AddressGroup(group, prefixes) => {
            format!("address group {} ({})", group.called(), counted(*prefixes, "prefix", "prefixes"))
        }
    }
}

/// The family of a rule.
pub(crate) const fn family(ethertype: Ethertype) -> &'static str {
    match ethertype {
        Ethertype::IPv4 => "IPv4",
        Ethertype::IPv6 => "IPv6",
    }
}

/// Which way, in a column.
pub(crate) const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    }
}

/// A rule in one sentence without an end: `ingress IPv4 tcp 443 from anybody`.
pub(crate) fn rule(rule: &RuleRef) -> String {
    let towards = if rule.direction == Direction::Ingress { "from" } else { "to" };
    let (family, service) = (family(rule.ethertype), service_words(rule.service));
    format!("{} {family} {service} {towards} {}", rule.direction.name(), remote(&rule.remote))
}

/// What a packet asks for: `tcp 443`, `icmp type 8 code 0`, `gre`.
pub(crate) fn asked(number: u8, service: Option<u16>) -> String {
    match service {
        Some(service) if is_icmp(number) => {
            let [kind, code] = service.to_be_bytes();
            format!("{} type {kind} code {code}", protocol(number))
        }
        Some(port) if has_ports(number) => format!("{} {port}", protocol(number)),
        Some(_) | None => protocol(number),
    }
}
