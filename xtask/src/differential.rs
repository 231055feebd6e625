//! `cargo xtask differential`: the three evaluators of security groups against each other, and whoever translates floating IPs, for as
//! many packets as one likes.
//!
//! `cargo xtask test` runs the same with a million packets in CI. Each seed is a world of its own, so a longer run is one with
//! more packets, and another run one with another first seed.

use anyhow::Result;

use crate::{
    build, command,
    setup::{self, Scope},
    test, workspace,
};

/// Options of `differential`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: setup::Args,
    /// How many packets
    #[arg(long, default_value_t = 20_000_000)]
    packets: u64,
    /// How many packets of floating IPs are translated: each goes through a router, too
    #[arg(long, default_value_t = 200_000)]
    translated: u64,
    /// The first seed
    #[arg(long, default_value_t = 1_000_000)]
    seed: u64,
}

/// Builds the programs and runs the test on them.
pub(crate) fn run(args: Args) -> Result<()> {
    let Args { setup, packets, translated, seed } = args;
    setup::ensure(Scope::Lab, setup)?;
    let root = workspace::root()?;
    let object = build::object(&root)?;
    let mut cargo = command::cargo(&root);
    cargo
        .args([
            "test",
            "--release",
            "--locked",
            "--package",
            "netdiag-tests",
            "--test",
            "differential",
            "--test",
            "floating_translation",
            "--",
            "--nocapture",
        ])
        .env(build::OBJECT_VARIABLE, object)
        .env("NETDIAG_CI", "1")
        .env("NETDIAG_DIFFERENTIAL_PACKETS", packets.to_string())
        .env("NETDIAG_DIFFERENTIAL_SEED", seed.to_string())
        .env("NETDIAG_TRANSLATION_PACKETS", translated.to_string())
        .env("NETDIAG_TRANSLATION_SEED", seed.to_string());
    if let Some((variable, runner)) = test::runner(&root)? {
        cargo.env(variable, runner);
    }
    command::run(&mut cargo)
}
