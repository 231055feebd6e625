//! The command as a script for the machine's shell.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Variables of the environment that mean the same in the machine.
const HANDED_ON: &[&str] = &["HOME", "LANG", "TERM", "CI", "NETDIAG_CI", "RUST_BACKTRACE", "RUST_LOG", "NO_COLOR"];

/// A script in the making. A command of it that fails ends it, with that command's exit code.
#[derive(Debug)]
pub(super) struct Script(Vec<u8>);

impl Script {
    /// One that works in a directory, with what of the environment has a meaning in the machine.
    pub(super) fn new(directory: &Path) -> Self {
        let mut script = Self(b"set -e\n".to_vec());
        for name in HANDED_ON {
            if let Some(value) = env::var_os(name) {
                script.set(name, value);
            }
        }
        script.run(&[OsStr::new("cd"), directory.as_os_str()]);
        script
    }

    /// Lets programs be found by name, before all others.
    pub(super) fn search(&mut self, programs: &[&Path]) -> Result<()> {
        let given = env::var_os("PATH").unwrap_or_default();
        let theirs = programs.iter().filter_map(|program| program.parent()).map(PathBuf::from);
        let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        let path = env::join_paths(theirs.chain(env::split_paths(&given)).chain(system));
        self.set("PATH", path.context("a directory with a colon in its name cannot be in PATH")?);
        Ok(())
    }

    /// Sets a variable of the environment.
    pub(super) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let mut assignment = OsString::from(format!("{name}="));
        assignment.push(value);
        self.run(&[OsStr::new("export"), &assignment]);
    }

    /// Runs a command.
    pub(super) fn run(&mut self, words: &[impl AsRef<OsStr>]) {
        let quoted: Vec<_> = words.iter().map(|word| quote(word.as_ref())).collect();
        self.0.extend(quoted.join(&b' '));
        self.0.push(b'\n');
    }

    /// Adds lines in the shell's own language.
    pub(super) fn shell(&mut self, lines: &str) {
        self.0.extend(lines.bytes());
    }

    /// The whole script.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }
}

/// A word the shell takes as it is.
fn quote(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::Path, process::Command};

    use super::Script;

    #[test]
    fn words_reach_the_command_as_they_are() {
        let hostile = ["it's", "a b", "$HOME", "`id`", "\\", "", "*", "line\nbreak", "-n"];
        let mut script = Script::new(Path::new("/"));
        let words: Vec<_> = ["printf", "<%s>"].into_iter().chain(hostile).collect();
        script.run(&words);
        let output = Command::new("sh").arg("-c").arg(String::from_utf8(script.text().to_vec()).unwrap()).output();
        let expected = format!("<{}>", hostile.join("><"));
        assert_eq!(String::from_utf8_lossy(&output.unwrap().stdout), expected);
    }

    #[test]
    fn the_script_ends_with_the_exit_code_of_what_failed() {
        let mut script = Script::new(Path::new("/"));
        script.run(&["sh", "-c", "exit 7"]);
        script.run(&[OsStr::new("true")]);
        let status = Command::new("sh").arg("-c").arg(String::from_utf8(script.text().to_vec()).unwrap()).status();
        assert_eq!(status.unwrap().code(), Some(7));
    }
}
