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
