//! Compiled tables to maps and back. Flow: policy.
//!
//! Writes are done in the order they are given; neighbours that go to the same map are one call. One that fails ends the
//! whole: what was written stays, and the next pass compares what the maps really hold with what is asked.

use std::{io, mem};

use aya::{Pod, maps::lpm_trie::Key};
use netdiag_common::abi::policy::NEAR_INTERFACES;
use netdiag_model::compile::{Change, Op, Phase, Stage, Tables, Trie};

use super::{
    flows,
    maps::{MapError, Maps, Table},
    syscall,
};

/// Why not all was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A map refused.
    #[error("write the policy, at stage {stage:?}")]
    Write {
        /// How far it had come.
        stage: Stage,
        /// Which map, and why.
        #[source]
        source: MapError,
    },
    /// Nobody says when the programs that run now have ended.
    #[error("wait for the programs that run now, before stage {stage:?}")]
    Wait {
        /// How far it had come.
        stage: Stage,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Value of a map that is used as a set.
const MEMBER: u32 = 1;

/// Does the writes of all phases.
pub(super) fn apply(maps: &Maps, phases: &[Phase]) -> Result<(), ApplyError> {
    let first = phases.first().map_or(Stage::Add, |phase| phase.stage);
    let new = new_ports(maps, phases).and_then(|new| flows::welcome(maps, &new));
    new.map_err(|source| ApplyError::Write { stage: first, source })?;
    for phase in phases {
        let stage = phase.stage;
        if stage.after_grace_period() {
            syscall::wait_for_readers().map_err(|source| ApplyError::Wait { stage, source })?;
        }
        for run in phase.ops.chunk_by(|one, next| mem::discriminant(one) == mem::discriminant(next)) {
            write(maps, run).map_err(|source| ApplyError::Write { stage, source })?;
        }
    }
    Ok(())
}

/// Places that another port will have than there was.
fn new_ports(maps: &Maps, phases: &[Phase]) -> Result<Vec<u32>, MapError> {
    let mut new = Vec::new();
    for op in phases.iter().flat_map(|phase| &phase.ops) {
        if let Op::Port(Change::Put(slot, port)) = op
            && maps.ports.get(slot)?.is_none_or(|there| there.epoch != port.epoch)
        {
            new.push(*slot);
        }
    }
    Ok(new)
}

/// Does writes that all go to one map.
fn write(maps: &Maps, run: &[Op]) -> Result<(), MapError> {
    /// The changes of a run.
    macro_rules! all {
        ($kind:ident) => {
            run.iter().filter_map(|op| if let Op::$kind(change) = op { Some(change) } else { None })
        };
    }
    let Some(first) = run.first() else { return Ok(()) };
    match first {
        Op::Interface(_) => interfaces(maps, all!(Interface)),
        Op::Port(_) => array(&maps.ports, all!(Port).copied()),
        Op::Mac(_) => hash(&maps.macs, all!(Mac).map(|change| convert(*change, |key| key, |()| MEMBER))),
        Op::Pair(_) => hash(&maps.pairs, all!(Pair).map(|change| convert(*change, key, |()| MEMBER))),
        Op::Active(_) => array(&maps.active, all!(Active).copied()),
        Op::View(_) => array(&maps.views, all!(View).copied()),
        Op::Protocol(_) => array(&maps.protocols, all!(Protocol).copied()),
        Op::Page(_) => array(&maps.pages, all!(Page).map(|change| convert(change.clone(), |key| key, |page| *page))),
        Op::Grant(_) => hash(&maps.grants, all!(Grant).copied()),
        Op::Remote4(_) => hash(&maps.remotes4, all!(Remote4).copied()),
        Op::Remote6(_) => hash(&maps.remotes6, all!(Remote6).copied()),
        Op::Prefix4(_) => hash(&maps.prefixes4, all!(Prefix4).map(|change| convert(*change, key, |class| class))),
        Op::Prefix6(_) => hash(&maps.prefixes6, all!(Prefix6).map(|change| convert(*change, key, |class| class))),
        Op::RuleLabel(_) => array(&maps.rules, all!(RuleLabel).copied()),
        Op::PortLabel(_) => array(&maps.port_labels, all!(PortLabel).copied()),
        Op::PolicyLabel(_) => array(&maps.policy_labels, all!(PolicyLabel).copied()),
        Op::SetLabel(_) => hash(&maps.set_labels, all!(SetLabel).copied()),
        Op::Settings(_) => all!(Settings).try_for_each(|settings| maps.settings.set(0, *settings)),
    }
}

pub(super) fn key<K: Pod>(trie: Trie<K>) -> Key<K> {
    Key::new(trie.bits, trie.data)
}

fn convert<K, V, L, W>(change: Change<K, V>, key: impl Fn(K) -> L, value: impl Fn(V) -> W) -> Change<L, W> {
    match change {
        Change::Put(place, what) => Change::Put(key(place), value(what)),
        Change::Delete(place) => Change::Delete(key(place)),
    }
}

/// Writes to an array, where an element that goes becomes zeros.
fn array<V: Pod>(table: &Table<u32, V>, changes: impl Iterator<Item = Change<u32, V>>) -> Result<(), MapError> {
    let element = |change| match change {
        Change::Put(index, value) => (index, value),
        Change::Delete(index) => (index, syscall::zeroed()),
    };
    table.write(&changes.map(element).collect::<Vec<_>>())
}

/// Writes to a map with keys.
fn hash<K: Pod, V: Pod>(table: &Table<K, V>, changes: impl Iterator<Item = Change<K, V>>) -> Result<(), MapError> {
    let changes: Vec<_> = changes.collect();
    let is_put = |change: &Change<K, V>| matches!(change, Change::Put(..));
    for run in changes.chunk_by(|one, next| is_put(one) == is_put(next)) {
        let puts = run
            .iter()
            .filter_map(|change| if let Change::Put(key, value) = change { Some((*key, *value)) } else { None });
        table.write(&puts.collect::<Vec<_>>())?;
        let deletes = run.iter().filter_map(|change| if let Change::Delete(key) = change { Some(*key) } else { None });
        table.remove(&deletes.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Writes to the two maps that lead from devices to places.
fn interfaces<'a>(maps: &Maps, changes: impl Iterator<Item = &'a Change<u32, u32>>) -> Result<(), MapError> {
    for change in changes {
        let change = convert(*change, |ifindex| ifindex, |slot| slot + 1);
        let (Change::Put(ifindex, _) | Change::Delete(ifindex)) = change;
        if ifindex < NEAR_INTERFACES {
            array(&maps.interfaces, [change].into_iter())?;
        } else {
            hash(&maps.far_interfaces, [change].into_iter())?;
        }
    }
    Ok(())
}

// === back ===

/// What the maps hold.
pub(super) fn read(maps: &Maps) -> Result<Tables, MapError> {
    Ok(Tables {
        interfaces: read_interfaces(maps)?,
        ports: elements(&maps.ports)?.collect(),
        macs: maps.macs.read()?.into_iter().map(|(key, _)| key).collect(),
        pairs: maps.pairs.read()?.into_iter().map(|(key, _)| trie(key)).collect(),
        active: elements(&maps.active)?.collect(),
        views: elements(&maps.views)?.collect(),
        protocols: elements(&maps.protocols)?.collect(),
        pages: elements(&maps.pages)?.collect(),
        grants: maps.grants.read()?.into_iter().collect(),
        remotes4: maps.remotes4.read()?.into_iter().collect(),
        remotes6: maps.remotes6.read()?.into_iter().collect(),
        prefixes4: maps.prefixes4.read()?.into_iter().map(|(key, class)| (trie(key), class)).collect(),
        prefixes6: maps.prefixes6.read()?.into_iter().map(|(key, class)| (trie(key), class)).collect(),
        rule_labels: elements(&maps.rules)?.collect(),
        port_labels: elements(&maps.port_labels)?.collect(),
        policy_labels: elements(&maps.policy_labels)?.collect(),
        set_labels: maps.set_labels.read()?.into_iter().collect(),
        settings: maps.settings.get(&0)?.unwrap_or_default(),
    })
}

pub(super) fn trie<K: Pod>(key: Key<K>) -> Trie<K> {
    Trie { data: key.data(), bits: key.prefix_len() }
}

/// Elements of an array that are not all zeros.
pub(super) fn elements<V: Pod + PartialEq>(
    table: &Table<u32, V>,
) -> Result<impl Iterator<Item = (u32, V)> + use<V>, MapError> {
    let none = syscall::zeroed::<V>();
    let mut found = Vec::new();
    table.walk(|index, values| {
        found.extend(values.first().filter(|value| **value != none).map(|value| (*index, *value)));
    })?;
    Ok(found.into_iter())
}

/// Places of ports by device.
pub(super) fn read_interfaces(maps: &Maps) -> Result<std::collections::BTreeMap<u32, u32>, MapError> {
    let near = elements(&maps.interfaces)?;
    let far = maps.far_interfaces.read()?.into_iter().filter(|(_, place)| *place != 0);
    Ok(near.chain(far).map(|(ifindex, place)| (ifindex, place - 1)).collect())
}
