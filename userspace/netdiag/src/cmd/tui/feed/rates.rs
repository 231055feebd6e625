//! What passes in flows, counted at the host's ends of instances while somebody looks at the flows. Programs are there only as
//! long as that.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use netdiag_agent::{
    discover::Options,
    live::{Plan, Point, Session, passed},
};
use netdiag_model::{
    id::LinkKey,
    inventory::Inventory,
    live::{
        View,
        filter::Wanted,
        rates::{Counter, End, Passed},
    },
    snapshot::Snapshot,
};
use netdiag_views::tui::Action;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::packets::Place;
use crate::cmd::live::{now_ns, plan, refused};

/// How often what has come is counted.
const TICK: Duration = Duration::from_millis(500);

/// How many times, until rates are told.
const TELL: u32 = 2;

/// The most records a second on each CPU: rates of more packets than that are estimates.
const BUDGET: u32 = 2_000;

/// What the programs may take of a CPU.
const OVERHEAD: f64 = 0.01;

/// Devices by which flows are counted.
type Ends = HashMap<LinkKey, End>;

/// Counts until it is dropped.
pub(super) struct Counting {
    looks: watch::Sender<Arc<Snapshot>>,
}

impl Counting {
    /// Begins, on a thread of its own.
    pub(super) fn start(place: &Place, snapshot: Arc<Snapshot>, actions: mpsc::Sender<Action>) -> Self {
        let (looks, newest) = watch::channel(snapshot);
        let runtime = tokio::runtime::Handle::current();
        let options = place.options.clone();
        std::thread::spawn(move || runtime.block_on(run(options, newest, actions)));
        Self { looks }
    }

    /// The host is another now: instances come and go.
    pub(super) fn look(&self, snapshot: &Arc<Snapshot>) {
        self.looks.send_if_modified(|known| {
            let is_other = !Arc::ptr_eq(known, snapshot);
            if is_other {
                *known = Arc::clone(snapshot);
            }
            is_other
        });
    }
}

async fn run(options: Options, mut newest: watch::Receiver<Arc<Snapshot>>, actions: mpsc::Sender<Action>) {
    loop {
        let ends = ends(&newest.borrow_and_update());
        let counted = if ends.is_empty() { Ok(()) } else { count(&options, ends, &mut newest, &actions).await };
        if let Err(error) = counted {
            drop(actions.send(Action::Uncounted(format!("{error:#}"))).await);
            return;
        }
        // What was told is not so any more.
        if actions.send(Action::Rates(Arc::default())).await.is_err() {
            return;
        }
        // Nothing there: the next look may have more.
        if self::ends(&newest.borrow()).is_empty() && newest.changed().await.is_err() {
            return;
        }
        if newest.has_changed().is_err() {
            return;
        }
    }
}

/// Whether there are devices that are not watched, or packets of theirs go another way now. Those that are gone, or that a look
/// has missed, do no harm.
fn has_more(now: &Ends, watched: &Ends) -> bool {
    now.iter().any(|(link, end)| watched.get(link) != Some(end))
}

fn ends(snapshot: &Snapshot) -> Ends {
    End::all(&Inventory::build(snapshot))
}

/// Counts at some devices until they are others, or nobody wants to know.
async fn count(
    options: &Options,
    ends: Ends,
    newest: &mut watch::Receiver<Arc<Snapshot>>,
    actions: &mpsc::Sender<Action>,
) -> anyhow::Result<()> {
    let mut session = begin(options, &ends).await?;
    let mut counter = Counter::new(ends.clone(), now_ns(), counted(&ends));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 1_u32.. {
        tick.tick().await;
        session.take().iter().for_each(|sighting| counter.see(sighting));
        if turn.is_multiple_of(TELL) {
            let losses = session.losses().context("read how many packets were lost")?;
            let rates = counter.turn(now_ns(), losses, counted(&ends));
            if actions.send(Action::Rates(Arc::new(rates))).await.is_err() {
                break;
            }
        }
        match newest.has_changed() {
            Err(_) => break,
            Ok(true) if has_more(&self::ends(&newest.borrow_and_update()), &ends) => break,
            Ok(_) => {}
        }
    }
    Ok(())
}

/// What the devices have counted themselves. Where that cannot be read, or they are in another namespace, estimates are coarser.
fn counted(ends: &Ends) -> HashMap<LinkKey, Passed> {
    passed(ends.iter().map(|(link, end)| (*link, end.name.as_str()))).unwrap_or_default()
}

/// Watches every packet at some devices, and not where packets are given up.
async fn begin(options: &Options, ends: &Ends) -> anyhow::Result<Session> {
    let filter = Wanted::Any.compile().map_err(|unfit| anyhow::anyhow!("the filter does not fit: {unfit}"))?;
    let point = |(link, end): (&LinkKey, &End)| Point {
        link: *link,
        name: end.name.clone(),
        received: true,
        sent: true,
        view: View::Tc,
    };
    let points = ends.iter().map(point).collect();
    let plan = Plan { points, drops: false, budget: Some(BUDGET), ..plan(&filter, OVERHEAD) };
    let session = Session::start(plan, options).await.map_err(|error| refused(&error))?;
    if session.places() == 0 {
        let gap = session.gaps().first().map_or_else(String::new, |gap| format!("{}: {}", gap.object, gap.why));
        anyhow::bail!("nothing can be watched: {gap}");
    }
    Ok(session)
}

#[cfg(test)]
mod tests {
    use netdiag_model::id::{IfIndex, NetnsId};

    use super::*;

    #[test]
    fn only_a_device_that_is_not_watched_or_another_way_begins_anew() {
        let link = |number| LinkKey { netns: NetnsId { inode: 1, cookie: 1 }, ifindex: IfIndex(number) };
        let end = |fast: bool| End {
            name: "tap1".to_owned(),
            fast: if fast { vec![[10, 0, 0, 2].into()] } else { Vec::new() },
            ..End::default()
        };
        let watched = Ends::from([(link(1), end(false)), (link(2), end(false))]);
        assert!(!has_more(&watched, &watched));
        assert!(!has_more(&Ends::new(), &watched));
        assert!(!has_more(&Ends::from([(link(2), end(false))]), &watched));
        assert!(has_more(&Ends::from([(link(3), end(false))]), &watched));
        assert!(has_more(&Ends::from([(link(2), end(true))]), &watched));
    }
}
