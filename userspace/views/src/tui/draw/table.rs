//! Rows and columns.

use ratatui::layout::Rect;

use super::{ink::Ink, picture};
use crate::{
    text::units,
    tui::{
        area::{self, Areas},
        keymap::Command,
        sheet::{self, Cell, Paint, Sheet},
        state::{Entry, State, Tab, View},
    },
};

/// Draws titles and rows.
pub(super) fn draw(state: &State, ink: &mut Ink<'_>, areas: &Areas) {
    let view = state.view();
    let sheet = sheet::of(state, state.tab);
    let layout = area::layout(sheet.as_ref(), view, areas.rows.width);
    titles(ink, sheet.as_ref(), view, &layout, areas.titles);
    if view.entries.is_empty() {
        ink.text((2, areas.rows.y, areas.rows.width.saturating_sub(2)), Paint::Dim, &nothing(state));
        return;
    }
    let lines = view.entries.iter().enumerate().skip(view.offset).take(usize::from(areas.rows.height));
    for ((place, entry), y) in lines.zip(areas.rows.y..) {
        let line = Rect { y, height: 1, ..areas.rows };
        match entry {
            Entry::Row(row) => cells(ink, sheet.as_ref(), *row, &layout, line),
            Entry::Group { label, count, worst } => {
                let sign = match (view.open.contains(label), ink.ascii()) {
                    (true, false) => "▾",
                    (true, true) => "v",
                    (false, false) => "▸",
                    (false, true) => ">",
                };
                let worst = Cell::health(*worst, ink.ascii());
                let used = ink.text((line.x, y, line.width), worst.paint, &format!("{sign} {}  ", worst.text));
                let label = if label.is_empty() { "none" } else { label };
                let used = used + ink.short((line.x + used, y, line.width - used), Paint::Strong, label);
                ink.text(
                    (line.x + used, y, line.width - used),
                    Paint::Dim,
                    &format!("  {}", units::things(*count, "row")),
                );
            }
        }
        if place == view.cursor {
            ink.select(line);
        }
    }
}

/// Why there is no row, and which key shows some.
fn nothing(state: &State) -> String {
    let (view, keys) = (state.view(), &state.settings.keys);
    let mut ways = Vec::new();
    if !view.filter.is_empty() {
        ways.push(format!("{} clears the filter", keys.hint(Command::Back)));
    }
    if view.problems {
        ways.push(format!("{} shows healthy rows", keys.hint(Command::Problems)));
    }
    if view.hidden_past > 0 {
        ways.push(format!("{} shows those that are over", keys.hint(Command::Past)));
    }
    match (view.total, ways.as_slice()) {
        (0, _) => nothing_there(state).to_owned(),
        (_, []) => "there is nothing to show".to_owned(),
        (number, _) => format!("none of {number} rows is wanted: {}", ways.join(", ")),
    }
}

/// Why a tab has no row at all.
const fn nothing_there(state: &State) -> &'static str {
    match state.tab {
        Tab::Instances => "no instance was found on this host",
        Tab::Path => picture::nothing(state),
        Tab::Live => "nothing has come yet",
        Tab::Flows => "no flow is tracked",
        Tab::Policy => "no security group is known here: netdiag enforces none on this host",
        Tab::Agent => "nothing is known of an agent",
        Tab::Doctor => "nothing was checked",
    }
}

/// Titles, with a mark at the one rows are sorted by.
fn titles(ink: &mut Ink<'_>, sheet: &dyn Sheet, view: &View, layout: &[(usize, u16)], area: Rect) {
    let mut x = area.x;
    for (place, width) in layout {
        let column = &sheet.columns()[*place];
        let mark = match view.sort {
            Some((sorted, false)) if sorted == *place => {
                if ink.ascii() {
                    "^"
                } else {
                    "▲"
                }
            }
            Some((sorted, true)) if sorted == *place => {
                if ink.ascii() {
                    "v"
                } else {
                    "▼"
                }
            }
            _ => "",
        };
        let text = format!("{mark}{}", column.title);
        if column.right {
            ink.right((x, area.y, *width), Paint::Heading, &text);
        } else {
            ink.text((x, area.y, *width), Paint::Heading, &text);
        }
        x += width + 1;
    }
}

/// A row.
fn cells(ink: &mut Ink<'_>, sheet: &dyn Sheet, row: usize, layout: &[(usize, u16)], line: Rect) {
    let past = sheet.past(row);
    let mut x = line.x;
    for (place, width) in layout {
        let Cell { text, paint, endpoint } = sheet.cell(row, *place);
        let (at, paint) = ((x, line.y, *width), if past { Paint::Dim } else { paint });
        if sheet.columns()[*place].right {
            ink.right(at, paint, &text);
        } else if endpoint {
            ink.endpoint(at, paint, &text);
        } else {
            ink.short(at, paint, &text);
        }
        x += width + 1;
    }
}
