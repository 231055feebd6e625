//! `netdiag watch`: look again and again, and print what is different from the look before.

use std::{
    io::{self, BufWriter, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use netdiag_agent::discover;
use netdiag_model::{
    inventory::Inventory,
    resolve::resolve,
    trace::{
        self, Trace,
        changes::{Change, changes, first},
    },
};
use netdiag_views::{json, json_schema::Watched, text};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::not_found;
use crate::{
    cli::{StreamOutput, live::Watch},
    config,
    exit::Exit,
};

/// Watches an instance until there was enough; ends with the verdict of the last look.
pub(crate) async fn run(asked: &Watch) -> anyhow::Result<Exit> {
    let until = asked.limits.until();
    let mut tick = interval(asked.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = 0;
    let mut before: Option<Trace> = None;
    loop {
        tick.tick().await;
        let after = match look(asked, before.as_ref()).await? {
            Ok(trace) => trace,
            Err(exit) => return Ok(exit),
        };
        let found = before.as_ref().map_or_else(|| first(&after), |before| changes(before, &after));
        let enough = tell(asked, &after, found, &mut shown)?;
        if enough || until.is_some_and(|until| Instant::now() + asked.interval > until) {
            return Ok(after.verdict.into());
        }
        before = Some(after);
    }
}

/// The trace as it is now, of the same instance as before.
async fn look(asked: &Watch, before: Option<&Trace>) -> anyhow::Result<Result<Trace, Exit>> {
    let snapshot = discover::look(config::all_options(&asked.sockets, &asked.enforced)).await;
    let inventory = Inventory::build(&snapshot);
    // Names may pass to others, ids do not.
    let id = before.and_then(|before| before.instance.container_id.as_deref());
    match resolve(&inventory, id.unwrap_or(&asked.instance)) {
        Ok(place) => Ok(Ok(trace::explain(&inventory, &inventory.instances[place]))),
        Err(unresolved) => not_found(&unresolved, &snapshot, config::style(&asked.look).ascii).map(Err),
    }
}

/// Prints changes; true where there were enough.
fn tell(asked: &Watch, trace: &Trace, found: Vec<Change>, shown: &mut u64) -> anyhow::Result<bool> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
    let time_ns = u64::try_from(now.as_nanos()).context("read the clock")?;
    let style = config::style(&asked.look);
    let mut out = BufWriter::new(io::stdout());
    for change in found {
        let watched = Watched { time_ns, instance: trace.instance.name.clone(), change };
        let written = match asked.output {
            StreamOutput::Text => text::watch::render(&watched, &style, &mut out),
            StreamOutput::Json => json::line(&watched, &mut out),
        };
        // Whoever reads a stream wants each line when it is there.
        written.and_then(|()| out.flush()).context("write to standard output")?;
        *shown += 1;
        if asked.limits.is_reached(*shown) {
            return Ok(true);
        }
    }
    Ok(false)
}
