//! Later fragments, which hold no ports: they share the fate of the first. Flow: policy.

use std::net::IpAddr;

use netdiag_common::abi::{flow::Tick, reason::Reason};

use super::{
    super::types::Direction,
    Case, Judgement, Memory,
    flow::{FlowKey, Standing, continued},
    packet::Asked,
    rule,
};

/// For how many ticks a first fragment is remembered: 30 s.
const REMEMBERED: Tick = 28;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FragmentKey {
    direction: Direction,
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    protocol: u8,
}

/// What the first fragment of a datagram said.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    fate: Fate,
    seen: Tick,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Refused,
    /// It passed and belongs to no flow.
    Passed,
    /// It passed as part of a flow.
    OfFlow {
        key: FlowKey,
        asked: Asked,
    },
}

impl First {
    pub(super) fn of(case: &Case<'_>, reason: Reason) -> Self {
        let by_rule = matches!(reason, Reason::Rule | Reason::Established | Reason::Untracked);
        let key = FlowKey::of(case).filter(|_| by_rule && !case.is_stateless());
        let fate = match key {
            _ if !reason.passes() => Fate::Refused,
            Some(key) => Fate::OfFlow { key, asked: case.packet.asked() },
            None => Fate::Passed,
        };
        Self { fate, seen: case.now }
    }
}

impl Case<'_> {
    pub(super) fn fragment_key(&self, id: u32) -> FragmentKey {
        FragmentKey {
            direction: self.direction,
            source: self.packet.source,
            destination: self.packet.destination,
            id,
            protocol: self.packet.protocol,
        }
    }
}

/// A later fragment.
pub(super) fn judge(case: &Case<'_>, id: u32, memory: &mut Memory) -> Judgement {
    let first = memory.firsts.get(&case.fragment_key(id));
    let Some(first) = first.filter(|first| case.now.wrapping_sub(first.seen) <= REMEMBERED) else {
        return Reason::OrphanFragment.into();
    };
    match first.fate {
        Fate::Refused => Reason::RefusedFragment.into(),
        Fate::Passed => Reason::Fragment.into(),
        Fate::OfFlow { key, asked } => match continued(case, &key, memory) {
            Standing::Alive(rules) => Judgement { reason: Reason::Fragment, rules },
            Standing::Revoked => Reason::Revoked.into(),
            Standing::Unknown => judge_untracked(case, asked),
        },
    }
}

/// The first fragment passed without a flow, or its flow has ended since: rules decide about what it asked for.
fn judge_untracked(case: &Case<'_>, asked: Asked) -> Judgement {
    let rules = rule::allowing(&case.context, case.direction, asked, case.remote());
    if rules.is_empty() {
        return Reason::RefusedFragment.into();
    }
    Judgement { reason: Reason::Fragment, rules }
}
