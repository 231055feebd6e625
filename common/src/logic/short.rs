//! The short way of packets of established flows. Flow: policy.
//!
//! Most packets are plain TCP or UDP of a flow that nothing has changed about. For these everything the long way would look at
//! is compared here in one piece, and nothing is looked up but the flow, and that once a tick. Whatever is not plain goes the long way: this one
//! only ever says that a packet passes as established, and only where the long way would say the same.

use super::{
    decide::Ask,
    flow::{self, State, protocol::TCP, protocol::UDP, tcp},
    frame::{Frame, Head},
    packet::ethertype,
    tables::{FlowTables, Moment, Note, PolicyTables},
};
use crate::abi::{
    flow::{FLOW_DEAD, FLOW_INGRESS, Flow, FlowKey4, FlowKey6, Tick},
    policy::{PORT_MANAGED, PORT_TRUSTED, Port, active_generation},
};

/// Bytes of Ethernet, IPv4 and TCP headers without options.
const HEAD4: usize = 54;
/// Bytes of Ethernet, IPv6 and TCP headers without options.
const HEAD6: usize = 74;

/// Ports of DHCP and DHCPv6: the long way decides about them before it looks at flows.
const fn is_dhcp(port: u16) -> bool {
    matches!(port, 67 | 68 | 546 | 547)
}

/// `FLOW_*` bits of the flow if the packet passes as part of an established one, which has been brought up to date then. `None`
/// says nothing.
#[inline(always)]
pub fn passes<F: Frame, P: PolicyTables, T: FlowTables>(
    frame: &F,
    policy: &P,
    flows: &mut T,
    port: &Port,
    ask: Ask,
) -> Option<u8> {
    if port.flags & (PORT_MANAGED | PORT_TRUSTED) != PORT_MANAGED || frame.tagged() {
        return None;
    }
    let head = frame.head(HEAD4)?;
    match u16::from_be(head.half(6)) {
        ethertype::IPV4 => passes4(&head, frame.length(), policy, flows, (port, ask)),
        ethertype::IPV6 => match frame.head(HEAD6) {
            Some(head) => passes6(&head, frame.length(), policy, flows, (port, ask)),
            None => None,
        },
        _ => None,
    }
}

#[inline(always)]
fn passes4<H: Head, P: PolicyTables, T: FlowTables>(
    head: &H,
    length: u32,
    policy: &P,
    flows: &mut T,
    (port, ask): (&Port, Ask),
) -> Option<u8> {
    let total = u32::from(u16::from_be(head.half(8)));
    let protocol = (u16::from_be(head.half(11)) & 0xff) as u8;
    let (source, destination) = (head.word::<13>(), head.word::<15>());
    // Version 4, a header of 20 bytes, no fragment ("don't fragment" may be set), and all of it there.
    let plain = u16::from_be(head.half(7)) >> 8 == 0x45
        && u16::from_be(head.half(10)) & 0xbfff == 0
        && total + 14 <= length
        && total >= 20 + minimum(protocol);
    if !plain || source == 0 {
        return None;
    }
    let [a, b, c, d] = port.ipv4;
    if !ask.ingress && !(is_own_mac(head, port) && (source == a || source == b || source == c || source == d)) {
        return None;
    }
    let (local, remote) = match (ask.ingress, ask.local) {
        (true, 0) => (destination, source),
        (true, local) => (local, source),
        (false, _) => (source, destination),
    };
    let (local_port, remote_port) = ports::<_, 17>(head, protocol, ask.ingress)?;
    let key = FlowKey4 { local, remote, local_port, remote_port, slot: ask.slot as u16, protocol, pad: 0 };
    let at = moment(policy, port, ask)?;
    let note = flows.noted4(&key, at);
    if let Note::Settled(flags) = note {
        return Some(flags);
    }
    let flow = flows.flow4(&key)?;
    let state = is_settled(flow, protocol, ask.ingress, at)?;
    let flags = flow.flags;
    if note == Note::None && state.is_mutual() {
        flows.settle4(&key, at, flags);
    }
    Some(flags)
}

#[inline(always)]
fn passes6<H: Head, P: PolicyTables, T: FlowTables>(
    head: &H,
    length: u32,
    policy: &P,
    flows: &mut T,
    (port, ask): (&Port, Ask),
) -> Option<u8> {
    let payload = u32::from(u16::from_be(head.half(9)));
    let protocol = (u16::from_be(head.half(10)) >> 8) as u8;
    let source = [head.word::<11>(), head.word::<13>(), head.word::<15>(), head.word::<17>()];
    let destination = [head.word::<19>(), head.word::<21>(), head.word::<23>(), head.word::<25>()];
    let plain = u16::from_be(head.half(7)) >> 12 == 6 && payload + 54 <= length && payload >= minimum(protocol);
    if !plain || source == [0; 4] {
        return None;
    }
    let [a, b, c] = port.ipv6;
    if !ask.ingress && !(is_own_mac(head, port) && (source == a || source == b || source == c)) {
        return None;
    }
    let (local, remote) = if ask.ingress { (destination, source) } else { (source, destination) };
    let (local_port, remote_port) = ports::<_, 27>(head, protocol, ask.ingress)?;
    let key = FlowKey6 { local, remote, local_port, remote_port, slot: ask.slot as u16, protocol, pad: 0 };
    let at = moment(policy, port, ask)?;
    let note = flows.noted6(&key, at);
    if let Note::Settled(flags) = note {
        return Some(flags);
    }
    let flow = flows.flow6(&key)?;
    let state = is_settled(flow, protocol, ask.ingress, at)?;
    let flags = flow.flags;
    if note == Note::None && state.is_mutual() {
        flows.settle6(&key, at, flags);
    }
    Some(flags)
}

/// Bytes of the transport header; more than any packet has for protocols that go the long way.
#[inline(always)]
const fn minimum(protocol: u8) -> u32 {
    match protocol {
        TCP => 20,
        UDP => 8,
        _ => u32::MAX >> 1,
    }
}

#[inline(always)]
fn is_own_mac<H: Head>(head: &H, port: &Port) -> bool {
    let mac = port.mac;
    head.word::<3>() == u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]])
        && head.half(5) == u16::from_ne_bytes([mac[4], mac[5]])
}

/// Local and remote port as they lie in the packet, whose transport header begins at a half-word; `None` for a packet that may
/// change its flow or begin one, or that is not judged by flows.
#[inline(always)]
fn ports<H: Head, const TRANSPORT: usize>(head: &H, protocol: u8, ingress: bool) -> Option<(u16, u16)> {
    let [first, second] = halves(head.word::<TRANSPORT>());
    if protocol == TCP {
        let flags = u16::from_be(head.half(TRANSPORT + 6));
        let settled = flags & u16::from(tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK) == u16::from(tcp::ACK);
        if flags >> 12 < 5 || !settled {
            return None;
        }
    } else {
        let special = is_dhcp(u16::from_be(first)) || is_dhcp(u16::from_be(second));
        if special || u16::from_be(head.half(TRANSPORT + 2)) < 8 {
            return None;
        }
    }
    Some(if ingress { (second, first) } else { (first, second) })
}

/// The half-words of a word in the order they lie in memory.
#[inline(always)]
pub(super) const fn halves(word: u32) -> [u16; 2] {
    let (upper, lower) = ((word >> 16) as u16, word as u16);
    if cfg!(target_endian = "little") { [lower, upper] } else { [upper, lower] }
}

/// What a flow has to be settled under; `None` if there is no such policy.
#[inline(always)]
fn moment<P: PolicyTables>(policy: &P, port: &Port, ask: Ask) -> Option<Moment> {
    let generation = active_generation(policy.active(port.policy)?);
    Some(Moment { generation, epoch: port.epoch, now: ask.now })
}

/// The state of a flow about which nothing changes by a packet like this of it but the time it was last seen.
#[inline(always)]
fn is_settled(flow: &mut Flow, protocol: u8, ingress: bool, at: Moment) -> Option<State> {
    const ESTABLISHED: Tick = flow::timeout(TCP, State::Established);
    const REPLIED: Tick = flow::timeout(UDP, State::Replied);
    const UNREPLIED: Tick = flow::timeout(UDP, State::Unreplied);
    let forward = ingress == (flow.flags & FLOW_INGRESS != 0);
    let (state, timeout) = if protocol == TCP {
        if flow.state != State::Established as u8 {
            return None;
        }
        (State::Established, ESTABLISHED)
    } else if flow.state == State::Replied as u8 {
        (State::Replied, REPLIED)
    } else if flow.state == State::Unreplied as u8 && forward {
        (State::Unreplied, UNREPLIED)
    } else {
        return None;
    };
    let current = flow.generation == at.generation && flow.epoch == at.epoch;
    if !current || flow.flags & FLOW_DEAD != 0 || flow::have_passed(timeout, flow.seen, at.now) {
        return None;
    }
    // Not on every packet, or CPUs that share a flow would take its cache line from each other.
    if flow.seen != at.now {
        flow.seen = at.now;
    }
    Some(state)
}
