//! Packets are seen on their way: at every device, in both directions, where they are given up, and honestly where not.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    net::{IpAddr, UdpSocket},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use netdiag_agent::{
    discover::Options,
    live::{Plan, Point, RECORD_BYTES, RING_BYTES, Session},
    netns::Namespace,
};
use netdiag_model::{
    id::{IfIndex, LinkKey},
    live::{Clause, End, Filter, Layer, Losses, Product, Sighting, View, What},
};
use netdiag_tests::{
    behaviour::wire::Wire,
    private_host,
    program::{self, ATTACH_TCX_EGRESS, ATTACH_TCX_INGRESS},
    require_ebpf,
};

/// What watching may cost.
#[path = "live_probe/cost.rs"]
mod cost;
/// Packets of every shape.
#[path = "live_probe/shapes.rs"]
mod shapes;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs the rest of a test on a host of its own.
macro_rules! host {
    ($test:literal) => {
        if !(require_ebpf() && private_host::enter($test)) {
            return;
        }
    };
}

fn run(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A host with a bridge between two instances: `a` is 10.77.0.1 and `b` 10.77.0.2, each behind a veth pair.
struct Host {
    /// Somebody listens on these ports of `b`.
    _listeners: Vec<UdpSocket>,
}

/// Ports of `b` on which somebody listens.
const PORTS: [u16; 4] = [4000, 4001, 4002, 4003];

impl Host {
    async fn new() -> Self {
        run("ip link set lo up; ip link add br0 type bridge forward_delay 0; ip link set br0 up; \
             sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        for (place, name) in ["a", "b"].into_iter().enumerate() {
            run(&format!(
                "ip netns add {name}; ip -n {name} link set lo up; \
                 ip link add tap-{name} type veth peer name eth0 netns {name}; \
                 ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1; \
                 ip link set tap-{name} master br0 up; ip -n {name} link set eth0 up; \
                 ip -n {name} addr add 10.77.0.{}/24 dev eth0",
                place + 1
            ));
        }
        let mut listeners = Vec::new();
        for port in PORTS {
            listeners.push(socket("b", port).await);
        }
        Self { _listeners: listeners }
    }

    fn namespace(name: &str) -> Namespace {
        match name {
            "" => Namespace::open(Path::new("/proc/self/ns/net")).unwrap(),
            name => Namespace::open(Path::new(&format!("/run/netns/{name}"))).unwrap(),
        }
    }

    fn link(namespace: &str, device: &str) -> LinkKey {
        let within = if namespace.is_empty() { String::new() } else { format!("-n {namespace}") };
        let output = Command::new("sh").args(["-ec", &format!("ip {within} -o link show {device}")]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let ifindex = text.split(':').next().unwrap().parse().unwrap();
        LinkKey { netns: Self::namespace(namespace).id, ifindex: IfIndex(ifindex) }
    }

    fn point(namespace: &str, device: &str, view: View) -> Point {
        let name = if namespace.is_empty() { device.to_owned() } else { format!("{device}@{namespace}") };
        Point { link: Self::link(namespace, device), name, received: true, sent: true, view }
    }

    /// Every device between the two instances.
    fn path() -> Vec<Point> {
        let places = [("a", "eth0"), ("", "tap-a"), ("", "tap-b"), ("b", "eth0")];
        places.into_iter().map(|(namespace, device)| Self::point(namespace, device, View::Tc)).collect()
    }
}

/// A socket of an instance.
async fn socket(instance: &str, port: u16) -> UdpSocket {
    let address = format!("{}:{port}", if instance == "a" { "10.77.0.1" } else { "10.77.0.2" });
    Host::namespace(instance).run(move || UdpSocket::bind(address).unwrap()).await.unwrap()
}

fn end(address: &str) -> End {
    End { prefix: Some((address.parse::<IpAddr>().unwrap(), 32)), ports: None }
}

fn port(number: u16) -> End {
    End { prefix: None, ports: Some((number, number)) }
}

fn only(clause: Clause) -> Filter {
    Filter { clauses: vec![clause], products: vec![Product { covered: 1, uncovered: 0 }] }
}

fn plan(points: Vec<Point>, filter: Filter) -> Plan {
    let (drops, drops_in) = (false, Vec::new());
    Plan { points, filter, drops, drops_in, ring_bytes: RING_BYTES, budget: None, overhead: None }
}

async fn start(plan: Plan) -> Session {
    let session = Session::start(plan, &Options::default()).await.unwrap();
    assert_eq!(session.gaps(), [], "everything is watched");
    session
}

/// What is seen until nothing more comes.
async fn seen(session: &mut Session) -> Vec<Sighting> {
    seen_of(session, 0).await
}

/// The same where so much must come, however long that takes on a busy machine.
async fn seen_of(session: &mut Session, least: usize) -> Vec<Sighting> {
    let mut all = Vec::new();
    loop {
        let patience = if all.len() < least { PATIENCE } else { Duration::from_millis(200) };
        match tokio::time::timeout(patience, session.next()).await {
            Ok(sighting) => all.push(sighting),
            Err(_) => break,
        }
    }
    all.extend(session.take());
    // Whatever was begun has been read or is lost.
    let last_ns = all.iter().map(|seen| seen.time_ns).max();
    assert!(last_ns.is_none_or(|last_ns| session.read_ns() >= last_ns), "{last_ns:?}, {}", session.read_ns());
    all
}

#[tokio::test]
async fn a_packet_is_seen_at_every_device_of_its_path_in_order() {
    host!("a_packet_is_seen_at_every_device_of_its_path_in_order");
    let _host = Host::new().await;
    let points = Host::path();
    let mut session = start(plan(points.clone(), only(Clause { there: port(4444), ..Clause::default() }))).await;
    let (here, there) = (socket("a", 5000).await, socket("b", 4444).await);
    here.send_to(b"to there", "10.77.0.2:4444").unwrap();
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    there.recv(&mut [0; 64]).unwrap();
    let way: Vec<_> =
        seen_of(&mut session, 4).await.into_iter().map(|seen| (seen.link, seen.what, seen.length)).collect();
    let length = 14 + 20 + 8 + 8;
    let expected = [
        (Some(points[0].link), What::Sent(View::Tc), length),
        (Some(points[1].link), What::Received(View::Tc), length),
        (Some(points[2].link), What::Sent(View::Tc), length),
        (Some(points[3].link), What::Received(View::Tc), length),
    ];
    assert_eq!(way, expected);
    there.send_to(b"and back", "10.77.0.1:5000").unwrap();
    let back: Vec<_> = seen_of(&mut session, 4).await.into_iter().map(|seen| seen.link).collect();
    assert_eq!(back, [3, 2, 1, 0].map(|place| Some(points[place].link)));
}

/// What became of a packet, in a word.
fn word(sighting: &Sighting) -> String {
    match &sighting.what {
        What::Received(View::Tc) => "in".to_owned(),
        What::Sent(View::Tc) => "out".to_owned(),
        What::Received(View::Socket) => "socket in".to_owned(),
        What::Sent(View::Socket) => "socket out".to_owned(),
        What::Dropped { reason, .. } => reason.clone(),
    }
}

/// One packet from `a` to a port of `b`.
async fn send(number: u16) {
    drop(socket("a", 5000).await.send_to(b"a packet", format!("10.77.0.2:{number}")));
}

/// Knows its neighbour, so that nothing but what is sent is sent.
fn introduce() {
    run("ip netns exec a ping -qc1 -w60 10.77.0.2");
}

#[tokio::test]
async fn only_packets_the_filter_covers_are_seen_and_it_can_be_changed() {
    host!("only_packets_the_filter_covers_are_seen_and_it_can_be_changed");
    let _host = Host::new().await;
    introduce();
    let point = vec![Host::point("", "tap-a", View::Tc)];
    let mut session = start(plan(point, only(Clause { there: port(4000), ..Clause::default() }))).await;
    send(4001).await;
    assert_eq!(seen(&mut session).await, []);
    send(4000).await;
    assert_eq!(seen_of(&mut session, 1).await.len(), 1);
    let clauses =
        vec![Clause { here: end("10.77.0.1"), ..Clause::default() }, Clause { there: port(4000), ..Clause::default() }];
    let udp = Clause { protocol: Some(17), ..Clause::default() };
    let products = vec![Product { covered: 0b101, uncovered: 0b010 }];
    session.refilter(&Filter { clauses: [clauses, vec![udp]].concat(), products }).unwrap();
    send(4000).await;
    assert_eq!(seen(&mut session).await, [], "all but that port");
    send(4001).await;
    assert_eq!(seen_of(&mut session, 1).await.len(), 1);
    let losses = session.losses().unwrap();
    assert_eq!((losses.lost, losses.throttled), (0, 0));
}

#[tokio::test]
async fn devices_of_the_same_name_and_index_in_two_namespaces_are_told_apart() {
    host!("devices_of_the_same_name_and_index_in_two_namespaces_are_told_apart");
    let _host = Host::new().await;
    introduce();
    let points = vec![Host::point("a", "eth0", View::Tc), Host::point("b", "eth0", View::Tc)];
    assert_eq!(points[0].link.ifindex, points[1].link.ifindex, "what is to be told apart");
    let mut session = start(plan(points.clone(), only(Clause { there: port(4000), ..Clause::default() }))).await;
    send(4000).await;
    let links: Vec<_> = seen_of(&mut session, 2).await.iter().map(|seen| seen.link).collect();
    assert_eq!(links, [Some(points[0].link), Some(points[1].link)]);
}

#[tokio::test]
async fn a_packet_in_a_tunnel_is_seen_by_its_own_addresses() {
    host!("a_packet_in_a_tunnel_is_seen_by_its_own_addresses");
    let _host = Host::new().await;
    for (here, there) in [("1", "2"), ("2", "1")] {
        let name = if here == "1" { "a" } else { "b" };
        run(&format!(
            "ip -n {name} link add vx0 type vxlan id 7 local 10.77.0.{here} remote 10.77.0.{there} dstport 4789 dev eth0; \
             ip -n {name} addr add 10.88.0.{here}/24 dev vx0; ip -n {name} link set vx0 up"
        ));
    }
    run("ip netns exec a ping -qc1 -w60 10.88.0.2");
    let points = vec![Host::point("", "tap-a", View::Tc), Host::point("a", "vx0", View::Tc)];
    let filter = only(Clause { here: end("10.88.0.2"), protocol: Some(1), ..Clause::default() });
    let mut session = start(plan(points.clone(), filter)).await;
    run("ip netns exec a ping -qc1 -W60 10.88.0.2");
    let seen = seen_of(&mut session, 4).await;
    let places: Vec<_> = seen.iter().map(|seen| (seen.link, word(seen))).collect();
    let [tap, tunnel] = [0, 1].map(|place| Some(points[place].link));
    let expected = [(tunnel, "out"), (tap, "in"), (tap, "out"), (tunnel, "in")];
    assert_eq!(places, expected.map(|(link, word)| (link, word.to_owned())));
    assert_eq!(seen[0].length + 50, seen[1].length, "with the headers of the tunnel");
    let inner = seen[1].head.len() - 50;
    assert_eq!(seen[0].head[..inner], seen[1].head[50..], "the same packet");
}

#[tokio::test]
async fn a_packet_nobody_listens_for_is_seen_dying_and_so_is_the_error_about_it() {
    host!("a_packet_nobody_listens_for_is_seen_dying_and_so_is_the_error_about_it");
    let _host = Host::new().await;
    introduce();
    let points = vec![Host::point("a", "eth0", View::Tc), Host::point("b", "eth0", View::Tc)];
    let filter = only(Clause { there: port(4999), ..Clause::default() });
    let mut session = start(Plan { drops: true, ..plan(points.clone(), filter) }).await;
    send(4999).await;
    let seen = seen_of(&mut session, 5).await;
    let places: Vec<_> = seen.iter().map(|seen| (seen.link, word(seen))).collect();
    let [a, b] = [0, 1].map(|place| Some(points[place].link));
    let way = [(a, "out"), (b, "in")].map(|(link, word)| (link, word.to_owned()));
    assert_eq!(places[..2], way);
    // The error leaves while the packet is still being looked at, and the packet is given up behind it.
    assert!(places[2..].contains(&(b, "NO_SOCKET".to_owned())), "{places:?}");
    assert!(places[2..].contains(&(b, "out".to_owned())) && places[2..].contains(&(a, "in".to_owned())), "{places:?}");
    let died = seen.iter().find(|seen| word(seen) == "NO_SOCKET").unwrap();
    assert_eq!(died.buffer, seen[1].buffer, "the buffer that came in");
    assert_eq!((died.length, &died.head), (seen[1].length, &seen[1].head), "from the Ethernet header on");
    let What::Dropped { subsystem, location: Some(location), .. } = &died.what else { panic!("{died:?}") };
    assert_eq!(subsystem, "core");
    assert!(location.starts_with("__udp4_lib_rcv+0x") || location.starts_with("udp"), "{location}");
}

#[tokio::test]
async fn what_is_given_up_in_another_namespace_is_not_told_of_and_takes_nothing_of_the_budget() {
    host!("what_is_given_up_in_another_namespace_is_not_told_of_and_takes_nothing_of_the_budget");
    let _host = Host::new().await;
    introduce();
    run("ip netns exec b iptables -A INPUT -p udp --dport 4102 -j DROP; \
         ip netns exec a iptables -A OUTPUT -p udp --dport 4103 -j DROP");
    let filter = only(Clause { there: End { ports: Some((4102, 4103)), ..End::default() }, ..Clause::default() });
    let drops_in = vec![Host::link("a", "eth0").netns];
    let plan = Plan { drops: true, drops_in, budget: Some(50), ..plan(Vec::new(), filter) };
    let here = socket("a", 5000).await;
    let flood = || {
        for _ in 0..2000 {
            here.send_to(b"a packet", "10.77.0.2:4102").unwrap();
        }
    };
    let mut session = start(plan.clone()).await;
    flood();
    here.send_to(b"a packet", "10.77.0.2:4103").unwrap_err();
    let places: Vec<_> = seen_of(&mut session, 1).await.iter().map(|seen| seen.link).collect();
    assert_eq!((places, session.losses().unwrap()), (vec![Some(Host::link("a", "eth0"))], Losses::default()));
    drop(session);
    let mut session = start(Plan { drops_in: Vec::new(), ..plan }).await;
    flood();
    assert!(!seen_of(&mut session, 1).await.is_empty());
    assert!(session.losses().unwrap().throttled > 0, "everywhere");
}

#[tokio::test]
async fn a_packet_a_rule_drops_is_seen_dying_there_whichever_way_it_went() {
    host!("a_packet_a_rule_drops_is_seen_dying_there_whichever_way_it_went");
    let _host = Host::new().await;
    introduce();
    run("ip netns exec b iptables -A INPUT -p udp --dport 4002 -j DROP; \
         ip netns exec a iptables -A OUTPUT -p udp --dport 4003 -j DROP");
    let filter = only(Clause { protocol: Some(17), ..Clause::default() });
    let filter = Filter {
        clauses: [filter.clauses, vec![Clause { here: end("10.77.0.1"), ..Clause::default() }]].concat(),
        products: vec![Product { covered: 0b11, uncovered: 0 }],
    };
    let mut session = start(Plan { drops: true, ..plan(Vec::new(), filter) }).await;
    for (number, instance, layer) in [(4002, "b", Layer::Ethernet), (4003, "a", Layer::Network)] {
        send(number).await;
        let seen = seen_of(&mut session, 1).await;
        assert_eq!(seen.len(), 1, "{seen:?}");
        let What::Dropped { reason, subsystem, location, copy: false } = &seen[0].what else { panic!("{seen:?}") };
        assert_eq!((reason.as_str(), subsystem.as_str()), ("NETFILTER_DROP", "core"));
        let location = location.as_deref().unwrap_or_default();
        assert!(["nf_hook_slow+0x", "nft_do_chain+0x"].iter().any(|place| location.starts_with(place)), "{location}");
        assert_eq!(seen[0].link, Some(Host::link(instance, "eth0")), "{number}");
        assert_eq!(seen[0].layer, layer);
    }
}

#[tokio::test]
async fn what_a_ring_of_64_entries_has_no_room_for_is_counted_exactly() {
    const OFFERED: u64 = 1000;
    host!("what_a_ring_of_64_entries_has_no_room_for_is_counted_exactly");
    let _host = Host::new().await;
    introduce();
    let points = [View::Tc, View::Socket].map(|view| Point { sent: false, ..Host::point("", "tap-a", view) });
    let filter = only(Clause { there: port(4000), ..Clause::default() });
    let ring_bytes = 64 * RECORD_BYTES;
    for point in points {
        let mut session = start(Plan { ring_bytes, ..plan(vec![point], filter.clone()) }).await;
        let here = socket("a", 5000).await;
        for _ in 0..OFFERED {
            here.send_to(b"a packet", "10.77.0.2:4000").unwrap();
        }
        let delivered = seen_of(&mut session, 1).await.len() as u64;
        let losses = session.losses().unwrap();
        assert!((1..=64).contains(&delivered), "{delivered}");
        assert_eq!((losses.lost, losses.throttled), (OFFERED - delivered, 0));
    }
}

#[tokio::test]
async fn what_the_budget_has_no_room_for_is_counted_exactly() {
    const OFFERED: u64 = 2000;
    host!("what_the_budget_has_no_room_for_is_counted_exactly");
    let _host = Host::new().await;
    introduce();
    let mut point = Host::point("", "tap-a", View::Tc);
    point.sent = false;
    let filter = only(Clause { there: port(4000), ..Clause::default() });
    let mut session = start(Plan { budget: Some(1000), ..plan(vec![point], filter) }).await;
    let here = socket("a", 5000).await;
    for _ in 0..OFFERED {
        here.send_to(b"a packet", "10.77.0.2:4000").unwrap();
    }
    let delivered = seen_of(&mut session, 1).await.len() as u64;
    let losses = session.losses().unwrap();
    assert!(losses.throttled > 0 && delivered > 0, "{losses:?}");
    assert_eq!((losses.lost, losses.throttled), (0, OFFERED - delivered));
}

#[tokio::test]
async fn a_packet_socket_sees_both_directions_and_keeps_nothing() {
    host!("a_packet_socket_sees_both_directions_and_keeps_nothing");
    let _host = Host::new().await;
    introduce();
    let points = vec![Host::point("", "tap-a", View::Socket)];
    let filter = only(Clause { protocol: Some(1), here: end("10.77.0.1"), ..Clause::default() });
    let mut session = start(plan(points.clone(), filter)).await;
    run("ip netns exec a ping -qc1 -W60 10.77.0.2");
    let seen = seen_of(&mut session, 2).await;
    let ways: Vec<_> = seen.iter().map(|seen| (seen.link, word(seen), seen.length)).collect();
    let link = Some(points[0].link);
    assert_eq!(ways, [(link, "socket in".to_owned(), 98), (link, "socket out".to_owned(), 98)]);
    assert_eq!(seen[0].head.len(), 98);
    assert_eq!(seen[1].buffer, 0, "a copy");
}

#[tokio::test]
async fn tags_and_marks_beside_the_packet_are_told() {
    host!("tags_and_marks_beside_the_packet_are_told");
    let _host = Host::new().await;
    let points = vec![
        Host::point("a", "eth0", View::Tc),
        Host::point("", "tap-a", View::Tc),
        Host::point("", "tap-a", View::Socket),
    ];
    let mut session = start(plan(points, only(Clause { protocol: Some(1), ..Clause::default() }))).await;
    run("ip netns exec a ping -qc1 -W60 -m 77 10.77.0.2");
    let marks: Vec<_> = seen_of(&mut session, 2).await.iter().map(|seen| (word(seen), seen.mark)).collect();
    // What comes out of the other end of the pair is as new.
    assert_eq!(marks[..2], [("out".to_owned(), 77), ("socket in".to_owned(), 0)]);
    // Tagged in the frame, as a guest does it; the host takes the tag out of what comes from a device.
    let frame = [&[0xff; 6][..], &[2; 6], &[0x81, 0, 0x60, 7, 8, 0], &PING].concat();
    let sent = frame.clone();
    Host::namespace("a").run(move || Wire::open("eth0").unwrap().send(&sent)).await.unwrap();
    let seen = seen_of(&mut session, 3).await;
    let tags: Vec<_> = seen.iter().map(|seen| (word(seen), seen.tag)).collect();
    let tag = Some(3 << 13 | 7);
    assert_eq!(tags, [("out".to_owned(), None), ("socket in".to_owned(), tag), ("in".to_owned(), tag)]);
    assert_eq!(seen[0].head, frame);
    assert_eq!(seen[2].head, [&frame[..12], &frame[16..]].concat());
}

/// An ICMP echo request, from its IP header on; the checksum is nobody's business here.
const PING: [u8; 28] = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 1, 10, 77, 0, 99, 8, 0, 0, 0, 0, 1, 0, 1];

/// Ids and names of programs of live sessions at the devices of this host and of the instances, by how they are attached.
async fn attached() -> Vec<(LinkKey, String)> {
    let facts = netdiag_agent::discover::look(Options::default()).await.facts;
    let programs = facts.programs.into_iter().filter(|program| program.name.contains("live"));
    programs.map(|program| (LinkKey { netns: program.netns, ifindex: program.ifindex }, program.name)).collect()
}

async fn attached_soon(count: usize) -> Vec<(LinkKey, String)> {
    let end = Instant::now() + PATIENCE;
    loop {
        let attached = attached().await;
        if attached.len() == count || Instant::now() > end {
            return attached;
        }
    }
}

/// What `a_session_that_is_killed_leaves_nothing_attached` starts as a process of its own and kills. It is no test, and only looks like
/// one because the test's own program is what can be started; should nobody kill it, it ends by itself.
#[tokio::test]
#[ignore = "no test: the process that another test starts and kills"]
async fn watches_until_it_is_killed() {
    let plan = Plan { drops: true, ..plan(Host::path(), Filter::default()) };
    let _session = match std::env::var("BY") {
        Ok(_) => Session::start_by_clsact(plan, &Options::default()).await.unwrap(),
        Err(_) => start(plan).await,
    };
    std::fs::write(std::env::var("READY").unwrap(), "").unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
}

/// Starts a process that watches, and kills it.
async fn kill_a_watcher(by: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let mut watcher = Command::new(std::env::current_exe().unwrap());
    watcher.args(["--exact", "watches_until_it_is_killed", "--include-ignored"]).env("READY", &ready);
    by.inspect(|by| {
        watcher.env("BY", by);
    });
    let mut watcher = watcher.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while !ready.exists() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(attached().await.len(), 8, "while it watches");
    watcher.kill().unwrap();
    watcher.wait().unwrap();
}

#[tokio::test]
async fn a_session_that_is_killed_leaves_nothing_attached() {
    host!("a_session_that_is_killed_leaves_nothing_attached");
    let host = Host::new().await;
    if !program::has_tcx(1) {
        return;
    }
    kill_a_watcher(None).await;
    assert_eq!(attached_soon(0).await, []);
    drop(host);
}

#[tokio::test]
async fn filters_go_with_their_session_and_those_of_a_killed_one_with_the_next() {
    host!("filters_go_with_their_session_and_those_of_a_killed_one_with_the_next");
    let _host = Host::new().await;
    introduce();
    run("tc qdisc add dev tap-b clsact");
    kill_a_watcher(Some("clsact")).await;
    assert_eq!(attached().await.len(), 8, "they outlive their process");
    let filter = only(Clause { there: port(4000), ..Clause::default() });
    let mut session = Session::start_by_clsact(plan(Host::path(), filter), &Options::default()).await.unwrap();
    assert_eq!(session.gaps(), []);
    assert_eq!(attached().await.len(), 8, "and go when the next one comes");
    send(4000).await;
    let words: Vec<_> = seen_of(&mut session, 4).await.iter().map(word).collect();
    assert_eq!(words, ["out", "in", "out", "in"]);
    drop(session);
    assert_eq!(attached_soon(0).await, []);
    let left = Command::new("tc").args(["qdisc", "show"]).output().unwrap().stdout;
    let left = String::from_utf8(left).unwrap();
    let qdiscs: Vec<_> = left.lines().filter(|line| line.contains("clsact")).collect();
    assert!(matches!(qdiscs[..], [one] if one.contains("tap-b")), "the one that was there before: {left}");
}

#[tokio::test]
async fn where_an_ingress_qdisc_is_in_the_place_of_clsact_packet_sockets_see_the_same() {
    host!("where_an_ingress_qdisc_is_in_the_place_of_clsact_packet_sockets_see_the_same");
    let _host = Host::new().await;
    introduce();
    run("tc qdisc add dev tap-b ingress");
    let filter = only(Clause { there: port(4000), ..Clause::default() });
    let mut session = Session::start_by_clsact(plan(Host::path(), filter), &Options::default()).await.unwrap();
    assert_eq!((session.gaps(), session.by_socket()), (&[][..], &[Host::link("", "tap-b")][..]));
    send(4000).await;
    let words: Vec<_> = seen_of(&mut session, 4).await.iter().map(word).collect();
    assert_eq!(words, ["out", "in", "socket out", "in"]);
}

#[tokio::test]
async fn programs_of_others_stay_where_they_are_and_ours_goes_around_them() {
    host!("programs_of_others_stay_where_they_are_and_ours_goes_around_them");
    let _host = Host::new().await;
    introduce();
    if !program::has_tcx(1) {
        return;
    }
    let link = Host::link("", "tap-a").ifindex.0;
    let others = [
        program::attach(link, ATTACH_TCX_INGRESS, "other_in", 0).unwrap(),
        program::attach(link, ATTACH_TCX_EGRESS, "other_out", 0).unwrap(),
    ];
    let filter = only(Clause { there: port(4000), ..Clause::default() });
    let mut session = start(plan(vec![Host::point("", "tap-a", View::Tc)], filter)).await;
    let order = || async {
        let facts = netdiag_agent::discover::look(Options::default()).await.facts;
        facts.programs.into_iter().map(|program| program.name).collect::<Vec<_>>()
    };
    assert_eq!(order().await, ["live_either", "other_in", "other_out", "live_either"]);
    send(4000).await;
    assert_eq!(seen_of(&mut session, 1).await.len(), 1);
    drop(session);
    attached_soon(0).await;
    assert_eq!(order().await, ["other_in", "other_out"]);
    drop(others);
}

#[tokio::test]
async fn what_cannot_be_watched_is_a_gap_and_the_rest_is_watched() {
    host!("what_cannot_be_watched_is_a_gap_and_the_rest_is_watched");
    let _host = Host::new().await;
    introduce();
    let there = Host::point("", "tap-a", View::Tc);
    let mut gone = there.clone();
    (gone.link.ifindex, gone.name) = (IfIndex(4711), "tap-gone".to_owned());
    let mut nowhere = there.clone();
    (nowhere.link.netns.cookie, nowhere.name) = (1 << 60, "tap-nowhere".to_owned());
    let filter = only(Clause { there: port(4000), ..Clause::default() });
    let plan = plan(vec![gone, nowhere, there], filter);
    let mut session = Session::start(plan, &Options::default()).await.unwrap();
    let gaps: Vec<_> = session.gaps().iter().map(|gap| gap.object.clone()).collect();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert!(gaps.iter().any(|gap| gap.contains("tap-gone")) && gaps.iter().any(|gap| gap.contains("tap-nowhere")));
    send(4000).await;
    assert_eq!(seen_of(&mut session, 1).await.len(), 1);
}

#[tokio::test]
async fn watching_tells_what_it_costs() {
    host!("watching_tells_what_it_costs");
    let _host = Host::new().await;
    introduce();
    let mut session = start(plan(Host::path(), only(Clause { there: port(4000), ..Clause::default() }))).await;
    let here = socket("a", 5000).await;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        here.send_to(b"a packet", "10.77.0.2:4000").unwrap();
        session.take();
    }
    let cost = session.cost();
    assert!(cost.own_cpu > 0.0 && cost.records > 100.0, "{cost:?}");
    assert!(cost.programs_cpu.is_some_and(|share| share > 0.0 && share < 1.0), "{cost:?}");
}
