//! `cargo xtask check`: every check that needs no privilege, in the order in which a failure is cheapest to learn.
//! CI runs this, and `cargo xtask test` after it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    arch, build, command,
    setup::{self, Scope},
    workspace,
};

/// Options of `check`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: setup::Args,
    /// Leave out unit and documentation tests: `cargo xtask test` runs them too
    #[arg(long)]
    without_tests: bool,
}

/// Runs every check, and stops at the first that fails.
pub(crate) fn run(args: Args) -> Result<()> {
    setup::ensure(Scope::Build, args.setup)?;
    let root = workspace::root()?;
    step("formatting", || formatting(&root))?;
    step("crate edges", arch::run)?;
    step("licences, sources, duplicate versions", || dependencies(&root))?;
    // First of the compiling steps: the others then compile the binary with the object in it, as `build` does.
    let object = step("eBPF programs", || build::object(&root))?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = command::cargo(&root);
        cargo.args(arguments).env(build::OBJECT_VARIABLE, &object);
        cargo
    };
    step("lints of the eBPF programs", || ebpf_lints(&root))?;
    step("lints", || {
        command::run(cargo(&["clippy", "--workspace", "--all-targets", "--locked"]).args(["--", "-Dwarnings"]))
    })?;
    if !args.without_tests {
        step("unit and documentation tests", || {
            // `tests` needs root and a lab; everything else must pass anywhere.
            command::run(&mut cargo(&["test", "--workspace", "--exclude", "netdiag-tests", "--locked"]))
        })?;
    }
    step("documentation", || {
        let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
        command::run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
    })?;
    println!("every check passed");
    Ok(())
}

/// Says what is being checked, does it, and names it again if it fails.
fn step<T>(name: &'static str, check: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("== {name}");
    check().context(name)
}

fn formatting(root: &Path) -> Result<()> {
    command::run(command::cargo(root).args(["fmt", "--all", "--check"]))?;
    command::run(command::cargo(root).args(["fmt", "--check", "--manifest-path", "ebpf/Cargo.toml"]))
}

fn ebpf_lints(root: &Path) -> Result<()> {
    command::run(build::ebpf_cargo(root, "clippy")?.args(["--release", "--", "-Dwarnings"]))
}

/// `deny.toml` by cargo-deny, where it is installed: building it takes longer than everything else here together.
///
/// Its fourth check, advisories, needs a database from the network and so cannot be part of what must pass anywhere.
fn dependencies(root: &Path) -> Result<()> {
    if command::find("cargo-deny").is_none() {
        println!("NOT CHECKED: cargo-deny is not installed (cargo install cargo-deny --locked)");
        return Ok(());
    }
    for manifest in ["Cargo.toml", "ebpf/Cargo.toml"] {
        let mut deny = Command::new("cargo-deny");
        deny.args(["--manifest-path", manifest, "--locked", "--config"]).arg(root.join("deny.toml"));
        command::run(deny.args(["check", "bans", "licenses", "sources"]).current_dir(root))?;
    }
    Ok(())
}
