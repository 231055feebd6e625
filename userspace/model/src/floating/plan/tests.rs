//! Plans of hosts built by hand, and of the hosts of the lab.

/// Distributed routers.
mod distributed;
/// Prefixes against the kernel's own look-up.
mod fib;
/// What keeps a floating IP from the fast way.
mod hindrances;
/// Where routers send what is translated.
mod hops;
/// Hosts of the lab.
mod lab;
/// Floating IPs of the policy.
mod own;
/// Rules against a walk through them.
mod rules;
/// A host with a router, built by hand.
mod site;

use site::{FIXED, FLOATING, Site};

use super::{Slow, State};
use crate::{floating::ExternalHook, id::LinkKey, testing::mac};

/// In a word which way, and why.
fn words(state: &State) -> String {
    match state {
        State::Fast(_) => "fast".to_owned(),
        State::Slow { why } => format!("slow: {why}"),
        State::Broken { why } => format!("broken: {why}"),
    }
}

#[test]
fn a_floating_ip_whose_way_is_understood_goes_past_its_router() {
    let plan = Site::central().plan();
    let [made] = &plan.floating_ips[..] else { panic!("{plan:?}") };
    let path = made.fast().unwrap_or_else(|| panic!("{plan:?}"));
    assert_eq!((made.floating_ip_address, made.fixed_ip_address), (FLOATING, Some(FIXED)));
    assert_eq!(made.port_id.as_ref().map(|id| id.0.as_str()), Some("web"));
    assert_eq!((path.device.as_str(), path.hook, path.vlan), ("eth1", ExternalHook::Tc, 0));
    assert_eq!((path.outer_mac, path.inner_mac), (mac(site::OUTER_MAC), mac(site::INNER_MAC)));
    assert_eq!((path.mac, path.outer_mtu, path.inner_mtu), (mac(site::WEB_MAC), 1500, 1450));
    assert_eq!((path.hops, path.peer, path.random, path.begins), (1, true, true, true));
    assert!(plan.routers.contains_key(&path.router) && plan.routers.len() == 1);
}

#[test]
fn what_is_told_to_begin_slow_begins_slow_and_goes_on() {
    for (slow, begins) in [
        (Slow::None, true),
        (Slow::All, false),
        (Slow::These([FLOATING].into()), false),
        (Slow::These([FIXED].into()), true),
    ] {
        let mut site = Site::central();
        site.switches.slow = slow.clone();
        assert_eq!(site.fast().begins, begins, "{slow:?}");
    }
}

#[test]
fn routers_are_left_to_do_their_work_where_that_is_asked() {
    let mut site = Site::central();
    site.switches.accelerate = false;
    assert_eq!(site.way(), "slow: netdiag is told to leave the floating IPs of others to their routers");
}

#[test]
fn a_provider_vlan_is_put_on_frames_where_tc_meets_them() {
    let mut site = Site::central();
    site.external_network("vlan", Some("107"));
    assert_eq!(site.fast().vlan, 107);
    let mut site = Site::central();
    site.external_network("vlan", Some("107"));
    site.bridge("br-ex").datapath_type = "netdev".to_owned();
    assert!(site.way().starts_with("slow: VLAN 107 of the external network cannot be put"));
}

#[test]
fn a_bridge_in_user_space_is_met_at_xdp_and_one_without_a_nic_at_its_own_device() {
    let mut site = Site::central();
    site.bridge("br-ex").datapath_type = "netdev".to_owned();
    assert_eq!(site.fast().hook, ExternalHook::Xdp);
    let mut site = Site::central();
    site.bridge("br-ex").ports.retain(|port| port.name != "eth1");
    let path = site.fast();
    assert_eq!((path.hook, path.device.as_str()), (ExternalHook::Internal, "br-ex"));
}

#[test]
fn what_is_met_at_xdp_is_neither_tagged_nor_received() {
    let changes: [fn(&mut Site); 2] = [
        |site| site.bridge("br-ex").ports.retain(|port| port.name != "eth1"),
        |site| site.external_network("vlan", Some("107")),
    ];
    for change in changes {
        let site = || {
            let mut site = Site::central();
            change(&mut site);
            site
        };
        assert!(site().fast().begins);
        let mut met_at_xdp = site();
        met_at_xdp.enforced[0].hook = crate::policy::types::Hook::Xdp;
        let way = met_at_xdp.way();
        assert!(way.starts_with("slow: what web sends is met at XDP"), "{way}");
    }
}

#[test]
fn a_router_of_a_linux_bridge_leaves_by_the_nic_in_it() {
    let mut site = Site::bridged();
    let path = site.fast();
    assert_eq!((path.hook, path.device.as_str(), path.vlan), (ExternalHook::Tc, "eth1", 0));
    assert!(path.peer);
    site = Site::bridged();
    site.link("eth1").master = None;
    let path = site.fast();
    assert_eq!((path.hook, path.device.as_str()), (ExternalHook::Internal, "brq-ext"));
}

#[test]
fn a_namespace_that_is_all_there_is_behind_a_linux_bridge_is_outside_even_where_it_can_be_seen() {
    let plugged = |change: fn(&mut Site, LinkKey)| {
        let mut site = Site::bridged();
        site.link("eth1").master = None;
        let outside = site.host.netns(&[]);
        site.host.process(outside, 700, "ip");
        let (near, far) = site.host.veth((site.host.id, "ext0"), (outside, "eth0"));
        site.host.mac(far, site::GATEWAY_MAC);
        let bridge = site.key("brq-ext");
        site.host.edit(near).master = Some(bridge.ifindex);
        change(&mut site, near);
        let path = site.fast();
        (path.hook, path.device)
    };
    assert_eq!(plugged(|_, _| {}), (ExternalHook::Tc, "ext0".to_owned()));
    // It is an instance of the external network.
    let enforced = plugged(|site, near| site.enforce("other", near, site::GATEWAY_MAC));
    assert_eq!(enforced, (ExternalHook::Internal, "brq-ext".to_owned()));
    // So it is where the host itself is outside, or its NIC leads there.
    let host = plugged(|site, _| {
        let bridge = site.key("brq-ext");
        site.host.address(bridge, "172.24.4.1/24");
    });
    assert_eq!(host, (ExternalHook::Internal, "brq-ext".to_owned()));
    let nic = plugged(|site, near| site.link("eth1").master = site.host.edit(near).master);
    assert_eq!(nic, (ExternalHook::Tc, "eth1".to_owned()));
}

#[test]
fn tenants_with_one_fixed_address_have_each_their_own_port() {
    let mut site = Site::central();
    site.second_tenant();
    let plan = site.plan();
    let ports: Vec<_> = plan.floating_ips.iter().map(|made| made.port_id.as_ref().map(|id| id.0.as_str())).collect();
    assert_eq!(ports, [Some("web"), Some("db")]);
    let paths: Vec<_> = plan.floating_ips.iter().map(|made| made.fast().unwrap()).collect();
    assert_ne!(paths[0].port_ifindex, paths[1].port_ifindex);
    assert_ne!(paths[0].router, paths[1].router);
}

#[test]
fn the_number_of_a_router_does_not_depend_on_the_others() {
    let alone = Site::central().plan().floating_ips[0].fast().unwrap().router;
    let mut site = Site::central();
    site.second_tenant();
    let plan = site.plan();
    assert_eq!(plan.floating_ips[0].fast().unwrap().router, alone);
}

#[test]
fn an_address_that_two_routers_have_on_one_network_is_nobodys() {
    let mut site = Site::central();
    site.second_tenant();
    site.replace_rules(site::OTHER_ROUTER, |text| text.replace("172.24.4.8", "172.24.4.6"));
    site.link_in(site::OTHER_ROUTER, "qg-2").addresses[1].address = "172.24.4.6/32".parse().unwrap();
    let plan = site.plan();
    for made in &plan.floating_ips {
        let why = words(&made.way);
        assert!(
            why.starts_with("broken: two have it on one network: qrouter-") && why.contains(" and qrouter-"),
            "{why}"
        );
    }
}

#[test]
fn of_two_floating_ips_of_one_address_the_first_goes_past_the_router() {
    let mut site = Site::central();
    site.second_floating("172.24.4.7");
    let plan = site.plan();
    let ways: Vec<_> = plan.floating_ips.iter().map(|made| words(&made.way)).collect();
    assert_eq!(ways[0], "fast");
    assert!(
        ways[1].ends_with("leaves qrouter-77aa11bb-22cc-43dd-84ee-00000000000b as 172.24.4.6, its first floating IP")
    );
}

#[test]
fn a_router_on_standby_says_so_and_is_no_second_owner() {
    let mut site = Site::central();
    site.standby();
    let way = site.way();
    assert!(
        way.starts_with("slow: qrouter-") && way.ends_with("is on standby: the active router is on another host"),
        "{way}"
    );
}

#[test]
fn single_ports_of_an_address_are_left_to_the_router() {
    let mut site = Site::central();
    let forward = "-A neutron-l3-agent-fip-pf -j neutron-l3-agent-pf-0a1b2c3d\n-A neutron-l3-agent-pf-0a1b2c3d -d 172.24.4.9/32 \
                   -p tcp -m tcp --dport 2222 -j DNAT --to-destination 10.0.0.2:22\n";
    let chains = ":neutron-l3-agent-fip-pf - [0:0]\n:neutron-l3-agent-pf-0a1b2c3d - [0:0]\n";
    site.nat(chains, &format!("-A neutron-l3-agent-PREROUTING -j neutron-l3-agent-fip-pf\n{forward}"));
    let plan = site.plan();
    let ways: Vec<_> = plan.floating_ips.iter().map(|made| words(&made.way)).collect();
    assert_eq!(ways, ["fast", "slow: port forwarding: single ports of it lead to instances"]);
}

#[test]
fn ten_thousand_floating_ips_of_one_router_are_planned_at_once() {
    use std::fmt::Write as _;

    let mut site = Site::central();
    let (mut rules, mut held) = (String::new(), Vec::new());
    for number in 0..10_000_u32 {
        let [.., high, low] = number.to_be_bytes();
        let (floating, fixed) = (format!("172.25.{high}.{low}"), format!("10.1.{high}.{low}"));
        for rule in [
            format!("PREROUTING -d {floating}/32 -j DNAT --to-destination {fixed}"),
            format!("OUTPUT -d {floating}/32 -j DNAT --to-destination {fixed}"),
            format!("float-snat -s {fixed}/32 -j SNAT --to-source {floating}"),
        ] {
            writeln!(rules, "-A neutron-l3-agent-{rule}").unwrap();
        }
        held.push(floating);
    }
    site.nat("", &rules);
    let qg = site.key_in(site.router, "qg-1");
    for floating in held {
        site.host.address(qg, &format!("{floating}/32"));
    }
    let begun = std::time::Instant::now();
    let plan = site.plan();
    // A release build takes a tenth of this; what an operator would notice is something quadratic.
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    assert_eq!(plan.floating_ips.len(), 10_001);
    assert_eq!(plan.floating_ips.iter().filter(|made| made.fast().is_some()).count(), 1);
}
