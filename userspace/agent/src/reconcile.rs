//! The loop: what is asked, against what is found, against what is loaded. The only writer of maps. Flow: policy.
//!
//! It is level-triggered: no event says what to do, each only that it is time to look at everything again. Looking at the host takes
//! its time, so it goes on beside the loop; orders of the API are carried out meanwhile, with the host as it was seen last.
//!
//! ```text
//! waiting -- files changed --> read files --+
//!         -- order ----------> change ------+--> pass --> waiting
//!         -- bell -----------> close new devices that ports mean by name --> look
//!         -- bell, time -----> look --------+      |
//!                                           |      +-- failed --> the same later, enforcement as it was
//!         -- routers, look --> look at routers --> floating IPs --> waiting
//!         -- a router comes -> tell it of its flows --> waiting
//! ```
//!
//! Looking at routers takes longer than looking for ports, so it is a look of its own: no port waits for it. A router that is made anew
//! waits for neither, as its first packets do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use netdiag_model::{
    event::Event,
    floating::{FloatingIp, Owner, State as Way, tables::Places},
    policy::types::{Policy, Port, PortId},
    snapshot::Snapshot,
    status::Status,
};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

use self::{floating::ways::Target, pass::Pass};
use crate::{
    discover,
    policy_source::{
        Refused, Store,
        state::{Kind, State},
    },
    service::{Heart, Journal, manager::Manager},
    watch::{Backoff, Bell, Changes},
};

/// Devices that are closed ahead of the look.
mod ahead;
/// Floating IPs in a pass.
pub(crate) mod floating;
/// One pass over everything.
pub(crate) mod pass;
/// Which ports stay, come and go.
mod ports;
/// Who may send to whom past the bridge, in a pass.
mod straight;

/// How long to wait for more after something has changed.
const SETTLE: Duration = Duration::from_millis(20);
/// The shortest time between the end of a look at routers and the next one, where only routers have changed.
const REST: Duration = Duration::from_millis(500);

/// What somebody asks the loop to do.
#[derive(Debug)]
pub(crate) struct Order {
    /// What.
    pub(crate) change: Change,
    /// Where to say what became of it.
    pub(crate) answer: oneshot::Sender<Outcome>,
}

/// A change of what the API was told.
#[derive(Debug)]
pub(crate) enum Change {
    /// Set an object.
    Put(Kind, String, Value),
    /// Remove an object.
    Remove(Kind, String),
    /// Replace everything.
    Replace(State),
    /// Have floating IPs begin flows the slow way, or not any longer.
    Way(Target, bool),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(kind, id, _) => write!(f, "put {} {id}", kind.words()),
            Self::Remove(kind, id) => write!(f, "delete {} {id}", kind.words()),
            Self::Replace(_) => f.write_str("put policy"),
            Self::Way(Target::All, _) => f.write_str("put way of all floating IPs"),
            Self::Way(Target::One(address), _) => write!(f, "put way of floating IP {address}"),
        }
    }
}

/// What became of an order.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The maps hold it.
    InForce,
    /// It is taken and kept, and not in force; why.
    Held(String),
    /// There is no such object.
    NotThere,
    /// The object is one of a policy file.
    OfFiles,
    /// It contradicts something else; what.
    Contradicts(String),
    /// The port is there because of a container's label.
    OfLabel,
    /// Nothing has changed.
    Refused(Refused),
}

/// What the loop lets others see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// How the agent is.
    pub(crate) status: Status,
    /// The policy that is asked for; none while it is not known.
    pub(crate) policy: Option<Arc<Policy>>,
    /// What the API was told.
    pub(crate) api: Arc<State>,
    /// Addresses of ports whose own are not given.
    pub(crate) found: Arc<BTreeMap<PortId, BTreeSet<IpAddr>>>,
    /// Ports of this host that no document has, as those of labelled containers.
    pub(crate) made: Arc<BTreeMap<PortId, Port>>,
    /// Places of ports by device.
    pub(crate) places: Places,
    /// Whether all floating IPs were told to be slow, and which ones were.
    pub(crate) slow: (bool, BTreeSet<Ipv4Addr>),
}

impl Published {
    /// Says of events whose they are.
    pub(crate) fn name(&self, events: &mut [Event]) {
        let ports: BTreeMap<_, _> = self.status.ports.iter().map(|port| (port.id.as_str(), port)).collect();
        for event in events {
            if let Event::Verdict(verdict) = event
                && let Some(port) = ports.get(verdict.port_id.as_str())
            {
                verdict.instance.clone_from(&port.instance);
                verdict.device = Some(port.device.clone());
            }
        }
    }
}

/// Where the loop gets its work from.
pub(crate) struct Inlets {
    /// Rung by watchers.
    pub(crate) bell: Arc<Bell>,
    /// Names of router namespaces that have come.
    pub(crate) newcomers: mpsc::UnboundedReceiver<String>,
    /// Orders of the API.
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Becomes true when the agent shall end.
    pub(crate) stop: watch::Receiver<bool>,
}

/// How the loop goes about its work.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Where and how long to look.
    pub(crate) look: discover::Options,
    /// The longest time between two looks.
    pub(crate) full_pass: Duration,
}

/// The loop.
pub(crate) struct Reconcile {
    store: Store,
    pass: Pass,
    pace: Pace,
    journal: Journal,
    manager: Arc<Manager>,
    heart: Arc<Heart>,
    published: watch::Sender<Arc<Published>>,
    /// The host as it was seen last.
    seen: Option<Snapshot>,
    /// When the look that saw it began.
    looked: Instant,
    /// A look under way, and whether something has changed since it began.
    looking: Option<(JoinHandle<Snapshot>, bool)>,
    /// When it began.
    looking_since: Instant,
    /// Routers as they were seen last.
    routers: Option<(Snapshot, Instant)>,
    /// The same for a look at routers.
    looking_at_routers: Option<(JoinHandle<Snapshot>, bool)>,
    /// When that began, or the last one.
    looking_at_routers_since: Instant,
    /// When to look at routers.
    routers_due: Option<Instant>,
    /// When the last look at routers ended.
    routers_seen: Option<Instant>,
    /// When to look, or to try again, at the latest.
    due: Instant,
    /// When to remove flows that are over.
    sweep_due: Instant,
    backoff: Backoff,
    /// What was last said of problems and mistakes, so that it is said once.
    said: Vec<String>,
    ready: bool,
}

/// Whom the loop tells how it is.
pub(crate) struct Outlets {
    /// For the operator's log.
    pub(crate) journal: Journal,
    /// The service manager.
    pub(crate) manager: Arc<Manager>,
    /// Beats as long as the loop goes round.
    pub(crate) heart: Arc<Heart>,
    /// For the API.
    pub(crate) published: watch::Sender<Arc<Published>>,
}

impl Reconcile {
    /// A loop that has done nothing yet.
    pub(crate) fn new(store: Store, pass: Pass, pace: Pace, outlets: Outlets) -> Self {
        let Outlets { journal, manager, heart, published } = outlets;
        Self {
            store,
            pass,
            pace,
            journal,
            manager,
            heart,
            published,
            seen: None,
            looked: Instant::now(),
            looking: None,
            looking_since: Instant::now(),
            routers: None,
            looking_at_routers: None,
            looking_at_routers_since: Instant::now(),
            routers_due: None,
            routers_seen: None,
            due: Instant::now(),
            sweep_due: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            said: Vec::new(),
            ready: false,
        }
    }

    /// Goes round until it is told to stop.
    pub(crate) async fn run(mut self, mut inlets: Inlets) {
        self.look();
        loop {
            self.publish();
            self.heart.beat();
            tokio::select! {
                biased;
                () = async { drop(inlets.stop.wait_for(|stop| *stop).await) } => return,
                Some(router) = inlets.newcomers.recv() => self.welcome(&router),
                order = inlets.orders.recv(), if self.seen.is_some() => match order {
                    Some(order) => self.order(order),
                    None => return,
                },
                seen = looked(&mut self.looking) => self.seen(seen),
                seen = looked(&mut self.looking_at_routers) => self.routers_seen(seen),
                () = inlets.bell.heard() => {
                    self.close_ahead(inlets.bell.so_far());
                    self.settle(&mut inlets.newcomers).await;
                    let changes = inlets.bell.take();
                    self.close_ahead(changes);
                    self.changed(changes);
                }
                () = sleep_until(self.due) => self.changed(Changes::EVERYTHING),
                () = sleep_until(self.sweep_due) => self.sweep(),
                () = sleep_or_never(self.routers_due) => self.look_at_routers(),
            }
        }
    }

    /// Waits for more to change.
    async fn settle(&mut self, newcomers: &mut mpsc::UnboundedReceiver<String>) {
        let until = Instant::now() + SETTLE;
        while let Ok(Some(router)) = timeout_at(until, newcomers.recv()).await {
            self.welcome(&router);
        }
        sleep_until(until).await;
    }

    /// Takes notice of a router's namespace that has come.
    fn welcome(&mut self, router: &str) {
        let pass = &mut self.pass;
        tokio::task::block_in_place(|| pass.welcome(router));
    }

    /// Tidies up; and the heart beats however little else there is to do.
    fn sweep(&mut self) {
        tokio::task::block_in_place(|| self.pass.sweep());
        self.sweep_due = Instant::now() + Heart::LONGEST_PAUSE;
    }

    /// Carries out an order, and answers it when the maps hold it.
    fn order(&mut self, Order { change, answer }: Order) {
        let outcome = self.carry_out(change);
        self.publish();
        // Whoever gave the order may have gone; it is carried out all the same.
        drop(answer.send(outcome));
    }

    fn carry_out(&mut self, change: Change) -> Outcome {
        if let Change::Remove(kind, id) = &change
            && self.store.api().get(*kind, id).is_none()
        {
            let labelled = *kind == Kind::Ports && self.pass.made().keys().any(|port| port.0 == *id);
            return match self.store.is_of_files(*kind, id) {
                true => Outcome::OfFiles,
                false if labelled => Outcome::OfLabel,
                false => Outcome::NotThere,
            };
        }
        let put = match &change {
            Change::Put(kind, id, _) => Some((*kind, id.clone())),
            Change::Remove(..) | Change::Replace(_) | Change::Way(..) => None,
        };
        let changed = match change {
            Change::Put(kind, id, object) => self.store.change(|state| state.put(kind, id, object)),
            Change::Remove(kind, id) => self.store.change(|state| state.remove(kind, &id)),
            Change::Replace(with) => self.store.change(|state| state.replace(with)),
            Change::Way(target, slow) => return self.order_way(target, slow),
        };
        match changed {
            Err(refused) => Outcome::Refused(refused),
            Ok(false) if self.pass.is_converged() => self.in_force(put),
            Ok(_) => match self.reconcile() {
                Ok(()) => self.in_force(put),
                Err(why) => Outcome::Held(why),
            },
        }
    }

    /// What became of an object that the maps should hold now.
    fn in_force(&self, put: Option<(Kind, String)>) -> Outcome {
        let refusal = match put {
            Some((Kind::Ports, id)) => self.pass.refusal(&id).map(str::to_owned),
            Some((Kind::Floatingips, id)) => self.floating_refusal(&id),
            Some((Kind::SecurityGroups | Kind::AddressGroups | Kind::Members, _)) | None => None,
        };
        refusal.map_or(Outcome::InForce, Outcome::Held)
    }

    /// Why a floating IP of the policy is not served, where it is not.
    fn floating_refusal(&self, id: &str) -> Option<String> {
        let policy = self.store.policy()?;
        let (_, asked) = policy.floating_ips.iter().find(|(known, _)| known.0 == id)?;
        let own = |planned: &&FloatingIp| planned.floating_ip_address == asked.floating_ip_address;
        let mut planned = self.pass.floats().plan().floating_ips.iter().filter(own);
        let planned = planned.find(|planned| planned.owner == Owner::Netdiag);
        match planned.map(|planned| &planned.way) {
            Some(Way::Fast(_) | Way::Slow { .. }) => None,
            Some(Way::Broken { why }) => Some(why.clone()),
            None => Some("the routers of this host have not been looked at since".to_owned()),
        }
    }

    fn order_way(&mut self, target: Target, slow: bool) -> Outcome {
        let all = self.pass.floats().orders().all();
        if all && !slow && target != Target::All {
            return Outcome::Contradicts(
                "all floating IPs were told to be slow: tell all of them to be fast".to_owned(),
            );
        }
        match self.pass.floats_mut().order(target, slow) {
            Err(error) => Outcome::Refused(Refused::NotKept(error)),
            Ok(_) => match self.float() {
                Ok(()) => Outcome::InForce,
                Err(why) => Outcome::Held(why),
            },
        }
    }

    /// Something has changed.
    fn changed(&mut self, changes: Changes) {
        self.due = Instant::now() + self.pace.full_pass;
        if changes.has(Changes::FILES.and(Changes::EVERYTHING)) {
            let differs = self.store.reload();
            if differs && self.seen.is_some() {
                // The error is among the problems that are published, and the pass is due again.
                drop(self.reconcile());
            }
            if self.ready && changes.has(Changes::RELOAD) {
                self.manager.ready(&self.summary());
            }
        }
        if changes.has(Changes::OF_PORTS) {
            self.look();
        } else if changes.has(Changes::ROUTERS) {
            let rested = self.routers_seen.map_or_else(Instant::now, |seen| seen + REST);
            self.routers_due = Some(self.routers_due.map_or(rested, |due| due.min(rested)));
        }
    }

    /// Closes new devices that ports mean by their names, as a look takes its time. Before the first look there is nothing that
    /// tells new ones from those that worked all the time.
    fn close_ahead(&mut self, changes: Changes) {
        if let (true, Some(policy), Some(_)) = (changes.has(Changes::LINKS), self.store.policy(), &self.seen) {
            let (pass, policy) = (&mut self.pass, Arc::clone(policy));
            tokio::task::block_in_place(|| pass.close_ahead(&policy));
        }
    }

    /// Begins to look at the host, or to look once more after the look that is under way.
    fn look(&mut self) {
        if let Some((_, again)) = &mut self.looking {
            *again = true;
        } else {
            self.looking_since = Instant::now();
            self.looking = Some((spawn(self.pace.look.clone(), discover::look_for_ports), false));
        }
    }

    /// The same for routers, where somebody wants to know.
    fn look_at_routers(&mut self) {
        self.routers_due = None;
        if !self.pass.floats().is_wanted(self.store.policy().map(Arc::as_ref)) {
            self.routers = None;
            return;
        }
        if let Some((_, again)) = &mut self.looking_at_routers {
            *again = true;
        } else {
            self.looking_at_routers_since = Instant::now();
            self.looking_at_routers = Some((spawn(self.pace.look.clone(), discover::look_for_routers), false));
        }
    }

    /// A look at routers has ended.
    fn routers_seen(&mut self, seen: Option<Snapshot>) {
        let again = self.looking_at_routers.take().is_some_and(|(_, again)| again);
        self.routers_seen = Some(Instant::now());
        if let Some(seen) = seen {
            self.routers = Some((seen, self.looking_at_routers_since));
            // The error is among the problems that are published, and the pass is due again.
            drop(self.float());
        }
        if again {
            self.look_at_routers();
        }
    }

    /// Floating IPs with what is known now.
    fn float(&mut self) -> Result<(), String> {
        let (pass, routers) = (&mut self.pass, self.routers.as_ref().map(|(seen, looked)| (seen, *looked)));
        let result = tokio::task::block_in_place(|| pass.float(routers));
        if result.is_err() {
            self.due = self.due.min(Instant::now() + self.backoff.pause());
        }
        result
    }

    /// A look has ended.
    fn seen(&mut self, seen: Option<Snapshot>) {
        let again = self.looking.take().is_some_and(|(_, again)| again);
        if let Some(seen) = seen {
            (self.seen, self.looked) = (Some(seen), self.looking_since);
            // As above.
            drop(self.reconcile());
            if !self.ready {
                // Also where it failed: what was loaded before is enforced, and the API says what is wrong.
                self.ready = true;
                self.publish();
                self.manager.ready(&self.summary());
            }
            self.look_at_routers();
        }
        if again {
            self.look();
        }
    }

    /// One pass with what is known now.
    fn reconcile(&mut self) -> Result<(), String> {
        let Some(seen) = &self.seen else {
            return Err("the host has not been looked at yet".to_owned());
        };
        let Some(policy) = self.store.policy() else {
            return Err("the policy is not known: its files have mistakes".to_owned());
        };
        let (pass, policy, looked) = (&mut self.pass, Arc::clone(policy), self.looked);
        // System calls on thousands of map elements: the other tasks of this thread go on elsewhere.
        let routers = self.routers.as_ref().map(|(seen, looked)| (seen, *looked));
        let result = tokio::task::block_in_place(|| pass.run(&policy, (seen, looked), routers));
        match &result {
            Ok(()) => self.backoff.reset(),
            Err(_) => self.due = self.due.min(Instant::now() + self.backoff.pause()),
        }
        result
    }

    fn summary(&self) -> String {
        let Status { ports, refused, mistakes, .. } = self.published.borrow().status.clone();
        format!("{} ports enforced, {} refused, {} mistakes in the policy", ports.len(), refused.len(), mistakes.len())
    }

    /// Lets others see how things are, and says what is new about them.
    fn publish(&mut self) {
        let policy = self.store.policy().cloned();
        let mut status = self.pass.status();
        status.files = self.store.files().map(str::to_owned).collect();
        status.mistakes = self.store.mistakes().to_vec();
        let mistakes = status.mistakes.iter().map(ToString::to_string);
        let said: Vec<String> = mistakes.chain(status.agent.problems.iter().cloned()).collect();
        for line in said.iter().filter(|line| !self.said.contains(line)) {
            self.journal.say(line);
        }
        if said.is_empty() && !self.said.is_empty() {
            self.journal.say("all is well again");
        }
        self.said = said;
        let (found, made) = (Arc::clone(self.pass.found()), Arc::clone(self.pass.made()));
        let api = Arc::clone(self.store.api());
        let (places, slow) = (self.pass.places(), self.pass.floats().orders().given());
        self.published.send_replace(Arc::new(Published { status, policy, api, found, made, places, slow }));
        if self.ready {
            self.manager.status(&self.summary());
        }
    }
}

/// Looks on a thread that may block: sources read files of the kernel's, which may take their time.
fn spawn<L: Future<Output = Snapshot>>(
    options: discover::Options,
    look: impl FnOnce(discover::Options) -> L + Send + 'static,
) -> JoinHandle<Snapshot> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(look(options)))
}

async fn sleep_or_never(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Waits for a look that is under way; none if it could not be finished.
async fn looked(looking: &mut Option<(JoinHandle<Snapshot>, bool)>) -> Option<Snapshot> {
    match looking {
        Some((look, _)) => look.await.ok(),
        None => std::future::pending().await,
    }
}
