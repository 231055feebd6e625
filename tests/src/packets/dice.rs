//! Random numbers: the same ones for the same seed, on every machine and in every version of anything.

/// A `SplitMix64` generator.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        let [a, b, ..] = self.roll().to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }

    /// A number from 0 to `limit - 1`; 0 where there is none.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let number = usize::try_from(self.roll() >> 32).unwrap_or(0);
        number.checked_rem(limit).unwrap_or(0)
    }

    /// A number of a range, both ends included.
    pub(crate) fn between(&mut self, first: u16, last: u16) -> u16 {
        first + self.u16() % (last - first).saturating_add(1).max(1)
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One of them, or none of nothing.
    pub(crate) fn choose<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len()))
    }
}
