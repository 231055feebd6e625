//! Packets of every shape are covered or not, whether the programs read them at fixed places or layer by layer, at TC, at a packet
//! socket and where they are given up.

use netdiag_agent::live::Plan;
use netdiag_model::live::{Clause, Sighting, View, What};
use netdiag_tests::{behaviour::wire::Wire, private_host, require_ebpf};

use super::{Host, only, plan, port, run, seen, seen_of, start};

/// From and to MAC addresses that are nobody's: whoever gets it gives it up.
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 9];

/// Headers of both transports, to one port.
fn ports(to: u16) -> Vec<u8> {
    [&40_000_u16.to_be_bytes()[..], &to.to_be_bytes(), &[0; 16]].concat()
}

fn ipv4(protocol: u8, [length, flags]: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(usize::from(length & 0xf) * 4 + payload.len()).unwrap().to_be_bytes();
    let mut packet =
        vec![length, 0, total[0], total[1], 0, 1, flags, 0, 64, protocol, 0, 0, 10, 77, 0, 77, 10, 77, 0, 78];
    packet.resize(usize::from(length & 0xf) * 4, 1);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
    packet.extend([0xfd; 16]);
    packet.extend([0xfe; 16]);
    packet.extend(payload);
    packet
}

fn frame(link: &[u8], packet: &[u8]) -> Vec<u8> {
    [&MACS[..], link, packet].concat()
}

/// Frames to a port, of every shape that the programs tell apart.
fn frames(to: u16) -> Vec<(&'static str, Vec<u8>)> {
    let [four, six] = [[8, 0], [0x86, 0xdd]];
    let extended = [&[6, 0, 0, 0, 0, 0, 0, 0][..], &ports(to)].concat();
    let inner = frame(&four, &ipv4(6, [0x45, 0], &ports(to)));
    let tunnel = [&[0x9c, 0x40, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0][..], &inner].concat();
    let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &ipv4(6, [0x45, 0], &ports(to))].concat();
    vec![
        ("TCP", inner.clone()),
        ("UDP", frame(&four, &ipv4(17, [0x45, 0x40], &ports(to)))),
        ("SCTP", frame(&four, &ipv4(132, [0x45, 0], &ports(to)))),
        ("options", frame(&four, &ipv4(6, [0x46, 0], &ports(to)))),
        ("a first fragment", frame(&four, &ipv4(17, [0x45, 0x20], &ports(to)))),
        ("IPv6", frame(&six, &ipv6(6, &ports(to)))),
        ("UDP in IPv6", frame(&six, &ipv6(17, &ports(to)))),
        ("extensions", frame(&six, &ipv6(0, &extended))),
        ("a tag of two", frame(&[0x88, 0xa8, 0, 3, 0x81, 0, 0, 7, 8, 0], &ipv4(6, [0x45, 0], &ports(to)))),
        ("a tunnel", frame(&four, &ipv4(17, [0x45, 0], &tunnel))),
        ("an error about it", frame(&four, &ipv4(1, [0x45, 0], &error))),
    ]
}

/// How often a frame of the instance `a` was seen at each place: what comes out of its device, by TC and by a packet socket, and
/// what is given up.
fn places(seen: &[Sighting]) -> [usize; 3] {
    let count = |is: fn(&What) -> bool| seen.iter().filter(|seen| is(&seen.what)).count();
    [
        count(|what| matches!(what, What::Received(View::Tc))),
        count(|what| matches!(what, What::Received(View::Socket))),
        count(|what| matches!(what, What::Dropped { .. })),
    ]
}

#[tokio::test]
async fn a_packet_of_any_shape_is_covered_by_its_port_wherever_it_is_looked_at() {
    if !(require_ebpf()
        && private_host::enter("shapes::a_packet_of_any_shape_is_covered_by_its_port_wherever_it_is_looked_at"))
    {
        return;
    }
    let _host = Host::new().await;
    run("ip link set tap-a nomaster");
    let mut points = vec![Host::point("", "tap-a", View::Tc), Host::point("", "tap-a", View::Socket)];
    for point in &mut points {
        point.sent = false;
    }
    let filter = only(Clause { there: port(4444), ..Clause::default() });
    let mut session = start(Plan { drops: true, ..plan(points, filter) }).await;
    for (_, frame) in frames(4445) {
        send_twice(frame).await;
    }
    assert_eq!(places(&seen(&mut session).await), [0; 3], "to another port");
    for (name, frame) in frames(4444) {
        send_twice(frame).await;
        assert_eq!(places(&seen_of(&mut session, 6).await), [2; 3], "{name}");
    }
}

/// What was said of the first is kept for the second.
async fn send_twice(frame: Vec<u8>) {
    let send = move || {
        let wire = Wire::open("eth0").unwrap();
        wire.send(&frame);
        wire.send(&frame);
    };
    Host::namespace("a").run(send).await.unwrap();
}
