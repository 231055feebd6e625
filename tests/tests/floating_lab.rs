//! Floating IPs of whole hosts, with peers outside of them: what a packet meets on the fast way is what it meets on the slow
//! one. Every case runs the slow way first; what both ends have seen then must be the same the fast way.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netdiag_agent::netns::Namespace;
use netdiag_tests::{
    Lab,
    capture::{Capture, Names, RUN, Seen, discover_mtu, sum},
    require_ebpf, require_programs,
};
use rustix::net::{AddressFamily, SocketType, ipproto};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(1);
/// For packets that are on their way.
const ARRIVES: Duration = Duration::from_secs(5);
/// For packets of which nobody knows how many there are.
const QUIET: Duration = Duration::from_millis(300);
/// Where the agent of the test lives on its host.
const HOME: &str = "/run/agent-test";
/// What a TCP connection carries each way.
const BULK: usize = 2 << 20;

// === the stage ===

/// Runs work in a namespace.
fn within<T: Send + 'static>(netns: &Namespace, work: impl FnOnce() -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(netns.run(work)).unwrap()
}

/// What a command prints that runs in a namespace.
fn command(netns: &Namespace, words: &[&'static str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let output = within(netns, move || command.output()).unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The first process of a host.
fn pid(lab: &Lab, name: &str) -> u64 {
    let hosts = lab.built["hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["name"] == name).unwrap()["pid"].as_u64().unwrap()
}

fn address(value: &Value) -> Ipv4Addr {
    value.as_str().unwrap().parse().unwrap()
}

/// Somebody who sends and receives.
#[derive(Clone, Debug)]
struct End {
    netns: Namespace,
    address: Ipv4Addr,
    /// It leaves checksums and segments to the hardware.
    offload: bool,
}

impl End {
    fn new(path: &str, address: Ipv4Addr) -> Self {
        let netns = Namespace::open(Path::new(path)).unwrap();
        // Every error is told: what is compared must not depend on how many there were before.
        within(&netns, || fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0")).unwrap();
        Self { netns, address, offload: false }
    }

    fn udp(&self, port: u16) -> UdpSocket {
        let socket = within(&self.netns, move || UdpSocket::bind(("0.0.0.0", port))).unwrap();
        socket.set_read_timeout(Some(ARRIVES)).unwrap();
        socket
    }

    fn icmp(&self) -> UdpSocket {
        let open = || rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP));
        UdpSocket::from(within(&self.netns, open).unwrap())
    }

    /// Forgets what has been learned of paths.
    fn forget_paths(&self) {
        within(&self.netns, || fs::write("/proc/sys/net/ipv4/route/flush", "1")).unwrap();
    }
}

/// A floating IP, and the instance it leads to.
#[derive(Clone, Debug)]
struct Floating {
    address: Ipv4Addr,
    instance: End,
    port: String,
    /// The namespace with its NAT rules.
    router: Namespace,
}

/// A host with floating IPs, and its agent.
struct Host<'a> {
    lab: &'a Lab,
    name: String,
    /// Where its files are.
    root: String,
}

impl<'a> Host<'a> {
    /// Starts an agent.
    fn start(lab: &'a Lab, name: &str, policy: &str) -> Self {
        let host = Self { lab, name: name.into(), root: format!("/proc/{}/root", pid(lab, name)) };
        host.sh(&format!("mkdir -p {HOME}/bpffs {HOME}/policy.d {HOME}/state && mount -t bpf bpf {HOME}/bpffs"));
        host.policy(policy);
        let options = format!("--policy-dir {HOME}/policy.d --state-dir {HOME}/state --socket {HOME}/agent.sock");
        let agent = format!("{} agent {options} --bpffs {HOME}/bpffs/netdiag", lab.binary());
        host.sh(&format!("setsid {agent} > {HOME}/log 2>&1 < /dev/null & echo $! > {HOME}/pid"));
        host
    }

    #[track_caller]
    fn sh(&self, line: &str) -> String {
        self.lab.sh(&self.name, line).ok()
    }

    fn policy(&self, text: &str) {
        self.sh(&format!(
            "cat > {HOME}/policy.d/.new <<'END' && mv {HOME}/policy.d/.new {HOME}/policy.d/a.yaml\n{text}\nEND"
        ));
    }

    fn api(&self, path: &str) -> Value {
        let answer = || {
            let mut stream = UnixStream::connect(format!("{}{HOME}/agent.sock", self.root))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
            std::io::read_to_string(stream)
        };
        let answer = answer().unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    fn shown(&self, address: Ipv4Addr) -> Value {
        self.api(&format!("/v1/floatingips/{address}"))["floatingip"].clone()
    }

    #[track_caller]
    fn wait_for(&self, address: Ipv4Addr, state: &str) -> Value {
        self.wait_until(address, state, |shown| shown["state"] == state)
    }

    /// Waits until one is slow for a reason that contains these words.
    #[track_caller]
    fn wait_until_slow(&self, address: Ipv4Addr, why: &str) {
        let contains = |shown: &Value| shown["reason"].as_str().is_some_and(|reason| reason.contains(why));
        self.wait_until(address, why, |shown| shown["state"] == "slow" && contains(shown));
    }

    #[track_caller]
    fn wait_until(&self, address: Ipv4Addr, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let shown = self.shown(address);
            if wanted(&shown) {
                return shown;
            }
            let log = || self.sh(&format!("tail -n 20 {HOME}/log"));
            assert!(started.elapsed() < PATIENCE, "{address} is never {what}: {shown:#}\n{}", log());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sends all floating IPs a way.
    #[track_caller]
    fn all(&self, way: &str) {
        let said = self.lab.netdiag(&self.name, &["fip", way, "--all", "--socket", &format!("{HOME}/agent.sock")]);
        said.ok();
    }

    /// What tells whether packets have gone through the router: entries of connection tracking of a run, and what the
    /// rules of the floating IP have counted.
    fn traces(floating: &Floating, base: u16) -> (usize, Vec<String>) {
        let ours = |word: &str| {
            let number = ["sport=", "dport=", "id="].iter().find_map(|key| word.strip_prefix(key));
            number.and_then(|number| number.parse().ok()).is_some_and(|number| (base..base + RUN).contains(&number))
        };
        let tracked = command(&floating.router, &["conntrack", "-L"]);
        let tracked = tracked.lines().filter(|line| line.split_whitespace().any(ours)).count();
        let address = format!("{}/32", floating.address);
        let fixed = format!("{}/32", floating.instance.address);
        let rules = command(&floating.router, &["iptables-save", "-c", "-t", "nat"]);
        let rules = rules.lines().filter(|line| line.contains(&address) || line.contains(&fixed));
        (tracked, rules.map(str::to_owned).collect())
    }

    /// Packets of a floating IP on a way, to it and from it.
    fn packets(&self, floating: &Floating, way: &str) -> [u64; 2] {
        let packets = &self.shown(floating.address)["packets"];
        ["ingress", "egress"].map(|direction| packets[direction][way].as_u64().unwrap_or(0))
    }

    /// What a case must change, or must not.
    fn marks(&self, floating: &Floating, base: u16) -> Marks {
        let (tracked, rules) = Self::traces(floating, base);
        let [fast, doubtful] = ["fast", "partial-checksum"].map(|way| self.packets(floating, way));
        Marks { fast, doubtful: doubtful.iter().sum(), tracked, rules }
    }
}

/// Where packets of a floating IP have left a mark.
#[derive(Debug)]
struct Marks {
    /// On the fast way, to it and from it.
    fast: [u64; 2],
    /// Left to the router because their checksum may be half made: before XDP, one of 65,536 just looks so.
    doubtful: u64,
    /// Entries of the router's connection tracking of this run.
    tracked: usize,
    /// The router's rules for the floating IP, with their counters.
    rules: Vec<String>,
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        // The lab ends with all its processes; this only spares it the wait.
        drop(self.lab.sh(&self.name, &format!("kill $(cat {HOME}/pid); umount -l {HOME}/bpffs")));
    }
}

// === the cases ===

/// Who asks whom, and by which addresses.
#[derive(Clone, Debug)]
struct Scene {
    asker: End,
    answerer: End,
    /// The address the asker asks.
    asked: Ipv4Addr,
    /// The address the answerer is asked by.
    seen: Ipv4Addr,
    /// The instance asks.
    outward: bool,
}

/// Something that happens between two ends. Ports and identifiers are those of the run.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    act: fn(&Scene, u16),
    /// Packets at the asker and at the answerer when it is over; none where that depends on the way between them.
    packets: Option<(usize, usize)>,
    /// Nothing of it has to do with the router.
    fast: bool,
}

const CASES: [Case; 8] = [
    Case { name: "ping", act: ping, packets: Some((6, 6)), fast: true },
    Case { name: "udp", act: udp, packets: Some((6, 6)), fast: true },
    Case { name: "udp to a closed port", act: closed, packets: Some((2, 2)), fast: true },
    Case { name: "tcp", act: tcp, packets: None, fast: true },
    Case { name: "traceroute", act: traceroute, packets: None, fast: false },
    Case { name: "ping that is too big", act: big_ping, packets: None, fast: false },
    Case { name: "udp that becomes too big", act: big_udp, packets: None, fast: false },
    Case { name: "ping in fragments", act: fragments, packets: None, fast: false },
];

/// An echo request.
fn echo(id: u16, sequence: u8, length: usize) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 0, 0, sequence];
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message.extend((0..length).map(|byte| byte.to_le_bytes()[0]));
    let checksum = !sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// Whether somebody may cut what a socket sends into fragments.
fn whole(socket: &UdpSocket, whole: bool) {
    // `IP_MTU_DISCOVER`: `IP_PMTUDISC_PROBE` forbids it, and `IP_PMTUDISC_DONT` lets everybody do it.
    let value = if whole { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_DONT };
    discover_mtu(socket, value).unwrap();
}

fn pings(scene: &Scene, base: u16, (count, length): (u8, usize), is_whole: bool) {
    let socket = scene.asker.icmp();
    whole(&socket, is_whole);
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    for sequence in 1..=count {
        socket.send_to(&echo(base, sequence, length), (scene.asked, 0)).unwrap();
        let started = Instant::now();
        let mut answer = vec![0; 66_000];
        // One after the other, or two may change places on the way.
        while started.elapsed() < Duration::from_secs(1) {
            let Ok(length) = socket.recv(&mut answer) else { continue };
            let is_answer = answer[..length].get(20..28).is_some_and(|icmp| {
                icmp[0] == 3 || (icmp[0] == 0 && icmp[4..6] == base.to_be_bytes() && icmp[7] == sequence)
            });
            if is_answer {
                break;
            }
        }
    }
}

fn ping(scene: &Scene, base: u16) {
    pings(scene, base, (3, 56), false);
}

fn big_ping(scene: &Scene, base: u16) {
    let mtu = if scene.outward { 1450 } else { 1500 };
    pings(scene, base, (1, mtu - 28), true);
}

fn fragments(scene: &Scene, base: u16) {
    pings(scene, base, (2, 4000), false);
}

/// Questions and answers; who asks is who it seems to be, and so is who answers.
fn exchange(scene: &Scene, (client, server): (&UdpSocket, &UdpSocket), (from, to): (u16, u16)) {
    let mut word = [0; 16];
    client.send_to(b"question", (scene.asked, to)).unwrap();
    let (length, by) = server.recv_from(&mut word).unwrap_or_else(|error| panic!("no question: {error}: {scene:?}"));
    assert_eq!((&word[..length], by), (&b"question"[..], (scene.seen, from).into()));
    server.send_to(b"answer", by).unwrap();
    let (length, by) = client.recv_from(&mut word).unwrap_or_else(|error| panic!("no answer: {error}: {scene:?}"));
    assert_eq!((&word[..length], by), (&b"answer"[..], (scene.asked, to).into()));
}

fn udp(scene: &Scene, base: u16) {
    let (client, server) = (scene.asker.udp(base), scene.answerer.udp(base + 1));
    for _ in 0..3 {
        exchange(scene, (&client, &server), (base, base + 1));
    }
}

/// A flow that is there already, and then a packet of it that does not fit.
fn big_udp(scene: &Scene, base: u16) {
    let (client, server) = (scene.asker.udp(base), scene.answerer.udp(base + 1));
    exchange(scene, (&client, &server), (base, base + 1));
    whole(&client, true);
    let errors = scene.asker.icmp();
    let size = if scene.outward { 1450 - 28 } else { 1500 - 28 };
    client.send_to(&vec![b'b'; size], (scene.asked, base + 1)).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    wait_for_error(&errors, base + 1, || server.recv(&mut [0; 2000]).is_ok());
    // The flow goes on.
    server.set_read_timeout(Some(ARRIVES)).unwrap();
    whole(&client, false);
    exchange(scene, (&client, &server), (base, base + 1));
}

fn closed(scene: &Scene, base: u16) {
    let client = scene.asker.udp(base);
    client.connect((scene.asked, base + 1)).unwrap();
    client.send(b"nobody?").unwrap();
    let refused = client.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{scene:?}");
}

/// Waits for an error about a datagram to this port, or until something else has happened instead.
fn wait_for_error(errors: &UdpSocket, port: u16, instead: impl Fn() -> bool) {
    errors.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let started = Instant::now();
    let mut message = [0; 2000];
    while started.elapsed() < Duration::from_secs(2) && !instead() {
        // Two IP headers, that of the error, and the source port are before it.
        if errors.recv(&mut message).is_ok_and(|length| length > 51 && message[50..52] == port.to_be_bytes()) {
            return;
        }
    }
}

fn traceroute(scene: &Scene, base: u16) {
    let (client, errors) = (scene.asker.udp(base), scene.asker.icmp());
    for ttl in 1..=5 {
        client.set_ttl(ttl).unwrap();
        let to = base + u16::try_from(ttl).unwrap();
        // An error about the one before may be told here.
        while client.send_to(b"how far?", (scene.asked, to)).is_err() {}
        wait_for_error(&errors, to, || false);
    }
}

/// Content that shows where a piece is missing.
fn content(seed: usize) -> Vec<u8> {
    (0..BULK).map(|at| (at / 251 + at + seed).to_le_bytes()[0]).collect()
}

/// Sends all of one content while receiving all of the other.
fn swap(mut stream: TcpStream, (sent, wanted): (usize, usize)) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sending = stream.try_clone().unwrap();
    let sender = thread::spawn(move || sending.write_all(&content(sent)).unwrap());
    let mut got = vec![0; BULK];
    stream.read_exact(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got == content(wanted), "all of it, unchanged");
}

fn tcp(scene: &Scene, base: u16) {
    let listener = within(&scene.answerer.netns, move || TcpListener::bind(("0.0.0.0", base + 1))).unwrap();
    let asked = scene.asked;
    let client = within(&scene.asker.netns, move || TcpStream::connect_timeout(&(asked, base + 1).into(), PATIENCE));
    let client = client.unwrap_or_else(|error| panic!("{error}: {scene:?}"));
    let (server, by) = listener.accept().unwrap();
    assert_eq!(by.ip(), scene.seen);
    let other = thread::spawn(move || swap(server, (1, 2)));
    swap(client, (2, 1));
    other.join().unwrap();
}

/// What both ends see of a case.
fn observe(scene: &Scene, case: &Case, base: u16) -> Vec<String> {
    let ends = [("asker", &scene.asker), ("answerer", &scene.answerer)];
    let captures = ends.map(|(_, end)| within(&end.netns, Capture::open).unwrap());
    (case.act)(scene, base);
    if case.name == "tcp" {
        // How it is cut into segments depends on the moment; what must be the same has been compared.
        return Vec::new();
    }
    let offload = ends.iter().any(|(_, end)| end.offload);
    // Each by its own address, and by the one the other knows it by.
    let at = |end: &End, known: Ipv4Addr| Seen::new(offload, [end.address, known]);
    let mut seen = [at(&scene.asker, scene.seen), at(&scene.answerer, scene.asked)];
    let started = Instant::now();
    let mut last = started;
    loop {
        for (capture, seen) in captures.iter().zip(&mut seen) {
            while let Some(packet) = capture.receive() {
                let before = seen.len();
                seen.take(&packet, base);
                last = if seen.len() > before { Instant::now() } else { last };
            }
        }
        let over = case.packets.is_none_or(|wanted| wanted == (seen[0].len(), seen[1].len()));
        if (over && last.elapsed() > QUIET) || started.elapsed() > ARRIVES {
            break;
        }
    }
    let mut names = Names::default();
    let words =
        ends.iter().zip(&seen).flat_map(|((name, end), seen)| seen.words((name, end.address, base), &mut names));
    words.collect()
}

// === the proof ===

/// Runs of cases: each has ports and identifiers of its own.
struct Runs {
    next: u16,
}

impl Runs {
    fn base(&mut self) -> u16 {
        let base = self.next;
        self.next += RUN;
        assert!(self.next < 32_000, "these are ports of the kernel's own");
        base
    }
}

/// What is to be shown, and where.
struct Proof<'a> {
    host: Host<'a>,
    peers: Vec<(&'static str, End)>,
    floating: Vec<Floating>,
}

impl Proof<'_> {
    /// All ways between a floating IP and the peers.
    fn scenes(&self, floating: &Floating) -> Vec<(String, Scene)> {
        let scenes = self.peers.iter().flat_map(|(name, peer)| {
            let (instance, address) = (floating.instance.clone(), floating.address);
            let inward = Scene {
                asker: peer.clone(),
                answerer: instance.clone(),
                asked: address,
                seen: peer.address,
                outward: false,
            };
            let outward =
                Scene { asker: instance, answerer: peer.clone(), asked: peer.address, seen: address, outward: true };
            [(format!("{name} to {address}"), inward), (format!("{address} to {name}"), outward)]
        });
        scenes.collect()
    }

    /// Runs every case, and says what was seen in each.
    fn run(&self, runs: &mut Runs, fast: bool) -> BTreeMap<String, Vec<String>> {
        let mut seen = BTreeMap::new();
        for floating in &self.floating {
            floating.instance.forget_paths();
            for (_, peer) in &self.peers {
                peer.forget_paths();
            }
            for (name, scene) in self.scenes(floating) {
                for case in &CASES {
                    let (what, base) = (format!("{} from {name}", case.name), runs.base());
                    let before = self.host.marks(floating, base);
                    let words = observe(&scene, case, base);
                    if case.fast {
                        assert!(case.name == "tcp" || words.len() > 3, "{what}: {words:#?}");
                        let after = self.host.marks(floating, base);
                        check_way(&what, fast, (&before, &after));
                    }
                    seen.insert(what, words);
                }
            }
        }
        seen
    }

    /// The slow way, then the fast one.
    fn same_both_ways(&self, runs: &mut Runs) {
        self.host.all("slow");
        for floating in &self.floating {
            self.host.wait_for(floating.address, "slow");
        }
        let slow = self.run(runs, false);
        self.host.all("fast");
        for floating in &self.floating {
            self.host.wait_for(floating.address, "fast");
        }
        let fast = self.run(runs, true);
        for (what, words) in &slow {
            let other = &fast[what];
            assert!(words == other, "{what}:\nslow: {words:#?}\nfast: {other:#?}");
        }
        if let Some(path) = std::env::var_os("NETDIAG_FLOATING_SEEN") {
            fs::write(path, format!("{slow:#?}")).unwrap();
        }
    }

    /// What security groups refuse does not arrive, whichever way.
    fn closed_both_ways(&self, runs: &mut Runs, policy: &str) {
        self.host.policy(policy);
        let started = Instant::now();
        for floating in &self.floating {
            let scene = &self.scenes(floating)[0].1;
            while !observe(scene, &REFUSED, runs.base()).iter().all(|line| line.starts_with("asker sends")) {
                assert!(started.elapsed() < PATIENCE, "{} is never closed", floating.address);
            }
        }
        for way in ["slow", "fast"] {
            self.host.all(way);
            for floating in &self.floating {
                self.host.wait_for(floating.address, way);
                for (name, scene) in self.scenes(floating).into_iter().filter(|(_, scene)| !scene.outward) {
                    let words = observe(&scene, &REFUSED, runs.base());
                    let sent = words.iter().filter(|line| line.starts_with("asker sends")).count();
                    assert_eq!((sent, words.len()), (3, 3), "{way}: {name}: {words:#?}");
                }
            }
        }
    }
}

/// A case that has nothing to do with the router has gone past it, or through it, and nothing else.
fn check_way(what: &str, fast: bool, (before, after): (&Marks, &Marks)) {
    let gone = [0, 1].map(|way| after.fast[way] - before.fast[way]);
    assert!(!after.rules.is_empty(), "{what}: the router has no rules for it");
    if !fast {
        assert_eq!(gone, [0, 0], "{what}: it went the fast way: {after:#?}");
        assert!(after.tracked > 0 && after.rules != before.rules, "{what}: not by the router: {before:#?}\n{after:#?}");
        return;
    }
    assert!(gone[0] > 0 && gone[1] > 0, "{what}: not past the router: {before:#?}\n{after:#?}");
    let doubtful = after.doubtful - before.doubtful;
    if doubtful == 0 {
        assert_eq!(after.tracked, 0, "{what}: the router has seen it: {before:#?}\n{after:#?}");
        assert_eq!(after.rules, before.rules, "{what}: rules of the router have counted");
    } else {
        assert!(doubtful * 100 < gone[0] + gone[1], "{what}: too many for chance: {before:#?}\n{after:#?}");
    }
}

/// Three kinds of packets that begin flows.
const REFUSED: Case = Case { name: "refused", act: knock, packets: None, fast: false };

fn knock(scene: &Scene, base: u16) {
    let client = scene.asker.udp(base);
    client.send_to(b"knock", (scene.asked, base + 1)).unwrap();
    let icmp = scene.asker.icmp();
    icmp.send_to(&echo(base, 1, 56), (scene.asked, 0)).unwrap();
    whole(&client, true);
    client.send_to(b"knock again", (scene.asked, base + 2)).unwrap();
}

// === hosts ===

/// Somebody outside.
fn peer(lab: &Lab, name: &'static str) -> (&'static str, End) {
    let hosts = lab.built["hosts"].as_array().unwrap();
    let host = hosts.iter().find(|host| host["name"] == name).unwrap();
    let at = address(&host["uplinks"][0]["address"]["address"]);
    let end = End::new(&format!("/proc/{}/ns/net", host["pid"]), at);
    // What it sends is finished, as what instances send is; what others quote of it is to be compared.
    command(&end.netns, &["ethtool", "-K", "eth0", "tx", "off"]);
    (name, end)
}

/// The floating IPs of the instances of a host.
fn found(lab: &Lab, host: &str) -> Vec<Floating> {
    let root = format!("/proc/{}/root", pid(lab, host));
    let mut found = Vec::new();
    for instance in lab.instances(host) {
        let path = match instance["machine"]["guest_pid"].as_u64() {
            Some(guest) => format!("/proc/{guest}/ns/net"),
            None => format!("{root}/proc/{}/ns/net", instance["pid"]),
        };
        for port in instance["ports"].as_array().unwrap().iter().filter(|port| port["floating_ip"].is_string()) {
            let router = format!("{root}/run/netns/qrouter-{}", port["router"].as_str().unwrap());
            found.push(Floating {
                address: address(&port["floating_ip"]),
                instance: End::new(&path, address(&port["address"]["address"])),
                port: port["id"].as_str().unwrap().into(),
                router: End::new(&router, Ipv4Addr::UNSPECIFIED).netns,
            });
        }
    }
    found
}

/// Everything is open, or nothing that comes.
fn policy(floating: &[Floating], open: bool) -> String {
    let ingress = if open { "\n      - {direction: ingress, ethertype: IPv4}" } else { "" };
    let rules = format!("{ingress}\n      - {{direction: egress, ethertype: IPv4}}");
    let ports = floating.iter().map(|Floating { port, instance: End { address, .. }, .. }| {
        format!("  - {{id: {port}, security_groups: [group], fixed_ips: [{address}]}}\n")
    });
    let ports = ports.collect::<Vec<_>>().concat();
    format!("security_groups:\n  - id: group\n    security_group_rules:{rules}\nports:\n{ports}")
}

/// The gateway of the external network, which lets only smaller packets through to the internet than come to it.
fn narrow_gateway(lab: &Lab) {
    let parent = |pid: u64| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    // Process 1 of a host is started by the maker of its namespaces, and that one by the fabric.
    let fabric = parent(parent(pid(lab, "outside")));
    let gateway = End::new(&format!("/proc/{fabric}/ns/net"), Ipv4Addr::UNSPECIFIED).netns;
    assert!(command(&gateway, &["ip", "-o", "link"]).contains("internet"), "this is the gateway");
    command(&gateway, &["ip", "route", "add", "203.0.113.10/32", "dev", "internet", "mtu", "lock", "1300"]);
}

/// Takes `--random-fully` out of the rules of the routers, as Neutron does where `use_random_fully` is off: with it, ports
/// and identifiers of what goes out the slow way are nobody's to compare.
fn keep_ports(lab: &Lab) {
    let line = "for router in $(ip netns list | grep -o '^\\(qrouter\\|snat\\)-[^ ]*'); do \
                ip netns exec $router sh -c 'iptables-save | sed \"s/ --random-fully//\" | iptables-restore' || exit 1; done";
    for host in lab.hosts() {
        lab.sh(&host, line).ok();
    }
}

fn up(profile: &str) -> Option<Lab> {
    let needed = require_ebpf() && require_programs(&["conntrack", "iptables-save", "ip", "ethtool"]);
    let lab = if needed { Lab::up(profile) } else { None }?;
    narrow_gateway(&lab);
    keep_ports(&lab);
    Some(lab)
}

fn prove<'a>(lab: &'a Lab, name: &str, floating: Vec<Floating>) -> Proof<'a> {
    let host = Host::start(lab, name, &policy(&floating, true));
    let peers = ["neighbour", "outside"].map(|name| peer(lab, name)).into();
    for one in &floating {
        host.wait_for(one.address, "fast");
    }
    Proof { host, peers, floating }
}

#[test]
fn floating_ips_of_a_router_beside_open_vswitch_do_the_same_both_ways() {
    let Some(lab) = up("neutron-ovs") else { return };
    let proof = prove(&lab, "compute-1", found(&lab, "compute-1"));
    assert_eq!(proof.floating.len(), 3);
    // Its instance is on the other host.
    proof.host.wait_until_slow(Ipv4Addr::new(172, 24, 4, 9), "on this host has 10.0.0.5");
    let mut runs = Runs { next: 20_000 };
    proof.same_both_ways(&mut runs);
    proof.closed_both_ways(&mut runs, &policy(&proof.floating, false));
}

#[test]
fn floating_ips_of_distributed_routers_do_the_same_both_ways_on_every_host() {
    let Some(lab) = up("dvr") else { return };
    for (name, first) in [("compute-1", 20_000), ("compute-2", 26_000)] {
        let proof = prove(&lab, name, found(&lab, name));
        assert!(!proof.floating.is_empty(), "{name}");
        let mut runs = Runs { next: first };
        proof.same_both_ways(&mut runs);
        proof.closed_both_ways(&mut runs, &policy(&proof.floating, false));
    }
}

#[test]
fn floating_ips_of_virtual_machines_do_the_same_both_ways() {
    let Some(lab) = up("vm") else { return };
    let proof = prove(&lab, "compute-1", found(&lab, "compute-1"));
    assert_eq!(proof.floating.len(), 3);
    let mut runs = Runs { next: 20_000 };
    proof.same_both_ways(&mut runs);
    proof.closed_both_ways(&mut runs, &policy(&proof.floating, false));
}

#[test]
fn floating_ips_behind_a_bridge_for_each_port_do_the_same_both_ways() {
    let Some(lab) = up("hybrid") else { return };
    let floating = found(&lab, "compute-1");
    let host = Host::start(&lab, "compute-1", &policy(&floating, true));
    let peers = ["neighbour", "outside"].map(|name| peer(&lab, name)).into();
    let proof = Proof { host, peers, floating };
    assert_eq!(proof.floating.len(), 3);
    let mut runs = Runs { next: 20_000 };
    // Neutron's own groups are rules of iptables on the bridges; netdiag's are open.
    for floating in &proof.floating {
        proof.host.wait_until_slow(floating.address, "iptables of this host filters what bridge qbr");
        let words = observe(&proof.scenes(floating)[0].1, &REFUSED, runs.base());
        let arrived = words.iter().filter(|line| line.starts_with("answerer gets") && line.contains(" udp "));
        assert_eq!(arrived.count(), 0, "Neutron's groups refuse it: {words:#?}");
    }
    // What is left of them when Neutron filters nothing itself.
    proof.host.sh("for table in filter raw; do iptables -t $table -F && iptables -t $table -X || exit 1; done");
    for floating in &proof.floating {
        proof.host.wait_for(floating.address, "fast");
    }
    proof.same_both_ways(&mut runs);
    proof.closed_both_ways(&mut runs, &policy(&proof.floating, false));
}

// === a host without a router ===

/// The policy of a container with a floating IP of netdiag's own.
fn own(floating: &Floating, device: &str, open: bool) -> String {
    let Floating { address, port, .. } = floating;
    let ports = policy(std::slice::from_ref(floating), open);
    let bound = ports
        .replace("security_groups: [group],", &format!("security_groups: [group], binding: {{device: {device}}},"));
    format!("{bound}floatingips:\n  - {{floating_ip_address: {address}, port_id: {port}, device: eth1}}\n")
}

#[test]
fn a_floating_ip_of_a_container_of_plain_docker_does_the_same_both_ways() {
    let Some(lab) = up("docker") else { return };
    let name = lab.hosts().remove(0);
    let first = pid(&lab, &name);
    let containers = lab.built["containers"].as_array().unwrap();
    let web = containers.iter().find(|container| container["name"] == "web-2").unwrap();
    let path = format!("/proc/{first}/root/proc/{}/ns/net", web["pid"]);
    let instance = End { offload: true, ..End::new(&path, address(&web["nics"][0]["address"]["address"])) };
    let router = End::new(&format!("/proc/{first}/ns/net"), Ipv4Addr::UNSPECIFIED).netns;
    let floating = Floating { address: Ipv4Addr::new(172, 24, 4, 50), instance, port: "web".into(), router };
    // The host is in the external network, and that is its way to everybody. Its card finishes checksums, as a real one does.
    lab.sh(&name, "ip addr add 172.24.4.10/24 dev eth1 && ip route replace default via 172.24.4.1").ok();
    command(&floating.router, &["ethtool", "-K", "eth1", "tx", "off"]);
    let device = web["nics"][0]["host_device"].as_str().unwrap();
    let host = Host::start(&lab, &name, &own(&floating, device, true));
    let peers = ["neighbour", "outside"].map(|name| peer(&lab, name)).into();
    // Who comes from outside with an address of Docker's other network is masqueraded by the rule of that.
    host.wait_until_slow(floating.address, "-A POSTROUTING -s 172.20.0.0/16");
    host.sh("iptables-save -t nat | sed '/-s 172.20.0.0.16 /d' | iptables-restore -T nat");
    host.wait_for(floating.address, "fast");
    let closed = own(&floating, device, false);
    let proof = Proof { host, peers, floating: vec![floating] };
    let mut runs = Runs { next: 20_000 };
    proof.same_both_ways(&mut runs);
    proof.closed_both_ways(&mut runs, &closed);
}
