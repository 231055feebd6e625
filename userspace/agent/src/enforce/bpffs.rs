//! The directory everything is pinned in, and the lock that lets one agent write there. Flow: policy.
//!
//! ```text
//! <root>/                       the lock is on this directory
//!   v2/INTERFACES …             maps of one layout (`ABI_VERSION`)
//!   links/12-4026531840/        what is attached to device 12 of the namespace with that inode
//!     in  out  xdp              links
//!     qdisc                     a mark: the clsact qdisc of the device is ours
//! ```

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, major, minor, open, statfs},
    io::Errno,
    mount::{MountFlags, mount},
};

use netdiag_common::ABI_VERSION;

/// Where the host's bpffs belongs.
const HOST: &str = "/sys/fs/bpf";
/// Where netdiag pins.
pub const ROOT: &str = "/sys/fs/bpf/netdiag";
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const MAGIC: u32 = 0xcafe_4a11;

/// How long the child of an agent that was killed may take to become another program.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It is not on a bpffs.
    #[error("{} is not on a bpffs: mount one there (mount -t bpf bpf {})", path.display(), path.display())]
    NoBpffs {
        /// The directory, or the nearest one above that there is.
        path: PathBuf,
    },
    /// There is no bpffs at its usual place, and none could be mounted.
    #[error("mount a bpffs at {HOST}")]
    Mount(#[source] io::Error),
    /// Another agent has it.
    #[error("{}: another netdiag agent is at work there{}", path.display(), process(*pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process of that agent; none where it is in another PID namespace.
        pid: Option<u32>,
    },
    /// What is attached there belongs to another namespace, or is nothing netdiag knows.
    #[error("{} is not of this network namespace: detach from inside its own", path.display())]
    Elsewhere {
        /// The directory.
        path: PathBuf,
    },
    /// Something else.
    #[error("{step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(", process {pid}"))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootError {
    let path = path.to_owned();
    move |source| RootError::Io { step, path, source }
}

/// Who has the lock on a directory.
fn holder(directory: &OwnedFd) -> Option<u32> {
    let of = fstat(directory).ok()?;
    let id = format!("{:02x}:{:02x}:{}", major(of.st_dev), minor(of.st_dev), of.st_ino);
    holder_in(&fs::read_to_string("/proc/locks").ok()?, &id)
}

/// The same, in the words of `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 812 00:1c:4711 0 EOF`. Those who wait have an arrow more.
fn holder_in(locks: &str, id: &str) -> Option<u32> {
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, pid, of, ..] if of == id => pid.parse().ok().filter(|pid| *pid != 0),
        _ => None,
    })
}

/// A directory of pins that nobody else writes while this exists.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// The namespace this process is in, where devices are looked for.
    netns: u64,
    /// Holds the lock, where there is one.
    _lock: Option<OwnedFd>,
}

impl Root {
    /// Makes the directory where there is none, and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, RootError> {
        ensure_bpffs(path)?;
        make(path)?;
        Self::lock_existing(path)
    }

    /// Locks a directory that is there.
    ///
    /// An agent that is killed while it starts a program to read rules leaves a child that has the lock until it becomes
    /// that program; so the next agent waits a moment before it says that another is at work.
    pub(super) fn lock_existing(path: &Path) -> Result<Self, RootError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = open(path, flags, Mode::empty()).map_err(|error| failed("open", path)(error.into()))?;
        let started = Instant::now();
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _lock: Some(lock), ..Self::unlocked(path)? }),
                Err(Errno::WOULDBLOCK) if started.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(RootError::Locked { path: path.to_owned(), pid: holder(&lock) }),
                Err(error) => return Err(failed("lock", path)(error.into())),
            }
        }
    }

    /// A directory that is only looked at.
    pub(super) fn unlocked(path: &Path) -> Result<Self, RootError> {
        let own = Path::new("/proc/thread-self/ns/net");
        let netns = fs::metadata(own).map_err(failed("look at", own))?.ino();
        Ok(Self { path: path.to_owned(), netns, _lock: None })
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the maps of this layout are.
    pub(super) fn maps(&self) -> PathBuf {
        self.path.join(version_name(ABI_VERSION))
    }

    /// Directories with the maps of other layouts.
    pub(super) fn other_versions(&self) -> Result<Vec<PathBuf>, RootError> {
        let own = version_name(ABI_VERSION);
        let names = entries(&self.path)?;
        Ok(names.into_iter().filter(|name| is_version(name) && *name != own).map(|name| self.path.join(name)).collect())
    }

    /// Where the links of a device are.
    pub(super) fn device(&self, ifindex: u32) -> PathBuf {
        self.path.join(LINKS).join(format!("{ifindex}-{}", self.netns))
    }

    /// The devices something is attached to, by the names of their directories: those of this namespace, and others.
    pub(super) fn devices(&self) -> Result<(Vec<u32>, Vec<String>), RootError> {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for name in entries(&self.path.join(LINKS))? {
            match parse_device(&name) {
                Some((ifindex, netns)) if netns == self.netns => ours.push(ifindex),
                _ => others.push(name),
            }
        }
        Ok((ours, others))
    }

    /// Where the links of all devices are.
    pub(super) fn links(&self) -> PathBuf {
        self.path.join(LINKS)
    }
}

/// Name of the directory of links.
const LINKS: &str = "links";

fn version_name(version: u16) -> String {
    format!("v{version}")
}

/// True for a name of a directory of maps.
pub(super) fn is_version(name: &str) -> bool {
    name.strip_prefix('v').is_some_and(|number| number.parse::<u16>().is_ok())
}

fn parse_device(name: &str) -> Option<(u32, u64)> {
    let (ifindex, netns) = name.split_once('-')?;
    Some((ifindex.parse().ok()?, netns.parse().ok()?))
}

/// Names in a directory, in order; none where there is no such directory.
pub(super) fn entries(path: &Path) -> Result<Vec<String>, RootError> {
    match list(path) {
        Err(RootError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

/// Names in a directory that is there, in order.
pub(super) fn list(path: &Path) -> Result<Vec<String>, RootError> {
    let read = fs::read_dir(path).map_err(failed("read", path))?;
    let names: io::Result<Vec<String>> =
        read.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.map_err(failed("read", path))?;
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory, and those above it, for its owner alone.
pub(super) fn make(path: &Path) -> Result<(), RootError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make the directory", path))
}

/// Removes a pin or a mark; it may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), RootError> {
    let result = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

/// Removes a directory of pins with all in it.
pub(super) fn remove_all(path: &Path) -> Result<(), RootError> {
    for name in entries(path)? {
        remove(&path.join(name))?;
    }
    remove(path)
}

/// Sees that the directory is, or will be, on a bpffs; mounts one at the usual place where it belongs there.
fn ensure_bpffs(path: &Path) -> Result<(), RootError> {
    if is_bpffs(path)? {
        return Ok(());
    }
    let host = Path::new(HOST);
    if path.starts_with(host) && host.is_dir() && !is_bpffs(host)? {
        let mode = c"mode=700";
        mount("bpf", host, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, mode)
            .map_err(|error| RootError::Mount(error.into()))?;
        return Ok(());
    }
    Err(RootError::NoBpffs { path: nearest(path).to_owned() })
}

fn is_bpffs(path: &Path) -> Result<bool, RootError> {
    let path = nearest(path);
    let stat = statfs(path).map_err(|error| failed("look at", path)(error.into()))?;
    Ok(u32::try_from(stat.f_type).is_ok_and(|kind| kind == MAGIC))
}

/// The directory, or the nearest one above that there is.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{LOCK_PATIENCE, Root, RootError, holder_in, is_version, parse_device};

    #[test]
    fn a_directory_of_links_names_device_and_namespace() {
        assert_eq!(parse_device("12-4026531840"), Some((12, 4_026_531_840)));
        for name in ["", "12", "-1", "12-", "x-1", "12-1-1"] {
            assert_eq!(parse_device(name), None, "{name}");
        }
    }

    #[test]
    fn only_a_version_is_a_version() {
        assert!(is_version("v2") && is_version("v65535"));
        assert!(!is_version("v") && !is_version("vx") && !is_version("links") && !is_version("v65536"));
    }

    #[test]
    fn a_lock_that_is_given_up_in_a_moment_is_waited_for_and_one_that_is_kept_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let held = Root::lock_existing(directory.path()).unwrap();
        let ending = thread::spawn(|| {
            thread::sleep(LOCK_PATIENCE / 4);
            drop(held);
        });
        let kept = Root::lock_existing(directory.path()).expect("the lock was given up");
        ending.join().unwrap();
        let error = Root::lock_existing(directory.path()).unwrap_err();
        assert!(matches!(error, RootError::Locked { .. }), "{error}");
        drop(kept);
    }

    #[test]
    fn the_holder_of_a_lock_is_the_one_that_does_not_wait_for_it() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1c:4711 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:1c:4712 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 812 00:1c:4711 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 9 00:1c:4711 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 00:1c:4713 0 EOF\n";
        assert_eq!(holder_in(locks, "00:1c:4711"), Some(812));
        assert_eq!(holder_in(locks, "00:1c:4713"), None, "of another PID namespace");
        assert_eq!(holder_in("", "00:1c:4711"), None);
    }

    #[test]
    fn a_directory_on_another_file_system_is_refused_with_the_fix() {
        let directory = tempfile::tempdir().unwrap();
        let error = Root::lock(&directory.path().join("netdiag")).unwrap_err();
        assert!(matches!(error, RootError::NoBpffs { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf bpf"), "{error}");
    }
}
