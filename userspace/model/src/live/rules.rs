//! Rules of the packet filter that would drop a packet, found by walking them with this very packet. Flow: explain.
//!
//! The kernel says that a rule dropped it, and where that was says which hooks it can have been at. What it does not say is
//! the state of the packet's flow, so every state the packet may have had is walked.

use std::net::IpAddr;

use super::packet::{Content, Headers, Ip, Transport};
use crate::{
    fact::RuleBackend,
    id::{IfIndex, LinkKey, NetnsId},
    inventory::{Inventory, route::Question},
    netfilter::{Address, Bits, CtState, Hook, Icmp, Known, Outcome, Packet, Walk},
    trace::{RuleRef, ask, cross, rule_ref},
};

/// How a packet came to the rules of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From a port of a bridge to another one, or to all of them.
    Bridged {
        /// The port it came by.
        port: LinkKey,
        /// The bridge.
        bridge: LinkKey,
    },
    /// By a device into the namespace's own network stack.
    Routed {
        /// The device.
        by: LinkKey,
        /// The one it was to leave by; none where routes have to say it.
        out: Option<LinkKey>,
    },
    /// Nobody asks any more whence: it is about to leave.
    Leaves {
        /// The device it leaves by.
        by: LinkKey,
    },
    /// From the namespace itself.
    Local {
        /// The device it leaves by.
        out: Option<LinkKey>,
    },
}

/// The rules of a namespace that would drop a packet with a mark: one, where it is that one whatever the state of its flow.
pub(super) fn dropping(
    inventory: &Inventory<'_>,
    (netns, way): (NetnsId, Way),
    (headers, mark): (&Headers, u32),
) -> Vec<RuleRef> {
    let mut found: Vec<RuleRef> = Vec::new();
    for state in states(headers) {
        let packet = Packet { state: Known::Is(*state), mark: Bits::is(mark), ..packet(headers) };
        let rule = in_state(inventory, (netns, way), packet);
        found.extend(rule.filter(|rule| !found.iter().any(|known| is_same(known, rule))));
    }
    found
}

fn is_same(one: &RuleRef, other: &RuleRef) -> bool {
    (one.backend, &one.table, &one.chain, one.number) == (other.backend, &other.table, &other.chain, other.number)
}

/// States the flow of a packet may have had.
fn states(headers: &Headers) -> &'static [CtState] {
    /// SYN without ACK.
    const OPENS: (u8, u8) = (0x12, 0x02);
    match headers.ip().map(|ip| &ip.transport) {
        Some(Transport::Tcp { flags, .. }) if flags & OPENS.0 == OPENS.1 => &[CtState::New],
        Some(Transport::Tcp { .. }) => &[CtState::Established, CtState::New, CtState::Invalid],
        Some(Transport::Icmp(icmp)) if icmp.quoted.is_some() => &[CtState::Related, CtState::Invalid],
        Some(_) | None => &[CtState::New, CtState::Established],
    }
}

/// The packet as rules look at it.
fn packet(headers: &Headers) -> Packet {
    let source_mac = headers.frame.map_or(Known::Unknown, |(source, _)| Known::Is(source));
    match &headers.content {
        Content::Ip(ip) => Packet { source_mac, ..of_ip(ip) },
        Content::Arp(_) => Packet { source_mac, ..Packet::arp() },
        Content::Other { .. } => Packet { source_mac, ..Packet::ipv4() },
    }
}

fn of_ip(ip: &Ip) -> Packet {
    let ports = ip.transport.ports();
    let port = |port: Option<u16>| port.map_or(Known::Absent, Known::Is);
    let (mut icmp, mut tcp_flags) = (Known::Absent, Known::Absent);
    if let Transport::Icmp(own) = &ip.transport {
        icmp = Known::Is(Icmp { kind: own.kind, code: own.code });
    } else if let Transport::Tcp { flags, .. } = &ip.transport {
        tcp_flags = Known::Is(*flags);
    }
    Packet {
        protocol: Known::Is(ip.protocol),
        source_port: port(ports.map(|ports| ports.0)),
        destination_port: port(ports.map(|ports| ports.1)),
        icmp,
        tcp_flags,
        connmark: Bits::UNKNOWN,
        dnatted: Known::Unknown,
        snatted: Known::Unknown,
        ..Packet::between(Address::Is(ip.source), Address::Is(ip.destination))
    }
}

/// The rule that drops it, where the packet is in one state.
fn in_state(inventory: &Inventory<'_>, (netns, way): (NetnsId, Way), packet: Packet) -> Option<RuleRef> {
    let walked = follow(inventory, (netns, way), packet);
    let step = match walked.outcome {
        Outcome::Drop { .. } => walked.deciding()?,
        Outcome::Accept | Outcome::Unknown { .. } => return None,
    };
    Some(rule_ref(inventory, netns, step))
}

/// Follows the packet through the hooks it can have been at.
fn follow(inventory: &Inventory<'_>, (netns, way): (NetnsId, Way), packet: Packet) -> Walk {
    match way {
        Way::Bridged { port, bridge } => bridged(inventory, (port, bridge), &packet),
        Way::Routed { by, out } => routed(inventory, (by, out), packet),
        Way::Leaves { by } => leaves(inventory, by, packet),
        Way::Local { out } => local(inventory, netns, out, packet),
    }
}

/// Whether a bridge has addresses of its own, and so passes packets up to be routed.
pub(super) fn routes(inventory: &Inventory<'_>, bridge: LinkKey) -> bool {
    !inventory.addresses(bridge).is_empty()
}

fn name(inventory: &Inventory<'_>, link: LinkKey) -> Known<String> {
    inventory.link(link).map_or(Known::Unknown, |link| Known::Is(link.name.clone()))
}

/// From one port of a bridge to another.
fn bridged(inventory: &Inventory<'_>, (port, bridge): (LinkKey, LinkKey), packet: &Packet) -> Walk {
    let others: Vec<LinkKey> = inventory.bridge_ports(bridge).map(|(key, _)| key).filter(|key| *key != port).collect();
    let out = if let [only] = others[..] { name(inventory, only) } else { Known::Unknown };
    let device = name(inventory, bridge);
    cross(
        inventory,
        bridge.netns,
        Packet {
            in_device: device.clone(),
            out_device: device,
            physdev_in: name(inventory, port),
            physdev_out: out,
            bridged: Known::Is(true),
            ..packet.clone()
        },
    )
}

/// From a device into a network stack: to the namespace itself, or through it.
fn routed(inventory: &Inventory<'_>, (by, out): (LinkKey, Option<LinkKey>), packet: Packet) -> Walk {
    // A bridge that routes is where the packet comes in.
    let link = inventory.linux_bridge(by).unwrap_or(by);
    let arrived = Packet { in_device: name(inventory, link), out_device: Known::Absent, ..packet };
    let before = ask(inventory, link.netns, Hook::Prerouting, arrived);
    if !matches!(before.outcome, Outcome::Accept) {
        return before;
    }
    if is_local(inventory, link.netns, before.packet.destination) {
        return ask(inventory, link.netns, Hook::Input, Packet { to_local: Known::Is(true), ..before.packet });
    }
    let out = out.or_else(|| exit(inventory, link, &before.packet));
    let out_device = out.map_or(Known::Unknown, |out| name(inventory, out));
    let through = Packet { out_device: out_device.clone(), to_local: Known::Is(false), ..before.packet };
    let through = ask(inventory, link.netns, Hook::Forward, through);
    if !matches!(through.outcome, Outcome::Accept) {
        return through;
    }
    ask(inventory, link.netns, Hook::Postrouting, Packet { in_device: Known::Absent, ..through.packet })
}

/// The device that routes say a packet leaves by which came in by another.
fn exit(inventory: &Inventory<'_>, by: LinkKey, packet: &Packet) -> Option<LinkKey> {
    let (Address::Is(source), Address::Is(destination)) = (packet.source, packet.destination) else { return None };
    leads(inventory, by.netns, (source, destination), inventory.link(by).map(|link| link.name.as_str()))
}

/// The device by which a namespace sends what is from one address to another, and came in by a device.
pub(super) fn leads(
    inventory: &Inventory<'_>,
    netns: NetnsId,
    (source, destination): (IpAddr, IpAddr),
    iif: Option<&str>,
) -> Option<LinkKey> {
    let answer = inventory.route(netns, Question { source, destination: Some(destination), iif }).ok()?;
    answer.ifindex().map(|ifindex: IfIndex| LinkKey { netns, ifindex })
}

/// What is about to leave.
fn leaves(inventory: &Inventory<'_>, by: LinkKey, packet: Packet) -> Walk {
    let packet = Packet { in_device: Known::Absent, out_device: name(inventory, by), ..packet };
    ask(inventory, by.netns, Hook::Postrouting, packet)
}

/// From the namespace itself.
fn local(inventory: &Inventory<'_>, netns: NetnsId, out: Option<LinkKey>, packet: Packet) -> Walk {
    let out_device = out.map_or(Known::Unknown, |out| name(inventory, out));
    let sent = Packet { in_device: Known::Absent, out_device, ..packet };
    let first = ask(inventory, netns, Hook::Output, sent);
    if !matches!(first.outcome, Outcome::Accept) {
        return first;
    }
    ask(inventory, netns, Hook::Postrouting, first.packet)
}

fn is_local(inventory: &Inventory<'_>, netns: NetnsId, address: Address) -> bool {
    match address {
        Address::Is(address) => inventory.holder(netns, address).is_some(),
        Address::Local => true,
        Address::Unknown | Address::Outside => false,
    }
}

/// The command that shows a rule by hand.
pub(super) const fn save_command(rule: &RuleRef) -> &'static str {
    match rule.backend {
        RuleBackend::IptablesLegacy => "iptables-legacy-save -c",
        RuleBackend::IptablesNft => "iptables-nft-save -c",
        RuleBackend::Nft => "nft list ruleset",
    }
}
