//! Where and why a packet died, and what is guilty. Flow: explain.
//!
//! The strongest witness is asked first, and what one says is not overruled by a weaker one:
//!
//! | witness | says |
//! |---|---|
//! | netdiag's own verdict about this very packet | the security group, and which rule nearly lets it pass |
//! | the kernel's reason, and the rules walked with this very packet | the rule; several, where several would drop it |
//! | the kernel's reason alone | what happened |
//! | no reason: what the trace finds wrong between the last device and the next | the fault |
//! | nothing of that, and Open vSwitch lies between | the flow it says drops this very packet |
//! | none of it | between which devices, and that it is not known why |
//!
//! A rule is named only where it would really drop this packet. Where more than one would, depending on what cannot be seen
//! (the state of its flow), all are named and none is called guilty.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{
    journey::{Drop, Journey},
    packet::Headers,
    points::{Points, Stop},
    reasons, words,
};
use crate::{
    event::VerdictEvent,
    id::NetnsId,
    inventory::{Instance, Inventory},
    trace::{Direction, Finding, Hop, HopKind, HopState, RuleRef, Severity, Trace, in_netns},
};

/// Limits that a packet ran into.
mod limits;
/// Rules of the packet filter that would drop a packet.
mod rules;
/// What Open vSwitch says would become of a packet.
pub mod switch;
/// netdiag's own verdicts.
mod verdict;

/// What is known of the host, for whoever looks for the guilty.
#[derive(Clone, Copy, Debug)]
pub struct Case<'c, 'a> {
    /// The host as it is now.
    pub inventory: &'c Inventory<'a>,
    /// What it was before the packet, to see which rules have counted since.
    pub earlier: Option<&'c Inventory<'c>>,
    /// The instance.
    pub instance: &'c Instance<'a>,
    /// Its paths as they are now.
    pub trace: &'c Trace,
    /// What is watched; found when watching began, so that the numbers of its hops are those of then.
    pub points: &'c Points,
    /// netdiag's own verdicts of the last while, their times on the clock of sightings.
    pub verdicts: &'c [VerdictEvent],
}

/// Where and why a packet died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blame {
    /// Which way it went.
    pub direction: Direction,
    /// Number of the hop it died at, or of the last that saw it.
    pub hop: Option<usize>,
    /// Where: a device, a namespace, or between which devices.
    pub place: String,
    /// A stable word for scripts: `security-group`, `filter-rule`, `switch-flow`, `kernel-drop`, `path-fault`, `not-seen`.
    pub code: Code,
    /// The kernel's reason, or the name of netdiag's.
    pub reason: Option<String>,
    /// What is guilty, in the tenant's words.
    pub guilty: Option<String>,
    /// Rules that drop it: one is the guilty one; of several it is one of them.
    pub rules: Vec<RuleRef>,
    /// The whole in one sentence.
    pub sentence: String,
    /// What was seen that says so.
    pub evidence: String,
    /// A read-only command that shows it by hand.
    pub verify: Option<String>,
    /// A step that would mend it; netdiag never takes it.
    pub fix: Option<String>,
}

/// What kind of guilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A security group that netdiag enforces.
    SecurityGroup,
    /// A rule of the packet filter.
    FilterRule,
    /// A flow of Open vSwitch.
    SwitchFlow,
    /// The kernel, for the reason it names.
    KernelDrop,
    /// What the trace finds wrong.
    PathFault,
    /// Nobody knows.
    NotSeen,
}

impl Code {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SecurityGroup => "security-group",
            Self::FilterRule => "filter-rule",
            Self::SwitchFlow => "switch-flow",
            Self::KernelDrop => "kernel-drop",
            Self::PathFault => "path-fault",
            Self::NotSeen => "not-seen",
        }
    }
}

impl Blame {
    /// The same as a finding.
    pub fn finding(&self) -> Finding {
        Finding {
            severity: Severity::Error,
            code: self.code.name().to_owned(),
            object: self.place.clone(),
            message: self.sentence.clone(),
            evidence: self.evidence.clone(),
            verify: self.verify.clone(),
            fix: self.fix.clone(),
        }
    }
}

/// Says where and why a packet died; none if it did not.
pub fn blame(case: &Case<'_, '_>, journey: &Journey) -> Option<Blame> {
    if !journey.ended.is_death() {
        return None;
    }
    verdict::blame(case, journey)
        .or_else(|| journey.drop().map(|drop| by_kernel(case, journey, drop)))
        .or_else(|| by_trace(case, journey))
        .or_else(|| Some(by_silence(case, journey)))
}

// === the kernel's reason ===

fn by_kernel(case: &Case<'_, '_>, journey: &Journey, drop: &Drop) -> Blame {
    let what = words::packet(drop.headers.innermost());
    let place = drop_place(case, journey, drop);
    let found = if drop.reason == "NETFILTER_DROP" { rules::dropping(case, journey, drop) } else { Vec::new() };
    let limit = if found.is_empty() { limits::of_drop(case, journey, drop) } else { None };
    let meaning = reasons::at(&drop.reason, drop.location.as_deref());
    let because = meaning.map_or_else(
        || format!("the kernel gives it up: {} ({})", drop.reason, drop.subsystem),
        |meaning| meaning.because.to_owned(),
    );
    let because = limit.as_ref().map_or_else(|| because.clone(), |limit| limit.because(&because));
    let at = drop.location.as_deref().map_or_else(String::new, |location| format!(" in {location}"));
    let blame = Blame {
        direction: journey.direction,
        hop: drop_hop(case, journey, drop).or_else(|| last_hop(case, journey)),
        sentence: format!("{what} dies at {place}: {because}"),
        place,
        code: Code::KernelDrop,
        reason: Some(drop.reason.clone()),
        guilty: None,
        rules: found,
        evidence: format!("the kernel gave this packet up{at}, reason {}", drop.reason),
        verify: meaning.map(|meaning| meaning.advice.to_owned()),
        fix: None,
    };
    match limit {
        Some(limit) => limit.blame(blame),
        None if blame.rules.is_empty() => with_fault(case, journey, blame),
        None => with_rules(blame, case, &what),
    }
}

/// Names the rule that drops it, or all that may.
fn with_rules(blame: Blame, case: &Case<'_, '_>, what: &str) -> Blame {
    let (code, verify) = match blame.rules.first() {
        None => return blame,
        Some(rule) => (Code::FilterRule, in_netns(case.inventory, rule.netns.id, super::rules::save_command(rule))),
    };
    let named = |rule: &RuleRef| format!("{} of {}", words::rule(rule), rule.netns.label);
    let (guilty, sentence) = match &blame.rules[..] {
        [rule] => (
            Some(format!("{}: {}", named(rule), rule.rule)),
            format!("{what} is dropped by {}: {}", named(rule), rule.rule),
        ),
        several => {
            let all: Vec<String> = several.iter().map(|rule| format!("{} ({})", named(rule), rule.rule)).collect();
            let all = all.join(" or ");
            (None, format!("{what} is dropped by one of these rules, depending on the state of its flow: {all}"))
        }
    };
    Blame { code, guilty, sentence, verify: Some(verify), ..blame }
}

/// The kernel's reason where a neighbour does not answer (`SKB_DROP_REASON_NEIGH_FAILED`).
const UNANSWERED: &str = "NEIGH_FAILED";

/// What the trace has found at the very place, where it says more than the kernel's reason.
fn with_fault(case: &Case<'_, '_>, journey: &Journey, blame: Blame) -> Blame {
    // What goes with the kernel's reason says more than what else is wrong near by.
    let codes = blame.reason.as_deref().map_or(&[][..], reasons::findings);
    let of_reason: Vec<Finding> =
        case.trace.findings.iter().filter(|finding| codes.contains(&finding.code.as_str())).cloned().collect();
    let at_place = |finding: &&Finding| finding.object == blame.place;
    let here: Vec<Finding> = of_reason.iter().filter(at_place).cloned().collect();
    let about_target = last_headers(journey).map(|headers| about_target(case, headers)).unwrap_or_default();
    // A neighbour is silent because of what lies on the way to it.
    let on_the_way = if blame.reason.as_deref() == Some(UNANSWERED) {
        errors(case, &towards_neighbour(case, journey), codes)
    } else {
        Vec::new()
    };
    let faults = [on_the_way, here, of_reason, faults(case, journey), about_target];
    let faults = faults.into_iter().find(|faults| !faults.is_empty());
    let Some([fault]) = faults.as_deref() else { return blame };
    // A warning says what goes with the death, as that a gateway is silent, and not who did it.
    let guilty = (fault.severity == Severity::Error).then(|| fault.message.clone());
    Blame {
        guilty,
        sentence: format!("{}; {}", blame.sentence, lower(&fault.message)),
        evidence: format!("{}; {}", blame.evidence, fault.evidence),
        verify: fault.verify.clone().or(blame.verify),
        fix: fault.fix.clone(),
        ..blame
    }
}

// === no reason ===

fn by_trace(case: &Case<'_, '_>, journey: &Journey) -> Option<Blame> {
    let mut faults = faults(case, journey);
    let headers = last_headers(journey)?;
    if faults.is_empty() {
        faults = about_target(case, headers);
    }
    let what = words::packet(headers);
    let after = last_stop(case, journey).map_or_else(|| "the instance".to_owned(), Stop::label);
    let (guilty, sentence) = match &faults[..] {
        [] => return None,
        [fault] => {
            (Some(fault.message.clone()), format!("{what} is not seen after {after}: {}", lower(&fault.message)))
        }
        several => {
            let all: Vec<String> = several.iter().map(|fault| lower(&fault.message)).collect();
            (None, format!("{what} is not seen after {after}; any of these may be why: {}", all.join("; ")))
        }
    };
    let first = faults.first()?;
    Some(Blame {
        direction: journey.direction,
        hop: last_hop(case, journey),
        place: first.object.clone(),
        code: Code::PathFault,
        reason: None,
        guilty,
        rules: Vec::new(),
        sentence,
        evidence: format!("no event of the kernel; {}", first.evidence),
        verify: first.verify.clone(),
        fix: first.fix.clone(),
    })
}

/// What is wrong with the very address, or port of the host, that a packet is for: a floating IP without its translation.
fn about_target(case: &Case<'_, '_>, headers: &Headers) -> Vec<Finding> {
    let Some((_, destination)) = headers.addresses() else { return Vec::new() };
    let service = headers.ip().and_then(|ip| {
        let (_, port) = ip.transport.ports()?;
        Some(format!("{port}/{}", words::protocol(ip)))
    });
    let is_it = |finding: &&Finding| {
        finding.severity == Severity::Error
            && (finding.object == destination.to_string() || Some(&finding.object) == service.as_ref())
    };
    case.trace.findings.iter().filter(is_it).cloned().collect()
}

/// What a fault elsewhere looks like: at the other end of a link, or at the other port of a VLAN.
const EFFECTS: [&str; 2] = ["no-carrier", "router-vlan"];

/// Errors that the trace has found between the last device that saw a packet and the next one, both included.
fn faults(case: &Case<'_, '_>, journey: &Journey) -> Vec<Finding> {
    errors(case, &gap(case, journey), &[])
}

/// Errors that the trace has found at some hops, but for those of some codes.
fn errors(case: &Case<'_, '_>, hops: &[&Hop], but: &[&str]) -> Vec<Finding> {
    let concerns = |finding: &&Finding| {
        finding.severity == Severity::Error
            && !but.contains(&finding.code.as_str())
            && hops.iter().any(|hop| hop.state == HopState::Broken && is_about(finding, hop))
    };
    let all = &case.trace.findings;
    let (effects, mut causes): (Vec<&Finding>, Vec<&Finding>) =
        all.iter().filter(concerns).partition(|finding| EFFECTS.contains(&finding.code.as_str()));
    if causes.is_empty() && effects.iter().any(|finding| finding.code == "no-carrier") {
        causes.extend(all.iter().filter(|finding| finding.code == "link-down"));
    }
    if causes.is_empty() { effects.into_iter().cloned().collect() } else { causes.into_iter().cloned().collect() }
}

/// The hops between the namespace that saw a packet last and the neighbour it sends it to: the next one that routes, or the
/// end of what this host has.
fn towards_neighbour<'c>(case: &Case<'c, '_>, journey: &Journey) -> Vec<&'c Hop> {
    let Some(interface) = case.trace.interfaces.get(journey.track) else { return Vec::new() };
    let Some(last) = last_stop(case, journey) else { return Vec::new() };
    let is_here = |hop: &Hop| hop.netns.as_ref().is_some_and(|netns| netns.id == last.link.netns);
    let mut hops = Vec::new();
    let ahead = interface.hops.iter().filter(|hop| hop.direction == journey.direction);
    for hop in ahead.skip_while(|hop| !is_here(hop)).skip_while(|hop| is_here(hop)) {
        hops.push(hop);
        if matches!(hop.kind, HopKind::Router | HopKind::RouterPort) {
            break;
        }
    }
    hops
}

/// Whether a finding is about a hop.
fn is_about(finding: &Finding, hop: &Hop) -> bool {
    let netns = hop.netns.as_ref().map(|netns| netns.label.as_str());
    let object = finding.object.as_str();
    object == hop.name
        || Some(object) == netns
        || object.split_once(" in ").is_some_and(|(name, place)| name == hop.name && Some(place) == netns)
        // A patch pair is one hop of two names.
        || hop.kind == HopKind::Patch && hop.name.split(" to ").any(|name| name == object)
}

/// The hops between the last device that saw a packet and the next one that should have, both included.
fn gap<'c>(case: &Case<'c, '_>, journey: &Journey) -> Vec<&'c Hop> {
    let Some(interface) = case.trace.interfaces.get(journey.track) else { return Vec::new() };
    let number = |stop: &Stop| {
        let netns = |hop: &Hop| hop.netns.as_ref().map(|netns| netns.id) == Some(stop.link.netns);
        let is_it = |hop: &&Hop| hop.direction == journey.direction && hop.name == stop.name && netns(hop);
        interface.hops.iter().find(is_it).map(|hop| hop.number)
    };
    // Hops may have come and gone since watching began.
    let from = last_stop(case, journey).and_then(number).unwrap_or(0);
    let to = next_stop(case, journey).and_then(number).unwrap_or(usize::MAX);
    let between = |hop: &&Hop| hop.direction == journey.direction && (from..=to).contains(&hop.number);
    let mut hops: Vec<&Hop> = interface.hops.iter().filter(between).collect();
    // The way in names only what is different there: a device that is down is so both ways.
    if journey.direction == Direction::Inward && hops.is_empty() {
        hops = interface.hops.iter().filter(|hop| hop.direction == Direction::Outward).collect();
    }
    hops
}

fn by_silence(case: &Case<'_, '_>, journey: &Journey) -> Blame {
    let unknown = unknown(case, journey);
    match limits::of_silence(case, journey) {
        Some(limit) => {
            let sentence = format!("{}; {}", switch::without_end(&unknown.sentence), limit.guilty);
            limit.blame(Blame { code: Code::PathFault, sentence, ..unknown })
        }
        None => unknown,
    }
}

fn unknown(case: &Case<'_, '_>, journey: &Journey) -> Blame {
    let what = last_headers(journey).map_or_else(|| "a packet".to_owned(), words::packet);
    let after = last_stop(case, journey).map_or_else(|| case.points.instance.clone(), Stop::label);
    let next = next_stop(case, journey).map(Stop::label);
    let before = next.as_ref().map_or_else(String::new, |next| format!(" and never comes to {next}"));
    let between = names_between(case, journey);
    let on = if between.is_empty() { String::new() } else { format!(", on {}", between.join(", ")) };
    let (why, drops) = if case.points.blind {
        ("; whether the kernel gives a reason was not watched", "drops were not watched")
    } else {
        (switch::NO_REASON, "no drop was reported")
    };
    let place = next.map_or_else(|| after.clone(), |next| format!("between {after} and {next}"));
    Blame {
        direction: journey.direction,
        hop: last_hop(case, journey),
        place,
        code: Code::NotSeen,
        reason: None,
        guilty: None,
        rules: Vec::new(),
        sentence: format!("{what} is not seen after {after}{before}{on}{why}"),
        evidence: format!("it was seen at the one and not at the other, no sighting was lost, and {drops}"),
        verify: flows_command(case, journey),
        fix: None,
    }
}

/// What lies between two devices and cannot be watched.
fn names_between(case: &Case<'_, '_>, journey: &Journey) -> Vec<String> {
    let silent =
        |hop: &&Hop| matches!(hop.kind, HopKind::OvsBridge | HopKind::LinuxBridge | HopKind::Patch | HopKind::Router);
    gap(case, journey).into_iter().filter(silent).map(|hop| hop.name.clone()).collect()
}

/// How to ask Open vSwitch itself about this packet, where it is the switch that lost it.
fn flows_command(case: &Case<'_, '_>, journey: &Journey) -> Option<String> {
    let bridge = gap(case, journey).into_iter().find(|hop| hop.kind == HopKind::OvsBridge)?;
    let stop = last_stop(case, journey)?;
    let headers = last_headers(journey)?;
    let flow = openflow(headers)?;
    let (bridge, port) = (crate::trace::quote(&bridge.name), &stop.name);
    Some(format!("ovs-appctl ofproto/trace {bridge} {}", crate::trace::quote(&format!("in_port={port},{flow}"))))
}

/// A packet as `ofproto/trace` reads it, every field given: what is left out there is zero.
pub fn openflow(headers: &Headers) -> Option<String> {
    let (source, destination) = headers.frame?;
    let ip = headers.ip()?;
    let (kind, names) = match (ip.source, ip.protocol) {
        (IpAddr::V4(_), 6) => ("tcp", ["nw_src", "nw_dst", "nw_ttl"]),
        (IpAddr::V4(_), 17) => ("udp", ["nw_src", "nw_dst", "nw_ttl"]),
        (IpAddr::V4(_), 1) => ("icmp", ["nw_src", "nw_dst", "nw_ttl"]),
        (IpAddr::V4(_), _) => ("ip", ["nw_src", "nw_dst", "nw_ttl"]),
        (IpAddr::V6(_), 6) => ("tcp6", ["ipv6_src", "ipv6_dst", "nw_ttl"]),
        (IpAddr::V6(_), 17) => ("udp6", ["ipv6_src", "ipv6_dst", "nw_ttl"]),
        (IpAddr::V6(_), 58) => ("icmp6", ["ipv6_src", "ipv6_dst", "nw_ttl"]),
        (IpAddr::V6(_), _) => ("ipv6", ["ipv6_src", "ipv6_dst", "nw_ttl"]),
    };
    let [from, to, ttl] = names;
    let flow = format!(
        "{kind},dl_src={source},dl_dst={destination},{from}={},{to}={},{ttl}={}",
        ip.source, ip.destination, ip.hops
    );
    let protocol = matches!(kind, "ip" | "ipv6").then(|| format!(",nw_proto={}", ip.protocol));
    let ports = ip.transport.ports().map(|(source, destination)| format!(",tp_src={source},tp_dst={destination}"));
    let icmp = if let super::packet::Transport::Icmp(icmp) = &ip.transport {
        // What a neighbour asks for, or says of itself, is a field that flows against spoofing look at.
        let target = icmp.body.get(..16).filter(|_| ip.protocol == 58 && matches!(icmp.kind, 135 | 136));
        let target = target.and_then(|bytes| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)));
        let target = target.map_or_else(String::new, |target| format!(",nd_target={target}"));
        Some(format!(",icmp_type={},icmp_code={}{target}", icmp.kind, icmp.code))
    } else {
        None
    };
    Some([Some(flow), protocol, ports, icmp].into_iter().flatten().collect())
}

// === places ===

/// The packet as it was seen last.
fn last_headers(journey: &Journey) -> Option<&Headers> {
    let drop = journey.drop().map(|drop| drop.headers.innermost());
    drop.or_else(|| journey.steps.last().map(|step| step.headers.innermost()))
}

fn last_stop<'c>(case: &Case<'c, '_>, journey: &Journey) -> Option<&'c Stop> {
    case.points.stop(journey.steps.last()?.place)
}

/// The next device that should have seen it.
fn next_stop<'c>(case: &Case<'c, '_>, journey: &Journey) -> Option<&'c Stop> {
    let track = case.points.tracks.get(journey.track)?;
    let position = journey.steps.last().map(|step| track.position(step.place.stop, journey.direction) + 1);
    track.at(position.unwrap_or(0), journey.direction)
}

fn last_hop(case: &Case<'_, '_>, journey: &Journey) -> Option<usize> {
    last_stop(case, journey)?.hop(journey.direction)
}

/// Where the kernel gave a packet up: its device, else its namespace.
fn drop_place(case: &Case<'_, '_>, journey: &Journey, drop: &Drop) -> String {
    let inventory = case.inventory;
    let device = drop.link.and_then(|key| inventory.link(key).map(|link| (key, link)));
    match (device, drop.link) {
        (Some((key, link)), _) => in_words(&link.name, &inventory.netns(key.netns).label),
        (None, Some(key)) => inventory.netns(key.netns).label,
        (None, None) => last_stop(case, journey).map_or_else(|| case.points.instance.clone(), Stop::label),
    }
}

fn in_words(device: &str, netns: &str) -> String {
    if netns == "host" { device.to_owned() } else { format!("{device} in {netns}") }
}

/// The hop of the device a drop is about.
fn drop_hop(case: &Case<'_, '_>, journey: &Journey, drop: &Drop) -> Option<usize> {
    let track = case.points.tracks.get(journey.track)?;
    let stop = track.stops.iter().find(|stop| Some(stop.link) == drop.link)?;
    stop.hop(journey.direction)
}

/// The namespace a packet died in.
fn netns_of(case: &Case<'_, '_>, journey: &Journey, drop: &Drop) -> Option<NetnsId> {
    let stop = last_stop(case, journey).map(|stop| stop.link.netns);
    drop.link.map(|link| link.netns).or(stop).or(case.instance.netns)
}

/// A sentence to go on with.
fn lower(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let (first, rest) = (letters.next(), letters.as_str());
    // A name in capitals stays one.
    match first {
        Some(first) if rest.chars().next().is_some_and(char::is_lowercase) && first.is_uppercase() => {
            format!("{}{rest}", first.to_lowercase())
        }
        _ => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests;
