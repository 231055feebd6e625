//! Security groups as Neutron has them, checked. Flow: policy.
//!
//! `wire` has the shapes files and the API use, `convert` turns them into the types of [`types`], which cannot be wrong;
//! nothing behind that door checks again.

/// Checked types: what the compiler and the reference evaluator work on.
pub mod types;
