//! What would become of a packet, and which rules nearly allow it. Flow: explain.

use std::{fmt, net::IpAddr};

use netdiag_common::abi::reason::Reason;
use serde::Serialize;

use super::{Members, family, group_name, is_remote, protocol_words, remote_words, service_words};
use crate::policy::types::{Attached, Direction, GroupId, Mode, Policy, Rule, RuleId, Service};

/// How many near misses an answer has.
const NEAREST: usize = 10;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The first packet of a flow. DHCP, which the datapath knows by both ports, is not told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Sender.
    pub from: IpAddr,
    /// Receiver.
    pub to: IpAddr,
    /// Protocol, as packets of the family carry it.
    pub protocol: u8,
    /// What the protocol adds.
    pub detail: Detail,
}

/// What a protocol adds to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing, or nothing that was said.
    None,
    /// Destination port.
    Port(u16),
    /// ICMP type and code.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

/// A query that cannot be answered for a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// Sender and receiver are of two families.
    Families,
    /// Neither of them is an address of the port; these are.
    NotOfPort(Vec<String>),
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Families => f.write_str("sender and receiver must both be IPv4 or both be IPv6"),
            Self::NotOfPort(own) if own.is_empty() => f.write_str("the port has no address"),
            Self::NotOfPort(own) => {
                write!(f, "neither sender nor receiver is an address of the port: {}", own.join(", "))
            }
        }
    }
}

impl std::error::Error for Unclear {}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Which way it goes.
    pub direction: Direction,
    /// Why it passes or not.
    pub verdict: Reason,
    /// Every rule that allows it, in the order of groups and rules.
    pub rules: Vec<RuleId>,
    /// Rules that do not, for one reason each, the nearest first; empty where it passes.
    pub nearest: Vec<NearMiss>,
}

/// A rule that would allow a packet but for one condition. `R` is how the rule is named: by its id, or in its author's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss<R = RuleId> {
    /// The rule.
    pub rule: R,
    /// The one condition that fails.
    pub condition: Condition,
    /// What the rule wants and what the packet has, as the end of a sentence about the rule.
    pub why: String,
}

impl NearMiss {
    /// The same with the rule named by somebody who knows it; none where nobody does.
    pub fn named<R>(self, name: impl FnOnce(&RuleId) -> Option<R>) -> Option<NearMiss<R>> {
        let Self { rule, condition, why } = self;
        name(&rule).map(|rule| NearMiss { rule, condition, why })
    }
}

/// A condition of a rule, the one that is most easily meant otherwise first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Who is at the other end.
    Remote,
    /// Port, or ICMP type and code.
    Port,
    /// Protocol.
    Protocol,
    /// Family.
    Ethertype,
    /// The rule's group, which the port is not in.
    Group,
}

/// What would become of a packet that begins a flow.
///
/// # Errors
/// The packet has nothing to do with the port.
pub fn explain(policy: &Policy, port: &Attached, members: &Members, query: &Query) -> Result<Explanation, Unclear> {
    let direction = direction(port, query)?;
    let answer = |verdict| Explanation { direction, verdict, rules: vec![], nearest: vec![] };
    if let Some(verdict) = without_rules(policy, port, direction, query) {
        return Ok(answer(verdict));
    }
    let asked = Asked { policy, members, direction, query };
    let rules = own_rules(policy, port).filter(|rule| rule.direction == direction && asked.fails(rule).is_empty());
    let rules: Vec<RuleId> = rules.map(|rule| rule.id.clone()).collect();
    if !rules.is_empty() {
        return Ok(Explanation { rules, ..answer(Reason::Rule) });
    }
    Ok(Explanation { nearest: asked.nearest(port), ..answer(Reason::NoRule) })
}

/// The rules of a port's groups.
fn own_rules<'p>(policy: &'p Policy, port: &'p Attached) -> impl Iterator<Item = &'p Rule> {
    port.groups.iter().filter_map(|id| policy.groups.get(id)).flat_map(|group| &group.rules)
}

/// Which way a packet goes: whoever sends to itself sends.
fn direction(port: &Attached, query: &Query) -> Result<Direction, Unclear> {
    let Query { from, to, .. } = query;
    if family(*from) != family(*to) {
        return Err(Unclear::Families);
    }
    let everybody = to.is_multicast() || matches!(to, IpAddr::V4(to) if to.is_broadcast());
    if is_own(port, *from) {
        Ok(Direction::Egress)
    } else if is_own(port, *to) || everybody {
        Ok(Direction::Ingress)
    } else {
        let pairs = port.pairs.iter().map(|(_, net)| net.to_string());
        Err(Unclear::NotOfPort(port.fixed_ips.iter().map(ToString::to_string).chain(pairs).collect()))
    }
}

/// Whether a port may send from an address with one of its MAC addresses.
fn is_own(port: &Attached, address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(v6) if is_link_local_of(port, v6.octets()));
    link_local || port.fixed_ips.contains(&address) || port.pairs.iter().any(|(_, net)| net.contains(&address))
}

/// Whether an address is the link-local one of a MAC address of the port (RFC 4291, appendix A).
fn is_link_local_of(port: &Attached, octets: [u8; 16]) -> bool {
    let of = |[a, b, c, d, e, f]: [u8; 6]| [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut macs = port.pairs.iter().map(|(mac, _)| mac).chain([&port.mac]);
    macs.any(|mac| of(mac.0) == octets)
}

/// The verdict where no rule is asked.
fn without_rules(policy: &Policy, port: &Attached, direction: Direction, query: &Query) -> Option<Reason> {
    if port.mode == Mode::Trusted {
        return Some(Reason::Trusted);
    }
    let kind = match query.detail {
        Detail::Icmp { kind, .. } => Some(kind),
        Detail::None | Detail::Port(_) => None,
    };
    let by_kind = match (query.protocol, kind) {
        (ICMPV6, Some(kind)) => neighbours(port, direction, kind).or_else(|| icmp(policy, port, kind, true)),
        (ICMP, Some(kind)) => icmp(policy, port, kind, false),
        (_, _) => None,
    };
    by_kind.or((port.mode == Mode::Closed).then_some(Reason::NoPolicy))
}

/// Neighbour discovery and multicast listeners, of which every port needs some.
fn neighbours(port: &Attached, direction: Direction, kind: u8) -> Option<Reason> {
    match (direction, kind) {
        (Direction::Egress, 130 | 133 | 135 | 136) | (Direction::Ingress, 130 | 135 | 136) => Some(Reason::System),
        (Direction::Egress, 134) => Some(Reason::RouterAdvertisement),
        (Direction::Ingress, 134) if port.fixed_ips.iter().any(IpAddr::is_ipv6) => Some(Reason::System),
        (_, _) => None,
    }
}

/// ICMP messages that begin no flow: errors, which belong to one, and answers. Without state they are packets like others.
fn icmp(policy: &Policy, port: &Attached, kind: u8, ipv6: bool) -> Option<Reason> {
    let mut groups = port.groups.iter().filter_map(|id| policy.groups.get(id)).peekable();
    if port.mode == Mode::Filtered && groups.peek().is_some() && groups.all(|group| !group.stateful) {
        return None;
    }
    match (ipv6, kind) {
        (false, 3 | 4 | 11 | 12) | (true, 1..=4) => Some(Reason::IcmpUnrelated),
        (false, 0 | 14 | 16 | 18) | (true, 129) => Some(Reason::Invalid),
        (_, _) => None,
    }
}

/// A packet beside which rules are held.
#[derive(Clone, Copy)]
struct Asked<'q> {
    policy: &'q Policy,
    members: &'q Members,
    direction: Direction,
    query: &'q Query,
}

impl Asked<'_> {
    /// The address at the other end.
    fn remote(&self) -> IpAddr {
        match self.direction {
            Direction::Egress => self.query.to,
            Direction::Ingress => self.query.from,
        }
    }

    /// Conditions of a rule of the packet's direction that it does not meet.
    fn fails(&self, rule: &Rule) -> Vec<Condition> {
        let query = self.query;
        let ethertype = family(query.from);
        let icmp = matches!((number(rule.service), query.protocol), (Some(ICMP), ICMPV6) | (Some(ICMPV6), ICMP));
        // Where the families differ, so do ICMP and its addresses; that is one difference and not three.
        let same = rule.ethertype == ethertype;
        let protocol = number(rule.service).is_none_or(|number| number == query.protocol) || (icmp && !same);
        let port = match rule.service {
            Service::Any | Service::Protocol(_) => true,
            Service::Ports { first, last, .. } => {
                matches!(query.detail, Detail::Port(port) if (first..=last).contains(&port))
            }
            Service::Icmp { kind, code, .. } => matches!(
                query.detail,
                Detail::Icmp { kind: own, code: own_code } if own == kind && code.is_none_or(|code| code == own_code)
            ),
        };
        let remote = is_remote(self.policy, rule, self.remote(), self.members);
        let met = [
            (Condition::Remote, remote),
            (Condition::Port, port),
            (Condition::Protocol, protocol),
            (Condition::Ethertype, same),
        ];
        met.into_iter().filter(|(_, met)| !met).map(|(condition, _)| condition).collect()
    }

    /// Rules of the packet's direction one condition away, the nearest first: those of the port, and those of other groups that allow it as they are.
    fn nearest(&self, port: &Attached) -> Vec<NearMiss> {
        let mut nearest: Vec<(u32, NearMiss)> = Vec::new();
        for group in self.policy.groups.values() {
            let own = port.groups.contains(&group.id);
            for rule in group.rules.iter().filter(|rule| rule.direction == self.direction) {
                let condition = match (own, &self.fails(rule)[..]) {
                    (true, [condition]) => *condition,
                    (false, []) => Condition::Group,
                    (_, _) => continue,
                };
                let why = self.why(&group.id, rule, condition);
                let miss = NearMiss { rule: rule.id.clone(), condition, why };
                nearest.push((self.distance(rule, condition), miss));
            }
        }
        nearest.sort_by(|(a, one), (b, other)| (one.condition, a, &one.rule).cmp(&(other.condition, b, &other.rule)));
        nearest.into_iter().map(|(_, miss)| miss).take(NEAREST).collect()
    }

    /// How far a port is off.
    fn distance(&self, rule: &Rule, condition: Condition) -> u32 {
        match (condition, rule.service, self.query.detail) {
            (Condition::Port, Service::Ports { first, last, .. }, Detail::Port(port)) => {
                u32::from(if port < first { first - port } else { port - last })
            }
            (_, _, _) => 0,
        }
    }

    fn why(&self, group: &GroupId, rule: &Rule, condition: Condition) -> String {
        let remote = self.remote();
        match condition {
            Condition::Remote => match super::networks(self.policy, &rule.remote, self.members) {
                None => format!("allows {}, and {remote} is outside", remote_words(self.policy, &rule.remote)),
                Some(networks) => {
                    let count = super::of_family(networks, rule.ethertype);
                    let group = remote_words(self.policy, &rule.remote);
                    format!("allows {group}, and {remote} is none of its {count} {:?} addresses", rule.ethertype)
                }
            },
            Condition::Port => {
                format!("allows {}, and the packet is {}", service_words(rule.service), self.query.words())
            }
            Condition::Protocol => {
                format!(
                    "allows {}, and the packet is {}",
                    service_words(rule.service),
                    protocol_words(self.query.protocol)
                )
            }
            Condition::Ethertype => format!("is for {:?}, and the packet is {:?}", rule.ethertype, family(remote)),
            Condition::Group => format!("allows it, and the port is not in group {}", group_name(self.policy, group)),
        }
    }
}

/// Protocol of a service; none is any.
fn number(service: Service) -> Option<u8> {
    match service {
        Service::Any => None,
        Service::Protocol(protocol) | Service::Ports { protocol, .. } | Service::Icmp { protocol, .. } => {
            Some(protocol)
        }
    }
}

impl Query {
    /// Protocol and port in words.
    fn words(&self) -> String {
        let protocol = protocol_words(self.protocol);
        match self.detail {
            Detail::None => format!("{protocol} of no port that was named"),
            Detail::Port(port) => format!("{protocol} {port}"),
            Detail::Icmp { kind, code } => format!("{protocol} type {kind} code {code}"),
        }
    }
}
