//! Packets that no command sends: with a checksum that is wrong, and for a socket that nobody reads.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
};

use netdiag_agent::netns::Namespace;
use netdiag_tests::Lab;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use serde_json::Value;

/// Where nobody reads.
const PORT: u16 = 7777;

/// Two instances of one network of the first host.
pub(crate) struct Senders {
    to: (Namespace, Ipv4Addr),
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
        let find = |name: &str| end(lab, instances.iter().find(|one| one["display_name"] == name).unwrap());
        let (to, from) = (find(to), find(from));
        let open = || rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW));
        let raw = UdpSocket::from(within(&from.0, open).unwrap());
        Self { to, from, raw }
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
}
