//! The source of the standard library, from which cargo builds `core` for the eBPF programs.
//!
//! rustup has it as a component. Where rustup cannot download, Debian's package of the same version serves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{archive::Archive, sysroot};
use crate::{command, workspace};

/// The suite of the Debian archive that has several versions of the package side by side.
const SUITE: &str = "trixie-backports";

/// Where in a toolchain the source belongs.
fn home(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust")
}

/// True if the source is where cargo looks for it.
pub(super) fn is_installed(sysroot: &Path) -> bool {
    let library = home(sysroot).join("library");
    library.join("Cargo.lock").is_file() && library.join("core/src/lib.rs").is_file()
}

/// Installs it by rustup, or else from Debian.
pub(super) fn install(root: &Path) -> Result<()> {
    let rustup = command::run(Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(root));
    let Err(error) = rustup else { return Ok(()) };
    eprintln!("rustup could not: {error}\ntrying Debian's package of the same version");
    let opened = Archive::open(workspace::target_directory(root).join("rust-src"), SUITE);
    opened.and_then(|archive| from_debian(root, &archive)).context(
        "rust-src could be had neither from rustup (see above) nor from Debian; where rustup can download, \
         `rustup component add rust-src` is all it takes",
    )
}

/// Fetches the package of the compiler's own version, unpacks it and copies the library into the toolchain.
fn from_debian(root: &Path, archive: &Archive) -> Result<()> {
    let release = release(root)?;
    let known = archive.versions("rust-src")?;
    let version = matching(&known, &release)
        .with_context(|| format!("{SUITE} has no rust-src {release}, only: {}", known.join(", ")))?;
    let tree = archive.unpack(&[format!("rust-src={version}")])?;
    place(&tree.join(format!("usr/src/rustc-{release}/library")), &home(&sysroot(root)?))
}

/// The pinned compiler's version: `1.95.0`.
fn release(root: &Path) -> Result<String> {
    let printed = command::output(Command::new("rustc").arg("--version").current_dir(root))?;
    printed.split(' ').nth(1).map(str::to_owned).with_context(|| format!("no version in {printed:?}"))
}

/// The version of the package that has this release of the compiler.
fn matching<'a>(versions: &'a [String], release: &str) -> Option<&'a str> {
    let is_release = |version: &str| version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-']));
    versions.iter().map(String::as_str).find(|version| is_release(version))
}

/// Copies the library into the toolchain. It gets its name last, so that an interrupted copy is not taken for one.
fn place(library: &Path, home: &Path) -> Result<()> {
    let partial = home.join("library.partial");
    fs::create_dir_all(home).with_context(|| format!("create {}", home.display()))?;
    command::run(Command::new("rm").args(["-rf", "--"]).arg(&partial).arg(home.join("library")))?;
    command::run(Command::new("cp").args(["-R", "--"]).arg(library).arg(&partial))?;
    fs::rename(&partial, home.join("library")).with_context(|| format!("rename {}", partial.display()))?;
    eprintln!("unpacked into {}; remove that directory before rustup is to manage rust-src again", home.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::matching;

    #[test]
    fn the_version_of_the_compiler_is_chosen_and_not_the_newest() {
        let versions = ["1.96.1+dfsg1-2~bpo13+1", "1.95.0+dfsg1-2~bpo13+1"].map(str::to_owned);
        assert_eq!(matching(&versions, "1.95.0"), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(matching(&versions, "1.95"), None);
        assert_eq!(matching(&versions, "1.97.0"), None);
    }
}
