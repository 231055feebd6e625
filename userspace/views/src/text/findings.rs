//! What is wrong, and what could not be read.

use netdiag_model::{
    fact::{Gap, SourceKind},
    trace::{Finding, HopState, Severity},
};

use super::page::{Page, Paint, Span};

/// Columns in front of what belongs to a finding.
const INDENT: usize = 4;

/// Draws findings: the sentence, what says so, how to see it by hand, what would mend it.
pub(super) fn draw(page: &mut Page<'_>, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    page.gap();
    page.line(vec![Span::new(Paint::Heading, "FINDINGS")]);
    for finding in findings {
        let (mark, paint) = match finding.severity {
            Severity::Error => (page.mark(HopState::Broken), Paint::Bad),
            Severity::Warning => (page.mark(HopState::Warning), Paint::Warning),
            Severity::Info => ("i", Paint::Plain),
        };
        let severity = finding.severity.name();
        let lead = vec![Span::space(2), Span::new(paint, format!("{mark} {severity}")), Span::space(2)];
        let message = page.exact(&finding.message);
        page.hang(lead, &Span::new(Paint::Strong, message));
        let place = page.exact(&format!("{} ({})", finding.object, finding.code));
        page.hang(label("at"), &Span::plain(place));
        if !finding.evidence.is_empty() {
            let evidence = page.exact(&finding.evidence);
            page.hang(label("seen"), &Span::plain(evidence));
        }
        if let Some(command) = &finding.verify {
            page.command(label("verify"), command);
        }
        // A step in words as often as a command, so no line of it may end in a backslash.
        if let Some(fix) = &finding.fix {
            let fix = page.exact(fix);
            page.hang(label("fix"), &Span::plain(fix));
        }
    }
}

/// Draws what could not be read. What is simply not there hides nothing, so it is left to `-v`.
pub(super) fn draw_gaps(page: &mut Page<'_>, gaps: &[Gap]) {
    let shown: Vec<&Gap> = gaps.iter().filter(|gap| !gap.absent || page.style.detail > 0).collect();
    if shown.is_empty() {
        return;
    }
    page.gap();
    page.line(vec![Span::new(Paint::Heading, "NOT READ")]);
    for gap in shown {
        let mark = if gap.absent { "-" } else { page.mark(HopState::Unknown) };
        let paint = if gap.absent { Paint::Dim } else { Paint::Unknown };
        let lead = vec![Span::space(2), Span::new(paint, format!("{mark} {}", gap.source.name())), Span::space(2)];
        let what = page.exact(&format!("{}: {}", gap.object, gap.why));
        page.hang(lead, &Span::plain(what));
        if !gap.absent {
            page.hang(label("so"), &Span::plain(consequence(gap.source)));
        }
        if !gap.fix.is_empty() {
            let fix = page.exact(&gap.fix);
            page.hang(label("fix"), &Span::plain(fix));
        }
    }
}

/// What an answer without a source cannot know.
const fn consequence(source: SourceKind) -> &'static str {
    match source {
        SourceKind::Netns => "instances, routers and DHCP servers in namespaces of their own may be missing",
        SourceKind::Netlink => "devices, addresses, routes and neighbours may be missing",
        SourceKind::Sysctl => "whether packets are forwarded is unknown",
        SourceKind::Bpf => "programs that pass, drop or redirect packets may be missing",
        SourceKind::Netfilter => "rules that drop or translate packets may be missing",
        SourceKind::Ovsdb => "Open vSwitch ports, tags and tunnels are unknown",
        SourceKind::Docker => "names, networks and published ports of containers may be missing",
        SourceKind::Process => "containers and virtual machines may be missing",
        SourceKind::Enforcement => "whether and how security groups are enforced is unknown",
    }
}

/// The lead of one line about a finding or gap.
fn label(name: &str) -> Vec<Span> {
    vec![Span::space(INDENT), Span::new(Paint::Dim, format!("{name:<8}"))]
}
