//! Addresses (`RTM_GETADDR`): what `ip address` shows. Flow: discover.

use ipnet::IpNet;
use netdiag_model::{fact::AddressFact, id::IfIndex};
use netlink_packet_core::{Emitable as _, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressScope},
};

use super::connection::Answer;

/// Asks for all addresses of both families.
pub(super) fn request() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// One address, and the link that has it.
pub(super) fn address(answer: &Answer) -> Option<(IfIndex, AddressFact)> {
    let header = AddressHeader::parse(&answer.0).ok()?;
    let (mut local, mut peer) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(header.flags.bits()));
    for nla in answer.attributes(header.buffer_len()) {
        match AddressAttribute::parse(&nla) {
            Ok(AddressAttribute::Local(address)) => local = Some(address),
            Ok(AddressAttribute::Address(address)) => peer = Some(address),
            Ok(AddressAttribute::Flags(all)) => flags = all,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's; without IFA_LOCAL it is the link's own.
    let address = IpNet::new(local.or(peer)?, header.prefix_len).ok()?;
    let fact = AddressFact {
        address,
        scope: scope(header.scope),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
        tentative: flags.contains(AddressFlags::Tentative),
    };
    Some((IfIndex(header.index), fact))
}

/// The name iproute2 gives a scope.
fn scope(scope: AddressScope) -> String {
    match scope {
        AddressScope::Universe => "global".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

    use super::*;

    fn read(prefix_len: u8, attributes: Vec<AddressAttribute>) -> Option<AddressFact> {
        let mut message = AddressMessage::default();
        message.header.index = 7;
        message.header.prefix_len = prefix_len;
        message.header.scope = AddressScope::Universe;
        message.attributes = attributes;
        address(&Answer::with(&message)).map(|(ifindex, fact)| {
            assert_eq!(ifindex, IfIndex(7));
            fact
        })
    }

    #[test]
    fn the_address_of_a_point_to_point_link_is_its_own_end() {
        let fact = read(
            32,
            vec![
                AddressAttribute::Address("169.254.31.29".parse().unwrap()),
                AddressAttribute::Local("169.254.31.28".parse().unwrap()),
            ],
        );
        assert_eq!(fact.unwrap().address.to_string(), "169.254.31.28/32");
    }

    #[test]
    fn failed_duplicate_detection_is_told() {
        let address = AddressAttribute::Address("2001:db8::1".parse().unwrap());
        let flags =
            AddressAttribute::Flags(AddressFlags::Dadfailed | AddressFlags::Tentative | AddressFlags::StablePrivacy);
        let fact = read(64, vec![address, flags]).unwrap();
        assert!(fact.dad_failed && fact.tentative);
        assert_eq!((fact.scope.as_str(), fact.address.to_string()), ("global", "2001:db8::1/64".to_owned()));
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_no_address() {
        assert_eq!(read(33, vec![AddressAttribute::Address("192.0.2.1".parse().unwrap())]), None);
    }
}
