//! Reserves and submits ring-buffer records, and counts those for which there was no room. Must not block, and must
//! not change a verdict.

use aya_ebpf::programs::TcContext;
use netdiag_common::{
    ABI_VERSION,
    abi::{
        event::{Counted, Header, KIND_COUNTED},
        value::Counter,
    },
};

use crate::maps::EVENTS;

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
