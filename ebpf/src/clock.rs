//! What time it is, in ticks. Decides nothing.

use core::cell::UnsafeCell;

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use netdiag_common::abi::flow::{Tick, tick};

/// A word that every CPU reads and writes whole.
struct Shared(UnsafeCell<u64>);

// SAFETY: it is only ever read and written by one load or store of an aligned word, and any value it was given is right.
unsafe impl Sync for Shared {}

/// The tick, and in the upper half the jiffy in which the clock was asked for it.
static TICKED: Shared = Shared(UnsafeCell::new(0));

/// Now. The clock is asked once a jiffy, when it changes: the kernel's count of jiffies is a load, the clock a call.
#[inline(always)]
pub fn now() -> Tick {
    // SAFETY: the helper has no precondition.
    let jiffy = unsafe { bpf_jiffies64() } & 0xffff_ffff;
    // SAFETY: the word outlives every run of the program. Volatile, as other CPUs write it.
    let known = unsafe { TICKED.0.get().read_volatile() };
    // Nothing is known yet where the tick is 0, or in the first second of the machine.
    if known >> 32 == jiffy && known as Tick != 0 {
        return known as Tick;
    }
    // SAFETY: the helper has no precondition.
    let now = tick(unsafe { bpf_ktime_get_coarse_ns() });
    // SAFETY: as above.
    unsafe { TICKED.0.get().write_volatile(jiffy << 32 | u64::from(now)) };
    now
}
