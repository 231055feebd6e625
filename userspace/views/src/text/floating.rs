//! The floating IPs of a host and the ways they take.

use std::io::{self, Write};

use netdiag_model::{
    floating::{
        Owner,
        show::{Listed, Row, Standing},
    },
    policy::types::Direction,
};

use super::{
    Style, findings,
    page::{Page, Paint, Span},
    table::{Cell, Column, Layout},
    units,
};
use crate::time;

/// The columns, in the order they are given room.
const COLUMNS: [Column; 11] = [
    Column::new("FLOATING IP", 15, 15).essential(),
    Column::new("WAY", 8, 8).essential(),
    Column::new("FIXED IP", 15, 15).essential(),
    Column::new("INSTANCE", 12, 30).essential(),
    Column::new("IN", 6, 9).right(),
    Column::new("OUT", 6, 9).right(),
    Column::new("EXTERNAL", 10, 20),
    Column::new("MADE BY", 7, 7),
    Column::new("ROUTER", 16, 44),
    Column::new("HOST END", 15, 16),
    Column::new("PORT", 9, 36),
];

/// Writes floating IPs as text.
pub fn render(listed: &Listed, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    if listed.rows.is_empty() {
        let of = listed.asked.as_ref().unwrap_or(&listed.hostname);
        let sentence = page.exact(&format!("No floating IP of {of} is known."));
        page.hang(Vec::new(), &Span::plain(sentence));
    } else {
        table(&mut page, listed);
        page.gap();
        let sentence = page.exact(&summary(listed));
        page.hang(Vec::new(), &Span::plain(sentence));
    }
    findings::draw_gaps(&mut page, &listed.gaps);
    if style.detail > 0 {
        page.gap();
        page.field("seen on", &[format!("{} at {}", listed.hostname, time::words(listed.taken_at))]);
    }
    page.write(out)
}

/// Rows, each with why it is not fast below; with more where a few were asked for.
fn table(page: &mut Page<'_>, listed: &Listed) {
    let rows: Vec<Vec<Cell>> = listed.rows.iter().map(|row| cells(page, row)).collect();
    let layout = Layout::fit(&COLUMNS, &rows, page.width());
    let titles = layout.titles(page);
    page.line(titles);
    let whole = listed.asked.is_some() || page.style.detail > 0;
    for (row, cells) in listed.rows.iter().zip(&rows) {
        let line = layout.line(page, cells);
        page.line(line);
        if let Some(why) = &row.why {
            let why = page.exact(why);
            page.hang(vec![Span::space(2)], &Span::new(Paint::Dim, why));
        }
        if whole {
            more(page, row);
        }
    }
}

fn cells(page: &Page<'_>, row: &Row) -> Vec<Cell> {
    let say = |text: &Option<String>| Span::plain(text.as_ref().map(|text| page.say(text)).unwrap_or_default());
    let external = row.external_device.as_ref().map(|device| match row.vlan {
        Some(vlan) => format!("{device} VLAN {vlan}"),
        None => device.clone(),
    });
    // Only what went past the router; the rest is below.
    let fast = |direction| match row.standing {
        Standing::Fast | Standing::Draining => units::count(row.packets(direction).0),
        Standing::Slow | Standing::Held | Standing::Broken | Standing::Unknown => String::new(),
    };
    let made_by = row.owner.map_or("", |owner| match owner {
        Owner::Found => "router",
        Owner::Netdiag => "netdiag",
    });
    vec![
        Span::new(Paint::Strong, row.floating_ip_address.to_string()),
        Span::new(paint(row.standing), row.standing.name()),
        Span::plain(row.fixed_ip_address.map_or_else(String::new, |address| address.to_string())),
        say(&row.instance),
        Span::plain(fast(Direction::Ingress)),
        Span::plain(fast(Direction::Egress)),
        say(&external),
        Span::plain(made_by),
        say(&row.router),
        say(&row.host_device),
        say(&row.port_id),
    ]
}

const fn paint(standing: Standing) -> Paint {
    match standing {
        Standing::Fast => Paint::Good,
        Standing::Draining | Standing::Held => Paint::Warning,
        Standing::Slow => Paint::Plain,
        Standing::Broken => Paint::Bad,
        Standing::Unknown => Paint::Unknown,
    }
}

/// Which ways packets took, and the way past the router in full.
fn more(page: &mut Page<'_>, row: &Row) {
    for (direction, name) in [(Direction::Ingress, "in"), (Direction::Egress, "out")] {
        let counts = row.ways.iter().filter(|count| count.direction == direction);
        let counts = counts.map(|count| {
            let packets = units::things(usize::try_from(count.packets).unwrap_or(usize::MAX), "packet");
            format!("{} {packets}", page.exact(&count.way))
        });
        let counts: Vec<String> = counts.collect();
        if !counts.is_empty() {
            page.field(name, &counts);
        }
    }
    let Some(path) = &row.path else { return };
    let hops = match path.hops {
        1 => "1 router".to_owned(),
        hops => format!("{hops} routers"),
    };
    page.field(
        "outside",
        &[format!("from {}", path.outer_mac), format!("MTU {}", path.outer_mtu), format!("past {hops}")],
    );
    page.field("inside", &[format!("from {} to {}", path.inner_mac, path.mac), format!("MTU {}", path.inner_mtu)]);
}

/// The last line: how many go which way.
fn summary(listed: &Listed) -> String {
    let of = |standing: Standing| listed.rows.iter().filter(|row| row.standing == standing).count();
    let all = [Standing::Fast, Standing::Draining, Standing::Slow, Standing::Held, Standing::Broken, Standing::Unknown];
    let counts: Vec<String> = all
        .into_iter()
        .filter(|standing| of(*standing) > 0)
        .map(|standing| format!("{} {}", of(standing), standing.name()))
        .collect();
    let agent = if listed.agent { "" } else { " No agent of netdiag says why." };
    format!("{}: {}.{agent}", units::things(listed.rows.len(), "floating IP"), counts.join(", "))
}
