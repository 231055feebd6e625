//! Reserves and submits ring-buffer records, and counts those for which there was no room. Must not block, and must
//! not change a verdict.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::bpf_ktime_get_coarse_ns, programs::TcContext};
use netdiag_common::{
    ABI_VERSION,
    abi::{
        event::{Counted, DECIDED_INGRESS, DECIDED_IPV6, Decided, Header, KIND_COUNTED, KIND_DECIDED},
        flow::Tick,
        reason::Reason,
        value::Counter,
    },
    logic::{decide::Ask, packet::Packet},
};

use crate::maps::{BUDGETS, DECISIONS, EVENTS, LOSSES, SETTINGS};

/// Says that a packet was counted.
#[inline]
pub fn counted(ctx: &TcContext, counter: &mut Counter) {
    let Some(mut record) = EVENTS.reserve(0) else {
        counter.lost = counter.lost.wrapping_add(1);
        return;
    };
    record.write(Counted {
        header: Header { version: ABI_VERSION, kind: KIND_COUNTED, pad: 0, ifindex: ifindex(ctx) },
        length: ctx.len(),
        pad: 0,
        counter: *counter,
    });
    record.submit(0);
}

/// Index of the device the program is attached to.
#[inline]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel hands a classifier a valid `__sk_buff` for the whole run, and the verifier rewrites this load
    // of one of its fields.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Says what became of a packet, unless its port has used up its share of records. Nobody is woken: that costs a hundred
/// times what the record does, and whoever reads looks often enough.
#[inline(always)]
pub fn decided(length: u32, ifindex: u32, ask: Ask, packet: &Packet, reason: Reason) {
    if !within_budget(ask.slot, ask.now) {
        lose(ask.slot, true);
        return;
    }
    let Some(mut record) = DECISIONS.reserve(0) else {
        lose(ask.slot, false);
        return;
    };
    // SAFETY: the helper has no precondition.
    let time = unsafe { bpf_ktime_get_coarse_ns() };
    let family = if packet.ipv6 { DECIDED_IPV6 } else { 0 };
    record.write(Decided {
        header: Header { version: ABI_VERSION, kind: KIND_DECIDED, pad: 0, ifindex },
        time,
        source: packet.source,
        destination: packet.destination,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        rule: packet.rule,
        slot: ask.slot,
        length,
        ethertype: packet.ethertype,
        protocol: packet.protocol,
        reason: reason as u8,
        flags: family | if ask.ingress { DECIDED_INGRESS } else { 0 },
        pad: [0; 3],
    });
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// True if a port may cause another record in this tick. CPUs may count over each other: the share is a bound on the cost,
/// not a promise of so many records.
#[inline(always)]
fn within_budget(slot: u32, now: Tick) -> bool {
    let (Some(budget), Some(settings)) = (BUDGETS.get_ptr_mut(slot), SETTINGS.get(0)) else { return false };
    // SAFETY: the pointer is to an element of an array, which is never freed.
    let budget = unsafe { &mut *budget };
    if budget.tick != now {
        budget.tick = now;
        budget.used = 0;
    }
    budget.used = budget.used.wrapping_add(1);
    budget.used <= settings.events_per_second
}

/// Counts a record that was not written.
#[inline(always)]
fn lose(slot: u32, suppressed: bool) {
    if let Some(losses) = LOSSES.get_ptr_mut(slot) {
        // SAFETY: the element is this CPU's own, and is never freed.
        let losses = unsafe { &mut *losses };
        if suppressed {
            losses.suppressed = losses.suppressed.wrapping_add(1);
        } else {
            losses.lost = losses.lost.wrapping_add(1);
        }
    }
}
