//! Text into cells. All text from outside comes this way, and is made harmless here.

use ratatui::{buffer::Buffer, layout::Rect, style::Modifier};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::{
    escape, shorten,
    tui::{sheet::Paint, state::Settings},
    wrap,
};

/// A buffer to write into.
pub(super) struct Ink<'a> {
    buffer: &'a mut Buffer,
    settings: &'a Settings,
}

/// The fewest columns of an address that say anything.
const LEAST_ADDRESS: u16 = 6;

/// Where a text goes: column, row, and how many columns it may take.
pub(super) type At = (u16, u16, u16);

/// The lines frames are made of.
pub(super) struct Lines {
    pub(super) across: char,
    pub(super) down: char,
    pub(super) top_left: char,
    pub(super) top_right: char,
    pub(super) bottom_left: char,
    pub(super) bottom_right: char,
}

impl<'a> Ink<'a> {
    pub(super) const fn new(buffer: &'a mut Buffer, settings: &'a Settings) -> Self {
        Self { buffer, settings }
    }

    /// Whether nothing but ASCII is wanted.
    pub(super) const fn ascii(&self) -> bool {
        self.settings.ascii
    }

    /// Writes a text as it is, as far as there is room; how many columns it took.
    pub(super) fn text(&mut self, at: At, paint: Paint, text: &str) -> u16 {
        let safe = escape::terminal(text, self.settings.ascii);
        self.put(at, paint, &safe)
    }

    /// The same with ids cut to what tells them apart.
    pub(super) fn short(&mut self, at: At, paint: Paint, text: &str) -> u16 {
        let safe = self.shortened(text);
        self.put(at, paint, &safe)
    }

    /// The same for an address with a port: where there is no room for both, the port stays.
    pub(super) fn endpoint(&mut self, at: At, paint: Paint, text: &str) -> u16 {
        let safe = self.shortened(text);
        let kept = ["]:", " type ", " id "].iter().find_map(|mark| safe.rfind(mark)).unwrap_or(safe.len());
        let (address, port) = safe.split_at(kept);
        let room = usize::from(at.2).saturating_sub(port.width());
        let room = u16::try_from(room).unwrap_or(0);
        if safe.width() <= usize::from(at.2) || room < LEAST_ADDRESS {
            return self.put(at, paint, &safe);
        }
        let shown = format!("{}{port}", cut(address, room, self.settings.ascii));
        self.put(at, paint, &shown)
    }

    /// The same at the right end of its room.
    pub(super) fn right(&mut self, (x, y, width): At, paint: Paint, text: &str) {
        let safe = self.shortened(text);
        let needed = u16::try_from(safe.width()).unwrap_or(u16::MAX).min(width);
        self.put((x + width - needed, y, needed), paint, &safe);
    }

    fn shortened(&self, text: &str) -> String {
        if self.settings.full_ids {
            return escape::terminal(text, self.settings.ascii);
        }
        escape::terminal(&shorten::ids(text), self.settings.ascii)
    }

    /// A text made harmless, with ids cut, no wider than this.
    pub(super) fn fitted(&self, text: &str, width: u16) -> String {
        cut(&self.shortened(text), width, self.settings.ascii)
    }

    /// The end of a text made harmless, no wider than this, with a sign where something is left out.
    pub(super) fn end_of(&self, text: &str, width: u16) -> String {
        let safe = escape::terminal(text, self.settings.ascii);
        let room = usize::from(width);
        if safe.width() <= room {
            return safe;
        }
        let mut rest = safe.chars();
        while rest.as_str().width() >= room.max(1) {
            rest.next();
        }
        format!("{}{}", left_out(self.settings.ascii), rest.as_str())
    }

    /// Writes a text over as many lines as there are.
    pub(super) fn sentence(&mut self, area: Rect, paint: Paint, text: &str) {
        let lines = wrap::lines(&self.shortened(text), usize::from(area.width).max(1));
        let (first, last) = lines.split_at(lines.len().min(usize::from(area.height.saturating_sub(1))));
        let last = [last.join(" ")];
        for (line, y) in first.iter().chain(&last).zip(area.y..) {
            self.put((area.x, y, area.width), paint, line);
        }
    }

    /// How many lines a text needs.
    pub(super) fn lines_of(&self, text: &str, width: u16) -> u16 {
        let lines = wrap::lines(&self.shortened(text), usize::from(width).max(1));
        u16::try_from(lines.len()).unwrap_or(u16::MAX)
    }

    /// Columns a text takes once it is harmless.
    pub(super) fn width(&self, text: &str) -> u16 {
        u16::try_from(escape::terminal(text, self.settings.ascii).width()).unwrap_or(u16::MAX)
    }

    /// Writes harmless text.
    fn put(&mut self, (x, y, width): At, paint: Paint, safe: &str) -> u16 {
        let style = self.settings.theme.style(paint);
        let cut = cut(safe, width, self.settings.ascii);
        if !self.buffer.area.contains((x, y).into()) {
            return 0;
        }
        let (end, _) = self.buffer.set_stringn(x, y, &cut, usize::from(width), style);
        end - x
    }

    /// Empties a part of the screen.
    pub(super) fn clear(&mut self, area: Rect) {
        let area = area.intersection(self.buffer.area);
        for position in area.positions() {
            self.buffer[position].reset();
        }
    }

    /// Turns a part of the screen around: it is selected.
    pub(super) fn select(&mut self, area: Rect) {
        let area = area.intersection(self.buffer.area);
        for position in area.positions() {
            let cell = &mut self.buffer[position];
            cell.modifier.insert(Modifier::REVERSED);
        }
    }

    /// The lines frames are made of.
    pub(super) const fn lines(&self) -> Lines {
        if self.settings.ascii {
            return Lines {
                across: '-',
                down: '|',
                top_left: '+',
                top_right: '+',
                bottom_left: '+',
                bottom_right: '+',
            };
        }
        Lines { across: '─', down: '│', top_left: '┌', top_right: '┐', bottom_left: '└', bottom_right: '┘' }
    }

    /// An empty frame with a title.
    pub(super) fn frame(&mut self, area: Rect, title: &str) {
        self.clear(area);
        if area.width < 2 || area.height < 2 {
            return;
        }
        let lines = self.lines();
        let across: String = std::iter::repeat_n(lines.across, usize::from(area.width - 2)).collect();
        let top = format!("{}{across}{}", lines.top_left, lines.top_right);
        let bottom = format!("{}{across}{}", lines.bottom_left, lines.bottom_right);
        self.text((area.x, area.y, area.width), Paint::Heading, &top);
        self.text((area.x, area.bottom() - 1, area.width), Paint::Heading, &bottom);
        for y in area.y + 1..area.bottom() - 1 {
            let down = lines.down.to_string();
            self.text((area.x, y, 1), Paint::Heading, &down);
            self.text((area.right() - 1, y, 1), Paint::Heading, &down);
        }
        self.text((area.x + 2, area.y, area.width.saturating_sub(4)), Paint::Heading, &format!(" {title} "));
    }
}

/// The beginning of a harmless text that fits, with a sign where something is left out.
fn cut(text: &str, width: u16, ascii: bool) -> String {
    let room = usize::from(width);
    if text.width() <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 0;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used + 1 > room {
            break;
        }
        kept.push(character);
    }
    if room > 0 {
        kept.push_str(left_out(ascii));
    }
    kept
}

/// The sign where something is left out.
const fn left_out(ascii: bool) -> &'static str {
    if ascii { "~" } else { "…" }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn what_does_not_fit_is_cut_and_says_so() {
        assert_eq!(cut("short", 5, false), "short");
        assert_eq!(cut("longer", 5, false), "long…");
        assert_eq!(cut("longer", 5, true), "long~");
        assert_eq!(cut("数据库", 5, false), "数据…");
        assert_eq!(cut("数据库", 4, false), "数…");
        assert_eq!(cut("x", 0, false), "");
    }
}
