//! `cargo xtask test`: every test there is, those that need a real kernel included.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    build, command,
    setup::{self, Scope},
    workspace,
};

/// Variables that must reach the tests through sudo.
const HANDED_ON: &str = "NETDIAG_CI,CI,NETDIAG_BIN,NETDIAG_XTASK,NETDIAG_BPF_OBJECT,PATH,INSTA_UPDATE,INSTA_WORKSPACE_ROOT,\
                         CARGO_MANIFEST_DIR,RUST_BACKTRACE,NETDIAG_DIFFERENTIAL_PACKETS,NETDIAG_DIFFERENTIAL_SEED";

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
    let mut privileged = cargo(&["test", "--package", "netdiag-tests"])?;
    if let Some((variable, runner)) = runner(&root)? {
        privileged.env(variable, runner);
    }
    let privileged = command::run(&mut privileged);
    match (unprivileged, privileged) {
        (Err(first), Err(second)) => bail!("{first:#}; {second:#}"),
        (first, second) => first.and(second),
    }
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
