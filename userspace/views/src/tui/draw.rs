//! A state into a frame: header, tabs, where one is, the rows, the last line, and what covers them.

use ratatui::Frame;

use self::ink::Ink;
use super::{
    area::{self, Areas, LEAST},
    sheet::Paint,
    state::State,
};

/// The last line: messages, what is typed, hints.
mod foot;
/// Header, tabs, where one is.
pub(super) mod head;
/// Text into cells, made harmless.
mod ink;
/// What covers the table.
pub(super) mod overlays;
/// What there is to say of the selected row.
mod pane;
/// A path as boxes and links.
pub(super) mod picture;
/// Rows and columns.
mod table;

/// Draws.
pub fn draw(state: &State, frame: &mut Frame<'_>) {
    let area = frame.area();
    let mut ink = Ink::new(frame.buffer_mut(), &state.settings);
    // The terminal may have become another one since the state heard of it.
    let fits = (area.width, area.height) == state.size;
    let Some(areas) = Areas::of(state).filter(|_| fits) else {
        if !fits && Areas::of(state).is_some() {
            return;
        }
        let words =
            format!("netdiag needs {} x {} at least; this is {} x {}", LEAST.0, LEAST.1, area.width, area.height);
        ink.sentence(area, Paint::Plain, &words);
        return;
    };
    head::header(state, &mut ink, areas.header);
    head::tabs(state, &mut ink, areas.tabs);
    head::crumbs(state, &mut ink, areas.crumbs);
    body(state, &mut ink, &areas);
    foot::foot(state, &mut ink, areas.status);
    overlays::draw(state, &mut ink);
}

/// The rows, or why there are none yet.
fn body(state: &State, ink: &mut Ink<'_>, areas: &Areas) {
    match (&state.trouble, state.look()) {
        (Some(trouble), None) => overlays::trouble(trouble, ink, areas.rows),
        (None, None) => {
            ink.text((2, areas.rows.y + 1, areas.rows.width - 2), Paint::Dim, "looking at the host …");
        }
        (_, Some(_)) => {
            head::banner(state, ink, areas.banner);
            if area::is_picture(state) {
                picture::draw(state, ink, areas.rows);
            } else {
                table::draw(state, ink, areas);
            }
            pane::draw(state, ink, areas.pane);
        }
    }
}
