//! `cargo xtask demo`: a compute host as Neutron and nova-docker leave it, and the trace of one of its instances.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build, command,
    setup::{self, Scope},
    workspace,
};

/// Name of the lab; one demo at a time is enough for anybody.
const LAB: &str = "demo";

/// The instance that is traced, by the address its tenant knows.
const FLOATING_IP: &str = "172.24.4.6";

/// Options of `demo`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the lab running, to look around in it
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    setup: setup::Args,
}

/// Sets up, builds, brings the lab up, traces, and takes the lab down.
pub(crate) fn run(args: Args) -> Result<()> {
    setup::ensure(Scope::Lab, args.setup)?;
    let root = workspace::root()?;
    let netdiag = build::binary(&root, false)?;
    command::run(lab()?.args(["up", "--name", LAB, "--profile", "neutron-ovs"]))?;
    let traced = traced(&netdiag);
    if args.keep && traced.is_ok() {
        let enter = "cargo xtask lab exec demo -- bash";
        println!("\nThe lab is still there: `{enter}` enters it, `cargo xtask lab down {LAB}` ends it.");
        return traced;
    }
    let down = command::run(lab()?.args(["down", LAB]));
    traced.and(down)?;
    println!("\nThe lab is gone again; `cargo xtask demo --keep` leaves it running.");
    Ok(())
}

/// Sends some packets, so that there is something to count, and shows the way they took.
fn traced(netdiag: &Path) -> Result<()> {
    let inside = |host: &str| -> Result<Command> {
        let mut exec = lab()?;
        exec.args(["exec", LAB, "--host", host, "--"]);
        Ok(exec)
    };
    command::output(inside("outside")?.args(["ping", "-c", "3", "-i", "0.2", FLOATING_IP]))?;
    println!("\n$ netdiag trace {FLOATING_IP}");
    command::run(inside("compute-1")?.arg(netdiag).args(["trace", FLOATING_IP]))
}

/// This program's `lab` verb.
fn lab() -> Result<Command> {
    let mut lab = Command::new(env::current_exe().context("find this program")?);
    lab.arg("lab");
    Ok(lab)
}
