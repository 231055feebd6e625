//! Map values. Flow: observe.

use super::reason::REASONS;

/// What one CPU has seen since the program was loaded. User space adds the CPUs up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
    /// Records that found the ring buffer full. The packets themselves are counted and pass all the same.
    pub lost: u64,
}

/// Packets and bytes of one port, direction and reason on one CPU, at index [`tally_index`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
}

/// Where a reason of a port and direction is counted.
#[expect(clippy::cast_possible_truncation, reason = "there are few reasons")]
pub const fn tally_index(slot: u32, ingress: bool, reason: u8) -> u32 {
    (slot * 2 + ingress as u32) * REASONS as u32 + reason as u32
}

/// Records of one port that did not come out of the ring buffer, on one CPU. Records that did, and these two, add up to
/// every verdict that called for a record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Not written because the port had used up its records of this tick.
    pub suppressed: u64,
    /// Not written because the ring buffer was full.
    pub lost: u64,
}

/// How many records a port has caused in a tick.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The tick.
    pub tick: u32,
    /// Records in it.
    pub used: u32,
}
