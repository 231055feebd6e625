//! A packet made for a question, so that the datapath's own decision can be asked. Flow: explain.

use std::net::IpAddr;

use netdiag_common::abi::flow::{Flow, FlowKey4, FlowKey6, Fragment, FragmentKey};
use netdiag_common::logic::{
    flow::{protocol, tcp},
    tables::FlowTables,
};

use super::near::Seen;
use crate::{id::Mac, policy::types::Direction};

/// Port the client of a question uses.
const CLIENT: u16 = 50_000;
/// MAC address of whoever is at the other end.
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// The first packet of a flow: what the instance would send or get.
pub(super) fn frame(seen: &Seen, local: IpAddr, own: Mac) -> Vec<u8> {
    let ingress = seen.direction == Direction::Ingress;
    let (source, destination) = if ingress { (seen.remote, local) } else { (local, seen.remote) };
    let (from, to) = if ingress { (OTHER, own) } else { (own, OTHER) };
    let payload = transport(seen.protocol, seen.service.unwrap_or_default());
    let mut frame = [to.0, from.0].concat();
    if let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) {
        let [high, low] = (20 + length(&payload)).to_be_bytes();
        frame.extend([8, 0, 0x45, 0, high, low, 0, 1, 0, 0, 64, seen.protocol, 0, 0]);
        frame.extend([source.octets(), destination.octets()].concat());
    } else {
        let [high, low] = length(&payload).to_be_bytes();
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, seen.protocol, 64]);
        frame.extend([octets(source), octets(destination)].concat());
    }
    frame.extend(payload);
    frame
}

fn length(payload: &[u8]) -> u16 {
    u16::try_from(payload.len()).unwrap_or(u16::MAX)
}

/// The sixteen octets of an address.
const fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The transport header: of protocols without ports, some octets that mean nothing.
fn transport(number: u8, service: u16) -> Vec<u8> {
    let mut header = vec![0; 20];
    match number {
        protocol::ICMP | protocol::ICMPV6 => header[..2].copy_from_slice(&service.to_be_bytes()),
        _ if protocol::has_ports(number) => {
            header[..2].copy_from_slice(&CLIENT.to_be_bytes());
            header[2..4].copy_from_slice(&service.to_be_bytes());
        }
        _ => {}
    }
    match number {
        protocol::TCP => header[12..14].copy_from_slice(&[0x50, tcp::SYN]),
        protocol::UDP => header[4..6].copy_from_slice(&20_u16.to_be_bytes()),
        _ => {}
    }
    header
}

/// A memory of no flow at all, with room for the one that is asked about.
pub(super) struct NoFlows;

impl FlowTables for NoFlows {
    fn flow4(&mut self, _: &FlowKey4) -> Option<&mut Flow> {
        None
    }

    fn flow6(&mut self, _: &FlowKey6) -> Option<&mut Flow> {
        None
    }

    fn track4(&mut self, _: &FlowKey4, _: &Flow) -> bool {
        true
    }

    fn track6(&mut self, _: &FlowKey6, _: &Flow) -> bool {
        true
    }

    fn fragment(&mut self, _: &FragmentKey) -> Option<&Fragment> {
        None
    }

    fn remember(&mut self, _: &FragmentKey, _: &Fragment) {}
}
