//! Packets of this host while somebody wants to see them: those of one instance from device to device, or all that are given up.
//! Programs are at its devices only as long as that.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use netdiag_agent::{discover::Options, live::Session};
use netdiag_model::{
    inventory::Inventory,
    live::{
        Losses,
        drops::Owners,
        filter::Wanted,
        journey::{Journey, Journeys},
        points::Points,
        report::Told,
    },
    resolve::resolve,
    snapshot::Snapshot,
    trace,
};
use netdiag_views::tui::{Action, Followed, Follower, Packet};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{
    cli::tui::Tui,
    cmd::live::{OVERHEAD, compile, epoch, host::Host, now_ns, plan, refused, start as attach, verdicts::Verdicts},
    cmd::tui::now_ms,
    config,
};

/// Sightings of packets under way.
mod kept;

use self::kept::Kept;

/// How often what has come is shown.
const TICK: Duration = Duration::from_millis(100);

/// How often the path is told what packets did on it.
const TELL: u32 = 10;

/// Where packets are watched.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) options: Options,
    agent: Option<PathBuf>,
}

impl Place {
    /// This host.
    pub(super) fn of(asked: &Tui) -> Self {
        Self {
            options: config::all_options(&asked.sockets, &asked.enforced),
            agent: asked.enforced.agent_socket.clone(),
        }
    }
}

/// Watches until it is dropped.
pub(super) struct Watcher {
    ended: Arc<AtomicBool>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Whoever is told of packets.
struct Teller {
    actions: mpsc::Sender<Action>,
    ended: Arc<AtomicBool>,
    /// What is watched.
    words: String,
    told: Option<Losses>,
}

impl Teller {
    /// Whether nobody wants to know any more.
    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || self.actions.is_closed()
    }

    /// Tells the path what packets did on it.
    async fn follow(&self, followed: Followed) {
        if !self.is_over() {
            drop(self.actions.send(Action::Followed(Arc::new(followed))).await);
        }
    }

    async fn tell(&mut self, packets: Vec<Packet>, losses: Losses) {
        if self.is_over() {
            return;
        }
        if self.told != Some(losses) {
            self.told = Some(losses);
            let Losses { lost, throttled } = losses;
            let words = format!("{}; {lost} lost, {throttled} left out to keep the cost down", self.words);
            // Without anybody to tell, all is over.
            drop(self.actions.send(Action::Watching(Some(words))).await);
        }
        if !packets.is_empty() {
            drop(self.actions.send(Action::Packets(packets)).await);
        }
    }
}

/// Begins to watch, on a thread of its own.
pub(super) fn start(
    place: Place,
    id: Option<String>,
    snapshot: Arc<Snapshot>,
    actions: mpsc::Sender<Action>,
) -> Watcher {
    let ended = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Handle::current();
    let teller = Teller { actions: actions.clone(), ended: Arc::clone(&ended), words: String::new(), told: None };
    let watcher = Watcher { ended: Arc::clone(&ended) };
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let outcome = match &id {
                Some(id) => instance(&place, id, &snapshot, teller).await,
                None => host(&place, &snapshot, teller).await,
            };
            if let Err(error) = outcome
                && !ended.load(Ordering::Relaxed)
            {
                drop(actions.send(Action::Watching(None)).await);
                drop(actions.send(Action::Say(format!("packets are not watched: {error:#}"))).await);
            }
        });
    });
    watcher
}

/// Packets of one instance, from device to device.
async fn instance(place: &Place, id: &str, snapshot: &Snapshot, mut teller: Teller) -> anyhow::Result<()> {
    let inventory = Inventory::build(snapshot);
    let number = resolve(&inventory, id).ok().context("that instance is gone")?;
    let instance = &inventory.instances[number];
    let expected = trace::explain(&inventory, instance);
    let mut points = Points::of(&inventory, &expected);
    let filter = compile(&Wanted::Any, &points, &expected)?;
    let verdicts = Verdicts::follow(place.agent.as_deref()).await;
    let mut session = attach(&points, &filter, OVERHEAD, &place.options).await?;
    points.forget(|link| {
        let name = inventory.link(link).map_or("", |link| &link.name);
        session.gaps().iter().any(|gap| gap.netns == Some(link.netns) && gap.object.ends_with(name))
    });
    let devices = points.devices().len();
    teller.words = format!("watching packets of {} at {devices} devices", instance.identity.name);
    let mut host = Host::new(place.options.clone(), &inventory, number, &expected);
    let mut journeys = Journeys::new(points);
    let (mut kept, mut follower, mut heard) = (Kept::default(), Follower::default(), 0);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_u32.. {
        if teller.is_over() {
            break;
        }
        tick.tick().await;
        for sighting in session.take() {
            kept.keep(&sighting);
            journeys.see(sighting);
        }
        let (now, losses) = (now_ns(), session.losses().context("read how many packets were lost")?);
        journeys.losses(now, losses);
        journeys.refused(verdicts.since(&mut heard));
        let over = journeys.advance(session.read_ns());
        if over.iter().any(|journey| journey.ended.is_death()) {
            host.look_again().await;
        }
        let told = explained(over, &host, journeys.points(), &verdicts).await;
        for told in &told {
            follower.add(told);
        }
        let packet = |told: &Told| {
            let sightings = kept.of(&told.journey, journeys.points());
            Packet::of_journey(told, journeys.points(), epoch(), sightings)
        };
        let packets = told.iter().map(packet).collect();
        kept.forget(now);
        teller.tell(packets, losses).await;
        if turn.is_multiple_of(TELL) {
            teller.follow(follower.tell(id, journeys.points(), now_ms())).await;
        }
    }
    Ok(())
}

/// Packets that are over, with what is guilty of those that died.
async fn explained(over: Vec<Journey>, host: &Host<'_, '_>, points: &Points, verdicts: &Verdicts) -> Vec<Told> {
    let mut all = Vec::new();
    for journey in over {
        let blame = host.blame(&journey, points, &verdicts.known()).await;
        all.push(Told { journey, blame });
    }
    all
}

/// All packets of the host that are given up.
async fn host(place: &Place, snapshot: &Snapshot, mut teller: Teller) -> anyhow::Result<()> {
    let filter = Wanted::Any.compile().map_err(|unfit| anyhow::anyhow!("the filter does not fit: {unfit}"))?;
    let owners = Owners::of(&Inventory::build(snapshot));
    let mut session = Session::start(plan(&filter, OVERHEAD), &place.options).await.map_err(|error| refused(&error))?;
    if session.places() == 0 {
        let gap = session.gaps().first().map_or_else(String::new, |gap| format!("{}: {}", gap.object, gap.why));
        anyhow::bail!("nothing can be watched: {gap}");
    }
    "watching what this host drops".clone_into(&mut teller.words);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !teller.is_over() {
        tick.tick().await;
        let dropped = session.take().into_iter().filter_map(|sighting| Some((owners.dropped(&sighting)?, sighting)));
        let packets = dropped.map(|(dropped, sighting)| Packet::of_drop(&dropped, epoch(), sighting)).collect();
        let losses = session.losses().context("read how many packets were lost")?;
        teller.tell(packets, losses).await;
    }
    Ok(())
}
