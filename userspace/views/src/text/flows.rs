//! The flows the datapath tracks, one line each.

use std::io::{self, Write};

use netdiag_model::{
    groups::{FlowRow, Flows, Known},
    policy::types::Direction,
};

use super::{
    Style, findings,
    page::{Page, Paint, Span},
    table::{Cell, Column, Layout},
    units, words,
};

/// The columns, in the order they are given room.
const COLUMNS: [Column; 11] = [
    Column::new("DIR", 3, 3).essential(),
    Column::new("PROTO", 5, 9).essential(),
    Column::new("LOCAL", 18, 46).essential(),
    Column::new("REMOTE", 21, 46).essential(),
    Column::new("STATE", 11, 12).essential(),
    Column::new("IDLE", 4, 4).right(),
    Column::new("AGE", 4, 4).right(),
    Column::new("RULE", 9, 50),
    Column::new("INSTANCE", 8, 30),
    Column::new("DEVICE", 14, 16),
    Column::new("PORT", 9, 36),
];

/// The same for more than one instance: whose a flow is comes first.
const INSTANCE: Column = Column::new("INSTANCE", 8, 24).essential();

/// Writes flows as text.
pub fn render(flows: &Flows, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    if flows.rows.is_empty() {
        let sentence = page.exact(&nothing(flows));
        page.hang(Vec::new(), &Span::plain(sentence));
    } else {
        table(&mut page, flows);
        page.gap();
        let sentence = page.exact(&summary(flows));
        page.hang(Vec::new(), &Span::plain(sentence));
    }
    findings::draw_gaps(&mut page, &flows.gaps);
    page.write(out)
}

fn table(page: &mut Page<'_>, flows: &Flows) {
    let of_one = flows.instance.is_some();
    let mut columns: Vec<Column> = COLUMNS.to_vec();
    if !of_one {
        columns.retain(|column| column.title != INSTANCE.title);
        columns.insert(0, INSTANCE);
    }
    let rows: Vec<Vec<Cell>> = flows.rows.iter().map(|row| cells(page, row, of_one)).collect();
    let layout = Layout::fit(&columns, &rows, page.width());
    let titles = layout.titles(page);
    page.line(titles);
    for cells in &rows {
        let line = layout.line(page, cells);
        page.line(line);
    }
}

fn cells(page: &Page<'_>, row: &FlowRow, of_one: bool) -> Vec<Cell> {
    let flow = &row.flow;
    let say = |text: &Option<String>| Span::plain(text.as_ref().map(|text| page.say(text)).unwrap_or_default());
    let (local, remote) = words::flow_ends(flow);
    let paint = if flow.dead {
        Paint::Bad
    } else if flow.expired {
        Paint::Dim
    } else {
        Paint::Plain
    };
    let mut cells = vec![
        Span::plain(if flow.direction == Direction::Ingress { "in" } else { "out" }),
        Span::plain(words::protocol(flow.protocol)),
        Span::plain(local),
        Span::new(Paint::Strong, remote),
        Span::new(paint, page.exact(row.word())),
        Span::plain(units::duration(flow.idle)),
        Span::plain(units::duration(flow.age)),
        say(&row.rule),
    ];
    let instance = say(&row.instance);
    cells.insert(if of_one { cells.len() } else { 0 }, instance);
    cells.extend([say(&row.device), Span::plain(page.say(&row.port_id))]);
    cells
}

/// Where there is no row: why.
fn nothing(flows: &Flows) -> String {
    let of = flows.instance.as_ref().map_or_else(|| flows.hostname.clone(), Clone::clone);
    match flows.known {
        Known::Unread => format!("The flows of {of} are not known: they could not be read, or were not written down."),
        Known::NotEnforced => format!("netdiag enforces no security group at {of}, so it tracks no flow of it."),
        Known::Read if flows.total == 0 => format!("No flow of {of} is tracked now."),
        Known::Read => format!("None of the {} of {of} is one that was asked for.", counted(flows.total)),
    }
}

/// The last line: how many, and what about them deserves a look.
fn summary(flows: &Flows) -> String {
    let shown = flows.rows.len();
    let of = if shown == flows.total { String::new() } else { format!(" of {}", flows.total) };
    let dead = flows.rows.iter().filter(|row| row.flow.dead).count();
    let dead = if dead == 0 {
        String::new()
    } else {
        format!("; {dead} dead: what had allowed them is gone, nothing of them passes")
    };
    format!("{shown}{of} {}{dead}.", if shown == 1 && of.is_empty() { "flow" } else { "flows" })
}

fn counted(number: usize) -> String {
    format!("{number} flow{}", if number == 1 { "" } else { "s" })
}
