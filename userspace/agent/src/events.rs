//! The last events, for whoever wants to read them. Flow: observe.
//!
//! Every event has a number, one more than the one before. A reader says how far it has read; where what it wants next has
//! been overwritten, it learns exactly how many it missed. Nobody waits for a reader.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use netdiag_model::event::Event;
use tokio::sync::watch;

/// How many events are kept. An event takes some 300 bytes.
const KEPT: usize = 16_384;

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

    /// Adds events, and forgets the oldest where there are too many.
    pub fn push(&self, events: impl IntoIterator<Item = Event>) {
        let mut kept = self.kept();
        kept.events.extend(events.into_iter().map(Arc::new));
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
    use super::EventLog;
    use netdiag_model::event::{Event, LossEvent};
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
