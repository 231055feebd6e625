//! Instances: identity, network, tag, addresses, floating IPs, enforcement, rates, drops, health. One row for each
//! interface, and one for an instance without any.

use std::{net::IpAddr, sync::Arc};

use netdiag_model::{
    floating::show::Standing,
    groups::Summary,
    list::{Row, RowInterface},
    policy::types::{Direction, Mode},
};

use super::{Cell, Column, Details, Health, Order, Paint, Sheet};
use crate::{
    text::units,
    tui::{
        filter::{Asked, Field},
        look::{Card, Look},
    },
};

pub(super) const COLUMNS: [Column; 21] = [
    Column::new('n', "INSTANCE", (14, 32), 0),
    Column::new('s', "STATE", (9, 9), 0),
    Column::new('a', "ADDRESSES", (15, 24), 0),
    Column::number('i', "IN/s", 7, 0),
    Column::number('o', "OUT/s", 7, 0),
    Column::number('d', "DROPS", 6, 70),
    Column::new('f', "FLOATING IPS", (13, 24), 80),
    Column::new('e', "GROUPS", (8, 20), 90),
    Column::new('k', "HOOK", (6, 16), 100),
    Column::number('t', "TAG", 4, 110),
    Column::new('w', "NETWORK", (9, 22), 115),
    Column::new('x', "HOST END", (14, 16), 132),
    Column::new('g', "SEGMENT", (10, 14), 150),
    Column::new('b', "BRIDGE", (10, 16), 165),
    Column::new('h', "KIND", (9, 9), 180),
    Column::new('r', "RUNS", (7, 10), 190),
    Column::new('m', "MAC", (17, 17), Column::WIDE),
    Column::new('p', "PORT", (9, 36), Column::WIDE),
    Column::new('u', "NOVA", (9, 36), Column::WIDE),
    Column::new('c', "CONTAINER", (12, 64), Column::WIDE),
    Column::new('j', "HOSTNAME", (12, 32), Column::WIDE),
];

/// The column of networks.
const NETWORK: usize = 10;
/// The column of states.
const STATE: usize = 1;

/// The instances.
pub(super) struct Instances<'a> {
    pub(super) look: Option<&'a Arc<Look>>,
    pub(super) ascii: bool,
}

/// What a row is about.
struct Of<'a> {
    line: &'a Card,
    row: &'a Row,
    card: Option<&'a RowInterface>,
}

impl Instances<'_> {
    fn of(&self, row: usize) -> Option<Of<'_>> {
        let look = self.look?;
        let line = look.interfaces.get(row)?;
        let row = look.listing.instances.get(line.instance)?;
        Some(Of { line, row, card: line.interface.and_then(|place| row.interfaces.get(place)) })
    }
}

impl Of<'_> {
    fn health(&self) -> Health {
        self.card.map_or(self.row.worst, |card| card.state).into()
    }

    fn network(&self) -> Option<&String> {
        self.card.and_then(|card| card.network_name.as_ref().or(card.network_id.as_ref()))
    }

    fn segment(&self) -> Option<String> {
        let card = self.card?;
        let id = card.segmentation_id.map(|id| id.to_string());
        let words: Vec<String> = card.network_type.clone().into_iter().chain(id).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    fn summary(&self) -> Option<&Summary> {
        self.card.and_then(|card| card.enforcement.as_ref())
    }

    /// A text of the interface.
    fn card<T: ToString>(&self, of: impl Fn(&RowInterface) -> Option<T>) -> Cell {
        Cell::maybe(self.card.and_then(of))
    }

    fn cell(&self, column: usize, ascii: bool) -> Cell {
        let identity = &self.row.identity;
        match COLUMNS[column].code {
            'n' => Cell::new(Paint::Strong, &identity.name),
            's' => Cell::health(self.health(), ascii),
            'a' => addresses(self.card),
            'i' => rate(self.line.rates.map(|rates| rates.in_bytes)),
            'o' => rate(self.line.rates.map(|rates| rates.out_bytes)),
            'd' => drops(self.line),
            'f' => floating(self.card),
            'e' => groups(self.summary()),
            'k' => self.summary().map_or_else(|| Cell::maybe(None::<String>), hook),
            't' => self.card(|card| card.vlan_tag),
            'w' => Cell::maybe(self.network()),
            'x' => self.card(|card| card.host_device.clone()),
            'g' => Cell::maybe(self.segment()),
            'b' => self.card(|card| card.bridge.clone()),
            'h' => Cell::plain(identity.kind.name()),
            'r' => Cell::plain(&identity.state),
            'm' => self.card(|card| card.mac),
            'p' => self.card(|card| card.port_id.clone()),
            'u' => Cell::maybe(identity.nova_uuid.as_ref()),
            'c' => Cell::maybe(identity.container_id.as_ref()),
            _ => Cell::maybe(identity.hostname.as_ref()),
        }
    }

    fn order(&self, column: usize) -> Order {
        match COLUMNS[column].code {
            's' => Order::Number(u128::from(self.health() as u8)),
            'a' => Order::address(self.card.and_then(|card| card.addresses.first()).map(ipnet::IpNet::addr)),
            'i' => Order::maybe(self.line.rates.map(|rates| rates.in_bytes)),
            'o' => Order::maybe(self.line.rates.map(|rates| rates.out_bytes)),
            'd' => Order::Number(self.line.dropped.into()),
            'f' => Order::address(self.card.and_then(|card| card.floating_ips.first()).copied()),
            't' => Order::maybe(self.card.and_then(|card| card.vlan_tag)),
            _ => Order::Text(self.cell(column, true).text),
        }
    }
}

/// The first address and how many more.
fn addresses(card: Option<&RowInterface>) -> Cell {
    match card.map(|card| card.addresses.as_slice()) {
        Some([first, rest @ ..]) if !rest.is_empty() => Cell::plain(format!("{} +{}", first.addr(), rest.len())),
        Some([only, ..]) => Cell::plain(only.addr().to_string()),
        Some([]) | None => Cell::maybe(None::<String>),
    }
}

/// Bytes a second.
pub(super) fn rate(bytes: Option<u64>) -> Cell {
    match bytes {
        Some(0) => Cell::new(Paint::Dim, "0"),
        Some(bytes) => Cell::plain(units::bytes(bytes)),
        None => Cell::maybe(None::<String>),
    }
}

/// Packets dropped; those of this moment are worth a look.
fn drops(line: &Card) -> Cell {
    let now = line.rates.is_some_and(|rates| rates.dropped > 0);
    match line.dropped {
        0 => Cell::new(Paint::Dim, "0"),
        number if now => Cell::new(Paint::Warning, units::count(number)),
        number => Cell::plain(units::count(number)),
    }
}

/// The floating IPs with the way of the first.
fn floating(card: Option<&RowInterface>) -> Cell {
    let Some((card, first)) = card.and_then(|card| Some((card, card.floating_ips.first()?))) else {
        return Cell::maybe(None::<String>);
    };
    let way = card.floating_ways.iter().find(|way| way.address == *first).map(|way| way.standing);
    let paint = match way {
        Some(Standing::Broken | Standing::Held) => Paint::Bad,
        Some(Standing::Unknown) => Paint::Unknown,
        Some(Standing::Fast | Standing::Draining | Standing::Slow) | None => Paint::Plain,
    };
    let more = card.floating_ips.len() - 1;
    let more = if more > 0 { format!(" +{more}") } else { String::new() };
    let way = way.map(|way| format!(" {}", way.name())).unwrap_or_default();
    Cell::new(paint, format!("{first}{way}{more}"))
}

/// How security groups are enforced, and which.
fn groups(summary: Option<&Summary>) -> Cell {
    let Some(summary) = summary else { return Cell::maybe(None::<String>) };
    let paint = match summary.mode {
        Some(Mode::Filtered) if summary.differences.is_empty() => Paint::Good,
        Some(Mode::Filtered | Mode::Trusted) => Paint::Warning,
        Some(Mode::Closed) | None => Paint::Bad,
    };
    let names: Vec<&str> = summary.groups.iter().map(netdiag_model::groups::GroupRef::called).collect();
    let mode = summary.mode_name();
    Cell::new(paint, if names.is_empty() { mode.to_owned() } else { format!("{mode} {}", names.join(",")) })
}

/// Where security groups hold, or that they cannot.
fn hook(summary: &Summary) -> Cell {
    match &summary.refused {
        Some(why) => Cell::new(Paint::Bad, format!("none: {why}")),
        None => Cell::plain(summary.hooks()),
    }
}

impl Sheet for Instances<'_> {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn len(&self) -> usize {
        self.look.map_or(0, |look| look.interfaces.len())
    }

    fn id(&self, row: usize) -> String {
        self.of(row).map(|of| of.line.id.clone()).unwrap_or_default()
    }

    fn cell(&self, row: usize, column: usize) -> Cell {
        self.of(row).map(|of| of.cell(column, self.ascii)).unwrap_or_default()
    }

    fn order(&self, row: usize, column: usize) -> Order {
        self.of(row).map_or(Order::Absent, |of| of.order(column))
    }

    fn health(&self, row: usize) -> Health {
        self.of(row).map_or(Health::Unknown, |of| of.health())
    }

    fn fields(&self, row: usize, asked: &mut Asked<'_>) {
        let Some(of) = self.of(row) else { return };
        identity(&of, asked);
        asked.say(Field::Verdict, of.health().word());
        let Some(card) = of.card else { return };
        for address in card.addresses.iter().map(ipnet::IpNet::addr).chain(card.floating_ips.iter().copied()) {
            asked.show(Field::Address, address);
        }
        for hop in [&card.device, &card.host_device, &card.bridge].into_iter().flatten() {
            asked.say(Field::Hop, hop);
        }
        for other in [&card.network_name, &card.network_id, &card.network_type].into_iter().flatten() {
            asked.say(Field::Other, other);
        }
        for number in card.vlan_tag.map(u32::from).into_iter().chain(card.segmentation_id) {
            asked.show(Field::Other, number);
        }
        if let Some(mac) = card.mac {
            asked.show(Field::Other, mac);
        }
        if let Some(summary) = &card.enforcement {
            asked.say(Field::Verdict, summary.mode_name());
            asked.made(Field::Hop, || summary.hooks());
            for group in &summary.groups {
                asked.say(Field::Group, &group.name);
                asked.say(Field::Group, &group.id);
            }
            for reason in summary.refused.iter().chain(&summary.differences) {
                asked.say(Field::Reason, reason);
            }
        }
    }

    fn details(&self, row: usize) -> Details {
        self.of(row).map_or_else(Vec::new, |of| details(&of, self.look))
    }

    fn groups(&self) -> &'static [(&'static str, usize)] {
        &[("network", NETWORK), ("state", STATE), ("groups", 7)]
    }
}

/// Every name of the instance.
fn identity(of: &Of<'_>, asked: &mut Asked<'_>) {
    let identity = &of.row.identity;
    asked.say(Field::Instance, &identity.name);
    let names = [&identity.container_id, &identity.container_name, &identity.hostname, &identity.libvirt_name];
    for name in names.into_iter().flatten() {
        asked.say(Field::Instance, name);
    }
    if let Some(uuid) = &identity.nova_uuid {
        asked.show(Field::Instance, uuid);
    }
    if let Some(port) = of.card.and_then(|card| card.port_id.as_ref()) {
        asked.show(Field::Instance, port);
    }
    asked.say(Field::Netns, &identity.name);
    asked.say(Field::Other, identity.kind.name());
    asked.say(Field::Other, &identity.runtime);
    asked.say(Field::Other, &identity.state);
    if let Some(image) = &identity.image {
        asked.say(Field::Other, image);
    }
}

/// Everything about an interface and its instance.
fn details(of: &Of<'_>, look: Option<&Arc<Look>>) -> Details {
    let identity = &of.row.identity;
    let mut lines: Details = Vec::new();
    let mut add = |name: &str, value: Option<String>| lines.extend(value.map(|value| (name.to_owned(), value)));
    add("instance", Some(identity.name.clone()));
    add("state", Some(format!("{}, {}", of.health().word(), identity.state)));
    let health = of.health();
    add("why", of.row.why.clone().filter(|_| health != Health::Ok));
    add("kind", Some(format!("{}, run by {}", identity.kind.name(), identity.runtime)));
    add("container", identity.container_id.clone());
    add("image", identity.image.clone());
    add("hostname", identity.hostname.clone());
    add("libvirt", identity.libvirt_name.clone());
    add("nova", identity.nova_uuid.as_ref().map(ToString::to_string));
    add("pid", identity.pid.map(|pid| pid.to_string()));
    add("network", of.network().cloned());
    add("segment", of.segment());
    if let Some(card) = of.card {
        let words = |values: Vec<String>| (!values.is_empty()).then(|| values.join(", "));
        add("device", card.device.clone());
        add("host end", card.host_device.clone());
        add("bridge", card.bridge.clone());
        add("tag", card.vlan_tag.map(|tag| tag.to_string()));
        add("mac", card.mac.map(|mac| mac.to_string()));
        add("addresses", words(card.addresses.iter().map(ToString::to_string).collect()));
        add("port", card.port_id.as_ref().map(ToString::to_string));
        for address in &card.floating_ips {
            add("floating ip", Some(floating_words(card, address)));
        }
        if let Some(summary) = &card.enforcement {
            add("groups", Some(groups(Some(summary)).text));
            add("hook", Some(hook(summary).text));
            summary.differences.iter().for_each(|text| add("differs", Some(text.clone())));
        }
    }
    if let Some(rates) = of.line.rates {
        let words = |bytes, packets| format!("{}/s, {} packets/s", units::bytes(bytes), units::count(packets));
        add("in", Some(words(rates.in_bytes, rates.in_packets)));
        add("out", Some(words(rates.out_bytes, rates.out_packets)));
        add("drops/s", Some(units::count(rates.dropped)));
    }
    add("dropped", Some(of.line.dropped.to_string()));
    add("no record", (of.line.lost > 0).then(|| format!("{} verdicts", of.line.lost)));
    for floating in look.iter().flat_map(|look| &look.floating.rows) {
        if floating.instance.as_ref() == Some(&identity.name) {
            let words = format!("{} {}", floating.floating_ip_address, floating.standing.name());
            add(
                "ways of",
                Some(floating.path.as_ref().map_or(words.clone(), |_| format!("{words}: {}", packets(floating)))),
            );
        }
    }
    let port = look.and_then(|look| look.shown.get(of.line.instance)?.ports.get(of.line.interface?));
    for count in port.iter().flat_map(|port| &port.counters) {
        let word = if count.passes().unwrap_or(false) { "passed" } else { "dropped" };
        let name = format!("{word} {}", crate::text::words::way(count.direction));
        add(&name, Some(format!("{} {}", units::count(count.packets), count.reason)));
    }
    lines.extend(identity.labels.iter().map(|(name, value)| ("label".to_owned(), format!("{name}={value}"))));
    lines
}

/// How many packets of a floating IP went past the router, and how many through it.
fn packets(row: &netdiag_model::floating::show::Row) -> String {
    let (fast_in, slow_in) = row.packets(Direction::Ingress);
    let (fast_out, slow_out) = row.packets(Direction::Egress);
    let words = |fast, slow| format!("{} past the router, {} through it", units::count(fast), units::count(slow));
    format!("in {}; out {}", words(fast_in, slow_in), words(fast_out, slow_out))
}

/// A floating IP with its way and why.
fn floating_words(card: &RowInterface, address: &IpAddr) -> String {
    let way = card.floating_ways.iter().find(|way| way.address == *address);
    let why = way.and_then(|way| way.why.as_ref()).map(|why| format!(": {why}")).unwrap_or_default();
    way.map_or_else(|| address.to_string(), |way| format!("{address} {}{why}", way.standing.name()))
}
