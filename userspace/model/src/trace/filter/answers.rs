//! What follows the first packet of a flow: the answers to it, and the rest of it.
//!
//! Rules may let the first packet of a flow pass and drop what connection tracking calls ESTABLISHED, or not know an
//! answer because nobody tracked the question. To whoever waits for it that is a path that does not work.

use super::{Place, ask, push_filter};
use crate::{
    id::NetnsId,
    inventory::Inventory,
    netfilter::{CtState, Hook, Known, Outcome, Packet, Walk},
    trace::path::Path,
};

/// IP protocol number of TCP.
const TCP: u8 = 6;

/// The answer to a packet, as it starts its way back.
pub(super) fn answer(first: &Packet) -> Packet {
    let back = Packet {
        in_device: first.out_device.clone(),
        out_device: first.in_device.clone(),
        physdev_in: first.physdev_out.clone(),
        physdev_out: first.physdev_in.clone(),
        bridged: first.bridged,
        connmark: first.connmark,
        protocol: first.protocol,
        ..Packet::between(first.destination, first.source)
    };
    if first.state == Known::Is(CtState::Untracked) {
        // To connection tracking, a SYN-ACK without the SYN fits no flow.
        return Packet { protocol: Known::Is(TCP), state: Known::Is(CtState::Invalid), ..back };
    }
    under_way(back)
}

/// The same packet, once the flow it starts was answered.
pub(super) fn under_way(first: Packet) -> Packet {
    Packet {
        state: if first.state == Known::Is(CtState::Untracked) { first.state } else { Known::Is(CtState::Established) },
        dnatted: Known::Unknown,
        snatted: Known::Unknown,
        tcp_flags: Known::Unknown,
        ..first
    }
}

/// Walks a packet through several hooks, one after the other: the walk of the first that kills it, else of the last.
pub(super) fn through(inventory: &Inventory<'_>, netns: NetnsId, hooks: &[Hook], packet: Packet) -> Walk {
    let (out, port_out) = (packet.out_device.clone(), packet.physdev_out.clone());
    let mut walked = Walk { steps: Vec::new(), outcome: Outcome::Accept, packet };
    for &hook in hooks {
        // Before routing, no packet has a device it leaves by.
        let (out_device, physdev_out) =
            if hook == Hook::Prerouting { (Known::Absent, Known::Absent) } else { (out.clone(), port_out.clone()) };
        walked = ask(inventory, netns, hook, Packet { out_device, physdev_out, ..walked.packet });
        if matches!(walked.outcome, Outcome::Drop { .. }) {
            break;
        }
    }
    walked
}

/// Adds a hop where packets of a flow under way die; those that are let through are not worth a line.
pub(super) fn report(path: &mut Path, inventory: &Inventory<'_>, place: &Place<'_>, walked: &Walk) {
    if matches!(walked.outcome, Outcome::Drop { .. }) {
        push_filter(path, inventory, place, walked);
    }
}
