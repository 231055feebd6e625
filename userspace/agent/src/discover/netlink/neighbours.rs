//! Neighbours (`RTM_GETNEIGH`): what `ip neighbour` shows. Flow: discover.

use std::net::IpAddr;

use netdiag_model::{
    fact::NeighbourFact,
    id::{IfIndex, Mac},
};
use netlink_packet_core::{Emitable as _, ParseableParametrized as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
    },
};

use super::connection::Answer;

/// Asks for all neighbours of both families.
pub(super) fn request() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default())
}

/// Asks for the proxy entries, which are a table of their own.
pub(super) fn proxy_request() -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.flags = NeighbourFlags::Proxy;
    RouteNetlinkMessage::GetNeighbour(message)
}

/// One neighbour. Like `ip neighbour`, it leaves out the `NOARP` entries the kernel makes for multicast and broadcast:
/// they are computed, nobody answered for them.
pub(super) fn neighbour(answer: &Answer) -> Option<NeighbourFact> {
    let header = NeighbourHeader::parse(&answer.0).ok()?;
    let (mut address, mut mac) = (None, None);
    for nla in answer.attributes(header.buffer_len()) {
        match NeighbourAttribute::parse_with_param(&nla, header.family) {
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet(destination))) => {
                address = Some(IpAddr::V4(destination));
            }
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet6(destination))) => {
                address = Some(IpAddr::V6(destination));
            }
            Ok(NeighbourAttribute::LinkLayerAddress(octets)) => mac = octets.try_into().ok().map(Mac),
            _ => {}
        }
    }
    let fact = NeighbourFact {
        ifindex: IfIndex(header.ifindex),
        address: address?,
        mac,
        state: header.state.to_string().to_uppercase(),
        proxy: header.flags.contains(NeighbourFlags::Proxy),
    };
    (header.state != NeighbourState::Noarp).then_some(fact)
}
