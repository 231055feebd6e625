//! Everything that touches the kernel for security groups and the fast way of floating IPs: loads the programs, attaches
//! them, writes and reads their maps. Decides nothing. Flow: policy.
//!
//! | module | what it does |
//! |---|---|
//! | `bpffs` | the directory everything is pinned in, and its lock |
//! | `load` | loads the object; compares what is pinned with it |
//! | `maps` | the pinned maps by name and type |
//! | `attach` | attaches the programs to devices, keeps them first, detaches them |
//! | `apply` | compiled tables to maps and back |
//! | `floating` | the maps of floating IPs |
//! | `straight` | the maps of who may send to whom past the bridge |
//! | `flows` | tracked flows: reads them, removes those that are over, gives quotas |
//! | `counters` | counters, added up over all CPUs |
//! | `events` | records of the ring buffer, with names |
//! | `look` | what is loaded, without a lock and without writing |
//! | `syscall` | system calls that no library wraps |
//!
//! **Order.** A device without a port passes everything, so a port's tables are written before its programs are attached.
//!
//! **Upgrade.** `Enforcer::load` never touches what is attached: programs of another netdiag go on enforcing. With the same
//! layout of the maps (`ABI_VERSION`) the new programs share all maps with the old ones, and each `Enforcer::attach`
//! replaces one program in place. With another layout the new maps are empty: the caller writes the whole policy, attaches,
//! and then calls `Enforcer::remove_other_versions`. The flows of the old layout are not taken along: a connection that
//! goes on is picked up from its next packet if a rule allows it in that packet's direction.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use netdiag_common::abi::flow::FlowKey4;
use netdiag_model::{
    compile::{Phase, Tables},
    floating::{ExternalHook, tables::FloatingTables},
    policy::types::Direction,
};

pub use self::{
    apply::ApplyError,
    attach::{AttachError, Behind, Change, ExternalState, Hook, HookState, Method},
    bpffs::{ROOT, RootError},
    counters::PortCounters,
    events::{Events, PAUSE},
    floating::Ways,
    flows::{Collected, Flows, Tracked},
    load::LoadError,
    maps::MapError,
    straight::Stations,
};
use self::{attach::Attacher, bpffs::Root, load::Programs, maps::Maps};
pub(crate) use self::{attach::has_tcx, events::text as label_text};

/// Compiled tables to maps and back.
mod apply;
/// Attaches the programs to devices.
mod attach;
/// The directory everything is pinned in.
mod bpffs;
/// Counters, added up over all CPUs.
mod counters;
/// Records of the ring buffer.
mod events;
/// The maps of floating IPs.
mod floating;
/// Tracked flows.
mod flows;
/// Loads the object.
mod load;
/// What is loaded, for whoever only wants to know.
pub(crate) mod look;
/// The pinned maps.
mod maps;
/// Qdiscs, filters and XDP programs by netlink.
pub(crate) mod netlink;
/// The maps of who may send to whom past the bridge.
mod straight;
/// System calls that no library wraps.
pub(crate) mod syscall;

/// Where and how to enforce.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory everything is pinned in, on a bpffs.
    pub root: PathBuf,
    /// How many IPv4 flows can be tracked by quota, and half as many IPv6 flows; none is what the programs say.
    pub max_flows: Option<u32>,
    /// Attach by clsact even where the kernel has TCX.
    pub clsact: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { root: ROOT.into(), max_flows: None, clsact: false }
    }
}

/// The programs and maps of this host. Only one exists for a directory at a time.
#[derive(Debug)]
pub struct Enforcer {
    root: Root,
    maps: Maps,
    programs: Programs,
    object: Vec<u8>,
    options: Options,
    tcx: bool,
    /// The program of somebody else that was before ours when we went before it, by device and direction: who goes before us
    /// again means to, and is reported instead of fought.
    overtaken: BTreeMap<(u32, Direction), Option<u32>>,
}

impl Enforcer {
    /// Loads the programs that this binary carries.
    pub fn load(options: Options) -> Result<Self, LoadError> {
        Self::load_object(crate::datapath::OBJECT.ok_or(LoadError::NoObject)?, options)
    }

    /// Loads the programs of an object, which is aligned to 8 bytes.
    pub fn load_object(object: &[u8], options: Options) -> Result<Self, LoadError> {
        let root = Root::lock(&options.root)?;
        let programs = load::load(object, &root, max_flows(&options))?;
        let maps = Maps::open(&root.maps(), false)?;
        let tcx = !options.clsact && has_tcx();
        Ok(Self { root, maps, programs, object: object.to_vec(), options, tcx, overtaken: BTreeMap::new() })
    }

    /// Directory of the maps.
    pub fn pinned(&self) -> PathBuf {
        self.root.maps()
    }

    /// Directories with the maps of other layouts, which netdiags before or after this one have pinned.
    pub fn other_versions(&self) -> Result<Vec<PathBuf>, RootError> {
        self.root.other_versions()
    }

    /// Removes the maps of other layouts, and says which. For when every port has the programs of this one.
    pub fn remove_other_versions(&self) -> Result<Vec<PathBuf>, RootError> {
        load::remove_other_versions(&self.root)
    }

    /// Does writes of the compiler, in order. Where one fails what was written before it stays: [`Enforcer::read_tables`] says what
    /// that came to.
    pub fn apply(&self, phases: &[Phase]) -> Result<(), ApplyError> {
        apply::apply(&self.maps, phases)
    }

    /// What the maps hold.
    pub fn read_tables(&self) -> Result<Tables, MapError> {
        apply::read(&self.maps)
    }

    /// All tracked flows.
    pub fn flows(&self) -> Result<Flows, MapError> {
        flows::read(&self.maps)
    }

    /// Removes flows that are over, and says how many more each port may track. To be called every few seconds.
    pub fn collect(&self) -> Result<Collected, MapError> {
        flows::collect(&self.maps, flows::now())
    }

    /// Counters of the port at a place.
    pub fn port_counters(&self, slot: u32) -> Result<PortCounters, MapError> {
        counters::port(&self.maps, slot)
    }

    /// Flows each rule has allowed, by the rule's number; rules that never did are left out.
    pub fn hits(&self) -> Result<BTreeMap<u32, u64>, MapError> {
        counters::hits(&self.maps)
    }

    /// The reader of the ring buffer. There must be only one.
    pub fn events(&self) -> Result<Events, MapError> {
        Events::open(&self.root.maps())
    }

    /// Loads what a hook needs, which takes the kernel a second or so: the first device there shall not be open meanwhile.
    pub fn prepare(&self, hook: Hook) -> Result<(), LoadError> {
        match hook {
            Hook::Tc => Ok(()),
            Hook::Xdp => self.programs.instance_xdp().map(drop),
        }
    }

    /// Attaches both programs to the device of a port; what is attached already stays.
    pub fn attach(&mut self, ifindex: u32, hook: Hook) -> Result<[HookState; 2], AttachError> {
        let mut states = self.attacher().attach(ifindex, hook)?;
        for state in &mut states {
            if self.may_overtake(ifindex, state) {
                self.overtake(ifindex, state)?;
            }
        }
        Ok(states)
    }

    fn attacher(&self) -> Attacher<'_> {
        Attacher { root: &self.root, programs: &self.programs, tcx: self.tcx }
    }

    fn may_overtake(&self, ifindex: u32, state: &HookState) -> bool {
        let Some(Behind { method: Method::Tcx, program }) = state.behind else { return false };
        self.overtaken.get(&(ifindex, state.direction)) != Some(&program)
    }

    /// Goes before the program that is before ours. The kernel takes a program only once at a place, so another instance
    /// of it is loaded first.
    fn overtake(&mut self, ifindex: u32, state: &mut HookState) -> Result<(), AttachError> {
        let Some(Behind { program, .. }) = state.behind else { return Ok(()) };
        self.overtaken.insert((ifindex, state.direction), program);
        let again = load::load(&self.object, &self.root, max_flows(&self.options));
        self.programs = again.map_err(|error| AttachError::Again(Box::new(error)))?;
        let attacher = self.attacher();
        let side = match state.direction {
            Direction::Egress => attacher.outward(ifindex),
            Direction::Ingress => attacher.inward(ifindex),
        };
        attacher.overtake(&side)?;
        state.program = side.program.id;
        state.behind = None;
        Ok(())
    }

    /// Devices of ports in this namespace to which something of ours is attached, or was when they were there.
    pub fn devices(&self) -> Result<Vec<u32>, RootError> {
        let all = self.root.devices()?.0;
        Ok(all.into_iter().filter(|ifindex| !attach::external::is_external(&self.root, *ifindex)).collect())
    }

    /// Attaches the program of an external device; what is attached already stays.
    pub fn attach_external(&self, ifindex: u32, hook: ExternalHook) -> Result<ExternalState, AttachError> {
        self.attacher().external(ifindex, hook)
    }

    /// Detaches everything of ours from an external device, which may be gone; all errors.
    pub fn detach_external(&self, ifindex: u32) -> Vec<AttachError> {
        attach::detach(&self.root, ifindex)
    }

    /// External devices of this namespace to which something of ours is attached, or was when they were there.
    pub fn external_devices(&self) -> Result<Vec<u32>, RootError> {
        attach::external::devices(&self.root)
    }

    /// What the maps of floating IPs hold.
    pub fn read_floating(&self) -> Result<FloatingTables, MapError> {
        floating::read(&self.maps)
    }

    /// Makes the maps of floating IPs hold something else. Where a write fails what was written before it stays.
    pub fn apply_floating(&self, before: &FloatingTables, after: &FloatingTables) -> Result<(), MapError> {
        floating::apply(&self.maps, before, after)
    }

    /// Who may send to whom past the bridge, as the maps hold it.
    pub fn read_stations(&self) -> Result<Stations, MapError> {
        straight::read(&self.maps)
    }

    /// Makes the maps hold something else of that.
    pub fn apply_stations(&self, before: &Stations, after: &Stations) -> Result<(), MapError> {
        straight::apply(&self.maps, before, after)
    }

    /// Flows that are held on the slow way.
    pub fn held(&self) -> Result<Vec<FlowKey4>, MapError> {
        floating::held(&self.maps)
    }

    /// Holds more flows on the slow way.
    pub fn hold(&self, flows: &[FlowKey4]) -> Result<(), MapError> {
        floating::hold(&self.maps, flows)
    }

    /// Holds flows no longer.
    pub fn release(&self, flows: &[FlowKey4]) -> Result<(), MapError> {
        floating::release(&self.maps, flows)
    }

    /// Which ways packets of the port at a place have taken.
    pub fn ways(&self, slot: u32) -> Result<Ways, MapError> {
        floating::ways(&self.maps, slot)
    }

    /// Detaches everything of ours from a device, which may be gone; all errors.
    pub fn detach(&mut self, ifindex: u32) -> Vec<AttachError> {
        self.overtaken.retain(|(device, _), _| *device != ifindex);
        attach::detach(&self.root, ifindex)
    }
}

fn max_flows(options: &Options) -> load::MaxFlows {
    options.max_flows.map(|flows| (flows.max(2), (flows / 2).max(1)))
}

/// Names of the maps of enforcement that hold so many elements; a ring buffer holds bytes.
pub(crate) fn sized_maps() -> impl Iterator<Item = &'static str> {
    maps::names().filter(|name| *name != maps::DECISIONS)
}

/// Leaves the host as it was before any netdiag enforced anything there: no programs, links, qdiscs, maps. Needs no programs of its
/// own; refuses while an agent is at work. All errors; what can be removed is.
pub fn detach_all(root: &Path) -> Vec<AttachError> {
    if !root.exists() {
        return Vec::new();
    }
    match Root::lock_existing(root) {
        Ok(root) => detach_locked(&root),
        Err(error) => vec![error.into()],
    }
}

fn detach_locked(root: &Root) -> Vec<AttachError> {
    let (devices, others) = match root.devices() {
        Ok(devices) => devices,
        Err(error) => return vec![error.into()],
    };
    let mut errors: Vec<AttachError> = devices.into_iter().flat_map(|ifindex| attach::detach(root, ifindex)).collect();
    errors.extend(others.into_iter().map(|name| RootError::Elsewhere { path: root.links().join(name) }.into()));
    // Maps stay as long as anything may be attached, so that what is left goes on as it was.
    if !errors.is_empty() {
        return errors;
    }
    let result = load::remove_all_versions(root).and_then(|()| bpffs::remove(&root.links()));
    errors.extend(result.and_then(|()| bpffs::remove(root.path())).err().map(AttachError::from));
    errors
}
