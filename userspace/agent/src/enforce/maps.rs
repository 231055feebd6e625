//! The pinned maps by name and type. Flow: policy.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use aya::{Pod, maps::lpm_trie::Key};
use netdiag_common::abi::{
    floating::{Floating, FloatingKey, Hop, HopKey, Leaving, LeavingKey, StationKey},
    flow::{Flow, FlowKey4, FlowKey6},
    policy::{GrantKey, Label, MacKey, Page, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, Settings, View},
    value::{Losses, Tally},
};

use super::syscall::{self, Map, Position};

/// A map could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{step} the map {}", map.display())]
pub struct MapError {
    /// What was tried.
    pub step: &'static str,
    /// Where it is pinned.
    pub map: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A pinned map.
pub(super) struct Table<K, V> {
    map: Map<K, V>,
    path: PathBuf,
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.path).finish()
    }
}

/// Elements read or written by one call: enough that the calls do not count, few enough to fit the caches.
const BATCH: usize = 4096;

impl<K: Pod, V: Pod> Table<K, V> {
    fn open(directory: &Path, name: &str, read_only: bool) -> Result<Self, MapError> {
        let path = directory.join(name);
        let opened = syscall::open_map(&path, read_only).and_then(Map::new);
        match opened {
            Ok(map) => Ok(Self { map, path }),
            Err(source) => Err(MapError { step: "open", map: path, source }),
        }
    }

    fn failed(&self, step: &'static str) -> impl FnOnce(io::Error) -> MapError {
        let map = self.path.clone();
        move |source| MapError { step, map, source }
    }

    /// The outcome of a wait between two writes.
    pub(super) fn settle(&self, waited: io::Result<()>) -> Result<(), MapError> {
        waited.map_err(self.failed("wait for the readers of"))
    }

    /// How many elements it can have.
    pub(super) fn capacity(&self) -> u32 {
        self.map.capacity()
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        self.map.lookup(key).map_err(self.failed("read"))
    }

    /// Writes one element.
    pub(super) fn set(&self, key: K, value: V) -> Result<(), MapError> {
        self.write(&[(key, value)])
    }

    /// Writes elements, in order.
    pub(super) fn write(&self, elements: &[(K, V)]) -> Result<(), MapError> {
        for elements in elements.chunks(BATCH) {
            let (keys, values): (Vec<K>, Vec<V>) = elements.iter().copied().unzip();
            self.map.update_batch(&keys, &values).map_err(|stopped| self.failed("write")(stopped.error))?;
        }
        Ok(())
    }

    /// Removes elements; how many were there.
    pub(super) fn remove(&self, keys: &[K]) -> Result<usize, MapError> {
        let (mut rest, mut removed) = (keys, 0);
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(BATCH)];
            let (done, missing) = match self.map.delete_batch(batch) {
                Ok(()) => (batch.len(), 0),
                // The next one is not there, which is what was asked for.
                Err(stopped) if stopped.error.raw_os_error() == Some(libc::ENOENT) => (stopped.done, 1),
                Err(stopped) => return Err(self.failed("remove elements of")(stopped.error)),
            };
            removed += done;
            rest = &rest[done + missing..];
        }
        Ok(removed)
    }

    /// Every element.
    pub(super) fn read(&self) -> Result<Vec<(K, V)>, MapError> {
        let mut elements = Vec::new();
        self.walk(|key, values| elements.extend(values.first().map(|value| (*key, *value))))?;
        Ok(elements)
    }

    /// Every element, with a value for each CPU where the map has those.
    pub(super) fn walk(&self, mut each: impl FnMut(&K, &[V])) -> Result<(), MapError> {
        let mut room = BATCH;
        let (mut keys, mut values) = self.buffers(room);
        let mut position: Option<Position> = None;
        loop {
            let step = match self.map.lookup_batch(position.as_ref(), &mut keys, &mut values) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < self.most() => {
                    room = (room * 4).min(self.most());
                    (keys, values) = self.buffers(room);
                    continue;
                }
                step => step.map_err(self.failed("read"))?,
            };
            let per_key = values.chunks(self.map.per_key());
            keys.iter().zip(per_key).take(step.read).for_each(|(key, values)| each(key, values));
            let Some(next) = step.next else { return Ok(()) };
            position = Some(next);
        }
    }

    /// No bucket holds more.
    fn most(&self) -> usize {
        usize::try_from(self.map.capacity()).unwrap_or(usize::MAX).max(BATCH)
    }

    fn buffers(&self, room: usize) -> (Vec<K>, Vec<V>) {
        (vec![syscall::zeroed(); room], vec![syscall::zeroed(); room * self.map.per_key()])
    }
}

impl<V: Pod> Table<u32, V> {
    /// Elements of an array from one index on, in order, with a value for each CPU where the map has those.
    pub(super) fn range(&self, first: u32, count: u32, mut each: impl FnMut(u32, &[V])) -> Result<(), MapError> {
        let room = usize::try_from(count.min(self.capacity().saturating_sub(first))).unwrap_or(0);
        if room == 0 {
            return Ok(());
        }
        let (mut keys, mut values) = self.buffers(room);
        let before = first.checked_sub(1).map(Position::behind);
        let step = self.map.lookup_batch(before.as_ref(), &mut keys, &mut values).map_err(self.failed("read"))?;
        let per_key = values.chunks(self.map.per_key());
        keys.iter().zip(per_key).take(step.read).for_each(|(key, values)| each(*key, values));
        Ok(())
    }
}

/// Declares all maps: one list for the loader, the writer and the reader.
macro_rules! maps {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal: $key:ty => $value:ty;)+) => {
        /// Every map user space reads or writes.
        #[derive(Debug)]
        pub(super) struct Maps {
            $($(#[doc = $doc])+ pub(super) $field: Table<$key, $value>,)+
        }

        impl Maps {
            /// Names in the object, and under which they are pinned.
            const TYPED: &[&str] = &[$($name),+];

            /// Opens all maps of a directory.
            pub(super) fn open(directory: &Path, read_only: bool) -> Result<Self, MapError> {
                Ok(Self { $($field: Table::open(directory, $name, read_only)?,)+ })
            }
        }
    };
}

maps! {
    /// Device to place plus 1; 0 is none.
    interfaces = "INTERFACES": u32 => u32;
    /// The same for devices with an index beyond the array.
    far_interfaces = "FAR_INTERFACES": u32 => u32;
    /// Ports by place.
    ports = "PORTS": u32 => Port;
    /// Which view of a policy is in force.
    active = "ACTIVE": u32 => u64;
    /// Versions of policies.
    views = "VIEWS": u32 => View;
    /// Service tables, by `table * 256 + protocol`.
    protocols = "PROTOCOLS": u32 => Protocol;
    /// Pages of service tables.
    pages = "PAGES": u32 => Page;
    /// Rules by pair of classes.
    grants = "GRANTS": GrantKey => u32;
    /// Classes of host addresses.
    remotes4 = "REMOTES4": RemoteKey4 => u32;
    /// Classes of host addresses.
    remotes6 = "REMOTES6": RemoteKey6 => u32;
    /// Classes of prefixes.
    prefixes4 = "PREFIXES4": Key<RemoteKey4> => u32;
    /// Classes of prefixes.
    prefixes6 = "PREFIXES6": Key<RemoteKey6> => u32;
    /// MAC addresses a port may send with.
    macs = "MACS": MacKey => u32;
    /// Address pairs of ports.
    pairs = "PAIRS": Key<PairKey> => u32;
    /// Flows tracked by quota.
    flows4 = "FLOWS4": FlowKey4 => Flow;
    /// Flows tracked by quota.
    flows6 = "FLOWS6": FlowKey6 => Flow;
    /// Flows beyond the quotas.
    over4 = "OVER4": FlowKey4 => Flow;
    /// Flows beyond the quotas.
    over6 = "OVER6": FlowKey6 => Flow;
    /// Flows a port was ever given by quota.
    tracked = "TRACKED": u32 => u64;
    /// Up to where that may grow.
    allowance = "ALLOWANCE": u32 => u64;
    /// Packets by port, direction and reason.
    tallies = "TALLIES": u32 => Tally;
    /// Packets by rule.
    hits = "HITS": u32 => u64;
    /// Records of a port that did not come out.
    losses = "LOSSES": u32 => Losses;
    /// Who floating IPs stand for.
    floating = "FLOATING": FloatingKey => Floating;
    /// What ports leave as.
    leaving = "LEAVING": u32 => Leaving;
    /// What more fixed addresses of ports leave as.
    more_leaving = "MORE_LEAVING": LeavingKey => Leaving;
    /// Prefixes and neighbours of routers.
    hops = "HOPS": Key<HopKey> => Hop;
    /// Flows held on the slow way.
    held = "HELD": FlowKey4 => u32;
    /// Networks within which ports send past the bridge, by place; 0 is none.
    networks = "NETWORKS": u32 => u32;
    /// Devices of the instances of such networks.
    stations = "STATIONS": StationKey => u32;
    /// Packets of floating IPs by port, direction and way.
    ways = "WAYS_TAKEN": u32 => Tally;
    /// Names of rules.
    rules = "RULES": u32 => Label;
    /// Names of ports.
    port_labels = "PORT_LABELS": u32 => Label;
    /// Names of remote sets.
    set_labels = "SET_LABELS": u32 => Label;
    /// Names of policies.
    policy_labels = "POLICY_LABELS": u32 => Label;
    /// What holds for all ports.
    settings = "SETTINGS": u32 => Settings;
}

/// Names of the maps user space neither reads nor writes by element.
pub(super) const DECISIONS: &str = "DECISIONS";
const UNTYPED: [&str; 5] = ["ASKED", "FRAGMENTS", "BUDGETS", "OVERFLOWED", DECISIONS];

/// Names of every map that is pinned.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    Maps::TYPED.iter().copied().chain(UNTYPED)
}
