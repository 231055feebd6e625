//! Looks and events as actions: of this host, of a snapshot, of a recording. Nothing here waits for the screen.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use netdiag_model::snapshot::Snapshot;
use netdiag_views::tui::{Action, ReplayOrder};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::recording::{Frames, Recorder};
use crate::{cli::tui::Tui, exit::Bad};

/// Verdicts of a running agent.
mod events;
/// Looks at this host.
mod host;
/// Packets of this host.
mod packets;
/// What passes in flows.
mod rates;
/// A recording.
mod replay;

/// How long somebody who pressed a key counts as being there.
const PRESENCE: Duration = Duration::from_secs(20);

/// Where looks come from.
pub(super) enum Source {
    /// This host.
    Live,
    /// A snapshot.
    Snapshot(Box<Snapshot>),
    /// A recording.
    Recording(Frames),
}

/// Opens what is to be shown.
///
/// # Errors
/// The file cannot be read, or is neither a snapshot nor a recording.
pub(super) fn open(asked: &Tui) -> anyhow::Result<Source> {
    let Some(file) = &asked.from else { return Ok(Source::Live) };
    let text = fs::read_to_string(file).map_err(|error| Bad::usage(format!("read {}: {error}", file.display())))?;
    if Frames::is_one(&text) {
        let frames = Frames::read(&text).map_err(|why| Bad::usage(format!("{}: {why}", file.display())))?;
        return Ok(Source::Recording(frames));
    }
    let snapshot = Snapshot::from_json(text.as_bytes());
    snapshot.map(|snapshot| Source::Snapshot(Box::new(snapshot))).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        Bad::usage(format!("{} is {error}{cause}", file.display()))
    })
}

/// What the feeds and the screen tell each other.
#[derive(Default)]
struct Shared {
    /// Somebody pressed a key: when.
    presence: Mutex<Option<Instant>>,
    /// A key was pressed.
    pressed: Notify,
    /// Look at once.
    wanted: Notify,
}

impl Shared {
    /// Whether somebody is at the keys.
    fn is_somebody_here(&self) -> bool {
        let at = *self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < PRESENCE)
    }
}

/// A recording that is being made, shared by looks and events.
type Record = Option<Arc<Mutex<Recorder>>>;

/// Feeds that run.
pub(super) struct Feed {
    shared: Arc<Shared>,
    orders: Option<mpsc::UnboundedSender<ReplayOrder>>,
    /// Where packets are watched, and whoever does it.
    place: packets::Place,
    packets: Option<packets::Watcher>,
    rates: Option<rates::Counting>,
}

impl Feed {
    /// Starts them.
    pub(super) fn start(asked: &Tui, source: Source, record: Record, actions: mpsc::Sender<Action>) -> Self {
        let shared = Arc::new(Shared::default());
        let mut feed = Self {
            shared: Arc::clone(&shared),
            orders: None,
            place: packets::Place::of(asked),
            packets: None,
            rates: None,
        };
        match source {
            Source::Live => {
                host::start(asked, shared, record.clone(), actions.clone());
                events::start(asked, record, actions);
            }
            Source::Snapshot(snapshot) => replay::once(*snapshot, actions),
            Source::Recording(frames) => {
                let name = asked.from.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
                feed.orders = Some(replay::start(name, frames, actions));
            }
        }
        feed
    }

    /// Somebody is at the keys: looks come as often as was asked for.
    pub(super) fn somebody_is_here(&self) {
        *self.shared.presence.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.shared.pressed.notify_one();
    }

    /// Watches packets, in place of those that are watched.
    pub(super) fn watch_packets(&mut self, id: Option<String>, snapshot: Arc<Snapshot>, actions: mpsc::Sender<Action>) {
        self.packets = Some(packets::start(self.place.clone(), id, snapshot, actions));
    }

    /// Watches no packets any more.
    pub(super) fn watch_no_packets(&mut self) {
        self.packets = None;
    }

    /// Counts what passes in the flows of a look; in none, where nobody looks at any.
    pub(super) fn count(&mut self, look: Option<&Arc<Snapshot>>, actions: &mpsc::Sender<Action>) {
        match (look, &self.rates) {
            (None, _) => self.rates = None,
            (Some(look), Some(counting)) => counting.look(look),
            (Some(look), None) => {
                self.rates = Some(rates::Counting::start(&self.place, Arc::clone(look), actions.clone()));
            }
        }
    }

    /// Looks at once.
    pub(super) fn look_now(&self) {
        self.shared.wanted.notify_one();
    }

    /// Tells the replay something.
    pub(super) fn order(&self, order: ReplayOrder) {
        if let Some(orders) = &self.orders {
            // A replay that has ended cannot be told anything.
            orders.send(order).ok();
        }
    }
}

/// Begins a recording.
///
/// # Errors
/// The file is there already, or cannot be written.
pub(super) fn record(path: Option<&Path>) -> anyhow::Result<Record> {
    let recorder = path.map(Recorder::create).transpose().context("begin the recording")?;
    Ok(recorder.map(|recorder| Arc::new(Mutex::new(recorder))))
}
