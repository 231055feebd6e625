//! A path as boxes and links: a box for each namespace packets pass, in it the hops with what they count, links between
//! the boxes. On a wide screen the ways out and in stand side by side.

use ratatui::layout::Rect;

use netdiag_model::trace::{Direction, HopState};

use super::ink::Ink;
use crate::{
    place,
    text::{live::nanoseconds, units},
    tui::{
        sheet::{
            Health, Paint, Sheet as _,
            hops::{self, PathRows},
        },
        state::{Entry, State},
    },
};

/// From this width on, ways stand side by side.
const SIDE_BY_SIDE: u16 = 132;

/// The widest a box is: what stands at its two ends belongs together.
const WIDEST: u16 = 110;

/// A line of the picture.
#[derive(Clone, Debug)]
enum Line {
    /// The heading of a way.
    Way(String),
    /// The top of a box, with what it is.
    Top(String),
    /// A hop: its place among the rows.
    Hop(usize),
    /// The bottom of a box.
    Bottom,
    /// A link to the next box; whether packets get there.
    Link(bool),
    /// Something that was found.
    Finding(Paint, String),
    /// Nothing.
    Gap,
}

/// A column of the picture.
struct Panel {
    lines: Vec<Line>,
    x: u16,
    width: u16,
}

/// The picture, laid out for a width.
fn panels(hops: &PathRows<'_>, area: Rect) -> Vec<Panel> {
    let out = way(hops, &[Direction::Outward, Direction::Lateral]);
    let into = way(hops, &[Direction::Inward]);
    if area.width >= SIDE_BY_SIDE && !into.is_empty() {
        let half = (area.width / 2).min(WIDEST);
        let right = (area.width - half - 1).min(WIDEST);
        return vec![
            Panel { lines: out, x: area.x, width: half },
            Panel { lines: into, x: area.x + half + 1, width: right },
        ];
    }
    let mut lines = out;
    if !lines.is_empty() && !into.is_empty() {
        lines.push(Line::Gap);
    }
    lines.extend(into);
    vec![Panel { lines, x: area.x, width: area.width.min(WIDEST) }]
}

/// The lines of some directions, interface by interface.
fn way(hops: &PathRows<'_>, directions: &[Direction]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut open: Option<(usize, Direction, String)> = None;
    let mut passes = true;
    for (row, (interface, trace, hop)) in hops.hops.iter().enumerate() {
        if !directions.contains(&hop.direction) {
            continue;
        }
        let here = (*interface, hop.direction, place::of(trace, hop));
        let same_way = open.as_ref().is_some_and(|(place, direction, _)| (*place, *direction) == (here.0, here.1));
        if open.as_ref() != Some(&here) {
            if open.is_some() {
                lines.push(Line::Bottom);
            }
            if same_way {
                lines.push(Line::Link(passes));
            } else {
                passes = true;
                lines.push(Line::Way(heading(trace.device.as_deref(), hop.direction)));
            }
            lines.push(Line::Top(here.2.clone()));
        }
        lines.push(Line::Hop(row));
        lines.extend(found(hops, row));
        passes = passes && hop.state != HopState::Broken;
        open = Some(here);
    }
    if open.is_some() {
        lines.push(Line::Bottom);
    }
    lines
}

/// What was found at a hop that does not let packets through, and what died there.
fn found(hops: &PathRows<'_>, row: usize) -> Vec<Line> {
    let (_, _, hop) = hops.hops[row];
    let died = hops.died(row).map(|died| {
        let words = format!("{} died here: {}", units::count(died.packets), died.sentence);
        Line::Finding(Paint::Bad, words)
    });
    if hop.state != HopState::Broken {
        return died.into_iter().collect();
    }
    let at = format!(" at {}: ", hop.name);
    let findings = hops.all_findings().into_iter();
    let findings = findings.filter(|(_, text)| text.contains(&at)).map(|(paint, text)| Line::Finding(paint, text));
    died.into_iter().chain(findings).collect()
}

fn heading(device: Option<&str>, direction: Direction) -> String {
    let words = match direction {
        Direction::Outward => "way out",
        Direction::Lateral => "aside, to the same network elsewhere",
        Direction::Inward => "way in",
    };
    device.map_or_else(|| words.to_owned(), |device| format!("{words} of {device}"))
}

/// The first line that is seen of a panel, so that the selected hop is in sight.
fn first_line(panel: &Panel, selected: Option<usize>, height: u16) -> usize {
    let height = usize::from(height);
    let line = panel.lines.iter().position(|line| matches!(line, Line::Hop(row) if Some(*row) == selected));
    let last = panel.lines.len().saturating_sub(height);
    line.map_or(0, |line| (line + 1).saturating_sub(height * 2 / 3)).min(last)
}

/// The selected row.
fn selected(state: &State) -> Option<usize> {
    let view = state.view();
    match view.entries.get(view.cursor)? {
        Entry::Row(row) => Some(*row),
        Entry::Group { .. } => None,
    }
}

/// The hop at a place of the screen: its place among the lines of the table.
pub(in crate::tui) fn hop_at(state: &State, area: Rect, x: u16, line: usize) -> Option<usize> {
    let hops = PathRows::of(state);
    let panels = panels(&hops, area);
    let panel = panels.iter().find(|panel| (panel.x..panel.x + panel.width).contains(&x))?;
    let first = first_line(panel, selected(state), area.height);
    let Some(Line::Hop(row)) = panel.lines.get(first + line) else { return None };
    state.view().entries.iter().position(|entry| *entry == Entry::Row(*row))
}

/// Draws the picture.
pub(super) fn draw(state: &State, ink: &mut Ink<'_>, area: Rect) {
    let hops = PathRows::of(state);
    if hops.hops.is_empty() {
        ink.text((area.x + 2, area.y, area.width - 2), Paint::Dim, nothing(state));
        return;
    }
    let selected = selected(state);
    for panel in panels(&hops, area) {
        let first = first_line(&panel, selected, area.height);
        let lines = panel.lines.iter().skip(first).take(usize::from(area.height));
        for (line, y) in lines.zip(area.y..) {
            let at = Rect { x: panel.x, y, width: panel.width, height: 1 };
            draw_line(&hops, ink, line, at);
            if matches!(line, Line::Hop(row) if Some(*row) == selected) {
                ink.select(Rect { x: at.x + 1, width: at.width.saturating_sub(2), ..at });
            }
        }
    }
}

/// Why a path has no hop.
pub(super) const fn nothing(state: &State) -> &'static str {
    match (&state.traced, &state.watched) {
        (Some(_), _) => "this path has no hop",
        (None, Some(_)) => "explaining the path …",
        (None, None) => "no instance is selected: select one on Instances",
    }
}

fn draw_line(hops: &PathRows<'_>, ink: &mut Ink<'_>, line: &Line, at: Rect) {
    let set = ink.lines();
    let across = |left: char, right: char| {
        let middle: String = std::iter::repeat_n(set.across, usize::from(at.width.saturating_sub(2))).collect();
        format!("{left}{middle}{right}")
    };
    match line {
        Line::Gap => {}
        Line::Way(text) => {
            ink.text((at.x, at.y, at.width), Paint::Strong, text);
        }
        Line::Top(label) => {
            ink.text((at.x, at.y, at.width), Paint::Heading, &across(set.top_left, set.top_right));
            ink.short((at.x + 2, at.y, at.width.saturating_sub(4)), Paint::Heading, &format!(" {label} "));
        }
        Line::Bottom => {
            ink.text((at.x, at.y, at.width), Paint::Heading, &across(set.bottom_left, set.bottom_right));
        }
        Line::Link(true) => {
            let arrow = if ink.ascii() { "|" } else { "│" };
            ink.text((at.x + 6, at.y, 1), Paint::Plain, arrow);
        }
        Line::Link(false) => {
            let words = if ink.ascii() { "X  packets do not get here" } else { "✗  packets do not get here" };
            ink.text((at.x + 6, at.y, at.width.saturating_sub(6)), Paint::Bad, words);
        }
        Line::Finding(paint, text) => {
            sides(ink, at);
            ink.short((at.x + 6, at.y, at.width.saturating_sub(8)), *paint, text);
        }
        Line::Hop(row) => {
            sides(ink, at);
            hop(hops, ink, *row, Rect { x: at.x + 2, width: at.width.saturating_sub(4), ..at });
        }
    }
}

/// The sides of a box.
fn sides(ink: &mut Ink<'_>, at: Rect) {
    let down = ink.lines().down.to_string();
    ink.text((at.x, at.y, 1), Paint::Heading, &down);
    ink.text((at.x + at.width.saturating_sub(1), at.y, 1), Paint::Heading, &down);
}

/// What a hop counts: while packets are followed how many came, and how long they took; else what its device has.
fn counts(hops: &PathRows<'_>, ink: &Ink<'_>, row: usize, width: u16) -> String {
    if let Some(seen) = hops.seen(row) {
        let took = seen.took.map(|(half, most)| match width {
            0..80 => format!(", p50 {}", nanoseconds(half)),
            _ => format!("  p50 {}, p99 {}", nanoseconds(half), nanoseconds(most)),
        });
        return format!("{} seen{}", units::count(seen.packets), took.unwrap_or_default());
    }
    let traffic = hops.traffic(row).map(|(received, sent)| {
        if ink.ascii() { format!("rx {received} tx {sent}") } else { format!("↓{received} ↑{sent}") }
    });
    traffic.unwrap_or_default()
}

/// Sign, number, name, kind; at the end what it counts; between them what it says.
fn hop(hops: &PathRows<'_>, ink: &mut Ink<'_>, row: usize, at: Rect) {
    let (_, _, hop) = hops.hops[row];
    let health = hops.health(row);
    let lead =
        format!("{} {:>3} ", health.glyph(ink.ascii()), format!("{}{}", &hops::way(hop.direction)[..1], hop.number));
    let mut x = at.x + ink.text((at.x, at.y, at.width), health.paint(), &lead);
    let counts = counts(hops, ink, row, at.width);
    let room = (ink.width(&counts) + 1).min(at.width / 2);
    let right = at.right().saturating_sub(room);
    let name = if health == Health::Broken { Paint::Bad } else { Paint::Strong };
    x += ink.short((x, at.y, right.saturating_sub(x)), name, &hop.name) + 2;
    x += ink.text((x, at.y, right.saturating_sub(x)), Paint::Dim, hop.kind.name()) + 2;
    let mark = if health == Health::Ok { String::new() } else { format!("{} ", health.word()) };
    x += ink.text((x, at.y, right.saturating_sub(x)), health.paint(), &mark);
    let said = [hop.status.as_str(), hop.note.as_str()]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(", ");
    ink.short((x, at.y, right.saturating_sub(x)), Paint::Plain, &said);
    ink.right((right, at.y, at.right() - right), Paint::Dim, &counts);
}
