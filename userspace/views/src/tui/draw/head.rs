//! Header, tabs, where one is, and the sentence above a table.

use ratatui::layout::Rect;

use netdiag_model::{fact::SourceKind, groups::Known, trace::Verdict};
use unicode_width::UnicodeWidthStr as _;

use super::ink::Ink;
use crate::{
    escape, shorten,
    text::units,
    time,
    tui::{
        area,
        keymap::Command,
        look::Look,
        sheet::{self, Health, Paint},
        state::{Origin, State, Stream, Tab, View},
    },
    wrap,
};

/// After how many seconds a look is old, and when it is stale.
const OLD: [u64; 2] = [15, 60];

/// The most columns a name takes.
const LONGEST_NAME: u16 = 32;

/// From this width on there is room for whole words.
const ROOMY: u16 = 80;

/// A part of a line: the higher its number, the sooner it is left out where there is no room.
pub(super) type Piece = (u8, Paint, String);

/// Writes as many pieces as fit, those that matter most.
pub(super) fn pieces(ink: &mut Ink<'_>, area: Rect, mut pieces: Vec<Piece>) {
    let needed = |ink: &Ink<'_>, pieces: &[Piece]| pieces.iter().map(|(_, _, text)| ink.width(text) + 2).sum::<u16>();
    while needed(ink, &pieces) > area.width + 2 {
        let Some(least) = pieces.iter().map(|(rank, ..)| *rank).max().filter(|rank| *rank > 0) else { break };
        let Some(place) = pieces.iter().rposition(|(rank, ..)| *rank == least) else { break };
        pieces.remove(place);
    }
    let mut x = area.x;
    for (_, paint, text) in pieces {
        x += ink.text((x, area.y, area.right().saturating_sub(x)), paint, &text) + 2;
        if x >= area.right() {
            break;
        }
    }
}

/// Host, age, instances, events, losses, own cost.
pub(super) fn header(state: &State, ink: &mut Ink<'_>, area: Rect) {
    let mut parts: Vec<Piece> = vec![(7, Paint::Heading, "netdiag".to_owned())];
    if let Some(look) = state.look() {
        parts.push((1, Paint::Strong, ink.fitted(&look.listing.hostname, LONGEST_NAME)));
    }
    parts.push(age(state));
    if let Origin::Recording(replay) = &state.origin {
        parts.push((0, Paint::Heading, format!("replay x{} {}/{}", replay.speed, replay.at, replay.of)));
    }
    if let Some(frozen) = &state.frozen {
        let events = state.events_behind();
        let words = format!(
            "FROZEN, {} and {} behind",
            units::things(count(frozen.behind), "look"),
            units::things(count(events), "event")
        );
        parts.push((0, Paint::Bad, words));
    }
    if let Some(look) = state.look() {
        parts.push((6, Paint::Plain, units::things(look.listing.instances.len(), "instance")));
        parts.extend(troubled(look, state.settings.ascii));
        let lost = look.interfaces.iter().map(|line| line.lost).sum::<u64>().max(state.all_events.lost);
        if state.stream == Stream::Open {
            parts.push((5, Paint::Plain, format!("{} events/s", units::count(state.all_events.rate(state.now_ms)))));
        }
        let (rank, paint) = if lost > 0 { (1, Paint::Warning) } else { (4, Paint::Plain) };
        parts.push((rank, paint, format!("lost {}", units::count(lost))));
    }
    parts.extend(unread(state, area.width));
    if let Some(cpu) = state.own_cpu {
        parts.push((4, Paint::Dim, format!("cpu {}.{} %", cpu / 10, cpu % 10)));
    }
    if state.watching.is_some() {
        let words = if area.width < ROOMY { "WATCHING" } else { "WATCHING PACKETS" };
        parts.push((0, Paint::Warning, words.to_owned()));
    }
    if state.settings.recording {
        parts.push((0, Paint::Bad, "RECORDING".to_owned()));
    }
    pieces(ink, area, parts);
}

/// How many instances are not well, the worst first.
fn troubled(look: &Look, ascii: bool) -> Vec<Piece> {
    let all = || look.listing.instances.iter().map(|row| Health::from(row.worst));
    let of = |health: Health| {
        let number = all().filter(|one| *one == health).count();
        let rank = if health == Health::Broken { 1 } else { 2 };
        (number > 0).then(|| (rank, health.paint(), format!("{} {number} {}", health.glyph(ascii), health.word())))
    };
    [Health::Broken, Health::Warning, Health::Unknown].into_iter().filter_map(of).collect()
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where it comes from and how old it is.
fn age(state: &State) -> Piece {
    let Some(look) = state.look() else { return (0, Paint::Dim, "no look yet".to_owned()) };
    if !matches!(state.origin, Origin::Live) {
        return (1, Paint::Dim, format!("seen {}", time::words(look.listing.taken_at)));
    }
    let seconds = state.now_ms.saturating_sub(look.at_ms) / 1000;
    let sign = Health::Ok.glyph(state.settings.ascii);
    let text = units::duration(seconds);
    // A look takes a while itself.
    let on_time = state.frozen.is_none() && state.now_ms <= state.next_look_ms.saturating_add(OLD[0] * 1000);
    match seconds {
        _ if seconds >= OLD[0] && on_time => (0, Paint::Good, format!("{sign} idle, seen {text} ago")),
        _ if seconds >= OLD[1] => (0, Paint::Bad, format!("STALE: seen {text} ago")),
        _ if seconds >= OLD[0] => (0, Paint::Warning, format!("old: seen {text} ago")),
        _ => (0, Paint::Good, format!("{sign} live {text}")),
    }
}

/// The tabs, and at the end how the sources fared.
pub(super) fn tabs(state: &State, ink: &mut Ink<'_>, area: Rect) {
    let mut end = area.x;
    for (tab, first, behind, label) in area::tabs(area.width) {
        let paint = if tab == state.tab { Paint::Strong } else { Paint::Plain };
        ink.text((first, area.y, behind - first), paint, &label);
        if tab == state.tab {
            ink.select(Rect { x: first, width: behind - first, ..area });
        }
        end = behind;
    }
    sources(state, ink, Rect { x: end + 1, width: area.width.saturating_sub(end + 1), ..area });
}

/// How each source fared.
fn sources(state: &State, ink: &mut Ink<'_>, area: Rect) {
    let parts = sources_within(state, area.width);
    let mut x = area.right() + 1 - needed(&parts);
    for (paint, text) in parts {
        x += ink.text((x, area.y, area.right().saturating_sub(x)), paint, &text) + 1;
    }
}

/// How each source fared; with less room those that could not read all, with little how many they are, with none nothing.
fn sources_within(state: &State, room: u16) -> Vec<(Paint, String)> {
    let Some(look) = state.look() else { return Vec::new() };
    let ascii = state.settings.ascii;
    let one =
        |(source, health): &(SourceKind, Health)| (health.paint(), format!("{}{}", health.glyph(ascii), source.name()));
    let failed: Vec<_> = failed(look).collect();
    let (sign, unknown) = (Health::Ok.glyph(ascii), Health::Unknown.glyph(ascii));
    let all = vec![(Paint::Good, format!("{sign} all sources"))];
    let number = vec![(Paint::Unknown, format!("{unknown} {} of {} sources", failed.len(), look.sources.len()))];
    let named = failed.iter().map(|source| one(source)).collect();
    let mut wanted: Vec<Vec<(Paint, String)>> =
        vec![look.sources.iter().map(one).collect(), if failed.is_empty() { all } else { named }];
    if !failed.is_empty() {
        wanted.push(number);
    }
    wanted.into_iter().find(|parts| needed(parts) <= room + 1).unwrap_or_default()
}

/// Columns that sources need, with one behind each.
fn needed(parts: &[(Paint, String)]) -> u16 {
    parts.iter().map(|(_, text)| u16::try_from(text.width() + 1).unwrap_or(u16::MAX)).sum()
}

/// The sources that could not read all.
fn failed(look: &Look) -> impl Iterator<Item = &(SourceKind, Health)> {
    look.sources.iter().filter(|(_, health)| *health != Health::Ok)
}

/// The same in the header, where there is no room for it beside the tabs.
fn unread(state: &State, width: u16) -> Option<Piece> {
    let failed = failed(state.look()?).count();
    let beside = width.saturating_sub(area::tabs(width).last().map_or(0, |(_, _, end, _)| *end) + 1);
    let sign = Health::Unknown.glyph(state.settings.ascii);
    let is_said = failed == 0 || !sources_within(state, beside).is_empty();
    (!is_said).then(|| (1, Health::Unknown.paint(), format!("{sign} {failed} unread")))
}

/// Where one is, what is filtered, sorted and hidden.
pub(super) fn crumbs(state: &State, ink: &mut Ink<'_>, area: Rect) {
    let view = state.view();
    let mut parts: Vec<Piece> = Vec::new();
    let mut way: Vec<String> = state.trail.iter().map(|tab| tab.title().to_owned()).collect();
    way.push(place(state, ink));
    parts.push((0, Paint::Heading, way.join(" > ")));
    let shown = view.entries.iter().filter(|entry| matches!(entry, crate::tui::state::Entry::Row(_))).count();
    if view.group.is_none() {
        let all = units::things(view.total, "row");
        let words = if shown == view.total { all } else { format!("{shown} of {all}") };
        parts.push((3, Paint::Dim, words));
    }
    parts.extend(packets(state));
    if !view.filter.is_empty() {
        parts.push((0, Paint::Warning, format!("/{}", ink.fitted(view.filter.text(), LONGEST_NAME))));
    }
    let sheet = sheet::of(state, state.tab);
    if let Some((name, _)) = view.group.and_then(|group| sheet.groups().get(group)) {
        parts.push((1, Paint::Plain, format!("by {name}")));
    }
    parts.extend(unseen_order(sheet.as_ref(), view, area.width));
    let marks = [(view.problems, "only problems"), (view.wide, "wide"), (view.past, "with those that are over")];
    parts.extend(marks.into_iter().filter(|(on, _)| *on).map(|(_, word)| (1, Paint::Plain, word.to_owned())));
    if view.hidden_past > 0 {
        parts.push((2, Paint::Dim, format!("{} over, hidden", view.hidden_past)));
    }
    pieces(ink, area, parts);
}

/// The column that rows are sorted by, where it is not seen with its mark.
fn unseen_order(sheet: &dyn sheet::Sheet, view: &View, width: u16) -> Option<Piece> {
    let (column, backwards) = view.sort?;
    let seen = area::layout(sheet, view, width).iter().any(|(place, _)| *place == column);
    let title = sheet.columns().get(column).filter(|_| !seen)?.title;
    let order = if backwards { ", backwards" } else { "" };
    Some((1, Paint::Plain, format!("sorted by {title}{order}")))
}

/// What became of packets on the path, while they are followed.
fn packets(state: &State) -> Option<Piece> {
    let followed = state.followed().filter(|_| state.tab == Tab::Path)?;
    let health = match (followed.dead, followed.packets, followed.unclear) {
        (1.., ..) => Health::Broken,
        (0, 0, _) | (0, _, 1..) => Health::Unknown,
        (0, ..) => Health::Ok,
    };
    let mut words =
        format!("{} {}", health.glyph(state.settings.ascii), units::things(count(followed.packets), "packet"));
    for (number, word) in [(followed.dead, "died"), (followed.unclear, "unclear")] {
        if number > 0 {
            words.extend([", ", &units::count(number), " ", word]);
        }
    }
    Some((0, health.paint(), words))
}

/// The tab, and whose it is.
fn place(state: &State, ink: &Ink<'_>) -> String {
    let traced = state.traced.as_ref().filter(|_| state.tab == Tab::Path);
    let name = traced.map(|traced| ink.fitted(&traced.trace.instance.name, LONGEST_NAME));
    let whose = name.map(|name| format!(" of {name}")).unwrap_or_default();
    format!("{}{whose}", state.tab.title())
}

/// The sentence above a table.
pub(super) fn banner(state: &State, ink: &mut Ink<'_>, area: Rect) {
    if area.height == 0 {
        return;
    }
    let (paint, text) = sentence(state);
    ink.sentence(area, paint, &text);
}

fn sentence(state: &State) -> (Paint, String) {
    match state.tab {
        Tab::Path => path(state),
        Tab::Live => live(state),
        Tab::Flows => flows(state),
        Tab::Doctor | Tab::Instances | Tab::Policy | Tab::Agent => (
            Paint::Dim,
            "only the checks that follow from the snapshot: netdiag doctor on the host makes all".to_owned(),
        ),
    }
}

/// What packets die of while they are followed; else the answer of the trace in one sentence.
fn path(state: &State) -> (Paint, String) {
    let Some(traced) = &state.traced else { return (Paint::Plain, String::new()) };
    if let Some((followed, why)) = state.followed().and_then(|followed| Some((followed, followed.worst()?))) {
        let sign = Health::Broken.glyph(state.settings.ascii);
        let words =
            format!("{sign} {} of {} died: {why}", followed.dead, units::things(count(followed.packets), "packet"));
        return (Health::Broken.paint(), words);
    }
    let health = match traced.trace.verdict {
        Verdict::Works => Health::Ok,
        Verdict::Inconclusive => Health::Unknown,
        Verdict::Broken => Health::Broken,
    };
    let word = match traced.trace.verdict {
        Verdict::Works => "works",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Broken => "BROKEN",
    };
    (health.paint(), format!("{} {word}: {}", health.glyph(state.settings.ascii), traced.trace.sentence))
}

/// How many lines the sentence above a table needs on a screen of a width.
pub(in crate::tui) fn banner_lines(state: &State, width: u16) -> u16 {
    let (_, text) = sentence(state);
    let text = if state.settings.full_ids { text } else { shorten::ids(&text) };
    let lines = wrap::lines(&escape::terminal(&text, state.settings.ascii), usize::from(width).max(1));
    u16::try_from(lines.len()).unwrap_or(u16::MAX)
}

/// What packets are watched; else why there are no events.
fn live(state: &State) -> (Paint, String) {
    if let Some(words) = &state.watching {
        return (Paint::Good, words.clone());
    }
    let key = state.settings.keys.hint(Command::Packets);
    let words = match (&state.stream, &state.origin) {
        (Stream::Absent(why), _) => format!("{key} watches packets. No verdicts: {why}"),
        (Stream::Unasked, Origin::Live) => "asking the agent for events …".to_owned(),
        (Stream::Unasked, Origin::Snapshot(_)) => {
            "a snapshot has no events; a recording has those that came while it was made".to_owned()
        }
        (Stream::Unasked, Origin::Recording(_)) => "no event in this recording so far".to_owned(),
        (Stream::Open, _) => String::new(),
    };
    (Paint::Warning, words)
}

const SECOND_NS: u64 = 1_000_000_000;

/// Where rates of flows come from.
fn rates(state: &State) -> String {
    if !state.wants_rates() {
        return String::new();
    }
    if let Some(why) = &state.uncounted {
        return format!("; rates are not known: {why}");
    }
    match state.rates().filter(|rates| rates.took_ns > 0) {
        Some(rates) if rates.is_estimate() => {
            let all = rates.seen + rates.missed;
            format!("; rates are estimates from {} of {} packets", units::count(rates.seen), units::count(all))
        }
        Some(rates) => format!("; rates of the last {} s", rates.took_ns.saturating_add(SECOND_NS / 2) / SECOND_NS),
        None if state.counts() => "; counting packets …".to_owned(),
        None => "; rates are counted again when a key is pressed".to_owned(),
    }
}

/// How many flows there are, or why none are known.
fn flows(state: &State) -> (Paint, String) {
    let Some(look) = state.look() else { return (Paint::Plain, String::new()) };
    match look.flows.known {
        Known::Read => {
            let since = look.flows.rows.iter().filter(|row| row.flow.age < 60).count();
            let flows = units::things(look.flows.total, "flow");
            (Paint::Dim, format!("{flows}, {since} began within a minute{}", rates(state)))
        }
        Known::NotEnforced => (Paint::Plain, "nothing of netdiag is loaded here, so no flow is tracked".to_owned()),
        Known::Unread => (Paint::Unknown, "the flows could not be read, or this snapshot holds none".to_owned()),
    }
}
