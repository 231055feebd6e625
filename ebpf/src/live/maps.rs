//! Every map, with who writes and who reads it.

use core::{arch::asm, cell::UnsafeCell};

use aya_ebpf::{
    btf_maps::{PerCpuArray, RingBuf},
    macros::btf_map,
};
use netdiag_common::{
    abi::live::{CLAUSES, Clause, Config, End, HEAD, NAMESPACES, PRODUCTS, Product, Seen, TALLIES, Tally},
    logic::live::{Layer, plain::Answers6},
};

/// Which packets are spoken of. Written by user space, which finds it as the only thing in the section `.bss`: a variable, and not a
/// map, as a packet then need not look it up.
#[unsafe(no_mangle)]
static CONFIG: Shared = Shared(UnsafeCell::new(Config {
    clauses: 0,
    products: 0,
    budget: 0,
    tick_shift: 0,
    generation: 0,
    flags: 0,
    clause: [NO_CLAUSE; CLAUSES],
    product: [Product { covered: 0, uncovered: 0 }; PRODUCTS],
    given_up_in: [0; NAMESPACES],
}));

const NO_END: End = End { address: [0; 4], mask: [0; 4], first_port: 0, more_ports: 0 };
const NO_CLAUSE: Clause = Clause {
    here: NO_END,
    there: NO_END,
    ethertype: 0,
    ethertype_mask: 0,
    protocol: 0,
    protocol_mask: 0,
    family: 0,
    family_mask: 0,
    flags: 0,
};

/// What user space may write at any time.
struct Shared(UnsafeCell<Config>);

// SAFETY: programs only read it, word by word, and any words do.
unsafe impl Sync for Shared {}

/// Which packets are spoken of.
#[inline(always)]
pub fn config() -> &'static Config {
    let config = CONFIG.0.get();
    let place: *const Config;
    // The compiler must not take the zeros above for what is there.
    // SAFETY: nothing is done but to hide where the address comes from.
    unsafe {
        asm!("{place} = {config}", config = in(reg) config, place = lateout(reg) place, options(pure, readonly, nostack));
    }
    // SAFETY: it is the address of the static.
    unsafe { &*place }
}

/// What each CPU has counted. Written by the programs, read by user space.
#[btf_map]
static TALLY: PerCpuArray<Tally, TALLIES> = PerCpuArray::new();

/// Records; user space says how many bytes of them. Written by the programs, drained by user space.
#[btf_map]
pub static RECORDS: RingBuf<Seen, { 4 * 1024 * 1024 }> = RingBuf::new();

/// What is known of the packet at hand, apart for programs that may interrupt each other.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, TALLIES> = PerCpuArray::new();

/// The packet at hand, and what the filter said of those of IPv6 before.
#[repr(C)]
pub struct Scratch {
    /// What the filter said of flows of IPv6.
    pub answers: Answers6,
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
