//! Harness for tests on a real kernel.
//!
//! Such a test starts by saying what it needs. Where that is not there the test is skipped, loudly, so that a plain
//! `cargo test` works on any laptop; with `NETDIAG_CI=1` in the environment it fails instead, so that green means ran.
//!
//! ```no_run
//! # fn test() {
//! if !netdiag_tests::require_root() {
//!     return;
//! }
//! # }
//! ```

/// A host with an agent, for tests of the agent.
pub mod agent;
/// What security groups do to real traffic, on every way an instance can be plugged.
pub mod behaviour;
/// A bpffs of its own for one test.
pub mod bpffs;
/// What arrives at and leaves the two ends of a way.
pub mod capture;
/// A host with floating IPs.
pub mod floating;
/// The programs in the kernel, run on packets in memory.
pub mod kernel;
/// A lab for one test.
pub mod lab;
/// Frames of virtual machines.
pub mod machine;
/// What the datapath remembers, in memory.
pub mod memory;
/// What a test needs of the machine it runs on.
mod needs;
/// Random policies and frames for evaluators that must agree.
pub mod packets;
/// A host of its own for one test.
pub mod private_host;
/// Programs of somebody else.
pub mod program;
/// A host with an agent and machines at a bridge.
pub mod site;
/// Open vSwitch on the host of a test.
pub mod switch;
/// The instance of a lab that faults are made around.
pub mod target;
/// A terminal of its own.
pub mod terminal;
/// Numbered frames that go on and on.
pub mod traffic;
/// Packets of a floating IP, and who translates them.
pub mod translation;
/// How far the verifier followed a program.
pub mod verified;

pub use agent::AgentHost;
pub use bpffs::Bpffs;
pub use lab::Lab;
pub use needs::{require, require_ebpf, require_programs, require_root};
pub use switch::Switch;
pub use target::Target;
