//! Tracked flows: which one a packet belongs to, and what the two mean to each other. Flow: policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netdiag_common::{
    abi::{flow::Tick, reason::Reason},
    logic::flow::{State, protocol::TCP, tcp, timeout},
};

use super::{
    super::types::{Direction, RuleId},
    Case, Context, Judgement, Memory,
    packet::{Asked, Icmp, Transport},
    rule,
};

/// What the packets of a flow have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowKey {
    local: IpAddr,
    remote: IpAddr,
    protocol: u8,
    ends: Ends,
}

/// What tells flows between two addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ends {
    Addresses,
    Ports {
        local: u16,
        remote: u16,
    },
    /// `asks`: which way requests go. Two hosts that ask each other with one identifier have two flows, and an answer is
    /// never taken for a request.
    Query {
        identifier: u16,
        request: u8,
        asks: Direction,
    },
}

/// A tracked flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    direction: Direction,
    asked: Asked,
    state: State,
    fin: [bool; 2],
    dead: bool,
    seen: Tick,
}

impl FlowKey {
    /// The flow a packet belongs to or may begin; none for ICMP messages that belong to none.
    pub(super) fn of(case: &Case<'_>) -> Option<Self> {
        let (local, remote) = (case.local(), case.remote());
        Self::between(local, remote, case.packet.protocol, case.direction, case.packet.transport.ok()?)
    }

    /// The flow between two addresses, of which one packet goes in a direction and holds these ports.
    pub(super) fn between(
        local: IpAddr,
        remote: IpAddr,
        protocol: u8,
        direction: Direction,
        transport: Transport<'_>,
    ) -> Option<Self> {
        let ends = match (transport, direction) {
            (Transport::Opaque, _) => Ends::Addresses,
            (Transport::Icmp(icmp), _) => Self::query(icmp, direction, local.is_ipv6())?,
            (
                Transport::Tcp { source, destination, .. } | Transport::Ports { source, destination },
                Direction::Egress,
            ) => Ends::Ports { local: source, remote: destination },
            (
                Transport::Tcp { source, destination, .. } | Transport::Ports { source, destination },
                Direction::Ingress,
            ) => Ends::Ports { local: destination, remote: source },
        };
        Some(Self { local, remote, protocol, ends })
    }

    fn query(icmp: Icmp<'_>, direction: Direction, ipv6: bool) -> Option<Ends> {
        let (request, reply) = query_of(icmp.kind(), ipv6)?;
        let asks = if reply { opposite(direction) } else { direction };
        Some(Ends::Query { identifier: icmp.identifier(), request, asks })
    }
}

/// The type of the request that a type of ICMP message asks or answers, and whether it answers.
fn query_of(kind: u8, ipv6: bool) -> Option<(u8, bool)> {
    match (kind, ipv6) {
        (8 | 13 | 15 | 17, false) | (128, true) => Some((kind, false)),
        (0, false) => Some((8, true)),
        (14 | 16 | 18, false) | (129, true) => Some((kind - 1, true)),
        _ => None,
    }
}

pub(super) fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}

impl Flow {
    fn is_expired(&self, protocol: u8, now: Tick) -> bool {
        now.wrapping_sub(self.seen) > timeout(protocol, self.state)
    }

    /// The rules that would let the flow begin now. Without any it is dead, with some it lives, again or still.
    fn ask_again(&mut self, key: &FlowKey, context: &Context<'_>) -> BTreeSet<RuleId> {
        let rules = rule::allowing(context, self.direction, self.asked, key.remote);
        self.dead = rules.is_empty();
        rules
    }

    /// Takes note of a packet that passed.
    fn advance(&mut self, flags: Option<u8>, direction: Direction) {
        let reply = direction != self.direction;
        match flags {
            None if reply => self.state = State::Replied,
            None => {}
            Some(flags) => self.advance_tcp(flags, reply),
        }
    }

    fn advance_tcp(&mut self, flags: u8, reply: bool) {
        let has = |bits| flags & bits == bits;
        if has(tcp::RST) {
            self.state = State::Closed;
            return;
        }
        if has(tcp::FIN) {
            self.fin[usize::from(reply)] = true;
        }
        let acknowledges = has(tcp::ACK) && !has(tcp::SYN);
        self.state = match (self.state, self.fin) {
            (State::Closed | State::TimeWait, _) => self.state,
            (_, [true, true]) => State::TimeWait,
            (_, [true, false] | [false, true]) => State::FinWait,
            (State::SynSent, _) if reply && has(tcp::SYN | tcp::ACK) => State::SynReceived,
            (State::SynReceived, _) if !reply && acknowledges => State::Established,
            (State::PickedUp, _) if reply => State::Established,
            (state, _) => state,
        };
    }
}

/// A packet of a flow, or one that would begin it.
pub(super) fn judge(case: &Case<'_>, key: FlowKey, memory: &mut Memory, room: usize) -> Judgement {
    let flags = case.packet.tcp_flags();
    if flags.is_some_and(|flags| !tcp::valid(flags)) {
        return Reason::Invalid.into();
    }
    let opens = flags.is_some_and(tcp::opens);
    match find(&mut memory.flows, &key, case.now) {
        Some(flow) if !(opens && (flow.dead || flow.state.is_over())) => judge_hit(case, &key, flow),
        Some(_) | None => judge_new(case, key, memory, room),
    }
}

fn find<'a>(flows: &'a mut BTreeMap<FlowKey, Flow>, key: &FlowKey, now: Tick) -> Option<&'a mut Flow> {
    flows.get_mut(key).filter(|flow| !flow.is_expired(key.protocol, now))
}

fn judge_hit(case: &Case<'_>, key: &FlowKey, flow: &mut Flow) -> Judgement {
    let rules = flow.ask_again(key, &case.context);
    flow.seen = case.now;
    if rules.is_empty() {
        return Reason::Revoked.into();
    }
    flow.advance(case.packet.tcp_flags(), case.direction);
    Judgement { reason: Reason::Established, rules }
}

fn judge_new(case: &Case<'_>, key: FlowKey, memory: &mut Memory, room: usize) -> Judgement {
    let flags = case.packet.tcp_flags();
    let middle = flags.is_some_and(|flags| !tcp::opens(flags) && !tcp::continues(flags));
    let answers = matches!(key.ends, Ends::Query { asks, .. } if asks != case.direction);
    if middle || answers {
        return Reason::Invalid.into();
    }
    let judgement = case.judge_by_rules(Reason::Rule);
    if !judgement.reason.passes() {
        return judgement;
    }
    if memory.flows.len() >= room && !memory.flows.contains_key(&key) {
        return Judgement { reason: Reason::Untracked, ..judgement };
    }
    memory.flows.insert(key, begin(case));
    judgement
}

fn begin(case: &Case<'_>) -> Flow {
    let state = match case.packet.tcp_flags() {
        Some(flags) if tcp::opens(flags) => State::SynSent,
        Some(_) => State::PickedUp,
        None => State::Unreplied,
    };
    debug_assert!(case.packet.tcp_flags().is_some() == (case.packet.protocol == TCP));
    Flow {
        direction: case.direction,
        asked: case.packet.asked(),
        state,
        fin: [false, false],
        dead: false,
        seen: case.now,
    }
}

/// What has become of a flow that a packet without ports of its own belongs to or is about.
pub(super) enum Standing {
    /// Nobody tracks it.
    Unknown,
    /// What had allowed it is gone.
    Revoked,
    /// These rules allow it.
    Alive(BTreeSet<RuleId>),
}

/// A later fragment of a packet of the flow: it counts as one of its packets.
pub(super) fn continued(case: &Case<'_>, key: &FlowKey, memory: &mut Memory) -> Standing {
    if let Some(flow) = find(&mut memory.flows, key, case.now) {
        flow.seen = case.now;
    }
    standing(case, key, memory)
}

pub(super) fn standing(case: &Case<'_>, key: &FlowKey, memory: &mut Memory) -> Standing {
    let Some(flow) = find(&mut memory.flows, key, case.now) else { return Standing::Unknown };
    let rules = flow.ask_again(key, &case.context);
    if rules.is_empty() { Standing::Revoked } else { Standing::Alive(rules) }
}
