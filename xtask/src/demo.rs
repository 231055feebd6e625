//! `cargo xtask demo`: a compute host as Neutron and nova-docker leave it, the trace of one of its instances, a real packet of it,
//! its security groups enforced, its floating IP past the router, and the live view of all that for whoever wants to look
//! around.

use std::{
    env,
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build, command,
    setup::{self, Scope},
    workspace,
};

mod floating;
mod groups;

/// Name of the lab; one demo at a time is enough for anybody.
const LAB: &str = "demo";

/// The instance that is traced, by the address its tenant knows.
const FLOATING_IP: &str = "172.24.4.6";

/// The machine outside.
const OUTSIDE: &str = "172.24.4.1";

/// Options of `demo`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the lab running, and the agent in it, to look around
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    setup: setup::Args,
}

/// Sets up, builds, brings the lab up, traces, enforces, and takes the lab down.
pub(crate) fn run(args: Args) -> Result<()> {
    setup::ensure(Scope::Lab, args.setup)?;
    let root = workspace::root()?;
    let stage = Stage { netdiag: build::binary(&root, false)? };
    command::run(lab()?.args(["up", "--name", LAB, "--profile", "neutron-ovs"]))?;
    let shown = traced(&stage).and_then(|()| groups::enforced(&stage, args.keep));
    if args.keep && shown.is_ok() {
        let enter = "cargo xtask lab exec demo -- bash";
        println!("\nThe lab is still there: `{enter}` enters it, `cargo xtask lab down {LAB}` ends it.");
        println!("The live view: `cargo xtask lab exec {LAB} -- {} tui`.", stage.netdiag.display());
        return shown;
    }
    let down = command::run(lab()?.args(["down", LAB]));
    shown.and(down)?;
    println!("\nThe lab is gone again; `cargo xtask demo --keep` leaves it running.");
    Ok(())
}

/// Sends some packets, so that there is something to count, and shows the way they took; then a packet on that way.
fn traced(stage: &Stage) -> Result<()> {
    command::output(&mut stage.line(Place::Outside, &format!("ping -c 3 -i 0.2 {FLOATING_IP}"))?)?;
    stage.show(Place::Host, &format!("netdiag trace {FLOATING_IP}"), 0)?;
    stage.show(Place::Host, &format!("netdiag trace {FLOATING_IP} --probe icmp --to {OUTSIDE}"), 0)
}

/// Opens the live view if there is somebody who wants it, and has a machine outside send something meanwhile.
fn offer_live_view(stage: &Stage, traffic: &str) -> Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(());
    }
    println!(
        "\nEnter opens the live view of this host, `netdiag tui`, while somebody outside tries both services: `?` names\nits keys, q goes on. n and Enter goes on without."
    );
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("read the answer")?;
    if answer.trim().is_empty() {
        let mut outside = stage.line(Place::Outside, traffic)?.spawn().context("start the traffic")?;
        let status = stage.line(Place::Host, "netdiag tui")?.status().context("start netdiag tui")?;
        command::run(&mut stage.line(Place::Outside, "touch /run/enough")?)?;
        outside.wait().context("wait for the end of the traffic")?;
        if !status.success() {
            bail!("netdiag tui: {status}");
        }
    }
    Ok(())
}

/// Where a command runs.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// On the compute host.
    Host,
    /// On the machine outside.
    Outside,
}

/// The lab, and the netdiag that is shown in it.
struct Stage {
    netdiag: PathBuf,
}

impl Stage {
    /// Shows a line of shell with its prompt, and runs exactly that; it has to end with this exit code.
    fn show(&self, place: Place, line: &str, code: i32) -> Result<()> {
        let prompt = match place {
            Place::Host => "$",
            Place::Outside => "outside$",
        };
        println!("\n{prompt} {line}");
        let status = self.line(place, line)?.status().with_context(|| format!("start {line}"))?;
        if status.code() == Some(code) { Ok(()) } else { bail!("{line}: {status} instead of exit code {code}") }
    }

    /// A line of shell, which finds netdiag by its name.
    fn line(&self, place: Place, line: &str) -> Result<Command> {
        let host = match place {
            Place::Host => "compute-1",
            Place::Outside => "outside",
        };
        let directory = self.netdiag.parent().context("netdiag is in no directory")?;
        let path = format!("PATH={}:$PATH", directory.display());
        let mut exec = lab()?;
        exec.args(["exec", LAB, "--host", host, "--", "sh", "-c", &format!("{path}\n{line}")]);
        Ok(exec)
    }
}

/// This program's `lab` verb.
fn lab() -> Result<Command> {
    let mut lab = Command::new(env::current_exe().context("find this program")?);
    lab.arg("lab");
    Ok(lab)
}
