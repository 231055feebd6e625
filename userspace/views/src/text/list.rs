//! Every instance of the host, one line per interface.

use std::{
    io::{self, Write},
    net::IpAddr,
};

use netdiag_model::{
    groups::Summary,
    list::{Listing, Row, RowInterface},
};

use super::{
    Style, findings,
    page::{Page, Paint, Span},
    table::{Cell, Column, Layout},
    trace,
};
use crate::time;

/// What a column holds of an interface; the text comes from outside.
type Content = fn(&Row, &RowInterface) -> Option<String>;

/// The columns behind the instance, its state and its addresses, in the order they are given room.
const COLUMNS: [(Column, Content); 17] = [
    (Column::new("HOST END", 15, 16), |_, interface| interface.host_device.clone()),
    (Column::new("TAG", 4, 4).right(), |_, interface| interface.vlan_tag.map(|tag| tag.to_string())),
    (Column::new("GROUPS", 8, 8), |_, interface| {
        interface.enforcement.as_ref().map(|summary| summary.mode_name().to_owned())
    }),
    (Column::new("HOOK", 15, 40), |_, interface| interface.enforcement.as_ref().map(hook)),
    (Column::new("HOSTNAME", 17, 32), |row, _| row.identity.hostname.clone()),
    (Column::new("KIND", 9, 9), |row, _| Some(row.identity.kind.name().to_owned())),
    (Column::new("NETWORK", 9, 36), |_, interface| {
        interface.network_name.clone().or_else(|| interface.network_id.clone())
    }),
    (Column::new("SEGMENT", 10, 16), |_, interface| segment(interface)),
    (Column::new("BRIDGE", 14, 16), |_, interface| interface.bridge.clone()),
    (Column::new("MAC", 17, 17), |_, interface| interface.mac.map(|mac| mac.to_string())),
    (Column::new("PORT", 9, 36), |_, interface| interface.port_id.as_ref().map(ToString::to_string)),
    (Column::new("RUNS", 9, 10), |row, _| Some(row.identity.state.clone())),
    (Column::new("DEVICE", 14, 16), |_, interface| interface.device.clone()),
    (Column::new("NOVA", 9, 36), |row, _| row.identity.nova_uuid.as_ref().map(ToString::to_string)),
    (Column::new("LIBVIRT", 17, 24), |row, _| row.identity.libvirt_name.clone()),
    (Column::new("PID", 7, 8).right(), |row, _| row.identity.pid.map(|pid| pid.to_string())),
    (Column::new("CONTAINER", 13, 64), |row, _| row.identity.container_id.clone()),
];

/// Type of the network and its VNI or VLAN.
fn segment(interface: &RowInterface) -> Option<String> {
    let id = interface.segmentation_id.map(|id| id.to_string());
    let words: Vec<String> = interface.network_type.clone().into_iter().chain(id).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Where security groups hold, or why they cannot.
fn hook(summary: &Summary) -> String {
    summary.refused.as_ref().map_or_else(|| summary.hooks(), |why| format!("none: {why}"))
}

/// All columns.
fn columns() -> Vec<Column> {
    let mut columns = vec![
        Column::new("INSTANCE", 17, 40).essential(),
        Column::new("STATE", 9, 9).essential(),
        Column::new("ADDRESSES", 19, 44).essential(),
        Column::new("FLOATING IPS", 18, 40),
    ];
    columns.extend(COLUMNS.iter().map(|(column, _)| *column));
    columns
}

/// Writes a listing as text.
pub fn render(listing: &Listing, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    if listing.instances.is_empty() {
        let place = page.exact(&listing.hostname);
        page.hang(Vec::new(), &Span::plain(format!("No instance found on {place}.")));
    } else {
        table(&mut page, &listing.instances);
    }
    findings::draw_gaps(&mut page, &listing.gaps);
    if style.detail > 0 {
        page.gap();
        let seen = format!("{} at {}", listing.hostname, time::words(listing.taken_at));
        page.field("seen on", &[seen]);
    }
    page.write(out)
}

/// The instances, each with its further names below where the reader asked for them.
fn table(page: &mut Page<'_>, instances: &[Row]) {
    let rows: Vec<Vec<Vec<Cell>>> = instances.iter().map(|row| lines(page, row)).collect();
    let columns = columns();
    let layout = Layout::fit(&columns, &rows.concat(), page.width());
    let titles = layout.titles(page);
    page.line(titles);
    for (instance, lines) in instances.iter().zip(&rows) {
        for cells in lines {
            let line = layout.line(page, cells);
            page.line(line);
        }
        if page.style.detail > 0 {
            trace::identity(page, &instance.identity);
            let ports = instance.interfaces.iter().filter_map(|interface| interface.port_id.as_ref());
            page.field("port", &ports.map(ToString::to_string).collect::<Vec<_>>());
            let networks = instance.interfaces.iter().filter_map(|interface| interface.network_id.clone());
            page.field("network", &networks.collect::<Vec<_>>());
        }
    }
}

/// The lines of an instance: one per interface, and one for an instance without any.
fn lines(page: &Page<'_>, row: &Row) -> Vec<Vec<Cell>> {
    if row.interfaces.is_empty() {
        return vec![cells(page, row, &RowInterface { state: row.worst, ..RowInterface::default() })];
    }
    row.interfaces.iter().map(|interface| cells(page, row, interface)).collect()
}

/// What the columns hold for an interface. The name stands on each line, so that a line means something to `grep`.
fn cells(page: &Page<'_>, row: &Row, interface: &RowInterface) -> Vec<Cell> {
    let mut cells = vec![
        Span::new(Paint::Strong, page.say(&row.identity.name)),
        page.state(interface.state),
        Span::plain(joined(page, &interface.addresses)),
        Span::plain(joined(page, &floating(interface))),
    ];
    let contents = COLUMNS.iter().map(|(_, content)| content(row, interface).unwrap_or_default());
    cells.extend(contents.map(|text| Span::plain(page.say(&text))));
    cells
}

/// Floating IPs, with the way of each where it is known.
fn floating(interface: &RowInterface) -> Vec<String> {
    let way = |address: &IpAddr| interface.floating_ways.iter().find(|way| way.address == *address);
    let words = |address: &IpAddr| match way(address) {
        Some(way) => format!("{address} {}", way.standing.name()),
        None => address.to_string(),
    };
    interface.floating_ips.iter().map(words).collect()
}

/// Several values in one cell: on a page with a width, the first and how many more.
fn joined(page: &Page<'_>, values: &[impl ToString]) -> String {
    match values {
        [first, _, ..] if page.width() < Style::UNLIMITED => format!("{} +{}", first.to_string(), values.len() - 1),
        _ => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}
