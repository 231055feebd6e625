//! `cargo xtask test`: every test there is, those that need a real kernel included.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build, command,
    setup::{self, Scope},
    workspace,
};

/// Variables that must reach the tests through sudo.
const HANDED_ON: &str = "NETDIAG_CI,CI,NETDIAG_BIN,NETDIAG_XTASK,NETDIAG_BPF_OBJECT,PATH,INSTA_UPDATE,INSTA_WORKSPACE_ROOT,\
                         CARGO_MANIFEST_DIR,RUST_BACKTRACE,NETDIAG_DIFFERENTIAL_PACKETS,NETDIAG_DIFFERENTIAL_SEED";

/// Tests that wait for packets for most of their time, each in labs of its own. They run beside all others, which keeps
/// the whole run about as short as the others alone.
const WAITING: [&str; 11] = [
    "agent_ahead",
    "agent_floating_own",
    "agent_seen",
    "floating_faults",
    "floating_lab",
    "floating_midway",
    "floating_outside",
    "live_faults",
    "live_faults_life",
    "live_faults_sources",
    "live_trace",
];

/// How many tests of one of these run at once.
const AT_ONCE: &str = "8";

/// Options of `test`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: setup::Args,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Sets up, builds, and runs every test, those after a failure too: one run tells all there is to tell.
pub(crate) fn run(args: Args) -> Result<()> {
    let Args { setup, filter } = args;
    setup::ensure(Scope::Test, setup)?;
    let root = workspace::root()?;
    let tests = Tests {
        binary: build::binary(&root, false)?,
        object: build::object(&root)?,
        this: env::current_exe().context("find this program")?,
        runner: runner(&root)?,
        root,
        filter,
    };
    let unprivileged = command::run(&mut tests.cargo(&["--workspace", "--exclude", "netdiag-tests"]));
    let failed: Vec<_> = [unprivileged].into_iter().chain(tests.privileged()?).filter_map(Result::err).collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!(failed.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; "))
}

/// What every run of cargo is told.
struct Tests {
    root: PathBuf,
    binary: PathBuf,
    object: PathBuf,
    /// This program, which the tests make labs with.
    this: PathBuf,
    /// What starts the privileged tests, where this is not root already.
    runner: Option<(String, String)>,
    filter: Option<String>,
}

impl Tests {
    /// `cargo test` of these targets.
    fn cargo(&self, targets: &[impl AsRef<OsStr>]) -> Command {
        let mut cargo = command::cargo(&self.root);
        cargo
            .arg("test")
            .args(targets)
            .args(["--locked", "--no-fail-fast"])
            .args(self.filter.as_deref())
            .env(build::OBJECT_VARIABLE, &self.object)
            .env("NETDIAG_BIN", &self.binary)
            .env("NETDIAG_XTASK", &self.this);
        cargo
    }

    /// The same, of the privileged tests.
    fn cargo_as_root(&self, targets: &[impl AsRef<OsStr>]) -> Command {
        let mut cargo = self.cargo(targets);
        cargo.args(["--package", "netdiag-tests"]);
        if let Some((variable, runner)) = &self.runner {
            cargo.env(variable, runner);
        }
        cargo
    }

    /// Runs the privileged tests: the outcome of each run of cargo.
    fn privileged(&self) -> Result<Vec<Result<()>>> {
        // Compiled before anything runs: two cargos would wait for each other, and then measure each other's compiler.
        let built = command::run(&mut self.cargo_as_root(&["--tests", "--no-run"]));
        if built.is_err() {
            return Ok(vec![built]);
        }
        let (waiting, others) = targets(&self.root)?;
        Ok(thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut cargo = self.cargo_as_root(&waiting);
                command::run_quietly(cargo.args(["--", "--test-threads", AT_ONCE]))
            });
            let others = command::run(&mut self.cargo_as_root(&others));
            let documentation = command::run(&mut self.cargo_as_root(&["--doc"]));
            let waiting = waiting.join().unwrap_or_else(|_| bail!("the thread of the tests that wait has died"));
            vec![others, documentation, waiting]
        }))
    }
}

/// The privileged tests, as cargo is told of them: those of [`WAITING`], and all others.
fn targets(root: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let directory = root.join("tests/tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    let (waiting, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| WAITING.contains(&name.as_str()));
    let tests = |names: Vec<String>| names.into_iter().map(|name| format!("--test={name}"));
    Ok((tests(waiting).collect(), ["--lib".to_owned()].into_iter().chain(tests(others)).collect()))
}

/// How cargo has to start the privileged tests: through sudo, unless this is root already.
pub(crate) fn runner(root: &Path) -> Result<Option<(String, String)>> {
    if command::is_root() {
        return Ok(None);
    }
    command::require_sudo()?;
    let printed = command::output(Command::new("rustc").arg("-vV").current_dir(root))?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
    Ok(Some((variable, format!("sudo --preserve-env={HANDED_ON}"))))
}
