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

use super::{connection::Answer, links::USER_HZ};

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
    let (mut address, mut mac, mut age) = (None, None, None);
    for nla in answer.attributes(header.buffer_len()) {
        match NeighbourAttribute::parse_with_param(&nla, header.family) {
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet(destination))) => {
                address = Some(IpAddr::V4(destination));
            }
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet6(destination))) => {
                address = Some(IpAddr::V6(destination));
            }
            Ok(NeighbourAttribute::LinkLayerAddress(octets)) => mac = octets.try_into().ok().map(Mac),
            // `updated` is the time of the last change of state, and nothing else in an entry that nobody answers for.
            Ok(NeighbourAttribute::CacheInfo(info)) => age = Some(u64::from(info.updated / USER_HZ)),
            _ => {}
        }
    }
    let fact = NeighbourFact {
        ifindex: IfIndex(header.ifindex),
        address: address?,
        mac,
        state: header.state.to_string().to_uppercase(),
        age,
        proxy: header.flags.contains(NeighbourFlags::Proxy),
    };
    (header.state != NeighbourState::Noarp).then_some(fact)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{AddressFamily, neighbour::NeighbourCacheInfo};

    use super::*;

    fn read(state: NeighbourState, flags: NeighbourFlags) -> Option<NeighbourFact> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 7;
        message.header.state = state;
        message.header.flags = flags;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet("10.0.0.2".parse().unwrap())),
            NeighbourAttribute::LinkLayerAddress(vec![0xfa, 0x16, 0x3e, 0, 0, 2]),
        ];
        neighbour(&Answer::with(&message))
    }

    #[test]
    fn states_are_named_as_ip_names_them() {
        let expected = NeighbourFact {
            ifindex: IfIndex(7),
            address: "10.0.0.2".parse().unwrap(),
            mac: Some(Mac([0xfa, 0x16, 0x3e, 0, 0, 2])),
            state: "REACHABLE".to_owned(),
            age: None,
            proxy: false,
        };
        assert_eq!(read(NeighbourState::Reachable, NeighbourFlags::empty()), Some(expected));
    }

    #[test]
    fn an_entry_says_since_when_it_is_in_its_state() {
        let mut info = [0_u32; 4];
        // Confirmed and used at other times; updated 90.5 seconds ago.
        (info[0], info[1], info[2]) = (20_000, 7, 9_050);
        let info = info.map(u32::to_ne_bytes).concat();
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.state = NeighbourState::Failed;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet("10.0.0.2".parse().unwrap())),
            NeighbourAttribute::CacheInfo(NeighbourCacheInfo::parse(&info).unwrap()),
        ];
        assert_eq!(neighbour(&Answer::with(&message)).unwrap().age, Some(90));
    }

    #[test]
    fn entries_the_kernel_computes_are_left_out() {
        assert_eq!(read(NeighbourState::Noarp, NeighbourFlags::empty()), None);
    }

    #[test]
    fn a_proxy_entry_is_told_apart() {
        assert!(read(NeighbourState::None, NeighbourFlags::Proxy).unwrap().proxy);
    }
}
