//! The programs: what runs in the kernel. Flow: observe.
//!
//! | module | what it holds |
//! |---|---|
//! | [`maps`] | every map, with who writes and who reads it |
//! | [`counters`] | adds to the counter of this CPU |
//! | [`events`] | reserves and submits ring-buffer records |
//!
//! Entry points only name the steps. Nothing here panics: the verifier would refuse the program.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

/// Adds to the counter of this CPU.
mod counters;
/// Reserves and submits ring-buffer records.
mod events;
/// Every map.
mod maps;

/// Counts a packet, says so in the ring buffer, and lets it pass.
///
/// It returns `TC_ACT_UNSPEC`, which is `TCX_NEXT`: with either attachment the packet goes on to whatever other
/// program is on the hook, so this one can never open what that one closes.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
fn count(ctx: TcContext) -> i32 {
    if let Some(counter) = counters::add(ctx.len()) {
        events::counted(&ctx, counter);
    }
    TC_ACT_UNSPEC
}

/// Lets the program use the helpers the kernel reserves for GPL-compatible code.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Required by the compiler. Nothing calls it: code that can panic does not pass the verifier.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
