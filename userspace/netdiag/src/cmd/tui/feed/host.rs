//! Looks at this host: as often as was asked for while somebody is at the keys, and else so seldom that looking takes no more
//! than a hundredth of a core.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use netdiag_agent::{
    client::Client,
    discover::{self, Options},
    doctor,
    stream::AGENT_SOCKET,
};
use netdiag_model::{doctor::Report, snapshot::Snapshot};
use netdiag_views::tui::{Action, Agent, Extra, Look, Trouble};
use tokio::sync::mpsc;

use super::{Record, Shared};
use crate::{
    cli::tui::Tui,
    cmd::tui::{now_ms, own},
    config,
};

/// How long the agent may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looking takes at most one part in so many of a core while nobody is there: with drawing, it stays below a hundredth.
const SHARE: u32 = 150;

/// And of the time while somebody is: what is looked at has other work to do.
const SHARE_IN_USE: u32 = 4;

/// The longest pause.
const LONGEST: Duration = Duration::from_mins(5);

/// What is kept from look to look.
struct Host {
    options: Options,
    client: Client,
    interval: Duration,
    shared: Arc<Shared>,
    record: Record,
    actions: mpsc::Sender<Action>,
    before: Option<Arc<Look>>,
    doctor: Option<Report>,
    /// The agent's process, and what it had used when.
    agent: Option<(u32, Instant, Duration)>,
}

/// Looks until nobody wants to know any more.
pub(super) fn start(asked: &Tui, shared: Arc<Shared>, record: Record, actions: mpsc::Sender<Action>) {
    let options = Options { flows: true, ..config::all_options(&asked.sockets, &asked.enforced) };
    let socket = asked.enforced.agent_socket.as_deref().unwrap_or(Path::new(AGENT_SOCKET));
    let host = Host {
        client: Client::new(socket, PATIENCE),
        interval: Duration::from_secs(asked.interval),
        options,
        shared,
        record,
        actions,
        before: None,
        doctor: None,
        agent: None,
    };
    // On a thread of its own: looking reads much, and a look is no future that may move between threads.
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || runtime.block_on(host.run()));
}

impl Host {
    async fn run(mut self) {
        loop {
            let (began, used) = (Instant::now(), own::used());
            if self.look().await.is_none() {
                return;
            }
            // The host's own checks make devices and load programs: once, after the first look, and when asked.
            if self.doctor.is_none() {
                let report = doctor::examine(&self.options).await;
                self.doctor = Some(report);
                continue;
            }
            let cost = own::used().saturating_sub(used);
            if self.pause(began, cost).await {
                self.doctor = None;
            }
        }
    }

    /// Looks once; none where nobody wants to know.
    async fn look(&mut self) -> Option<()> {
        let began = Instant::now();
        let snapshot = Arc::new(discover::look(self.options.clone()).await);
        let agent = self.ask().await;
        let at_ms = now_ms();
        self.write(at_ms, &snapshot).await?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let extra = Extra { at_ms, agent, doctor: self.doctor.clone(), took_ms };
        let before = self.before.take();
        let made = tokio::task::spawn_blocking(move || Arc::new(Look::of(&snapshot, extra, before.as_deref())));
        let look = made.await.ok()?;
        self.before = Some(Arc::clone(&look));
        self.actions.send(Action::Look(look)).await.ok()
    }

    /// What the agent says of itself.
    async fn ask(&mut self) -> Agent {
        match self.client.status().await {
            Ok(status) => {
                let cpu = self.cpu_of(status.agent.pid);
                Agent::Answers(Box::new(status), cpu)
            }
            Err(error) => Agent::Silent(format!("{:#}", anyhow::Error::new(error))),
        }
    }

    /// The share of a core the agent has used since the look before.
    fn cpu_of(&mut self, pid: u32) -> Option<u32> {
        let (now, used) = (Instant::now(), own::used_by(pid)?);
        let before = self.agent.replace((pid, now, used)).filter(|(before, ..)| *before == pid)?;
        Some(own::share(used.checked_sub(before.2)?, now.duration_since(before.1)))
    }

    /// Records the look, where a recording is made.
    async fn write(&self, at_ms: u64, snapshot: &Arc<Snapshot>) -> Option<()> {
        let Some(record) = self.record.clone() else { return Some(()) };
        let snapshot = Arc::clone(snapshot);
        let written = tokio::task::spawn_blocking(move || {
            record.lock().unwrap_or_else(PoisonError::into_inner).snapshot(at_ms, &snapshot)
        });
        if let Err(error) = written.await.ok()? {
            let trouble = Trouble {
                what: "the recording could not be written".to_owned(),
                cause: format!("{error:#}"),
                advice: "make room, then begin anew".to_owned(),
            };
            self.actions.send(Action::Trouble(Some(trouble))).await.ok()?;
        }
        Some(())
    }

    /// Waits for the time of the next look; whether somebody asked for it.
    async fn pause(&self, began: Instant, cost: Duration) -> bool {
        loop {
            let pause = pause(self.interval, cost, self.shared.is_somebody_here());
            let left = pause.saturating_sub(began.elapsed());
            let next = now_ms().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            // Without anybody to tell, the next look ends it.
            drop(self.actions.send(Action::NextLook(next)).await);
            tokio::select! {
                () = tokio::time::sleep(left) => return false,
                () = self.shared.wanted.notified() => return true,
                () = self.shared.pressed.notified() => {}
            }
        }
    }
}

/// How long from look to look, where one takes this much of a core.
fn pause(interval: Duration, cost: Duration, somebody_is_here: bool) -> Duration {
    let share = if somebody_is_here { SHARE_IN_USE } else { SHARE };
    interval.max((cost * share).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause;

    #[test]
    fn looking_takes_a_hundredth_of_a_core_while_nobody_is_there() {
        let second = Duration::from_secs(1);
        let cheap = Duration::from_millis(5);
        assert_eq!(pause(second, cheap, false), second);
        let dear = Duration::from_millis(200);
        assert_eq!(pause(second, dear, false), Duration::from_secs(30));
        assert_eq!(pause(second, dear, true), second);
        assert_eq!(pause(second, second, false), Duration::from_secs(150), "on a host with hundreds of namespaces too");
        assert_eq!(pause(second, Duration::from_secs(2), true), Duration::from_secs(8));
        assert_eq!(pause(second, Duration::from_secs(9), false), Duration::from_mins(5));
        assert_eq!(
            pause(Duration::from_mins(9), dear, true),
            Duration::from_mins(9),
            "never more often than asked for"
        );
    }
}
