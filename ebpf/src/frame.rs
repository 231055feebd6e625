//! Where a packet is: a socket buffer or an XDP frame. The only place that reads packet memory.

use core::{
    ffi::{c_long, c_void},
    mem::MaybeUninit,
};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::{
        bpf_check_mtu, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    },
    programs::{TcContext, XdpContext},
};
use netdiag_common::logic::{
    frame::{Frame, Head},
    rewrite::Rewrite,
};

use crate::linear::Linear;

/// A packet of a classifier. `OUTSIDE`: a tag beside it is that of the network it comes by, and none of its own.
pub struct Skb<'a, const OUTSIDE: bool>(&'a TcContext);

/// A packet of an XDP program.
pub struct Xdp<'a>(pub &'a XdpContext);

/// Integers that a helper writes: it is told where, and how many bytes, and answers with an error or has written them all.
#[inline(always)]
fn written<T: Integers>(helper: impl FnOnce(*mut c_void, u32) -> c_long) -> Option<T> {
    let mut integers = MaybeUninit::<T>::uninit();
    let result = helper(integers.as_mut_ptr().cast(), T::BYTES);
    // SAFETY: the helper answered with success and has written every byte, and any bytes are integers.
    (result == 0).then(|| unsafe { integers.assume_init() })
}

/// Arrays of integers: every byte pattern is one.
trait Integers {
    /// Bytes of it.
    const BYTES: u32;
}

impl<const N: usize> Integers for [u16; N] {
    const BYTES: u32 = 2 * N as u32;
}

impl<const N: usize> Integers for [u32; N] {
    const BYTES: u32 = 4 * N as u32;
}

impl<'a> Skb<'a, false> {
    /// One that an instance sends or is sent.
    #[inline(always)]
    pub const fn of_instance(ctx: &'a TcContext) -> Self {
        Self(ctx)
    }
}

impl<'a> Skb<'a, true> {
    /// One that comes by an external device.
    #[inline(always)]
    pub const fn from_outside(ctx: &'a TcContext) -> Self {
        Self(ctx)
    }
}

impl<const OUTSIDE: bool> Skb<'_, OUTSIDE> {
    #[inline(always)]
    fn load<T: Integers>(&self, offset: u32) -> Option<T> {
        // SAFETY: the buffer is of this packet, and `written` hands over a place of so many bytes.
        written(|place, bytes| unsafe { bpf_skb_load_bytes(self.0.as_ptr(), offset, place, bytes) })
    }
}

impl<const OUTSIDE: bool> Frame for Skb<'_, OUTSIDE> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        // SAFETY: the kernel hands a classifier a valid `__sk_buff`, and the verifier rewrites this load of a field.
        !OUTSIDE && unsafe { (*self.0.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0.skb.skb).gso_size }
    }

    #[inline(always)]
    fn load16<const N: usize>(&self, offset: u32) -> Option<[u16; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn load32<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn head(&self, length: usize) -> Option<impl Head + '_> {
        Linear::within(self.0.data(), self.0.data_end(), length)
    }
}

/// Asks the kernel about a device: what is sent to one that is gone is lost, and nobody says so.
#[inline(always)]
fn fits(packet: *mut c_void, device: u32) -> bool {
    // The length of the packet at hand is asked for.
    let mut length = 0_u32;
    // SAFETY: the buffer is of this packet, and the place is a word.
    unsafe { bpf_check_mtu(packet, device, &raw mut length, 0, 0) == 0 }
}

impl<const OUTSIDE: bool> Rewrite for Skb<'_, OUTSIDE> {
    #[inline(always)]
    fn fits(&self, device: u32) -> bool {
        fits(self.0.as_ptr(), device)
    }

    #[inline(always)]
    fn store16<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool {
        // SAFETY: the buffer is of this packet, and the place has so many bytes.
        let result =
            unsafe { bpf_skb_store_bytes(self.0.as_ptr().cast(), offset, halves.as_ptr().cast(), 2 * N as u32, 0) };
        result == 0
    }

    #[inline(always)]
    fn pseudo_header(&mut self, offset: u32, from: u32, to: u32, optional: bool) -> bool {
        let optional = if optional { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let flags = u64::from(BPF_F_PSEUDO_HDR) | size_of::<u32>() as u64 | optional;
        // SAFETY: the buffer is of this packet.
        let result = unsafe { bpf_l4_csum_replace(self.0.as_ptr().cast(), offset, from.into(), to.into(), flags) };
        result == 0
    }
}

impl Rewrite for Xdp<'_> {
    #[inline(always)]
    fn fits(&self, device: u32) -> bool {
        fits(self.0.ctx.cast(), device)
    }

    #[inline(always)]
    fn store16<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool {
        // The helper only reads from there.
        let place = halves.as_ptr().cast_mut().cast();
        // SAFETY: the buffer is of this packet, and the place has so many bytes.
        let result = unsafe { bpf_xdp_store_bytes(self.0.ctx, offset, place, 2 * N as u32) };
        result == 0
    }
}

impl Xdp<'_> {
    #[inline(always)]
    fn load<T: Integers>(&self, offset: u32) -> Option<T> {
        // SAFETY: the buffer is of this packet, and `written` hands over a place of so many bytes.
        written(|place, bytes| unsafe { bpf_xdp_load_bytes(self.0.ctx, offset, place, bytes) })
    }
}

impl Frame for Xdp<'_> {
    const HIDES_PARTIAL: bool = true;

    #[inline(always)]
    fn length(&self) -> u32 {
        // A packet of several buffers is handed only to programs that say they can take it, and this one does not.
        (self.0.data_end() - self.0.data()) as u32
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        // A tag beside the packet is not to be seen from here. XDP is used only in front of Open vSwitch, which itself
        // drops what is tagged on an access port.
        false
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // Not to be known here; such a packet is refused as shorter than its headers claim.
        0
    }

    #[inline(always)]
    fn load16<const N: usize>(&self, offset: u32) -> Option<[u16; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn load32<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn head(&self, length: usize) -> Option<impl Head + '_> {
        Linear::within(self.0.data(), self.0.data_end(), length)
    }
}
