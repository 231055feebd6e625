//! What the datapath said about single packets, with names instead of numbers. Flow: observe.
//!
//! One event is one line of JSON on the agent's stream. Field names and their meaning are stable: whoever reads the
//! stream parses them.

use std::{collections::BTreeSet, net::IpAddr};

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

impl VerdictEvent {
    /// Whether it is multicast that no router hands on and no rule allows to the instance: listener reports, router
    /// solicitations, mDNS and the like, which everybody on a bridge gets from everybody else, however quiet it is.
    pub fn is_refused_multicast(&self) -> bool {
        self.verdict == Decision::Deny
            && self.direction == Direction::Ingress
            && [Reason::NoRule, Reason::NoPolicy].iter().any(|reason| self.reason == reason.name())
            && self.destination.is_some_and(is_multicast_of_the_link)
    }
}

/// 224.0.0.0/24 (RFC 5771) and multicast of the link's scope (RFC 4291).
const fn is_multicast_of_the_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets(), [224, 0, 0, _]),
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

/// Verdicts that were not shown since that was last said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub packets: u64,
    /// Whose ports they were for.
    pub ports: BTreeSet<String>,
    /// When the last one was, in nanoseconds since 1970-01-01 UTC.
    pub time_ns: u64,
}

impl LeftOut {
    /// One more.
    pub fn add(&mut self, event: &VerdictEvent) {
        self.packets += 1;
        self.time_ns = event.time_ns;
        if !self.ports.contains(&event.port_id) {
            self.ports.insert(event.port_id.clone());
        }
    }
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

#[cfg(test)]
mod tests {
    use super::{Decision, LeftOut, VerdictEvent};
    use crate::policy::types::Direction;

    fn refused(destination: &str) -> VerdictEvent {
        VerdictEvent {
            number: 0,
            time_ns: 7,
            port_id: "p".to_owned(),
            instance: None,
            device: None,
            direction: Direction::Ingress,
            verdict: Decision::Deny,
            reason: "no-rule".to_owned(),
            ethertype: 0x86dd,
            protocol: Some(58),
            source: None,
            destination: destination.parse().ok(),
            source_port: 0,
            destination_port: 143 << 8,
            rule: None,
            length: 90,
        }
    }

    #[test]
    fn what_a_quiet_bridge_says_to_everybody_is_told_from_what_is_meant_for_the_instance() {
        for noise in ["ff02::16", "ff02::2", "ff12::1", "ff02::1:ff00:1", "224.0.0.22", "224.0.0.251"] {
            assert!(refused(noise).is_refused_multicast(), "{noise}");
        }
        for other in ["ff05::2", "ff0e::1", "2001:db8::1", "224.0.1.1", "239.1.1.1", "255.255.255.255", "10.0.0.1", ""]
        {
            assert!(!refused(other).is_refused_multicast(), "{other}");
        }
    }

    #[test]
    fn only_what_no_rule_allows_to_the_instance_is_noise() {
        let noise = refused("ff02::16");
        let allowed = VerdictEvent { verdict: Decision::Allow, reason: "rule".to_owned(), ..noise.clone() };
        let spoofed = VerdictEvent { reason: "ip-spoof".to_owned(), ..noise.clone() };
        let from_instance = VerdictEvent { direction: Direction::Egress, ..noise.clone() };
        assert!(VerdictEvent { reason: "no-policy".to_owned(), ..noise }.is_refused_multicast());
        assert!([allowed, spoofed, from_instance].iter().all(|event| !event.is_refused_multicast()));
    }

    #[test]
    fn what_is_left_out_is_counted_with_whose_it_is() {
        let mut left_out = LeftOut::default();
        left_out.add(&refused("ff02::16"));
        left_out.add(&VerdictEvent { port_id: "q".to_owned(), time_ns: 9, ..refused("ff02::2") });
        left_out.add(&refused("ff02::16"));
        assert_eq!((left_out.packets, left_out.ports.len(), left_out.time_ns), (3, 2, 7));
    }
}
