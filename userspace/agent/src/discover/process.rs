//! Containers of any runtime and virtual machines by `/proc`. Flow: discover.
//!
//! It needs no daemon, so it sees what others cannot: containers of runtimes without a socket, and machines of a libvirt
//! that hangs. Reading some files of a process waits for locks of that process, which may wait for a dead file server;
//! so all is read on a thread of its own, cheap and safe things first, and left behind when time is up.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use netdiag_model::{
    fact::{ContainerFact, Facts, Gap, MachineFact, SourceKind},
    id::NetnsId,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, timeout_at},
};

use self::scan::{Scan, Seen};
use super::{Scope, procfs::Procfs, report};
use crate::oddities::Oddities;

/// Containers by the paths of their cgroups.
mod cgroup;
/// Command lines of hypervisors.
mod hypervisor;
/// The walk over all processes.
mod scan;

/// Reads all processes.
pub(super) async fn read(scope: &Scope) -> Facts {
    let procfs = Procfs::new(&scope.options.proc_dir);
    let how = format!("{procfs}/*/cgroup and command lines of hypervisors");
    let end = Instant::now() + scope.options.timeout * 9 / 10;
    let namespaces = &scope.namespaces;
    let host = namespaces.iter().find(|namespace| namespace.host).or_else(|| namespaces.first());
    let host = host.map(|namespace| namespace.id.inode);
    let (send, receive) = unbounded_channel();
    let reading = Arc::new(AtomicU32::new(0));
    let scan = Scan::new(procfs, host, Arc::clone(&reading));
    let started = thread::Builder::new().name("process".to_owned()).spawn(move || scan.run(&send));
    if let Err(error) = started {
        let gap = gap("all processes", format!("start a thread: {error}"), "see what takes this host's memory");
        return report(SourceKind::Process, how, vec![gap]);
    }
    let mut found = Found::default();
    let namespaces = namespaces.iter().map(|namespace| (namespace.id.inode, namespace.id)).collect();
    let mut gaps = Vec::new();
    if !found.collect(receive, &namespaces, end).await {
        let pid = reading.load(Ordering::Relaxed);
        let why = format!("time was up while process {pid} was read");
        gaps.push(gap("the rest of the processes", why, "see whether `ps -fp` of it hangs, or give it longer"));
    }
    gaps.extend(found.gaps());
    Facts { containers: found.containers, machines: found.machines, ..report(SourceKind::Process, how, gaps) }
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    containers: Vec<ContainerFact>,
    machines: Vec<MachineFact>,
    unreadable: Oddities,
    lost: Oddities,
}

impl Found {
    /// Takes in what the scan sees; false where time is up before it ends.
    async fn collect(
        &mut self,
        mut scan: UnboundedReceiver<Seen>,
        namespaces: &BTreeMap<u64, NetnsId>,
        end: Instant,
    ) -> bool {
        loop {
            match timeout_at(end, scan.recv()).await {
                Ok(Some(seen)) => self.take(seen, namespaces),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn take(&mut self, seen: Seen, namespaces: &BTreeMap<u64, NetnsId>) {
        match seen {
            Seen::Container(mut container, inode) => {
                container.netns = self.netns(&container.id, inode, namespaces);
                self.containers.push(container);
            }
            Seen::Machine(mut machine, inode) => {
                machine.netns = self.netns(&format!("machine {}", machine.pid), inode, namespaces);
                self.machines.push(machine);
            }
            Seen::Hostname(id, hostname) => {
                let container = self.containers.iter_mut().find(|container| container.id == id);
                if let Some(container) = container {
                    container.hostname = Some(hostname);
                }
            }
            Seen::Unreadable(what) => self.unreadable.note(what),
        }
    }

    fn netns(&mut self, whose: &str, inode: io::Result<u64>, namespaces: &BTreeMap<u64, NetnsId>) -> Option<NetnsId> {
        match inode {
            Ok(inode) => {
                let id = namespaces.get(&inode).copied();
                if id.is_none() {
                    self.lost.note(format_args!("{whose}: net:[{inode}] was not there when namespaces were listed"));
                }
                id
            }
            Err(error) => {
                self.lost.note(format_args!("{whose}: {error}"));
                None
            }
        }
    }

    fn gaps(&self) -> Vec<Gap> {
        [
            (&self.unreadable, "some processes", "run as root, in the host's pid namespace"),
            (&self.lost, "namespaces of some containers and machines", "run as root, then try again"),
        ]
        .into_iter()
        .filter(|(notes, ..)| !notes.is_empty())
        .map(|(notes, object, fix)| gap(object, notes.to_string(), fix))
        .collect()
    }
}

fn gap(object: &str, why: String, fix: &str) -> Gap {
    Gap { source: SourceKind::Process, netns: None, object: object.to_owned(), why, fix: fix.to_owned(), absent: false }
}

#[cfg(test)]
mod tests;
