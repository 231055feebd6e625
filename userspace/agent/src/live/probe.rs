//! Sends one packet that netdiag made itself, and asks for a MAC address. Flow: observe.
//!
//! At an instance's own device a packet socket sends: nothing inside is configured or opened, and the rules of that namespace
//! are not asked. At the host's end of a guest's, where only the guest can send, the kernel is told to take the packet as
//! received (`BPF_PROG_TEST_RUN` with live frames), so that filters, bridges and switches see it come from there.

use std::{
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use netdiag_model::{
    id::{LinkKey, Mac},
    live::probe::{Entry, neighbour_answer},
};
use rustix::net::{
    RecvFlags, recv,
    sockopt::{Timeout, set_socket_timeout},
};

use super::socket;
use crate::{
    discover::{self, Options},
    netns::{Namespace, NetnsError},
};

/// Hands frames to the host as received.
mod inject;

/// Frames longer than this are no answer of ARP or of neighbour discovery.
const LONGEST: usize = 128;

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The namespace of the device is gone or cannot be opened.
    #[error("open the network namespace of {0}: it is gone, or not to be opened without root")]
    Gone(String),
    /// It could not be entered.
    #[error("send by {device}")]
    Enter {
        /// The device.
        device: String,
        /// Why not.
        #[source]
        source: NetnsError,
    },
    /// The kernel refused.
    #[error("send by {device}")]
    Send {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A device by which can be sent.
#[derive(Debug)]
pub struct Sender {
    namespace: Namespace,
    ifindex: u32,
    name: String,
    entry: Entry,
}

impl Sender {
    /// Opens the namespace of a device.
    ///
    /// # Errors
    /// It is gone, or cannot be opened.
    pub async fn open((link, name): (LinkKey, &str), entry: Entry, options: &Options) -> Result<Self, SendError> {
        let namespaces = discover::namespaces(options).await;
        let namespace = namespaces.into_iter().find(|namespace| namespace.id == link.netns);
        let namespace = namespace.ok_or_else(|| SendError::Gone(name.to_owned()))?;
        Ok(Self { namespace, ifindex: link.ifindex.0, name: name.to_owned(), entry })
    }

    /// Sends one frame, once.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn send(&self, frame: Vec<u8>) -> Result<(), SendError> {
        let (entry, ifindex) = (self.entry, self.ifindex);
        self.run(move || hand_in(entry, ifindex, &frame)).await
    }

    /// Sends one question for a neighbour and waits for the answer; none where there is none in time.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn ask(&self, question: Vec<u8>, address: IpAddr, patience: Duration) -> Result<Option<Mac>, SendError> {
        let (entry, ifindex) = (self.entry, self.ifindex);
        self.run(move || {
            let listener = socket::open()?;
            socket::watch(&listener, ifindex)?;
            hand_in(entry, ifindex, &question)?;
            let until = Instant::now() + patience;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                set_socket_timeout(&listener, Timeout::Recv, Some(left))?;
                let mut frame = [0; LONGEST];
                match recv(&listener, &mut frame, RecvFlags::empty()) {
                    Ok((length, _)) => {
                        let answer = frame.get(..length).and_then(|frame| neighbour_answer(frame, address));
                        if answer.is_some() {
                            return Ok(answer);
                        }
                    }
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, SendError> {
        let device = || self.name.clone();
        let done = self.namespace.run(work).await.map_err(|source| SendError::Enter { device: device(), source })?;
        done.map_err(|source| SendError::Send { device: device(), source })
    }
}

/// Gives a frame to a device of the calling thread's namespace.
fn hand_in(entry: Entry, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    match entry {
        Entry::Sent => {
            let socket = socket::open()?;
            socket::send(&socket, ifindex, frame)
        }
        Entry::Received => inject::receive(ifindex, frame),
    }
}
