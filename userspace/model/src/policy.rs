//! Security groups as Neutron has them, checked. Flow: policy.
//!
//! `wire` has the shapes files and the API use, `convert` turns them into the types of [`types`], which cannot be wrong;
//! nothing behind that door checks again.

/// Ports tied to the instances of this host.
pub mod binding;
/// Documents into a checked policy, and back.
pub mod convert;
/// Policy as files and the API write it.
pub mod wire;

/// Checked types: what the compiler and the reference evaluator work on.
pub mod types;
