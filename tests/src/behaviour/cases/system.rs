//! What every instance needs, whatever its rules, and what none may do, whatever its rules.

use std::net::Ipv4Addr;

use netdiag_model::id::Mac;
use serde_json::json;

use super::{Case, case};
use crate::behaviour::{
    Family::{V4, V6},
    Way::{In, Out},
    World,
    frame::{BROADCAST, Packet, arp, ethernet},
    policy::{Policy, rules},
};

pub(super) const CASES: &[Case] = &[
    case("ARP works without rules, and nobody else is claimed", arp_out),
    case("every ARP packet reaches the instance", arp_in),
    case("a DHCP client gets its address", dhcp_client),
    case("a DHCPv6 client gets its address", dhcpv6_client),
    case("an instance is no DHCP server, even where everything is allowed", dhcp_server),
    case("an instance is no router, even where everything is allowed", router),
    case("router advertisements reach an instance that has an IPv6 address, and no other", advertisements),
    case("neighbours find each other without rules", neighbours),
    case("an instance advertises and tries its own addresses alone", targets),
    case("an instance reports its multicast groups from no address", listener),
    case("multicast and broadcast are filtered as anything else", multicast),
    case("VRRP passes where a rule allows its protocol, both ways", vrrp),
    case("other ethertypes pass where they are permitted", ethertypes),
    case("a port without any group has its system traffic and no other", no_groups),
];

const NOBODY: Mac = Mac([0; 6]);
const STRANGER: Mac = Mac([0x02, 0, 0, 0, 0, 0x99]);
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;

/// Rules that allow everything.
fn open() -> Policy {
    rules(&["ingress 4 any", "ingress 6 any", "egress 4 any", "egress 6 any"])
}

fn arp_out(world: &mut World) {
    world.policy(&rules(&[]));
    let (mac, v4) = (world.instance.mac, world.instance.v4);
    let other = Ipv4Addr::new(10, 77, 0, 9);
    for operation in [1, 2] {
        world.frame(Out, &arp(ARP, operation, (mac, v4), (NOBODY, other)), "system");
        world.frame(Out, &arp(ARP, operation, (mac, other), (NOBODY, v4)), "arp-spoof");
        world.frame(Out, &arp(ARP, operation, (STRANGER, v4), (NOBODY, other)), "arp-spoof");
    }
    // The frame is from one, the packet in it from another.
    let mut lie = arp(ARP, 2, (STRANGER, v4), (NOBODY, other));
    lie[6..12].copy_from_slice(&mac.0);
    world.frame(Out, &lie, "arp-spoof");
    let mut lie = arp(ARP, 2, (mac, v4), (NOBODY, other));
    lie[6..12].copy_from_slice(&STRANGER.0);
    world.frame(Out, &lie, "arp-spoof");
    world.frame(Out, &arp(RARP, 3, (mac, Ipv4Addr::UNSPECIFIED), (mac, Ipv4Addr::UNSPECIFIED)), "system");
    world.frame(Out, &arp(RARP, 3, (STRANGER, Ipv4Addr::UNSPECIFIED), (mac, Ipv4Addr::UNSPECIFIED)), "mac-spoof");
}

fn arp_in(world: &mut World) {
    world.policy(&rules(&[]));
    for (operation, mac) in [(1, world.peer.mac), (2, STRANGER)] {
        let sender = (mac, Ipv4Addr::new(10, 77, 0, 200));
        world.frame(In, &arp(ARP, operation, sender, (NOBODY, Ipv4Addr::new(10, 77, 0, 201))), "system");
        world.frame(In, &arp(RARP, 3, sender, sender), "system");
    }
}

fn discover(world: &World) -> Packet {
    world.packet(Out, V4).from("0.0.0.0").to("255.255.255.255").to_mac(BROADCAST).udp(68, 67)
}

fn dhcp_client(world: &mut World) {
    world.policy(&rules(&[]));
    world.sends(Out, &discover(world), "system");
    world.sends(Out, &discover(world).from_mac(STRANGER), "mac-spoof");
    world.packets(Out, V4, "system", |packet| packet.udp(68, 67));
    world.packets(Out, V4, "ip-spoof", |packet| packet.from("10.77.0.9").udp(68, 67));
    world.sends(Out, &discover(world).udp(68, 69), "ip-spoof");
    for (to, mac, reason) in [
        ("10.77.0.2", world.instance.mac, "system"),
        ("255.255.255.255", BROADCAST, "system"),
        ("10.77.0.255", BROADCAST, "no-rule"),
        ("10.77.0.9", world.instance.mac, "no-rule"),
    ] {
        world.packets(In, V4, reason, |packet| packet.to(to).to_mac(mac).udp(67, 68));
    }
    world.packets(In, V4, "no-rule", |packet| packet.udp(67, 69));
    world.packets(In, V4, "no-rule", |packet| packet.udp(68, 67));
}

fn dhcpv6_client(world: &mut World) {
    world.policy(&rules(&[]));
    let own = world.instance.link_local.to_string();
    let solicit = |packet: Packet| packet.from(&own).to("ff02::1:2").multicast().udp(546, 547);
    world.packets(Out, V6, "system", solicit);
    world.packets(Out, V6, "system", |packet| packet.udp(546, 547));
    world.packets(Out, V6, "ip-spoof", |packet| solicit(packet).from("fe80::9"));
    world.packets(Out, V6, "mac-spoof", |packet| solicit(packet).from_mac(STRANGER));
    world.packets(In, V6, "system", |packet| packet.udp(547, 546));
    world.packets(In, V6, "system", |packet| packet.to(&own).udp(547, 546));
    world.packets(In, V6, "no-rule", |packet| packet.to("fd77::9").udp(547, 546));
    world.packets(In, V6, "no-rule", |packet| packet.udp(547, 545));
}

fn dhcp_server(world: &mut World) {
    world.policy(&open());
    world.packets(Out, V4, "dhcp-server", |packet| packet.udp(67, 68));
    world.packets(Out, V4, "dhcp-server", |packet| packet.to("255.255.255.255").to_mac(BROADCAST).udp(67, 68));
    world.packets(Out, V6, "dhcp-server", |packet| packet.udp(547, 546));
    // Not even as the answer of somebody who was asked.
    world.packets(In, V4, "rule", |packet| packet.udp(68, 67));
    world.packets(Out, V4, "dhcp-server", |packet| packet.udp(67, 68));
    world.packets(Out, V4, "rule", |packet| packet.udp(67, 69));
}

fn router(world: &mut World) {
    world.policy(&open());
    let own = world.instance.link_local.to_string();
    world.packets(Out, V6, "router-advertisement", |packet| packet.icmp(134, 0, &[0; 12]));
    world.packets(Out, V6, "router-advertisement", |packet| {
        packet.from(&own).to("ff02::1").multicast().icmp(134, 0, &[0; 12])
    });
    world.packets(Out, V6, "rule", |packet| packet.icmp(137, 0, &[0; 36]));
}

fn advertisements(world: &mut World) {
    let advertise = |packet: Packet| packet.from("fe80::1").to("ff02::1").multicast().icmp(134, 0, &[0; 12]);
    world.policy(&rules(&[]));
    world.packets(In, V6, "system", advertise);
    world.policy(&rules(&[]).port("fixed_ips", json!([{ "ip_address": world.instance.v4 }])));
    world.packets(In, V6, "no-rule", advertise);
}

fn target(address: std::net::Ipv6Addr) -> Vec<u8> {
    [&[0; 4][..], &address.octets()].concat()
}

fn neighbours(world: &mut World) {
    world.policy(&rules(&[]));
    let own = world.instance.link_local.to_string();
    let (v6, peer) = (target(world.instance.v6), target(world.peer.v6));
    world.packets(Out, V6, "system", |packet| packet.icmp(135, 0, &peer));
    world.packets(Out, V6, "system", |packet| packet.from(&own).icmp(135, 0, &peer));
    world.packets(Out, V6, "system", |packet| packet.from(&own).to("ff02::2").multicast().icmp(133, 0, &[0; 4]));
    world.packets(Out, V6, "system", |packet| packet.from(&own).to("ff02::1").multicast().icmp(130, 0, &[0; 20]));
    world.packets(Out, V6, "no-rule", |packet| packet.icmp(137, 0, &[0; 36]));
    world.packets(In, V6, "system", |packet| packet.icmp(135, 0, &v6));
    world.packets(In, V6, "system", |packet| packet.icmp(136, 0, &peer));
    world.packets(In, V6, "system", |packet| packet.from("fe80::1").to("ff02::1").multicast().icmp(130, 0, &[0; 20]));
    for kind in [131, 133, 137, 143] {
        world.packets(In, V6, "no-rule", |packet| packet.icmp(kind, 0, &[0; 36]));
    }
}

fn targets(world: &mut World) {
    world.policy(&open());
    let own = world.instance.link_local;
    let stranger = target("fd77::9".parse().expect("an address"));
    for address in [world.instance.v6, own] {
        world.packets(Out, V6, "system", |packet| packet.icmp(136, 0, &target(address)));
        world.packets(Out, V6, "system", |packet| {
            packet.from("::").to("ff02::1:ff00:2").multicast().icmp(135, 0, &target(address))
        });
    }
    world.packets(Out, V6, "nd-spoof", |packet| packet.icmp(136, 0, &stranger));
    world.packets(Out, V6, "nd-spoof", |packet| packet.icmp(136, 0, &target(world.peer.v6)));
    world.packets(Out, V6, "nd-spoof", |packet| {
        packet.from("::").to("ff02::1:ff00:9").multicast().icmp(135, 0, &stranger)
    });
}

fn listener(world: &mut World) {
    world.policy(&rules(&[]));
    let report = |packet: Packet| packet.from("::").to("ff02::16").multicast();
    for kind in [131, 143] {
        world.packets(Out, V6, "system", |packet| report(packet).icmp(kind, 0, &[0; 24]));
        world.packets(Out, V6, "mac-spoof", |packet| report(packet).from_mac(STRANGER).icmp(kind, 0, &[0; 24]));
        world.packets(Out, V6, "ip-spoof", |packet| report(packet).to("fd77::3").icmp(kind, 0, &[0; 24]));
    }
    // From an address it is a packet like others.
    let own = world.instance.link_local.to_string();
    world.packets(Out, V6, "no-rule", |packet| report(packet).from(&own).icmp(143, 0, &[0; 24]));
    world.packets(Out, V6, "ip-spoof", |packet| report(packet).icmp(128, 0, &[0; 24]));
    world.packets(Out, V6, "ip-spoof", |packet| report(packet).udp(1, 2));
}

fn multicast(world: &mut World) {
    let groups = [(V4, "224.0.0.251"), (V4, "239.1.2.3"), (V6, "ff02::fb"), (V6, "ff05::1:3")];
    for (rules_of_it, reason) in [(&[][..], "no-rule"), (&["ingress 4 udp 5353", "ingress 6 udp 5353"], "rule")] {
        world.next_case();
        world.policy(&rules(rules_of_it));
        for (family, group) in groups {
            world.packets(In, family, reason, |packet| packet.to(group).multicast().udp(5353, 5353));
        }
        for address in ["255.255.255.255", "10.77.0.255"] {
            world.packets(In, V4, reason, |packet| packet.to(address).to_mac(BROADCAST).udp(5353, 5353));
        }
        world.packets(In, V4, "no-rule", |packet| packet.to("224.0.0.251").multicast().udp(5353, 5354));
    }
    world.policy(&rules(&["egress 4 igmp"]));
    world.packets(Out, V4, "rule", |packet| packet.to("224.0.0.22").multicast().other(2));
    world.packets(Out, V4, "no-rule", |packet| packet.to("224.0.0.251").multicast().udp(5353, 5353));
}

fn vrrp(world: &mut World) {
    let say = |packet: Packet| packet.to("224.0.0.18").multicast().other(112);
    world.policy(&rules(&[]));
    world.packets(Out, V4, "no-rule", say);
    world.packets(In, V4, "no-rule", say);
    world.policy(&rules(&["ingress 4 vrrp", "egress 4 112"]));
    world.packets(Out, V4, "rule", say);
    world.packets(In, V4, "rule", say);
    // What the group's address answers is a flow of its own.
    world.packets(In, V4, "rule", |packet| packet.other(112));
}

fn ethertypes(world: &mut World) {
    world.policy(&open());
    for way in [In, Out] {
        for ethertype in [0x88cc, 0x8847, 0x9000, 0x8863] {
            world.frame(way, &world.ethernet(way, ethertype), "ethertype");
        }
        // IEEE 802.3: a length instead of an ethertype.
        world.frame(way, &world.ethernet(way, 46), "ethertype");
    }
    world.policy(&rules(&[]).with("permitted_ethertypes", json!(["0x88cc", "0x9000"])));
    for way in [In, Out] {
        world.frame(way, &world.ethernet(way, 0x88cc), "permitted-ethertype");
        world.frame(way, &world.ethernet(way, 0x9000), "permitted-ethertype");
        world.frame(way, &world.ethernet(way, 0x8847), "ethertype");
    }
    world.frame(Out, &ethernet(world.peer.mac, STRANGER, 0x88cc, &[0; 46]), "mac-spoof");
}

fn no_groups(world: &mut World) {
    world.policy(&Policy::default());
    let (mac, v4) = (world.instance.mac, world.instance.v4);
    world.frame(Out, &arp(ARP, 1, (mac, v4), (NOBODY, world.peer.v4)), "system");
    world.sends(Out, &discover(world), "system");
    world.packets(In, V6, "system", |packet| packet.icmp(135, 0, &target(world.instance.v6)));
    for way in [In, Out] {
        world.tcp(way, V4, 88, "no-rule");
        world.udp(way, V6, 53, "no-rule");
        world.ping(way, V4, "no-rule");
    }
}
