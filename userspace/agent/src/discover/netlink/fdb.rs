//! Forwarding databases of bridges and VXLAN devices, and the VLANs of bridge ports: what `bridge fdb` and
//! `bridge vlan` show. Flow: discover.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netdiag_model::{
    fact::{BridgeVlanFact, FdbFact},
    id::{IfIndex, Mac},
};
use netlink_packet_core::{Emitable as _, ParseableParametrized as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkHeader, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage},
};

use super::connection::Answer;

/// `NUD_NOARP | NUD_PERMANENT` of `linux/neighbour.h`: a static entry, or an address of the device itself.
const NUD_STATIC: u16 = 0x40 | 0x80;

/// Asks for all entries.
pub(super) fn request() -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    RouteNetlinkMessage::GetNeighbour(message)
}

/// One entry of the database of a bridge, or of a link that `is_vxlan`. The address filters every other device lists in
/// the same dump forward nothing.
pub(super) fn entry(answer: &Answer, is_vxlan: impl Fn(IfIndex) -> bool) -> Option<FdbFact> {
    let header = NeighbourHeader::parse(&answer.0).ok()?;
    let ifindex = IfIndex(header.ifindex);
    let permanent = u16::from(header.state) & NUD_STATIC != 0;
    let mut mac = None;
    let (mut master, mut vlan, mut remote) = (None, None, None);
    for nla in answer.attributes(header.buffer_len()) {
        match NeighbourAttribute::parse_with_param(&nla, header.family) {
            Ok(NeighbourAttribute::LinkLayerAddress(octets)) => mac = octets.try_into().ok().map(Mac),
            Ok(NeighbourAttribute::Controller(index)) => master = Some(IfIndex(index)),
            Ok(NeighbourAttribute::Vlan(id)) => vlan = Some(id),
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Other(octets))) => remote = address(&octets),
            _ => {}
        }
    }
    let fact = FdbFact { ifindex, mac: mac?, master, vlan, remote, permanent };
    (master.is_some() || is_vxlan(ifindex)).then_some(fact)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).into())).ok()
}

/// Asks for the VLANs of all bridge ports, as ranges: a trunk of all VLANs would not fit in a message one by one.
pub(super) fn vlan_request() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed])];
    RouteNetlinkMessage::GetLink(message)
}

/// The VLANs of one bridge port.
pub(super) fn vlans(answer: &Answer) -> Vec<BridgeVlanFact> {
    let Ok(header) = LinkHeader::parse(&answer.0) else { return Vec::new() };
    let mut vlans = Vec::new();
    for nla in answer.attributes(header.buffer_len()).filter(|nla| nla.kind() == libc::IFLA_AF_SPEC) {
        if let Ok(LinkAttribute::AfSpecBridge(specs)) = LinkAttribute::parse_with_param(&nla, header.interface_family) {
            let infos = specs.iter().filter_map(|spec| match spec {
                AfSpecBridge::VlanInfo(info) => Some(*info),
                _ => None,
            });
            vlans.extend(spread(infos).map(|info| BridgeVlanFact {
                ifindex: IfIndex(header.index),
                vlan: info.vid,
                pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
            }));
        }
    }
    vlans
}

/// Every VLAN of a list in which a range is given by its first and its last.
fn spread(infos: impl Iterator<Item = BridgeVlanInfo>) -> impl Iterator<Item = BridgeVlanInfo> {
    let mut first = None;
    infos.flat_map(move |info| {
        if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            first = Some(info.vid);
            return Vec::new();
        }
        let first = first.take().unwrap_or(info.vid);
        (first..=info.vid).map(|vid| BridgeVlanInfo { vid, ..info }).collect()
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::neighbour::NeighbourState;

    use super::*;

    fn message(state: NeighbourState, attributes: Vec<NeighbourAttribute>) -> Answer {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes = attributes;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![0xfa, 0x16, 0x3e, 0, 0, 2]));
        Answer::with(&message)
    }

    #[test]
    fn a_learned_entry_of_a_bridge_names_its_bridge_and_vlan() {
        let answer =
            message(NeighbourState::Reachable, vec![NeighbourAttribute::Controller(3), NeighbourAttribute::Vlan(42)]);
        let expected = FdbFact {
            ifindex: IfIndex(7),
            mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 2]),
            master: Some(IfIndex(3)),
            vlan: Some(42),
            remote: None,
            permanent: false,
        };
        assert_eq!(entry(&answer, |_| false), Some(expected));
    }

    #[test]
    fn an_address_filter_of_a_device_is_no_entry_but_that_of_a_vxlan_device_is() {
        let remote = NeighbourAddress::Other(vec![192, 0, 2, 9]);
        let answer = message(NeighbourState::Permanent, vec![NeighbourAttribute::Destination(remote)]);
        assert_eq!(entry(&answer, |_| false), None);
        let fact = entry(&answer, |ifindex| ifindex == IfIndex(7)).unwrap();
        assert_eq!((fact.remote, fact.permanent), (Some("192.0.2.9".parse().unwrap()), true));
    }

    #[test]
    fn static_entries_are_permanent_in_any_combination_of_states() {
        for (state, permanent) in [(0x40, true), (0xc0, true), (0x80, true), (0x02, false), (0x04, false)] {
            let answer = message(NeighbourState::from(state), vec![NeighbourAttribute::Controller(3)]);
            assert_eq!(entry(&answer, |_| false).unwrap().permanent, permanent, "{state:#x}");
        }
    }

    #[test]
    fn a_range_of_vlans_is_each_of_them() {
        let info = |vid, flags| AfSpecBridge::VlanInfo(BridgeVlanInfo { vid, flags });
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.header.index = 7;
        message.attributes = vec![LinkAttribute::AfSpecBridge(vec![
            info(1, BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged),
            info(10, BridgeVlanInfoFlags::RangeBegin),
            info(12, BridgeVlanInfoFlags::RangeEnd),
        ])];
        let read: Vec<_> = vlans(&Answer::with(&message))
            .iter()
            .map(|vlan| (vlan.ifindex.0, vlan.vlan, vlan.pvid, vlan.untagged))
            .collect();
        assert_eq!(read, [(7, 1, true, true), (7, 10, false, false), (7, 11, false, false), (7, 12, false, false)]);
    }
}
