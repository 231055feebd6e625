//! Floating IPs of netdiag's own, as others see them: announcements, counters, devices that come and go, other hosts.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    time::{Duration, SystemTime},
};

use netdiag_common::abi::floating::FAST_MARK;
use netdiag_tests::{
    AgentHost,
    agent::{PATIENCE, command, questions, run, until},
    behaviour::wire::Wire,
    floating::{FLOATING, FloatingHost, OPEN, OTHER, OUTSIDE, ends::within, is_reached},
    require_programs,
};
use rustix::process::Signal;

/// What a floating IP of the policy is like.
fn own(address: Ipv4Addr, port: &str) -> String {
    format!("  - {{floating_ip_address: {address}, port_id: {port}, device: ext0}}\n")
}

fn policy(own: &[String]) -> String {
    format!("{OPEN}\nfloatingips:\n{}", own.concat())
}

/// A plain host that serves floating IPs, the way it does before anything happens to it.
fn enter(test: &str) -> Option<FloatingHost> {
    if !require_programs(&["iptables", "iptables-restore", "conntrack"]) {
        return None;
    }
    let site = FloatingHost::enter(test)?;
    site.be_router();
    Some(site)
}

/// A datagram from outside to a port of the floating IP, and whether it is answered by this server.
fn answers(client: &UdpSocket, server: &UdpSocket) -> bool {
    asked(client, server, Duration::from_secs(10))
}

/// The same where it must not be: nobody answers soon.
fn is_silent(client: &UdpSocket, server: &UdpSocket) -> bool {
    !asked(client, server, Duration::from_millis(300))
}

fn asked(client: &UdpSocket, server: &UdpSocket, wait: Duration) -> bool {
    let mut word = [0; 8];
    for socket in [client, server] {
        socket.set_read_timeout(Some(wait)).unwrap();
    }
    // What came late is of the attempt before.
    while client.send(b"question").is_err() {}
    server.recv_from(&mut word).is_ok_and(|(_, by)| {
        server.send_to(b"answer", by).unwrap();
        client.recv(&mut word).is_ok()
    })
}

fn client(site: &FloatingHost) -> UdpSocket {
    let client = within(&site.namespace("outside"), || UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.connect((FLOATING, 9)).unwrap();
    client
}

fn server(site: &FloatingHost, namespace: &str) -> UdpSocket {
    within(&site.namespace(namespace), || UdpSocket::bind("0.0.0.0:9")).unwrap()
}

#[test]
fn a_floating_ip_is_announced_three_times_two_seconds_apart_as_a_request_and_as_a_reply() {
    let test = "a_floating_ip_is_announced_three_times_two_seconds_apart_as_a_request_and_as_a_reply";
    let Some(mut site) = enter(test) else { return };
    let wire = within(&site.namespace("outside"), || Wire::open("eth0")).unwrap().with_times();
    site.host.policy(&policy(&[own(FLOATING, "p1")]));
    site.host.start();
    let mut seen: Vec<(Duration, u8)> = Vec::new();
    // Longer than the pause, so that a fourth round would be seen.
    let wait = |seen: usize| if seen < 6 { PATIENCE } else { Duration::from_secs(4) };
    while let Some(frame) = wire.find(wait(seen.len()), |frame| is_announcement(frame, FLOATING)) {
        seen.push((wire.came(), frame[21]));
    }
    let kinds: Vec<u8> = seen.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [1, 2, 1, 2, 1, 2], "requests and replies");
    // A busy machine may be late with one of them.
    let between: Vec<Duration> =
        seen.windows(3).step_by(2).map(|round| round[2].0.saturating_sub(round[0].0)).collect();
    assert!(between.iter().all(|between| *between > Duration::from_millis(1900)), "{between:?}");
    assert!(between.iter().any(|between| *between < Duration::from_secs(4)), "{between:?}");
}

/// An announcement of the floating IP: who it is, to everybody.
fn is_announcement(frame: &[u8], floating: Ipv4Addr) -> bool {
    frame[..6] == [0xff; 6]
        && frame[12..14] == [8, 6]
        && frame[28..32] == floating.octets()
        && frame[38..42] == floating.octets()
}

#[test]
fn whoever_is_told_that_a_floating_ip_is_served_finds_it_announced() {
    let test = "whoever_is_told_that_a_floating_ip_is_served_finds_it_announced";
    let Some(mut site) = enter(test) else { return };
    let wire = within(&site.namespace("outside"), || Wire::open("eth0")).unwrap().with_times();
    site.host.policy(OPEN);
    site.host.start();
    site.host.wait("it has looked at routers", |status| status["floating_ips"].is_array());
    let body = format!(r#"{{"floating_ip_address": "{FLOATING}", "port_id": "p1", "device": "ext0"}}"#);
    for round in 0..12 {
        // Also right after it was given up, when the last look at the host may have seen half of it.
        site.host.ok("PUT", "/v1/floatingips/f", &body);
        let told = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        // A busy machine may hand it over later than it came.
        assert!(wire.find(PATIENCE, |frame| is_announcement(frame, FLOATING)).is_some(), "round {round}");
        assert!(wire.came() < told, "round {round}: announced before it was told");
        site.host.ok("DELETE", "/v1/floatingips/f", "");
        wire.drain();
    }
}

/// Samples of the metrics, name with labels and value.
fn metrics(port: u16) -> Vec<(String, u64)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

#[test]
fn a_device_that_goes_takes_its_floating_ips_along_until_it_is_there_again_and_the_metrics_tell_both() {
    let test = "a_device_that_goes_takes_its_floating_ips_along_until_it_is_there_again_and_the_metrics_tell_both";
    let Some(mut site) = enter(test) else { return };
    // One that is asked for at a device there is none of keeps nobody else.
    let nowhere = own(OTHER, "p2").replace("ext0", "ext9");
    site.host.policy(&policy(&[own(FLOATING, "p1"), nowhere]));
    site.host.start_with(&["--metrics", "127.0.0.1:9090", "--full-pass", "3600"]);
    site.wait_until_fast(FLOATING);
    let held = site.wait_for(OTHER, "held", |floating| floating["state"] == "broken");
    assert!(held["reason"].as_str().unwrap().contains("there is no device ext9 on this host"), "{held:#}");
    let (code, said) = site.host.agent_status();
    let shown = &said["held"][0];
    assert_eq!((code, shown["floating_ip_address"].as_str()), (Some(3), Some("203.0.113.51")), "{said:#}");
    assert_eq!((&shown["reason"], &said["well"]), (&held["reason"], &false.into()), "{said:#}");
    let (asks, hears) = (client(&site), server(&site, "instance"));
    let value = |name: &str| metrics(9090).iter().find(|(sample, _)| sample == name).map_or(0, |(_, value)| *value);
    let packets = |direction: &str| {
        let labels = format!("floating_ip=\"{FLOATING}\",direction=\"{direction}\",way=\"fast\"");
        value(&format!("netdiag_floating_ip_packets_total{{{labels}}}"))
    };
    assert!(answers(&asks, &hears));
    let before = ["ingress", "egress"].map(&packets);
    for _ in 0..5 {
        assert!(answers(&asks, &hears));
    }
    let after = ["ingress", "egress"].map(&packets);
    assert_eq!([after[0] - before[0], after[1] - before[1]], [5, 5]);
    let states = || ["fast", "broken"].map(|state| value(&format!("netdiag_floating_ips{{state=\"{state}\"}}")));
    assert_eq!(states(), [1, 1]);

    run("ip link del ext0");
    site.wait_for(FLOATING, "held", |floating| {
        let reason = floating["reason"].as_str().unwrap_or_default();
        floating["state"] == "broken" && reason == "there is no device ext0 on this host"
    });
    assert_eq!(states(), [0, 2]);
    assert!(
        netdiag_tests::floating::ends::command(
            &site.namespace("instance"),
            &["ping", "-c", "1", "-W", "60", "192.0.2.1"]
        )
        .contains(" 0% packet loss"),
        "the instance is where it was"
    );
    site.plug();
    run("ip addr add 203.0.113.10/24 dev ext0");
    site.wait_until_fast(FLOATING);
    until("it is answered again", || answers(&asks, &hears));
    assert!(packets("ingress") > 0 && states() == [1, 1]);
}

#[test]
fn a_floating_ip_that_moves_to_another_host_is_there_from_the_next_packet_and_nowhere_else() {
    let test = "a_floating_ip_that_moves_to_another_host_is_there_from_the_next_packet_and_nowhere_else";
    let Some(mut site) = enter(test) else { return };
    let mut there = second_host(&site);
    site.host.policy(&policy(&[own(FLOATING, "p1")]));
    there.policy(OPEN);
    site.host.start();
    there.start();
    there.wait_for_ports(&["p2"]);
    there.wait("it has looked at routers", |status| status["floating_ips"].is_array());
    site.wait_until_fast(FLOATING);
    let (asks, here, far) = (client(&site), server(&site, "instance"), server(&site, "second"));
    assert!(answers(&asks, &here));
    let macs = ["", "ip netns exec host2 "].map(|within| mac(&run(&format!("{within}ip -o link show dev ext0"))));
    let body = format!(r#"{{"floating_ip_address": "{FLOATING}", "port_id": "p2", "device": "ext0"}}"#);
    let knows = |mac: &str| site.from_outside(&format!("ip neigh show {FLOATING}")).contains(mac);
    for round in 0..2 {
        // To the other host: it is there once the API has answered, whatever the outside still has of before.
        site.host.policy(OPEN);
        site.wait_for(FLOATING, "gone", serde_json::Value::is_null);
        assert!(is_silent(&asks, &here), "round {round}: nobody has it");
        let (status, answer) = there.request("PUT", "/v1/floatingips/f", &body);
        assert_eq!(status, 200, "{answer:#}");
        assert!(answers(&asks, &far), "round {round}");
        assert!(knows(&macs[1]), "round {round}: whoever has it has said so");
        // And back.
        there.ok("DELETE", "/v1/floatingips/f", "");
        assert!(is_silent(&asks, &far), "round {round}: nobody has it");
        site.host.policy(&policy(&[own(FLOATING, "p1")]));
        site.wait_until_fast(FLOATING);
        assert!(answers(&asks, &here), "round {round}");
        assert!(knows(&macs[0]), "round {round}");
    }
}

/// The MAC address in what `ip link show` prints.
fn mac(shown: &str) -> String {
    shown.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

/// Another host on the same external network, with the second instance.
fn second_host(site: &FloatingHost) -> AgentHost {
    run("ip netns add host2");
    let outside = site.namespace("outside");
    for line in ["ip link set tap1 nomaster netns host2", "ip link add away type veth peer name ext0 netns host2"] {
        run(line);
    }
    site.take_outside("away");
    for line in [
        "ip link add hub type bridge stp_state 0 forward_delay 0",
        "ip link set eth0 master hub",
        "ip link set away master hub up",
        "ip link set hub up",
        "ip addr flush dev eth0",
        "ip addr add 203.0.113.1/24 dev hub",
    ] {
        site.from_outside(line);
    }
    drop(outside);
    for line in [
        "ip link set lo up",
        "ip link add br0 type bridge stp_state 0 forward_delay 0",
        "ip link set tap1 master br0 up",
        "ip link set br0 up",
        "ip link set ext0 up",
        "ip addr add 192.0.2.1/24 dev br0",
        "ip addr add 203.0.113.11/24 dev ext0",
        "sysctl -qw net.ipv4.ip_forward=1",
        "iptables -t nat -A POSTROUTING -s 192.0.2.0/24 ! -o br0 -j MASQUERADE",
    ] {
        run(&format!("ip netns exec host2 {line}"));
    }
    is_reached("ip netns exec host2 ping -c 1 -W 5 203.0.113.1");
    assert_eq!(OUTSIDE, Ipv4Addr::new(203, 0, 113, 1));
    // It has processes of its own, as a host has.
    let own = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    site.host.beside(&[&["ip", "netns", "exec", "host2"][..], &own].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_reaches_itself_by_its_floating_ip_and_its_bridge_port_is_left_as_it_was() {
    let test = "an_instance_reaches_itself_by_its_floating_ip_and_its_bridge_port_is_left_as_it_was";
    let Some(mut site) = enter(test) else { return };
    // What Docker has switched on for its bridges; and one port gives frames back already, whyever.
    run("sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    run("ip link set tap1 type bridge_slave hairpin on");
    let both = policy(&[own(FLOATING, "p1"), own(OTHER, "p2")]);
    site.host.policy(&both);
    site.host.start();
    site.wait_until_fast(OTHER);
    for way in ["fast", "slow"] {
        site.host.ok("PUT", "/v1/floatingips/all/way", &format!(r#"{{"slow": {}}}"#, way == "slow"));
        for (name, address) in [("instance", FLOATING), ("second", OTHER)] {
            site.wait_for(address, way, |floating| floating["state"] == way);
            assert!(site.pings(name, address).await, "{name}, {way}");
            let mut connection = site.connect((name, name), address, 8).await;
            assert!(connection.works(PATIENCE), "{name}, {way}");
            // As any other who asks a floating IP from behind one.
            assert_eq!(connection.seen_as().ip(), address, "{name}, {way}");
        }
    }
    let gives_back = |port: &str| run(&format!("ip -d -o link show dev {port}")).contains("hairpin on");
    assert_eq!(["tap0", "tap1"].map(gives_back), [true, true]);
    // The next agent knows which one is netdiag's, also if this one could not say.
    site.host.end(Signal::KILL);
    site.host.policy(OPEN);
    site.host.start();
    until("the floating IPs are gone", || ["tap0", "tap1"].map(gives_back) == [false, true]);
    site.host.end(Signal::TERM);
}

#[test]
fn a_mark_that_somebody_else_makes_lets_nothing_pass() {
    let test = "a_mark_that_somebody_else_makes_lets_nothing_pass";
    let Some(mut site) = enter(test) else { return };
    site.host.policy(OPEN);
    site.host.start();
    site.host.wait_for_ports(&["p1", "p2"]);
    // From the host itself, which can mark what it sends. An answer that is refused does not stand for a question that is.
    let asked = || questions(&run("ip netns exec instance cat /proc/net/snmp"));
    let comes = |mark: u32| {
        let before = asked();
        // Whether it is answered is another matter.
        drop(command(&format!("ping -c 1 -W 1 -m {mark} 192.0.2.2")));
        asked() > before
    };
    until("the instance is asked", || comes(7));
    site.host.policy(&OPEN.replace("      - {direction: ingress, ethertype: IPv4}\n", ""));
    until("what is not allowed is refused", || !comes(7));
    for mark in [FAST_MARK, 1, u32::MAX] {
        assert!(!comes(mark), "{mark:#x}");
    }
    site.host.end(Signal::TERM);
}
