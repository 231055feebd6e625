//! A trace as a Mermaid flowchart, for tickets and wikis that draw it.

use std::io::{self, Write};

use netdiag_model::trace::{Direction, HopState, Trace};

use crate::{
    escape,
    picture::{self, Picture, Place, Stop},
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
        for (direction, places) in [(Direction::Outward, &panel.outward), (Direction::Inward, &panel.inward)] {
            links = write_path((number, direction), places, links, out)?;
        }
        writeln!(out, "  end")?;
    }
    Ok(())
}

/// One direction; `links` counts the arrows of the whole chart, by which Mermaid knows them.
fn write_path(
    (panel, direction): (usize, Direction),
    places: &[Place],
    mut links: usize,
    out: &mut impl Write,
) -> io::Result<usize> {
    let (name, title, colour) = match direction {
        Direction::Outward => ("o", "outward: from the instance", picture::OUTWARD),
        Direction::Inward => ("i", "inward: to the instance", picture::INWARD),
        Direction::Lateral => ("l", "aside: to this network on other hosts", picture::OUTWARD),
    };
    if places.is_empty() {
        return Ok(links);
    }
    writeln!(out, "    subgraph {name}{panel}[\"{title}\"]")?;
    for (place, group) in places.iter().enumerate() {
        writeln!(out, "      subgraph {name}{panel}g{place}[\"{}\"]", escape::mermaid(&group.label))?;
        for stop in &group.stops {
            write_stop(&format!("{name}{panel}n{}", stop.number), stop, out)?;
        }
        writeln!(out, "      end")?;
    }
    for (from, to, dead) in picture::steps(places) {
        let (arrow, colour) = if dead { ("-.->|\"past a broken hop\"|", "#57606a") } else { ("-->", colour) };
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
