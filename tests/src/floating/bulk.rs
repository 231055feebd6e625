//! TCP connections at full speed, both directions at once, whose every byte is known by its place.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use super::ends::{End, within};
use crate::agent::PATIENCE;

/// Every byte is the rest of its place in a division by this prime: one that is missing or too many is seen.
const PERIOD: usize = 251;
/// Bytes that are written and read at once; a multiple of the period.
const PIECE: usize = PERIOD * 256;

/// A connection at full speed.
#[derive(Debug)]
pub struct Bulk {
    streams: [TcpStream; 2],
    /// Bytes that have come to either end.
    came: [Arc<AtomicU64>; 2],
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Whom the end that was asked takes the other one for.
    pub seen_as: SocketAddr,
}

impl Bulk {
    /// Connects an end to an address that leads to another one, and begins.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn start(from: &End, to: &End, address: Ipv4Addr, port: u16) -> Self {
        let listener = within(&to.netns, move || TcpListener::bind(("0.0.0.0", port))).expect("listen");
        let connect = move || TcpStream::connect_timeout(&(address, port).into(), PATIENCE);
        let here = within(&from.netns, connect).expect("connect");
        let (there, seen_as) = listener.accept().expect("accept");
        let (came, stop) = ([Arc::default(), Arc::default()], Arc::<AtomicBool>::default());
        let streams = [here, there];
        let mut threads = Vec::new();
        for (stream, came) in streams.iter().zip(&came) {
            stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
            let share = || stream.try_clone().expect("share a socket");
            let (sends, receives, stop, came) = (share(), share(), Arc::clone(&stop), Arc::clone(came));
            threads.push(thread::spawn(move || send(sends, &stop)));
            threads.push(thread::spawn(move || receive(receives, &came)));
        }
        Self { streams, came, stop, threads, seen_as }
    }

    /// Waits until so many more bytes have come to both ends.
    ///
    /// # Panics
    /// They do not come, or are not those that were sent.
    #[track_caller]
    pub fn goes_on(&self, bytes: u64, what: &str) {
        let came = || self.came.each_ref().map(|came| came.load(Ordering::Relaxed));
        let (before, started) = (came(), Instant::now());
        while came().iter().zip(before).any(|(now, before)| now - before < bytes) {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "{what}: it has ended");
            assert!(started.elapsed() < PATIENCE, "{what}: {before:?}, and then {:?}", came());
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Ends it from both sides: each hears the other one out, and that it is over.
    ///
    /// # Panics
    /// One does not.
    pub fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("all that was sent has come, and then the end");
        }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for stream in &self.streams {
            // It may be over already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// So many bytes from a place on that is a multiple of the period.
fn content(length: usize) -> Vec<u8> {
    (0..PERIOD).cycle().take(length).map(|byte| byte.to_le_bytes()[0]).collect()
}

fn send(mut stream: TcpStream, stop: &AtomicBool) {
    let piece = content(PIECE);
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = stream.write_all(&piece) {
            assert!(stop.load(Ordering::Relaxed), "send: {error}");
        }
    }
    // Where all has been given up already nobody waits for it.
    drop(stream.shutdown(Shutdown::Write));
}

fn receive(mut stream: TcpStream, came: &AtomicU64) {
    let (mut piece, content) = (vec![0; PIECE], content(PIECE + PERIOD));
    let mut place = 0;
    loop {
        let length = stream.read(&mut piece).expect("receive");
        if length == 0 {
            return;
        }
        assert!(piece[..length] == content[place..place + length], "other bytes than were sent");
        place = (place + length) % PERIOD;
        came.fetch_add(length.try_into().expect("a small number"), Ordering::Relaxed);
    }
}
