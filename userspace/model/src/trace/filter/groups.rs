//! What a port's security groups mean for the services around it: may anybody come in, can metadata be asked for.

use std::net::IpAddr;

use super::bridged::{TCP, cross, filtered, incoming, outgoing};
use crate::{
    fact::{METADATA_ADDRESS, SourceKind},
    netfilter::{Address, Known, Outcome, Packet},
    trace::{Severity, command::in_netns, outward::Way, path::finding},
};

/// Reports a port whose security groups let nobody in: no TCP connection and no ping, whatever the port and the source.
/// Worth a warning where a floating IP leads there, worth knowing where none does.
pub(in crate::trace) fn lets_nobody_in(way: &mut Way<'_, '_>, has_floating_ip: bool) {
    let inventory = way.inventory;
    let Some((outer, bridge)) = filtered(way) else { return };
    let packet = incoming(way, bridge, outer, Address::Unknown);
    let dies = |packet: Packet| matches!(cross(inventory, outer.netns, packet).outcome, Outcome::Drop { .. });
    let tcp = Packet { protocol: Known::Is(TCP), ..packet.clone() };
    if !dies(tcp) || !dies(packet.echo_request()) {
        return;
    }
    let device = inventory.link(outer).map(|link| link.name.clone()).unwrap_or_default();
    let severity = if has_floating_ip { Severity::Warning } else { Severity::Info };
    way.path.findings.push(
        finding(severity, "security-group-denies", device, "no security group rule lets a TCP connection or a ping in")
            .seen("both die in the port's ingress chain, whatever the port and the source")
            .verify(in_netns(inventory, outer.netns, "iptables-save -c"))
            .fix("add an ingress rule to one of the port's security groups, if it is meant to be reached"),
    );
}

/// Whether the port's security groups let a request for metadata out; they do where none filter. None where that is not
/// known: rules were not read, or depend on what is not known of the packet.
pub(in crate::trace) fn lets_metadata_out(way: &Way<'_, '_>) -> Option<bool> {
    let unread = |netns| way.inventory.unread(SourceKind::Netfilter, netns);
    let Some((outer, bridge)) = filtered(way) else {
        return (!way.nic.outer.is_some_and(|outer| unread(outer.netns))).then_some(true);
    };
    let to = Address::Is(IpAddr::from(METADATA_ADDRESS));
    let packet = Packet { destination: to, ..outgoing(way, bridge, outer) }.tcp(80);
    match cross(way.inventory, outer.netns, packet).outcome {
        Outcome::Drop { .. } => Some(false),
        Outcome::Unknown { .. } => None,
        Outcome::Accept => (!unread(outer.netns)).then_some(true),
    }
}
