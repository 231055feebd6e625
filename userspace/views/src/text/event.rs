//! What the datapath says about single packets: one line an event, as it comes.

use std::{
    io::{self, Write},
    net::IpAddr,
};

use netdiag_model::{
    event::{Decision, Event, LeftOut, LossEvent, VerdictEvent},
    fact::enforcement::has_ports,
    policy::types::Direction,
};

use super::{
    Style,
    page::{Page, Paint, Span},
    words,
};
use crate::time;

/// Writes one event as one line, however long: a stream is read with `grep` as often as by eye.
pub fn render(event: &Event, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    match event {
        Event::Verdict(verdict) => line(&mut page, verdict),
        Event::Lost(loss) => lost(&mut page, loss),
    }
    page.write(out)
}

/// Writes how many events are not shown, as one line.
pub fn left_out(left_out: &LeftOut, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    let LeftOut { packets, ports, time_ns } = left_out;
    let ports = match ports.len() {
        1 => "1 port".to_owned(),
        many => format!("{many} ports"),
    };
    let words = format!(" {packets} refused of the link's multicast to {ports}, not shown (--multicast shows them)");
    page.line(vec![Span::new(Paint::Dim, time::of_day(*time_ns) + &words)]);
    page.write(out)
}

/// Time, whose packet, which way, verdict and why, the packet, the rule.
fn line(page: &mut Page<'_>, event: &VerdictEvent) {
    let (paint, verdict) = match event.verdict {
        Decision::Allow => (Paint::Good, "allow"),
        Decision::Deny => (Paint::Bad, "DENY"),
    };
    let whose = page.say(event.instance.as_deref().unwrap_or(&event.port_id));
    let way = if event.direction == Direction::Ingress { "in " } else { "out" };
    let reason = page.exact(&event.reason);
    let mut spans = vec![
        Span::new(Paint::Dim, time::of_day(event.time_ns)),
        Span::new(Paint::Strong, format!(" {whose}")),
        Span::plain(format!(" {way} ")),
        Span::new(paint, format!("{verdict:<5} {reason}")),
        Span::plain(format!(" {}", packet(event))),
    ];
    if event.is_refused_multicast() {
        spans.push(Span::new(Paint::Dim, " (the link's multicast)".to_owned()));
    }
    spans.extend(event.rule.as_ref().map(|rule| Span::plain(format!(" by rule {}", page.say(rule)))));
    if page.style.detail > 0 {
        let device = event.device.as_ref().map(|device| format!(" {}", page.exact(device))).unwrap_or_default();
        spans.push(Span::new(Paint::Dim, format!(" {} bytes{device} port {}", event.length, page.say(&event.port_id))));
    }
    page.line(spans);
}

/// The packet in words: `tcp 203.0.113.7:51512 > 10.0.0.2:22`.
fn packet(event: &VerdictEvent) -> String {
    let (Some(source), Some(destination), Some(protocol)) = (event.source, event.destination, event.protocol) else {
        return ethertype(event.ethertype);
    };
    let name = words::protocol(protocol);
    if words::is_icmp(protocol) {
        let [kind, code] = event.destination_port.to_be_bytes();
        return format!("{name} {source} > {destination} type {kind} code {code}");
    }
    let end =
        |address: IpAddr, port| if has_ports(protocol) { words::endpoint(address, port) } else { address.to_string() };
    format!("{name} {} > {}", end(source, event.source_port), end(destination, event.destination_port))
}

/// A frame without addresses of its own that are understood.
fn ethertype(number: u16) -> String {
    match number {
        0x0800 => "IPv4".to_owned(),
        0x86dd => "IPv6".to_owned(),
        0x0806 => "ARP".to_owned(),
        0x8035 => "RARP".to_owned(),
        other => format!("ethertype {other:#06x}"),
    }
}

/// What there is no line of, and whose fault that is.
fn lost(page: &mut Page<'_>, loss: &LossEvent) {
    let parts = [
        (loss.suppressed, "beyond the port's share"),
        (loss.lost, "for want of room in the kernel"),
        (loss.skipped, "because this reader was too slow, or the agent ended before it handed them on"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, why)| format!("{number} {why}")).collect();
    let port = loss.port_id.as_ref().map(|id| format!(" of port {}", page.say(id))).unwrap_or_default();
    let words = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
    page.line(vec![
        Span::new(Paint::Dim, time::of_day(loss.time_ns)),
        Span::new(Paint::Warning, format!(" LOST{port}: {words}")),
    ]);
}
