//! Moving about in a table: the cursor, the part that is seen, the order.

use super::{entry_id, say};
use crate::tui::{
    area,
    keymap::Command,
    sheet,
    state::{Entry, State},
};

/// Moves the cursor, or scrolls.
#[expect(clippy::wildcard_enum_match_arm, reason = "the caller passes movements only")]
pub(super) fn go(state: &mut State, command: Command) {
    let page = area::page(state);
    let view = state.view();
    let last = view.entries.len().saturating_sub(1);
    let cursor = match command {
        Command::Up => view.cursor.saturating_sub(1),
        Command::Down => view.cursor + 1,
        Command::PageUp => view.cursor.saturating_sub(page),
        Command::PageDown => view.cursor + page,
        Command::First => 0,
        Command::Last => last,
        Command::Left => return left(state),
        Command::Right => return right(state),
        _ => view.cursor,
    };
    select(state, cursor.min(last));
}

/// Selects a line.
pub(super) fn select(state: &mut State, cursor: usize) {
    let tab = state.tab;
    let selected = {
        let sheet = sheet::of(state, tab);
        state.view().entries.get(cursor).map(|entry| entry_id(sheet.as_ref(), entry))
    };
    let view = &mut state.views[tab.place()];
    (view.cursor, view.selected) = (cursor, selected);
    keep_in_sight(state);
}

/// Scrolls so that the selected line is seen.
pub(super) fn keep_in_sight(state: &mut State) {
    let page = area::page(state);
    let view = &mut state.views[state.tab.place()];
    let last_offset = view.entries.len().saturating_sub(page);
    view.offset = view.offset.min(last_offset).min(view.cursor).max((view.cursor + 1).saturating_sub(page));
}

/// Folds the group of the line, or scrolls a column back.
fn left(state: &mut State) {
    let view = &mut state.views[state.tab.place()];
    if view.scroll > 0 {
        view.scroll -= 1;
        return keep_in_sight(state);
    }
    let above = view.entries.get(..=view.cursor).unwrap_or_default();
    let group = above.iter().rev().find_map(|entry| match entry {
        Entry::Group { label, .. } => Some(label.clone()),
        Entry::Row(_) => None,
    });
    match group {
        Some(label) => unfold(state, label, Some(false)),
        None => say(state, "this is the first column"),
    }
}

/// Unfolds the group of the line, or scrolls a column on.
fn right(state: &mut State) {
    let columns = sheet::of(state, state.tab).columns().len();
    let view = &mut state.views[state.tab.place()];
    if let Some(Entry::Group { label, .. }) = view.entries.get(view.cursor)
        && !view.open.contains(label)
    {
        let label = label.clone();
        return unfold(state, label, Some(true));
    }
    if view.scroll + 2 < columns {
        view.scroll += 1;
        keep_in_sight(state);
    } else {
        say(state, "this is the last column");
    }
}

/// Unfolds a group, folds it, or the other of both.
pub(super) fn unfold(state: &mut State, label: String, open: Option<bool>) {
    let view = &mut state.views[state.tab.place()];
    let open = open.unwrap_or(!view.open.contains(&label));
    view.selected = Some(format!("group {label}"));
    if open {
        view.open.insert(label);
    } else {
        view.open.remove(&label);
    }
    view.stale = true;
}

/// Sorts by another column of those that are seen, or the other way around.
pub(super) fn sort(state: &mut State, command: Command) {
    let seen: Vec<usize> = {
        let sheet = sheet::of(state, state.tab);
        area::layout(sheet.as_ref(), state.view(), state.size.0).into_iter().map(|(place, _)| place).collect()
    };
    let view = &mut state.views[state.tab.place()];
    let after = |column: usize| seen.iter().copied().find(|place| *place > column);
    let before = |column: usize| seen.iter().copied().rev().find(|place| *place < column);
    view.sort = match (command, view.sort) {
        (Command::SortReverse, sort) => Some(sort.map_or((0, true), |(column, backwards)| (column, !backwards))),
        (Command::SortPrevious, None) => seen.last().map(|last| (*last, false)),
        (Command::SortPrevious, Some((column, backwards))) => before(column).map(|place| (place, backwards)),
        (_, None) => Some((0, false)),
        (_, Some((column, backwards))) => after(column).map(|place| (place, backwards)),
    };
    view.stale = true;
}
