//! Flows, and ICMP errors about them. Flow: policy.
//!
//! A flow remembers under which generation of its port's policy it was allowed. A packet that meets another generation asks
//! the rules again, in the direction and for the service the flow began with: what took a rule, a group or a member away has
//! ended the flow, replies included, with the next packet of it; what added something has disturbed nothing.

use super::{
    classify::{self, InForce, Question},
    flow::{self, State, protocol::TCP, tcp},
    frame::Frame,
    packet::Packet,
    tables::{FlowTables, PolicyTables},
};
use crate::abi::{
    flow::{FLOW_DEAD, FLOW_FAST, FLOW_INGRESS, Flow, FlowKey4, FlowKey6, Tick},
    reason::Reason,
};

/// What a flow is known by, seen from the instance. Ports in host byte order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tuple {
    /// Address at the instance, in network byte order; IPv4 addresses are mapped.
    pub local: [u32; 4],
    /// Address of the other end.
    pub remote: [u32; 4],
    /// Port at the instance; identifier of an ICMP query.
    pub local_port: u16,
    /// Port of the other end; what an ICMP query asks for.
    pub remote_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// IPv6, not IPv4.
    pub ipv6: bool,
}

/// What an ICMP type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    /// Asks; the number tells what.
    Request(u8),
    /// Answers the request of that number.
    Reply(u8),
    /// Complains about another packet.
    Error,
    /// Anything else: no flow.
    Other,
}

/// What an ICMP type (RFC 792, 950) or an ICMPv6 type (RFC 4443) is.
#[inline(always)]
pub const fn icmp(ipv6: bool, kind: u8) -> Icmp {
    match (ipv6, kind) {
        (false, 8 | 13 | 15 | 17) | (true, 128) => Icmp::Request(kind),
        (false, 0) => Icmp::Reply(8),
        (false, 14 | 16 | 18) | (true, 129) => Icmp::Reply(kind - 1),
        (false, 3 | 4 | 11 | 12) | (true, 1..=4) => Icmp::Error,
        _ => Icmp::Other,
    }
}

/// The key's second half of an ICMP query: what it asks, and who asked. The two ends may ask the same with the same
/// identifier, and these are two flows.
#[inline(always)]
const fn query(request: u8, asked_by_remote: bool) -> u16 {
    (asked_by_remote as u16) << 8 | request as u16
}

/// Where a packet stands when it comes to flows.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// Place of the port.
    pub slot: u32,
    /// The port's epoch.
    pub epoch: u32,
    /// Which policy: an index of `ACTIVE`.
    pub policy: u32,
    /// The version in force.
    pub in_force: InForce,
    /// To the instance, not from it.
    pub ingress: bool,
    /// Now.
    pub now: Tick,
}

/// The flow a packet is of, and what kind of ICMP packet it is.
#[inline(always)]
pub fn tuple(packet: &Packet, ingress: bool) -> (Tuple, Icmp) {
    let &Packet { source, destination, source_port, destination_port, protocol, ipv6, .. } = packet;
    let kind = if packet.is_icmp() { icmp(ipv6, packet.icmp_type()) } else { Icmp::Other };
    let (local, remote) = if ingress { (destination, source) } else { (source, destination) };
    let (local_port, remote_port) = match kind {
        Icmp::Request(request) => (source_port, query(request, ingress)),
        Icmp::Reply(request) => (source_port, query(request, !ingress)),
        Icmp::Error | Icmp::Other if !flow::protocol::has_ports(protocol) => (0, 0),
        Icmp::Error | Icmp::Other if ingress => (destination_port, source_port),
        Icmp::Error | Icmp::Other => (source_port, destination_port),
    };
    (Tuple { local, remote, local_port, remote_port, protocol, ipv6 }, kind)
}

/// A flow as the maps know it.
#[inline(always)]
pub fn find<'a, T: FlowTables>(flows: &'a mut T, slot: u32, tuple: &Tuple) -> Option<&'a mut Flow> {
    if tuple.ipv6 {
        return flows.flow6(&key6(slot, tuple));
    }
    flows.flow4(&key4(slot, tuple))
}

/// A flow's key in the map of IPv4 flows.
#[inline(always)]
pub const fn key4(slot: u32, tuple: &Tuple) -> FlowKey4 {
    FlowKey4 {
        local: tuple.local[3],
        remote: tuple.remote[3],
        local_port: tuple.local_port.to_be(),
        remote_port: tuple.remote_port.to_be(),
        slot: slot as u16,
        protocol: tuple.protocol,
        pad: 0,
    }
}

#[inline(always)]
const fn key6(slot: u32, tuple: &Tuple) -> FlowKey6 {
    FlowKey6 {
        local: tuple.local,
        remote: tuple.remote,
        local_port: tuple.local_port.to_be(),
        remote_port: tuple.remote_port.to_be(),
        slot: slot as u16,
        protocol: tuple.protocol,
        pad: 0,
    }
}

/// True if a flow is one of this port and has not been silent for too long.
#[inline(always)]
fn is_known(flow: &Flow, here: &Here, protocol: u8) -> bool {
    flow.epoch == here.epoch && !flow::expired(flow, protocol, here.now)
}

/// Asks the rules again if they have changed since the flow was allowed last; true if it is still allowed.
#[inline(always)]
fn is_allowed<P: PolicyTables>(policy: &P, flow: &mut Flow, here: &Here, tuple: &Tuple) -> bool {
    if flow.generation != here.in_force.generation {
        let question = Question {
            policy: here.policy,
            ingress: flow.flags & FLOW_INGRESS != 0,
            ipv6: tuple.ipv6,
            protocol: tuple.protocol,
            service: flow.service,
            remote: tuple.remote,
        };
        let rule = classify::rule(policy, here.in_force.view, &question);
        if rule == 0 {
            flow.flags |= FLOW_DEAD;
        } else {
            flow.flags &= !FLOW_DEAD;
            flow.rule = rule;
        }
        flow.generation = here.in_force.generation;
    }
    flow.flags & FLOW_DEAD == 0
}

/// What becomes of a packet that belongs to the flow a tuple names, or begins it.
#[inline(always)]
pub fn packet<P: PolicyTables, T: FlowTables>(
    policy: &P,
    flows: &mut T,
    here: &Here,
    (tuple, kind): &(Tuple, Icmp),
    packet: &mut Packet,
) -> Reason {
    let is_tcp = packet.protocol == TCP;
    if is_tcp && !tcp::valid(packet.tcp_flags) {
        return Reason::Invalid;
    }
    let opens = is_tcp && tcp::opens(packet.tcp_flags);
    let mut vacant = None;
    if let Some(flow) = find(flows, here.slot, tuple) {
        let reopened = opens && (flow.flags & FLOW_DEAD != 0 || State::of(flow.state).is_over());
        if !is_known(flow, here, packet.protocol) || reopened {
            vacant = Some(flow);
        } else {
            return known(policy, flow, here, tuple, packet);
        }
    }
    let begins = match kind {
        Icmp::Reply(_) => false,
        Icmp::Request(_) | Icmp::Error | Icmp::Other => !is_tcp || opens || tcp::continues(packet.tcp_flags),
    };
    if !begins {
        return Reason::Invalid;
    }
    let rule = begin(policy, here, tuple, packet);
    if rule == 0 {
        return Reason::NoRule;
    }
    packet.rule = rule;
    let fast = !tuple.ipv6 && (!is_tcp || opens) && policy.begins_fast(here.slot, &key4(here.slot, tuple));
    let fresh = Flow {
        generation: here.in_force.generation,
        epoch: here.epoch,
        seen: here.now,
        born: here.now,
        rule,
        service: packet.destination_port,
        state: flow::first(packet.protocol, packet.tcp_flags) as u8,
        flags: if here.ingress { FLOW_INGRESS } else { 0 } | if fast { FLOW_FAST } else { 0 },
    };
    let tracked = match vacant {
        Some(flow) => {
            *flow = fresh;
            unsettle(flows, here.slot, tuple);
            true
        }
        None if tuple.ipv6 => flows.track6(&key6(here.slot, tuple), &fresh),
        None => flows.track4(&key4(here.slot, tuple), &fresh),
    };
    (packet.flow_flags, packet.tracked) = (fresh.flags, tracked);
    if tracked { Reason::Rule } else { Reason::Untracked }
}

/// A flow that begins anew is none that was settled.
#[inline(always)]
fn unsettle<T: FlowTables>(flows: &mut T, slot: u32, tuple: &Tuple) {
    if tuple.ipv6 {
        flows.unsettle6(&key6(slot, tuple));
    } else {
        flows.unsettle4(&key4(slot, tuple));
    }
}

/// The rule that lets a packet begin a flow; 0 if none does.
#[inline(always)]
pub fn begin<P: PolicyTables>(policy: &P, here: &Here, tuple: &Tuple, packet: &Packet) -> u32 {
    let question = Question {
        policy: here.policy,
        ingress: here.ingress,
        ipv6: tuple.ipv6,
        protocol: packet.protocol,
        service: packet.destination_port,
        remote: tuple.remote,
    };
    classify::rule(policy, here.in_force.view, &question)
}

/// A packet of a flow that is tracked.
#[inline(always)]
fn known<P: PolicyTables>(policy: &P, flow: &mut Flow, here: &Here, tuple: &Tuple, packet: &mut Packet) -> Reason {
    flow.seen = here.now;
    if !is_allowed(policy, flow, here, tuple) {
        return Reason::Revoked;
    }
    let reply = here.ingress != (flow.flags & FLOW_INGRESS != 0);
    let (state, flags) = flow::next(packet.protocol, State::of(flow.state), flow.flags, packet.tcp_flags, reply);
    flow.state = state as u8;
    flow.flags = flags;
    packet.rule = flow.rule;
    (packet.flow_flags, packet.tracked) = (flags, true);
    Reason::Established
}

/// What becomes of a later fragment whose first one belonged to a flow: `None` if the flow is not tracked.
#[inline(always)]
pub fn fragment<P: PolicyTables, T: FlowTables>(
    policy: &P,
    flows: &mut T,
    here: &Here,
    tuple: &Tuple,
    packet: &mut Packet,
) -> Option<Reason> {
    let flow = find(flows, here.slot, tuple)?;
    if !is_known(flow, here, tuple.protocol) {
        return None;
    }
    flow.seen = here.now;
    (packet.flow_flags, packet.tracked) = (flow.flags, true);
    Some(if is_allowed(policy, flow, here, tuple) { Reason::Fragment } else { Reason::Revoked })
}

/// What becomes of an ICMP error: it passes if the packet it quotes is of a live flow, and if it goes to who sent that.
#[inline(always)]
pub fn error<F: Frame, P: PolicyTables, T: FlowTables>(
    frame: &F,
    policy: &P,
    flows: &mut T,
    here: &Here,
    packet: &mut Packet,
) -> Reason {
    let Some(tuple) = quoted(frame, packet, here.ingress) else { return Reason::IcmpUnrelated };
    let Some(flow) = find(flows, here.slot, &tuple) else { return Reason::IcmpUnrelated };
    if !is_known(flow, here, tuple.protocol) || !is_allowed(policy, flow, here, &tuple) {
        return Reason::IcmpUnrelated;
    }
    packet.rule = flow.rule;
    (packet.flow_flags, packet.tracked) = (flow.flags, true);
    Reason::Related
}

/// The flow of the packet that an ICMP error quotes.
#[inline(always)]
pub fn quoted<F: Frame>(frame: &F, packet: &Packet, ingress: bool) -> Option<Tuple> {
    let at = packet.transport + 8;
    let mut quoted = Packet { ipv6: packet.ipv6, ..Packet::default() };
    if packet.ipv6 {
        let [first, second] = frame.load32::<2>(at)?;
        if u32::from_be(first) >> 28 != 6 {
            return None;
        }
        quoted.protocol = (u32::from_be(second) >> 8 & 0xff) as u8;
        // What follows an extension header is not looked for.
        if matches!(quoted.protocol, 0 | 43 | 44 | 60) {
            return None;
        }
        quoted.source = frame.load32::<4>(at + 8)?;
        quoted.destination = frame.load32::<4>(at + 24)?;
        quoted.transport = at + 40;
    } else {
        let [first, second, third, source, destination] = frame.load32::<5>(at)?;
        let (first, header) = (u32::from_be(first), (u32::from_be(first) >> 24 & 0xf) * 4);
        // A later fragment has no ports to find a flow by.
        if first >> 28 != 4 || header < 20 || u32::from_be(second) & 0x1fff != 0 {
            return None;
        }
        quoted.protocol = (u32::from_be(third) >> 16 & 0xff) as u8;
        quoted.source = super::packet::mapped(source);
        quoted.destination = super::packet::mapped(destination);
        quoted.transport = at + header;
    }
    let [ports, second] = frame.load32::<2>(quoted.transport)?;
    if quoted.transport + 8 > packet.end || packet.destination != quoted.source {
        return None;
    }
    let ports = u32::from_be(ports);
    if quoted.is_icmp() {
        quoted.destination_port = (ports >> 16) as u16;
        quoted.source_port = (u32::from_be(second) >> 16) as u16;
    } else {
        quoted.source_port = (ports >> 16) as u16;
        quoted.destination_port = (ports & 0xffff) as u16;
    }
    // The quoted packet went the other way: it came from the instance if the error goes to it.
    let (tuple, kind) = tuple(&quoted, !ingress);
    match kind {
        Icmp::Error => None,
        Icmp::Other if quoted.is_icmp() => None,
        Icmp::Request(_) | Icmp::Reply(_) | Icmp::Other => Some(tuple),
    }
}
