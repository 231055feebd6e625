//! Asks the filter, keeps the budget, writes the record or counts that there is none.

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};
use netdiag_common::{
    abi::live::{Config, HEAD, Seen, TICK_BITS, Tally},
    logic::live::{Bytes, Start, covers},
};

use crate::maps::{CONFIG, RECORDS, Scratch, TALLY};

/// The bytes of a record in the making.
struct Known<'a>(&'a Scratch);

impl Bytes for Known<'_> {
    #[inline(always)]
    fn half(&self, offset: u32) -> Option<u16> {
        if offset + 2 > u32::from(self.0.seen.known) {
            return None;
        }
        // The compiler knows that the mask changes nothing; the verifier has to see it.
        let mut offset = u64::from(offset);
        // SAFETY: one arithmetic instruction.
        unsafe { asm!("{offset} &= 0xfe", offset = inout(reg) offset, options(pure, nomem, nostack)) };
        // SAFETY: the head begins at byte 64 of a scratch of 336.
        let place = unsafe { ptr::from_ref(self.0).cast::<u8>().add(size_of::<Seen>() - HEAD + offset as usize) };
        // SAFETY: as above; it is even, as the head is.
        #[expect(clippy::cast_ptr_alignment, reason = "the head and the offset are even")]
        Some(unsafe { *place.cast::<u16>() })
    }
}

/// True if there is to be a record of a packet, which has its time then. One that the budget leaves no room for is counted.
#[inline(always)]
pub fn wanted(scratch: &mut Scratch, start: Start, place: u32) -> bool {
    let Some(config) = CONFIG.get(0) else { return false };
    if !covers(config, &Known(scratch), start) {
        return false;
    }
    // SAFETY: the helper has no precondition.
    let time = unsafe { bpf_ktime_get_ns() };
    scratch.seen.time = time;
    within_budget(config, time, place)
}

#[inline(always)]
fn within_budget(config: &Config, time: u64, place: u32) -> bool {
    if config.budget == 0 {
        return true;
    }
    let Some(tally) = tally(place) else { return false };
    let tick = time >> TICK_BITS;
    if tally.tick != tick {
        (tally.tick, tally.used) = (tick, 0);
    }
    if tally.used >= config.budget.into() {
        tally.throttled = tally.throttled.wrapping_add(1);
        return false;
    }
    tally.used = tally.used.wrapping_add(1);
    true
}

/// Writes a record. Nobody is woken: that costs a hundred times what the record does, and whoever reads looks often enough.
#[inline(always)]
pub fn write(scratch: &mut Scratch, place: u32) {
    let seen = &mut scratch.seen;
    // SAFETY: the helper has no precondition.
    seen.cpu = unsafe { bpf_get_smp_processor_id() };
    seen.pad = [0; 2];
    if RECORDS.output_untyped::<Seen>(&*seen, BPF_RB_NO_WAKEUP.into()).is_err()
        && let Some(tally) = tally(place)
    {
        tally.lost = tally.lost.wrapping_add(1);
    }
}

/// The tally of this CPU for one kind of program.
#[inline(always)]
fn tally(place: u32) -> Option<&'static mut Tally> {
    let tally = TALLY.get_ptr_mut(place)?;
    // SAFETY: the element is this CPU's and this kind of program's own, and is never freed.
    Some(unsafe { &mut *tally })
}
