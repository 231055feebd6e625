//! Named network namespaces of a lab host, made and entered as Neutron's agents do it: with `ip netns`.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::lab::command;

/// Makes a namespace with its loopback up.
pub(crate) fn add(name: &str) -> Result<()> {
    command::run("ip", ["netns", "add", name])?;
    batch(name, "link set lo up\n")
}

/// Gives the namespace of a process a name, as nova-docker does it: by a symbolic link, which dangles once the process
/// has ended.
pub(crate) fn link(name: &str, pid: u32) -> Result<()> {
    let path = path(name);
    symlink(format!("/proc/{pid}/ns/net"), &path).with_context(|| format!("make the link {}", path.display()))
}

/// Runs `ip` commands, one a line, inside.
pub(crate) fn batch(name: &str, commands: &str) -> Result<()> {
    command::feed("ip", ["-n", name, "-batch", "-"], commands).with_context(|| format!("in namespace {name}")).map(drop)
}

/// Runs a program inside.
pub(crate) fn run(name: &str, words: &[&str]) -> Result<String> {
    feed(name, words, "")
}

/// Runs a program inside, with `input` as its standard input.
pub(crate) fn feed(name: &str, words: &[&str], input: &str) -> Result<String> {
    command::feed("ip", ["netns", "exec", name].iter().chain(words), input)
}

/// Where a namespace of this name is found.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}
