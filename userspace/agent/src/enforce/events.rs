//! Records of the ring buffer, with names. Flow: observe.
//!
//! The programs never wake anybody: on a quiet ring that would cost a hundred times what the record does. So whoever reads
//! looks every [`PAUSE`]; the ring holds what 1024 ports within their budget write in that time.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aya::maps::{Map, MapData, RingBuf};
use netdiag_common::abi::{event::Decided, policy::Label, value::Losses};
use netdiag_model::event::{
    Event, LossEvent, VerdictEvent,
    record::{self, Record, Verdict},
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    counters,
    maps::{DECISIONS, MapError, Maps},
    syscall,
};
use crate::events::{Missing, Position};

/// How long nobody looks.
pub const PAUSE: Duration = Duration::from_millis(50);
/// How many records are taken at once, so that whoever reads them does something else in between.
const AT_ONCE: usize = 4096;
/// How often it is asked what did not come out.
const LOSSES_EVERY: Duration = Duration::from_secs(1);
/// What a record takes in the ring: its header, and itself. All are of one size.
const RECORD: u64 = (8 + size_of::<Decided>() as u64).next_multiple_of(8);

/// The reader of the ring buffer; there must be only one.
pub struct Events {
    ring: RingBuf<MapData>,
    maps: Maps,
    /// Losses that were told of, by place of the port.
    told: BTreeMap<u32, Losses>,
    /// Records of kinds nobody knows here.
    unknown: u64,
    /// Number of the last record that was taken, counted since the ring was made.
    taken: u64,
    /// Which ring it is, on this host until the next boot.
    id: u32,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("unknown", &self.unknown).finish_non_exhaustive()
    }
}

impl Events {
    /// Opens the ring of a directory of maps. Losses until now are not told of.
    pub(super) fn open(directory: &Path) -> Result<Self, MapError> {
        let path = directory.join(DECISIONS);
        let failed = |error| open_error(path.clone(), error);
        let map = MapData::from_pin(&path).map_err(failed)?;
        let id = map.info().map_err(failed)?.id();
        let read = syscall::read_so_far(map.fd().as_fd());
        let read = read.map_err(|source| MapError { step: "read", map: path.clone(), source })?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(failed)?;
        let maps = Maps::open(directory, true)?;
        let told = counters::losses(&maps)?;
        Ok(Self { ring, maps, told, unknown: 0, taken: read / RECORD, id })
    }

    /// Reads for as long as it lives, and hands on what it reads in batches. Errors are handed on, too, and reading goes on.
    pub async fn run(mut self, mut hand_on: impl FnMut(Result<Vec<Event>, MapError>)) {
        let mut asked = tokio::time::Instant::now();
        loop {
            let (read, more) = self.drain();
            if read.as_ref().map_or(true, |events| !events.is_empty()) {
                hand_on(read);
            }
            if asked.elapsed() >= LOSSES_EVERY {
                asked = tokio::time::Instant::now();
                let losses = self.losses();
                if losses.as_ref().map_or(true, |events| !events.is_empty()) {
                    hand_on(losses);
                }
            }
            if more {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// What is in the ring, and true if that may not be all.
    pub fn drain(&mut self) -> (Result<Vec<Event>, MapError>, bool) {
        let verdicts = self.take();
        let more = verdicts.len() == AT_ONCE;
        (self.named(&verdicts), more)
    }

    /// Records of kinds nobody knows here, so far.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Where reading begins, or goes on.
    pub fn position(&self) -> Result<Position, MapError> {
        let losses = self.told.iter().map(|(slot, losses)| {
            let port_id = self.maps.port_labels.get(slot)?.map(|label| text(&label, *slot));
            Ok(Missing { slot: *slot, port_id, suppressed: losses.suppressed, lost: losses.lost })
        });
        Ok(Position { ring: self.id, number: self.taken, losses: losses.collect::<Result<_, _>>()? })
    }

    fn take(&mut self) -> Vec<(u64, Verdict)> {
        let mut verdicts = Vec::new();
        while verdicts.len() < AT_ONCE
            && let Some(bytes) = self.ring.next()
        {
            self.taken += 1;
            match record::decode(&bytes) {
                Record::Decided(verdict) => verdicts.push((self.taken, verdict)),
                Record::Unknown { .. } => self.unknown += 1,
            }
        }
        verdicts
    }

    fn named(&self, verdicts: &[(u64, Verdict)]) -> Result<Vec<Event>, MapError> {
        let epoch = epoch();
        let (mut ports, mut rules) = (BTreeMap::new(), BTreeMap::new());
        let mut events = Vec::with_capacity(verdicts.len());
        for (number, verdict) in verdicts {
            let port = name(&mut ports, verdict.slot, |slot| self.maps.port_labels.get(&slot))?;
            let rule = match verdict.rule {
                0 => None,
                number => Some(name(&mut rules, number, |rule| self.maps.rules.get(&rule))?),
            };
            events.push(Event::Verdict(VerdictEvent { number: *number, ..verdict.named(epoch, port, rule) }));
        }
        Ok(events)
    }

    /// What did not come out since the last time.
    pub fn losses(&mut self) -> Result<Vec<Event>, MapError> {
        let now = counters::losses(&self.maps)?;
        let mut events = Vec::new();
        for (slot, losses) in &now {
            let told = self.told.get(slot).copied().unwrap_or_default();
            let suppressed = losses.suppressed.saturating_sub(told.suppressed);
            let lost = losses.lost.saturating_sub(told.lost);
            if suppressed != 0 || lost != 0 {
                let port_id = self.maps.port_labels.get(slot)?.map(|label| text(&label, *slot));
                let slot = Some(*slot);
                let time_ns = nanoseconds();
                events.push(Event::Lost(LossEvent { time_ns, port_id, slot, suppressed, lost, skipped: 0 }));
            }
        }
        self.told = now;
        Ok(events)
    }
}

fn open_error(map: PathBuf, error: aya::maps::MapError) -> MapError {
    MapError { step: "open", map, source: io::Error::other(error) }
}

/// The name of a number, looked up once.
fn name(
    known: &mut BTreeMap<u32, String>,
    number: u32,
    look: impl FnOnce(u32) -> Result<Option<Label>, MapError>,
) -> Result<String, MapError> {
    if let Some(name) = known.get(&number) {
        return Ok(name.clone());
    }
    let name = look(number)?.map_or_else(|| number.to_string(), |label| text(&label, number));
    known.insert(number, name.clone());
    Ok(name)
}

/// A label as text; what has none is called by its number.
pub(crate) fn text(label: &Label, number: u32) -> String {
    let end = label.0.iter().position(|byte| *byte == 0).unwrap_or(label.0.len());
    match &label.0[..end] {
        [] => number.to_string(),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The time of day at which the coarse monotonic clock was 0.
fn epoch() -> u64 {
    let coarse = clock_gettime(ClockId::MonotonicCoarse);
    let coarse = coarse.tv_sec.cast_unsigned() * 1_000_000_000 + coarse.tv_nsec.cast_unsigned();
    nanoseconds().saturating_sub(coarse)
}

/// Nanoseconds since 1970.
fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use netdiag_common::abi::policy::Label;

    use super::text;

    #[test]
    fn a_label_ends_at_its_first_zero_and_what_has_none_is_a_number() {
        let mut label = Label::default();
        assert_eq!(text(&label, 7), "7");
        label.0[..3].copy_from_slice(b"web");
        assert_eq!(text(&label, 7), "web");
        label.0 = [b'x'; 64];
        assert_eq!(text(&label, 7).len(), 64);
    }
}
