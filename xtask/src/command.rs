//! Starts other programs, and finds them. An error always carries the command line that failed.

use std::{
    env,
    ffi::OsStr,
    io::{self, Read as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Runs a command on this terminal and waits for it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", line(command)))?;
    if status.success() { Ok(()) } else { bail!("{}: {status}", line(command)) }
}

/// Runs a command beside another one: what it says is printed in one piece, when it has ended.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let (mut said, writer) = io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("share a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("start {}", line(command)))?;
    // The command holds the ends that are written to, and with them open the other would never come to an end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut text = Vec::new();
    said.read_to_end(&mut text).with_context(|| format!("read what {} says", line(command)))?;
    print!("{}", String::from_utf8_lossy(&text));
    let status = child.wait().with_context(|| format!("wait for {}", line(command)))?;
    if status.success() { Ok(()) } else { bail!("{}: {status}", line(command)) }
}

/// Runs a command and returns what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", line(command)))?;
    if !output.status.success() {
        bail!("{}: {}\n{}", line(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{}: its output is not UTF-8", line(command)))
}

/// Where a program is: in `PATH`, or where Debian keeps what only root usually runs.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    find_in(&env::var_os("PATH").unwrap_or_default(), name)
}

fn find_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Cargo as the pinned toolchain has it, in the workspace.
///
/// What the cargo that runs this tool has told it about its own package does not belong to the packages built here.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// True for root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whoever is not root needs sudo.
pub(crate) fn require_sudo() -> Result<()> {
    if find("sudo").is_none() {
        bail!("this needs root, and there is no sudo: run it as root");
    }
    Ok(())
}

/// A command that runs with root's rights. What tells the lab that it runs in CI goes with it.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    require_sudo()?;
    let mut sudo = Command::new("sudo");
    sudo.arg("--preserve-env=CI,NETDIAG_CI").arg(program);
    Ok(sudo)
}

/// Starts this program again with root's rights and the same arguments, in its own place: terminal, signals and exit
/// code need no passing on. Returns at once for root.
pub(crate) fn become_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let mut again = as_root(env::current_exe().context("find this program")?)?;
    Err(again.args(env::args_os().skip(1)).exec()).with_context(|| format!("start {}", line(&again)))
}

/// The command as a reader would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{find, find_in, output, run};
    use std::{ffi::OsStr, process::Command};

    #[test]
    fn a_program_outside_path_is_found_where_root_has_it() {
        let root_has_it = ["iptables", "ip", "ldconfig"].iter().any(|name| find_in(OsStr::new(""), name).is_some());
        assert!(root_has_it, "neither iptables nor ip nor ldconfig in /usr/sbin");
        assert_eq!(find_in(OsStr::new("/nonexistent"), "no-such-program-anywhere"), None);
        assert!(find("sh").is_some());
    }

    #[test]
    fn a_failure_names_the_command_line_and_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo gone >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("exit status: 3") && error.contains("gone"), "{error}");
        assert!(run(Command::new("sh").args(["-c", "exit 1"])).is_err());
    }
}
