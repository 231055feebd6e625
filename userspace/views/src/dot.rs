//! A trace as a Graphviz graph: one chain per direction from top to bottom, the instance on top of both.

use std::io::{self, Write};

use netdiag_model::trace::{Direction, HopState, Trace};

use crate::{
    escape,
    picture::{self, Panel, Path, Picture, Step, Stop},
    wrap,
};

/// Columns after which a line of a label is broken.
const COLUMNS: usize = 36;

/// Writes a trace in the DOT language.
pub fn render(trace: &Trace, out: &mut impl Write) -> io::Result<()> {
    let picture = Picture::of(trace);
    writeln!(out, "digraph netdiag {{")?;
    writeln!(out, "  graph [rankdir=TB, bgcolor=white, fontname=\"monospace\", fontsize=12, labelloc=t, labeljust=l,")?;
    writeln!(out, "    nodesep=0.3, ranksep=0.3, label=\"{}\"];", heading(&picture))?;
    writeln!(out, "  node [shape=box, style=filled, fontname=\"monospace\", fontsize=11, margin=\"0.12,0.08\"];")?;
    for (number, panel) in picture.panels.iter().enumerate() {
        write_panel(number, panel, out)?;
    }
    writeln!(out, "}}")
}

/// The lines above the graph.
fn heading(picture: &Picture) -> String {
    let legend = if picture.has_dead_steps() { "dotted arrows: past a broken hop" } else { "" };
    let lines = [&picture.title, &picture.seen, &picture.answer, legend];
    lines.iter().filter(|line| !line.is_empty()).map(|line| left(line, 90)).collect()
}

/// One interface.
fn write_panel(number: usize, panel: &Panel, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "  subgraph cluster_{number} {{")?;
    writeln!(out, "    label=\"{}\"; color=\"#8c959f\"; style=rounded;", left(&panel.caption, 90))?;
    // Graphviz puts what comes later further left.
    for path in panel.paths.iter().rev() {
        write_path(number, path, out)?;
    }
    writeln!(out, "  }}")
}

/// One direction. Arrows inward are written backward, so that the instance is on top here too.
fn write_path(panel: usize, path: &Path, out: &mut impl Write) -> io::Result<()> {
    let Path { direction, places } = path;
    let (title, colour) = (picture::title(*direction), picture::direction_colour(*direction));
    let name = match direction {
        Direction::Outward => "o",
        Direction::Lateral => "l",
        Direction::Inward => "i",
    };
    writeln!(out, "    subgraph cluster_{panel}{name} {{")?;
    writeln!(out, "      label=\"{title}\"; color=\"{colour}\"; fontcolor=\"{colour}\"; style=rounded;")?;
    for (place, group) in places.iter().enumerate() {
        let label = left(&group.label, COLUMNS);
        writeln!(out, "      subgraph cluster_{panel}{name}_{place} {{")?;
        writeln!(
            out,
            "        label=\"{label}\"; color=\"#d0d7de\"; fontcolor=\"#57606a\"; fontsize=10; bgcolor=\"#f6f8fa\";"
        )?;
        for stop in &group.stops {
            write_stop(&format!("{name}{panel}_{}", stop.number), stop, out)?;
        }
        writeln!(out, "      }}")?;
    }
    let stops = path.stops();
    for Step { from, to, dead } in picture::steps(&stops) {
        let (from, to) = (stops[from].number, stops[to].number);
        let (from, to) = (format!("{name}{panel}_{from}"), format!("{name}{panel}_{to}"));
        let (upper, lower, way) = match direction {
            Direction::Outward | Direction::Lateral => (from, to, "forward"),
            Direction::Inward => (to, from, "back"),
        };
        let (colour, style) = if dead { (picture::DEAD, "dotted") } else { (colour, "solid") };
        writeln!(out, "      {upper} -> {lower} [dir={way}, color=\"{colour}\", style={style}];")?;
    }
    writeln!(out, "    }}")
}

/// One hop. A state that is not well shows in words, in the border and in colour.
fn write_stop(id: &str, stop: &Stop, out: &mut impl Write) -> io::Result<()> {
    let mut label = left(&format!("{} {}", stop.number, stop.name), COLUMNS);
    label.extend(picture::badge(stop.state).map(|badge| left(badge, COLUMNS)));
    label.extend(stop.lines.iter().map(|line| left(line, COLUMNS)));
    let shape = match stop.state {
        HopState::Ok => "penwidth=1",
        HopState::Warning => "penwidth=2",
        HopState::Unknown => "penwidth=1, style=\"filled,dashed\"",
        HopState::Broken => "penwidth=3, peripheries=2",
    };
    let (fill, colour) = (picture::fill(stop.kind), picture::colour(stop.state));
    writeln!(out, "        {id} [label=\"{label}\", fillcolor=\"{fill}\", color=\"{colour}\", {shape}];")
}

/// Lines that stand left.
fn left(text: &str, columns: usize) -> String {
    // Made visible first: what is broken must be what is shown. Escaped last: no escape must be broken.
    let shown = escape::terminal(text, false);
    wrap::lines(&shown, columns).iter().map(|line| escape::dot(line) + "\\l").collect()
}
