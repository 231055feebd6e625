//! First bytes of a packet that lie in one piece. Both objects hold it: how memory is read is written once.

use core::{arch::asm, hint::assert_unchecked};

use netdiag_common::logic::frame::Head;

/// First bytes that lie in one piece, by where they begin. Whoever makes one has compared how many there are.
pub struct Linear(pub *const u16);

impl Linear {
    /// The first bytes, if so many lie between two addresses of a packet.
    #[inline(always)]
    pub fn within(data: usize, end: usize, length: usize) -> Option<Self> {
        (data + length <= end).then_some(Self(data as *const u16))
    }
}

impl Head for Linear {
    #[inline(always)]
    fn half(&self, place: usize) -> u16 {
        // SAFETY: the place is below half the length that was compared, so the result is inside.
        let half = unsafe { self.0.add(place) };
        // SAFETY: as above, and packets begin at an even address. The verifier sees the same.
        unsafe { *half }
    }

    #[inline(always)]
    fn word<const PLACE: usize>(&self) -> u32 {
        let word: u64;
        // One load, where Rust would make two of a word that may begin at any even address: the verifier lets it pass where
        // the processor can do it, and IP headers begin where any can.
        // SAFETY: the place is below half the length that was compared, less one, so the word is inside.
        unsafe {
            asm!(
                "{word} = *(u32 *)({packet} + {offset})",
                word = lateout(reg) word,
                packet = in(reg) self.0,
                offset = const 2 * PLACE,
                options(pure, readonly, nostack),
            );
        }
        // SAFETY: a load of a word clears the rest of the register.
        unsafe { assert_unchecked(word >> 32 == 0) };
        word as u32
    }

    #[inline(always)]
    fn long<const PLACE: usize>(&self) -> u64 {
        let long: u64;
        // SAFETY: as above, for two words.
        unsafe {
            asm!(
                "{long} = *(u64 *)({packet} + {offset})",
                long = lateout(reg) long,
                packet = in(reg) self.0,
                offset = const 2 * PLACE,
                options(pure, readonly, nostack),
            );
        }
        long
    }
}
