//! Runs all sources at once and merges what they saw into a snapshot. Flow: discover.
//!
//! The policy for failure is the same for every source: it degrades. What a source cannot read becomes a gap in its
//! report; a source that hangs is cut off after its timeout and becomes one gap; none can fail the whole.

use std::{
    error::Error,
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use netdiag_model::{
    fact::{Facts, Gap, SourceKind, SourceReport},
    snapshot::Snapshot,
};

use crate::{enforce::ROOT, netns::Namespace, stream::AGENT_SOCKET};

/// TC, TCX and XDP programs.
mod bpf;
/// An error in one line.
mod cause;
/// Docker by its API.
mod docker;
/// netdiag's own maps.
pub(crate) mod enforcement;
/// iptables and nft rules.
pub(crate) mod netfilter;
/// Links, addresses, neighbours, routes, rules, FDB and VLANs.
pub(crate) mod netlink;
/// Namespaces.
mod netns;
/// Open vSwitch by OVSDB.
mod ovsdb;
/// Containers and virtual machines by `/proc`.
mod process;
pub(crate) use docker::found_socket as docker_socket;

/// Bounded reads of `/proc`.
mod procfs;
/// Which namespaces route for others.
pub(crate) mod routers;
/// Sysctls that decide forwarding.
mod sysctl;

/// Where to look, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most any one source may take.
    pub timeout: Duration,
    /// Docker's socket.
    pub docker_socket: PathBuf,
    /// OVSDB server: a path of a unix socket.
    pub ovsdb_socket: PathBuf,
    /// Directories with named namespaces.
    pub netns_dirs: Vec<PathBuf>,
    /// Where the host's processes are seen.
    pub proc_dir: PathBuf,
    /// Where netdiag pins its maps.
    pub pin_dir: PathBuf,
    /// Where the agent is asked.
    pub agent_socket: PathBuf,
    /// List tracked flows one by one; there may be some hundred thousand.
    pub flows: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // Long enough for 200 namespaces on a busy host, short enough for an operator who waits.
            timeout: Duration::from_secs(10),
            docker_socket: "/run/docker.sock".into(),
            ovsdb_socket: "/run/openvswitch/db.sock".into(),
            netns_dirs: vec!["/run/netns".into(), "/run/docker/netns".into()],
            proc_dir: "/proc".into(),
            pin_dir: ROOT.into(),
            agent_socket: AGENT_SOCKET.into(),
            flows: false,
        }
    }
}

/// What a source is given: the options, and the namespaces held open for it.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// Where to look.
    pub(crate) options: Options,
    /// Every namespace found, the host's first.
    pub(crate) namespaces: Arc<[Namespace]>,
    /// When a source that reads many things has to come back with those it has: a little before it is cut off.
    pub(crate) deadline: tokio::time::Instant,
}

impl Scope {
    /// A look that starts now. The deadline leaves a source time to say what it did not get to.
    pub(crate) fn new(options: Options, namespaces: Vec<Namespace>) -> Self {
        let deadline = tokio::time::Instant::now() + options.timeout.mul_f32(0.9);
        Self { options, namespaces: namespaces.into(), deadline }
    }

    /// The same look at some namespaces.
    fn of(&self, wanted: impl Fn(&Namespace) -> bool) -> Self {
        let namespaces = self.namespaces.iter().filter(|namespace| wanted(namespace)).cloned().collect();
        Self { namespaces, ..self.clone() }
    }
}

/// Opens every namespace of this host, and tells nothing of it.
pub(crate) async fn namespaces(options: &Options) -> Vec<Namespace> {
    netns::read(options).await.0
}

/// Looks at the host once.
pub async fn look(options: Options) -> Snapshot {
    let timeout = options.timeout;
    let (namespaces, mut facts) = netns::read(&options).await;
    let scope = Scope::new(options, namespaces);
    // Those that speak HTTP hold much while they wait, and whoever looks would carry it along.
    let (netlink, sysctl, bpf, netfilter, ovsdb, docker, process, enforcement) = tokio::join!(
        bounded(SourceKind::Netlink, timeout, netlink::read(&scope)),
        bounded(SourceKind::Sysctl, timeout, sysctl::read(&scope)),
        bounded(SourceKind::Bpf, timeout, bpf::read(&scope)),
        bounded(SourceKind::Netfilter, timeout, netfilter::read(&scope)),
        bounded(SourceKind::Ovsdb, timeout, ovsdb::read(&scope)),
        bounded(SourceKind::Docker, timeout, Box::pin(docker::read(&scope))),
        bounded(SourceKind::Process, timeout, process::read(&scope)),
        bounded(SourceKind::Enforcement, timeout, Box::pin(enforcement::read(&scope))),
    );
    for read in [netlink, sysctl, bpf, netfilter, ovsdb, docker, process, enforcement] {
        facts.merge(read);
    }
    snapshot(facts)
}

/// Looks at what decides where a port is: namespaces, links, Open vSwitch and instances, and nothing else.
pub async fn look_for_ports(options: Options) -> Snapshot {
    let timeout = options.timeout;
    let (namespaces, mut facts) = netns::read(&options).await;
    let scope = Scope::new(options, namespaces);
    let (netlink, ovsdb, docker, process) = tokio::join!(
        bounded(SourceKind::Netlink, timeout, netlink::read_links(&scope)),
        bounded(SourceKind::Ovsdb, timeout, ovsdb::read(&scope)),
        bounded(SourceKind::Docker, timeout, Box::pin(docker::read(&scope))),
        bounded(SourceKind::Process, timeout, process::read(&scope)),
    );
    for read in [netlink, ovsdb, docker, process] {
        facts.merge(read);
    }
    snapshot(facts)
}

/// Looks at what decides which way floating IPs take: as [`look_for_ports`], and everything that routes and translates in router
/// namespaces and in the host's own. Instances' namespaces, of which there may be hundreds, are not asked for more than
/// their links.
pub async fn look_for_routers(options: Options) -> Snapshot {
    let timeout = options.timeout;
    let (namespaces, mut facts) = netns::read(&options).await;
    let scope = Scope::new(options, namespaces);
    let routers = scope.of(|namespace| namespace.host || routers::is_router(&facts, namespace.id));
    let (netlink, sysctl, bpf, netfilter, ovsdb, docker, process) = tokio::join!(
        bounded(SourceKind::Netlink, timeout, netlink::read_routers(&scope, &routers)),
        bounded(SourceKind::Sysctl, timeout, sysctl::read(&routers)),
        bounded(SourceKind::Bpf, timeout, bpf::read(&routers)),
        bounded(SourceKind::Netfilter, timeout, netfilter::read(&routers)),
        bounded(SourceKind::Ovsdb, timeout, ovsdb::read(&scope)),
        bounded(SourceKind::Docker, timeout, Box::pin(docker::read(&scope))),
        bounded(SourceKind::Process, timeout, process::read(&scope)),
    );
    for read in [netlink, sysctl, bpf, netfilter, ovsdb, docker, process] {
        facts.merge(read);
    }
    snapshot(facts)
}

fn snapshot(facts: Facts) -> Snapshot {
    let uname = rustix::system::uname();
    Snapshot {
        schema_version: Snapshot::VERSION,
        // A clock before 1970 is worth no error: the time is for the reader's orientation only.
        taken_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        netdiag: env!("CARGO_PKG_VERSION").to_owned(),
        facts,
    }
}

/// Runs one source with a bound on its time, and adds how long it took to its report.
fn bounded(source: SourceKind, timeout: Duration, read: impl Future<Output = Facts>) -> impl Future<Output = Facts> {
    // On the heap: together the sources would make a future too large to pass around.
    let (started, read) = (Instant::now(), tokio::time::timeout(timeout, Box::pin(read)));
    async move { timed(source, timeout, started, read.await.ok()) }
}

/// What a source read, if it was not cut off, with how long it took.
fn timed(source: SourceKind, timeout: Duration, started: Instant, read: Option<Facts>) -> Facts {
    let mut facts = read.unwrap_or_else(|| {
        let gap = Gap {
            source,
            netns: None,
            object: source.name().to_owned(),
            why: format!("no answer within {} s", timeout.as_secs()),
            fix: "see whether its daemon hangs, or give it longer with --timeout".to_owned(),
            absent: false,
        };
        report(source, source.name().to_owned(), vec![gap])
    });
    for report in &mut facts.reports {
        report.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    }
    facts
}

/// An error with all its causes, as the `why` of a gap.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// Facts that hold one report and nothing else yet.
pub(crate) fn report(source: SourceKind, how: String, gaps: Vec<Gap>) -> Facts {
    Facts { reports: vec![SourceReport { source, how, took_ms: 0, gaps }], ..Facts::default() }
}
