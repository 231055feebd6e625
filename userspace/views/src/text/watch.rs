//! What changes while an instance is watched: one line a change.

use std::io::{self, Write};

use netdiag_model::{
    fact::LinkStats,
    trace::{Direction, HopState, changes::Change},
};

use super::{
    Style,
    page::{Page, Paint, Span},
    units,
};
use crate::{json_schema::Watched, time};

/// Writes one change as one line, however long: a stream is read with `grep` as often as by eye.
pub fn render(watched: &Watched, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    let change = &watched.change;
    let (object, says) = words(&page, change);
    let state = change.state();
    let mut spans = vec![
        Span::new(Paint::Dim, time::of_day(watched.time_ns)),
        Span::new(Paint::of(state), format!(" {} {:<10}", page.mark(state), change.name())),
        Span::new(Paint::Strong, page.say(&object)),
        Span::plain(format!("{}{}", if object.is_empty() { "" } else { ": " }, page.say(&says))),
    ];
    if let Change::Found(finding) = change
        && page.style.detail > 0
    {
        spans.push(Span::new(Paint::Dim, page.exact(&format!(" ({}: {})", finding.code, finding.evidence))));
    }
    page.line(spans);
    page.write(out)
}

/// What it is about, and what is said of it.
fn words(page: &Page<'_>, change: &Change) -> (String, String) {
    match change {
        Change::Verdict { sentence, .. } => (String::new(), sentence.clone()),
        Change::Found(finding) | Change::Mended(finding) => (finding.object.clone(), finding.message.clone()),
        Change::Hop { direction, name, before, after, status } => {
            let way = match direction {
                Direction::Outward => "out",
                Direction::Inward => "in",
                Direction::Lateral => "beside",
            };
            let word = |state: &Option<HopState>| state.map_or("not there", HopState::name);
            let arrow = page.glyph("→", "->");
            let status = if status.is_empty() { String::new() } else { format!(" ({status})") };
            (format!("{name}, {way}"), format!("{} {arrow} {}{status}", word(before), word(after)))
        }
        Change::Counted { device, netns, by } => {
            let place = if netns == "host" || netns.is_empty() { String::new() } else { format!(" in {netns}") };
            (format!("{device}{place}"), counted(by))
        }
        Change::Hits { rule, packets } => {
            let what = format!("{} of {}", rule.chain, rule.netns.label);
            (
                what,
                format!(
                    "{} more by {}",
                    units::things(usize::try_from(*packets).unwrap_or(usize::MAX), "packet"),
                    rule.rule
                ),
            )
        }
        Change::Restarted { object } => (object.clone(), "its counters began anew".to_owned()),
    }
}

/// Counters that have grown.
fn counted(by: &LinkStats) -> String {
    let grown = [
        ("received", by.rx_packets),
        ("sent", by.tx_packets),
        ("received and dropped", by.rx_dropped),
        ("dropped before they were sent", by.tx_dropped),
        ("receive errors", by.rx_errors),
        ("transmit errors", by.tx_errors),
    ];
    let grown: Vec<String> =
        grown.iter().filter(|(_, more)| *more > 0).map(|(name, more)| format!("+{more} {name}")).collect();
    if grown.is_empty() { format!("+{} bytes", by.rx_bytes + by.tx_bytes) } else { grown.join(", ") }
}
