//! Distributed routers: the floating IP's own namespace between the router and the outside.

use super::{Site, site};
use crate::{
    floating::NextHop,
    id::{LinkKey, NetnsId},
    testing::{ROUTER, mac},
};

const NETWORK: &str = "99cc33dd-44ee-45ff-86aa-00000000000d";
const FG_MAC: &str = "fa:16:3e:00:00:70";

/// A site with a distributed router, as Neutron's agent leaves it.
struct Distributed {
    site: Site,
    fip: NetnsId,
    rfp: LinkKey,
    fpr: LinkKey,
    fg: LinkKey,
}

fn distributed() -> Distributed {
    let mut site = Site::central();
    let fip = site.host.netns(&[&format!("fip-{NETWORK}")]);
    let (rfp, fpr) = site.host.veth((site.router, "rfp-77aa11bb-2"), (fip, "fpr-77aa11bb-2"));
    site.host.address(rfp, "169.254.64.2/31");
    site.host.address(fpr, "169.254.64.3/31");
    let fg = site.host.link(fip, "fg-1", Some("tun"));
    site.host.mac(fg, FG_MAC);
    site.host.address(fg, "172.24.4.20/24");
    // What was qg-'s is fg-'s now.
    let port = site.ovs_port("qg-1");
    port.name = "fg-1".to_owned();
    port.interfaces[0].name = "fg-1".to_owned();
    site.host.network(site.router).links.retain(|link| link.name != "qg-1");
    let qg_routes = |route: &crate::fact::RouteFact| {
        let text = route.destination.to_string();
        text != "0.0.0.0/0" && text != "172.24.4.0/24"
    };
    site.host.network(site.router).routes.retain(qg_routes);
    site.replace_rules(ROUTER, |text| {
        let bound = text.replace("PREROUTING -d 172.24.4.6/32 -j", "PREROUTING -d 172.24.4.6/32 -i rfp-77aa11bb-2 -j");
        let guarded = bound.replace("! -o qg-1", "! -o rfp-77aa11bb-2").replace("-i qg-1", "-i rfp-77aa11bb-2");
        let own = |line: &&str| !line.contains("to-source 172.24.4.2") && !line.contains("-OUTPUT -d ");
        guarded.lines().filter(own).map(|line| [line, "\n"].concat()).collect()
    });
    // Floating IPs of a router: to its end of the pair, and out by a table of their own.
    site.host.route(fpr, "172.24.4.6/32", Some("169.254.64.2"));
    site.route(fg, 2_851_995_650, ("0.0.0.0/0", Some("172.24.4.1")));
    let by_fpr = |rule: crate::fact::PolicyRuleFact| crate::fact::PolicyRuleFact {
        iif: Some("fpr-77aa11bb-2".to_owned()),
        ..rule
    };
    site.rule(fip, by_fpr(site::rule(2_851_995_650, 2_851_995_650)));
    site.route(rfp, 16, ("0.0.0.0/0", Some("169.254.64.3")));
    let router = site.router;
    let from = |rule: crate::fact::PolicyRuleFact| crate::fact::PolicyRuleFact {
        source: Some("10.0.0.2/32".parse().unwrap()),
        ..rule
    };
    site.rule(router, from(site::rule(57_481, 16)));
    site.host.rules(fip, "*raw\n:PREROUTING ACCEPT [0:0]\n:neutron-l3-agent-PREROUTING - [0:0]\n-A PREROUTING -j neutron-l3-agent-PREROUTING\n-A neutron-l3-agent-PREROUTING -j CT --notrack\nCOMMIT\n");
    site.host.sysctl(fip, "net.ipv4.conf.fg-1.proxy_arp", "1");
    site.neighbour(fg, "172.24.4.1", Some(site::GATEWAY_MAC), "STALE");
    site.neighbour(fg, "172.24.4.7", Some("52:54:00:00:00:07"), "DELAY");
    Distributed { site, fip, rfp, fpr, fg }
}

fn after(change: impl FnOnce(&mut Distributed)) -> String {
    let mut made = distributed();
    change(&mut made);
    made.site.way()
}

#[test]
fn a_distributed_floating_ip_goes_past_both_namespaces() {
    let plan = distributed().site.plan();
    let path = plan.floating_ips[0].fast().unwrap_or_else(|| panic!("{plan:?}"));
    assert_eq!((path.hops, path.outer_mac, path.inner_mac), (2, mac(FG_MAC), mac(site::INNER_MAC)));
    let hops = &plan.routers[&path.router].hops;
    let hop = |prefix: &str| hops.get(&prefix.parse().unwrap()).copied();
    // The router sends nothing but what its own tables lead out.
    assert_eq!(hop("0.0.0.0/0"), Some(NextHop::Via(mac(site::GATEWAY_MAC))));
    assert_eq!(hop("10.0.0.0/24"), Some(NextHop::Slow));
    assert_eq!(hop("172.24.4.0/24"), Some(NextHop::Unresolved));
    assert_eq!(hop("172.24.4.7/32"), Some(NextHop::OnLink(mac("52:54:00:00:00:07"))));
    assert_eq!(hop("172.24.4.6/32"), Some(NextHop::Slow));
}

#[test]
fn what_the_second_namespace_lacks_is_named() {
    let way = after(|made| {
        let network = made.site.host.network(made.fip);
        network.routes.retain(|route| route.destination.to_string() != "172.24.4.6/32");
    });
    assert!(way.starts_with("broken: fip-") && way.ends_with("has no route for 172.24.4.6 to its router"), "{way}");
    let way = after(|made| made.site.host.sysctl(made.fip, "net.ipv4.conf.fg-1.proxy_arp", "0"));
    assert!(way.starts_with("broken: fg-1 of fip-") && way.contains("does not answer ARP"), "{way}");
    let way = after(|made| made.site.host.sysctl(made.fip, "net.ipv4.ip_forward", "0"));
    assert!(way.starts_with("broken: fip-") && way.contains("does not forward"), "{way}");
    let way = after(|made| made.site.host.edit(made.fpr).mtu = 1400);
    assert_eq!(way, "fast");
    let way = after(|made| made.site.host.edit(made.rfp).qdisc = Some("htb".to_owned()));
    assert!(way.starts_with("slow: rfp-77aa11bb-2 of qrouter-") && way.contains("htb"), "{way}");
    let way = after(|made| made.site.host.edit(made.fg).admin_up = false);
    assert!(way.starts_with("broken: fg-1 of fip-"), "{way}");
    let way = after(|made| {
        made.site.host.rules(made.fip, "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p udp -j DROP\nCOMMIT\n");
    });
    assert!(way.starts_with("slow: fip-") && way.contains("that only it can keep: -A FORWARD -p udp -j DROP"), "{way}");
}

#[test]
fn packets_fit_into_every_network_of_the_way() {
    let mut made = distributed();
    made.site.host.edit(made.fpr).mtu = 1400;
    made.site.host.edit(made.rfp).mtu = 1390;
    let path = made.site.fast();
    assert_eq!((path.inner_mtu, path.outer_mtu), (1400, 1390));
}

#[test]
fn without_its_routing_rule_nothing_leaves() {
    let way = after(|made| {
        let router = made.site.router;
        made.site.host.network(router).rules.retain(|rule| rule.table != 16);
    });
    assert!(way.starts_with("broken: nothing that 10.0.0.2 sends outside leaves by fg-1 of fip-"), "{way}");
}

#[test]
fn what_comes_by_the_centralised_half_alone_is_left_to_it() {
    let mut site = Site::central();
    for name in &mut site.host.namespace(site.router).names {
        name.path = name.path.replace("qrouter-", "snat-");
    }
    let way = site.way();
    assert!(way.starts_with("slow: what 10.0.0.2 sends comes to snat-"), "{way}");
}
