//! All of it in order: what becomes of a packet of a port. Flow: policy.
//!
//! The order is that of `docs/DATAPATH.md`. Whoever asks counts the reason and acts on it.

use super::{
    classify, flow,
    frame::Frame,
    guard::Guard,
    packet::{Fragmentation, Packet, ethertype},
    tables::{FlowTables, PolicyTables},
    track::{self, Here, Icmp, Tuple},
};
use crate::abi::{
    flow::{FRAGMENT_FLOW, FRAGMENT_PASSES, FRAGMENT_REFUSED, Fragment, FragmentKey, Tick},
    policy::{PORT_CLOSED, PORT_MANAGED, PORT_TRUSTED, Port},
    reason::Reason,
};

/// How long the later fragments of a datagram may take, in ticks: 30 s, as `net.ipv4.ipfrag_time` has it.
pub const FRAGMENT_TIMEOUT: Tick = 28;

/// Whose packet it is, and when.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Place of the port.
    pub slot: u32,
    /// To the instance, not from it.
    pub ingress: bool,
    /// Now.
    pub now: Tick,
    /// Address at the instance where it is another than the packet has, in network byte order: the packet is for a floating
    /// IP and not translated yet. 0 is none. Only the short way knows of it.
    pub local: u32,
}

/// Decides about a packet, and fills in what it learns of it.
#[inline(always)]
pub fn decide<F: Frame, P: PolicyTables, T: FlowTables>(
    frame: &F,
    policy: &P,
    flows: &mut T,
    ask: Ask,
    packet: &mut Packet,
) -> Reason {
    let Some(port) = policy.port(ask.slot) else { return Reason::NoPolicy };
    if port.flags & PORT_MANAGED == 0 {
        return Reason::Unmanaged;
    }
    if port.flags & PORT_TRUSTED != 0 {
        return Reason::Trusted;
    }
    let guard = Guard { port, slot: ask.slot, policy };
    if let Some(reason) = link(frame, &guard, ask, packet) {
        return reason;
    }
    let reason = network(frame, &guard, flows, ask, packet);
    let unknown = reason == Reason::NoRule && port.flags & PORT_CLOSED != 0;
    if unknown { Reason::NoPolicy } else { reason }
}

/// Everything up to the IP header and the sender it names. `None`: the packet is IP, and may have the source it has.
#[inline(always)]
fn link<F: Frame, P: PolicyTables>(frame: &F, guard: &Guard<'_, P>, ask: Ask, packet: &mut Packet) -> Option<Reason> {
    if let Some(reason) = packet.ethernet(frame) {
        return Some(reason);
    }
    let wrong = match packet.ethertype {
        ethertype::IPV4 => packet.ipv4(frame),
        ethertype::IPV6 => packet.ipv6(frame),
        ethertype::ARP | ethertype::RARP if ask.ingress => Some(Reason::System),
        ethertype::ARP | ethertype::RARP => Some(guard.arp(frame, packet)),
        other if !is_permitted(guard.policy, other) => Some(Reason::Ethertype),
        _ if ask.ingress => Some(Reason::PermittedEthertype),
        _ => Some(guard.permitted(packet)),
    };
    if wrong.is_some() || ask.ingress { wrong } else { guard.source(frame, packet) }
}

#[inline(always)]
fn is_permitted<P: PolicyTables>(policy: &P, ethertype: u16) -> bool {
    policy.ethertypes().is_some_and(|[a, b, c, d, e, f, g, h]| {
        let permitted = [*a, *b, *c, *d, *e, *f, *g, *h];
        ethertype >= 0x0600 && permitted.contains(&ethertype)
    })
}

/// Everything from the transport header on.
#[inline(always)]
fn network<F: Frame, P: PolicyTables, T: FlowTables>(
    frame: &F,
    guard: &Guard<'_, P>,
    flows: &mut T,
    ask: Ask,
    packet: &mut Packet,
) -> Reason {
    let policy = guard.policy;
    let needed = packet.header_needed();
    if needed == 0 {
        packet.fragmentation = Fragmentation::Whole;
    }
    if packet.fragmentation == Fragmentation::Later {
        // A fragment that begins inside the header could overwrite what the first one said.
        if packet.fragment_offset < needed.min(if packet.protocol == flow::protocol::TCP { 20 } else { 8 }) {
            return Reason::TinyFragment;
        }
        return later(guard.port, policy, flows, ask, packet);
    }
    let mut kind = FRAGMENT_PASSES;
    let reason = match packet.transport(frame) {
        Some(reason) => reason,
        None => whole(frame, guard, flows, ask, (packet, &mut kind)),
    };
    if packet.fragmentation == Fragmentation::First {
        let (tuple, _) = track::tuple(packet, ask.ingress);
        let fragment = Fragment {
            local_port: tuple.local_port,
            remote_port: tuple.remote_port,
            service: packet.destination_port,
            kind: if reason.passes() { kind } else { FRAGMENT_REFUSED },
            pad: 0,
            seen: ask.now,
            epoch: guard.port.epoch,
        };
        flows.remember(&fragment_key((ask.slot, ask.ingress), packet), &fragment);
    }
    reason
}

/// A packet with its transport header. What its later fragments are to be judged by goes into the last argument.
#[inline(always)]
fn whole<F: Frame, P: PolicyTables, T: FlowTables>(
    frame: &F,
    guard: &Guard<'_, P>,
    flows: &mut T,
    ask: Ask,
    (packet, kind): (&mut Packet, &mut u8),
) -> Reason {
    let system = if ask.ingress { guard.system_ingress(packet) } else { guard.system_egress(frame, packet) };
    if let Some(reason) = system {
        return reason;
    }
    let Some(here) = here(guard.port, guard.policy, ask) else { return Reason::PolicyChanging };
    let named = track::tuple(packet, ask.ingress);
    let (tuple, icmp) = &named;
    if here.in_force.stateless || packet.is_icmp() && *icmp == Icmp::Other {
        packet.rule = track::begin(guard.policy, &here, tuple, packet);
        return if packet.rule == 0 { Reason::NoRule } else { Reason::Rule };
    }
    if *icmp == Icmp::Error {
        return track::error(frame, guard.policy, flows, &here, packet);
    }
    *kind = FRAGMENT_FLOW;
    track::packet(guard.policy, flows, &here, &named, packet)
}

/// A later fragment: it shares the fate of the first one.
#[inline(always)]
fn later<P: PolicyTables, T: FlowTables>(
    port: &Port,
    policy: &P,
    flows: &mut T,
    ask: Ask,
    packet: &mut Packet,
) -> Reason {
    let Some(&first) = flows.fragment(&fragment_key((ask.slot, ask.ingress), packet)) else {
        return Reason::OrphanFragment;
    };
    if first.epoch != port.epoch || flow::have_passed(FRAGMENT_TIMEOUT, first.seen, ask.now) {
        return Reason::OrphanFragment;
    }
    match first.kind {
        FRAGMENT_PASSES => return Reason::Fragment,
        FRAGMENT_FLOW => {}
        _ => return Reason::RefusedFragment,
    }
    let Some(here) = here(port, policy, ask) else { return Reason::PolicyChanging };
    packet.destination_port = first.service;
    let (tuple, _) = track::tuple(packet, ask.ingress);
    let tuple = Tuple { local_port: first.local_port, remote_port: first.remote_port, ..tuple };
    if let Some(reason) = track::fragment(policy, flows, &here, &tuple, packet) {
        return reason;
    }
    if track::begin(policy, &here, &tuple, packet) == 0 { Reason::RefusedFragment } else { Reason::Fragment }
}

/// Where a packet stands when it comes to flows; `None` while the policy is being replaced.
#[inline(always)]
fn here<P: PolicyTables>(port: &Port, policy: &P, ask: Ask) -> Option<Here> {
    let in_force = classify::in_force(policy, port.policy)?;
    let Ask { slot, ingress, now, local: _ } = ask;
    Some(Here { slot, epoch: port.epoch, policy: port.policy, in_force, ingress, now })
}

#[inline(always)]
pub(super) fn fragment_key((slot, ingress): (u32, bool), packet: &Packet) -> FragmentKey {
    FragmentKey {
        source: packet.source,
        destination: packet.destination,
        id: packet.fragment_id,
        slot: slot as u16,
        protocol: packet.protocol,
        // IPv6 addresses that look like mapped ones are others than the IPv4 addresses they would map.
        ingress: u8::from(ingress) | u8::from(packet.ipv6) << 1,
    }
}
