//! What enforcement costs; started by `cargo xtask bench sg`, in network and mount namespaces of its own.
//!
//! Everything is measured in turn, again and again, so that a busy moment of the machine touches everything alike; what is
//! compared are fifth percentiles, which the busy moments do not reach.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::fs;

use anyhow::{Context as _, Result};
use netdiag_common::abi::flow::MAX_FLOWS4;

/// The command line.
#[path = "sg/args.rs"]
mod args;
/// Frames that are sent many by one call.
#[path = "sg/batches.rs"]
mod batches;
/// Frames.
#[path = "sg/frames.rs"]
mod frames;
/// The rules of Neutron's hybrid driver.
#[path = "sg/hybrid.rs"]
mod hybrid;
/// System calls.
#[path = "sg/kernel.rs"]
#[expect(dead_code, reason = "shared with the bench of floating IPs")]
mod kernel;
/// The least that tracking flows costs.
#[path = "sg/least.rs"]
mod least;
/// What a line of memory costs.
#[path = "sg/memory.rs"]
mod memory;
/// What the whole way costs.
#[path = "sg/path.rs"]
mod path;
/// What the programs take by themselves.
#[path = "sg/program.rs"]
mod program;
/// What is said of it.
#[path = "sg/report.rs"]
mod report;
/// Another packet for every run.
#[path = "sg/rotor.rs"]
mod rotor;
/// Measured values.
#[path = "sg/stats.rs"]
mod stats;
/// Compiling, writing, memory.
#[path = "sg/tables.rs"]
mod tables;
/// Policies, and a host that enforces them.
#[path = "sg/world.rs"]
#[expect(dead_code, reason = "shared with the bench of floating IPs")]
mod world;

use report::Report;
use stats::Samples;

/// The CPU everything runs on.
const CPU: usize = 1;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// How often the programs are measured.
    rounds: u32,
    /// How many packets at once.
    repeat: u32,
    /// How often the whole way is, and how many batches of frames each time.
    path: (u32, usize),
}

const WHOLE: Effort = Effort { rounds: 100, repeat: 20_000, path: (8, 500) };
const QUICK: Effort = Effort { rounds: 10, repeat: 20_000, path: (1, 300) };

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = args::Args::parse()?;
    let effort = if args.quick { QUICK } else { WHOLE };
    kernel::pin(CPU).context("pin this thread to a CPU")?;
    let mut report = Report::default();
    report.part("this machine");
    for mebibytes in memory::SIZES {
        let loads = memory::loads(mebibytes, effort.rounds);
        report.samples(format!("a load from anywhere in {mebibytes} MiB"), (&loads, 0.0), None);
    }
    if let Some(object) = &args.against {
        against(&mut report, &fs::read(object)?, effort).await?;
    } else {
        let mut host = world::Host::new(None)?;
        let mut bench = program::Bench::new(&mut host)?;
        bench.measure(effort)?;
        programs(&mut report, &bench)?;
        whole_way(&mut report, effort).await?;
        tables::times(&mut report)?;
    }
    println!("{}", report.text());
    if let Some(file) = args.json {
        fs::write(&file, format!("{:#}\n", report.json())).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// Another object in turn with the one this carries.
async fn against(report: &mut Report, object: &[u8], effort: Effort) -> Result<()> {
    let mut hosts = [world::Host::new(Some(object))?, world::Host::new(None)?];
    let mut benches = Vec::new();
    for host in &mut hosts {
        benches.push(program::Bench::new(host)?);
    }
    for _ in 0..effort.rounds {
        benches.iter_mut().try_for_each(|bench| bench.measure(Effort { rounds: 1, ..effort }))?;
    }
    for (title, bench) in ["the other object", "this object"].into_iter().zip(&benches) {
        report.part(title);
        for case in &bench.cases {
            report.samples(case.name, (&case.thread, 0.0), None);
        }
    }
    drop(benches);
    let mut hosts = [world::Host::new(Some(object))?, world::Host::new(None)?];
    let mut bench = path::Bench::new(hybrid::Rules::read()?, true).await?;
    bench.compare(&mut hosts, effort.path).await?;
    ways(report, &bench);
    Ok(())
}

/// The part about the programs.
fn programs(report: &mut Report, bench: &program::Bench) -> Result<()> {
    let samples = |name: &str| bench.case(name).map(|case| &case.thread);
    let p5 = |name: &str| samples(name).map(Samples::p5);
    // What it costs that every packet is another, which no real packet pays.
    let rotor = p5("rotor")? - p5("empty")?;
    let turn = p5("rotor turn")? - p5("empty")?;
    let xdp = rotor;
    report.part("program, BPF_PROG_TEST_RUN, gross");
    report.samples("empty program", (samples("empty")?, 0.0), None);
    report.samples("device without a port", (samples("unmanaged")?, 0.0), None);
    for (what, name) in [
        ("established, hot, IPv4, from instance", "hot v4 from"),
        ("established, hot, IPv4, to instance", "hot v4 to"),
        ("established, hot, IPv6, from instance", "hot v6 from"),
        ("established, hot, IPv6, to instance", "hot v6 to"),
    ] {
        report.samples(what, (samples(name)?, rotor), Some(75.0));
    }
    report.samples("XDP: empty program", (samples("rotor xdp")?, xdp), None);
    report.samples("XDP: established, hot, IPv4", (samples("hot v4 xdp")?, xdp), None);
    report.samples("65,536 flows in turn, from instance", (samples("turn v4 from")?, turn), None);
    report.samples("65,536 flows in turn, to instance", (samples("turn v4 to")?, turn), None);
    report.samples("refused, every packet another", (samples("denied")?, turn), None);
    report.part("program, new connections, filled tables");
    for (what, name) in [
        ("allowed to everybody, from instance", "new any"),
        ("allowed to everybody, to instance", "new any to"),
        ("allowed to a group, 32,768 of its members", "new group"),
        ("allowed to a prefix", "new prefix"),
    ] {
        report.samples(what, (samples(name)?, turn), Some(400.0));
    }
    report.part("flatness, new connections to 10 members");
    for (what, few, many) in [
        ("10 rules to 1,000", "10 rules", "1000 rules"),
        ("10 rules to 10,000", "10 rules", "10000 rules"),
        ("10 members to 1,000", "10 members", "1000 members"),
        ("10 members to 100,000", "10 members", "100000 members"),
    ] {
        report.figure(what, (p5(many)? - turn) / (p5(few)? - turn), "x", Some(1.3));
    }
    Ok(())
}

/// The parts about the whole way, and about the memory of the flows that are tracked on it.
async fn whole_way(report: &mut Report, effort: Effort) -> Result<()> {
    let mut host = world::Host::new(None)?;
    let empty = host.bytes("FLOWS4")?;
    let mut bench = path::Bench::new(hybrid::Rules::read()?, false).await?;
    bench.measure(&mut host, effort.path).await?;
    ways(report, &bench);
    report.part("new connections a second, one CPU");
    for variant in &bench.variants {
        report.figure(variant.name, 1e6 / variant.new.p5(), "k/s", None);
    }
    let memory = tables::Memory { empty, full: bench.flow_bytes, notes: bench.note_bytes };
    tables::memory(report, memory, (2 * path::TRACKED, MAX_FLOWS4));
    Ok(())
}

/// What the whole way takes, and what that is more than without any filter.
fn ways(report: &mut Report, bench: &path::Bench) {
    let base = &bench.variants[0];
    for (title, samples) in [
        ("one connection", (|variant| &variant.one) as fn(&path::Variant) -> &Samples),
        ("100,032 connections in turn", |variant| &variant.turn),
        ("new connections", |variant| &variant.new),
    ] {
        report.part(format!("whole way, {title}"));
        for variant in &bench.variants {
            report.samples(variant.name, (samples(variant), 0.0), None);
        }
        for variant in &bench.variants[1..] {
            let added = samples(variant).p5() - samples(base).p5();
            let judged = variant.name.starts_with("netdiag,") && !title.starts_with("new");
            report.figure(format!("added by {}", variant.name), added, "ns", judged.then_some(150.0));
        }
    }
}
