//! What the fast way of floating IPs costs, beside the router; started by `cargo xtask bench fip`, in network and mount
//! namespaces of its own.
//!
//! As in the bench of security groups everything is measured in turn, and fifth percentiles are compared.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::fs;

use anyhow::{Context as _, Result};

/// The command line.
#[path = "sg/args.rs"]
mod args;
/// Frames that are sent many by one call.
#[path = "sg/batches.rs"]
#[expect(dead_code, reason = "shared with the bench of security groups")]
mod batches;
/// The frames of one way.
#[path = "fip/course.rs"]
mod course;
/// The network.
#[path = "fip/district.rs"]
mod district;
/// netdiag in that network.
#[path = "fip/fast.rs"]
mod fast;
/// Frames.
#[path = "sg/frames.rs"]
mod frames;
/// System calls.
#[path = "sg/kernel.rs"]
#[expect(dead_code, reason = "shared with the bench of security groups")]
mod kernel;
/// What the programs take by themselves.
#[path = "fip/program.rs"]
mod program;
/// What is said of it.
#[path = "sg/report.rs"]
mod report;
/// Another packet for every run.
#[path = "sg/rotor.rs"]
#[expect(dead_code, reason = "shared with the bench of security groups")]
mod rotor;
/// Router namespaces.
#[path = "fip/router.rs"]
mod router;
/// Programs of a few instructions.
#[path = "fip/small.rs"]
mod small;
/// Measured values.
#[path = "sg/stats.rs"]
mod stats;
/// Connections of real sockets.
#[path = "fip/talk.rs"]
mod talk;
/// What is measured of each way, and how it is said.
#[path = "fip/ways.rs"]
mod ways;
/// Policies, and a host that enforces them.
#[path = "sg/world.rs"]
#[expect(dead_code, reason = "shared with the bench of security groups")]
mod world;

/// The CPU everything runs on.
const CPU: usize = 1;

/// Numbers of floating IPs that are compared.
const SIZES: [u16; 3] = [1, 100, 10_000];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// How often everything is measured.
    rounds: usize,
    /// How many batches of frames each time.
    batches: usize,
    /// How many connections and how many round trips of one each time.
    talk: (usize, usize),
    /// How often the programs are, and how many packets at once.
    program: (u32, u32),
}

const WHOLE: Effort = Effort { rounds: 8, batches: 300, talk: (100, 500), program: (100, 20_000) };
const QUICK: Effort = Effort { rounds: 1, batches: 200, talk: (50, 200), program: (10, 20_000) };

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = args::Args::parse()?;
    let effort = if args.quick { QUICK } else { WHOLE };
    kernel::pin(CPU).context("pin this thread to a CPU")?;
    let mut report = report::Report::default();
    let mut bench = ways::Bench::new().await?;
    if let Some(object) = &args.against {
        bench.programs(&mut report, effort.program, Some(&fs::read(object)?))?;
    } else {
        bench.programs(&mut report, effort.program, None)?;
        bench.measure(effort).await?;
        bench.report(&mut report);
    }
    println!("{}", report.text());
    if let Some(file) = args.json {
        fs::write(&file, format!("{:#}\n", report.json())).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
