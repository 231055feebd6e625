//! Bridge ports that give frames back to whom they are from: `hairpin` of `bridge link set`. Flow: policy.

use std::io;

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage},
};

use super::address::device;
use crate::{discover::netlink::link, enforce::netlink::exchange};

/// Whether a bridge port gives frames back; false where there is none of this name.
pub(super) fn is_on(name: &str) -> io::Result<bool> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match exchange(RouteNetlinkMessage::GetLink(message), 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        answers => {
            let link = answers?.first().and_then(link);
            Ok(link.and_then(|link| link.bridge_port).is_some_and(|port| port.hairpin))
        }
    }
}

/// Has a bridge port give frames back, or not. One that is gone, or at no bridge any more, gives none back.
pub(super) fn set(name: &str, on: bool) -> io::Result<()> {
    let ifindex = match device(name) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        device => device?.ifindex,
    };
    if is_on(name)? == on {
        return Ok(());
    }
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(on)])),
    ]));
    exchange(RouteNetlinkMessage::NewLink(message), NLM_F_ACK).map(drop)
}
