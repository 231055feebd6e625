//! Filters of a clsact qdisc, for kernels without links at TC. Flow: observe.
//!
//! A filter outlives the process that made it. So a thread in the namespace keeps the filters of a session and removes them when
//! the session ends; and what a process that was killed has left is told by the process in its name, and removed by whoever
//! next attaches to the device.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use tokio::sync::oneshot;

use super::attach::Job;
use crate::{
    discover::netlink::attachments::ClsactFilter,
    enforce::netlink::{self, Slot},
    netns::Namespace,
};

/// What the names of our filters begin with; the process follows, and when it was started.
const NAME: &str = "netdiag:live:";
/// What the name of a filter ends with whose qdisc is ours as well.
const WITH_QDISC: &str = ":qdisc";
/// What comes in is asked of ours before any other filter, as the newest of a priority is the first.
const FIRST: u16 = 1;
/// What goes out is asked of ours after any other filter.
const LAST: u16 = 0xfffe;

/// Sessions of this process so far.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// Keeps filters until it is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    stop: Option<mpsc::Sender<()>>,
    stopped: mpsc::Receiver<()>,
    count: usize,
}

impl Keeper {
    /// How many filters it keeps.
    pub(super) const fn len(&self) -> usize {
        self.count
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Nothing is ever sent: it returns when the thread has removed the filters.
        self.stopped.recv().ok();
    }
}

/// Puts filters, and starts the thread that keeps them. None if there is no such thread.
pub(super) async fn keep(namespace: Namespace, jobs: Vec<Job>) -> Option<(Keeper, Vec<io::Result<()>>)> {
    let (stop, stopping) = mpsc::channel();
    let (stopped_here, stopped) = mpsc::channel();
    let (ready, done) = oneshot::channel();
    tokio::spawn(async move {
        let work = move || {
            let mut filters = Filters::new();
            let results: Vec<_> = jobs.iter().map(|job| filters.put(job)).collect();
            // Nobody waits any longer if the session was given up meanwhile; the filters go then.
            if ready.send(results).is_ok() {
                stopping.recv().ok();
            }
            for job in &jobs {
                filters.remove(job.ifindex, job.sent);
            }
            drop(stopped_here);
        };
        namespace.run(work).await
    });
    let done = done.await.ok()?;
    let count = done.iter().filter(|result| result.is_ok()).count();
    Some((Keeper { stop: Some(stop), stopped, count }, done))
}

/// Filters of one session.
struct Filters {
    /// Tells those of one session from those of another on the same device.
    handle: u32,
    /// Who made them.
    owner: String,
    /// Devices that had no qdisc before.
    made: BTreeSet<u32>,
}

impl Filters {
    fn new() -> Self {
        let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let started = started(&process.to_string()).unwrap_or_default();
        Self { handle: process << 8 | session & 0xff, owner: format!("{process}:{started}"), made: BTreeSet::new() }
    }

    fn put(&mut self, job: &Job) -> io::Result<()> {
        if ensure_qdisc(job.ifindex)? {
            self.made.insert(job.ifindex);
        }
        let present = netlink::filters(job.ifindex, job.sent)?;
        let slot = self.slot(job.ifindex, job.sent, priority(&present, job.sent));
        let qdisc = if self.made.contains(&job.ifindex) { WITH_QDISC } else { "" };
        let name = format!("{NAME}{}{qdisc}", self.owner);
        netlink::set_filter(&slot, job.program.as_fd().as_raw_fd(), &name)
    }

    const fn slot(&self, ifindex: u32, egress: bool, priority: u16) -> Slot {
        Slot { ifindex, egress, priority, handle: self.handle }
    }

    /// Removes a filter of this session. One that is gone with its device needs no removal.
    fn remove(&self, ifindex: u32, egress: bool) {
        let Ok(present) = netlink::filters(ifindex, egress) else { return };
        for entry in present.iter().filter(|entry| entry.handle == self.handle) {
            remove(ifindex, egress, entry).ok();
        }
    }
}

/// Sees that a device has a clsact qdisc; true if it had none that is somebody else's.
fn ensure_qdisc(ifindex: u32) -> io::Result<bool> {
    let exists = |error: &io::Error| error.raw_os_error() == Some(libc::EEXIST);
    match netlink::add_clsact(ifindex) {
        Err(error) if exists(&error) => sweep(ifindex)?,
        made => return made.map(|()| true),
    }
    match netlink::add_clsact(ifindex) {
        Err(error) if exists(&error) && netlink::has_clsact(ifindex)? => Ok(false),
        // It has one side only, and what is put at the other would see this one.
        Err(error) if exists(&error) => {
            Err(io::Error::other("an ingress qdisc is where a clsact qdisc would have to be"))
        }
        made => made.map(|()| true),
    }
}

/// A priority at which there is nothing that ours would not go with.
fn priority(present: &[ClsactFilter], egress: bool) -> u16 {
    let goes_with = |entry: &ClsactFilter| entry.filter.kind == "bpf" && entry.every_protocol;
    let is_free = |priority: &u16| present.iter().all(|entry| entry.filter.priority != *priority || goes_with(entry));
    if egress {
        (FIRST..=LAST).rev().find(is_free).unwrap_or(LAST)
    } else {
        (FIRST..=LAST).find(is_free).unwrap_or(FIRST)
    }
}

/// Removes what sessions of processes that are gone have left at a device.
fn sweep(ifindex: u32) -> io::Result<()> {
    for egress in [false, true] {
        for entry in netlink::filters(ifindex, egress)? {
            if owner(&entry).is_some_and(|owner| !lives(owner)) {
                remove(ifindex, egress, &entry)?;
            }
        }
    }
    Ok(())
}

/// Removes a filter of ours, and the qdisc if it is ours and has no other.
fn remove(ifindex: u32, egress: bool, entry: &ClsactFilter) -> io::Result<()> {
    let slot = Slot { ifindex, egress, priority: entry.filter.priority, handle: entry.handle };
    netlink::remove_filter(&slot)?;
    let with_qdisc = name(entry).is_some_and(|name| name.ends_with(WITH_QDISC));
    let left = [false, true].map(|egress| netlink::filters(ifindex, egress).map(|filters| filters.len()));
    if with_qdisc && matches!(left, [Ok(0), Ok(0)]) { netlink::remove_clsact(ifindex) } else { Ok(()) }
}

/// True for filters of sessions, whoever's.
pub(crate) fn is_ours(entry: &ClsactFilter) -> bool {
    owner(entry).is_some()
}

fn name(entry: &ClsactFilter) -> Option<&str> {
    entry.filter.program.as_ref()?.name.as_deref()
}

/// The process that made a filter of ours, and when that was started; none where the filter is not ours.
fn owner(entry: &ClsactFilter) -> Option<(&str, &str)> {
    name(entry)?.strip_prefix(NAME)?.trim_end_matches(WITH_QDISC).split_once(':')
}

/// True while a process lives. Its number alone may be another one's by now.
fn lives((process, since): (&str, &str)) -> bool {
    started(process).is_some_and(|started| started == since)
}

/// When a process was started, as the kernel counts.
fn started(process: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may have anything in it; field 22 is the twentieth behind it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{lives, started};

    #[test]
    fn a_process_lives_only_as_itself() {
        let own = std::process::id().to_string();
        let since = started(&own).unwrap();
        assert!(since.parse::<u64>().is_ok());
        assert!(lives((&own, &since)));
        assert!(!lives((&own, "1")), "another one had this number before");
        assert!(!lives(("4194305", &since)));
    }
}
