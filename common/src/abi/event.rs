//! Ring-buffer records: a header that every record starts with, and one body per kind. Flow: observe.
//!
//! The kernel side fills them in place, user space takes them apart; neither parsing nor formatting belongs here.

use super::value::Counter;

/// A packet was counted; the record is a [`Counted`].
pub const KIND_COUNTED: u8 = 1;

/// A packet met its verdict; the record is a [`Decided`].
pub const KIND_DECIDED: u8 = 2;

/// The first bytes of every record, so that a reader can tell what follows before it reads on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`crate::ABI_VERSION`] of the program that wrote the record.
    pub version: u16,
    /// Which body follows: `KIND_*`.
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

/// The packet went to the instance, not from it.
pub const DECIDED_INGRESS: u8 = 1;
/// The addresses are IPv6; else IPv4, mapped (`::ffff:0:0/96`), or zeros where the packet has none.
pub const DECIDED_IPV6: u8 = 1 << 1;

/// A packet met its verdict: refused, or the first of a flow that is allowed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Version, kind and device.
    pub header: Header,
    /// Nanoseconds of the coarse monotonic clock.
    pub time: u64,
    /// Source address, in network byte order.
    pub source: [u32; 4],
    /// Destination address, in network byte order.
    pub destination: [u32; 4],
    /// Source port, in host byte order; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination port, in host byte order; `type << 8 | code` for ICMP.
    pub destination_port: u16,
    /// The rule that allowed it: an index of `RULES`; 0 is none.
    pub rule: u32,
    /// Place of the port.
    pub slot: u32,
    /// Length of the packet from its link-layer header on, in bytes.
    pub length: u32,
    /// Ethertype in host byte order.
    pub ethertype: u16,
    /// IP protocol.
    pub protocol: u8,
    /// [`super::reason::Reason`] as a number.
    pub reason: u8,
    /// `DECIDED_*` bits.
    pub flags: u8,
    /// Always 0.
    pub pad: [u8; 3],
}
