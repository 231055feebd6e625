//! All IO with the kernel and the host. Nothing here formats for humans, decides policy, or keeps a second copy of a
//! type of the model.
//!
//! | flow | module | what it does |
//! |---|---|---|
//! | discover | [`discover`] | runs all sources at once and merges what they saw into a snapshot |
//! | | [`doctor`] | what this host can and cannot do |
//! | | `oddities` | what of an answer did not fit, in few words |
//! | | `ovsdb` | a small OVSDB client |
//! | policy | [`enforce`] | security groups in the kernel: loads, attaches, writes and reads maps |
//! | observe | [`datapath`] | the eBPF programs netdiag carries, and what it does with them |
//! | | [`stream`] | events of a running agent |
//! | all | [`netns`] | enters network namespaces, each on a thread of its own |

/// The eBPF programs netdiag carries. Flow: observe.
pub mod datapath;
/// Runs all sources at once. Flow: discover.
pub mod discover;
/// What this host can and cannot do. Flow: discover.
pub mod doctor;
/// Security groups in the kernel. Flow: policy.
pub mod enforce;
/// Enters network namespaces; the only `setns` in the project.
pub mod netns;
/// What of an answer did not fit. Flow: discover.
mod oddities;
/// A small OVSDB client. Flow: discover.
mod ovsdb;
/// Events of a running agent. Flow: observe.
pub mod stream;
