//! Where things are in this workspace, and what cargo knows about it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::command;

/// The directory with the workspace's `Cargo.toml`.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_owned).context("xtask is not inside a workspace")
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory(root: &Path) -> PathBuf {
    // Cargo takes a relative path from where it was started; so does this tool, which it started.
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |directory| root.join(directory))
}

/// What `cargo metadata` says, as far as the checks need it.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// Packages of the workspace.
    pub(crate) packages: Vec<Package>,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// What it asks for, dev- and build-dependencies included.
    pub(crate) dependencies: Vec<Dependency>,
}

/// One dependency of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// Name of the package it is.
    pub(crate) name: String,
    /// Where it is, if it is in this repository.
    pub(crate) path: Option<PathBuf>,
}

/// The packages of the workspace one manifest belongs to, with what each asks for.
pub(crate) fn metadata(root: &Path, manifest: &Path) -> Result<Metadata> {
    let mut cargo = command::cargo(root);
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"]).arg(manifest);
    let text = command::output(&mut cargo)?;
    serde_json::from_str(&text).with_context(|| format!("read what {} printed", command::line(&cargo)))
}
