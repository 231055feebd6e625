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
//! | [`linear`] | first bytes that lie in one piece |
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
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes and verdicts are small, whatever the width of their type"
)]

use aya_ebpf::{
    bindings::{
        BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    helpers::{bpf_redirect, bpf_redirect_peer, bpf_skb_change_type, bpf_skb_vlan_pop, bpf_skb_vlan_push},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use netdiag_common::abi::floating::{FAST_MARK, FLOATING_RECEIVED, Floating, Leaving};

use crate::{
    enforce::{Arrival, Fate},
    frame::{Skb, Xdp},
};

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
/// First bytes that lie in one piece.
mod linear;
/// Every map.
mod maps;
/// Notes of flows about which nothing changes.
mod settled;
/// The tables of a decision, over the maps.
mod tables;

/// No device has this index: what is redirected there ends there.
const NOWHERE: u32 = i32::MAX as u32;
/// A customer's VLAN tag (IEEE 802.1Q).
const VLAN: u16 = 0x8100;
/// `PACKET_HOST` of `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

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
    match enforce::from_instance(&mut Skb::of_instance(&ctx), ifindex(&ctx)) {
        Fate::Passes => TC_ACT_UNSPEC,
        Fate::Ends => TC_ACT_SHOT,
        Fate::Leaves(leaving) => leave(&ctx, leaving),
        // SAFETY: the helper notes an index.
        Fate::Straight(device) => unsafe { bpf_redirect(device, 0) as i32 },
    }
}

/// Sends what has been translated out of the external device.
#[inline(always)]
fn leave(ctx: &TcContext, leaving: &Leaving) -> i32 {
    // SAFETY: the buffer is of this packet.
    if leaving.vlan != 0 && unsafe { bpf_skb_vlan_push(ctx.skb.skb, VLAN.to_be(), leaving.vlan) } != 0 {
        return TC_ACT_SHOT;
    }
    let flags = if leaving.flags & FLOATING_RECEIVED != 0 { u64::from(BPF_F_INGRESS) } else { 0 };
    // SAFETY: the helper notes an index.
    unsafe { bpf_redirect(leaving.device, flags) as i32 }
}

/// Decides about what is sent to an instance; at TC egress of its device on the host.
///
/// What is refused is redirected to no device: the sender of a frame that is shot at TC egress is told of an error, for which
/// Open vSwitch throws away the rest of the batch it was sending.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
#[inline(always)]
fn to_instance(ctx: TcContext) -> i32 {
    let marked = take_mark(&ctx);
    let fast = marked == Marked::Fast;
    if marked == Marked::Decided || enforce::to_instance(&Skb::of_instance(&ctx), ifindex(&ctx), fast) {
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
    match enforce::from_instance(&mut Xdp(&ctx), ctx.ingress_ifindex() as u32) {
        // What is redirected from here is sent past the TC egress of the other device, where it would have to be decided about:
        // user space gives such ports no network.
        Fate::Passes | Fate::Straight(_) => XDP_PASS,
        Fate::Ends => XDP_DROP,
        // Out of the device: what is to be received instead is never given to this program.
        Fate::Leaves(leaving) => redirect_xdp(leaving.device),
    }
}

/// Takes packets for floating IPs past the router; at TC ingress of an external device.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
#[inline(always)]
fn from_external(ctx: TcContext) -> i32 {
    let Some(vlan) = vlan(&ctx) else { return TC_ACT_UNSPEC };
    match enforce::from_external(&mut Skb::from_outside(&ctx), ifindex(&ctx), vlan, false) {
        Arrival::Passes => TC_ACT_UNSPEC,
        Arrival::Ends => TC_ACT_SHOT,
        Arrival::Delivered(floating) => deliver(&ctx, floating, vlan),
        Arrival::Forwarded(floating, mark) => forward(&ctx, floating, (vlan, mark)),
    }
}

/// Takes what the host itself sends to floating IPs past the router; at TC egress of the internal device of a bridge.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[classifier]
#[inline(always)]
fn from_host(ctx: TcContext) -> i32 {
    let Some(vlan) = vlan(&ctx) else { return TC_ACT_UNSPEC };
    match enforce::from_external(&mut Skb::from_outside(&ctx), ifindex(&ctx), vlan, false) {
        Arrival::Passes => TC_ACT_UNSPEC,
        Arrival::Ends => TC_ACT_SHOT,
        // Nothing can be put into the peer from TC egress, and user space asks for it only at TC ingress.
        Arrival::Delivered(floating) => forward(&ctx, floating, (vlan, FAST_MARK)),
        Arrival::Forwarded(floating, mark) => forward(&ctx, floating, (vlan, mark)),
    }
}

/// Takes packets for floating IPs past the router where frames are taken before TC ingress.
#[expect(clippy::needless_pass_by_value, reason = "an entry point is handed its context")]
#[xdp]
#[inline(always)]
fn from_external_xdp(ctx: XdpContext) -> u32 {
    // What is redirected from here is sent past the TC egress of the device: it is decided about here.
    match enforce::from_external(&mut Xdp(&ctx), ctx.ingress_ifindex() as u32, 0, true) {
        Arrival::Passes => XDP_PASS,
        Arrival::Ends => XDP_DROP,
        Arrival::Delivered(floating) | Arrival::Forwarded(floating, _) => redirect_xdp(floating.device),
    }
}

/// Sends a frame out of a device.
#[inline(always)]
fn redirect_xdp(device: u32) -> u32 {
    // SAFETY: the helper notes an index.
    let action = unsafe { bpf_redirect(device, 0) };
    action as u32
}

/// Puts what has been translated and may pass into the instance's own device.
#[inline(always)]
fn deliver(ctx: &TcContext, floating: &Floating, vlan: u32) -> i32 {
    // It came to the router's MAC address, so the kernel takes it for somebody else's.
    // SAFETY: the buffer is of this packet.
    if !untag(ctx, vlan) || unsafe { bpf_skb_change_type(ctx.skb.skb, PACKET_HOST) } != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: the helper notes an index.
    unsafe { bpf_redirect_peer(floating.device, 0) as i32 }
}

/// Sends what has been translated to the host's device of the instance, and says by a mark how it comes.
#[inline(always)]
fn forward(ctx: &TcContext, floating: &Floating, (vlan, mark): (u32, u32)) -> i32 {
    if !untag(ctx, vlan) {
        return TC_ACT_SHOT;
    }
    // SAFETY: the kernel hands a classifier a valid `__sk_buff`, and the verifier rewrites this store to one of its fields.
    unsafe { (*ctx.skb.skb).mark = mark };
    // SAFETY: the helper notes an index.
    unsafe { bpf_redirect(floating.device, 0) as i32 }
}

/// Takes the tag of the external network off; false if that fails.
#[inline(always)]
fn untag(ctx: &TcContext, vlan: u32) -> bool {
    // SAFETY: the buffer is of this packet.
    vlan == 0 || unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } == 0
}

/// The VLAN of a packet, whose tag travels beside it; 0 is untagged. `None`: its tag names no VLAN, or a provider's.
#[inline(always)]
fn vlan(ctx: &TcContext) -> Option<u32> {
    // SAFETY: the kernel hands a classifier a valid `__sk_buff`, and the verifier rewrites this load of one of its fields.
    if unsafe { (*ctx.skb.skb).vlan_present } == 0 {
        return Some(0);
    }
    // SAFETY: as above.
    let kind = unsafe { (*ctx.skb.skb).vlan_proto };
    // SAFETY: as above.
    let vlan = unsafe { (*ctx.skb.skb).vlan_tci } & 0xfff;
    (kind == u32::from(VLAN.to_be()) && vlan != 0).then_some(vlan)
}

/// What a mark says of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marked {
    /// Nothing.
    Not,
    /// It comes the fast way.
    Fast,
    /// It comes the fast way and may pass.
    Decided,
}

/// What its mark says of a packet; it does not say so any longer then.
#[inline(always)]
fn take_mark(ctx: &TcContext) -> Marked {
    // SAFETY: the kernel hands a classifier a valid `__sk_buff`, and the verifier rewrites this load of one of its fields.
    let marked = match unsafe { (*ctx.skb.skb).mark } {
        0 => return Marked::Not,
        FAST_MARK => Marked::Fast,
        mark if mark == settled::decided() => Marked::Decided,
        _ => return Marked::Not,
    };
    // SAFETY: as above, for a store.
    unsafe { (*ctx.skb.skb).mark = 0 };
    marked
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
