//! What a line of memory costs on this machine: the floor of whatever has to look at something it has not seen for a while.

use super::{kernel::thread_time, stats::Samples};

/// Bytes of a line.
const LINE: usize = 64;
/// Loads of one sample.
const LOADS: u32 = 100_000;

/// Sizes that are measured, in MiB.
pub(super) const SIZES: [usize; 4] = [1, 4, 16, 64];

/// Lines of memory that lead to each other, each to one that is not near.
struct Ring(Vec<[u32; LINE / 4]>);

impl Ring {
    fn new(mebibytes: usize) -> Self {
        let count = (mebibytes << 20) / LINE;
        let mut order: Vec<u32> = (0..u32::try_from(count).unwrap_or(u32::MAX)).collect();
        // Sattolo's shuffle: one ring through all of them.
        let mut random = 1_u64;
        for last in (1..count).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(last, usize::try_from(random >> 33).unwrap_or(0) % last);
        }
        Self(order.into_iter().map(|next| [next; LINE / 4]).collect())
    }

    /// Nanoseconds a load that has to wait for the one before.
    fn load(&self, place: &mut u32) -> f64 {
        let before = thread_time();
        for _ in 0..LOADS {
            *place = self.0[*place as usize][0];
        }
        thread_time().saturating_sub(before).as_secs_f64() * 1e9 / f64::from(LOADS)
    }
}

/// Nanoseconds of loads all over so much memory.
pub(super) fn loads(mebibytes: usize, rounds: u32) -> Samples {
    let (ring, mut place, mut samples) = (Ring::new(mebibytes), 0, Samples::default());
    for _ in 0..rounds {
        samples.add(ring.load(&mut place));
    }
    samples
}
