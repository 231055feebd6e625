//! What is enforced at the ports of one instance: the answer of `netdiag sg show`. Flow: explain.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::Serialize;

use super::{
    Summary,
    asked::{Asked, GroupRef, RuleRef},
    loaded,
};
use crate::{
    compile::Tables,
    fact::{
        Gap, SourceKind,
        enforcement::{AgentFact, EnforcedPort, EnforcementFact, LoadedRule, ReasonCount},
    },
    id::Mac,
    inventory::{Enforcement, Instance, Inventory, Nic},
    policy::types::{Direction, Mode, Rule, Service},
    trace::Verdict,
};

/// The answer of `netdiag sg show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Host the look was taken on.
    pub hostname: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub taken_at: u64,
    /// The instance.
    pub instance: String,
    /// Its ports.
    pub ports: Vec<ShownPort>,
    /// Whether anything of netdiag is loaded on this host; none where that could not be read.
    pub loaded: Option<bool>,
    /// What the agent says of itself; none where none answers.
    pub agent: Option<AgentFact>,
    /// The whole in one word.
    pub verdict: Verdict,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<Gap>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownPort {
    /// Name of the host's device.
    pub device: Option<String>,
    /// MAC address.
    pub mac: Option<Mac>,
    /// Addresses of the instance there.
    pub addresses: Vec<IpNet>,
    /// How it is enforced; none where netdiag has nothing to do with it.
    pub summary: Option<Summary>,
    /// Its groups.
    pub groups: Vec<GroupRef>,
    /// Its groups keep no state.
    pub stateless: bool,
    /// Its rules: those that are asked for, and those that are loaded all the same. None where neither is known.
    pub rules: Option<Vec<ShownRule>>,
    /// Packets by direction and reason.
    pub counters: Vec<ReasonCount>,
    /// Packets it has sent past its bridge, straight to instances there.
    pub straight: u64,
    /// Flows tracked now.
    pub flows: u64,
    /// Verdicts of which there is no record because the port had used up its share.
    pub suppressed: u64,
    /// Verdicts of which there is no record because the ring buffer was full.
    pub lost: u64,
}

/// A rule, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownRule {
    /// Its id.
    pub id: String,
    /// In its author's words; none where only its id is known, because nobody says what is asked for.
    pub rule: Option<RuleRef>,
    /// Directions it is loaded for.
    pub loaded: Vec<Direction>,
    /// Flows it has allowed, on all ports of this host together; none where it is not loaded.
    pub hits: Option<u64>,
    /// What to know of it.
    pub standing: Standing,
}

/// Where what is loaded and what is asked meet in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is in force.
    InForce,
    /// It is asked for and decides nothing by itself: other rules of the port allow what it would.
    Covered,
    /// It is asked for and allows nobody: its remote has no address of its family.
    Nobody,
    /// It is asked for, and what it would allow is denied.
    Missing,
    /// It is asked for; whether it is in force could not be read.
    Unread,
    /// It is in force and nobody asks for it any more.
    NotAsked,
    /// It is in force; whether it is asked for is not known, since no agent answers.
    Unasked,
}

/// What is enforced at the ports of an instance.
pub fn show(inventory: &Inventory<'_>, instance: &Instance<'_>) -> Shown {
    let facts = &inventory.snapshot.facts;
    let ports: Vec<ShownPort> = instance.nics.iter().map(|nic| port(inventory, nic)).collect();
    let gaps: Vec<Gap> =
        facts.gaps().filter(|gap| gap.source == SourceKind::Enforcement && !gap.absent).cloned().collect();
    Shown {
        hostname: inventory.snapshot.hostname.clone(),
        taken_at: inventory.snapshot.taken_at,
        instance: instance.identity.name.clone(),
        loaded: if facts.enforcement.is_none() && !gaps.is_empty() { None } else { Some(facts.enforcement.is_some()) },
        agent: facts.enforcement.as_ref().and_then(|loaded| loaded.agent.clone()),
        verdict: verdict(&ports, &gaps),
        ports,
        gaps,
    }
}

/// Broken where something asked for does not hold; a port of no concern to netdiag is as it should be.
fn verdict(ports: &[ShownPort], gaps: &[Gap]) -> Verdict {
    let broken = |port: &ShownPort| match port.summary.as_ref().map(|summary| (summary, summary.mode)) {
        None => false,
        Some((summary, Some(Mode::Trusted))) => !summary.differences.is_empty(),
        Some((_, None | Some(Mode::Closed))) => true,
        Some((summary, Some(Mode::Filtered))) => {
            let attached = summary.egress.hook.is_some() && summary.ingress.hook.is_some();
            !attached || !summary.differences.is_empty()
        }
    };
    match (ports.iter().any(broken), gaps.is_empty()) {
        (true, _) => Verdict::Broken,
        (false, false) => Verdict::Inconclusive,
        (false, true) => Verdict::Works,
    }
}

fn port(inventory: &Inventory<'_>, nic: &Nic<'_>) -> ShownPort {
    let asked = inventory.asked();
    let bare = ShownPort {
        device: nic.outer_name(inventory).map(str::to_owned),
        mac: nic.mac,
        addresses: nic.addresses.clone(),
        summary: Summary::of(inventory, nic),
        groups: Vec::new(),
        stateless: false,
        rules: None,
        counters: Vec::new(),
        straight: 0,
        flows: 0,
        suppressed: 0,
        lost: 0,
    };
    let Enforcement::Port(port) = inventory.enforcement(nic) else { return bare };
    ShownPort {
        groups: groups(port, asked),
        stateless: port.stateless,
        rules: rules(port, inventory),
        counters: port.counters.clone(),
        straight: port.straight(),
        flows: port.flows,
        suppressed: port.suppressed,
        lost: port.lost,
        ..bare
    }
}

/// Its groups: as they are asked for, else as the maps remember them.
pub(super) fn groups(port: &EnforcedPort, asked: Option<&Asked>) -> Vec<GroupRef> {
    if let Some(asked) = asked
        && let Some(own) = asked.port(&port.port_id)
    {
        return own.groups.iter().map(|id| asked.group(id)).collect();
    }
    port.groups.iter().map(|id| GroupRef { id: id.clone(), name: String::new() }).collect()
}

/// Rules that are asked for, in their order, then those that are loaded and not among them.
pub(super) fn rules(port: &EnforcedPort, inventory: &Inventory<'_>) -> Option<Vec<ShownRule>> {
    let (loaded, asked) = (inventory.snapshot.facts.enforcement.as_ref()?, inventory.asked());
    if port.mode != Mode::Filtered {
        return None;
    }
    let here = here(port, loaded);
    let own = asked.and_then(|asked| Some((asked, asked.port(&port.port_id)?)));
    if own.is_none() && here.is_none() {
        return None;
    }
    let here = here.unwrap_or_default();
    let mut shown: Vec<ShownRule> = Vec::new();
    let mut told = BTreeSet::new();
    for (group, rule) in own.iter().flat_map(|(asked, port)| asked.rules_of(port)) {
        let Some((asked, _)) = own else { continue };
        let found = here.get(rule.id.0.as_str());
        told.insert(rule.id.0.clone());
        shown.push(ShownRule {
            id: rule.id.0.clone(),
            rule: Some(asked.refer(group, rule)),
            loaded: found.map(|(_, directions)| directions.clone()).unwrap_or_default(),
            hits: found.map(|(rule, _)| rule.hits),
            standing: if found.is_some() { Standing::InForce } else { standing(asked, rule, port, inventory.loaded()) },
        });
    }
    let rest = here.iter().filter(|(id, _)| !told.contains(**id));
    shown.extend(rest.map(|(id, (rule, directions))| ShownRule {
        id: (*id).to_owned(),
        rule: asked.and_then(|asked| asked.rule(id)),
        loaded: directions.clone(),
        hits: Some(rule.hits),
        standing: if asked.is_some() { Standing::NotAsked } else { Standing::Unasked },
    }));
    Some(shown)
}

/// What has become of a rule that has no number at a port: a packet it would allow is asked about.
fn standing(asked: &Asked, rule: &Rule, port: &EnforcedPort, tables: Option<&Tables>) -> Standing {
    let Some(tables) = tables else { return Standing::Unread };
    let Some(remote) = asked.somebody(&rule.remote, rule.ethertype) else { return Standing::Nobody };
    let (protocol, service) = match rule.service {
        // A number for experiments (RFC 3692): no rule has it by chance.
        Service::Any => (253, 0),
        Service::Protocol(protocol) => (protocol, 0),
        Service::Ports { protocol, first, .. } => (protocol, first),
        Service::Icmp { protocol, kind, code } => (protocol, u16::from_be_bytes([kind, code.unwrap_or_default()])),
    };
    let ingress = rule.direction == Direction::Ingress;
    match loaded::rule(tables, port.slot, ingress, remote, (protocol, service)) {
        Some(0) => Standing::Missing,
        Some(_) => Standing::Covered,
        None => Standing::Unread,
    }
}

/// Rules in force at a port by their ids, with the directions they are loaded for; none where the maps were not read.
fn here<'a>(
    port: &EnforcedPort,
    loaded: &'a EnforcementFact,
) -> Option<BTreeMap<&'a str, (&'a LoadedRule, Vec<Direction>)>> {
    let tables = loaded.tables.as_ref()?;
    let mut here: BTreeMap<&str, (&LoadedRule, Vec<Direction>)> = BTreeMap::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let numbers = tables.rules(port.slot, direction)?;
        for rule in loaded.rules.iter().filter(|rule| numbers.contains(&rule.index)) {
            here.entry(&rule.id).or_insert_with(|| (rule, Vec::new())).1.push(direction);
        }
    }
    Some(here)
}
