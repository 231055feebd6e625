//! What enforcement costs; started by `cargo xtask bench sg`.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{env, fs};

use anyhow::Result;

/// Frames.
#[path = "sg/frames.rs"]
mod frames;
/// System calls.
#[path = "sg/kernel.rs"]
mod kernel;
/// What the programs take by themselves.
#[path = "sg/program.rs"]
mod program;
/// Another packet for every run.
#[path = "sg/rotor.rs"]
mod rotor;
/// Measured values.
#[path = "sg/stats.rs"]
mod stats;
/// Policies, and a host that enforces them.
#[path = "sg/world.rs"]
mod world;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// How often everything is measured.
    rounds: u32,
    /// How many packets at once.
    repeat: u32,
}

fn main() -> Result<()> {
    kernel::pin(1)?;
    let objects: Vec<String> = env::args().skip(1).filter(|a| a.ends_with(".o")).collect();
    let mut benches = vec![];
    let mut hosts = vec![];
    for path in &objects {
        let bytes = fs::read(path)?;
        let mut host = world::Host::new(Some(&bytes))?;
        benches.push(program::Bench::new(&mut host)?);
        hosts.push(host);
    }
    let rounds: u32 = env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(64);
    for _ in 0..rounds {
        for (bench, host) in benches.iter_mut().zip(&hosts) {
            if let Err(e) = bench.measure(Effort { rounds: 1, repeat: 20_000 }) {
                println!("{e:#}");
                let f = host.enforcer.flows()?;
                println!(
                    "{} flows {} over; {:?}",
                    f.ipv4.len(),
                    f.ipv4.iter().filter(|f| f.overflow).count(),
                    host.enforcer.port_counters(host.slot(1)?)?
                );
                println!(
                    "{:?}",
                    f.ipv4
                        .iter()
                        .filter(|f| f.key.remote.to_ne_bytes()[0] == 30)
                        .min_by_key(|f| f.key.remote.swap_bytes())
                );
                println!("{:?}", f.ipv4.iter().filter(|f| f.key.remote.to_ne_bytes()[0] == 30).count());
                std::process::exit(1)
            };
        }
    }
    for i in 0..benches[0].cases.len() {
        print!("{:16}", benches[0].cases[i].name);
        for b in &benches {
            let c = &b.cases[i];
            print!(
                " | {:6.1} {:6.1} {:6.1} k {:5.0}",
                c.thread.min(),
                c.thread.p5(),
                c.thread.percentile(50),
                c.kernel.p5()
            );
        }
        println!();
    }
    Ok(())
}
