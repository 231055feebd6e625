//! The life of the agent. Flow: policy.
//!
//! ```text
//! refused <-- check host, lock, load --> looking -- first pass --> ready -- SIGHUP --> reads files anew
//!                                                                    |
//!                                                                    +-- SIGTERM --> stopped, and everything goes on being enforced
//! ```

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use netdiag_model::status::Passes;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use self::manager::Manager;
use crate::{
    api::{self, Api},
    discover,
    enforce::{self, Enforcer, LoadError, RootError},
    events::EventLog,
    metrics,
    policy_source::{Places, Store},
    reconcile::{Inlets, Outlets, Pace, Published, Reconcile, floating::Treatment, pass::Pass},
    watch::{self as watchers, Bell, Changes},
};

/// What the service manager is told, and asks.
pub(crate) mod manager;

/// How long events wait for the names that the first pass finds.
const FIRST_PASS: Duration = Duration::from_secs(10);
/// Orders of the API that wait for the loop.
const ORDERS: usize = 64;

/// How the agent is to live.
#[derive(Clone, Debug)]
pub struct Config {
    /// Policy files, and the agent's own.
    pub places: Places,
    /// The API's socket.
    pub socket: PathBuf,
    /// Group that may use it, beside the agent's own user.
    pub group: Option<u32>,
    /// How to enforce.
    pub enforce: enforce::Options,
    /// Where to serve metrics.
    pub metrics: Option<SocketAddr>,
    /// Lead floating IPs of others past their routers.
    pub accelerate: bool,
    /// Let instances of one network and host send to each other past the bridge.
    pub straight: bool,
    /// The longest time between two looks at the host.
    pub full_pass: Duration,
    /// Where to look.
    pub look: discover::Options,
    /// Where to say what an operator should know.
    pub journal: Journal,
}

/// Where to say what an operator should know, line by line.
#[derive(Clone)]
pub struct Journal(Arc<dyn Fn(&str) + Send + Sync>);

impl Journal {
    /// Every line goes there.
    pub fn new(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(say))
    }

    pub(crate) fn say(&self, line: &str) {
        (self.0)(line);
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

/// Why the agent does not live.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The host cannot do it, or another agent does it already.
    #[error("enforce on this host")]
    Load(#[from] LoadError),
    /// What is pinned cannot be read.
    #[error("read what is enforced")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A directory, a socket or a signal could not be had.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ServiceError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// True where another agent is at work.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Load(LoadError::Root(RootError::Locked { .. })))
    }

    /// True where a privilege or a kernel feature is missing, rather than something gone wrong.
    pub fn is_inability(&self) -> bool {
        matches!(self, Self::Load(error) if !matches!(error, LoadError::Root(RootError::Locked { .. }) | LoadError::Differs { .. }))
    }
}

/// Beats as long as the loop goes round.
#[derive(Debug)]
pub(crate) struct Heart {
    born: Instant,
    /// Milliseconds from birth to the last beat.
    last: AtomicU64,
}

impl Heart {
    /// The longest a loop that lives goes without a beat, a pass aside.
    pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

    fn new() -> Self {
        Self { born: Instant::now(), last: AtomicU64::new(0) }
    }

    /// The loop has gone round.
    pub(crate) fn beat(&self) {
        self.last.store(self.age(), Ordering::Relaxed);
    }

    /// Whether it has beaten within a time.
    fn beats(&self, within: Duration) -> bool {
        let silent = self.age().saturating_sub(self.last.load(Ordering::Relaxed));
        u128::from(silent) <= within.as_millis()
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Enforces until it is told to stop. What is loaded goes on to be enforced afterwards.
///
/// # Errors
/// The host cannot do it, another agent runs, or the socket cannot be made. Nothing has changed then.
pub async fn run(config: Config) -> Result<(), ServiceError> {
    let mut signals = Signals::listen()?;
    prepare(&config)?;
    let enforcer = Enforcer::load(config.enforce.clone())?;
    let listener = api::socket::listen(&config.socket, config.group)
        .map_err(ServiceError::io(format!("listen at {}", config.socket.display())))?;
    let metrics = match config.metrics {
        Some(address) => {
            let listener = metrics::listen(address).await;
            Some(listener.map_err(ServiceError::io(format!("serve metrics at {address}")))?)
        }
        None => None,
    };
    let ring = enforcer.events().map_err(|error| ServiceError::Read(error.into()))?;
    let begin = ring.position().map_err(|error| ServiceError::Read(error.into()))?;
    let events = Arc::new(EventLog::default().beginning(begin));
    let treatment = Treatment {
        accelerate: config.accelerate,
        straight: config.straight,
        state: config.places.state.clone(),
        netns: config.look.netns_dirs.clone(),
    };
    let pass = Pass::new(enforcer, treatment).map_err(ServiceError::Read)?;
    let store = Store::open(config.places.clone());

    let (orders, inbox) = mpsc::channel(ORDERS);
    let (published, view) = watch::channel(Arc::new(Published::default()));
    let (stop, stopped) = watch::channel(false);
    let (bell, heart, manager) =
        (Arc::new(Bell::default()), Arc::new(Heart::new()), Arc::new(Manager::of_environment()));
    let api = Api { orders, published: view, events: Arc::clone(&events), root: config.enforce.root.clone() };

    let mut tasks = JoinSet::new();
    let newcomers = watch_all(&config, &bell, &mut tasks);
    tasks.spawn(hand_on(ring, events, api.published.clone(), config.journal.clone()));
    if let Some(listener) = metrics {
        tasks.spawn(metrics::serve(listener, api.clone()));
    }
    tasks.spawn(api::serve(listener, api::router(api)));
    tasks.spawn(keep_alive(Arc::clone(&heart), Arc::clone(&manager)));
    let pace = Pace { look: config.look.clone(), full_pass: config.full_pass };
    let outlets = Outlets { journal: config.journal.clone(), manager: Arc::clone(&manager), heart, published };
    let reconcile = Reconcile::new(store, pass, pace, outlets);
    let inlets = Inlets { bell: Arc::clone(&bell), newcomers, orders: inbox, stop: stopped };
    let mut reconcile = tokio::spawn(reconcile.run(inlets));

    let ended = until_told(&mut signals, &manager, &bell, &mut reconcile).await;
    manager.stopping();
    // A pass that has begun is finished, so that nobody meets half of it.
    stop.send_replace(true);
    let result = match ended {
        Ok(()) => reconcile.await.map_err(io::Error::other),
        Err(why) => Err(why.map_or_else(|| io::Error::other("it returned"), io::Error::other)),
    };
    tasks.shutdown().await;
    // The next agent makes its own; until then nobody shall wait for an answer here.
    drop(std::fs::remove_file(&config.socket));
    result.map_err(ServiceError::io("reconcile"))
}

/// Waits for a signal that ends the agent; the loop going round meanwhile is what it is there for. An error: it has ended by
/// itself, and why, if it said so.
async fn until_told<T>(
    signals: &mut Signals,
    manager: &Manager,
    bell: &Bell,
    reconcile: &mut tokio::task::JoinHandle<T>,
) -> Result<(), Option<tokio::task::JoinError>> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.hangup.recv() => {
                manager.reloading();
                bell.ring(Changes::EVERYTHING.and(Changes::RELOAD));
            }
            // It goes round until it is told to stop.
            ended = &mut *reconcile => return Err(ended.err()),
        }
    }
}

/// Hands on what comes out of the ring buffer, with names. What cannot be read is said once, until it can be again.
async fn hand_on(
    ring: enforce::Events,
    log: Arc<EventLog>,
    mut published: watch::Receiver<Arc<Published>>,
    journal: Journal,
) {
    // The first pass finds the names. What comes meanwhile, and came while there was no agent, waits in the ring.
    let first = published.wait_for(|published| published.status.passes != Passes::default());
    drop(timeout(FIRST_PASS, first).await);
    let mut failing = false;
    ring.run(|read| match read {
        Ok(mut events) => {
            failing = false;
            published.borrow().name(&mut events);
            log.push(events);
        }
        Err(error) => {
            if !std::mem::replace(&mut failing, true) {
                journal.say(&format!("read events: {}", discover::chain(&error)));
            }
        }
    })
    .await;
}

/// Makes the agent's own directories.
fn prepare(config: &Config) -> Result<(), ServiceError> {
    let mut directories = vec![config.places.state.as_path()];
    directories.extend(config.socket.parent());
    for directory in directories {
        std::fs::create_dir_all(directory)
            .map_err(ServiceError::io(format!("make directory {}", directory.display())))?;
    }
    Ok(())
}

/// Watches everything; gives the names of router namespaces as they come.
fn watch_all(config: &Config, bell: &Arc<Bell>, tasks: &mut JoinSet<()>) -> mpsc::UnboundedReceiver<String> {
    let (come, newcomers) = mpsc::unbounded_channel();
    tasks.spawn(watchers::files::watch(config.places.files.clone(), Arc::clone(bell)));
    tasks.spawn(watchers::netlink::watch(Arc::clone(bell)));
    tasks.spawn(watchers::ovsdb::watch(config.look.ovsdb_socket.clone(), Arc::clone(bell)));
    tasks.spawn(watchers::routers::watch(config.look.netns_dirs.clone(), Arc::clone(bell), come));
    tasks.spawn(watchers::docker::watch(config.look.docker_socket.clone(), Arc::clone(bell)));
    newcomers
}

/// Tells the service manager that the agent lives, as long as the loop goes round. A loop that hangs is for the service
/// manager to end: what is loaded goes on to be enforced, and the next agent converges.
async fn keep_alive(heart: Arc<Heart>, manager: Arc<Manager>) {
    let Some(period) = manager::watchdog() else { return };
    let mut ticks = tokio::time::interval(period / 3);
    loop {
        ticks.tick().await;
        if heart.beats(period) {
            manager.alive();
        }
    }
}

/// Signals the agent answers to.
struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, ServiceError> {
        let listen = |kind| signal(kind).map_err(ServiceError::io("listen to signals"));
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }
}
