//! The programs that say which packets they see. They change no packet and no verdict. Flow: observe.
//!
//! | module | what it holds |
//! |---|---|
//! | [`maps`] | every map, with who writes and who reads it |
//! | [`kernel`] | fields of the kernel's own structures |
//! | [`report`] | asks the filter, keeps the budget, writes the record or counts that there is none |
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::inline_always,
    reason = "a call the compiler leaves costs the verifier and the packet more than it saves"
)]
#![expect(clippy::cast_possible_truncation, reason = "lengths and tags are small, whatever the width of their type")]

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    helpers::bpf_skb_load_bytes,
    macros::{btf_tracepoint, classifier, socket_filter},
    programs::{BtfTracePointContext, SkBuffContext, TcContext},
};
use netdiag_common::{
    abi::live::{
        HEAD, SEEN_BY_SOCKET, SEEN_DROPPED, SEEN_NETWORK, SEEN_RECEIVED, SEEN_SENT, SEEN_TAGGED, TALLY_DROPPED,
        TALLY_SOCKET, TALLY_WAY,
    },
    logic::live::Start,
};

use crate::{
    kernel::{Buffer, layout},
    maps::Scratch,
};

/// Fields of the kernel's own structures.
mod kernel;
/// Every map.
mod maps;
/// Asks the filter, keeps the budget, writes the record or counts that there is none.
mod report;

/// `PACKET_OUTGOING` of `linux/if_packet.h`.
const PACKET_OUTGOING: u32 = 4;

/// Sees what comes out of an Ethernet device; at TC ingress.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
fn live_in(ctx: TcContext) -> i32 {
    on_its_way(ctx.skb.skb, SEEN_RECEIVED, 0);
    TC_ACT_UNSPEC
}

/// Sees what goes into an Ethernet device; at TC egress.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
fn live_out(ctx: TcContext) -> i32 {
    on_its_way(ctx.skb.skb, SEEN_SENT, 0);
    TC_ACT_UNSPEC
}

/// Sees what comes out of a device without link-layer headers; at TC ingress.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
fn live_in_ip(ctx: TcContext) -> i32 {
    on_its_way(ctx.skb.skb, SEEN_RECEIVED, SEEN_NETWORK);
    TC_ACT_UNSPEC
}

/// Sees what goes into a device without link-layer headers; at TC egress.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
fn live_out_ip(ctx: TcContext) -> i32 {
    on_its_way(ctx.skb.skb, SEEN_SENT, SEEN_NETWORK);
    TC_ACT_UNSPEC
}

/// Sees what comes out of a device; at a packet socket, which gets nothing of it.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[socket_filter]
fn live_socket_in(ctx: SkBuffContext) -> i64 {
    if packet_type(ctx.skb.skb) != PACKET_OUTGOING {
        at_socket(ctx.skb.skb, SEEN_RECEIVED);
    }
    0
}

/// Sees what goes into a device; at a packet socket, which gets nothing of it.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[socket_filter]
fn live_socket_out(ctx: SkBuffContext) -> i64 {
    if packet_type(ctx.skb.skb) == PACKET_OUTGOING {
        at_socket(ctx.skb.skb, SEEN_SENT);
    }
    0
}

/// Sees what the kernel gives up; at the tracepoint `skb:kfree_skb`.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[btf_tracepoint(function = "kfree_skb")]
fn live_dropped(ctx: BtfTracePointContext) -> i32 {
    given_up(&ctx);
    0
}

#[inline(always)]
fn packet_type(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the kernel hands the program a valid `__sk_buff`, and the verifier rewrites this load of one of its fields.
    unsafe { (*skb).pkt_type }
}

// === packets on their way ===

#[inline(always)]
fn on_its_way(skb: *mut __sk_buff, kind: u8, flags: u8) {
    let Some(scratch) = maps::scratch(TALLY_WAY) else { return };
    if !load(skb, scratch) || !report::wanted(scratch, start(flags), TALLY_WAY) {
        return;
    }
    describe(skb, scratch, kind, flags);
    report::write(scratch, TALLY_WAY);
}

#[inline(always)]
fn at_socket(skb: *mut __sk_buff, kind: u8) {
    let Some(scratch) = maps::scratch(TALLY_SOCKET) else { return };
    if !load(skb, scratch) || !report::wanted(scratch, start(0), TALLY_SOCKET) {
        return;
    }
    describe(skb, scratch, kind, SEEN_BY_SOCKET);
    if kind == SEEN_SENT {
        // It is a copy of the buffer that is sent.
        scratch.seen.buffer = 0;
    }
    report::write(scratch, TALLY_SOCKET);
}

#[inline(always)]
const fn start(flags: u8) -> Start {
    Start { offset: 0, network: flags & SEEN_NETWORK != 0 }
}

/// The first bytes of a packet; false if it has none.
#[inline(always)]
fn load(skb: *mut __sk_buff, scratch: &mut Scratch) -> bool {
    // SAFETY: the kernel hands the program a valid `__sk_buff`, and the verifier rewrites this load of one of its fields.
    let length = unsafe { (*skb).len };
    let known = kernel::at_most_head(length);
    if known == 0 || known > HEAD as u64 {
        return false;
    }
    scratch.seen.length = length;
    scratch.seen.known = known as u16;
    let head = scratch.seen.head.as_mut_ptr().cast();
    // SAFETY: there is room for so many bytes.
    unsafe { bpf_skb_load_bytes(skb.cast(), 0, head, known as u32) == 0 }
}

/// What is to be said of a packet besides its bytes.
#[inline(always)]
fn describe(skb: *mut __sk_buff, scratch: &mut Scratch, kind: u8, flags: u8) {
    let buffer = Buffer::of_context(skb, scratch);
    let seen = &mut scratch.seen;
    // SAFETY: the kernel hands the program a valid `__sk_buff`, and the verifier rewrites loads of its fields.
    let tagged = unsafe { (*skb).vlan_present } != 0;
    // SAFETY: as above.
    seen.tag = unsafe { (*skb).vlan_tci } as u16;
    // SAFETY: as above.
    seen.mark = unsafe { (*skb).mark };
    // SAFETY: as above.
    seen.ifindex = unsafe { (*skb).ifindex };
    (seen.kind, seen.flags) = (kind, flags | if tagged { SEEN_TAGGED } else { 0 });
    (seen.reason, seen.location) = (0, 0);
    (seen.cookie, seen.inode) = kernel::namespace_of_sure_device(buffer.device());
}

// === packets given up ===

#[inline(always)]
fn given_up(ctx: &BtfTracePointContext) {
    let reason: u32 = ctx.arg::<u64>(2) as u32;
    let layout = layout();
    if reason == layout.consumed {
        return;
    }
    let Some(scratch) = maps::scratch(TALLY_DROPPED) else { return };
    let buffer = Buffer::of(ctx.arg(0));
    let network = buffer.load(scratch);
    let start = Start { offset: 0, network };
    if !report::wanted(scratch, start, TALLY_DROPPED) {
        return;
    }
    let receiver = if layout.receiver == 0 { 0 } else { kernel::address_of(ctx.arg(3)) };
    let seen = &mut scratch.seen;
    seen.buffer = buffer.0;
    seen.location = ctx.arg::<u64>(1);
    seen.reason = reason;
    seen.kind = SEEN_DROPPED;
    seen.mark = buffer.mark();
    let tag = buffer.tag();
    seen.tag = tag.unwrap_or(0);
    let tagged = if tag.is_some() { SEEN_TAGGED } else { 0 };
    seen.flags = tagged | if network { SEEN_NETWORK } else { 0 };
    buffer.place(seen, receiver);
    report::write(scratch, TALLY_DROPPED);
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
