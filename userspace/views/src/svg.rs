//! A trace as an SVG picture, laid out here: no other program is needed.
//!
//! Per interface a band for each direction. In a band the namespaces are columns in the order packets meet them, row by
//! row where they are many, and their hops boxes; packets go down a column and through the gutter to the next one, so no
//! arrow crosses text.
//!
//! ```text
//!  instance's netns     host            router's netns    outside
//!  +------------+   +----------+    +---------------+   +----------+
//!  | [1] [2]    |-->| [3] [4]  |--->| [5] [6 NAT]   |-->| [7]      |
//!  +------------+   +----------+    +---------------+   +----------+
//! ```

/// Where everything goes.
mod layout;

use std::io::{self, Write};

use netdiag_model::trace::{Direction, HopState, Trace};

use self::layout::{Arrow, Band, Column, Drawing, Frame, Text};
use crate::{
    escape,
    picture::{self, Picture},
};

/// What the text of a picture is drawn in; each reader's own fixed-width font, in which names tell apart best.
const FONT: &str = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
/// The colour of text.
const INK: &str = "#1f2328";
/// The colour of headings of columns.
const FAINT: &str = "#57606a";

/// Writes a trace as a picture on a white ground.
pub fn render(trace: &Trace, out: &mut impl Write) -> io::Result<()> {
    let picture = Picture::of(trace);
    let drawing = Drawing::of(&picture);
    let (width, height) = (drawing.width, drawing.height);
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"{}\" font-size=\"{}\">",
        escape::xml(FONT),
        layout::FONT_SIZE
    )?;
    writeln!(out, "<title>{}</title>", escape::xml(&picture.title))?;
    writeln!(out, "<desc>{}</desc>", escape::xml(&picture.answer))?;
    write_arrow_heads(out)?;
    writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>")?;
    for text in &drawing.heading {
        write_text(text, out)?;
    }
    for band in &drawing.bands {
        write_band(band, out)?;
    }
    writeln!(out, "</svg>")
}

/// The heads of arrows, one per colour: a marker does not take the colour of its line everywhere.
fn write_arrow_heads(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "<defs>")?;
    let directions = [Direction::Outward, Direction::Lateral, Direction::Inward];
    let heads = directions.map(|direction| (head(direction), picture::direction_colour(direction)));
    for (name, colour) in heads.into_iter().chain([("dead", picture::DEAD)]) {
        writeln!(
            out,
            "<marker id=\"{name}\" markerWidth=\"9\" markerHeight=\"8\" refX=\"8\" refY=\"4\" orient=\"auto\" \
             markerUnits=\"userSpaceOnUse\"><path d=\"M0 0 L9 4 L0 8 z\" fill=\"{colour}\"/></marker>"
        )?;
    }
    writeln!(out, "</defs>")
}

/// The name of the head of a direction's arrows.
const fn head(direction: Direction) -> &'static str {
    match direction {
        Direction::Outward => "outward",
        Direction::Lateral => "aside",
        Direction::Inward => "inward",
    }
}

/// One direction of one interface.
fn write_band(band: &Band<'_>, out: &mut impl Write) -> io::Result<()> {
    for text in &band.title {
        write_text(text, out)?;
    }
    for column in &band.columns {
        write_column(column, out)?;
    }
    for arrow in &band.arrows {
        write_arrow(arrow, band.direction, out)?;
    }
    Ok(())
}

/// A namespace and its hops.
fn write_column(column: &Column<'_>, out: &mut impl Write) -> io::Result<()> {
    let Frame { x, y, width, height } = column.frame;
    writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#f6f8fa\" stroke=\"#d0d7de\"/>"
    )?;
    for text in &column.label {
        write_text(text, out)?;
    }
    for hop in &column.boxes {
        let Frame { x, y, width, height } = hop.frame;
        let (fill, colour) = (picture::fill(hop.stop.kind), picture::colour(hop.stop.state));
        let line = match hop.stop.state {
            HopState::Ok => "stroke-width=\"1\"",
            HopState::Warning => "stroke-width=\"2\"",
            HopState::Unknown => "stroke-width=\"1.5\" stroke-dasharray=\"4 3\"",
            HopState::Broken => "stroke-width=\"3\"",
        };
        writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\" fill=\"{fill}\" \
             stroke=\"{colour}\" {line}/>"
        )?;
        for text in &hop.texts {
            write_text(text, out)?;
        }
    }
    Ok(())
}

/// One arrow. Past a broken hop it is grey and dotted: nothing comes this way.
fn write_arrow(arrow: &Arrow, direction: Direction, out: &mut impl Write) -> io::Result<()> {
    let points: Vec<String> = arrow.points.iter().map(|(x, y)| format!("{x},{y}")).collect();
    let (name, colour, dash) = if arrow.dead {
        ("dead", picture::DEAD, " stroke-dasharray=\"2 4\"")
    } else {
        (head(direction), picture::direction_colour(direction), "")
    };
    writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash} \
         marker-end=\"url(#{name})\"/>",
        points.join(" ")
    )
}

/// One line of text.
fn write_text(text: &Text, out: &mut impl Write) -> io::Result<()> {
    let weight = if text.bold { " font-weight=\"bold\"" } else { "" };
    let (x, y, colour) = (text.x, text.y, text.colour);
    writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\"{weight}>{}</text>", escape::xml(&text.line))
}

#[cfg(test)]
mod tests;
