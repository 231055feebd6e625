//! `netdiag events`: find the instance's ports, ask the agent, render line by line; when the agent ends, wait for the next.

use std::{
    cell::Cell,
    collections::BTreeSet,
    error::Error,
    io::{self, BufWriter, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use netdiag_agent::{
    discover,
    stream::{AGENT_SOCKET, Between, EventStream, StreamError},
};
use netdiag_model::{
    event::{Decision, Event, LeftOut, VerdictEvent},
    inventory::{Enforcement, Inventory},
    resolve::resolve,
};
use netdiag_views::{
    escape, json,
    text::{self, Style},
};

use super::not_found;
use crate::{
    cli::{Events, Passed, StreamOutput},
    config,
    exit::Exit,
};

/// How long nothing is said of events that are not shown where no other is.
const REST: Duration = Duration::from_secs(10);
/// How long to wait before the agent is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows events until there were enough.
pub(crate) async fn run(asked: &Events) -> anyhow::Result<Exit> {
    let socket = asked.enforced.agent_socket.as_deref().unwrap_or(Path::new(AGENT_SOCKET));
    // What happens while the host is looked at belongs to the answer: the stream begins before.
    let opened = EventStream::open(socket, None).await;
    let ports = match ports(asked).await? {
        Ok(ports) => ports,
        Err(exit) => return Ok(exit),
    };
    let stream = match narrowed(opened, ports.as_ref()).await {
        Ok(stream) => stream,
        Err(error) => return without_agent(&error),
    };
    let there = Cell::new(true);
    let mut page = Page { asked, style: config::style(&asked.look), left_out: LeftOut::default(), told: None };
    let follow = follow(&mut page, ports.as_ref(), stream, &there);
    let ended = match asked.limits.duration {
        None => follow.await,
        Some(end) => match tokio::time::timeout(end, follow).await {
            Ok(ended) => ended,
            Err(_) if there.get() => Ok(Exit::Works),
            Err(_) => Ok(Exit::Inconclusive),
        },
    };
    page.tell_left_out()?;
    ended
}

/// The stream of the only port there is to follow, or of all.
async fn narrowed(
    opened: Result<EventStream, StreamError>,
    ports: Option<&BTreeSet<String>>,
) -> Result<EventStream, StreamError> {
    let mut stream = opened?;
    if let Some(port) = ports.filter(|ports| ports.len() == 1).and_then(BTreeSet::first) {
        stream.narrow(port).await?;
    }
    Ok(stream)
}

/// What is shown, and what is not.
struct Page<'a> {
    asked: &'a Events,
    style: Style,
    /// What was not shown since that was last said.
    left_out: LeftOut,
    /// When it was last said.
    told: Option<Instant>,
}

impl Page<'_> {
    /// Shows an event, or counts it; true if it was shown. How many were counted is said before the next one that is shown, and
    /// now and then where none is.
    fn show(&mut self, event: &Event) -> anyhow::Result<bool> {
        let output = self.asked.output;
        if let Event::Verdict(verdict) = event
            && output == StreamOutput::Text
            && !self.asked.multicast
            && verdict.is_refused_multicast()
        {
            self.left_out.add(verdict);
            if self.told.is_none_or(|told| told.elapsed() >= REST) {
                self.tell_left_out()?;
            }
            return Ok(false);
        }
        self.tell_left_out()?;
        write(|out| match output {
            StreamOutput::Text => text::event::render(event, &self.style, out),
            StreamOutput::Json => json::line(event, out),
        })?;
        Ok(matches!(event, Event::Verdict(_)))
    }

    /// Says how many events were not shown.
    fn tell_left_out(&mut self) -> anyhow::Result<()> {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out.packets == 0 {
            return Ok(());
        }
        self.told = Some(Instant::now());
        write(|out| text::event::left_out(&left_out, &self.style, out))
    }
}

/// Writes one line: whoever reads a stream wants each when it is there.
fn write(line: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    line(&mut out).and_then(|()| out.flush()).context("write to standard output")
}

/// Ids of the ports of the instance asked for; none where all are.
async fn ports(asked: &Events) -> anyhow::Result<Result<Option<BTreeSet<String>>, Exit>> {
    let Some(query) = &asked.instance else { return Ok(Ok(None)) };
    let snapshot = discover::look(config::all_options(&asked.sockets, &asked.enforced)).await;
    let inventory = Inventory::build(&snapshot);
    let ascii = config::style(&asked.look).ascii;
    let instance = match resolve(&inventory, query) {
        Ok(place) => &inventory.instances[place],
        Err(unresolved) => return not_found(&unresolved, &snapshot, ascii).map(Err),
    };
    let cards: Vec<_> = instance.nics.iter().map(|nic| inventory.enforcement(nic)).collect();
    let enforced = cards.iter().filter_map(|card| match card {
        Enforcement::Port(port) => Some(port.port_id.clone()),
        Enforcement::Absent | Enforcement::Unknown | Enforcement::Unmanaged | Enforcement::Refused(_) => None,
    });
    let ports: BTreeSet<String> = enforced.collect();
    if ports.is_empty() {
        complain(&without_port(&instance.identity.name, &cards), ascii)?;
        return Ok(Err(Exit::Inconclusive));
    }
    Ok(Ok(Some(ports)))
}

/// Why nothing is said about an instance's packets.
fn without_port(name: &str, cards: &[Enforcement<'_>]) -> String {
    if cards.contains(&Enforcement::Unknown) {
        return format!("what netdiag enforces at {name} could not be read; netdiag sg show {name} says why");
    }
    format!("netdiag enforces no security group at {name}, so nothing is said about its packets")
}

/// Shows events until there were enough. `there` says whether there is an agent.
async fn follow(
    page: &mut Page<'_>,
    ports: Option<&BTreeSet<String>>,
    mut stream: EventStream,
    there: &Cell<bool>,
) -> anyhow::Result<Exit> {
    let mut shown = 0;
    loop {
        let Ok(Some(event)) = stream.next().await else {
            there.set(false);
            again(&mut stream, page.style.ascii).await?;
            there.set(true);
            continue;
        };
        let wanted = match &event {
            Event::Verdict(verdict) => wanted(page.asked, ports, verdict),
            Event::Lost(loss) => loss.port_id.as_ref().is_none_or(|id| ports.is_none_or(|ports| ports.contains(id))),
        };
        if !wanted {
            continue;
        }
        shown += u64::from(page.show(&event)?);
        if page.asked.limits.is_reached(shown) {
            return Ok(Exit::Works);
        }
    }
}

/// Waits for the agent that comes after this one.
async fn again(stream: &mut EventStream, ascii: bool) -> anyhow::Result<()> {
    complain("the agent has ended: it was stopped, or restarts; waiting for it to come back", ascii)?;
    loop {
        match stream.resume().await {
            Ok(Between::Counted) => return complain("the agent is back; nothing is missing but what is said", ascii),
            Ok(Between::Unknown) => {
                let why = "its maps are new: how many events were missed is not known";
                return complain(&format!("the agent is back; {why}"), ascii);
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn wanted(asked: &Events, ports: Option<&BTreeSet<String>>, event: &VerdictEvent) -> bool {
    let verdict = asked.verdict.is_none_or(|passed| match passed {
        Passed::Allow => event.verdict == Decision::Allow,
        Passed::Deny => event.verdict == Decision::Deny,
    });
    verdict
        && (asked.reason.is_empty() || asked.reason.contains(&event.reason))
        && ports.is_none_or(|ports| ports.contains(&event.port_id))
}

/// Says that there is no agent to ask, and what to do.
fn without_agent(error: &StreamError) -> anyhow::Result<Exit> {
    let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
    complain(&format!("{error}{cause}"), false)?;
    let denied =
        matches!(error, StreamError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
    if denied {
        complain("be root, or a member of the group the socket belongs to", false)?;
        return Ok(Exit::Missing);
    }
    complain("events come from a running agent (netdiag agent); without one, netdiag sg show has the counters", false)?;
    Ok(Exit::Inconclusive)
}

/// A line on standard error: standard output stays clean for whoever parses it.
fn complain(text: &str, ascii: bool) -> anyhow::Result<()> {
    writeln!(io::stderr(), "netdiag: {}", escape::terminal(text, ascii)).context("write to standard error")
}

#[cfg(test)]
mod tests {
    use netdiag_model::inventory::Enforcement;

    use super::without_port;

    #[test]
    fn what_could_not_be_read_is_not_said_to_be_nothing() {
        assert!(without_port("web-1", &[Enforcement::Unmanaged, Enforcement::Unknown]).contains("could not be read"));
        assert!(without_port("web-1", &[Enforcement::Unmanaged]).contains("enforces no security group at web-1"));
    }
}
