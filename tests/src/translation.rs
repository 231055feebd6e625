//! Random packets of a floating IP, and everything that translates them: the logic in memory, the programs in the kernel,
//! and a router whose rules are Neutron's. Flow: policy.
//!
//! A talk is a few packets between an instance and somebody outside, in the order in which they happen, made from a seed.
//! They are valid, and of the kinds that go past the router: whoever translates them must come to the same bytes.

use std::net::Ipv4Addr;

/// Headers and checksums.
mod bytes;
/// The logic, on packets in memory.
mod memory;
/// The programs in the kernel.
mod programs;
/// A router between three namespaces.
mod router;
/// Random packets.
mod talk;

#[cfg(test)]
mod tests;

pub use memory::translate;
pub use programs::Programs;
pub use router::Router;

/// The address of the instance.
pub const FIXED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The address the outside knows it by.
pub const FLOATING: Ipv4Addr = Ipv4Addr::new(172, 24, 4, 6);

/// MAC addresses: of the router on both sides, of the instance, and of the router beyond.
const OUTER: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];
const INNER: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 2];
const INSTANCE: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 3];
const BEYOND: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 4];

/// What kind of packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One of the flow.
    Plain,
    /// The same in fragments.
    Fragments,
    /// An ICMP error about one of the flow.
    Error,
}

/// A packet, as the router gets it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// What kind it is.
    pub kind: Kind,
    /// To the instance, not from it.
    pub inward: bool,
    /// Its frames: several if it comes in fragments.
    pub frames: Vec<Vec<u8>>,
    /// What it is.
    pub what: String,
}

/// Packets of one flow, and about it.
#[derive(Clone, Debug)]
pub struct Talk {
    /// In the order in which they happen.
    pub packets: Vec<Packet>,
}

impl Talk {
    /// The packets of a seed.
    pub fn new(seed: u64) -> Self {
        talk::write(seed)
    }
}
