//! Flows: answers, errors about them, and their end.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Case, case};
use crate::agent::PATIENCE;
use crate::behaviour::{
    Family::{V4, V6},
    Plug, Policy, Way,
    Way::{In, Out},
    World,
    frame::Packet,
    policy::rules,
    probe::{BOTH, Connection},
};

pub(super) const CASES: &[Case] = &[
    case("answers need no rule", answers),
    case("an answer nobody asked for is refused, even where everything is allowed", unasked),
    case("an error about a flow reaches whoever sent the packet", unreachable),
    case("an error about no flow is refused, even where everything is allowed", unrelated),
    case("a message that a packet was too big passes for a flow", too_big),
    case("a rule that is taken away ends its connection, and goes on with it when it is back", rule_removed),
    case("a group that is taken from the port ends what it allowed, and no more", group_removed),
    case("what is added disturbs nothing", added),
    case("without state, answers need rules", stateless),
    case("without state, any flags and fragments pass that a rule allows", stateless_packets),
    case("where both ends are enforced, both are asked, and each keeps its own state", both_ends),
    case("a bulk transfer passes and is counted, both ways", bulk),
];

fn connect(world: &World, way: Way, family: super::super::Family, port: u16) -> Connection {
    world.connect(way, family, port, PATIENCE).expect("a connection")
}

/// The next packet of a connection, from either end, is dropped. The first from the end that connected.
#[track_caller]
pub(super) fn is_cut(world: &World, connection: &Connection, way: Way) {
    for (mut from, mut to, way) in
        [(&connection.client, &connection.server, way), (&connection.server, &connection.client, way.back())]
    {
        let before = world.counters();
        from.write_all(b"words").expect("say something");
        to.set_read_timeout(Some(Duration::from_millis(100))).expect("limit the wait");
        let heard = to.read(&mut [0; 5]).expect_err("nothing is heard").kind();
        assert!(matches!(heard, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{heard:?}");
        world.counts("words", &before, (way, "revoked"), 1);
    }
}

/// What was said into the dark is heard at last.
#[track_caller]
pub(super) fn goes_on(connection: &Connection) {
    for mut to in [&connection.server, &connection.client] {
        to.set_read_timeout(Some(PATIENCE)).expect("limit the wait");
        let mut heard = [0; 5];
        to.read_exact(&mut heard).expect("hear what was said");
        assert_eq!(&heard, b"words");
    }
    connection.talk();
}

fn answers(world: &mut World) {
    world.policy(&rules(&["ingress 4 any", "egress 6 any"]));
    for (way, family) in [(In, V4), (Out, V6)] {
        let before = world.counters();
        world.tcp(way, family, 88, "rule");
        world.udp(way, family, 53, "rule");
        world.ping(way, family, "rule");
        world.counts("answers", &before, (way.back(), "established"), 4);
        // The same the other way is a flow of its own.
        world.tcp(way.back(), family, 88, "no-rule");
        world.udp(way.back(), family, 53, "no-rule");
        world.ping(way.back(), family, "no-rule");
    }
    // A packet to another port is no answer.
    world.packets(In, V4, "rule", |packet| packet.udp(600, 601));
    world.packets(Out, V4, "established", |packet| packet.udp(601, 600));
    world.packets(Out, V4, "no-rule", |packet| packet.udp(601, 602));
    world.packets(Out, V4, "no-rule", |packet| packet.udp(602, 600));
    world.packets(Out, V4, "no-rule", |packet| packet.to("10.77.0.9").udp(601, 600));
}

fn unasked(world: &mut World) {
    world.policy(&rules(&["ingress 4 any", "ingress 6 any", "egress 4 any", "egress 6 any"]));
    for way in [In, Out] {
        world.packets(way, V4, "invalid", |packet| packet.icmp(0, 0, &[9, 9, 0, 1]));
        world.packets(way, V6, "invalid", |packet| packet.icmp(129, 0, &[9, 9, 0, 1]));
        world.packets(way, V4, "invalid", |packet| packet.icmp(14, 0, &[9, 9, 0, 1]));
    }
    world.packets(Out, V4, "rule", |packet| packet.icmp(8, 0, &[9, 9, 0, 1]));
    world.packets(In, V4, "established", |packet| packet.icmp(0, 0, &[9, 9, 0, 1]));
    world.packets(In, V4, "invalid", |packet| packet.icmp(0, 0, &[9, 8, 0, 1]));
}

fn unreachable(world: &mut World) {
    world.policy(&rules(&["ingress 4 udp 7001", "ingress 6 udp 7001", "egress 4 udp 7001", "egress 6 udp 7001"]));
    for way in [In, Out] {
        for family in BOTH {
            let before = world.counters();
            let (client, server) = world.udp_sockets(way, family, 7001);
            drop(server);
            client.set_read_timeout(Some(PATIENCE)).expect("limit the wait");
            client.send(b"anybody?").expect("send a datagram");
            let error = client.recv(&mut [0; 8]).expect_err("nobody answers").kind();
            assert_eq!(error, ErrorKind::ConnectionRefused, "{way:?} {family:?}");
            world.counts("the error", &before, (way.back(), "related"), 1);
        }
    }
}

/// An error about a packet, from whoever got it.
fn error(about: &Packet, (kind, code): (u8, u8)) -> Packet {
    let (from, to) = (about.to.to_string(), about.from.to_string());
    let (from_mac, to_mac) = (about.to_mac, about.from_mac);
    let answer = Packet { from_mac, to_mac, fragment: None, ..about.clone() }.from("192.0.2.1").to("192.0.2.2");
    // Both addresses at once: they are of one family only together.
    let answer = Packet { from: from.parse().expect("an address"), to: to.parse().expect("an address"), ..answer };
    let quoted = about.ip();
    answer.icmp(kind, code, &[&[0, 0, 5, 0], &quoted[..quoted.len().min(64)]].concat())
}

/// Unreachable, time exceeded and parameter problem of a family.
const fn errors(family: super::super::Family) -> &'static [(u8, u8)] {
    match family {
        V4 => &[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)],
        V6 => &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 0)],
    }
}

fn unrelated(world: &mut World) {
    world.policy(&rules(&["ingress 4 any", "ingress 6 any", "egress 4 any", "egress 6 any"]));
    for way in [In, Out] {
        for family in BOTH {
            let port = world.unique();
            let never_sent = world.packet(way.back(), family).udp(port, 53);
            for kind in errors(family) {
                world.sends(way, &error(&never_sent, *kind), "icmp-unrelated");
            }
        }
    }
}

fn too_big(world: &mut World) {
    world.policy(&rules(&["egress 4 any", "egress 6 any"]));
    for family in BOTH {
        let port = world.unique();
        let sent = world.packet(Out, family).tcp(port, 443, 2);
        world.sends(Out, &sent, "rule");
        for kind in errors(family) {
            world.sends(In, &error(&sent, *kind), "related");
        }
        // From a router on the way it is as good.
        let router = if family == V4 { "198.51.100.1" } else { "2001:db8::1" };
        let from_router = |kind| {
            let mut packet = error(&sent, kind);
            let rest = packet.payload[4..].to_vec();
            packet = packet.from(router).icmp(kind.0, kind.1, &rest);
            packet
        };
        world.sends(In, &from_router(errors(family)[2]), "related");
        // Not so about another port, nor where it quotes a packet of the other end.
        let other = world.packet(Out, family).tcp(port, 444, 2);
        world.sends(In, &error(&other, errors(family)[2]), "icmp-unrelated");
        let theirs = world.packet(In, family).tcp(443, port, 0x10);
        let mut lie = error(&theirs, errors(family)[2]);
        (lie.from, lie.to, lie.from_mac, lie.to_mac) = (lie.to, lie.from, lie.to_mac, lie.from_mac);
        let rest = lie.payload[4..].to_vec();
        let (kind, code) = errors(family)[2];
        world.sends(In, &lie.icmp(kind, code, &rest), "icmp-unrelated");
    }
}

fn rule_removed(world: &mut World) {
    let all = ["ingress 4 tcp 88", "egress 6 tcp 88", "ingress 4 udp 1"];
    world.policy(&rules(&all));
    let connections = [(In, V4), (Out, V6)].map(|(way, family)| (connect(world, way, family, 88), way));
    for (connection, _) in &connections {
        connection.talk();
    }
    world.policy(&rules(&all[2..]));
    for (connection, way) in &connections {
        is_cut(world, connection, *way);
    }
    world.policy(&rules(&all));
    for (connection, _) in &connections {
        goes_on(connection);
    }
}

fn group_removed(world: &mut World) {
    let both = rules(&["ingress 4 tcp 88"]).group("b", &["ingress 4 tcp 89"]);
    world.policy(&both);
    let (kept, cut) = (connect(world, In, V4, 88), connect(world, In, V4, 89));
    kept.talk();
    cut.talk();
    world.policy(&rules(&["ingress 4 tcp 88"]).other("b", &["ingress 4 tcp 89"]));
    is_cut(world, &cut, In);
    kept.talk();
    world.policy(&both);
    goes_on(&cut);
}

fn added(world: &mut World) {
    world.policy(&rules(&["ingress 4 tcp 88"]));
    let before = world.counters();
    let connection = connect(world, In, V4, 88);
    for more in [&["ingress 4 tcp 88", "egress 4 any"][..], &["ingress 4 tcp 1-100", "ingress 4 tcp 88"]] {
        world.policy(&rules(more));
        connection.talk();
    }
    world.policy(&rules(&["ingress 4 tcp 88"]).group("b", &["ingress 4 tcp 88"]));
    connection.talk();
    // Another rule takes over when the one that allowed it goes.
    world.policy(&Policy::default().group("b", &["ingress 4 tcp 88"]));
    connection.talk();
    for reason in ["revoked", "no-rule", "invalid"] {
        let of_ipv4 = world.count(In, reason) - before[&(true, reason)].0;
        assert!(reason == "no-rule" || of_ipv4 == 0, "{reason}");
    }
}

fn stateless(world: &mut World) {
    world.policy(&rules(&["ingress 4 udp 53", "ingress 6 tcp 88"]).stateless());
    world.packets(In, V4, "rule", |packet| packet.udp(700, 53));
    world.packets(Out, V4, "no-rule", |packet| packet.udp(53, 700));
    world.packets(In, V4, "rule", |packet| packet.udp(700, 53));
    let before = world.counters();
    assert!(world.connect(In, V6, 88, Duration::from_millis(300)).is_none(), "no answer leaves");
    world.counts("the question comes in", &before, (In, "rule"), 1);
    world.counts("and no answer leaves", &before, (Out, "no-rule"), 1);
    world.policy(&rules(&["ingress 4 udp 53", "egress 4 any", "ingress 6 tcp 88", "egress 6 tcp"]).stateless());
    world.packets(Out, V4, "rule", |packet| packet.udp(53, 700));
    world.tcp(In, V6, 88, "rule");
    world.packets(In, V4, "no-rule", |packet| packet.icmp(3, 3, &[0; 32]));
    // A rule that goes takes its packets with it, and no flow is left over.
    world.policy(&rules(&["egress 4 any"]).stateless());
    world.packets(In, V4, "no-rule", |packet| packet.udp(700, 53));
}

fn stateless_packets(world: &mut World) {
    world.policy(&rules(&["ingress 4 tcp 88", "ingress 4 udp 53", "ingress 4 icmp"]).stateless());
    for flags in [0x00, 0x02, 0x03, 0x10, 0x12, 0x04, 0x3f] {
        world.packets(In, V4, "rule", |packet| packet.tcp(701, 88, flags));
    }
    world.packets(In, V4, "rule", |packet| packet.icmp(0, 0, &[9, 9, 0, 2]));
    world.packets(In, V4, "rule", |packet| packet.icmp(3, 3, &[0; 32]));
    let packet = world.packet(In, V4).udp(702, 53).padded(800);
    world.sends(In, &packet.piece(9, 0, 400), "rule");
    world.sends(In, &packet.piece(9, 400, 400), "fragment");
}

fn both_ends(world: &mut World) {
    let (mac, v4) = (world.peer.mac.to_string(), world.peer.v4);
    let peer = json!([{ "id": "peer", "mac_address": mac, "fixed_ips": [{ "ip_address": v4 }],
                        "security_groups": ["h"], "binding": { "device": "peer0" } }]);
    let with = |theirs: &[&str]| rules(&["egress 4 tcp 88"]).other("h", theirs).with("ports", peer.clone());
    world.policy(&with(&[]));
    let before = world.counters();
    assert!(world.connect(Out, V4, 88, Duration::from_millis(300)).is_none());
    world.counts("it leaves", &before, (Out, "rule"), 1);
    world.counts("and does not enter", &before, (In, "no-rule"), 1);
    world.policy(&with(&["ingress 4 tcp 88"]));
    let connection = connect(world, Out, V4, 88);
    connection.talk();
    let before = world.counters();
    assert!(world.connect(In, V4, 88, Duration::from_millis(300)).is_none(), "the peer may not begin");
    world.counts("it does not leave", &before, (Out, "no-rule"), 1);
    // What the peer's group had allowed ends there; the instance's own flow goes on.
    world.policy(&with(&[]));
    let before = world.counters();
    (&connection.client).write_all(b"words").expect("say something");
    connection.server.set_read_timeout(Some(Duration::from_millis(100))).expect("limit the wait");
    assert!((&connection.server).read(&mut [0; 5]).is_err(), "nothing is heard");
    world.counts("it leaves", &before, (Out, "established"), 1);
    world.counts("and does not enter", &before, (In, "revoked"), 1);
}

fn bulk(world: &mut World) {
    const MEGABYTES: usize = 8;
    world.policy(&rules(&["ingress 4 tcp 5201", "ingress 6 tcp 5201"]));
    for family in BOTH {
        let connection = connect(world, In, family, 5201);
        for way in [In, Out] {
            let before = world.counters()[&(way == In, "established")];
            match way {
                In => Connection::transfer(&connection.client, &connection.server, MEGABYTES),
                Out => Connection::transfer(&connection.server, &connection.client, MEGABYTES),
            }
            let after = world.counters()[&(way == In, "established")];
            let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
            assert!(bytes >= (MEGABYTES << 20) as u64, "{family:?} {way:?}: {bytes}");
            // Where segments are left to the device, the datapath saw them before they were cut: more at once than a frame
            // takes, and on a slow machine not much more.
            let uncut = matches!(world.plug, Plug::Docker | Plug::Tap) && way == Out;
            assert!(!uncut || bytes / packets > 1600, "{family:?} {way:?}: {bytes} in {packets}");
        }
        // The last acknowledgements.
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(20) {
            thread::yield_now();
        }
    }
}
