//! What there is to say of the selected line, below the table: what its cells have no room for, most of all why.

use ratatui::layout::Rect;

use super::ink::Ink;
use crate::{
    tui::{
        keymap::Command,
        sheet::{self, Paint},
        state::{Entry, State},
    },
    wrap,
};

/// Columns between two values.
const BETWEEN: u16 = 3;

/// Draws it.
pub(super) fn draw(state: &State, ink: &mut Ink<'_>, area: Rect) {
    let view = state.view();
    let Some(Entry::Row(row)) = view.entries.get(view.cursor).filter(|_| area.height > 0) else { return };
    let sheet = sheet::of(state, state.tab);
    let health = sheet.health(*row);
    let title = sheet.called(*row);
    rule(state, ink, area, &title);
    let mut pen = Pen { area: Rect { y: area.y + 1, height: area.height - 1, ..area }, x: area.x + 1, y: area.y + 1 };
    for (name, value) in sheet.details(*row) {
        // A heading is for the list of everything, and the title has said some already.
        if name.is_empty() || value.is_empty() || title.contains(&value) {
            continue;
        }
        let paint = if name == "why" { health.paint() } else { Paint::Plain };
        pen.pair(ink, &name, (paint, &value));
    }
}

/// The line above it, with the name of the row and the key for the rest.
fn rule(state: &State, ink: &mut Ink<'_>, area: Rect, name: &str) {
    let across: String = std::iter::repeat_n(ink.lines().across, usize::from(area.width)).collect();
    ink.text((area.x, area.y, area.width), Paint::Dim, &across);
    let hint = format!(" {} everything ", state.settings.keys.hint(Command::Describe));
    let room = area.width.saturating_sub(ink.width(&hint) + 6);
    let name = ink.fitted(name, room.saturating_sub(2));
    ink.text((area.x + 2, area.y, room), Paint::Heading, &format!(" {name} "));
    ink.right((area.x, area.y, area.width.saturating_sub(2)), Paint::Dim, &hint);
}

/// Where the next value goes.
struct Pen {
    area: Rect,
    x: u16,
    y: u16,
}

impl Pen {
    /// Writes a name and a value: beside the one before where there is room, else on a line of their own, or several.
    fn pair(&mut self, ink: &mut Ink<'_>, name: &str, (paint, value): (Paint, &str)) {
        let value = ink.fitted(value, u16::MAX);
        let lead = ink.width(name) + 1;
        let left = self.area.right().saturating_sub(self.x);
        if lead + ink.width(&value) > left && self.x > self.area.x + 1 {
            (self.x, self.y) = (self.area.x + 1, self.y + 1);
        }
        if self.y >= self.area.bottom() {
            return;
        }
        ink.text((self.x, self.y, lead), Paint::Dim, name);
        self.x += lead;
        let room = self.area.right().saturating_sub(self.x);
        let lines = wrap::lines(&value, usize::from(room).max(10));
        let fits = usize::from(self.area.bottom() - self.y);
        let more = lines.len().saturating_sub(fits);
        for (number, line) in lines.iter().take(fits).enumerate() {
            let last = number + 1 == fits && more > 0;
            let rest = if last { lines[number..].join(" ") } else { line.clone() };
            let used = ink.text((self.x, self.y, room), paint, &rest);
            let end = number + 1 == lines.len().min(fits);
            if end {
                self.x += used + BETWEEN;
            } else {
                self.y += 1;
            }
        }
    }
}
