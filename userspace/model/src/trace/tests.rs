//! Traces of hosts small enough to see why: gaps, verdicts and sentences.

use super::{HopKind, HopState, Trace, Verdict};
use crate::{
    fact::{EndpointFact, LinkDetail, MachineFact, OperState, ProgramFact, ProgramHook, PublishedPort, SourceKind},
    id::{LinkKey, NetnsId},
    inventory::Inventory,
    resolve::resolve,
    testing::{Host, PORT, ROUTER, codes, mac, neutron},
};

/// Linux bridges.
mod bridges;
/// Routers that are on every host.
mod distributed;
/// Security groups that netdiag enforces.
mod enforcement;
/// Packet filter rules.
mod filters;
/// Routes, neighbours, addresses and MTUs.
mod routes;
/// Open vSwitch.
mod switches;

const MAC: &str = "fa:16:3e:00:00:01";

/// A container on a Linux bridge of the host, which routes for it into a private network.
pub(super) fn docker(host: &mut Host) -> (NetnsId, LinkKey) {
    let netns = host.netns(&[]);
    let (veth, inner) = host.veth((host.id, "veth1"), (netns, "eth0"));
    let docker0 = host.bridge(host.id, "docker0", &[veth]);
    let eth0 = host.link(host.id, "eth0", None);
    host.mac(inner, MAC);
    for (key, address) in [(inner, "172.17.0.2/16"), (docker0, "172.17.0.1/16"), (eth0, "192.168.1.10/24")] {
        host.address(key, address);
    }
    host.route(inner, "0.0.0.0/0", Some("172.17.0.1"));
    host.route(eth0, "0.0.0.0/0", Some("192.168.1.1"));
    host.neighbour(eth0, "192.168.1.1", "REACHABLE");
    let endpoint = EndpointFact {
        network: "bridge".to_owned(),
        network_id: "b".repeat(64),
        address: None,
        gateway: None,
        mac: Some(mac(MAC)),
    };
    host.container("web-1", Some(netns)).endpoints = vec![endpoint];
    (netns, inner)
}

/// A container plugged into `br-int`, without a router on this host.
fn plugged(host: &mut Host, network_type: &str) -> (NetnsId, LinkKey) {
    let netns = host.netns(&[]);
    let (_, inner) = host.veth((host.id, "tap1"), (netns, "ns1"));
    host.mac(inner, MAC);
    host.address(inner, "10.0.0.2/24");
    host.route(inner, "0.0.0.0/0", Some("10.0.0.1"));
    let port = host.ovs("br-int", "tap1", "");
    neutron(port, PORT, MAC, 1);
    port.other_config = [("network_type".to_owned(), network_type.to_owned())].into();
    host.container("web-1", Some(netns));
    (netns, inner)
}

fn published(address: &str, port: u16) -> PublishedPort {
    PublishedPort {
        protocol: "tcp".to_owned(),
        host_address: address.parse().unwrap(),
        host_port: port,
        container_port: 80,
    }
}

fn last(trace: &Trace) -> (&str, HopState) {
    let mut outward = trace.interfaces[0].hops.iter().filter(|hop| hop.direction == super::Direction::Outward);
    outward.next_back().map(|hop| (hop.status.as_str(), hop.state)).unwrap()
}

#[test]
fn a_healthy_path_works_and_says_where_it_leads() {
    let mut host = Host::new();
    docker(&mut host);
    let trace = host.trace("web-1");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec![]));
    assert_eq!(last(&trace), ("REACHABLE", HopState::Ok));
    assert!(trace.sentence.starts_with("web-1: 172.17.0.2 on docker0 is routed to the outside by this host"));
}

#[test]
fn a_program_at_a_device_is_said_unless_it_is_netdiags_own_eye() {
    let note = |name: &str| {
        let mut host = Host::new();
        let (_, inner) = docker(&mut host);
        let (hook, name) = (ProgramHook::TcxIngress, name.to_owned());
        let LinkKey { netns, ifindex } = inner;
        host.facts.programs.push(ProgramFact {
            netns,
            ifindex,
            hook,
            id: Some(7),
            name,
            priority: None,
            xdp_mode: None,
        });
        let trace = host.trace("web-1");
        trace.interfaces[0].hops.iter().find(|hop| hop.name == "eth0").unwrap().note.clone()
    };
    assert_eq!((note("live_in"), note("live_out_ip")), (String::new(), String::new()));
    assert!(note("meter").contains("eBPF or TC filter"), "{}", note("meter"));
}

#[test]
fn an_error_makes_it_broken_and_is_the_sentence() {
    let mut host = Host::new();
    let (_, inner) = docker(&mut host);
    let link = host.edit(inner);
    (link.admin_up, link.state) = (false, OperState::Down);
    let trace = host.trace("web-1");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["link-down"]));
    assert_eq!(trace.sentence, "web-1: eth0 is switched off: nothing passes it.");
}

#[test]
fn a_gap_makes_it_inconclusive_where_it_could_change_the_answer_and_only_there() {
    for (source, of, verdict) in [
        (SourceKind::Netfilter, None, Verdict::Inconclusive),
        (SourceKind::Netfilter, Some("path"), Verdict::Inconclusive),
        (SourceKind::Netfilter, Some("elsewhere"), Verdict::Works),
    ] {
        let mut host = Host::new();
        docker(&mut host);
        let elsewhere = host.netns(&["elsewhere"]);
        let netns = of.map(|of| if of == "path" { host.id } else { elsewhere });
        host.gap(source, netns);
        let trace = host.trace("web-1");
        assert_eq!((trace.verdict, trace.gaps.len()), (verdict, usize::from(verdict != Verdict::Works)), "{of:?}");
    }
}

#[test]
fn what_is_not_there_is_no_gap() {
    let mut host = Host::new();
    docker(&mut host);
    host.gap(SourceKind::Ovsdb, None);
    host.facts.reports[0].gaps[0].absent = true;
    assert_eq!(host.trace("web-1").verdict, Verdict::Works);
}

#[test]
fn a_router_that_could_not_be_read_leaves_the_answer_open() {
    let mut host = Host::new();
    plugged(&mut host, "vxlan");
    host.patch(("br-int", "patch-tun"), ("br-tun", "patch-int"));
    host.ovs("br-tun", "vxlan-1", "vxlan");
    let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
    host.ovs("br-int", "qr-1", "internal").tag = Some(1);
    host.facts.networks.retain(|network| network.netns != router);
    host.gap(SourceKind::Netlink, Some(router));
    let trace = host.trace("web-1");
    assert_eq!((trace.verdict, trace.gaps.len()), (Verdict::Inconclusive, 1));
}

#[test]
fn security_groups_that_could_not_be_read_are_not_called_missing() {
    let unset = LinkDetail::Bridge { stp: false, vlan_filtering: false, ageing: 0, nf_call_iptables: false };
    for (source, called, code) in
        [(SourceKind::Netfilter, true, "no-security-group-chain"), (SourceKind::Sysctl, false, "bridge-nf-off")]
    {
        for read in [true, false] {
            let mut host = hybrid("");
            if !called {
                let qbr = host.facts.networks[0].links.iter_mut().find(|link| link.name == "qbr1").unwrap();
                qbr.detail = unset.clone();
            }
            if !read {
                host.gap(source, Some(host.id));
            }
            let trace = host.trace("web-1");
            assert_eq!(codes(&trace).contains(&code), read, "{source:?}: {:?}", codes(&trace));
        }
    }
}

#[test]
fn a_container_whose_namespace_could_not_be_read_is_not_called_unplugged() {
    for known in [true, false] {
        let mut host = Host::new();
        let netns = host.netns(&[]);
        host.facts.networks.retain(|network| network.netns != netns);
        host.container("web-1", known.then_some(netns));
        host.gap(SourceKind::Netlink, known.then_some(netns));
        let trace = host.trace("web-1");
        assert_eq!((trace.verdict, codes(&trace)), (Verdict::Inconclusive, vec!["namespace-unread"]));
        assert!(!trace.sentence.contains("no network"), "{}", trace.sentence);
    }
}

#[test]
fn a_container_with_nothing_plugged_in_is_broken_and_a_stopped_one_is_not_running() {
    for (state, code) in [("running", "no-interface"), ("exited", "not-running"), ("restarting", "not-running")] {
        let mut host = Host::new();
        let netns = (state == "running").then(|| host.netns(&[]));
        host.container("web-1", netns).state = state.to_owned();
        let trace = host.trace("web-1");
        assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec![code]), "{state}");
    }
}

#[test]
fn a_machine_without_cards_does_not_use_the_hosts_network() {
    let mut host = Host::new();
    let (name, netns) = (Some("instance-00000001".to_owned()), Some(host.id));
    host.facts.machines.push(MachineFact { pid: 9, name, uuid: None, netns, nics: vec![] });
    let trace = host.trace("instance-00000001");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["no-interface"]));
}

#[test]
fn a_default_route_without_a_gateway_leaves_by_its_card_all_the_same() {
    let mut host = Host::new();
    let (netns, inner) = docker(&mut host);
    host.network(netns).routes.clear();
    host.route(inner, "0.0.0.0/0", None);
    let trace = host.trace("web-1");
    assert_eq!(last(&trace), ("REACHABLE", HopState::Ok));
    assert!(!trace.sentence.contains("own subnet"), "{}", trace.sentence);
}

#[test]
fn a_card_without_the_default_route_ends_at_its_segment() {
    let mut host = Host::new();
    let (netns, _) = docker(&mut host);
    let (veth, second) = host.veth((host.id, "veth2"), (netns, "eth1"));
    let br1 = host.bridge(host.id, "br1", &[veth]);
    host.address(second, "192.168.77.2/24");
    host.address(br1, "192.168.77.1/24");
    let trace = host.trace("web-1");
    let ends: Vec<_> = trace.interfaces.iter().map(|one| one.hops.last().unwrap().status.as_str()).collect();
    assert_eq!((trace.verdict, ends), (Verdict::Works, vec!["REACHABLE", "this segment"]));
}

#[test]
fn an_address_two_links_know_is_asked_of_the_link_the_path_leaves_by() {
    let mut host = Host::new();
    docker(&mut host);
    let eth1 = host.link(host.id, "eth1", None);
    host.neighbour(eth1, "192.168.1.1", "FAILED");
    host.network(host.id).neighbours.reverse();
    let trace = host.trace("web-1");
    assert_eq!((codes(&trace), last(&trace)), (vec![], ("REACHABLE", HopState::Ok)));
}

#[test]
fn one_fault_on_the_paths_of_two_cards_is_one_finding() {
    let mut host = Host::new();
    let (netns, _) = docker(&mut host);
    let (veth, second) = host.veth((host.id, "veth2"), (netns, "eth1"));
    host.address(second, "172.17.0.3/16");
    host.mac(second, "fa:16:3e:00:00:02");
    let docker0 = host.network(host.id).links.iter().find(|link| link.name == "docker0").unwrap().ifindex;
    host.edit(veth).master = Some(docker0);
    host.edit(veth).admin_up = false;
    host.sysctl(host.id, "net.ipv4.ip_forward", "0");
    host.facts.docker_networks.push(crate::fact::DockerNetworkFact {
        id: "b".repeat(64),
        name: "bridge".to_owned(),
        driver: "bridge".to_owned(),
        bridge: Some("docker0".to_owned()),
        subnets: vec![],
        gateways: vec![],
        internal: false,
        options: [].into(),
    });
    let trace = host.trace("web-1");
    assert_eq!(codes(&trace), ["forwarding-off", "link-down"]);
    assert!(trace.sentence.ends_with("(1 more error below it)."), "{}", trace.sentence);
}

#[test]
fn a_device_open_vswitch_may_have_is_not_said_to_be_routed_where_ovsdb_could_not_be_read() {
    for (stopped, in_kernel) in [(true, true), (true, false), (false, false)] {
        let mut host = Host::new();
        plugged(&mut host, "vxlan");
        host.facts.switches.clear();
        host.gap(SourceKind::Ovsdb, None);
        host.sysctl(host.id, "net.ipv4.ip_forward", "0");
        // ovsdb-server is stopped, and has taken its socket along; the datapath goes on.
        host.facts.reports[0].gaps[0].absent = stopped;
        if stopped && !in_kernel {
            host.link(host.id, "ovs-netdev", Some("tun"));
        }
        if in_kernel {
            let datapath = host.link(host.id, "ovs-system", Some("openvswitch"));
            let tap = LinkKey { netns: host.id, ifindex: crate::id::IfIndex(2) };
            host.edit(tap).master = Some(datapath.ifindex);
        }
        let trace = host.trace("web-1");
        assert_eq!((trace.verdict, codes(&trace)), (Verdict::Inconclusive, vec![]), "{stopped} {in_kernel}");
        assert_eq!(last(&trace), ("not seen", HopState::Unknown));
    }
}

#[test]
fn a_network_whose_router_is_elsewhere_is_not_said_to_be_closed() {
    let mut host = Host::new();
    plugged(&mut host, "vxlan");
    host.patch(("br-int", "patch-tun"), ("br-tun", "patch-int"));
    let options = [("remote_ip".to_owned(), "192.0.2.2".to_owned())].into();
    host.ovs("br-tun", "vxlan-1", "vxlan").interfaces[0].options = options;
    let sentence = host.trace("web-1").sentence;
    assert!(sentence.contains("leaves this host by a tunnel"), "{sentence}");
    assert!(sentence.ends_with("that host knows whether the outside reaches it."), "{sentence}");
}

#[test]
fn a_provider_network_is_reached_without_a_floating_ip() {
    let mut host = Host::new();
    plugged(&mut host, "flat");
    host.patch(("br-int", "int-br-ex"), ("br-ex", "phy-br-ex"));
    host.link(host.id, "eth1", None);
    host.ovs("br-ex", "eth1", "");
    let trace = host.trace("web-1");
    assert!(trace.interfaces[0].hops.iter().any(|hop| hop.kind == HopKind::Uplink && hop.name == "eth1"));
    assert!(
        trace.sentence.ends_with("whoever is on that network reaches it by its own address."),
        "{}",
        trace.sentence
    );
}

#[test]
fn a_port_published_twice_is_one_way_in_whatever_lies_between() {
    let mut host = Host::new();
    docker(&mut host);
    let ports = [("0.0.0.0", 80), ("0.0.0.0", 443), ("::", 80), ("::", 443)];
    host.facts.containers[0].published = ports.map(|(address, port)| published(address, port)).into();
    for port in host.facts.containers[0].published.clone() {
        host.proxy(port, "172.17.0.2");
    }
    let trace = host.trace("web-1");
    assert!(trace.sentence.contains("by host port 80/tcp, host port 443/tcp"), "{}", trace.sentence);
    assert_eq!(trace.sentence.matches("443/tcp").count(), 1, "{}", trace.sentence);
    let outside = trace.interfaces[0].hops.iter().find(|hop| hop.kind == HopKind::Outside).unwrap();
    assert_eq!(outside.name, "host port 80/tcp, host port 443/tcp");
}

#[test]
fn a_port_without_its_rule_is_not_served_by_the_process_of_another_port() {
    let broken = |prepare: &dyn Fn(&mut Host)| {
        let mut host = Host::new();
        docker(&mut host);
        host.facts.containers[0].published = vec![published("0.0.0.0", 8080)];
        prepare(&mut host);
        let trace = host.trace("web-1");
        (trace.interfaces[0].published_ports[0].state, codes(&trace).contains(&"published-port"))
    };
    let serves = |address: &'static str, number: u16, to: &'static str| {
        broken(&move |host| host.proxy(published(address, number), to))
    };
    assert_eq!(serves("0.0.0.0", 8080, "172.17.0.2"), (HopState::Ok, false));
    assert_eq!(serves("0.0.0.0", 8081, "172.17.0.2"), (HopState::Broken, true), "another port's");
    assert_eq!(serves("192.0.2.1", 8080, "172.17.0.2"), (HopState::Broken, true), "another address's");
    assert_eq!(serves("0.0.0.0", 8080, "172.17.0.9"), (HopState::Broken, true), "what another container had");
    assert_eq!(broken(&|host| host.process(host.id, 500, "docker-proxy")), (HopState::Unknown, false), "unread");
    assert_eq!(broken(&|_| ()), (HopState::Broken, true), "none");
}

#[test]
fn a_port_published_on_loopback_is_open_to_the_host_alone_and_that_is_no_fault() {
    let mut host = Host::new();
    docker(&mut host);
    host.proxy(published("127.0.0.1", 8080), "172.17.0.2");
    host.facts.containers[0].published = vec![published("127.0.0.1", 8080)];
    // What Docker 28 adds, and the translation every Docker makes.
    host.rules(
        host.id,
        "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP\nCOMMIT\n\
         *nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n",
    );
    let trace = host.trace("web-1");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec![]));
    assert_eq!(trace.interfaces[0].published_ports[0].state, HopState::Ok);
    assert!(!trace.sentence.contains("8080"), "{}", trace.sentence);
    assert!(!trace.interfaces[0].hops.iter().any(|hop| hop.kind == HopKind::Outside));
}

#[test]
fn a_published_port_without_a_rule_or_a_proxy_is_broken() {
    let mut host = Host::new();
    docker(&mut host);
    host.process(host.id, 1, "systemd");
    host.facts.containers[0].published = vec![published("0.0.0.0", 8080)];
    let trace = host.trace("web-1");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Broken, vec!["published-port"]));
}

#[test]
fn a_container_that_calls_itself_host_is_not_the_host() {
    let mut host = Host::new();
    docker(&mut host);
    let forger = host.netns(&[]);
    host.container("host", Some(forger));
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    assert_eq!(inventory.netns(inventory.host.unwrap()).label, "host");
    assert_ne!(inventory.netns(forger).label, "host");
}

/// A container with a floating IP behind a hybrid plug, with the security group rules given.
fn hybrid(rules: &str) -> Host {
    let mut host = Host::new();
    let netns = host.netns(&[]);
    let (tap, inner) = host.veth((host.id, "tap1"), (netns, "ns1"));
    let (qvb, _) = host.veth((host.id, "qvb1"), (host.id, "qvo1"));
    let qbr = host.bridge(host.id, "qbr1", &[tap, qvb]);
    host.edit(qbr).detail = LinkDetail::Bridge { stp: false, vlan_filtering: false, ageing: 0, nf_call_iptables: true };
    host.mac(inner, MAC);
    host.address(inner, "10.0.0.2/24");
    host.route(inner, "0.0.0.0/0", Some("10.0.0.1"));
    neutron(host.ovs("br-int", "qvo1", ""), PORT, MAC, 1);
    host.container("web-1", Some(netns));
    let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
    let (qr, qg) = (host.link(router, "qr-1", Some("tun")), host.link(router, "qg-1", Some("tun")));
    host.address(qr, "10.0.0.1/24");
    host.address(qg, "172.24.4.6/32");
    host.route(qg, "0.0.0.0/0", Some("172.24.4.1"));
    host.ovs("br-int", "qr-1", "internal").tag = Some(1);
    host.rules(
        router,
        "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:neutron-l3-agent-PREROUTING - [0:0]\n\
         :neutron-l3-agent-float-snat - [0:0]\n-A PREROUTING -j neutron-l3-agent-PREROUTING\n\
         -A POSTROUTING -j neutron-l3-agent-float-snat\n\
         -A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2\n\
         -A neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6\nCOMMIT\n",
    );
    host.rules(host.id, &format!("*filter\n:FORWARD ACCEPT [0:0]\n{rules}COMMIT\n"));
    host
}

#[test]
fn what_comes_in_is_filtered_even_where_nothing_filters_what_goes_out() {
    let drops = "-A FORWARD -m physdev --physdev-out tap1 --physdev-is-bridged -j DROP\n";
    let trace = hybrid(drops).trace("web-1");
    assert!(codes(&trace).contains(&"filter-drop"), "{:#?}", trace.findings);
    assert_eq!(trace.verdict, Verdict::Broken);
    let lets = "-A FORWARD -m physdev --physdev-out tap1 --physdev-is-bridged -j ACCEPT\n";
    let trace = hybrid(lets).trace("web-1");
    assert!(!codes(&trace).contains(&"filter-drop"), "{:#?}", trace.findings);
}

/// A card whose network has a DHCP namespace on this host, in which no process was seen.
fn dhcp(host: &mut Host) {
    plugged(host, "vxlan");
    let netns = host.netns(&["qdhcp-5c1b2a3d-0000-4000-8000-000000000001"]);
    let port = host.link(netns, "tap9", Some("tun"));
    host.address(port, "10.0.0.3/24");
    host.ovs("br-int", "tap9", "internal").tag = Some(1);
}

#[test]
fn dhcp_is_silent_only_where_its_processes_could_be_seen() {
    let mut host = Host::new();
    dhcp(&mut host);
    let trace = host.trace("web-1");
    assert!(codes(&trace).contains(&"dhcp-silent"), "{:#?}", trace.findings);
    assert_eq!(trace.interfaces[0].dhcp.as_ref().map(|dhcp| dhcp.state), Some(HopState::Broken));
    let mut host = Host::new();
    dhcp(&mut host);
    host.gap(SourceKind::Netns, None);
    let trace = host.trace("web-1");
    assert!(!codes(&trace).contains(&"dhcp-silent"), "{:#?}", trace.findings);
    assert_eq!(trace.interfaces[0].dhcp.as_ref().map(|dhcp| dhcp.state), Some(HopState::Unknown));
}

#[test]
fn a_dhcp_service_that_lost_its_name_still_serves_and_is_no_instance() {
    let nameless = |comm: &str, vm: bool| {
        let mut host = switches::routed();
        let netns = host.netns(&[]);
        host.process(netns, 611, comm);
        let port = host.link(netns, "tap9", Some("tun"));
        host.address(port, "10.0.0.3/24");
        let port = host.ovs("br-int", "tap9", "internal");
        neutron(port, "1a2b3c4d-5e6f-4a1b-8c2d-000000000009", "fa:16:3e:00:00:09", 1);
        if vm {
            port.interfaces[0].external_ids.insert("vm-uuid".to_owned(), PORT.to_owned());
        }
        host.snapshot()
    };
    let snapshot = nameless("dnsmasq", false);
    let inventory = Inventory::build(&snapshot);
    let names: Vec<_> = inventory.instances.iter().map(|instance| instance.identity.name.as_str()).collect();
    assert_eq!(names, ["web-1"]);
    let trace = super::explain(&inventory, &inventory.instances[0]);
    assert_eq!(trace.interfaces[0].dhcp.as_ref().map(|dhcp| dhcp.state), Some(HopState::Ok));
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec!["dhcp-unnamed"]));
    // A namespace somebody plugged by hand, and a port that belongs to an instance.
    for (comm, vm) in [("sleep", false), ("dnsmasq", true)] {
        let snapshot = nameless(comm, vm);
        assert_eq!(Inventory::build(&snapshot).instances.len(), 2, "{comm}");
    }
}

#[test]
fn keepalived_is_no_metadata_proxy() {
    for (comm, state) in [("keepalived", HopState::Unknown), ("haproxy", HopState::Ok)] {
        let mut host = hybrid("");
        let router = host.facts.namespaces.last().unwrap().id;
        host.rules(
            router,
            "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 169.254.169.254/32 -i qr-+ -p tcp -m tcp --dport 80 \
             -j REDIRECT --to-ports 9697\nCOMMIT\n",
        );
        host.process(router, 70, comm);
        let metadata = host.trace("web-1").interfaces[0].metadata.clone().unwrap();
        assert_eq!((metadata.state, metadata.process.is_some()), (state, state == HopState::Ok), "{comm}");
    }
}

#[test]
fn a_private_address_that_leaves_untranslated_by_a_public_device_is_warned_about() {
    let mut host = Host::new();
    let (_, _) = docker(&mut host);
    let eth0 = host.facts.networks[0].links.iter().find(|link| link.name == "eth0").map(|link| link.ifindex).unwrap();
    host.address(LinkKey { netns: host.id, ifindex: eth0 }, "198.51.100.10/24");
    assert_eq!(codes(&host.trace("web-1")), ["no-translation"]);
}

#[test]
fn rules_that_could_not_be_read_are_not_said_to_translate_nothing() {
    let mut host = Host::new();
    docker(&mut host);
    let eth0 = host.facts.networks[0].links.iter().find(|link| link.name == "eth0").map(|link| link.ifindex).unwrap();
    host.address(LinkKey { netns: host.id, ifindex: eth0 }, "198.51.100.10/24");
    host.gap(SourceKind::Netfilter, None);
    assert!(codes(&host.trace("web-1")).is_empty());
}

#[test]
fn a_trunks_parent_is_wired_on_the_far_side_of_its_own_bridge() {
    let mut host = Host::new();
    let netns = host.netns(&[]);
    let (_, inner) = host.veth((host.id, "tap1"), (netns, "ns1"));
    host.mac(inner, MAC);
    host.address(inner, "10.0.0.2/24");
    host.route(inner, "0.0.0.0/0", Some("10.0.0.1"));
    host.container("web-1", Some(netns));
    // The tap has no tag on its own bridge; the patch port on br-int carries the Neutron port and the tag.
    let tap = host.ovs("tbr-1", "tap1", "");
    neutron(tap, PORT, MAC, 1);
    tap.tag = None;
    host.patch(("tbr-1", "tpt-1"), ("br-int", "tpi-1"));
    let bridge = host.facts.switches[0].bridges.iter_mut().find(|bridge| bridge.name == "br-int").unwrap();
    neutron(&mut bridge.ports[0], PORT, MAC, 3);
    let trace = host.trace("web-1");
    assert!(!codes(&trace).contains(&"no-tag"), "{:?}", codes(&trace));
    assert_eq!((trace.interfaces[0].vlan_tag, trace.interfaces[0].port_id.is_some()), (Some(3), true));
    let bridges: Vec<_> = trace.interfaces[0].hops.iter().filter(|hop| hop.kind == HopKind::OvsBridge).collect();
    assert_eq!(bridges.iter().map(|hop| hop.name.as_str()).collect::<Vec<_>>(), ["tbr-1", "br-int"]);
}

#[test]
fn a_floating_ip_means_its_instance_even_where_only_its_rules_are_left() {
    let mut host = hybrid("");
    // The router's end lost its VLAN: nothing but the rules ties the address to the instance.
    let bridge = &mut host.facts.switches[0].bridges[0];
    bridge.ports.iter_mut().find(|port| port.name == "qr-1").unwrap().tag = Some(9);
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let place = resolve(&inventory, "172.24.4.6").unwrap();
    assert_eq!(inventory.instances[place].identity.name, "web-1");
}

#[test]
fn a_standby_router_is_said_to_be_one_and_is_no_fault() {
    let mut host = hybrid("-A FORWARD -m physdev --physdev-out tap1 --physdev-is-bridged -j ACCEPT\n");
    let router =
        host.facts.namespaces.iter().find(|one| one.names.iter().any(|name| name.path.contains("qrouter"))).unwrap().id;
    for link in &mut host.network(router).links {
        link.addresses.clear();
    }
    let ha = host.link(router, "ha-1", Some("tun"));
    host.address(ha, "169.254.192.7/18");
    let trace = host.trace("web-1");
    assert!(codes(&trace).contains(&"router-standby"), "{:?}", codes(&trace));
    assert!(!codes(&trace).iter().any(|code| code.starts_with("floating-ip-")), "{:?}", codes(&trace));
}

#[test]
fn a_port_with_nobody_behind_it_is_an_instance_that_is_gone() {
    for kind in [Some("tun"), None] {
        let mut host = Host::new();
        if kind.is_some() {
            let tap = host.link(host.id, "tap9", kind);
            host.edit(tap).carrier = false;
        }
        neutron(host.ovs("br-int", "tap9", ""), PORT, MAC, 1);
        let trace = host.trace("tap9");
        assert_eq!((trace.instance.state.as_str(), trace.verdict), ("gone", Verdict::Broken), "{kind:?}");
        assert!(codes(&trace).contains(&"port-left-behind"), "{:?}", codes(&trace));
        assert_eq!(trace.interfaces[0].port_id.as_ref().map(ToString::to_string).as_deref(), Some(PORT));
    }
}

#[test]
fn what_cannot_be_looked_behind_is_not_said_to_be_gone() {
    let left = |host: &mut Host, kind: Option<&str>, carrier: bool| {
        plugged(host, "vxlan");
        let tap = host.link(host.id, "tap9", kind);
        host.edit(tap).carrier = carrier;
        neutron(host.ovs("br-int", "tap9", ""), "1a2b3c4d-5e6f-4a1b-8c2d-000000000009", MAC, 1);
    };
    for (kind, carrier, unread, instances) in [
        (Some("tun"), false, None, 2),
        (Some("tun"), true, None, 1),
        (Some("veth"), false, None, 1),
        (None, false, None, 1),
        (Some("tun"), false, Some(SourceKind::Process), 1),
    ] {
        let mut host = Host::new();
        left(&mut host, kind, carrier);
        if let Some(source) = unread {
            host.gap(source, None);
        }
        let snapshot = host.snapshot();
        assert_eq!(Inventory::build(&snapshot).instances.len(), instances, "{kind:?} {unread:?}");
    }
}

#[test]
fn a_router_without_a_name_is_a_router_and_no_instance() {
    let mut host = switches::routed();
    let router = host.facts.namespaces.iter_mut().find(|one| !one.names.is_empty()).unwrap();
    router.names.clear();
    let id = router.id;
    host.process(id, 70, "haproxy");
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let names: Vec<_> = inventory.instances.iter().map(|one| one.identity.name.as_str()).collect();
    assert_eq!(names, ["web-1"]);
    let trace = super::explain(&inventory, &inventory.instances[0]);
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec!["router-unnamed"]));
}

#[test]
fn links_a_tenant_calls_a_routers_do_not_hide_it() {
    let mut host = Host::new();
    let netns = host.netns(&[]);
    host.link(netns, "qr-00000000-00", Some("tun"));
    let snapshot = host.snapshot();
    assert_eq!(Inventory::build(&snapshot).instances.len(), 1);
}
