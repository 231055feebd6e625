//! Looks and verdicts in a file, one a line, each with its time: what `--record` writes and `--from` replays.
//!
//! ```text
//! {"netdiag_recording":1}
//! {"at_ms":1793204439000,"snapshot":{…}}
//! {"at_ms":1793204439120,"event":{…}}
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use netdiag_model::{event::Event, snapshot::Snapshot};
use serde::{Deserialize, Serialize};

use crate::exit::Bad;

/// Version of this format.
const VERSION: u32 = 1;

/// The first line.
#[derive(Deserialize, Serialize)]
struct Head {
    netdiag_recording: u32,
}

/// A line, as it is written.
#[derive(Serialize)]
struct Written<'a> {
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<&'a Snapshot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a Event>,
}

/// A line, as far as it has to be understood to find its place.
#[derive(Deserialize)]
struct Read {
    at_ms: u64,
    #[serde(default)]
    snapshot: Option<Box<serde_json::value::RawValue>>,
    #[serde(default)]
    event: Option<Event>,
}

/// A recording that is being made.
pub(super) struct Recorder {
    out: BufWriter<File>,
}

impl Recorder {
    /// Begins a file that is not there yet.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| Bad::usage(format!("record to {}: {error}", path.display())))?;
        let mut recorder = Self { out: BufWriter::new(file) };
        recorder.line(&Head { netdiag_recording: VERSION })?;
        Ok(recorder)
    }

    /// Adds a look.
    pub(super) fn snapshot(&mut self, at_ms: u64, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.line(&Written { at_ms, snapshot: Some(snapshot), event: None })
    }

    /// Adds a verdict.
    pub(super) fn event(&mut self, at_ms: u64, event: &Event) -> anyhow::Result<()> {
        self.line(&Written { at_ms, snapshot: None, event: Some(event) })
    }

    fn line(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")?;
        // A recording that ends with the host is readable up to its last line.
        self.out.flush().context("write the recording")
    }
}

/// A recording that was read.
#[derive(Debug, Default)]
pub(super) struct Frames {
    frames: Vec<Frame>,
}

/// A look with what came before it.
#[derive(Debug)]
pub(super) struct Frame {
    /// When.
    pub(super) at_ms: u64,
    /// The look, still as text.
    snapshot: String,
    /// Verdicts since the look before.
    pub(super) events: Vec<Event>,
}

impl Frame {
    /// The look.
    pub(super) fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Ok(Snapshot::from_json(self.snapshot.as_bytes())?)
    }
}

impl Frames {
    /// Whether a text is a recording, by its first line.
    pub(super) fn is_one(text: &str) -> bool {
        text.lines().next().is_some_and(|line| serde_json::from_str::<Head>(line).is_ok())
    }

    /// Reads a recording.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate();
        let head = lines.next().and_then(|(_, line)| serde_json::from_str::<Head>(line).ok());
        match head {
            Some(Head { netdiag_recording: VERSION }) => {}
            Some(Head { netdiag_recording: other }) => {
                return Err(format!("a recording of version {other}; this netdiag reads version {VERSION}"));
            }
            None => return Err("not a recording".to_owned()),
        }
        let (mut frames, mut events) = (Vec::new(), Vec::new());
        let last = text.lines().count().saturating_sub(1);
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let read: Read = match serde_json::from_str(line) {
                Ok(read) => read,
                // Whoever recorded was ended in the middle of it.
                Err(_) if number == last => break,
                Err(error) => return Err(format!("line {}: {error}", number + 1)),
            };
            events.extend(read.event);
            if let Some(snapshot) = read.snapshot {
                let snapshot = snapshot.get().to_owned();
                frames.push(Frame { at_ms: read.at_ms, snapshot, events: std::mem::take(&mut events) });
            }
        }
        if let Some(last) = frames.last_mut() {
            last.events.extend(events);
        }
        if frames.is_empty() { Err("a recording without a look".to_owned()) } else { Ok(Self { frames }) }
    }

    /// How many looks there are.
    pub(super) const fn looks(&self) -> usize {
        self.frames.len()
    }

    /// A look by its place, from 0.
    pub(super) fn get(&self, place: usize) -> Option<&Frame> {
        self.frames.get(place)
    }
}

#[cfg(test)]
mod tests {
    use netdiag_model::{
        event::{Event, LossEvent},
        fact::Facts,
        snapshot::Snapshot,
    };

    use super::{Frames, Recorder};

    fn look(hostname: &str) -> Snapshot {
        let (kernel, netdiag) = (String::new(), String::new());
        let (schema_version, facts) = (Snapshot::VERSION, Facts::default());
        Snapshot { schema_version, taken_at: 7, hostname: hostname.to_owned(), kernel, netdiag, facts }
    }

    #[test]
    fn what_was_recorded_is_read_back_even_if_the_end_is_missing() {
        let path = std::env::temp_dir().join(format!("netdiag-recording-{}", std::process::id()));
        let mut recorder = Recorder::create(&path).unwrap();
        let lost = Event::Lost(LossEvent { lost: 3, ..LossEvent::default() });
        recorder.event(900, &lost).unwrap();
        recorder.snapshot(1000, &look("a")).unwrap();
        recorder.snapshot(2000, &look("b")).unwrap();
        recorder.event(2500, &lost).unwrap();
        assert!(Recorder::create(&path).is_err(), "nobody's recording is overwritten");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(Frames::is_one(&text) && !Frames::is_one("{\"schema_version\":1}"));
        let frames = Frames::read(&text).unwrap();
        assert_eq!(frames.looks(), 2);
        assert_eq!(frames.get(1).unwrap().snapshot().unwrap(), look("b"));
        let events: Vec<usize> = (0..2).map(|place| frames.get(place).unwrap().events.len()).collect();
        assert_eq!(events, [1, 1]);
        let torn = &text[..text.len() - 20];
        assert_eq!(Frames::read(torn).unwrap().looks(), 2);
        let broken = text.replacen("\"at_ms\":1000", "\"at_ms\":x", 1);
        assert!(Frames::read(&broken).unwrap_err().starts_with("line 3: "));
        assert!(Frames::read("{\"netdiag_recording\":9}").unwrap_err().contains("version 9"));
    }
}
