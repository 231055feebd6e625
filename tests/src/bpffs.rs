//! A bpffs of its own for one test, where the programs of others are not seen and ours by nobody.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData},
};
use netdiag_common::ABI_VERSION;
use tempfile::TempDir;

/// It is unmounted when this is dropped.
#[derive(Debug)]
pub struct Bpffs(TempDir);

impl Bpffs {
    /// Mounts it.
    ///
    /// # Panics
    /// It cannot be mounted.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a mount is nobody's default")]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mount = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(directory.path()).status();
        assert!(mount.expect("start mount").success(), "mount a bpffs");
        Self(directory)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where netdiag pins what is its own.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path().join("netdiag")
    }

    /// An array of netdiag's that is pinned there.
    ///
    /// # Panics
    /// There is none of this name and these values.
    #[must_use]
    pub fn array<V: Pod>(&self, name: &str) -> Array<MapData, V> {
        Array::try_from(Map::Array(self.map(name))).expect("an array of such values")
    }

    /// The same of a hash map.
    ///
    /// # Panics
    /// There is none of this name, these keys and values.
    #[must_use]
    pub fn hash<K: Pod, V: Pod>(&self, name: &str) -> HashMap<MapData, K, V> {
        HashMap::try_from(Map::HashMap(self.map(name))).expect("a hash map of such keys and values")
    }

    fn map(&self, name: &str) -> MapData {
        MapData::from_pin(self.root().join(format!("v{ABI_VERSION}")).join(name)).expect("a pinned map")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Where this fails, the mount namespace of the test ends with it.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}
