//! Who watches, and what is measured then.

use std::{ops::Range, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use netdiag_agent::{
    discover::Options,
    live::{Plan, RECORD_BYTES, RING_BYTES, Session},
};
use netdiag_model::live::Filter;

use super::{
    Effort,
    batches::BATCH,
    bpftrace::{self, Bpftrace},
    kernel::thread_time,
    report::Report,
    scene::{Scene, filter},
    stats::Samples,
    talk::{CHUNK, Talk},
    tcpdump::Tcpdump,
};

/// The most records a second that `netdiag trace --live` has of a CPU. It has fewer where they take more of the CPUs than it is allowed;
/// not here, where this process is also who sends.
const BUDGET: u32 = 20_000;
/// Devices between the two instances.
const PLACES: u64 = 4;

/// Which packets are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Those that are sent here.
    These,
    /// Others.
    Others,
    /// All there are. Not with drops, which are those of the whole machine: nobody knows how many there are to be.
    All,
}

/// How netdiag watches.
#[derive(Clone, Debug)]
struct Watch {
    /// The instances at these places.
    instances: Range<usize>,
    wanted: Wanted,
    drops: bool,
    limits: bool,
    /// Somebody reads what is said.
    read: bool,
}

impl Watch {
    const fn of(instances: Range<usize>, wanted: Wanted) -> Self {
        Self { instances, wanted, drops: false, limits: false, read: true }
    }

    /// How often a frame is to be seen: at each device, and where it ends, as it is for a MAC address that nobody has.
    fn sightings(&self) -> u64 {
        let seen = self.wanted != Wanted::Others;
        let devices = if seen && self.instances.contains(&0) { PLACES } else { 0 };
        devices + u64::from(seen && self.drops)
    }

    async fn start(&self, scene: &Scene) -> Result<Session> {
        let filter = match self.wanted {
            Wanted::These => filter(true),
            Wanted::Others => filter(false),
            Wanted::All => Filter::default(),
        };
        let ring_bytes = if self.read { RING_BYTES } else { 64 * RECORD_BYTES };
        let budget = self.limits.then_some(BUDGET);
        let drops = self.drops;
        let points = scene.points(self.instances.clone());
        let session = Session::start(
            Plan { points, filter, drops, drops_in: Vec::new(), ring_bytes, budget, overhead: None },
            &Options::default(),
        )
        .await?;
        ensure!(session.gaps().is_empty(), "not everything is watched: {:?}", session.gaps());
        Ok(session)
    }
}

/// Who watches.
#[derive(Clone, Debug)]
enum Who {
    Nobody,
    /// Programs in which there is nothing, at both sides of the devices of the instances at these places.
    Empty(Range<usize>),
    Netdiag(Watch),
    Tcpdump,
    Bpftrace,
}

impl Who {
    /// Another program than netdiag.
    const fn is_another(&self) -> bool {
        matches!(self, Self::Tcpdump | Self::Bpftrace)
    }
}

/// Who watches now.
enum Now {
    Nobody,
    Empty { _links: Vec<OwnedFd> },
    Netdiag { session: Box<Session>, read: bool },
    Tcpdump(Tcpdump),
    Bpftrace(Bpftrace),
}

/// What has become of the sightings there were.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    offered: u64,
    seen: u64,
    lost: u64,
    throttled: u64,
}

/// One thing that is measured.
struct Variant {
    name: &'static str,
    who: Who,
    frames: Samples,
    /// What reading takes, for each frame.
    reading: Samples,
    stream: Samples,
    /// A stream without a pause.
    stretches: Samples,
    /// A stream between two threads.
    apart: Samples,
    trips: Samples,
    count: Count,
}

/// What is measured, by name where it is compared.
const OFF: &str = "nobody watches";
const AGAIN: &str = "nobody watches, once more";
const EMPTY: &str = "empty programs at its devices";
const EMPTY_OTHER: &str = "empty programs at another's devices";
const OTHER: &str = "another instance is watched";
const OTHER_DROPS: &str = "another instance, and drops";
const UNCOVERED: &str = "it is, by a filter for others";
const UNCOVERED_DROPS: &str = "the same, and drops";
const LIMITED: &str = "its packets, as by default";
const LIMITED_DROPS: &str = "its packets and drops, as by default";
const COVERED: &str = "its packets, no limit";
const DROPS: &str = "its packets and drops, no limit";
const ALL: &str = "every instance, no filter or limit";
const UNREAD: &str = "its packets, 64 entries, unread";
const TCPDUMP: &str = "tcpdump on the same devices";
const BPFTRACE: &str = "bpftrace, a line for each of its packets";

fn all() -> Vec<Variant> {
    use Wanted::{All, Others, These};
    let netdiag = |name, watch| (name, Who::Netdiag(watch));
    let variants = [
        (OFF, Who::Nobody),
        (EMPTY, Who::Empty(0..2)),
        (EMPTY_OTHER, Who::Empty(2..4)),
        netdiag(OTHER, Watch::of(2..4, Others)),
        netdiag(OTHER_DROPS, Watch { drops: true, ..Watch::of(2..4, Others) }),
        netdiag(UNCOVERED, Watch::of(0..2, Others)),
        netdiag(UNCOVERED_DROPS, Watch { drops: true, ..Watch::of(0..2, Others) }),
        (AGAIN, Who::Nobody),
        netdiag(LIMITED, Watch { limits: true, ..Watch::of(0..2, These) }),
        netdiag(LIMITED_DROPS, Watch { limits: true, drops: true, ..Watch::of(0..2, These) }),
        netdiag(COVERED, Watch::of(0..2, These)),
        netdiag(DROPS, Watch { drops: true, ..Watch::of(0..2, These) }),
        netdiag(ALL, Watch::of(0..4, All)),
        netdiag(UNREAD, Watch { read: false, ..Watch::of(0..2, These) }),
        (TCPDUMP, Who::Tcpdump),
        (BPFTRACE, Who::Bpftrace),
    ];
    let is_there = |who: &Who| !matches!(who, Who::Bpftrace) || bpftrace::is_installed();
    variants.into_iter().filter(|(_, who)| is_there(who)).map(variant).collect()
}

fn variant((name, who): (&'static str, Who)) -> Variant {
    let [frames, reading, stream, stretches, apart, trips] = std::array::from_fn(|_| Samples::default());
    Variant { name, who, frames, reading, stream, stretches, apart, trips, count: Count::default() }
}

impl Now {
    async fn begin(who: &Who, scene: &Scene) -> Result<Self> {
        Ok(match who {
            Who::Nobody => Self::Nobody,
            Who::Empty(places) => Self::Empty { _links: scene.attach_empty(places.clone()).await? },
            Who::Netdiag(watch) => Self::Netdiag { session: Box::new(watch.start(scene).await?), read: watch.read },
            Who::Tcpdump => Self::Tcpdump(Tcpdump::start()?),
            Who::Bpftrace => Self::Bpftrace(Bpftrace::start()?),
        })
    }

    /// Waits until netdiag has measured itself for the first time, which costs more than watching does.
    async fn settle(&mut self) {
        for _ in 0..15 {
            self.read();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads what there is; returns how much that was.
    fn read(&mut self) -> u64 {
        match self {
            Self::Netdiag { session, read: true } => session.take().len() as u64,
            Self::Netdiag { read: false, .. }
            | Self::Nobody
            | Self::Empty { .. }
            | Self::Tcpdump(_)
            | Self::Bpftrace(_) => 0,
        }
    }

    /// Ends what is not of netdiag: nanoseconds it has run, and packets it has captured and dropped.
    fn ended(&mut self) -> Result<(u64, u64, u64)> {
        match std::mem::replace(self, Self::Nobody) {
            Self::Tcpdump(others) => others.end(),
            Self::Bpftrace(other) => other.end(),
            Self::Nobody | Self::Empty { .. } | Self::Netdiag { .. } => bail!("nobody else watches"),
        }
    }

    /// Reads what is left of `offered` sightings, and says what has become of all of them.
    async fn count(&mut self, mut seen: u64, offered: u64) -> Result<Count> {
        let Self::Netdiag { session, .. } = self else { return Ok(Count::default()) };
        // What is held back is let go after some milliseconds.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(3)).await;
            seen += session.take().len() as u64;
        }
        let losses = session.losses()?;
        Ok(Count { offered, seen, lost: losses.lost, throttled: losses.throttled })
    }
}

/// Everything.
pub(super) struct Bench {
    pub(super) scene: Scene,
    talk: Talk,
    variants: Vec<Variant>,
}

impl Bench {
    /// Lays the cables.
    pub(super) async fn new() -> Result<Self> {
        let scene = Scene::new().await?;
        let talk = Talk::new(&scene).await?;
        Ok(Self { scene, talk, variants: all() })
    }

    /// Measures every variant, one after the other, so often. What comes first does not count: only after a while without a pause a
    /// connection is as it stays then.
    pub(super) async fn measure(&mut self, effort: Effort) -> Result<()> {
        let mut first = variant((OFF, Who::Nobody));
        frames(&mut first, &mut Now::Nobody, &mut self.scene, effort.batches).await?;
        talk(&mut first, &mut Now::Nobody, &mut self.talk, effort.talk).await?;
        stretches(&mut first, &mut Now::Nobody, &mut self.talk, effort).await?;
        for _ in 0..effort.rounds {
            for variant in &mut self.variants {
                let mut now = Now::begin(&variant.who, &self.scene).await.with_context(|| variant.name)?;
                now.settle().await;
                frames(variant, &mut now, &mut self.scene, effort.batches).await?;
                talk(variant, &mut now, &mut self.talk, effort.talk).await?;
                if variant.is_sustainable() {
                    stretches(variant, &mut now, &mut self.talk, effort).await?;
                }
            }
        }
        Ok(())
    }
}

/// How many batches are sent before others get time to do what they have to.
const BREATH: usize = 16;
const PAUSE: Duration = Duration::from_millis(2);
/// What others have seen is given to them after a second at the latest.
const LATEST: Duration = Duration::from_millis(1100);

/// Sends frames. What is sent and does not arrive is an error, and so is a sighting of which nobody knows what has become of it.
async fn frames(variant: &mut Variant, now: &mut Now, scene: &mut Scene, batches: usize) -> Result<()> {
    let before = scene.arrived().await?;
    let mut seen = 0;
    for batch in 0..batches {
        scene.send(&mut variant.frames)?;
        let before = thread_time();
        seen += now.read();
        if variant.reads() {
            let took = thread_time().saturating_sub(before).as_secs_f64() * 1e9;
            variant.reading.add(took / number(BATCH as u64));
        }
        if batch % BREATH == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    let sent = (batches * BATCH) as u64;
    let arrived = scene.arrived().await? - before;
    ensure!(arrived == sent, "{}: {arrived} of {sent} frames arrived", variant.name);
    let count = match &variant.who {
        Who::Nobody | Who::Empty(_) => return Ok(()),
        Who::Netdiag(watch) => now.count(seen, sent * watch.sightings()).await?,
        Who::Tcpdump | Who::Bpftrace => {
            tokio::time::sleep(LATEST).await;
            let (ran, captured, dropped) = now.ended()?;
            variant.reading.add(number(ran) / number(sent));
            *now = Now::begin(&variant.who, scene).await?;
            Count { offered: sent * PLACES, seen: captured, lost: dropped, throttled: 0 }
        }
    };
    let Count { offered, seen, lost, throttled } = count;
    ensure!(seen + lost + throttled == offered, "{}: {count:?} do not add up", variant.name);
    variant.count.add(count);
    Ok(())
}

/// Lets real sockets talk. What is seen of it is read, and not counted.
async fn talk(variant: &mut Variant, now: &mut Now, talk: &mut Talk, (chunks, trips): (usize, usize)) -> Result<()> {
    for chunk in 0..chunks {
        talk.stream(&mut variant.stream)?;
        now.read();
        if chunk % BREATH == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    for trip in 0..trips {
        talk.trip(&mut variant.trips)?;
        if trip % BREATH == 0 {
            now.read();
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Lets streams run as fast as they can. What is seen of them is read between, as by another CPU.
async fn stretches(variant: &mut Variant, now: &mut Now, talk: &mut Talk, effort: Effort) -> Result<()> {
    for _ in 0..effort.stretches {
        talk.stretch(&mut variant.stretches)?;
        breathe(now).await;
    }
    for _ in 0..effort.apart {
        talk.apart(&mut variant.apart)?;
        breathe(now).await;
    }
    Ok(())
}

/// Reads all there is, and gives others time to do what they have to.
async fn breathe(now: &mut Now) {
    now.read();
    tokio::time::sleep(PAUSE).await;
    now.read();
}

/// A number to divide by, or to be divided.
#[expect(clippy::cast_precision_loss, reason = "an average has no use for more digits")]
const fn number(number: u64) -> f64 {
    number as f64
}

impl Count {
    const fn add(&mut self, other: Self) {
        self.offered += other.offered;
        self.seen += other.seen;
        self.lost += other.lost;
        self.throttled += other.throttled;
    }
}

impl Variant {
    /// True if what is said of a stream without a pause has room until somebody reads.
    fn is_sustainable(&self) -> bool {
        match &self.who {
            Who::Nobody | Who::Empty(_) | Who::Tcpdump | Who::Bpftrace => true,
            Who::Netdiag(watch) => watch.limits || watch.wanted == Wanted::Others,
        }
    }

    /// True if this process reads what is said.
    const fn reads(&self) -> bool {
        matches!(&self.who, Who::Netdiag(watch) if watch.read)
    }
}

// === what is said ===

impl Bench {
    /// Says what it came to.
    pub(super) fn report(&self, report: &mut Report) {
        for (title, samples) in [
            ("frames of 60 bytes, a frame", (|variant| &variant.frames) as fn(&Variant) -> &Samples),
            ("TCP: 64 KiB sent and received", |variant| &variant.stream),
            ("TCP: 64 KiB of a stream without a pause, CPU time", |variant| &variant.stretches),
            ("TCP: 64 KiB of a stream between two threads, CPU time", |variant| &variant.apart),
            ("TCP: question and answer", |variant| &variant.trips),
        ] {
            report.part(title);
            let measured = |variant: &&Variant| !samples(variant).p5().is_nan();
            for variant in self.variants.iter().filter(measured) {
                report.samples(variant.name, (samples(variant), 0.0), None);
            }
            report.part(format!("{title}, more than {OFF}, percentile 50"));
            for variant in self.variants[1..].iter().filter(measured) {
                let added = samples(variant).percentile(50) - samples(&self.variants[0]).percentile(50);
                report.figure(variant.name, added, "ns", None);
            }
        }
        self.rates(report);
        self.counts(report);
        self.targets(report);
    }

    fn rates(&self, report: &mut Report) {
        report.part("packets a second, one CPU");
        for variant in &self.variants {
            report.figure(variant.name, 1e6 / variant.frames.p5(), "k/s", None);
        }
        report.part("stream, one CPU");
        for variant in &self.variants {
            report.figure(variant.name, number(CHUNK as u64) * 1e3 / variant.stream.p5(), "MB/s", None);
        }
        report.part("reading what was seen, a frame, CPU time of the reader");
        for variant in self.variants.iter().filter(|variant| variant.reads() || variant.who.is_another()) {
            report.samples(variant.name, (&variant.reading, 0.0), None);
        }
    }

    fn counts(&self, report: &mut Report) {
        report.part("sightings of frames, all rounds");
        for variant in &self.variants {
            let Count { offered, seen, lost, throttled } = variant.count;
            let all = [("offered", offered), ("seen", seen), ("lost", lost), ("throttled", throttled)];
            for (what, count) in all.into_iter().filter(|_| offered > 0) {
                report.figure(format!("{}: {what}", variant.name), number(count), "", None);
            }
        }
    }

    /// How much longer something takes than when nobody watches.
    fn times(&self, name: &str, samples: fn(&Variant) -> &Samples) -> f64 {
        let p5 = |name| self.variants.iter().find(|variant| variant.name == name).map(|variant| samples(variant).p5());
        p5(name).zip(p5(OFF)).map_or(f64::NAN, |(took, off)| took / off)
    }

    fn targets(&self, report: &mut Report) {
        report.part(format!("times what it takes when {OFF}"));
        for (what, samples) in [
            ("frames", (|variant| &variant.frames) as fn(&Variant) -> &Samples),
            ("stream", |variant| &variant.stream),
            ("stream without a pause", |variant| &variant.stretches),
            ("stream between threads", |variant| &variant.apart),
            ("questions", |variant| &variant.trips),
        ] {
            let figure = |report: &mut Report, name: &str, target| {
                let times = self.times(name, samples);
                if !times.is_nan() {
                    report.figure(format!("{what}: {name}"), times, "x", target);
                }
            };
            figure(report, AGAIN, None);
            figure(report, EMPTY, None);
            figure(report, EMPTY_OTHER, None);
            // Nothing measurable: not more than twice what the same differs from itself, or a hundredth.
            let nothing = 1.0 + (2.0 * (self.times(AGAIN, samples) - 1.0).abs()).max(0.01);
            for name in [OTHER, OTHER_DROPS] {
                figure(report, name, Some(nothing));
            }
            for name in [UNCOVERED, UNCOVERED_DROPS, LIMITED, LIMITED_DROPS] {
                figure(report, name, Some(1.05));
            }
            for name in [COVERED, DROPS, ALL, UNREAD, TCPDUMP, BPFTRACE] {
                figure(report, name, None);
            }
        }
    }
}
