//! The hops of one direction, as a table with what belongs to each hop below it.

use netdiag_model::trace::{Direction, Hop, HopState, RuleRef};

use super::{
    page::{Page, Paint, Span, atom},
    table::{Cell, Column, Layout},
    units,
};

/// Columns in front of what stands below a hop: under its state.
const BELOW: usize = 5;

/// The columns, in the order they are given room.
const COLUMNS: [Column; 11] = [
    Column::new(" #", 2, 3).essential().right(),
    Column::new("STATE", 9, 9).essential(),
    Column::new("HOP", 12, 12).essential(),
    Column::new("NAME", 17, 32).essential(),
    Column::new("WHERE", 17, 28).essential(),
    Column::new("STATUS", 8, 24),
    Column::new("MTU", 4, 5).right(),
    Column::new("ADDRESSES", 18, 44),
    Column::new("RECEIVED", 17, 34),
    Column::new("SENT", 17, 34),
    Column::new("MEANING", 30, 70).blank(),
];

/// One layout for both directions, so that they read as one table.
pub(super) fn layout(page: &Page<'_>, hops: &[Hop]) -> Layout<'static> {
    let rows: Vec<Vec<Cell>> = hops.iter().map(|hop| cells(page, hop)).collect();
    Layout::fit(&COLUMNS, &rows, page.width())
}

/// Draws the hops of a direction.
pub(super) fn draw(page: &mut Page<'_>, layout: &Layout<'_>, hops: &[Hop], direction: Direction) {
    let hops: Vec<&Hop> = hops.iter().filter(|hop| hop.direction == direction).collect();
    if hops.is_empty() {
        return;
    }
    page.gap();
    let title = match direction {
        Direction::Outward => "OUTWARD  from the instance",
        Direction::Inward => "INWARD  to the instance",
        Direction::Lateral => "ASIDE  to this network on other hosts",
    };
    page.line(vec![Span::new(Paint::Heading, title)]);
    layout.titles(page);
    for hop in hops {
        let cells = cells(page, hop);
        layout.row(page, &cells);
        below(page, layout, &cells);
        hop.rules.iter().for_each(|hop_rule| rule(page, hop_rule));
        details(page, hop);
    }
}

/// What the columns hold for a hop.
fn cells(page: &Page<'_>, hop: &Hop) -> Vec<Cell> {
    let place = hop.netns.as_ref().map(|netns| page.say(&netns.label)).unwrap_or_default();
    let addresses: Vec<String> = hop.addresses.iter().map(ToString::to_string).collect();
    let (received, sent) = hop.counters.as_ref().map(|stats| (units::received(stats), units::sent(stats))).unzip();
    let paint = if hop.state == HopState::Ok { Paint::Plain } else { Paint::of(hop.state) };
    let traffic = |text: Option<String>, lost: bool| {
        Span::new(if lost { Paint::Warning } else { Paint::Plain }, text.unwrap_or_default())
    };
    let stats = hop.counters.unwrap_or_default();
    vec![
        Span::new(Paint::Dim, hop.number.to_string()),
        page.state(hop.state),
        Span::plain(hop.kind.name()),
        Span::new(Paint::Strong, page.say(&hop.name)),
        Span::plain(place),
        Span::new(paint, page.say(&hop.status)),
        Span::plain(hop.mtu.map(|mtu| mtu.to_string()).unwrap_or_default()),
        Span::plain(addresses.join(", ")),
        traffic(received, stats.rx_dropped + stats.rx_errors > 0),
        traffic(sent, stats.tx_dropped + stats.tx_errors > 0),
        Span::new(if hop.state == HopState::Ok { Paint::Dim } else { paint }, page.say(&hop.note)),
    ]
}

/// What the table had no room for: facts in one list, losses and the meaning on lines of their own.
fn below(page: &mut Page<'_>, layout: &Layout<'_>, cells: &[Cell]) {
    let lead = || vec![Span::space(BELOW)];
    let (mut facts, mut lines) = (Vec::new(), Vec::new());
    for (title, cell) in layout.left_over(cells) {
        let text = match title {
            "MEANING" | "ADDRESSES" => cell.text.clone(),
            "RECEIVED" => format!("rx {}", cell.text),
            "SENT" => format!("tx {}", cell.text),
            "WHERE" => format!("in {}", cell.text),
            _ => format!("{} {}", title.to_lowercase(), cell.text),
        };
        let loses = matches!(title, "RECEIVED" | "SENT") && cell.paint == Paint::Warning;
        if title == "MEANING" || loses {
            lines.push(Span::new(cell.paint, text));
        } else {
            facts.push(text);
        }
    }
    if !facts.is_empty() {
        page.list(lead(), &facts, Paint::Plain);
    }
    for line in &lines {
        page.hang(lead(), line);
    }
}

/// A rule: what it does to this path, what it has counted, and the rule as its own tool prints it.
pub(super) fn rule(page: &mut Page<'_>, rule: &RuleRef) {
    let meaning = if rule.meaning.is_empty() { "meaning unknown".to_owned() } else { page.say(&rule.meaning) };
    let counted = atom(&format!("({})", units::counted(rule.counters)));
    let branch = page.glyph("└ ", "` ");
    page.hang(
        vec![Span::space(BELOW), Span::new(Paint::Dim, branch)],
        &Span::new(Paint::Strong, format!("{meaning} {counted}")),
    );
    let lead = || vec![Span::space(BELOW + 2)];
    let text = page.exact(&rule.rule);
    page.hang(lead(), &Span::new(Paint::Dim, text));
    if page.style.detail > 0 {
        let RuleRef { table, chain, number, backend, netns, .. } = rule;
        let place = format!("rule {number} of {chain} in {table}, {}, {} {}", backend.name(), netns.label, netns.id);
        let place = page.exact(&place);
        page.hang(lead(), &Span::new(Paint::Dim, place));
    }
}

/// What `-v` and `-vv` add.
fn details(page: &mut Page<'_>, hop: &Hop) {
    if page.style.detail == 0 {
        return;
    }
    let mut pairs: Vec<(&str, String)> = Vec::new();
    pairs.extend(hop.netns.as_ref().map(|netns| ("netns", format!("{} {}", netns.label, netns.id))));
    if page.say(&hop.name) != page.exact(&hop.name) {
        pairs.push(("name", hop.name.clone()));
    }
    pairs.extend(hop.mac.map(|mac| ("mac", mac.to_string())));
    pairs.extend(hop.detail.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let things: Vec<String> = pairs.iter().map(|(name, value)| page.exact(&format!("{name} {value}"))).collect();
    if !things.is_empty() {
        page.list(vec![Span::space(BELOW)], &things, Paint::Dim);
    }
    if page.style.detail > 1 {
        for command in &hop.verify {
            page.command(vec![Span::space(BELOW), Span::new(Paint::Dim, "$ ")], command);
        }
    }
}
