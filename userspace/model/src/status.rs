//! How the agent is: what its API says at `/v1/status`. Flow: policy.

use serde::{Deserialize, Serialize};

use crate::{
    fact::enforcement::{AgentFact, RefusedPort},
    floating::FloatingIp,
    policy::{types::Mode, wire::Mistake},
};

/// How the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What it says of itself.
    #[serde(flatten)]
    pub agent: AgentFact,
    /// When it answered, seconds since 1970.
    pub now: u64,
    /// Where its maps are pinned.
    pub pinned: String,
    /// Policy files in force.
    pub files: Vec<String>,
    /// Objects asked for.
    pub asked: Asked,
    /// What is wrong with the policy as it is written now. The last good one is in force.
    pub mistakes: Vec<Mistake>,
    /// Ports that are enforced.
    pub ports: Vec<PortStatus>,
    /// Ports that are asked for, are on this host, and cannot be enforced.
    pub refused: Vec<RefusedPort>,
    /// Floating IPs of this host, and which way each of them goes; none until their routers have been looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floating_ips: Option<Vec<FloatingIp>>,
    /// Flows tracked now.
    pub flows: u64,
    /// Records that nobody will read.
    pub losses: Losses,
    /// The passes of the loop.
    pub passes: Passes,
}

/// How much is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Security groups.
    pub security_groups: usize,
    /// Rules of all of them.
    pub rules: usize,
    /// Address groups.
    pub address_groups: usize,
    /// Ports, those of other hosts too.
    pub ports: usize,
}

/// A port that is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its id.
    pub id: String,
    /// Name of the instance behind it; none where only its device is known.
    #[serde(default)]
    pub instance: Option<String>,
    /// Name of the host's device.
    pub device: String,
    /// How programs are attached: `tcx ingress, tcx egress`.
    pub hooks: Vec<String>,
    /// What becomes of its packets.
    pub mode: Mode,
}

/// Records that nobody will read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Not written because a port had used up its share.
    pub suppressed: u64,
    /// Not written because the ring buffer was full.
    pub lost: u64,
}

/// The passes of the loop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passes {
    /// How many ended well.
    pub done: u64,
    /// How many failed.
    pub failed: u64,
    /// How long the last one took, in milliseconds.
    pub last_ms: u64,
}

impl Status {
    /// Whether what is loaded agrees with what is asked, and nothing stands in the way.
    pub fn is_well(&self) -> bool {
        let Self { agent, mistakes, refused, .. } = self;
        agent.converged.is_some() && agent.problems.is_empty() && mistakes.is_empty() && refused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Status;
    use crate::fact::enforcement::RefusedPort;

    #[test]
    fn an_agent_is_well_once_it_has_converged_and_as_long_as_nothing_is_wrong() {
        let mut status = Status::default();
        assert!(!status.is_well(), "it has not converged yet");
        status.agent.converged = Some(1);
        assert!(status.is_well());
        status.refused.push(RefusedPort { port_id: "p".to_owned(), ifindex: None, why: "no hook".to_owned() });
        assert!(!status.is_well());
    }
}
