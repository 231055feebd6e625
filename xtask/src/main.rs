//! Everything that is not plain cargo: `cargo xtask <verb>`, one module per verb.
//!
//! | verb | what it does | needs |
//! |---|---|---|
//! | [`setup`] | installs what the other verbs use, after saying what | root or sudo, if something is missing |
//! | [`build`] | the eBPF programs, then the binary that carries them | nothing |
//! | [`check`] | what CI runs without privileges | nothing |
//! | [`lab`] | throw-away compute hosts | root, the lab's packages |
//! | [`arch`] | which crate may depend on which | nothing |
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a build tool talks to the terminal it was started in")]

use std::process::ExitCode;

use clap::Parser;

/// Which crate may depend on which.
mod arch;
/// The eBPF programs, then the binary that carries them.
mod build;
/// What CI runs without privileges.
mod check;
/// Starts other programs, and finds them.
mod command;
/// Throw-away compute hosts.
mod lab;
/// Installs what the other verbs use, after saying what.
mod setup;
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
    /// Run every check that needs no privilege: what CI runs
    Check(check::Args),
    /// A throw-away compute host: bring one up, work in it, throw it away
    Lab(lab::Args),
    /// Check which crate depends on which
    Arch,
}

fn main() -> ExitCode {
    let done = match Verb::parse() {
        Verb::Setup(args) => setup::run(args),
        Verb::Build(args) => build::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Lab(args) => lab::run(args),
        Verb::Arch => arch::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The causes in one line, and no backtrace: what went wrong is outside this program.
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
