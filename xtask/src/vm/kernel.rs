//! Kernels of Debian, unpacked below the target directory. Nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command,
    setup::{self, archive::Archive},
    workspace,
};

/// The kernels that can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Version {
    /// Debian 11: too old for netdiag, to see that it says so
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12, the oldest supported
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13
    #[value(name = "6.12")]
    V6_12,
    /// Debian 13 backports
    #[value(name = "6.18")]
    V6_18,
    /// Debian 13 backports
    #[value(name = "7.2")]
    V7_2,
}

impl Version {
    /// The version as in a package's name, and the suite that has it.
    fn origin(self) -> (&'static str, &'static str) {
        match self {
            Self::V5_10 => ("5.10", "bullseye"),
            Self::V6_1 => ("6.1", "bookworm"),
            Self::V6_12 => ("6.12", "trixie"),
            Self::V6_18 => ("6.18", "trixie-backports"),
            Self::V7_2 => ("7.2", "trixie-backports"),
        }
    }
}

/// A kernel that can be booted.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The file to boot.
    pub(super) image: PathBuf,
    /// Its `/lib/modules/<release>`.
    pub(super) modules: PathBuf,
}

/// The kernel of a version, fetched if it is not there yet.
pub(super) fn obtain(version: Version, root: &Path, setup: setup::Args) -> Result<Kernel> {
    let (number, suite) = version.origin();
    let home = directory(root).join(number);
    if !home.exists() {
        let what = format!("Linux {number} of Debian {suite} (apt-get download, unpacked into {})", home.display());
        if setup.no_install {
            bail!("missing, and --no-install forbids to fetch it:\n  {what}");
        }
        eprintln!("will fetch:\n  {what}");
        fetch(number, suite, &home)?;
    }
    find(&home)
}

/// Where everything of virtual machines is.
pub(super) fn directory(root: &Path) -> PathBuf {
    workspace::target_directory(root).join("vm")
}

/// Fetches and unpacks a kernel. It gets its name last, so that an interrupted copy is not taken for one.
fn fetch(number: &str, suite: &str, home: &Path) -> Result<()> {
    let archive = Archive::open(home.with_file_name(format!("{number}.partial")), suite)?;
    let image = newest(&archive.names(&format!("linux-image-{number}"))?, number)
        .with_context(|| format!("{suite} has no Linux {number}"))?;
    let release = image.trim_start_matches("linux-image-").to_owned();
    let mut packages = vec![image.clone()];
    // Since 7.0 the package is an empty shell over these.
    packages.extend(archive.dependencies(&image)?.into_iter().filter(|name| {
        ["linux-base-", "linux-binary-", "linux-modules-"].iter().any(|part| name.strip_prefix(part) == Some(&release))
    }));
    let tree = archive.unpack(&packages)?;
    // The index a kernel package's installation makes.
    command::run(
        Command::new(command::find("depmod").context("there is no depmod (package kmod)")?)
            .args(["--basedir"])
            .arg(base(&tree)?)
            .arg(&release),
    )?;
    fs::rename(&tree, home).with_context(|| format!("rename {}", tree.display()))
}

/// The newest kernel of a version for any PC, out of package names.
fn newest(names: &[String], number: &str) -> Option<String> {
    let is_plain = |name: &&String| {
        let rest = name.strip_prefix("linux-image-").and_then(|name| name.strip_prefix(number));
        let flavour = rest.and_then(|rest| rest.strip_suffix("-amd64"));
        // 6.1 is not 6.12, and a cloud or real-time kernel is not for any PC.
        flavour.is_some_and(|text| text.starts_with('.') && !text.contains("-cloud") && !text.contains("-rt"))
    };
    names.iter().filter(is_plain).max_by_key(|name| numbers(name)).cloned()
}

/// The numbers in a text, in their order: what versions are compared by.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Where below an unpacked package `lib/modules` is.
fn base(tree: &Path) -> Result<PathBuf> {
    let places = [tree.join("usr"), tree.to_owned()];
    let found = places.into_iter().find(|place| place.join("lib/modules").is_dir());
    found.with_context(|| format!("{} holds no modules", tree.display()))
}

/// What a tree of unpacked packages holds.
fn find(tree: &Path) -> Result<Kernel> {
    let all = base(tree)?.join("lib/modules");
    let entries = fs::read_dir(&all).with_context(|| format!("read {}", all.display()))?;
    let modules = entries.filter_map(Result::ok).map(|entry| entry.path()).next();
    let modules = modules.with_context(|| format!("{} is empty", all.display()))?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy();
    let images = [modules.join("vmlinuz"), tree.join(format!("boot/vmlinuz-{release}"))];
    let image = images.into_iter().find(|image| image.is_file());
    let image = image.with_context(|| format!("{} holds no kernel", tree.display()))?;
    Ok(Kernel { image, modules })
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn the_newest_kernel_for_any_pc_is_chosen() {
        let names = [
            "linux-image-6.12.107+deb13-amd64",
            "linux-image-6.12.94+deb13-amd64",
            "linux-image-6.12.108+deb13-cloud-amd64",
            "linux-image-6.12.108+deb13-rt-amd64",
            "linux-image-6.12.108+deb13-amd64-dbg",
            "linux-image-6.12.108+deb13-amd64-unsigned",
            "linux-image-6.1.0-50-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&names, "6.12").as_deref(), Some("linux-image-6.12.107+deb13-amd64"));
        assert_eq!(newest(&names, "6.1").as_deref(), Some("linux-image-6.1.0-50-amd64"));
        assert_eq!(newest(&names, "6.18"), None);
    }
}
