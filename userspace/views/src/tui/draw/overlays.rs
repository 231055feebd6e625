//! What covers the table, and where its lines are.

use ratatui::layout::Rect;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::ink::Ink;
use crate::{
    escape,
    tui::{
        area, export,
        keymap::Command,
        sheet::{self, Health, Paint},
        state::{Origin, Overlay, State, Trouble},
    },
    wrap,
};

/// Columns names of values take.
const NAMES: usize = 13;

/// Columns keys take in the help.
const KEYS: usize = 17;

/// Columns letters take.
const LETTERS: usize = 3;

/// A line: how its two parts are painted, and which value it belongs to.
struct Line {
    name: (Paint, String),
    text: (Paint, String),
    value: Option<usize>,
}

impl Line {
    fn of(name: &str, text: impl Into<String>) -> Self {
        Self { name: (Paint::Strong, name.to_owned()), text: (Paint::Plain, text.into()), value: None }
    }

    fn heading(text: impl Into<String>) -> Self {
        Self { text: (Paint::Heading, text.into()), ..Self::of("", "") }
    }
}

/// Columns left and right of the overlay: none on a narrow screen, where rests of rows would only be in the way.
const fn margin(width: u16) -> u16 {
    if width >= 100 { 8 } else { 0 }
}

/// Where the overlay is.
fn area(state: &State) -> Rect {
    let (width, height) = state.size;
    let margin = margin(width);
    let wanted = u16::try_from(lines(state).len() + 2).unwrap_or(u16::MAX);
    let full = height.saturating_sub(4).max(3);
    let tall = wanted.clamp(3, full);
    Rect { x: margin, y: 2 + (full - tall) / 2, width: width.saturating_sub(2 * margin), height: tall }
}

/// Columns for text.
fn inner(state: &State) -> usize {
    let (width, _) = state.size;
    usize::from(width.saturating_sub(2 * margin(width) + 4)).max(10)
}

/// How many lines are seen.
pub(in crate::tui) fn page(state: &State) -> usize {
    usize::from(area(state).height.saturating_sub(2)).max(1)
}

/// How many lines there are.
pub(in crate::tui) fn length(state: &State) -> usize {
    lines(state).len()
}

/// The line at a place of the screen; none beside the overlay.
pub(in crate::tui) fn line_at(state: &State, x: u16, y: u16) -> Option<usize> {
    let area = area(state);
    let inside = area.contains((x, y).into()) && y > area.y && y + 1 < area.bottom();
    inside.then(|| state.overlay_offset + usize::from(y - area.y - 1))
}

/// The value a line belongs to.
pub(in crate::tui) fn value(state: &State, line: usize) -> Option<String> {
    let place = lines(state).get(line)?.value?;
    let Some(Overlay::Text { lines, .. }) = &state.overlay else { return None };
    lines.get(place).map(|(_, value)| value.clone())
}

/// Draws it.
pub(super) fn draw(state: &State, ink: &mut Ink<'_>) {
    let Some(overlay) = &state.overlay else { return };
    let area = area(state);
    let lines = lines(state);
    let page = usize::from(area.height.saturating_sub(2));
    let offset = state.overlay_offset.min(lines.len().saturating_sub(page));
    let room = area.width.saturating_sub(8);
    let title = ink.fitted(&title(overlay), room);
    ink.frame(area, &title);
    let copies = if matches!(overlay, Overlay::Text { .. }) { ", a click copies" } else { "" };
    let last = area.bottom() - 1;
    ink.text((area.x + 2, last, room), Paint::Heading, &format!(" Esc closes{copies} "));
    if lines.len() > page {
        let seen = format!(" {}-{} of {} ", offset + 1, (offset + page).min(lines.len()), lines.len());
        ink.right((area.x, last, area.width.saturating_sub(2)), Paint::Heading, &seen);
    }
    for (line, y) in lines.iter().skip(offset).take(page).zip(area.y + 1..) {
        let room = area.width.saturating_sub(4);
        let used = if line.name.1.is_empty() { 0 } else { ink.text((area.x + 2, y, room), line.name.0, &line.name.1) };
        let bare = line.name.1.is_empty() && line.value.is_none() && line.text.0 == Paint::Heading;
        let indent = if bare || is_exact(state) { 0 } else { names(overlay).max(used + 1) };
        ink.text((area.x + 2 + indent, y, room.saturating_sub(indent)), line.text.0, &line.text.1);
    }
}

/// Columns names take.
fn names(overlay: &Overlay) -> u16 {
    let columns = match overlay {
        Overlay::Help => KEYS,
        Overlay::Columns | Overlay::Export => LETTERS,
        Overlay::Text { .. } => NAMES,
        Overlay::Quit => 0,
    };
    u16::try_from(columns).unwrap_or(0)
}

/// Whether lines stand as they are, without names.
const fn is_exact(state: &State) -> bool {
    matches!(state.overlay, Some(Overlay::Text { exact: true, .. }))
}

fn title(overlay: &Overlay) -> String {
    match overlay {
        Overlay::Help => "help: keys of this tab".to_owned(),
        Overlay::Columns => "columns: a letter switches one on or off".to_owned(),
        Overlay::Export => "write the rows that are shown to a file here".to_owned(),
        Overlay::Text { title, .. } => title.clone(),
        Overlay::Quit => "quit?".to_owned(),
    }
}

/// The lines of what covers the table.
fn lines(state: &State) -> Vec<Line> {
    match &state.overlay {
        None => Vec::new(),
        Some(Overlay::Help) => help(state),
        Some(Overlay::Columns) => columns(state),
        Some(Overlay::Export) => export(state),
        Some(Overlay::Quit) => {
            vec![Line::of("", "A recording is being made: quit once more to end it.")]
        }
        Some(Overlay::Text { lines, exact, .. }) => text(state, lines, *exact),
    }
}

fn export(state: &State) -> Vec<Line> {
    export::forms(state.tab).map(|(_, letter, words)| Line::of(&letter.to_string(), words)).collect()
}

/// The keys that do something here, what the signs mean, what a filter can ask.
fn help(state: &State) -> Vec<Line> {
    let ascii = state.settings.ascii;
    let mut lines: Vec<Line> = Vec::new();
    for binding in state.settings.keys.on(state.tab, &state.origin) {
        let keys: Vec<String> = binding.keys.iter().map(ToString::to_string).collect();
        lines.push(Line::of(&keys.join(" "), binding.words));
    }
    lines.push(Line::of("", ""));
    lines.push(Line::heading("signs"));
    let signs = [
        (Health::Ok, "nothing to say against it"),
        (Health::Warning, "most likely harmless, and worth a look"),
        (Health::Unknown, "nothing says how it is: something could not be read"),
        (Health::Broken, "most likely a problem: packets die here"),
    ];
    lines.extend(signs.map(|(health, words)| Line {
        name: (health.paint(), format!("{} {}", health.glyph(ascii), health.word())),
        ..Line::of("", words)
    }));
    lines.push(Line::of("", ""));
    lines.push(Line::heading(
        "filter: words joined by AND; ! before a word turns it around; /…/ is a regular expression",
    ));
    let words = [
        ("inst:", "name or id of an instance"),
        ("sg:", "security group"),
        ("port:", "a port of either end, exactly"),
        ("ip:", "an address"),
        ("verdict:", "ok, broken, allow, deny, filtered, never …"),
        ("hop:", "a device or bridge"),
        ("reason:", "a reason or a rule"),
        ("netns:", "a network namespace"),
    ];
    lines.extend(words.map(|(word, meaning)| Line::of(word, meaning)));
    lines.push(Line::of("", ""));
    lines.push(Line::of("", origin(state)));
    let room = inner(state);
    lines.into_iter().flat_map(|line| folded(line, room, ascii)).collect()
}

/// A line of the help, over as many lines as it needs.
fn folded(line: Line, room: usize, ascii: bool) -> Vec<Line> {
    let Line { name, text: (paint, text), value } = line;
    let indent = if paint == Paint::Heading { 0 } else { KEYS.max(name.1.width() + 1) };
    let safe = escape::terminal(&text, ascii);
    let parts = wrap::lines(&safe, room.saturating_sub(indent).max(10));
    let more = parts.iter().skip(1).map(|part| Line { text: (paint, part.clone()), value, ..Line::of("", "") });
    let more: Vec<Line> = more.collect();
    let first = parts.into_iter().next().unwrap_or_default();
    std::iter::once(Line { name, text: (paint, first), value }).chain(more).collect()
}

/// Where what is seen comes from.
fn origin(state: &State) -> String {
    match &state.origin {
        Origin::Live => "This host, as it is now. Nothing here changes it.".to_owned(),
        Origin::Snapshot(file) => format!("A snapshot: {file}"),
        Origin::Recording(replay) => format!("A recording: {}", replay.file),
    }
}

/// The columns with their letters.
fn columns(state: &State) -> Vec<Line> {
    let view = state.view();
    let sheet = sheet::of(state, state.tab);
    let free = view.wide || view.scroll > 0;
    let shown = area::layout(sheet.as_ref(), view, state.size.0);
    let lines = sheet.columns().iter().enumerate().map(|(place, column)| {
        let on = place == 0 || area::is_on(column, view, state.size.0, free);
        let mark = if on { "[x]" } else { "[ ]" };
        let fits = !on || shown.iter().any(|(seen, _)| *seen == place);
        let note = match column.from {
            _ if !fits => format!("  (no room; {} shows all)", state.settings.keys.hint(Command::Wide)),
            0 => String::new(),
            sheet::Column::WIDE => "  (wide view)".to_owned(),
            from => format!("  (from {from} columns on)"),
        };
        let letter = if place == 0 { " ".to_owned() } else { column.code.to_string() };
        Line::of(&letter, format!("{mark} {}{note}", column.title))
    });
    lines.collect()
}

/// Names and values, values broken into lines.
fn text(state: &State, values: &[(String, String)], exact: bool) -> Vec<Line> {
    let room = if exact { inner(state) } else { inner(state).saturating_sub(NAMES + 1) };
    let mut lines = Vec::new();
    for (place, (name, value)) in values.iter().enumerate() {
        let safe = escape::terminal(value, state.settings.ascii);
        let heading = name.is_empty() && !exact;
        let parts = if exact { broken(&safe, room) } else { wrap::lines(&safe, room) };
        for (number, part) in parts.into_iter().enumerate() {
            let name = if number == 0 { escape::terminal(name, state.settings.ascii) } else { String::new() };
            lines.push(Line {
                name: (Paint::Strong, name),
                text: (if heading { Paint::Heading } else { Paint::Plain }, part),
                value: (!heading).then_some(place),
            });
        }
    }
    lines
}

/// Harmless text in pieces that fit.
fn broken(text: &str, room: usize) -> Vec<String> {
    if text.width() <= room {
        return vec![text.to_owned()];
    }
    let mut pieces = vec![String::new()];
    let mut used = 0;
    for character in text.chars() {
        let width = character.width().unwrap_or(0);
        if used + width > room {
            pieces.push(String::new());
            used = 0;
        }
        used += width;
        if let Some(piece) = pieces.last_mut() {
            piece.push(character);
        }
    }
    pieces
}

/// What failed, why, what to do: where there is nothing else to show.
pub(super) fn trouble(trouble: &Trouble, ink: &mut Ink<'_>, area: Rect) {
    let box_area = Rect { x: 1, y: area.y, width: area.width - 2, height: area.height.min(9) };
    ink.frame(box_area, "something is wrong");
    let parts = [
        ("what failed", &trouble.what, Paint::Bad),
        ("why", &trouble.cause, Paint::Plain),
        ("what to do", &trouble.advice, Paint::Strong),
    ];
    let room = usize::from(box_area.width.saturating_sub(6)).saturating_sub(NAMES).max(10);
    let mut y = box_area.y + 1;
    for (name, text, paint) in parts {
        let safe = escape::terminal(text, ink.ascii());
        for (number, part) in wrap::lines(&safe, room).into_iter().enumerate() {
            if y + 1 >= box_area.bottom() {
                return;
            }
            if number == 0 {
                ink.text((3, y, 12), Paint::Heading, name);
            }
            ink.text((3 + 13, y, u16::try_from(room).unwrap_or(u16::MAX)), paint, &part);
            y += 1;
        }
    }
}
