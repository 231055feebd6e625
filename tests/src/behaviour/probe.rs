//! Traffic, and what must become of it: it arrives or not, and the datapath counts the reason.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Map, MapData, PerCpuArray};
use netdiag_common::{
    ABI_VERSION,
    abi::{
        reason::Reason,
        value::{Tally, tally_index},
    },
};
use netdiag_model::id::Mac;

use super::{
    World,
    frame::{Packet, arp},
    plug::End,
};
use crate::agent::PATIENCE;

/// How long is waited for what must not arrive, once it was counted.
const SHORT: Duration = Duration::from_millis(60);
/// Places of ports that are looked at; one port is enforced at a time.
const SLOTS: u32 = 8;

/// Which way the first packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the instance: ingress.
    In,
    /// From the instance: egress.
    Out,
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families.
pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

impl Way {
    /// The other way.
    #[must_use]
    pub const fn back(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// Packets and bytes by direction and reason.
pub type Counters = BTreeMap<(bool, &'static str), (u64, u64)>;

impl World {
    /// What the datapath has counted.
    ///
    /// # Panics
    /// The maps are not there.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let path = self.pins().join(format!("v{ABI_VERSION}/TALLIES"));
        let map = MapData::from_pin(path).expect("open the counters");
        let map = PerCpuArray::<_, [u64; 2]>::try_from(Map::PerCpuArray(map)).expect("an array of counters");
        let mut counters = Counters::new();
        for (slot, ingress, reason) in (0..SLOTS)
            .flat_map(|slot| [false, true].map(|way| (slot, way)))
            .flat_map(|(slot, ingress)| Reason::ALL.iter().map(move |reason| (slot, ingress, *reason)))
        {
            let cpus = map.get(&tally_index(slot, ingress, reason as u8), 0).expect("read a counter");
            const { assert!(size_of::<Tally>() == 16) };
            let sum = counters.entry((ingress, reason.name())).or_default();
            for [packets, bytes] in cpus.iter() {
                sum.0 += packets;
                sum.1 += bytes;
            }
        }
        counters
    }

    /// How many packets have met a reason.
    #[must_use]
    pub fn count(&self, way: Way, reason: &'static str) -> u64 {
        self.counters()[&(way == Way::In, reason)].0
    }

    #[track_caller]
    fn counted(&self, what: &str, before: &Counters, (way, reason): (Way, &'static str)) {
        self.counts(what, before, (way, reason), 1);
    }

    /// The datapath counts at least so many packets more than before: at once or a while after they were sent, as a neighbour may have
    /// to be asked for first, and a switch in user space takes its time for that.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn counts(&self, what: &str, before: &Counters, (way, reason): (Way, &'static str), more: u64) {
        let started = Instant::now();
        while self.count(way, reason) < before[&(way == Way::In, reason)].0 + more {
            assert!(
                started.elapsed() < PATIENCE,
                "{what}: {reason} was not counted {way:?} {more} times, but {:?}",
                difference(before, &self.counters())
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    // === Frames ===

    /// Sends a packet as it is; the datapath must count the reason, and the packet arrive if that lets it.
    #[track_caller]
    pub fn sends(&self, way: Way, packet: &Packet, reason: &'static str) {
        self.frame(way, &packet.frame(), reason);
    }

    /// The same with a packet from one end to the other that the last argument makes of one without payload.
    #[track_caller]
    pub fn packets(&self, way: Way, family: Family, reason: &'static str, make: impl Fn(Packet) -> Packet) {
        self.sends(way, &make(self.packet(way, family)), reason);
    }

    /// Sends a frame as it is; the datapath must count the reason, and the frame arrive if that lets it.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn frame(&self, way: Way, frame: &[u8], reason: &'static str) {
        let (from, to) = self.ends(way);
        let before = self.counters();
        to.wire.drain();
        from.wire.send(frame);
        if passes(reason) {
            let arrived = to.wire.find(PATIENCE, |seen| is(seen, frame)).is_some();
            assert!(
                arrived,
                "{reason} {way:?}: {} does not arrive: {:?}",
                Hex(frame),
                difference(&before, &self.counters())
            );
        }
        self.counted(&format!("{}", Hex(frame)), &before, (way, reason));
        if !passes(reason) {
            self.does_not_arrive(way, frame, reason);
        }
    }

    /// A frame that was counted is not among those that come before one that is sent after it.
    #[track_caller]
    fn does_not_arrive(&self, way: Way, frame: &[u8], reason: &'static str) {
        let (from, to) = self.ends(way);
        let mark = Self::mark(from);
        from.wire.send(&mark);
        let mut arrived = false;
        let end = to.wire.find(PATIENCE, |seen| {
            arrived |= is(seen, frame);
            seen.starts_with(&mark)
        });
        assert!(end.is_some(), "the mark after {} does not arrive {way:?}", Hex(frame));
        assert!(!arrived, "{reason} {way:?}: {} arrives", Hex(frame));
    }

    /// Whether a frame arrives that nobody counts.
    #[must_use]
    pub fn arrives(&self, way: Way, frame: &[u8]) -> bool {
        let (from, to) = self.ends(way);
        to.wire.drain();
        from.wire.send(frame);
        to.wire.find(PATIENCE, |seen| is(seen, frame)).is_some()
    }

    /// The same where the sender may send no mark: what does not arrive is waited for in vain.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn unmarked(&self, way: Way, frame: &[u8], reason: &'static str) {
        let (from, to) = self.ends(way);
        let before = self.counters();
        to.wire.drain();
        from.wire.send(frame);
        self.counted(&format!("{}", Hex(frame)), &before, (way, reason));
        let wait = if passes(reason) { PATIENCE } else { SHORT };
        let arrived = to.wire.find(wait, |seen| seen.starts_with(frame)).is_some();
        assert_eq!(arrived, passes(reason), "whether {} arrives, {reason} {way:?}", Hex(frame));
    }

    /// A question for an address nobody has, that the sender may always ask.
    fn mark(from: &End) -> Vec<u8> {
        static MARKS: AtomicU16 = AtomicU16::new(0);
        // Different each time: what came late for the one before is no mark for this.
        let [a, b] = MARKS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        arp(0x0806, 1, (from.mac, from.v4), (Mac([0; 6]), [10, 78, a, b].into()))
    }

    // === Sockets ===

    /// Connects by TCP, says something, and hears something.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn tcp(&self, way: Way, family: Family, port: u16, reason: &'static str) {
        let before = self.counters();
        let connection = self.connect(way, family, port, if passes(reason) { PATIENCE } else { SHORT * 5 });
        self.counted(&format!("TCP {family:?} to {port}"), &before, (way, reason));
        assert_eq!(connection.is_some(), passes(reason), "TCP {family:?} to {port}, {reason} {way:?}");
        if let Some(connection) = connection {
            connection.talk();
        }
    }

    /// A TCP connection, if it comes about in time.
    ///
    /// # Panics
    /// The receiver cannot listen.
    #[must_use]
    pub fn connect(&self, way: Way, family: Family, port: u16, wait: Duration) -> Option<Connection> {
        let (from, to) = self.ends(way);
        let address = SocketAddr::new(to.address(family), port);
        let listener = to.inside(move || TcpListener::bind(address).expect("listen"));
        let client = from.inside(move || TcpStream::connect_timeout(&address, wait)).ok()?;
        let (server, _) = listener.accept().expect("accept a connection");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).expect("limit the wait");
            stream.set_nodelay(true).expect("send at once");
        }
        Some(Connection { client, server })
    }

    /// Sends a datagram, and has it answered.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn udp(&self, way: Way, family: Family, port: u16, reason: &'static str) {
        let before = self.counters();
        let (client, server) = self.udp_sockets(way, family, port);
        client.send(b"ask").expect("send a datagram");
        self.counted(&format!("UDP {family:?} to {port}"), &before, (way, reason));
        let asked = hears(&server, passes(reason));
        assert_eq!(asked.is_some(), passes(reason), "UDP {family:?} to {port}, {reason} {way:?}");
        if let Some((heard, from)) = asked {
            assert_eq!(heard, b"ask");
            server.send_to(b"answer", from).expect("answer a datagram");
            assert!(hears(&client, true).is_some(), "UDP {family:?} to {port}: no answer");
            self.counted("the answer", &before, (way.back(), "established"));
        }
    }

    /// A socket that sends to one that is bound to the port.
    ///
    /// # Panics
    /// They cannot be made.
    #[must_use]
    pub fn udp_sockets(&self, way: Way, family: Family, port: u16) -> (UdpSocket, UdpSocket) {
        let (from, to) = self.ends(way);
        let (local, remote) = (SocketAddr::new(from.address(family), 0), SocketAddr::new(to.address(family), port));
        let server = to.inside(move || UdpSocket::bind(remote).expect("bind the port"));
        let client = from.inside(move || UdpSocket::bind(local).expect("bind any port"));
        client.connect(remote).expect("connect to the port");
        (client, server)
    }

    /// Pings.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn ping(&self, way: Way, family: Family, reason: &'static str) {
        let before = self.counters();
        let (from, to) = self.ends(way);
        let address = to.address(family);
        let answered = from.inside(move || ping(address, if passes(reason) { "60" } else { "0.3" }));
        self.counted(&format!("ping {address}"), &before, (way, reason));
        assert_eq!(answered, passes(reason), "whether {address} answers, {reason} {way:?}");
        if answered {
            self.counted("the echo", &before, (way.back(), "established"));
        }
    }
}

/// A TCP connection, both ends.
#[derive(Debug)]
pub struct Connection {
    /// The end that connected.
    pub client: TcpStream,
    /// The end that accepted.
    pub server: TcpStream,
}

impl Connection {
    /// Both say something and hear it.
    ///
    /// # Panics
    /// Something said is not heard.
    #[track_caller]
    pub fn talk(&self) {
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            from.write_all(b"words").expect("say something");
            let mut heard = [0; 5];
            to.read_exact(&mut heard).expect("hear it");
            assert_eq!(&heard, b"words");
        }
    }

    /// Sends a megabyte a number of times from one end to the other.
    ///
    /// # Panics
    /// It does not arrive whole.
    pub fn transfer(from: &TcpStream, mut to: &TcpStream, megabytes: usize) {
        let mut sender = from.try_clone().expect("share a socket");
        let thread = thread::spawn(move || {
            (0..megabytes).for_each(|_| sender.write_all(&vec![7; 1 << 20]).expect("send a megabyte"));
        });
        let mut block = vec![0; 1 << 20];
        for _ in 0..megabytes {
            to.read_exact(&mut block).expect("receive a megabyte");
        }
        thread.join().expect("the sender ends");
    }
}

/// A datagram, if one comes.
///
/// # Panics
/// The socket does not work.
#[must_use]
pub fn hears(socket: &UdpSocket, expected: bool) -> Option<(Vec<u8>, SocketAddr)> {
    let wait = if expected { PATIENCE } else { SHORT };
    socket.set_read_timeout(Some(wait)).expect("limit the wait");
    let mut buffer = vec![0; 65_536];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("receive a datagram: {error}"),
    }
}

fn ping(address: IpAddr, wait: &str) -> bool {
    let address = address.to_string();
    let output = Command::new("ping").args(["-n", "-c", "1", "-W", wait, &address]).output();
    output.expect("start ping").status.success()
}

/// Whether a reason lets a packet pass.
fn passes(reason: &str) -> bool {
    let known = Reason::ALL.iter().find(|known| known.name() == reason);
    known.unwrap_or_else(|| panic!("there is no reason {reason}")).passes()
}

/// Whether a frame is the one that was sent. A tag is taken off it where the receiver's kernel keeps it beside.
fn is(seen: &[u8], sent: &[u8]) -> bool {
    let tagged = sent[12..14] == [0x81, 0];
    seen.starts_with(sent) || tagged && seen[..12] == sent[..12] && seen[12..].starts_with(&sent[16..])
}

fn difference(before: &Counters, after: &Counters) -> Vec<String> {
    let rose = after.iter().filter(|(key, value)| before[key] != **value);
    rose.map(|((ingress, reason), value)| {
        let way = if *ingress { Way::In } else { Way::Out };
        format!("{reason} {way:?} {}", value.0 - before[&(*ingress, *reason)].0)
    })
    .collect()
}

/// A frame in a message.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(80).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
