//! One line of `netdiag events -o json`.

use netdiag_model::event as model;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Published, RuleDirection, SCHEMA_VERSION};
use crate::time;

/// What the datapath said: about a packet, or about records that were lost.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag events")]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventDocument {
    /// A packet met its verdict: refused, or the first of a flow that is allowed.
    Verdict(VerdictDocument),
    /// Verdicts of which there is no line.
    Lost(LossDocument),
}

impl Published for model::Event {
    type Document = EventDocument;

    fn document(&self) -> EventDocument {
        match self {
            Self::Verdict(verdict) => EventDocument::Verdict(verdict.into()),
            Self::Lost(loss) => EventDocument::Lost(loss.into()),
        }
    }
}

/// A packet met its verdict.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VerdictDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// When, RFC 3339 in UTC; null where the clock gave no instant.
    pub time: Option<String>,
    /// The instance; null where its name is not known.
    pub instance: Option<String>,
    /// The port's id.
    pub port_id: String,
    /// Name of the host's device.
    pub device: Option<String>,
    /// Direction.
    pub direction: RuleDirection,
    /// Whether it passed.
    pub verdict: PacketVerdict,
    /// Why, such as `no-rule`.
    pub reason: String,
    /// Whether it is multicast of the link that no rule allows to the instance, such as listener reports and router solicitations:
    /// every bridge is full of it.
    pub refused_multicast: bool,
    /// Ethertype.
    pub ethertype: u16,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source address.
    pub source_address: Option<String>,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination address.
    pub destination_address: Option<String>,
    /// Destination port; type * 256 + code for ICMP; 0 where the protocol has none.
    pub destination_port: u16,
    /// Id of the rule that allowed it.
    pub rule: Option<String>,
    /// Length from the link-layer header on, in bytes.
    pub length: u32,
}

impl From<&model::VerdictEvent> for VerdictDocument {
    fn from(event: &model::VerdictEvent) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            time: time::rfc3339_exact(event.time_ns),
            instance: event.instance.clone(),
            port_id: event.port_id.clone(),
            device: event.device.clone(),
            direction: event.direction.into(),
            verdict: event.verdict.into(),
            reason: event.reason.clone(),
            refused_multicast: event.is_refused_multicast(),
            ethertype: event.ethertype,
            protocol: event.protocol,
            source_address: event.source.map(|address| address.to_string()),
            source_port: event.source_port,
            destination_address: event.destination.map(|address| address.to_string()),
            destination_port: event.destination_port,
            rule: event.rule.clone(),
            length: event.length,
        }
    }
}

/// Whether a packet passes.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PacketVerdict {
    /// It passes.
    Allow,
    /// It ends here.
    Deny,
}

impl From<model::Decision> for PacketVerdict {
    fn from(decision: model::Decision) -> Self {
        match decision {
            model::Decision::Allow => Self::Allow,
            model::Decision::Deny => Self::Deny,
        }
    }
}

/// Verdicts of which there is no line.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LossDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// When it was noticed, RFC 3339 in UTC; null where the clock gave no instant.
    pub time: Option<String>,
    /// The port whose records they were; null where they may be anybody's.
    pub port_id: Option<String>,
    /// Records the kernel did not write because the port had used up its share.
    pub suppressed: u64,
    /// Records for which the ring buffer had no room.
    pub lost: u64,
    /// Records this reader was too slow for, or that an agent read and did not hand on before it ended.
    pub skipped: u64,
}

impl From<&model::LossEvent> for LossDocument {
    fn from(loss: &model::LossEvent) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            time: time::rfc3339_exact(loss.time_ns),
            port_id: loss.port_id.clone(),
            suppressed: loss.suppressed,
            lost: loss.lost,
            skipped: loss.skipped,
        }
    }
}
