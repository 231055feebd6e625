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
        drops::{Census, Copied, Dropped, Owners, Rules},
        filter::{self, Wanted},
        packet::Headers,
    },
    resolve::resolve,
    snapshot::Snapshot,
};
use netdiag_views::{
    escape, json,
    json_schema::{DropDocument, DropsLine},
    text::{self, Style, live::Epoch},
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::{
    live::{epoch, plan, refused, verdicts::Verdicts, wanted},
    not_found,
    signals::Interrupt,
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

/// How long rules are good for at least, and how much longer than looking at them takes: they may have changed since, and looking
/// must not become what the host is busy with.
const FRESH: (Duration, u32) = (Duration::from_secs(3), 10);

/// Watches until there was enough.
pub(crate) async fn run(asked: &Drops) -> anyhow::Result<Exit> {
    let style = config::style(&asked.look);
    let wanted = wanted::read(&asked.wanted)?;
    let filter = wanted.compile().map_err(|unfit| Bad::usage(format!("the filter does not fit: {unfit}")))?;
    let options = config::all_options(&asked.sockets, &asked.enforced);
    let mut look = Look::take(&options).await;
    let only = {
        let inventory = Inventory::build(&look.snapshot);
        match asked.instance.as_deref().map(|query| resolve(&inventory, query)) {
            None => None,
            Some(Ok(place)) => Some(inventory.instances[place].identity.name.clone()),
            Some(Err(unresolved)) => return not_found(&unresolved, &look.snapshot, style.ascii),
        }
    };
    let verdicts = Verdicts::follow(asked.enforced.agent_socket.as_deref()).await;
    let session = start(&filter, asked.max_overhead, &options).await?;
    say(&filter, only.as_deref(), verdicts.are_there(), &style)?;
    let (census, out) = (Census::default(), BufWriter::new(io::stdout()));
    let mut until = Until::of(asked)?;
    let mut live = Live { asked, only, wanted, session, verdicts, census, out, style, epoch: epoch(), waiting: None };
    loop {
        match live.follow(&look, &mut until).await? {
            Turn::LookAgain => look = Look::take(&options).await,
            Turn::Enough => return live.end(false),
            Turn::Interrupted => return live.end(true),
        }
    }
}

/// The host as it was a moment ago.
struct Look {
    snapshot: Snapshot,
    taken: Instant,
    /// How long that took.
    took: Duration,
}

impl Look {
    async fn take(options: &discover::Options) -> Self {
        let began = Instant::now();
        let snapshot = discover::look(options.clone()).await;
        Self { snapshot, taken: Instant::now(), took: began.elapsed() }
    }

    /// Whether its rules may have changed since.
    fn is_stale(&self) -> bool {
        let (least, times) = FRESH;
        self.taken.elapsed() > least.max(self.took * times)
    }
}

/// What following the host comes to.
enum Turn {
    /// It has to be looked at again.
    LookAgain,
    /// A bound is reached.
    Enough,
    /// Ctrl-C.
    Interrupted,
}

/// When watching ends, and how often is looked.
struct Until {
    end: Option<Instant>,
    interrupt: Interrupt,
    tick: Interval,
}

impl Until {
    fn of(asked: &Drops) -> anyhow::Result<Self> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { end: asked.limits.until(), interrupt: Interrupt::listen()?, tick })
    }
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
    session: Session,
    verdicts: Verdicts,
    census: Census,
    out: BufWriter<io::Stdout>,
    style: Style,
    epoch: Epoch,
    /// A packet that a rule dropped, which waits for rules as they are now.
    waiting: Option<Sighting>,
}

/// Whose packets are whose, and what rules there are.
struct Host<'i, 'a> {
    owners: Owners,
    rules: Rules<'i, 'a>,
    is_stale: bool,
}

impl Live<'_> {
    /// Watches until a bound is reached, or the host has to be looked at again.
    async fn follow(&mut self, look: &Look, until: &mut Until) -> anyhow::Result<Turn> {
        let inventory = Inventory::build(&look.snapshot);
        let mut host = Host { owners: Owners::of(&inventory), rules: Rules::of(&inventory), is_stale: false };
        if let Some(sighting) = self.waiting.take()
            && self.see(&sighting, &mut host)?
        {
            return Ok(Turn::Enough);
        }
        loop {
            let end = until.end;
            let enough = tokio::select! {
                sighting = self.session.next() => {
                    host.is_stale = look.is_stale();
                    self.see(&sighting, &mut host)?
                }
                _ = until.tick.tick() => self.refusals()?,
                () = until.interrupt.comes() => return Ok(Turn::Interrupted),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => return Ok(Turn::Enough),
            };
            if enough {
                return Ok(Turn::Enough);
            }
            if self.waiting.is_some() || look.taken.elapsed() > LOOK {
                return Ok(Turn::LookAgain);
            }
        }
    }

    /// Takes a packet that was given up; true where that is enough. Copies are counted, and told of only if their reason is asked for.
    fn see(&mut self, sighting: &Sighting, host: &mut Host<'_, '_>) -> anyhow::Result<bool> {
        let copy = host.owners.copy(sighting);
        let Some(dropped) = host.owners.described(sighting) else { return Ok(false) };
        if let Some(copy) = copy.filter(|copy| *copy != Copied::Unread || !self.asked.reason.contains(&dropped.reason))
        {
            self.census.add_copy(copy);
            return Ok(false);
        }
        if !self.wanted.covers(&Headers::of(sighting)) || !self.is_shown(&dropped) {
            return Ok(false);
        }
        if dropped.is_by_rule() && host.is_stale {
            self.waiting = Some(sighting.clone());
            return Ok(false);
        }
        self.tell(&host.rules.named(dropped, sighting))
    }

    /// Tells of what netdiag has refused since; true where that is enough.
    fn refusals(&mut self) -> anyhow::Result<bool> {
        // A refusal has no bytes, so a filter about packets cannot be asked about it: it is shown where there is none.
        let shown = self.asked.wanted.is_empty();
        for event in self.verdicts.take() {
            if let Some(dropped) = Dropped::refused(&event).filter(|dropped| shown && self.is_shown(dropped))
                && self.tell(&dropped)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a packet is whose, and died of what, is asked for.
    fn is_shown(&self, dropped: &Dropped) -> bool {
        let whose = self.only.is_none() || self.only == dropped.instance;
        whose && (self.asked.reason.is_empty() || self.asked.reason.contains(&dropped.reason))
    }

    /// Tells of a packet; true where that is enough.
    fn tell(&mut self, dropped: &Dropped) -> anyhow::Result<bool> {
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
