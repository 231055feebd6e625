//! What the programs do with a packet: written once, generic over where the packet is (a socket buffer, an XDP frame, a
//! slice) and over where the tables are (maps, memory). No allocation, no panic, no loop without a bound: it must pass the
//! verifier.

/// States of a tracked flow, and how long each may stay silent.
pub mod flow;
