//! The source of the standard library, from which cargo builds `core` for the eBPF programs.
//!
//! rustup has it as a component. Where rustup cannot download, Debian's package of the same version serves: it is
//! fetched by an apt with lists, cache and sources of its own, so that the machine's package state is not touched.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::sysroot;
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
    let scratch = Scratch::new(workspace::target_directory(root).join("rust-src"))?;
    from_debian(root, &scratch.0).context(
        "rust-src could be had neither from rustup (see above) nor from Debian; where rustup can download, \
         `rustup component add rust-src` is all it takes",
    )
}

/// A directory that goes when the work in it is over, however it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        let scratch = Self(path);
        if scratch.0.exists() {
            fs::remove_dir_all(&scratch.0).with_context(|| format!("empty {}", scratch.0.display()))?;
        }
        for directory in ["lists/partial", "cache/archives/partial", "tree"] {
            let path = scratch.0.join(directory);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// Fetches the package of the compiler's own version, unpacks it and copies the library into the toolchain.
fn from_debian(root: &Path, scratch: &Path) -> Result<()> {
    let release = release(root)?;
    let source = source(&command::output(Command::new("apt-get").args(["indextargets", "--format", TARGET_FORMAT]))?)?;
    fs::write(scratch.join("debian.list"), source).context("write a private list of apt sources")?;
    fs::write(scratch.join("status"), "").context("write a private state of dpkg")?;
    command::run(private_apt("apt-get", scratch).args(["update", "--quiet"]).stdout(io::stderr()))?;
    let known = command::output(private_apt("apt-cache", scratch).args(["madison", "rust-src"]))?;
    let version = matching(&known, &release)
        .with_context(|| format!("{SUITE} has no rust-src {release}, only:\n{}", known.trim()))?;
    let package = format!("rust-src={version}");
    command::run(private_apt("apt-get", scratch).args(["download", "--quiet", &package]).stdout(io::stderr()))?;
    let package = downloaded(scratch)?;
    command::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(scratch.join("tree")))?;
    let library = scratch.join(format!("tree/usr/src/rustc-{release}/library"));
    place(&library, &home(&sysroot(root)?))
}

/// One line per index: where it is, and of which release.
const TARGET_FORMAT: &str = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(CREATED_BY)";

/// The pinned compiler's version: `1.95.0`.
fn release(root: &Path) -> Result<String> {
    let printed = command::output(Command::new("rustc").arg("--version").current_dir(root))?;
    printed.split(' ').nth(1).map(str::to_owned).with_context(|| format!("no version in {printed:?}"))
}

/// A sources line for the suite, on the mirror this machine has its own Debian packages from.
fn source(targets: &str) -> Result<String> {
    let mirror = targets.lines().find_map(debian_mirror).context(
        "this machine's apt has no source of a Debian release (`apt-get indextargets` shows none), so there is no \
         mirror to take it from",
    )?;
    let keyring = ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
    let keyring = keyring
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("this machine has no Debian archive keyring (package debian-archive-keyring)")?;
    Ok(format!("deb [signed-by={keyring}] {mirror} {SUITE} main\n"))
}

/// The mirror an index comes from, if it is the `main` of a plain Debian release: security updates and what other
/// people publish live elsewhere.
fn debian_mirror(target: &str) -> Option<&str> {
    const RELEASES: &[&str] = &["bookworm", "trixie", "forky", "duke", "sid", "stable", "testing", "unstable"];
    let [mirror, release, "main", "Packages"] = target.split(' ').collect::<Vec<_>>()[..] else { return None };
    RELEASES.contains(&release).then_some(mirror)
}

/// An apt that reads and writes nothing of the machine's but its configuration of proxies and the like.
fn private_apt(program: &str, scratch: &Path) -> Command {
    let mut apt = Command::new(program);
    apt.current_dir(scratch);
    let here = scratch.display();
    for option in [
        format!("Dir::State={here}"),
        format!("Dir::State::lists={here}/lists"),
        format!("Dir::State::status={here}/status"),
        format!("Dir::Cache={here}/cache"),
        format!("Dir::Etc::sourcelist={here}/debian.list"),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        "Dir::Etc::preferencesparts=/dev/null".to_owned(),
        "Acquire::Languages=none".to_owned(),
        // The unprivileged user apt downloads as cannot write below a home directory.
        "APT::Sandbox::User=".to_owned(),
    ] {
        apt.arg("--option").arg(option);
    }
    apt
}

/// The version of the package that has this release of the compiler, out of `name | version | source` lines.
fn matching<'a>(madison: &'a str, release: &str) -> Option<&'a str> {
    let versions = madison.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    versions.into_iter().find(|version| version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-'])))
}

fn downloaded(scratch: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(scratch).context("read the download directory")?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")
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
    use super::{debian_mirror, matching};

    #[test]
    fn the_version_of_the_compiler_is_chosen_and_not_the_newest() {
        let madison = " rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://mirror.example/debian trixie-backports/main\n \
                       rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example/debian trixie-backports/main\n";
        assert_eq!(matching(madison, "1.95.0"), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(matching(madison, "1.95"), None);
        assert_eq!(matching(madison, "1.97.0"), None);
    }

    #[test]
    fn only_the_mirror_of_a_debian_release_is_taken() {
        assert_eq!(debian_mirror("http://a.example/debian/ bookworm main Packages"), Some("http://a.example/debian/"));
        assert_eq!(debian_mirror("http://a.example/debian/ bookworm main DEP-11"), None);
        assert_eq!(debian_mirror("http://a.example/debian-security/ bookworm-security main Packages"), None);
        assert_eq!(debian_mirror("http://b.example/repo/ nodistro main Packages"), None);
        assert_eq!(debian_mirror("http://c.example/ubuntu/ noble main Packages"), None);
    }
}
