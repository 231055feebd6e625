//! Everything that is neither IPv4 nor IPv6: ARP, RARP, and what the operator permits. Flow: policy.

use std::net::{IpAddr, Ipv4Addr};

use netdiag_common::abi::reason::Reason;

use super::{
    super::types::{Attached, Direction},
    Context,
    packet::{ARP, Ethernet, IPV4, IPV6, RARP, mac_at},
    spoof,
};

/// What precedes the addresses of an ARP packet for IPv4 on Ethernet: hardware, protocol, and the lengths of both.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Ethertypes below are lengths (IEEE 802.3).
const FIRST_ETHERTYPE: u16 = 0x0600;

/// The verdict, or none for an IP packet.
pub(super) fn judge(context: &Context<'_>, direction: Direction, ethernet: &Ethernet<'_>) -> Option<Reason> {
    let sends = direction == Direction::Egress;
    match ethernet.ethertype {
        IPV4 | IPV6 => None,
        ARP if sends => Some(judge_arp(context.port, ethernet)),
        RARP if sends && !spoof::has_mac(context.port, ethernet.source) => Some(Reason::MacSpoof),
        ARP | RARP => Some(Reason::System),
        other if other < FIRST_ETHERTYPE || !context.policy.permitted_ethertypes.contains(&other) => {
            Some(Reason::Ethertype)
        }
        _ if sends && !spoof::has_mac(context.port, ethernet.source) => Some(Reason::MacSpoof),
        _ => Some(Reason::PermittedEthertype),
    }
}

/// An ARP packet from the instance: request or answer, the sender it names must be the sender.
fn judge_arp(port: &Attached, ethernet: &Ethernet<'_>) -> Reason {
    let arp = ethernet.payload;
    if arp.len() < 28 {
        return Reason::Truncated;
    }
    if arp[..6] != ARP_ETHERNET_IPV4 {
        return Reason::Malformed;
    }
    let sender = mac_at(arp, 8);
    let address = IpAddr::V4(Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]));
    if sender == ethernet.source && spoof::is_pair(port, sender, address) { Reason::System } else { Reason::ArpSpoof }
}
