//! Fragments: the first holds the ports, the others share its fate.

use super::{Case, case};
use crate::behaviour::{
    Family,
    Family::{V4, V6},
    Policy,
    Way::{In, Out},
    World,
    policy::rules,
    probe::{BOTH, hears},
};

pub(super) const CASES: &[Case] = &[
    case("a datagram in fragments arrives whole, and is answered in fragments", whole),
    case("the fragments of a datagram no rule allows are refused, all of them", refused),
    case("a later fragment without its first is refused, and passes after it", out_of_order),
    case("a first fragment without its ports, and a later one inside them, are refused", tiny),
    case("a fragment hides no DHCP server and no router", hidden),
    case("fragments of a protocol without ports pass by its rule", without_ports),
    case("the fragments of a flow end with it", revoked),
];

fn open() -> Policy {
    rules(&["ingress 4 udp 53", "ingress 6 udp 53", "egress 4 udp 53", "egress 6 udp 53"])
}

fn whole(world: &mut World) {
    world.policy(&open());
    for family in BOTH {
        for way in [In, Out] {
            let before = world.counters();
            let (client, server) = world.udp_sockets(way, family, 53);
            let large = vec![b'x'; 6000];
            client.send(&large).expect("send a large datagram");
            let (heard, from) = hears(&server, true).expect("a large datagram");
            assert_eq!(heard, large);
            server.send_to(&large, from).expect("answer it");
            assert_eq!(hears(&client, true).expect("a large answer").0, large);
            world.counts("there", &before, (way, "fragment"), 3);
            world.counts("back", &before, (way.back(), "fragment"), 3);
        }
    }
}

fn refused(world: &mut World) {
    world.policy(&open());
    for family in BOTH {
        for way in [In, Out] {
            let before = world.counters();
            let (client, server) = world.udp_sockets(way, family, 54);
            client.send(&[b'x'; 6000]).expect("send a large datagram");
            assert_eq!(hears(&server, false), None);
            let what = format!("{family:?}");
            world.counts(&what, &before, (way, "no-rule"), 1);
            world.counts(&what, &before, (way, "refused-fragment"), 3);
            assert_eq!(hears(&server, false), None);
        }
    }
}

fn pieces(world: &World, way: super::super::Way, family: Family, id: u16) -> [super::super::frame::Packet; 3] {
    let packet = world.packet(way, family).udp(400, 53).padded(1200);
    [packet.piece(id, 0, 400), packet.piece(id, 400, 400), packet.piece(id, 800, 400)]
}

fn out_of_order(world: &mut World) {
    world.policy(&open());
    for (way, family) in [(In, V4), (In, V6), (Out, V4), (Out, V6)] {
        let [first, second, third] = pieces(world, way, family, 1);
        world.sends(way, &third, "orphan-fragment");
        world.sends(way, &first, "rule");
        world.sends(way, &third, "fragment");
        world.sends(way, &second, "fragment");
        // Another datagram of the same flow has a first fragment of its own.
        let [first, second, _] = pieces(world, way, family, 2);
        world.sends(way, &second, "orphan-fragment");
        world.sends(way, &first, "established");
        world.sends(way, &second, "fragment");
    }
}

fn tiny(world: &mut World) {
    world.policy(&rules(&["ingress 4 any", "ingress 6 any", "egress 4 any", "egress 6 any"]));
    for way in [In, Out] {
        for family in BOTH {
            let packet = world.packet(way, family).tcp(500, 88, 2);
            world.sends(way, &packet.piece(1, 0, 8), "tiny-fragment");
            world.sends(way, &packet.piece(1, 8, 8), "tiny-fragment");
            world.sends(way, &packet.piece(1, 16, 4), "tiny-fragment");
        }
    }
}

fn hidden(world: &mut World) {
    world.policy(&rules(&["egress 4 any", "egress 6 any"]));
    for (family, server, client) in [(V4, 67, 68), (V6, 547, 546)] {
        let packet = world.packet(Out, family).udp(server, client).padded(400);
        world.sends(Out, &packet.piece(1, 0, 200), "dhcp-server");
        world.sends(Out, &packet.piece(1, 200, 200), "refused-fragment");
    }
    let advertisement = world.packet(Out, V6).icmp(134, 0, &[0; 60]);
    world.sends(Out, &advertisement.piece(2, 0, 32), "router-advertisement");
    world.sends(Out, &advertisement.piece(2, 32, 32), "refused-fragment");
    let spoof = world.packet(Out, V4).from("10.77.0.9").udp(1, 2).padded(400);
    world.sends(Out, &spoof.piece(3, 0, 200), "ip-spoof");
    world.sends(Out, &spoof.piece(3, 200, 200), "ip-spoof");
}

fn without_ports(world: &mut World) {
    world.policy(&rules(&["ingress 4 gre", "egress 6 112"]));
    for (way, family, protocol) in [(In, V4, 47), (Out, V6, 112)] {
        let mut packet = world.packet(way, family).other(protocol);
        packet.payload.resize(800, 0);
        // Each says all a rule asks for.
        world.sends(way, &packet.piece(1, 400, 400), "rule");
        world.sends(way, &packet.piece(1, 0, 400), "established");
        let mut packet = world.packet(way, family).other(50);
        packet.payload.resize(800, 0);
        world.sends(way, &packet.piece(1, 400, 400), "no-rule");
    }
}

fn revoked(world: &mut World) {
    world.policy(&open());
    let [first, second, third] = pieces(world, In, V4, 7);
    world.sends(In, &first, "rule");
    world.sends(In, &second, "fragment");
    world.policy(&rules(&[]));
    world.sends(In, &third, "revoked");
    world.sends(In, &first, "revoked");
    world.sends(In, &third, "refused-fragment");
}
