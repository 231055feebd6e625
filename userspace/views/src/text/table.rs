//! Columns that fit the width, and what is left over.
//!
//! A column that does not fit the page leaves the table for every row, and a cell that does not fit its column is cut;
//! both come back from `Layout::left_over`, so that a view can say them below the row.

use super::{
    Style,
    page::{Line, Page, Paint, Span, width},
};

/// Spaces between columns.
const BETWEEN: usize = 2;
/// The narrowest an essential column is squeezed to.
const NARROWEST: usize = 6;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its title; what its value is called below a row.
    pub(super) title: &'static str,
    /// Columns it is given before the next one gets any; longer cells are cut where there is no more room.
    pub(super) least: usize,
    /// Most columns it is given on a page that has a width.
    pub(super) most: usize,
    /// Stays in the table at any width.
    pub(super) essential: bool,
    /// Numbers stand right.
    pub(super) right: bool,
    /// What stands for a value nobody knows.
    pub(super) unknown: &'static str,
}

impl Column {
    /// A column that may leave the table, of text that stands left, with a dash for what is not known.
    pub(super) const fn new(title: &'static str, least: usize, most: usize) -> Self {
        Self { title, least, most, essential: false, right: false, unknown: "-" }
    }

    /// The same column, kept at any width.
    pub(super) const fn essential(self) -> Self {
        Self { essential: true, ..self }
    }

    /// The same column, its cells standing right.
    pub(super) const fn right(self) -> Self {
        Self { right: true, ..self }
    }

    /// Spaces behind it. A number belongs to what it numbers.
    const fn space(&self) -> usize {
        if self.right && self.essential { 1 } else { BETWEEN }
    }

    /// The same column, empty where there is nothing to say.
    pub(super) const fn blank(self) -> Self {
        Self { unknown: "", ..self }
    }
}

/// A cell, already harmless.
pub(super) type Cell = Span;

/// Which columns a page has room for, and how wide they are.
pub(super) struct Layout<'a> {
    columns: &'a [Column],
    widths: Vec<Option<usize>>,
}

impl<'a> Layout<'a> {
    /// Fits columns to the room: essential ones first, then the others in their order until one does not fit.
    pub(super) fn fit(columns: &'a [Column], rows: &[Vec<Cell>], room: usize) -> Self {
        let limit = |column: &Column| if room < Style::UNLIMITED { column.most } else { usize::MAX };
        let natural: Vec<usize> =
            columns.iter().enumerate().map(|(at, column)| natural(column, at, rows).min(limit(column))).collect();
        let comfortable = |at: usize| natural[at].min(columns[at].least.max(width(columns[at].title)));
        let mut layout = Self {
            columns,
            widths: (0..columns.len()).map(|at| columns[at].essential.then(|| comfortable(at))).collect(),
        };
        layout.squeeze(room);
        for at in 0..columns.len() {
            let said = rows.iter().any(|row| !row[at].text.is_empty());
            if layout.widths[at].is_none() && said {
                layout.widths[at] = Some(comfortable(at));
                if layout.total() > room {
                    layout.widths[at] = None;
                    break;
                }
            }
        }
        layout.stretch(&natural, room);
        layout
    }

    /// Takes from the widest column, one at a time, until all fit.
    fn squeeze(&mut self, room: usize) {
        while self.total() > room {
            match self.widths.iter_mut().flatten().max() {
                Some(widest) if *widest > NARROWEST => *widest -= 1,
                _ => return,
            }
        }
    }

    /// Gives what is left to the columns that want it, in their order: the first ones are the names.
    fn stretch(&mut self, natural: &[usize], room: usize) {
        let mut spare = room.saturating_sub(self.total());
        for (columns, natural) in self.widths.iter_mut().zip(natural) {
            if let Some(columns) = columns {
                let more = natural.saturating_sub(*columns).min(spare);
                *columns += more;
                spare -= more;
            }
        }
    }

    /// Columns the whole table takes.
    pub(super) fn total(&self) -> usize {
        let shown = self.columns.iter().zip(&self.widths).filter_map(|(column, width)| Some((column, (*width)?)));
        shown.map(|(column, width)| width + column.space()).sum::<usize>().saturating_sub(BETWEEN)
    }

    /// The line of titles.
    pub(super) fn titles(&self, page: &Page<'_>) -> Line {
        let titles: Vec<Cell> = self.columns.iter().map(|column| Span::new(Paint::Dim, column.title)).collect();
        self.line(page, &titles)
    }

    /// The line of a row. A text longer than its column goes on over the blank cells behind it.
    pub(super) fn line(&self, page: &Page<'_>, cells: &[Cell]) -> Line {
        let mut line = Line::new();
        let mut borrowed = 0;
        for (at, column) in self.columns.iter().enumerate() {
            let (Some(columns), Some(room)) = (self.widths[at], self.room(at, cells)) else { continue };
            let cell = &cells[at];
            let text = match (cell.text.is_empty(), column.essential) {
                (true, _) => column.unknown.to_owned(),
                (false, true) => page.cut(&cell.text, room),
                (false, false) => page.cut_end(&cell.text, room),
            };
            let taken = width(&text) + borrowed;
            let whole = columns + column.space();
            borrowed = taken.saturating_sub(whole);
            let padding = if column.right { columns.saturating_sub(taken) } else { 0 };
            let behind = whole.saturating_sub(taken + padding);
            line.extend([Span::space(padding), Span::new(cell.paint, text), Span::space(behind)]);
        }
        line
    }

    /// Columns a cell may take: its own and those of the blank cells behind it. None where its column is not shown.
    fn room(&self, at: usize, cells: &[Cell]) -> Option<usize> {
        let mut room = self.widths[at]?;
        let mut space = self.columns[at].space();
        let behind = self.columns.iter().zip(&self.widths).zip(cells).skip(at + 1);
        for ((column, columns), cell) in behind {
            let Some(columns) = columns else { continue };
            if !cell.text.is_empty() || !column.unknown.is_empty() {
                break;
            }
            room += space + columns;
            space = column.space();
        }
        Some(room)
    }

    /// Columns and cells the row had no room for.
    pub(super) fn left_over<'b>(&'b self, cells: &'b [Cell]) -> impl Iterator<Item = (&'static str, &'b Cell)> {
        let shown = |at: usize| self.room(at, cells).is_some_and(|room| width(&cells[at].text) <= room);
        cells[..self.columns.len()]
            .iter()
            .enumerate()
            .filter(move |(at, cell)| !cell.text.is_empty() && !shown(*at))
            .map(|(at, cell)| (self.columns[at].title, cell))
    }
}

/// The width a column would like.
fn natural(column: &Column, at: usize, rows: &[Vec<Cell>]) -> usize {
    let cells = rows.iter().map(|row| width(&row[at].text)).max().unwrap_or_default();
    cells.max(width(column.title))
}

#[cfg(test)]
mod tests {
    use super::{Column, Layout};
    use crate::text::{
        Style,
        page::{Page, Span},
    };

    const NAME: Column = Column::new("NAME", 6, 20).essential();
    const NOTE: Column = Column::new("NOTE", 10, 30);

    #[test]
    fn a_column_without_room_is_left_over() {
        let rows = vec![vec![Span::plain("eth0"), Span::plain("a long note")]];
        let columns = [NAME, NOTE];
        let layout = Layout::fit(&columns, &rows, 12);
        let left: Vec<&str> = layout.left_over(&rows[0]).map(|(title, _)| title).collect();
        assert_eq!(left, ["NOTE"]);
    }

    #[test]
    fn a_cut_cell_is_left_over_too() {
        let rows = vec![vec![Span::plain("a-very-long-name"), Span::plain("note")]];
        let columns = [NAME, NOTE];
        let layout = Layout::fit(&columns, &rows, 14);
        let left: Vec<&str> = layout.left_over(&rows[0]).map(|(title, _)| title).collect();
        assert_eq!(left, ["NAME"]);
    }

    #[test]
    fn a_long_cell_goes_on_over_blank_ones_and_what_follows_stays_in_place() {
        let columns = [NAME, Column::new("MTU", 4, 5).right().blank(), Column::new("STATUS", 6, 8).essential()];
        let row = |name: &str, mtu: &str| vec![Span::plain(name), Span::plain(mtu), Span::plain("UP")];
        let rows = vec![row("int-br-ex to phy", ""), row("eth0", "1500")];
        let layout = Layout::fit(&columns, &rows, 24);
        let style = Style::default();
        let page = Page::new(&style);
        let shown: Vec<String> = rows
            .iter()
            .map(|row| layout.line(&page, row).iter().map(|span| span.text.as_str()).collect::<String>())
            .map(|line| line.trim_end().to_owned())
            .collect();
        assert_eq!(shown, ["int-br-ex to phy  UP", "eth0        1500  UP"]);
        assert_eq!(layout.left_over(&rows[0]).count(), 0);
    }

    #[test]
    fn with_room_nothing_is_left_over() {
        let rows = vec![vec![Span::plain("a-very-long-name"), Span::plain("a long note")]];
        let columns = [NAME, NOTE];
        let layout = Layout::fit(&columns, &rows, 40);
        assert_eq!(layout.left_over(&rows[0]).count(), 0);
    }
}
