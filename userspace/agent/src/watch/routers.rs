//! Router namespaces: who comes and goes, and what changes inside. Flow: policy.
//!
//! Each namespace has two sockets: rtnetlink, for links, addresses, routes, rules, neighbours, queueing disciplines and forwarding, and nfnetlink, for rule sets of
//! nftables, iptables-nft's among them. Legacy iptables says nothing when its rules change: those are read now and then. A
//! socket keeps its namespace alive, so the sockets of one whose name goes are closed at once.
//!
//! A namespace that comes is named as soon as it is there: a router that is made anew must know its flows before their packets
//! come, and a look at everything would be too late.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    os::fd::OwnedFd,
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
    sync::mpsc::UnboundedSender,
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{Backoff, Bell, Changes, source::Source};
use crate::{
    discover::{netfilter::Legacy, routers},
    netns::{Namespace, identity},
};

/// What neighbours there are.
mod neighbours;

use neighbours::Neighbours;

/// `RTMGRP_LINK`, `_NEIGH`, `_TC`, `_IPV4_IFADDR`, `_IPV4_ROUTE` and `_IPV4_RULE` of `linux/rtnetlink.h`, and
/// `RTNLGRP_IPV4_NETCONF` as a bit: whether it forwards, and answers ARP for others.
const ROUTE_GROUPS: u32 = 0x1 | 0x4 | 0x8 | 0x10 | 0x40 | 0x80 | 1 << 23;
/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`, as a bit.
const NFTABLES_GROUPS: u32 = 1 << 6;
/// How often names are looked at, whatever inotify says.
const NAMES: Duration = Duration::from_secs(1);
/// How soon they are looked at again where a name is there and its namespace is not yet, of which inotify says nothing.
const SOON: Duration = Duration::from_millis(1);
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
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Rings whenever something changes in the host's namespace or in a router's, and names routers that come; never ends.
pub(crate) async fn watch(directories: Vec<PathBuf>, bell: Arc<Bell>, come: UnboundedSender<String>) {
    let _host = watch_one(Path::new("/proc/self/ns/net").to_owned(), (0, 0), &bell);
    // Reading legacy rules takes its time, and nobody who comes waits for it.
    tokio::join!(watch_names(Names::open(directories.clone()), &bell, &come), watch_rules(&directories, &bell));
}

async fn watch_names(mut names: Names, bell: &Arc<Bell>, come: &UnboundedSender<String>) {
    let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
    loop {
        let (names, before) = (names.next().await, watched.len());
        watched.retain(|name, one| names.get(name).is_some_and(|(identity, _)| *identity == one.identity));
        let mut changed = watched.len() != before;
        for (name, (identity, path)) in names {
            if let Entry::Vacant(new) = watched.entry(name) {
                // Nobody hears it where the loop has ended, and the agent with it.
                drop(come.send(new.key().clone()));
                new.insert(watch_one(path, identity, bell));
                changed = true;
            }
        }
        if changed {
            bell.ring(Changes::ROUTERS);
        }
    }
}

async fn watch_rules(directories: &[PathBuf], bell: &Bell) {
    let mut legacy = Rules { tools: Legacy::find().await, texts: BTreeMap::new() };
    loop {
        if legacy.have_changed(&routers::list(directories)).await {
            bell.ring(Changes::ROUTERS);
        }
        sleep(RULES).await;
    }
}

fn watch_one(path: PathBuf, identity: (u64, u64), bell: &Arc<Bell>) -> Watched {
    let bell = Arc::clone(bell);
    let task = tokio::spawn(async move {
        loop {
            // A namespace that cannot be entered now is one that is not there yet, or no longer.
            drop(ring(&path, &bell).await);
            sleep(PAUSE).await;
        }
    });
    Watched { identity, task: task.abort_handle() }
}

// === names ===

/// Router namespaces by name, with device and inode.
type Listed = BTreeMap<String, ((u64, u64), PathBuf)>;

/// Directories with names of namespaces.
struct Names {
    directories: Vec<PathBuf>,
    inotify: Option<Source>,
    /// When to look, whatever inotify says.
    due: Instant,
    /// How long to wait for a name's namespace.
    soon: Backoff,
}

impl Names {
    fn open(directories: Vec<PathBuf>) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        let inotify = inotify.and_then(|inotify| Source::new(inotify).ok());
        Self { directories, inotify, due: Instant::now(), soon: Backoff::new(SOON, NAMES) }
    }

    /// The namespaces there are, once a name has come or gone, or it is time to look.
    async fn next(&mut self) -> Listed {
        if self.changed().await {
            self.soon.reset();
        }
        let (listed, all) = self.list();
        self.due = Instant::now() + if all { NAMES } else { self.soon.pause() };
        listed
    }

    /// Waits until it is time to look, or a name has come or gone, which is true.
    async fn changed(&self) -> bool {
        let Some(inotify) = &self.inotify else {
            tokio::time::sleep_until(self.due).await;
            return false;
        };
        for directory in &self.directories {
            let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
            // One that is not there yet is tried again.
            let _watched = inotify.with(|inotify| inotify::add_watch(inotify, directory, flags));
        }
        let mut buffer = [0; 4096];
        let read = inotify.read(|inotify| rustix::io::read(inotify, &mut buffer).map(drop));
        timeout_at(self.due, read).await.is_ok()
    }

    /// Router namespaces, and whether every name has one.
    fn list(&self) -> (Listed, bool) {
        let (mut listed, mut all) = (Listed::new(), true);
        for (name, path) in routers::list(&self.directories) {
            match identity(&path) {
                Ok(Some(identity)) => {
                    listed.insert(name, (identity, path));
                }
                Ok(None) | Err(_) => all = false,
            }
        }
        (listed, all)
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
}

impl Rules {
    /// Reads them; true where some are others than before.
    async fn have_changed(&mut self, routers: &[(String, PathBuf)]) -> bool {
        let mut texts = BTreeMap::new();
        for (name, path) in routers {
            let path = path.clone();
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Instant};

    use tokio::time::timeout;

    use super::{NAMES, Names};

    /// How often it is tried: a busy machine makes everything late, and what waits for the next look at all names is so every time.
    const TRIES: u32 = 10;

    #[tokio::test]
    async fn a_namespace_that_comes_after_its_name_is_seen_at_once_though_nothing_says_so() {
        for _ in 0..TRIES {
            if is_seen_at_once().await {
                return;
            }
        }
        panic!("it is seen when all names are looked at");
    }

    async fn is_seen_at_once() -> bool {
        let (directory, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (name, target) = (directory.path().join("qrouter-1"), beside.path().join("target"));
        let mut names = Names::open(vec![directory.path().to_owned()]);
        assert!(names.next().await.is_empty());
        fs::write(&target, "").unwrap();
        symlink(&target, &name).unwrap();
        let Ok(early) = timeout(NAMES / 2, names.next()).await else { return false };
        assert!(early.is_empty(), "a file is no namespace: {early:?}");
        fs::remove_file(&target).unwrap();
        symlink("/proc/self/ns/net", &target).unwrap();
        let started = Instant::now();
        while names.next().await.is_empty() {}
        started.elapsed() < NAMES / 2
    }
}
