//! Owns a lab on the real host: makes its directory, starts its fabric, waits for its end and removes what is left.
//!
//! The fabric dies with this process (parent death signal). This process in turn ends the lab when its standard input is
//! closed before the word `detach` came: the terminal, test or script that asked for the lab is gone.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal};

use crate::lab::{
    report::{self, Report},
    require,
    spec::Spec,
    state::{self, State},
};

/// What a lab's owner says when the lab shall stay without it.
pub(crate) const DETACH: &str = "detach\n";

/// Starts a supervisor, with pipes to it, out of reach of the terminal's signals.
pub(crate) fn start(spec: &Spec) -> Result<Child> {
    let words = spec.command_line("supervise", None)?;
    let (program, arguments) = words.split_first().context("an empty command line")?;
    Command::new(program)
        .args(arguments)
        .env("PATH", require::path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the supervisor")
}

/// Is the supervisor of a lab until the lab ends.
pub(crate) fn run(spec: &Spec) -> Result<()> {
    let state = State::of(&spec.name)?;
    report::result(state::this_process().and_then(|process| state.create(process)))?;
    let ended = oversee(spec, &state);
    if let Err(error) = &ended {
        let log = tail(&state.log(), 15);
        let log = if log.is_empty() { String::new() } else { format!("\nlast lines of the lab's log:\n{log}") };
        // Whoever asked may have gone; what is left must be removed all the same.
        report::send(&Report::Failed(format!("{error:#}{log}"))).ok();
    }
    state.remove()?;
    ended
}

/// Starts the fabric, passes on that it is ready, and waits for its end.
fn oversee(spec: &Spec, state: &State) -> Result<()> {
    let mut fabric = start_fabric(spec, &state.log())?;
    let pid = i32::try_from(fabric.id()).ok().and_then(Pid::from_raw).context("the fabric has no pid")?;
    thread::spawn(move || end_when_abandoned(pid));
    let stdout = fabric.stdout.take().context("no pipe from the fabric")?;
    let ready = report::receive(&mut BufReader::new(stdout));
    if ready.is_err() {
        fabric.kill().context("end the fabric")?;
    } else {
        // Whoever asked may have gone meanwhile; `end_when_abandoned` sees to that.
        report::send(&Report::Ready).ok();
    }
    fabric.wait().context("wait for the fabric")?;
    ready.map(drop)
}

fn start_fabric(spec: &Spec, log: &Path) -> Result<Child> {
    let log = File::create(log).with_context(|| format!("write {}", log.display()))?;
    let namespaces = ["--pid", "--mount", "--net", "--uts", "--ipc"];
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--fork", "--kill-child"])
        .args(namespaces)
        .arg("--")
        .args(spec.command_line("fabric", None)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("start the fabric (setpriv, unshare)")
}

/// Kills the fabric when standard input ends and nobody has said [`DETACH`].
fn end_when_abandoned(fabric: Pid) {
    let mut line = String::new();
    if io::stdin().read_line(&mut line).is_err() || line != DETACH {
        // It may have ended by itself; then the supervisor is about to end as well.
        rustix::process::kill_process(fabric, Signal::KILL).ok();
    }
}

/// The last lines of a file; empty if it cannot be read.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
