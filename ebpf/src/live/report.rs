//! Keeps the budget, and writes the record or counts that there is none.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_jiffies64},
};
use netdiag_common::abi::live::{Seen, Tally};

use crate::maps::{self, RECORDS};

/// True if there may be a record of a packet that the filter covers, which is counted before its time is taken: whoever reads knows by
/// it what is still being written. One that the budget leaves no room for is counted, and that is all that is done about it: what it
/// costs is what a flood costs.
#[inline(always)]
pub fn has_room(tally: &mut Tally) -> bool {
    // SAFETY: the helper has no precondition. It is a load of a word, unlike asking a clock.
    let now = unsafe { bpf_jiffies64() };
    if now >= tally.next {
        begin_tick(tally, now);
    }
    if tally.records >= tally.until {
        tally.throttled = tally.throttled.wrapping_add(1);
        return false;
    }
    tally.records = tally.records.wrapping_add(1);
    true
}

/// Begins a tick of the budget. Apart: it is seldom done.
#[inline(never)]
fn begin_tick(tally: &mut Tally, now: u64) {
    let config = maps::config();
    let shift = config.tick_shift & 63;
    tally.next = ((now >> shift) + 1) << shift;
    tally.until = if config.budget == 0 { u64::MAX } else { tally.records.wrapping_add(config.budget.into()) };
}

/// Writes a record: time and CPU, and what `describe` says, which is true if it says all. Nobody is woken: that costs a hundred
/// times what the record does, and whoever reads looks often enough.
#[inline(always)]
pub fn write(place: u32, describe: impl FnOnce(&mut Seen) -> bool) {
    // SAFETY: the helper has no precondition.
    let time = unsafe { bpf_ktime_get_ns() };
    let Some(mut entry) = RECORDS.reserve_untyped::<Seen>(0) else {
        lose(place);
        return;
    };
    let seen: *mut Seen = MaybeUninit::as_mut_ptr(&mut entry);
    // SAFETY: any bytes are a record; what was there before is another.
    let seen = unsafe { &mut *seen };
    seen.time = time;
    // SAFETY: the helper has no precondition.
    seen.cpu = unsafe { bpf_get_smp_processor_id() };
    seen.pad = [0; 2];
    if describe(seen) {
        entry.submit(BPF_RB_NO_WAKEUP.into());
    } else {
        entry.discard(BPF_RB_NO_WAKEUP.into());
        lose(place);
    }
}

#[inline(always)]
fn lose(place: u32) {
    if let Some(tally) = maps::tally(place) {
        tally.lost = tally.lost.wrapping_add(1);
    }
}
