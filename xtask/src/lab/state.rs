//! What is known of running labs on the real host: `/run/netdiag-lab/<name>/`.
//!
//! A lab's directory holds its supervisor, its log, and once it is up its inventory. It is made and removed under one
//! lock. A directory whose supervisor is gone belongs to a lab that was killed: every verb removes such remains first.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::FlockOperation,
    process::{Pid, Signal},
};

use crate::lab::{
    cgroup,
    inventory::{Inventory, Process},
};

const ROOT: &str = "/run/netdiag-lab";

/// How long a killed lab may take to be gone: its namespaces hold mounts and devices the kernel takes down first.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// The directory of one lab.
#[derive(Clone, Debug)]
pub(crate) struct State {
    name: String,
    directory: PathBuf,
}

impl State {
    /// The directory of the lab `name`, whether or not it exists.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(allowed) || name.starts_with('-') {
            bail!("a lab is named with 1 to 32 of a-z, 0-9 and -, not {name:?}");
        }
        Ok(Self { name: name.into(), directory: Path::new(ROOT).join(name) })
    }

    /// Every lab that is there, in the order of names.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let entries = match fs::read_dir(ROOT) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(format!("read {ROOT}")),
        };
        let mut labs = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {ROOT}"))?;
            if entry.path().is_dir() {
                labs.push(Self::of(&entry.file_name().to_string_lossy())?);
            }
        }
        labs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(labs)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where the lab's processes write their log.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// An empty directory for the web pages of the fabric.
    pub(crate) fn web_root(&self) -> PathBuf {
        self.directory.join("www")
    }

    /// An empty directory for the root file system of guests.
    pub(crate) fn guest_root(&self) -> PathBuf {
        self.directory.join("guest")
    }

    /// Makes the directory for a new lab with `supervisor` in it; fails when the name is in use.
    pub(crate) fn create(&self, supervisor: Process) -> Result<()> {
        let _lock = lock()?;
        fs::create_dir_all(ROOT).with_context(|| format!("make {ROOT}"))?;
        match fs::create_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("a lab named {} is already up; choose another --name or end it with `lab down {0}`", self.name)
            }
            result => result.with_context(|| format!("make {}", self.directory.display()))?,
        }
        fs::create_dir(self.web_root()).context("make the directory for web pages")?;
        fs::create_dir(self.guest_root()).context("make the directory for guests")?;
        write_json(&self.directory.join("supervisor.json"), &supervisor)
    }

    /// Writes the inventory: from now on the lab is up.
    pub(crate) fn publish(&self, inventory: &Inventory) -> Result<()> {
        write_json(&self.directory.join("inventory.json"), inventory)
    }

    /// The inventory; `None` while the lab is still coming up.
    pub(crate) fn inventory(&self) -> Result<Option<Inventory>> {
        read_json(&self.directory.join("inventory.json"))
    }

    pub(crate) fn supervisor(&self) -> Result<Option<Process>> {
        read_json(&self.directory.join("supervisor.json"))
    }

    /// Kills the supervisor, waits until every process of the lab is gone, and removes what is left.
    pub(crate) fn destroy(&self) -> Result<()> {
        if let Some(supervisor) = self.supervisor()?
            && is_alive(supervisor)
        {
            kill(supervisor.pid)?;
        }
        self.remove()
    }

    /// Removes the control groups and the directory of a lab whose supervisor is gone.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + GONE_WITHIN;
        // The last control group can be removed when the last process has left it, so this waits for all of them.
        while let Err(error) = cgroup::remove(&self.name) {
            if Instant::now() > deadline {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _lock = lock()?;
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.with_context(|| format!("remove {}", self.directory.display()))?,
        }
        // The directory of labs goes with the last one, so that nothing is left on the host.
        match fs::remove_dir(ROOT) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(error).with_context(|| format!("remove {ROOT}"))
            }
            _ => Ok(()),
        }
    }
}

/// Removes what labs left whose supervisor was killed.
pub(crate) fn prune() -> Result<()> {
    for lab in State::all()? {
        let supervisor = {
            let _lock = lock()?;
            lab.supervisor()?
        };
        if !supervisor.is_some_and(is_alive) {
            lab.remove().with_context(|| format!("remove what is left of lab {}", lab.name))?;
        }
    }
    Ok(())
}

/// The calling process, as others will recognise it.
pub(crate) fn this_process() -> Result<Process> {
    let pid = std::process::id();
    let start_time = start_time(pid).context("read own start time from /proc")?;
    Ok(Process { pid, start_time })
}

fn is_alive(process: Process) -> bool {
    start_time(process.pid) == Some(process.start_time)
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)), in clock ticks since boot; `None` once the process has ended, even if nobody
/// has collected its exit code yet.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold anything, parentheses and blanks included; the fields begin after its last parenthesis.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn kill(pid: u32) -> Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no pid"))?;
    match rustix::process::kill_process(raw, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => result.with_context(|| format!("kill process {pid}")),
    }
}

/// Held while a lab's directory is made or removed. What is locked is `/run` itself: the directory of labs is removed
/// with the last lab, and a lock file beside it would stay.
fn lock() -> Result<File> {
    let file = File::open("/run").context("open /run")?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).context("lock /run")?;
    Ok(file)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).with_context(|| format!("encode {}", path.display()))?;
    let partial = path.with_extension("partial");
    fs::write(&partial, text).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("rename to {}", path.display()))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_json::from_str(&text).map(Some).with_context(|| format!("understand {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{State, is_alive, this_process};
    use crate::lab::inventory::Process;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["", "..", "a/b", "A", "-x", "a b", &"x".repeat(33)] {
            assert!(State::of(name).is_err(), "{name:?}");
        }
        assert_eq!(State::of("lab-1").unwrap().name(), "lab-1");
    }

    #[test]
    fn process_with_a_reused_pid_is_not_taken_for_the_old_one() {
        let this = this_process().unwrap();
        assert!(is_alive(this));
        assert!(!is_alive(Process { start_time: this.start_time + 1, ..this }));
    }
}
