//! Verdicts of packets as the agent says them, and packets that are watched, the newest at the end.

use std::{net::IpAddr, sync::Arc};

use netdiag_model::{
    event::{Decision, Event, LossEvent, VerdictEvent},
    fact::enforcement::has_ports,
};

use super::{Cell, Column, Details, Health, Order, Paint, Sheet};
use crate::{
    text::{units, words},
    time,
    tui::{
        filter::{Asked, Field},
        look::Look,
        packet::Packet,
        state::{Events, Line, Seen},
    },
};

pub(super) const COLUMNS: [Column; 10] = [
    Column::new('v', "VERDICT", (10, 11), 0),
    Column::new('t', "TIME", (13, 13), 80),
    Column::new('n', "INSTANCE", (12, 28), 0),
    Column::new('d', "DIR", (4, 4), 0),
    Column::new('p', "PROTO", (6, 7), 84),
    Column::new('f', "FROM", (16, 28), 100),
    Column::new('o', "TO, PACKET", (16, 44), 0),
    Column::new('r', "REASON", (13, 26), 0),
    Column::new('u', "RULE", (9, 36), 132),
    Column::number('l', "BYTES", 6, 132),
];

/// The events.
pub(super) struct Live<'a> {
    pub(super) events: &'a Events,
    pub(super) look: Option<&'a Arc<Look>>,
    pub(super) ascii: bool,
}

impl Live<'_> {
    fn line(&self, row: usize) -> &Line {
        &self.events.lines[row]
    }

    /// Whose port some verdicts were lost at: the instance, where it is known.
    fn whose<'l>(&'l self, loss: &'l LossEvent) -> Option<&'l str> {
        let port = loss.port_id.as_deref()?;
        Some(self.look.and_then(|look| look.owner(port)).unwrap_or(port))
    }
}

impl Sheet for Live<'_> {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn len(&self) -> usize {
        self.events.lines.len()
    }

    fn id(&self, row: usize) -> String {
        self.line(row).number.to_string()
    }

    fn cell(&self, row: usize, column: usize) -> Cell {
        let code = COLUMNS[column].code;
        match &self.line(row).seen {
            Seen::Event(Event::Verdict(event)) => verdict(event, code, self.ascii),
            Seen::Event(Event::Lost(loss)) => lost(loss, self.whose(loss), code, self.ascii),
            Seen::Packet(one) => packet(one, code, self.ascii),
        }
    }

    fn order(&self, row: usize, column: usize) -> Order {
        let line = self.line(row);
        match (&line.seen, COLUMNS[column].code) {
            (_, 't') => Order::Number(line.number.into()),
            (Seen::Event(Event::Verdict(event)), 'l') => Order::Number(event.length.into()),
            (Seen::Event(Event::Verdict(event)), 'f') => Order::address(event.source),
            (Seen::Event(Event::Verdict(event)), 'o') => Order::address(event.destination),
            _ => Order::Text(self.cell(row, column).text),
        }
    }

    fn called(&self, row: usize) -> String {
        format!("{} {}", self.cell(row, 0).text, self.cell(row, 1).text)
    }

    fn health(&self, row: usize) -> Health {
        match &self.line(row).seen {
            Seen::Event(Event::Verdict(event)) if event.verdict == Decision::Allow => Health::Ok,
            Seen::Event(Event::Verdict(_)) => Health::Broken,
            Seen::Event(Event::Lost(_)) => Health::Unknown,
            Seen::Packet(packet) => packet.health,
        }
    }

    fn fields(&self, row: usize, asked: &mut Asked<'_>) {
        match &self.line(row).seen {
            Seen::Event(Event::Verdict(event)) => {
                fields(event, asked);
                super::groups_of(self.look, event.rule.as_deref(), asked);
            }
            Seen::Packet(packet) => packet_fields(packet, asked),
            Seen::Event(Event::Lost(loss)) => {
                asked.say(Field::Verdict, "lost");
                asked.say(Field::Instance, self.whose(loss).unwrap_or_default());
                asked.say(Field::Instance, loss.port_id.as_deref().unwrap_or_default());
                asked.made(Field::Reason, || why_lost(loss));
            }
        }
    }

    fn details(&self, row: usize) -> Details {
        let columns = self.columns().iter().enumerate();
        let mut lines: Details =
            columns.map(|(place, column)| (column.title.to_lowercase(), self.cell(row, place).text)).collect();
        if let Seen::Packet(packet) = &self.line(row).seen {
            lines.insert(0, ("why".to_owned(), packet.sentence.clone()));
            lines.insert(1, ("packet".to_owned(), packet.what.clone()));
            lines.push(("last at".to_owned(), packet.place.clone()));
            lines.extend(packet.steps.iter().cloned());
        }
        if let Seen::Event(Event::Lost(loss)) = &self.line(row).seen {
            lines.extend(loss.port_id.clone().map(|port| ("port".to_owned(), port)));
        }
        if let Seen::Event(Event::Verdict(event)) = &self.line(row).seen {
            let words = super::rule_words(self.look, event.rule.as_deref());
            lines.extend(words.map(|words| ("allows".to_owned(), words)));
            lines.push(("port".to_owned(), event.port_id.clone()));
            lines.push(("host end".to_owned(), event.device.clone().unwrap_or_else(|| "not known".to_owned())));
            lines.push(("ethertype".to_owned(), format!("0x{:04x}", event.ethertype)));
        }
        lines
    }

    fn groups(&self) -> &'static [(&'static str, usize)] {
        &[("reason", 7), ("instance", 2), ("rule", 8)]
    }
}

/// A cell of a verdict.
fn verdict(event: &VerdictEvent, code: char, ascii: bool) -> Cell {
    let denied = event.verdict == Decision::Deny;
    match code {
        't' => Cell::new(Paint::Dim, time::of_day(event.time_ns)),
        'v' if denied => Cell::new(Paint::Bad, format!("{} DENY", Health::Broken.glyph(ascii))),
        'v' => Cell::new(Paint::Good, format!("{} allow", Health::Ok.glyph(ascii))),
        'n' => Cell::new(Paint::Strong, event.instance.as_deref().unwrap_or(&event.port_id)),
        'd' => Cell::plain(words::way(event.direction)),
        'p' => Cell::maybe(event.protocol.map(words::protocol)),
        'f' => maybe_end(event.source.map(|address| end(event, address, event.source_port))),
        'o' => maybe_end(event.destination.map(|address| end(event, address, event.destination_port))),
        'r' => Cell::new(if denied { Paint::Warning } else { Paint::Plain }, &event.reason),
        'u' => Cell::maybe(event.rule.as_ref()),
        _ => Cell::plain(event.length.to_string()),
    }
}

/// An end of a packet that may be unknown.
fn maybe_end(end: Option<String>) -> Cell {
    end.map_or_else(|| Cell::maybe(None::<String>), Cell::endpoint)
}

/// An end of a packet, with its port where the protocol has any.
fn end(event: &VerdictEvent, address: IpAddr, port: u16) -> String {
    if event.protocol.is_some_and(has_ports) { words::endpoint(address, port) } else { address.to_string() }
}

/// A cell of a loss.
fn lost(loss: &LossEvent, whose: Option<&str>, code: char, ascii: bool) -> Cell {
    match code {
        't' => Cell::new(Paint::Dim, time::of_day(loss.time_ns)),
        'v' => Cell::new(Paint::Unknown, format!("{} LOST", Health::Unknown.glyph(ascii))),
        'n' => whose.map_or_else(|| Cell::maybe(None::<String>), |whose| Cell::new(Paint::Strong, whose)),
        'r' => Cell::new(Paint::Unknown, why_lost(loss)),
        _ => Cell::default(),
    }
}

/// How many verdicts were lost to what.
fn why_lost(loss: &LossEvent) -> String {
    let parts = [(loss.suppressed, "beyond share"), (loss.lost, "ring full"), (loss.skipped, "too slow")];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    let words: Vec<String> = parts.map(|(number, why)| format!("{} {why}", units::count(number))).collect();
    words.join(", ")
}

fn fields(event: &VerdictEvent, asked: &mut Asked<'_>) {
    asked.say(Field::Instance, event.instance.as_deref().unwrap_or_default());
    asked.say(Field::Instance, &event.port_id);
    asked.say(Field::Verdict, event.verdict.name());
    asked.say(Field::Reason, &event.reason);
    asked.say(Field::Reason, event.rule.as_deref().unwrap_or_default());
    asked.say(Field::Hop, event.device.as_deref().unwrap_or_default());
    asked.say(Field::Other, words::way(event.direction));
    for address in [event.source, event.destination].into_iter().flatten() {
        asked.show(Field::Address, address);
    }
    let Some(protocol) = event.protocol else { return };
    asked.made(Field::Other, || words::protocol(protocol));
    if has_ports(protocol) {
        asked.show(Field::Port, event.source_port);
        asked.show(Field::Port, event.destination_port);
    }
}

/// A cell of a packet that was watched.
fn packet(packet: &Packet, code: char, ascii: bool) -> Cell {
    match code {
        't' => Cell::new(Paint::Dim, time::of_day(packet.time_ns)),
        'v' => Cell::new(packet.health.paint(), format!("{} {}", packet.health.glyph(ascii), packet.end)),
        'n' => Cell::new(Paint::Strong, packet.instance.as_deref().unwrap_or("-")),
        'd' => Cell::plain(packet.way),
        'p' => Cell::plain(packet.ends().protocol),
        'f' => Cell::endpoint(packet.ends().from),
        'o' => Cell::endpoint(packet.ends().to),
        'r' if packet.reason.is_empty() => Cell::maybe(None::<String>),
        'r' => Cell::new(Paint::Warning, format!("{} at {}", packet.reason, packet.place)),
        'l' if packet.length > 0 => Cell::plain(packet.length.to_string()),
        _ => Cell::default(),
    }
}

fn packet_fields(packet: &Packet, asked: &mut Asked<'_>) {
    asked.say(Field::Instance, packet.instance.as_deref().unwrap_or_default());
    asked.say(Field::Verdict, packet.end);
    asked.say(Field::Reason, &packet.reason);
    asked.say(Field::Reason, &packet.sentence);
    asked.say(Field::Hop, &packet.place);
    asked.say(Field::Other, &packet.what);
    asked.say(Field::Other, packet.way);
    for (_, step) in &packet.steps {
        asked.say(Field::Hop, step);
    }
    // The packet's words hold its addresses and ports.
    for word in packet.what.split([' ', '>', ',']) {
        if let Ok(end) = word.parse::<std::net::SocketAddr>() {
            asked.show(Field::Address, end.ip());
            asked.show(Field::Port, end.port());
        } else if word.parse::<IpAddr>().is_ok() {
            asked.say(Field::Address, word);
        }
    }
}
