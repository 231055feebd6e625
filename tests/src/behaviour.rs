//! What security groups do to real traffic: one table of cases, run on every way an instance can be plugged.
//!
//! A `plug::World` is an instance with an agent that enforces its port, and a peer on the same link. A case sets a policy
//! and tries traffic; it names the reason the datapath must count, so a packet that something else lost is no pass.

/// The table.
pub mod cases;
/// Frames, header by header.
pub mod frame;
/// The instance, its peer, and how they are plugged.
pub mod plug;
/// A policy in few words.
pub mod policy;
/// Traffic, and what must become of it.
pub mod probe;
/// VLAN tags beside the frame.
pub mod vlan;
/// Packet sockets and taps.
pub mod wire;

pub use plug::{Plug, World};
pub use policy::{Policy, rules};
pub use probe::{Family, Way};

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A case: a row of the specification and what is tried.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What holds.
    pub says: &'static str,
    /// Where it cannot be tried, and why.
    pub except: &'static [(Plug, &'static str)],
    /// Tries it.
    pub run: fn(&mut World),
}

/// Runs cases on one plug; every failure is told, not the first alone. `NETDIAG_CASE` picks those that say this.
///
/// # Panics
/// A case failed, or there is none that says so.
#[expect(clippy::print_stderr, reason = "what is not tried on this plug must be seen")]
pub fn run(world: &mut World, cases: &[Case]) {
    let wanted = std::env::var("NETDIAG_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    let chosen: Vec<_> = cases.iter().filter(|case| case.says.contains(&wanted)).collect();
    assert!(!chosen.is_empty(), "there is no case {wanted}");
    for case in chosen {
        if let Some((plug, why)) = case.except.iter().find(|(plug, _)| *plug == world.plug) {
            eprintln!("not on {plug:?}: {}: {why}", case.says);
            continue;
        }
        world.next_case();
        if catch_unwind(AssertUnwindSafe(|| (case.run)(world))).is_err() {
            failed.push(case.says);
        }
    }
    assert!(failed.is_empty(), "on {:?}:\n{}", world.plug, failed.join("\n"));
}
