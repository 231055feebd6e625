//! What an instance asks by the slow way, though its floating IP is fast: the router has given the question a port that nobody
//! else knows, and the answers to that port are the router's to give back.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

use netdiag_tests::{
    floating::{
        FLOATING, FloatingHost, OPEN, ROUTER,
        ends::{ARRIVES, command, within},
    },
    require_programs,
};

/// Somebody on the external network to whom the router has never sent anything, and how many bytes he is asked with: in fragments,
/// and in one packet.
const NEIGHBOURS: [(Ipv4Addr, usize); 2] =
    [(Ipv4Addr::new(203, 0, 113, 77), 3000), (Ipv4Addr::new(203, 0, 113, 78), 56)];

/// A host whose router chooses ports at random, as Neutron's do.
fn enter(test: &str) -> Option<FloatingHost> {
    if !require_programs(&["iptables", "iptables-restore", "conntrack"]) {
        return None;
    }
    let mut site = FloatingHost::enter(test)?;
    site.random = true;
    site.add_router();
    for (address, _) in NEIGHBOURS {
        site.from_outside(&format!("ip addr add {address}/32 dev eth0"));
    }
    site.host.policy(OPEN);
    site.host.start();
    site.wait_until_fast(FLOATING);
    Some(site)
}

#[test]
fn pings_of_a_neighbour_the_router_does_not_know_yet_are_all_answered() {
    let test = "pings_of_a_neighbour_the_router_does_not_know_yet_are_all_answered";
    let Some(site) = enter(test) else { return };
    let instance = site.namespace("instance");
    for (address, size) in NEIGHBOURS {
        // Three at once; and for as long as the pause is, the answer to the last one is waited for.
        let said = format!("ping -c 5 -l 3 -i 2 -s {size} {address}");
        let said = command(&instance, &said.split(' ').collect::<Vec<_>>());
        assert!(said.contains(" 0% packet loss"), "{said}\n{:#}", site.floating(FLOATING));
        let tracked = site.tracked(Some(ROUTER), address);
        assert!(tracked.iter().any(|line| line.starts_with("icmp")), "the router has seen it: {tracked:#?}");
    }
}

#[test]
fn answers_to_datagrams_that_the_router_has_sent_come_back_to_the_port_they_are_from() {
    let test = "answers_to_datagrams_that_the_router_has_sent_come_back_to_the_port_they_are_from";
    let Some(site) = enter(test) else { return };
    for (neighbour, size) in NEIGHBOURS {
        let server = within(&site.namespace("outside"), move || UdpSocket::bind((neighbour, 0))).expect("bind");
        let client = within(&site.namespace("instance"), || UdpSocket::bind("0.0.0.0:0")).expect("bind");
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(ARRIVES)).expect("set a timeout");
        }
        let address = server.local_addr().expect("an address");
        let mut buffer = [0; 4096];
        for question in 0..5 {
            let what = format!("{size} bytes, question {question}");
            client.send_to(&vec![7; size], address).expect("send");
            let (length, by) = server.recv_from(&mut buffer).expect(&what);
            assert_eq!((length, by.ip()), (size, IpAddr::from(FLOATING)), "{what}");
            // One answer at once, and one when the next hop is known for long.
            for _ in 0..2 {
                server.send_to(b"answer", by).expect("send");
                let answer = client.recv_from(&mut buffer);
                let answer = answer.unwrap_or_else(|_| panic!("{what}: {:#}", site.floating(FLOATING)));
                assert_eq!(answer, (6, address), "{what}");
                thread::sleep(Duration::from_millis(100));
            }
        }
        let tracked = site.tracked(Some(ROUTER), neighbour);
        assert!(tracked.iter().any(|line| line.starts_with("udp")), "the router has seen it: {tracked:#?}");
    }
}
