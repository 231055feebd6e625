//! Frames that are sent many by one call.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};

use super::{kernel::Batch, stats::Samples};

/// Frames a system call sends.
pub(super) const BATCH: usize = 64;

/// Frames of connections, in batches.
pub(super) struct Frames {
    bytes: Vec<Vec<u8>>,
    batches: Vec<Batch>,
}

impl Frames {
    /// How many batches there are.
    pub(super) fn batches(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn new(bytes: Vec<Vec<u8>>) -> Self {
        let batches = bytes.chunks(BATCH).map(|frames| Batch::new(frames.iter().map(Vec::as_slice))).collect();
        Self { bytes, batches }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.iter().map(Vec::as_slice)
    }

    /// Sends all of it once.
    pub(super) fn send(&mut self, socket: &OwnedFd) -> Result<()> {
        self.batches.iter_mut().try_for_each(|batch| batch.send(socket).map(drop)).context("send frames")
    }

    /// Sends so many batches of it, and notes nanoseconds a frame of each.
    pub(super) fn measure(
        &mut self,
        socket: &OwnedFd,
        (from, count): (usize, usize),
        samples: &mut Samples,
    ) -> Result<()> {
        for place in from..from + count {
            let length = self.batches.len();
            let took = self.batches[place % length].send(socket).context("send frames")?;
            samples.add(took.as_secs_f64() * 1e9 / f64::from(u32::try_from(BATCH)?));
        }
        Ok(())
    }
}
