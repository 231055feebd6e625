//! What is not known is closed, on a real kernel with the real agent: a port nobody is sure about passes only what it needs to get
//! an address, and a mistake in the policy changes nothing.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use netdiag_common::logic::flow::{protocol, tcp};
use netdiag_model::id::Mac;
use netdiag_tests::{
    Switch,
    machine::Machine,
    site::{Site, both, document},
    traffic::{Traffic, answers_alone, fresh, handshake, tcp as segments, udp},
};
use rustix::process::Signal;

const ALL: Mac = Mac([0xff; 6]);
/// Where neighbours are asked for.
const GROUP: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const EVERYBODY: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const REPORTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// A frame and what it is.
type Named = (&'static str, Vec<u8>);

fn link_local(Mac([vendor @ .., device0, device1, device2]): Mac) -> Ipv6Addr {
    let [first, second, third] = vendor;
    let mut octets = [0; 16];
    octets[0] = 0xfe;
    octets[1] = 0x80;
    octets[8..].copy_from_slice(&[first ^ 2, second, third, 0xff, 0xfe, device0, device1, device2]);
    octets.into()
}

/// Bytes of UDP.
fn datagram(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes(), [0, 24], [0, 0]].concat().into_iter().chain([0; 16]).collect()
}

/// Bytes of ICMPv6 that speak of an address.
fn icmpv6(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    [kind, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(target.octets()).collect()
}

/// Bytes of an echo request.
const ECHO: [u8; 16] = [8, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

fn arp(from: &Machine, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut content = vec![0, 1, 8, 0, 6, 4, 0, 1];
    content.extend(from.mac.0);
    content.extend(sender.octets());
    content.extend([0; 6]);
    content.extend(target.octets());
    from.ethernet(ALL, 0x0806, &content)
}

/// DHCP, which needs no address.
fn discovery(from: &Machine) -> Vec<u8> {
    let ends = (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into());
    from.ip(ALL, ends, protocol::UDP, &datagram(68, 67))
}

/// ICMPv6 from a machine's link-local address to all others.
fn neighbour(from: &Machine, kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let ends = (link_local(from.mac).into(), EVERYBODY.into());
    from.ip(GROUP, ends, protocol::ICMPV6, &icmpv6(kind, target))
}

/// What a port needs to get an address, and to be found, as far as nobody must know its addresses for it.
fn needed(Site { world, first, .. }: &Site) -> (Vec<Named>, Vec<Named>) {
    let own = link_local(first.mac);
    let report: (IpAddr, IpAddr) = (Ipv6Addr::UNSPECIFIED.into(), REPORTS.into());
    let offer = (world.address.into(), Ipv4Addr::BROADCAST.into());
    let from = vec![
        ("dhcp discovery", discovery(first)),
        ("neighbour solicitation", neighbour(first, 135, link_local(world.mac))),
        ("neighbour advertisement", neighbour(first, 136, own)),
        ("router solicitation", neighbour(first, 133, own)),
        ("listener report", first.ip(GROUP, report, protocol::ICMPV6, &icmpv6(143, own))),
    ];
    let to = vec![
        ("dhcp offer", world.ip(ALL, offer, protocol::UDP, &datagram(67, 68))),
        ("arp request", arp(world, world.address, first.address)),
        ("neighbour solicitation", neighbour(world, 135, own)),
        ("neighbour advertisement", neighbour(world, 136, link_local(world.mac))),
    ];
    (from, to)
}

/// What every rule there can be would allow.
fn ordinary(Site { world, first, .. }: &Site) -> (Vec<Named>, Vec<Named>) {
    let both = |from: &Machine, to: &Machine| {
        let ends = (link_local(from.mac).into(), link_local(to.mac).into());
        vec![
            ("udp", from.udp(to, 5000, 53, b"question")),
            ("tcp", from.tcp(to, (5000, 80), tcp::SYN, b"")),
            ("echo", from.ipv4(to, protocol::ICMP, &ECHO)),
            ("udp of ipv6", from.ip(to.mac, ends, protocol::UDP, &datagram(5000, 53))),
        ]
    };
    (both(first, world), both(world, first))
}

/// What no port may send.
fn forbidden(Site { world, first, .. }: &Site) -> Vec<Named> {
    let serves = (first.address.into(), Ipv4Addr::BROADCAST.into());
    vec![
        ("arp for somebody else", arp(first, world.address, first.address)),
        ("router advertisement", neighbour(first, 134, link_local(first.mac))),
        ("neighbour advertisement for somebody else", neighbour(first, 136, link_local(world.mac))),
        ("dhcp offer", first.ip(ALL, serves, protocol::UDP, &datagram(67, 68))),
        ("another ethertype", first.ethernet(ALL, 0x88cc, &[0; 50])),
    ]
}

#[track_caller]
fn check(what: &str, from: &Machine, to: &Machine, frames: &[Named], passes: bool) {
    assert!(frames.len() >= 4);
    for (name, frame) in frames {
        assert_eq!(from.reaches(to, frame), passes, "{what}: {name} to {}", to.device);
    }
}

/// Only what is needed passes.
#[track_caller]
fn check_closed(site: &Site, what: &str) {
    let Site { world, first, .. } = site;
    let ((needed_from, needed_to), (from, to)) = (needed(site), ordinary(site));
    check(what, first, world, &needed_from, true);
    check(what, world, first, &needed_to, true);
    check(what, first, world, &from, false);
    check(what, world, first, &to, false);
    check(what, first, world, &forbidden(site), false);
}

/// What rules allow passes, too.
#[track_caller]
fn check_open(site: &Site, what: &str) {
    let Site { world, first, .. } = site;
    let (from, to) = ordinary(site);
    check(what, first, world, &from, true);
    check(what, world, first, &to, true);
}

/// Everything, both ways.
fn everything() -> String {
    let rule = |direction, family| format!(r#"{{"direction": "{direction}", "ethertype": "{family}"}}"#);
    [("egress", "IPv4"), ("egress", "IPv6"), ("ingress", "IPv4"), ("ingress", "IPv6")]
        .map(|(direction, family)| rule(direction, family))
        .join(",")
}

#[test]
fn a_device_that_two_ports_claim_passes_only_system_traffic_whatever_their_rules_say() {
    let test = "a_device_that_two_ports_claim_passes_only_system_traffic_whatever_their_rules_say";
    let Some(mut site) = Site::enter(test) else { return };
    site.host.start();
    let everything = everything();
    site.policy(&[("all", &everything)], &[site.first.port("p1", &["all"])], "");
    check_open(&site, "one port");
    check("one port", &site.first, &site.world, &forbidden(&site), false);
    site.put_port(&site.first, "p2", &["all"]);
    check_closed(&site, "two ports");
    assert!(
        site.first.reaches(&site.world, &arp(&site.first, site.first.address, site.world.address)),
        "its own address"
    );
    site.host.end(Signal::KILL);
    check_closed(&site, "nobody there");
    site.host.start();
    check_closed(&site, "started again");
    site.host.ok("DELETE", "/v1/ports/p2", "");
    check_open(&site, "one port again");
}

// === ports that Open vSwitch knows and the policy does not ===

/// Neutron's id of the port.
const UNKNOWN: &str = "1a2b3c4d-5e6f-4a1b-8c2d-000000000001";
/// A database of Open vSwitch in which a machine's device carries a Neutron port.
fn database(site: &Site) -> Switch {
    let switch = Switch::database(&site.host);
    let Machine { device, mac, .. } = &*site.first;
    switch.vsctl(&format!("--no-wait add-br br-int -- add-port br-int {device}"));
    switch.vsctl(&format!("--no-wait set Interface {device} external_ids:iface-id={UNKNOWN}"));
    switch.vsctl(&format!("--no-wait set Interface {device} external_ids:attached-mac=\"{mac}\""));
    switch
}

#[test]
fn a_neutron_port_that_the_policy_does_not_know_is_closed_where_that_is_asked_for_until_it_is_known() {
    let test = "a_neutron_port_that_the_policy_does_not_know_is_closed_where_that_is_asked_for_until_it_is_known";
    let Some(mut site) = Site::enter(test) else { return };
    if !Switch::is_there() {
        return;
    }
    let switch = database(&site);
    site.host.ovsdb.clone_from(&switch.socket);
    site.host.start();
    check_open(&site, "nothing is asked for");
    site.host.ok("PUT", "/v1/policy", r#"{"close_unknown_ports": true}"#);
    site.host.wait_for_ports(&[UNKNOWN]);
    check_closed(&site, "unknown");
    let everything = everything();
    let port = site.first.port(UNKNOWN, &["all"]).replace(r#"{"device": "vm1"}"#, r#"{"port_id": true}"#);
    site.policy(&[("all", &everything)], &[port], r#", "close_unknown_ports": true"#);
    check_open(&site, "known");
    site.host.ok("PUT", "/v1/policy", r#"{"close_unknown_ports": true}"#);
    check_closed(&site, "forgotten");
}

// === mistakes ===

/// Streams of which the first seven are allowed by the service 7.
fn traffic(site: &Site) -> Traffic {
    assert!(handshake(&site.world, &site.first, (5007, 7)));
    let (to, from) = ((&site.world, &site.first), (&site.first, &site.world));
    let [silent_udp, silent_tcp] = answers_alone(&site.world, &site.first, 7);
    Traffic::start(vec![
        silent_udp,
        silent_tcp,
        udp("udp", to, (5007, 7)),
        udp("udp back", from, (7, 5007)),
        segments("tcp", to, (5007, 7)),
        segments("tcp back", from, (7, 5007)),
        fresh("new flows", to, 7),
        udp("refused udp", to, (5008, 8)),
        segments("refused tcp", to, (5008, 8)),
        fresh("refused new flows", to, 8),
        fresh("refused new flows out", from, 8),
    ])
}

#[test]
fn mistakes_in_the_policy_and_a_directory_that_is_gone_or_empty_change_nothing_under_traffic() {
    let test = "mistakes_in_the_policy_and_a_directory_that_is_gone_or_empty_change_nothing_under_traffic";
    let Some(mut site) = Site::enter(test) else { return };
    let serve = both("ingress", 7, "");
    let policy = |rules: &str| document(&[("serve", rules)], &[site.first.port("p1", &["serve"])], "");
    let good = policy(&serve);
    let mistakes = [
        policy(&serve.replace("ingress", "inward")),
        policy(&[both("ingress", 8, ""), serve.clone()].join(",")).replace("\"udp\"", "\"upd\""),
        document(&[], &[site.first.port("p1", &["serve"])], ""),
        good[..good.len() / 2].to_owned(),
    ];
    site.host.policy(&good);
    site.host.start();
    site.host.wait_for_ports(&["p1"]);
    let traffic = traffic(&site);
    let began = Instant::now();
    let told = |host: &netdiag_tests::AgentHost| {
        host.wait("a mistake", |status| status["mistakes"][0].is_object());
        traffic.more(20);
    };
    let settled = |host: &netdiag_tests::AgentHost| {
        host.policy(&good);
        host.wait("no mistake", |status| status["mistakes"].as_array().is_some_and(Vec::is_empty));
    };
    for text in &mistakes {
        site.host.policy(text);
        told(&site.host);
        settled(&site.host);
    }
    site.host.policy(&mistakes[0]);
    told(&site.host);
    site.host.end(Signal::KILL);
    site.host.start();
    told(&site.host);
    settled(&site.host);
    fs::remove_file(site.host.path("policy.d/policy.yaml")).unwrap();
    told(&site.host);
    site.host.end(Signal::TERM);
    site.host.start();
    told(&site.host);
    settled(&site.host);
    fs::rename(site.host.path("policy.d"), site.host.path("elsewhere")).unwrap();
    told(&site.host);
    site.host.end(Signal::KILL);
    site.host.start();
    told(&site.host);
    fs::rename(site.host.path("elsewhere"), site.host.path("policy.d")).unwrap();
    settled(&site.host);
    traffic.more(20);
    let time = began..Instant::now();
    let logs = traffic.stop();
    logs[..7].iter().for_each(|log| log.all_arrived("mistakes", &time, 150));
    logs[7..].iter().for_each(|log| log.none_arrived("mistakes", &time, 150));
    assert!(logs[7..].iter().all(|log| log.arrived() == 0));
}
