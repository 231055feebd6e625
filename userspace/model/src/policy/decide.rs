//! The reference evaluator: what becomes of a frame, decided from the checked types alone. Flow: policy.
//!
//! It is the yardstick for the compiled tables and for the program in the kernel, so it shares no decision with them: it
//! parses by itself, walks every rule, and keeps its flows in ordinary maps. Where it could be fast or plain, it is plain.
//! The order of decisions is that of `docs/DATAPATH.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use netdiag_common::abi::{flow::Tick, reason::Reason};

use super::types::{Attached, Direction, GroupId, Mode, Policy, PortId, RuleId};
use flow::{Flow, FlowKey};
use fragment::{First, FragmentKey};
use packet::{Ethernet, Packet, Part};

/// Tracked flows: what a packet means to them.
mod flow;
/// Later fragments, which share the fate of the first.
mod fragment;
/// Everything that is neither IPv4 nor IPv6.
mod link;
/// Bytes to headers.
mod packet;
/// ICMP errors about tracked flows.
mod related;
/// Rules, one by one.
mod rule;
/// Who the sender says it is.
mod spoof;
/// What every port needs, and what no instance may do.
mod system;
#[cfg(test)]
mod tests;

/// Judges the frames of any number of ports, and remembers what later ones depend on.
#[derive(Clone, Debug)]
pub struct Judge {
    ports: BTreeMap<PortId, Memory>,
    room: usize,
}

/// What one port's earlier frames left behind.
#[derive(Clone, Debug, Default)]
struct Memory {
    flows: BTreeMap<FlowKey, Flow>,
    firsts: BTreeMap<FragmentKey, First>,
}

/// What a frame is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// What is asked for.
    pub policy: &'a Policy,
    /// Members of each group; a group that is not here has none.
    pub members: &'a BTreeMap<GroupId, BTreeSet<IpNet>>,
    /// The port the frame belongs to.
    pub port: &'a Attached,
}

/// A frame at the port's device.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// From the destination MAC address on.
    pub bytes: &'a [u8],
    /// The kernel holds a VLAN tag of it beside the bytes.
    pub vlan_beside: bool,
    /// From the instance or to it.
    pub direction: Direction,
    /// When.
    pub now: Tick,
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Why.
    pub reason: Reason,
    /// Every rule that allows the frame, or the flow it belongs to; none where it is refused or needs no rule.
    pub rules: BTreeSet<RuleId>,
}

impl From<Reason> for Judgement {
    fn from(reason: Reason) -> Self {
        Self { reason, rules: BTreeSet::new() }
    }
}

impl Default for Judge {
    fn default() -> Self {
        Self::with_room(usize::MAX)
    }
}

/// An IP packet with all it is judged by.
struct Case<'a> {
    context: Context<'a>,
    direction: Direction,
    now: Tick,
    ethernet: Ethernet<'a>,
    packet: Packet<'a>,
}

impl Judge {
    /// A judge that can track that many flows of each port.
    pub fn with_room(room: usize) -> Self {
        Self { ports: BTreeMap::new(), room }
    }

    /// What becomes of a frame of a port.
    pub fn judge(&mut self, context: &Context<'_>, frame: &Frame<'_>) -> Judgement {
        if context.port.mode == Mode::Trusted {
            return Reason::Trusted.into();
        }
        let ethernet = match Ethernet::parse(frame.bytes) {
            Ok(ethernet) if frame.vlan_beside || ethernet.is_tagged() => return Reason::VlanTagged.into(),
            Ok(ethernet) => ethernet,
            Err(reason) => return reason.into(),
        };
        if let Some(reason) = link::judge(context, frame.direction, &ethernet) {
            return reason.into();
        }
        match Packet::parse(&ethernet) {
            Ok(packet) => {
                self.judge_ip(&Case { context: *context, direction: frame.direction, now: frame.now, ethernet, packet })
            }
            Err(reason) => reason.into(),
        }
    }

    fn judge_ip(&mut self, case: &Case<'_>) -> Judgement {
        if case.direction == Direction::Egress
            && let Some(reason) = spoof::judge(case)
        {
            return reason.into();
        }
        let memory = self.ports.entry(case.context.port.id.clone()).or_default();
        if let (Part::Later { id }, Ok(_)) = (case.packet.part, case.packet.transport) {
            return fragment::judge(case, id, memory);
        }
        let judgement = judge_whole(case, memory, self.room);
        if let Part::First { id } = case.packet.part {
            memory.firsts.insert(case.fragment_key(id), First::of(case, judgement.reason));
        }
        judgement
    }

    /// How many flows of a port are remembered, silent ones included.
    pub fn flows(&self, port: &PortId) -> usize {
        self.ports.get(port).map_or(0, |memory| memory.flows.len())
    }
}

/// A packet whose ports or type can be read, or that has none.
fn judge_whole(case: &Case<'_>, memory: &mut Memory, room: usize) -> Judgement {
    if let Err(reason) = case.packet.transport {
        return reason.into();
    }
    if let Some(reason) = system::judge(case) {
        return reason.into();
    }
    if case.is_stateless() {
        return case.judge_by_rules(Reason::Rule);
    }
    if case.is_icmp_error() {
        return related::judge(case, memory);
    }
    match FlowKey::of(case) {
        Some(key) => flow::judge(case, key, memory, room),
        None => case.judge_by_rules(Reason::Rule),
    }
}

impl Case<'_> {
    /// The address at the instance.
    fn local(&self) -> IpAddr {
        match self.direction {
            Direction::Egress => self.packet.source,
            Direction::Ingress => self.packet.destination,
        }
    }

    /// The address at the other end.
    fn remote(&self) -> IpAddr {
        match self.direction {
            Direction::Egress => self.packet.destination,
            Direction::Ingress => self.packet.source,
        }
    }

    /// The rules that allow this very packet decide.
    fn judge_by_rules(&self, allowed: Reason) -> Judgement {
        let rules = rule::allowing(&self.context, self.direction, self.packet.asked(), self.remote());
        if rules.is_empty() { self.no_rule().into() } else { Judgement { reason: allowed, rules } }
    }

    fn no_rule(&self) -> Reason {
        match self.context.port.mode {
            Mode::Closed => Reason::NoPolicy,
            Mode::Filtered | Mode::Trusted => Reason::NoRule,
        }
    }

    /// The port's groups keep no state. Neutron never lets a port have groups of both kinds; should it happen, state is
    /// kept. A closed port has no groups as yet.
    fn is_stateless(&self) -> bool {
        let Context { policy, port, .. } = self.context;
        let mut groups = port.groups.iter().filter_map(|id| policy.groups.get(id)).peekable();
        port.mode == Mode::Filtered && groups.peek().is_some() && groups.all(|group| !group.stateful)
    }

    fn is_icmp_error(&self) -> bool {
        match (self.packet.icmp(), self.packet.is_ipv6()) {
            (Some(icmp), false) => matches!(icmp.kind(), 3 | 4 | 11 | 12),
            (Some(icmp), true) => matches!(icmp.kind(), 1..=4),
            (None, _) => false,
        }
    }
}
