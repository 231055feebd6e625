//! `cargo xtask test`: every test there is, those that need a real kernel included.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    build, command,
    setup::{self, Scope},
    workspace,
};

/// Variables that must reach the tests through sudo.
const HANDED_ON: &str = "NETDIAG_CI,CI,NETDIAG_BIN,NETDIAG_XTASK,NETDIAG_BPF_OBJECT,PATH,INSTA_UPDATE,INSTA_WORKSPACE_ROOT,\
                         CARGO_MANIFEST_DIR,RUST_BACKTRACE,NETDIAG_DIFFERENTIAL_PACKETS,NETDIAG_DIFFERENTIAL_SEED";

/// Tests that wait for packets for most of their time, each in a lab of its own, and how many of them run at once.
const WAITING: [&str; 1] = ["floating_lab"];
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
    setup::ensure(Scope::Lab, setup)?;
    let root = workspace::root()?;
    let binary = build::binary(&root, false)?;
    let object = build::object(&root)?;
    let cargo = |arguments: &[&str]| -> Result<Command> {
        let mut cargo = command::cargo(&root);
        cargo
            .args(arguments)
            .args(["--locked", "--no-fail-fast"])
            .args(filter.as_deref())
            .env(build::OBJECT_VARIABLE, &object)
            .env("NETDIAG_BIN", &binary)
            .env("NETDIAG_XTASK", env::current_exe().context("find this program")?);
        Ok(cargo)
    };
    let unprivileged = command::run(&mut cargo(&["test", "--workspace", "--exclude", "netdiag-tests"])?);
    let runner = runner(&root)?;
    let privileged = |targets: &[String], options: &[&str]| -> Result<()> {
        let mut privileged = cargo(&["test", "--package", "netdiag-tests"])?;
        privileged.args(targets).arg("--").args(options);
        if let Some((variable, runner)) = &runner {
            privileged.env(variable, runner);
        }
        command::run(&mut privileged)
    };
    let (waiting, others) = targets(&root)?;
    let privileged = [
        privileged(&others, &[]),
        privileged(&["--doc".to_owned()], &[]),
        privileged(&waiting, &["--test-threads", AT_ONCE]),
    ];
    let failed: Vec<_> = [unprivileged].into_iter().chain(privileged).filter_map(Result::err).collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!(failed.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; "))
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
