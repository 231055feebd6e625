//! `cargo xtask arch`: which crate may depend on which.
//!
//! The crates are cut so that the compiler enforces the direction of data: a view cannot open a socket, the model
//! cannot read a file. That only holds while nobody adds the dependency that would let them; this is the guard.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    command,
    workspace::{self, Package},
};

/// Which crates of this repository each crate may depend on. A crate that is not listed is an error.
const EDGES: &[(&str, &[&str])] = &[
    ("netdiag-common", &[]),
    ("netdiag-ebpf", &["netdiag-common"]),
    ("netdiag-model", &["netdiag-common"]),
    ("netdiag-views", &["netdiag-model"]),
    ("netdiag-agent", &["netdiag-model", "netdiag-common"]),
    ("netdiag", &["netdiag-model", "netdiag-agent", "netdiag-views"]),
    ("netdiag-tests", &["netdiag-common", "netdiag-model", "netdiag-agent", "netdiag-views", "netdiag"]),
    ("xtask", &[]),
];

/// Outside packages a crate may not reach, at whatever distance. A name that ends in `*` is a prefix.
const OUT_OF_REACH: &[(&str, &[&str])] = &[
    ("netdiag-model", &["tokio", "aya*", "rtnetlink", "netlink-*", "ratatui*", "crossterm", "clap"]),
    ("netdiag-views", &["tokio", "aya*", "rtnetlink", "netlink-*", "crossterm"]),
];

/// Checks both lists.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root()?;
    let mut packages = workspace::metadata(&root, &root.join("Cargo.toml"))?.packages;
    packages.extend(workspace::metadata(&root, &root.join("ebpf/Cargo.toml"))?.packages);
    let mut wrong: Vec<_> = packages.iter().flat_map(wrong_edges).collect();
    for (package, forbidden) in OUT_OF_REACH {
        wrong.extend(reached(package, forbidden, &reach(&root, package)?));
    }
    if !wrong.is_empty() {
        bail!("crate edges that xtask/src/arch.rs does not allow:\n  {}", wrong.join("\n  "));
    }
    println!("arch: {} crates, every edge allowed", packages.len());
    Ok(())
}

/// What a package asks for inside this repository and may not.
fn wrong_edges(package: &Package) -> Vec<String> {
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
        return vec![format!("{}: not listed", package.name)];
    };
    let inside = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    inside
        .filter(|dependency| !allowed.contains(&dependency.name.as_str()))
        .map(|dependency| format!("{} -> {}", package.name, dependency.name))
        .collect()
}

/// Every package that is compiled into another, by name.
///
/// `cargo tree` resolves the features of this one package alone. `cargo metadata` would unite them with what the other
/// crates of the workspace switch on, and report what only those compile.
fn reach(root: &Path, package: &str) -> Result<BTreeSet<String>> {
    let mut cargo = command::cargo(root);
    cargo.args(["tree", "--package", package, "--edges", "no-dev", "--prefix", "none", "--format", "{p}"]);
    let text = command::output(&mut cargo)?;
    let names = text.lines().filter(|line| !line.is_empty()).map(|line| line.split(' ').next().map(str::to_owned));
    names.collect::<Option<_>>().with_context(|| format!("read what {} printed", command::line(&cargo)))
}

/// Which of the forbidden packages are among those reached.
fn reached(package: &str, forbidden: &[&str], reach: &BTreeSet<String>) -> Vec<String> {
    let matches = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    reach
        .iter()
        .filter(|name| forbidden.iter().any(|pattern| matches(pattern, name)))
        .map(|name| format!("{package} -> ... -> {name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{reached, wrong_edges};
    use crate::workspace::{Dependency, Package};

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
        let dependency = |&(name, inside): &(&str, bool)| Dependency {
            name: name.to_owned(),
            path: inside.then(|| "/repository".into()),
        };
        Package { name: name.to_owned(), dependencies: dependencies.iter().map(dependency).collect() }
    }

    #[test]
    fn a_view_that_asks_for_the_agent_is_found() {
        let views = package("netdiag-views", &[("netdiag-model", true), ("netdiag-agent", true), ("serde", false)]);
        assert_eq!(wrong_edges(&views), ["netdiag-views -> netdiag-agent"]);
    }

    #[test]
    fn a_crate_nobody_listed_is_found() {
        assert_eq!(wrong_edges(&package("netdiag-extra", &[])), ["netdiag-extra: not listed"]);
    }

    #[test]
    fn a_package_out_of_reach_is_found_by_name_and_by_prefix() {
        let reach = ["serde", "tokio", "aya-obj", "tokio-util"].map(str::to_owned).into();
        assert_eq!(reached("m", &["tokio", "aya*"], &reach), ["m -> ... -> aya-obj", "m -> ... -> tokio"]);
    }
}
