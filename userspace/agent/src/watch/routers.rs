//! Router namespaces: who comes and goes, and what changes inside. Flow: policy.
//!
//! Each namespace has two sockets: rtnetlink, for links, addresses, routes, rules, neighbours, queueing disciplines and forwarding, and nfnetlink, for rule sets of
//! nftables, iptables-nft's among them. Legacy iptables says nothing when its rules change: those are read now and then. A
//! socket keeps its namespace alive, so the sockets of one whose name goes are closed at once.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink,
        netlink::SocketAddrNetlink, recv, send, socket_with,
    },
};
use tokio::{
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{Bell, Changes, source::Source};
use crate::{
    discover::{netfilter::Legacy, routers},
    netns::Namespace,
};

/// What neighbours there are.
mod neighbours;

use neighbours::Neighbours;

/// `RTMGRP_LINK`, `_NEIGH`, `_TC`, `_IPV4_IFADDR`, `_IPV4_ROUTE` and `_IPV4_RULE` of `linux/rtnetlink.h`, and
/// `RTNLGRP_IPV4_NETCONF` as a bit: whether it forwards, and answers ARP for others.
const ROUTE_GROUPS: u32 = 0x1 | 0x4 | 0x8 | 0x10 | 0x40 | 0x80 | 1 << 23;
/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`, as a bit.
const NFTABLES_GROUPS: u32 = 1 << 6;
/// How often names are looked at, whatever inotify says: a name is there before its namespace is.
const NAMES: Duration = Duration::from_secs(1);
/// How often legacy rules are read.
const RULES: Duration = Duration::from_secs(3);
/// How long reading the legacy rules of one namespace may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before sockets are opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// Room for a datagram: netlink fills a page, and then the next.
const BUFFER: usize = 32 << 10;

/// A router namespace that is watched: by device and inode, as a name may come to lead to another one.
#[derive(Debug)]
struct Watched {
    identity: (u64, u64),
    path: PathBuf,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Rings whenever something changes in the host's namespace or in a router's; never ends.
pub(crate) async fn watch(directories: Vec<PathBuf>, bell: Arc<Bell>) {
    let _host = watch_one(Path::new("/proc/self/ns/net").to_owned(), (0, 0), &bell);
    let mut names = Names::open(directories);
    let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
    let mut legacy = Rules { tools: Legacy::find().await, texts: BTreeMap::new(), due: Instant::now() };
    loop {
        names.changed().await;
        let (names, before) = (names.list(), watched.len());
        watched.retain(|name, one| names.get(name).is_some_and(|(identity, _)| *identity == one.identity));
        let mut changed = watched.len() != before;
        for (name, (identity, path)) in names {
            watched.entry(name).or_insert_with(|| {
                changed = true;
                watch_one(path, identity, &bell)
            });
        }
        changed |= legacy.have_changed(&watched).await;
        if changed {
            bell.ring(Changes::ROUTERS);
        }
    }
}

fn watch_one(path: PathBuf, identity: (u64, u64), bell: &Arc<Bell>) -> Watched {
    let (inside, bell) = (path.clone(), Arc::clone(bell));
    let task = tokio::spawn(async move {
        loop {
            // A namespace that cannot be entered now is one that is not there yet, or no longer.
            drop(ring(&inside, &bell).await);
            sleep(PAUSE).await;
        }
    });
    Watched { identity, path, task: task.abort_handle() }
}

// === names ===

/// Directories with names of namespaces.
struct Names {
    directories: Vec<PathBuf>,
    inotify: Option<Source>,
    ticks: tokio::time::Interval,
}

impl Names {
    fn open(directories: Vec<PathBuf>) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        let mut ticks = interval(NAMES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { directories, inotify: inotify.and_then(|inotify| Source::new(inotify).ok()), ticks }
    }

    /// Waits until a name has come or gone, or it is time to look.
    async fn changed(&mut self) {
        let Some(inotify) = &self.inotify else {
            self.ticks.tick().await;
            return;
        };
        for directory in &self.directories {
            let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
            // One that is not there yet is tried again.
            let _watched = inotify.with(|inotify| inotify::add_watch(inotify, directory, flags));
        }
        let mut buffer = [0; 4096];
        tokio::select! {
            _ = self.ticks.tick() => {}
            read = inotify.read(|inotify| rustix::io::read(inotify, &mut buffer).map(drop)) => drop(read),
        }
    }

    /// Router namespaces by name, with device and inode.
    fn list(&self) -> BTreeMap<String, ((u64, u64), PathBuf)> {
        let names = routers::list(&self.directories).into_iter();
        names
            .filter_map(|(name, path)| {
                let data = fs::metadata(&path).ok()?;
                Some((name, ((data.dev(), data.ino()), path)))
            })
            .collect()
    }
}

// === events ===

/// Sockets inside a namespace.
fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let open = |protocol: Option<Protocol>, groups| -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    };
    // No protocol is protocol 0, which is NETLINK_ROUTE.
    let routes = open(None, ROUTE_GROUPS)?;
    // That one is lost says something only about one that is known.
    send(&routes, &neighbours::ASK, SendFlags::empty())?;
    Ok((routes, open(Some(netlink::NETFILTER), NFTABLES_GROUPS)?))
}

async fn ring(path: &Path, bell: &Bell) -> io::Result<()> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || Namespace::open(&path)).await?;
    let namespace = opened.map_err(io::Error::other)?;
    let (routes, rules) = namespace.run(sockets).await.map_err(io::Error::other)??;
    drop(namespace);
    let (routes, rules) = (Source::new(routes)?, Source::new(rules)?);
    bell.ring(Changes::ROUTERS);
    let mut neighbours = Neighbours::default();
    let (mut of_routes, mut of_rules) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let changed = tokio::select! {
            read = receive(&routes, &mut of_routes) => read?.is_none_or(|length| neighbours.take(&of_routes[..length])),
            read = receive(&rules, &mut of_rules) => read.map(|_| true)?,
        };
        if changed {
            bell.ring(Changes::ROUTERS);
        }
    }
}

/// Length of the next datagram; none where more came than the socket had room for.
async fn receive(socket: &Source, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let read = socket.read(|socket| recv(socket, &mut *buffer, RecvFlags::empty()).map(|(length, _)| length)).await;
    match read {
        Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(None),
        read => read.map(Some),
    }
}

// === legacy rules ===

/// Legacy rules as they were read last, by name of the namespace.
struct Rules {
    tools: Legacy,
    texts: BTreeMap<String, String>,
    due: Instant,
}

impl Rules {
    /// Reads them if it is time to; true where some are others than before.
    async fn have_changed(&mut self, watched: &BTreeMap<String, Watched>) -> bool {
        if Instant::now() < self.due {
            return false;
        }
        self.due = Instant::now() + RULES;
        let mut texts = BTreeMap::new();
        for (name, one) in watched {
            let path = one.path.clone();
            let opened = tokio::task::spawn_blocking(move || Namespace::open(&path)).await;
            let Ok(Ok(namespace)) = opened else { continue };
            // What cannot be read now is taken for unchanged.
            let text = timeout(PATIENCE, self.tools.rules(&namespace)).await.ok().flatten();
            texts.extend(text.or_else(|| self.texts.remove(name)).map(|text| (name.clone(), text)));
        }
        let known = |name: &String| self.texts.contains_key(name);
        let changed = texts.iter().any(|(name, text)| known(name) && self.texts.get(name) != Some(text));
        self.texts = texts;
        changed
    }
}
