//! Numbered frames that machines send each other on and on while something happens to the policy, and what became of each.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use netdiag_common::logic::flow::tcp;

use crate::{agent::PATIENCE, machine::Machine};

/// Between two rounds of frames.
const PAUSE: Duration = Duration::from_micros(300);
/// First word of what numbered frames carry.
const MARK: [u8; 4] = *b"mark";

/// Makes the frame with the number that it is told; the bytes go at the end of it.
type Make = Box<dyn Fn(u64, &[u8]) -> Vec<u8> + Send>;

/// Frames of one kind from one machine to another.
pub struct Stream {
    name: &'static str,
    from: Arc<Machine>,
    to: Arc<Machine>,
    make: Make,
}

impl Stream {
    /// A stream of frames that a function makes.
    pub fn new(
        name: &'static str,
        (from, to): (&Arc<Machine>, &Arc<Machine>),
        make: impl Fn(&Machine, &Machine, u64, &[u8]) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let (source, target) = (Arc::clone(from), Arc::clone(to));
        let make = Box::new(move |number, data: &[u8]| make(&source, &target, number, data));
        Self { name, from: Arc::clone(from), to: Arc::clone(to), make }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One frame.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Before it was handed to the kernel.
    at: Instant,
    arrived: bool,
}

/// What became of the frames of a stream, in the order in which they were sent.
#[derive(Clone, Debug)]
pub struct Log {
    name: &'static str,
    sent: Vec<Sent>,
}

/// Streams on their way.
#[derive(Debug)]
pub struct Traffic {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Log>>,
}

impl Traffic {
    /// Sends one frame of each stream after the other, round after round.
    #[must_use]
    pub fn start(streams: Vec<Stream>) -> Self {
        let (rounds, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, told) = (Arc::clone(&rounds), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut logs: Vec<_> = streams.iter().map(|stream| Log { name: stream.name, sent: Vec::new() }).collect();
            while !told.load(Ordering::Acquire) {
                round(&streams, &mut logs);
                counted.fetch_add(1, Ordering::AcqRel);
                thread::sleep(PAUSE);
            }
            // Whatever a queue held up.
            thread::sleep(Duration::from_millis(100));
            for stream in &streams {
                collect(&stream.to, &mut logs);
            }
            logs
        });
        Self { rounds, stop, thread }
    }

    /// Waits until every stream has sent so many frames from now on.
    ///
    /// # Panics
    /// They do not go on.
    pub fn more(&self, frames: u64) {
        // The round that is under way began before.
        let wanted = self.rounds.load(Ordering::Acquire) + 1 + frames;
        let started = Instant::now();
        while self.rounds.load(Ordering::Acquire) < wanted {
            assert!(started.elapsed() < PATIENCE && !self.thread.is_finished(), "the frames do not go on");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it; what became of the frames, in the order of the streams.
    ///
    /// # Panics
    /// The streams have failed.
    #[must_use]
    pub fn stop(self) -> Vec<Log> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("streams of frames")
    }
}

fn round(streams: &[Stream], logs: &mut [Log]) {
    for (number, stream) in streams.iter().enumerate() {
        let place = logs[number].sent.len() as u64;
        let mut mark = [0; 20];
        mark[..4].copy_from_slice(&MARK);
        mark[4..12].copy_from_slice(&(number as u64).to_be_bytes());
        mark[12..].copy_from_slice(&place.to_be_bytes());
        let frame = (stream.make)(place, &mark);
        logs[number].sent.push(Sent { at: Instant::now(), arrived: false });
        stream.from.send(&frame);
        collect(&stream.to, logs);
    }
}

/// Notes what has reached a machine.
fn collect(machine: &Machine, logs: &mut [Log]) {
    while let Some(frame) = machine.receive() {
        let Some([mark @ .., _, _, _, _, _, _, _, _]) = frame.last_chunk::<20>() else { continue };
        let Some(place) = frame.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)) else { continue };
        let stream = mark.last_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        if mark.starts_with(&MARK) {
            let log = usize::try_from(stream).ok().and_then(|stream| logs.get_mut(stream)).expect("a stream");
            let sent = usize::try_from(place).ok().and_then(|place| log.sent.get_mut(place)).expect("a frame of it");
            assert!(!sent.arrived, "frame {place} of {} arrives twice", log.name);
            sent.arrived = true;
        }
    }
}

impl Log {
    /// Numbers of the frames that began on their way within a time.
    fn within(&self, time: &Range<Instant>) -> Range<usize> {
        let number = |at: Instant| self.sent.partition_point(|sent| sent.at < at);
        number(time.start)..number(time.end)
    }

    /// How many frames were sent.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.sent.len()
    }

    /// True if none was.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// How many of those arrived.
    #[must_use]
    pub fn arrived(&self) -> usize {
        self.sent.iter().filter(|sent| sent.arrived).count()
    }

    /// Every frame that was sent within a time has arrived, and there were at least so many.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn all_arrived(&self, what: &str, time: &Range<Instant>, least: usize) {
        self.check(what, time, least, true);
    }

    /// No frame that was sent within a time has arrived, and there were at least so many.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn none_arrived(&self, what: &str, time: &Range<Instant>, least: usize) {
        self.check(what, time, least, false);
    }

    #[track_caller]
    fn check(&self, what: &str, time: &Range<Instant>, least: usize, arrived: bool) {
        let within = self.within(time);
        let wrong: Vec<_> = within.clone().filter(|number| self.sent[*number].arrived != arrived).collect();
        let word = if arrived { "did not arrive" } else { "arrived" };
        let (name, sent) = (self.name, within.len());
        let some = &wrong[..wrong.len().min(8)];
        assert!(wrong.is_empty(), "{what}: {name}: {} of {sent} frames {word}: {some:?} of {within:?}", wrong.len());
        assert!(sent >= least, "{what}: {name}: only {sent} frames were sent");
    }
}

// === kinds of streams ===

/// UDP datagrams of one flow.
#[must_use]
pub fn udp(name: &'static str, ends: (&Arc<Machine>, &Arc<Machine>), ports: (u16, u16)) -> Stream {
    Stream::new(name, ends, move |from, to, _, mark| from.udp(to, ports.0, ports.1, mark))
}

/// The same over IPv6.
#[must_use]
pub fn udp6(name: &'static str, ends: (&Arc<Machine>, &Arc<Machine>), ports: (u16, u16)) -> Stream {
    Stream::new(name, ends, move |from, to, _, mark| from.udp6(to, ports.0, ports.1, mark))
}

/// Segments of a TCP connection that is there already.
#[must_use]
pub fn tcp(name: &'static str, ends: (&Arc<Machine>, &Arc<Machine>), ports: (u16, u16)) -> Stream {
    Stream::new(name, ends, move |from, to, _, mark| from.tcp(to, ports, PSH | tcp::ACK, mark))
}

/// UDP datagrams that each begin a flow.
#[must_use]
pub fn fresh(name: &'static str, ends: (&Arc<Machine>, &Arc<Machine>), port: u16) -> Stream {
    let source = |number: u64| 10_000 + u16::try_from(number % 50_000).unwrap_or_default();
    Stream::new(name, ends, move |from, to, number, mark| from.udp(to, source(number), port, mark))
}

/// PSH, which says nothing about a connection.
const PSH: u8 = 0x08;

/// What the server of two flows sends while its client is silent: such a frame passes only as long as its flow is remembered. The
/// two flows are begun here.
///
/// # Panics
/// They cannot be begun.
#[must_use]
pub fn answers_alone(client: &Arc<Machine>, server: &Arc<Machine>, port: u16) -> [Stream; 2] {
    assert!(client.reaches(server, &client.udp(server, 6001, port, b"question")), "a question");
    assert!(handshake(client, server, (6002, port)), "a connection");
    [
        udp("udp back to a silent client", (server, client), (port, 6001)),
        tcp("tcp back to a silent client", (server, client), (port, 6002)),
    ]
}

/// Opens a TCP connection. True if all three segments arrive.
#[must_use]
pub fn handshake(client: &Machine, server: &Machine, (source, destination): (u16, u16)) -> bool {
    client.reaches(server, &client.tcp(server, (source, destination), tcp::SYN, b""))
        && server.reaches(client, &server.tcp(client, (destination, source), tcp::SYN | tcp::ACK, b""))
        && client.reaches(server, &client.tcp(server, (source, destination), tcp::ACK, b""))
}
