//! Packets as they are seen live: what is watched, one block a packet, and what it came to.
//!
//! A block begins with the packet and its end on one line, to be found with `grep`; below it is a line for every device it
//! was seen at, with the time since the device before and what became of the packet in between.

use std::io::{self, Write};

use netdiag_model::{
    live::{
        journey::{Change, Ended, Step},
        points::Points,
        report::{Deaths, Row, Summary, Told, Watch},
        words,
    },
    trace::{Direction, HopState, Verdict},
};

use super::{
    Style, findings,
    page::{Line, Page, Paint, Span},
    units,
};
use crate::time;

/// Nanoseconds from 1970-01-01 UTC to the beginning of the clock sightings have their times of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(pub u64);

impl Epoch {
    /// A time of that clock as one of the day.
    pub(crate) const fn at(self, time_ns: u64) -> u64 {
        self.0.saturating_add(time_ns)
    }
}

/// Columns of a device's name.
const DEVICE: usize = 30;

/// Columns of a line about a device besides its name.
const BESIDES: usize = 48;

/// Columns of a device's name on this page.
fn device_columns(page: &Page<'_>) -> usize {
    page.width().saturating_sub(BESIDES).clamp(12, DEVICE)
}

/// Says what is watched and by what.
pub fn watch(watch: &Watch, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    let whom = watch.instance.as_deref().map_or_else(|| "this host".to_owned(), |name| page.say(name));
    let mut by = watch.by.clone();
    by.extend(watch.drops.then(|| "what the kernel gives up".to_owned()));
    let devices = units::things(watch.devices.len(), "device");
    let lead = vec![Span::new(Paint::Heading, "WATCHING"), Span::space(2)];
    page.hang(lead, &Span::new(Paint::Strong, format!("{whom}, at {devices}, by {}", by.join(" and "))));
    page.field_short("devices", &watch.devices);
    page.field("filter", &watch.filter);
    for address in &watch.fast {
        let past = "to and from outside past devices of the path, which see nothing of that";
        page.hang(Page::label("fast path"), &Span::plain(format!("{address} goes {past}")));
    }
    for gap in &watch.gaps {
        let lead =
            vec![Span::space(2), Span::new(Paint::Unknown, format!("{} not watched  ", page.mark(HopState::Unknown)))];
        let text = page.exact(&format!("{}: {}; {}", gap.object, gap.why, gap.fix));
        page.hang(lead, &Span::plain(text));
    }
    page.gap();
    page.write(out)
}

/// Shows a packet.
pub fn packet(told: &Told, points: &Points, epoch: Epoch, (style, out): (&Style, &mut impl Write)) -> io::Result<()> {
    let mut page = Page::new(style);
    let journey = &told.journey;
    let (paint, end) = end(&page, &journey.ended);
    let repeats = journey.repeats.map_or_else(String::new, |first| format!(" again (as #{first})"));
    let head = vec![
        Span::new(Paint::Dim, time::of_day(epoch.at(journey.began_ns()))),
        Span::plain(format!(" #{} {} ", journey.number, way(journey.direction))),
        Span::new(paint, end),
        Span::plain("  "),
    ];
    let what = page.say(&format!("{}{repeats}", words::packet(&journey.packet)));
    page.hang(head, &Span::new(Paint::Strong, what));
    let mut before = None;
    for step in &journey.steps {
        let line = step_line(&page, (step, journey.direction), points, before);
        page.line(line);
        changes(&mut page, step);
        before = Some(step.time_ns);
    }
    if let Some(blame) = &told.blame {
        let lead = vec![Span::space(6), Span::new(Paint::Bad, format!("{} ", page.mark(HopState::Broken)))];
        let sentence = page.say(&blame.sentence);
        page.hang(lead, &Span::new(Paint::Bad, sentence));
    }
    page.write(out)
}

/// How a packet ended, as mark and word.
fn end(page: &Page<'_>, ended: &Ended) -> (Paint, String) {
    let state = ended.state();
    let word = match ended {
        Ended::Delivered => "delivered",
        Ended::Aside => "to its own segment",
        Ended::Dropped { .. } => "DROPPED",
        Ended::NotSeenAfter => "VANISHED",
        Ended::Inconclusive => "inconclusive",
    };
    (Paint::of(state), format!("{} {word}", page.mark(state)))
}

/// A device with its hop's number and the time since the device before.
fn step_line(page: &Page<'_>, (seen, direction): (&Step, Direction), points: &Points, before: Option<u64>) -> Line {
    let stop = points.stop(seen.place);
    let hop = stop.and_then(|stop| stop.hop(direction));
    let number = hop.map_or_else(|| "-".to_owned(), |hop| hop.to_string());
    let name = stop.map_or_else(|| "?".to_owned(), netdiag_model::live::points::Stop::label);
    let name = page.cut(&page.say(&name), DEVICE);
    let pad = DEVICE.saturating_sub(super::page::width(&name));
    let since = before.map_or_else(
        || "seen first".to_owned(),
        |before| format!("+{}", nanoseconds(seen.time_ns.saturating_sub(before))),
    );
    vec![
        Span::new(Paint::Dim, format!("  {number:>4} ")),
        Span::plain(name),
        Span::space(pad + 1),
        Span::new(Paint::Dim, format!("{since:>10}")),
    ]
}

fn changes(page: &mut Page<'_>, step: &Step) {
    for change in &step.changes {
        let words = match change {
            Change::Source { from, to } => format!("source {from} becomes {to}"),
            Change::Destination { from, to } => format!("destination {from} becomes {to}"),
            Change::Vlans { from, to } => format!("VLAN {} becomes {}", vlans(from), vlans(to)),
            Change::Encapsulated { vni } => format!("into a tunnel, VNI {vni}"),
            Change::Decapsulated => "out of its tunnel".to_owned(),
        };
        let corner = page.glyph("└", "`-");
        page.hang(vec![Span::space(7), Span::plain(format!("{corner} "))], &Span::plain(words));
    }
}

fn vlans(vlans: &[u16]) -> String {
    let all: Vec<String> = vlans.iter().map(ToString::to_string).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(" in ") }
}

/// A span of time in three digits and a unit.
pub(crate) fn nanoseconds(time: u64) -> String {
    let (unit, name) = match time {
        0..1_000 => return format!("{time} ns"),
        1_000..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let whole = time / unit;
    if whole < 100 { format!("{whole}.{} {name}", time % unit / (unit / 10)) } else { format!("{whole} {name}") }
}

const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Outward => "out",
        Direction::Inward => "in ",
        Direction::Lateral => "side",
    }
}

/// Says what watching came to.
pub fn summary(summary: &Summary, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    // What comes before was written already.
    page.line(Line::new());
    rows(&mut page, summary);
    deaths(&mut page, &summary.deaths);
    findings::draw(&mut page, &summary.findings);
    page.gap();
    page.line(vec![Span::new(Paint::Heading, "WATCHED")]);
    numbers(&mut page, summary);
    verdict(&mut page, summary);
    page.write(out)
}

/// What was expected of every device, and what was seen at it.
fn rows(page: &mut Page<'_>, summary: &Summary) {
    for (direction, title) in
        [(Direction::Outward, "OUTWARD  from the instance"), (Direction::Inward, "INWARD  to the instance")]
    {
        let of: Vec<&Row> = summary.rows.iter().filter(|row| row.direction == direction).collect();
        if of.is_empty() {
            continue;
        }
        page.gap();
        page.line(vec![Span::new(Paint::Heading, title)]);
        let columns = device_columns(page);
        let heading = format!(
            " {:>3} {:<10} {:<columns$} {:>6} {:>5} {:>8} {:>8}",
            "#", "EXPECTED", "DEVICE", "SEEN", "LOST", "P50", "P99"
        );
        page.line(vec![Span::new(Paint::Dim, heading)]);
        for row in of {
            let line = row_line(page, row);
            page.line(line);
        }
    }
}

fn row_line(page: &Page<'_>, row: &Row) -> Line {
    let columns = device_columns(page);
    let hop = row.hop.map_or_else(|| "-".to_owned(), |hop| hop.to_string());
    let device = page.cut(&page.say(&row.device), columns);
    let pad = columns.saturating_sub(super::page::width(&device));
    let time = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), nanoseconds);
    let state = page.state(row.expected);
    let state_pad = 10_usize.saturating_sub(super::page::width(&state.text));
    let lost = Span::new(if row.lost > 0 { Paint::Bad } else { Paint::Plain }, format!(" {:>5}", row.lost));
    vec![
        Span::plain(format!(" {hop:>3} ")),
        state,
        Span::space(state_pad + 1),
        Span::plain(device),
        Span::space(pad + 1),
        Span::plain(format!("{:>6}", row.seen)),
        lost,
        Span::plain(format!(" {:>8} {:>8}", time(row.p50_ns), time(row.p99_ns))),
    ]
}

/// What packets died of, with the rules.
fn deaths(page: &mut Page<'_>, deaths: &[Deaths]) {
    if deaths.is_empty() {
        return;
    }
    page.gap();
    page.line(vec![Span::new(Paint::Heading, "DIED")]);
    for one in deaths {
        let blame = &one.first;
        let packets = if one.packets == 1 { "packet" } else { "packets" };
        let lead = vec![
            Span::space(2),
            Span::new(Paint::Bad, format!("{} {} {packets}", page.mark(HopState::Broken), one.packets)),
            Span::space(2),
        ];
        let sentence = page.say(&blame.sentence);
        page.hang(lead, &Span::new(Paint::Strong, sentence));
        let hop = blame.hop.map_or_else(String::new, |hop| format!("hop {hop} {}, ", way(blame.direction).trim_end()));
        page.field_short("at", &[format!("{hop}{} ({})", blame.place, blame.code.name())]);
        page.field("reason", &blame.reason.iter().cloned().collect::<Vec<_>>());
        for rule in &blame.rules {
            let rule = page.exact(&rule.rule);
            let label = Page::label(if blame.rules.len() == 1 { "rule" } else { "maybe" });
            page.hang(label, &Span::plain(rule));
        }
        let evidence = page.exact(&blame.evidence);
        page.hang(Page::label("seen"), &Span::plain(evidence));
        if let Some(verify) = &blame.verify {
            let verify = page.exact(verify);
            page.hang(Page::label("verify"), &Span::plain(verify));
        }
        if let Some(fix) = &blame.fix {
            let fix = page.exact(fix);
            page.hang(Page::label("fix"), &Span::plain(fix));
        }
    }
}

fn numbers(page: &mut Page<'_>, summary: &Summary) {
    let statistics = &summary.statistics;
    let mut packets = vec![
        format!("{} seen", statistics.journeys),
        format!("{} delivered", statistics.delivered),
        format!("{} died", statistics.dead),
    ];
    for (number, word) in [
        (statistics.aside, "to their own segment"),
        (statistics.inconclusive, "inconclusive"),
        (statistics.repeated, "sent again"),
    ] {
        packets.extend((number > 0).then(|| format!("{number} {word}")));
    }
    page.field("packets", &packets);
    let losses = summary.losses;
    let mut lost = vec![
        format!("{} for want of room", losses.lost),
        format!("{} left out to keep the cost down", losses.throttled),
    ];
    lost.extend((summary.evicted > 0).then(|| format!("{} packets not waited for", summary.evicted)));
    page.field("lost", &lost);
    page.field("cost", &cost(summary));
}

fn cost(summary: &Summary) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let cost = summary.cost;
    let programs = cost.programs_cpu.map_or_else(|| "not counted by this kernel".to_owned(), percent);
    vec![
        format!("{} of a CPU here", percent(cost.own_cpu)),
        format!("programs in the kernel {programs}"),
        format!("{:.0} records a second", cost.records),
        format!("for {}", nanoseconds(summary.took_ns)),
    ]
}

fn verdict(page: &mut Page<'_>, summary: &Summary) {
    let word = |verdict: Verdict| match verdict {
        Verdict::Works => "works",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Broken => "broken",
    };
    let state = match summary.verdict {
        Verdict::Works => HopState::Ok,
        Verdict::Inconclusive => HopState::Unknown,
        Verdict::Broken => HopState::Broken,
    };
    page.field("expected", &[format!("{}, by what the trace reads", word(summary.expected))]);
    page.gap();
    let lead = vec![
        Span::new(Paint::of(state), format!("{} {}", page.mark(state), word(summary.verdict).to_uppercase())),
        Span::space(2),
    ];
    let sentence = page.say(&summary.sentence);
    page.hang(lead, &Span::new(Paint::Strong, format!("{sentence}.")));
}
