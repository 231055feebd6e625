//! What keeps a floating IP from the fast way: one thing is changed, and the reason names it.

use super::Site;
use crate::{
    fact::{Gap, OperState, ProgramFact, ProgramHook, SourceKind},
    id::LinkKey,
    policy::types::Mode,
    testing::{ROUTER, mac},
};

/// The way of the floating IP of a central router after a change.
fn after(change: impl FnOnce(&mut Site)) -> String {
    let mut site = Site::central();
    change(&mut site);
    site.way()
}

fn program(site: &mut Site, key: LinkKey, hook: ProgramHook, name: &str) {
    let (netns, ifindex) = (key.netns, key.ifindex);
    let fact = ProgramFact { netns, ifindex, hook, id: Some(7), name: name.to_owned(), priority: None, xdp_mode: None };
    site.host.facts.programs.push(fact);
}

/// Rules of the router with one more, appended to a table.
fn with_rule(table: &'static str, rule: &'static str) -> impl FnOnce(&mut Site) {
    move |site| {
        site.replace_rules(ROUTER, |text| {
            let (before, after) = text.split_once(&format!("*{table}\n")).unwrap();
            format!("{before}*{table}\n{}", after.replacen("COMMIT", &format!("{rule}\nCOMMIT"), 1))
        });
    }
}

#[test]
fn a_port_that_is_not_held_to_its_groups_flow_by_flow_is_left_to_the_router() {
    let way = after(|site| site.enforced.clear());
    assert_eq!(way, "slow: web, which has 10.0.0.2, is not held to security groups by netdiag");
    let way = after(|site| site.enforced[0].mode = Mode::Trusted);
    assert_eq!(way, "slow: port web is trusted, and held to no security groups");
    let way = after(|site| site.enforced[0].mode = Mode::Closed);
    assert_eq!(way, "slow: port web is closed: what is to be enforced there is in doubt");
    let way = after(|site| site.policy.groups.values_mut().for_each(|group| group.stateful = false));
    assert_eq!(way, "slow: security group default of port web is stateless: no flow is known there");
}

#[test]
fn whose_the_fixed_address_is_must_be_certain() {
    let way = after(|site| {
        let twin = site.enforced[0].clone();
        site.enforced.push(twin);
    });
    assert_eq!(way, "slow: ports web and web both have 10.0.0.2");
    let way = after(|site| {
        site.enforced[0].fixed_ips.clear();
        site.enforced[0].pairs.insert((mac(super::site::WEB_MAC), "10.0.0.0/24".parse().unwrap()));
    });
    assert_eq!(way, "slow: 10.0.0.2 is an allowed address pair of port web, and may move to another");
    let way = after(|site| {
        let qr = site.key_in(site.router, "qr-1");
        site.neighbour(qr, "10.0.0.2", Some("fa:16:3e:00:00:99"), "REACHABLE");
    });
    assert_eq!(way, "slow: qr-1 knows 10.0.0.2 at fa:16:3e:00:00:99, and port web has fa:16:3e:00:00:02");
    // On another VLAN the address is another tenant's.
    let way = after(|site| site.ovs_port("tap-web").tag = Some(9));
    assert!(
        way.starts_with("slow: nobody on the network of qr-1 of qrouter-") && way.contains("has 10.0.0.2"),
        "{way}"
    );
}

#[test]
fn a_rule_that_is_none_of_neutrons_is_left_to_the_router() {
    for (table, rule) in [
        ("filter", "-A FORWARD -p tcp -m tcp --dport 22 -j DROP"),
        ("filter", "-A neutron-l3-agent-FORWARD -o qr-+ -j neutron-l3-agent-scope"),
        ("filter", "-A FORWARD -m conntrack --ctstate INVALID -j DROP"),
        ("nat", "-A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -s 192.0.2.1/32 -j DNAT --to-destination 10.0.0.9"),
        ("nat", "-A POSTROUTING -o qg-1 -p udp -j MASQUERADE"),
        ("mangle", "-A FORWARD -j LOG"),
        ("mangle", "-A neutron-l3-agent-PREROUTING -j DSCP --set-dscp 0x01"),
        ("mangle", "-A POSTROUTING -j TTL --ttl-set 64"),
        ("mangle", "-A FORWARD -d 10.0.0.2/32"),
    ] {
        let way = after(with_rule(table, rule));
        assert!(
            way.starts_with("slow: qrouter-")
                && way.contains(&format!("in table {table} that only it can keep: {rule}")),
            "{way}"
        );
    }
    let way = after(|site| site.replace_rules(ROUTER, |text| text.replace(":FORWARD ACCEPT", ":FORWARD DROP")));
    assert!(way.contains("drops what no rule of chain FORWARD (table filter) lets pass"), "{way}");
    let way = after(|site| {
        site.replace_rules(ROUTER, |text| {
            format!("{text}*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j CT --notrack\nCOMMIT\n")
        });
    });
    assert!(way.contains("in table raw that only it can keep"), "{way}");
    let router_nft = |site: &mut Site| {
        site.host.nft(site.router, "inet", r#""hook": "forward", "policy": "accept""#, &[r#"[{"drop": null}]"#]);
    };
    assert!(after(router_nft).contains("has rules of nft in table t"), "{}", after(router_nft));
    let way = after(|site| site.host.gap(SourceKind::Netfilter, Some(site.router)));
    assert!(way.contains("the rules of qrouter-") && way.contains("could not be read"), "{way}");
}

#[test]
fn rules_that_meet_other_packets_are_in_nobodys_way() {
    for (table, rule) in [
        ("filter", "-A INPUT -j DROP"),
        ("filter", "-A neutron-l3-agent-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ("filter", "-A neutron-l3-agent-scope -m mark --mark 0x1/0xffff -j DROP"),
        (
            "nat",
            "-A neutron-l3-agent-PREROUTING -d 172.24.4.9/32 -p tcp -m tcp --dport 22 -j DNAT --to-destination 10.0.0.9:22",
        ),
        ("nat", "-A neutron-l3-agent-snat -o qg-1 -m connmark --mark 0x4000000/0xffff0000 -j ACCEPT"),
        ("mangle", "-A neutron-l3-agent-floatingip -d 172.24.4.9/32 -j MARK --set-xmark 0x5000000/0xffff0000"),
        ("mangle", "-A neutron-l3-agent-FORWARD -s 10.0.0.9/32 -j neutron-l3-agent-float-snat"),
    ] {
        assert_eq!(after(with_rule(table, rule)), "fast", "{rule}");
    }
}

#[test]
fn rules_of_neutrons_that_lead_elsewhere_are_told_from_those_that_do_not() {
    let way = after(|site| {
        site.replace_rules(ROUTER, |text| text.replace("! -o qg-1 -m conntrack", "! -o qg-9 -m conntrack"));
    });
    assert!(way.ends_with("translates only what leaves by qg-9, and this leaves by qg-1"), "{way}");
    // The mark by which packets from outside are told is not given.
    let way = after(|site| site.replace_rules(ROUTER, |text| text.replace("-mark -i qg-1", "-mark -i qg-9")));
    assert!(way.ends_with("does not mark what comes in by qg-1, and so translates its source"), "{way}");
    // Another address scope outside.
    let apart = |text: &str| {
        text.replace("-scope -i qg-1 -j MARK --set-xmark 0x4000000", "-scope -i qg-1 -j MARK --set-xmark 0x5000000")
    };
    let way = after(|site| site.replace_rules(ROUTER, apart));
    assert!(way.ends_with("keeps the address scopes of qg-1 and qr-1 apart"), "{way}");
    // A floating IP across scopes is marked with that of its fixed address.
    let marked = "-A neutron-l3-agent-floatingip -d 172.24.4.6/32 -j MARK --set-xmark 0x4000000/0xffff0000";
    let way = after(|site| {
        site.replace_rules(ROUTER, apart);
        with_rule("mangle", marked)(site);
    });
    assert_eq!(way, "fast");
    // The router's own translation comes before that of its floating IPs.
    let way = after(|site| {
        site.replace_rules(ROUTER, |text| {
            let first = "-A neutron-l3-agent-snat -j neutron-l3-agent-float-snat\n";
            text.replace(first, "").replacen(
                "-A neutron-postrouting-bottom",
                &format!("{first}-A neutron-postrouting-bottom"),
                1,
            )
        });
    });
    assert!(way.contains("that only it can keep: -A neutron-l3-agent-float-snat"), "{way}");
}

#[test]
fn half_a_floating_ip_is_broken() {
    let without = |what: &'static str| {
        after(move |site| {
            site.replace_rules(ROUTER, |text| {
                text.lines().filter(|line| !line.contains(what)).map(|line| [line, "\n"].concat()).collect()
            });
        })
    };
    let way = without("float-snat -s 10.0.0.2/32");
    assert!(way.starts_with("broken: qrouter-") && way.ends_with("has no rule for it in float-snat"), "{way}");
    let way = without("PREROUTING -d 172.24.4.6/32");
    assert!(way.ends_with("has no rule for it in PREROUTING"), "{way}");
    let way = without("OUTPUT -d 172.24.4.6/32");
    assert!(way.starts_with("slow: ") && way.ends_with("has no rule for it in OUTPUT"), "{way}");
    let way = without("-A neutron-l3-agent-snat -j neutron-l3-agent-float-snat");
    assert!(
        way.starts_with("broken: no rule of qrouter-") && way.ends_with("lets 10.0.0.2 leave as 172.24.4.6"),
        "{way}"
    );
    let way = after(|site| {
        let qg = site.key_in(site.router, "qg-1");
        site.host.edit(qg).addresses.truncate(1);
    });
    assert!(way.starts_with("broken: no device of qrouter-") && way.ends_with("has the address 172.24.4.6"), "{way}");
    let way = after(|site| site.host.sysctl(site.router, "net.ipv4.ip_forward", "0"));
    assert!(
        way.starts_with("broken: qrouter-") && way.ends_with("does not forward: net.ipv4.ip_forward is 0"),
        "{way}"
    );
    let way = after(|site| site.host.facts.sysctls.clear());
    assert!(way.starts_with("slow: whether qrouter-") && way.ends_with("forwards could not be read"), "{way}");
}

#[test]
fn a_device_that_is_down_breaks_it_and_comes_before_what_makes_it_slow() {
    for name in ["eth1", "tap-web"] {
        assert_eq!(after(|site| site.link(name).admin_up = false), format!("broken: {name} is down"));
        assert_eq!(after(|site| site.link(name).state = OperState::LowerLayerDown), format!("broken: {name} is down"));
    }
    for name in ["qg-1", "qr-1"] {
        let way = after(|site| site.link_in(ROUTER, name).admin_up = false);
        assert!(way.starts_with(&format!("broken: {name} of qrouter-")) && way.ends_with(" is down"), "{way}");
    }
    let way = after(|site| {
        site.enforced[0].mode = Mode::Trusted;
        site.link("eth1").admin_up = false;
    });
    assert_eq!(way, "broken: eth1 is down");
}

#[test]
fn what_limits_what_passes_is_not_gone_past() {
    for name in ["qg-1", "qr-1"] {
        let way = after(|site| site.link_in(ROUTER, name).qdisc = Some("htb".to_owned()));
        assert!(way.contains("has the queueing discipline htb"), "{way}");
        let way = after(|site| {
            let key = site.key_in(site.router, name);
            program(site, key, ProgramHook::TcIngress, "u32");
        });
        assert!(way.starts_with("slow: u32 at TC ingress of "), "{way}");
        assert!(way.ends_with("has to see its packets, as with QoS of a floating IP"), "{way}");
    }
    for name in ["qg-1", "qr-1", "tap-web"] {
        let way = after(|site| {
            let port = site.ovs_port(name);
            (port.qos, port.qos_type) = (true, Some("linux-htb".to_owned()));
        });
        assert_eq!(way, format!("slow: Open vSwitch limits port {name} of br-int: its QoS has to see the packets"));
        let way = after(|site| {
            let port = site.ovs_port(name);
            (port.qos, port.qos_type) = (true, Some("linux-noop".to_owned()));
        });
        assert_eq!(way, "fast");
        let way = after(|site| site.ovs_port(name).interfaces[0].policing = Some(1000));
        assert!(way.starts_with("slow: Open vSwitch limits port"), "{way}");
    }
    // A queue of the instance's own device is kept: its packets are put there, and not into its peer.
    let mut site = Site::central();
    site.link("tap-web").qdisc = Some("tbf".to_owned());
    assert!(!site.fast().peer);
}

#[test]
fn who_watches_packets_goes_on_seeing_them() {
    for bridge in ["br-int", "br-ex"] {
        let way = after(|site| site.bridge(bridge).mirrors = 1);
        assert_eq!(way, format!("slow: bridge {bridge} has a mirror, which has to see its packets"));
        let way = after(|site| site.bridge(bridge).exports = 1);
        assert_eq!(way, format!("slow: bridge {bridge} tells a collector of its packets, and has to see them"));
    }
    for (device, hook) in [("eth1", ProgramHook::TcxIngress), ("tap-web", ProgramHook::TcEgress)] {
        let way = after(|site| {
            let key = site.key(device);
            program(site, key, hook, "cil_from_netdev");
        });
        assert_eq!(way, format!("slow: cil_from_netdev at {} of {device} has to see its packets", hook.name()));
    }
    // XDP comes before TC anyway, and netdiag's own programs are no others.
    let way = after(|site| {
        let (nic, tap) = (site.key("eth1"), site.key("tap-web"));
        program(site, nic, ProgramHook::Xdp, "ddos");
        program(site, nic, ProgramHook::TcxIngress, "from_external");
        program(site, tap, ProgramHook::TcxIngress, "from_instance");
        program(site, tap, ProgramHook::Xdp, "from_instance_x");
        // Nor are those that watch for a while.
        program(site, nic, ProgramHook::TcxIngress, "live_in");
        program(site, tap, ProgramHook::TcEgress, "live_out");
    });
    assert_eq!(way, "fast");
    let way = after(|site| {
        site.bridge("br-ex").datapath_type = "netdev".to_owned();
        let nic = site.key("eth1");
        program(site, nic, ProgramHook::Xdp, "ddos");
    });
    assert_eq!(way, "slow: ddos at XDP of eth1 has to see its packets");
    let frames = r#""hook": "ingress", "dev": "eth1", "policy": "accept""#;
    let way =
        after(|site| site.host.nft(site.host.id, "netdev", frames, &[r#"[{"counter": {"packets": 0, "bytes": 0}}]"#]));
    assert!(way.starts_with("slow: a rule for frames of eth1 has to see its packets"), "{way}");
}

#[test]
fn a_filter_of_bridged_packets_on_the_way_is_not_gone_past() {
    let after = |called: &str, forward: &str| {
        let mut site = Site::bridged();
        let id = site.host.id;
        site.host.sysctl(id, "net.bridge.bridge-nf-call-iptables", called);
        site.host.rules(id, &format!("*filter\n:FORWARD ACCEPT [0:0]\n{forward}\nCOMMIT\n"));
        site.way()
    };
    let refuses = "-A FORWARD -m physdev --physdev-out tap-web --physdev-is-bridged -p udp -j DROP";
    assert_eq!(after("1", refuses), "slow: iptables of this host filters what bridge brq-int forwards");
    // Nobody asks it.
    assert_eq!(after("0", refuses), "fast");
    assert_eq!(after("1", "-A FORWARD -j ACCEPT"), "fast");
}

#[test]
fn rules_that_a_bridge_outside_hands_packets_to_are_asked() {
    let after = |called: &str, table: &str, rule: &str| {
        let mut site = Site::bridged();
        let id = site.host.id;
        site.host.sysctl(id, "net.bridge.bridge-nf-call-iptables", called);
        let chains = ":PREROUTING ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]";
        site.host.rules(id, &format!("*{table}\n{chains}\n{rule}\nCOMMIT\n"));
        site.way()
    };
    for (table, rule) in [
        ("filter", "-A FORWARD -d 172.24.4.6/32 -p udp -j DROP"),
        ("filter", "-A FORWARD -i brq-ext -m physdev --physdev-in eth1 --physdev-is-bridged -j LOG"),
        ("filter", "-A FORWARD -m physdev --physdev-out eth1 --physdev-is-bridged -j DROP"),
        ("nat", "-A POSTROUTING -o brq-ext -j MASQUERADE"),
        ("nat", "-A PREROUTING -d 172.24.4.6/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.9.9.9"),
        ("mangle", "-A FORWARD -s 172.24.4.6/32 -j TOS --set-tos 0x10"),
    ] {
        let way = after("1", table, rule);
        assert!(
            way.starts_with("slow: bridge brq-ext hands what it forwards to iptables: a rule of this host"),
            "{way}"
        );
        assert!(way.ends_with(rule), "{way}");
        assert_eq!(after("0", table, rule), "fast", "{rule}");
    }
    for (table, rule) in [
        ("filter", "-A FORWARD -i virbr0 -j DROP"),
        ("filter", "-A FORWARD -d 172.24.4.7/32 -j ACCEPT"),
        ("nat", "-A POSTROUTING -o eth7 -j MASQUERADE"),
        ("nat", "-A PREROUTING -i virbr0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.9.9.9"),
        ("filter", "-A FORWARD -i brq-ext -m physdev --physdev-out tap-web --physdev-is-bridged -j DROP"),
        (
            "filter",
            "-A FORWARD -i brq-ext -m physdev --physdev-in eth1 --physdev-out eth1 --physdev-is-bridged -j DROP",
        ),
    ] {
        assert_eq!(after("1", table, rule), "fast", "{rule}");
    }
}

#[test]
fn rules_for_frames_of_a_bridge_outside_are_asked_and_not_gone_past_where_they_cannot_be_read() {
    let drops = r#"[{"match": {"op": "==", "left": {"payload": {"protocol": "ether", "field": "type"}}, "right": "ip"}}, {"drop": null}]"#;
    let with = |chain: &str, internal: bool| {
        let mut site = Site::bridged();
        if internal {
            let (nic, bridge) = (site.key("eth1"), site.key("brq-ext"));
            site.host.edit(nic).master = None;
            assert_ne!(nic, bridge);
        }
        site.host.nft(site.host.id, "bridge", chain, &[drops]);
        site.way()
    };
    for hook in ["prerouting", "forward", "postrouting", "input", "output"] {
        let chain = format!(r#""hook": "{hook}", "policy": "accept""#);
        for (internal, device) in [(false, "eth1"), (true, "brq-ext")] {
            let way = with(&chain, internal);
            assert!(
                way.starts_with(&format!("slow: a rule for frames of {device} has to see its packets")),
                "{hook}: {way}"
            );
        }
    }
    let legacy = |mut site: Site| {
        site.host.gap(SourceKind::Netfilter, None);
        let report = site.host.facts.reports.iter_mut().find(|report| !report.gaps.is_empty()).unwrap();
        report.gaps[0].object = Gap::EBTABLES.to_owned();
        site.way()
    };
    let why = "slow: rules of ebtables-legacy for frames of eth1 were not read, and may have to see its packets";
    assert_eq!(legacy(Site::bridged()), why);
    // They concern nothing but Linux bridges.
    assert_eq!(legacy(Site::central()), "fast");
}

#[test]
fn a_bridge_that_leaves_the_host_in_more_ways_than_one_is_left_to_itself() {
    let way = after(|site| {
        site.host.link(site.host.id, "eth2", None);
        site.host.ovs("br-ex", "eth2", "");
    });
    assert_eq!(way, "slow: br-ex leaves the host by eth1 and by eth2");
    let way = after(|site| {
        site.host.ovs("br-ex", "dpdk0", "dpdk");
    });
    assert_eq!(way, "slow: br-ex leaves the host by dpdk0 too, a port of type dpdk");
    let way = after(|site| site.ovs_port("eth1").tag = Some(5));
    assert_eq!(way, "slow: port eth1 of br-ex changes the VLAN of frames");
    let way = after(|site| {
        let second = site.ovs_port("eth1").interfaces[0].clone();
        site.ovs_port("eth1").interfaces.push(second);
    });
    assert!(way.starts_with("slow: "), "{way}");
    let way = after(|site| {
        site.external_network("vlan", Some("9"));
        site.ovs_port("eth1").trunks = vec![5];
    });
    assert_eq!(way, "broken: port eth1 of br-ex does not carry VLAN 9");
    let way = after(|site| site.external_network("vxlan", Some("9")));
    assert_eq!(way, "slow: the external network of qg-1 is one of type vxlan");
    let way = after(|site| site.ovs_port("qg-1").other_config.clear());
    assert_eq!(way, "slow: Open vSwitch's database does not say which network qg-1 is on");
    let way = after(|site| {
        site.host.patch(("br-int", "int-br-two"), ("br-two", "phy-br-two"));
    });
    assert!(
        way.ends_with("leads on by int-br-ex or int-br-two: only bridge_mappings of Neutron's agent say which"),
        "{way}"
    );
}

#[test]
fn an_address_outside_the_external_network_is_left_to_the_router() {
    let way = after(|site| {
        site.replace_rules(ROUTER, |text| text.replace("172.24.4.6", "172.30.0.6"));
        let qg = site.key_in(site.router, "qg-1");
        site.host.edit(qg).addresses[1].address = "172.30.0.6/32".parse().unwrap();
    });
    assert!(
        way.starts_with("slow: 172.30.0.6 is in no subnet of qg-1") && way.ends_with("which has 172.24.4.0/24"),
        "{way}"
    );
}

#[test]
fn routing_that_is_not_understood_is_left_to_the_router() {
    let ruled = |change: fn(&mut crate::fact::PolicyRuleFact)| {
        after(move |site| {
            let mut rule = super::site::rule(100, 7);
            change(&mut rule);
            let router = site.router;
            site.rule(router, rule);
        })
    };
    let unknown = "its routing rule of priority 100 of qrouter-";
    for way in [
        ruled(|rule| rule.fwmark = Some((2, 0xffff))),
        ruled(|rule| rule.destination = Some("10.0.0.0/8".parse().unwrap())),
        ruled(|rule| rule.conditional = true),
        ruled(|rule| rule.inverted = true),
        ruled(|rule| rule.action = "goto".to_owned()),
        ruled(|rule| rule.source = Some("192.0.2.0/24".parse().unwrap())),
    ] {
        assert!(way.starts_with("slow: ") && way.contains(unknown), "{way}");
    }
    assert_eq!(ruled(|rule| rule.iif = Some("other".to_owned())), "fast");
    assert_eq!(ruled(|rule| rule.oif = Some("other".to_owned())), "fast");
    let way = after(|site| {
        let qr = site.key_in(site.router, "qr-1");
        site.host.route(qr, "10.0.0.2/32", Some("10.0.0.9"));
    });
    assert!(way.ends_with("reaches 10.0.0.2 by another router, 10.0.0.9"), "{way}");
    let way = after(|site| {
        let router = site.router;
        site.host.network(router).routes.retain(|route| route.destination.to_string() != "10.0.0.0/24");
        site.host.network(router).routes.retain(|route| route.destination.prefix_len() != 0);
    });
    assert!(way.starts_with("broken: qrouter-") && way.ends_with("has no route to 10.0.0.2"), "{way}");
}
