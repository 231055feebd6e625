//! The checks that follow from what the sources saw. Flow: discover.
//!
//! Absence is an answer: a host without Docker or Open vSwitch has nothing wrong with it. A source that could not look
//! is a different thing, and never read as absence.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::{
    fact::{Facts, Gap, SourceKind, SwitchFact},
    inventory::control::ControlPlane,
};

/// How many names a result lists before it says how many more there are.
const LISTED: usize = 3;

/// Everything the facts of one look say about what the host can do.
pub fn from_facts(facts: &Facts) -> Vec<Check> {
    vec![namespaces(facts), stale_names(facts), open_vswitch(facts), machines(facts), programs(facts)]
}

fn namespaces(facts: &Facts) -> Check {
    let name = "namespaces";
    if let Some(gap) = unreadable(facts, SourceKind::Netns) {
        let result = format!("{} found; {}: {}", facts.namespaces.len(), gap.object, gap.why);
        return Check::warning(name, result)
            .so("instances in namespaces that could not be read are not seen")
            .fix(&gap.fix);
    }
    match facts.namespaces.len() {
        0 => Check::unknown(name, "none found, though the host itself is in one")
            .so("nothing but the host itself can be traced")
            .fix("run as root on the host, with the host's /proc"),
        1 => Check::ok(name, "1: the host's own"),
        several => Check::ok(name, format!("{several} found")),
    }
}

fn stale_names(facts: &Facts) -> Check {
    let name = "stale namespace names";
    if facts.stale_names.is_empty() {
        return absent(facts, SourceKind::Netns, name, "none");
    }
    let paths = list(facts.stale_names.iter().map(|stale| stale.path.as_str()));
    Check::warning(name, paths)
        .so("something was removed by halves; tools that use these names fail")
        .fix("see that nothing uses them, then `ip netns delete` the mounts and `rm` the symbolic links")
}

fn open_vswitch(facts: &Facts) -> Check {
    let name = "Open vSwitch";
    if let Some(switch) = facts.switches.first() {
        return switch_check(name, switch);
    }
    let gap = facts.gaps().find(|gap| gap.source == SourceKind::Ovsdb);
    match gap {
        Some(gap) if gap.absent => Check::ok(name, "not on this host"),
        Some(gap) => unread(name, gap).so("bridges, ports, tags and tunnels of Open vSwitch are missing from traces"),
        None => absent(facts, SourceKind::Ovsdb, name, "no database answered"),
    }
}

fn switch_check(name: &str, switch: &SwitchFact) -> Check {
    let version = switch.version.as_deref().unwrap_or("of unknown version");
    let datapaths: BTreeSet<_> = switch.bridges.iter().map(|bridge| datapath(&bridge.datapath_type)).collect();
    let datapath_types = if datapaths.is_empty() { "none".to_owned() } else { list(datapaths.iter().copied()) };
    let planes = switch.bridges.iter().filter_map(|bridge| ControlPlane::of(switch, bridge));
    let run_by: BTreeSet<_> = planes.map(ControlPlane::name).collect();
    let run_by = if run_by.is_empty() { String::new() } else { format!("; run by {}", list(run_by.iter().copied())) };
    let result = format!("{version}; bridges: {}; datapath: {datapath_types}{run_by}", switch.bridges.len());
    if datapaths.contains("netdev") {
        return Check::warning(name, result)
            .so("its user-space datapath takes frames before TC sees them: a filter at TC ingress would hold nothing")
            .fix("nothing for tracing; enforcement on these ports has to use XDP");
    }
    Check::ok(name, result)
}

/// The kernel's datapath is what an empty column means.
fn datapath(column: &str) -> &str {
    if column.is_empty() { "system" } else { column }
}

fn machines(facts: &Facts) -> Check {
    let name = "virtual machines";
    if let Some(gap) = unreadable(facts, SourceKind::Process) {
        return unread(name, gap).so("some virtual machines may be missing");
    }
    match facts.machines.len() {
        0 => absent(facts, SourceKind::Process, name, "no qemu process"),
        several => Check::ok(name, format!("{several} by their qemu process")),
    }
}

/// Programs on the devices of the host itself, per hook.
fn programs(facts: &Facts) -> Check {
    let name = "eBPF programs of others";
    if let Some(gap) = unreadable(facts, SourceKind::Bpf) {
        return unread(name, gap).so("a program that drops or redirects packets may go unnoticed");
    }
    let host = facts.namespaces.iter().find(|namespace| namespace.host).map(|namespace| namespace.id);
    let mut devices: BTreeMap<&str, usize> = BTreeMap::new();
    for program in facts.programs.iter().filter(|program| host.is_none_or(|host| program.netns == host)) {
        *devices.entry(&program.name).or_default() += 1;
    }
    if devices.is_empty() {
        return absent(facts, SourceKind::Bpf, name, "none on the host's devices");
    }
    let names: Vec<_> = devices.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    Check::warning(name, list(names.iter().map(String::as_str)))
        .so("they may drop, rewrite or redirect packets; one that returns TC_ACT_OK ends the chain for those after it")
        .fix("`bpftool net show` and `tc filter show dev <device> ingress` tell whose they are")
}

/// What was not found: an answer if its source looked, and none if it did not.
fn absent(facts: &Facts, source: SourceKind, name: &str, result: &str) -> Check {
    if facts.reports.iter().any(|report| report.source == source) {
        return Check::ok(name, result);
    }
    Check::unknown(name, format!("the source {} did not look", source.name()))
}

/// The first thing a source could not read although it is there.
fn unreadable(facts: &Facts, source: SourceKind) -> Option<&Gap> {
    facts.gaps().find(|gap| gap.source == source && !gap.absent)
}

fn unread(name: &str, gap: &Gap) -> Check {
    Check::unknown(name, format!("{}: {}", gap.object, gap.why)).fix(&gap.fix)
}

/// The first few, and how many more.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| if name.is_empty() { "unnamed" } else { name }).collect();
    let (first, rest) = names.split_at(names.len().min(LISTED));
    let first = first.join(", ");
    if rest.is_empty() { first } else { format!("{first} and {} more", rest.len()) }
}

#[cfg(test)]
mod tests;
