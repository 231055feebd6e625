//! Which packets of floating IPs go past the router. Flow: policy.
//!
//! A packet does if nothing about it needs the router, and if its flow began that way: the router's connection tracking has then
//! seen nothing of the flow, and must not see half of it. All else goes through the router as if nobody were here, and the
//! reason is counted.

use super::{
    decide::{FRAGMENT_TIMEOUT, fragment_key},
    flow::{
        self, State,
        protocol::{ICMP, SCTP, TCP, has_ports},
        tcp,
    },
    frame::{Frame, Head},
    packet::{Fragmentation, Packet, ethertype, mapped},
    rewrite::{Change, End, FRONT, is_partial},
    tables::FlowTables,
    track::{self, Icmp, Tuple},
};
use crate::abi::{
    floating::{
        FLOATING_BEGINS, Floating, FloatingKey, HOP_KNOWN, HOP_ON_LINK, HOP_UNRESOLVED, Hop, HopKey, Leaving, Way,
    },
    flow::{FLOW_DEAD, FLOW_FAST, FLOW_INGRESS, FlowKey4, Fragment, Tick},
    policy::{PORT_MANAGED, PORT_TRUSTED, Port},
};

/// What floating IPs are looked up in.
pub trait FloatingTables {
    /// Who a floating IP stands for.
    fn floating(&self, key: &FloatingKey) -> Option<&Floating>;
    /// What a fixed address of a port leaves as.
    fn leaving(&self, slot: u32, fixed: u32) -> Option<&Leaving>;
    /// Where a router sends what goes to an address.
    fn hop(&self, key: &HopKey) -> Option<Hop>;
    /// True for a flow that was there before its floating IP was served from here, and has to stay on the slow way.
    fn is_held(&self, key: &FlowKey4) -> bool;
    /// True for a far end that was asked through the router lately, or has answered since: see [`far_end`].
    fn is_asked(&self, key: &FlowKey4, now: Tick) -> bool;
}

/// How long a far end that was asked through the router may take to answer: as long as any router keeps such a flow.
pub const ASKED_TIMEOUT: Tick = flow::timeout(SCTP, State::Replied);

/// A packet that may leave past the router, if its flow does.
#[derive(Clone, Copy, Debug)]
pub struct Exit<'a> {
    /// What it leaves as.
    pub leaving: &'a Leaving,
    /// MAC address of the next hop.
    pub mac: [u8; 6],
    /// It is a fragment. What answers it may be fragments, too, which come through the router in whatever order, so it begins
    /// no flow; and the answer to a ping passes the router only if the question did.
    pub fragment: bool,
    /// Its checksum may be one that is left to the hardware. In a flow that began with finished ones it is one in 65,536 that
    /// only looks so.
    pub partial: bool,
}

/// Whether a packet from an instance may leave past the router; `None` if it is none for it, and no floating IP's.
#[inline(always)]
pub fn outward<'t, F: Frame, L: FloatingTables>(
    frame: &F,
    tables: &'t L,
    (slot, epoch): (u32, u32),
) -> Option<Result<Exit<'t>, Way>> {
    let head = frame.head(FRONT)?;
    if u16::from_be(head.half(6)) != ethertype::IPV4 {
        return None;
    }
    let (source, destination) = (head.word::<13>(), head.word::<15>());
    let leaving = tables.leaving(slot, source)?;
    if leaving.epoch != epoch || !is_mac(&head, 0, leaving.inner_mac) {
        return None;
    }
    let hop = tables.hop(&HopKey { router: leaving.router, address: destination })?;
    let key = FloatingKey { device: leaving.device, vlan: leaving.vlan.into(), address: destination };
    let way = match hop.kind {
        HOP_ON_LINK if tables.floating(&key).is_some() => Some(Way::Hairpin),
        HOP_KNOWN | HOP_ON_LINK => None,
        HOP_UNRESOLVED => Some(Way::Unresolved),
        _ => return None,
    };
    let way = way.or_else(|| obstacle(frame, &head, leaving.hops, leaving.mtu));
    Some(
        way.map_or(
            Ok(Exit { leaving, mac: hop.mac, fragment: is_fragment(&head), partial: may_be_partial(frame) }),
            Err,
        ),
    )
}

/// What of the headers of an IPv4 packet needs the router.
#[inline(always)]
fn obstacle<F: Frame, H: Head>(frame: &F, head: &H, hops: u16, mtu: u32) -> Option<Way> {
    match u16::from_be(head.half(7)) >> 8 {
        0x45 => {}
        0x46..=0x4f => return Some(Way::Options),
        _ => return Some(Way::Header),
    }
    let total = u32::from(u16::from_be(head.half(8)));
    if u16::from_be(head.half(11)) >> 8 <= hops {
        return Some(Way::Ttl);
    }
    let segment = frame.segment();
    if segment == 0 {
        if total + 14 > frame.length() || total < 20 {
            return Some(Way::Header);
        }
        return (total > mtu).then_some(Way::Mtu);
    }
    let transport = if u16::from_be(head.half(11)) & 0xff == u16::from(TCP) {
        let Some([offset]) = frame.load16::<1>(FRONT as u32 + 12) else { return Some(Way::Header) };
        u32::from(u16::from_be(offset) >> 12) * 4
    } else {
        8
    };
    (segment + transport + 20 > mtu).then_some(Way::Mtu)
}

/// True where it cannot be told from a checksum that is left to the hardware that it is none.
#[inline(always)]
fn may_be_partial<F: Frame>(frame: &F) -> bool {
    F::HIDES_PARTIAL && is_partial(frame)
}

/// True for a fragment, the first one included.
#[inline(always)]
fn is_fragment<H: Head>(head: &H) -> bool {
    u16::from_be(head.half(10)) & 0x3fff != 0
}

#[inline(always)]
fn is_mac<H: Head>(head: &H, place: usize, mac: [u8; 6]) -> bool {
    let [first, second, third] = mac_halves(mac);
    head.half(place) == first && head.half(place + 1) == second && head.half(place + 2) == third
}

/// The half-words of two MAC addresses.
#[inline(always)]
const fn macs(destination: [u8; 6], source: [u8; 6]) -> [u16; 6] {
    let ([one, two, three], [four, five, six]) = (mac_halves(destination), mac_halves(source));
    [one, two, three, four, five, six]
}

/// The half-words of a MAC address as they lie in a packet.
#[inline(always)]
const fn mac_halves(mac: [u8; 6]) -> [u16; 3] {
    [u16::from_ne_bytes([mac[0], mac[1]]), u16::from_ne_bytes([mac[2], mac[3]]), u16::from_ne_bytes([mac[4], mac[5]])]
}

impl Exit<'_> {
    /// What becomes of the packet.
    #[inline(always)]
    pub const fn change(&self) -> Change {
        let Leaving { fixed, floating, hops, outer_mac, .. } = *self.leaving;
        Change { end: End::Source, from: fixed, to: floating, macs: macs(self.mac, outer_mac), hops }
    }

    /// True if new flows may begin past the router.
    #[inline(always)]
    pub const fn begins(&self) -> bool {
        self.leaving.flags & FLOATING_BEGINS != 0 && !self.fragment && !self.partial
    }
}

/// What was decided of a packet that passes.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// `FLOW_*` bits of its flow; 0 also where it has none.
    pub flags: u8,
    /// It has a flow, or is about one.
    pub tracked: bool,
    /// It is ICMP.
    pub icmp: bool,
}

/// The way of a packet that passes and could leave past the router.
#[inline(always)]
pub const fn departure(exit: &Exit<'_>, passed: Passed) -> Way {
    let Passed { flags, tracked, icmp } = passed;
    match (tracked, icmp, exit.fragment) {
        (false, true, _) => Way::Icmp,
        (false, false, _) => Way::Port,
        (true, true, true) if flags & FLOW_INGRESS == 0 => Way::Fragment,
        (true, ..) if flags & FLOW_FAST != 0 => Way::Fast,
        (true, _, true) => Way::Fragment,
        (true, ..) if exit.partial => Way::PartialChecksum,
        (true, ..) if exit.begins() => Way::SlowFlow,
        (true, ..) => Way::Draining,
    }
}

/// What a packet that comes to a floating IP becomes.
#[inline(always)]
pub const fn arrival(floating: &Floating, address: u32) -> Change {
    let Floating { fixed, hops, destination_mac, source_mac, .. } = *floating;
    Change { end: End::Destination, from: address, to: fixed, macs: macs(destination_mac, source_mac), hops }
}

/// A packet for a floating IP, by its headers: who that is, and what of it needs the router.
#[inline(always)]
pub fn inward<'t, 'p, F: Frame, L: FloatingTables>(
    frame: &F,
    tables: &'t L,
    port: impl FnOnce(u32) -> Option<&'p Port>,
    (device, vlan): (u32, u32),
) -> Option<(&'t Floating, u32, Option<Way>)> {
    let head = frame.head(FRONT)?;
    if u16::from_be(head.half(6)) != ethertype::IPV4 {
        return None;
    }
    let address = head.word::<15>();
    let floating = tables.floating(&FloatingKey { device, vlan, address })?;
    let filtered = port(floating.slot)
        .is_some_and(|port| port.flags & (PORT_MANAGED | PORT_TRUSTED) == PORT_MANAGED && port.epoch == floating.epoch);
    let way = if !is_mac(&head, 0, floating.outer_mac) {
        Some(Way::Link)
    } else if !filtered {
        Some(Way::Port)
    } else {
        obstacle(frame, &head, floating.hops, floating.mtu)
    };
    Some((floating, address, way))
}

/// Whether what answers a packet from an address can leave past the router: a flow goes the fast way in both directions or in
/// neither.
#[inline(always)]
fn answers_leave<L: FloatingTables>(tables: &L, floating: &Floating, source: u32) -> bool {
    let Some(leaving) = tables.leaving(floating.slot, floating.fixed) else { return false };
    let hop = tables.hop(&HopKey { router: leaving.router, address: source });
    let key = FloatingKey { device: leaving.device, vlan: leaving.vlan.into(), address: source };
    match hop.map(|hop| hop.kind) {
        Some(HOP_KNOWN) => true,
        Some(HOP_ON_LINK) => tables.floating(&key).is_none(),
        _ => false,
    }
}

/// Whom a packet asks that leaves through the router: a flow without the port it is from. The router may give it another port,
/// which nobody else knows (`--random-fully`), so what comes from there may be the answer. `None` for TCP, where an answer is
/// told by its flags, and for what has no ports.
#[inline(always)]
pub fn far_end<F: Frame>(frame: &F, slot: u32) -> Option<FlowKey4> {
    let mut packet = Packet::default();
    if packet.ethernet(frame).is_some() || packet.ipv4(frame).is_some() {
        return None;
    }
    if packet.protocol == TCP || !has_ports(packet.protocol) || packet.fragmentation == Fragmentation::Later {
        return None;
    }
    if packet.transport(frame).is_some() {
        return None;
    }
    let (tuple, _) = track::tuple(&packet, false);
    Some(without_port(slot, &tuple))
}

/// What a far end is known by.
#[inline(always)]
const fn without_port(slot: u32, tuple: &Tuple) -> FlowKey4 {
    FlowKey4 { local_port: 0, ..track::key4(slot, tuple) }
}

/// Whether a packet that comes to a floating IP belongs to the fast way, or may begin a flow there: `None` if so.
#[inline(always)]
pub fn flow_way<F: Frame, L: FloatingTables, T: FlowTables>(
    frame: &F,
    tables: &L,
    flows: &mut T,
    floating: &Floating,
    now: Tick,
) -> Option<Way> {
    let mut packet = Packet::default();
    let wrong = packet.ethernet(frame).is_some() || packet.ipv4(frame).is_some();
    let later = packet.fragmentation == Fragmentation::Later;
    if wrong || !later && packet.transport(frame).is_some() {
        return Some(Way::Header);
    }
    let (tuple, kind) = track::tuple(&packet, true);
    match packet.fragmentation {
        Fragmentation::Whole => {}
        // The router lets no answer pass whose question it has not seen.
        Fragmentation::First if matches!(kind, Icmp::Reply(_)) => {}
        Fragmentation::Later if packet.protocol == ICMP => {
            packet.destination = mapped(floating.fixed);
            let key = fragment_key((floating.slot, true), &packet);
            let is_foreign = |first: &Fragment| {
                first.epoch != floating.epoch || flow::have_passed(FRAGMENT_TIMEOUT, first.seen, now)
            };
            return flows.fragment(&key).is_none_or(is_foreign).then_some(Way::Fragment);
        }
        // Only the router can wait for a first fragment that comes late.
        Fragmentation::First | Fragmentation::Later => return Some(Way::Fragment),
    }
    let tuple = match kind {
        Icmp::Error => match track::quoted(frame, &packet, true) {
            Some(tuple) => tuple,
            None => return Some(Way::Icmp),
        },
        Icmp::Other if packet.is_icmp() => return Some(Way::Icmp),
        Icmp::Request(_) | Icmp::Reply(_) | Icmp::Other => tuple,
    };
    let inside = Tuple { local: mapped(floating.fixed), ..tuple };
    let opens = packet.protocol == TCP && tcp::opens(packet.tcp_flags);
    let found = track::find(flows, floating.slot, &inside);
    let live = found.filter(|flow| flow.epoch == floating.epoch && !flow::expired(flow, tuple.protocol, now));
    if let Some(flow) = live {
        let reopened = opens && (flow.flags & FLOW_DEAD != 0 || State::of(flow.state).is_over());
        if !reopened {
            return (flow.flags & FLOW_FAST == 0).then_some(Way::SlowFlow);
        }
    }
    if kind == Icmp::Error {
        return Some(Way::Icmp);
    }
    // Nothing begins with an answer, and this may be one to what the router has sent, with an identifier of its own.
    if matches!(kind, Icmp::Reply(_)) {
        return Some(Way::UnknownFlow);
    }
    let known_outside = Tuple { local: packet.destination, ..tuple };
    let is_held = |tuple| tables.is_held(&track::key4(floating.slot, tuple));
    begin_way(frame, tables, floating, (&packet, opens))
        .or_else(|| (packet.protocol != TCP && (is_held(&known_outside) || is_held(&inside))).then_some(Way::HeldFlow))
        .or_else(|| {
            let asked = packet.protocol != TCP && has_ports(packet.protocol);
            (asked && tables.is_asked(&without_port(floating.slot, &inside), now)).then_some(Way::SlowFlow)
        })
}

/// What keeps a packet from beginning a flow on the fast way. `opens`: it asks for a new TCP connection.
#[inline(always)]
fn begin_way<F: Frame, L: FloatingTables>(
    frame: &F,
    tables: &L,
    floating: &Floating,
    (packet, opens): (&Packet, bool),
) -> Option<Way> {
    if packet.protocol == TCP && !opens {
        return Some(Way::UnknownFlow);
    }
    if floating.flags & FLOATING_BEGINS == 0 {
        return Some(Way::Draining);
    }
    if may_be_partial(frame) {
        return Some(Way::PartialChecksum);
    }
    (!answers_leave(tables, floating, packet.source[3])).then_some(Way::Unresolved)
}
