//! What is said of what was measured: a table of 80 columns, or JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::stats::Samples;

/// One line of the table.
#[derive(Clone, Debug)]
struct Line {
    what: String,
    value: f64,
    least: Option<f64>,
    unit: &'static str,
    target: Option<f64>,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Report {
    parts: Vec<(String, Vec<Line>)>,
}

impl Report {
    /// Begins another part.
    pub(super) fn part(&mut self, title: impl Into<String>) {
        self.parts.push((title.into(), Vec::new()));
    }

    /// A line with a figure of its own.
    pub(super) fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str, target: Option<f64>) {
        self.push(Line { what: what.into(), value, least: None, unit, target });
    }

    /// A line about samples in nanoseconds, of which something is subtracted.
    pub(super) fn samples(&mut self, what: impl Into<String>, (samples, less): (&Samples, f64), target: Option<f64>) {
        let (value, least) = (samples.p5() - less, Some(samples.min() - less));
        self.push(Line { what: what.into(), value, least, unit: "ns", target });
    }

    fn push(&mut self, line: Line) {
        if let Some((_, lines)) = self.parts.last_mut() {
            lines.push(line);
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (title, lines) in &self.parts {
            writeln!(text, "\n{title:<45}{:>9} {:>9} {:>14}", "p5", "min", "target").ok();
            for line in lines {
                let least = line.least.map_or_else(String::new, number);
                let target = line.target.map_or_else(String::new, |target| {
                    let verdict = if line.value <= target { "met" } else { "missed" };
                    format!("{} {verdict}", number(target))
                });
                let value = number(line.value);
                writeln!(text, "  {:<40}{:>3}{value:>9} {least:>9} {target:>14}", line.what, line.unit).ok();
            }
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let line = |line: &Line| {
            let met = line.target.map(|target| line.value <= target);
            json!({
                "what": line.what, "unit": line.unit, "p5": line.value, "min": line.least, "target": line.target, "met": met,
            })
        };
        let part = |(title, lines): &(String, Vec<Line>)| json!({ "part": title, "lines": lines.iter().map(line).collect::<Vec<_>>() });
        self.parts.iter().map(part).collect()
    }
}

/// With as many places as matter.
fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        format!("{value:.2}")
    } else if value.abs() < 1000.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}
