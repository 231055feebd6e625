//! Text without a limit to its width: every column, one line per thing, for a wide screen, `less -S` or `grep`.

use std::io::{self, Write};

use netdiag_model::{
    doctor::Report,
    floating::show::Listed,
    groups::{Flows, Shown},
    list::Listing,
    trace::Trace,
};

use crate::text::{self, Style};

/// The same style without a limit, ids in full.
const fn unlimited(style: &Style) -> Style {
    Style { width: 2 * Style::UNLIMITED, full_ids: true, ..*style }
}

/// Writes a trace.
pub fn trace(trace: &Trace, style: &Style, out: &mut impl Write) -> io::Result<()> {
    text::trace::render(trace, &unlimited(style), out)
}

/// Writes a listing.
pub fn list(listing: &Listing, style: &Style, out: &mut impl Write) -> io::Result<()> {
    text::list::render(listing, &unlimited(style), out)
}

/// Writes what is enforced at the ports of an instance.
pub fn groups(shown: &Shown, style: &Style, out: &mut impl Write) -> io::Result<()> {
    text::groups::render(shown, &unlimited(style), out)
}

/// Writes flows.
pub fn flows(flows: &Flows, style: &Style, out: &mut impl Write) -> io::Result<()> {
    text::flows::render(flows, &unlimited(style), out)
}

/// Writes floating IPs.
pub fn floating(listed: &Listed, style: &Style, out: &mut impl Write) -> io::Result<()> {
    text::floating::render(listed, &unlimited(style), out)
}

/// Writes a report.
pub fn doctor(report: &Report, style: &Style, out: &mut impl Write) -> io::Result<()> {
    text::doctor::render(report, &unlimited(style), out)
}
