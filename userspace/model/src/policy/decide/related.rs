//! ICMP errors about tracked flows. Flow: policy.

use netdiag_common::abi::reason::Reason;

use super::{
    super::types::Direction,
    Case, Judgement, Memory,
    flow::{FlowKey, Standing, opposite, standing},
    packet::Quoted,
};

/// An error passes if the packet it quotes is of a living flow of this port, and if it goes to whoever sent that packet.
pub(super) fn judge(case: &Case<'_>, memory: &mut Memory) -> Judgement {
    match quoted_flow(case).map(|key| standing(case, &key, memory)) {
        Some(Standing::Alive(rules)) => Judgement { reason: Reason::Related, rules },
        Some(Standing::Revoked | Standing::Unknown) | None => Reason::IcmpUnrelated.into(),
    }
}

fn quoted_flow(case: &Case<'_>) -> Option<FlowKey> {
    let quoted = Quoted::parse(case.packet.icmp()?.body(), case.packet.is_ipv6())?;
    if quoted.source != case.packet.destination {
        return None;
    }
    // The quoted packet went the other way.
    let (local, remote) = match case.direction {
        Direction::Ingress => (quoted.source, quoted.destination),
        Direction::Egress => (quoted.destination, quoted.source),
    };
    FlowKey::between(local, remote, quoted.protocol, opposite(case.direction), quoted.transport)
}
