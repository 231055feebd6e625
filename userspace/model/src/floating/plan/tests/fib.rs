//! Prefixes against the look-up that follows the kernel's, on random routes and rules.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use proptest::{collection, option, prelude::*, sample::select};

use super::super::fib::{Asked, Leads, covering, prefixes, tables};
use crate::{
    fact::{NextHop, PolicyRuleFact, RouteFact},
    id::IfIndex,
    inventory::{Inventory, route::Question},
    testing::{Host, lookup},
};

/// Few enough networks that they meet.
fn net() -> impl Strategy<Value = Ipv4Net> {
    let address =
        select(&[[10, 0, 0, 0], [10, 0, 0, 2], [10, 0, 1, 0], [172, 24, 4, 0], [172, 24, 4, 6], [0, 0, 0, 0]][..]);
    (address, select(&[0_u8, 8, 16, 23, 24, 31, 32][..]))
        .prop_map(|(address, length)| Ipv4Net::new(address.into(), length).unwrap().trunc())
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    select(&[[10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 1, 9], [10, 9, 9, 9], [172, 24, 4, 6], [172, 24, 4, 9], [8, 8, 8, 8]][..])
        .prop_map(Ipv4Addr::from)
}

fn route() -> impl Strategy<Value = RouteFact> {
    let hop = (option::of(select(&["172.24.4.1", "10.0.0.254"][..])), 2..4_u32);
    let table = select(&[16_u32, 254, 77][..]);
    (table, net(), 0..2_u32, hop, select(&["unicast", "unicast", "unicast", "unreachable"][..])).prop_map(
        |(table, destination, metric, (gateway, ifindex), kind)| RouteFact {
            table,
            destination: IpNet::V4(destination),
            kind: kind.to_owned(),
            source: None,
            metric,
            scope: "global".to_owned(),
            next_hops: vec![NextHop {
                gateway: gateway.map(|gateway| gateway.parse().unwrap()),
                ifindex: Some(IfIndex(ifindex)),
                dead: false,
                onlink: false,
            }],
        },
    )
}

fn rule() -> impl Strategy<Value = PolicyRuleFact> {
    let by = option::of(select(&["qr-1", "rfp-1"][..]));
    (1..6_u32, option::of(net()), by, select(&[16_u32, 254, 77, 255][..]), select(&["lookup", "lookup", "nop"][..]))
        .prop_map(|(priority, source, iif, table, action)| PolicyRuleFact {
            source: source.map(IpNet::V4),
            iif: iif.map(str::to_owned),
            action: action.to_owned(),
            ..lookup(priority, table)
        })
}

proptest! {
    #[test]
    fn the_longest_prefix_is_where_the_kernel_sends_a_packet(
        routes in collection::vec(route(), 0..9),
        rules in collection::vec(rule(), 0..5),
        source in address(),
        destination in address(),
        by in select(&["qr-1", "rfp-1", "other"][..]),
    ) {
        // Two routes to one network with one metric differ in what is not known, and neither is followed.
        let mut seen = std::collections::BTreeSet::new();
        let routes: Vec<RouteFact> =
            routes.into_iter().filter(|route| seen.insert((route.table, route.destination, route.metric))).collect();
        let mut rules = rules;
        rules.sort_by_key(|rule| rule.priority);
        rules.dedup_by_key(|rule| rule.priority);
        let mut host = Host::new();
        let id = host.id;
        let network = host.network(id);
        (network.rules, network.routes) = (rules, routes);
        let snapshot = host.snapshot();
        let inventory = Inventory::build(&snapshot);
        let network = inventory.network(id).unwrap();
        let question = Question { source: IpAddr::V4(source), destination: Some(IpAddr::V4(destination)), iif: Some(by) };
        let expected = inventory.route(id, question).ok().map(|answer| {
            let gateway = answer.next_hop.gateway.map(|gateway| gateway.to_string());
            (answer.ifindex().unwrap().0, gateway)
        });
        let tables = tables(network, Asked { source: Some(source), by }).unwrap();
        let found = covering(&prefixes(network, &tables), Ipv4Net::from(destination)).map(|(_, leads)| *leads);
        let found = match found {
            Some(Leads::By(device, gateway)) => Some((device.0, gateway.map(|gateway| gateway.to_string()))),
            Some(Leads::Nowhere) | None => None,
        };
        prop_assert_eq!(found, expected);
    }
}
