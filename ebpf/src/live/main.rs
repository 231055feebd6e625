//! The programs that say which packets they see. They change no packet and no verdict. Flow: observe.
//!
//! | module | what it holds |
//! |---|---|
//! | [`maps`] | every map, with who writes and who reads it |
//! | [`kernel`] | fields of the kernel's own structures |
//! | [`linear`] | first bytes that lie in one piece, as in the other object |
//! | [`wanted`] | asks the filter |
//! | [`report`] | keeps the budget, writes the record or counts that there is none |
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
use netdiag_common::abi::live::{
    CONFIG_INDEX_IS_ENOUGH, Config, HEAD, SEEN_BY_SOCKET, SEEN_DROPPED, SEEN_NETWORK, SEEN_OF_SOCKET, SEEN_RECEIVED,
    SEEN_SENT, SEEN_TAGGED, Seen, TALLY_DROPPED, TALLY_SOCKET, TALLY_WAY, Tally,
};

use crate::{
    kernel::{Buffer, Dying, First, Place, layout},
    maps::Front,
    wanted::Frame,
};

/// Fields of the kernel's own structures.
mod kernel;
/// First bytes that lie in one piece.
#[path = "../linear.rs"]
mod linear;
/// Every map.
mod maps;
/// Keeps the budget, writes the record or counts that there is none.
mod report;
/// Asks the filter.
mod wanted;

/// Received or sent: what is not a record has no need to know.
const EITHER: u8 = 0;

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

/// Sees what comes out of an Ethernet device and what goes into it; at either side of TC, where the kernel says which it is.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
fn live_either(ctx: TcContext) -> i32 {
    on_its_way(ctx.skb.skb, EITHER, 0);
    TC_ACT_UNSPEC
}

/// The same of a device without link-layer headers.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
fn live_either_ip(ctx: TcContext) -> i32 {
    on_its_way(ctx.skb.skb, EITHER, SEEN_NETWORK);
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
    let Some(tally) = maps::tally(TALLY_WAY) else { return };
    let frame = Frame::of(skb, flags & SEEN_NETWORK != 0);
    if wanted::of_frame(tally, &frame, TALLY_WAY, |packet| load(skb, packet)) && report::has_room(tally) {
        record(skb, kind, flags);
    }
}

/// Apart, so that a packet of which there is no record pays for nothing of it.
#[inline(never)]
fn record(skb: *mut __sk_buff, kind: u8, flags: u8) {
    report::write(TALLY_WAY, |seen| describe(skb, seen, (kind, flags)));
}

#[inline(always)]
fn at_socket(skb: *mut __sk_buff, kind: u8) {
    let Some(tally) = maps::tally(TALLY_SOCKET) else { return };
    if is_wanted_at_socket(tally, skb) && report::has_room(tally) {
        report::write(TALLY_SOCKET, |seen| {
            let described = describe(skb, seen, (kind, SEEN_BY_SOCKET));
            if kind == SEEN_SENT {
                // It is a copy of the buffer that is sent.
                seen.buffer = 0;
            }
            described
        });
    }
}

#[inline(always)]
fn is_wanted_at_socket(tally: &mut Tally, skb: *mut __sk_buff) -> bool {
    if maps::config().products == 0 {
        return true;
    }
    let Some(scratch) = maps::scratch(TALLY_SOCKET) else { return false };
    load(skb, &mut scratch.packet) && wanted::of_loaded(tally, false, TALLY_SOCKET, |_| true)
}

/// The first bytes of a packet, to be read layer by layer; false if it has none.
#[inline(always)]
fn load(skb: *mut __sk_buff, packet: &mut Front) -> bool {
    packet.known = first_bytes(skb, &mut packet.head);
    packet.known > 0
}

/// Copies the first bytes of a packet; how many there are.
#[inline(always)]
fn first_bytes(skb: *mut __sk_buff, head: &mut [u8; HEAD]) -> u32 {
    // SAFETY: the kernel hands the program a valid `__sk_buff`, and the verifier rewrites this load of one of its fields.
    let Some(known) = kernel::at_most::<HEAD>(unsafe { (*skb).len }) else { return 0 };
    // SAFETY: there is room for so many bytes.
    let done = unsafe { bpf_skb_load_bytes(skb.cast(), 0, head.as_mut_ptr().cast(), known as u32) };
    if done == 0 { known as u32 } else { 0 }
}

/// Says what there is to say of a packet; false if its bytes cannot be read.
#[inline(always)]
fn describe(skb: *mut __sk_buff, seen: &mut Seen, (kind, flags): (u8, u8)) -> bool {
    let buffer = Buffer::of_context(skb, seen);
    // SAFETY: the kernel hands the program a valid `__sk_buff`, and the verifier rewrites loads of its fields.
    seen.length = unsafe { (*skb).len };
    // SAFETY: as above.
    let tagged = unsafe { (*skb).vlan_present } != 0;
    // SAFETY: as above.
    seen.tag = unsafe { (*skb).vlan_tci } as u16;
    // SAFETY: as above.
    seen.mark = unsafe { (*skb).mark };
    // SAFETY: as above.
    seen.ifindex = unsafe { (*skb).ifindex };
    let kind = match kind {
        EITHER if buffer.is_at_ingress() => SEEN_RECEIVED,
        EITHER => SEEN_SENT,
        kind => kind,
    };
    (seen.kind, seen.flags) = (kind, flags | if tagged { SEEN_TAGGED } else { 0 });
    (seen.reason, seen.location) = (0, 0);
    let is_enough = maps::config().flags & CONFIG_INDEX_IS_ENOUGH != 0;
    (seen.cookie, seen.inode) = if is_enough { (0, 0) } else { kernel::namespace_of_sure_device(buffer.device()) };
    let known = first_bytes(skb, &mut seen.head);
    seen.known = known as u16;
    known > 0
}

// === packets given up ===

#[inline(always)]
fn given_up(ctx: &BtfTracePointContext) {
    let reason: u32 = ctx.arg::<u64>(2) as u32;
    let layout = layout();
    if reason == layout.consumed {
        return;
    }
    let Some(tally) = maps::tally(TALLY_DROPPED) else { return };
    let dying = Dying::of(ctx.arg(0));
    let (first, network) = dying.start();
    if !is_wanted_dying(tally, &first, network) {
        return;
    }
    // Where it is takes longer to find than whether there may be a record of it.
    let everywhere = maps::config().given_up_in[0] == 0;
    if everywhere && !report::has_room(tally) {
        return;
    }
    let receiver = if layout.receiver == 0 { 0 } else { kernel::address_of(ctx.arg(3)) };
    let buffer = Buffer::of(ctx.arg(0));
    let place = buffer.place(receiver);
    // What others with the same addresses lose elsewhere must not use up what there may be of records.
    if everywhere || is_of(maps::config(), place.inode) && report::has_room(tally) {
        report::write(TALLY_DROPPED, |seen| {
            (seen.reason, seen.location) = (reason, ctx.arg(1));
            describe_dying(buffer, &first, seen, (network, place));
            true
        });
    }
}

/// Whether it is said what is given up in a namespace, where that is not said of all.
#[inline(always)]
fn is_of(config: &Config, inode: u32) -> bool {
    inode == 0 || config.given_up_in.contains(&inode)
}

/// How many of the first bytes are read before it is known that more are needed.
const FEW: usize = 64;

#[inline(always)]
fn is_wanted_dying(tally: &mut Tally, first: &First, network: bool) -> bool {
    if maps::config().products == 0 {
        return true;
    }
    let Some(scratch) = maps::scratch(TALLY_DROPPED) else { return false };
    scratch.packet.known = first.copy::<FEW>(&mut scratch.packet.head);
    wanted::of_loaded(tally, network, TALLY_DROPPED, |packet| {
        packet.known = first.copy::<HEAD>(&mut packet.head);
        true
    })
}

#[inline(always)]
fn describe_dying(buffer: Buffer, first: &First, seen: &mut Seen, (network, place): (bool, Place)) {
    seen.buffer = buffer.0;
    seen.kind = SEEN_DROPPED;
    seen.mark = buffer.mark();
    let tag = buffer.tag();
    seen.tag = tag.unwrap_or(0);
    let owned = if buffer.is_of_packet_socket() { SEEN_OF_SOCKET } else { 0 };
    seen.flags = if tag.is_some() { SEEN_TAGGED } else { 0 } | if network { SEEN_NETWORK } else { 0 } | owned;
    seen.length = first.length;
    seen.known = first.copy::<HEAD>(&mut seen.head) as u16;
    (seen.cookie, seen.inode, seen.ifindex) = (place.cookie, place.inode, place.ifindex);
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
