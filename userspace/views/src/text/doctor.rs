//! Whether this host can do what netdiag needs: check, result, consequence, fix.

use std::io::{self, Write};

use netdiag_model::doctor::{Check, Report, Status};

use super::{
    Style,
    page::{Page, Paint, Span, width},
};

/// Writes a report as text.
pub fn render(report: &Report, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    let names = report.checks.iter().map(|check| width(&page.exact(&check.name)));
    let room = names.max().unwrap_or_default().min(page.width() / 3);
    for check in &report.checks {
        draw(&mut page, check, room);
    }
    page.gap();
    summary(&mut page, &report.checks);
    page.write(out)
}

/// One check. Consequence and fix matter only where something is not as it should be.
fn draw(page: &mut Page<'_>, check: &Check, room: usize) {
    let (mark, word, paint) = mark(page, check.status);
    let name = page.exact(&check.name);
    let name = page.cut(&name, room);
    let padding = room.saturating_sub(width(&name)) + 2;
    let lead = vec![
        Span::new(paint, format!("{mark} {word:<8}")),
        Span::space(1),
        Span::new(Paint::Strong, name),
        Span::space(padding),
    ];
    let result = page.exact(if check.result.is_empty() { "unknown" } else { &check.result });
    page.hang(lead, &Span::plain(result));
    if check.status == Status::Ok && page.style.detail == 0 {
        return;
    }
    if check.required && check.status != Status::Ok {
        page.hang(vec![Span::space(11)], &Span::new(paint, "required: netdiag cannot do its work without it"));
    }
    for (label, text) in [("so", &check.consequence), ("fix", &check.fix)] {
        if !text.is_empty() {
            let text = page.exact(text);
            page.hang(vec![Span::space(11), Span::new(Paint::Dim, format!("{label:<5}"))], &Span::plain(text));
        }
    }
}

/// Mark, word and paint of a status.
const fn mark(page: &Page<'_>, status: Status) -> (&'static str, &'static str, Paint) {
    match status {
        Status::Ok => (page.glyph("✓", "+"), "ok", Paint::Good),
        Status::Warning => ("!", "warning", Paint::Warning),
        Status::Fail => (page.glyph("✗", "x"), "FAIL", Paint::Bad),
        Status::Unknown => ("?", "unknown", Paint::Unknown),
    }
}

/// The last line: how many of each, and whether netdiag can work here.
fn summary(page: &mut Page<'_>, checks: &[Check]) {
    let all = [Status::Ok, Status::Warning, Status::Fail, Status::Unknown];
    let counts: Vec<String> = all
        .iter()
        .map(|status| (checks.iter().filter(|check| check.status == *status).count(), mark(page, *status).1))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let missing = checks.iter().any(|check| check.required && check.status == Status::Fail);
    let unsure = checks.iter().any(|check| check.required && check.status == Status::Unknown);
    let (paint, sentence) = match (missing, unsure) {
        (true, _) => (Paint::Bad, "Something required fails: netdiag cannot do all of its work on this host."),
        (false, true) => (Paint::Unknown, "Something required could not be checked."),
        (false, false) => (Paint::Good, "Everything required is there."),
    };
    if checks.is_empty() {
        page.line(vec![Span::plain("Nothing was checked.")]);
    } else {
        page.hang(Vec::new(), &Span::new(paint, format!("{}. {sentence}", counts.join(", "))));
    }
}
