//! Limits that a packet ran into: a table that is full, a queue, a size. The kernel says that there was one, the host which.

use super::{Blame, Case, Drop, Journey, last_stop, netns_of, next_stop};
use crate::{
    live::points::Stop,
    trace::{in_netns, quote},
};

/// Length of an Ethernet header, which no MTU counts.
const ETHERNET: u32 = 14;
/// What a veth pair, and a switch in user space, let pass beyond the MTU: a VLAN tag.
const TAG: u32 = 4;

/// A limit.
pub(super) struct Limit {
    /// What it is, with its numbers.
    pub(super) guilty: String,
    verify: String,
    fix: String,
    /// It says all there is to say, and better than the kernel's reason does.
    alone: bool,
}

impl Limit {
    /// Why the packet died, given what the kernel's reason means.
    pub(super) fn because(&self, meaning: &str) -> String {
        if self.alone { self.guilty.clone() } else { format!("{meaning}; {}", self.guilty) }
    }

    /// Blames it for what the kernel, or nobody, gives a reason for.
    pub(super) fn blame(self, blame: Blame) -> Blame {
        let Self { guilty, verify, fix, alone: _ } = self;
        Blame {
            evidence: format!("{}; {guilty}", blame.evidence),
            guilty: Some(guilty),
            verify: Some(verify),
            fix: Some(fix),
            ..blame
        }
    }
}

/// The limit that explains why the kernel gave a packet up.
pub(super) fn of_drop(case: &Case<'_, '_>, journey: &Journey, drop: &Drop) -> Option<Limit> {
    match drop.reason.as_str() {
        "NETFILTER_DROP" => tracking(case, journey, drop),
        "PKT_TOO_BIG" => size(case, journey, 0),
        "NOT_SPECIFIED" => size(case, journey, TAG),
        reason if reason.starts_with("QDISC") => queue(case, drop),
        _ => None,
    }
}

/// The limit that explains why a packet was not seen any more, of which the kernel says nothing.
pub(super) fn of_silence(case: &Case<'_, '_>, journey: &Journey) -> Option<Limit> {
    size(case, journey, TAG)
}

/// A table of connections that is full, which drops what begins one as a rule would.
fn tracking(case: &Case<'_, '_>, journey: &Journey, drop: &Drop) -> Option<Limit> {
    let netns = netns_of(case, journey, drop)?;
    let value = |name: &str| case.inventory.sysctl(netns, name)?.parse::<u64>().ok();
    let (count, most) = (value("net.netfilter.nf_conntrack_count")?, value("net.netfilter.nf_conntrack_max")?);
    // It is looked at a moment after the packet died: some connections may be over.
    let is_full = most > 0 && count.saturating_mul(20) >= most.saturating_mul(19);
    let label = case.inventory.netns(netns).label;
    is_full.then(|| Limit {
        guilty: format!("connection tracking of {label} is full: {count} of {most} connections"),
        verify: in_netns(case.inventory, netns, "conntrack -S; sysctl net.netfilter.nf_conntrack_max"),
        fix: "raise net.netfilter.nf_conntrack_max, or find who opens so many connections".to_owned(),
        alone: true,
    })
}

/// A queueing discipline.
fn queue(case: &Case<'_, '_>, drop: &Drop) -> Option<Limit> {
    let key = drop.link?;
    let link = case.inventory.link(key)?;
    // A device that is down has a queue that takes nothing, and no other.
    let kind = link.qdisc.as_deref().filter(|kind| !matches!(*kind, "noqueue" | "noop"))?;
    let device = quote(&link.name);
    Some(Limit {
        guilty: format!("the queueing discipline of {} is {kind}", link.name),
        verify: in_netns(case.inventory, key.netns, &format!("tc -s qdisc show dev {device}")),
        fix: "give it a longer queue or a higher rate, or send less".to_owned(),
        alone: false,
    })
}

/// The next device's MTU, where this packet is longer by more than some bytes that pass all the same.
fn size(case: &Case<'_, '_>, journey: &Journey, grace: u32) -> Option<Limit> {
    let step = journey.steps.last()?;
    let bytes = step.length.saturating_sub(ETHERNET);
    let most = |stop: &Stop| case.inventory.link(stop.link).map(|link| link.mtu);
    let (here, next) = (last_stop(case, journey)?, next_stop(case, journey)?);
    let room = most(next).filter(|room| bytes > room + grace)?;
    // What is longer than the device it was at takes is yet to be cut.
    most(here).filter(|own| bytes <= own + TAG)?;
    let label = next.label();
    Some(Limit {
        guilty: format!("{label} takes packets of {room} bytes, and this one has {bytes}"),
        verify: in_netns(case.inventory, next.link.netns, &format!("ip link show dev {}", quote(&next.name))),
        fix: "give all devices of the path one MTU, and the instance no larger one".to_owned(),
        alone: grace > 0,
    })
}
