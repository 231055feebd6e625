//! The answer of `netdiag agent status`.

use std::net::Ipv4Addr;

use netdiag_model::{floating::FloatingIp, policy::wire::Mistake, status as model};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Published, SCHEMA_VERSION, published};
use crate::time;

/// How the agent is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag agent status")]
pub struct StatusDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// True where what is loaded is what is asked for, and nothing stands in the way.
    pub well: bool,
    /// The agent's version.
    pub version: String,
    /// Its pid.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub since: Option<String>,
    /// Seconds since then.
    pub uptime: u64,
    /// When what is loaded last agreed with what is asked, RFC 3339.
    pub converged: Option<String>,
    /// Directory the maps are pinned in.
    pub pinned: String,
    /// Policy files in force.
    pub files: Vec<String>,
    /// Security groups asked for.
    pub security_groups: usize,
    /// Rules of all of them.
    pub rules: usize,
    /// Address groups asked for.
    pub address_groups: usize,
    /// Ports asked for, those of other hosts too.
    pub ports_asked: usize,
    /// Ports that are enforced.
    pub ports: Vec<PortDocument>,
    /// Ports that are asked for, are on this host, and cannot be enforced.
    pub refused: Vec<RefusedDocument>,
    /// Floating IPs that are asked of netdiag, whose port is on this host, and that are not served.
    pub held: Vec<HeldDocument>,
    /// What is wrong with the policy as it is written now; the last good one is in force.
    pub mistakes: Vec<MistakeDocument>,
    /// What else keeps the agent from converging.
    pub problems: Vec<String>,
    /// Flows tracked now.
    pub flows: u64,
    /// Events not written because a port had used up its share.
    pub events_suppressed: u64,
    /// Events not written because the ring buffer was full.
    pub events_lost: u64,
    /// Passes of the loop that ended well.
    pub passes_done: u64,
    /// Passes that failed.
    pub passes_failed: u64,
    /// How long the last pass took, in milliseconds.
    pub last_pass_ms: u64,
}

/// A port that is enforced.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PortDocument {
    /// Its id.
    pub id: String,
    /// Name of the instance behind it; null where only its device is known.
    pub instance: Option<String>,
    /// Name of the host's device.
    pub device: String,
    /// How programs are attached.
    pub hooks: Vec<String>,
    /// What becomes of its packets: `filtered`, `trusted`, `closed`.
    pub mode: String,
}

/// A port that cannot be enforced.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RefusedDocument {
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// A floating IP that is not served.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HeldDocument {
    /// The address the outside knows.
    pub floating_ip_address: Ipv4Addr,
    /// Why not.
    pub reason: String,
}

/// A mistake in the policy.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MistakeDocument {
    /// The file.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The object; empty where the file as a whole is meant.
    pub object: String,
    /// The field; empty where the object as a whole is meant.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What would be right, where that can be listed.
    pub valid: Vec<String>,
}

impl Published for model::Status {
    type Document = StatusDocument;

    fn document(&self) -> StatusDocument {
        let Self { agent, asked, losses, passes, .. } = self;
        StatusDocument {
            schema_version: SCHEMA_VERSION,
            well: self.is_well(),
            version: agent.version.clone(),
            pid: agent.pid,
            since: time::rfc3339(agent.since),
            uptime: self.now.saturating_sub(agent.since),
            converged: agent.converged.and_then(time::rfc3339),
            pinned: self.pinned.clone(),
            files: self.files.clone(),
            security_groups: asked.security_groups,
            rules: asked.rules,
            address_groups: asked.address_groups,
            ports_asked: asked.ports,
            ports: published(&self.ports),
            refused: self.refused.iter().map(refused).collect(),
            held: self.held().map(held).collect(),
            mistakes: published(&self.mistakes),
            problems: agent.problems.clone(),
            flows: self.flows,
            events_suppressed: losses.suppressed,
            events_lost: losses.lost,
            passes_done: passes.done,
            passes_failed: passes.failed,
            last_pass_ms: passes.last_ms,
        }
    }
}

fn held((one, why): (&FloatingIp, &str)) -> HeldDocument {
    HeldDocument { floating_ip_address: one.floating_ip_address, reason: why.to_owned() }
}

fn refused(port: &netdiag_model::fact::enforcement::RefusedPort) -> RefusedDocument {
    RefusedDocument { id: port.port_id.clone(), reason: port.why.clone() }
}

impl From<&model::PortStatus> for PortDocument {
    fn from(port: &model::PortStatus) -> Self {
        let model::PortStatus { id, instance, device, hooks, mode } = port.clone();
        Self { id, instance, device, hooks, mode: mode.name().to_owned() }
    }
}

impl From<&Mistake> for MistakeDocument {
    fn from(mistake: &Mistake) -> Self {
        let Mistake { file, line, object, field, why: reason, valid } = mistake.clone();
        Self { file, line, object, field, reason, valid: valid.to_vec() }
    }
}
