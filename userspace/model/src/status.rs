//! How the agent is: what its API says at `/v1/status`. Flow: policy.

use serde::{Deserialize, Serialize};

use crate::{
    fact::enforcement::{AgentFact, RefusedPort},
    floating::{FloatingIp, Owner, State},
    policy::{
        types::{Mode, PortId},
        wire::Mistake,
    },
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
        let nothing_wrong = agent.problems.is_empty() && mistakes.is_empty() && refused.is_empty();
        agent.converged.is_some() && nothing_wrong && self.held().next().is_none()
    }

    /// Floating IPs of the policy whose port is enforced on this host and that are not served, and why not. That of a port of another
    /// host is for that one to serve.
    pub fn held(&self) -> impl Iterator<Item = (&FloatingIp, &str)> {
        let is_here = |id: &PortId| self.ports.iter().any(|port| port.id == id.0);
        self.floating_ips.iter().flatten().filter_map(move |one| match &one.way {
            State::Broken { why } if one.owner == Owner::Netdiag && one.port_id.as_ref().is_some_and(is_here) => {
                Some((one, why.as_str()))
            }
            State::Fast(_) | State::Slow { .. } | State::Broken { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{FloatingIp, Mode, Owner, PortId, PortStatus, State, Status};
    use crate::fact::enforcement::{AgentFact, RefusedPort};

    #[test]
    fn an_agent_is_well_once_it_has_converged_and_as_long_as_nothing_is_wrong() {
        let mut status = Status::default();
        assert!(!status.is_well(), "it has not converged yet");
        status.agent.converged = Some(1);
        assert!(status.is_well());
        status.refused.push(RefusedPort { port_id: "p".to_owned(), ifindex: None, why: "no hook".to_owned() });
        assert!(!status.is_well());
    }

    #[test]
    fn a_floating_ip_that_is_held_stands_in_the_way_where_its_port_is_and_nowhere_else() {
        let port = PortStatus {
            id: "web".to_owned(),
            instance: None,
            device: "tap0".to_owned(),
            hooks: vec![],
            mode: Mode::Filtered,
        };
        let agent = AgentFact { converged: Some(1), ..AgentFact::default() };
        let broken = || State::Broken { why: "there is no device eth7 on this host".to_owned() };
        let with = |port_id: Option<&str>, owner: Owner, way: State| {
            let made = FloatingIp {
                floating_ip_address: [203, 0, 113, 7].into(),
                fixed_ip_address: None,
                port_id: port_id.map(|id| PortId(id.to_owned())),
                router: "host".to_owned(),
                owner,
                way,
            };
            let (agent, ports) = (agent.clone(), vec![port.clone()]);
            Status { agent, ports, floating_ips: Some(vec![made]), ..Status::default() }
        };
        let held = with(Some("web"), Owner::Netdiag, broken());
        assert_eq!(held.held().map(|(_, why)| why).collect::<Vec<_>>(), ["there is no device eth7 on this host"]);
        assert!(!held.is_well());
        for (port, owner, way) in [
            (Some("elsewhere"), Owner::Netdiag, broken()),
            (None, Owner::Netdiag, broken()),
            (Some("web"), Owner::Found, broken()),
            (Some("web"), Owner::Netdiag, State::Slow { why: String::new() }),
        ] {
            assert!(with(port, owner, way).is_well(), "{port:?}");
        }
    }
}
