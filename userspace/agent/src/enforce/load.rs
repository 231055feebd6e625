//! Loads the object with its maps pinned. Flow: policy.
//!
//! Whatever is pinned already goes on to be used, so that flows, counters and the policy in force outlive the agent. aya opens
//! a pin without comparing anything; a map of another shape would be read as what it is not, so every pin is compared first.

use std::{
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{Program, ProgramError, ProgramFd, SchedClassifier, Xdp},
};
use aya_obj::Object;

use super::{
    bpffs::{self, Root, RootError},
    maps,
    syscall::{self, MapInfo},
};

/// Programs by name.
const FROM_INSTANCE: &str = "from_instance";
const TO_INSTANCE: &str = "to_instance";
const FROM_INSTANCE_XDP: &str = "from_instance_xdp";
const FROM_EXTERNAL: &str = "from_external";
const FROM_EXTERNAL_XDP: &str = "from_external_xdp";
const FROM_HOST: &str = "from_host";

/// Maps whose size is an operator's choice.
const FLOWS4: &str = "FLOWS4";
const FLOWS6: &str = "FLOWS6";

/// Why the programs are not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This binary carries no programs.
    #[error("this netdiag was built without its eBPF programs")]
    NoObject,
    /// The directory of pins cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A map could not be opened again.
    #[error(transparent)]
    Map(#[from] maps::MapError),
    /// The object cannot be read.
    #[error("read the eBPF object")]
    Parse(#[source] Box<aya_obj::ParseError>),
    /// The object is not the one this code was written with.
    #[error("find the {what} {name} in the eBPF object")]
    Missing {
        /// `program` or `map`.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A pinned map has another shape than this netdiag's.
    #[error(
        "the map {} is pinned with {property} {pinned}, this netdiag has {wanted}: start the netdiag that pinned it, with its options, \
         or `netdiag agent --detach` first",
        map.display()
    )]
    Differs {
        /// Where it is pinned.
        map: PathBuf,
        /// What of it.
        property: &'static str,
        /// As it is.
        pinned: u32,
        /// As it should be.
        wanted: u32,
    },
    /// A pin could not be looked at.
    #[error("open the pinned map {}", map.display())]
    Pin {
        /// Where it is pinned.
        map: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel did not accept the object's maps.
    #[error("load the eBPF object")]
    Object(#[source] Box<EbpfError>),
    /// The verifier or a missing privilege refused a program.
    #[error("load the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the system call said.
        #[source]
        source: io::Error,
        /// What the verifier said; long, and empty if it was not asked.
        log: String,
    },
}

/// The programs, loaded.
#[derive(Debug)]
pub(super) struct Programs {
    /// At TC ingress of the host's device.
    pub(super) from_instance: Loaded,
    /// At TC egress of the host's device.
    pub(super) to_instance: Loaded,
    /// Those that are loaded when the first device needs them: the kernel takes a second or so to verify one.
    later: Mutex<Ebpf>,
    from_instance_xdp: OnceLock<Loaded>,
    from_external: OnceLock<Loaded>,
    from_external_xdp: OnceLock<Loaded>,
    from_host: OnceLock<Loaded>,
}

impl Programs {
    /// At generic XDP of the host's device.
    pub(super) fn instance_xdp(&self) -> Result<&Loaded, LoadError> {
        self.loaded(&self.from_instance_xdp, |ebpf| xdp(ebpf, FROM_INSTANCE_XDP))
    }

    /// At TC ingress of an external device.
    pub(super) fn external(&self) -> Result<&Loaded, LoadError> {
        self.loaded(&self.from_external, |ebpf| classifier(ebpf, FROM_EXTERNAL))
    }

    /// At generic XDP of an external device.
    pub(super) fn external_xdp(&self) -> Result<&Loaded, LoadError> {
        self.loaded(&self.from_external_xdp, |ebpf| xdp(ebpf, FROM_EXTERNAL_XDP))
    }

    /// At TC egress of the internal device of a bridge.
    pub(super) fn host(&self) -> Result<&Loaded, LoadError> {
        self.loaded(&self.from_host, |ebpf| classifier(ebpf, FROM_HOST))
    }

    fn loaded<'p>(
        &self,
        program: &'p OnceLock<Loaded>,
        load: impl FnOnce(&mut Ebpf) -> Result<Loaded, LoadError>,
    ) -> Result<&'p Loaded, LoadError> {
        if let Some(loaded) = program.get() {
            return Ok(loaded);
        }
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = load(&mut later)?;
        Ok(program.get_or_init(|| loaded))
    }
}

/// One program, loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Its descriptor.
    pub(super) fd: ProgramFd,
    /// Its id in the kernel.
    pub(super) id: u32,
}

/// How many flows can be tracked by quota, for each family; none leaves what the object says.
pub(super) type MaxFlows = Option<(u32, u32)>;

/// Loads maps and programs. Maps that are pinned already are taken as they are, others are made and pinned.
pub(super) fn load(object: &[u8], root: &Root, max_flows: MaxFlows) -> Result<Programs, LoadError> {
    let directory = root.maps();
    bpffs::make(&directory)?;
    compare_all(object, &directory, max_flows)?;
    let mut loader = EbpfLoader::new();
    for name in maps::names() {
        loader.map_pin_path(name, directory.join(name));
    }
    if let Some((flows4, flows6)) = max_flows {
        loader.map_max_entries(FLOWS4, flows4).map_max_entries(FLOWS6, flows6);
    }
    let mut ebpf = loader.load(object).map_err(|error| LoadError::Object(Box::new(error)))?;
    Ok(Programs {
        from_instance: classifier(&mut ebpf, FROM_INSTANCE)?,
        to_instance: classifier(&mut ebpf, TO_INSTANCE)?,
        later: Mutex::new(ebpf),
        from_instance_xdp: OnceLock::new(),
        from_external: OnceLock::new(),
        from_external_xdp: OnceLock::new(),
        from_host: OnceLock::new(),
    })
}

fn classifier(ebpf: &mut Ebpf, name: &'static str) -> Result<Loaded, LoadError> {
    let program: &mut SchedClassifier = program(ebpf, name)?;
    program.load().map_err(|error| refused(name, error))?;
    let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?));
    loaded(name, fd, program.info().map(|info| info.id()))
}

fn xdp(ebpf: &mut Ebpf, name: &'static str) -> Result<Loaded, LoadError> {
    let program: &mut Xdp = program(ebpf, name)?;
    program.load().map_err(|error| refused(name, error))?;
    let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?));
    loaded(name, fd, program.info().map(|info| info.id()))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let missing = || LoadError::Missing { what: "program", name };
    ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
}

fn loaded(
    name: &'static str,
    fd: Result<ProgramFd, ProgramError>,
    id: Result<u32, ProgramError>,
) -> Result<Loaded, LoadError> {
    let refused = |error| refused(name, error);
    Ok(Loaded { fd: fd.map_err(refused)?, id: id.map_err(refused)? })
}

/// The verifier's log apart from the error: it is for a file, not for a line.
fn refused(program: &'static str, error: ProgramError) -> LoadError {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        LoadError::Program { program, source: io_error, log: verifier_log.to_string() }
    } else {
        LoadError::Program { program, source: io::Error::other(error), log: String::new() }
    }
}

// === pins ===

/// Compares every pin with the object.
fn compare_all(object: &[u8], directory: &Path, max_flows: MaxFlows) -> Result<(), LoadError> {
    let object = Object::parse(object).map_err(|error| LoadError::Parse(Box::new(error)))?;
    for name in maps::names() {
        let map = object.maps.get(name).ok_or(LoadError::Missing { what: "map", name })?;
        let asked = max_flows.and_then(|(flows4, flows6)| match name {
            FLOWS4 => Some(flows4),
            FLOWS6 => Some(flows6),
            _ => None,
        });
        let wanted = MapInfo {
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: asked.unwrap_or_else(|| map.max_entries()),
            flags: map.map_flags(),
            ..MapInfo::default()
        };
        compare(&directory.join(name), &wanted)?;
    }
    Ok(())
}

fn compare(path: &Path, wanted: &MapInfo) -> Result<(), LoadError> {
    let pinned = match syscall::open_map(path, true).and_then(|map| syscall::map_info(map.as_fd())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        pinned => pinned.map_err(|source| LoadError::Pin { map: path.to_owned(), source })?,
    };
    let properties = [
        ("type", pinned.kind, wanted.kind),
        ("key size", pinned.key_size, wanted.key_size),
        ("value size", pinned.value_size, wanted.value_size),
        ("size", pinned.max_entries, wanted.max_entries),
        ("flags", pinned.flags, wanted.flags),
    ];
    match properties.into_iter().find(|(_, pinned, wanted)| pinned != wanted) {
        Some((property, pinned, wanted)) => Err(LoadError::Differs { map: path.to_owned(), property, pinned, wanted }),
        None => Ok(()),
    }
}

/// Removes the maps of other layouts. Programs that still use them keep them alive until they are replaced.
pub(super) fn remove_other_versions(root: &Root) -> Result<Vec<PathBuf>, RootError> {
    let others = root.other_versions()?;
    others.iter().try_for_each(|path| bpffs::remove_all(path))?;
    Ok(others)
}

/// Removes the maps of every layout.
pub(super) fn remove_all_versions(root: &Root) -> Result<(), RootError> {
    remove_other_versions(root)?;
    bpffs::remove_all(&root.maps())
}
