//! Where everything goes, in whole pixels.
//!
//! There is no font to measure here, so a character is given a little more than any fixed-width font takes, and text is
//! broken to the columns a box has before the box is sized to the text. Namespaces that do not fit beside one another go
//! on in the next row.

use netdiag_model::trace::Direction;
use unicode_width::UnicodeWidthStr;

use super::{FAINT, INK};
use crate::{
    escape,
    picture::{self, Path, Picture, Place, Step, Stop},
    wrap,
};

/// Height of the letters.
pub(super) const FONT_SIZE: usize = 12;
/// Twice the advance of a character: 7.5 pixels, where fixed-width fonts take 6.6 to 7.3 at this size.
const ADVANCE_TWICE: usize = 15;
/// From one line of text to the next.
const LINE: usize = 17;
/// From the top of a line to the foot of its letters.
const ASCENT: usize = 13;
/// Between the border of anything and what is in it.
const PAD: usize = 8;
/// Around the whole picture.
const MARGIN: usize = 20;
/// Between the border of a namespace and its hops, where arrows pass tunnels.
const RIM: usize = 12;
/// Between columns, where arrows go from one height to another.
const GUTTER: usize = 30;
/// Between rows, where arrows go back to the left edge.
const ROW_GAP: usize = 28;
/// Between boxes, where arrows go down.
const STEP: usize = 20;
/// Columns after which a line in a box is broken.
const BOX_COLUMNS: usize = 25;
/// Lines one statement of a hop may take.
const STATEMENT_LINES: usize = 4;
/// The narrowest picture, for its heading's sake.
const LEAST_WIDTH: usize = 720;
/// The widest picture: on most screens it shows at its own size.
const MOST_WIDTH: usize = 1280;

/// A rectangle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Left edge.
    pub(super) x: usize,
    /// Top edge.
    pub(super) y: usize,
    /// Width.
    pub(super) width: usize,
    /// Height.
    pub(super) height: usize,
}

/// A line of text, harmless but not yet spelled for XML.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// Left edge.
    pub(super) x: usize,
    /// Foot of the letters.
    pub(super) y: usize,
    /// Colour.
    pub(super) colour: &'static str,
    /// Weight.
    pub(super) bold: bool,
    /// What it says.
    pub(super) line: String,
}

/// A hop.
pub(super) struct HopBox<'a> {
    /// Its border.
    pub(super) frame: Frame,
    /// What it is.
    pub(super) stop: &'a Stop,
    /// What it says.
    pub(super) texts: Vec<Text>,
}

/// A namespace.
pub(super) struct Column<'a> {
    /// Its border.
    pub(super) frame: Frame,
    /// Its label.
    pub(super) label: Vec<Text>,
    /// Its hops, from top to bottom as packets meet them.
    pub(super) boxes: Vec<HopBox<'a>>,
}

/// The way from one hop to the next.
pub(super) struct Arrow {
    /// Its corners; every piece is level or upright.
    pub(super) points: Vec<(usize, usize)>,
    /// Whether a broken hop lies before it.
    pub(super) dead: bool,
}

/// One direction of one interface.
pub(super) struct Band<'a> {
    /// Which.
    pub(super) direction: Direction,
    /// Which way it is.
    pub(super) title: Vec<Text>,
    /// Its columns in the order packets meet them, from left to right and row by row.
    pub(super) columns: Vec<Column<'a>>,
    /// Its arrows.
    pub(super) arrows: Vec<Arrow>,
}

/// A whole picture.
pub(super) struct Drawing<'a> {
    /// Width.
    pub(super) width: usize,
    /// Height.
    pub(super) height: usize,
    /// What stands above everything.
    pub(super) heading: Vec<Text>,
    /// Its bands, from top to bottom.
    pub(super) bands: Vec<Band<'a>>,
}

impl<'a> Drawing<'a> {
    /// Lays a picture out.
    pub(super) fn of(picture: &'a Picture) -> Self {
        let paths = picture.panels.iter().flat_map(|panel| &panel.paths);
        let rows = paths.flat_map(|path| rows(&path.places));
        let widest = rows.map(row_width).max().unwrap_or_default();
        let width = (widest + 2 * MARGIN).max(LEAST_WIDTH);
        let room = (width - 2 * MARGIN) * 2 / ADVANCE_TWICE;
        let mut y = MARGIN;
        let mut heading = stack(&picture.title, room, &mut y, (INK, true));
        heading.extend(stack(&picture.seen, room, &mut y, (FAINT, false)));
        heading.extend(stack(&picture.answer, room, &mut y, (picture::answer_colour(picture.state), true)));
        let mut bands = Vec::new();
        for panel in &picture.panels {
            y += STEP;
            heading.extend(stack(&panel.caption, room, &mut y, (INK, true)));
            bands.extend(panel.paths.iter().map(|path| Band::of(path, &mut y)));
        }
        Self { width, height: y + MARGIN, heading, bands }
    }
}

/// The rows of a direction: as few as there must be, and each about as wide as the others.
fn rows(places: &[Place]) -> Vec<&[Place]> {
    let widest = places.iter().map(natural_width).max().unwrap_or_default();
    let least = fill(places, MOST_WIDTH - 2 * MARGIN);
    // The narrowest room that still takes no more rows.
    let narrower = (widest..MOST_WIDTH - 2 * MARGIN).find(|room| fill(places, *room).len() == least.len());
    narrower.map_or(least, |room| fill(places, room))
}

/// Rows, each filled before the next one is begun.
fn fill(places: &[Place], room: usize) -> Vec<&[Place]> {
    let (mut rows, mut first) = (Vec::new(), 0);
    for end in 1..=places.len() {
        if end == places.len() || row_width(&places[first..=end]) > room {
            rows.push(&places[first..end]);
            first = end;
        }
    }
    rows
}

/// Width of namespaces with the gutters between them.
fn row_width(places: &[Place]) -> usize {
    places.iter().map(natural_width).sum::<usize>() + GUTTER * places.len().saturating_sub(1)
}

/// The width of a namespace: as wide as its longest line.
fn natural_width(place: &Place) -> usize {
    let label = broken(&place.label, BOX_COLUMNS).into_iter().map(|line| advance(&line)).max();
    let boxes = place.stops.iter().flat_map(lines).map(|(line, ..)| advance(&line)).max();
    label.unwrap_or_default().max(boxes.unwrap_or_default() + 2 * PAD) + 2 * RIM
}

impl<'a> Band<'a> {
    /// Lays a direction out below `y`, and moves `y` below it.
    fn of(path: &'a Path, y: &mut usize) -> Self {
        let direction = path.direction;
        let steps = picture::steps(&path.stops());
        let dotted = if steps.iter().any(|step| step.dead) { " · dotted: past a broken hop" } else { "" };
        *y += 10;
        let title = format!("{} →{dotted}", picture::title(direction));
        let title = stack(&title, BOX_COLUMNS * 3, y, (picture::direction_colour(direction), true));
        *y += 6;
        let (mut columns, mut row_ends) = (Vec::new(), Vec::new());
        for row in rows(&path.places) {
            let (mut x, top) = (MARGIN, *y + if columns.is_empty() { 0 } else { ROW_GAP });
            for place in row {
                let column = Column::of(place, (x, top, natural_width(place)));
                x += column.frame.width + GUTTER;
                *y = (*y).max(column.frame.y + column.frame.height);
                columns.push(column);
            }
            row_ends.push(*y);
        }
        let arrows = arrows(&columns, &row_ends, steps);
        Self { direction, title, columns, arrows }
    }
}

impl<'a> Column<'a> {
    /// Lays a namespace out at a place, with a width.
    fn of(place: &'a Place, (x, y, width): (usize, usize, usize)) -> Self {
        let mut below = y + 4;
        let mut label = Vec::new();
        for line in broken(&place.label, BOX_COLUMNS) {
            label.push(Text { x: x + RIM, y: below + ASCENT, colour: FAINT, bold: true, line });
            below += LINE;
        }
        below += 4;
        let mut boxes = Vec::new();
        for (number, stop) in place.stops.iter().enumerate() {
            below += if number > 0 { STEP } else { 0 };
            let hop = HopBox::of(stop, (x + RIM, below, width - 2 * RIM));
            below += hop.frame.height;
            boxes.push(hop);
        }
        Self { frame: Frame { x, y, width, height: below + PAD - y }, label, boxes }
    }
}

impl<'a> HopBox<'a> {
    /// Lays a hop out at a place, with a width.
    fn of(stop: &'a Stop, (x, y, width): (usize, usize, usize)) -> Self {
        let mut below = y + PAD / 2;
        let mut texts = Vec::new();
        for (line, colour, bold) in lines(stop) {
            texts.push(Text { x: x + PAD, y: below + ASCENT, colour, bold, line });
            below += LINE;
        }
        Self { frame: Frame { x, y, width, height: below + PAD / 2 - y }, stop, texts }
    }

    /// The height of its middle.
    fn middle(&self) -> usize {
        self.frame.y + self.frame.height / 2
    }
}

/// The lines of a hop with their colour and weight: its number and name, its state where it is not well, the rest.
fn lines(stop: &Stop) -> Vec<(String, &'static str, bool)> {
    let number = format!("{} ", stop.number);
    let mut lines: Vec<(String, &'static str, bool)> =
        broken(&format!("{number}{}", stop.name), BOX_COLUMNS).into_iter().map(|line| (line, INK, true)).collect();
    lines.extend(picture::badge(stop.state).map(|badge| (badge.to_owned(), picture::colour(stop.state), true)));
    let rest = stop.lines.iter().flat_map(|line| broken(line, BOX_COLUMNS));
    lines.extend(rest.map(|line| (line, INK, false)));
    lines
}

/// Arrows between the hops of a direction; `row_ends` are the lower edges of its rows.
fn arrows(columns: &[Column<'_>], row_ends: &[usize], steps: Vec<Step>) -> Vec<Arrow> {
    let boxes: Vec<(&Column<'_>, &HopBox<'_>)> =
        columns.iter().flat_map(|column| column.boxes.iter().map(move |hop| (column, hop))).collect();
    let draw = |Step { from, to, dead }| {
        let ((column, start), (next, end)) = (boxes[from], boxes[to]);
        let points = if next.frame.x > column.frame.x && next.frame.y == column.frame.y {
            across((column, start), (next, end))
        } else if next.frame.y > column.frame.y {
            let row_end = row_ends.iter().find(|end| **end > column.frame.y).copied().unwrap_or_default();
            to_next_row((column, start), row_end, (next, end))
        } else if to == from + 1 {
            let center = start.frame.x + start.frame.width / 2;
            vec![(center, start.frame.y + start.frame.height), (center, end.frame.y)]
        } else {
            past((column, start), end)
        };
        Arrow { points, dead }
    };
    steps.into_iter().map(draw).collect()
}

/// The corners of an arrow through the gutter to the next column.
fn across((column, from): (&Column<'_>, &HopBox<'_>), (_, to): (&Column<'_>, &HopBox<'_>)) -> Vec<(usize, usize)> {
    let gutter = column.frame.x + column.frame.width + GUTTER / 2;
    let start = from.frame.x + from.frame.width;
    vec![(start, from.middle()), (gutter, from.middle()), (gutter, to.middle()), (to.frame.x, to.middle())]
}

/// The corners of an arrow to the next row: by the right of its column, between the rows, and by the left edge.
fn to_next_row(
    (column, from): (&Column<'_>, &HopBox<'_>),
    row_end: usize,
    (_, to): (&Column<'_>, &HopBox<'_>),
) -> Vec<(usize, usize)> {
    let (right, left) = (column.frame.x + column.frame.width + MARGIN / 2, MARGIN / 2);
    let (start, between) = (from.frame.x + from.frame.width, row_end + ROW_GAP / 2);
    vec![
        (start, from.middle()),
        (right, from.middle()),
        (right, between),
        (left, between),
        (left, to.middle()),
        (to.frame.x, to.middle()),
    ]
}

/// The corners of an arrow past other hops of the same column, between them and its border.
fn past((column, from): (&Column<'_>, &HopBox<'_>), to: &HopBox<'_>) -> Vec<(usize, usize)> {
    let rim = column.frame.x + 3;
    vec![(from.frame.x, from.middle()), (rim, from.middle()), (rim, to.middle()), (to.frame.x, to.middle())]
}

/// Texts under one another from `y` on, which moves below them.
fn stack(text: &str, columns: usize, y: &mut usize, (colour, bold): (&'static str, bool)) -> Vec<Text> {
    let mut texts = Vec::new();
    for line in broken(text, columns) {
        texts.push(Text { x: MARGIN, y: *y + ASCENT, colour, bold, line });
        *y += LINE;
    }
    texts
}

/// Pixels a text takes.
fn advance(text: &str) -> usize {
    (text.width() * ADVANCE_TWICE).div_ceil(2)
}

/// A text made harmless and broken into lines; what goes on too long ends in an ellipsis.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let shown = escape::terminal(text, false);
    let mut lines = wrap::lines(&shown, columns);
    if lines.len() > STATEMENT_LINES {
        lines.truncate(STATEMENT_LINES);
        if let Some(last) = lines.last_mut() {
            while last.width() >= columns {
                last.pop();
            }
            last.push('…');
        }
    }
    lines
}
