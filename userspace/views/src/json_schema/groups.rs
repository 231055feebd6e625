//! The answers of `netdiag sg show` and `netdiag sg explain`. Rules are in Neutron's field names.

use netdiag_model::{
    fact::enforcement as fact,
    groups as model,
    policy::{
        convert::protocol_name,
        show::Condition,
        types::{Ethertype, Service},
    },
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    EnforcementDocument, FlowDocument, FlowsKnown, GapDocument, PacketVerdict, Published, RuleDirection,
    SCHEMA_VERSION, Verdict, published, texts,
};
use crate::time;

/// What is enforced at the ports of an instance.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag sg show")]
pub struct GroupsDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// Host the look was taken on.
    pub host: String,
    /// When the look was taken, RFC 3339 in UTC; null where the clock gave no instant.
    pub taken_at: Option<String>,
    /// The instance.
    pub instance: String,
    /// Whether anything of netdiag is loaded on this host; null where that could not be read.
    pub loaded: Option<bool>,
    /// Its ports.
    pub ports: Vec<GroupsPort>,
    /// The agent; null where none answers.
    pub agent: Option<AgentDocument>,
    /// The whole in one word; decides the exit code.
    pub verdict: Verdict,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<GapDocument>,
}

impl Published for model::Shown {
    type Document = GroupsDocument;

    fn document(&self) -> GroupsDocument {
        GroupsDocument {
            schema_version: SCHEMA_VERSION,
            host: self.hostname.clone(),
            taken_at: time::rfc3339(self.taken_at),
            instance: self.instance.clone(),
            loaded: self.loaded,
            ports: published(&self.ports),
            agent: self.agent.as_ref().map(AgentDocument::from),
            verdict: self.verdict.into(),
            gaps: published(&self.gaps),
        }
    }
}

/// One port.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupsPort {
    /// Name of the host's device.
    pub device: Option<String>,
    /// MAC address.
    pub mac: Option<String>,
    /// Addresses of the instance there, with the length of their prefix.
    pub addresses: Vec<String>,
    /// How it is enforced; null where netdiag has nothing to do with it.
    pub enforcement: Option<EnforcementDocument>,
    /// Its groups.
    pub groups: Vec<GroupDocument>,
    /// Its groups keep no state.
    pub stateless: bool,
    /// Its rules; null where they are not known, or decide nothing because everything or nothing passes.
    pub rules: Option<Vec<LoadedRuleDocument>>,
    /// Packets by direction and reason.
    pub counters: Vec<ReasonDocument>,
    /// Packets it has sent past its bridge, straight to instances there.
    pub straight: u64,
    /// Flows tracked now.
    pub flows: u64,
    /// Verdicts of which there is no record because the port had used up its share.
    pub suppressed: u64,
    /// Verdicts of which there is no record because the ring buffer was full.
    pub lost: u64,
}

impl From<&model::ShownPort> for GroupsPort {
    fn from(port: &model::ShownPort) -> Self {
        Self {
            device: port.device.clone(),
            mac: port.mac.map(|mac| mac.to_string()),
            addresses: texts(&port.addresses),
            enforcement: port.summary.as_ref().map(EnforcementDocument::from),
            groups: published(&port.groups),
            stateless: port.stateless,
            rules: port.rules.as_ref().map(|rules| published(rules)),
            counters: published(&port.counters),
            straight: port.straight,
            flows: port.flows,
            suppressed: port.suppressed,
            lost: port.lost,
        }
    }
}

/// A security group, or an address group.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupDocument {
    /// Its id.
    pub id: String,
    /// Its name; empty where it has none or nobody says it.
    pub name: String,
}

impl From<&model::GroupRef> for GroupDocument {
    fn from(group: &model::GroupRef) -> Self {
        Self { id: group.id.clone(), name: group.name.clone() }
    }
}

/// A rule of a port.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LoadedRuleDocument {
    /// Its id.
    pub id: String,
    /// In its author's words; null where nobody says them.
    pub rule: Option<GroupRuleDocument>,
    /// Directions it is loaded for.
    pub loaded: Vec<RuleDirection>,
    /// Flows it has allowed, on all ports of this host together; null where it is not loaded.
    pub hits: Option<u64>,
    /// Where what is loaded and what is asked meet in it.
    pub standing: RuleStanding,
}

impl From<&model::ShownRule> for LoadedRuleDocument {
    fn from(shown: &model::ShownRule) -> Self {
        Self {
            id: shown.id.clone(),
            rule: shown.rule.as_ref().map(GroupRuleDocument::from),
            loaded: shown.loaded.iter().map(|direction| (*direction).into()).collect(),
            hits: shown.hits,
            standing: shown.standing.into(),
        }
    }
}

/// Where what is loaded and what is asked meet in a rule.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RuleStanding {
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

impl From<model::Standing> for RuleStanding {
    fn from(standing: model::Standing) -> Self {
        match standing {
            model::Standing::InForce => Self::InForce,
            model::Standing::Covered => Self::Covered,
            model::Standing::Nobody => Self::Nobody,
            model::Standing::Missing => Self::Missing,
            model::Standing::Unread => Self::Unread,
            model::Standing::NotAsked => Self::NotAsked,
            model::Standing::Unasked => Self::Unasked,
        }
    }
}

/// A security group rule.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupRuleDocument {
    /// Its id.
    pub id: String,
    /// The group it is in.
    pub security_group: GroupDocument,
    /// Direction.
    pub direction: RuleDirection,
    /// `IPv4` or `IPv6`.
    pub ethertype: String,
    /// Name or number of the protocol; null is any.
    pub protocol: Option<String>,
    /// First port, or ICMP type; null is any.
    pub port_range_min: Option<u16>,
    /// Last port, or ICMP code; null is any.
    pub port_range_max: Option<u16>,
    /// Prefix of the other end.
    pub remote_ip_prefix: Option<String>,
    /// Group of the other end.
    pub remote_group: Option<GroupDocument>,
    /// Address group of the other end.
    pub remote_address_group: Option<GroupDocument>,
    /// How many members or prefixes that group has.
    pub remote_size: Option<usize>,
    /// What its author says about it.
    pub description: String,
}

impl From<&model::RuleRef> for GroupRuleDocument {
    fn from(rule: &model::RuleRef) -> Self {
        let (protocol, port_range_min, port_range_max) = match rule.service {
            Service::Any => (None, None, None),
            Service::Protocol(number) => (Some(number), None, None),
            Service::Ports { protocol, first, last } => (Some(protocol), Some(first), Some(last)),
            Service::Icmp { protocol, kind, code } => (Some(protocol), Some(kind.into()), code.map(u16::from)),
        };
        let mut document = Self {
            id: rule.id.clone(),
            security_group: (&rule.group).into(),
            direction: rule.direction.into(),
            ethertype: if rule.ethertype == Ethertype::IPv6 { "IPv6" } else { "IPv4" }.to_owned(),
            protocol: protocol.map(protocol_name),
            port_range_min,
            port_range_max,
            remote_ip_prefix: None,
            remote_group: None,
            remote_address_group: None,
            remote_size: None,
            description: rule.description.clone(),
        };
        match &rule.remote {
            model::RemoteRef::Any => {}
            model::RemoteRef::Prefix(net) => document.remote_ip_prefix = Some(net.to_string()),
            model::RemoteRef::Group(group, size) => {
                (document.remote_group, document.remote_size) = (Some(group.into()), Some(*size));
            }
            model::RemoteRef::AddressGroup(group, size) => {
                (document.remote_address_group, document.remote_size) = (Some(group.into()), Some(*size));
            }
        }
        document
    }
}

/// How many packets met a reason.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ReasonDocument {
    /// Direction.
    pub direction: RuleDirection,
    /// The reason, such as `no-rule`.
    pub reason: String,
    /// Whether packets with this reason pass; null where this netdiag does not know the reason.
    pub passes: Option<bool>,
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
}

impl From<&fact::ReasonCount> for ReasonDocument {
    fn from(count: &fact::ReasonCount) -> Self {
        Self {
            direction: count.direction.into(),
            reason: count.reason.clone(),
            passes: count.passes(),
            packets: count.packets,
            bytes: count.bytes,
        }
    }
}

/// What the agent says of itself.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AgentDocument {
    /// Its version.
    pub version: String,
    /// Its pid.
    pub pid: u32,
    /// When it started, RFC 3339 in UTC.
    pub since: Option<String>,
    /// When what is loaded last agreed with what is asked, RFC 3339 in UTC; null where it never did.
    pub converged: Option<String>,
    /// What keeps it from that.
    pub problems: Vec<String>,
}

impl From<&fact::AgentFact> for AgentDocument {
    fn from(agent: &fact::AgentFact) -> Self {
        Self {
            version: agent.version.clone(),
            pid: agent.pid,
            since: time::rfc3339(agent.since),
            converged: agent.converged.and_then(time::rfc3339),
            problems: agent.problems.clone(),
        }
    }
}

/// What would become of a packet at the groups of an instance.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag sg explain")]
pub struct ExplainDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// Host the look was taken on.
    pub host: String,
    /// When the look was taken, RFC 3339 in UTC; null where the clock gave no instant.
    pub taken_at: Option<String>,
    /// The instance whose groups are asked.
    pub instance: String,
    /// The instance at the other end, where it was asked for by name.
    pub other: Option<String>,
    /// Name of the host's device its packets cross.
    pub device: Option<String>,
    /// The port's id in the policy.
    pub port_id: Option<String>,
    /// Its groups.
    pub groups: Vec<GroupDocument>,
    /// Direction of the packet, as the instance sees it.
    pub direction: RuleDirection,
    /// Address of the instance.
    pub local_address: String,
    /// Address of the other end.
    pub remote_address: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; null where the protocol has none.
    pub port: Option<u16>,
    /// ICMP type.
    pub icmp_type: Option<u8>,
    /// ICMP code.
    pub icmp_code: Option<u8>,
    /// Whether what is loaded is known.
    pub known: FlowsKnown,
    /// What is decided by what is loaded; null where that could not be read, or nothing is enforced here.
    pub loaded: Option<AnswerDocument>,
    /// What would be decided by what is asked for; null where that is not known.
    pub asked: Option<AnswerDocument>,
    /// Whether the two agree; null where one of them is not known.
    pub agrees: Option<bool>,
    /// Rules that nearly allow the packet.
    pub near_misses: Vec<NearMissDocument>,
    /// Flows that are tracked already for the same service between the two.
    pub flows: Vec<FlowDocument>,
    /// What else to know.
    pub notes: Vec<String>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<GapDocument>,
}

impl Published for model::Explained {
    type Document = ExplainDocument;

    fn document(&self) -> ExplainDocument {
        let model::Seen { direction, remote, protocol, service } = self.packet;
        let icmp = matches!(protocol, 1 | 58);
        let [kind, code] = service.unwrap_or_default().to_be_bytes();
        let row = |flow: &fact::FlowFact| model::FlowRow {
            instance: Some(self.instance.clone()),
            port_id: self.port_id.clone().unwrap_or_default(),
            device: self.device.clone(),
            rule: None,
            flow: flow.clone(),
        };
        ExplainDocument {
            schema_version: SCHEMA_VERSION,
            host: self.hostname.clone(),
            taken_at: time::rfc3339(self.taken_at),
            instance: self.instance.clone(),
            other: self.other.clone(),
            device: self.device.clone(),
            port_id: self.port_id.clone(),
            groups: published(&self.groups),
            direction: direction.into(),
            local_address: self.local.to_string(),
            remote_address: remote.to_string(),
            protocol,
            port: service.filter(|_| !icmp),
            icmp_type: (icmp && service.is_some()).then_some(kind),
            icmp_code: (icmp && service.is_some()).then_some(code),
            known: self.known.into(),
            loaded: self.loaded.as_ref().map(AnswerDocument::from),
            asked: self.asked.as_ref().map(AnswerDocument::from),
            agrees: self.agrees(),
            near_misses: published(&self.near),
            flows: self.flows.iter().map(|flow| (&row(flow)).into()).collect(),
            notes: self.notes.clone(),
            gaps: published(&self.gaps),
        }
    }
}

/// What becomes of a packet, and why.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AnswerDocument {
    /// Whether it passes.
    pub verdict: PacketVerdict,
    /// Why, such as `no-rule`.
    pub reason: String,
    /// What that means.
    pub meaning: String,
    /// Id of the rule that allows it.
    pub rule_id: Option<String>,
    /// The rule in its author's words, where somebody says them.
    pub rule: Option<GroupRuleDocument>,
}

impl From<&model::Answer> for AnswerDocument {
    fn from(answer: &model::Answer) -> Self {
        Self {
            verdict: answer.decision.into(),
            reason: answer.reason.clone(),
            meaning: answer.meaning.clone(),
            rule_id: answer.rule_id.clone(),
            rule: answer.rule.as_ref().map(GroupRuleDocument::from),
        }
    }
}

/// A rule that nearly allows a packet.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NearMissDocument {
    /// The rule.
    pub rule: GroupRuleDocument,
    /// The one condition that fails, such as `remote`; readers should expect words they do not know.
    pub condition: String,
    /// What the rule wants and what the packet has, as the end of a sentence about the rule.
    pub why: String,
}

impl From<&model::NearMiss> for NearMissDocument {
    fn from(miss: &model::NearMiss) -> Self {
        Self { rule: (&miss.rule).into(), condition: condition(miss.condition).to_owned(), why: miss.why.clone() }
    }
}

/// The word for a condition.
const fn condition(condition: Condition) -> &'static str {
    match condition {
        Condition::Remote => "remote",
        Condition::Port => "port",
        Condition::Protocol => "protocol",
        Condition::Ethertype => "ethertype",
        Condition::Group => "group",
    }
}
