//! Where a packet is: a socket buffer or an XDP frame. The only place that reads packet memory.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_skb_load_bytes, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use netdiag_common::logic::frame::{Frame, Head};

/// A packet of a classifier.
pub struct Skb<'a>(pub &'a TcContext);

/// A packet of an XDP program.
pub struct Xdp<'a>(pub &'a XdpContext);

/// First bytes of a packet that lie in one piece; how many was compared with where the packet ends.
pub struct Linear(*const u16);

impl Head for Linear {
    #[inline(always)]
    fn half(&self, place: usize) -> u16 {
        // SAFETY: the place is below half the length that `linear` compared, and packets begin at an even address. The
        // verifier sees the same.
        unsafe { *self.0.add(place) }
    }
}

/// The first bytes, if so many lie between two addresses.
#[inline(always)]
fn linear(data: usize, end: usize, length: usize) -> Option<Linear> {
    (data + length <= end).then_some(Linear(data as *const u16))
}

impl Frame for Skb<'_> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        // SAFETY: the kernel hands a classifier a valid `__sk_buff`, and the verifier rewrites this load of a field.
        unsafe { (*self.0.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn aggregated(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0.skb.skb).gso_size != 0 }
    }

    #[inline(always)]
    fn load16<const N: usize>(&self, offset: u32) -> Option<[u16; N]> {
        let mut words = MaybeUninit::<[u16; N]>::uninit();
        // SAFETY: the helper writes so many bytes or answers with an error.
        let result =
            unsafe { bpf_skb_load_bytes(self.0.as_ptr(), offset, words.as_mut_ptr().cast::<c_void>(), 2 * N as u32) };
        // SAFETY: it answered with success.
        (result == 0).then(|| unsafe { words.assume_init() })
    }

    #[inline(always)]
    fn load32<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the helper writes so many bytes or answers with an error.
        let result =
            unsafe { bpf_skb_load_bytes(self.0.as_ptr(), offset, words.as_mut_ptr().cast::<c_void>(), 4 * N as u32) };
        // SAFETY: it answered with success.
        (result == 0).then(|| unsafe { words.assume_init() })
    }

    #[inline(always)]
    fn head(&self, length: usize) -> Option<impl Head + '_> {
        linear(self.0.data(), self.0.data_end(), length)
    }
}

impl Frame for Xdp<'_> {
    #[inline(always)]
    fn length(&self) -> u32 {
        // Fragments beyond the first buffer are not counted: a program that takes them has to say so, and ours does not, so
        // the kernel hands it only packets of one buffer.
        (self.0.data_end() - self.0.data()) as u32
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        // Generic XDP puts a tag that was beside the packet back into it (`netif_receive_generic_xdp`).
        false
    }

    #[inline(always)]
    fn aggregated(&self) -> bool {
        // Not to be known here; such a packet is refused as shorter than its headers claim.
        false
    }

    #[inline(always)]
    fn load16<const N: usize>(&self, offset: u32) -> Option<[u16; N]> {
        let mut words = MaybeUninit::<[u16; N]>::uninit();
        // SAFETY: the helper writes so many bytes or answers with an error.
        let result =
            unsafe { bpf_xdp_load_bytes(self.0.ctx, offset, words.as_mut_ptr().cast::<c_void>(), 2 * N as u32) };
        // SAFETY: it answered with success.
        (result == 0).then(|| unsafe { words.assume_init() })
    }

    #[inline(always)]
    fn load32<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the helper writes so many bytes or answers with an error.
        let result =
            unsafe { bpf_xdp_load_bytes(self.0.ctx, offset, words.as_mut_ptr().cast::<c_void>(), 4 * N as u32) };
        // SAFETY: it answered with success.
        (result == 0).then(|| unsafe { words.assume_init() })
    }

    #[inline(always)]
    fn head(&self, length: usize) -> Option<impl Head + '_> {
        linear(self.0.data(), self.0.data_end(), length)
    }
}
