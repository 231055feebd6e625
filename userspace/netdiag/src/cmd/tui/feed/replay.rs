//! A snapshot, which is shown once, and a recording, which is shown as it was: at its speed, faster, slower, look by look.

use std::{sync::Arc, time::Duration};

use netdiag_model::snapshot::Snapshot;
use netdiag_views::tui::{Action, Extra, Look, Replay, ReplayOrder, Stream, Trouble};
use tokio::sync::mpsc;

use crate::cmd::tui::recording::{Frame, Frames};

/// The slowest and the fastest.
const SPEEDS: (f64, f64) = (1.0 / 16.0, 64.0);

/// The longest wait for the next look, however slow.
const LONGEST: Duration = Duration::from_hours(1);

/// Shows a snapshot.
pub(super) fn once(snapshot: Snapshot, actions: mpsc::Sender<Action>) {
    tokio::task::spawn_blocking(move || {
        let at_ms = snapshot.taken_at.saturating_mul(1000);
        let look = Look::of(&Arc::new(snapshot), Extra { at_ms, ..Extra::default() }, None);
        // Without anybody to tell, all is over.
        drop(actions.blocking_send(Action::Look(Arc::new(look))));
    });
}

/// A replay that runs.
struct Player {
    frames: Arc<Frames>,
    replay: Replay,
    before: Option<Arc<Look>>,
    /// How many looks were shown with the verdicts before them: each verdict came once.
    told: usize,
    actions: mpsc::Sender<Action>,
}

/// Starts a replay; what it can be told goes where this says.
pub(super) fn start(file: String, frames: Frames, actions: mpsc::Sender<Action>) -> mpsc::UnboundedSender<ReplayOrder> {
    let (orders, told) = mpsc::unbounded_channel();
    let replay = Replay { file, speed: 1.0, at: 1, of: frames.looks() };
    let player = Player { frames: Arc::new(frames), replay, before: None, told: 0, actions };
    tokio::spawn(player.run(told));
    orders
}

impl Player {
    async fn run(mut self, mut told: mpsc::UnboundedReceiver<ReplayOrder>) {
        if self.actions.send(Action::Stream(Stream::Open)).await.is_err() || self.show(true).await.is_none() {
            return;
        }
        loop {
            let (moved, onward) = tokio::select! {
                () = wait(self.pause()) => (self.go(1), true),
                order = told.recv() => match order {
                    None => return,
                    Some(ReplayOrder::Faster) => (self.pace(2.0), false),
                    Some(ReplayOrder::Slower) => (self.pace(0.5), false),
                    Some(ReplayOrder::Back) => (self.go(-1), false),
                    Some(ReplayOrder::On) => (self.go(1), true),
                },
            };
            if self.actions.send(Action::Replay(self.replay.clone())).await.is_err() {
                return;
            }
            if moved && self.show(onward).await.is_none() {
                return;
            }
        }
    }

    /// Time until the next look; none after the last.
    fn pause(&self) -> Option<Duration> {
        let (now, next) = (self.frames.get(self.replay.at - 1)?, self.frames.get(self.replay.at)?);
        let millis = next.at_ms.saturating_sub(now.at_ms);
        let pause = Duration::from_millis(millis).div_f64(self.replay.speed);
        Some(pause.min(LONGEST))
    }

    /// To another look; whether there is one.
    fn go(&mut self, by: isize) -> bool {
        let at = self.replay.at.saturating_add_signed(by).clamp(1, self.replay.of);
        std::mem::replace(&mut self.replay.at, at) != at
    }

    /// Faster or slower; the look stays.
    fn pace(&mut self, by: f64) -> bool {
        self.replay.speed = (self.replay.speed * by).clamp(SPEEDS.0, SPEEDS.1);
        false
    }

    /// Shows the look, and, where it goes on to one that was not seen yet, the verdicts that came before it.
    async fn show(&mut self, onward: bool) -> Option<()> {
        let (frames, place) = (Arc::clone(&self.frames), self.replay.at - 1);
        let before = self.before.take().filter(|_| onward);
        let made = tokio::task::spawn_blocking(move || frames.get(place).map(|frame| look(frame, before.as_deref())));
        match made.await.ok()?? {
            Ok(look) => {
                self.before = Some(Arc::clone(&look));
                if onward && place >= self.told {
                    self.told = place + 1;
                    let events = self.frames.get(place)?.events.clone();
                    self.actions.send(Action::Events(events)).await.ok()?;
                }
                self.actions.send(Action::Look(look)).await.ok()
            }
            Err(error) => {
                let trouble = Trouble {
                    what: format!("look {} of the recording cannot be shown", self.replay.at),
                    cause: format!("{error:#}"),
                    advice: "go on to the next one, or record anew with this netdiag".to_owned(),
                };
                self.actions.send(Action::Trouble(Some(trouble))).await.ok()
            }
        }
    }
}

fn look(frame: &Frame, before: Option<&Look>) -> anyhow::Result<Arc<Look>> {
    let snapshot = Arc::new(frame.snapshot()?);
    let extra = Extra { at_ms: frame.at_ms, ..Extra::default() };
    Ok(Arc::new(Look::of(&snapshot, extra, before)))
}

/// Waits this long; for ever where it is not said how long.
async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use netdiag_model::{
        event::{Event, LossEvent},
        fact::Facts,
    };

    use super::*;

    /// Two looks, before each of them as many verdicts as its number, and one after the last.
    fn frames() -> Frames {
        let snapshot = |hostname: &str| Snapshot {
            schema_version: Snapshot::VERSION,
            taken_at: 7,
            hostname: hostname.to_owned(),
            kernel: String::new(),
            netdiag: String::new(),
            facts: Facts::default(),
        };
        let event = serde_json::json!({ "at_ms": 1, "event": Event::Lost(LossEvent::default()) });
        let look = |name: &str| serde_json::json!({ "at_ms": 1_000_000, "snapshot": snapshot(name) });
        let far = serde_json::json!({ "at_ms": 9_000_000, "snapshot": snapshot("b") });
        let lines = [&serde_json::json!({ "netdiag_recording": 1 }), &event, &look("a"), &event, &event, &far]
            .map(ToString::to_string);
        Frames::read(&lines.join("\n")).unwrap()
    }

    /// What comes until a look is shown: the number of verdicts.
    async fn until_look(came: &mut mpsc::Receiver<Action>) -> usize {
        let mut events = 0;
        loop {
            let action = came.recv().await.unwrap();
            if let Action::Events(more) = &action {
                events += more.len();
            }
            if matches!(action, Action::Look(_)) {
                return events;
            }
        }
    }

    #[tokio::test]
    async fn one_goes_back_and_on_and_every_verdict_comes_once() {
        let (actions, mut came) = mpsc::channel(64);
        let orders = start("day.jsonl".to_owned(), frames(), actions);
        assert_eq!(until_look(&mut came).await, 1);
        orders.send(ReplayOrder::On).unwrap();
        assert_eq!(until_look(&mut came).await, 2);
        orders.send(ReplayOrder::Back).unwrap();
        assert_eq!(until_look(&mut came).await, 0);
        orders.send(ReplayOrder::On).unwrap();
        assert_eq!(until_look(&mut came).await, 0, "they have come");
    }
}
