//! Tracked connections, with the rule that allows each.

use std::sync::Arc;

use netdiag_model::{
    fact::enforcement::has_ports,
    groups::FlowRow,
    live::rates::{Amount, Rate, Rates},
};

use super::{Cell, Column, Details, Health, Order, Paint, Sheet};
use crate::{
    text::{units, words},
    tui::{
        filter::{Asked, Field},
        look::Look,
    },
};

pub(super) const COLUMNS: [Column; 12] = [
    Column::new('n', "INSTANCE", (12, 28), 0),
    Column::new('d', "DIR", (4, 4), 0),
    Column::new('p', "PROTO", (6, 7), 80),
    Column::new('l', "LOCAL", (20, 26), 120),
    Column::new('r', "REMOTE", (20, 30), 0),
    Column::new('s', "STATE", (11, 14), 0),
    Column::number('b', "BYTES/s", 8, 0),
    Column::number('k', "PKTS/s", 7, 90),
    Column::number('a', "AGE", 4, 80),
    Column::number('i', "IDLE", 5, 70),
    Column::new('u', "RULE", (9, 36), 100),
    Column::new('x', "HOST END", (13, 16), 132),
];

/// The flows.
pub(super) struct Flows<'a> {
    pub(super) look: Option<&'a Arc<Look>>,
    pub(super) rates: Option<&'a Rates>,
    pub(super) ascii: bool,
}

impl Flows<'_> {
    fn rows(&self) -> &[FlowRow] {
        self.look.map_or(&[], |look| &look.flows.rows)
    }

    fn rate(&self, row: usize) -> Option<Rate> {
        self.rates?.of(&self.rows()[row])
    }

    /// A number of a rate, marked where it is an estimate.
    fn measured(&self, number: String) -> String {
        let estimated = self.rates.is_some_and(Rates::is_estimate);
        if estimated { format!("~{number}") } else { number }
    }
}

/// What passes in a second.
fn amount(Amount { packets, bytes }: Amount) -> String {
    format!("{}/s, {} packets/s", units::bytes(bytes), units::count(packets))
}

/// A flow that is over, and one no rule allows any more.
fn health(row: &FlowRow) -> Health {
    match (row.flow.dead, row.rule.is_some()) {
        (true, _) => Health::Warning,
        (false, false) => Health::Unknown,
        (false, true) => Health::Ok,
    }
}

impl Sheet for Flows<'_> {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn len(&self) -> usize {
        self.rows().len()
    }

    fn id(&self, row: usize) -> String {
        let row = &self.rows()[row];
        let flow = &row.flow;
        let (local, remote) = words::flow_ends(flow);
        format!("{} {:?} {} {local} {remote}", row.port_id, flow.direction, flow.protocol)
    }

    fn cell(&self, row: usize, column: usize) -> Cell {
        let rate = || self.rate(row);
        let row = &self.rows()[row];
        let flow = &row.flow;
        match COLUMNS[column].code {
            'n' => Cell::new(Paint::Strong, row.instance.as_deref().unwrap_or(&row.port_id)),
            'd' => Cell::plain(words::way(flow.direction)),
            'p' => Cell::plain(words::protocol(flow.protocol)),
            'l' => Cell::endpoint(words::flow_ends(flow).0),
            'r' => Cell::endpoint(words::flow_ends(flow).1),
            's' => {
                let health = health(row);
                let paint = if health == Health::Ok { Paint::Plain } else { health.paint() };
                let sign = if health == Health::Ok { String::new() } else { format!("{} ", health.glyph(self.ascii)) };
                Cell::new(paint, format!("{sign}{}", row.word()))
            }
            'b' => Cell::maybe(rate().map(|rate| self.measured(units::bytes(rate.bytes())))),
            'k' => Cell::maybe(rate().map(|rate| self.measured(units::count(rate.packets())))),
            'a' => Cell::plain(units::duration(flow.age)),
            'i' => Cell::plain(units::duration(flow.idle)),
            'u' => Cell::maybe(row.rule.as_ref()),
            _ => Cell::maybe(row.device.as_ref()),
        }
    }

    fn order(&self, row: usize, column: usize) -> Order {
        let flow = &self.rows()[row].flow;
        match COLUMNS[column].code {
            'l' => Order::address(Some(flow.local)),
            'r' => Order::address(Some(flow.remote)),
            'b' => Order::maybe(self.rate(row).map(|rate| rate.bytes())),
            'k' => Order::maybe(self.rate(row).map(|rate| rate.packets())),
            'a' => Order::Number(flow.age.into()),
            'i' => Order::Number(flow.idle.into()),
            _ => Order::Text(self.cell(row, column).text),
        }
    }

    fn health(&self, row: usize) -> Health {
        health(&self.rows()[row])
    }

    fn past(&self, row: usize) -> bool {
        let flow = &self.rows()[row].flow;
        flow.dead || flow.expired
    }

    fn fields(&self, row: usize, asked: &mut Asked<'_>) {
        let row = &self.rows()[row];
        let flow = &row.flow;
        asked.say(Field::Instance, row.instance.as_deref().unwrap_or_default());
        asked.say(Field::Instance, &row.port_id);
        asked.show(Field::Address, flow.local);
        asked.show(Field::Address, flow.remote);
        if has_ports(flow.protocol) {
            asked.show(Field::Port, flow.local_port);
            asked.show(Field::Port, flow.remote_port);
        }
        asked.say(Field::Verdict, row.word());
        asked.say(Field::Reason, row.rule.as_deref().unwrap_or_default());
        super::groups_of(self.look, row.rule.as_deref(), asked);
        asked.say(Field::Hop, row.device.as_deref().unwrap_or_default());
        asked.say(Field::Other, words::way(flow.direction));
        asked.made(Field::Other, || words::protocol(flow.protocol));
    }

    fn details(&self, row: usize) -> Details {
        let rate = self.rate(row);
        let row = &self.rows()[row];
        let unseen = self.rates.is_some_and(|rates| rates.is_unseen(row));
        let flow = &row.flow;
        let (local, remote) = words::flow_ends(flow);
        let line = |name: &str, value: String| (name.to_owned(), value);
        let unknown = || "not known".to_owned();
        let mut lines = vec![
            line("instance", row.instance.clone().unwrap_or_else(unknown)),
            line("port", row.port_id.clone()),
            line("host end", row.device.clone().unwrap_or_else(unknown)),
            line("direction", format!("its first packet went {}", words::way(flow.direction))),
            line("protocol", words::protocol(flow.protocol)),
            line("local", local),
            line("remote", remote),
            line("state", row.word().to_owned()),
            line("age", units::duration(flow.age)),
            line("idle", units::duration(flow.idle)),
            line("rule", row.rule.clone().unwrap_or_else(|| "no rule of its number is loaded any more".to_owned())),
        ];
        if unseen {
            let why =
                "not known of this flow alone: netdiag takes its packets past the router before they can be told apart";
            lines.push(line("rate", why.to_owned()));
            let all = self.look.and_then(|look| look.past_router(&row.port_id));
            let words = all.map(|all| {
                format!("in {}, out {}; all flows of this port together", amount(all.inward), amount(all.outward))
            });
            lines.extend(words.map(|words| line("past router", words)));
        }
        if let Some(rate) = rate {
            lines.push(line("to the instance", self.measured(amount(rate.inward))));
            lines.push(line("from the instance", self.measured(amount(rate.outward))));
        }
        lines.extend(super::rule_words(self.look, row.rule.as_deref()).map(|words| line("allows", words)));
        lines
    }

    fn groups(&self) -> &'static [(&'static str, usize)] {
        &[("instance", 0), ("rule", 10), ("state", 5)]
    }
}
