//! Decides, counts and says so: what all entry points share. Flow: policy, observe.

use netdiag_common::{
    abi::{
        floating::{FAST_MARK, FLOATING_PEER, Floating, Leaving, Way, way_index},
        flow::FLOW_FAST,
        policy::{PORT_LOG_ALLOWED, Port},
        reason::Reason,
        value::{Tally, tally_index},
    },
    logic::{
        decide::{Ask, decide},
        floating::{self, Exit, Passed},
        frame::Frame,
        packet::Packet,
        rewrite::{Change, Rewrite, translate},
        short,
    },
};

use crate::{
    clock, events, maps, settled,
    tables::{self, Arrived, Beginning, Departing, Floats, Flows, Policy},
};

/// What becomes of a packet of an instance.
pub enum Fate<'t> {
    /// It goes on to whatever comes next.
    Passes,
    /// It ends here.
    Ends,
    /// It has been translated and leaves the host past the router.
    Leaves(&'t Leaving),
    /// It goes to another instance's device, whose program decides about it.
    Straight(u32),
}

/// What becomes of a packet that comes to the host.
pub enum Arrival<'t> {
    /// It goes on to whatever comes next.
    Passes,
    /// It ends here.
    Ends,
    /// It has been translated, may pass, and goes to the instance.
    Delivered(&'t Floating),
    /// It has been translated and goes to the device of the instance, whose program decides about it, or is told by this mark that
    /// it may pass.
    Forwarded(&'t Floating, u32),
}

/// What becomes of a packet an instance sends.
#[inline(always)]
pub fn from_instance<F: Rewrite>(frame: &mut F, ifindex: u32) -> Fate<'static> {
    let Some(slot) = tables::slot(ifindex) else { return Fate::Passes };
    // A device that leads to a place there is none of is somebody's, and nothing is known of what may pass it.
    let Some(port) = tables::port(slot) else { return Fate::Ends };
    let ask = Ask { slot, ingress: false, now: clock::now(), local: 0 };
    let beginning = Departing { frame: &*frame, epoch: port.epoch };
    let Some(passed) = passes(frame, beginning, (port, ifindex), ask) else { return Fate::Ends };
    // What an instance sends to itself no bridge gives back.
    if let Some(device) = tables::station(frame, slot).filter(|device| *device != ifindex && frame.fits(*device)) {
        count_way(ask, Way::Straight, frame.length());
        return Fate::Straight(device);
    }
    match floating::outward(frame, &Floats, (slot, port.epoch)) {
        None => Fate::Passes,
        Some(Err(way)) => through_router(frame, ask, way),
        Some(Ok(exit)) => leave(frame, &exit, ask, passed),
    }
}

/// Sends a packet past the router, if its flow goes there.
#[inline(always)]
fn leave<F: Rewrite>(frame: &mut F, exit: &Exit<'static>, ask: Ask, passed: Passed) -> Fate<'static> {
    let way = floating::departure(exit, passed);
    let gone = way == Way::Fast && !frame.fits(exit.leaving.device);
    if gone || way != Way::Fast {
        return through_router(frame, ask, if gone { Way::Gone } else { way });
    }
    count_way(ask, way, frame.length());
    if translate(frame, &exit.change()) { Fate::Leaves(exit.leaving) } else { Fate::Ends }
}

/// Leaves a packet to the router, which may give it another port.
#[inline(always)]
fn through_router<F: Frame>(frame: &F, ask: Ask, way: Way) -> Fate<'static> {
    count_way(ask, way, frame.length());
    if let Some(key) = floating::far_end(frame, ask.slot) {
        Floats::ask(&key, ask.now);
    }
    Fate::Passes
}

/// What becomes of a packet that is sent to an instance. `fast`: it comes from the external device, translated.
#[inline(always)]
pub fn to_instance<F: Frame>(frame: &F, ifindex: u32, fast: bool) -> bool {
    let Some(slot) = tables::slot(ifindex) else { return true };
    let Some(port) = tables::port(slot) else { return false };
    let ask = Ask { slot, ingress: true, now: clock::now(), local: 0 };
    passes(frame, Arrived { fast }, (port, ifindex), ask).is_some()
}

/// Decides about a packet of a port, counts and says so; `None` if it ends here.
#[inline(always)]
fn passes<F: Frame, B: Beginning>(frame: &F, beginning: B, (port, ifindex): (&Port, u32), ask: Ask) -> Option<Passed> {
    let mut flows = Flows::new(ask.slot);
    let policy = Policy(beginning);
    if let Some(flags) = short::passes(frame, &policy, &mut flows, port, ask) {
        tally(ask, Reason::Established, frame.length());
        return Some(Passed { flags, tracked: true, icmp: false });
    }
    long(frame, &mut flows, &policy, (port, ifindex), ask)
}

/// The same for packets the short way says nothing of.
#[inline(always)]
fn long<F: Frame, B: Beginning>(
    frame: &F,
    flows: &mut Flows,
    policy: &Policy<B>,
    (port, ifindex): (&Port, u32),
    ask: Ask,
) -> Option<Passed> {
    let mut packet = Packet::default();
    let reason = decide(frame, policy, flows, ask, &mut packet);
    tally(ask, reason, frame.length());
    let begins = matches!(reason, Reason::Rule | Reason::Untracked);
    if begins {
        hit(packet.rule);
    }
    if !reason.passes() || begins && port.flags & PORT_LOG_ALLOWED != 0 {
        events::decided(frame.length(), ifindex, ask, &packet, reason);
    }
    let Packet { flow_flags: flags, tracked, .. } = packet;
    reason.passes().then_some(Passed { flags, tracked, icmp: packet.is_icmp() })
}

/// What becomes of a packet that comes to the host by an external device. `here`: it is decided about here, as no program at the
/// instance's device will see it; else only where the instance's own device can be given it directly, or its flow is established.
#[inline(always)]
pub fn from_external<F: Rewrite>(frame: &mut F, device: u32, vlan: u32, here: bool) -> Arrival<'static> {
    let Some((floating, address, way)) = floating::inward(frame, &Floats, tables::port, (device, vlan)) else {
        return Arrival::Passes;
    };
    let ask = Ask { slot: floating.slot, ingress: true, now: clock::now(), local: floating.fixed };
    if let Some(way) = way {
        count_way(ask, way, frame.length());
        return Arrival::Passes;
    }
    let Some(port) = tables::port(ask.slot) else { return Arrival::Passes };
    if !frame.fits(floating.device) {
        count_way(ask, Way::Gone, frame.length());
        return Arrival::Passes;
    }
    let change = floating::arrival(floating, address);
    let here = here || floating.flags & FLOATING_PEER != 0;
    let mut flows = Flows::new(ask.slot);
    let policy = Policy(Arrived { fast: true });
    if let Some(flags) = short::passes(frame, &policy, &mut flows, port, ask) {
        return established(frame, floating, &change, (ask, flags, here));
    }
    if let Some(way) = floating::flow_way(frame, &Floats, &mut flows, floating, ask.now) {
        count_way(ask, way, frame.length());
        return Arrival::Passes;
    }
    if !translate(frame, &change) {
        return Arrival::Ends;
    }
    let ask = Ask { local: 0, ..ask };
    if here && long(frame, &mut flows, &policy, (port, floating.device), ask).is_none() {
        count_way(ask, Way::Refused, frame.length());
        return Arrival::Ends;
    }
    count_way(ask, Way::Fast, frame.length());
    if here { Arrival::Delivered(floating) } else { Arrival::Forwarded(floating, FAST_MARK) }
}

/// A packet of an established flow that comes by an external device. `here`: it goes right into the instance's own device.
#[inline(always)]
fn established<F: Rewrite>(
    frame: &mut F,
    floating: &'static Floating,
    change: &Change,
    (ask, flags, here): (Ask, u8, bool),
) -> Arrival<'static> {
    if flags & FLOW_FAST == 0 {
        count_way(ask, Way::SlowFlow, frame.length());
        return Arrival::Passes;
    }
    tally(ask, Reason::Established, frame.length());
    count_way(ask, Way::Fast, frame.length());
    match translate(frame, change) {
        false => Arrival::Ends,
        true if here => Arrival::Delivered(floating),
        true => Arrival::Forwarded(floating, settled::decided()),
    }
}

/// Counts a packet of a port.
#[inline(always)]
fn tally(ask: Ask, reason: Reason, length: u32) {
    if let Some(tally) = maps::TALLIES.get_ptr_mut(tally_index(ask.slot, ask.ingress, reason as u8)) {
        // SAFETY: the element is this CPU's own, and is never freed.
        add(unsafe { &mut *tally }, length);
    }
}

/// Counts a packet of a floating IP.
#[inline(always)]
fn count_way(ask: Ask, way: Way, length: u32) {
    if let Some(tally) = maps::WAYS_TAKEN.get_ptr_mut(way_index(ask.slot, ask.ingress, way as u8)) {
        // SAFETY: the element is this CPU's own, and is never freed.
        add(unsafe { &mut *tally }, length);
    }
}

#[inline(always)]
const fn add(tally: &mut Tally, length: u32) {
    tally.packets = tally.packets.wrapping_add(1);
    tally.bytes = tally.bytes.wrapping_add(length as u64);
}

/// Counts what a rule has allowed.
#[inline(always)]
fn hit(rule: u32) {
    if let Some(hits) = maps::HITS.get_ptr_mut(rule) {
        // SAFETY: the element is this CPU's own, and is never freed.
        let hits = unsafe { &mut *hits };
        *hits = hits.wrapping_add(1);
    }
}
