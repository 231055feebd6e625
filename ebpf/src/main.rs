//! The programs: what runs in the kernel. Flow: policy, observe.
//!
//! | module | what it holds |
//! |---|---|
//! | [`maps`] | every map, with who writes and who reads it |
//! | [`clock`] | what time it is |
//! | [`counters`] | adds to the counter of this CPU |
//! | [`enforce`] | decides, counts and says so |
//! | [`events`] | reserves and submits ring-buffer records |
//! | [`frame`] | where a packet is: the only place that reads packet memory |
//! | [`settled`] | notes of flows about which nothing changes |
//! | [`tables`] | the tables of a decision, over the maps |
//!
//! Entry points only name the steps. Nothing here panics: the verifier would refuse the program.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::inline_always,
    reason = "a call the compiler leaves costs the verifier and the packet more than it saves"
)]
#![expect(clippy::cast_possible_truncation, reason = "sizes and verdicts are small, whatever the width of their type")]

use aya_ebpf::{
    bindings::{
        TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    helpers::bpf_redirect,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::frame::{Skb, Xdp};

/// What time it is.
mod clock;
/// Adds to the counter of this CPU.
mod counters;
/// Decides, counts and says so.
mod enforce;
/// Reserves and submits ring-buffer records.
mod events;
/// Where a packet is.
mod frame;
/// Every map.
mod maps;
/// Notes of flows about which nothing changes.
mod settled;
/// The tables of a decision, over the maps.
mod tables;

/// No device has this index: what is redirected there ends there.
const NOWHERE: u32 = i32::MAX as u32;

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

/// Decides about what an instance sends; at TC ingress of its device on the host.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
#[inline(always)]
fn from_instance(ctx: TcContext) -> i32 {
    if enforce::packet(&Skb(&ctx), ifindex(&ctx), false) { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

/// Decides about what is sent to an instance; at TC egress of its device on the host.
///
/// What is refused is redirected to no device: the sender of a frame that is shot at TC egress is told of an error, for which
/// Open vSwitch throws away the rest of the batch it was sending.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
#[inline(always)]
fn to_instance(ctx: TcContext) -> i32 {
    if enforce::packet(&Skb(&ctx), ifindex(&ctx), true) {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the helper notes an index; that no device has it is found out after the program.
    unsafe { bpf_redirect(NOWHERE, 0) as i32 }
}

/// Decides about what an instance sends, where frames are taken before TC ingress.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[xdp]
#[inline(always)]
fn from_instance_xdp(ctx: XdpContext) -> u32 {
    if enforce::packet(&Xdp(&ctx), ctx.ingress_ifindex() as u32, false) { XDP_PASS } else { XDP_DROP }
}

/// Index of the device a classifier is attached to.
#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel hands a classifier a valid `__sk_buff` for the whole run, and the verifier rewrites this load of one
    // of its fields.
    unsafe { (*ctx.skb.skb).ifindex }
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
