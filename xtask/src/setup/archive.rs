//! Packages of a Debian release other than this machine's, to take files out of and not to install.
//!
//! They are fetched by an apt with lists, cache and sources of its own, so that the machine's package state is not
//! touched, from the mirror this machine has its own Debian packages from.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::command;

/// One suite of the archive, as a private apt knows it. Its directory goes with it.
#[derive(Debug)]
pub(crate) struct Archive(PathBuf);

impl Archive {
    /// Fetches the package lists of a suite into a directory that is there for this alone.
    pub(crate) fn open(directory: PathBuf, suite: &str) -> Result<Self> {
        let archive = Self(directory);
        if archive.0.exists() {
            fs::remove_dir_all(&archive.0).with_context(|| format!("empty {}", archive.0.display()))?;
        }
        for directory in ["lists/partial", "cache/archives/partial", "tree"] {
            let path = archive.0.join(directory);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let targets = command::output(Command::new("apt-get").args(["indextargets", "--format", TARGET_FORMAT]))?;
        let source = source(&targets, suite)?;
        fs::write(archive.0.join("debian.list"), source).context("write a private list of apt sources")?;
        fs::write(archive.0.join("status"), "").context("write a private state of dpkg")?;
        command::run(archive.apt("apt-get").args(["update", "--quiet"]).stdout(io::stderr()))?;
        Ok(archive)
    }

    /// The versions of a package, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let known = command::output(self.apt("apt-cache").args(["madison", package]))?;
        Ok(versions(&known))
    }

    /// Names of the packages that begin like this.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let known = command::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(known.lines().map(str::to_owned).collect())
    }

    /// Names of the packages one package depends on.
    pub(crate) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let listed = command::output(self.apt("apt-cache").args(["depends", "--important", package]))?;
        Ok(listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }

    /// Fetches packages and unpacks them; returns the directory that then stands for `/`.
    pub(crate) fn unpack(&self, packages: &[String]) -> Result<PathBuf> {
        command::run(self.apt("apt-get").args(["download", "--quiet"]).args(packages).stdout(io::stderr()))?;
        let tree = self.0.join("tree");
        for package in self.downloaded()? {
            command::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&tree))?;
        }
        Ok(tree)
    }

    fn downloaded(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.0).context("read the download directory")?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_package).collect())
    }

    /// An apt that reads and writes nothing of the machine's but its configuration of proxies and the like.
    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.current_dir(&self.0);
        let here = self.0.display();
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
}

impl Drop for Archive {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// One line per index: where it is, and of which release.
const TARGET_FORMAT: &str = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(CREATED_BY)";

/// A sources line for the suite, on the mirror this machine has its own Debian packages from.
fn source(targets: &str, suite: &str) -> Result<String> {
    let mirror = targets.lines().find_map(debian_mirror).context(
        "this machine's apt has no source of a Debian release (`apt-get indextargets` shows none), so there is no \
         mirror to take it from",
    )?;
    let keyring = ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
    let keyring = keyring
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("this machine has no Debian archive keyring (package debian-archive-keyring)")?;
    Ok(format!("deb [signed-by={keyring}] {mirror} {suite} main\n"))
}

/// The mirror an index comes from, if it is the `main` of a plain Debian release: security updates and what other
/// people publish live elsewhere.
fn debian_mirror(target: &str) -> Option<&str> {
    const RELEASES: &[&str] = &["bookworm", "trixie", "forky", "duke", "sid", "stable", "testing", "unstable"];
    let [mirror, release, "main", "Packages"] = target.split(' ').collect::<Vec<_>>()[..] else { return None };
    RELEASES.contains(&release).then_some(mirror)
}

/// The versions out of `name | version | source` lines.
fn versions(madison: &str) -> Vec<String> {
    madison.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{debian_mirror, versions};

    #[test]
    fn versions_are_the_second_column() {
        let madison = " rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://mirror.example/debian trixie-backports/main\n \
                       rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example/debian trixie-backports/main\n";
        assert_eq!(versions(madison), ["1.96.1+dfsg1-2~bpo13+1", "1.95.0+dfsg1-2~bpo13+1"]);
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
