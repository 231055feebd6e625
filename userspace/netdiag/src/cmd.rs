//! One function a command: gather, build, explain, render.

use std::{
    fs,
    io::{self, BufWriter, Write},
    net::Ipv4Addr,
    path::Path,
};

use anyhow::Context;
use clap::CommandFactory;
use netdiag_agent::discover::{self, Options};
use netdiag_model::{
    floating::show,
    inventory::Inventory,
    resolve::{Unresolved, resolve},
    snapshot::Snapshot,
    trace,
};
use netdiag_views::{dot, json, mermaid, schema, svg, text, wide, yaml};

use crate::{
    cli::{Cli, Enforced, ListOutput, Look, ReportOutput, SchemaOf, Sockets, Source, TraceOutput, live::Trace},
    config,
    exit::{Bad, Exit},
};

/// `netdiag agent`.
mod agent;

pub(crate) use agent::{agent, fip_way};
/// Packets that are given up anywhere.
pub(crate) mod drops;
/// What is refused and allowed, packet by packet.
pub(crate) mod events;
/// Floating IPs.
pub(crate) mod fip;
/// Tracked flows.
pub(crate) mod flows;
/// Packets as they are seen live.
pub(crate) mod live;
/// Security groups of an instance.
pub(crate) mod sg;
/// Signals that end what watches.
mod signals;
/// The live view of a host.
pub(crate) mod tui;
/// What changes at one instance.
pub(crate) mod watch;

/// Follows the packets of one instance.
pub(crate) async fn trace(asked: &Trace) -> anyhow::Result<Exit> {
    if asked.live || asked.probed.probe.is_some() {
        return Box::pin(live::run(asked)).await;
    }
    if !asked.wanted.is_empty() || !asked.bounds.is_empty() {
        return Err(Bad::usage("which packets, and when to end, goes with --live"));
    }
    let Trace { instance, source, look, output, .. } = asked;
    let snapshot = gather(source).await?;
    let inventory = Inventory::build(&snapshot);
    let place = match resolve(&inventory, instance) {
        Ok(place) => place,
        Err(unresolved) => return not_found(&unresolved, &snapshot, config::style(look).ascii),
    };
    let trace = trace::explain(&inventory, &inventory.instances[place]);
    let style = config::style(look);
    if matches!(output, TraceOutput::Jsonl | TraceOutput::Pcapng) {
        return Err(Bad::usage("-o jsonl and -o pcapng show packets: they go with --live"));
    }
    print(|out| match output {
        TraceOutput::Table => text::trace::render(&trace, &style, out),
        TraceOutput::Wide => wide::trace(&trace, &style, out),
        TraceOutput::Json | TraceOutput::Jsonl | TraceOutput::Pcapng => json::render(&trace, out),
        TraceOutput::Yaml => yaml::render(&trace, out),
        TraceOutput::Dot => dot::render(&trace, out),
        TraceOutput::Mermaid => mermaid::render(&trace, out),
        TraceOutput::Svg => svg::render(&trace, out),
    })?;
    Ok(trace.verdict.into())
}

/// Lists all instances.
pub(crate) async fn list(source: &Source, look: &Look, output: ListOutput) -> anyhow::Result<Exit> {
    let snapshot = gather(source).await?;
    let listing = trace::list(&Inventory::build(&snapshot));
    let style = config::style(look);
    print(|out| match output {
        ListOutput::Table => text::list::render(&listing, &style, out),
        ListOutput::Wide => wide::list(&listing, &style, out),
        ListOutput::Json => json::render(&listing, out),
        ListOutput::Yaml => yaml::render(&listing, out),
    })?;
    Ok(if listing.gaps.is_empty() { Exit::Works } else { Exit::Inconclusive })
}

/// Says what this host can and cannot do.
pub(crate) async fn doctor(sockets: &Sockets, look: &Look, output: ReportOutput) -> anyhow::Result<Exit> {
    let report = netdiag_agent::doctor::examine(&config::options(sockets)).await;
    let style = config::style(look);
    print(|out| match output {
        ReportOutput::Table => text::doctor::render(&report, &style, out),
        ReportOutput::Json => json::render(&report, out),
        ReportOutput::Yaml => yaml::render(&report, out),
    })?;
    Ok(Exit::from(&report))
}

/// Writes what netdiag sees of this host.
pub(crate) async fn snapshot(write: &Path, sockets: &Sockets, enforced: &Enforced) -> anyhow::Result<Exit> {
    let snapshot = discover::look(Options { flows: true, ..config::all_options(sockets, enforced) }).await;
    if write == Path::new("-") {
        print(|out| Ok(serde_json::to_writer(out, &snapshot)?))?;
    } else {
        let text = serde_json::to_vec(&snapshot)?;
        fs::write(write, text).with_context(|| format!("write snapshot {}", write.display()))?;
    }
    Ok(Exit::Works)
}

/// Prints the schema of an answer.
pub(crate) fn schema(of: SchemaOf) -> anyhow::Result<Exit> {
    print(|out| match of {
        SchemaOf::Trace => schema::render(schema::Kind::Trace, out),
        SchemaOf::List => schema::render(schema::Kind::List, out),
        SchemaOf::Doctor => schema::render(schema::Kind::Doctor, out),
        SchemaOf::Sg => schema::render(schema::Kind::Sg, out),
        SchemaOf::SgExplain => schema::render(schema::Kind::SgExplain, out),
        SchemaOf::Fip => schema::render(schema::Kind::Fip, out),
        SchemaOf::Flows => schema::render(schema::Kind::Flows, out),
        SchemaOf::Events => schema::render(schema::Kind::Events, out),
        SchemaOf::AgentStatus => schema::render(schema::Kind::AgentStatus, out),
        SchemaOf::Live => schema::render(schema::Kind::Live, out),
        SchemaOf::LiveLine => schema::render(schema::Kind::LiveLine, out),
        SchemaOf::Drops => schema::render(schema::Kind::Drops, out),
        SchemaOf::Watch => schema::render(schema::Kind::Watch, out),
    })?;
    Ok(Exit::Works)
}

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "netdiag", &mut script);
    print(|out| out.write_all(&script))?;
    Ok(Exit::Works)
}

/// Prints the manual page, or writes one page for each command.
pub(crate) fn man(dir: Option<&Path>) -> anyhow::Result<Exit> {
    match dir {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("make directory {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), dir)
                .with_context(|| format!("write pages to {}", dir.display()))?;
        }
        None => print(|out| clap_mangen::Man::new(Cli::command()).render(out))?,
    }
    Ok(Exit::Works)
}

/// Looks at this host, or reads a snapshot of another.
async fn gather(source: &Source) -> anyhow::Result<Snapshot> {
    look_or_read(source, config::all_options(&source.sockets, &source.enforced)).await
}

/// The same with the tracked flows, of which there may be some hundred thousand.
async fn gather_with_flows(source: &Source) -> anyhow::Result<Snapshot> {
    look_or_read(source, Options { flows: true, ..config::all_options(&source.sockets, &source.enforced) }).await
}

async fn look_or_read(source: &Source, options: Options) -> anyhow::Result<Snapshot> {
    let Some(file) = &source.from else { return Ok(discover::look(options).await) };
    let text = fs::read(file).map_err(|error| Bad::usage(format!("read snapshot {}: {error}", file.display())))?;
    Snapshot::from_json(&text).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        Bad::usage(format!("{} is {error}{cause}", file.display()))
    })
}

/// Lists the candidates on standard error: standard output stays empty for whoever parses it.
fn not_found(unresolved: &Unresolved, snapshot: &Snapshot, ascii: bool) -> anyhow::Result<Exit> {
    let mut err = io::stderr().lock();
    let gaps: Vec<_> = snapshot.facts.gaps().filter(|gap| !gap.absent).collect();
    text::unresolved::render(unresolved, &gaps, ascii, &mut err)?;
    if let Some(address) = leads_elsewhere(&unresolved.query, snapshot) {
        writeln!(err, "{address} is a floating IP here that leads elsewhere: netdiag fip {address}")?;
    }
    Ok(Exit::NotFound)
}

/// A floating IP that is known here although none of the instances has it: its instance is on another host, or nowhere.
fn leads_elsewhere(query: &str, snapshot: &Snapshot) -> Option<Ipv4Addr> {
    let address = query.parse().ok()?;
    let listed = show::list(&Inventory::build(snapshot), Some(show::Wanted::Address(address)));
    listed.rows.iter().any(|row| row.instance.is_none()).then_some(address)
}

/// Writes to standard output, buffered.
fn print(write: impl FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).context("write to standard output")
}
