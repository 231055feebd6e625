//! What would become of a packet at the groups of one instance: the answer of `netdiag sg explain`. Flow: explain.
//!
//! The datapath's own decision is asked, over the tables that are really loaded. What is asked for is evaluated beside it,
//! and a difference is said.

use std::net::IpAddr;

use netdiag_common::{
    abi::reason::Reason,
    logic::{
        decide::{Ask, decide},
        frame::Slice,
        packet::Packet,
    },
};
use serde::Serialize;

use super::{
    asked::{Asked, GroupRef, RuleRef},
    flows::Known,
    loaded,
    near::{self, NearMiss, Seen},
    probe::{self, NoFlows},
};
use crate::{
    event::Decision,
    fact::{
        Gap, SourceKind,
        enforcement::{AgentFact, EnforcedPort, EnforcementFact, FlowFact, has_ports},
    },
    inventory::{Enforcement, Instance, Inventory, Nic},
    policy::{
        show::Explanation,
        types::{Direction, Port},
    },
};

/// Who talks to whom.
mod ends;

pub use ends::{Asking, Unclear};

/// The answer of `netdiag sg explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Host the look was taken on.
    pub hostname: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub taken_at: u64,
    /// The instance whose groups are asked.
    pub instance: String,
    /// Its address in this question.
    pub local: IpAddr,
    /// Name of the host's device its packets cross.
    pub device: Option<String>,
    /// The port's id in the policy.
    pub port_id: Option<String>,
    /// Its groups.
    pub groups: Vec<GroupRef>,
    /// The instance at the other end, where it was asked for by name.
    pub other: Option<String>,
    /// The packet.
    pub packet: Seen,
    /// Whether what is loaded is known.
    pub known: Known,
    /// What is decided by what is loaded; none where that could not be read, or nothing is enforced here.
    pub loaded: Option<Answer>,
    /// What would be decided by what is asked for; none where that is not known.
    pub asked: Option<Answer>,
    /// Rules that nearly allow the packet; of the policy that is asked for.
    pub near: Vec<NearMiss>,
    /// Flows that are tracked already for the same service between the two.
    pub flows: Vec<FlowFact>,
    /// What else to know.
    pub notes: Vec<String>,
    /// The agent; none where none answers.
    pub agent: Option<AgentFact>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<Gap>,
}

/// What becomes of the packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether it passes.
    pub decision: Decision,
    /// Name of the reason.
    pub reason: String,
    /// What the reason means.
    pub meaning: String,
    /// Id of the rule that allows it.
    pub rule_id: Option<String>,
    /// The rule in its author's words, where somebody says them.
    pub rule: Option<RuleRef>,
}

impl Explained {
    /// Whether what is loaded decides as what is asked for would; none where one of them is not known.
    pub fn agrees(&self) -> Option<bool> {
        let (loaded, asked) = (self.loaded.as_ref()?, self.asked.as_ref()?);
        // A sender that may not send from its address is refused whatever the rules; the policy is not asked about that.
        let spoofed = ["mac-spoof", "ip-spoof"].contains(&loaded.reason.as_str());
        Some(spoofed || loaded.decision == asked.decision)
    }
}

/// Explains what would become of a packet.
///
/// # Errors
/// One end means nobody or several, or neither or both are the instance.
pub fn explain(inventory: &Inventory<'_>, instance: &Instance<'_>, asking: &Asking<'_>) -> Result<Explained, Unclear> {
    let ends = ends::find(inventory, instance, asking)?;
    let facts = &inventory.snapshot.facts;
    let fact = facts.enforcement.as_ref();
    let asked = inventory.asked();
    let enforcement = inventory.enforcement(ends.nic);
    let (port, wanted) = match enforcement {
        Enforcement::Port(port) => (Some(port), asked.and_then(|asked| asked.port(&port.port_id))),
        Enforcement::Refused(port) => (None, asked.and_then(|asked| asked.port(&port.port_id))),
        Enforcement::Absent | Enforcement::Unknown | Enforcement::Unmanaged => (None, None),
    };
    let wanted = asked.zip(wanted);
    let loaded = port.zip(fact).and_then(|(port, fact)| by_tables(port, fact, &ends, asked));
    let attached = port.zip(fact).map(|(port, fact)| near::attached(port, fact));
    let explanation = wanted.and_then(|(asked, wanted)| {
        let own = || near::unenforced(&wanted.id.0, [ends.local].into());
        near::explanation(asked, wanted, &attached.clone().unwrap_or_else(own), ends.local, &ends.packet)
    });
    let answer = asked.zip(explanation.as_ref()).map(|(asked, explanation)| by_policy(asked, explanation));
    let near = asked.zip(explanation.as_ref()).filter(|_| port.is_some());
    let near = near.map(|(asked, explanation)| near::near(asked, explanation)).unwrap_or_default();
    Ok(Explained {
        hostname: inventory.snapshot.hostname.clone(),
        taken_at: inventory.snapshot.taken_at,
        instance: instance.identity.name.clone(),
        local: ends.local,
        device: ends.nic.outer_name(inventory).map(str::to_owned),
        port_id: port.map(|port| port.port_id.clone()),
        groups: groups(port, wanted),
        other: ends.other.map(|other| other.identity.name.clone()),
        packet: ends.packet,
        known: match enforcement {
            Enforcement::Absent | Enforcement::Unmanaged | Enforcement::Refused(_) => Known::NotEnforced,
            Enforcement::Port(_) if loaded.is_some() => Known::Read,
            Enforcement::Port(_) | Enforcement::Unknown => Known::Unread,
        },
        loaded,
        asked: answer,
        near,
        flows: port.zip(fact).map(|(port, fact)| tracked(port, fact, &ends)).unwrap_or_default(),
        notes: notes(inventory, instance, &ends, asked.is_some()),
        agent: fact.and_then(|fact| fact.agent.clone()),
        gaps: facts.gaps().filter(|gap| gap.source == SourceKind::Enforcement && !gap.absent).cloned().collect(),
    })
}

fn groups(port: Option<&EnforcedPort>, wanted: Option<(&Asked, &Port)>) -> Vec<GroupRef> {
    if let Some((asked, port)) = wanted {
        return port.groups.iter().map(|id| asked.group(id)).collect();
    }
    let ids = port.map_or(&[][..], |port| &port.groups);
    ids.iter().map(|id| GroupRef { id: id.clone(), name: String::new() }).collect()
}

/// What the datapath decides, by the tables that are loaded.
fn by_tables(
    port: &EnforcedPort,
    fact: &EnforcementFact,
    ends: &ends::Ends<'_, '_>,
    asked: Option<&Asked>,
) -> Option<Answer> {
    let tables = loaded::tables(fact.tables.as_ref()?);
    let ingress = ends.packet.direction == Direction::Ingress;
    if port.hook(ends.packet.direction).is_none() {
        return Some(Answer {
            meaning: format!("No program is attached for {}: it passes unseen.", ends.packet.direction.name()),
            ..answer(Reason::Unmanaged)
        });
    }
    let bytes = probe::frame(&ends.packet, ends.local, port.mac);
    let frame = Slice { bytes: &bytes, tagged: false };
    let mut packet = Packet::default();
    let ask = Ask { slot: port.slot, ingress, now: 0, local: 0 };
    let reason = decide(&frame, &tables, &mut NoFlows, ask, &mut packet);
    let rule_id = fact.rules.iter().find(|rule| packet.rule != 0 && rule.index == packet.rule).map(|rule| &rule.id);
    Some(Answer { rule: rule_id.and_then(|id| asked?.rule(id)), rule_id: rule_id.cloned(), ..answer(reason) })
}

fn answer(reason: Reason) -> Answer {
    Answer {
        decision: if reason.passes() { Decision::Allow } else { Decision::Deny },
        reason: reason.name().to_owned(),
        meaning: reason.meaning().trim().to_owned(),
        rule_id: None,
        rule: None,
    }
}

/// What is asked for would decide.
fn by_policy(asked: &Asked, explanation: &Explanation) -> Answer {
    let rule = explanation.rules.first().and_then(|id| asked.rule(&id.0));
    Answer { rule_id: rule.as_ref().map(|rule| rule.id.clone()), rule, ..answer(explanation.verdict) }
}

/// Flows that are tracked already.
fn tracked(port: &EnforcedPort, fact: &EnforcementFact, ends: &ends::Ends<'_, '_>) -> Vec<FlowFact> {
    let Seen { direction, remote, protocol, service } = ends.packet;
    let same_service = |flow: &FlowFact| {
        let asked = if direction == Direction::Ingress { flow.local_port } else { flow.remote_port };
        !has_ports(protocol) || service.is_none_or(|service| asked == service)
    };
    let same = |flow: &&FlowFact| {
        flow.slot == port.slot
            && flow.direction == direction
            && (flow.local, flow.remote, flow.protocol) == (ends.local, remote, protocol)
            && same_service(flow)
    };
    fact.tracked.iter().flatten().filter(same).cloned().collect()
}

fn notes(inventory: &Inventory<'_>, instance: &Instance<'_>, ends: &ends::Ends<'_, '_>, asked: bool) -> Vec<String> {
    let name = &instance.identity.name;
    let mut notes = Vec::new();
    match inventory.enforcement(ends.nic) {
        Enforcement::Absent | Enforcement::Unmanaged => notes.push(format!(
            "netdiag enforces no security group at this port of {name}: it refuses nothing here; netdiag trace says what else may"
        )),
        Enforcement::Unknown => notes.push("whether netdiag enforces anything here could not be read".to_owned()),
        Enforcement::Refused(port) => {
            notes.push(format!("its groups cannot be enforced here, so everything passes: {}", port.why));
        }
        Enforcement::Port(_) if !asked => {
            notes.push("what is asked for is not known, since no agent answers: near misses need it".to_owned());
        }
        Enforcement::Port(_) => {}
    }
    if let Some(other) = ends.other
        && other.nics.iter().any(|nic: &Nic<'_>| matches!(inventory.enforcement(nic), Enforcement::Port(_)))
    {
        let other = &other.identity.name;
        notes.push(format!("the groups of {other} decide about the same packet: ask netdiag sg explain {other} too"));
    }
    notes
}
