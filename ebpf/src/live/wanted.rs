//! Asks the filter: of most packets by what lies at fixed places, of others layer by layer.

use core::{arch::asm, ptr};

use aya_ebpf::bindings::__sk_buff;
use netdiag_common::{
    abi::live::Config,
    logic::{
        frame::Head,
        live::{Bytes, Start, covers_layers, plain, read},
        packet::ETHERNET,
    },
};

use crate::maps::{self, CONFIG, Scratch};

/// First bytes that lie in one piece; how many was compared.
struct Linear(*const u16);

impl Head for Linear {
    #[inline(always)]
    fn half(&self, place: usize) -> u16 {
        // SAFETY: the place is below half the length that was compared, so the result is inside the packet.
        let half = unsafe { self.0.add(place) };
        // SAFETY: as above, and packets begin at an even address. The verifier sees the same.
        unsafe { *half }
    }

    #[inline(always)]
    fn word<const PLACE: usize>(&self) -> u32 {
        let word: u64;
        // One load, where Rust would make two of a word that may begin at any even address.
        // SAFETY: the place is below half the length that was compared, less one, so the word is inside the packet.
        unsafe {
            asm!(
                "{word} = *(u32 *)({packet} + {offset})",
                word = lateout(reg) word,
                packet = in(reg) self.0,
                offset = const 2 * PLACE,
                options(pure, readonly, nostack),
            );
        }
        word as u32
    }
}

/// A packet of a classifier.
pub struct Frame {
    data: usize,
    end: usize,
    network: bool,
}

impl Frame {
    /// The packet at hand; whether it begins at an IP header.
    #[inline(always)]
    pub fn of(skb: *mut __sk_buff, network: bool) -> Self {
        // SAFETY: the kernel hands a classifier a valid `__sk_buff`, and the verifier rewrites this load of one of its fields.
        let data = unsafe { (*skb).data };
        // SAFETY: as above.
        let end = unsafe { (*skb).data_end };
        Self { data: data as usize, end: end as usize, network }
    }

    #[inline(always)]
    const fn link(&self) -> usize {
        if self.network { 0 } else { ETHERNET as usize }
    }
}

impl plain::Packet for Frame {
    #[inline(always)]
    fn carries(&self, ethertype: u16) -> bool {
        let place = (self.data + ETHERNET as usize - 2) as *const u16;
        // SAFETY: what lies behind the Ethernet header was compared with where the packet ends. The verifier sees the same.
        self.network || unsafe { *place } == ethertype.to_be()
    }

    #[inline(always)]
    fn network(&self, length: usize) -> Option<impl Head> {
        (self.data + self.link() + length <= self.end).then_some(Linear((self.data + self.link()) as *const u16))
    }
}

/// A packet of which the first bytes are in memory of the program's own.
struct Loaded<'a> {
    scratch: &'a Scratch,
    network: bool,
}

impl Loaded<'_> {
    #[inline(always)]
    const fn link(&self) -> usize {
        if self.network { 0 } else { ETHERNET as usize }
    }
}

impl plain::Packet for Loaded<'_> {
    #[inline(always)]
    fn carries(&self, ethertype: u16) -> bool {
        let place = self.scratch.head.as_ptr().wrapping_add(ETHERNET as usize - 2);
        #[expect(clippy::cast_ptr_alignment, reason = "the head and the offset are even")]
        let place = place.cast::<u16>();
        // SAFETY: it is inside the head, whatever of it is known.
        self.network || unsafe { *place } == ethertype.to_be()
    }

    #[inline(always)]
    fn network(&self, length: usize) -> Option<impl Head> {
        let begin = self.scratch.head.as_ptr().wrapping_add(self.link()).cast();
        (self.link() + length <= self.scratch.known as usize).then_some(Linear(begin))
    }
}

/// True if the filter covers a packet at TC; `load` puts its first bytes into the scratch, where they are asked for.
#[inline(always)]
pub fn of_frame(config: &Config, frame: &Frame, place: u32, load: impl FnOnce(&mut Scratch) -> bool) -> bool {
    if config.products == 0 {
        return true;
    }
    let Some(scratch) = maps::scratch(place) else { return false };
    match plain::flow(frame) {
        Some(flow) => scratch.answers.covers(config, &flow),
        None => load(scratch) && layer_by_layer(place, frame.network),
    }
}

/// True if the filter covers a packet of which the first bytes are in the scratch; if they are not plain, `load` gets more.
#[inline(always)]
pub fn of_loaded(config: &Config, network: bool, place: u32, load: impl FnOnce(&mut Scratch) -> bool) -> bool {
    let Some(scratch) = maps::scratch(place) else { return false };
    match plain::flow(&Loaded { scratch, network }) {
        Some(flow) => scratch.answers.covers(config, &flow),
        None => load(scratch) && layer_by_layer(place, network),
    }
}

/// True if the filter covers one of the layers of a packet of which the first bytes are in the scratch.
#[inline(never)]
fn layer_by_layer(place: u32, network: bool) -> bool {
    let (Some(config), Some(scratch)) = (CONFIG.get(0), maps::scratch(place)) else { return false };
    covers_layers(config, Start { offset: 0, network }, |start| {
        let next = live_layer(place, start.offset, start.network.into());
        (scratch.layer, unpack(next))
    })
}

/// Reads one layer into the scratch; where the next one begins, packed.
///
/// A function of its own to the verifier, too, for which only numbers are known of its arguments: it is followed once, and not
/// for each layer with all that may have been in those before.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn live_layer(place: u32, offset: u32, network: u32) -> u64 {
    let Some(scratch) = maps::scratch(place) else { return 0 };
    let mut layer = netdiag_common::logic::live::NOBODY;
    let next = read(&Known(scratch), Start { offset, network: network != 0 }, &mut layer);
    scratch.layer = layer;
    next.map_or(0, pack)
}

/// There is a layer.
const THERE: u64 = 1 << 63;
/// It begins at an IP header.
const NETWORK: u64 = 1 << 32;

#[inline(always)]
fn pack(start: Start) -> u64 {
    THERE | if start.network { NETWORK } else { 0 } | u64::from(start.offset)
}

#[inline(always)]
fn unpack(packed: u64) -> Option<Start> {
    (packed & THERE != 0).then_some(Start { offset: packed as u32, network: packed & NETWORK != 0 })
}

/// The bytes in the scratch.
struct Known<'a>(&'a Scratch);

impl Bytes for Known<'_> {
    #[inline(always)]
    fn half(&self, offset: u32) -> Option<u16> {
        if offset + 2 > self.0.known {
            return None;
        }
        // The compiler knows that the mask changes nothing; the verifier has to see it.
        let mut offset = u64::from(offset);
        // SAFETY: one arithmetic instruction.
        unsafe { asm!("{offset} &= 0xfe", offset = inout(reg) offset, options(pure, nomem, nostack)) };
        // SAFETY: behind the head there are as many bytes as an offset of eight bits may be too far.
        let place =
            unsafe { ptr::from_ref(self.0).cast::<u8>().add(core::mem::offset_of!(Scratch, head) + offset as usize) };
        // SAFETY: as above; it is even, as the head is.
        #[expect(clippy::cast_ptr_alignment, reason = "the head and the offset are even")]
        Some(unsafe { *place.cast::<u16>() })
    }
}
