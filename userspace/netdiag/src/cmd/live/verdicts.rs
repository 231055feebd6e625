//! netdiag's own verdicts, from the agent if there is one: it alone knows which rule refused a packet.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use netdiag_agent::stream::{AGENT_SOCKET, EventStream};
use netdiag_model::event::{Decision, Event, VerdictEvent};
use tokio::task::JoinHandle;

/// Verdicts that are kept.
const KEPT: usize = 4_096;

/// Verdicts of the last while.
pub(crate) struct Verdicts {
    // Written by the task that reads the stream, read when a packet has died.
    known: Arc<Mutex<VecDeque<VerdictEvent>>>,
    reader: Option<JoinHandle<()>>,
}

impl Verdicts {
    /// Follows what the agent says; without an agent there is nothing to follow.
    pub(crate) async fn follow(socket: Option<&Path>) -> Self {
        let known = Arc::new(Mutex::new(VecDeque::new()));
        let stream = EventStream::open(socket.unwrap_or(Path::new(AGENT_SOCKET)), None).await;
        let kept = Arc::clone(&known);
        let reader = stream.ok().map(|stream| tokio::spawn(read(stream, kept)));
        Self { known, reader }
    }

    /// Whether there is an agent to say anything.
    pub(crate) const fn are_there(&self) -> bool {
        self.reader.is_some()
    }

    /// Refusals that have come since they were last taken, their times on the clock of sightings.
    pub(crate) fn take(&self) -> Vec<VerdictEvent> {
        let taken = self.known();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).drain(..taken.len()).for_each(drop);
        taken
    }

    /// Those of them that have come since one of a number, which is set to the last one's.
    pub(in crate::cmd) fn since(&self, number: &mut u64) -> Vec<VerdictEvent> {
        let fresh = self.known_if(|event| event.number > *number);
        *number = fresh.last().map_or(*number, |event| event.number);
        fresh
    }

    /// Refusals of the last while, their times on the clock of sightings.
    pub(in crate::cmd) fn known(&self) -> Vec<VerdictEvent> {
        self.known_if(|_| true)
    }

    fn known_if(&self, wanted: impl Fn(&VerdictEvent) -> bool) -> Vec<VerdictEvent> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = super::epoch().0;
        let on_clock =
            |event: &VerdictEvent| VerdictEvent { time_ns: event.time_ns.saturating_sub(epoch), ..event.clone() };
        known.iter().filter(|event| wanted(event)).map(on_clock).collect()
    }
}

impl Drop for Verdicts {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

/// Keeps refusals as they come, until the agent ends.
async fn read(mut stream: EventStream, known: Arc<Mutex<VecDeque<VerdictEvent>>>) {
    while let Ok(Some(event)) = stream.next().await {
        let Event::Verdict(verdict) = event else { continue };
        if verdict.verdict != Decision::Deny {
            continue;
        }
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == KEPT {
            known.pop_front();
        }
        known.push_back(verdict);
    }
}
