//! How the agent is.

use std::io::{self, Write};

use netdiag_model::status::{PortStatus, Status};

use super::{
    Style,
    page::{Page, Paint, Span},
    units,
};
use crate::time;

/// Writes how the agent is as text.
pub fn render(status: &Status, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    heading(&mut page, status);
    page.field("converged", &[converged(status)]);
    page.field("policy", &[asked(status)]);
    page.field("files", &status.files);
    page.field("flows", &[units::count(status.flows)]);
    page.field("not seen", &losses(status));
    page.field("passes", &[passes(status)]);
    page.gap();
    for port in &status.ports {
        draw(&mut page, port);
    }
    page.gap();
    wrong(&mut page, status);
    verdict(&mut page, status);
    page.write(out)
}

fn heading(page: &mut Page<'_>, status: &Status) {
    let agent = &status.agent;
    let title = page.exact(&format!("netdiag agent {}", agent.version));
    let up = units::duration(status.now.saturating_sub(agent.since));
    let pid = format!("pid {}, up {up}, maps in {}", agent.pid, page.exact(&status.pinned));
    page.hang(vec![Span::new(Paint::Heading, title), Span::space(2)], &Span::plain(pid));
}

fn converged(status: &Status) -> String {
    status.agent.converged.map_or_else(|| "not yet".to_owned(), time::words)
}

fn asked(status: &Status) -> String {
    let asked = &status.asked;
    let groups = units::things(asked.security_groups, "security group");
    let rules = units::things(asked.rules, "rule");
    let address_groups = units::things(asked.address_groups, "address group");
    format!("{groups} with {rules}, {address_groups}, {}", units::things(asked.ports, "port"))
}

/// What happened and nobody will read of.
fn losses(status: &Status) -> Vec<String> {
    let kinds = [(status.losses.suppressed, "beyond a port's share"), (status.losses.lost, "ring buffer full")];
    let some = kinds.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, why)| format!("{} events ({why})", units::count(count))).collect()
}

fn passes(status: &Status) -> String {
    let passes = &status.passes;
    format!("{} done, {} failed, the last took {} ms", passes.done, passes.failed, passes.last_ms)
}

fn draw(page: &mut Page<'_>, port: &PortStatus) {
    let id = page.say(&port.id);
    let device = page.exact(&port.device);
    let lead = vec![Span::new(Paint::Strong, id), Span::space(2), Span::plain(device), Span::space(2)];
    let whose = port.instance.as_ref().map(|name| format!("of {}, ", page.say(name))).unwrap_or_default();
    let body = page.exact(&format!("{}, {}", port.mode.name(), port.hooks.join(", ")));
    page.hang(lead, &Span::plain(format!("{whose}{body}")));
}

/// Everything that is not as it should be.
fn wrong(page: &mut Page<'_>, status: &Status) {
    let sign = page.glyph("✗", "x");
    let refused = status.refused.iter().map(|port| ("refused", format!("port {}: {}", port.port_id, port.why)));
    let mistakes = status.mistakes.iter().map(|mistake| ("mistake", mistake.to_string()));
    let problems = status.agent.problems.iter().map(|problem| ("problem", problem.clone()));
    let held = status.held().map(|(one, why)| ("held", format!("floating IP {}: {why}", one.floating_ip_address)));
    for (what, text) in mistakes.chain(problems).chain(refused).chain(held) {
        let lead = vec![Span::new(Paint::Bad, format!("{sign} {what:<8}")), Span::space(1)];
        let text = page.exact(&text);
        page.hang(lead, &Span::plain(text));
    }
    page.gap();
}

fn verdict(page: &mut Page<'_>, status: &Status) {
    let (paint, sentence) = if status.is_well() {
        (Paint::Good, "What is loaded is what is asked for.")
    } else if status.agent.converged.is_some() {
        (Paint::Bad, "Something stands in the way; what was loaded last goes on to be enforced.")
    } else {
        (Paint::Unknown, "The agent has not converged yet; what was loaded before it goes on to be enforced.")
    };
    page.hang(Vec::new(), &Span::new(paint, sentence));
}
