//! What the programs do with a packet: written once, generic over where the packet is (a socket buffer, an XDP frame, a
//! slice) and over where the tables are (maps, memory). No allocation, no panic, no loop without a bound: it must pass the
//! verifier.
//!
//! | module | what it holds |
//! |---|---|
//! | `frame` | where a packet is |
//! | `tables` | what a decision looks up and remembers |
//! | `packet` | what is known of a packet, from Ethernet to ports |
//! | `guard` | what no rule can allow, and what every port needs |
//! | `classify` | which rule allows a service to a remote address |
//! | `track` | flows, and ICMP errors about them |
//! | `decide` | all of it in order |
//! | `short` | the short way of packets of established flows |
//! | `flow` | states of a flow and their timeouts |
//! | `floating` | which packets of floating IPs go past the router |
//! | `rewrite` | changes the addresses of a packet |
//! | `live` | which packets somebody watches |
#![expect(
    clippy::inline_always,
    reason = "a call the compiler leaves costs the verifier and the packet more than it saves"
)]
#![expect(clippy::cast_possible_truncation, reason = "bytes and half-words are cut out of words, and places are few")]

/// Which rule allows a service to a remote address.
pub mod classify;
/// All of it in order.
pub mod decide;
/// Which packets of floating IPs go past the router.
pub mod floating;
/// States of a tracked flow, and how long each may stay silent.
pub mod flow;
/// Where a packet is.
pub mod frame;
/// What no rule can allow, and what every port needs.
pub mod guard;
/// Which packets somebody watches.
pub mod live;
/// What is known of a packet.
pub mod packet;
/// Changes the addresses of a packet, and every checksum that covers them.
pub mod rewrite;
/// The short way of packets of established flows.
pub mod short;
/// What a decision looks up and remembers.
pub mod tables;
/// Flows, and ICMP errors about them.
pub mod track;
