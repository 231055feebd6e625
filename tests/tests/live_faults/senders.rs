//! Packets that no command sends: with a checksum that is wrong, for a socket that nobody reads, for a listener that takes nobody,
//! and so many at once that a CPU has no room for them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    path::Path,
};

use netdiag_agent::netns::Namespace;
use netdiag_model::id::Mac;
use netdiag_tests::{Lab, Target, behaviour::wire::Wire};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};
use serde_json::Value;

/// Where nobody reads.
const PORT: u16 = 7777;

/// Two instances of one network of the first host.
pub(crate) struct Senders {
    to: (Namespace, Ipv4Addr),
    /// MAC address of the one they are for.
    mac: Mac,
    from: (Namespace, Ipv4Addr),
    raw: UdpSocket,
}

/// Runs work in a namespace.
fn within<T: Send + 'static>(netns: &Namespace, work: impl FnOnce() -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(netns.run(work)).unwrap()
}

/// The first process of a host.
fn first(lab: &Lab, name: &str) -> u64 {
    let hosts = lab.built["hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["name"] == name).unwrap()["pid"].as_u64().unwrap()
}

/// A process's parent.
fn parent(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// The process of the gateway between the hosts: process 1 of a host is started by the maker of its namespaces, and that one
/// by the gateway.
pub(crate) fn gateway(lab: &Lab) -> u64 {
    parent(parent(first(lab, "outside")))
}

fn end(lab: &Lab, instance: &Value) -> (Namespace, Ipv4Addr) {
    let path = format!("/proc/{}/root/proc/{}/ns/net", first(lab, "compute-1"), instance["pid"]);
    let address = instance["ports"][0]["address"]["address"].as_str().unwrap().parse().unwrap();
    (Namespace::open(Path::new(&path)).unwrap(), address)
}

impl Senders {
    /// From one instance to another, by their names.
    pub(crate) fn new(lab: &Lab, to: &str, from: &str) -> Self {
        let instances = lab.instances("compute-1");
        let find = |name: &str| instances.iter().find(|one| one["display_name"] == name).unwrap();
        let mac = find(to)["ports"][0]["mac"].as_str().unwrap().parse().unwrap();
        let (to, from) = (end(lab, find(to)), end(lab, find(from)));
        let open = || rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW));
        let raw = UdpSocket::from(within(&from.0, open).unwrap());
        Self { to, mac, from, raw }
    }

    /// Sends a datagram with a wrong checksum.
    pub(crate) fn damaged(&self) {
        let mut packet = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(self.from.1.octets());
        packet.extend(self.to.1.octets());
        // From port 9 to 9, 16 bytes with the header; no checksum of zeros and nines is this one.
        packet.extend([0, 9, 0, 9, 0, 16, 0x12, 0x34]);
        packet.extend([9; 8]);
        self.raw.send_to(&packet, (self.to.1, 0)).unwrap();
    }

    /// Opens a socket with as little room as there can be, and sends it more than that; nobody reads.
    pub(crate) fn full_socket(&self) -> impl Fn() + Sync + use<> {
        let (to, address) = self.to.clone();
        let reader = within(&to, || UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
        sockopt::set_socket_recv_buffer_size(&reader, 1).unwrap();
        let sender = within(&self.from.0, || UdpSocket::bind(("0.0.0.0", 0)).unwrap());
        move || {
            for _ in 0..8 {
                // It is open for as long as anybody sends.
                let _room = &reader;
                sender.send_to(&[0; 1000], (address, PORT)).unwrap();
            }
        }
    }

    /// Opens a listener with room for one connection, which has one, and takes nobody: it stays so for the rest of the test. Returns
    /// where it listens.
    pub(crate) fn full_listener(&self) -> (Ipv4Addr, u16) {
        let (to, address) = self.to.clone();
        let listener = within(&to, || {
            let listener = stream();
            bind(&listener, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            listen(&listener, 0).unwrap();
            listener
        });
        let caller = within(&self.from.0, move || TcpStream::connect((address, PORT)).unwrap());
        std::mem::forget((listener, caller));
        (address, PORT)
    }

    /// Sends more segments at once than the queue of a CPU has room for (`net.core.netdev_max_backlog`, 1000), to nobody.
    pub(crate) fn crowd(&self, target: &Target) -> impl Fn() + Sync + use<> {
        let device = target.inner.clone();
        let wire = within(&self.to.0, move || Wire::open(&device).unwrap());
        let frame = large((self.mac, self.to.1));
        move || wire.send_cut(&frame, 40)
    }
}

/// A socket of TCP.
fn stream() -> OwnedFd {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

/// How much a large frame carries.
const CARRIED: u16 = 60_000;

/// A frame of TCP, larger than any packet, from somebody to an address of the same network that nobody has.
fn large((mac, from): (Mac, Ipv4Addr)) -> Vec<u8> {
    let [a, b, c, _] = from.octets();
    let to = [a, b, c, 222];
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip[2..4].copy_from_slice(&(40 + CARRIED).to_be_bytes());
    let ends = [from.octets(), to].concat();
    let sum = !sum(&[&ip[..], &ends].concat());
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // The kernel goes on from the sum of what it does not see.
    let pseudo = self::sum(&[&ends[..], &[0, 6], &(20 + CARRIED).to_be_bytes()].concat());
    let tcp = [&[9, 9, 9, 9, 0, 0, 4, 0, 0, 0, 0, 1, 0x50, 0x10, 2, 0][..], &pseudo.to_be_bytes(), &[0, 0]].concat();
    let frame = [&[2, 0, 0, 0, 0, 0x77][..], &mac.0, &[8, 0]].concat();
    [frame, ip, ends, tcp, vec![0; CARRIED.into()]].concat()
}

/// The sum that checksums of IP are made of.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}
