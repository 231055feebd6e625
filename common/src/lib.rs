//! What both sides of the kernel border must agree on: the bytes of map values and of ring-buffer records.
//!
//! No allocation, no dependency, no policy. The eBPF programs write these types, user space reads them, and neither
//! has a second definition of any of them.
#![no_std]

/// The types themselves, and the assertions on their layout. Flow: observe.
pub mod abi;
/// What the programs do with a packet, written once for the kernel and for memory. Flow: policy.
pub mod logic;

/// Version of everything in [`abi`]. It is raised whenever a type there changes its size or the meaning of a field, so
/// that a program which is still attached is never read by a netdiag that understands other bytes.
pub const ABI_VERSION: u16 = 3;
