//! What the datapath said about single packets, with names instead of numbers. Flow: observe.
//!
//! One event is one line of JSON on the agent's stream. Field names and their meaning are stable: whoever reads the
//! stream parses them.

use std::net::IpAddr;

use netdiag_common::abi::reason::Reason;
use serde::{Deserialize, Serialize};

use crate::policy::types::Direction;

/// Bytes of a ring-buffer record to what they say.
pub mod record;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A packet met its verdict.
    Verdict(VerdictEvent),
    /// Verdicts of which there will be no line.
    Lost(LossEvent),
}

/// A packet met its verdict: refused, or the first of a flow that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictEvent {
    /// Its number in the ring buffer, one more than that of the record before; it counts on when the agent starts anew.
    #[serde(default)]
    pub number: u64,
    /// When, in nanoseconds since 1970-01-01 UTC.
    pub time_ns: u64,
    /// The port's id.
    pub port_id: String,
    /// The instance, by the name an operator would say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Name of the host's device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Direction.
    pub direction: Direction,
    /// Whether it passed.
    pub verdict: Decision,
    /// Name of the reason: `no-rule`.
    pub reason: String,
    /// Ethertype.
    pub ethertype: u16,
    /// IP protocol; none where the packet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Source address; none where the packet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Destination address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// Source port; 0 where the protocol has none.
    #[serde(default)]
    pub source_port: u16,
    /// Destination port; `type * 256 + code` for ICMP; 0 where the protocol has none.
    #[serde(default)]
    pub destination_port: u16,
    /// Id of the rule that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Length from the link-layer header on, in bytes.
    pub length: u32,
}

/// Verdicts of which there will be no line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossEvent {
    /// When it was noticed, in nanoseconds since 1970-01-01 UTC.
    pub time_ns: u64,
    /// The port whose records they were; none where the stream itself was too slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_id: Option<String>,
    /// Place of that port in the maps, whose counters these are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Records since the last such line that the kernel did not write because the port had used up its share.
    #[serde(default)]
    pub suppressed: u64,
    /// Records since the last such line for which the ring buffer had no room.
    #[serde(default)]
    pub lost: u64,
    /// Records since the last such line that this reader was too slow for, or that an agent read and did not hand on
    /// before it ended: of any port.
    #[serde(default)]
    pub skipped: u64,
}

/// Whether a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It passes.
    Allow,
    /// It ends here.
    Deny,
}

/// Names of all reasons, for filters.
pub fn reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.name()).collect()
}

impl Decision {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}
