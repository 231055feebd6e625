//! Everything that is not plain cargo: `cargo xtask <verb>`, one module per verb.
//!
//! | verb | what it does | needs |
//! |---|---|---|
//! | [`setup`] | installs what the other verbs use, after saying what | root or sudo, if something is missing |
//! | [`build`] | the eBPF programs, then the binary that carries them | nothing |
//! | [`demo`] | a compute host, the trace of one of its instances, its security groups | root or sudo |
//! | [`mod@test`] | every test there is | root or sudo |
//! | [`differential`] | evaluators of security groups against each other | root or sudo, as long as one likes |
//! | [`mod@bench`] | what enforcement costs, beside what others cost | root or sudo, some minutes |
//! | [`check`] | what CI runs without privileges | nothing |
//! | [`lab`] | throw-away compute hosts | root, the lab's packages |
//! | [`vm`] | the lab and the tests on another kernel | the lab's packages, an emulator |
//! | [`arch`] | which crate may depend on which | nothing |
//! | [`gen_docs`] | what is documented from the code itself | nothing |
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a build tool talks to the terminal it was started in")]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Which crate may depend on which.
mod arch;
/// What enforcement costs.
mod bench;
/// The eBPF programs, then the binary that carries them.
mod build;
/// What CI runs without privileges.
mod check;
/// Starts other programs, and finds them.
mod command;
/// A compute host, the trace of one of its instances, and its security groups.
mod demo;
/// Evaluators of security groups against each other.
mod differential;
/// What is documented from the code itself.
mod gen_docs;
/// Throw-away compute hosts.
mod lab;
/// Installs what the other verbs use, after saying what.
mod setup;
/// Every test there is.
mod test;
/// The lab and the tests on another kernel.
mod vm;
/// Where things are in this workspace.
mod workspace;

/// Everything about netdiag that is not plain cargo
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
enum Verb {
    /// Install what the other verbs use, after saying what
    Setup(setup::Args),
    /// Build the eBPF programs, then the netdiag binary that carries them
    Build(build::Args),
    /// Bring a compute host up, trace one of its instances, enforce its security groups
    Demo(demo::Args),
    /// Run every test, those that need a real kernel included
    Test(test::Args),
    /// Run random packets through the three evaluators of security groups, which must agree
    Differential(differential::Args),
    /// Measure what enforcement costs, beside what others cost
    Bench(bench::Args),
    /// Run every check that needs no privilege: what CI runs
    Check(check::Args),
    /// A throw-away compute host: bring one up, work in it, throw it away
    Lab(lab::Args),
    /// A virtual machine with another kernel and this machine's files: for the lab and the tests
    Vm(vm::Args),
    /// Check which crate depends on which
    Arch,
    /// Write docs/reasons.md from the code
    Gen,
}

fn main() -> ExitCode {
    let done = match lab::as_hypervisor() {
        Some(ended) => ended.map(|()| ExitCode::SUCCESS),
        None => run(Verb::parse()),
    };
    done.unwrap_or_else(|error| {
        // The causes in one line, and no backtrace: what went wrong is outside this program.
        eprintln!("cargo xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup(args) => setup::run(args)?,
        Verb::Build(args) => build::run(args)?,
        Verb::Demo(args) => demo::run(args)?,
        Verb::Test(args) => test::run(args)?,
        Verb::Differential(args) => differential::run(args)?,
        Verb::Bench(args) => bench::run(args)?,
        Verb::Check(args) => check::run(args)?,
        Verb::Lab(args) => lab::run(args)?,
        Verb::Vm(args) => return vm::run(args),
        Verb::Arch => arch::run()?,
        Verb::Gen => gen_docs::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
