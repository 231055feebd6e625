//! Every map, with who writes and who reads it.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    macros::btf_map,
};
use netdiag_common::{
    abi::live::{Config, HEAD, Seen, TALLIES, Tally},
    logic::live::{Layer, plain::Answers},
};

/// Which packets are spoken of. Written by user space.
#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();

/// What each CPU has counted. Written by the programs, read by user space.
#[btf_map]
pub static TALLY: PerCpuArray<Tally, TALLIES> = PerCpuArray::new();

/// Records; user space says how many bytes of them. Written by the programs, drained by user space.
#[btf_map]
pub static RECORDS: RingBuf<Seen, { 4 * 1024 * 1024 }> = RingBuf::new();

/// What is known of the packet at hand, apart for programs that may interrupt each other.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, TALLIES> = PerCpuArray::new();

/// The packet at hand, and what the filter said of those before.
#[repr(C)]
pub struct Scratch {
    /// What the filter said of flows.
    pub answers: Answers,
    /// Whom the layer that is being read is between.
    pub layer: Layer,
    /// What is known of the packet.
    pub packet: Front,
}

/// The first bytes of a packet, as far as they are known.
#[repr(C)]
pub struct Front {
    /// How many bytes of `head` are the packet's.
    pub known: u32,
    /// The first bytes of the packet.
    pub head: [u8; HEAD],
    /// Nothing: a read within the reach of an offset of eight bits ends in here at the latest.
    beyond: [u8; 88],
}

/// What is known of the packet at hand of this CPU.
#[inline(always)]
pub fn scratch(place: u32) -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(place)?;
    // SAFETY: the element is this CPU's and this kind of program's own, and is never freed.
    Some(unsafe { &mut *scratch })
}

/// The tally of this CPU for one kind of program.
#[inline(always)]
pub fn tally(place: u32) -> Option<&'static mut Tally> {
    let tally = TALLY.get_ptr_mut(place)?;
    // SAFETY: as above.
    Some(unsafe { &mut *tally })
}
