//! The address of a floating IP on the external device: with it the kernel answers ARP for it. Flow: policy.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkMessage},
};

use crate::enforce::netlink::exchange;

/// Bytes of `struct ifaddrmsg` and of `struct ifinfomsg`.
const ADDRESS_HEADER: usize = 8;
const LINK_HEADER: usize = 16;
/// `IFA_ADDRESS`, `IFA_LOCAL` and `IFLA_IFNAME`, `IFLA_ADDRESS`.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;

/// A device of the calling thread's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Its index.
    pub(super) ifindex: u32,
    /// Its MAC address.
    pub(super) mac: [u8; 6],
}

/// Finds a device by name.
pub(super) fn device(name: &str) -> io::Result<Device> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let answers = exchange(RouteNetlinkMessage::GetLink(message), 0)?;
    let answer = answers.first().ok_or(io::ErrorKind::NotFound)?;
    let ifindex = answer.0.get(4..8).and_then(|octets| octets.try_into().ok()).map(u32::from_ne_bytes);
    let mac = attribute(&answer.0, LINK_HEADER, IFLA_ADDRESS).and_then(|octets| octets.try_into().ok());
    match (ifindex, mac) {
        (Some(ifindex), Some(mac)) => Ok(Device { ifindex, mac }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a device without a MAC address")),
    }
}

fn attribute(message: &[u8], header: usize, kind: u16) -> Option<Vec<u8>> {
    let attributes = NlasIterator::new(message.get(header..)?).map_while(Result::ok);
    attributes.filter(|nla| nla.kind() == kind).map(|nla| nla.value().to_vec()).next()
}

/// Who of this namespace has which IPv4 address.
pub(super) fn holders() -> io::Result<BTreeMap<Ipv4Addr, String>> {
    let mut names = BTreeMap::new();
    for answer in exchange(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)? {
        let ifindex = answer.0.get(4..8).and_then(|octets| octets.try_into().ok()).map(u32::from_ne_bytes);
        let name = attribute(&answer.0, LINK_HEADER, IFLA_IFNAME);
        if let Some((ifindex, name)) = ifindex.zip(name) {
            names.insert(ifindex, String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
        }
    }
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    let mut holders = BTreeMap::new();
    for answer in exchange(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)? {
        let ifindex = answer.0.get(4..8).and_then(|octets| octets.try_into().ok()).map(u32::from_ne_bytes);
        let own = attribute(&answer.0, ADDRESS_HEADER, IFA_LOCAL);
        let own = own.or_else(|| attribute(&answer.0, ADDRESS_HEADER, IFA_ADDRESS));
        let own: Option<[u8; 4]> = own.and_then(|octets| octets.try_into().ok());
        if let Some((ifindex, own)) = ifindex.zip(own) {
            let name = names.get(&ifindex).cloned().unwrap_or_else(|| format!("device {ifindex}"));
            holders.insert(own.into(), name);
        }
    }
    Ok(holders)
}

/// Gives the device the address; false where it had it already.
pub(super) fn add(floating: Ipv4Addr, name: &str) -> io::Result<bool> {
    let request = RouteNetlinkMessage::NewAddress(message(floating, device(name)?.ifindex));
    match exchange(request, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the address from the device; either may be gone already.
pub(super) fn remove(floating: Ipv4Addr, name: &str) -> io::Result<()> {
    let device = match device(name) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        device => device?,
    };
    let request = RouteNetlinkMessage::DelAddress(message(floating, device.ifindex));
    match exchange(request, NLM_F_ACK) {
        Err(error) if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => Err(error),
        _ => Ok(()),
    }
}

fn message(floating: Ipv4Addr, ifindex: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.index = ifindex;
    message.header.scope = AddressScope::Universe;
    let address = IpAddr::V4(floating);
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}
