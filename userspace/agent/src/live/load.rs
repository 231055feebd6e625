//! Loads the programs, each when it is first needed, and their maps. Flow: observe.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, Program, ProgramError, ProgramFd, SchedClassifier, SocketFilter},
};
use netdiag_common::abi::live::{Config, Layout, TALLY_DROPPED, TALLY_SOCKET, TALLY_WAY, Tally};
use netdiag_model::live::Losses;

use super::{LiveError, meter::Count, progress::Begun};
use crate::datapath::LIVE_OBJECT;

/// Name of the variable with the offsets.
const LAYOUT: &str = "LAYOUT";
/// Names of maps; the first holds the programs' variables, and there is one.
const CONFIG: &str = ".bss";
const TALLY: &str = "TALLY";
const RECORDS: &str = "RECORDS";
/// The program at the tracepoint, and the tracepoint.
const DROPPED: &str = "live_dropped";
const TRACEPOINT: &str = "kfree_skb";

/// Tallies of every kind of program.
const TALLIES_IN_USE: [u32; 3] = [TALLY_WAY, TALLY_DROPPED, TALLY_SOCKET];

/// Maps of a session.
pub(super) struct Maps {
    /// Which packets.
    pub(super) config: Array<MapData, Config>,
    /// What was counted.
    pub(super) tally: PerCpuArray<MapData, Tally>,
    /// Records.
    pub(super) records: RingBuf<MapData>,
}

impl Maps {
    /// Says which packets are spoken of from now on.
    ///
    /// Twice, the second time as the next generation: while the filter is being written, programs may see half of it, and keep
    /// what it says of a flow as that of the first.
    pub(super) fn set(&mut self, config: &mut Config) -> Result<(), LiveError> {
        for _ in 0..2 {
            // None is 0, what was never asked.
            config.generation = config.generation.wrapping_add(2).max(2);
            self.set_budget(config)?;
        }
        Ok(())
    }

    /// Says how many records there may be, where all else is as it was.
    pub(super) fn set_budget(&mut self, config: &Config) -> Result<(), LiveError> {
        self.config.set(0, config, 0).map_err(|error| failed("write the map", CONFIG, io::Error::other(error)))
    }

    /// Packets the filter covered, of each CPU; nothing where the kernel does not say.
    pub(super) fn counts(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        for tallies in TALLIES_IN_USE.iter().filter_map(|place| self.tally.get(place, 0).ok()) {
            counts.resize(counts.len().max(tallies.len()), Count::default());
            for (count, tally) in counts.iter_mut().zip(tallies.iter()) {
                count.records += tally.records;
                count.throttled += tally.throttled;
            }
        }
        counts
    }

    /// Records that every kind of program has begun on every CPU.
    pub(super) fn begun(&self) -> Result<Vec<Begun>, LiveError> {
        let mut begun = Vec::new();
        for place in TALLIES_IN_USE {
            let cpus = self.tally.get(&place, 0);
            let cpus = cpus.map_err(|error| failed("read the map", TALLY, io::Error::other(error)))?;
            let of = |(cpu, tally): (u32, &Tally)| Begun { of: (place, cpu), records: tally.records, lost: tally.lost };
            begun.extend((0..).zip(cpus.iter()).map(of));
        }
        Ok(begun)
    }

    /// Packets of which there is no record, of all CPUs and programs.
    pub(super) fn losses(&self) -> Result<Losses, LiveError> {
        let mut losses = Losses::default();
        for place in TALLIES_IN_USE {
            let cpus = self.tally.get(&place, 0);
            for tally in cpus.map_err(|error| failed("read the map", TALLY, io::Error::other(error)))?.iter() {
                losses.lost += tally.lost;
                losses.throttled += tally.throttled;
            }
        }
        Ok(losses)
    }
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").field("loaded", &self.loaded).finish_non_exhaustive()
    }
}

/// Programs of a session.
pub(super) struct Programs {
    ebpf: Ebpf,
    /// The kernel says at which side of a device a packet is, so one program does for both.
    pub(super) tells_side: bool,
    loaded: Vec<(&'static str, ProgramFd)>,
}

/// Makes the maps.
pub(super) fn load(layout: &Layout, ring_bytes: u32) -> Result<(Programs, Maps), LiveError> {
    let object = LIVE_OBJECT.ok_or(LiveError::NoObject)?;
    let mut loader = EbpfLoader::new();
    // There is nothing in it that the kernel's BTF would have to be asked for.
    loader.btf(None).override_global(LAYOUT, layout, true).map_max_entries(RECORDS, ring_bytes);
    let mut ebpf = loader.load(object).map_err(|error| failed("load", "the eBPF object", io::Error::other(error)))?;
    let maps =
        Maps { config: map(&mut ebpf, CONFIG)?, tally: map(&mut ebpf, TALLY)?, records: map(&mut ebpf, RECORDS)? };
    Ok((Programs { ebpf, tells_side: layout.skb_ingress_mask != 0, loaded: Vec::new() }, maps))
}

impl Programs {
    /// A classifier.
    pub(super) fn classifier(&mut self, name: &'static str) -> Result<ProgramFd, LiveError> {
        self.once(name, |ebpf| {
            let program: &mut SchedClassifier = program(ebpf, name)?;
            program.load().map_err(|error| refused(name, error))?;
            program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(|error| refused(name, error))
        })
    }

    /// Lets a program filter what a socket gets.
    pub(super) fn filter(&mut self, name: &'static str, socket: &impl AsFd) -> Result<(), LiveError> {
        self.once(name, |ebpf| {
            let program: &mut SocketFilter = program(ebpf, name)?;
            program.load().map_err(|error| refused(name, error))?;
            program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(|error| refused(name, error))
        })?;
        let program: &mut SocketFilter = program(&mut self.ebpf, name)?;
        program.attach(socket).map_err(|error| failed("attach the program", name, io::Error::other(error)))
    }

    /// Attaches the program that sees what is given up; it stays as long as the programs do.
    pub(super) fn watch_drops(&mut self) -> Result<(), LiveError> {
        let btf = Btf::from_sys_fs().map_err(|error| failed("read", "the kernel's BTF", io::Error::other(error)))?;
        self.once(DROPPED, |ebpf| {
            let program: &mut BtfTracePoint = program(ebpf, DROPPED)?;
            program.load(TRACEPOINT, &btf).map_err(|error| refused(DROPPED, error))?;
            program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(|error| refused(DROPPED, error))
        })?;
        let program: &mut BtfTracePoint = program(&mut self.ebpf, DROPPED)?;
        let attached = program.attach();
        attached.map(drop).map_err(|error| failed("attach the program", DROPPED, io::Error::other(error)))
    }

    /// True if what is given up is watched.
    pub(super) fn watches_drops(&self) -> bool {
        self.loaded.iter().any(|(name, _)| *name == DROPPED)
    }

    /// Descriptors of those that are loaded.
    pub(super) fn descriptors(&self) -> Result<Vec<OwnedFd>, LiveError> {
        let copy = |(name, fd): &(&'static str, ProgramFd)| {
            fd.as_fd().try_clone_to_owned().map_err(|error| failed("use the program", name, error))
        };
        self.loaded.iter().map(copy).collect()
    }

    fn once(
        &mut self,
        name: &'static str,
        load: impl FnOnce(&mut Ebpf) -> Result<ProgramFd, LiveError>,
    ) -> Result<ProgramFd, LiveError> {
        let copy = |fd: &ProgramFd| fd.try_clone().map_err(|error| failed("use the program", name, error));
        if let Some((_, fd)) = self.loaded.iter().find(|(loaded, _)| *loaded == name) {
            return copy(fd);
        }
        let fd = load(&mut self.ebpf)?;
        let copied = copy(&fd);
        self.loaded.push((name, fd));
        copied
    }
}

fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, LiveError> {
    let map = ebpf.take_map(name).ok_or_else(|| missing("map", name))?;
    T::try_from(map).map_err(|error| failed("use the map", name, io::Error::other(error)))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LiveError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or_else(|| missing("program", name))?.try_into().map_err(|_| missing("program", name))
}

fn missing(what: &str, name: &str) -> LiveError {
    failed("find in the eBPF object", &format!("the {what} {name}"), io::ErrorKind::NotFound.into())
}

/// What the system call said; the verifier's log is not for a line.
fn refused(name: &str, error: ProgramError) -> LiveError {
    let source = if let ProgramError::LoadError { io_error, verifier_log } = error {
        let said = verifier_log.to_string();
        // Behind what it objects to come its statistics.
        let statistics = ["verification time ", "stack depth ", "processed "];
        let is_said = |line: &&str| !line.is_empty() && !statistics.iter().any(|begin| line.starts_with(begin));
        match said.lines().rev().find(is_said) {
            Some(last) => io::Error::new(io_error.kind(), format!("{io_error}: {last}")),
            None => io_error,
        }
    } else {
        io::Error::other(error)
    };
    failed("load the program", name, source)
}

pub(super) fn failed(step: &'static str, object: &str, source: io::Error) -> LiveError {
    LiveError::Kernel { step, object: object.to_owned(), source }
}
