//! The paths of one instance: who it is, one path per interface, what is wrong, and the answer in one sentence.
//!
//! The answer stands last, where the eye of somebody at a prompt is.

use std::io::{self, Write};

use netdiag_model::trace::{HopState, Identity, Trace, Verdict};

use super::{
    Style, findings, interface,
    page::{Page, Paint, Span},
};
use crate::time;

/// Writes a trace as text.
pub fn render(trace: &Trace, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    title(&mut page, &trace.instance);
    identity(&mut page, &trace.instance);
    let seen = format!("on {} at {}", trace.hostname, time::words(trace.taken_at));
    page.field("seen", &[seen]);
    if trace.interfaces.is_empty() {
        page.gap();
        page.line(vec![Span::plain("No interface found.")]);
    }
    for (place, interface) in trace.interfaces.iter().enumerate() {
        page.gap();
        interface::draw(&mut page, interface, (place + 1, trace.interfaces.len()));
    }
    findings::draw(&mut page, &trace.findings);
    findings::draw_gaps(&mut page, &trace.gaps);
    verdict(&mut page, trace);
    page.write(out)
}

/// The first line: the name an operator would say, and what it is.
fn title(page: &mut Page<'_>, instance: &Identity) {
    let name = Span::new(Paint::Heading, page.exact(&instance.name));
    let state = if instance.state.is_empty() { "state unknown" } else { &instance.state };
    let what = format!("{}, {}", instance.kind.name(), page.exact(state));
    page.hang(vec![name, Span::space(2)], &Span::plain(what));
}

/// Every other name of the instance.
pub(super) fn identity(page: &mut Page<'_>, instance: &Identity) {
    let mut runs = vec![instance.runtime.clone()];
    runs.extend(instance.image.as_ref().map(|image| format!("image {image}")));
    runs.extend(instance.pid.map(|pid| format!("pid {pid}")));
    runs.retain(|run| !run.is_empty());
    let another_name = instance.container_name.as_ref().filter(|name| **name != instance.name);
    let container = [another_name, instance.container_id.as_ref()];
    page.field("runs by", &runs);
    page.field_short("container", &container.into_iter().flatten().cloned().collect::<Vec<_>>());
    page.field("libvirt", instance.libvirt_name.as_slice());
    // A name as nova-docker gives it says the id already.
    let nova = instance.nova_uuid.iter().filter(|nova| !instance.name.contains(nova.as_str()));
    page.field("nova", &nova.map(ToString::to_string).collect::<Vec<_>>());
    page.field("hostname", instance.hostname.as_slice());
    if page.style.detail > 0 {
        let labels: Vec<String> = instance.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        page.field("labels", &labels);
    }
}

/// The answer in one sentence.
fn verdict(page: &mut Page<'_>, trace: &Trace) {
    page.gap();
    let (state, word) = match trace.verdict {
        Verdict::Works => (HopState::Ok, "WORKS"),
        Verdict::Inconclusive => (HopState::Unknown, "INCONCLUSIVE"),
        Verdict::Broken => (HopState::Broken, "BROKEN"),
    };
    let lead = vec![Span::new(Paint::of(state), format!("{} {word}", page.mark(state))), Span::space(2)];
    let sentence = page.exact(&trace.sentence);
    page.hang(lead, &Span::new(Paint::Strong, sentence));
}
