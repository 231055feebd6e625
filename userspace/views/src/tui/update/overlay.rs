//! What covers the table: help, columns, everything about a row, a row in JSON, forms to write the view in.

use super::{Mouse, MouseKind, say};
use crate::tui::{
    Request,
    draw::overlays,
    export,
    keymap::{Code, Command, Key},
    sheet,
    state::{Entry, Overlay, State},
};

/// Opens what a key asks for.
#[expect(clippy::wildcard_enum_match_arm, reason = "the caller passes what opens something only")]
pub(super) fn open(state: &mut State, command: Command) {
    let overlay = match command {
        Command::Columns => Some(Overlay::Columns),
        Command::Describe => describe(state),
        Command::Json => json(state),
        Command::Export => Some(Overlay::Export),
        _ => Some(Overlay::Help),
    };
    state.overlay_offset = 0;
    match overlay {
        Some(overlay) => state.overlay = Some(overlay),
        None => say(state, "there is no row here"),
    }
}

/// The row that is selected.
fn row(state: &State) -> Option<usize> {
    let view = state.view();
    match view.entries.get(view.cursor)? {
        Entry::Row(row) => Some(*row),
        Entry::Group { .. } => None,
    }
}

/// Everything about the selected line; of a group, what it is.
fn describe(state: &State) -> Option<Overlay> {
    let view = state.view();
    let sheet = sheet::of(state, state.tab);
    let (title, lines) = match view.entries.get(view.cursor)? {
        Entry::Row(row) => (sheet.called(*row), sheet.details(*row)),
        Entry::Group { label, count, worst } => (
            label.clone(),
            vec![
                ("group".to_owned(), label.clone()),
                ("rows".to_owned(), count.to_string()),
                ("worst".to_owned(), worst.word().to_owned()),
            ],
        ),
    };
    let lines = lines.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    Some(Overlay::Text { title, lines, exact: false })
}

/// The row in JSON, as the command prints it.
fn json(state: &State) -> Option<Overlay> {
    let text = export::row(state, row(state)?)?;
    let lines = text.lines().map(|line| (String::new(), line.to_owned())).collect();
    Some(Overlay::Text { title: "JSON".to_owned(), lines, exact: true })
}

/// A key while the table is covered.
pub(super) fn key(state: &mut State, key: Key) -> Option<Request> {
    if key.code == Code::Esc {
        state.overlay = None;
        return None;
    }
    match state.overlay {
        Some(Overlay::Columns) => columns(state, key),
        Some(Overlay::Export) => return choose(state, key),
        Some(Overlay::Quit) => return quit(state, key),
        Some(Overlay::Help | Overlay::Text { .. }) | None => scroll(state, key),
    }
    None
}

/// Quits if asked once more.
fn quit(state: &mut State, key: Key) -> Option<Request> {
    let again = state.settings.keys.command(key, state.tab, &state.origin);
    state.overlay = None;
    matches!(again, Some(Command::Quit | Command::QuitKeep))
        .then_some(Request::Quit { keep: again == Some(Command::QuitKeep) })
}

/// Scrolls, or closes by the key that opened it.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other command scrolls or closes")]
fn scroll(state: &mut State, key: Key) {
    let page = overlays::page(state);
    let offset = state.overlay_offset;
    let Some(command) = state.settings.keys.command(key, state.tab, &state.origin) else { return };
    let last = overlays::length(state).saturating_sub(page);
    state.overlay_offset = match command {
        Command::Up => offset.saturating_sub(1),
        Command::Down => offset + 1,
        Command::PageUp => offset.saturating_sub(page),
        Command::PageDown => offset + page,
        Command::First => 0,
        Command::Last => last,
        Command::Help | Command::Describe | Command::Json | Command::Quit | Command::Enter | Command::Back => {
            state.overlay = None;
            0
        }
        _ => offset,
    }
    .min(last);
}

/// Switches a column on or off by its letter.
fn columns(state: &mut State, key: Key) {
    let Code::Char(code) = key.code else {
        state.overlay = None;
        return;
    };
    let known = sheet::of(state, state.tab).columns().iter().skip(1).any(|column| column.code == code);
    let toggled = &mut state.views[state.tab.place()].toggled;
    if !known {
        say(state, format!("no column has the letter {code}, or it is always there"));
    } else if !toggled.remove(&code) {
        toggled.insert(code);
    }
}

/// Writes the view in the form of a letter; Enter in the first.
fn choose(state: &mut State, key: Key) -> Option<Request> {
    state.overlay = None;
    let mut forms = export::forms(state.tab);
    let (form, ..) = forms.find(|(_, letter, _)| [Code::Char(*letter), Code::Enter].contains(&key.code))?;
    export(state, form)
}

/// Writes the view.
pub(super) fn export(state: &mut State, form: &str) -> Option<Request> {
    match export::view(state, form) {
        Ok((name, bytes)) => Some(Request::Write { name, bytes }),
        Err(why) => {
            say(state, why);
            None
        }
    }
}

/// The mouse while the table is covered: a click beside it closes, one on a value copies it.
pub(super) fn mouse(state: &mut State, mouse: Mouse) -> Option<Request> {
    let page = overlays::page(state);
    let last = overlays::length(state).saturating_sub(page);
    match mouse.kind {
        MouseKind::WheelUp => state.overlay_offset = state.overlay_offset.saturating_sub(3),
        MouseKind::WheelDown => state.overlay_offset = (state.overlay_offset + 3).min(last),
        MouseKind::Click => match overlays::line_at(state, mouse.x, mouse.y) {
            None => state.overlay = None,
            Some(line) => {
                let value = overlays::value(state, line).filter(|value| !value.is_empty())?;
                say(state, "copied to the terminal's clipboard");
                return Some(Request::Copy(value));
            }
        },
    }
    None
}
