//! Events: once, or on and on as lines of JSON. Flow: observe.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use netdiag_model::event::{Event, LossEvent};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::{Semaphore, TryAcquireError},
    time::timeout,
};

use super::{Api, connection::Leave, error::ApiError};
use crate::events::{Batch, EventLog, Mark, Position};

/// Readers that wait at once; the other connections are for those who do not.
static WAITING: Semaphore = Semaphore::const_new(32);
/// Events in one answer.
const BATCH: usize = 1024;
/// The longest a reader waits.
const LONGEST: u64 = 300;

/// What of the events, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Number of the first; the next one to come where it is not given.
    since: Option<u64>,
    /// Seconds to wait for it.
    #[serde(default)]
    timeout: u64,
    /// Go on, line after line.
    #[serde(default)]
    stream: bool,
    /// Of this port only.
    port: Option<String>,
    /// Say where the stream begins, and how far it is where events are for others.
    #[serde(default)]
    position: bool,
    /// Number of the last record that was read, perhaps from the agent before: a stream goes on behind it.
    after: Option<u64>,
}

/// Answers with events.
pub(super) async fn read(
    Shared(api): Shared<Arc<Api>>,
    Extension(leave): Extension<Leave>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(wanted) = wanted.map_err(|rejection| {
        ApiError::bad("", rejection.body_text()).valid([
            "since=N",
            "timeout=S",
            "stream=true",
            "port=ID",
            "position=true",
            "after=N",
        ])
    })?;
    if wanted.timeout > LONGEST {
        return Err(ApiError::bad("timeout", format!("is more than {LONGEST} s")));
    }
    let place = WAITING.try_acquire().map_err(|error| match error {
        TryAcquireError::NoPermits | TryAcquireError::Closed => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many readers of events")
        }
    })?;
    if wanted.stream {
        // It loses events, and nobody else does.
        leave.give();
        let lines = Lines::begin(&api.events, wanted);
        let lines = stream::unfold((lines, place), |(mut lines, place)| async move {
            let bytes = lines.next().await;
            Some((Ok::<_, Infallible>(bytes), (lines, place)))
        });
        return Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response());
    }
    let since = wanted.since.unwrap_or_else(|| api.events.next());
    // That nothing came is an answer.
    drop(timeout(Duration::from_secs(wanted.timeout), api.events.reached(since)).await);
    let Batch { mut events, next, skipped } = api.events.from(since, BATCH);
    events.retain(|event| is_of(event, wanted.port.as_deref()));
    let events: Vec<_> = events.iter().map(AsRef::as_ref).collect();
    Ok(Json(json!({ "events": events, "next": next, "skipped": skipped })).into_response())
}

/// A stream of lines for one reader.
struct Lines {
    log: Arc<EventLog>,
    next: u64,
    port: Option<String>,
    /// Whether the reader wants to go on at the next agent.
    marks: bool,
    /// Where it begins, until it was said.
    begin: Option<Position>,
}

impl Lines {
    fn begin(log: &Arc<EventLog>, wanted: Wanted) -> Self {
        let Wanted { since, port, position, after, .. } = wanted;
        let (next, at) = after.map_or_else(|| log.position(), |record| log.after(record));
        let next = since.unwrap_or(next);
        Self { log: Arc::clone(log), next, port, marks: position, begin: position.then_some(at) }
    }

    /// The next lines, as soon as there are some. What was overwritten meanwhile is a line of its own.
    async fn next(&mut self) -> Bytes {
        if let Some(at) = self.begin.take() {
            let mut first = Vec::new();
            line(&Mark::Position(at), &mut first);
            return first.into();
        }
        loop {
            self.log.reached(self.next).await;
            let Batch { events, next, skipped } = self.log.from(self.next, BATCH);
            self.next = next;
            let mut lines = Vec::new();
            if skipped > 0 {
                line(&Event::Lost(LossEvent { time_ns: now(), skipped, ..LossEvent::default() }), &mut lines);
            }
            events
                .iter()
                .filter(|event| is_of(event, self.port.as_deref()))
                .for_each(|event| line(event.as_ref(), &mut lines));
            if self.marks
                && let Some(number) = passed(&events, self.port.as_deref())
            {
                line(&Mark::Passed { number }, &mut lines);
            }
            if !lines.is_empty() {
                return lines.into();
            }
        }
    }
}

fn line(event: &impl Serialize, lines: &mut Vec<u8>) {
    let whole = lines.len();
    // An event is made of what JSON has; should one not be, it is no half a line.
    match serde_json::to_writer(&mut *lines, event) {
        Ok(()) => lines.push(b'\n'),
        Err(_) => lines.truncate(whole),
    }
}

/// How far events went that are for others, where they are the last ones.
fn passed(events: &[Arc<Event>], port: Option<&str>) -> Option<u64> {
    let mut verdicts = events.iter().rev().filter_map(|event| match event.as_ref() {
        Event::Verdict(verdict) => Some(verdict),
        Event::Lost(_) => None,
    });
    verdicts.next().filter(|verdict| port.is_some_and(|port| verdict.port_id != port)).map(|verdict| verdict.number)
}

/// Whether a reader of one port's events wants to know.
fn is_of(event: &Event, port: Option<&str>) -> bool {
    port.is_none_or(|port| match event {
        Event::Verdict(verdict) => verdict.port_id == port,
        Event::Lost(loss) => loss.port_id.as_deref().is_none_or(|of| of == port),
    })
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Lines;
    use crate::events::EventLog;
    use netdiag_model::event::{Event, LossEvent};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_stream_that_was_not_read_for_long_says_how_many_events_it_skipped() {
        let log = Arc::new(EventLog::keeping(2));
        let event = |lost| Event::Lost(LossEvent { lost, ..LossEvent::default() });
        let mut lines = Lines { log: Arc::clone(&log), next: 0, port: None, marks: false, begin: None };
        log.push((0..5).map(event));
        let text = String::from_utf8(lines.next().await.to_vec()).unwrap();
        let read: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(matches!(&read[0], Event::Lost(loss) if loss.skipped == 3), "{text}");
        assert_eq!(read[1..], [event(3), event(4)]);
        log.push([event(5)]);
        let text = String::from_utf8(lines.next().await.to_vec()).unwrap();
        assert_eq!(text.lines().count(), 1, "nothing is skipped any more: {text}");
    }
}
