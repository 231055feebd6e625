//! Ring-buffer records: a header that every record starts with, and one body per kind. Flow: observe.
//!
//! The kernel side fills them in place, user space takes them apart; neither parsing nor formatting belongs here.

use super::value::Counter;

/// A packet was counted; the record is a [`Counted`].
pub const KIND_COUNTED: u8 = 1;

/// The first bytes of every record, so that a reader can tell what follows before it reads on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`crate::ABI_VERSION`] of the program that wrote the record.
    pub version: u16,
    /// Which body follows: [`KIND_COUNTED`].
    pub kind: u8,
    /// Always 0.
    pub pad: u8,
    /// Index of the device the program is attached to, in the namespace of that device.
    pub ifindex: u32,
}

/// One packet went past, and what the counter of this CPU stood at after it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Version, kind and device.
    pub header: Header,
    /// Length of the packet from its link-layer header on, in bytes.
    pub length: u32,
    /// Always 0.
    pub pad: u32,
    /// The counter of the CPU that saw the packet, this packet included.
    pub counter: Counter,
}
