//! Floating IPs of the policy, on a host that is the router of its containers.

use std::net::Ipv4Addr;

use super::{Slow, site::Site, words};
use crate::{
    fact::{ProgramFact, ProgramHook, SourceKind},
    floating::{ExternalHook, NextHop, Owner, Plan, Switches},
    id::LinkKey,
    policy::types::{Attached, FloatingIp, FloatingIpId, GroupId, Hook, Mode, Policy, PortId, SecurityGroup},
    testing::{Host, mac},
};

const FLOATING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const FIXED: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
const ETH0: &str = "02:00:00:00:00:e0";
const DOCKER0: &str = "02:42:00:00:00:01";
const WEB: &str = "02:42:ac:11:00:02";
const GATEWAY: &str = "52:54:00:00:00:01";

/// A host with Docker's bridge and one container, and a policy that asks for one floating IP of it.
struct Docker {
    site: Site,
    eth0: LinkKey,
}

/// Docker's own rules.
const DOCKERS: &str = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n:DOCKER-ISOLATION-STAGE-1 - [0:0]\n\
    :DOCKER-ISOLATION-STAGE-2 - [0:0]\n:netdiag-FORWARD - [0:0]\n-A FORWARD -j netdiag-FORWARD\n-A FORWARD -j DOCKER-USER\n\
    -A FORWARD -j DOCKER-ISOLATION-STAGE-1\n-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n-A FORWARD -i docker0 -o docker0 -j ACCEPT\n\
    -A DOCKER-USER -j RETURN\n-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2\n\
    -A DOCKER-ISOLATION-STAGE-1 -j RETURN\n-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n-A DOCKER-ISOLATION-STAGE-2 -j RETURN\n\
    -A netdiag-FORWARD -d 172.17.0.2/32 -m conntrack --ctstate DNAT --ctorigdst 203.0.113.7 -j ACCEPT\n\
    -A netdiag-FORWARD -s 172.17.0.2/32 -m conntrack --ctstate DNAT --ctorigdst 203.0.113.7 -j ACCEPT\nCOMMIT\n\
    *nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n:netdiag-PREROUTING - [0:0]\n\
    :netdiag-OUTPUT - [0:0]\n:netdiag-float-snat - [0:0]\n-A PREROUTING -j netdiag-PREROUTING\n\
    -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A OUTPUT -j netdiag-OUTPUT\n-A POSTROUTING -j netdiag-float-snat\n\
    -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n\
    -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE\n\
    -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\n\
    -A netdiag-PREROUTING -d 203.0.113.7/32 -j DNAT --to-destination 172.17.0.2\n\
    -A netdiag-OUTPUT -d 203.0.113.7/32 -j DNAT --to-destination 172.17.0.2\n\
    -A netdiag-float-snat -s 172.17.0.2/32 -o eth0 -j SNAT --to-source 203.0.113.7\n\
    -A netdiag-float-snat -s 172.17.0.2/32 -m conntrack --ctstate DNAT -j SNAT --to-source 203.0.113.7\n\
    -A netdiag-float-snat -s 172.17.0.0/16 -d 172.17.0.2/32 -m conntrack --ctstate DNAT --ctorigdst 203.0.113.7 -j MASQUERADE\nCOMMIT\n\
    *raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP\nCOMMIT\n";

fn docker() -> Docker {
    let mut host = Host::new();
    let eth0 = host.link(host.id, "eth0", None);
    host.mac(eth0, ETH0);
    host.address(eth0, "203.0.113.5/24");
    host.address(eth0, "203.0.113.7/32");
    host.route(eth0, "0.0.0.0/0", Some("203.0.113.1"));
    let netns = host.netns(&[]);
    let (outer, inner) = host.veth((host.id, "veth1"), (netns, "eth0"));
    host.mac(inner, WEB);
    host.address(inner, "172.17.0.2/16");
    let docker0 = host.bridge(host.id, "docker0", &[outer]);
    host.mac(docker0, DOCKER0);
    host.address(docker0, "172.17.0.1/16");
    host.container("web", Some(netns));
    host.rules(host.id, DOCKERS);
    let router = host.id;
    let group = GroupId("default".to_owned());
    let made = SecurityGroup { id: group.clone(), name: String::new(), stateful: true, rules: vec![] };
    let policy = Policy { groups: [(group.clone(), made)].into(), ..Policy::default() };
    let enforced = vec![Attached {
        id: PortId("web".to_owned()),
        ifindex: outer.ifindex.0,
        mac: mac(WEB),
        fixed_ips: [FIXED.into()].into(),
        pairs: [].into(),
        groups: vec![group],
        mode: Mode::Filtered,
        hook: Hook::Tc,
        log_allowed: false,
    }];
    let mut site = Site { host, router, enforced, policy, switches: Switches::default() };
    site.neighbour(eth0, "203.0.113.1", Some(GATEWAY), "REACHABLE");
    let mut docker = Docker { site, eth0 };
    docker.ask("outside", |_| {});
    docker
}

impl Docker {
    /// Asks for a floating IP as the first one is, but for a change.
    fn ask(&mut self, id: &str, change: impl FnOnce(&mut FloatingIp)) {
        let mut asked = FloatingIp {
            id: FloatingIpId(id.to_owned()),
            floating_ip_address: FLOATING,
            fixed_ip_address: Some(FIXED),
            port_id: Some(PortId("web".to_owned())),
            network: None,
            device: None,
            qos_policy: None,
        };
        change(&mut asked);
        self.site.policy.floating_ips.insert(asked.id.clone(), asked);
    }

    fn replace(&mut self, from: &str, to: &str) {
        for fact in &mut self.site.host.facts.rulesets {
            assert!(fact.text.contains(from), "{from}");
            fact.text = fact.text.replace(from, to);
        }
    }
}

fn after(change: impl FnOnce(&mut Docker)) -> Plan {
    let mut docker = docker();
    change(&mut docker);
    docker.site.plan()
}

fn way(plan: &Plan) -> String {
    words(&plan.floating_ips[0].way)
}

/// The reason for which nothing is served.
fn held(change: impl FnOnce(&mut Docker)) -> String {
    let plan = after(change);
    assert_eq!(plan.services, [], "{plan:?}");
    way(&plan).strip_prefix("broken: ").unwrap_or_else(|| panic!("{plan:?}")).to_owned()
}

/// The reason for which it is served by the host, and no faster.
fn served_slowly(change: impl FnOnce(&mut Docker)) -> String {
    let plan = after(change);
    assert_eq!(plan.services.len(), 1, "{plan:?}");
    way(&plan).strip_prefix("slow: ").unwrap_or_else(|| panic!("{plan:?}")).to_owned()
}

#[test]
fn a_container_gets_an_address_outside_past_the_hosts_routing() {
    let plan = after(|_| {});
    let made = &plan.floating_ips[0];
    let path = made.fast().unwrap_or_else(|| panic!("{plan:?}"));
    assert_eq!((made.owner, made.router.as_str(), made.fixed_ip_address), (Owner::Netdiag, "host", Some(FIXED)));
    assert_eq!((path.device.as_str(), path.hook, path.vlan, path.hops), ("eth0", ExternalHook::Tc, 0, 1));
    assert_eq!((path.outer_mac, path.inner_mac, path.mac), (mac(ETH0), mac(DOCKER0), mac(WEB)));
    assert!(path.peer && path.begins && !path.random);
    let hops = &plan.routers[&path.router].hops;
    let hop = |prefix: &str| hops[&prefix.parse().unwrap()];
    assert_eq!(hop("0.0.0.0/0"), NextHop::Via(mac(GATEWAY)));
    assert_eq!(hop("172.17.0.0/16"), NextHop::Slow);
    assert_eq!(hop("203.0.113.5/32"), NextHop::Slow);
    let [service] = &plan.services[..] else { panic!("{plan:?}") };
    assert_eq!((service.device.as_str(), service.mac, service.port_id.0.as_str()), ("eth0", mac(ETH0), "web"));
    assert_eq!(service.network.to_string(), "172.17.0.0/16");
}

#[test]
fn the_only_address_of_the_port_and_the_device_of_the_default_route_need_not_be_given() {
    let plan = after(|docker| docker.ask("outside", |asked| asked.fixed_ip_address = None));
    assert_eq!((way(&plan), plan.services[0].fixed_ip_address), ("fast".to_owned(), FIXED));
    let plan = after(|docker| docker.ask("outside", |asked| asked.device = Some("eth0".to_owned())));
    assert_eq!(way(&plan), "fast");
}

#[test]
fn what_cannot_be_served_is_held_with_both_sides_named() {
    let asking = |change: fn(&mut FloatingIp)| held(|docker| docker.ask("outside", change));
    assert_eq!(asking(|asked| asked.port_id = None), "it is associated with no port");
    assert_eq!(asking(|asked| asked.port_id = Some(PortId("db".to_owned()))), "there is no port db");
    assert_eq!(
        asking(|asked| asked.fixed_ip_address = Some([172, 17, 0, 9].into())),
        "port web has 172.17.0.2, and not 172.17.0.9"
    );
    assert_eq!(asking(|asked| asked.device = Some("eth7".to_owned())), "there is no device eth7 on this host");
    assert_eq!(
        asking(|asked| asked.device = Some("veth1".to_owned())),
        "veth1 belongs to docker0, and receives nothing itself"
    );
    assert_eq!(
        asking(|asked| asked.floating_ip_address = [198, 51, 100, 7].into()),
        "198.51.100.7 is in no subnet of eth0, which has 203.0.113.0/24"
    );
    assert_eq!(
        asking(|asked| asked.floating_ip_address = [203, 0, 113, 255].into()),
        "203.0.113.255 is nobody's address in 203.0.113.0/24, the subnet of eth0"
    );
    assert_eq!(
        asking(|asked| asked.floating_ip_address = [203, 0, 113, 5].into()),
        "203.0.113.5 is an address of eth0 already"
    );
    // Everybody on the external network would be cut off.
    assert_eq!(
        asking(|asked| asked.floating_ip_address = [203, 0, 113, 1].into()),
        "203.0.113.1 is the gateway of this host to 0.0.0.0/0 by eth0"
    );
    assert_eq!(
        asking(|asked| asked.qos_policy = Some("gold".to_owned())),
        "QoS policy gold asks for a limit, which netdiag would not keep"
    );
}

#[test]
fn what_the_host_lacks_is_named() {
    assert_eq!(
        held(|docker| docker.site.host.sysctl(docker.site.host.id, "net.ipv4.ip_forward", "0")),
        "host does not forward: net.ipv4.ip_forward is 0"
    );
    let without = |destination: &'static str| {
        held(move |docker| {
            let id = docker.site.host.id;
            docker.site.host.network(id).routes.retain(|route| route.destination.to_string() != destination);
        })
    };
    assert_eq!(
        without("0.0.0.0/0"),
        "it names no device, and this host has no one default route to take its device from"
    );
    assert_eq!(
        held(|docker| {
            let id = docker.site.host.id;
            docker.site.host.network(id).routes.retain(|route| route.destination.to_string() != "172.17.0.0/16");
            docker.site.host.network(id).routes.retain(|route| route.destination.prefix_len() > 0);
            docker.ask("outside", |asked| asked.device = Some("eth0".to_owned()));
        }),
        "this host has no route to 172.17.0.2"
    );
    assert_eq!(held(|docker| docker.site.host.edit(docker.eth0).mac = None), "eth0 has no MAC address");
    assert_eq!(held(|docker| docker.site.host.edit(docker.eth0).admin_up = false), "eth0 is down, or leads nowhere");
    assert_eq!(held(|docker| docker.site.switches.own = false), "netdiag is told to serve no floating IPs of its own");
    // Without rules of netdiag's for it, an address the host has is somebody else's.
    let before =
        held(|docker| docker.replace("netdiag-PREROUTING -d 203.0.113.7/32", "netdiag-PREROUTING -d 203.0.113.8/32"));
    assert_eq!(before, "203.0.113.7 is an address of eth0 already");
}

#[test]
fn what_was_given_up_while_the_host_was_looked_at_is_nobody_elses() {
    let plan = after(|docker| {
        docker.replace("netdiag-PREROUTING -d 203.0.113.7/32", "netdiag-PREROUTING -d 203.0.113.8/32");
        docker.site.switches.ours.insert([203, 0, 113, 7].into());
    });
    let outside = plan.floating_ips.iter().find(|made| made.floating_ip_address == Ipv4Addr::new(203, 0, 113, 7));
    assert_eq!(words(&outside.unwrap().way), "slow: the rules that translate it on this host are not there yet");
}

#[test]
fn those_that_ask_for_the_same_are_all_held_and_others_go_on() {
    let plan = after(|docker| {
        docker.ask("again", |asked| asked.device = Some("eth0".to_owned()));
        docker.ask("lonely", |asked| (asked.floating_ip_address, asked.port_id) = ([203, 0, 113, 9].into(), None));
    });
    let ways: Vec<_> = plan.floating_ips.iter().map(|made| words(&made.way)).collect();
    let both = "broken: floating IPs again and outside both ask for 203.0.113.7";
    assert_eq!(ways, [both, both, "broken: it is associated with no port"]);
    let plan = after(|docker| {
        for id in ["again", "anew"] {
            docker.ask(id, |_| {});
        }
    });
    assert_eq!(
        words(&plan.floating_ips[0].way),
        "broken: floating IPs again, anew and outside all ask for 203.0.113.7"
    );
    let plan = after(|docker| docker.ask("again", |asked| asked.port_id = None));
    assert!(
        words(&plan.floating_ips[0].way).starts_with("broken: floating IPs again and outside both ask for 203.0.113.7")
    );
    let more = |docker: &mut Docker| docker.ask("more", |asked| asked.floating_ip_address = [203, 0, 113, 8].into());
    let plan = after(more);
    assert!(plan.services.is_empty());
    let both = "broken: floating IPs more and outside both stand for 172.17.0.2";
    assert_eq!(words(&plan.floating_ips[0].way), both);
    // What is held itself takes nobody else's instance away.
    let plan = after(|docker| {
        docker.ask("again", |_| {});
        more(docker);
    });
    let served: Vec<_> = plan.services.iter().map(|service| service.floating_ip_address).collect();
    assert_eq!(served, [Ipv4Addr::new(203, 0, 113, 8)]);
    let plan = after(|docker| {
        docker.ask("more", |asked| {
            (asked.floating_ip_address, asked.port_id) = ([203, 0, 113, 8].into(), Some(PortId("x".to_owned())));
        });
    });
    assert_eq!((way(&plan), plan.services.len()), ("fast".to_owned(), 1));
}

#[test]
fn an_address_that_a_router_has_is_left_to_it() {
    let mut site = Site::central();
    let asked = FloatingIp {
        id: FloatingIpId("mine".to_owned()),
        floating_ip_address: super::FLOATING,
        fixed_ip_address: None,
        port_id: Some(PortId("web".to_owned())),
        network: None,
        device: Some("br-ex".to_owned()),
        qos_policy: None,
    };
    site.policy.floating_ips.insert(asked.id.clone(), asked);
    let plan = site.plan();
    let ways: Vec<_> = plan.floating_ips.iter().map(|made| (made.owner, words(&made.way))).collect();
    assert_eq!(
        ways[0],
        (Owner::Netdiag, format!("broken: 172.24.4.6 is a floating IP of qrouter-{} already", crate::testing::ROUTER))
    );
    assert_eq!(ways[1], (Owner::Found, "fast".to_owned()));
}

#[test]
fn rules_of_the_host_that_decide_or_look_are_not_gone_past() {
    let with = |table: &'static str, rule: &'static str| {
        served_slowly(move |docker| {
            docker.replace(&format!("*{table}\n"), &format!("*{table}\n:more - [0:0]\n"));
            let text = &mut docker.site.host.facts.rulesets[0].text;
            let (before, after) = text.split_once(&format!("*{table}\n")).unwrap();
            let changed = after.replacen("COMMIT", &format!("{rule}\nCOMMIT"), 1);
            *text = format!("{before}*{table}\n{changed}");
        })
    };
    assert!(
        with("raw", "-A PREROUTING -p udp -j DROP")
            .ends_with("decides about its packets in PREROUTING: -A PREROUTING -p udp -j DROP")
    );
    assert!(
        with("raw", "-A PREROUTING -d 203.0.113.7/32 -j LOG")
            .ends_with("has to see its packets in PREROUTING: -A PREROUTING -d 203.0.113.7/32 -j LOG")
    );
    let user = served_slowly(|docker| {
        docker.replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -s 172.17.0.2/32 -p tcp -j DROP");
    });
    assert!(user.starts_with("a rule of this host decides about its packets in FORWARD: -A DOCKER-USER"), "{user}");
    let nft = served_slowly(|docker| {
        let chain = r#""hook": "forward", "policy": "accept""#;
        let id = docker.site.host.id;
        docker.site.host.nft(id, "ip", chain, &[r#"[{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "172.17.0.2"}}, {"drop": null}]"#]);
    });
    assert!(nft.starts_with("a rule of this host decides about its packets in FORWARD"), "{nft}");
    let unread = served_slowly(|docker| docker.site.host.gap(SourceKind::Netfilter, None));
    assert_eq!(unread, "the rules of this host could not be read");
    let early = served_slowly(|docker| {
        docker.site.host.edit(docker.eth0).addresses.pop();
        docker.replace("netdiag-PREROUTING -d 203.0.113.7/32", "netdiag-PREROUTING -d 203.0.113.8/32");
    });
    assert_eq!(early, "the rules that translate it on this host are not there yet");
}

/// A second network of Docker's, with the rules that it makes for one, or some rule instead of the one that masquerades.
fn with_second_network(docker: &mut Docker, rule: &str) {
    let id = docker.site.host.id;
    let other = docker.site.host.bridge(id, "br-0123456789ab", &[]);
    docker.site.host.mac(other, "02:42:00:00:00:02");
    docker.site.host.address(other, "172.20.0.1/16");
    docker.replace(
        "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n",
        &format!("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n{rule}\n"),
    );
    docker.replace(
        "-A DOCKER-ISOLATION-STAGE-1 -j RETURN\n",
        "-A DOCKER-ISOLATION-STAGE-1 -i br-0123456789ab ! -o br-0123456789ab -j DOCKER-ISOLATION-STAGE-2\n\
         -A DOCKER-ISOLATION-STAGE-1 -j RETURN\n",
    );
    docker.replace(
        "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n",
        "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n-A DOCKER-ISOLATION-STAGE-2 -o br-0123456789ab -j DROP\n",
    );
}

#[test]
fn rules_for_another_network_of_the_host_are_not_met_by_what_comes_from_outside() {
    for rule in [
        "-A POSTROUTING -s 172.20.0.0/16 ! -o br-0123456789ab -j MASQUERADE",
        "-A POSTROUTING -s 172.20.0.5/32 -d 172.20.0.5/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
        "-A POSTROUTING -s 172.20.3.0/24 -j SNAT --to-source 203.0.113.5",
    ] {
        assert_eq!(way(&after(|docker| with_second_network(docker, rule))), "fast", "{rule}");
    }
    // As newer versions of Docker guard the containers of every network.
    let guarded = after(|docker| {
        with_second_network(docker, "-A POSTROUTING -s 172.20.0.0/16 ! -o br-0123456789ab -j MASQUERADE");
        docker.replace(
            "*raw\n:PREROUTING ACCEPT [0:0]\n",
            "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 172.20.0.2/32 ! -i br-0123456789ab -j DROP\n",
        );
    });
    assert_eq!(way(&guarded), "fast");
    let why = served_slowly(|docker| {
        with_second_network(docker, "-A POSTROUTING -s 172.20.0.0/16 ! -o br-0123456789ab -j MASQUERADE");
        docker.replace(
            "*raw\n:PREROUTING ACCEPT [0:0]\n",
            "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 198.51.100.2/32 ! -i br-0123456789ab -j DROP\n",
        );
    });
    assert!(why.ends_with("-A PREROUTING -d 198.51.100.2/32 ! -i br-0123456789ab -j DROP"), "{why}");
    // Outside are also those, and with them what is wider than the network.
    for rule in [
        "-A POSTROUTING -s 198.51.100.0/24 ! -o br-0123456789ab -j MASQUERADE",
        "-A POSTROUTING -s 172.16.0.0/12 ! -o br-0123456789ab -j MASQUERADE",
        "-A POSTROUTING -s 203.0.113.0/24 ! -o br-0123456789ab -j MASQUERADE",
        "-A POSTROUTING ! -s 172.20.0.0/16 ! -o br-0123456789ab -j MASQUERADE",
    ] {
        let why = served_slowly(|docker| with_second_network(docker, rule));
        assert_eq!(why, format!("a rule of this host has to see its packets in POSTROUTING: {rule}"));
    }
    // The network is elsewhere only as long as the host says so.
    let why = served_slowly(|docker| {
        with_second_network(docker, "-A POSTROUTING -s 172.20.0.0/16 ! -o br-0123456789ab -j MASQUERADE");
        let id = docker.site.host.id;
        docker.site.host.network(id).routes.retain(|route| route.destination.to_string() != "172.20.0.0/16");
    });
    assert!(why.contains("-s 172.20.0.0/16"), "{why}");
}

#[test]
fn who_watches_the_hosts_devices_goes_on_seeing_packets_which_are_served_all_the_same() {
    let why = served_slowly(|docker| {
        let LinkKey { netns, ifindex } = docker.eth0;
        let name = "ids".to_owned();
        let hook = ProgramHook::TcxIngress;
        docker.site.host.facts.programs.push(ProgramFact {
            netns,
            ifindex,
            hook,
            id: Some(1),
            name,
            priority: None,
            xdp_mode: None,
        });
    });
    assert_eq!(why, "ids at TCX ingress of eth0 has to see its packets");
    let why = served_slowly(|docker| docker.site.enforced[0].mode = Mode::Trusted);
    assert_eq!(why, "port web is trusted, and held to no security groups");
    let plan = after(|docker| docker.site.switches.slow = Slow::All);
    assert!(!plan.floating_ips[0].fast().unwrap().begins);
}

#[test]
fn a_container_is_given_back_what_it_asks_itself_where_its_bridge_hands_frames_to_iptables() {
    let given_back = |called: &str, kind: &str| {
        let plan = after(|docker| {
            let id = docker.site.host.id;
            docker.site.host.sysctl(id, "net.bridge.bridge-nf-call-iptables", called);
            let key = docker.site.key("veth1");
            docker.site.host.edit(key).kind = Some(kind.to_owned());
        });
        plan.services[0].hairpin.clone()
    };
    assert_eq!(given_back("1", "veth").as_deref(), Some("veth1"));
    // The host itself translates it then, and routes it back.
    assert_eq!(given_back("0", "veth"), None);
    assert_eq!(given_back("1", "tun"), None, "a virtual machine");
}
