//! Keeps the budget, and writes the record or counts that there is none.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_jiffies64},
};
use netdiag_common::abi::live::{Config, Seen, Tally};

use crate::maps::{self, RECORDS};

/// True if there may be a record of a packet that the filter covers, which is counted before its time is taken: whoever reads knows by
/// it what is still being written. One that the budget leaves no room for is counted, and that is all that is done about it: what it
/// costs is what a flood costs.
#[inline(always)]
pub fn has_room(config: &Config, place: u32) -> bool {
    let Some(tally) = maps::tally(place) else { return false };
    if config.budget != 0 && is_used_up(config, tally) {
        tally.throttled = tally.throttled.wrapping_add(1);
        return false;
    }
    tally.records = tally.records.wrapping_add(1);
    true
}

/// Whether there have been as many records in this tick as there may be.
#[inline(always)]
fn is_used_up(config: &Config, tally: &mut Tally) -> bool {
    // SAFETY: the helper has no precondition. It is a load of a word, unlike asking a clock.
    let tick = unsafe { bpf_jiffies64() } >> (config.tick_shift & 63);
    if tally.tick != tick {
        (tally.tick, tally.until) = (tick, tally.records.wrapping_add(config.budget.into()));
    }
    tally.records >= tally.until
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
