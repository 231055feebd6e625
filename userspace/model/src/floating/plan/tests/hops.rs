//! Where routers send what is translated.

use super::{Site, site};
use crate::{
    floating::{NextHop, Plan},
    testing::{ROUTER, mac},
};

const NEIGHBOUR: &str = "52:54:00:00:00:07";

/// Where the router of the first floating IP sends what goes to an address, by the longest prefix.
fn hop(plan: &Plan, address: &str) -> Option<NextHop> {
    let path = plan.floating_ips[0].fast().unwrap_or_else(|| panic!("{plan:?}"));
    let hops = &plan.routers[&path.router].hops;
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let covering = hops.iter().filter(|(prefix, _)| prefix.contains(&address));
    covering.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, hop)| *hop)
}

/// The plan of a central router after a change.
fn after(change: impl FnOnce(&mut Site)) -> Plan {
    let mut site = Site::central();
    change(&mut site);
    site.plan()
}

#[test]
fn the_outside_is_reached_by_the_gateway_and_neighbours_by_themselves() {
    for state in ["REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT", "NOARP"] {
        let plan = after(|site| {
            let qg = site.key_in(site.router, "qg-1");
            site.neighbour(qg, "172.24.4.7", Some(NEIGHBOUR), state);
        });
        assert_eq!(hop(&plan, "198.51.100.9"), Some(NextHop::Via(mac(site::GATEWAY_MAC))));
        assert_eq!(hop(&plan, "172.24.4.7"), Some(NextHop::OnLink(mac(NEIGHBOUR))), "{state}");
        assert_eq!(hop(&plan, "172.24.4.8"), Some(NextHop::Unresolved));
    }
    for state in ["FAILED", "INCOMPLETE", "NONE"] {
        let plan = after(|site| {
            let qg = site.key_in(site.router, "qg-1");
            site.neighbour(qg, "172.24.4.7", Some(NEIGHBOUR), state);
        });
        assert_eq!(hop(&plan, "172.24.4.7"), Some(NextHop::Unresolved), "{state}");
    }
}

#[test]
fn a_gateway_that_nobody_has_answered_for_is_unresolved() {
    let plan = after(|site| site.host.network(site.router).neighbours.clear());
    assert_eq!(hop(&plan, "198.51.100.9"), Some(NextHop::Unresolved));
}

#[test]
fn what_stays_inside_and_what_is_no_instances_business_is_not_translated() {
    let plan = after(|_| {});
    for address in [
        "10.0.0.7",
        "172.24.4.2",
        "172.24.4.6",
        "172.24.4.255",
        "172.24.4.0",
        "169.254.169.254",
        "224.0.0.5",
        "255.255.255.255",
        "127.0.0.1",
        "0.0.0.0",
    ] {
        assert_eq!(hop(&plan, address), Some(NextHop::Slow), "{address}");
    }
}

#[test]
fn a_mac_address_of_this_host_is_not_behind_the_nic() {
    for owner in ["br-ex", "eth1"] {
        let plan = after(|site| {
            let qg = site.key_in(site.router, "qg-1");
            let own = site.link(owner).mac.unwrap().to_string();
            site.neighbour(qg, "172.24.4.7", Some(&own), "REACHABLE");
        });
        assert_eq!(hop(&plan, "172.24.4.7"), Some(NextHop::Slow), "{owner}");
    }
    // The gateway is the host itself.
    let plan = after(|site| {
        site.link("br-ex").mac = Some(mac(site::GATEWAY_MAC));
    });
    assert_eq!(hop(&plan, "198.51.100.9"), Some(NextHop::Slow));
    // Another router's address, an instance's.
    let plan = after(|site| {
        site.second_tenant();
        let qg = site.key_in(site.router, "qg-1");
        site.neighbour(qg, "172.24.4.7", Some("fa:16:3e:00:00:03"), "REACHABLE");
    });
    assert_eq!(hop(&plan, "172.24.4.7"), Some(NextHop::Slow));
    // Stale, as the address has come here since.
    let plan = after(|site| {
        site.second_tenant();
        let qg = site.key_in(site.router, "qg-1");
        site.neighbour(qg, "172.24.4.8", Some(NEIGHBOUR), "STALE");
    });
    assert_eq!(hop(&plan, "172.24.4.8"), Some(NextHop::Slow));
}

#[test]
fn without_a_nic_the_host_itself_is_outside() {
    let plan = after(|site| {
        site.bridge("br-ex").ports.retain(|port| port.name != "eth1");
        site.link("br-ex").mac = Some(mac(site::GATEWAY_MAC));
        let own = site.key("br-ex");
        site.host.address(own, "172.24.4.1/24");
        let qg = site.key_in(site.router, "qg-1");
        site.neighbour(qg, "172.24.4.7", Some(NEIGHBOUR), "REACHABLE");
    });
    assert_eq!(hop(&plan, "198.51.100.9"), Some(NextHop::Via(mac(site::GATEWAY_MAC))));
    assert_eq!(hop(&plan, "172.24.4.1"), Some(NextHop::OnLink(mac(site::GATEWAY_MAC))));
    // Nobody else can be there but on this host.
    assert_eq!(hop(&plan, "172.24.4.7"), Some(NextHop::Slow));
}

#[test]
fn the_far_end_of_a_nic_is_outside_even_where_it_can_be_seen() {
    let plan = after(|site| {
        let outside = site.host.netns(&["outside"]);
        let far = site.host.link(outside, "far", Some("veth"));
        site.host.mac(far, site::GATEWAY_MAC);
        site.host.network(site.host.id).nsids.insert(77, outside);
        let nic = site.link("eth1");
        (nic.kind, nic.link, nic.link_netnsid) = (Some("veth".to_owned()), Some(far.ifindex), Some(77));
    });
    assert_eq!(hop(&plan, "198.51.100.9"), Some(NextHop::Via(mac(site::GATEWAY_MAC))));
}

#[test]
fn routes_elsewhere_and_those_with_several_next_hops_are_left_to_the_router() {
    let plan = after(|site| {
        let (qg, qr) = (site.key_in(site.router, "qg-1"), site.key_in(site.router, "qr-1"));
        site.host.route(qr, "10.9.0.0/16", Some("10.0.0.254"));
        site.host.route(qg, "198.51.100.0/24", Some("172.24.4.1"));
        site.host.network(qg.netns).routes.last_mut().unwrap().next_hops.push(site::by(qg, Some("172.24.4.7")));
        site.host.route(qg, "203.0.113.0/24", None);
        site.host.network(qg.netns).routes.last_mut().unwrap().kind = "blackhole".to_owned();
    });
    for address in ["10.9.1.1", "198.51.100.9", "203.0.113.9"] {
        assert_eq!(hop(&plan, address), Some(NextHop::Slow), "{address}");
    }
    assert_eq!(hop(&plan, "192.0.2.9"), Some(NextHop::Via(mac(site::GATEWAY_MAC))));
}

#[test]
fn addresses_of_this_host_are_not_outside_wherever_a_route_leads() {
    let plan = after(|site| {
        let qg = site.link_in(ROUTER, "qg-1");
        let more = qg.addresses[1].clone();
        qg.addresses.push(crate::fact::AddressFact { address: "198.51.100.77/32".parse().unwrap(), ..more });
    });
    assert_eq!(hop(&plan, "198.51.100.77"), Some(NextHop::Slow));
    assert_eq!(hop(&plan, "198.51.100.78"), Some(NextHop::Via(mac(site::GATEWAY_MAC))));
}
