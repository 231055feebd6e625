//! Flows of floating IPs that go on and on whatever happens, each of which knows what it must hear next.
//!
//! Every message names its flow and its number, and is sent back. A TCP connection hears them all, in their order; a datagram
//! comes back once or is lost, and never to somebody else.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{FLOATING, FloatingHost, OTHER, OUTSIDE};
use crate::agent::PATIENCE;

/// Between two messages of a flow.
const PAUSE: Duration = Duration::from_millis(20);
/// Messages of a connection that may be on their way; there is always room for as many.
const WINDOW: u64 = 64;
/// How long a datagram may be on its way, on a machine that has much else to do.
const ARRIVES: Duration = Duration::from_secs(20);
/// How long is waited for those of which some are lost.
const SOON: Duration = Duration::from_secs(1);
/// First port of the flows.
const PORTS: u16 = 10_000;

/// Length of a message: the number of its flow, and its own.
const MESSAGE: usize = 16;

/// Flows on their way.
#[derive(Debug)]
pub struct Flows {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the flows and whoever watches them share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Nothing new is sent.
    pause: AtomicBool,
    seen: Mutex<Seen>,
}

/// What became of the messages.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Messages that have come back, by flow.
    heard: Vec<u64>,
    /// Numbers of datagrams on their way, by flow.
    away: Vec<BTreeSet<u64>>,
    /// What must not have happened.
    wrong: Vec<String>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody has failed with it")
    }
}

/// Who begins a flow, and to whom it leads.
#[derive(Clone, Copy, Debug)]
struct Course {
    from: &'static str,
    to: &'static str,
    address: Ipv4Addr,
    /// The instance that is to hear nothing of it.
    stranger: &'static str,
    /// Whom the other end takes the sender for.
    seen: Ipv4Addr,
}

/// Both directions of both floating IPs.
const COURSES: [Course; 4] = [
    Course { from: "outside", to: "instance", address: FLOATING, stranger: "second", seen: OUTSIDE },
    Course { from: "instance", to: "outside", address: OUTSIDE, stranger: "second", seen: FLOATING },
    Course { from: "outside", to: "second", address: OTHER, stranger: "instance", seen: OUTSIDE },
    Course { from: "second", to: "outside", address: OUTSIDE, stranger: "instance", seen: OTHER },
];

impl Flows {
    /// Begins so many, TCP and UDP in turn, over both floating IPs in both directions.
    ///
    /// # Panics
    /// They cannot be begun.
    pub async fn start(site: &FloatingHost, count: u16) -> Self {
        let mut flows = Vec::new();
        for number in 0..count {
            let course = COURSES[usize::from(number / 2) % COURSES.len()];
            let talk = if number % 2 == 0 {
                Talk::Tcp(Box::new(Tcp::begin(site, course, PORTS + number).await))
            } else {
                Talk::Udp(Udp::begin(site, course, PORTS + number).await)
            };
            flows.push(Flow { number: number.into(), sent: 0, talk });
        }
        let shared = Arc::<Shared>::default();
        shared.seen().heard.resize(flows.len(), 0);
        shared.seen().away.resize(flows.len(), BTreeSet::new());
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !of_thread.stop.load(Ordering::Acquire) {
                let sends = !of_thread.pause.load(Ordering::Acquire);
                for flow in &mut flows {
                    flow.round(sends, &mut of_thread.seen());
                }
                thread::sleep(PAUSE);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Waits until every flow has heard more.
    ///
    /// # Panics
    /// Some do not, or something has happened that must not.
    #[track_caller]
    pub fn go_on(&self, what: &str) {
        let before = self.shared.seen().heard.clone();
        let started = Instant::now();
        loop {
            self.check(what);
            let now = self.shared.seen().heard.clone();
            let lost: Vec<_> = (0..now.len()).filter(|flow| now[*flow] < before[*flow] + 3).collect();
            if lost.is_empty() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{what}: flows {lost:?} do not go on");
            thread::sleep(PAUSE);
        }
    }

    /// Datagrams that are lost since this was asked last.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.away_after(ARRIVES)
    }

    /// Counts anew from now on, whatever was lost so far.
    pub fn forget_lost(&self) {
        let _lost = self.away_after(SOON);
    }

    /// Datagrams that are away after so long, at most, in which none was sent; nobody waits for them any more.
    fn away_after(&self, patience: Duration) -> usize {
        self.shared.pause.store(true, Ordering::Release);
        let started = Instant::now();
        let away = || self.shared.seen().away.iter().map(BTreeSet::len).sum::<usize>();
        while away() > 0 && started.elapsed() < patience {
            thread::sleep(PAUSE);
        }
        let lost = away();
        self.shared.seen().away.iter_mut().for_each(BTreeSet::clear);
        self.shared.pause.store(false, Ordering::Release);
        lost
    }

    /// Nothing has happened that must not.
    ///
    /// # Panics
    /// It has.
    #[track_caller]
    pub fn check(&self, what: &str) {
        let wrong = self.shared.seen().wrong.clone();
        assert!(wrong.is_empty(), "{what}: {wrong:#?}");
        assert!(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "{what}: the flows have failed");
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // What it failed with has been said.
            drop(thread.join());
        }
    }
}

/// One of them.
#[derive(Debug)]
struct Flow {
    number: u64,
    sent: u64,
    talk: Talk,
}

#[derive(Debug)]
enum Talk {
    Tcp(Box<Tcp>),
    Udp(Udp),
}

impl Flow {
    /// Sends a message, and hears what has come.
    fn round(&mut self, sends: bool, seen: &mut Seen) {
        let flow = usize::try_from(self.number).expect("few flows");
        let message = [self.number.to_be_bytes(), self.sent.to_be_bytes()].concat();
        let said = match &mut self.talk {
            Talk::Tcp(tcp) => if sends && self.sent < seen.heard[flow] + WINDOW {
                self.sent += 1;
                tcp.send(&message)
            } else {
                Ok(())
            }
            .and_then(|()| tcp.hear(self.number, &mut seen.heard[flow])),
            Talk::Udp(udp) => {
                // Where there is no way, an error says so; that it is lost is seen.
                if sends && seen.away[flow].insert(self.sent) {
                    drop(udp.client.send(&message));
                    self.sent += 1;
                }
                udp.hear(self.number, &mut seen.away[flow], &mut seen.heard[flow])
            }
        };
        if let Err(error) = said {
            seen.wrong.push(format!("flow {flow}: {error}"));
        }
    }
}

/// What a message says.
fn read(message: &[u8]) -> io::Result<(u64, u64)> {
    let word = |at: usize| message.get(at..)?.first_chunk().map(|word| u64::from_be_bytes(*word));
    word(0).zip(word(8)).filter(|_| message.len() == MESSAGE).ok_or_else(|| io::Error::other("no message of ours"))
}

/// An error, unless it says that there is nothing yet, or no way now.
fn unless_later(error: io::Error) -> io::Result<()> {
    use io::ErrorKind::{HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, WouldBlock};
    // That a port is refused says that somebody else has it, or nobody.
    let passes = [WouldBlock, Interrupted, HostUnreachable, NetworkUnreachable, NetworkDown];
    if passes.contains(&error.kind()) { Ok(()) } else { Err(error) }
}

// === TCP ===

/// A connection.
#[derive(Debug)]
struct Tcp {
    client: Side,
    server: Side,
}

/// An end of it.
#[derive(Debug)]
struct Side {
    stream: TcpStream,
    /// What has come and is not yet a message.
    rest: Vec<u8>,
    /// The number that must come next.
    next: u64,
}

impl Tcp {
    async fn begin(site: &FloatingHost, course: Course, port: u16) -> Self {
        let made = site.connect((course.from, course.to), course.address, port).await;
        assert_eq!(made.seen_as().ip(), course.seen, "{course:?}");
        let end = |stream: TcpStream| {
            stream.set_nonblocking(true).expect("do not wait");
            stream.set_nodelay(true).expect("do not collect");
            Side { stream, rest: Vec::new(), next: 0 }
        };
        Self { client: end(made.here), server: end(made.there) }
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.client.stream.write_all(message)
    }

    /// The server says everything again; the client counts it.
    fn hear(&mut self, flow: u64, heard: &mut u64) -> io::Result<()> {
        let again = self.server.messages(flow)?;
        self.server.stream.write_all(&again)?;
        *heard += self.client.messages(flow)?.len() as u64 / MESSAGE as u64;
        Ok(())
    }
}

impl Side {
    /// Whole messages that have come, all of which are the next ones of the flow.
    fn messages(&mut self, flow: u64) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the connection has ended")),
            Ok(length) => self.rest.extend(&buffer[..length]),
            Err(error) => unless_later(error)?,
        }
        let whole = self.rest.len() / MESSAGE * MESSAGE;
        let messages: Vec<u8> = self.rest.drain(..whole).collect();
        for message in messages.chunks(MESSAGE) {
            let said = read(message)?;
            if said != (flow, self.next) {
                return Err(io::Error::other(format!("{said:?} comes where {} of flow {flow} should", self.next)));
            }
            self.next += 1;
        }
        Ok(messages)
    }
}

// === UDP ===

/// Datagrams between two ends.
#[derive(Debug)]
struct Udp {
    course: Course,
    client: UdpSocket,
    server: UdpSocket,
    /// At the same port of somebody who must not get any.
    stranger: UdpSocket,
}

impl Udp {
    async fn begin(site: &FloatingHost, course: Course, port: u16) -> Self {
        let made = site.datagrams((course.from, course.to), course.address, port).await;
        let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
        let stranger = site.namespace(course.stranger).run(move || UdpSocket::bind(any)).await;
        let stranger = stranger.expect("enter").expect("bind");
        let super::Datagrams { client, server, address } = made;
        client.connect(address).expect("choose whom to talk to");
        for socket in [&client, &server, &stranger] {
            socket.set_nonblocking(true).expect("do not wait");
        }
        Self { course, client, server, stranger }
    }

    /// The server says everything again; the client counts it.
    fn hear(&self, flow: u64, away: &mut BTreeSet<u64>, heard: &mut u64) -> io::Result<()> {
        let mut message = [0; 64];
        while let Some((length, from)) = received(self.server.recv_from(&mut message))? {
            let (of, number) = read(&message[..length])?;
            if (of, from.ip()) != (flow, self.course.seen.into()) {
                return Err(io::Error::other(format!("{number} of flow {of} comes from {from}")));
            }
            // As above.
            drop(self.server.send_to(&message[..length], from));
        }
        while let Some(length) = received(self.client.recv(&mut message))? {
            let (of, number) = read(&message[..length])?;
            // One that comes later than anybody has waited for is known no more.
            let late = !away.remove(&number) && away.first().is_none_or(|first| number < *first);
            if of != flow || (away.contains(&number) && !late) {
                return Err(io::Error::other(format!("{number} of flow {of} comes back")));
            }
            *heard += 1;
        }
        match received(self.stranger.recv_from(&mut message))? {
            Some((_, from)) => Err(io::Error::other(format!("somebody else has got it, from {from}"))),
            None => Ok(()),
        }
    }
}

/// What has come, if anything has.
fn received<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => unless_later(error).map(|()| None),
    }
}
