//! What happens between two ends, and what both see of it.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::ends::{ARRIVES, End, within};
use crate::{
    agent::PATIENCE,
    capture::{Names, Seen, discover_mtu, ip_options, sum},
};

/// For an answer before the next question: not every router answers each, and many are asked.
const ANSWERED: Duration = Duration::from_secs(5);
/// For packets of which nobody knows how many there are.
const QUIET: Duration = Duration::from_millis(300);
/// For more packets than there have to be.
const MORE: Duration = Duration::from_millis(100);
/// What a TCP connection carries each way.
const BULK: usize = 2 << 20;

/// Who asks whom, and by which addresses.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Who asks.
    pub asker: End,
    /// Who answers.
    pub answerer: End,
    /// The address the asker asks.
    pub asked: Ipv4Addr,
    /// The address the answerer is asked by.
    pub seen: Ipv4Addr,
    /// The instance asks.
    pub outward: bool,
}

impl Scene {
    /// One end asks another: by which address, and by which the other is asked.
    #[must_use]
    pub fn of(from: &End, to: &End, asked: Ipv4Addr, seen: Ipv4Addr, outward: bool) -> Self {
        Self { asker: from.clone(), answerer: to.clone(), asked, seen, outward }
    }
}

/// Something that happens between two ends. Ports and identifiers are those of the run.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// Makes it happen.
    pub act: fn(&Scene, u16),
    /// Packets at the asker and at the answerer when it is over; none where that depends on the way between them.
    pub packets: Option<(usize, usize)>,
    /// Nothing of it has to do with the router.
    pub fast: bool,
}

/// All of them.
pub const CASES: [Case; 9] = [
    Case { name: "ping", act: ping, packets: Some((6, 6)), fast: true },
    Case { name: "udp", act: udp, packets: Some((6, 6)), fast: true },
    Case { name: "udp to a closed port", act: closed, packets: Some((2, 2)), fast: true },
    Case { name: "tcp", act: tcp, packets: None, fast: true },
    Case { name: "traceroute", act: traceroute, packets: None, fast: false },
    Case { name: "ping that is too big", act: big_ping, packets: None, fast: false },
    Case { name: "udp with options in the middle", act: options, packets: Some((6, 6)), fast: false },
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
        while started.elapsed() < ANSWERED {
            let Ok(length) = socket.recv(&mut answer) else { continue };
            let is_answer = answer[..length]
                .get(20..28)
                .is_some_and(|icmp| icmp[0] == 0 && icmp[4..6] == base.to_be_bytes() && icmp[7] == sequence);
            // Of an error it is behind two more headers.
            let is_answer = is_answer || (answer[20] == 3 && answer[52..54] == base.to_be_bytes());
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
///
/// # Panics
/// It goes otherwise.
pub fn exchange(scene: &Scene, (client, server): (&UdpSocket, &UdpSocket), (from, to): (u16, u16)) {
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

/// A flow that is there already, and then a packet of it on which whoever sends it on writes who it is (RFC 791, record route).
fn options(scene: &Scene, base: u16) {
    let (client, server) = (scene.asker.udp(base), scene.answerer.udp(base + 1));
    for options in [&[][..], &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]] {
        ip_options(&client, options).unwrap();
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
    while started.elapsed() < ANSWERED && !instead() {
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
///
/// # Panics
/// It goes otherwise.
pub fn swap(mut stream: TcpStream, (sent, wanted): (usize, usize)) {
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
///
/// # Panics
/// It goes otherwise.
#[must_use]
pub fn observe(scene: &Scene, case: &Case, base: u16) -> Vec<String> {
    let ends = [("asker", &scene.asker), ("answerer", &scene.answerer)];
    let captures = ends.map(|(_, end)| end.capture().unwrap());
    (case.act)(scene, base);
    if case.name == "tcp" {
        // How it is cut into segments depends on the moment; what must be the same has been compared.
        return Vec::new();
    }
    let offload = ends.iter().any(|(_, end)| end.offload);
    // Each by its own address, and by the one the other knows it by.
    let at = |end: &End, known: Ipv4Addr| Seen::new(offload, [end.address, known]);
    let mut seen = [at(&scene.asker, scene.seen), at(&scene.answerer, scene.asked)];
    let whole = ends.iter().all(|(_, end)| end.device.is_none());
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
        let over = match case.packets.filter(|_| whole) {
            None => last.elapsed() > QUIET,
            Some(wanted) => wanted == (seen[0].len(), seen[1].len()) && last.elapsed() > MORE,
        };
        if over || started.elapsed() > ARRIVES {
            break;
        }
    }
    let mut names = Names::default();
    let words =
        ends.iter().zip(&seen).flat_map(|((name, end), seen)| seen.words((name, end.address, base), &mut names));
    words.collect()
}

/// Three kinds of packets that begin flows.
pub const REFUSED: Case = Case { name: "refused", act: knock, packets: None, fast: false };

fn knock(scene: &Scene, base: u16) {
    let client = scene.asker.udp(base);
    client.send_to(b"knock", (scene.asked, base + 1)).unwrap();
    let icmp = scene.asker.icmp();
    icmp.send_to(&echo(base, 1, 56), (scene.asked, 0)).unwrap();
    whole(&client, true);
    client.send_to(b"knock again", (scene.asked, base + 2)).unwrap();
}

/// What the metadata service says to an instance.
///
/// # Panics
/// It goes otherwise.
#[must_use]
pub fn metadata(instance: &End) -> Vec<String> {
    let connect = || TcpStream::connect_timeout(&([169, 254, 169, 254], 80).into(), PATIENCE);
    let mut stream = within(&instance.netns, connect).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{answer}");
    answer.lines().filter(|line| !line.starts_with("Date:")).map(str::to_owned).collect()
}
