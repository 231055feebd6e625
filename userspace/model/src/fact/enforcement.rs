//! Security groups as they are enforced: what the pinned maps really hold, and what the agent says of itself. Flow: discover.

use std::net::{IpAddr, Ipv4Addr};

use netdiag_common::abi::{floating::Way, reason::Reason};
use serde::{Deserialize, Serialize};

use crate::{
    floating::FloatingIp,
    id::{IfIndex, Mac},
    policy::types::{Direction, Mode},
};

/// The policy maps, entry by entry.
pub mod tables;

pub use tables::LoadedTables;

/// What is loaded on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnforcementFact {
    /// Directory the maps are pinned in.
    pub pinned: String,
    /// Version of the maps' layout.
    pub abi: u32,
    /// The agent; none where nobody answers at its socket. The maps go on enforcing without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentFact>,
    /// Ports that are enforced.
    pub ports: Vec<EnforcedPort>,
    /// Rules in force, on all ports together.
    pub rules: Vec<LoadedRule>,
    /// Flows tracked now.
    pub flows: u64,
    /// What is asked for, as the agent has it: a document in the words of files and of the API. None without an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<serde_json::Value>,
    /// Ports that are asked for, are on this host, and cannot be enforced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedPort>,
    /// What the policy maps hold; none where they could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<LoadedTables>,
    /// The flows themselves; none where they were not asked for or could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracked: Option<Vec<FlowFact>>,
    /// Floating IPs that go past their routers, as the maps have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub floating: Vec<LoadedFloating>,
    /// Every floating IP of this host with the way that the agent found for it; none without an agent, or until it has looked
    /// at the routers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floating_ips: Option<Vec<FloatingIp>>,
}

/// A floating IP that goes past its router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LoadedFloating {
    /// The address the outside knows.
    pub floating: Ipv4Addr,
    /// The address it stands for.
    pub fixed: Ipv4Addr,
    /// Place of its port.
    pub slot: u32,
    /// The external device.
    pub ifindex: IfIndex,
    /// VLAN of the external network there; 0 is untagged.
    #[serde(default)]
    pub vlan: u16,
    /// New flows may begin past the router.
    pub begins: bool,
}

/// How many packets of a port's floating IPs took a way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WayCount {
    /// Direction.
    pub direction: Direction,
    /// Name of the way.
    pub way: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
}

impl WayCount {
    /// True of packets that went past the router.
    pub fn is_fast(&self) -> bool {
        self.way == Way::Fast.name()
    }

    /// True of packets that were left to the router.
    pub fn is_slow(&self) -> bool {
        let others = [Way::Fast, Way::Refused, Way::Straight];
        !others.iter().any(|way| way.name() == self.way)
    }
}

/// A port that is asked for and cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RefusedPort {
    /// The port's id.
    pub port_id: String,
    /// The host's device, where one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<IfIndex>,
    /// Why no hook can hold there.
    pub why: String,
}

/// A tracked flow, as one port sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFact {
    /// Place of the port.
    pub slot: u32,
    /// Which way its first packet went.
    pub direction: Direction,
    /// IP protocol.
    pub protocol: u8,
    /// Address at the instance.
    pub local: IpAddr,
    /// Port at the instance; the identifier of an ICMP query; 0 for protocols without ports.
    pub local_port: u16,
    /// Address of the other end.
    pub remote: IpAddr,
    /// Port of the other end; the type of an ICMP request; 0 for protocols without ports.
    pub remote_port: u16,
    /// Its state in the tracker's word: `established`.
    pub state: String,
    /// The rule that allows it: [`LoadedRule::index`].
    pub rule: u32,
    /// Seconds since it began.
    pub age: u64,
    /// Seconds since a packet of it was last seen.
    pub idle: u64,
    /// What had allowed it is gone: nothing of it passes.
    #[serde(default)]
    pub dead: bool,
    /// Silent for longer than its state allows: its next packet begins anew.
    #[serde(default)]
    pub expired: bool,
}

/// Whether packets of an IP protocol carry ports.
pub const fn has_ports(protocol: u8) -> bool {
    netdiag_common::logic::flow::protocol::has_ports(protocol)
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentFact {
    /// Its version.
    pub version: String,
    /// Its pid.
    pub pid: u32,
    /// When it started, seconds since 1970.
    pub since: u64,
    /// When what is loaded last agreed with what is asked, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub converged: Option<u64>,
    /// What keeps it from that: an object of the policy or of the host, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A port that is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnforcedPort {
    /// Its place in the maps.
    pub slot: u32,
    /// The port's id.
    pub port_id: String,
    /// The host's device.
    pub ifindex: IfIndex,
    /// MAC address.
    pub mac: Mac,
    /// What becomes of its packets.
    pub mode: Mode,
    /// Its groups keep no state.
    pub stateless: bool,
    /// Its groups, as far as the label of its policy names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Generation of its policy.
    pub generation: u32,
    /// Where programs are attached; one for each direction, or something is wrong.
    pub hooks: Vec<HookFact>,
    /// Packets by direction and reason, those of zero left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<ReasonCount>,
    /// Packets of its floating IPs by direction and way, those of zero left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<WayCount>,
    /// Flows tracked now.
    pub flows: u64,
    /// Verdicts of which there is no record because the port had used up its share.
    #[serde(default)]
    pub suppressed: u64,
    /// Verdicts of which there is no record because the ring buffer was full.
    #[serde(default)]
    pub lost: u64,
}

impl EnforcedPort {
    /// The program that decides about a direction.
    pub fn hook(&self, direction: Direction) -> Option<&HookFact> {
        self.hooks.iter().find(|hook| hook.direction == direction)
    }

    /// What was dropped of a direction, most packets first. A reason this netdiag does not know is not counted as one.
    pub fn dropped(&self, direction: Direction) -> Vec<&ReasonCount> {
        let drops = |count: &&ReasonCount| count.direction == direction && count.passes() == Some(false);
        let mut drops: Vec<_> = self.counters.iter().filter(drops).collect();
        drops.sort_by_key(|count| std::cmp::Reverse(count.packets));
        drops
    }

    /// Packets it has sent straight to instances of its network, past their bridge.
    pub fn straight(&self) -> u64 {
        let straight = self.ways.iter().filter(|count| count.way == Way::Straight.name());
        straight.map(|count| count.packets).sum()
    }
}

/// A program of netdiag at a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFact {
    /// Which packets it decides about.
    pub direction: Direction,
    /// `tcx`, `clsact` or `xdp`.
    pub hook: String,
    /// Id of the program in the kernel.
    pub program: u32,
    /// Another program comes before it and can keep packets from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
}

/// How many packets of a port met a reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Direction.
    pub direction: Direction,
    /// Name of the reason.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
}

impl ReasonCount {
    /// Whether packets with this reason pass; none where this netdiag does not know the reason.
    pub fn passes(&self) -> Option<bool> {
        Reason::ALL.iter().find(|reason| reason.name() == self.reason).map(|reason| reason.passes())
    }
}

/// A rule in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LoadedRule {
    /// Its number in the maps.
    pub index: u32,
    /// Its id.
    pub id: String,
    /// Flows it has allowed (packets, on a stateless port).
    pub hits: u64,
}
