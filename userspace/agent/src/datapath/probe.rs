//! Proves on the running kernel that the programs load, attach, count and report. Flow: observe.
//!
//! The one way to know that a host's compiler, BTF, verifier, hook and ring buffer work together is to use them. The
//! probe does so in a namespace of its own, which ends with the probe: nothing of the host is touched.
//!
//! Steps, in order: load, see that the verdict lets packets pass, attach, send frames, see each of them in the ring buffer, detach, compare the counters with
//! the records, send once more, see that nobody counts any longer.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, TestRunOptions,
    maps::{MapData, MapError, PerCpuArray, RingBuf},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRun as _, tc, tc::NlOptions, tc::TcAttachOptions,
    },
};
use netdiag_common::abi::{event::Counted, value::Counter};

use self::veth::Veth;
use super::OBJECT;
use crate::{
    enforce,
    netns::{self, NetnsError},
};

/// Bytes of a ring-buffer record as a record.
mod record;
/// The pair of devices the probe sends through.
mod veth;

/// Name of the program in the object.
const PROGRAM: &str = "count";
/// Names of its maps.
const COUNTERS: &str = "COUNTERS";
const EVENTS: &str = "EVENTS";
/// How many frames the probe sends.
const FRAMES: u64 = 8;
/// How long it waits for what the kernel does in the background.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a classifier is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A `bpf_link` on the device itself: Linux 6.6 and newer.
    Tcx,
    /// A filter in a `clsact` qdisc.
    Clsact,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        })
    }
}

/// What the probe saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// How the program was attached.
    pub hook: Hook,
    /// Frames the probe sent.
    pub sent: u64,
    /// Packets the program counted, those the kernel itself sent on the new devices included.
    pub counted: u64,
    /// Records that came out of the ring buffer.
    pub records: u64,
}

/// At which step the probe failed, and why.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// This binary carries no programs.
    #[error("this netdiag was built without its eBPF programs")]
    NoObject,
    /// No namespace to probe in.
    #[error(transparent)]
    Namespace(NetnsError),
    /// No devices to send through.
    #[error("make a veth pair to probe with")]
    Devices(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object was not accepted, before any program of it was.
    #[error("load the eBPF object")]
    Object(#[source] Box<EbpfError>),
    /// The verifier or a missing privilege refused the program.
    #[error("load the program {PROGRAM}")]
    Load {
        /// What the system call said.
        #[source]
        source: io::Error,
        /// What the verifier said; long, and empty if it was not asked.
        log: String,
    },
    /// The object is not the one this code was written with.
    #[error("find the {what} {name} in the eBPF object")]
    Missing {
        /// `program` or `map`.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// The program could not be run on a packet in memory.
    #[error("run the program {PROGRAM} on a packet in memory")]
    Run(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The program would keep packets from other programs on the hook.
    #[error("the program {PROGRAM} returns {0}, and not \"the next program decides\" (-1)")]
    Verdict(i32),
    /// A step the kernel refused after it had accepted the program.
    #[error("{step} the program {PROGRAM} by {hook}")]
    Hook {
        /// `attach` or `detach`.
        step: &'static str,
        /// Where.
        hook: Hook,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map could not be read.
    #[error("read the map {name}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A frame could not be sent.
    #[error("send a frame through the veth pair")]
    Send(#[source] io::Error),
    /// Everything was accepted, and yet the frames were not all seen.
    #[error("sent {sent} frames by {hook}, and the ring buffer had {seen} of them")]
    Unseen {
        /// How the program was attached.
        hook: Hook,
        /// Frames sent.
        sent: u64,
        /// Frames with a record.
        seen: u64,
    },
    /// The counters and the ring buffer tell different stories.
    #[error("the program counted {counted} packets and lost {lost} records, but {records} records came out")]
    Miscounted {
        /// Packets by the counters.
        counted: u64,
        /// Records the program found no room for.
        lost: u64,
        /// Records that came out.
        records: u64,
    },
    /// The program went on counting after it was detached.
    #[error("the program counted {0} packets after it was detached")]
    StillAttached(u64),
}

/// Runs the probe with one kind of attachment, in a namespace that ends with it.
///
/// # Errors
/// The step that failed. Needs `CAP_SYS_ADMIN` for the namespace, `CAP_NET_ADMIN` for the devices and the attachment,
/// `CAP_BPF` for the program.
pub async fn run(hook: Hook) -> Result<Proof, ProbeError> {
    let object = OBJECT.ok_or(ProbeError::NoObject)?;
    netns::in_new(move || probe(object, hook)).await.map_err(ProbeError::Namespace)?
}

fn probe(object: &[u8], hook: Hook) -> Result<Proof, ProbeError> {
    let veth = Veth::new().map_err(|error| ProbeError::Devices(error.into()))?;
    let mut ebpf = load(object)?;
    let mut ring: RingBuf<_> = take(&mut ebpf, EVENTS)?;
    let counters: PerCpuArray<_, Counter> = take(&mut ebpf, COUNTERS)?;
    let program = classifier(&mut ebpf)?;
    program.load().map_err(load_error)?;
    lets_pass(program)?;

    let link = attach(program, hook)?;
    for _ in 0..FRAMES {
        veth.send().map_err(ProbeError::Send)?;
    }
    let mut tally = Tally::default();
    tally.wait_for(FRAMES, &mut ring);
    if tally.ours < FRAMES {
        return Err(ProbeError::Unseen { hook, sent: FRAMES, seen: tally.ours });
    }

    program.detach(link).map_err(|source| ProbeError::Hook { step: "detach", hook, source: Box::new(source) })?;
    tally.drain(&mut ring);
    let counted = total(&counters)?;
    if counted.packets != tally.records + counted.lost {
        let Counter { packets, lost, .. } = counted;
        return Err(ProbeError::Miscounted { counted: packets, lost, records: tally.records });
    }
    veth.send().map_err(ProbeError::Send)?;
    match total(&counters)?.packets - counted.packets {
        0 => Ok(Proof { hook, sent: FRAMES, counted: counted.packets, records: tally.records }),
        late => Err(ProbeError::StillAttached(late)),
    }
}

/// The object with the maps of its other programs as small as they can be: nobody will use them, and at their full size
/// they take tens of megabytes.
fn load(object: &[u8]) -> Result<Ebpf, ProbeError> {
    let mut loader = EbpfLoader::new();
    for name in enforce::sized_maps() {
        loader.map_max_entries(name, 1);
    }
    loader.load(object).map_err(|error| ProbeError::Object(Box::new(error)))
}

/// A map of the object, as the type it must have.
fn take<T: TryFrom<aya::maps::Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, ProbeError> {
    let map = ebpf.take_map(name).ok_or(ProbeError::Missing { what: "map", name })?;
    T::try_from(map).map_err(|source| ProbeError::Map { name, source: Box::new(source) })
}

fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, ProbeError> {
    let missing = || ProbeError::Missing { what: "program", name: PROGRAM };
    ebpf.program_mut(PROGRAM).ok_or_else(missing)?.try_into().map_err(|_: ProgramError| missing())
}

/// The verifier's log apart from the error: it is for a file, not for a line.
fn load_error(error: ProgramError) -> ProbeError {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        ProbeError::Load { source: io_error, log: verifier_log.to_string() }
    } else {
        ProbeError::Load { source: io::Error::other(error), log: String::new() }
    }
}

/// Runs the program on a packet in memory: it must leave the verdict to whatever comes after it.
fn lets_pass(program: &SchedClassifier) -> Result<(), ProbeError> {
    let packet = [0; 64];
    let options = TestRunOptions { data_in: Some(&packet), ..TestRunOptions::new() };
    let result = program.test_run(options).map_err(|error| ProbeError::Run(error.into()))?;
    match result.return_value.cast_signed() {
        // `TCX_NEXT`, and `TC_ACT_UNSPEC` in a clsact qdisc (`linux/bpf.h`, `linux/pkt_cls.h`).
        -1 => Ok(()),
        verdict => Err(ProbeError::Verdict(verdict)),
    }
}

/// Attaches to what the device under probe receives.
fn attach(program: &mut SchedClassifier, hook: Hook) -> Result<tc::SchedClassifierLinkId, ProbeError> {
    let options = match hook {
        Hook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
        Hook::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
    };
    let refused = |source| ProbeError::Hook { step: "attach", hook, source: Box::new(source) };
    if hook == Hook::Clsact {
        tc::qdisc_add_clsact(veth::RECEIVER).map_err(|error| refused(error.into()))?;
    }
    program.attach_with_options(veth::RECEIVER, TcAttachType::Ingress, options).map_err(refused)
}

/// The counters of all CPUs, added up.
fn total(counters: &PerCpuArray<MapData, Counter>) -> Result<Counter, ProbeError> {
    let cpus = counters.get(&0, 0).map_err(|source| ProbeError::Map { name: COUNTERS, source: Box::new(source) })?;
    Ok(cpus.iter().fold(Counter::default(), |sum, cpu| Counter {
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
        lost: sum.lost + cpu.lost,
    }))
}

/// What came out of the ring buffer so far.
#[derive(Debug, Default)]
struct Tally {
    /// All records.
    records: u64,
    /// Those of frames the probe sent.
    ours: u64,
}

impl Tally {
    /// Reads until there are so many records of frames the probe sent, or patience is at its end. A veth pair delivers
    /// in a softirq that may run after the sender has returned.
    fn wait_for(&mut self, frames: u64, ring: &mut RingBuf<MapData>) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.drain(ring);
            if self.ours >= frames || Instant::now() >= end {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads what is there.
    fn drain(&mut self, ring: &mut RingBuf<MapData>) {
        while let Some(bytes) = ring.next() {
            self.records += 1;
            let counted: Option<Counted> = record::counted(&bytes);
            self.ours += u64::from(counted.is_some_and(|record| record.length == veth::FRAME_LENGTH));
        }
    }
}
