//! `cargo xtask gen`: writes what is documented from the code itself.
//!
//! This tool depends on no crate of the repository, so a test that has what is to be written does it; without the variable the
//! same test compares, which is how `check` notices what is out of date.

use anyhow::Result;

use crate::{command, workspace};

/// Has the test write instead of compare.
const WRITE: &str = "NETDIAG_GEN";

/// Writes `docs/reasons.md`.
pub(crate) fn run() -> Result<()> {
    let mut cargo = command::cargo(&workspace::root()?);
    cargo.args(["test", "--quiet", "--locked", "--package", "netdiag-common", "--test", "reasons"]).env(WRITE, "1");
    command::output(&mut cargo)?;
    println!("wrote docs/reasons.md");
    Ok(())
}
