use super::*;
use crate::{
    event::Decision,
    fact::SysctlFact,
    id::LinkKey,
    live::{
        Sighting,
        journey::{
            Ended, Journeys, SETTLE_NS,
            simulation::{FIXED, GATEWAY, Kind, Made, REMOTE},
        },
        points::Side,
    },
    snapshot::Snapshot,
    testing::{Host, PORT, ROUTER, neutron},
};

const MS: u64 = 1_000_000;
const MAC: &str = "02:00:00:00:00:02";

const NAT: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
    :neutron-l3-agent-PREROUTING - [0:0]\n:neutron-l3-agent-float-snat - [0:0]\n\
    -A PREROUTING -j neutron-l3-agent-PREROUTING\n-A POSTROUTING -j neutron-l3-agent-float-snat\n\
    -A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2\n\
    -A neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6\nCOMMIT\n";

/// Devices of a container behind a Neutron router, in the order of its way out.
struct Site {
    host: Host,
    links: Vec<LinkKey>,
    inside: NetnsId,
    router: NetnsId,
}

fn site(rules: &str) -> Site {
    let mut host = Host::new();
    let inside = host.netns(&[]);
    let (tap, inner) = host.veth((host.id, "tap1"), (inside, "eth0"));
    host.mac(inner, MAC);
    host.address(inner, "10.0.0.2/24");
    host.route(inner, "0.0.0.0/0", Some("10.0.0.1"));
    neutron(host.ovs("br-int", "tap1", ""), PORT, MAC, 1);
    let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
    let (qr, qg) = (host.link(router, "qr-1", Some("tun")), host.link(router, "qg-1", Some("tun")));
    host.mac(qr, "02:00:00:00:00:01");
    for (key, address) in [(qr, "10.0.0.1/24"), (qg, "172.24.4.2/24"), (qg, "172.24.4.6/32")] {
        host.address(key, address);
    }
    host.route(qg, "0.0.0.0/0", Some("172.24.4.1"));
    neutron(host.ovs("br-int", "qr-1", "internal"), "9f8e7d6c-5b4a-4998-8877-000000000001", "02:00:00:00:00:01", 1);
    host.ovs("br-int", "qg-1", "internal").tag = Some(2);
    host.patch(("br-int", "int-br-ex"), ("br-ex", "phy-br-ex"));
    let eth1 = host.link(host.id, "eth1", None);
    host.ovs("br-ex", "eth1", "");
    host.rules(router, &format!("{NAT}{rules}"));
    host.container("web-1", Some(inside));
    Site { host, links: vec![inner, tap, qr, qg, eth1], inside, router }
}

/// What is said of a packet's death, on a host as it is.
fn said(host: Host, sightings: &[Sighting], verdicts: &[VerdictEvent]) -> Option<Blame> {
    said_since(None, &host.snapshot(), sightings, verdicts)
}

/// The same with other points; the packet must have died.
fn said_by(snapshot: &Snapshot, sightings: &[Sighting], change: impl Fn(&mut Points)) -> Blame {
    told(None, snapshot, (sightings, &[]), change).unwrap()
}

fn said_since(
    earlier: Option<&Snapshot>,
    snapshot: &Snapshot,
    sightings: &[Sighting],
    verdicts: &[VerdictEvent],
) -> Option<Blame> {
    told(earlier, snapshot, (sightings, verdicts), |_| {})
}

fn told(
    earlier: Option<&Snapshot>,
    snapshot: &Snapshot,
    (sightings, verdicts): (&[Sighting], &[VerdictEvent]),
    change: impl Fn(&mut Points),
) -> Option<Blame> {
    let inventory = Inventory::build(snapshot);
    let earlier = earlier.map(Inventory::build);
    let instance = inventory.instances.iter().find(|one| one.identity.name == "web-1").unwrap();
    let trace = crate::trace::explain(&inventory, instance);
    let mut points = Points::of(&inventory, &trace);
    change(&mut points);
    let mut journeys = Journeys::new(points.clone());
    for sighting in sightings {
        journeys.see(sighting.clone());
    }
    let found = journeys.advance(1_000 * MS + 2 * SETTLE_NS);
    let [journey] = &found[..] else { panic!("{found:#?}") };
    let earlier = earlier.as_ref();
    blame(&Case { inventory: &inventory, earlier, instance, trace: &trace, points: &points, verdicts }, journey)
}

/// The packet at the first devices of its way out.
fn passed(site: &Site, made: &Made, stops: usize) -> Vec<Sighting> {
    let sides = [Side::Sent, Side::Received, Side::Received, Side::Sent, Side::Sent];
    let seen =
        |stop: usize| Sighting { link: Some(site.links[stop]), ..made.at(MS + stop as u64 * 1000, stop, sides[stop]) };
    (0..stops).map(seen).collect()
}

fn given_up(made: &Made, link: Option<LinkKey>, reason: &str) -> Sighting {
    Sighting { link, ..made.dropped(MS + 100_000, None, reason) }
}

/// The port of another instance.
const OTHER_PORT: &str = "1a2b3c4d-5e6f-4a1b-8c2d-000000000002";

const FORWARD: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n";

#[test]
fn the_one_rule_that_drops_this_packet_is_guilty_and_those_that_do_not_are_not() {
    let rules = format!(
        "{FORWARD}-A FORWARD -p udp -j DROP\n-A FORWARD -p tcp -m tcp --dport 22 -j DROP\n\
         -A FORWARD -p tcp -m tcp --dport 443 -j DROP\nCOMMIT\n"
    );
    let site = site(&rules);
    let packet = Made::syn(1);
    let mut seen = passed(&site, &packet, 3);
    seen.push(given_up(&packet, Some(site.links[2]), "NETFILTER_DROP"));
    let blame = said(site.host, &seen, &[]).unwrap();
    assert_eq!((blame.code, blame.rules.len()), (Code::FilterRule, 1));
    assert_eq!(blame.rules[0].rule, "-A FORWARD -p tcp -m tcp --dport 443 -j DROP");
    assert!(blame.sentence.contains("tcp 10.0.0.2:40000 > 203.0.113.7:443 SYN"), "{}", blame.sentence);
    assert!(blame.guilty.unwrap().contains("rule 3 of filter FORWARD"));
    assert!(blame.hop.is_some());
}

#[test]
fn where_the_state_of_the_flow_decides_which_rule_it_was_none_is_called_guilty() {
    let rules = format!(
        "{FORWARD}-A FORWARD -m conntrack --ctstate NEW -j DROP\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED -j DROP\nCOMMIT\n"
    );
    let site = site(&rules);
    let packet = Made::new(Kind::Udp(vec![1]));
    let mut seen = passed(&site, &packet, 3);
    seen.push(given_up(&packet, Some(site.links[2]), "NETFILTER_DROP"));
    let blame = said(site.host, &seen, &[]).unwrap();
    assert_eq!((blame.guilty.as_deref(), blame.rules.len()), (None, 2));
    assert!(blame.sentence.contains("one of these rules"), "{}", blame.sentence);
}

#[test]
fn of_several_rules_the_one_that_has_counted_since_is_guilty() {
    let rules = |established: u64| {
        format!(
            "{FORWARD}[4:240] -A FORWARD -m conntrack --ctstate NEW -j DROP\n\
             [{established}:60] -A FORWARD -m conntrack --ctstate ESTABLISHED -j DROP\nCOMMIT\n"
        )
    };
    let (before, now) = (site(&rules(0)), site(&rules(1)));
    let packet = Made::new(Kind::Udp(vec![1]));
    let mut seen = passed(&now, &packet, 3);
    seen.push(given_up(&packet, Some(now.links[2]), "NETFILTER_DROP"));
    let blame = said_since(Some(&before.host.snapshot()), &now.host.snapshot(), &seen, &[]).unwrap();
    assert_eq!(blame.rules.len(), 1);
    assert!(blame.rules[0].rule.contains("ESTABLISHED"), "{:?}", blame.rules);
}

#[test]
fn a_rule_inside_the_instance_is_found_before_any_device_saw_the_packet() {
    let mut site = site("");
    let out = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j DROP\nCOMMIT\n";
    site.host.rules(site.inside, out);
    let packet = Made::syn(1);
    let gone = given_up(&packet, Some(site.links[0]), "NETFILTER_DROP");
    let blame = said(site.host, &[gone], &[]).unwrap();
    assert_eq!(blame.rules[0].rule, "-A OUTPUT -j DROP");
    assert_eq!(blame.rules[0].netns.label, "web-1");
}

#[test]
fn a_rule_that_drops_what_the_router_itself_sends_is_found() {
    let site = site(&format!("{FORWARD}-A OUTPUT -p tcp -j DROP\nCOMMIT\n"));
    let packet = Made { source: (GATEWAY, 53), ..Made::syn(1) };
    let packet = Made { destination: (FIXED, 9), ..packet };
    let gone = given_up(&packet, Some(site.links[2]), "NETFILTER_DROP");
    let blame = said(site.host, &[gone], &[]).unwrap();
    assert_eq!(blame.rules.iter().map(|rule| rule.rule.as_str()).collect::<Vec<_>>(), ["-A OUTPUT -p tcp -j DROP"]);
}

#[test]
fn no_rule_is_named_where_none_would_drop_the_packet() {
    let site = site(&format!("{FORWARD}-A FORWARD -p udp -j DROP\nCOMMIT\n"));
    let packet = Made::syn(1);
    let mut seen = passed(&site, &packet, 3);
    seen.push(given_up(&packet, Some(site.links[2]), "NETFILTER_DROP"));
    let blame = said(site.host, &seen, &[]).unwrap();
    assert_eq!((blame.code, blame.rules.len(), blame.guilty), (Code::KernelDrop, 0, None));
    assert!(blame.sentence.contains("a rule of the packet filter dropped it"), "{}", blame.sentence);
}

#[test]
fn a_rule_of_which_nobody_knows_whether_it_matches_is_not_named() {
    let site = site(&format!("{FORWARD}-A FORWARD -m string --string x --algo bm -j DROP\nCOMMIT\n"));
    let packet = Made::syn(1);
    let mut seen = passed(&site, &packet, 3);
    seen.push(given_up(&packet, Some(site.links[2]), "NETFILTER_DROP"));
    let blame = said(site.host, &seen, &[]).unwrap();
    assert_eq!((blame.code, blame.rules.len()), (Code::KernelDrop, 0), "{blame:#?}");
}

#[test]
fn what_the_kernel_says_is_said_in_words_and_a_reason_nobody_knows_in_its_own() {
    for (reason, says) in [
        ("NO_SOCKET", "nobody listens there"),
        ("NEIGH_FAILED", "the next hop does not answer ARP or ND"),
        ("BRAND_NEW", "the kernel gives it up: BRAND_NEW (core)"),
    ] {
        let site = site("");
        let packet = Made::syn(1);
        let mut seen = passed(&site, &packet, 3);
        seen.push(given_up(&packet, Some(site.links[2]), reason));
        let blame = said(site.host, &seen, &[]).unwrap();
        assert_eq!((blame.code, blame.reason.as_deref()), (Code::KernelDrop, Some(reason)));
        assert!(blame.sentence.contains(says), "{}", blame.sentence);
    }
}

#[test]
fn forwarding_that_is_off_is_blamed_though_the_kernel_says_nothing() {
    let mut site = site("");
    let off = [("net.ipv4.ip_forward".to_owned(), "0".to_owned())].into();
    let router = site.router;
    site.host.facts.sysctls.retain(|fact| fact.netns != router);
    site.host.facts.sysctls.push(SysctlFact { netns: router, values: off });
    let seen = passed(&site, &Made::syn(1), 3);
    let blame = said(site.host, &seen, &[]).unwrap();
    assert_eq!(blame.code, Code::PathFault);
    assert!(blame.guilty.as_ref().unwrap().contains("does not forward"), "{blame:#?}");
}

#[test]
fn a_wrong_tag_is_blamed_for_what_the_switch_swallows_and_a_fault_elsewhere_is_not() {
    let mut tagged = site("");
    tagged.host.facts.switches[0].bridges[0].ports[0].tag = Some(4095);
    let seen = passed(&tagged, &Made::syn(1), 2);
    let blame = said(tagged.host, &seen, &[]).unwrap();
    assert_eq!(blame.code, Code::PathFault, "{blame:#?}");
    // The packet had passed the switch: the same fault cannot be why it died in the router.
    let mut down = site("");
    let eth1 = down.links[4];
    down.host.edit(eth1).admin_up = false;
    let seen = passed(&down, &Made::syn(1), 2);
    let blame = said(down.host, &seen, &[]).unwrap();
    assert_eq!((blame.code, blame.guilty), (Code::NotSeen, None));
}

#[test]
fn what_nobody_can_say_is_said_so_with_the_question_to_ask_the_switch() {
    let site = site("");
    let seen = passed(&site, &Made::syn(1), 2);
    let blame = said(site.host, &seen, &[]).unwrap();
    assert_eq!((blame.code, blame.guilty.as_deref()), (Code::NotSeen, None));
    assert!(blame.sentence.contains("is not seen after tap1 and never comes to qr-1"), "{}", blame.sentence);
    let command = blame.verify.unwrap();
    for field in ["ofproto/trace br-int", "in_port=tap1", "nw_ttl=64", "tp_dst=443", "dl_src=02:00:00:00:00:02"] {
        assert!(command.contains(field), "{command}");
    }
}

/// netdiag's own word on the packet of [`Made::syn`].
fn refusal() -> VerdictEvent {
    VerdictEvent {
        number: 1,
        time_ns: 2 * MS,
        port_id: PORT.to_owned(),
        instance: Some("web-1".to_owned()),
        device: Some("tap1".to_owned()),
        direction: crate::policy::types::Direction::Egress,
        verdict: Decision::Deny,
        reason: "no-rule".to_owned(),
        ethertype: 0x0800,
        protocol: Some(6),
        source: Some(IpAddr::from([10, 0, 0, 2])),
        destination: Some(IpAddr::from(REMOTE)),
        source_port: 40_000,
        destination_port: 443,
        rule: None,
        length: 74,
    }
}

#[test]
fn netdiags_own_verdict_on_this_very_packet_is_believed_before_all_else() {
    let event = refusal();
    let own = site("");
    let seen = passed(&own, &Made::syn(1), 1);
    let blame = said(own.host, &seen, std::slice::from_ref(&event)).unwrap();
    assert_eq!((blame.code, blame.reason.as_deref()), (Code::SecurityGroup, Some("no-rule")));
    assert!(blame.sentence.contains("refused by the security groups of web-1"), "{}", blame.sentence);
    // A verdict on another packet, or long ago, says nothing of this one.
    for other in [
        VerdictEvent { source_port: 40_001, ..event.clone() },
        VerdictEvent { time_ns: 5_000 * MS, ..event.clone() },
        VerdictEvent { verdict: Decision::Allow, ..event.clone() },
    ] {
        let site = site("");
        let seen = passed(&site, &Made::syn(1), 1);
        assert_ne!(said(site.host, &seen, &[other]).unwrap().code, Code::SecurityGroup);
    }
}

#[test]
fn what_another_tenants_port_refuses_of_the_same_addresses_is_not_this_packet() {
    let refused = |device: &str, tag: u16| {
        let mut site = site("");
        let inside = site.host.netns(&[]);
        let (_, inner) = site.host.veth((site.host.id, "tap2"), (inside, "eth0"));
        site.host.address(inner, "10.0.0.2/24");
        neutron(site.host.ovs("br-int", "tap2", ""), OTHER_PORT, "02:00:00:00:00:22", tag);
        site.host.container("web-2", Some(inside));
        let event = VerdictEvent { device: Some(device.to_owned()), ..refusal() };
        let seen = passed(&site, &Made::syn(1), 3);
        said(site.host, &seen, &[event]).unwrap().code
    };
    assert_eq!(refused("tap1", 2), Code::SecurityGroup);
    assert_ne!(refused("tap2", 2), Code::SecurityGroup, "in another network");
    assert_eq!(refused("tap2", 1), Code::SecurityGroup, "in its own network");
}

#[test]
fn a_packet_that_did_not_die_has_nobody_to_blame() {
    let site = site("");
    let seen = passed(&site, &Made::syn(1), 5);
    assert_eq!(said(site.host, &seen, &[]), None);
    assert!(!Ended::Delivered.is_death() && Ended::NotSeenAfter.is_death());
}

#[test]
fn a_full_table_of_connections_is_blamed_where_no_rule_would_drop_the_packet_and_one_with_room_is_not() {
    for (count, says) in [("65536", Some("connection tracking of")), ("1000", None)] {
        let mut site = site("");
        let router = site.router;
        site.host.sysctl(router, "net.netfilter.nf_conntrack_count", count);
        site.host.sysctl(router, "net.netfilter.nf_conntrack_max", "65536");
        let packet = Made::syn(1);
        let mut seen = passed(&site, &packet, 3);
        seen.push(given_up(&packet, Some(site.links[2]), "NETFILTER_DROP"));
        let blame = said(site.host, &seen, &[]).unwrap();
        let guilty = blame.guilty.unwrap_or_default();
        assert_eq!(guilty.is_empty(), says.is_none(), "{guilty}");
        assert!(says.is_none_or(|says| guilty.contains(says)), "{guilty}");
        assert_eq!(guilty.contains("65536 of 65536"), says.is_some(), "{guilty}");
    }
}

#[test]
fn the_queueing_discipline_that_dropped_a_packet_is_named() {
    let mut site = site("");
    site.host.edit(site.links[3]).qdisc = Some("tbf".to_owned());
    let packet = Made::syn(1);
    let mut seen = passed(&site, &packet, 4);
    seen.push(given_up(&packet, Some(site.links[3]), "QDISC_DROP"));
    let blame = said(site.host, &seen, &[]).unwrap();
    assert!(blame.guilty.unwrap().contains("qg-1 is tbf"));
    assert!(blame.verify.unwrap().contains("tc -s qdisc show dev qg-1"));
}

#[test]
fn a_device_that_is_down_is_blamed_and_not_the_queue_it_has_not() {
    let mut site = site("");
    let (inner, tap) = (site.links[0], site.links[1]);
    site.host.edit(inner).qdisc = Some("noqueue".to_owned());
    site.host.edit(tap).admin_up = false;
    let packet = Made::syn(1);
    let mut seen = passed(&site, &packet, 1);
    seen.push(given_up(&packet, Some(inner), "QDISC_DROP"));
    let blame = said(site.host, &seen, &[]).unwrap();
    assert!(blame.guilty.as_ref().is_some_and(|guilty| guilty.contains("tap1 is switched off")), "{blame:#?}");
}

#[test]
fn of_a_device_that_is_down_and_its_other_end_without_carrier_the_first_is_guilty() {
    let mut site = site("");
    let (inner, tap) = (site.links[0], site.links[1]);
    site.host.edit(inner).carrier = false;
    site.host.edit(tap).admin_up = false;
    let seen = passed(&site, &Made::syn(1), 1);
    let blame = said(site.host, &seen, &[]).unwrap();
    assert!(blame.guilty.as_ref().is_some_and(|guilty| guilty.contains("tap1 is switched off")), "{blame:#?}");
}

#[test]
fn a_packet_longer_than_the_next_device_takes_is_blamed_on_that_whether_the_kernel_says_so_or_not() {
    let long = Made::new(Kind::Udp(vec![1; 1410]));
    for (reason, device, stops) in [(Some("PKT_TOO_BIG"), 3, 3), (Some("NOT_SPECIFIED"), 1, 1), (None, 2, 2)] {
        let mut site = site("");
        site.host.edit(site.links[device]).mtu = 1400;
        let mut seen = passed(&site, &long, stops);
        seen.extend(reason.map(|reason| given_up(&long, Some(site.links[stops - 1]), reason)));
        let blame = said(site.host, &seen, &[]).unwrap();
        let guilty = blame.guilty.unwrap_or_default();
        assert!(guilty.contains("takes packets of 1400 bytes, and this one has 1438"), "{reason:?}: {guilty}");
        assert!(!blame.sentence.contains("no reason"), "{}", blame.sentence);
    }
    // One that fits died of something else.
    let mut fits = site("");
    fits.host.edit(fits.links[2]).mtu = 1400;
    let seen = passed(&fits, &Made::syn(1), 2);
    assert_eq!(said(fits.host, &seen, &[]).unwrap().guilty, None);
}

#[test]
fn what_comes_for_a_floating_ip_without_its_translation_finds_nobody_and_the_translation_is_blamed() {
    let mut site = site("");
    let without: String = NAT.lines().filter(|line| !line.contains("-j DNAT")).flat_map(|line| [line, "\n"]).collect();
    site.host.facts.rulesets.clear();
    site.host.rules(site.router, &without);
    let floating = std::net::Ipv4Addr::new(172, 24, 4, 6);
    let packet = Made { destination: (floating, 80), ..Made::syn(1).answer() };
    let come = |stop: usize| Sighting {
        link: Some(site.links[stop]),
        ..packet.at(MS + (4 - stop as u64) * 1000, stop, Side::Received)
    };
    let seen = [come(4), come(3), given_up(&packet, Some(site.links[3]), "NO_SOCKET")];
    let blame = said(site.host, &seen, &[]).unwrap();
    assert!(blame.sentence.contains("nobody listens there"), "{}", blame.sentence);
    assert!(blame.guilty.as_ref().is_some_and(|guilty| guilty.contains("has no DNAT rule")), "{blame:#?}");
}

#[test]
fn where_drops_are_not_watched_nobody_says_that_there_was_none() {
    let site = site("");
    let seen = passed(&site, &Made::syn(1), 2);
    let snapshot = site.host.snapshot();
    let blame = said_by(&snapshot, &seen, |points| points.blind = true);
    assert!(blame.sentence.contains("was not watched"), "{}", blame.sentence);
    assert!(!blame.evidence.contains("no drop was reported"), "{}", blame.evidence);
}

/// The same site with a second container, whose card has a bridge of its own with rules on it.
fn beside(rules: &str) -> (Site, LinkKey) {
    let mut site = site("");
    let host = site.host.id;
    let inside = site.host.netns(&[]);
    let (tap, inner) = site.host.veth((host, "tap2"), (inside, "eth0"));
    site.host.address(inner, "10.0.0.9/24");
    let (qvb, _) = site.host.veth((host, "qvb2"), (host, "qvo2"));
    site.host.bridge(host, "qbr2", &[tap, qvb]);
    site.host.sysctl(host, "net.bridge.bridge-nf-call-iptables", "1");
    site.host.rules(host, rules);
    site.host.container("web-2", Some(inside));
    (site, tap)
}

#[test]
fn a_rule_at_the_neighbour_a_packet_is_for_is_guilty_of_its_death_there() {
    let rules = format!(
        "{FORWARD}-A FORWARD -m physdev --physdev-in tap2 --physdev-is-bridged -j DROP\n\
         -A FORWARD -m physdev --physdev-out tap2 --physdev-is-bridged -j DROP\nCOMMIT\n"
    );
    let (site, tap) = beside(&rules);
    let packet = Made { destination: ([10, 0, 0, 9].into(), 80), ..Made::syn(1) };
    let mut seen = passed(&site, &packet, 2);
    seen.push(given_up(&packet, Some(tap), "NETFILTER_DROP"));
    let snapshot = site.host.snapshot();
    // The frame is for the neighbour, not for the router.
    let elsewhere = crate::id::Mac([2, 0, 0, 0, 0, 9]);
    let blame = said_by(&snapshot, &seen, |points| points.tracks[0].stops[2].mac = Some(elsewhere));
    let named: Vec<&str> = blame.rules.iter().map(|rule| rule.rule.as_str()).collect();
    assert_eq!(named, ["-A FORWARD -m physdev --physdev-out tap2 --physdev-is-bridged -j DROP"], "{blame:#?}");
}

#[test]
fn a_neighbour_is_silent_because_of_what_is_broken_on_the_way_to_it_and_of_nothing_behind_it() {
    let died_at = |stop: usize| {
        let mut site = site("");
        site.host.edit(site.links[4]).admin_up = false;
        site.host.neighbour(site.links[3], "172.24.4.1", "FAILED");
        site.host.neighbour(site.links[0], "10.0.0.1", "FAILED");
        let packet = Made::syn(1);
        let mut seen = passed(&site, &packet, stop + 1);
        seen.push(given_up(&packet, Some(site.links[stop]), "NEIGH_FAILED"));
        said(site.host, &seen, &[]).unwrap()
    };
    let blame = died_at(3);
    assert!(blame.guilty.as_ref().is_some_and(|guilty| guilty.contains("eth1 is switched off")), "{blame:#?}");
    let blame = died_at(0);
    assert!(!blame.sentence.contains("eth1"), "{blame:#?}");
}

#[test]
fn a_gateway_that_is_silent_is_told_of_and_not_called_guilty_of_it() {
    let mut site = site("");
    site.host.neighbour(site.links[0], "10.0.0.1", "FAILED");
    let gone = given_up(&Made::syn(1), Some(site.links[0]), "NEIGH_FAILED");
    let blame = said(site.host, &[gone], &[]).unwrap();
    assert!(blame.sentence.contains("the gateway 10.0.0.1 did not answer"), "{}", blame.sentence);
    assert_eq!(blame.guilty, None);
}
