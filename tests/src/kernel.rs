//! The programs in the kernel, over maps of their own, run on packets in memory: the third evaluator. Flow: policy.
//!
//! Nothing is pinned or attached. A packet is run as if it were at the loopback device, which is led to whichever port it
//! belongs to; where the policy has its devices does not matter then.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRunOptions,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie::Key},
    programs::{SchedClassifier, TestRun as _, Xdp},
};
use netdiag_common::abi::{
    flow::{Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, Tick},
    policy::{GrantKey, MacKey, Page, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, Settings, View},
    reason::Reason,
    value::{Tally, tally_index},
};
use netdiag_model::compile::{Change, Op, Phase, Trie};

use crate::{memory::Memory, program::pin_full_map};

/// Index of the loopback device of every namespace, which a test run takes unless told otherwise.
const LOOPBACK: u32 = 1;

/// Which program decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// At TC ingress.
    FromInstance,
    /// At XDP.
    FromInstanceXdp,
    /// At TC egress.
    ToInstance,
}

/// The programs and their maps.
pub struct Kernel {
    programs: Ebpf,
    interfaces: Array<MapData, u32>,
    ports: Array<MapData, Port>,
    macs: HashMap<MapData, MacKey, u32>,
    pairs: LpmTrie<MapData, PairKey, u32>,
    active: Array<MapData, u64>,
    views: Array<MapData, View>,
    protocols: Array<MapData, Protocol>,
    pages: Array<MapData, Page>,
    grants: HashMap<MapData, GrantKey, u32>,
    remotes4: HashMap<MapData, RemoteKey4, u32>,
    remotes6: HashMap<MapData, RemoteKey6, u32>,
    prefixes4: LpmTrie<MapData, RemoteKey4, u32>,
    prefixes6: LpmTrie<MapData, RemoteKey6, u32>,
    settings: Array<MapData, Settings>,
    allowance: Array<MapData, u64>,
    flows4: HashMap<MapData, FlowKey4, Flow>,
    flows6: HashMap<MapData, FlowKey6, Flow>,
    fragments: HashMap<MapData, FragmentKey, Fragment>,
    tallies: PerCpuArray<MapData, Tally>,
    globals: Array<MapData, Globals>,
    led_to: Option<u32>,
    counted: BTreeMap<(u32, bool, Reason), u64>,
}

/// What the programs have of variables: the tick, and the factors of notes.
type Globals = [u64; 9];

/// A map of the object by its name.
macro_rules! take {
    ($programs:ident, $name:literal) => {
        $programs
            .take_map($name)
            .context(concat!("find the map ", $name))?
            .try_into()
            .context(concat!("take the map ", $name))?
    };
}

impl Kernel {
    /// Loads the programs.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn load(object: &[u8]) -> Result<Self> {
        Self::load_by(&mut EbpfLoader::new(), 16_384, object)
    }

    /// The same where one flow of each family can be tracked, and no other takes its place. `directory` is on a bpffs.
    ///
    /// # Errors
    /// The kernel refuses the programs, or maps that are full.
    pub fn load_for_one_flow(object: &[u8], directory: &Path) -> Result<Self> {
        let (over4, over6) = (directory.join("OVER4"), directory.join("OVER6"));
        pin_full_map::<FlowKey4, Flow>(&over4).context("make a full map")?;
        pin_full_map::<FlowKey6, Flow>(&over6).context("make a full map")?;
        let mut loader = EbpfLoader::new();
        loader.map_pin_path("OVER4", over4).map_pin_path("OVER6", over6);
        Self::load_by(&mut loader, 1, object)
    }

    fn load_by(loader: &mut EbpfLoader<'_>, flows: u32, object: &[u8]) -> Result<Self> {
        // Maps for a few packets: looking through empty ones that hold a million takes longer than all of the rest.
        for name in ["GRANTS", "REMOTES4", "REMOTES6", "PREFIXES4", "PREFIXES6", "MACS", "PAIRS"] {
            loader.map_max_entries(name, 16_384);
        }
        for name in ["FLOWS4", "FLOWS6"] {
            loader.map_max_entries(name, flows);
        }
        let mut programs = loader.load(object).context("load the object")?;
        for name in ["from_instance", "to_instance"] {
            let program: &mut SchedClassifier = programs.program_mut(name).context(name)?.try_into()?;
            program.load().context(name)?;
        }
        let xdp: &mut Xdp = programs.program_mut("from_instance_xdp").context("from_instance_xdp")?.try_into()?;
        xdp.load().context("from_instance_xdp")?;
        Ok(Self {
            interfaces: take!(programs, "INTERFACES"),
            ports: take!(programs, "PORTS"),
            macs: take!(programs, "MACS"),
            pairs: take!(programs, "PAIRS"),
            active: take!(programs, "ACTIVE"),
            views: take!(programs, "VIEWS"),
            protocols: take!(programs, "PROTOCOLS"),
            pages: take!(programs, "PAGES"),
            grants: take!(programs, "GRANTS"),
            remotes4: take!(programs, "REMOTES4"),
            remotes6: take!(programs, "REMOTES6"),
            prefixes4: take!(programs, "PREFIXES4"),
            prefixes6: take!(programs, "PREFIXES6"),
            settings: take!(programs, "SETTINGS"),
            allowance: take!(programs, "ALLOWANCE"),
            flows4: take!(programs, "FLOWS4"),
            flows6: take!(programs, "FLOWS6"),
            fragments: take!(programs, "FRAGMENTS"),
            tallies: take!(programs, "TALLIES"),
            globals: take!(programs, ".bss"),
            programs,
            led_to: None,
            counted: BTreeMap::new(),
        })
    }

    /// Writes changes of the policy, in their order.
    ///
    /// # Errors
    /// A map refuses a write.
    pub fn apply(&mut self, phases: &[Phase]) -> Result<()> {
        phases.iter().flat_map(|phase| &phase.ops).try_for_each(|op| self.write(op))
    }

    fn write(&mut self, op: &Op) -> Result<()> {
        match op {
            // Devices are led to ports packet by packet; names are for people.
            Op::Interface(_) | Op::RuleLabel(_) | Op::PortLabel(_) | Op::PolicyLabel(_) | Op::SetLabel(_) => Ok(()),
            Op::Port(change) => {
                if let Change::Put(slot, _) = change {
                    self.allowance.set(*slot, 1 << 40, 0)?;
                }
                set(&mut self.ports, change)
            }
            Op::Active(change) => set(&mut self.active, change),
            Op::View(change) => set(&mut self.views, change),
            Op::Protocol(change) => set(&mut self.protocols, change),
            Op::Page(Change::Put(page, content)) => Ok(self.pages.set(*page, **content, 0)?),
            Op::Page(Change::Delete(page)) => Ok(self.pages.set(*page, Page::default(), 0)?),
            Op::Mac(Change::Put(key, ())) => Ok(self.macs.insert(key, 1, 0)?),
            Op::Mac(Change::Delete(key)) => Ok(self.macs.remove(key)?),
            Op::Pair(Change::Put(key, ())) => Ok(self.pairs.insert(&trie(key), 1, 0)?),
            Op::Pair(Change::Delete(key)) => Ok(self.pairs.remove(&trie(key))?),
            Op::Grant(change) => put(&mut self.grants, change),
            Op::Remote4(change) => put(&mut self.remotes4, change),
            Op::Remote6(change) => put(&mut self.remotes6, change),
            Op::Prefix4(change) => prefix(&mut self.prefixes4, change),
            Op::Prefix6(change) => prefix(&mut self.prefixes6, change),
            Op::Settings(settings) => Ok(self.settings.set(0, settings, 0)?),
        }
    }

    /// Runs a program on a packet of the port at a place. True if the packet passes.
    ///
    /// # Errors
    /// The kernel refuses to run it: the packet is shorter than an Ethernet header.
    pub fn run(&mut self, slot: u32, program: Program, packet: &[u8]) -> Result<bool> {
        if self.led_to != Some(slot) {
            self.interfaces.set(LOOPBACK, slot + 1, 0)?;
            self.led_to = Some(slot);
        }
        let options = TestRunOptions { data_in: Some(packet), ..TestRunOptions::new() };
        let name = match program {
            Program::FromInstance => "from_instance",
            Program::FromInstanceXdp => "from_instance_xdp",
            Program::ToInstance => "to_instance",
        };
        let loaded = self.programs.program(name).context(name)?;
        Ok(if program == Program::FromInstanceXdp {
            let xdp: &Xdp = loaded.try_into()?;
            // `XDP_PASS` (`linux/bpf.h`).
            xdp.test_run(options)?.return_value == 2
        } else {
            let classifier: &SchedClassifier = loaded.try_into()?;
            // `TCX_NEXT` (`linux/bpf.h`).
            classifier.test_run(options)?.return_value.cast_signed() == -1
        })
    }

    /// Whether one more packet of a port has met a reason than when this was last asked of it; else what was counted.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counted(&mut self, slot: u32, ingress: bool, reason: Reason) -> Result<Option<Vec<Reason>>> {
        let counted = self.counted.entry((slot, ingress, reason)).or_insert(0);
        *counted += 1;
        if *counted == count(&self.tallies, slot, ingress, reason)? {
            return Ok(None);
        }
        *counted -= 1;
        let mut others = Vec::new();
        for other in Reason::ALL {
            let before = self.counted.get(&(slot, ingress, *other)).copied().unwrap_or(0);
            if count(&self.tallies, slot, ingress, *other)? != before {
                others.push(*other);
            }
        }
        Ok(Some(others))
    }

    /// A tracked flow.
    ///
    /// # Errors
    /// There is none.
    pub fn flow4(&self, key: &FlowKey4) -> Result<Flow> {
        Ok(self.flows4.get(key, 0)?)
    }

    /// Lets time pass for everything that is remembered: the clock cannot be turned, so what it is compared with is.
    ///
    /// # Errors
    /// A map refuses a write.
    pub fn advance(&mut self, remembered: &Memory, ticks: Tick) -> Result<()> {
        self.forget_notes()?;
        for key in remembered.flows4.keys() {
            let mut flow = self.flows4.get(key, 0)?;
            flow.seen = flow.seen.wrapping_sub(ticks);
            self.flows4.insert(key, flow, 0)?;
        }
        for key in remembered.flows6.keys() {
            let mut flow = self.flows6.get(key, 0)?;
            flow.seen = flow.seen.wrapping_sub(ticks);
            self.flows6.insert(key, flow, 0)?;
        }
        for key in remembered.fragments.keys() {
            let mut fragment = self.fragments.get(key, 0)?;
            fragment.seen = fragment.seen.wrapping_sub(ticks);
            self.fragments.insert(key, fragment, 0)?;
        }
        Ok(())
    }

    /// Voids the notes of settled flows, which hold for the rest of a tick: flows neither age nor vanish within one elsewhere, and
    /// no generation begins anew. Without its factors, which are made again, no note adds up.
    fn forget_notes(&mut self) -> Result<()> {
        self.globals.set(0, Globals::default(), 0).context("forget the notes of settled flows")
    }

    /// Forgets everything that is remembered.
    ///
    /// # Errors
    /// Something is remembered in memory that is not in the maps.
    pub fn forget(&mut self, remembered: &Memory) -> Result<()> {
        self.forget_notes()?;
        for key in remembered.flows4.keys() {
            self.flows4.remove(key).with_context(|| format!("forget {key:?}"))?;
        }
        for key in remembered.flows6.keys() {
            self.flows6.remove(key).with_context(|| format!("forget {key:?}"))?;
        }
        for key in remembered.fragments.keys() {
            self.fragments.remove(key).with_context(|| format!("forget {key:?}"))?;
        }
        let left = [
            ("MACS", self.macs.keys().count()),
            ("PAIRS", self.pairs.keys().count()),
            ("GRANTS", self.grants.keys().count()),
            ("REMOTES4", self.remotes4.keys().count()),
            ("REMOTES6", self.remotes6.keys().count()),
            ("PREFIXES4", self.prefixes4.keys().count()),
            ("PREFIXES6", self.prefixes6.keys().count()),
            ("FLOWS4", self.flows4.keys().count()),
            ("FLOWS6", self.flows6.keys().count()),
            ("FRAGMENTS", self.fragments.keys().count()),
        ];
        let left: Vec<_> = left.into_iter().filter(|(_, count)| *count > 0).collect();
        ensure!(left.is_empty(), "left in the maps: {left:?}");
        Ok(())
    }
}

/// Packets of a port that met a reason, on all CPUs together.
fn count(tallies: &PerCpuArray<MapData, Tally>, slot: u32, ingress: bool, reason: Reason) -> Result<u64> {
    let cpus = tallies.get(&tally_index(slot, ingress, reason as u8), 0)?;
    Ok(cpus.iter().map(|tally| tally.packets).sum())
}

fn trie<K: Pod>(key: &Trie<K>) -> Key<K> {
    Key::new(key.bits, key.data)
}

fn set<V: Pod + Default>(map: &mut Array<MapData, V>, change: &Change<u32, V>) -> Result<()> {
    Ok(match change {
        Change::Put(key, value) => map.set(*key, *value, 0),
        Change::Delete(key) => map.set(*key, V::default(), 0),
    }?)
}

fn put<K: Pod>(map: &mut HashMap<MapData, K, u32>, change: &Change<K, u32>) -> Result<()> {
    Ok(match change {
        Change::Put(key, value) => map.insert(key, value, 0),
        Change::Delete(key) => map.remove(key),
    }?)
}

fn prefix<K: Pod>(map: &mut LpmTrie<MapData, K, u32>, change: &Change<Trie<K>, u32>) -> Result<()> {
    Ok(match change {
        Change::Put(key, value) => map.insert(&trie(key), value, 0),
        Change::Delete(key) => map.remove(&trie(key)),
    }?)
}
