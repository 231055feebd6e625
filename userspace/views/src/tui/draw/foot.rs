//! The last line: what is typed, what is said, what is wrong, or a few keys.

use ratatui::layout::Rect;

use super::{head, ink::Ink};
use crate::tui::{
    keymap::Command,
    sheet::Paint,
    state::{Input, State, Tab},
};

/// Draws it.
pub(super) fn foot(state: &State, ink: &mut Ink<'_>, area: Rect) {
    if let Some(input) = &state.input {
        let (lead, text) = match input {
            Input::Filter(text) => ("/", text),
            Input::Command(text) => (":", text),
        };
        // Of a long text the end is seen, where one types.
        let shown = ink.end_of(text, area.width.saturating_sub(2));
        let used = ink.text((area.x, area.y, area.width), Paint::Strong, &format!("{lead}{shown}"));
        let cursor = area.x + used;
        ink.select(Rect { x: cursor, y: area.y, width: 1, height: 1 });
        // A message about what is typed stands behind it.
        let after = cursor + 2;
        let hint = (Paint::Dim, usage(input));
        let (paint, hint) = state.message.as_ref().map_or(hint, |(text, _)| (Paint::Warning, text));
        ink.text((after, area.y, area.right().saturating_sub(after)), paint, hint);
        return;
    }
    if let Some((text, _)) = &state.message {
        said(ink, area, Paint::Warning, text);
        return;
    }
    if let Some(trouble) = state.trouble.as_ref().filter(|_| state.look().is_some()) {
        let text = format!("{}: {}; {}", trouble.what, trouble.cause, trouble.advice);
        said(ink, area, Paint::Bad, &text);
        return;
    }
    head::pieces(ink, area, hints(state));
}

/// The most lines a message takes.
const LONGEST: u16 = 3;

/// Says something; what has no room in the last line takes some above it: a message that is cut says no name of a file, and no advice.
fn said(ink: &mut Ink<'_>, area: Rect, paint: Paint, text: &str) {
    let needed = ink.lines_of(text, area.width).clamp(1, LONGEST);
    let area = Rect { y: area.y.saturating_sub(needed - 1), height: needed, ..area };
    ink.clear(area);
    ink.sentence(area, paint, text);
}

/// What can be typed.
const fn usage(input: &Input) -> &'static str {
    match input {
        Input::Filter(_) => "inst: sg: port: ip: verdict: hop: reason: netns: !not /regex/",
        Input::Command(_) => "inst path sg hop tab sort filter export quit, tab completes",
    }
}

/// The keys one needs first.
fn hints(state: &State) -> Vec<head::Piece> {
    let keys = &state.settings.keys;
    let enter = if state.tab == Tab::Instances { "path" } else { "details" };
    let packets = if state.watching.is_some() { "stop watching" } else { "packets" };
    let shown = [
        (0, Command::Help, "help"),
        (2, Command::Enter, enter),
        (1, Command::Filter, "filter"),
        (3, Command::Problems, "problems"),
        (4, Command::Packets, packets),
        (5, Command::Freeze, "freeze"),
        (7, Command::SortNext, "sort"),
        (6, Command::Json, "json"),
        (8, Command::Export, "export"),
        (1, Command::Quit, "quit"),
    ];
    let is_here = |command| keys.on(state.tab, &state.origin).any(|binding| binding.command == command);
    let shown = shown.into_iter().filter(|(_, command, _)| is_here(*command));
    shown.map(|(rank, command, word)| (rank, Paint::Dim, format!("{} {word}", keys.hint(command)))).collect()
}
