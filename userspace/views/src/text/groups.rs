//! What is enforced at the ports of an instance: state, rules, counters, differences.

use std::io::{self, Write};

use netdiag_model::{
    fact::enforcement::ReasonCount,
    groups::{Shown, ShownPort, ShownRule, Side, Standing, Summary},
    policy::{
        show::service_words,
        types::{Direction, Mode},
    },
};

use super::{
    Style, findings,
    page::{Page, Paint, Span},
    table::{Cell, Column, Layout},
    units, words,
};
use crate::time;

/// The columns of the rules, in the order they are given room.
const COLUMNS: [Column; 7] = [
    Column::new("DIR", 3, 3).essential(),
    Column::new("FAMILY", 6, 6).essential(),
    Column::new("ALLOWS", 12, 26).essential(),
    Column::new("REMOTE", 27, 44).essential(),
    Column::new("HITS", 9, 9).essential(),
    Column::new("GROUP", 8, 36),
    Column::new("RULE", 9, 50),
];

/// Writes it as text.
pub fn render(shown: &Shown, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut page = Page::new(style);
    if shown.ports.is_empty() {
        let sentence = page.exact(&format!("{} has no network card.", shown.instance));
        page.hang(Vec::new(), &Span::plain(sentence));
    }
    for port in &shown.ports {
        page.gap();
        draw(&mut page, shown, port);
    }
    agent(&mut page, shown);
    findings::draw_gaps(&mut page, &shown.gaps);
    if style.detail > 0 {
        page.gap();
        page.field("seen on", &[format!("{} at {}", shown.hostname, time::words(shown.taken_at))]);
    }
    page.write(out)
}

fn draw(page: &mut Page<'_>, shown: &Shown, port: &ShownPort) {
    let name = page.say(&shown.instance);
    let device = page.exact(port.device.as_deref().unwrap_or("unknown device"));
    let lead =
        vec![Span::new(Paint::Heading, name), Span::plain(" at "), Span::new(Paint::Strong, device), Span::space(2)];
    let addresses = port.addresses.iter().map(|net| net.addr().to_string());
    let known: Vec<String> = addresses.chain(port.mac.map(|mac| mac.to_string())).collect();
    page.hang(lead, &Span::new(Paint::Dim, known.join(", ")));
    let Some(summary) = &port.summary else {
        page.hang(vec![Span::space(2)], &Span::plain(unmanaged(shown)));
        return;
    };
    state(page, port, summary);
    if let Some(rules) = &port.rules {
        page.gap();
        table(page, rules);
    }
    page.gap();
    counters(page, port);
    differences(page, summary);
}

/// What it means that netdiag has nothing to do with a port.
const fn unmanaged(shown: &Shown) -> &'static str {
    match shown.loaded {
        Some(true) => "not enforced by netdiag: no policy names this port, so everything passes it here",
        Some(false) => "not enforced by netdiag: nothing of it is loaded on this host",
        None => "unknown: what netdiag enforces on this host could not be read",
    }
}

/// Mode, hooks, groups, flows.
fn state(page: &mut Page<'_>, port: &ShownPort, summary: &Summary) {
    let (paint, words) = match summary.mode {
        Some(Mode::Filtered) if port.stateless => (Paint::Good, "filtered, stateless: replies need rules of their own"),
        Some(Mode::Filtered) => (Paint::Good, "filtered"),
        Some(Mode::Trusted) => (Paint::Warning, "trusted: no port security, everything passes"),
        Some(Mode::Closed) => {
            (Paint::Bad, "CLOSED: its policy is not known; only DHCP, ARP and neighbour discovery pass")
        }
        None => (Paint::Bad, "NOT ENFORCED: everything passes"),
    };
    page.hang(Page::label("state"), &Span::new(paint, words));
    if let Some(why) = &summary.refused {
        let why = page.exact(why);
        page.hang(Page::label("why"), &Span::plain(why));
        page.field_short("port", std::slice::from_ref(&summary.port_id));
        return;
    }
    let plain = |side: &Side| side.hook.is_some() && side.behind.is_none();
    if plain(&summary.ingress) && plain(&summary.egress) {
        page.field("hook", &[summary.hooks()]);
    } else {
        hook(page, summary, Direction::Ingress);
        hook(page, summary, Direction::Egress);
    }
    let groups: Vec<String> = port.groups.iter().map(|group| group.called().to_owned()).collect();
    // The maps do not say which groups made them; only who knows the policy knows that there is none.
    let told = port.rules.iter().flatten().all(|rule| rule.standing != Standing::Unasked);
    let none = if told { "none: only system traffic passes" } else { "not known: no agent answers" };
    let none = vec![none.to_owned()];
    page.field_short("groups", &if groups.is_empty() && summary.mode == Some(Mode::Filtered) { none } else { groups });
    page.field_short("port", std::slice::from_ref(&summary.port_id));
    let flows = format!("{} tracked", units::count(port.flows));
    page.field("flows", &[flows]);
}

fn hook(page: &mut Page<'_>, summary: &Summary, direction: Direction) {
    let side = summary.side(direction);
    let (paint, mut words) = match &side.hook {
        Some(hook) => (Paint::Plain, page.exact(hook)),
        None => (Paint::Bad, "NOTHING ATTACHED: these packets pass unseen".to_owned()),
    };
    let paint = if side.behind.is_some() { Paint::Warning } else { paint };
    if let Some(behind) = &side.behind {
        words = format!("{words}, behind {}, which can keep packets from it", page.exact(behind));
    }
    page.hang(Page::label(&format!("{} hook", words::way(direction))), &Span::new(paint, words));
}

fn table(page: &mut Page<'_>, rules: &[ShownRule]) {
    if rules.is_empty() {
        page.hang(vec![Span::space(2)], &Span::plain("No rule: only system traffic and replies pass."));
        return;
    }
    let mut sorted: Vec<&ShownRule> = rules.iter().collect();
    sorted.sort_by_key(|rule| rule.rule.as_ref().is_none_or(|rule| rule.direction == Direction::Egress));
    let rows: Vec<Vec<Cell>> = sorted.iter().map(|rule| cells(page, rule)).collect();
    let layout = Layout::fit(&COLUMNS, &rows, page.width() - 2);
    let indented = |mut line: Vec<Span>| {
        line.insert(0, Span::space(2));
        line
    };
    let titles = layout.titles(page);
    page.line(indented(titles));
    for (rule, cells) in sorted.iter().zip(&rows) {
        let line = layout.line(page, cells);
        page.line(indented(line));
        below(page, rule, layout.left_over(cells).map(|(title, cell)| (title, cell.text.clone())).collect());
    }
}

fn cells(page: &Page<'_>, shown: &ShownRule) -> Vec<Cell> {
    let hits = hits(shown);
    let id = Span::plain(page.say(&shown.id));
    let Some(rule) = &shown.rule else {
        let ways: Vec<&str> = shown.loaded.iter().map(|direction| words::way(*direction)).collect();
        let blank = || Span::plain("?");
        let unnamed = Span::plain(format!("rule {}", page.say(&shown.id)));
        return vec![Span::plain(ways.join(",")), blank(), blank(), unnamed, hits, Span::plain(""), id];
    };
    vec![
        Span::plain(words::way(rule.direction)),
        Span::plain(words::family(rule.ethertype)),
        Span::new(Paint::Strong, service_words(rule.service)),
        Span::plain(page.say(&words::remote(&rule.remote))),
        hits,
        Span::plain(page.say(rule.group.called())),
        id,
    ]
}

/// How often it was hit, or what stands in the way of that.
fn hits(shown: &ShownRule) -> Span {
    match (shown.standing, shown.hits) {
        (Standing::Missing, _) => Span::new(Paint::Bad, "MISSING"),
        (Standing::NotAsked, _) => Span::new(Paint::Bad, "NOT ASKED"),
        (Standing::Covered, _) => Span::new(Paint::Dim, "covered"),
        (Standing::Nobody, _) => Span::new(Paint::Dim, "nobody"),
        (Standing::Unread, _) | (Standing::InForce | Standing::Unasked, None) => Span::new(Paint::Unknown, "?"),
        (Standing::InForce | Standing::Unasked, Some(0)) => Span::new(Paint::Dim, "never"),
        (Standing::InForce | Standing::Unasked, Some(hits)) => Span::plain(units::count(hits)),
    }
}

/// What the table has no room for, and what the word in it means.
fn below(page: &mut Page<'_>, shown: &ShownRule, left_over: Vec<(&'static str, String)>) {
    let lead = || vec![Span::space(7)];
    let meaning = match shown.standing {
        Standing::Missing => Some("asked for, and not in force: what it would allow is denied"),
        Standing::NotAsked => Some("in force, and nobody asks for it any more"),
        Standing::InForce | Standing::Covered | Standing::Nobody | Standing::Unread | Standing::Unasked => None,
    };
    if let Some(meaning) = meaning {
        page.hang(lead(), &Span::new(Paint::Bad, meaning));
    }
    let cut =
        left_over.into_iter().filter(|(title, _)| page.style.detail > 0 || *title == "REMOTE" || *title == "GROUP");
    let mut things: Vec<String> = cut
        .map(|(title, text)| if title == "REMOTE" { text } else { format!("{} {text}", title.to_lowercase()) })
        .collect();
    if page.style.detail > 0
        && let Some(rule) = shown.rule.as_ref().filter(|rule| !rule.description.is_empty())
    {
        things.push(format!("\"{}\"", page.exact(&rule.description)));
    }
    if !things.is_empty() {
        page.list(lead(), &things, Paint::Dim);
    }
}

/// What passed and what was dropped, by reason, most packets first.
fn counters(page: &mut Page<'_>, port: &ShownPort) {
    for direction in [Direction::Ingress, Direction::Egress] {
        for (passes, word, paint) in [(true, "passed", Paint::Plain), (false, "drops", Paint::Warning)] {
            let mut counts: Vec<&ReasonCount> = port
                .counters
                .iter()
                .filter(|count| count.direction == direction && count.passes().unwrap_or(false) == passes)
                .collect();
            counts.sort_by_key(|count| std::cmp::Reverse(count.packets));
            let things: Vec<String> = counts.iter().map(|count| counted(page, count)).collect();
            if !things.is_empty() {
                page.list(Page::label(&format!("{word} {}", words::way(direction))), &things, paint);
            }
        }
    }
    if port.straight > 0 {
        let straight = format!("{} packets past its bridge, straight to instances there", units::count(port.straight));
        page.field("straight", &[straight]);
    }
    let unsaid: Vec<String> = [(port.suppressed, "beyond the port's share"), (port.lost, "for want of room")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, why)| format!("{} {why}", units::count(number)))
        .collect();
    page.field("no record", &unsaid);
}

fn counted(page: &Page<'_>, count: &ReasonCount) -> String {
    let bytes = if page.style.detail > 0 { format!(" ({})", units::bytes(count.bytes)) } else { String::new() };
    format!("{} {}{bytes}", units::count(count.packets), page.exact(&count.reason))
}

/// What the agent says differs.
fn differences(page: &mut Page<'_>, summary: &Summary) {
    for difference in &summary.differences {
        let text = page.exact(difference);
        page.hang(Page::label("DIFFERS"), &Span::new(Paint::Bad, text));
    }
}

/// Whether somebody looks after what is loaded.
fn agent(page: &mut Page<'_>, shown: &Shown) {
    if shown.loaded != Some(true) {
        return;
    }
    page.gap();
    let Some(agent) = &shown.agent else {
        let text = "none answers: what is loaded stays in force and does not change; what is asked for is not known";
        page.hang(Page::label("agent"), &Span::new(Paint::Warning, text));
        return;
    };
    let converged = agent.converged.map_or_else(
        || "never yet in step with what is asked for".to_owned(),
        |at| format!("last in step with what is asked for {}", ago(shown.taken_at, at)),
    );
    let text = page.exact(&format!("netdiag {}, pid {}; {converged}", agent.version, agent.pid));
    page.hang(Page::label("agent"), &Span::plain(text));
    let (own, others): (Vec<&String>, Vec<&String>) = agent.problems.iter().partition(|problem| {
        let concerns = |name: &str| !name.is_empty() && problem.contains(name);
        page.style.detail > 0
            || shown.ports.iter().any(|port| {
                let id = port.summary.as_ref().map_or("", |summary| &summary.port_id);
                concerns(id) || concerns(port.device.as_deref().unwrap_or_default())
            })
    });
    for problem in own {
        let text = page.exact(problem);
        page.hang(Page::label("problem"), &Span::new(Paint::Warning, text));
    }
    if !others.is_empty() {
        page.field("problems", &[format!("{} elsewhere: netdiag agent status", others.len())]);
    }
}

fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        0..=1 => "just now".to_owned(),
        seconds => format!("{} ago", units::duration(seconds)),
    }
}
