//! Decides, counts and says so: what all entry points share. Flow: policy, observe.

use netdiag_common::{
    abi::{policy::PORT_LOG_ALLOWED, reason::Reason, value::tally_index},
    logic::{
        decide::{Ask, decide},
        frame::Frame,
        packet::Packet,
        short,
        tables::PolicyTables as _,
    },
};

use crate::{
    clock, events, maps,
    tables::{self, Flows, Policy},
};

/// What becomes of a packet at a device.
#[inline(always)]
pub fn packet<F: Frame>(frame: &F, ifindex: u32, ingress: bool) -> bool {
    let Some(slot) = tables::slot(ifindex) else { return true };
    let ask = Ask { slot, ingress, now: clock::now() };
    // A device that leads to a place there is none of is somebody's, and nothing is known of what may pass it.
    let Some(port) = Policy.port(slot) else { return false };
    let mut flows = Flows::new(slot);
    if short::passes(frame, &Policy, &mut flows, port, ask) {
        tally(ask, Reason::Established, frame.length());
        return true;
    }
    let mut packet = Packet::default();
    let reason = decide(frame, &Policy, &mut flows, ask, &mut packet);
    tally(ask, reason, frame.length());
    let begins = matches!(reason, Reason::Rule | Reason::Untracked);
    if begins {
        hit(packet.rule);
    }
    if !reason.passes() || begins && port.flags & PORT_LOG_ALLOWED != 0 {
        events::decided(frame.length(), ifindex, ask, &packet, reason);
    }
    reason.passes()
}

/// Counts a packet of a port.
#[inline(always)]
fn tally(ask: Ask, reason: Reason, length: u32) {
    if let Some(tally) = maps::TALLIES.get_ptr_mut(tally_index(ask.slot, ask.ingress, reason as u8)) {
        // SAFETY: the element is this CPU's own, and is never freed.
        let tally = unsafe { &mut *tally };
        tally.packets = tally.packets.wrapping_add(1);
        tally.bytes = tally.bytes.wrapping_add(u64::from(length));
    }
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
