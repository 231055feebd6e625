//! The answer of `netdiag flows`.

use netdiag_model::{groups as model, policy::types};
use schemars::JsonSchema;
use serde::Serialize;

use super::{GapDocument, Published, SCHEMA_VERSION, published};
use crate::time;

/// The flows the datapath tracks.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag flows")]
pub struct FlowsDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// Host the look was taken on.
    pub host: String,
    /// When the look was taken, RFC 3339 in UTC; null where the clock gave no instant.
    pub taken_at: Option<String>,
    /// The instance asked for; null for all.
    pub instance: Option<String>,
    /// Whether the flows are known.
    pub known: FlowsKnown,
    /// How many flows are tracked, of this instance or of all, whatever the filter.
    pub total: usize,
    /// The flows the filter lets through.
    pub flows: Vec<FlowDocument>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<GapDocument>,
}

impl Published for model::Flows {
    type Document = FlowsDocument;

    fn document(&self) -> FlowsDocument {
        FlowsDocument {
            schema_version: SCHEMA_VERSION,
            host: self.hostname.clone(),
            taken_at: time::rfc3339(self.taken_at),
            instance: self.instance.clone(),
            known: self.known.into(),
            total: self.total,
            flows: published(&self.rows),
            gaps: published(&self.gaps),
        }
    }
}

/// Whether the flows are known.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlowsKnown {
    /// They are.
    Read,
    /// Nothing of netdiag is loaded here, so nothing is tracked.
    NotEnforced,
    /// They could not be read, or the snapshot holds none.
    Unread,
}

impl From<model::Known> for FlowsKnown {
    fn from(known: model::Known) -> Self {
        match known {
            model::Known::Read => Self::Read,
            model::Known::NotEnforced => Self::NotEnforced,
            model::Known::Unread => Self::Unread,
        }
    }
}

/// Direction relative to the instance, as Neutron means it.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleDirection {
    /// To the instance.
    Ingress,
    /// From the instance.
    Egress,
}

impl From<types::Direction> for RuleDirection {
    fn from(direction: types::Direction) -> Self {
        match direction {
            types::Direction::Ingress => Self::Ingress,
            types::Direction::Egress => Self::Egress,
        }
    }
}

/// One flow, as the port of one instance sees it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FlowDocument {
    /// The instance; null where no instance of this host has the port.
    pub instance: Option<String>,
    /// The port's id.
    pub port_id: String,
    /// Name of the host's device.
    pub device: Option<String>,
    /// Which way its first packet went.
    pub direction: RuleDirection,
    /// IP protocol number.
    pub protocol: u8,
    /// Address at the instance.
    pub local_address: String,
    /// Port at the instance; the identifier of an ICMP query; 0 for protocols without ports.
    pub local_port: u16,
    /// Address of the other end.
    pub remote_address: String,
    /// Port of the other end; the type of an ICMP request; 0 for protocols without ports.
    pub remote_port: u16,
    /// Its state, such as `established`.
    pub state: String,
    /// Id of the rule that allows it; null where no such rule is loaded any more.
    pub rule: Option<String>,
    /// Seconds since it began.
    pub age_seconds: u64,
    /// Seconds since a packet of it was last seen.
    pub idle_seconds: u64,
    /// What had allowed it is gone: nothing of it passes.
    pub dead: bool,
    /// Silent for longer than its state allows: its next packet begins anew.
    pub expired: bool,
}

impl From<&model::FlowRow> for FlowDocument {
    fn from(row: &model::FlowRow) -> Self {
        let flow = &row.flow;
        Self {
            instance: row.instance.clone(),
            port_id: row.port_id.clone(),
            device: row.device.clone(),
            direction: flow.direction.into(),
            protocol: flow.protocol,
            local_address: flow.local.to_string(),
            local_port: flow.local_port,
            remote_address: flow.remote.to_string(),
            remote_port: flow.remote_port,
            state: flow.state.clone(),
            rule: row.rule.clone(),
            age_seconds: flow.age,
            idle_seconds: flow.idle,
            dead: flow.dead,
            expired: flow.expired,
        }
    }
}
