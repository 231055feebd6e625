//! What it costs to watch packets live, beside not watching and beside tcpdump; started by `cargo xtask bench live`, in network and mount
//! namespaces of its own.
//!
//! As in the bench of security groups everything is measured in turn, and fifth percentiles are compared.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};

/// The command line.
#[path = "sg/args.rs"]
mod args;
/// Frames that are sent many by one call.
#[path = "sg/batches.rs"]
#[expect(dead_code, reason = "shared with the bench of security groups")]
mod batches;
/// Another program that watches, where it is installed.
#[path = "live/bpftrace.rs"]
mod bpftrace;
/// How long it takes until something is seen.
#[path = "live/first.rs"]
mod first;
/// Frames.
#[path = "sg/frames.rs"]
#[expect(dead_code, reason = "shared with the bench of security groups")]
mod frames;
/// System calls.
#[path = "sg/kernel.rs"]
#[expect(dead_code, reason = "shared with the bench of security groups")]
mod kernel;
/// What is said of it.
#[path = "sg/report.rs"]
mod report;
/// The network.
#[path = "live/scene.rs"]
mod scene;
/// Measured values.
#[path = "sg/stats.rs"]
mod stats;
/// A connection of real sockets.
#[path = "live/talk.rs"]
mod talk;
/// Another program that watches.
#[path = "live/tcpdump.rs"]
mod tcpdump;
/// Who watches, and what is measured then.
#[path = "live/watched.rs"]
mod watched;
/// Policies, and a host that enforces them.
#[path = "sg/world.rs"]
#[expect(dead_code, reason = "shared with the bench of security groups")]
mod world;

/// The CPU everything runs on.
const CPU: usize = 1;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// How often everything is measured.
    rounds: usize,
    /// How many batches of frames each time.
    batches: usize,
    /// How many chunks of a stream, and how many questions, each time.
    talk: (usize, usize),
    /// How many stretches of a stream without a pause, each time.
    stretches: usize,
    /// How many streams between two threads, each time.
    apart: usize,
    /// How often watching begins, to see how long that takes.
    first: usize,
}

const WHOLE: Effort = Effort { rounds: 6, batches: 300, talk: (300, 500), stretches: 8, apart: 16, first: 20 };
const QUICK: Effort = Effort { rounds: 2, batches: 100, talk: (100, 200), stretches: 4, apart: 4, first: 5 };

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = args::Args::parse()?;
    ensure!(args.against.is_none(), "the programs that watch are not compared with those of another object");
    let effort = if args.quick { QUICK } else { WHOLE };
    kernel::pin(CPU).context("pin this thread to a CPU")?;
    // Where a process has several threads, each of its calls has to hold on to the descriptor it uses. The first session begins some,
    // and what comes before it would be measured with less.
    thread::spawn(|| {
        loop {
            thread::park();
        }
    });
    let mut report = report::Report::default();
    let mut bench = watched::Bench::new().await?;
    bench.measure(effort).await?;
    let first = first::measure(&mut bench.scene, effort.first).await?;
    bench.report(&mut report);
    first.report(&mut report);
    println!("{}", report.text());
    if let Some(file) = args.json {
        fs::write(&file, format!("{:#}\n", report.json())).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
