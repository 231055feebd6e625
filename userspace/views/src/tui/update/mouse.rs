//! Clicks and the wheel: a click selects, a second one at once goes into the row; tabs; values of a description are copied.

use super::{Mouse, MouseKind, enter, moves, overlay, switch};
use crate::tui::{
    Request,
    area::{self, Areas},
    draw::picture,
    state::{State, Tab},
};

/// Two clicks within this time are one double click.
const DOUBLE_MS: u64 = 500;

/// Lines the wheel goes at a time.
const WHEEL: usize = 3;

/// What the mouse does.
pub(super) fn mouse(state: &mut State, mouse: Mouse) -> Option<Request> {
    if state.overlay.is_some() {
        return overlay::mouse(state, mouse);
    }
    let areas = Areas::of(state)?;
    match mouse.kind {
        MouseKind::WheelUp => {
            let cursor = state.view().cursor.saturating_sub(WHEEL);
            moves::select(state, cursor);
            None
        }
        MouseKind::WheelDown => {
            let view = state.view();
            let cursor = (view.cursor + WHEEL).min(view.entries.len().saturating_sub(1));
            moves::select(state, cursor);
            None
        }
        MouseKind::Click if mouse.y == areas.tabs.y => tab_at(state, mouse.x).and_then(|tab| switch(state, tab)),
        MouseKind::Click => click(state, &areas, mouse),
    }
}

fn tab_at(state: &State, x: u16) -> Option<Tab> {
    area::tabs(state.size.0).into_iter().find(|(_, first, end, _)| (*first..*end).contains(&x)).map(|(tab, ..)| tab)
}

/// Selects the line that was clicked; the second time at once, goes into it.
fn click(state: &mut State, areas: &Areas, mouse: Mouse) -> Option<Request> {
    let line = usize::from(mouse.y.checked_sub(areas.rows.y).filter(|line| *line < areas.rows.height)?);
    let place = if area::is_picture(state) {
        picture::hop_at(state, areas.rows, mouse.x, line)?
    } else {
        Some(state.view().offset + line).filter(|place| *place < state.view().entries.len())?
    };
    moves::select(state, place);
    let again =
        state.clicked.is_some_and(|(at, before)| before == place && state.now_ms.saturating_sub(at) <= DOUBLE_MS);
    state.clicked = (!again).then_some((state.now_ms, place));
    if again { enter(state) } else { None }
}
