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
        let used = ink.text((area.x, area.y, area.width), Paint::Strong, &format!("{lead}{text}"));
        let cursor = area.x + used;
        ink.select(Rect { x: cursor, y: area.y, width: 1, height: 1 });
        // A message about what is typed stands behind it.
        let after = cursor + 2;
        let hint = state.message.as_ref().map_or_else(|| usage(input).to_owned(), |(text, _)| text.clone());
        ink.text((after, area.y, area.right().saturating_sub(after)), Paint::Dim, &hint);
        return;
    }
    if let Some((text, _)) = &state.message {
        ink.text((area.x, area.y, area.width), Paint::Warning, text);
        return;
    }
    if let Some(trouble) = state.trouble.as_ref().filter(|_| state.look().is_some()) {
        let text = format!("{}: {}; {}", trouble.what, trouble.cause, trouble.advice);
        ink.text((area.x, area.y, area.width), Paint::Bad, &text);
        return;
    }
    head::pieces(ink, area, hints(state));
}

/// What can be typed.
const fn usage(input: &Input) -> &'static str {
    match input {
        Input::Filter(_) => "inst: sg: port: ip: verdict: hop: reason: netns: /regex/ ! for not",
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
