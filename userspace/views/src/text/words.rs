//! Words for what packets carry: protocols, endpoints, services.

use std::net::IpAddr;

use netdiag_model::{
    fact::enforcement::{FlowFact, has_ports},
    policy::convert::protocol_name,
};

/// ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];

/// A protocol by its name, or by its number.
pub(super) fn protocol(number: u8) -> String {
    match number {
        // As people and tools say it; Neutron's own name of it is longer.
        58 => "icmpv6".to_owned(),
        _ => protocol_name(number),
    }
}

/// An address with a port.
pub(super) fn endpoint(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// Both ends of a flow: the instance's and the other.
pub(super) fn flow_ends(flow: &FlowFact) -> (String, String) {
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
pub(super) fn is_icmp(protocol: u8) -> bool {
    ICMP.contains(&protocol)
}
