//! Security groups as Neutron has them, checked. Flow: policy.
//!
//! `wire` has the shapes files and the API use, `convert` turns them into the types of [`types`], which cannot be wrong;
//! nothing behind that door checks again.

/// Documents into a checked policy, and back.
pub mod convert;
/// The reference evaluator, against which tables and kernel are held.
pub mod decide;
/// Checked types: what the compiler and the reference evaluator work on.
pub mod types;
/// Policy as files and the API write it.
pub mod wire;
