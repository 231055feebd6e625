//! Virtual machines whose TAP devices are ports of one bridge. The test is all of them: it writes the frames they send and reads
//! those that reach them.
//!
//! The kernel carries a frame from one TAP device through the bridge to another within the write: when that returns, the frame
//! lies at its destination or was dropped. So a test knows of each frame which policy decided about it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    thread,
    time::{Duration, Instant},
};

use netdiag_common::logic::flow::protocol;
use netdiag_model::id::Mac;

use crate::{
    agent::{PATIENCE, run},
    packets::bytes::{self, Ip},
};

/// `TUNSETIFF` of `linux/if_tun.h`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// `IFF_TAP` and `IFF_NO_PI`: frames, and nothing before them.
const FRAMES: u16 = 0x0002 | 0x1000;

/// `struct ifreq` of `linux/if.h`, as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// A machine with one network card.
#[derive(Debug)]
pub struct Machine {
    /// Its TAP device on the host.
    pub device: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its address of the other family.
    pub address6: Ipv6Addr,
    card: File,
}

/// Makes the bridge.
///
/// # Panics
/// It cannot be made.
pub fn bridge() {
    bridge_named("br0");
}

/// Makes a bridge.
///
/// # Panics
/// It cannot be made.
pub fn bridge_named(name: &str) {
    // What the host says of itself would be noise between the frames.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("disable IPv6");
    // Frames are decided about by netdiag alone, and their checksums are 0; where the module is not loaded there is no such file.
    for family in ["iptables", "ip6tables", "arptables"] {
        drop(std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), "0"));
    }
    run(&format!("ip link add {name} type bridge stp_state 0 mcast_snooping 0"));
    run(&format!("ip link set {name} up"));
}

/// Waits until the bridge carries frames from each machine to each other: the kernel opens its ports in its own time.
///
/// # Panics
/// It never does.
pub fn wait_for_bridge(machines: &[&Machine]) {
    let started = Instant::now();
    let probe = |one: &Machine, other: &Machine| one.reaches(other, &one.udp(other, 1, 1, b"probe"));
    for one in machines {
        while !machines.iter().all(|other| one.device == other.device || probe(one, other)) {
            assert!(started.elapsed() < PATIENCE, "the bridge does not carry frames");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Machine {
    /// A machine at the bridge: its MAC address ends in its number, as do its addresses in `192.0.2.0/24` and `2001:db8::/64`.
    ///
    /// # Panics
    /// Its device cannot be made.
    #[must_use]
    pub fn at_bridge(device: &str, number: u8) -> Self {
        Self::at("br0", device, number)
    }

    /// The same at another bridge: with the same number it has the same MAC address and the same addresses there.
    ///
    /// # Panics
    /// Its device cannot be made.
    #[must_use]
    pub fn at(bridge: &str, device: &str, number: u8) -> Self {
        let mac = Mac([2, 0, 0, 0, 0, number]);
        run(&format!("ip tuntap add {device} mode tap"));
        // As long a queue as any test lets become full.
        run(&format!("ip link set {device} txqueuelen 20000"));
        let card = open(device).expect("open a TAP device");
        run(&format!("ip link set {device} master {bridge} up"));
        run(&format!("bridge fdb replace {mac} dev {device} master static"));
        let address6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
        Self { device: device.to_owned(), mac, address: Ipv4Addr::new(192, 0, 2, number), address6, card }
    }

    /// Index of its device on the host.
    ///
    /// # Panics
    /// The device is gone.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        let line = run(&format!("ip -o link show dev {}", self.device));
        line.split(':').next().and_then(|index| index.parse().ok()).expect("an index")
    }

    /// Sends a frame.
    ///
    /// # Panics
    /// The host does not take it.
    pub fn send(&self, frame: &[u8]) {
        (&self.card).write_all(frame).expect("write a frame");
    }

    /// The next frame that has reached it.
    ///
    /// # Panics
    /// The device is broken.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = [0; 2048];
        match (&self.card).read(&mut frame) {
            Ok(length) => Some(frame[..length].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("read a frame: {error}"),
        }
    }

    /// Sends a frame to another machine. True if the very same arrives there.
    #[must_use]
    pub fn reaches(&self, other: &Self, frame: &[u8]) -> bool {
        self.send(frame);
        let mut arrived = false;
        while let Some(got) = other.receive() {
            arrived |= got == frame;
        }
        arrived
    }

    /// An IPv4 packet to another machine, in its frame.
    #[must_use]
    pub fn ipv4(&self, other: &Self, protocol: u8, content: &[u8]) -> Vec<u8> {
        let ip = Ip::new(IpAddr::V4(self.address), IpAddr::V4(other.address), protocol);
        bytes::ethernet(other.mac, self.mac, bytes::IPV4, &ip.packet(content))
    }

    /// An Ethernet frame from this machine's MAC address.
    #[must_use]
    pub fn ethernet(&self, to: Mac, ethertype: u16, content: &[u8]) -> Vec<u8> {
        bytes::ethernet(to, self.mac, ethertype, content)
    }

    /// An IP packet from this machine's MAC address, with whatever addresses.
    #[must_use]
    pub fn ip(&self, to: Mac, (source, destination): (IpAddr, IpAddr), protocol: u8, content: &[u8]) -> Vec<u8> {
        let ip = Ip::new(source, destination, protocol);
        self.ethernet(to, ip.ethertype(), &ip.packet(content))
    }

    /// A UDP datagram to another machine.
    #[must_use]
    pub fn udp(&self, other: &Self, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
        self.ipv4(other, protocol::UDP, &datagram(source, destination, data))
    }

    /// The same over IPv6.
    #[must_use]
    pub fn udp6(&self, other: &Self, source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
        let ends = (self.address6.into(), other.address6.into());
        self.ip(other.mac, ends, protocol::UDP, &datagram(source, destination, data))
    }

    /// A TCP segment to another machine; `flags` are those of octet 13.
    #[must_use]
    pub fn tcp(&self, other: &Self, (source, destination): (u16, u16), flags: u8, data: &[u8]) -> Vec<u8> {
        let mut content = bytes::tcp(source, destination, flags, 0);
        content.extend(data);
        self.ipv4(other, protocol::TCP, &content)
    }

    /// A port of the policy for this machine's device, as JSON.
    #[must_use]
    pub fn port(&self, id: &str, groups: &[&str]) -> String {
        let Self { device, mac, address, address6, .. } = self;
        format!(
            r#"{{"id": "{id}", "mac_address": "{mac}", "fixed_ips": [{{"ip_address": "{address}"}}, {{"ip_address": "{address6}"}}],
                 "security_groups": {groups:?}, "binding": {{"device": "{device}"}}}}"#
        )
    }
}

fn datagram(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let mut content = bytes::udp(source, destination, data.len());
    content.truncate(8);
    content.extend(data);
    content
}

#[expect(unsafe_code, reason = "no crate here wraps the request that makes an open file a TAP device")]
fn open(device: &str) -> io::Result<File> {
    let card = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut name = [0; 16];
    name[..device.len()].copy_from_slice(device.as_bytes());
    let request = Request { name, flags: FRAMES, rest: [0; 22] };
    // SAFETY: the request reads a `struct ifreq`, which has 40 bytes on every 64-bit machine, as `Request` has.
    let result = unsafe { libc::ioctl(card.as_raw_fd(), TUNSETIFF, std::ptr::from_ref(&request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(card) }
}

const _: () = assert!(size_of::<Request>() == 40);
