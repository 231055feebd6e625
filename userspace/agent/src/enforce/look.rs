//! What is loaded, for whoever only wants to know: no lock, no writing, no programs of its own. Flow: discover.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use netdiag_common::abi::flow::Tick;
use netdiag_model::{compile::Tables, fact::enforcement::HookFact, floating::tables::FloatingTables};

use super::{
    apply,
    attach::{self, AttachError},
    bpffs::{self, Root, RootError},
    counters::{self, PortCounters},
    floating::{self, Ways},
    flows::{self, Flows},
    maps::{MapError, Maps},
};

/// What is loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Directory of the maps.
    pub(crate) pinned: PathBuf,
    /// The compiled policy.
    pub(crate) tables: Tables,
    /// Counters by place of the port.
    pub(crate) counters: BTreeMap<u32, PortCounters>,
    /// Floating IPs that go past their routers.
    pub(crate) floating: FloatingTables,
    /// Which ways packets have taken, by place of the port.
    pub(crate) ways: BTreeMap<u32, Ways>,
    /// Flows each rule has allowed.
    pub(crate) hits: BTreeMap<u32, u64>,
    /// Tracked flows.
    pub(crate) flows: Flows,
    /// The tick it is now.
    pub(crate) now: Tick,
    /// Where programs are attached, by device, and what could not be told of a device.
    pub(crate) hooks: BTreeMap<u32, Result<Vec<HookFact>, AttachError>>,
}

/// Why it cannot be told what is loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    /// Nothing is.
    #[error("nothing is pinned at {}", root.display())]
    Nothing {
        /// The directory.
        root: PathBuf,
    },
    /// It is of a netdiag with other maps.
    #[error("{} has maps of another netdiag than this one: {versions}", root.display())]
    OtherVersion {
        /// The directory.
        root: PathBuf,
        /// Names of their directories.
        versions: String,
    },
    /// The directory cannot be read.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A map cannot be read.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Which ways packets of the ports at these places have taken.
pub(crate) fn ways(root: &Path, slots: &BTreeSet<u32>) -> Result<BTreeMap<u32, Ways>, LookError> {
    let maps = Maps::open(&Root::unlocked(root)?.maps(), true)?;
    let ways = slots.iter().map(|slot| Ok((*slot, floating::ways(&maps, *slot)?)));
    Ok(ways.collect::<Result<_, MapError>>()?)
}

/// Looks at a directory of pins. The calling thread is in the namespace whose devices are enforced.
pub(crate) fn look(root: &Path) -> Result<Loaded, LookError> {
    let names = match bpffs::list(root) {
        Err(RootError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(LookError::Nothing { root: root.to_owned() });
        }
        names => names?,
    };
    let root = Root::unlocked(root)?;
    let pinned = root.maps();
    if !pinned.exists() {
        let versions: Vec<_> = names.into_iter().filter(|name| bpffs::is_version(name)).collect();
        let root = root.path().to_owned();
        let versions = versions.join(", ");
        let nothing = versions.is_empty();
        return Err(if nothing { LookError::Nothing { root } } else { LookError::OtherVersion { root, versions } });
    }
    let maps = Maps::open(&pinned, true)?;
    let tables = apply::read(&maps)?;
    let counters = tables.ports.keys().map(|slot| Ok((*slot, counters::port(&maps, *slot)?)));
    let counters = counters.collect::<Result<_, MapError>>()?;
    let hooks = tables.interfaces.keys().map(|ifindex| (*ifindex, attach::look(&root, *ifindex))).collect();
    let floating = floating::read(&maps)?;
    let ways = tables.ports.keys().map(|slot| Ok((*slot, floating::ways(&maps, *slot)?)));
    let ways = ways.collect::<Result<_, MapError>>()?;
    let (hits, flows) = (counters::hits(&maps)?, flows::read(&maps)?);
    Ok(Loaded { pinned, tables, counters, floating, ways, hits, flows, now: flows::now(), hooks })
}
