//! What is seen, as it is printed: line by line for whoever reads along, or all at the end.

use std::io::{self, BufWriter, Write as _};

use anyhow::Context as _;
use netdiag_model::live::{
    Sighting,
    points::Points,
    report::{Summary, Told, Watch},
};
use netdiag_views::{
    json,
    json_schema::{LiveDocument, LiveLine, PacketDocument},
    pcapng,
    text::{self, Style, live::Epoch},
};

use crate::cli::TraceOutput;

/// Forms of what is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Blocks of text.
    Text,
    /// One document at the end.
    Json,
    /// One line a packet.
    Lines,
    /// A capture file; text goes to standard error.
    Capture,
}

/// A standard stream that holds back what is not a whole block yet.
type Out = BufWriter<Box<dyn io::Write>>;

/// Prints what is seen.
pub(super) struct Show {
    form: Form,
    style: Style,
    epoch: Epoch,
    out: Out,
    capture: Option<pcapng::Writer<Out>>,
    /// Of one document: what there is so far.
    watch: Option<Watch>,
    packets: Vec<PacketDocument>,
}

impl Show {
    pub(super) fn begin(output: TraceOutput, style: Style, epoch: Epoch) -> anyhow::Result<Self> {
        let form = super::form(output)?;
        let stdout = || BufWriter::new(Box::new(io::stdout()) as Box<dyn io::Write>);
        let (out, capture) = match form {
            Form::Capture => {
                let file = pcapng::Writer::begin(stdout(), epoch).context("write to standard output")?;
                (BufWriter::new(Box::new(io::stderr()) as Box<dyn io::Write>), Some(file))
            }
            Form::Text | Form::Json | Form::Lines => (stdout(), None),
        };
        Ok(Self { form, style, epoch, out, capture, watch: None, packets: Vec::new() })
    }

    /// What is watched.
    pub(super) fn watch(&mut self, watch: &Watch) -> anyhow::Result<()> {
        match self.form {
            Form::Text | Form::Capture => text::live::watch(watch, &self.style, &mut self.out),
            Form::Lines => json::line(&LiveLine::Watch(watch.into()), &mut self.out),
            Form::Json => {
                self.watch = Some(watch.clone());
                Ok(())
            }
        }
        .and_then(|()| self.out.flush())
        .context("write to standard output")
    }

    /// A packet at one device, which only a capture file shows by itself; it may be held back.
    pub(super) fn sighting(&mut self, sighting: &Sighting, points: &Points) -> anyhow::Result<()> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        if !pcapng::belongs(sighting, points) {
            return Ok(());
        }
        let (name, comment) = pcapng::at(sighting, points);
        capture.packet(sighting, &name, &comment).context("write to standard output")
    }

    /// Lets go what is held back: after many, to write each by itself takes as long as to put it into words.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        let captured = self.capture.as_mut().map_or(Ok(()), pcapng::Writer::flush);
        captured.and_then(|()| self.out.flush()).context("write to standard output")
    }

    /// A packet that is over; it may be held back.
    pub(super) fn packet(&mut self, told: &Told, points: &Points) -> anyhow::Result<()> {
        let document = || PacketDocument::of(told, points, self.epoch);
        match self.form {
            Form::Text | Form::Capture => text::live::packet(told, points, self.epoch, (&self.style, &mut self.out)),
            Form::Lines => json::line(&LiveLine::Packet(Box::new(document())), &mut self.out),
            Form::Json => {
                let document = document();
                self.packets.push(document);
                Ok(())
            }
        }
        .context("write to standard output")
    }

    /// What it came to.
    pub(super) fn summary(&mut self, summary: &Summary) -> anyhow::Result<()> {
        match (self.form, &self.watch) {
            (Form::Text | Form::Capture, _) => text::live::summary(summary, &self.style, &mut self.out),
            (Form::Lines, _) | (Form::Json, None) => {
                json::line(&LiveLine::Summary(Box::new(summary.into())), &mut self.out)
            }
            (Form::Json, Some(watch)) => {
                let packets = std::mem::take(&mut self.packets);
                json::render(&LiveDocument { watch: watch.into(), packets, summary: summary.into() }, &mut self.out)
            }
        }
        .context("write to standard output")?;
        self.flush()
    }
}
