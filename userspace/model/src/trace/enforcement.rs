//! Security groups that netdiag itself enforces, at the host's end of a card: a hop in each direction, and what is wrong
//! with it.
//!
//! The maps that are really loaded are shown, not what was asked for; where the two differ, that is a finding.

use super::{
    Finding, Hop, HopKind, HopState, Severity,
    command::quote,
    outward::Way,
    path::{Path, finding},
};
use crate::{
    fact::enforcement::{EnforcedPort, RefusedPort},
    groups::{GroupRef, Side, Summary},
    inventory::Enforcement,
    policy::types::{Direction, Mode},
};

/// Where packets of the instance meet its groups, with what is wrong in either direction: a card without a way in has no
/// other place to say it.
pub(super) fn outward(way: &mut Way<'_, '_>) {
    match way.inventory.enforcement(way.nic) {
        Enforcement::Absent | Enforcement::Unknown | Enforcement::Unmanaged => {}
        Enforcement::Refused(port) => refused(way, port),
        Enforcement::Port(port) => {
            let Some(hop) = hop(way, port, Direction::Egress) else { return };
            way.path.push(hop);
            let device = device(way);
            let egress = findings(port, Direction::Egress, &device);
            let ingress = findings(port, Direction::Ingress, &device);
            let differs = differs(way, &device);
            way.path.findings.extend(egress.into_iter().chain(ingress).chain(differs));
        }
    }
}

/// Where packets to the instance meet its groups.
pub(super) fn inward(way: &Way<'_, '_>, path: &mut Path) {
    if let Enforcement::Port(port) = way.inventory.enforcement(way.nic)
        && let Some(hop) = hop(way, port, Direction::Ingress)
    {
        path.push(hop);
    }
}

/// Name of the host's device.
fn device(way: &Way<'_, '_>) -> String {
    way.nic.outer_name(way.inventory).unwrap_or("the host's device").to_owned()
}

/// Groups that are asked for where nothing can hold them.
fn refused(way: &mut Way<'_, '_>, port: &RefusedPort) {
    let device = device(way);
    way.path.push(Hop {
        kind: HopKind::SecurityGroup,
        name: port.port_id.clone(),
        netns: way.inventory.host.map(|host| way.inventory.netns(host)),
        state: HopState::Ok,
        status: "not enforced".to_owned(),
        note: port.why.clone(),
        ..Hop::default()
    });
    let message = format!("security groups are asked for and cannot be enforced at {device}: everything passes");
    way.path.report(
        finding(Severity::Warning, "security-group-refused", &device, message)
            .seen(port.why.clone())
            .verify("netdiag list -o wide")
            .fix("plug the port where a hook can hold, or take it out of the policy"),
    );
}

fn hop(way: &Way<'_, '_>, port: &EnforcedPort, direction: Direction) -> Option<Hop> {
    let summary = Summary::of(way.inventory, way.nic)?;
    let differs = (!summary.differences.is_empty()).then_some(Severity::Warning);
    let worst = findings(port, direction, "").iter().map(|found| found.severity).chain(differs).min();
    let device = device(way);
    let groups: Vec<&str> = summary.groups.iter().map(GroupRef::called).collect();
    let name = if groups.is_empty() { port.port_id.clone() } else { groups.join(", ") };
    Some(Hop {
        kind: HopKind::SecurityGroup,
        name,
        netns: way.inventory.host.map(|host| way.inventory.netns(host)),
        state: match worst {
            _ if port.mode == Mode::Closed => HopState::Broken,
            Some(Severity::Error) => HopState::Broken,
            Some(Severity::Warning) => HopState::Warning,
            Some(Severity::Info) | None => HopState::Ok,
        },
        status: status(&summary, direction),
        note: note(&summary, port, direction),
        detail: detail(port, direction),
        verify: vec![format!("netdiag sg show {}", quote(&device)), format!("bpftool net show dev {}", quote(&device))],
        ..Hop::default()
    })
}

/// What becomes of the packets, and where.
fn status(summary: &Summary, direction: Direction) -> String {
    let at = summary.side(direction).hook.as_deref().unwrap_or("no program");
    match summary.mode {
        Some(Mode::Closed) => format!("closed, {at}"),
        Some(mode) => format!("{}, {at}", mode.name()),
        None => "not enforced".to_owned(),
    }
}

/// Rules and drops. The way out speaks of both directions, since a card may have no way in.
fn note(summary: &Summary, port: &EnforcedPort, direction: Direction) -> String {
    if summary.mode == Some(Mode::Trusted) {
        return "everything passes".to_owned();
    }
    let both = [(Direction::Egress, "out"), (Direction::Ingress, "in")];
    let shown = both.into_iter().filter(|(side, _)| direction == Direction::Egress || *side == direction);
    let mut words = Vec::new();
    for (side, word) in shown.clone() {
        words.extend(rules(summary.side(side)).map(|rules| format!("{rules} {word}")));
    }
    for (side, word) in shown {
        words.extend(drops(port, side).map(|drops| format!("dropped {word}: {drops}")));
    }
    let straight = port.straight();
    if direction == Direction::Egress && straight > 0 {
        words.push(format!("{straight} packets past the bridge, straight to instances at it"));
    }
    words.join(", ")
}

fn rules(side: &Side) -> Option<String> {
    let number = side.rules?;
    Some(format!("{number} rule{}", if number == 1 { "" } else { "s" }))
}

/// Why packets were dropped, most often first; none where none was.
fn drops(port: &EnforcedPort, direction: Direction) -> Option<String> {
    let drops = port.dropped(direction);
    let named: Vec<String> = drops.iter().take(3).map(|count| format!("{} {}", count.packets, count.reason)).collect();
    let more: u64 = drops.iter().skip(3).map(|count| count.packets).sum();
    let more = (more > 0).then(|| format!("{more} others"));
    let words: Vec<String> = named.into_iter().chain(more).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn detail(port: &EnforcedPort, direction: Direction) -> Vec<(String, String)> {
    let mut detail = vec![("port".to_owned(), port.port_id.clone()), ("slot".to_owned(), port.slot.to_string())];
    detail.extend(port.hook(direction).map(|hook| ("program".to_owned(), format!("id {}", hook.program))));
    detail.push(("generation".to_owned(), port.generation.to_string()));
    detail.push(("flows".to_owned(), port.flows.to_string()));
    let counted = port.counters.iter().filter(|count| count.direction == direction);
    detail.extend(counted.map(|count| (count.reason.clone(), format!("{} pkts", count.packets))));
    detail
}

/// What is wrong with one direction of a port.
fn findings(port: &EnforcedPort, direction: Direction, device: &str) -> Vec<Finding> {
    if port.mode == Mode::Trusted {
        return Vec::new();
    }
    let show = format!("bpftool net show dev {}", quote(device));
    let mut found = Vec::new();
    match port.hook(direction) {
        None => found.push(unattached(direction, device).verify(show)),
        Some(hook) => found.extend(hook.behind.as_ref().map(|behind| {
            let message = format!(
                "{behind} comes before netdiag's program for {} at {device}: it can pass or drop what no rule decided",
                packets(direction)
            );
            finding(Severity::Warning, "foreign-program-first", device, message)
                .seen(format!("{behind} is attached before program {}", hook.program))
                .verify(show)
                .fix("see who attached it; netdiag never removes another's program")
        })),
    }
    // This is about the port; once is enough.
    if direction == Direction::Egress && port.mode == Mode::Closed {
        found.push(closed(port, device));
    }
    found
}

const fn packets(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "packets from the instance",
        Direction::Ingress => "packets to the instance",
    }
}

fn unattached(direction: Direction, device: &str) -> Finding {
    let message = format!(
        "nothing filters {} at {device}: they pass unseen, and answers to them are refused the other way",
        packets(direction)
    );
    finding(Severity::Error, "security-group-unattached", device, message)
        .seen(format!("no program of netdiag for {}", direction.name()))
        .fix("netdiag agent attaches it again when it runs")
}

fn closed(port: &EnforcedPort, device: &str) -> Finding {
    let message = format!("the policy of {device} is not known: nothing but DHCP, ARP and neighbour discovery passes");
    finding(Severity::Error, "policy-unknown", device, message)
        .seen(format!("port {} is closed", port.port_id))
        .verify("netdiag agent status")
        .fix("give the agent the port's policy: a file in /etc/netdiag/policy.d, or its API")
}

/// Where what is loaded is not what is asked for.
fn differs(way: &Way<'_, '_>, device: &str) -> Option<Finding> {
    let summary = Summary::of(way.inventory, way.nic).filter(|summary| !summary.differences.is_empty())?;
    let message = format!("what is enforced at {device} is not what is asked for");
    let differs = finding(Severity::Warning, "policy-differs", device, message)
        .seen(summary.differences.join("; "))
        .verify("netdiag agent status")
        .fix("see what keeps the agent from it; it tries again by itself");
    Some(differs)
}
