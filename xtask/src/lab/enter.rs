//! Enters a lab host, or a virtual machine's guest, from outside, through util-linux `nsenter`.

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

/// The same for the network of a guest, by its process 1 as the real host counts pids.
pub(crate) fn guest(pid: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.env("PATH", require::path());
    command.args(["--target", &pid.to_string(), "--net"]);
    command
}
