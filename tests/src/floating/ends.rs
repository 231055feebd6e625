//! Who sends and receives: an end of the way of a floating IP, in a namespace of its own.

use std::{fs, io, net::Ipv4Addr, net::UdpSocket, path::Path, process::Command, time::Duration};

use netdiag_agent::netns::Namespace;
use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::capture::Capture;

/// For packets that are on their way, on a machine that has much else to do.
pub const ARRIVES: Duration = Duration::from_secs(20);

/// Runs work in a namespace.
///
/// # Panics
/// It cannot be entered.
pub fn within<T: Send + 'static>(netns: &Namespace, work: impl FnOnce() -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(netns.run(work)).expect("enter the namespace")
}

/// What a command prints that runs in a namespace.
///
/// # Panics
/// It fails.
pub fn command(netns: &Namespace, words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let output = within(netns, move || command.output()).expect("start a program");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Somebody who sends and receives.
#[derive(Clone, Debug)]
pub struct End {
    /// Its namespace.
    pub netns: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    /// It leaves checksums and segments to the hardware.
    pub offload: bool,
    /// Of an end that is a whole host: the device by which packets come to it. What it sends is not seen there, as programs
    /// take it before anybody sees it.
    pub device: Option<&'static str>,
}

impl End {
    /// One in the namespace of a path.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn new(path: &str, address: Ipv4Addr) -> Self {
        let netns = Namespace::open(Path::new(path)).expect("open the namespace");
        // Every error is told: what is compared must not depend on how many there were before.
        within(&netns, || fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0")).expect("tell every error");
        Self { netns, address, offload: false, device: None }
    }

    /// A UDP socket at a port.
    ///
    /// # Panics
    /// It is taken.
    #[must_use]
    pub fn udp(&self, port: u16) -> UdpSocket {
        let socket = within(&self.netns, move || UdpSocket::bind(("0.0.0.0", port))).expect("bind");
        socket.set_read_timeout(Some(ARRIVES)).expect("set a timeout");
        socket
    }

    /// A raw socket of ICMP.
    ///
    /// # Panics
    /// There is no right to make one.
    #[must_use]
    pub fn icmp(&self) -> UdpSocket {
        let open = || rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP));
        UdpSocket::from(within(&self.netns, open).expect("a raw socket"))
    }

    /// Forgets what has been learned of paths.
    ///
    /// # Panics
    /// There is no right to do so.
    pub fn forget_paths(&self) {
        within(&self.netns, || fs::write("/proc/sys/net/ipv4/route/flush", "1")).expect("flush routes");
    }

    /// What comes and goes here, from now on.
    pub(super) fn capture(&self) -> io::Result<Capture> {
        let device = self.device;
        within(&self.netns, move || device.map_or_else(Capture::open, Capture::arriving))
    }
}
