//! All IO with the kernel and the host. Nothing here formats for humans, decides policy, or keeps a second copy of a
//! type of the model.
//!
//! | flow | module | what it does |
//! |---|---|---|
//! | discover | [`discover`] | runs all sources at once and merges what they saw into a snapshot |
//! | | [`netns`] | enters network namespaces, each on a thread of its own |
//! | | `oddities` | what of an answer did not fit, in few words |
//! | | `ovsdb` | a small OVSDB client |

/// Runs all sources at once. Flow: discover.
pub mod discover;
/// Enters network namespaces; the only `setns` in the project.
pub mod netns;
/// What of an answer did not fit. Flow: discover.
mod oddities;
/// A small OVSDB client. Flow: discover.
mod ovsdb;
