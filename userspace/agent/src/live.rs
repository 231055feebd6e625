//! Packets as they are seen on their way, while somebody watches. Flow: observe.
//!
//! A session attaches programs to the devices of a plan and, if asked, to the place where the kernel gives packets up; what
//! they say comes through one ring buffer. Nothing is pinned: what is attached is held by descriptors of this process and
//! ends with the session, however it ends. Before Linux 6.6 there are filters instead, which a process that is killed leaves
//! behind, doing nothing: the next session at the same device removes them.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    os::fd::OwnedFd,
    time::Duration,
};

use aya::programs::loaded_programs;
use netdiag_common::abi::live::{CONFIG_INDEX_IS_ENOUGH, Config, Layout, NAMESPACES};
use netdiag_model::{
    fact::{Gap, SourceKind},
    id::{LinkKey, NetnsId},
    live::{Cost, Filter, Losses, Sighting, View},
};
use rustix::time::{ClockId, clock_gettime};

pub(crate) use self::clsact::is_ours as is_watching_filter;
use self::{
    attach::Held,
    btf::Btf,
    budget::{Brake, Tick},
    load::{Maps, Programs},
    meter::Meter,
    name::Names,
    progress::Progress,
};
use crate::{
    discover::{self, Options, chain},
    enforce::has_tcx,
};

pub use passed::passed;

/// Attaches the programs to devices.
mod attach;
/// What the running kernel says of its own types.
mod btf;
/// How many records there may be.
mod budget;
/// Filters of a clsact qdisc.
mod clsact;
/// A filter as the programs evaluate it.
mod filter;
/// Where the running kernel has what the programs read.
mod layout;
/// Loads the programs.
mod load;
/// What watching costs.
mod meter;
/// Names for the kernel's numbers.
mod name;
/// What devices have counted themselves.
mod passed;
/// Sends one packet of netdiag's own.
pub mod probe;
/// Until when every record has been read.
mod progress;
/// What the kernel calls the reasons for which it gives packets up.
mod reason;
/// Bytes of a record as a sighting.
mod record;
/// Packet sockets.
mod socket;
/// Names of the kernel's functions by address.
mod symbol;

/// What to watch, and how much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Devices to watch; none of them twice with one view.
    pub points: Vec<Point>,
    /// Which packets.
    pub filter: Filter,
    /// Watch also where the kernel gives packets up, of whatever device.
    pub drops: bool,
    /// Where these are spoken of: in no more than [`NAMESPACES`] namespaces, and where nobody knows which it was; everywhere if none is
    /// named, or more are. Elsewhere others may have the same addresses.
    pub drops_in: Vec<NetnsId>,
    /// Size of the ring buffer: a power of two, and a multiple of the size of a page. A packet takes [`RECORD_BYTES`] of it.
    pub ring_bytes: u32,
    /// The most records a second, on each CPU: what is more is counted as throttled. None is no limit.
    pub budget: Option<u32>,
    /// What the programs and this process may take of a CPU, 1.0 being all of it: records beyond it are left out, and counted as
    /// throttled. Seeing that a packet is not to be recorded takes its time, too, so with very many packets there may be too much of
    /// that alone; then as many records are left as take it all at 10 µs each, of this process at 25 µs, and a hundred a second at
    /// least. None is no limit.
    pub overhead: Option<f64>,
}

/// What one packet takes of the ring buffer.
pub const RECORD_BYTES: u32 = 256;

/// Room for 16,384 packets.
pub const RING_BYTES: u32 = 4 << 20;

/// A device to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which.
    pub link: LinkKey,
    /// What it is called, for messages.
    pub name: String,
    /// Watch what comes out of it into the host's network stack.
    pub received: bool,
    /// Watch what goes into it.
    pub sent: bool,
    /// Through what.
    pub view: View,
}

/// Why nothing is watched.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// This binary carries no programs.
    #[error("this netdiag was built without its eBPF programs")]
    NoObject,
    /// A filter that the programs have no room for, or that asks for what there cannot be.
    #[error("use the filter: {0}")]
    Filter(String),
    /// The kernel refused, or lacks something.
    #[error("{step} {object}")]
    Kernel {
        /// What was tried: `load the program`, `read`.
        step: &'static str,
        /// With what.
        object: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Packets being watched. Watching ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    gaps: Vec<Gap>,
    maps: Maps,
    /// What was attached goes before the programs do.
    held: Held,
    programs: Programs,
    /// The programs once more, to be asked about.
    descriptors: Vec<OwnedFd>,
    points: Vec<Point>,
    /// What the programs were told last.
    config: Config,
    tick: Tick,
    brake: Option<Brake>,
    names: Names,
    meter: Meter,
    read: u64,
    progress: Progress,
    /// Packets that may yet be overtaken by older ones.
    waiting: Vec<Sighting>,
    ready: VecDeque<Sighting>,
}

/// How long a packet waits for older ones: a program may be interrupted between asking for the time and writing its record.
const HELD_BACK: u64 = 2_000_000;
/// How often is looked: to wake up costs as much as some packets, and a ring of the usual size has room for more than its budget on many
/// CPUs meanwhile.
const PAUSE: Duration = Duration::from_millis(20);
/// How often is looked during a flood.
const SHORT_PAUSE: Duration = Duration::from_millis(2);
/// Records read at one look that are a flood.
const FLOOD: usize = AT_ONCE / 16;
/// Records read at one look, so that a flood leaves the reader time for something else.
const AT_ONCE: usize = 16_384;

impl Session {
    /// Begins to watch. What could not be watched is told by [`Session::gaps`]; the rest is.
    ///
    /// # Errors
    /// Nothing at all can be watched: no programs, no privilege, a kernel without what it takes.
    pub async fn start(plan: Plan, options: &Options) -> Result<Self, LiveError> {
        Self::start_at(plan, options, has_tcx()).await
    }

    /// The same with filters of clsact qdiscs, as on a kernel without links at TC.
    ///
    /// # Errors
    /// As of [`Session::start`].
    pub async fn start_by_clsact(plan: Plan, options: &Options) -> Result<Self, LiveError> {
        Self::start_at(plan, options, false).await
    }

    async fn start_at(plan: Plan, options: &Options, tcx: bool) -> Result<Self, LiveError> {
        let Plan { points, filter, drops, drops_in, ring_bytes, budget, overhead } = plan;
        let brake = overhead.map(|share| Brake::new(share, budget.unwrap_or(u32::MAX)));
        let tick = Tick::of_kernel();
        let budget = budget.or(overhead.map(|_| u32::MAX)).map_or(0, |a_second| tick.records(a_second));
        let mut config = filter::config(&filter).map_err(LiveError::Filter)?;
        (config.budget, config.tick_shift, config.flags) = (budget, tick.shift, flags(&points));
        config.given_up_in = inodes(&drops_in);
        let mut gaps = Vec::new();
        let (layout, btf) = match layout::read() {
            Ok((layout, btf)) => (layout, Some(btf)),
            Err(error) => {
                gaps.push(gap("the kernel's description of its types", error.to_string()));
                (Layout::default(), None)
            }
        };
        let (mut programs, mut maps) = load::load(&layout, ring_bytes)?;
        maps.set(&mut config)?;
        let namespaces = if points.is_empty() { Vec::new() } else { discover::namespaces(options).await };
        let (held, unattached) = attach::attach(&points, &namespaces, &mut programs, tcx).await?;
        gaps.extend(unattached);
        if drops {
            match &btf {
                Some(btf) => gaps.extend(watch_drops(btf, &mut programs)),
                None => gaps.push(gap("packets the kernel gives up", "it does not describe its types".to_owned())),
            }
        }
        let names = Names::new(btf, drops, &mut gaps);
        let descriptors = programs.descriptors()?;
        let meter = Meter::new();
        let (waiting, ready) = (Vec::new(), VecDeque::new());
        let (read, progress) = (0, Progress::from(now()));
        Ok(Self {
            gaps,
            maps,
            held,
            programs,
            descriptors,
            points,
            config,
            tick,
            brake,
            names,
            meter,
            read,
            progress,
            waiting,
            ready,
        })
    }

    /// What could not be watched, with the reason and the fix.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// How many places are watched: sides of devices, and the place where packets are given up.
    pub fn places(&self) -> usize {
        self.held.len() + usize::from(self.programs.watches_drops())
    }

    /// Devices that TC takes no program at, and that are watched by packet sockets instead.
    pub fn by_socket(&self) -> &[LinkKey] {
        &self.held.instead
    }

    /// Whether the place where packets are given up is watched.
    pub fn watches_drops(&self) -> bool {
        self.programs.watches_drops()
    }

    /// The next packet, as soon as there is one. They come in the order of their times, but for what was too late by more than
    /// some milliseconds. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Sighting {
        loop {
            if let Some(sighting) = self.ready.pop_front() {
                return sighting;
            }
            let flood = self.look() >= FLOOD;
            if self.ready.is_empty() {
                tokio::time::sleep(if flood { SHORT_PAUSE } else { PAUSE }).await;
            }
        }
    }

    /// Packets that have come so far, for who asks now and then; the same packets as [`Session::next`] gives, each once. Until when
    /// these are all says [`Session::read_ns`].
    pub fn take(&mut self) -> Vec<Sighting> {
        let (moment_ns, begun) = (now(), self.maps.begun());
        self.look();
        // What the kernel does not say is not known to have been read.
        if let Ok(begun) = begun {
            self.progress.looked(moment_ns.saturating_sub(HELD_BACK), &begun);
        }
        self.ready.drain(..).collect()
    }

    /// Until when every packet that was seen has been given, or counted as lost, by what was taken last: what is not there may have
    /// been seen later, however long ago that is by now.
    pub const fn read_ns(&self) -> u64 {
        self.progress.until_ns()
    }

    /// Watches other packets from now on, at the same places.
    ///
    /// # Errors
    /// The filter does not fit, or the kernel refuses to take it.
    pub fn refilter(&mut self, filter: &Filter) -> Result<(), LiveError> {
        let config = filter::config(filter).map_err(LiveError::Filter)?;
        let Config { budget, tick_shift, generation, flags, given_up_in, .. } = self.config;
        self.config = Config { budget, tick_shift, generation, flags, given_up_in, ..config };
        self.maps.set(&mut self.config)
    }

    /// Packets of which there is no record, since the session began. One that was given up while another was being looked at on the
    /// same CPU is lost as well, whether the filter covers it or not: nobody has looked at it.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub fn losses(&self) -> Result<Losses, LiveError> {
        let mut losses = self.maps.losses()?;
        losses.lost += meter::missed(&self.descriptors);
        Ok(losses)
    }

    /// What watching has cost: netdiag itself since the session began, its programs on average of the moments at which they were measured.
    pub fn cost(&self) -> Cost {
        self.meter.cost(self.read)
    }

    /// Reads what is there, and lets go what nothing older can come before any more. Says how much there was.
    fn look(&mut self) -> usize {
        let until = now().saturating_sub(HELD_BACK);
        let mut count = 0;
        while count < AT_ONCE
            && let Some(bytes) = self.maps.records.next()
        {
            count += 1;
            let record = record::decode(&bytes);
            drop(bytes);
            if let Some(record) = record {
                self.progress.read((record.tally(), record.sighting.cpu));
                self.waiting.push(self.names.name(record, &self.points));
            }
        }
        self.read += count as u64;
        self.brake();
        self.waiting.sort_by_key(|sighting| sighting.time_ns);
        let old = self.waiting.partition_point(|sighting| sighting.time_ns <= until);
        self.ready.extend(self.waiting.drain(..old));
        count
    }

    /// Measures what watching takes, and allows as many records as take no more than they may.
    fn brake(&mut self) {
        let (used, measured) = (self.meter.used(self.read), self.meter.tick(&self.descriptors, &self.maps));
        let Some(brake) = &mut self.brake else { return };
        let by_process = used.and_then(|used| brake.used(used));
        let by_programs = measured.and_then(|measured| brake.measured(measured));
        if let Some(a_second) = by_programs.or(by_process) {
            self.config.budget = self.tick.records(a_second);
            // The kernel has taken the same map before; if it should not now, the budget stays as it is.
            drop(self.maps.set_budget(&self.config));
        }
    }
}

/// True if a program is one of those that watch packets and let every one of them go on.
pub(crate) fn is_watcher(program: u32) -> bool {
    let mut programs = loaded_programs().filter_map(Result::ok);
    programs
        .find(|info| info.id() == program)
        .is_some_and(|info| info.name_as_str().is_some_and(|name| attach::PROGRAMS.contains(&name)))
}

/// Watches where packets are given up; a gap where that is not known how on this kernel.
///
/// A kernel that refuses the program (Linux 6.1 gives up checking it after a million instructions) leaves the devices to be watched.
fn watch_drops(btf: &Btf, programs: &mut Programs) -> Option<Gap> {
    let watched = layout::knows_drops(btf).and_then(|()| programs.watch_drops().map_err(|error| chain(&error)));
    // What the verifier says may be a book; its first line says what is the matter.
    watched.err().map(|why| gap("packets the kernel gives up", why.lines().next().unwrap_or_default().to_owned()))
}

/// `CONFIG_*` bits for devices to watch.
fn flags(points: &[Point]) -> u32 {
    let devices: BTreeSet<_> = points.iter().map(|point| point.link).collect();
    let indexes: BTreeSet<_> = devices.iter().map(|link| link.ifindex).collect();
    if indexes.len() == devices.len() { CONFIG_INDEX_IS_ENOUGH } else { 0 }
}

/// Inodes of namespaces; of all, where there is no room.
fn inodes(namespaces: &[NetnsId]) -> [u32; NAMESPACES] {
    let mut inodes = [0; NAMESPACES];
    let all: BTreeSet<u32> = namespaces.iter().filter_map(|netns| u32::try_from(netns.inode).ok()).collect();
    if all.len() <= NAMESPACES {
        for (place, inode) in inodes.iter_mut().zip(all) {
            *place = inode;
        }
    }
    inodes
}

/// Nanoseconds of the clock the programs ask.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

fn gap(object: &str, why: String) -> Gap {
    Gap {
        source: SourceKind::Bpf,
        netns: None,
        object: object.to_owned(),
        why,
        fix: "run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYSLOG, on a kernel with BTF".to_owned(),
        absent: false,
    }
}

#[cfg(test)]
mod tests {
    use netdiag_common::abi::live::CONFIG_INDEX_IS_ENOUGH;
    use netdiag_model::{
        id::{IfIndex, LinkKey, NetnsId},
        live::View,
    };

    use super::{Point, flags, inodes};

    #[test]
    fn packets_given_up_in_more_namespaces_than_there_is_room_for_are_told_of_everywhere() {
        let netns = |inode| NetnsId { inode, cookie: 1 };
        assert_eq!(inodes(&[]), [0; 8]);
        assert_eq!(inodes(&[netns(7), netns(9), netns(7)]), [7, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(inodes(&(1..=9).map(netns).collect::<Vec<_>>()), [0; 8]);
    }

    #[test]
    fn the_index_of_a_device_is_enough_unless_another_namespace_has_the_same() {
        let point = |inode, index| Point {
            link: LinkKey { netns: NetnsId { inode, cookie: inode }, ifindex: IfIndex(index) },
            name: String::new(),
            received: true,
            sent: true,
            view: View::Tc,
        };
        assert_eq!(flags(&[point(1, 2), point(2, 3)]), CONFIG_INDEX_IS_ENOUGH);
        assert_eq!(flags(&[point(1, 2), point(2, 2)]), 0);
        let twice = [point(1, 2), Point { view: View::Socket, ..point(1, 2) }];
        assert_eq!(flags(&twice), CONFIG_INDEX_IS_ENOUGH, "one device, watched twice");
    }
}
