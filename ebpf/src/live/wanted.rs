//! Asks the filter: of most packets by what lies at fixed places, of others layer by layer.

use core::{arch::asm, ptr};

use aya_ebpf::bindings::__sk_buff;
use netdiag_common::{
    abi::live::{Config, Tally},
    logic::{
        frame::Head,
        live::{
            Bytes, Layer, NOBODY, Start, ask, covers_layers,
            plain::{self, Answer4, Answer6, Flow, Flow4, Flow6, kind_of_network},
            read,
        },
        packet::ETHERNET,
    },
};

use crate::{
    linear::Linear,
    maps::{self, Front, Scratch, config},
};

/// Where the ethertype and the first bytes behind it are, in half-words of a frame.
const KIND: usize = ETHERNET as usize / 2 - 1;

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
    fn kind(&self, first: impl FnOnce() -> u16) -> u32 {
        // What lies behind the Ethernet header was compared with where the packet ends. The verifier sees the same.
        if self.network { kind_of_network(first()) } else { Linear(self.data as *const u16).word::<KIND>() }
    }

    #[inline(always)]
    fn network(&self, length: usize) -> Option<impl Head> {
        Linear::within(self.data + self.link(), self.end, length)
    }
}

/// A packet of which the first bytes are in memory of the program's own.
struct Loaded<'a> {
    front: &'a Front,
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
    fn kind(&self, first: impl FnOnce() -> u16) -> u32 {
        // It is inside the head, whatever of it is known.
        if self.network { kind_of_network(first()) } else { Linear(self.front.head.as_ptr().cast()).word::<KIND>() }
    }

    #[inline(always)]
    fn network(&self, length: usize) -> Option<impl Head> {
        let begin = self.front.head.as_ptr().wrapping_add(self.link()).cast();
        (self.link() + length <= self.front.known as usize).then_some(Linear(begin))
    }
}

/// True if the filter covers a packet at TC; `load` puts its first bytes there, where they are asked for.
#[inline(always)]
pub fn of_frame(tally: &mut Tally, frame: &Frame, place: u32, load: impl FnOnce(&mut Front) -> bool) -> bool {
    let config = config();
    if config.products == 0 {
        return true;
    }
    match plain::flow(frame) {
        Some(Flow::Four(flow)) => of_four(config, tally, flow),
        Some(Flow::Six(flow)) => maps::scratch(place).is_some_and(|scratch| of_six(config, scratch, &flow)),
        None => {
            let Some(scratch) = maps::scratch(place) else { return false };
            load(&mut scratch.packet) && layer_by_layer(place, frame.network)
        }
    }
}

/// True if the filter covers a packet of which the first bytes are in the scratch; if they are not plain, `load` gets more.
#[inline(always)]
pub fn of_loaded(tally: &mut Tally, network: bool, place: u32, load: impl FnOnce(&mut Front) -> bool) -> bool {
    let Some(scratch) = maps::scratch(place) else { return false };
    let config = config();
    match plain::flow(&Loaded { front: &scratch.packet, network }) {
        Some(Flow::Four(flow)) => of_four(config, tally, flow),
        Some(Flow::Six(flow)) => of_six(config, scratch, &flow),
        None => load(&mut scratch.packet) && layer_by_layer(place, network),
    }
}

#[inline(always)]
fn of_four(config: &Config, tally: &mut Tally, flow: Flow4) -> bool {
    let Some(answer) = plain::of_four(&mut tally.answers, flow) else { return false };
    answer.said(config, flow).unwrap_or_else(|| say_of_four(answer, flow))
}

#[inline(always)]
fn of_six(config: &Config, scratch: &mut Scratch, flow: &Flow6) -> bool {
    let Some(answer) = plain::of_six(&mut scratch.answers, flow) else { return false };
    answer.said(config, flow).unwrap_or_else(|| say_of_six(answer, flow))
}

/// Asks the filter of a flow of which nothing is known. Apart, so that the packets of those that are known pay for nothing of it; not
/// `#[cold]`, which puts functions into another section, and the loader takes one for the other where two begin at the same offset.
#[inline(never)]
fn say_of_four(answer: &mut Answer4, flow: Flow4) -> bool {
    answer.say(config(), flow, ask_apart)
}

#[inline(never)]
fn say_of_six(answer: &mut Answer6, flow: &Flow6) -> bool {
    answer.say(config(), flow, ask_apart)
}

/// True if the filter covers one of the layers of a packet of which the first bytes are in the scratch.
#[inline(never)]
fn layer_by_layer(place: u32, network: bool) -> bool {
    covers_layers(config(), Start { offset: 0, network }, |start| {
        let read = live_layer(place, start.offset, start.network.into());
        (read as u16, unpack(read))
    })
}

/// Reads one layer: which clauses cover it, and where the next one begins, packed.
///
/// A function of its own to the verifier, too, to which nothing is known of its arguments: it is followed once, and not from every
/// place that calls it, with all that may have been before.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn live_layer(place: u32, offset: u32, network: u32) -> u64 {
    let Some(scratch) = maps::scratch(place) else { return 0 };
    let Scratch { layer, packet, .. } = scratch;
    // Not on the stack: there is not room for everything.
    *layer = NOBODY;
    let next = read(packet, Start { offset, network: network != 0 }, layer);
    u64::from(ask_apart(layer)) | next.map_or(0, pack)
}

/// Which clauses cover a layer. A function of its own as the one above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn live_ask(layer: *const Layer) -> u64 {
    // SAFETY: it is where the only caller has one. The verifier holds it for a pointer that may be none.
    let Some(layer) = (unsafe { layer.as_ref() }) else { return 0 };
    ask(config(), layer).into()
}

#[inline(always)]
fn ask_apart(layer: &Layer) -> u16 {
    live_ask(layer) as u16
}

/// There is a layer.
const THERE: u64 = 1 << 63;
/// It begins at an IP header.
const NETWORK: u64 = 1 << 62;
/// Where its offset is, above the clauses.
const OFFSET_BIT: u32 = 16;

#[inline(always)]
fn pack(start: Start) -> u64 {
    THERE | if start.network { NETWORK } else { 0 } | u64::from(start.offset) << OFFSET_BIT
}

#[inline(always)]
fn unpack(packed: u64) -> Option<Start> {
    (packed & THERE != 0).then_some(Start { offset: (packed >> OFFSET_BIT) as u32, network: packed & NETWORK != 0 })
}

impl Bytes for Front {
    #[inline(always)]
    fn half(&self, offset: u32) -> Option<u16> {
        if offset + 2 > self.known {
            return None;
        }
        // The compiler knows that the mask changes nothing; the verifier has to see it.
        let mut offset = u64::from(offset);
        // SAFETY: one arithmetic instruction.
        unsafe { asm!("{offset} &= 0xfe", offset = inout(reg) offset, options(pure, nomem, nostack)) };
        // SAFETY: behind the head there are as many bytes as an offset of eight bits may be too far.
        let place =
            unsafe { ptr::from_ref(self).cast::<u8>().add(core::mem::offset_of!(Self, head) + offset as usize) };
        // SAFETY: as above; it is even, as the head is.
        #[expect(clippy::cast_ptr_alignment, reason = "the head and the offset are even")]
        Some(unsafe { *place.cast::<u16>() })
    }
}
