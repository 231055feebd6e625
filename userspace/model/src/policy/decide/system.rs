//! What every port needs whatever its rules say, and what no instance may do whatever they say. Flow: policy.

use std::net::{IpAddr, Ipv4Addr};

use netdiag_common::{abi::reason::Reason, logic::flow::protocol::UDP};

use super::{super::types::Direction, Case, spoof};

const LISTENER_QUERY: u8 = 130;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// The verdict, or none where rules decide.
pub(super) fn judge(case: &Case<'_>) -> Option<Reason> {
    match case.direction {
        Direction::Egress => dhcp_from_instance(case).or_else(|| neighbours_from_instance(case)),
        Direction::Ingress => (dhcp_to_instance(case) || neighbours_to_instance(case)).then_some(Reason::System),
    }
}

/// Source and destination port of a UDP packet.
fn udp(case: &Case<'_>) -> Option<(u16, u16)> {
    case.packet.ports().filter(|_| case.packet.protocol == UDP)
}

fn dhcp_from_instance(case: &Case<'_>) -> Option<Reason> {
    match (udp(case)?, case.packet.is_ipv6()) {
        ((68, 67), false) | ((546, 547), true) => Some(Reason::System),
        ((67, 68), false) | ((547, 546), true) => Some(Reason::DhcpServer),
        _ => None,
    }
}

fn dhcp_to_instance(case: &Case<'_>) -> bool {
    let (port, destination) = (case.context.port, case.packet.destination);
    let own = port.fixed_ips.contains(&destination) || spoof::is_pair(port, port.mac, destination);
    match (udp(case), destination) {
        (Some((67, 68)), IpAddr::V4(address)) => own || address == Ipv4Addr::BROADCAST,
        (Some((547, 546)), IpAddr::V6(address)) => own || address.segments()[..4] == [0xfe80, 0, 0, 0],
        _ => false,
    }
}

fn neighbours_from_instance(case: &Case<'_>) -> Option<Reason> {
    let icmp = case.packet.icmp().filter(|_| case.packet.is_ipv6())?;
    match icmp.kind() {
        LISTENER_QUERY | ROUTER_SOLICITATION | SOLICITATION => Some(Reason::System),
        ROUTER_ADVERTISEMENT => Some(Reason::RouterAdvertisement),
        ADVERTISEMENT => Some(match icmp.target() {
            None => Reason::Truncated,
            Some(target) if spoof::is_pair(case.context.port, case.ethernet.source, target) => Reason::System,
            Some(_) => Reason::NdSpoof,
        }),
        _ => None,
    }
}

fn neighbours_to_instance(case: &Case<'_>) -> bool {
    let Some(icmp) = case.packet.icmp().filter(|_| case.packet.is_ipv6()) else { return false };
    match icmp.kind() {
        LISTENER_QUERY | SOLICITATION | ADVERTISEMENT => true,
        ROUTER_ADVERTISEMENT => case.context.port.fixed_ips.iter().any(IpAddr::is_ipv6),
        _ => false,
    }
}
