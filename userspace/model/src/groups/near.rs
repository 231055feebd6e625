//! What the policy that is asked for says of a packet, and which of its rules nearly allow it. Flow: explain.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use serde::Serialize;

use super::asked::{Asked, RuleRef};
use crate::{
    fact::enforcement::{EnforcedPort, EnforcementFact},
    id::Mac,
    policy::{
        show::{self, Detail, Explanation, Query},
        types::{Attached, Direction, Hook, Mode, Port},
    },
};

/// A packet as rules look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Which way it goes.
    pub direction: Direction,
    /// The other end.
    pub remote: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, or ICMP type and code as `type * 256 + code`; none where the protocol has neither.
    pub service: Option<u16>,
}

/// A rule that nearly allows a packet, in its author's words.
pub type NearMiss = show::NearMiss<RuleRef>;

/// What the policy says of a packet; none where it does not know the address the packet has at the instance.
pub(super) fn explanation(
    asked: &Asked,
    port: &Port,
    attached: &Attached,
    local: IpAddr,
    seen: &Seen,
) -> Option<Explanation> {
    let (from, to) = match seen.direction {
        Direction::Ingress => (seen.remote, local),
        Direction::Egress => (local, seen.remote),
    };
    let detail = match (seen.protocol, seen.service) {
        (1 | 58, Some(service)) => {
            let [kind, code] = service.to_be_bytes();
            Detail::Icmp { kind, code }
        }
        (_, Some(port)) => Detail::Port(port),
        (_, None) => Detail::None,
    };
    let mode = if port.filtered { Mode::Filtered } else { Mode::Trusted };
    let attached = Attached { groups: port.groups.clone(), mode, ..attached.clone() };
    let query = Query { from, to, protocol: seen.protocol, detail };
    show::explain(&asked.policy, &attached, &asked.all_members(), &query).ok()
}

/// Rules that nearly allow a packet, the nearest first, in words.
pub(super) fn near(asked: &Asked, explanation: &Explanation) -> Vec<NearMiss> {
    explanation.nearest.iter().filter_map(|miss| miss.clone().named(|rule| asked.rule(&rule.0))).collect()
}

/// A port as it is enforced, with the addresses the maps know.
pub(super) fn attached(port: &EnforcedPort, fact: &EnforcementFact) -> Attached {
    let tables = fact.tables.as_ref();
    let entry = tables.and_then(|tables| tables.ports.get(&port.slot));
    let is_given = |address: &&Ipv6Addr| !address.is_unicast_link_local();
    let fixed = entry.into_iter().flat_map(|entry| {
        let v6 = entry.ipv6.iter().filter(is_given).copied().map(IpAddr::V6);
        entry.ipv4.iter().copied().map(IpAddr::V4).chain(v6)
    });
    let pairs = tables.map_or(&[][..], |tables| &tables.pairs);
    Attached {
        ifindex: port.ifindex.0,
        mac: port.mac,
        fixed_ips: fixed.collect(),
        pairs: pairs.iter().filter(|(slot, ..)| *slot == port.slot).map(|(_, mac, net)| (*mac, *net)).collect(),
        ..bare(&port.port_id)
    }
}

/// A port of which no more than its addresses is known, because nothing enforces it.
pub(super) fn unenforced(port_id: &str, addresses: BTreeSet<IpAddr>) -> Attached {
    Attached { fixed_ips: addresses, ..bare(port_id) }
}

fn bare(port_id: &str) -> Attached {
    Attached {
        id: crate::policy::types::PortId(port_id.to_owned()),
        ifindex: 0,
        mac: Mac([0; 6]),
        fixed_ips: BTreeSet::new(),
        pairs: BTreeSet::new(),
        groups: Vec::new(),
        mode: Mode::Filtered,
        hook: Hook::default(),
        log_allowed: false,
    }
}
