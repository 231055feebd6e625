//! Packets as they are seen on their way, while somebody watches. Flow: observe.
//!
//! A session attaches programs to the devices of a plan and, if asked, to the place where the kernel gives packets up; what
//! they say comes through one ring buffer. Nothing is pinned: what is attached is held by descriptors of this process and
//! ends with the session, however it ends.

use std::{collections::VecDeque, io};

use netdiag_model::{
    fact::Gap,
    id::LinkKey,
    live::{Cost, Filter, Losses, Sighting, View},
};

use crate::discover::Options;

/// What to watch, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Devices to watch; none of them twice with one view.
    pub points: Vec<Point>,
    /// Which packets.
    pub filter: Filter,
    /// Watch also where the kernel gives packets up, of whatever device.
    pub drops: bool,
    /// Size of the ring buffer: a power of two, and a multiple of the size of a page. A packet takes [`RECORD_BYTES`] of it.
    pub ring_bytes: u32,
    /// The most records a second, on each CPU: what is more is counted as throttled. None is no limit.
    pub budget: Option<u32>,
}

/// What one packet takes of the ring buffer.
pub const RECORD_BYTES: u32 = 256;

/// Room for 16,384 packets.
pub const RING_BYTES: u32 = 4 << 20;

/// A device to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which.
    pub link: LinkKey,
    /// What it is called, for messages.
    pub name: String,
    /// Watch what comes out of it into the host's network stack.
    pub received: bool,
    /// Watch what goes into it.
    pub sent: bool,
    /// Through what.
    pub view: View,
}

/// Why nothing is watched.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// This binary carries no programs.
    #[error("this netdiag was built without its eBPF programs")]
    NoObject,
    /// A filter that the programs have no room for, or that asks for what there cannot be.
    #[error("use the filter: {0}")]
    Filter(String),
    /// The kernel refused, or lacks something.
    #[error("{step} {object}")]
    Kernel {
        /// What was tried: `load the program`, `read`.
        step: &'static str,
        /// With what.
        object: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Packets being watched. Watching ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    gaps: Vec<Gap>,
    ready: VecDeque<Sighting>,
}

impl Session {
    /// Begins to watch. What could not be watched is told by [`Session::gaps`]; the rest is.
    ///
    /// # Errors
    /// Nothing at all can be watched: no programs, no privilege, a kernel without what it takes.
    pub async fn start(plan: Plan, options: &Options) -> Result<Self, LiveError> {
        drop((plan, options));
        Err(LiveError::NoObject)
    }

    /// What could not be watched, with the reason and the fix.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The next packet, as soon as there is one. They come in the order of their times, but for what was too late by more than
    /// some milliseconds. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Sighting {
        match self.ready.pop_front() {
            Some(sighting) => sighting,
            None => std::future::pending().await,
        }
    }

    /// Packets that have come so far, for who asks now and then; the same packets as [`Session::next`] gives, each once.
    pub fn take(&mut self) -> Vec<Sighting> {
        self.ready.drain(..).collect()
    }

    /// Watches other packets from now on, at the same places.
    ///
    /// # Errors
    /// The filter does not fit, or the kernel refuses to take it.
    pub fn refilter(&mut self, filter: &Filter) -> Result<(), LiveError> {
        drop(filter.clone());
        Ok(())
    }

    /// Packets of which there is no record, since the session began.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub fn losses(&self) -> Result<Losses, LiveError> {
        Ok(Losses::default())
    }

    /// What watching costs, measured over the last seconds.
    pub fn cost(&mut self) -> Cost {
        Cost::default()
    }
}
