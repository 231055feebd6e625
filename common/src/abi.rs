//! The types that cross the kernel border. Every one is `repr(C)`, has no padding the compiler could leave
//! uninitialised, and holds integers only: no `Option`, no `bool`, no enum with a payload.

/// Ring-buffer records.
pub mod event;
/// Keys and values of floating IPs.
pub mod floating;
/// Keys and values of tracked flows.
pub mod flow;
/// What must hold about size, alignment and offsets, checked at compile time.
mod layout;
/// Packets while they are watched.
pub mod live;
/// Keys and values of a compiled policy.
pub mod policy;
/// Why a packet passed or died.
pub mod reason;
/// Map values: counters.
pub mod value;
