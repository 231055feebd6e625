//! Namespaces that route and translate for others, by the names Neutron's L3 agent gives them. Flow: discover.

use std::path::{Path, PathBuf};

use netdiag_model::{fact::Facts, id::NetnsId};

/// What names of such namespaces begin with: routers, source NAT and floating IPs of distributed routers.
const PREFIXES: [&str; 3] = ["qrouter-", "snat-", "fip-"];

/// True for the name of such a namespace.
fn is_name(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// True for a namespace with such a name.
pub(super) fn is_router(facts: &Facts, netns: NetnsId) -> bool {
    let namespace = facts.namespaces.iter().find(|namespace| namespace.id == netns);
    let mut names = namespace.into_iter().flat_map(|namespace| &namespace.names);
    names.any(|name| name.path.rsplit('/').next().is_some_and(is_name))
}

/// Names of such namespaces and where they are, in these directories.
pub(crate) fn list(directories: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let entries = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, _)| is_name(name))
        .collect();
    found.sort();
    found
}

/// Where the namespace of that name is.
pub(crate) fn path(directories: &[PathBuf], name: &str) -> Option<PathBuf> {
    let plain = Path::new(name).components().count() == 1;
    directories.iter().map(|directory| directory.join(name)).find(|path| plain && path.exists())
}

#[cfg(test)]
mod tests {
    use super::{list, path};

    #[test]
    fn routers_are_found_by_what_their_names_begin_with() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["qrouter-1", "snat-1", "fip-2", "qdhcp-1", "fipsnat"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let directories = [directory.path().to_owned(), "/nowhere".into()];
        let names: Vec<_> = list(&directories).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["fip-2", "qrouter-1", "snat-1"]);
        assert_eq!(path(&directories, "qrouter-1"), Some(directory.path().join("qrouter-1")));
        assert_eq!((path(&directories, "qrouter-9"), path(&directories, "../etc")), (None, None));
    }
}
