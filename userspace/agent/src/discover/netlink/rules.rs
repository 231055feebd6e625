//! Policy rules (`RTM_GETRULE`): what `ip rule` shows. Flow: discover.

use ipnet::IpNet;
use netdiag_model::fact::PolicyRuleFact;
use netlink_packet_core::{Emitable as _, Nla as _, Parseable as _};
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
        conditional: header.tos != 0,
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
    /// `FRA_DPORT_RANGE`.
    const LAST_KNOWN: u16 = 24;
    /// What suppresses no route.
    const NOTHING: u32 = u32::MAX;
    match attribute {
        RuleAttribute::Priority(priority) => fact.priority = priority,
        RuleAttribute::Source(address) => fact.source = IpNet::new(address, header.src_len).ok(),
        RuleAttribute::Destination(address) => fact.destination = IpNet::new(address, header.dst_len).ok(),
        RuleAttribute::Iifname(name) => fact.iif = Some(name),
        RuleAttribute::Oifname(name) => fact.oif = Some(name),
        RuleAttribute::FwMark(mark) => fact.fwmark = Some((mark, fact.fwmark.map_or(WHOLE, |(_, mask)| mask))),
        RuleAttribute::FwMask(mask) => fact.fwmark = Some((fact.fwmark.map_or(0, |(mark, _)| mark), mask)),
        RuleAttribute::Table(table) => fact.table = table,
        RuleAttribute::SuppressPrefixLen(NOTHING) | RuleAttribute::SuppressIfGroup(NOTHING) => {}
        RuleAttribute::SuppressPrefixLen(_)
        | RuleAttribute::SuppressIfGroup(_)
        | RuleAttribute::TunId(_)
        | RuleAttribute::L3MDev(true)
        | RuleAttribute::UidRange(_)
        | RuleAttribute::IpProtocol(_)
        | RuleAttribute::SourcePortRange(_)
        | RuleAttribute::DestinationPortRange(_) => fact.conditional = true,
        // What the library does not know came after it.
        RuleAttribute::Other(other) if other.kind() > LAST_KNOWN => fact.conditional = true,
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

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;
    use netlink_packet_route::{IpProtocol, route::RouteProtocol};

    use super::*;

    fn message(attributes: Vec<RuleAttribute>) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.src_len = 32;
        message.header.action = RuleAction::ToTable;
        message.header.table = 254;
        message.attributes = attributes;
        message
    }

    fn read(attributes: Vec<RuleAttribute>) -> PolicyRuleFact {
        rule(&Answer::with(&message(attributes)), AddressFamily::Inet).unwrap()
    }

    #[test]
    fn the_rule_of_a_floating_ip_is_read() {
        let fact = read(vec![
            RuleAttribute::Priority(57_481),
            RuleAttribute::Source("10.0.0.2".parse().unwrap()),
            RuleAttribute::Table(16),
        ]);
        assert_eq!(fact.source.unwrap().to_string(), "10.0.0.2/32");
        assert_eq!((fact.priority, fact.table, fact.action.as_str()), (57_481, 16, "lookup"));
    }

    #[test]
    fn a_mark_has_a_mask_whichever_comes_first() {
        let both = [RuleAttribute::FwMark(1), RuleAttribute::FwMask(0xff)];
        let [alone, below] = both.clone().map(|attribute| read(vec![attribute]).fwmark);
        assert_eq!(read(both.to_vec()).fwmark, Some((1, 0xff)));
        assert_eq!(read(both.into_iter().rev().collect()).fwmark, Some((1, 0xff)));
        assert_eq!((alone, below), (Some((1, u32::MAX)), Some((0, 0xff))));
    }

    #[test]
    fn a_rule_that_asks_for_more_than_is_read_is_told() {
        let nothing = [RuleAttribute::SuppressPrefixLen(u32::MAX), RuleAttribute::Protocol(RouteProtocol::Static)];
        assert!(!read(nothing.to_vec()).conditional);
        for more in [
            RuleAttribute::SuppressPrefixLen(0),
            RuleAttribute::IpProtocol(IpProtocol::Tcp),
            RuleAttribute::L3MDev(true),
            RuleAttribute::Other(DefaultNla::new(25, vec![8])),
        ] {
            assert!(read(vec![more.clone()]).conditional, "{more:?}");
        }
        let mut tos = message(Vec::new());
        tos.header.tos = 8;
        assert!(rule(&Answer::with(&tos), AddressFamily::Inet).unwrap().conditional);
    }

    #[test]
    fn an_inverted_rule_is_told() {
        let mut message = message(vec![RuleAttribute::Iifname("rfp-1a2b3c4d-5".to_owned())]);
        message.header.flags = RuleFlags::Invert;
        message.header.action = RuleAction::Unreachable;
        let fact = rule(&Answer::with(&message), AddressFamily::Inet).unwrap();
        assert_eq!((fact.inverted, fact.action.as_str()), (true, "unreachable"));
        assert_eq!(fact.iif.as_deref(), Some("rfp-1a2b3c4d-5"));
    }

    #[test]
    fn a_rule_of_another_family_is_left_out() {
        assert_eq!(rule(&Answer::with(&message(Vec::new())), AddressFamily::Inet6), None);
    }
}
