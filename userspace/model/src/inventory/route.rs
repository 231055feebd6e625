//! Routes: which way a namespace sends a packet.
//!
//! The look-up is the kernel's (`ip rule`, then longest prefix, then lowest metric; `fib_rules_lookup` and
//! `fib_table_lookup`) over what rtnetlink reported. The packet that is asked for carries no firewall mark, and is bound to
//! no device.

use std::net::IpAddr;

use super::Inventory;
use crate::{
    fact::{NetworkFact, NextHop, PolicyRuleFact, RouteFact, SourceKind},
    id::{IfIndex, NetnsId},
};

/// Main routing table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;

/// Device of what a namespace sends itself.
const LOOPBACK: &str = "lo";

/// What a namespace is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination; none for any address outside, which only a default route leads to.
    pub destination: Option<IpAddr>,
    /// Device the packet came in by; none for a packet made here.
    pub iif: Option<&'a str>,
}

/// Which way.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The route.
    pub route: &'a RouteFact,
    /// Its first live next hop.
    pub next_hop: &'a NextHop,
    /// The rule that led to its table.
    pub rule: Option<&'a PolicyRuleFact>,
}

impl Answer<'_> {
    /// Link it leaves by.
    pub fn ifindex(&self) -> Option<IfIndex> {
        self.next_hop.ifindex
    }

    /// Where the frame is addressed to: the gateway, or the destination itself on a connected route.
    pub fn neighbour(&self, destination: Option<IpAddr>) -> Option<IpAddr> {
        self.next_hop.gateway.or(destination)
    }
}

/// Why there is no way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// rtnetlink could not be read there, or not wholly, or a rule leads on in a way that is not known (`goto`).
    Unknown,
    /// No route matches.
    None,
    /// A route of this kind (`blackhole`, `unreachable`, `prohibit`) refuses.
    Refused(String),
    /// A route matches and its link is down.
    Dead,
}

impl<'a> Inventory<'a> {
    /// Which way a namespace sends a packet.
    ///
    /// # Errors
    /// There is no way, for the reason given.
    pub fn route(&self, netns: NetnsId, question: Question<'_>) -> Result<Answer<'a>, NoRoute> {
        let network = self.network(netns).ok_or(NoRoute::Unknown)?;
        let ipv6 = question.source.is_ipv6();
        let mut rules: Vec<_> = network.rules.iter().filter(|rule| rule.ipv6 == ipv6).collect();
        rules.sort_by_key(|rule| rule.priority);
        if rules.is_empty() {
            // A kernel without CONFIG_IP_MULTIPLE_TABLES has no rules.
            return lookup(network, MAIN, question).map_err(|reason| self.unless_unread(netns, reason));
        }
        for rule in rules.into_iter().filter(|rule| applies(rule, question)) {
            match rule.action.as_str() {
                "nop" => {}
                "lookup" => match lookup(network, rule.table, question) {
                    Err(NoRoute::None) => {}
                    found => return found.map(|answer| Answer { rule: Some(rule), ..answer }),
                },
                "blackhole" | "unreachable" | "prohibit" => return Err(NoRoute::Refused(rule.action.clone())),
                _ => return Err(NoRoute::Unknown),
            }
        }
        Err(self.unless_unread(netns, NoRoute::None))
    }

    /// What was not found may be among what rtnetlink could not read.
    fn unless_unread(&self, netns: NetnsId, reason: NoRoute) -> NoRoute {
        let mut gaps = self.snapshot.facts.gaps();
        let partly = gaps.any(|gap| gap.source == SourceKind::Netlink && gap.netns == Some(netns));
        if partly && reason == NoRoute::None { NoRoute::Unknown } else { reason }
    }
}

fn applies(rule: &PolicyRuleFact, question: Question<'_>) -> bool {
    let holds = rule.source.is_none_or(|net| net.contains(&question.source))
        && rule.destination.is_none_or(|net| question.destination.is_some_and(|address| net.contains(&address)))
        && rule.iif.as_deref().is_none_or(|iif| question.iif.unwrap_or(LOOPBACK) == iif)
        && rule.oif.is_none()
        && rule.fwmark.is_none_or(|(mark, mask)| mark & mask == 0);
    holds != rule.inverted
}

fn lookup<'a>(network: &'a NetworkFact, table: u32, question: Question<'_>) -> Result<Answer<'a>, NoRoute> {
    let routes = || network.routes.iter().filter(|route| route.table == table);
    let halved = question.destination.is_none() && in_halves(routes(), question.source.is_ipv4());
    let routes = routes().filter(|route| matches(route, question, halved));
    let best = routes.min_by_key(|route| (u8::MAX - route.destination.prefix_len(), route.metric));
    let route = best.ok_or(NoRoute::None)?;
    if route.kind == "throw" {
        return Err(NoRoute::None);
    }
    if route.kind != "unicast" {
        return Err(NoRoute::Refused(route.kind.clone()));
    }
    let next_hop = route.next_hops.iter().find(|hop| !hop.dead).ok_or(NoRoute::Dead)?;
    Ok(Answer { route, next_hop, rule: None })
}

/// Whether two routes for half of all addresses each stand before a default route, as VPNs set them.
fn in_halves<'a>(routes: impl Iterator<Item = &'a RouteFact>, ipv4: bool) -> bool {
    let halves =
        routes.map(|route| route.destination).filter(|net| net.prefix_len() == 1 && net.addr().is_ipv4() == ipv4);
    let (low, high): (Vec<_>, Vec<_>) = halves.partition(|net| net.addr().is_unspecified());
    !low.is_empty() && !high.is_empty()
}

/// `halved` tells that an address outside is in one of two halves, whichever.
fn matches(route: &RouteFact, question: Question<'_>, halved: bool) -> bool {
    let net = route.destination;
    if let Some(destination) = question.destination {
        return net.contains(&destination);
    }
    let everything = net.prefix_len() == 0 && net.addr().is_unspecified();
    net.addr().is_ipv4() == question.source.is_ipv4() && (everything || (halved && net.prefix_len() == 1))
}

#[cfg(test)]
mod tests {
    use super::{NoRoute, Question};
    use crate::{
        fact::{NextHop, PolicyRuleFact, RouteFact, SourceKind},
        id::IfIndex,
        inventory::Inventory,
        snapshot::Snapshot,
        testing::{Host, lookup},
    };

    fn route(table: u32, destination: &str, gateway: Option<&str>, ifindex: u32) -> RouteFact {
        let next_hops = vec![NextHop {
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            ifindex: Some(IfIndex(ifindex)),
            dead: false,
            onlink: false,
        }];
        RouteFact {
            table,
            destination: destination.parse().unwrap(),
            kind: "unicast".to_owned(),
            source: None,
            metric: 0,
            scope: "global".to_owned(),
            next_hops,
        }
    }

    fn rule(priority: u32, source: Option<&str>, table: u32) -> PolicyRuleFact {
        PolicyRuleFact { source: source.map(|source| source.parse().unwrap()), ..lookup(priority, table) }
    }

    /// A host whose own namespace has these rules and routes.
    fn snapshot(rules: Vec<PolicyRuleFact>, routes: Vec<RouteFact>) -> Snapshot {
        let mut host = Host::new();
        let id = host.id;
        let network = host.network(id);
        (network.rules, network.routes) = (rules, routes);
        host.snapshot()
    }

    /// Link and gateway a packet from one address to another (or to the outside) leaves by.
    fn way(snapshot: &Snapshot, source: &str, destination: Option<&str>) -> Result<(u32, Option<String>), NoRoute> {
        let question = Question {
            source: source.parse().unwrap(),
            destination: destination.map(|destination| destination.parse().unwrap()),
            iif: None,
        };
        let inventory = Inventory::build(snapshot);
        let answer = inventory.route(inventory.host.unwrap(), question)?;
        Ok((answer.ifindex().unwrap().0, answer.next_hop.gateway.map(|gateway| gateway.to_string())))
    }

    #[test]
    fn the_longest_prefix_wins_and_the_outside_takes_the_default_route() {
        let routes = vec![route(254, "0.0.0.0/0", Some("172.24.4.1"), 2), route(254, "10.0.0.0/24", None, 3)];
        let snapshot = snapshot(vec![rule(32766, None, 254)], routes);
        assert_eq!(way(&snapshot, "10.0.0.2", Some("10.0.0.9")), Ok((3, None)));
        assert_eq!(way(&snapshot, "10.0.0.2", Some("8.8.8.8")), Ok((2, Some("172.24.4.1".to_owned()))));
        assert_eq!(way(&snapshot, "10.0.0.2", None), Ok((2, Some("172.24.4.1".to_owned()))));
    }

    #[test]
    fn a_rule_for_the_source_leads_to_its_own_table() {
        let routes =
            vec![route(254, "0.0.0.0/0", Some("10.0.0.254"), 2), route(16, "0.0.0.0/0", Some("169.254.64.1"), 7)];
        let rules = vec![rule(32766, None, 254), rule(32768 - 10, Some("10.0.0.2/32"), 16)];
        let snapshot = snapshot(rules, routes);
        assert_eq!(way(&snapshot, "10.0.0.2", None), Ok((7, Some("169.254.64.1".to_owned()))));
        assert_eq!(way(&snapshot, "10.0.0.3", None), Ok((2, Some("10.0.0.254".to_owned()))));
    }

    #[test]
    fn no_route_a_refusing_route_and_a_dead_route_are_told_apart() {
        let rules = || vec![rule(32766, None, 254)];
        let refusing =
            RouteFact { kind: "blackhole".to_owned(), next_hops: vec![], ..route(254, "0.0.0.0/0", None, 1) };
        let mut dead = route(254, "0.0.0.0/0", Some("172.24.4.1"), 2);
        dead.next_hops[0].dead = true;
        let asked = |routes| way(&snapshot(rules(), routes), "10.0.0.2", None);
        assert_eq!(asked(vec![]), Err(NoRoute::None));
        assert_eq!(asked(vec![refusing]), Err(NoRoute::Refused("blackhole".to_owned())));
        assert_eq!(asked(vec![dead]), Err(NoRoute::Dead));
    }

    #[test]
    fn a_lower_metric_wins_between_routes_of_one_prefix() {
        let slow = RouteFact { metric: 200, ..route(254, "0.0.0.0/0", Some("10.0.0.1"), 1) };
        let fast = RouteFact { metric: 100, ..route(254, "0.0.0.0/0", Some("10.0.0.2"), 2) };
        let snapshot = snapshot(vec![rule(32766, None, 254)], vec![slow, fast]);
        assert_eq!(way(&snapshot, "10.9.9.9", None), Ok((2, Some("10.0.0.2".to_owned()))));
    }

    #[test]
    fn a_kernel_without_policy_rules_looks_into_the_main_table() {
        let snapshot = snapshot(vec![], vec![route(254, "0.0.0.0/0", Some("10.0.0.1"), 2)]);
        assert_eq!(way(&snapshot, "10.9.9.9", None), Ok((2, Some("10.0.0.1".to_owned()))));
    }

    #[test]
    fn a_rule_that_does_nothing_is_passed_over_and_one_that_jumps_leaves_the_answer_open() {
        let acting = |action: &str| PolicyRuleFact { action: action.to_owned(), ..rule(100, None, 0) };
        let asked = |action| {
            let routes = vec![route(254, "0.0.0.0/0", Some("10.0.0.1"), 2)];
            way(&snapshot(vec![acting(action), rule(32766, None, 254)], routes), "10.9.9.9", None)
        };
        assert_eq!(asked("nop"), Ok((2, Some("10.0.0.1".to_owned()))));
        assert_eq!(asked("goto"), Err(NoRoute::Unknown));
        assert_eq!(asked("prohibit"), Err(NoRoute::Refused("prohibit".to_owned())));
    }

    #[test]
    fn a_packet_is_taken_to_carry_no_mark() {
        let marked = |fwmark, inverted| PolicyRuleFact { fwmark: Some(fwmark), inverted, ..rule(100, None, 7) };
        let asked = |rule_: PolicyRuleFact| {
            let routes = vec![route(254, "0.0.0.0/0", Some("10.0.0.1"), 2), route(7, "0.0.0.0/0", Some("10.7.0.1"), 7)];
            way(&snapshot(vec![rule_, rule(32766, None, 254)], routes), "10.9.9.9", None).unwrap().0
        };
        // As a VPN sends everything into its tunnel but what it has marked itself.
        assert_eq!(asked(marked((0xca6c, u32::MAX), true)), 7);
        assert_eq!(asked(marked((0xca6c, u32::MAX), false)), 2);
        assert_eq!(asked(marked((0, 0xff), false)), 7);
    }

    #[test]
    fn what_is_made_here_comes_by_loopback() {
        let local = PolicyRuleFact { iif: Some("lo".to_owned()), ..rule(100, None, 7) };
        let routes = vec![route(254, "0.0.0.0/0", Some("10.0.0.1"), 2), route(7, "0.0.0.0/0", Some("10.7.0.1"), 7)];
        let snapshot = snapshot(vec![local, rule(32766, None, 254)], routes);
        assert_eq!(way(&snapshot, "10.9.9.9", None).map(|(link, _)| link), Ok(7));
    }

    #[test]
    fn routes_that_could_not_be_read_are_not_said_to_be_missing() {
        let mut host = Host::new();
        let id = host.id;
        host.gap(SourceKind::Netlink, Some(id));
        assert_eq!(way(&host.snapshot(), "10.9.9.9", None), Err(NoRoute::Unknown));
    }
}
