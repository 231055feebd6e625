//! The last events, for whoever wants to read them. Flow: observe.
//!
//! Every event has a number, one more than the one before. A reader says how far it has read; where what it wants next has
//! been overwritten, it learns exactly how many it missed. Nobody waits for a reader.
//!
//! These numbers end with the agent. A position does not: it counts what the kernel counts on, so a reader that goes on at
//! the next agent learns exactly what it missed in between.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use netdiag_model::event::Event;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How many events are kept. An event takes some 300 bytes.
const KEPT: usize = 16_384;

/// A place in what the kernel says, the same for this agent and the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which ring buffer; another one where the maps have been made anew.
    pub ring: u32,
    /// Number of the last record before this place.
    pub number: u64,
    /// What had been said not to come out, in all.
    pub losses: Vec<Missing>,
}

/// Records of one port that did not come out, since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Place of the port in the maps.
    pub slot: u32,
    /// Its id.
    pub port_id: Option<String>,
    /// Not written because the port had used up its share.
    pub suppressed: u64,
    /// Not written because the ring buffer was full.
    pub lost: u64,
}

/// A line of a stream that is for whoever may have to go on at the next agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Mark {
    /// The stream begins here.
    Position(Position),
    /// Events until this number were for others.
    Passed {
        /// The number.
        number: u64,
    },
}

impl Position {
    /// Moves over an event.
    pub(crate) fn pass(&mut self, event: &Event) {
        match event {
            Event::Verdict(verdict) => self.number = verdict.number,
            Event::Lost(loss) => {
                if let Some(missing) = self.missing(loss.slot) {
                    missing.port_id.clone_from(&loss.port_id);
                    missing.suppressed += loss.suppressed;
                    missing.lost += loss.lost;
                }
            }
        }
    }

    /// Moves back over an event.
    fn unpass(&mut self, event: &Event) {
        match event {
            Event::Verdict(verdict) => self.number = verdict.number.saturating_sub(1),
            Event::Lost(loss) => {
                if let Some(missing) = self.missing(loss.slot) {
                    missing.suppressed = missing.suppressed.saturating_sub(loss.suppressed);
                    missing.lost = missing.lost.saturating_sub(loss.lost);
                }
            }
        }
    }

    /// What did not come out of a port so far; none where it is nobody's.
    fn missing(&mut self, slot: Option<u32>) -> Option<&mut Missing> {
        let slot = slot?;
        let place = self.losses.iter().position(|missing| missing.slot == slot).unwrap_or_else(|| {
            self.losses.push(Missing { slot, ..Missing::default() });
            self.losses.len() - 1
        });
        self.losses.get_mut(place)
    }

    /// What is missing between here and a later place: of any port, and of single ports. None where the two are of
    /// different ring buffers, so that nothing can be said.
    pub(crate) fn until(&self, later: &Self) -> Option<(u64, Vec<Missing>)> {
        let before = |slot| self.losses.iter().find(|missing| missing.slot == slot).cloned().unwrap_or_default();
        let missing = |now: &Missing| {
            let before = before(now.slot);
            let (suppressed, lost) =
                (now.suppressed.saturating_sub(before.suppressed), now.lost.saturating_sub(before.lost));
            (suppressed + lost > 0).then(|| Missing { suppressed, lost, ..now.clone() })
        };
        (self.ring == later.ring)
            .then(|| (later.number.saturating_sub(self.number), later.losses.iter().filter_map(missing).collect()))
    }
}

/// The last events.
#[derive(Debug)]
pub struct EventLog {
    /// Held for as long as it takes to copy a batch of pointers: readers and the writer take turns.
    kept: Mutex<Kept>,
    /// The number the next event will have.
    next: watch::Sender<u64>,
    most: usize,
}

#[derive(Debug, Default)]
struct Kept {
    /// Number of the oldest event that is kept.
    first: u64,
    events: VecDeque<Arc<Event>>,
    /// Where the next event will be.
    at: Position,
}

/// Events in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// Where to read on.
    pub next: u64,
    /// How many events before these had been overwritten.
    pub skipped: u64,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

impl EventLog {
    /// A log that keeps so many events.
    pub fn keeping(most: usize) -> Self {
        Self { kept: Mutex::default(), next: watch::Sender::new(0), most }
    }

    /// The same log, with events from a place on.
    #[must_use]
    pub fn beginning(self, at: Position) -> Self {
        self.kept().at = at;
        self
    }

    /// The number of the next event, and its place.
    pub fn position(&self) -> (u64, Position) {
        let kept = self.kept();
        (kept.next(), kept.at.clone())
    }

    /// Number and place of the first record after one that was read, perhaps from the agent before.
    pub fn after(&self, record: u64) -> (u64, Position) {
        let kept = self.kept();
        let (mut next, mut at) = (kept.next(), kept.at.clone());
        let (mut back, mut place) = (next, at.clone());
        for event in kept.events.iter().rev() {
            back -= 1;
            place.unpass(event);
            match event.as_ref() {
                Event::Verdict(verdict) if verdict.number <= record => break,
                Event::Verdict(_) => (next, at) = (back, place.clone()),
                Event::Lost(_) => {}
            }
        }
        (next, at)
    }

    /// Adds events, and forgets the oldest where there are too many.
    pub fn push(&self, events: impl IntoIterator<Item = Event>) {
        let mut kept = self.kept();
        for event in events {
            kept.at.pass(&event);
            kept.events.push_back(Arc::new(event));
        }
        while kept.events.len() > self.most {
            kept.events.pop_front();
            kept.first += 1;
        }
        self.next.send_replace(kept.next());
    }

    /// The number the next event will have.
    pub fn next(&self) -> u64 {
        *self.next.borrow()
    }

    /// Events from a number on, at most so many. A number from the future, as after a restart of the agent, is taken for
    /// the present.
    pub fn from(&self, number: u64, most: usize) -> Batch {
        let kept = self.kept();
        let begin = number.clamp(kept.first, kept.next());
        let place = usize::try_from(begin - kept.first).unwrap_or(usize::MAX);
        let events: Vec<_> = kept.events.iter().skip(place).take(most).cloned().collect();
        let next = begin + events.len() as u64;
        Batch { events, next, skipped: begin.saturating_sub(number) }
    }

    /// Waits until there is an event of a number, or the log has ended.
    pub async fn reached(&self, number: u64) {
        // It fails only once the log is gone, and then nothing will come any more.
        drop(self.next.subscribe().wait_for(|next| *next > number).await);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that can panic happens under the lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{EventLog, Missing, Position};
    use netdiag_model::{
        event::{Decision, Event, LossEvent, VerdictEvent},
        policy::types::Direction,
    };
    use std::{sync::Arc, time::Duration};

    fn events(numbers: std::ops::Range<u64>) -> impl Iterator<Item = Event> {
        numbers.map(|number| Event::Lost(LossEvent { lost: number, ..LossEvent::default() }))
    }

    fn numbers(log: &EventLog, from: u64, most: usize) -> (Vec<u64>, u64, u64) {
        let batch = log.from(from, most);
        let number = |event: &Arc<Event>| match event.as_ref() {
            Event::Lost(loss) => loss.lost,
            Event::Verdict(_) => unreachable!("none was pushed"),
        };
        (batch.events.iter().map(number).collect(), batch.next, batch.skipped)
    }

    #[test]
    fn a_reader_that_keeps_up_sees_every_event_once() {
        let log = EventLog::keeping(4);
        log.push(events(0..3));
        assert_eq!(numbers(&log, 0, 2), (vec![0, 1], 2, 0));
        assert_eq!(numbers(&log, 2, 9), (vec![2], 3, 0));
        log.push(events(3..4));
        assert_eq!(numbers(&log, 3, 9), (vec![3], 4, 0));
    }

    #[test]
    fn a_reader_that_is_too_slow_learns_exactly_how_many_it_missed() {
        let log = EventLog::keeping(4);
        log.push(events(0..10));
        assert_eq!(numbers(&log, 1, 9), (vec![6, 7, 8, 9], 10, 5));
        assert_eq!(numbers(&log, 10, 9), (vec![], 10, 0));
    }

    #[test]
    fn a_number_from_before_a_restart_is_taken_for_the_present() {
        let log = EventLog::keeping(4);
        log.push(events(0..2));
        assert_eq!(numbers(&log, 1000, 9), (vec![], 2, 0));
    }

    fn verdict(number: u64) -> Event {
        Event::Verdict(VerdictEvent {
            number,
            time_ns: 0,
            port_id: "p".to_owned(),
            instance: None,
            device: None,
            direction: Direction::Ingress,
            verdict: Decision::Deny,
            reason: "no-rule".to_owned(),
            ethertype: 0,
            protocol: None,
            source: None,
            destination: None,
            source_port: 0,
            destination_port: 0,
            rule: None,
            length: 0,
        })
    }

    fn lost(slot: u32, lost: u64) -> Event {
        Event::Lost(LossEvent { slot: Some(slot), lost, ..LossEvent::default() })
    }

    fn missing(slot: u32, lost: u64) -> Missing {
        Missing { slot, lost, ..Missing::default() }
    }

    #[test]
    fn a_reader_goes_on_at_the_next_agent_and_what_is_missing_is_counted() {
        // The agent before had read 7 records, and had told of 5 that did not come out.
        let reader = Position { ring: 3, number: 7, losses: vec![missing(1, 5)] };
        let begin = Position { ring: 3, number: 9, losses: vec![missing(1, 5), missing(2, 1)] };
        let log = EventLog::keeping(9).beginning(begin);
        log.push([lost(1, 10), verdict(10), lost(1, 1), verdict(11)]);
        let (next, at) = log.after(reader.number);
        assert_eq!(next, 1, "the losses before are in what is counted");
        assert_eq!(reader.until(&at), Some((2, vec![missing(1, 10), missing(2, 1)])));
        // A reader that has read the first of them goes on behind it.
        let (next, at) = log.after(10);
        assert_eq!((next, at.number, at.losses[0].lost), (3, 10, 16));
        assert_eq!(log.after(11), log.position());
        let other = Position { ring: 4, ..at };
        assert_eq!(reader.until(&other), None, "other maps count something else");
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_the_event_it_waits_for() {
        let log = Arc::new(EventLog::keeping(4));
        let waiting = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.reached(1).await }
        });
        log.push(events(0..1));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished(), "event 1 has not come");
        log.push(events(1..2));
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("woken").expect("no panic");
    }
}
