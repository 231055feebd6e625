//! A virtual machine with another kernel under this machine's own files: for what the running kernel cannot show.
//!
//! Everything but the kernel is this machine's: its root file system, read-only, with changes in memory, so that what was
//! built and installed here runs there. Control groups are version 2 alone, as systemd leaves them; there is no network
//! but what a lab makes. The processor is emulated, and the machine's clock goes by the instructions it runs: things take
//! ten times as long as here, but not in the machine's own time, so that no bound has to be stretched. What is built here
//! while a machine runs changes under it.
//!
//! ```text
//! vm run      fetches the kernel, builds netdiag, makes an initramfs, boots it, passes on its output and exit code
//! └ qemu      first serial line: the kernel's messages; second: the command's terminal; third: its exit code
//!   └ init    process 1 (`vm/init.sh`): loads modules, mounts this machine's files, and becomes
//!     └ start what runs the command and ends the machine (`vm/start.sh`)
//! ```

use std::{env, ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};

use self::{kernel::Version, machine::Machine, script::Script};
use crate::{
    build,
    setup::{self, Scope},
    workspace,
};

/// What a machine starts from: a few modules and the script that is its first process.
mod initramfs;
/// Kernels of Debian, unpacked below the target directory.
mod kernel;
/// The virtual machine itself.
mod machine;
/// The command as a script for the machine's shell.
mod script;
/// The tests that need a real kernel, in a machine.
mod suite;

/// `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run a command as root in the checkout's directory, on another kernel; its exit code is passed through
    Run(Run),
    /// Run the tests that need a real kernel on another one
    Test(suite::Args),
}

/// Options of every machine.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Options {
    /// Which kernel; fetched from the Debian archive if it is not there yet
    #[arg(long)]
    kernel: Version,
    /// Let the processor run the machine instead of emulating it
    #[arg(long)]
    kvm: bool,
    /// Memory of the machine, in MiB
    #[arg(long, default_value_t = 4096)]
    memory: u32,
    /// Processors of the machine; emulated ones take turns, and Linux 6.1 waits for the second for ever
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    #[command(flatten)]
    setup: setup::Args,
}

/// `vm run`.
#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    options: Options,
    /// What to run; `netdiag` and `xtask` are those of this checkout
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs one verb; the exit code is that of what ran in the machine.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        Verb::Run(Run { options, command }) => {
            let (machine, mut script) = prepare(options)?;
            script.run(&command);
            machine.run(&script)
        }
        Verb::Test(args) => suite::run(args),
    }
}

/// A machine, and the beginning of a script for it: this checkout's programs, where the tests and a user find them.
fn prepare(options: Options) -> Result<(Machine, Script)> {
    setup::ensure(Scope::Vm, options.setup)?;
    let root = workspace::root()?;
    let kernel = kernel::obtain(options.kernel, &root, options.setup)?;
    let netdiag = build::binary(&root, false)?;
    let xtask = env::current_exe().context("find this program")?;
    let mut script = Script::new(&root);
    script.search(&[&netdiag, &xtask])?;
    script.set("NETDIAG_BIN", &netdiag);
    script.set("NETDIAG_XTASK", &xtask);
    Ok((Machine::new(options, kernel, &root)?, script))
}
