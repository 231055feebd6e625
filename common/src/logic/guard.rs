//! What no rule can allow, and what every port needs: spoofed senders, servers that instances must not be, and the traffic
//! without which no instance gets an address. Flow: policy.
//!
//! Where Neutron's two drivers differ, the stricter of both is done (`docs/DATAPATH-details.md`).

use super::{
    flow::protocol::{ICMPV6, UDP},
    frame::Frame,
    packet::{ETHERNET, Fragmentation, Packet, ethertype, mac, mapped},
    tables::PolicyTables,
};
use crate::abi::{
    policy::{MacKey, PORT_HAS_IPV6, PORT_MORE_PAIRS, PairKey, Port},
    reason::Reason,
};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;

/// ICMPv6 types (RFC 4443, 2710, 4861, 3810).
mod icmpv6 {
    pub(super) const LISTENER_QUERY: u8 = 130;
    pub(super) const LISTENER_REPORT: u8 = 131;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(super) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub(super) const LISTENER_REPORT_V2: u8 = 143;
}

/// A port, its place, and where to look up what does not fit into it.
pub struct Guard<'a, P> {
    /// The port.
    pub port: &'a Port,
    /// Its place.
    pub slot: u32,
    /// Its tables.
    pub policy: &'a P,
}

impl<P: PolicyTables> Guard<'_, P> {
    const fn has_more(&self) -> bool {
        self.port.flags & PORT_MORE_PAIRS != 0
    }

    /// True if a MAC address is one of the port's.
    #[inline(always)]
    fn owns_mac(&self, mac: [u8; 6]) -> bool {
        mac == self.port.mac || self.has_more() && self.policy.mac(&MacKey { slot: self.slot, mac, pad: [0; 2] })
    }

    /// True if the port may send from an address with a MAC address.
    #[inline(always)]
    fn owns_pair(&self, ipv6: bool, mac: [u8; 6], address: [u32; 4]) -> bool {
        // A mapped address in an IPv6 packet is no address of a port; here it would pass for the IPv4 address it maps.
        if ipv6 && is_mapped(address) {
            return false;
        }
        mac == self.port.mac && self.is_fixed(address)
            || self.has_more()
                && self.policy.pair(&PairKey {
                    slot: self.slot,
                    mac,
                    family: if ipv6 { 6 } else { 4 },
                    pad: 0,
                    address,
                })
    }

    /// True if an address is among those that stand in the port itself.
    #[inline(always)]
    fn is_fixed(&self, address: [u32; 4]) -> bool {
        if is_mapped(address) {
            let [_, _, _, d] = address;
            let [first, second, third, fourth] = self.port.ipv4;
            return d != 0 && (d == first || d == second || d == third || d == fourth);
        }
        let [first, second, third] = self.port.ipv6;
        address != [0; 4] && (address == first || address == second || address == third)
    }

    /// ARP and RARP from the instance.
    #[inline(always)]
    pub fn arp<F: Frame>(&self, frame: &F, packet: &Packet) -> Reason {
        if packet.ethertype == ethertype::RARP {
            return if self.owns_mac(packet.source_mac) { Reason::System } else { Reason::MacSpoof };
        }
        let Some(words) = frame.load16::<14>(ETHERNET) else { return Reason::Truncated };
        let [hardware, protocol, lengths, _, mac0, mac1, mac2, ip0, ip1, ..] = words;
        // Ethernet and IPv4, and the lengths that go with them (RFC 826).
        if (hardware, protocol, lengths) != (1_u16.to_be(), ethertype::IPV4.to_be(), 0x0604_u16.to_be()) {
            return Reason::Malformed;
        }
        let sender = mac([mac0, mac1, mac2]);
        let ([first, second], [third, fourth]) = (ip0.to_ne_bytes(), ip1.to_ne_bytes());
        let address = u32::from_ne_bytes([first, second, third, fourth]);
        let honest = sender == packet.source_mac && self.owns_pair(false, sender, mapped(address));
        if honest { Reason::System } else { Reason::ArpSpoof }
    }

    /// A frame from the instance that is neither IP nor ARP, of an ethertype that is permitted.
    #[inline(always)]
    pub fn permitted(&self, packet: &Packet) -> Reason {
        if self.owns_mac(packet.source_mac) { Reason::PermittedEthertype } else { Reason::MacSpoof }
    }

    /// Whether an IP packet from the instance may have the source it has. `Some` decides, for whichever side.
    #[inline(always)]
    pub fn source<F: Frame>(&self, frame: &F, packet: &mut Packet) -> Option<Reason> {
        if !packet.ipv6 && packet.source == mapped(0) && self.is_discovery(frame, packet) {
            return Some(Reason::System);
        }
        if packet.ipv6 && packet.source == [0; 4] {
            return Some(self.unspecified(frame, packet));
        }
        if !self.owns_mac(packet.source_mac) {
            return Some(Reason::MacSpoof);
        }
        (!self.owns_pair(packet.ipv6, packet.source_mac, packet.source)).then_some(Reason::IpSpoof)
    }

    /// A client that has no address yet asks for one.
    #[inline(always)]
    fn is_discovery<F: Frame>(&self, frame: &F, packet: &mut Packet) -> bool {
        packet.protocol == UDP
            && packet.fragmentation == Fragmentation::Whole
            && packet.source_mac == self.port.mac
            && packet.transport(frame).is_none()
            && (packet.source_port, packet.destination_port) == (DHCP_CLIENT, DHCP_SERVER)
    }

    /// What may come from `::`: detection of duplicate addresses, and reports of the groups it needs.
    #[inline(always)]
    fn unspecified<F: Frame>(&self, frame: &F, packet: &mut Packet) -> Reason {
        let is_icmpv6 = packet.protocol == ICMPV6 && packet.fragmentation == Fragmentation::Whole;
        if !is_icmpv6 || packet.transport(frame).is_some() {
            return Reason::IpSpoof;
        }
        let to_group = u32::from_be(packet.destination[0]) >> 16 == 0xff02;
        match packet.icmp_type() {
            icmpv6::NEIGHBOUR_SOLICITATION => self.target(frame, packet),
            icmpv6::LISTENER_REPORT | icmpv6::LISTENER_REPORT_V2 if to_group => {
                if self.owns_mac(packet.source_mac) {
                    Reason::System
                } else {
                    Reason::MacSpoof
                }
            }
            _ => Reason::IpSpoof,
        }
    }

    /// Whether the target of a neighbour solicitation or advertisement is an address of the sender.
    #[inline(always)]
    fn target<F: Frame>(&self, frame: &F, packet: &Packet) -> Reason {
        if packet.transport + 24 > packet.end {
            return Reason::Truncated;
        }
        match frame.load32::<4>(packet.transport + 8) {
            Some(target) if self.owns_pair(true, packet.source_mac, target) => Reason::System,
            Some(_) => Reason::NdSpoof,
            None => Reason::Truncated,
        }
    }

    /// System traffic from the instance, and what it must not serve. Source, ports and types are known.
    #[inline(always)]
    pub fn system_egress<F: Frame>(&self, frame: &F, packet: &Packet) -> Option<Reason> {
        if packet.protocol == UDP {
            return match (packet.ipv6, packet.source_port, packet.destination_port) {
                (false, DHCP_CLIENT, DHCP_SERVER) | (true, DHCPV6_CLIENT, DHCPV6_SERVER) => Some(Reason::System),
                (false, DHCP_SERVER, DHCP_CLIENT) | (true, DHCPV6_SERVER, DHCPV6_CLIENT) => Some(Reason::DhcpServer),
                _ => None,
            };
        }
        if !packet.ipv6 || packet.protocol != ICMPV6 {
            return None;
        }
        match packet.icmp_type() {
            icmpv6::LISTENER_QUERY | icmpv6::ROUTER_SOLICITATION | icmpv6::NEIGHBOUR_SOLICITATION => {
                Some(Reason::System)
            }
            icmpv6::NEIGHBOUR_ADVERTISEMENT => Some(self.target(frame, packet)),
            icmpv6::ROUTER_ADVERTISEMENT => Some(Reason::RouterAdvertisement),
            _ => None,
        }
    }

    /// System traffic to the instance.
    #[inline(always)]
    pub fn system_ingress(&self, packet: &Packet) -> Option<Reason> {
        let for_port = || self.owns_pair(packet.ipv6, self.port.mac, packet.destination);
        let passes = if packet.protocol == UDP {
            match (packet.ipv6, packet.source_port, packet.destination_port) {
                (false, DHCP_SERVER, DHCP_CLIENT) => packet.destination == mapped(u32::MAX) || for_port(),
                (true, DHCPV6_SERVER, DHCPV6_CLIENT) => is_link_local(packet.destination) || for_port(),
                _ => false,
            }
        } else if packet.ipv6 && packet.protocol == ICMPV6 {
            match packet.icmp_type() {
                icmpv6::LISTENER_QUERY | icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT => true,
                icmpv6::ROUTER_ADVERTISEMENT => self.port.flags & PORT_HAS_IPV6 != 0,
                _ => false,
            }
        } else {
            false
        };
        passes.then_some(Reason::System)
    }
}

/// True for an IPv4 address as IPv6 maps it.
#[inline(always)]
const fn is_mapped(address: [u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == 0xffff_u32.to_be()
}

/// True in `fe80::/64`.
const fn is_link_local(address: [u32; 4]) -> bool {
    address[0] == 0xfe80_0000_u32.to_be() && address[1] == 0
}
