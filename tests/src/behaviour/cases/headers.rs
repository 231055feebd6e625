//! Headers beyond the plain ones, and headers that lie.

use super::{ACCESS, Case, case};
use crate::behaviour::{
    Family::{V4, V6},
    Way,
    Way::{In, Out},
    World,
    frame::tagged,
    policy::rules,
    vlan::{Fate, SwitchFate},
};

pub(super) const CASES: &[Case] = &[
    case("IPv4 options hide no port", options),
    case("IPv6 extension headers hide no port", extensions),
    case("a packet shorter than its headers claim is refused", truncated),
    case("headers that contradict themselves are refused", malformed),
    case("TCP flags no connection has are refused", flags),
    case("a tagged frame of the instance is refused", tagged_out),
    Case { says: "a tagged frame to the instance is refused", except: ACCESS, run: tagged_in },
    case("a VLAN of the instance leads nowhere, wherever its kernel keeps the tag", vlan_device),
];

fn options(world: &mut World) {
    world.policy(&rules(&["ingress 4 tcp 88", "egress 4 udp 53"]));
    for length in [4, 8, 40] {
        let with = |way: Way| {
            let mut packet = world.packet(way, V4);
            packet.options = vec![1; length];
            packet
        };
        let port = 100 + u16::try_from(length).expect("a small number");
        world.sends(In, &with(In).tcp(port, 88, 2), "rule");
        world.sends(In, &with(In).tcp(port, 89, 2), "no-rule");
        world.sends(Out, &with(Out).tcp(88, port, 0x12), "established");
        world.sends(Out, &with(Out).udp(port, 53), "rule");
        world.sends(Out, &with(Out).udp(port, 54), "no-rule");
        world.sends(Out, &with(Out).from("10.77.0.9").udp(port, 53), "ip-spoof");
    }
}

fn extensions(world: &mut World) {
    world.policy(&rules(&["ingress 6 udp 53", "egress 6 tcp 88"]));
    for (number, chain) in [&[0][..], &[60], &[43], &[0, 60, 43, 60], &[0, 60, 60, 60, 60, 60]].iter().enumerate() {
        let with = |way: Way| {
            let mut packet = world.packet(way, V6);
            packet.extensions = chain.to_vec();
            packet
        };
        let port = 200 + u16::try_from(number).expect("a small number");
        world.sends(In, &with(In).udp(port, 53), "rule");
        world.sends(In, &with(In).udp(port, 54), "no-rule");
        world.sends(Out, &with(Out).udp(53, port), "established");
        world.sends(Out, &with(Out).tcp(port, 88, 2), "rule");
        world.sends(Out, &with(Out).tcp(port, 89, 2), "no-rule");
        // A server or router does not hide behind them either.
        world.sends(Out, &with(Out).udp(547, 546), "dhcp-server");
        world.sends(Out, &with(Out).icmp(134, 0, &[0; 12]), "router-advertisement");
    }
    for way in [In, Out] {
        let mut packet = world.packet(way, V6);
        packet.extensions = vec![60; 7];
        world.sends(way, &packet.udp(1, 53), "extension-headers");
    }
}

fn truncated(world: &mut World) {
    world.policy(&rules(&["ingress 4 any", "ingress 6 any", "egress 4 any", "egress 6 any"]));
    for way in [In, Out] {
        for (family, header) in [(V4, 34), (V6, 54)] {
            let whole = world.packet(way, family).tcp(1, 2, 2).frame();
            // Inside the ports; inside the flags; one octet less than the IP header says.
            for length in [header + 2, header + 13, whole.len() - 1] {
                world.frame(way, &whole[..length], "truncated");
            }
            let short = world.packet(way, family).udp(1, 2).frame();
            world.frame(way, &short[..header + 6], "truncated");
            let echo = world.packet(way, family).icmp(if family == V4 { 8 } else { 128 }, 0, &[0; 4]).frame();
            world.frame(way, &echo[..header + 3], "truncated");
        }
        let mut packet = world.packet(way, V6);
        packet.extensions = vec![60];
        let frame = packet.udp(1, 2).frame();
        world.frame(way, &frame[..56], "truncated");
    }
}

fn malformed(world: &mut World) {
    world.policy(&rules(&["ingress 4 any", "ingress 6 any", "egress 4 any", "egress 6 any"]));
    for way in [In, Out] {
        let v4 = world.packet(way, V4).udp(1, 2).frame();
        let v6 = world.packet(way, V6).udp(1, 2).frame();
        // A header of 16 octets; a version that is not the ethertype's; a total length within the header.
        for (frame, place, value) in [(&v4, 14, 0x44), (&v4, 14, 0x65), (&v4, 17, 19), (&v6, 14, 0x40)] {
            let mut frame = frame.clone();
            frame[place] = value;
            world.frame(way, &frame, "malformed");
        }
        // A TCP header of 16 octets.
        let mut frame = world.packet(way, V4).tcp(1, 2, 2).frame();
        frame[14 + 20 + 12] = 0x40;
        world.frame(way, &frame, "malformed");
    }
}

fn flags(world: &mut World) {
    world.policy(&rules(&["ingress 4 tcp 88", "egress 6 tcp 88"]));
    for (way, family) in [(In, V4), (Out, V6)] {
        // Nothing; SYN FIN; SYN RST; FIN; all; and those of a connection nobody began.
        for flags in [0x00, 0x03, 0x06, 0x01, 0x3f, 0x12, 0x04, 0x14, 0x11] {
            world.packets(way, family, "invalid", |packet| packet.tcp(300, 88, flags));
        }
        world.packets(way, family, "rule", |packet| packet.tcp(301, 88, 2));
        // Nor do they pass as part of a connection.
        for flags in [0x00, 0x03, 0x06, 0x01, 0x3f] {
            world.packets(way, family, "invalid", |packet| packet.tcp(301, 88, flags));
            world.packets(way.back(), family, "invalid", |packet| packet.tcp(88, 301, flags));
        }
        world.packets(way.back(), family, "established", |packet| packet.tcp(88, 301, 0x12));
        // A connection that began before anybody looked is picked up in its middle, where a rule allows it.
        world.packets(way, family, "rule", |packet| packet.tcp(302, 88, 0x10));
        world.packets(way, family, "no-rule", |packet| packet.tcp(303, 89, 0x10));
    }
}

fn tagged_out(world: &mut World) {
    world.policy(&rules(&["egress 4 any", "egress 6 any"]));
    for family in [V4, V6] {
        let frame = world.packet(Out, family).udp(1, 2).frame();
        world.frame(Out, &frame, "rule");
        for vlan in [0, 1, 5, 4094] {
            world.frame(Out, &tagged(&frame, vlan), "vlan-tagged");
        }
    }
}

fn tagged_in(world: &mut World) {
    world.policy(&rules(&["ingress 4 any", "ingress 6 any"]));
    for family in [V4, V6] {
        let frame = world.packet(In, family).udp(1, 2).frame();
        for vlan in [0, 1, 5, 4094] {
            world.frame(In, &tagged(&frame, vlan), "vlan-tagged");
        }
    }
}

fn vlan_device(world: &mut World) {
    world.policy(&rules(&["egress 4 any", "egress 6 any"]));
    // Generic XDP does not see such a tag. The port being one of a single network is what keeps these frames back; from a port of
    // every VLAN they are forwarded, but only where the rules allow what is in them.
    let switch = SwitchFate { from_access: false, from_trunk: true, against_rules: false };
    let behind_xdp = world.behind_xdp;
    let fate = Fate { heard: false, counted: !behind_xdp, switch: behind_xdp.then_some(switch) };
    assert_eq!(world.sends_tags_beside(), fate);
}
