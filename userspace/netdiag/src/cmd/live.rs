//! `netdiag trace --live`: gather, watch, join, blame, render; at the end what it came to.

use std::{io, process::Stdio, time::Duration};

use anyhow::Context as _;
use netdiag_agent::{
    discover::{self, Options},
    live::{LiveError, Plan, Point, RING_BYTES, Session},
};
use netdiag_model::{
    fact::{Gap, SourceKind},
    inventory::Inventory,
    live::{
        Filter, Sighting, View,
        filter::{self, Wanted},
        journey::{Journey, Journeys},
        points::Points,
        report::{Tally, Told, Watch},
    },
    resolve::resolve,
    trace::{self, Direction, Trace},
};
use netdiag_views::text::live::Epoch;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    process::{Child, Command},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{not_found, print, signals::Interrupt};
use crate::{
    cli::{self, TraceOutput, Way},
    config,
    exit::{Bad, Exit},
};

/// Why packets died, by the host as it is then.
pub(super) mod host;
/// One packet of netdiag's own.
mod probing;
/// What is seen, as it is printed.
mod show;
/// netdiag's own verdicts.
pub(super) mod verdicts;
/// What the command line says of packets.
pub(super) mod wanted;

use host::Host;
use probing::Probing;
use show::Show;
use verdicts::Verdicts;

/// How often is looked for packets that are over.
const TICK: Duration = Duration::from_millis(50);

/// How long is waited for packets under way, once nothing new is wanted.
const LINGER: Duration = Duration::from_millis(3_700);

/// How long at least: packets are told of a moment after they were there.
const MOMENT_NS: u64 = 300_000_000;

/// The most records a second on each CPU: beyond it the traffic wins, and what is left out is counted.
const BUDGET: u32 = 20_000;

/// What the programs and netdiag itself may take of a CPU, where nobody says.
pub(super) const OVERHEAD: f64 = 0.05;

/// Watches the packets of one instance.
pub(crate) async fn run(asked: &cli::live::Trace) -> anyhow::Result<Exit> {
    let style = config::style(&asked.look);
    let wanted = wanted::read(&asked.wanted)?;
    let options = config::all_options(&asked.source.sockets, &asked.source.enforced);
    let snapshot = discover::look(options.clone()).await;
    let inventory = Inventory::build(&snapshot);
    let place = match resolve(&inventory, &asked.instance) {
        Ok(place) => place,
        Err(unresolved) => return not_found(&unresolved, &snapshot, style.ascii),
    };
    let instance = &inventory.instances[place];
    let expected = trace::explain(&inventory, instance);
    let mut points = Points::of(&inventory, &expected);
    let probing = Probing::prepare(&asked.probed, (&inventory, &expected), &points, &options).await?;
    let wanted = probing.as_ref().map_or(wanted, Probing::wanted);
    let filter = compile(&wanted, &points, &expected)?;
    if asked.print_filter {
        let words = filter::words(&filter).join("\n");
        return print(|out| io::Write::write_all(out, format!("{words}\n").as_bytes())).map(|()| Exit::Works);
    }
    if points.devices().is_empty()
        && let Some(gap) = unseen(&inventory)
    {
        return Err(Bad::missing(format!("there is no device to watch: {}: {}; {}", gap.object, gap.why, gap.fix)));
    }
    let verdicts = Verdicts::follow(asked.source.enforced.agent_socket.as_deref()).await;
    let session = start(&points, &filter, asked.max_overhead, &options).await?;
    points.forget(|link| {
        let name = inventory.link(link).map_or("", |link| &link.name);
        session.gaps().iter().any(|gap| gap.netns == Some(link.netns) && gap.object.ends_with(name))
    });
    points.see_by_socket(session.by_socket());
    points.blind = !session.watches_drops();
    // What was under way while the programs were attached one by one was seen by some of them only.
    let since_ns = now_ns();
    let epoch = epoch();
    let watch = watch(&points, &filter, &session);
    let mut show = Show::begin(asked.output, style, epoch)?;
    show.watch(&watch)?;
    let host = Host::new(options, &inventory, place, &expected);
    let mut live = Live {
        asked,
        wanted,
        probing,
        session,
        journeys: Journeys::new(points),
        tally: tally(asked),
        host,
        verdicts,
        heard: 0,
        show,
        shown: 0,
        since_ns,
        until_ns: u64::MAX,
    };
    let began = Instant::now();
    let end = live.follow().await?;
    live.end(&expected, began.elapsed(), end).await
}

/// What is added up: what is asked for one way only, or of some packets, has its answers among the others.
fn tally(asked: &cli::live::Trace) -> Tally {
    if asked.direction.is_none() && asked.wanted.is_empty() && asked.probed.probe.is_none() {
        Tally::of_both_ways()
    } else {
        Tally::default()
    }
}

/// What keeps netdiag from seeing the devices of instances, if anything does.
fn unseen<'a>(inventory: &Inventory<'a>) -> Option<&'a Gap> {
    let is_it = |gap: &&Gap| !gap.absent && matches!(gap.source, SourceKind::Netns | SourceKind::Netlink);
    inventory.snapshot.facts.gaps().find(is_it)
}

/// What the kernel asks of a packet: whether it is wanted, before and after translation, and can be the instance's.
pub(super) fn compile(wanted: &Wanted, points: &Points, trace: &Trace) -> anyhow::Result<Filter> {
    let wide = wanted.clone().widened(&points.aliases(trace));
    wide.and(points.scope()).compile().map_err(|unfit| Bad::usage(format!("the filter does not fit: {unfit}")))
}

/// Begins to watch every device of the path, and where packets are given up.
pub(super) async fn start(
    points: &Points,
    filter: &Filter,
    overhead: f64,
    options: &Options,
) -> anyhow::Result<Session> {
    let devices = points.devices();
    if devices.is_empty() {
        return Err(Bad::inconclusive("there is no device to watch: the instance has no network card on this host"));
    }
    let point = |stop: &&netdiag_model::live::points::Stop| Point {
        link: stop.link,
        name: stop.name.clone(),
        received: true,
        sent: true,
        view: stop.view,
    };
    // Of what is given up elsewhere nothing is made a packet of the instance.
    let drops_in = devices.iter().map(|stop| stop.link.netns).collect();
    let points = devices.iter().map(point).collect();
    let plan = Plan { points, drops_in, ..plan(filter, overhead) };
    let session = Session::start(plan, options).await.map_err(|error| refused(&error))?;
    if session.places() == 0 {
        let gap = session.gaps().first().map_or_else(String::new, |gap| format!(": {}: {}", gap.object, gap.why));
        return Err(Bad::missing(format!("nothing can be watched{gap}")));
    }
    Ok(session)
}

/// To watch where packets are given up, with the limits there are.
pub(super) fn plan(filter: &Filter, overhead: f64) -> Plan {
    let (budget, overhead) = (Some(BUDGET), Some(overhead));
    let (points, drops_in) = (Vec::new(), Vec::new());
    Plan { points, filter: filter.clone(), drops: true, drops_in, ring_bytes: RING_BYTES, budget, overhead }
}

/// Why nothing is watched, with the exit code that belongs to it.
pub(super) fn refused(error: &LiveError) -> anyhow::Error {
    let fix = "watching needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN";
    match error {
        LiveError::Filter(_) => Bad::usage(error.to_string()),
        LiveError::NoObject => Bad::missing(error.to_string()),
        LiveError::Kernel { source, .. } => Bad::missing(format!("{error}: {source}; {fix}")),
    }
}

/// What is watched, in words.
fn watch(points: &Points, filter: &Filter, session: &Session) -> Watch {
    let devices = points.devices();
    let by = |view: View| devices.iter().any(|stop| stop.view == view);
    let names = [(View::Tc, "TC"), (View::Socket, "packet sockets")];
    Watch {
        instance: Some(points.instance.clone()),
        by: names.iter().filter(|(view, _)| by(*view)).map(|(_, name)| (*name).to_owned()).collect(),
        devices: devices.iter().map(|stop| stop.label()).collect(),
        drops: session.watches_drops(),
        filter: filter::words(filter),
        fast: points.tracks.iter().flat_map(|track| track.shortcut.clone()).collect(),
        gaps: session.gaps().to_vec(),
    }
}

/// Nanoseconds from 1970 to the beginning of the clock of sightings.
pub(super) fn epoch() -> Epoch {
    let nanoseconds = |clock| {
        let now = clock_gettime(clock);
        now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
    };
    Epoch(nanoseconds(ClockId::Realtime).saturating_sub(nanoseconds(ClockId::Monotonic)))
}

/// Nanoseconds of the clock of sightings.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Why watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As it was asked to.
    Bound,
    /// Ctrl-C.
    Interrupted,
}

/// Packets being watched.
struct Live<'l, 'a> {
    asked: &'l cli::live::Trace,
    wanted: Wanted,
    probing: Option<Probing>,
    session: Session,
    journeys: Journeys,
    tally: Tally,
    host: Host<'l, 'a>,
    verdicts: Verdicts,
    /// Number of the last of them that was taken.
    heard: u64,
    show: Show,
    shown: u64,
    since_ns: u64,
    /// Packets that came later are not asked for any more: those that answer are heard, and nothing is said of them.
    until_ns: u64,
}

impl Live<'_, '_> {
    /// Watches until a bound is reached or somebody interrupts.
    async fn follow(&mut self) -> anyhow::Result<End> {
        if let Some(probing) = &mut self.probing {
            probing.send().await?;
        }
        let mut command = self.asked.bounds.cmd.as_deref().map(command).transpose()?;
        let patience = self.probing.as_ref().map(|_| probing::PATIENCE);
        let mut until = self.asked.bounds.limits.duration.or(patience).map(|duration| Instant::now() + duration);
        // Since when nothing new is wanted.
        let mut closing = None;
        let mut interrupt = Interrupt::listen()?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                sighting = self.session.next() => {
                    self.see(sighting)?;
                    continue;
                }
                _ = tick.tick() => {}
                () = interrupt.comes() => return Ok(End::Interrupted),
                () = ended(&mut command) => {
                    command = None;
                    (closing, until) = (Some(now_ns()), Some(Instant::now() + LINGER));
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    if closing.is_some() {
                        // What has come meanwhile may be what is waited for.
                        self.look().await?;
                        return Ok(End::Bound);
                    }
                    let now_ns = now_ns();
                    (closing, until) = (Some(now_ns), Some(Instant::now() + LINGER));
                    // What a probe leads to is told of whenever it comes.
                    if self.probing.is_none() {
                        self.until_ns = now_ns;
                    }
                }
            }
            let enough = self.look().await?;
            let settled = closing.is_some_and(|since_ns| self.session.read_ns() >= since_ns + MOMENT_NS);
            if enough || (settled && !self.journeys.any_since_before(self.until_ns)) {
                return Ok(End::Bound);
            }
        }
    }

    /// Takes a sighting, unless it is of the time before everything was watched.
    fn see(&mut self, sighting: Sighting) -> anyhow::Result<()> {
        if sighting.time_ns >= self.since_ns {
            self.show.sighting(&sighting, self.journeys.points())?;
            self.journeys.see(sighting);
        }
        Ok(())
    }

    /// Takes what is over by now; true where that is enough.
    async fn look(&mut self) -> anyhow::Result<bool> {
        for sighting in self.session.take() {
            self.see(sighting)?;
        }
        let losses = self.session.losses().context("read how many packets were lost")?;
        self.journeys.losses(now_ns(), losses);
        self.journeys.refused(self.verdicts.since(&mut self.heard));
        // What was seen since it was read may be what is missing.
        let over = self.journeys.advance(self.session.read_ns());
        let enough = self.tell(over).await?;
        self.show.flush()?;
        Ok(enough)
    }

    /// Tells of packets; true where that is enough.
    async fn tell(&mut self, over: Vec<Journey>) -> anyhow::Result<bool> {
        let mut over = self.wanted(over);
        if over.iter().any(|journey| journey.ended.is_death()) {
            self.host.look_again().await;
            if let Some(points) = self.host.points() {
                self.journeys.learn(&points);
            }
            over = over.into_iter().map(|journey| self.journeys.reconsidered(journey)).collect();
        }
        let verdicts = self.verdicts.known();
        let mut enough = false;
        for journey in over {
            if enough || journey.began_ns() > self.until_ns {
                self.tally.overhear(&journey);
                continue;
            }
            let blame = self.host.blame(&journey, self.journeys.points(), &verdicts).await;
            let told = Told { journey, blame };
            self.show.packet(&told, self.journeys.points())?;
            self.tally.add(&told, self.journeys.points());
            self.shown += 1;
            enough |= self.probing.as_mut().is_some_and(|probing| probing.hear(&told));
            enough |= self.asked.bounds.limits.is_reached(self.shown);
            enough |= self.asked.bounds.until_drop && told.blame.is_some();
        }
        Ok(enough)
    }

    /// Those of the packets that were asked for.
    fn wanted(&self, over: Vec<Journey>) -> Vec<Journey> {
        let over = over.into_iter().filter(|journey| self.is_wanted(journey));
        match &self.probing {
            Some(probing) => over.map(|journey| probing.settled(journey)).collect(),
            None => over.collect(),
        }
    }

    /// Whether a packet is what was asked for: at one of its devices, it need not be at all of them.
    fn is_wanted(&self, journey: &Journey) -> bool {
        let way = self.asked.direction.is_none_or(|way| match way {
            Way::In => journey.direction == Direction::Inward,
            Way::Out => journey.direction != Direction::Inward,
        });
        let steps = journey.steps.iter().map(|step| &step.headers);
        let mut headers = steps.chain(journey.drops.iter().map(|drop| &drop.headers));
        let probed = self.probing.as_ref().is_none_or(|probing| probing.concerns(journey));
        way && probed && headers.any(|headers| self.wanted.covers(headers))
    }

    /// Says what it came to.
    async fn end(mut self, expected: &Trace, took: Duration, end: End) -> anyhow::Result<Exit> {
        let enough = self.asked.bounds.limits.is_reached(self.shown);
        let verdicts = self.verdicts.known();
        self.journeys.refused(self.verdicts.since(&mut self.heard));
        let left = self.journeys.finish();
        for journey in self.wanted(left) {
            if enough || journey.began_ns() > self.until_ns {
                self.tally.overhear(&journey);
                continue;
            }
            let blame = self.host.blame(&journey, self.journeys.points(), &verdicts).await;
            let told = Told { journey, blame };
            self.show.packet(&told, self.journeys.points())?;
            self.tally.add(&told, self.journeys.points());
            let _enough = self.probing.as_mut().map(|probing| probing.hear(&told));
        }
        let cost = self.session.cost();
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let summary = self.tally.summary(self.journeys.points(), expected, (self.journeys.counted(), cost), took);
        let summary = match &self.probing {
            Some(probing) => probing.judge(summary),
            None => summary,
        };
        self.show.summary(&summary)?;
        Ok(match end {
            End::Interrupted => Exit::Interrupted,
            End::Bound => summary.verdict.into(),
        })
    }
}

/// Starts a command of the operator's. What it says goes to standard error: standard output is ours.
fn command(line: &str) -> anyhow::Result<Child> {
    let out = rustix::io::dup(io::stderr()).context("share standard error")?;
    Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .stdout(Stdio::from(out))
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start sh -c {line:?}"))
}

/// When a command has ended; never, where there is none.
async fn ended(command: &mut Option<Child>) {
    match command {
        Some(child) => drop(child.wait().await),
        None => std::future::pending().await,
    }
}

/// The form that is asked for.
fn form(output: TraceOutput) -> anyhow::Result<show::Form> {
    match output {
        TraceOutput::Table => Ok(show::Form::Text),
        TraceOutput::Json => Ok(show::Form::Json),
        TraceOutput::Jsonl => Ok(show::Form::Lines),
        TraceOutput::Pcapng => Ok(show::Form::Capture),
        TraceOutput::Wide | TraceOutput::Yaml | TraceOutput::Dot | TraceOutput::Mermaid | TraceOutput::Svg => {
            Err(Bad::usage("--live can be printed as table, json, jsonl or pcapng"))
        }
    }
}
