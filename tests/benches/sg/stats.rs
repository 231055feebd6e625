//! Measured values, and what is said of them.

/// What was measured, again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The value below which so many per cent of the samples are.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::NAN)
    }

    /// The least.
    pub(super) fn min(&self) -> f64 {
        self.percentile(0)
    }

    /// What is compared: other work on the machine only ever adds to it.
    pub(super) fn p5(&self) -> f64 {
        self.percentile(5)
    }
}
