//! bpf-linker, the linker of the eBPF programs.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::command;

/// The version that works with the LLVM of the pinned compiler, which it loads rather than brings its own.
pub(super) const VERSION: &str = "0.10.4";

/// True if this very version is installed.
pub(super) fn is_installed() -> bool {
    let printed = command::output(Command::new("bpf-linker").arg("--version"));
    printed.is_ok_and(|text| text.split_whitespace().last() == Some(VERSION))
}

/// Builds and installs it, in place of another version if there is one.
pub(super) fn install(root: &Path) -> Result<()> {
    command::run(command::cargo(root).args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]))
}
