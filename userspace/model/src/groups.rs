//! Security groups of an instance as they are enforced: what is loaded for its ports, what it decides, what it let
//! through. Flow: explain.
//!
//! Everything here is a function of a snapshot. What is loaded decides; what is asked for gives it names, and a
//! difference between the two is part of the answer.

/// Tracked flows.
mod flows;
/// One port in a few words.
mod summary;

pub use flows::{FlowFilter, FlowOrder, FlowRow, Flows, Known, flows};
pub use summary::{Side, Summary};
