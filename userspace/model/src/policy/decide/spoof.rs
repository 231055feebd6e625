//! Who the sender says it is: the pairs of MAC and IP address a port may send with. Flow: policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netdiag_common::{abi::reason::Reason, logic::flow::protocol::UDP};

use super::{super::types::Attached, Case, packet::Part};
use crate::id::Mac;

const LISTENER_REPORT: u8 = 131;
const SOLICITATION: u8 = 135;
const LISTENER_REPORT_2: u8 = 143;

/// The verdict on a packet from the instance whose sender settles it, or none.
pub(super) fn judge(case: &Case<'_>) -> Option<Reason> {
    let (port, mac) = (case.context.port, case.ethernet.source);
    if is_dhcp_discovery(case) {
        return Some(Reason::System);
    }
    if case.packet.source == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        return Some(judge_unspecified(case));
    }
    if !has_mac(port, mac) {
        return Some(Reason::MacSpoof);
    }
    (!is_pair(port, mac, case.packet.source)).then_some(Reason::IpSpoof)
}

/// An instance that has no address as yet asks for one.
fn is_dhcp_discovery(case: &Case<'_>) -> bool {
    let packet = &case.packet;
    packet.source == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        && case.ethernet.source == case.context.port.mac
        && packet.part == Part::Whole
        && packet.protocol == UDP
        && packet.ports() == Some((68, 67))
}

/// An instance that has no IPv6 address as yet makes sure that nobody else has it, and reports its groups.
fn judge_unspecified(case: &Case<'_>) -> Reason {
    let (port, mac) = (case.context.port, case.ethernet.source);
    let whole = case.packet.part == Part::Whole;
    let Some(icmp) = case.packet.icmp().filter(|_| whole) else { return Reason::IpSpoof };
    match icmp.kind() {
        SOLICITATION => match icmp.target() {
            None => Reason::Truncated,
            Some(target) if is_pair(port, mac, target) => Reason::System,
            Some(_) => Reason::NdSpoof,
        },
        LISTENER_REPORT | LISTENER_REPORT_2 if is_link_multicast(case.packet.destination) => {
            if has_mac(port, mac) {
                Reason::System
            } else {
                Reason::MacSpoof
            }
        }
        _ => Reason::IpSpoof,
    }
}

/// `ff02::/16`.
fn is_link_multicast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] == 0xff02)
}

/// True for a MAC address the port may send with.
pub(super) fn has_mac(port: &Attached, mac: Mac) -> bool {
    mac == port.mac || port.pairs.iter().any(|(pair, _)| *pair == mac)
}

/// True for a pair the port may send with: its own addresses, an allowed address pair, or a MAC address of it with the
/// link-local address that follows from it. An IPv6 address that maps an IPv4 one has no business on a wire, whatever the
/// pairs say.
pub(super) fn is_pair(port: &Attached, mac: Mac, address: IpAddr) -> bool {
    if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return false;
    }
    let fixed = mac == port.mac && port.fixed_ips.contains(&address);
    let allowed = port.pairs.iter().any(|(pair, network)| *pair == mac && network.contains(&address));
    fixed || allowed || (has_mac(port, mac) && address == link_local(mac))
}

/// The link-local address of a MAC address (RFC 4291, appendix A).
pub(super) fn link_local(mac: Mac) -> IpAddr {
    let octet = |place: usize| u16::from(mac.0[place]);
    let universal = octet(0) ^ 2;
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        universal << 8 | octet(1),
        octet(2) << 8 | 0xff,
        0xfe00 | octet(3),
        octet(4) << 8 | octet(5),
    )
    .into()
}
