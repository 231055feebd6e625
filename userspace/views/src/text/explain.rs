//! What would become of a packet at the groups of an instance.

use std::io::{self, Write};

use netdiag_model::{
    event::Decision,
    fact::enforcement::FlowFact,
    groups::{Answer, Explained, Known, NearMiss, Seen},
    policy::types::Direction,
};

use super::{
    Style, findings,
    page::{Page, Paint, Span},
    units, words,
};
use crate::time;

/// Rules that nearly allow a packet and are named at first.
const TOLD: usize = 3;

/// Writes it as text: the answer first, then what says so.
pub fn render(explained: &Explained, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    headline(&mut page, explained);
    match &explained.loaded {
        Some(answer) => decided(&mut page, if answer.rule_id.is_some() { "decided by" } else { "reason" }, answer),
        None if explained.known == Known::NotEnforced => {
            page.hang(Page::label("reason"), &Span::plain("netdiag enforces nothing here, so it decides nothing"));
        }
        None => page.hang(Page::label("reason"), &Span::new(Paint::Unknown, "what is loaded could not be read")),
    }
    place(&mut page, explained);
    asked(&mut page, explained);
    flows(&mut page, &explained.flows);
    let told = if style.detail > 0 { explained.near.len() } else { TOLD.min(explained.near.len()) };
    for miss in &explained.near[..told] {
        near(&mut page, miss);
    }
    if told < explained.near.len() {
        let more = format!("and {} more rules; -v names them", explained.near.len() - told);
        page.hang(vec![Span::space(13)], &Span::new(Paint::Dim, more));
    }
    for note in &explained.notes {
        let note = page.say(note);
        page.hang(Page::label("note"), &Span::plain(note));
    }
    findings::draw_gaps(&mut page, &explained.gaps);
    if style.detail > 0 {
        page.gap();
        page.field("seen on", &[format!("{} at {}", explained.hostname, time::words(explained.taken_at))]);
    }
    page.write(out)
}

/// Verdict and packet in one line.
fn headline(page: &mut Page<'_>, explained: &Explained) {
    let (paint, word) = match &explained.loaded {
        Some(Answer { decision: Decision::Allow, .. }) => (Paint::Good, "ALLOWED"),
        Some(Answer { decision: Decision::Deny, .. }) => (Paint::Bad, "DENIED"),
        None if explained.known == Known::NotEnforced => (Paint::Unknown, "NOT ENFORCED"),
        None => (Paint::Unknown, "NOT KNOWN"),
    };
    let Seen { direction, remote, protocol, service } = explained.packet;
    let own = format!("{} ({})", page.say(&explained.instance), explained.local);
    let other = match &explained.other {
        Some(name) => format!("{} ({remote})", page.say(name)),
        None => remote.to_string(),
    };
    let (from, to) = if direction == Direction::Ingress { (other, own) } else { (own, other) };
    let packet = format!("{} from {from} to {to}", words::asked(protocol, service));
    page.hang(vec![Span::new(paint, word), Span::space(2)], &Span::new(Paint::Strong, packet));
}

/// The rule, or the reason where no rule decides.
fn decided(page: &mut Page<'_>, label: &str, answer: &Answer) {
    let words = match (&answer.rule, &answer.rule_id) {
        (Some(rule), _) => {
            format!(
                "rule {} of group {}: {}",
                page.say(&rule.id),
                page.say(rule.group.called()),
                page.say(&words::rule(rule))
            )
        }
        (None, Some(id)) => format!("rule {}, in whose words nobody says", page.say(id)),
        (None, None) => format!("{}: {}", page.exact(&answer.reason), page.exact(&answer.meaning)),
    };
    page.hang(Page::label(label), &Span::plain(words));
}

/// Where: the device, the direction and the groups.
fn place(page: &mut Page<'_>, explained: &Explained) {
    let device = page.exact(explained.device.as_deref().unwrap_or("unknown device"));
    let groups: Vec<String> = explained.groups.iter().map(|group| page.say(group.called())).collect();
    let groups = match groups.len() {
        0 => String::new(),
        1 => format!(", group {}", groups[0]),
        _ => format!(", groups {}", groups.join(", ")),
    };
    let text = format!("{device}, {}{groups}", explained.packet.direction.name());
    page.hang(Page::label("at"), &Span::plain(text));
}

/// What is asked for, where it decides otherwise; that it decides the same is worth few words.
fn asked(page: &mut Page<'_>, explained: &Explained) {
    let Some(answer) = &explained.asked else { return };
    match explained.agrees() {
        Some(true) => page.hang(Page::label("asked for"), &Span::plain("the same")),
        Some(false) => {
            let verb = if answer.decision == Decision::Allow { "ALLOWS" } else { "DENIES" };
            let text = format!("the policy {verb} it: what is loaded is not what is asked for");
            page.hang(Page::label("DIFFERS"), &Span::new(Paint::Bad, text));
            decided(page, "asked for", answer);
        }
        None => decided(page, "asked for", answer),
    }
}

/// Flows of the same kind that are under way, which no rule is asked about again.
fn flows(page: &mut Page<'_>, flows: &[FlowFact]) {
    let Some(first) = flows.iter().min_by_key(|flow| flow.idle) else { return };
    let state = if first.dead { "dead: nothing of it passes" } else { &first.state };
    let more = match flows.len() {
        1 => String::new(),
        more => format!(", and {} more", more - 1),
    };
    let (local, remote) = words::flow_ends(first);
    let text = page.exact(&format!("{local} with {remote}, {state}, idle {}{more}", units::duration(first.idle)));
    page.hang(Page::label("under way"), &Span::plain(text));
}

/// A rule that nearly allows it, and what keeps it from that.
fn near(page: &mut Page<'_>, miss: &NearMiss) {
    let rule = &miss.rule;
    let group = page.say(rule.group.called());
    let text = format!("{}, rule {} of group {group}", page.say(&words::rule(rule)), page.say(&rule.id));
    page.hang(Page::label("nearly"), &Span::plain(text));
    let why = page.say(&format!("it {}", miss.why));
    page.hang(vec![Span::space(13)], &Span::new(Paint::Warning, why));
}
