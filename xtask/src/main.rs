//! Everything that is not plain cargo.
//!
//! One file per verb; this one only says which verbs there are.

use std::process::ExitCode;

use clap::Parser;

mod lab;

/// Tasks of the netdiag repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// A throw-away compute host: bring one up, work in it, throw it away
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Lab(args) => lab::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is where errors reach the user")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
