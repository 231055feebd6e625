//! The facts of a hop, as cells of a table and as words behind it.

use netdiag_model::trace::{Hop, HopState, InterfaceTrace};

use super::super::{
    Style,
    page::{Page, Paint, Span},
    table::Cell,
    units,
};
use crate::{address, place};

/// Something a hop says about itself.
pub(super) struct Fact {
    /// In words.
    pub(super) span: Span,
    /// Whether it deserves a line of its own.
    pub(super) alone: bool,
}

impl Fact {
    /// A fact that stands beside others.
    fn beside(paint: Paint, text: String) -> Option<Self> {
        (!text.is_empty()).then(|| Self { span: Span::new(paint, text), alone: false })
    }

    /// A cell the table had no room for; the next line need not repeat what only places it.
    pub(super) fn left_over(title: &str, cell: &Cell) -> Option<Self> {
        let text = match title {
            "MTU" | "RX" | "TX" | "NAME" => format!("{} {}", title.to_lowercase(), cell.text),
            "WHERE" => format!("in {}", cell.text),
            _ => cell.text.clone(),
        };
        let alone = title == "MEANING" && cell.paint != Paint::Dim;
        // A dash in a cell says that nobody knows; below, silence says the same. Bytes are left to `-v`.
        (cell.text != "-" && title != "RX / TX BYTES").then(|| Self { span: Span::new(cell.paint, text), alone })
    }
}

/// What the columns hold for a hop.
pub(super) fn cells(page: &Page<'_>, interface: &InterfaceTrace, hop: &Hop) -> Vec<Cell> {
    let paint = of(hop);
    let unknown = if hop.kind.is_device() { "-" } else { "" };
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| unknown.to_owned());
    let stats = hop.counters.as_ref();
    let traffic = |packets: Option<u64>, lost: Option<u64>| {
        let paint = if lost.unwrap_or_default() > 0 { Paint::Warning } else { Paint::Plain };
        Span::new(paint, or_unknown(packets.map(units::count)))
    };
    let bytes = stats.map(|stats| format!("{} / {}", units::bytes(stats.rx_bytes), units::bytes(stats.tx_bytes)));
    vec![
        Span::new(Paint::Dim, hop.number.to_string()),
        page.state(hop.state),
        Span::plain(hop.kind.name()),
        Span::new(Paint::Strong, page.say(&hop.name)),
        Span::plain(or_unknown(hop.mtu.map(|mtu| mtu.to_string()))),
        traffic(stats.map(|stats| stats.rx_packets), stats.map(|stats| stats.rx_dropped + stats.rx_errors)),
        traffic(stats.map(|stats| stats.tx_packets), stats.map(|stats| stats.tx_dropped + stats.tx_errors)),
        Span::plain(page.say(&place::of(interface, hop))),
        Span::new(paint, status(page, hop)),
        Span::plain(addresses(page, hop).join(", ")),
        Span::new(if hop.state == HopState::Ok { Paint::Dim } else { paint }, page.say(&hop.note)),
        Span::plain(bytes.unwrap_or_default()),
    ]
}

/// What a hop says about itself where there are no columns for it.
pub(super) fn words(page: &Page<'_>, hop: &Hop) -> Vec<Fact> {
    let paint = of(hop);
    let mut words: Vec<Fact> = Fact::beside(paint, status(page, hop)).into_iter().collect();
    words.extend(addresses(page, hop).into_iter().filter_map(|address| Fact::beside(Paint::Plain, address)));
    let note = page.say(&hop.note);
    if hop.state == HopState::Ok {
        words.extend(Fact::beside(Paint::Dim, note));
    } else if !note.is_empty() {
        words.push(Fact { span: Span::new(paint, note), alone: true });
    }
    words
}

/// Packets a device has lost, which deserve a line of their own.
pub(super) fn losses(hop: &Hop) -> Option<Fact> {
    let stats = hop.counters.as_ref()?;
    let kinds = [
        (stats.rx_dropped, "dropped on receipt"),
        (stats.rx_errors, "receive errors"),
        (stats.tx_dropped, "dropped on sending"),
        (stats.tx_errors, "send errors"),
    ];
    let lost: Vec<String> = kinds
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", units::count(number)))
        .collect();
    let span = Span::new(Paint::Warning, format!("lost: {}", lost.join(", ")));
    (!lost.is_empty()).then_some(Fact { span, alone: true })
}

/// What `-v` adds, each harmless.
pub(super) fn details(page: &Page<'_>, hop: &Hop) -> Vec<String> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    if page.say(&hop.name) != page.exact(&hop.name) {
        pairs.push(("name", hop.name.clone()));
    }
    pairs.extend(hop.mac.map(|mac| ("mac", mac.to_string())));
    if let Some(stats) = &hop.counters {
        pairs.push(("rx", units::traffic(stats.rx_packets, stats.rx_bytes)));
        pairs.push(("tx", units::traffic(stats.tx_packets, stats.tx_bytes)));
    }
    pairs.extend(hop.detail.iter().map(|(name, value)| (name.as_str(), value.clone())));
    pairs.iter().map(|(name, value)| page.exact(&format!("{name} {value}"))).collect()
}

/// The paint of what a hop says: of its state where that is not simply well.
const fn of(hop: &Hop) -> Paint {
    match hop.state {
        HopState::Ok => Paint::Plain,
        HopState::Warning | HopState::Unknown | HopState::Broken => Paint::of(hop.state),
    }
}

/// The status of a hop, unless what it is says the same.
fn status(page: &Page<'_>, hop: &Hop) -> String {
    if hop.status == hop.kind.name() { String::new() } else { page.say(&hop.status) }
}

/// The addresses of a hop. Those every device gives itself (`fe80::`) say nothing, so they are left to `-v` and to pages
/// without a width.
fn addresses(page: &Page<'_>, hop: &Hop) -> Vec<String> {
    if page.style.detail > 0 || page.width() >= Style::UNLIMITED {
        return hop.addresses.iter().map(ToString::to_string).collect();
    }
    address::given(&hop.addresses).map(ToString::to_string).collect()
}
