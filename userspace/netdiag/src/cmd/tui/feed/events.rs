//! Verdicts of a running agent, in batches; when it ends, the next one is waited for.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    sync::PoisonError,
    time::Duration,
};

use netdiag_agent::stream::{AGENT_SOCKET, Between, EventStream, StreamError};
use netdiag_model::event::Event;
use netdiag_views::tui::{Action, Stream};
use tokio::sync::mpsc;

use super::Record;
use crate::{cli::tui::Tui, cmd::tui::now_ms};

/// How long to wait before the agent is asked again.
const PAUSE: Duration = Duration::from_secs(2);

/// How often what has come is shown.
const BATCH: Duration = Duration::from_millis(100);

/// How many verdicts may wait to be shown; beyond it, the agent counts what it cannot hand on.
const WAITING: usize = 8192;

/// Follows the agent until nobody wants to know any more.
pub(super) fn start(asked: &Tui, record: Record, actions: mpsc::Sender<Action>) {
    let socket = asked.enforced.agent_socket.clone().unwrap_or_else(|| AGENT_SOCKET.into());
    let (events, came) = mpsc::channel(WAITING);
    tokio::spawn(batches(came, record, actions.clone()));
    tokio::spawn(follow(socket, events, actions));
}

/// Reads one after the other. A reader that is not fast enough is told by the agent how much it missed.
async fn follow(socket: PathBuf, events: mpsc::Sender<Event>, actions: mpsc::Sender<Action>) {
    let Some(mut stream) = open(&socket, &actions).await else { return };
    loop {
        while let Ok(Some(event)) = stream.next().await {
            if events.send(event).await.is_err() {
                return;
            }
        }
        let ended = "the agent has ended; waiting for it to come back, nothing is missed until its maps are made anew";
        if tell(&actions, Stream::Absent(ended.to_owned())).await.is_none() {
            return;
        }
        let between = loop {
            match stream.resume().await {
                Ok(between) => break between,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            if actions.is_closed() {
                return;
            }
        };
        let word = match between {
            Between::Counted => "the agent is back; what was missed is counted",
            Between::Unknown => "the agent is back with new maps: how much was missed is not known",
        };
        if tell(&actions, Stream::Open).await.is_none() || actions.send(Action::Say(word.to_owned())).await.is_err() {
            return;
        }
    }
}

/// Waits for an agent to answer; none where nobody wants to know.
async fn open(socket: &Path, actions: &mpsc::Sender<Action>) -> Option<EventStream> {
    let mut told = String::new();
    loop {
        match EventStream::open(socket, None).await {
            Ok(stream) => {
                tell(actions, Stream::Open).await?;
                return Some(stream);
            }
            Err(error) => {
                let why = words(&error);
                if why != told {
                    tell(actions, Stream::Absent(why.clone())).await?;
                    told = why;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
        if actions.is_closed() {
            return None;
        }
    }
}

/// Why there are no events, and what to do.
fn words(error: &StreamError) -> String {
    let denied =
        matches!(error, StreamError::Connect { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
    let advice = if denied {
        "be root, or in the group of the socket"
    } else {
        "verdicts come from a running agent: netdiag agent"
    };
    let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{error}{cause}; {advice}")
}

async fn tell(actions: &mpsc::Sender<Action>, stream: Stream) -> Option<()> {
    actions.send(Action::Stream(stream)).await.ok()
}

/// Hands on what has come, some times a second.
async fn batches(mut came: mpsc::Receiver<Event>, record: Record, actions: mpsc::Sender<Action>) {
    loop {
        let mut batch = Vec::new();
        if came.recv_many(&mut batch, WAITING).await == 0 {
            return;
        }
        if let Some(record) = &record {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            let now = now_ms();
            // The next look says that the file cannot be written.
            drop(batch.iter().try_for_each(|event| record.event(now, event)));
        }
        if actions.send(Action::Events(batch)).await.is_err() {
            return;
        }
        tokio::time::sleep(BATCH).await;
    }
}
