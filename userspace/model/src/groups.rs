//! Security groups of an instance as they are enforced: what is loaded for its ports, what it decides, what it let
//! through. Flow: explain.
//!
//! Everything here is a function of a snapshot. What is loaded decides; what is asked for gives it names, and a
//! difference between the two is part of the answer.

/// What is asked for.
mod asked;
/// Where what is loaded and what is asked differ.
mod difference;
/// What would become of a packet.
mod explain;
/// Tracked flows.
mod flows;
/// What is loaded, as tables to look things up in.
mod loaded;
/// Rules that nearly allow a packet.
mod near;
/// Packets made for a question.
mod probe;
/// What is enforced at the ports of an instance.
mod show;
/// One port in a few words.
mod summary;

pub(crate) use asked::Asked;
pub use asked::{GroupRef, RemoteRef, RuleRef};
pub use explain::{Answer, Asking, Explained, Unclear, explain};
pub use flows::{FlowFilter, FlowOrder, FlowRow, Flows, Known, flows};
pub(crate) use loaded::tables;
pub use near::{NearMiss, Seen};
pub use show::{Shown, ShownPort, ShownRule, Standing, show};
pub use summary::{Side, Summary};
