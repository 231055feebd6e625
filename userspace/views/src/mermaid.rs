//! A trace as a Mermaid flowchart, for tickets and wikis that draw it.

use std::io::{self, Write};

use netdiag_model::trace::{Direction, HopState, Trace};

use crate::{
    escape,
    picture::{self, Path, Picture, Step, Stop},
};

/// Writes a trace as a flowchart from left to right: per interface a chain for each direction.
pub fn render(trace: &Trace, out: &mut impl Write) -> io::Result<()> {
    let picture = Picture::of(trace);
    writeln!(out, "flowchart LR")?;
    let answer = [&picture.title, &picture.seen, &picture.answer].map(|line| escape::mermaid(line)).join("<br/>");
    writeln!(out, "  answer[\"{answer}\"]")?;
    writeln!(out, "  style answer fill:#ffffff,stroke:{},color:#1f2328", picture::answer_colour(picture.state))?;
    let mut links = 0;
    for (number, panel) in picture.panels.iter().enumerate() {
        writeln!(out, "  subgraph p{number}[\"{}\"]", escape::mermaid(&panel.caption))?;
        for path in &panel.paths {
            links = write_path(number, path, links, out)?;
        }
        writeln!(out, "  end")?;
    }
    Ok(())
}

/// One direction; `links` counts the arrows of the whole chart, by which Mermaid knows them.
fn write_path(panel: usize, path: &Path, mut links: usize, out: &mut impl Write) -> io::Result<usize> {
    let Path { direction, places } = path;
    let (title, colour) = (picture::title(*direction), picture::direction_colour(*direction));
    let name = match direction {
        Direction::Outward => "o",
        Direction::Lateral => "l",
        Direction::Inward => "i",
    };
    writeln!(out, "    subgraph {name}{panel}[\"{title}\"]")?;
    for (place, group) in places.iter().enumerate() {
        writeln!(out, "      subgraph {name}{panel}g{place}[\"{}\"]", escape::mermaid(&group.label))?;
        for stop in &group.stops {
            write_stop(&format!("{name}{panel}n{}", stop.number), stop, out)?;
        }
        writeln!(out, "      end")?;
    }
    let stops = path.stops();
    for Step { from, to, dead } in picture::steps(&stops) {
        let (from, to) = (stops[from].number, stops[to].number);
        let (arrow, colour) = if dead { ("-.->|\"past a broken hop\"|", picture::DEAD) } else { ("-->", colour) };
        writeln!(out, "      {name}{panel}n{from} {arrow} {name}{panel}n{to}")?;
        writeln!(out, "      linkStyle {links} stroke:{colour}")?;
        links += 1;
    }
    writeln!(out, "    end")?;
    Ok(links)
}

/// One hop; a broken one has another shape.
fn write_stop(id: &str, stop: &Stop, out: &mut impl Write) -> io::Result<()> {
    let mut label = escape::mermaid(&format!("{} {}", stop.number, stop.name));
    for line in picture::badge(stop.state).into_iter().chain(stop.lines.iter().map(String::as_str)) {
        label = format!("{label}<br/>{}", escape::mermaid(line));
    }
    let (open, close) = if stop.state == HopState::Broken { ("{{", "}}") } else { ("[", "]") };
    writeln!(out, "        {id}{open}\"{label}\"{close}")?;
    let (fill, colour) = (picture::fill(stop.kind), picture::colour(stop.state));
    let width = if stop.state == HopState::Broken { 3 } else { 1 };
    let dash = if stop.state == HopState::Unknown { ",stroke-dasharray:4 3" } else { "" };
    writeln!(out, "        style {id} fill:{fill},stroke:{colour},stroke-width:{width}px,color:#1f2328{dash}")
}
