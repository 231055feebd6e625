use super::super::{Dropped, Owners, Rules};
use crate::{
    id::LinkKey,
    inventory::Inventory,
    live::{
        Sighting,
        journey::simulation::{FIXED, Made},
    },
    testing::Host,
};

const FILTER: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n";

/// A router between 10.0.0.0/24 (`qr-1`) and the outside (`qg-1`).
struct Site {
    host: Host,
    qr: LinkKey,
    qg: LinkKey,
}

fn site(rules: &str) -> Site {
    let mut host = Host::new();
    let router = host.netns(&["qrouter-1"]);
    let (qr, qg) = (host.link(router, "qr-1", Some("tun")), host.link(router, "qg-1", Some("tun")));
    host.address(qr, "10.0.0.1/24");
    host.address(qg, "172.24.4.2/24");
    host.route(qg, "0.0.0.0/0", Some("172.24.4.1"));
    host.rules(router, rules);
    Site { host, qr, qg }
}

/// The rules that are named for packets which died at a device for a reason.
fn told(host: Host, link: LinkKey, packets: &[(Made, &str)]) -> Vec<Dropped> {
    let snapshot = host.snapshot();
    let inventory = Inventory::build(&snapshot);
    let (owners, mut rules) = (Owners::of(&inventory), Rules::of(&inventory));
    let one = |(made, reason): &(Made, &str)| {
        let sighting = Sighting { link: Some(link), ..made.dropped(1, None, reason) };
        rules.named(owners.described(&sighting).unwrap(), &sighting)
    };
    packets.iter().map(one).collect()
}

/// The rule that is named for a packet which a rule dropped at a device.
fn guilty(host: Host, link: LinkKey, made: Made) -> Option<String> {
    told(host, link, &[(made, "NETFILTER_DROP")])[0].guilty()
}

#[test]
fn the_rule_that_drops_what_a_router_forwards_is_named_and_no_other() {
    let rules = format!(
        "{FILTER}-A FORWARD -i qg-1 -j DROP\n-A FORWARD -i qr-1 -o qg-1 -p tcp -m tcp --dport 443 -j DROP\nCOMMIT\n"
    );
    let Site { host, qr, .. } = site(&rules);
    let named = guilty(host, qr, Made::syn(1)).unwrap();
    assert_eq!(
        named,
        "rule 2 of filter FORWARD of qrouter-1: -A FORWARD -i qr-1 -o qg-1 -p tcp -m tcp --dport 443 -j DROP"
    );
    let Site { host, qr, .. } = site(&rules);
    let other = Made { destination: ([203, 0, 113, 7].into(), 80), ..Made::syn(1) };
    assert_eq!(guilty(host, qr, other), None, "no rule would drop it");
    let Site { host, qr, .. } = site(&rules);
    let another = told(host, qr, &[(Made::syn(1), "NO_SOCKET")]);
    assert!(another[0].rules.is_empty(), "no rule dropped it: {another:#?}");
}

#[test]
fn what_leaves_by_a_device_did_not_come_by_it() {
    let rules = "*mangle\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o qg-1 -j DROP\nCOMMIT\n";
    let first = format!("{FILTER}-A FORWARD -i qg-1 -j DROP\nCOMMIT\n");
    let Site { host, qg, .. } = site(&format!("{first}{rules}"));
    let named = guilty(host, qg, Made::syn(1)).unwrap();
    assert!(named.contains("rule 1 of mangle POSTROUTING"), "{named}");
    let Site { host, qg, .. } = site(&first);
    let comes = Made { destination: (FIXED, 80), ..Made::syn(1).answer() };
    assert!(guilty(host, qg, comes).unwrap().contains("rule 1 of filter FORWARD"));
}

#[test]
fn what_a_namespace_sends_itself_is_asked_of_the_rules_for_that() {
    let mut site = site(&format!("{FILTER}-A INPUT -j DROP\n-A OUTPUT -p tcp -j DROP\nCOMMIT\n"));
    site.host.address(site.qg, "10.0.0.2/32");
    let named = guilty(site.host, site.qg, Made::syn(1)).unwrap();
    assert!(named.contains("rule 1 of filter OUTPUT"), "{named}");
}

#[test]
fn of_rules_that_depend_on_the_state_of_the_flow_none_is_called_guilty() {
    let rules = format!(
        "{FILTER}-A FORWARD -m conntrack --ctstate NEW -j DROP\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED -j DROP\nCOMMIT\n"
    );
    let Site { host, qr, .. } = site(&rules);
    let datagram = Made::new(crate::live::journey::simulation::Kind::Udp(vec![1]));
    let told = told(host, qr, &[(datagram, "NETFILTER_DROP")]);
    assert_eq!((told[0].rules.len(), told[0].guilty()), (2, None));
}

/// An instance behind a bridge of its own, with these rules on it: its tap, the bridge, the other port.
fn plugged(rules: &str) -> (Host, [LinkKey; 3]) {
    let mut host = Host::new();
    let inside = host.netns(&[]);
    let (tap, inner) = host.veth((host.id, "tap1"), (inside, "eth0"));
    host.address(inner, "10.0.0.2/24");
    let (qvb, _) = host.veth((host.id, "qvb1"), (host.id, "qvo1"));
    let bridge = host.bridge(host.id, "qbr1", &[tap, qvb]);
    host.sysctl(host.id, "net.bridge.bridge-nf-call-iptables", "1");
    host.rules(host.id, rules);
    host.container("web-1", Some(inside));
    (host, [tap, bridge, qvb])
}

#[test]
fn the_rule_of_a_bridge_is_found_by_whose_packet_it_is() {
    let rules = format!(
        "{FILTER}-A FORWARD -m physdev --physdev-in tap1 --physdev-is-bridged -j DROP\n\
         -A FORWARD -m physdev --physdev-out tap1 --physdev-is-bridged -j DROP\nCOMMIT\n"
    );
    // Rules see what goes out while it is at the other port, and what comes in while it is at the tap.
    for (made, place, number) in [(Made::syn(1), 2, 1), (Made::syn(1), 1, 1), (Made::syn(1).answer(), 0, 2)] {
        let (host, links) = plugged(&rules);
        let named = guilty(host, links[place], made).unwrap();
        assert!(named.contains(&format!("rule {number} of filter FORWARD of host")), "{place}: {named}");
    }
    let (host, [tap, ..]) = plugged(&rules);
    assert_eq!(guilty(host, tap, Made::syn(1)), None, "what comes from a port does not leave by it");
    let (host, [tap, ..]) = plugged(&rules);
    let strangers = Made { destination: ([198, 51, 100, 9].into(), 1), ..Made::syn(1).answer() };
    assert_eq!(guilty(host, tap, strangers), None, "nobody knows whose that is");
}

#[test]
fn rules_are_asked_about_so_many_different_packets_and_no_more() {
    let Site { host, qr, .. } = site(&format!("{FILTER}-A FORWARD -j DROP\nCOMMIT\n"));
    let to = |port: u16| (Made { destination: ([203, 0, 113, 7].into(), port), ..Made::syn(1) }, "NETFILTER_DROP");
    let most = u16::try_from(super::MOST).unwrap();
    let packets: Vec<_> = (1..=most + 1).chain([1]).map(to).collect();
    let told = told(host, qr, &packets);
    let named: Vec<bool> = told.iter().map(|one| one.guilty().is_some()).collect();
    assert_eq!(named.iter().filter(|named| !**named).count(), 1);
    assert!(!named[usize::from(most)] && named[usize::from(most) + 1], "what is known already is told");
}
