//! Packets that were given up anywhere on the host: a line each, and how many of whom, where and why.

use std::io::{self, Write};

use netdiag_model::live::drops::{Census, Dropped};

use super::{
    Style,
    live::Epoch,
    page::{Line, Page, Paint, Span},
};
use crate::time;

/// Columns of whose packet it is.
const WHOSE: usize = 18;

/// Columns of everything but of where it died, with room for a reason of the usual length.
const BESIDES: usize = 48;

/// Writes one packet as one line, however long: a stream is read with `grep` as often as by eye.
pub fn line(dropped: &Dropped, epoch: Epoch, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    let whose = page.say(dropped.instance.as_deref().unwrap_or("-"));
    let place = page.say(&dropped.place);
    let because = because(dropped).map_or_else(String::new, |because| format!(": {because}"));
    let mut spans = vec![
        Span::new(Paint::Dim, time::of_day(epoch.at(dropped.time_ns))),
        Span::new(Paint::Strong, format!(" {whose}")),
        Span::plain(format!(" at {place} ")),
        Span::new(Paint::Bad, page.exact(&dropped.reason)),
        Span::plain(format!(" {}", page.exact(&dropped.packet))),
        Span::new(Paint::Dim, page.exact(&because)),
    ];
    if page.style.detail > 0 {
        let location = dropped.location.as_deref().unwrap_or("no function");
        spans.push(Span::new(Paint::Dim, page.exact(&format!(" ({}, {location})", dropped.subsystem))));
    }
    page.line(spans);
    page.write(out)
}

/// The rule that dropped it, or the rules of which one did; else what the reason means.
fn because(dropped: &Dropped) -> Option<String> {
    match &dropped.rules[..] {
        [] => dropped.because.map(str::to_owned),
        [_] => dropped.guilty(),
        several => Some(format!("one of {} rules, depending on the state of its flow", several.len())),
    }
}

/// Says how many packets of whom died where and why.
pub fn census(census: &Census, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    page.line(Line::new());
    let columns = page.width().saturating_sub(BESIDES).clamp(12, 40);
    let heading = format!("{:>8}  {:<WHOSE$} {:<columns$} REASON", "PACKETS", "INSTANCE", "PLACE");
    page.line(vec![Span::new(Paint::Heading, heading)]);
    for (cause, packets) in census.rows() {
        let whose = page.cut(&page.say(cause.instance.as_deref().unwrap_or("-")), WHOSE);
        let place = page.cut(&page.say(&cause.place), columns);
        let reason = page.exact(&cause.reason);
        page.line(vec![
            Span::plain(format!("{packets:>8}  {whose:<WHOSE$} {place:<columns$} ")),
            Span::new(Paint::Bad, reason),
        ]);
        if let Some(rule) = &cause.rule {
            let rule = page.exact(rule);
            page.hang(vec![Span::space(10), Span::new(Paint::Dim, "by ")], &Span::plain(rule));
        }
    }
    page.gap();
    let losses = census.losses;
    let dropped = format!(
        "{} dropped; no record of {} for want of room and {} left out to keep the cost down",
        census.packets, losses.lost, losses.throttled
    );
    page.hang(Line::new(), &Span::plain(dropped));
    if census.copies > 0 {
        let why = "Open vSwitch had taken the frame, and the host's stack let go of the rest";
        page.hang(Line::new(), &Span::new(Paint::Dim, format!("{} copies not counted: {why}", census.copies)));
    }
    if census.unread > 0 {
        let why = "packet sockets were closed before anybody read them (--reason QUEUE_PURGE lists them)";
        page.hang(Line::new(), &Span::new(Paint::Dim, format!("{} copies not counted: {why}", census.unread)));
    }
    page.write(out)
}
