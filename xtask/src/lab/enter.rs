//! Enters a lab host from outside, through util-linux `nsenter`.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::lab::{inventory::Host, require};

/// A command that will run inside `host`, with the words of what to run still to be added.
pub(crate) fn command(host: &Host) -> Result<Command> {
    let pid = host.pid.with_context(|| format!("{} has no process", host.name))?;
    let mut command = Command::new("nsenter");
    command.env("PATH", require::path());
    command.args(["--target", &pid.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
    Ok(command)
}
