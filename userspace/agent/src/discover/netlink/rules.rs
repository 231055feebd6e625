//! Policy rules (`RTM_GETRULE`): what `ip rule` shows. Flow: discover.

use ipnet::IpNet;
use netdiag_model::fact::PolicyRuleFact;
use netlink_packet_core::{Emitable as _, Parseable as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage},
};

use super::connection::Answer;

/// Asks for all rules of one family.
pub(super) fn request(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    RouteNetlinkMessage::GetRule(message)
}

/// One rule of a family; none for one of another family, which the kernel sends where it knows nothing of the family it
/// was asked for.
pub(super) fn rule(answer: &Answer, family: AddressFamily) -> Option<PolicyRuleFact> {
    let header = RuleHeader::parse(&answer.0).ok()?;
    let mut fact = PolicyRuleFact {
        ipv6: header.family == AddressFamily::Inet6,
        priority: 0,
        source: None,
        destination: None,
        iif: None,
        oif: None,
        fwmark: None,
        inverted: header.flags.contains(RuleFlags::Invert),
        action: action(header.action),
        table: u32::from(header.table),
    };
    for nla in answer.attributes(header.buffer_len()) {
        if let Ok(attribute) = RuleAttribute::parse(&nla) {
            apply(&mut fact, &header, attribute);
        }
    }
    (header.family == family).then_some(fact)
}

fn apply(fact: &mut PolicyRuleFact, header: &RuleHeader, attribute: RuleAttribute) {
    /// The mask of a mark that was given without one.
    const WHOLE: u32 = u32::MAX;
    match attribute {
        RuleAttribute::Priority(priority) => fact.priority = priority,
        RuleAttribute::Source(address) => fact.source = IpNet::new(address, header.src_len).ok(),
        RuleAttribute::Destination(address) => fact.destination = IpNet::new(address, header.dst_len).ok(),
        RuleAttribute::Iifname(name) => fact.iif = Some(name),
        RuleAttribute::Oifname(name) => fact.oif = Some(name),
        RuleAttribute::FwMark(mark) => fact.fwmark = Some((mark, fact.fwmark.map_or(WHOLE, |(_, mask)| mask))),
        RuleAttribute::FwMask(mask) => fact.fwmark = Some((fact.fwmark.map_or(0, |(mark, _)| mark), mask)),
        RuleAttribute::Table(table) => fact.table = table,
        _ => {}
    }
}

/// The name iproute2 gives an action.
fn action(action: RuleAction) -> String {
    let name = match action {
        RuleAction::ToTable => "lookup",
        RuleAction::Goto => "goto",
        RuleAction::Nop => "nop",
        RuleAction::Blackhole => "blackhole",
        RuleAction::Unreachable => "unreachable",
        RuleAction::Prohibit => "prohibit",
        other => return u8::from(other).to_string(),
    };
    name.to_owned()
}
