//! The hops of the path that is followed, with counters and what they have counted since the look before.

use std::collections::HashMap;

use netdiag_model::{
    fact::LinkStats,
    trace::{Direction, Hop, InterfaceTrace, Severity, Trace},
};

use super::{Cell, Column, Details, Health, Order, Paint, Sheet, instances};
use crate::{
    place,
    text::{live::nanoseconds, units},
    tui::{
        filter::{Asked, Field},
        followed::{Died, Followed, Seen},
        look::{Rates, Traced},
        state::State,
    },
};

const NUMBER: Column = Column::number('#', "#", 3, 0);
const STATE: Column = Column::new('s', "STATE", (9, 9), 0);

/// The column of what a hop is, from this width on.
const fn hop_from(from: u16) -> Column {
    Column::new('k', "HOP", (12, 14), from)
}

/// The column of namespaces.
const fn where_from(from: u16) -> Column {
    Column::new('w', "WHERE", (14, 28), from)
}

/// The column of what a hop says of itself.
const fn status_from(from: u16) -> Column {
    Column::new('u', "STATUS", (10, 30), from)
}

/// The column of what that means.
const fn meaning_from(from: u16) -> Column {
    Column::new('m', "MEANING", (14, 70), from)
}

pub(super) const COLUMNS: [Column; 10] = [
    NUMBER,
    STATE,
    hop_from(0),
    Column::new('n', "NAME", (16, 32), 0),
    Column::number('r', "RX/s", 7, 0),
    Column::number('t', "TX/s", 7, 0),
    Column::number('d', "DROPS", 6, 70),
    where_from(90),
    status_from(100),
    meaning_from(132),
];

/// While packets are followed: what was seen of them before what devices count.
const FOLLOWED: [Column; 15] = [
    NUMBER,
    STATE,
    hop_from(80),
    Column::new('n', "NAME", (14, 32), 0),
    Column::number('p', "SEEN", 5, 0),
    Column::number('l', "DIED", 5, 0),
    Column::number('5', "P50", 7, 0),
    Column::number('9', "P99", 7, 0),
    Column::number('o', "PKT/s", 6, 90),
    Column::number('r', "RX/s", 7, 100),
    Column::number('t', "TX/s", 7, 100),
    Column::number('d', "DROPS", 6, 110),
    where_from(118),
    status_from(132),
    meaning_from(150),
];

/// The word for a direction.
pub(in crate::tui) const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Outward => "out",
        Direction::Lateral => "aside",
        Direction::Inward => "in",
    }
}

/// The hops of a path.
pub(in crate::tui) struct PathRows<'a> {
    /// The path.
    traced: Option<&'a Traced>,
    /// Each hop with its interface, in the order of the path.
    pub(in crate::tui) hops: Vec<(usize, &'a InterfaceTrace, &'a Hop)>,
    /// Counters at the look before, by the identity of the hop.
    before: Option<&'a HashMap<String, LinkStats>>,
    /// Milliseconds since the look before.
    millis: u64,
    /// What packets did at the hops.
    pub(in crate::tui) followed: Option<&'a Followed>,
    ascii: bool,
}

fn of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What a hop is, whatever state it is in.
pub(in crate::tui) fn id(interface: usize, hop: &Hop) -> String {
    format!("{interface}/{}/{}/{}", way(hop.direction), hop.number, hop.name)
}

/// Every hop with the place of its interface.
pub(in crate::tui) fn all(trace: &Trace) -> impl Iterator<Item = (usize, &InterfaceTrace, &Hop)> {
    let interfaces = trace.interfaces.iter().enumerate();
    interfaces.flat_map(|(place, one)| one.hops.iter().map(move |hop| (place, one, hop)))
}

impl<'a> PathRows<'a> {
    /// The path a state follows.
    pub(in crate::tui) fn of(state: &'a State) -> Self {
        let traced = state.traced.as_deref();
        let before = state.traced_before.as_deref().filter(|before| traced.is_some_and(|now| now.id == before.id));
        Self {
            traced,
            hops: traced.into_iter().flat_map(|traced| all(&traced.trace)).collect(),
            millis: traced.zip(before).map_or(0, |(now, before)| now.at_ms.saturating_sub(before.at_ms)),
            before: before.map(|before| &before.counters),
            followed: state.followed().filter(|followed| traced.is_some_and(|now| now.id == followed.id)),
            ascii: state.settings.ascii,
        }
    }

    /// What was seen of packets at a hop.
    pub(in crate::tui) fn seen(&self, row: usize) -> Option<&Seen> {
        let (place, _, hop) = self.hops[row];
        self.followed?.seen(place, hop)
    }

    /// Packets that died at a hop.
    pub(in crate::tui) fn died(&self, row: usize) -> Option<&Died> {
        let (place, _, hop) = self.hops[row];
        self.followed?.died(place, hop)
    }

    /// What a hop's device has counted in a second since the look before: what it received is in.
    pub(in crate::tui) fn rates(&self, row: usize) -> Option<Rates> {
        let (place, _, hop) = self.hops[row];
        let (now, then) = (hop.counters?, self.before?.get(&id(place, hop))?);
        let rate = |now: u64, then: u64| now.checked_sub(then)?.saturating_mul(1000).checked_div(self.millis);
        Some(Rates {
            in_bytes: rate(now.rx_bytes, then.rx_bytes)?,
            in_packets: rate(now.rx_packets, then.rx_packets)?,
            out_bytes: rate(now.tx_bytes, then.tx_bytes)?,
            out_packets: rate(now.tx_packets, then.tx_packets)?,
            dropped: rate(now.rx_dropped + now.tx_dropped, then.rx_dropped + then.tx_dropped)?,
        })
    }

    /// What a hop's device has received and sent: in a second where that is known, else in all.
    pub(in crate::tui) fn traffic(&self, row: usize) -> Option<(String, String)> {
        if let Some(rates) = self.rates(row) {
            let words = |bytes| format!("{}/s", units::bytes(bytes));
            return Some((words(rates.in_bytes), words(rates.out_bytes)));
        }
        let counters = self.hops[row].2.counters?;
        Some((units::bytes(counters.rx_bytes), units::bytes(counters.tx_bytes)))
    }
}

impl Sheet for PathRows<'_> {
    fn columns(&self) -> &'static [Column] {
        if self.followed.is_some() { &FOLLOWED } else { &COLUMNS }
    }

    fn len(&self) -> usize {
        self.hops.len()
    }

    fn id(&self, row: usize) -> String {
        let (place, _, hop) = self.hops[row];
        id(place, hop)
    }

    fn cell(&self, row: usize, column: usize) -> Cell {
        let (_, interface, hop) = self.hops[row];
        let rates = self.rates(row);
        let seen = self.seen(row);
        let time = |time: Option<u64>| Cell::maybe(time.map(nanoseconds));
        match self.columns()[column].code {
            '#' => Cell::new(Paint::Dim, format!("{}{}", &way(hop.direction)[..1], hop.number)),
            's' => Cell::health(self.health(row), self.ascii),
            'k' => Cell::plain(hop.kind.name()),
            'n' => Cell::new(if self.health(row) == Health::Broken { Paint::Bad } else { Paint::Strong }, &hop.name),
            'p' => Cell::maybe(seen.map(|seen| units::count(seen.packets))),
            'l' => match self.died(row) {
                Some(died) => Cell::new(Paint::Bad, units::count(died.packets)),
                None => Cell::maybe(seen.map(|_| 0)),
            },
            '5' => time(seen.and_then(|seen| seen.took).map(|took| took.0)),
            '9' => time(seen.and_then(|seen| seen.took).map(|took| took.1)),
            'o' => Cell::maybe(seen.and_then(|seen| seen.rate).map(units::count)),
            'r' => instances::rate(rates.map(|rates| rates.in_bytes)),
            't' => instances::rate(rates.map(|rates| rates.out_bytes)),
            'd' => Cell::maybe(hop.counters.map(|counters| units::count(counters.rx_dropped + counters.tx_dropped))),
            'w' => Cell::plain(place::of(interface, hop)),
            'u' => Cell::plain(&hop.status),
            _ => Cell::plain(&hop.note),
        }
    }

    fn order(&self, row: usize, column: usize) -> Order {
        let (_, _, hop) = self.hops[row];
        let rates = self.rates(row);
        let seen = self.seen(row);
        match self.columns()[column].code {
            '#' => Order::Number(row as u128),
            's' => Order::Number(u128::from(self.health(row) as u8)),
            'p' => Order::maybe(seen.map(|seen| seen.packets)),
            'l' => Order::maybe(self.died(row).map(|died| died.packets)),
            '5' => Order::maybe(seen.and_then(|seen| seen.took).map(|took| took.0)),
            '9' => Order::maybe(seen.and_then(|seen| seen.took).map(|took| took.1)),
            'o' => Order::maybe(seen.and_then(|seen| seen.rate)),
            'r' => Order::maybe(rates.map(|rates| rates.in_bytes)),
            't' => Order::maybe(rates.map(|rates| rates.out_bytes)),
            'd' => Order::maybe(hop.counters.map(|counters| counters.rx_dropped + counters.tx_dropped)),
            _ => Order::Text(self.cell(row, column).text),
        }
    }

    fn called(&self, row: usize) -> String {
        let (_, _, hop) = self.hops[row];
        format!("{} {} ({})", hop.kind.name(), hop.name, way(hop.direction))
    }

    fn health(&self, row: usize) -> Health {
        if self.died(row).is_some() { Health::Broken } else { self.hops[row].2.state.into() }
    }

    fn fields(&self, row: usize, asked: &mut Asked<'_>) {
        let (_, interface, hop) = self.hops[row];
        asked.say(Field::Hop, &hop.name);
        asked.say(Field::Hop, hop.kind.name());
        asked.made(Field::Netns, || place::of(interface, hop));
        asked.say(Field::Verdict, self.health(row).word());
        asked.say(Field::Reason, &hop.status);
        asked.say(Field::Other, &hop.note);
        asked.say(Field::Other, way(hop.direction));
        for address in &hop.addresses {
            asked.show(Field::Address, address.addr());
        }
    }

    fn details(&self, row: usize) -> Details {
        let (_, interface, hop) = self.hops[row];
        let mut lines: Details = Vec::new();
        let mut add = |name: &str, value: String| lines.push((name.to_owned(), value));
        add("hop", self.called(row));
        add("state", self.health(row).word().to_owned());
        if let Some(died) = self.died(row) {
            add("why", format!("{} died here: {}", units::things(of(died.packets), "packet"), died.sentence));
        }
        if let Some(seen) = self.seen(row) {
            let took =
                seen.took.map(|(half, most)| format!(", here in {} (p99 {})", nanoseconds(half), nanoseconds(most)));
            add("seen", format!("{}{}", units::things(of(seen.packets), "packet"), took.unwrap_or_default()));
        }
        add("status", hop.status.clone());
        add("where", place::of(interface, hop));
        add("meaning", hop.note.clone());
        hop.mtu.iter().for_each(|mtu| add("mtu", mtu.to_string()));
        hop.mac.iter().for_each(|mac| add("mac", mac.to_string()));
        hop.addresses.iter().for_each(|address| add("address", address.to_string()));
        if let Some(counters) = hop.counters {
            add("received", units::traffic(counters.rx_packets, counters.rx_bytes));
            add("sent", units::traffic(counters.tx_packets, counters.tx_bytes));
            add("dropped", format!("{} received, {} to send", counters.rx_dropped, counters.tx_dropped));
            add("errors", format!("{} received, {} to send", counters.rx_errors, counters.tx_errors));
        }
        for rule in &hop.rules {
            let place = format!("{} {} rule {}", rule.table, rule.chain, rule.number);
            add("rule", format!("{place}: {} ({})", rule.meaning, units::counted(rule.counters)));
            add("", rule.rule.clone());
        }
        hop.detail.iter().for_each(|(name, value)| add(name, value.clone()));
        hop.verify.iter().for_each(|command| add("by hand", command.clone()));
        self.findings(hop, &mut add);
        lines
    }

    fn groups(&self) -> &'static [(&'static str, usize)] {
        &[("where", 7), ("state", 1)]
    }
}

impl PathRows<'_> {
    /// What was found at a hop.
    fn findings(&self, hop: &Hop, add: &mut impl FnMut(&str, String)) {
        let all = self.traced.map_or(&[][..], |traced| &traced.trace.findings);
        for finding in all.iter().filter(|finding| finding.object == hop.name) {
            add("", format!("{}: {}", finding.severity.name(), finding.message));
            add("evidence", finding.evidence.clone());
            finding.verify.iter().for_each(|command| add("by hand", command.clone()));
            finding.fix.iter().for_each(|fix| add("fix", fix.clone()));
        }
    }

    /// What was found on the path, with how it is painted, worst first.
    pub(in crate::tui) fn all_findings(&self) -> Vec<(Paint, String)> {
        let all = self.traced.map_or(&[][..], |traced| &traced.trace.findings);
        let paint = |severity| match severity {
            Severity::Error => Paint::Bad,
            Severity::Warning => Paint::Warning,
            Severity::Info => Paint::Dim,
        };
        all.iter()
            .map(|one| (paint(one.severity), format!("{} at {}: {}", one.severity.name(), one.object, one.message)))
            .collect()
    }
}
