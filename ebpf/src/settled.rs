//! Notes of flows about which nothing changes. Decides nothing.
//!
//! To look a flow up takes the kernel two calls and three or four lines of memory, which is most of what a packet of an
//! established flow costs. The first packet of a flow in a tick does it, and leaves a note of what it has found: key, generation,
//! epoch and tick. Those that come after find the note, which is one line, and in it all that the flow would say.
//!
//! All CPUs share the notes without a lock, so a note may be met half written, or made of two. Its last word is a sum of the others,
//! with factors that nobody else knows; what does not add up is no note.

use core::cell::UnsafeCell;

use aya_ebpf::helpers::bpf_get_prandom_u32;
use netdiag_common::logic::tables::{Moment, Note};

use crate::maps::{self, NOTES};

/// Factors of the sum.
struct Factors(UnsafeCell<[u64; 8]>);

// SAFETY: words are read and written whole, and a sum of whatever factors is a sum that is not met by chance.
unsafe impl Sync for Factors {}

/// Made by the first packet; until then 0.
static FACTORS: Factors = Factors(UnsafeCell::new([0; 8]));

/// Where a word of the factors is.
#[inline(always)]
fn factor(place: usize) -> *mut u64 {
    // SAFETY: places are below 8.
    unsafe { FACTORS.0.get().cast::<u64>().add(place) }
}

/// Makes factors: odd, so that no difference of one word is lost.
#[inline(never)]
fn make_factors() {
    for place in 0..8 {
        // SAFETY: the helper has no precondition.
        let [upper, lower] = [unsafe { bpf_get_prandom_u32() }, unsafe { bpf_get_prandom_u32() }];
        // SAFETY: the word outlives every run of the program. Volatile, as other CPUs may do the same.
        unsafe { factor(place).write_volatile(u64::from(upper) << 32 | u64::from(lower) | 1) };
    }
}

/// What `skb->mark` is of a packet that has been decided about at the external device, until it is at the instance's: a number
/// nobody else knows, and of no use where it is 0. Who is told another one, as by programs of another object, decides for himself.
#[inline(always)]
pub fn decided() -> u32 {
    // No sum has this factor in it.
    // SAFETY: the word outlives every run of the program.
    unsafe { factor(5).read_volatile() as u32 }
}

/// A key as its place and its sum.
#[inline(always)]
fn sum<const N: usize>(words: [u64; N]) -> u64 {
    let mut sum = 0_u64;
    for (place, word) in words.into_iter().enumerate() {
        // SAFETY: the word outlives every run of the program.
        let factor = unsafe { factor(place).read_volatile() };
        if place == 0 && factor == 0 {
            make_factors();
        }
        sum = sum.wrapping_add(word.wrapping_mul(factor));
    }
    sum
}

/// The octet of the last word of a key that is always 0 there: a note has the flow's `FLOW_*` bits in it.
#[inline(always)]
const fn in_last_word(flags: u8) -> u64 {
    u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, flags])
}

/// Where the note of a flow is.
#[inline(always)]
const fn place(sum: u64) -> u32 {
    (sum >> (64 - NOTES.ilog2())) as u32
}

/// The sum of a key with flags in its last word, whose octet for them was 0.
#[inline(always)]
fn with_flags(sum: u64, place: usize, flags: u64) -> u64 {
    // SAFETY: the word outlives every run of the program.
    sum.wrapping_add(flags.wrapping_mul(unsafe { factor(place).read_volatile() }))
}

/// Generation and tick, and the last word of a note.
#[inline(always)]
fn ending(sum: u64, at: Moment) -> [u64; 2] {
    let when = u64::from(at.generation) << 32 | u64::from(at.now);
    // SAFETY: the words outlive every run of the program.
    let [first, second] = [unsafe { factor(6).read_volatile() }, unsafe { factor(7).read_volatile() }];
    let check = sum.wrapping_add(when.wrapping_mul(first)).wrapping_add(u64::from(at.epoch).wrapping_mul(second));
    [when, check]
}

/// A note of either family.
macro_rules! notes {
    ($map:ident, $words:literal, $check:literal, $noted:ident, $note:ident, $drop:ident) => {
        /// What is noted of a flow. Where a note of this tick is of another flow it stays: they would only come to and fro.
        #[inline(always)]
        pub fn $noted(words: [u64; $words], at: Moment) -> Note {
            let sum = sum(words);
            let Some(note) = maps::$map.get_ptr(place(sum)) else { return Note::Full };
            let note = note.cast::<u64>();
            // SAFETY: the place is inside the note, which is never freed. Volatile, as other CPUs write it.
            let flags = unsafe { note.add($words - 1).read_volatile() } & in_last_word(u8::MAX);
            let [when, check] = ending(with_flags(sum, $words - 1, flags), at);
            let mut words = words;
            words[$words - 1] |= flags;
            let mut differs = 0;
            for (place, word) in words.into_iter().enumerate() {
                // SAFETY: the place is inside the note, which is never freed. Volatile, as other CPUs write it.
                differs |= word ^ unsafe { note.add(place).read_volatile() };
            }
            // SAFETY: as above.
            let made = unsafe { note.add($words).read_volatile() };
            // SAFETY: as above.
            differs |= check ^ unsafe { note.add($check).read_volatile() };
            if differs | (when ^ made) == 0 {
                Note::Settled(u64::to_ne_bytes(flags)[7])
            } else if made as u32 == at.now {
                Note::Full
            } else {
                Note::None
            }
        }

        /// Makes a note of a flow.
        #[inline(always)]
        pub fn $note(words: [u64; $words], at: Moment, flags: u8) {
            let sum = sum(words);
            let Some(note) = maps::$map.get_ptr_mut(place(sum)) else { return };
            let note = note.cast::<u64>();
            let flags = in_last_word(flags);
            let [when, check] = ending(with_flags(sum, $words - 1, flags), at);
            let mut words = words;
            words[$words - 1] |= flags;
            for (place, word) in words.into_iter().enumerate() {
                // SAFETY: the place is inside the note, which is never freed. Volatile, as other CPUs read it.
                unsafe { note.add(place).write_volatile(word) };
            }
            // SAFETY: as above.
            unsafe { note.add($words).write_volatile(when) };
            // SAFETY: as above.
            unsafe { note.add($check).write_volatile(check) };
        }

        /// Drops the note of a flow, or that of another one in its place.
        #[inline(always)]
        pub fn $drop(words: [u64; $words]) {
            if let Some(note) = maps::$map.get_ptr_mut(place(sum(words))) {
                // SAFETY: the place is inside the note, which is never freed. Volatile, as other CPUs write it.
                unsafe { note.cast::<u64>().add($check).write_volatile(0) };
            }
        }
    };
}

notes!(SETTLED4, 2, 3, noted4, note4, drop4);
notes!(SETTLED6, 5, 6, noted6, note6, drop6);
