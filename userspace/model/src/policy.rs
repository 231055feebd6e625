//! Security groups as Neutron has them, checked. Flow: policy.
//!
//! `wire` has the shapes files and the API use, `convert` turns them into the types of `types`, which cannot be wrong;
//! nothing behind that door checks again. `binding` ties them to the instances of this host, `show` puts them in words.

/// Ports tied to the instances of this host.
pub mod binding;
/// Documents into a checked policy, and back.
pub mod convert;
/// The reference evaluator, against which tables and kernel are held.
pub mod decide;
/// What a policy means for one port, in words.
pub mod show;
/// Checked types: what the compiler and the reference evaluator work on.
pub mod types;
/// Policy as files and the API write it.
pub mod wire;
