//! Rules, one by one: the policy of a port is the union of its groups. Flow: policy.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    super::types::{Direction, Mode, Remote, Rule, RuleId, Service},
    Context,
    packet::{Asked, Detail},
};

/// Every rule of the port that allows what is asked.
pub(super) fn allowing(context: &Context<'_>, direction: Direction, asked: Asked, remote: IpAddr) -> BTreeSet<RuleId> {
    if context.port.mode == Mode::Closed {
        return BTreeSet::new();
    }
    let groups = context.port.groups.iter().filter_map(|id| context.policy.groups.get(id));
    let rules = groups.flat_map(|group| &group.rules);
    let allows = |rule: &&Rule| {
        rule.direction == direction
            && rule.ethertype == asked.family
            && is_service(rule.service, asked)
            && is_remote(context, &rule.remote, remote)
    };
    rules.filter(allows).map(|rule| rule.id.clone()).collect()
}

fn is_service(service: Service, asked: Asked) -> bool {
    match service {
        Service::Any => true,
        Service::Protocol(protocol) => protocol == asked.protocol,
        Service::Ports { protocol, first, last } => {
            protocol == asked.protocol && matches!(asked.detail, Detail::Port(port) if (first..=last).contains(&port))
        }
        Service::Icmp { protocol, kind, code } => {
            let wanted = |k, c| k == kind && code.is_none_or(|code| code == c);
            protocol == asked.protocol && matches!(asked.detail, Detail::Icmp { kind, code } if wanted(kind, code))
        }
    }
}

fn is_remote(context: &Context<'_>, remote: &Remote, address: IpAddr) -> bool {
    let within = |networks: &BTreeSet<IpNet>| networks.iter().any(|network| network.contains(&address));
    match remote {
        Remote::Any => true,
        Remote::Prefix(prefix) => prefix.contains(&address),
        Remote::Group(group) => context.members.get(group).is_some_and(within),
        Remote::AddressGroup(group) => {
            context.policy.address_groups.get(group).is_some_and(|group| within(&group.addresses))
        }
    }
}
