//! Where everything goes, in whole pixels.
//!
//! There is no font to measure here, so a character is given a little more than any fixed-width font takes, and text is
//! broken to the columns a box has before the box is sized to the text.

use netdiag_model::trace::{Direction, HopState};
use unicode_width::UnicodeWidthStr;

use super::{FAINT, INK};
use crate::{
    escape,
    picture::{self, Panel, Picture, Place, Stop},
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
const PAD: usize = 10;
/// Around the whole picture.
const MARGIN: usize = 20;
/// Between columns, where arrows go from one height to another.
const GUTTER: usize = 44;
/// Between boxes, where arrows go down.
const STEP: usize = 22;
/// Columns after which a line in a box is broken.
const BOX_COLUMNS: usize = 32;
/// Lines one statement of a hop may take.
const STATEMENT_LINES: usize = 4;
/// The narrowest picture, for its heading's sake.
const LEAST_WIDTH: usize = 720;

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
    /// The caption, and which way it is.
    pub(super) title: Vec<Text>,
    /// Its columns in the order packets meet them, which is from right to left on the way in.
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
        let widths: Vec<[Vec<usize>; 2]> = picture.panels.iter().map(column_widths).collect();
        let widest = widths.iter().flatten().map(|widths| total(widths)).max().unwrap_or_default();
        let width = (widest + 2 * MARGIN).max(LEAST_WIDTH);
        let room = (width - 2 * MARGIN) * 2 / ADVANCE_TWICE;
        let mut y = MARGIN;
        let mut heading = stack(&picture.title, room, &mut y, (INK, true));
        heading.extend(stack(&picture.seen, room, &mut y, (FAINT, false)));
        heading.extend(stack(&picture.answer, room, &mut y, (picture::answer_colour(picture.state), true)));
        let mut bands = Vec::new();
        for (panel, [outward, inward]) in picture.panels.iter().zip(&widths) {
            y += STEP;
            heading.extend(stack(&panel.caption, room, &mut y, (INK, true)));
            for (direction, places, widths) in
                [(Direction::Outward, &panel.outward, outward), (Direction::Inward, &panel.inward, inward)]
            {
                if !places.is_empty() {
                    bands.push(Band::of(direction, places, widths, &mut y));
                }
            }
        }
        Self { width, height: y + MARGIN, heading, bands }
    }
}

/// Widths of the columns of both directions, from left to right; the same where both have as many.
fn column_widths(panel: &Panel) -> [Vec<usize>; 2] {
    let widths = |places: &[Place]| places.iter().map(natural_width).collect::<Vec<_>>();
    let mut outward = widths(&panel.outward);
    let mut inward = widths(&panel.inward);
    inward.reverse();
    if outward.len() == inward.len() {
        for (out, back) in outward.iter_mut().zip(&mut inward) {
            *out = (*out).max(*back);
            *back = *out;
        }
    }
    [outward, inward]
}

/// The width of a namespace: as wide as its longest line.
fn natural_width(place: &Place) -> usize {
    let label = broken(&place.label, BOX_COLUMNS).into_iter().map(|line| advance(&line)).max();
    let boxes = place.stops.iter().flat_map(lines).map(|(line, ..)| advance(&line)).max();
    label.unwrap_or_default().max(boxes.unwrap_or_default() + 2 * PAD) + 2 * PAD
}

/// Width of columns with the gutters between them.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GUTTER * widths.len().saturating_sub(1)
}

impl<'a> Band<'a> {
    /// Lays a direction out below `y`, and moves `y` below it.
    fn of(direction: Direction, places: &'a [Place], widths: &[usize], y: &mut usize) -> Self {
        let dead = places.iter().flat_map(|place| &place.stops).any(|stop| stop.state == HopState::Broken);
        let (title, colour) = match direction {
            Direction::Outward => ("outward: from the instance →", picture::OUTWARD),
            Direction::Inward => ("inward: to the instance ←", picture::INWARD),
            Direction::Lateral => ("aside: to this network on other hosts →", picture::OUTWARD),
        };
        let title = if dead { format!("{title} · dotted: past a broken hop") } else { title.to_owned() };
        *y += 6;
        let title = stack(&title, BOX_COLUMNS * 3, y, (colour, true));
        *y += 6;
        let top = *y;
        let mut columns = Vec::new();
        let last = places.len() - 1;
        for (met, place) in places.iter().enumerate() {
            let at = if direction == Direction::Outward { met } else { last - met };
            let x = MARGIN + total(&widths[..at]) + if at > 0 { GUTTER } else { 0 };
            let column = Column::of(place, (x, top, widths[at]));
            *y = (*y).max(column.frame.y + column.frame.height);
            columns.push(column);
        }
        *y += 6;
        let arrows = arrows(direction, &columns);
        Self { direction, title, columns, arrows }
    }
}

impl<'a> Column<'a> {
    /// Lays a namespace out at a place, with a width.
    fn of(place: &'a Place, (x, y, width): (usize, usize, usize)) -> Self {
        let mut below = y + 4;
        let mut label = Vec::new();
        for line in broken(&place.label, BOX_COLUMNS) {
            label.push(Text { x: x + PAD, y: below + ASCENT, colour: FAINT, bold: true, line });
            below += LINE;
        }
        below += 4;
        let mut boxes = Vec::new();
        for (number, stop) in place.stops.iter().enumerate() {
            below += if number > 0 { STEP } else { 0 };
            let hop = HopBox::of(stop, (x + PAD, below, width - 2 * PAD));
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

/// Arrows between the hops of a direction.
fn arrows(direction: Direction, columns: &[Column<'_>]) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    let mut dead = false;
    for (place, column) in columns.iter().enumerate() {
        for (number, hop) in column.boxes.iter().enumerate() {
            dead |= hop.stop.state == HopState::Broken;
            let center = hop.frame.x + hop.frame.width / 2;
            let points = if let Some(next) = column.boxes.get(number + 1) {
                vec![(center, hop.frame.y + hop.frame.height), (center, next.frame.y)]
            } else if let Some(first) = columns.get(place + 1).and_then(|next| next.boxes.first()) {
                across(direction, (column, hop), first)
            } else {
                continue;
            };
            arrows.push(Arrow { points, dead });
        }
    }
    arrows
}

/// The corners of an arrow through the gutter to the next column.
fn across(direction: Direction, (column, from): (&Column<'_>, &HopBox<'_>), to: &HopBox<'_>) -> Vec<(usize, usize)> {
    let (start, gutter, end) = match direction {
        Direction::Outward | Direction::Lateral => {
            (from.frame.x + from.frame.width, column.frame.x + column.frame.width + GUTTER / 2, to.frame.x)
        }
        Direction::Inward => (from.frame.x, column.frame.x - GUTTER / 2, to.frame.x + to.frame.width),
    };
    vec![(start, from.middle()), (gutter, from.middle()), (gutter, to.middle()), (end, to.middle())]
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
