//! The walk over all processes. Flow: discover.
//!
//! Three rounds, from what cannot hang to what somebody else controls: cgroups and namespaces, then command lines and
//! taps of hypervisors, then host names inside containers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use netdiag_model::fact::{ContainerFact, MachineFact, MachineNic, SourceKind};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    cgroup::{self, Membership},
    hypervisor::{Card, Vmm},
};
use crate::discover::procfs::Procfs;

/// The most read of a cgroup file, in bytes: a dozen lines of at most 4096 each.
const CGROUP_LIMIT: u64 = 64 << 10;
/// The most read of a command line to see what runs, in bytes.
const PROGRAM_LIMIT: u64 = 4 << 10;
/// The most read of a hypervisor's command line, in bytes.
const COMMAND_LIMIT: u64 = 1 << 20;
/// The most read about one descriptor, in bytes.
const DESCRIPTOR_LIMIT: u64 = 4 << 10;
/// The most descriptors looked at of one hypervisor.
const DESCRIPTORS: usize = 16 << 10;

/// What a scan sees, in the order it sees it. Namespaces are inodes here.
pub(super) enum Seen {
    /// A container, and the namespace of its first process.
    Container(ContainerFact, io::Result<u64>),
    /// A virtual machine, and the namespace of its process.
    Machine(MachineFact, io::Result<u64>),
    /// The host name of a container seen before, by its id.
    Hostname(String, String),
    /// Something that could not be read, in words.
    Unreadable(String),
}

/// A walk over all processes.
pub(super) struct Scan {
    procfs: Procfs,
    host: Option<u64>,
    /// The process being read, for whoever waits for it.
    reading: Arc<AtomicU32>,
}

/// Nobody listens any more: time is up.
struct Unheard;

impl Scan {
    /// A walk over `procfs`, which passes over containers that share the namespace `host`.
    pub(super) const fn new(procfs: Procfs, host: Option<u64>, reading: Arc<AtomicU32>) -> Self {
        Self { procfs, host, reading }
    }

    /// Walks until all is seen or nobody listens any more.
    pub(super) fn run(&self, seen: &UnboundedSender<Seen>) {
        let tell = |what| seen.send(what).map_err(|_| Unheard);
        let walked = match self.procfs.pids() {
            Ok(pids) => self.walk(&pids, &tell),
            Err(error) => tell(Seen::Unreadable(format!("{}: {error}", self.procfs))),
        };
        // Unheard is how a walk ends that took too long; there is nobody left to tell.
        drop(walked);
    }

    fn walk(&self, pids: &[u32], tell: &impl Fn(Seen) -> Result<(), Unheard>) -> Result<(), Unheard> {
        if pids.first() != Some(&1) {
            tell(Seen::Unreadable("process 1 is hidden, and others may be (hidepid)".to_owned()))?;
        }
        let mut inits = BTreeMap::new();
        for &pid in pids {
            match self.member(pid, &mut inits) {
                Ok(Some((container, netns))) => tell(Seen::Container(container, netns))?,
                Ok(None) => {}
                Err(error) => tell(Seen::Unreadable(format!("cgroup of process {pid}: {error}")))?,
            }
        }
        // A process whose command line hangs must not hide those that are known to matter.
        let mut likely_first = pids.to_vec();
        likely_first.sort_by_key(|pid| self.by_program(*pid).is_none());
        for pid in likely_first {
            match self.machine(pid) {
                Ok(Some((machine, netns))) => tell(Seen::Machine(machine, netns))?,
                Ok(None) => {}
                Err(error) => tell(Seen::Unreadable(format!("virtual machine of process {pid}: {error}")))?,
            }
        }
        for (id, pid) in inits {
            self.reading.store(pid, Ordering::Relaxed);
            if let Some(hostname) = self.procfs.hostname(pid) {
                tell(Seen::Hostname(id, hostname))?;
            }
        }
        Ok(())
    }

    /// The container a process is the first of, if it is; `inits` are the first processes seen before.
    fn member(
        &self,
        pid: u32,
        inits: &mut BTreeMap<String, u32>,
    ) -> io::Result<Option<(ContainerFact, io::Result<u64>)>> {
        self.reading.store(pid, Ordering::Relaxed);
        let Some(text) = existing(self.procfs.read(pid, "cgroup", CGROUP_LIMIT))? else { return Ok(None) };
        let Some(member) = cgroup::container(&String::from_utf8_lossy(&text)) else { return Ok(None) };
        if inits.contains_key(&member.id) {
            return Ok(None);
        }
        // A process that has ended leaves its container to the next one.
        let netns = self.procfs.netns(pid);
        let ended = netns.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if ended || netns.as_ref().is_ok_and(|inode| Some(*inode) == self.host) {
            return Ok(None);
        }
        inits.insert(member.id.clone(), pid);
        Ok(Some((fact(member, pid), netns)))
    }

    fn machine(&self, pid: u32) -> io::Result<Option<(MachineFact, io::Result<u64>)>> {
        self.reading.store(pid, Ordering::Relaxed);
        let Some(hypervisor) = self.hypervisor(pid) else { return Ok(None) };
        let Some(command_line) = existing(self.procfs.read(pid, "cmdline", COMMAND_LIMIT))? else { return Ok(None) };
        let command_line = hypervisor.parse(&command_line);
        let Some(taps) = existing(self.taps(pid))? else { return Ok(None) };
        let machine = MachineFact {
            pid,
            name: command_line.name,
            uuid: command_line.uuid,
            netns: None,
            nics: nics(command_line.cards, &taps),
        };
        Ok(Some((machine, self.procfs.netns(pid))))
    }

    /// The hypervisor a process runs: by its program, which others may not see, or by what it calls itself.
    fn hypervisor(&self, pid: u32) -> Option<Vmm> {
        self.by_program(pid).or_else(|| {
            let command_line = self.procfs.read(pid, "cmdline", PROGRAM_LIMIT).ok()?;
            let program = command_line.split(|byte| *byte == 0).next()?;
            Vmm::of(&String::from_utf8_lossy(program))
        })
    }

    fn by_program(&self, pid: u32) -> Option<Vmm> {
        self.procfs.exe(pid).ok().and_then(|exe| Vmm::of(&exe))
    }

    /// Names of the taps a process holds open, by descriptor (proc(5), `iff:` of a TUN or TAP device).
    fn taps(&self, pid: u32) -> io::Result<BTreeMap<u32, String>> {
        let mut taps = BTreeMap::new();
        for descriptor in self.procfs.descriptors(pid)?.into_iter().take(DESCRIPTORS) {
            let read = self.procfs.read(pid, &format!("fdinfo/{descriptor}"), DESCRIPTOR_LIMIT);
            if let Some(text) = existing(read)? {
                let text = String::from_utf8_lossy(&text);
                let tap = text.lines().find_map(|line| line.strip_prefix("iff:"));
                taps.extend(tap.map(|tap| (descriptor, tap.trim().to_owned())));
            }
        }
        Ok(taps)
    }
}

/// A process or descriptor that is gone is none, and no error.
fn existing<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn fact(member: Membership, pid: u32) -> ContainerFact {
    ContainerFact {
        source: SourceKind::Process,
        runtime: member.runtime,
        id: member.id,
        name: member.name,
        hostname: None,
        image: None,
        state: "running".to_owned(),
        pid: Some(pid),
        netns: None,
        network_mode: None,
        labels: BTreeMap::new(),
        endpoints: Vec::new(),
        published: Vec::new(),
    }
}

/// Cards with their taps; a tap no card claims was plugged in later, and its MAC address is not known.
fn nics(cards: Vec<Card>, taps: &BTreeMap<u32, String>) -> Vec<MachineNic> {
    let mut unclaimed: BTreeSet<&String> = taps.values().collect();
    let mut nics = Vec::new();
    for card in cards {
        let tap = card.tap.or_else(|| card.descriptors.iter().find_map(|descriptor| taps.get(descriptor)).cloned());
        if let Some(tap) = &tap {
            unclaimed.remove(tap);
        }
        nics.push(MachineNic { tap, mac: card.mac });
    }
    nics.extend(unclaimed.into_iter().map(|tap| MachineNic { tap: Some(tap.clone()), mac: None }));
    nics
}
