//! The types that cross the kernel border. Every one is `repr(C)`, has no padding the compiler could leave
//! uninitialised, and holds integers only: no `Option`, no `bool`, no enum with a payload.

/// Ring-buffer records.
pub mod event;
/// What must hold about size, alignment and offsets, checked at compile time.
mod layout;
/// Map values.
pub mod value;
