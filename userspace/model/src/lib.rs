//! The compute host as data. Sources turn what they read into [`fact`]s, [`inventory`] joins facts into one picture of
//! the host, [`resolve`] finds the instance an operator means, and [`trace`] explains its paths.
//!
//! Nothing in this crate reads a file, opens a socket or prints: every answer is a function of a [`snapshot::Snapshot`].
#![forbid(unsafe_code)]

/// A policy turned into the tables of the datapath, and the ordered writes between two such tables. Flow: policy.
pub mod compile;
/// What this host can and cannot do, as a table of checks. Flow: discover.
pub mod doctor;
/// What the datapath said about single packets. Flow: observe.
pub mod event;
/// What one source saw, with where it saw it. Flow: discover.
pub mod fact;
/// Floating IPs and the way each of them takes. Flow: policy.
pub mod floating;
/// Security groups of an instance as they are enforced. Flow: explain.
pub mod groups;
/// Newtypes for the numbers and names that must not be mixed up.
pub mod id;
/// Facts joined into one picture of the host. Flow: discover.
pub mod inventory;
/// Every instance of a host on one page. Flow: discover.
pub mod list;
/// Packets as they are seen on their way. Flow: observe.
pub mod live;
/// iptables and nftables rules: parsed, recognised and walked. Flow: explain.
pub mod netfilter;
/// Security groups as Neutron has them, checked. Flow: policy.
pub mod policy;
/// What an operator typed, turned into one instance or a list of candidates. Flow: explain.
pub mod resolve;
/// Everything one look at a host captured; what every view receives.
pub mod snapshot;
/// How the agent is. Flow: policy.
pub mod status;
/// Instances of one network and host that may send to each other past the bridge. Flow: policy.
pub mod straight;
/// The paths of one instance, hop by hop. Flow: explain.
pub mod trace;

/// Hosts built by hand.
#[cfg(test)]
mod testing;
