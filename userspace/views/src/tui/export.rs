//! What a row, or a view, is in JSON: the same as the commands print with `-o json`; and the picture of a path.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

use netdiag_model::{
    groups::{Flows, Shown, ShownRule},
    list::Listing,
};
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::{
    look::{Fact, Look},
    sheet,
    state::{Seen, State, Tab},
};
use crate::{
    escape, json,
    json_schema::{CheckDocument, FlowDocument, HopDocument, ListedInstance, LoadedRuleDocument, Published},
    mermaid, pcapng,
    text::live::Epoch,
};

/// Forms a view can be written in: name, letter, end of the file's name, and what it is.
pub(super) const FORMS: [(&str, char, &str, &str); 4] = [
    ("json", 'j', "json", "JSON, as the command of this tab prints it"),
    ("table", 't', "txt", "text, every column"),
    ("mermaid", 'm', "mmd", "Mermaid, a picture for Markdown"),
    ("pcapng", 'p', "pcapng", "pcapng, packets at each device with comments"),
];

/// The forms there are on a tab.
pub(super) fn forms(tab: Tab) -> impl Iterator<Item = (&'static str, char, &'static str)> {
    let fits = move |form: &str| match form {
        "mermaid" => tab == Tab::Path,
        "pcapng" => tab == Tab::Live,
        _ => true,
    };
    FORMS.into_iter().filter(move |(form, ..)| fits(form)).map(|(form, letter, _, words)| (form, letter, words))
}

/// A row as the command of its tab prints it; none where there is none.
pub(super) fn row(state: &State, row: usize) -> Option<String> {
    let look = || state.look().map(AsRef::as_ref);
    match state.tab {
        Tab::Instances => {
            let look = look()?;
            let line = look.interfaces.get(row)?;
            text(&ListedInstance::from(look.listing.instances.get(line.instance)?))
        }
        Tab::Path => text(&HopDocument::from(sheet::hops::PathRows::of(state).hops.get(row)?.2)),
        Tab::Live => match &state.events().lines.get(row)?.seen {
            Seen::Event(event) => text(&event.document()),
            Seen::Packet(packet) => Some(packet.document.clone()),
        },
        Tab::Flows => text(&FlowDocument::from(look()?.flows.rows.get(row)?)),
        Tab::Policy => {
            let line = look()?.rules.get(row)?;
            match &line.rule {
                Some(rule) => text(&LoadedRuleDocument::from(rule)),
                None => text(&serde_json::json!({ "security_group": line.group, "id": line.group_id })),
            }
        }
        Tab::Agent => agent(look()?),
        Tab::Doctor => text(&CheckDocument::from(look()?.doctor.checks.get(row)?)),
    }
}

/// The agent's own answer; where it gave none, the line.
fn agent(look: &Look) -> Option<String> {
    if let Some(status) = &look.status {
        return text(&status.document());
    }
    let line = |fact: &Fact| serde_json::json!({ "part": fact.part, "name": fact.name, "value": fact.value });
    text(&look.agent.iter().map(line).collect::<Vec<_>>())
}

fn text(document: &impl Serialize) -> Option<String> {
    let mut out = Vec::new();
    json::write(document, &mut out).ok()?;
    String::from_utf8(out).ok()
}

/// The rows that are shown, as a document or a picture: name of the file and its content.
pub(super) fn view(state: &State, form: &str) -> Result<(String, Vec<u8>), String> {
    let mut out = Vec::new();
    let written = match form {
        "json" => document(state, &mut out),
        "mermaid" if state.tab == Tab::Path => {
            let traced = state.traced.as_ref().ok_or("no path is shown")?;
            mermaid::render(&traced.trace, &mut out)
        }
        "mermaid" => return Err("only a path can be written as Mermaid: go to the tab Path".to_owned()),
        "pcapng" if state.tab == Tab::Live => capture(state, &mut out),
        "pcapng" => return Err("only packets can be written as pcapng: go to the tab Live".to_owned()),
        "table" => table(state, &mut out),
        _ => return Err(format!("\"{form}\" is no form; there are {}", FORMS.map(|(form, ..)| form).join(", "))),
    };
    written.map_err(|error| format!("write {form}: {error}"))?;
    if out.is_empty() {
        let nothing = match form {
            "pcapng" => "no packet is among these rows: watch some first",
            _ => "there is nothing to write yet",
        };
        return Err(nothing.to_owned());
    }
    Ok((name(state, form), out))
}

/// A name of harmless characters: tab, host, time.
fn name(state: &State, form: &str) -> String {
    let host = state.look().map_or("host", |look| &look.listing.hostname);
    let host: String = host
        .chars()
        .filter(|character| character.is_ascii_alphanumeric() || "-_".contains(*character))
        .take(40)
        .collect();
    let end = FORMS.iter().find(|(name, ..)| *name == form).map_or("txt", |(_, _, end, _)| end);
    format!("netdiag-{}-{host}-{}.{end}", state.tab.title().to_lowercase(), state.now_ms)
}

/// The rows that are shown, in their order; those of folded groups, too.
fn shown(state: &State) -> impl Iterator<Item = usize> {
    state.view().rows.iter().copied()
}

/// The packets that are shown, at every device they were seen at.
fn capture(state: &State, out: &mut Vec<u8>) -> io::Result<()> {
    let lines = shown(state).filter_map(|row| state.events().lines.get(row));
    let packets = lines.filter_map(|line| match &line.seen {
        Seen::Packet(packet) => Some(packet),
        Seen::Event(_) => None,
    });
    let mut frames: Vec<_> = packets.flat_map(|packet| &packet.frames).collect();
    frames.sort_by_key(|frame| frame.sighting.time_ns);
    if frames.is_empty() {
        return Ok(());
    }
    // Their times are the day's already.
    let mut writer = pcapng::Writer::begin(out, Epoch(0))?;
    frames.into_iter().try_for_each(|frame| writer.packet(&frame.sighting, &frame.name, &frame.comment))
}

/// The rows that are shown as text, every column as wide as it has to be.
fn table(state: &State, out: &mut Vec<u8>) -> io::Result<()> {
    let sheet = sheet::of(state, state.tab);
    let safe = |text: &str| escape::terminal(text, state.settings.ascii);
    let titles = sheet.columns().iter().map(|column| column.title.to_owned()).collect::<Vec<_>>();
    let cells = |row| (0..titles.len()).map(|column| safe(&sheet.cell(row, column).text)).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = std::iter::once(titles.clone()).chain(shown(state).map(cells)).collect();
    let widest = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(widest).collect();
    for row in &rows {
        let mut line = String::new();
        for (text, (width, column)) in row.iter().zip(widths.iter().zip(sheet.columns())) {
            let pad = " ".repeat(width - text.width());
            let parts = if column.right { [pad.as_str(), text] } else { [text, pad.as_str()] };
            line.extend(parts.into_iter().chain(["  "]));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The document of the tab, with the rows that are shown and no others.
fn document(state: &State, out: &mut Vec<u8>) -> io::Result<()> {
    let Some(look) = state.look() else { return Ok(()) };
    let rows = shown(state);
    match state.tab {
        Tab::Instances => {
            let mut told = BTreeSet::new();
            let places = rows.filter_map(|row| Some(look.interfaces.get(row)?.instance));
            let instances =
                places.filter(|place| told.insert(*place)).map(|place| look.listing.instances[place].clone());
            let instances = instances.collect();
            json::render(&Listing { instances, ..look.listing.clone() }, out)
        }
        Tab::Path => state.traced.as_ref().map_or(Ok(()), |traced| json::render(&traced.trace, out)),
        Tab::Live => {
            let mut lines = rows.filter_map(|row| state.events().lines.get(row));
            lines.try_for_each(|line| match &line.seen {
                Seen::Event(event) => json::line(event, out),
                Seen::Packet(packet) => {
                    one_line(&packet.document, out);
                    Ok(())
                }
            })
        }
        Tab::Flows => {
            let rows = rows.filter_map(|row| look.flows.rows.get(row).cloned()).collect();
            json::render(&Flows { rows, ..look.flows.clone() }, out)
        }
        Tab::Policy => {
            let wanted = policy(look, rows);
            let all: Vec<_> = wanted.iter().map(Published::document).collect();
            json::write(&all, out)
        }
        Tab::Agent => {
            out.extend(agent(look).unwrap_or_default().bytes());
            Ok(())
        }
        Tab::Doctor => json::render(&look.doctor, out),
    }
}

/// Instances with these rules of their groups and no others.
fn policy(look: &Look, rows: impl Iterator<Item = usize>) -> Vec<Shown> {
    let rows: Vec<_> = rows.filter_map(|row| look.rules.get(row)).collect();
    let mut all = look.shown.clone();
    if rows.len() == look.rules.len() {
        return all;
    }
    let groups: BTreeSet<&str> = rows.iter().map(|row| &*row.group_id).collect();
    let rules: BTreeSet<(&str, &str)> =
        rows.iter().filter_map(|row| Some((&*row.group_id, &*row.rule.as_ref()?.id))).collect();
    let is_shown = |rule: &ShownRule| {
        let group = rule.rule.as_ref().map_or("", |words| &words.group.id);
        rules.contains(&(group, &rule.id))
    };
    for shown in &mut all {
        for port in &mut shown.ports {
            port.groups.retain(|group| groups.contains(&*group.id));
            port.rules.iter_mut().for_each(|rules| rules.retain(is_shown));
        }
        shown.ports.retain(|port| !port.groups.is_empty() || port.rules.iter().flatten().next().is_some());
    }
    all.retain(|shown| !shown.ports.is_empty());
    all
}

/// A document on one line.
fn one_line(document: &str, out: &mut Vec<u8>) {
    // Strings of JSON hold no line ends, so what is between two lines is nothing but indentation.
    let parts = document.lines().map(str::trim_start);
    out.extend(parts.flat_map(str::bytes).chain([b'\n']));
}
