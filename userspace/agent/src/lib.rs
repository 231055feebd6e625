//! All IO with the kernel and the host. Nothing here formats for humans, decides policy, or keeps a second copy of a
//! type of the model.
//!
//! | flow | module | what it does |
//! |---|---|---|
//! | discover | [`discover`] | runs all sources at once and merges what they saw into a snapshot |
//! | | [`doctor`] | what this host can and cannot do |
//! | | `oddities` | what of an answer did not fit, in few words |
//! | | `ovsdb` | a small OVSDB client |
//! | policy | [`service`] | the life of the agent |
//! | | `watch` | notices that something has changed |
//! | | [`policy_source`] | what is asked for: files and the API |
//! | | `reconcile` | the loop; the only writer of maps |
//! | | `api` | HTTP and JSON over a unix socket |
//! | | [`enforce`] | security groups and floating IPs in the kernel: loads, attaches, writes and reads maps |
//! | | [`conntrack`] | the kernel's connection tracking |
//! | | `own` | floating IPs that netdiag serves by itself |
//! | observe | [`datapath`] | the eBPF programs netdiag carries, and what it does with them |
//! | | [`live`] | packets as they are seen on their way |
//! | | [`events`], `metrics` | what the datapath said and counted, for whoever asks |
//! | | [`client`] | asks the agent |
//! | | [`stream`] | events of a running agent |
//! | all | [`netns`] | enters network namespaces, each on a thread of its own |

/// HTTP and JSON over a unix socket. Flow: policy.
mod api;
/// Asks the agent of this host. Flow: observe.
pub mod client;
/// Connection tracking of the kernel. Flow: policy.
pub mod conntrack;
/// The eBPF programs netdiag carries. Flow: observe.
pub mod datapath;
/// Runs all sources at once. Flow: discover.
pub mod discover;
/// What this host can and cannot do. Flow: discover.
pub mod doctor;
/// Security groups in the kernel. Flow: policy.
pub mod enforce;
/// The last events, for whoever wants to read them. Flow: observe.
pub mod events;
/// Packets as they are seen on their way. Flow: observe.
pub mod live;
/// Metrics for Prometheus. Flow: observe.
mod metrics;
/// Enters network namespaces; the only `setns` in the project.
pub mod netns;
/// What of an answer did not fit. Flow: discover.
mod oddities;
/// Questions to Open vSwitch about its flows. Flow: observe.
pub mod ofproto;
/// A small OVSDB client. Flow: discover.
mod ovsdb;
/// Floating IPs that netdiag serves by itself. Flow: policy.
pub mod own;
/// What is asked for: files and the API. Flow: policy.
pub mod policy_source;
/// The loop: what is asked, against what is found, against what is loaded. Flow: policy.
mod reconcile;
/// The life of the agent. Flow: policy.
pub mod service;
/// Events of a running agent. Flow: observe.
pub mod stream;
/// Notices that something has changed. Flow: policy.
mod watch;
