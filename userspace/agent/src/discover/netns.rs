//! Finds every network namespace of the host: by the processes in it, and by the names that lead to it. Flow: discover.
//!
//! Namespaces are told apart by inode before any is opened, so each is opened once. A handle stays open as long as the
//! sources read, so a namespace that is removed meanwhile is still read to the end. One that goes before it could be
//! opened is no error: it is not there any more. What must not happen here is a namespace that is there and neither in
//! the facts nor in a gap.

mod proxy;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use netdiag_model::{
    fact::{Facts, Gap, NameKind, NamespaceFact, NamespaceName, ProcessFact, ProxyFact, SourceKind, StaleName},
    id::NetnsId,
};
use rustix::{
    io::Errno,
    process::{Resource, getrlimit, setrlimit},
};

use super::{Options, report};
use crate::netns::{Namespace, NetnsError, identity};

/// Descriptors a look at the host needs besides one for each namespace: sockets, and files that are read.
const DESCRIPTORS_BESIDES: u64 = 512;

/// Finds and opens all namespaces, the host's first.
pub(super) async fn read(options: &Options) -> (Vec<Namespace>, Facts) {
    let options = options.clone();
    tokio::task::spawn_blocking(move || look(&options)).await.unwrap_or_else(|error| {
        let gap = gap("network namespaces".to_owned(), error.to_string());
        (Vec::new(), report(SourceKind::Netns, "not read".to_owned(), vec![gap]))
    })
}

fn look(options: &Options) -> (Vec<Namespace>, Facts) {
    let mut survey = Survey::default();
    survey.processes(&options.proc_dir);
    for dir in &options.netns_dirs {
        survey.names(dir);
    }
    let host = survey.host(&options.proc_dir);
    allow_descriptors(survey.found.len());
    let mut opened = Opened::default();
    let found = std::mem::take(&mut survey.found);
    for (inode, found) in found {
        opened.add(inode, found, &mut survey);
    }
    opened.finish(host, survey, options)
}

// === what there is ===

/// Everything that leads to one namespace.
#[derive(Default)]
struct Found {
    names: Vec<NamespaceName>,
    processes: Vec<ProcessFact>,
    process_count: usize,
    proxies: Vec<ProxyFact>,
    /// Where it can be opened; the first that still leads to it will do.
    paths: Vec<PathBuf>,
}

/// Kinds of things that may be refused many times over for one cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unread {
    Process,
    Name,
    Namespace,
}

impl Unread {
    fn count(self, count: usize) -> String {
        match (self, count) {
            (Self::Process, 1) => "network namespace of 1 process".to_owned(),
            (Self::Process, _) => format!("network namespaces of {count} processes"),
            (Self::Name, 1) => "1 name of a network namespace".to_owned(),
            (Self::Name, _) => format!("{count} names of network namespaces"),
            (Self::Namespace, 1) => "1 network namespace".to_owned(),
            (Self::Namespace, _) => format!("{count} network namespaces"),
        }
    }
}

/// What a walk through `/proc` and the directories of names found.
#[derive(Default)]
struct Survey {
    /// By inode.
    found: BTreeMap<u64, Found>,
    stale: Vec<StaleName>,
    /// What could not be read, and how often, by kind and cause: a thousand processes of others are one gap.
    unread: BTreeMap<(Unread, String), usize>,
    gaps: Vec<Gap>,
}

impl Survey {
    /// Adds the namespace of every process.
    fn processes(&mut self, proc_dir: &Path) {
        let entries = match fs::read_dir(proc_dir) {
            Ok(entries) => entries,
            Err(error) => return self.gaps.push(gap(proc_dir.display().to_string(), error.to_string())),
        };
        let mut pids: Vec<u32> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        for pid in pids {
            self.process(&proc_dir.join(pid.to_string()), pid);
        }
    }

    fn process(&mut self, dir: &Path, pid: u32) {
        let path = dir.join("ns/net");
        match fs::metadata(&path) {
            Ok(metadata) => {
                let found = self.found.entry(metadata.ino()).or_default();
                found.process_count += 1;
                let comm = comm(dir);
                found.proxies.extend(proxy::read(dir, pid, &comm));
                let first = || found.processes.iter().all(|process| process.comm != comm);
                if found.processes.len() < NamespaceFact::PROCESSES_KEPT
                    || (NamespaceFact::SERVERS.contains(&comm.as_str()) && first())
                {
                    found.processes.push(ProcessFact { pid, comm });
                    found.paths.push(path);
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => self.count_unread(Unread::Process, &error),
        }
    }

    /// Adds every name in a directory such as `/run/netns`.
    fn names(&mut self, dir: &Path) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => return,
            Err(error) => return self.gaps.push(gap(dir.display().to_string(), error.to_string())),
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in paths {
            self.name(path);
        }
    }

    fn name(&mut self, path: PathBuf) {
        let target = fs::read_link(&path).ok();
        match identity(&path) {
            Ok(Some((_, inode))) => {
                let kind = if target.is_some() { NameKind::Symlink } else { NameKind::Mount };
                let found = self.found.entry(inode).or_default();
                found.names.push(NamespaceName { path: path.to_string_lossy().into_owned(), kind });
                // A mount stays where it is, while the pid of a process may be given to another one.
                found.paths.insert(0, path);
            }
            Ok(None) => self.stale(&path, "no namespace is mounted there"),
            Err(error) if leads_nowhere(&error) && target.is_some() => {
                self.stale(&path, &format!("its target cannot be reached: {error}"));
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => self.count_unread(Unread::Name, &error),
        }
    }

    fn stale(&mut self, path: &Path, why: &str) {
        self.stale.push(StaleName {
            path: path.to_string_lossy().into_owned(),
            target: fs::read_link(path).ok().map(|target| target.to_string_lossy().into_owned()),
            why: why.to_owned(),
        });
    }

    fn count_unread(&mut self, what: Unread, error: &io::Error) {
        *self.unread.entry((what, error.to_string())).or_default() += 1;
    }

    /// Inode of the host's namespace: that of process 1, or our own with a gap that says so.
    fn host(&mut self, proc_dir: &Path) -> Option<u64> {
        let error = match fs::metadata(proc_dir.join("1/ns/net")) {
            Ok(metadata) => return Some(metadata.ino()),
            Err(error) => error,
        };
        self.gaps.push(gap(
            "network namespace of process 1".to_owned(),
            format!("{error}; netdiag's own is taken for the host's"),
        ));
        let own = proc_dir.join("self/ns/net");
        let inode = fs::metadata(&own).ok()?.ino();
        self.found.entry(inode).or_default().paths.push(own);
        Some(inode)
    }
}

/// The command name of a process; empty where it went meanwhile.
fn comm(dir: &Path) -> String {
    let comm = fs::read(dir.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned()
}

/// True where an error says that the thing is not there (any more).
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

/// True where an error of a symbolic link says that it has no target, rather than that we may not see it.
fn leads_nowhere(error: &io::Error) -> bool {
    is_gone(error) || matches!(Errno::from_io_error(error), Some(Errno::NOTDIR | Errno::LOOP))
}

// === opening it ===

/// Namespaces held open, and what is told of all.
#[derive(Default)]
struct Opened {
    handles: Vec<Namespace>,
    facts: Vec<NamespaceFact>,
    gaps: Vec<Gap>,
}

impl Opened {
    fn add(&mut self, inode: u64, found: Found, survey: &mut Survey) {
        let id = match open(inode, &found.paths) {
            Ok(None) => return,
            Ok(Some(namespace)) => {
                let id = namespace.id;
                self.handles.push(namespace);
                id
            }
            Err(error) if is_of_another_kind(&error) => {
                return found.names.iter().for_each(|name| survey.stale(Path::new(&name.path), "no network namespace"));
            }
            Err(error) => {
                survey.count_unread(Unread::Namespace, &error.into_cause());
                // The cookie can only be asked for from inside.
                NetnsId { inode, cookie: 0 }
            }
        };
        let Found { names, processes, process_count, proxies, paths: _ } = found;
        self.facts.push(NamespaceFact { id, host: false, names, processes, process_count, proxies });
    }

    fn finish(self, host: Option<u64>, survey: Survey, options: &Options) -> (Vec<Namespace>, Facts) {
        let Self { mut handles, mut facts, mut gaps } = self;
        for namespace in &mut handles {
            namespace.host = Some(namespace.id.inode) == host;
        }
        for fact in &mut facts {
            fact.host = Some(fact.id.inode) == host;
        }
        // Stable, so that all others stay in the order of their inodes.
        handles.sort_by_key(|namespace| !namespace.host);
        facts.sort_by_key(|fact| !fact.host);
        gaps.extend(survey.gaps);
        gaps.extend(survey.unread.into_iter().map(|((what, why), count)| gap(what.count(count), why)));
        let dirs: Vec<_> = options.netns_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let how = format!("{}/*/ns/net, {}", options.proc_dir.display(), dirs.join(", "));
        let mut report = report(SourceKind::Netns, how, gaps);
        report.namespaces = facts;
        report.stale_names = survey.stale;
        (handles, report)
    }
}

/// Opens a namespace by the first path that still leads to it; none where none does, because it is gone.
fn open(inode: u64, paths: &[PathBuf]) -> Result<Option<Namespace>, NetnsError> {
    let mut refused = None;
    for path in paths {
        match Namespace::open(path) {
            Ok(namespace) if namespace.id.inode == inode => return Ok(Some(namespace)),
            // The name or the process has another namespace now, which was or will be found by its own inode.
            Ok(_) => {}
            Err(NetnsError::Open { source, .. }) if is_gone(&source) => {}
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(None), Err)
}

/// True for the file of a namespace that is not a network namespace.
fn is_of_another_kind(error: &NetnsError) -> bool {
    matches!(error, NetnsError::Enter { source, .. } if source.raw_os_error() == Some(libc::EINVAL))
}

/// Raises the soft limit of descriptors, within the hard one, where so many namespaces cannot be held open otherwise.
fn allow_descriptors(namespaces: usize) {
    let needed = DESCRIPTORS_BESIDES.saturating_add(namespaces as u64);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
        // Refused or not, a namespace that then cannot be opened is a gap with its own cause.
        setrlimit(Resource::Nofile, limit).ok();
    }
}

fn gap(object: String, why: String) -> Gap {
    Gap {
        source: SourceKind::Netns,
        netns: None,
        object,
        why,
        fix: "run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE".to_owned(),
        absent: false,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, os::unix::fs::symlink, path::Path};

    use netdiag_model::fact::{Facts, NameKind, NamespaceFact, StaleName};

    use super::{Survey, Unread, gap, look};
    use crate::discover::Options;

    /// Looks with a directory of names beside the real `/proc`.
    fn look_at(dir: &Path) -> Facts {
        look(&Options { netns_dirs: vec![dir.to_owned()], ..Options::default() }).1
    }

    fn stale(facts: &Facts, name: &str) -> StaleName {
        facts.stale_names.iter().find(|stale| stale.path.ends_with(name)).unwrap().clone()
    }

    #[test]
    fn a_process_that_serves_is_kept_however_crowded_its_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let namespace = dir.path().join("net");
        fs::write(&namespace, "").unwrap();
        for pid in 1..=40 {
            let process = dir.path().join(pid.to_string());
            fs::create_dir_all(process.join("ns")).unwrap();
            fs::hard_link(&namespace, process.join("ns/net")).unwrap();
            fs::write(process.join("comm"), if pid > 30 { "docker-proxy\n" } else { "sleep\n" }).unwrap();
        }
        let mut survey = Survey::default();
        survey.processes(dir.path());
        let found = survey.found.into_values().next().unwrap();
        assert_eq!((found.process_count, found.processes.len()), (40, NamespaceFact::PROCESSES_KEPT + 1));
        assert_eq!(
            found.processes.last().map(|process| (process.pid, process.comm.as_str())),
            Some((31, "docker-proxy"))
        );
    }

    #[test]
    fn the_own_namespace_is_found_by_its_process_and_by_a_symbolic_link_to_it() {
        let dir = tempfile::tempdir().unwrap();
        symlink(format!("/proc/{}/ns/net", std::process::id()), dir.path().join("own")).unwrap();
        let facts = look_at(dir.path());
        let own = facts.namespaces.iter().find(|fact| !fact.names.is_empty()).unwrap();
        assert_eq!(own.names[0].kind, NameKind::Symlink);
        assert!(own.process_count >= 1);
        assert_ne!(own.id.cookie, 0);
    }

    #[test]
    fn a_dangling_symbolic_link_is_a_stale_name_with_its_target() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/proc/4194999/ns/net", dir.path().join("nova-gone")).unwrap();
        let stale = stale(&look_at(dir.path()), "nova-gone");
        assert_eq!(stale.target.as_deref(), Some("/proc/4194999/ns/net"));
        assert!(stale.why.contains("No such file or directory"), "{}", stale.why);
    }

    #[test]
    fn files_that_are_no_namespaces_are_stale_names_and_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), "").unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        // To open a FIFO nobody writes to would never return.
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let facts = look_at(dir.path());
        assert_eq!(stale(&facts, "plain").why, "no namespace is mounted there");
        assert_eq!(stale(&facts, "fifo").why, "no namespace is mounted there");
        assert!(stale(&facts, "loop").why.starts_with("its target cannot be reached"));
    }

    #[test]
    fn a_namespace_of_another_kind_is_a_stale_name() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/proc/self/ns/uts", dir.path().join("uts")).unwrap();
        let facts = look_at(dir.path());
        assert_eq!(stale(&facts, "uts").why, "no network namespace");
        assert!(facts.namespaces.iter().all(|fact| fact.names.is_empty()));
    }

    #[test]
    fn a_directory_of_names_that_does_not_exist_is_no_gap() {
        let facts = look_at(Path::new("/nonexistent"));
        assert!(facts.gaps().all(|gap| !gap.object.contains("nonexistent")));
    }

    #[test]
    fn without_process_1_the_own_namespace_is_taken_for_the_hosts_and_a_gap_says_so() {
        let proc_dir = tempfile::tempdir().unwrap();
        symlink("/proc/self", proc_dir.path().join("self")).unwrap();
        let options = Options { proc_dir: proc_dir.path().to_owned(), netns_dirs: Vec::new(), ..Options::default() };
        let (namespaces, facts) = look(&options);
        assert_eq!(namespaces.len(), 1);
        assert!(namespaces[0].host && facts.namespaces[0].host);
        assert_eq!(facts.reports[0].gaps[0].object, "network namespace of process 1");
    }

    #[test]
    fn an_unreadable_proc_is_a_gap_and_no_error() {
        let options = Options { proc_dir: "/nonexistent".into(), netns_dirs: Vec::new(), ..Options::default() };
        let (namespaces, facts) = look(&options);
        assert!(namespaces.is_empty());
        assert_eq!(facts.reports[0].gaps.len(), 2);
    }

    #[test]
    fn refusals_with_one_cause_are_counted_in_one_gap() {
        let mut survey = Survey::default();
        for _ in 0..143 {
            survey.count_unread(Unread::Process, &io::Error::from_raw_os_error(libc::EACCES));
        }
        let (_, facts) = super::Opened::default().finish(None, survey, &Options::default());
        let why = "Permission denied (os error 13)".to_owned();
        assert_eq!(facts.reports[0].gaps, [gap("network namespaces of 143 processes".to_owned(), why)]);
    }
}
