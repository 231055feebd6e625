//! Routes: which way a namespace sends a packet.
//!
//! The look-up is the kernel's (`ip rule`, then longest prefix, then lowest metric) over what rtnetlink reported. A rule
//! with a selector that the question does not answer (a firewall mark, say) is passed over and reported, so that the
//! answer can say what it depends on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Inventory;
use crate::{
    fact::{NetworkFact, NextHop, PolicyRuleFact, RouteFact},
    id::{IfIndex, NetnsId},
};

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
    /// rtnetlink could not be read there.
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
        for rule in rules {
            if !applies(rule, question) {
                continue;
            }
            if rule.action != "lookup" {
                return Err(NoRoute::Refused(rule.action.clone()));
            }
            match lookup(network, rule.table, question) {
                Err(NoRoute::None) => {}
                found => return found.map(|answer| Answer { rule: Some(rule), ..answer }),
            }
        }
        Err(NoRoute::None)
    }
}

fn applies(rule: &PolicyRuleFact, question: Question<'_>) -> bool {
    let holds = rule.source.is_none_or(|net| net.contains(&question.source))
        && rule.destination.is_none_or(|net| question.destination.is_some_and(|address| net.contains(&address)))
        && rule.iif.as_deref().is_none_or(|iif| question.iif == Some(iif))
        && rule.oif.is_none()
        && rule.fwmark.is_none();
    holds != rule.inverted
}

fn lookup<'a>(network: &'a NetworkFact, table: u32, question: Question<'_>) -> Result<Answer<'a>, NoRoute> {
    let routes = network.routes.iter().filter(|route| route.table == table && matches(route, question));
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

fn matches(route: &RouteFact, question: Question<'_>) -> bool {
    match (question.destination, route.destination) {
        (Some(destination), net) => net.contains(&destination),
        (None, IpNet::V4(net)) => {
            question.source.is_ipv4() && net.prefix_len() == 0 && net.addr() == Ipv4Addr::UNSPECIFIED
        }
        (None, IpNet::V6(net)) => {
            question.source.is_ipv6() && net.prefix_len() == 0 && net.addr() == Ipv6Addr::UNSPECIFIED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NoRoute, Question};
    use crate::{
        fact::{Facts, NamespaceFact, NetworkFact, NextHop, PolicyRuleFact, RouteFact},
        id::{IfIndex, NetnsId},
        inventory::Inventory,
        snapshot::Snapshot,
    };

    const NETNS: NetnsId = NetnsId { inode: 1, cookie: 1 };

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
        PolicyRuleFact {
            ipv6: false,
            priority,
            source: source.map(|source| source.parse().unwrap()),
            destination: None,
            iif: None,
            oif: None,
            fwmark: None,
            inverted: false,
            action: "lookup".to_owned(),
            table,
        }
    }

    fn snapshot(rules: Vec<PolicyRuleFact>, routes: Vec<RouteFact>) -> Snapshot {
        let network = NetworkFact {
            netns: NETNS,
            nsids: [].into(),
            links: vec![],
            neighbours: vec![],
            routes,
            rules,
            fdb: vec![],
            vlans: vec![],
        };
        let namespace = NamespaceFact { id: NETNS, host: true, names: vec![], processes: vec![], process_count: 1 };
        Snapshot {
            schema_version: Snapshot::VERSION,
            taken_at: 0,
            hostname: String::new(),
            kernel: String::new(),
            netdiag: String::new(),
            facts: Facts { namespaces: vec![namespace], networks: vec![network], ..Facts::default() },
        }
    }

    /// Link and gateway a packet from one address to another (or to the outside) leaves by.
    fn way(snapshot: &Snapshot, source: &str, destination: Option<&str>) -> Result<(u32, Option<String>), NoRoute> {
        let question = Question {
            source: source.parse().unwrap(),
            destination: destination.map(|destination| destination.parse().unwrap()),
            iif: None,
        };
        let inventory = Inventory::build(snapshot);
        let answer = inventory.route(NETNS, question)?;
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
}
