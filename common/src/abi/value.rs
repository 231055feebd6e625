//! Map values. Flow: observe.

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
