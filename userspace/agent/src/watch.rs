//! Notices that something has changed. Flow: policy.
//!
//! Nobody here reads what changed: each watcher rings a bell, and whoever hears it looks at everything anew. So an event
//! that is lost, doubled or late costs time and never truth, and a full pass now and then makes up for those no watcher saw.
//!
//! One thing is said by name: a router's namespace that has come, as it counts how soon its flows are told to it. A look tells them, too.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

/// Docker, by its stream of events.
pub(crate) mod docker;
/// A directory of policy files, by inotify.
pub(crate) mod files;
/// Links and addresses of the agent's network namespace, by rtnetlink.
pub(crate) mod netlink;
/// Open vSwitch, by a monitor of its database.
pub(crate) mod ovsdb;
/// Router namespaces: who comes and goes, and what changes inside.
pub(crate) mod routers;
/// A descriptor that can be waited for.
mod source;

/// The longest a watcher waits before it tries again to reach what it watches.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What may have changed: any number of them at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes(u8);

impl Changes {
    /// Policy files.
    pub(crate) const FILES: Self = Self(1);
    /// Links or addresses.
    pub(crate) const LINKS: Self = Self(1 << 1);
    /// Open vSwitch.
    pub(crate) const SWITCH: Self = Self(1 << 2);
    /// Containers.
    pub(crate) const CONTAINERS: Self = Self(1 << 3);
    /// Somebody asked for everything to be looked at.
    pub(crate) const EVERYTHING: Self = Self(1 << 4);
    /// It was the operator, by a signal.
    pub(crate) const RELOAD: Self = Self(1 << 5);
    /// Neighbours, routes, addresses or rules of routers.
    pub(crate) const ROUTERS: Self = Self(1 << 6);

    /// Everything that says where ports are.
    pub(crate) const OF_PORTS: Self =
        Self(Self::LINKS.0 | Self::SWITCH.0 | Self::CONTAINERS.0 | Self::EVERYTHING.0 | Self::RELOAD.0);

    /// Each with its name.
    const NAMES: [(Self, &'static str); 7] = [
        (Self::FILES, "policy files"),
        (Self::LINKS, "links"),
        (Self::SWITCH, "Open vSwitch"),
        (Self::CONTAINERS, "containers"),
        (Self::EVERYTHING, "everything"),
        (Self::RELOAD, "a signal"),
        (Self::ROUTERS, "routers"),
    ];

    /// True where something of `other` has changed.
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Self::NAMES.iter().filter(|(change, _)| self.has(*change)).map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

/// Rung by watchers, heard by the reconcile loop. Ringing never waits, and ringing twice is ringing once.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    changes: AtomicU8,
    rung: Notify,
}

impl Bell {
    /// Says that something may have changed.
    pub(crate) fn ring(&self, changes: Changes) {
        self.changes.fetch_or(changes.0, Ordering::AcqRel);
        self.rung.notify_one();
    }

    /// Waits until somebody rings. What it was rung for is [`Bell::take`]n afterwards, so nothing is lost by giving up.
    pub(crate) async fn heard(&self) {
        loop {
            let rung = self.rung.notified();
            if self.changes.load(Ordering::Acquire) != 0 {
                return;
            }
            rung.await;
        }
    }

    /// What it has been rung for so far, without taking it.
    pub(crate) fn so_far(&self) -> Changes {
        Changes(self.changes.load(Ordering::Acquire))
    }

    /// What it was rung for since it was last asked.
    pub(crate) fn take(&self) -> Changes {
        Changes(self.changes.swap(0, Ordering::AcqRel))
    }
}

/// How long to wait before the next attempt: twice as long each time, up to a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Begins with `first`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, first, longest }
    }

    /// The pause that is due now.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// After a success.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// For what a watcher watches: often enough that a daemon that restarts is watched again soon.
fn patience() -> Backoff {
    Backoff::new(Duration::from_millis(250), LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Bell, Changes};
    use std::time::Duration;

    #[tokio::test]
    async fn a_bell_rung_before_anybody_listens_is_heard() {
        let bell = Bell::default();
        bell.ring(Changes::LINKS);
        bell.ring(Changes::LINKS);
        bell.ring(Changes::FILES);
        bell.heard().await;
        assert_eq!(bell.take(), Changes::LINKS.and(Changes::FILES));
        let again = tokio::time::timeout(Duration::from_millis(20), bell.heard()).await;
        assert!(again.is_err(), "what was taken rings no more");
    }

    #[tokio::test]
    async fn giving_up_on_a_bell_loses_nothing() {
        let bell = Bell::default();
        let early = tokio::time::timeout(Duration::from_millis(1), bell.heard()).await;
        assert!(early.is_err());
        bell.ring(Changes::SWITCH);
        bell.heard().await;
        assert_eq!(bell.take().to_string(), "Open vSwitch");
    }

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_anew_after_a_success() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(3));
        assert_eq!([backoff.pause(), backoff.pause(), backoff.pause()], [seconds(1), seconds(2), seconds(3)]);
        backoff.reset();
        assert_eq!(backoff.pause(), seconds(1));
    }
}
