//! `netdiag drops`: watch where the kernel gives packets up and what netdiag refuses, on the whole host.

use std::{
    io::{self, BufWriter, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use netdiag_agent::{discover, live::Session};
use netdiag_model::{
    inventory::Inventory,
    live::{
        Filter, Sighting,
        drops::{Census, Copied, Dropped, Owners},
        filter::{self, Wanted},
        packet::Headers,
    },
    resolve::resolve,
};
use netdiag_views::{
    escape, json,
    json_schema::{DropDocument, DropsLine},
    text::{self, Style, live::Epoch},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    live::{epoch, plan, refused, verdicts::Verdicts, wanted},
    not_found,
};
use crate::{
    cli::{StreamOutput, live::Drops},
    config,
    exit::{Bad, Exit},
};

/// How often netdiag's own refusals are asked for.
const TICK: Duration = Duration::from_millis(100);

/// How often the host is looked at again: instances come and go.
const LOOK: Duration = Duration::from_secs(30);

/// Watches until there was enough.
pub(crate) async fn run(asked: &Drops) -> anyhow::Result<Exit> {
    let style = config::style(&asked.look);
    let wanted = wanted::read(&asked.wanted)?;
    let filter = wanted.compile().map_err(|unfit| Bad::usage(format!("the filter does not fit: {unfit}")))?;
    let options = config::all_options(&asked.sockets, &asked.enforced);
    let snapshot = discover::look(options.clone()).await;
    let inventory = Inventory::build(&snapshot);
    let only = match asked.instance.as_deref().map(|query| resolve(&inventory, query)) {
        None => None,
        Some(Ok(place)) => Some(inventory.instances[place].identity.name.clone()),
        Some(Err(unresolved)) => return not_found(&unresolved, &snapshot, style.ascii),
    };
    let owners = Owners::of(&inventory);
    let verdicts = Verdicts::follow(asked.enforced.agent_socket.as_deref()).await;
    let session = start(&filter, asked.max_overhead, &options).await?;
    say(&filter, only.as_deref(), verdicts.are_there(), &style)?;
    let (census, out) = (Census::default(), BufWriter::new(io::stdout()));
    let mut live = Live { asked, only, wanted, owners, session, verdicts, census, out, style, epoch: epoch() };
    let interrupted = live.follow(&options).await?;
    live.end(interrupted)
}

async fn start(filter: &Filter, overhead: f64, options: &discover::Options) -> anyhow::Result<Session> {
    let session = Session::start(plan(filter, overhead), options).await.map_err(|error| refused(&error))?;
    if session.places() == 0 {
        let gap = session.gaps().first().map_or_else(String::new, |gap| format!(": {}: {}", gap.object, gap.why));
        return Err(Bad::missing(format!("nothing can be watched{gap}")));
    }
    Ok(session)
}

/// What is watched, on standard error: standard output is the stream.
fn say(filter: &Filter, only: Option<&str>, verdicts: bool, style: &Style) -> anyhow::Result<()> {
    let whom = only.unwrap_or("this host");
    let own = if verdicts {
        "and what netdiag refuses"
    } else {
        "no agent answers, so nothing of what netdiag itself refuses"
    };
    let packets = filter::words(filter).join(" or ");
    let text = format!("watching where the kernel gives packets of {whom} up ({packets}); {own}");
    writeln!(io::stderr(), "netdiag: {}", escape::terminal(&text, style.ascii)).context("write to standard error")
}

/// Drops being watched.
struct Live<'l> {
    asked: &'l Drops,
    only: Option<String>,
    wanted: Wanted,
    owners: Owners,
    session: Session,
    verdicts: Verdicts,
    census: Census,
    out: BufWriter<io::Stdout>,
    style: Style,
    epoch: Epoch,
}

impl Live<'_> {
    /// Watches until a bound is reached; true where somebody interrupted.
    async fn follow(&mut self, options: &discover::Options) -> anyhow::Result<bool> {
        let until = self.asked.limits.until();
        // One listener for all the time: a signal that comes while nobody listens is gone.
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        loop {
            let enough = tokio::select! {
                sighting = self.session.next() => {
                    self.see(&sighting)?
                }
                _ = tick.tick() => self.refusals()?,
                _ = interrupt.recv() => return Ok(true),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Ok(false),
            };
            if enough {
                return Ok(false);
            }
            if looked.elapsed() > LOOK {
                let snapshot = discover::look(options.clone()).await;
                self.owners = Owners::of(&Inventory::build(&snapshot));
                looked = Instant::now();
            }
        }
    }

    /// Takes a packet that was given up; true where that is enough. Copies are counted, and told of only if their reason is asked for.
    fn see(&mut self, sighting: &Sighting) -> anyhow::Result<bool> {
        let copy = self.owners.copy(sighting);
        let Some(dropped) = self.owners.described(sighting) else { return Ok(false) };
        if let Some(copy) = copy.filter(|copy| *copy != Copied::Unread || !self.asked.reason.contains(&dropped.reason))
        {
            self.census.add_copy(copy);
            return Ok(false);
        }
        if self.wanted.covers(&Headers::of(sighting)) { self.tell(&dropped) } else { Ok(false) }
    }

    /// Tells of what netdiag has refused since; true where that is enough.
    fn refusals(&mut self) -> anyhow::Result<bool> {
        // A refusal has no bytes, so a filter about packets cannot be asked about it: it is shown where there is none.
        let shown = self.asked.wanted.is_empty();
        for event in self.verdicts.take() {
            if let Some(dropped) = Dropped::refused(&event).filter(|_| shown)
                && self.tell(&dropped)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells of a packet; true where that is enough.
    fn tell(&mut self, dropped: &Dropped) -> anyhow::Result<bool> {
        let whose = self.only.is_none() || self.only == dropped.instance;
        if !whose || !(self.asked.reason.is_empty() || self.asked.reason.contains(&dropped.reason)) {
            return Ok(false);
        }
        self.census.add(dropped);
        let written = match self.asked.output {
            StreamOutput::Text => text::drops::line(dropped, self.epoch, &self.style, &mut self.out),
            StreamOutput::Json => json::line(&DropsLine::Drop(DropDocument::of(dropped, self.epoch)), &mut self.out),
        };
        // Whoever reads a stream wants each line when it is there.
        written.and_then(|()| self.out.flush()).context("write to standard output")?;
        Ok(self.asked.limits.is_reached(self.census.packets))
    }

    /// Says what it came to.
    fn end(mut self, interrupted: bool) -> anyhow::Result<Exit> {
        self.census.losses = self.session.losses().context("read how many packets were lost")?;
        let written = match self.asked.output {
            StreamOutput::Text => text::drops::census(&self.census, &self.style, &mut self.out),
            StreamOutput::Json => json::line(&DropsLine::Summary((&self.census).into()), &mut self.out),
        };
        written.and_then(|()| self.out.flush()).context("write to standard output")?;
        let lossy = self.census.losses.lost > 0;
        Ok(match (interrupted, lossy) {
            (true, _) => Exit::Interrupted,
            (false, true) => Exit::Inconclusive,
            (false, false) => Exit::Works,
        })
    }
}
