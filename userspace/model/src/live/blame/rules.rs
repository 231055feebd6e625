//! Rules of the packet filter that would drop a packet, found by walking them with this very packet.
//!
//! The kernel says that a rule dropped it, and where the packet was last seen says which hooks it can have been at. What it
//! does not say is the state of the packet's flow, so every state the packet may have had is walked.

use super::{Case, last_stop, netns_of};
use crate::{
    fact::RuleBackend,
    id::{LinkKey, NetnsId},
    inventory::Inventory,
    live::{
        journey::{Drop, Journey},
        packet::{Content, Headers, Ip, Transport},
        points::Side,
    },
    netfilter::{Address, Bits, CtState, Hook, Icmp, Known, Outcome, Packet, Walk},
    trace::{RuleRef, ask, cross, rule_ref},
};

/// The rules that would drop a packet: one, where it is that one whatever the state of its flow.
pub(super) fn dropping(case: &Case<'_, '_>, journey: &Journey, drop: &Drop) -> Vec<RuleRef> {
    let Some(netns) = netns_of(case, journey, drop) else { return Vec::new() };
    let headers = drop.headers.innermost();
    let mut found: Vec<RuleRef> = Vec::new();
    for state in states(headers) {
        let packet = Packet { state: Known::Is(*state), mark: Bits::is(drop.mark), ..packet(headers) };
        let rule = in_state(case, journey, (drop, netns), packet);
        found.extend(rule.filter(|rule| !found.iter().any(|known| is_same(known, rule))));
    }
    counting(case, found)
}

fn is_same(one: &RuleRef, other: &RuleRef) -> bool {
    (one.backend, &one.table, &one.chain, one.number) == (other.backend, &other.table, &other.chain, other.number)
}

/// Of several rules those that have counted since an earlier look, where there was one.
fn counting(case: &Case<'_, '_>, found: Vec<RuleRef>) -> Vec<RuleRef> {
    let Some(earlier) = case.earlier.filter(|_| found.len() > 1) else { return found };
    let has_counted = |rule: &&RuleRef| rule.counters.packets > then(earlier, rule).unwrap_or(0);
    let counted: Vec<RuleRef> = found.iter().filter(has_counted).cloned().collect();
    if counted.is_empty() { found } else { counted }
}

/// What a rule had counted by an earlier look, if it was there.
fn then(earlier: &Inventory<'_>, rule: &RuleRef) -> Option<u64> {
    let rulesets = earlier.rulesets(rule.netns.id).iter().filter(|ruleset| ruleset.backend == rule.backend);
    let mut tables = rulesets.flat_map(|ruleset| &ruleset.tables).filter(|table| table.name == rule.table);
    let place = rule.number.checked_sub(1)?;
    tables.find_map(|table| {
        let found = table.chain(&rule.chain)?.rules.get(place)?;
        (found.raw == rule.rule).then_some(found.counters.packets)
    })
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

/// The rules that drop it, where the packet is in one state.
fn in_state(
    case: &Case<'_, '_>,
    journey: &Journey,
    (drop, netns): (&Drop, NetnsId),
    packet: Packet,
) -> Option<RuleRef> {
    let walked = way(case, journey, (drop, netns), packet);
    let step = match walked.outcome {
        Outcome::Drop { .. } => walked.deciding()?,
        Outcome::Accept | Outcome::Unknown { .. } => return None,
    };
    Some(rule_ref(case.inventory, netns, step))
}

/// Follows the packet through the hooks it can have been at.
fn way(case: &Case<'_, '_>, journey: &Journey, (drop, netns): (&Drop, NetnsId), packet: Packet) -> Walk {
    let inventory = case.inventory;
    if let Some(entrance) = drop.link.and_then(|link| towards_another(case, link)) {
        return bridged(inventory, entrance, &packet);
    }
    let came_in = last_stop(case, journey).filter(|stop| stop.link.netns == netns);
    let received = came_in.filter(|stop| stop.direction(Side::Received) == journey.direction);
    let entrance =
        received.map(|stop| stop.link).or(drop.link.filter(|_| came_in.is_none() && !begins(case, drop, netns)));
    if let Some(port) = entrance
        && let Some(bridge) = inventory.linux_bridge(port).filter(|bridge| !routes(inventory, *bridge))
    {
        return bridged(inventory, (port, bridge), &packet);
    }
    match entrance {
        Some(link) => routed(case, journey, link, packet),
        None => local(inventory, netns, drop.link, packet),
    }
}

/// By which port packets to another instance come into the bridge that is its alone, if a device is of that.
fn towards_another(case: &Case<'_, '_>, device: LinkKey) -> Option<(LinkKey, LinkKey)> {
    let inventory = case.inventory;
    case.points.others.get(&device)?;
    let bridge = inventory.linux_bridge(device).or_else(|| inventory.bridge_ports(device).next().map(|_| device))?;
    let nics = || inventory.instances.iter().flat_map(|instance| &instance.nics);
    let mut ports = inventory.bridge_ports(bridge).map(|(port, _)| port);
    ports.find(|port| nics().all(|nic| nic.outer != Some(*port))).map(|port| (port, bridge))
}

/// Whether the packet begins in a namespace, whose address it is from: the instance's, or that of a router which complains.
fn begins(case: &Case<'_, '_>, drop: &Drop, netns: NetnsId) -> bool {
    let source = drop.headers.innermost().addresses().map(|(source, _)| source);
    source.is_some_and(|source| case.inventory.holder(netns, source).is_some())
}

/// Whether a bridge has addresses of its own, and so passes packets up to be routed.
fn routes(inventory: &Inventory<'_>, bridge: LinkKey) -> bool {
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
fn routed(case: &Case<'_, '_>, journey: &Journey, link: LinkKey, packet: Packet) -> Walk {
    let inventory = case.inventory;
    // A bridge that routes is where the packet comes in.
    let link = inventory.linux_bridge(link).unwrap_or(link);
    let arrived = Packet { in_device: name(inventory, link), out_device: Known::Absent, ..packet };
    let before = ask(inventory, link.netns, Hook::Prerouting, arrived);
    if !matches!(before.outcome, Outcome::Accept) {
        return before;
    }
    if is_local(inventory, link.netns, before.packet.destination) {
        return ask(inventory, link.netns, Hook::Input, Packet { to_local: Known::Is(true), ..before.packet });
    }
    let out = exit(case, journey, link);
    let out_device = out.map_or(Known::Unknown, |out| name(inventory, out));
    let through = Packet { out_device: out_device.clone(), to_local: Known::Is(false), ..before.packet };
    let through = ask(inventory, link.netns, Hook::Forward, through);
    if !matches!(through.outcome, Outcome::Accept) {
        return through;
    }
    ask(inventory, link.netns, Hook::Postrouting, Packet { in_device: Known::Absent, ..through.packet })
}

/// The device of the same namespace that the packet was to leave by.
fn exit(case: &Case<'_, '_>, journey: &Journey, link: LinkKey) -> Option<LinkKey> {
    let track = case.points.tracks.get(journey.track)?;
    let here = track.stops.iter().position(|stop| stop.link == link)?;
    let next = track.at(track.position(here, journey.direction) + 1, journey.direction)?;
    (next.link.netns == link.netns).then_some(next.link)
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
