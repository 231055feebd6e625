//! Adds to the counter of this CPU. Must not change a verdict.

use netdiag_common::abi::value::Counter;

use crate::maps::COUNTERS;

/// Counts one packet of `length` bytes. `None` only if the map had no such element, which the verifier cannot know.
#[inline]
pub fn add(length: u32) -> Option<&'static mut Counter> {
    let counter = COUNTERS.get_ptr_mut(0)?;
    // SAFETY: the map outlives every run of the program, the pointer is to this CPU's own element, and programs on one
    // CPU do not preempt each other on this hook, so no other reference to the element exists while this one does.
    let counter = unsafe { &mut *counter };
    counter.packets = counter.packets.wrapping_add(1);
    counter.bytes = counter.bytes.wrapping_add(u64::from(length));
    Some(counter)
}
