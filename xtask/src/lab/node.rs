//! A lab host: process 1 of its namespaces, and the builder that makes it what its profile says.

use std::{
    fs,
    io::{self, BufRead as _},
    process::{Command, Stdio, exit},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{io::Errno, process::WaitOptions};

use crate::lab::{
    fabric::GO,
    host::Host,
    profile,
    report::{self, Report},
    sandbox,
    spec::Spec,
};

/// How long a host without processes waits before it looks again.
const IDLE: Duration = Duration::from_secs(1);

/// Which host of which lab.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    spec: Spec,
    #[arg(long)]
    host: String,
}

/// Is process 1 of a lab host: furnishes it, starts the builder, and then collects orphans until the lab ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    report::send(&Report::Started { pid: outer_pid()? })?;
    let mut word = String::new();
    io::stdin().lock().read_line(&mut word).context("wait for the cables")?;
    if word != GO {
        bail!("the fabric is gone");
    }
    sandbox::enter(&args.host)?;
    let words = args.spec.command_line("build", Some(&args.host))?;
    let (program, arguments) = words.split_first().context("an empty command line")?;
    let builder = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .current_dir("/")
        .spawn()
        .context("start the builder")?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().unsigned_abs() == builder.id() => {
                match status.exit_status() {
                    Some(0) => {}
                    // It has reported why.
                    Some(code) => exit(code),
                    None => bail!("its builder ended with {status:?}"),
                }
            }
            Ok(_) => {}
            // A host may have no process for a while and get some by `lab exec`.
            Err(Errno::CHILD) => thread::sleep(IDLE),
            Err(error) => return Err(error).context("wait for processes"),
        }
    }
}

/// The pid of this process as the real host counts: its `/proc` is still the one mounted here.
fn outer_pid() -> Result<u32> {
    let link = fs::read_link("/proc/self").context("read /proc/self")?;
    link.to_string_lossy().parse().context("understand /proc/self")
}

/// Makes the host it runs in what the profile says, and reports what it has found out.
pub(crate) fn build(args: &Args) -> Result<()> {
    let plan = profile::plan(&args.spec);
    let host = Host::new(&args.spec, &plan, &args.host)?;
    report::send(&Report::Built(Box::new(profile::build(&host)?)))
}
