//! What there is to say of the agent, as lines of a table: state, policy, maps, hooks, lag, losses, cost.

use std::collections::HashMap;

use netdiag_model::{
    fact::enforcement::{AgentFact, EnforcedPort, EnforcementFact},
    policy::types::Mode,
    snapshot::Snapshot,
    status::{PortStatus, Status},
};

use super::{Agent, Extra};
use crate::{text::units, time, tui::sheet::Health};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    /// What it belongs to: `agent`, `policy`, `maps`, `hooks`, `losses`.
    pub(crate) part: &'static str,
    /// What it is.
    pub(crate) name: String,
    /// How it is.
    pub(crate) health: Health,
    /// What is said of it.
    pub(crate) value: String,
    /// How many lines before it have its name: mistakes and files have one in common.
    pub(crate) before: usize,
}

impl Fact {
    fn new(part: &'static str, name: impl Into<String>, health: Health, value: impl Into<String>) -> Self {
        Self { part, name: name.into(), health, value: value.into(), before: 0 }
    }

    fn ok(part: &'static str, name: &str, value: impl Into<String>) -> Self {
        Self::new(part, name, Health::Ok, value)
    }
}

/// Everything.
pub(super) fn facts(snapshot: &Snapshot, extra: &Extra) -> Vec<Fact> {
    let loaded = snapshot.facts.enforcement.as_ref();
    let mut facts = match &extra.agent {
        Agent::Answers(status, cpu) => answered(status, *cpu),
        Agent::Silent(why) => vec![silent(why, loaded)],
        Agent::Unasked => match loaded.and_then(|loaded| loaded.agent.as_ref()) {
            Some(agent) => own(agent, agent.problems.is_empty(), snapshot.taken_at),
            None if loaded.is_some() => vec![silent("no agent answered when this was seen", loaded)],
            None => Vec::new(),
        },
    };
    if let Some(loaded) = loaded {
        facts.extend(maps(loaded));
        facts.extend(loaded.ports.iter().map(hooks));
        let refused = loaded.refused.iter();
        facts.extend(
            refused.map(|port| Fact::new("hooks", &port.port_id, Health::Broken, format!("refused: {}", port.why))),
        );
        facts.extend(losses(loaded));
    } else if facts.is_empty() {
        let words = "nothing of netdiag is loaded on this host: no security group is enforced by it";
        facts.push(Fact::new("maps", "loaded", Health::Unknown, words));
    }
    if extra.took_ms > 0 {
        facts.push(Fact::ok("netdiag", "a look takes", format!("{} ms", extra.took_ms)));
    }
    facts.extend(sources(snapshot));
    let mut named: HashMap<(&str, String), usize> = HashMap::new();
    for fact in &mut facts {
        let before = named.entry((fact.part, fact.name.clone())).or_default();
        fact.before = *before;
        *before += 1;
    }
    facts
}

/// How each source fared, and what it could not read.
fn sources(snapshot: &Snapshot) -> Vec<Fact> {
    let mut facts = Vec::new();
    for report in &snapshot.facts.reports {
        let words = format!("{}, {} ms", report.how, report.took_ms);
        let failed = report.gaps.iter().any(|gap| !gap.absent);
        let health = if failed { Health::Unknown } else { Health::Ok };
        facts.push(Fact::new("sources", report.source.name(), health, words));
        for gap in report.gaps.iter().filter(|gap| !gap.absent) {
            let words = format!("{}: {}; {}", gap.object, gap.why, gap.fix);
            facts.push(Fact::new("sources", "not read", Health::Unknown, words));
        }
    }
    facts
}

/// Nobody answers.
fn silent(why: &str, loaded: Option<&EnforcementFact>) -> Fact {
    let effect = match loaded {
        Some(_) => "what is loaded stays in force and does not change",
        None => "nothing is loaded: start one with netdiag agent",
    };
    let health = if loaded.is_some() { Health::Broken } else { Health::Unknown };
    Fact::new("agent", "state", health, format!("{why}; {effect}"))
}

/// What it says itself; `well`: nothing stands in its way.
fn own(agent: &AgentFact, well: bool, now: u64) -> Vec<Fact> {
    let ago = |at: u64| format!("{} ago", units::duration(now.saturating_sub(at)));
    let (health, words) = match (agent.converged, well) {
        (Some(at), true) => (Health::Ok, format!("what is loaded is what is asked for; last seen so {}", ago(at))),
        (Some(at), false) => (Health::Broken, format!("something stands in the way; last in step {}", ago(at))),
        (None, _) => (Health::Unknown, "not in step with what is asked for yet".to_owned()),
    };
    let mut facts = vec![
        Fact::new("agent", "state", health, words),
        Fact::ok("agent", "version", format!("netdiag {}, pid {}", agent.version, agent.pid)),
        Fact::ok(
            "agent",
            "up",
            format!("{}, since {}", units::duration(now.saturating_sub(agent.since)), time::words(agent.since)),
        ),
    ];
    facts.extend(agent.problems.iter().map(|problem| Fact::new("agent", "problem", Health::Broken, problem)));
    facts
}

/// What it answers when asked.
fn answered(status: &Status, cpu: Option<u32>) -> Vec<Fact> {
    let mut facts = own(&status.agent, status.is_well(), status.now);
    let passes = &status.passes;
    let health = if passes.failed > 0 { Health::Warning } else { Health::Ok };
    let words = format!("{} done, {} failed", units::count(passes.done), units::count(passes.failed));
    facts.push(Fact::new("agent", "passes", health, words));
    facts.push(Fact::ok("agent", "lag", format!("the last pass took {} ms", passes.last_ms)));
    let share = |cpu: u32| format!("{}.{} % of a core", cpu / 10, cpu % 10);
    let cpu = cpu.map_or_else(|| "not known yet".to_owned(), share);
    facts.push(Fact::ok("agent", "cpu", cpu));
    let asked = &status.asked;
    let words = format!(
        "{} with {}, {}, {}",
        units::things(asked.security_groups, "security group"),
        units::things(asked.rules, "rule"),
        units::things(asked.address_groups, "address group"),
        units::things(asked.ports, "port")
    );
    facts.push(Fact::ok("policy", "asked for", words));
    facts.extend(status.files.iter().map(|file| Fact::ok("policy", "file", file)));
    let mistakes = status.mistakes.iter().map(ToString::to_string);
    facts.extend(mistakes.map(|mistake| Fact::new("policy", "mistake", Health::Broken, mistake)));
    let held = status.held().map(|(one, why)| format!("floating IP {}: {why}", one.floating_ip_address));
    facts.extend(held.map(|held| Fact::new("policy", "held", Health::Broken, held)));
    facts.extend(status.ports.iter().map(asked_port));
    facts
}

/// A port it looks after.
fn asked_port(port: &PortStatus) -> Fact {
    let health = match port.mode {
        Mode::Filtered => Health::Ok,
        Mode::Trusted => Health::Warning,
        Mode::Closed => Health::Broken,
    };
    let whose = port.instance.as_deref().unwrap_or("an unknown instance");
    let words = format!("{} of {whose} at {}: {}", port.mode.name(), port.device, port.hooks.join(", "));
    Fact::new("ports", &port.id, health, words)
}

/// What the maps hold.
fn maps(loaded: &EnforcementFact) -> Vec<Fact> {
    let mut facts = vec![
        Fact::ok("maps", "pinned", format!("{}, layout {}", loaded.pinned, loaded.abi)),
        Fact::ok("maps", "ports", units::count(loaded.ports.len() as u64)),
        Fact::ok("maps", "rules", units::count(loaded.rules.len() as u64)),
        Fact::ok("maps", "flows", format!("{} tracked", units::count(loaded.flows))),
        Fact::ok("maps", "floating ips", format!("{} past their routers", loaded.floating.len())),
    ];
    match &loaded.tables {
        Some(tables) => {
            let prefixes = tables.prefixes4.len() + tables.prefixes6.len();
            let members = tables.remotes4.len() + tables.remotes6.len();
            let words = format!(
                "{} grants, {} members, {} prefixes",
                units::count(tables.grants.len() as u64),
                units::count(members as u64),
                units::count(prefixes as u64)
            );
            facts.push(Fact::ok("maps", "policy", words));
        }
        None => facts.push(Fact::new("maps", "policy", Health::Unknown, "could not be read")),
    }
    facts
}

/// Where programs hold at a port.
fn hooks(port: &EnforcedPort) -> Fact {
    use netdiag_model::policy::types::Direction;
    let side = |direction, word: &str| match port.hook(direction) {
        None => (Health::Broken, format!("{word} NOTHING ATTACHED")),
        Some(hook) => match &hook.behind {
            Some(behind) => (Health::Warning, format!("{word} {} behind {behind}", hook.hook)),
            None => (Health::Ok, format!("{word} {} (program {})", hook.hook, hook.program)),
        },
    };
    let (ingress, egress) = (side(Direction::Ingress, "in"), side(Direction::Egress, "out"));
    Fact::new("hooks", &port.port_id, ingress.0.max(egress.0), format!("{}, {}", ingress.1, egress.1))
}

/// What nobody will read of.
fn losses(loaded: &EnforcementFact) -> Vec<Fact> {
    let sum = |of: fn(&EnforcedPort) -> u64| loaded.ports.iter().map(of).sum::<u64>();
    let health = |number: u64| if number > 0 { Health::Warning } else { Health::Ok };
    let (suppressed, lost) = (sum(|port| port.suppressed), sum(|port| port.lost));
    let words = |number: u64| format!("{} verdicts without a record", units::count(number));
    vec![
        Fact::new("losses", "beyond a port's share", health(suppressed), words(suppressed)),
        Fact::new("losses", "ring buffer full", health(lost), words(lost)),
    ]
}

#[cfg(test)]
mod tests {
    use netdiag_model::{
        floating::{FloatingIp, Owner, State},
        policy::types::PortId,
        status::Status,
    };

    use super::answered;
    use crate::{fixtures::enforced, tui::sheet::Health};

    #[test]
    fn a_floating_ip_that_is_held_stands_in_the_way_and_says_why() {
        let mut status = enforced::status();
        status.agent.problems.clear();
        (status.mistakes, status.refused) = (vec![], vec![]);
        let seen = |status: &Status| {
            let facts = answered(status, None);
            let of = |name: &str| facts.iter().find(|fact| fact.name == name).cloned();
            let held = of("held").map(|fact| (fact.health, fact.value));
            (of("state").map(|fact| fact.health), held)
        };
        assert_eq!(seen(&status), (Some(Health::Ok), None));
        status.floating_ips = Some(vec![FloatingIp {
            floating_ip_address: [203, 0, 113, 7].into(),
            fixed_ip_address: None,
            port_id: Some(PortId(status.ports[0].id.clone())),
            router: "host".to_owned(),
            owner: Owner::Netdiag,
            way: State::Broken { why: "there is no device eth7 on this host".to_owned() },
        }]);
        let says = (Health::Broken, "floating IP 203.0.113.7: there is no device eth7 on this host".to_owned());
        assert_eq!(seen(&status), (Some(Health::Broken), Some(says)));
    }
}
