//! Bounded reads of `/proc`. Flow: discover.
//!
//! A process may rename itself, fill its command line with megabytes and end at any moment: every read has a limit and
//! may fail with `io::ErrorKind::NotFound`, which means the process has ended.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// A process filesystem.
#[derive(Clone, Debug)]
pub(super) struct Procfs {
    root: PathBuf,
}

impl fmt::Display for Procfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.display().fmt(f)
    }
}

impl Procfs {
    /// The longest host name the kernel knows is 64 bytes; some room is left for a comment after it.
    const HOSTNAME_LIMIT: u64 = 256;

    /// The one mounted at `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// All processes, lowest pid first.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids: Vec<u32> =
            self.root.read_dir()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// The inode of the network namespace of a process; the link is read and not followed, so nothing is opened.
    pub(super) fn netns(&self, pid: u32) -> io::Result<u64> {
        let target = self.path(pid, "ns/net").read_link().map_err(ended)?;
        inode(&target.to_string_lossy())
            .ok_or_else(|| io::Error::other(format!("{} is no namespace", target.display())))
    }

    /// The path of the program a process runs.
    pub(super) fn exe(&self, pid: u32) -> io::Result<String> {
        let target = self.path(pid, "exe").read_link().map_err(ended)?;
        Ok(String::from_utf8_lossy(&target.into_os_string().into_vec()).into_owned())
    }

    /// The first `limit` bytes of a file of a process.
    pub(super) fn read(&self, pid: u32, file: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(pid, file)).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(ended)?;
        Ok(bytes)
    }

    /// The numbers of the files a process has open, lowest first.
    pub(super) fn descriptors(&self, pid: u32) -> io::Result<Vec<u32>> {
        let entries = self.path(pid, "fdinfo").read_dir().map_err(ended)?;
        let mut numbers: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What `/etc/hostname` of a process says, if it says anything sensible.
    ///
    /// The file belongs to whoever runs the container: links in it must not lead out of it, and a pipe in its place must
    /// not be waited for.
    pub(super) fn hostname(&self, pid: u32) -> Option<String> {
        let root =
            rustix::fs::openat(CWD, self.path(pid, "root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = rustix::fs::openat2(root, "etc/hostname", flags, Mode::empty(), inside).ok()?;
        let regular = rustix::fs::fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        let mut text = String::new();
        let read = regular.then(|| File::from(file).take(Self::HOSTNAME_LIMIT).read_to_string(&mut text))?;
        read.ok().and_then(|_| text.lines().next()).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
    }

    fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }
}

/// `net:[4026531840]` as the kernel writes it.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// A process that ends between opening and reading is `ESRCH`, one that ended before is `ENOENT`; both are the same.
fn ended(error: io::Error) -> io::Error {
    if Errno::from_io_error(&error) == Some(Errno::SRCH) { io::ErrorKind::NotFound.into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::{Procfs, inode};
    use std::{fs, io, os::unix::fs::symlink, path::Path};

    fn with_root() -> (tempfile::TempDir, Procfs) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("7/root/etc")).unwrap();
        let procfs = Procfs::new(directory.path());
        (directory, procfs)
    }

    fn hostname_file(directory: &tempfile::TempDir) -> std::path::PathBuf {
        directory.path().join("7/root/etc/hostname")
    }

    #[test]
    fn the_reader_finds_itself() {
        let (procfs, pid) = (Procfs::new(Path::new("/proc")), std::process::id());
        assert!(procfs.pids().unwrap().contains(&pid));
        assert_ne!(procfs.netns(pid).unwrap(), 0);
        assert_eq!(Path::new(&procfs.exe(pid).unwrap()), std::env::current_exe().unwrap());
        assert_eq!(procfs.read(pid, "cmdline", 3).unwrap().len(), 3);
        assert!(procfs.descriptors(pid).unwrap().starts_with(&[0, 1, 2]));
    }

    #[test]
    fn a_process_that_is_gone_is_not_found() {
        let gone = Procfs::new(Path::new("/proc")).netns(u32::MAX).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_a_namespace_link_is_taken_for_one() {
        assert_eq!(inode("net:[4026531840]"), Some(4_026_531_840));
        for odd in ["", "net:[]", "mnt:[1]", "net:[1", "net:[-1]", "/etc/passwd"] {
            assert_eq!(inode(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_hostname_is_the_first_line_of_the_file() {
        let (directory, procfs) = with_root();
        fs::write(hostname_file(&directory), " instance-0000002a \nmore\n").unwrap();
        assert_eq!(procfs.hostname(7).as_deref(), Some("instance-0000002a"));
    }

    #[test]
    fn a_hostname_file_that_is_a_link_stays_inside_the_container() {
        let (directory, procfs) = with_root();
        symlink("/etc/passwd", hostname_file(&directory)).unwrap();
        assert_eq!(procfs.hostname(7), None);
        fs::write(directory.path().join("7/root/etc/passwd"), "inside").unwrap();
        assert_eq!(procfs.hostname(7).as_deref(), Some("inside"));
    }

    #[test]
    fn a_hostname_file_that_is_a_pipe_is_not_waited_for() {
        let (directory, procfs) = with_root();
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, hostname_file(&directory), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(procfs.hostname(7), None);
    }

    #[test]
    fn a_hostname_file_that_is_empty_binary_or_not_there_is_no_hostname() {
        let (directory, procfs) = with_root();
        assert_eq!(procfs.hostname(7), None);
        for content in [&b""[..], b"\n", b"\xff\xfe"] {
            fs::write(hostname_file(&directory), content).unwrap();
            assert_eq!(procfs.hostname(7), None, "{content:?}");
        }
    }

    #[test]
    fn a_hostname_file_of_a_gigabyte_is_read_to_the_limit() {
        let (directory, procfs) = with_root();
        fs::write(hostname_file(&directory), "a".repeat(1000)).unwrap();
        assert_eq!(procfs.hostname(7).unwrap().len(), 256);
    }
}
