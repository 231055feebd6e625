//! Who the instance may say it is, and ports nobody filters.

use netdiag_model::id::Mac;
use serde_json::json;

use super::{Case, case};
use crate::behaviour::{
    Family::{V4, V6},
    Policy,
    Way::{In, Out},
    World,
    frame::arp,
    plug::link_local,
    policy::rules,
    probe::BOTH,
};

pub(super) const CASES: &[Case] = &[
    case("an instance sends from its own addresses alone, even where everything is allowed", spoof),
    case("an instance sends from its own link-local address alone", own_link_local),
    case("an allowed address pair is a pair", pair),
    case("an allowed address pair without a MAC address goes with the port's", pair_of_the_port),
    case("an allowed prefix is every address in it", pair_prefix),
    case("a pair of all addresses lets the instance be anybody, with its MAC address", pair_everything),
    case("a port with IPv4 addresses alone sends IPv6 from its link-local address alone", only_v4),
    case("a port with IPv6 addresses alone sends no IPv4 but to ask for an address", only_v6),
    case("a port without addresses may ask for some", no_addresses),
    case("what is allowed to leave with an allowed pair may be answered", pair_answered),
    case("without port security everything passes", unfiltered),
    case("a port of the network itself passes everything", trusted),
    case("a port that is taken out of the policy is not filtered any more", unmanaged),
];

const STRANGER: Mac = Mac([0x02, 0, 0, 0, 0, 0x99]);
const OTHER: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 0x77]);
const ARP: u16 = 0x0806;

fn open() -> Policy {
    rules(&["ingress 4 any", "ingress 6 any", "egress 4 any", "egress 6 any"])
}

fn paired(pairs: serde_json::Value) -> Policy {
    open().port("allowed_address_pairs", pairs)
}

fn spoof(world: &mut World) {
    world.policy(&open());
    for family in BOTH {
        world.packets(Out, family, "rule", |packet| packet.udp(1, 2));
        world.packets(Out, family, "mac-spoof", |packet| packet.from_mac(STRANGER).udp(1, 2));
        world.packets(Out, family, "mac-spoof", |packet| packet.from_mac(world.peer.mac).udp(1, 2));
        world.packets(In, family, "established", |packet| packet.udp(2, 1));
    }
    for address in ["10.77.0.3", "10.77.0.9", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1"] {
        world.packets(Out, V4, "ip-spoof", |packet| packet.from(address).udp(1, 2));
        world.packets(Out, V4, "ip-spoof", |packet| packet.from(address).tcp(1, 2, 0x10));
    }
    for address in ["fd77::3", "fd77::9", "::1", "::", "::ffff:10.77.0.2", "::10.77.0.2", "ff02::1"] {
        world.packets(Out, V6, "ip-spoof", |packet| packet.from(address).udp(1, 2));
    }
}

fn own_link_local(world: &mut World) {
    world.policy(&open());
    let own = world.instance.link_local.to_string();
    world.packets(Out, V6, "rule", |packet| packet.from(&own).to("ff02::1").multicast().udp(1, 2));
    for other in [world.peer.link_local.to_string(), "fe80::2".into(), link_local(STRANGER).to_string()] {
        world.packets(Out, V6, "ip-spoof", |packet| packet.from(&other).to("ff02::1").multicast().udp(1, 2));
    }
}

fn pair(world: &mut World) {
    world.policy(&paired(json!([{ "mac_address": OTHER.to_string(), "ip_address": "10.77.0.50" },
                                { "mac_address": OTHER.to_string(), "ip_address": "fd77::50" }])));
    for (family, other, own) in [(V4, "10.77.0.50", "10.77.0.2"), (V6, "fd77::50", "fd77::2")] {
        world.packets(Out, family, "rule", |packet| packet.from_mac(OTHER).from(other).udp(1, 2));
        world.packets(Out, family, "rule", |packet| packet.udp(1, 3));
        world.packets(Out, family, "ip-spoof", |packet| packet.from_mac(OTHER).from(own).udp(1, 2));
        world.packets(Out, family, "ip-spoof", |packet| packet.from(other).udp(1, 2));
    }
    let own = link_local(OTHER).to_string();
    world.packets(Out, V6, "rule", |packet| packet.from_mac(OTHER).from(&own).udp(1, 2));
    world.packets(Out, V6, "ip-spoof", |packet| packet.from(&own).udp(1, 2));
    let peer = (Mac([0; 6]), world.peer.v4);
    world.frame(Out, &arp(ARP, 2, (OTHER, [10, 77, 0, 50].into()), peer), "system");
    world.frame(Out, &arp(ARP, 2, (world.instance.mac, [10, 77, 0, 50].into()), peer), "arp-spoof");
    world.frame(Out, &arp(ARP, 2, (OTHER, world.instance.v4), peer), "arp-spoof");
}

fn pair_of_the_port(world: &mut World) {
    world.policy(&paired(json!([{ "ip_address": "10.77.0.51" }, { "ip_address": "fd77::51" }])));
    for (family, address) in [(V4, "10.77.0.51"), (V6, "fd77::51")] {
        world.packets(Out, family, "rule", |packet| packet.from(address).udp(1, 2));
        world.packets(Out, family, "mac-spoof", |packet| packet.from(address).from_mac(OTHER).udp(1, 2));
    }
    let peer = (Mac([0; 6]), world.peer.v4);
    world.frame(Out, &arp(ARP, 1, (world.instance.mac, [10, 77, 0, 51].into()), peer), "system");
    let target = [&[0; 4][..], &"fd77::51".parse::<std::net::Ipv6Addr>().expect("an address").octets()].concat();
    world.packets(Out, V6, "system", |packet| packet.icmp(136, 0, &target));
}

fn pair_prefix(world: &mut World) {
    world.policy(&paired(json!([{ "ip_address": "192.0.2.16/28" }, { "ip_address": "2001:db8:1::/48" }])));
    for (address, reason) in
        [("192.0.2.16", "rule"), ("192.0.2.31", "rule"), ("192.0.2.15", "ip-spoof"), ("192.0.2.32", "ip-spoof")]
    {
        world.packets(Out, V4, reason, |packet| packet.from(address).udp(1, 2));
    }
    world.packets(Out, V6, "rule", |packet| packet.from("2001:db8:1:ffff::1").udp(1, 2));
    world.packets(Out, V6, "ip-spoof", |packet| packet.from("2001:db8:2::1").udp(1, 2));
}

fn pair_everything(world: &mut World) {
    world.policy(&paired(json!([{ "ip_address": "0.0.0.0/0" }])));
    world.packets(Out, V4, "rule", |packet| packet.from("203.0.113.9").udp(1, 2));
    world.packets(Out, V4, "mac-spoof", |packet| packet.from("203.0.113.9").from_mac(STRANGER).udp(1, 2));
    world.packets(Out, V6, "ip-spoof", |packet| packet.from("2001:db8::9").udp(1, 2));
    let peer = (Mac([0; 6]), world.peer.v4);
    world.frame(Out, &arp(ARP, 1, (world.instance.mac, [203, 0, 113, 9].into()), peer), "system");
}

fn only_v4(world: &mut World) {
    world.policy(&open().port("fixed_ips", json!([{ "ip_address": world.instance.v4 }])));
    let own = world.instance.link_local.to_string();
    world.packets(Out, V4, "rule", |packet| packet.udp(1, 2));
    world.packets(Out, V6, "rule", |packet| packet.from(&own).to("ff02::1").multicast().udp(1, 2));
    world.packets(Out, V6, "ip-spoof", |packet| packet.udp(1, 2));
    world.packets(Out, V6, "ip-spoof", |packet| packet.from("2001:db8::1").udp(1, 2));
}

fn only_v6(world: &mut World) {
    world.policy(&open().port("fixed_ips", json!([{ "ip_address": world.instance.v6 }])));
    world.unmarked(Out, &world.packet(Out, V6).udp(1, 2).frame(), "rule");
    world.unmarked(Out, &world.packet(Out, V4).udp(1, 2).frame(), "ip-spoof");
    let ask = world.packet(Out, V4).from("0.0.0.0").to("255.255.255.255").to_mac(crate::behaviour::frame::BROADCAST);
    world.unmarked(Out, &ask.udp(68, 67).frame(), "system");
    let peer = (Mac([0; 6]), world.peer.v4);
    world.unmarked(Out, &arp(ARP, 1, (world.instance.mac, world.instance.v4), peer), "arp-spoof");
}

fn no_addresses(world: &mut World) {
    world.policy(&open().port("fixed_ips", json!([])));
    let ask = world.packet(Out, V4).from("0.0.0.0").to("255.255.255.255").to_mac(crate::behaviour::frame::BROADCAST);
    world.unmarked(Out, &ask.udp(68, 67).frame(), "system");
    for family in BOTH {
        world.unmarked(Out, &world.packet(Out, family).udp(1, 2).frame(), "ip-spoof");
    }
    world.packets(In, V4, "system", |packet| packet.to("255.255.255.255").udp(67, 68));
}

fn pair_answered(world: &mut World) {
    let pairs = json!([{ "ip_address": "10.77.0.52" }]);
    world.policy(&rules(&["egress 4 udp 53"]).port("allowed_address_pairs", pairs));
    world.packets(Out, V4, "rule", |packet| packet.from("10.77.0.52").udp(1, 53));
    world.packets(In, V4, "established", |packet| packet.to("10.77.0.52").udp(53, 1));
    world.packets(In, V4, "no-rule", |packet| packet.udp(53, 1));
}

/// Nothing is looked at.
fn everything_passes(world: &World, reason: &'static str) {
    for family in BOTH {
        world.packets(Out, family, reason, |packet| packet.from_mac(STRANGER).udp(1, 2));
        world.packets(In, family, reason, |packet| packet.udp(3, 4));
    }
    world.packets(Out, V4, reason, |packet| packet.from("203.0.113.9").udp(67, 68));
    world.packets(Out, V6, reason, |packet| packet.icmp(134, 0, &[0; 12]));
    world.frame(Out, &world.ethernet(Out, 0x88cc), reason);
    world.frame(Out, &arp(ARP, 1, (STRANGER, [10, 77, 0, 99].into()), (Mac([0; 6]), [10, 77, 0, 98].into())), reason);
    world.tcp(In, V4, 88, reason);
    world.tcp(Out, V6, 88, reason);
}

fn unfiltered(world: &mut World) {
    world.policy(&Policy::default().port("port_security_enabled", json!(false)));
    everything_passes(world, "trusted");
}

fn trusted(world: &mut World) {
    world.policy(&rules(&[]).port("device_owner", json!("network:dhcp")));
    everything_passes(world, "trusted");
    world.next_case();
    world.policy(&rules(&[]).port("device_owner", json!("compute:nova")));
    world.tcp(In, V4, 88, "no-rule");
}

fn unmanaged(world: &mut World) {
    world.policy(&rules(&[]));
    world.tcp(In, V4, 88, "no-rule");
    world.api("PUT", "/v1/policy", &json!({}));
    assert!(world.arrives(In, &world.packet(In, V4).udp(1, 2).frame()));
    assert!(world.arrives(Out, &world.packet(Out, V6).from_mac(STRANGER).udp(1, 2).frame()));
    assert!(world.connect(In, V6, 88, std::time::Duration::from_secs(10)).is_some());
}
