//! The network: four instances at one Linux bridge. Frames go from the first to the second; the others are there to be watched in vain.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use netdiag_agent::{live::Point, netns::Namespace};
use netdiag_model::{
    id::{IfIndex, LinkKey},
    live::{Clause, End, Filter, Product, View},
};

use super::{
    batches::{BATCH, Frames},
    frames::{self, ACK, tcp},
    kernel::{self, Kind, packet_socket},
    stats::Samples,
    world::{OPEN, ifindex, run},
};

/// Length of the frames: the shortest there is.
const LENGTH: usize = 60;
/// Instances, by place.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Addresses of those between which frames go, and one that nobody has.
pub(super) const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);
/// MAC addresses in the frames; the instances' own devices have others, so that what arrives ends there.
const MACS: [[u8; 6]; 2] = [[0xfa, 0x16, 0x3e, 0, 0, 3], [0xfa, 0x16, 0x3e, 0, 0, 4]];

/// An instance: a namespace with a device, whose other end is here, at the bridge.
struct Instance {
    namespace: Namespace,
    points: [Point; 2],
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// MAC address of the device of an instance.
fn own(place: usize) -> String {
    format!("fa:16:3e:00:01:{place:02x}")
}

fn point(namespace: &Namespace, index: u32, name: String) -> Point {
    let link = LinkKey { netns: namespace.id, ifindex: IfIndex(index) };
    Point { link, name, received: true, sent: true, view: View::Tc }
}

impl Instance {
    async fn new(host: &Namespace, place: usize) -> Result<Self> {
        let name = NAMES[place];
        let (tap, mac) = (format!("tap{name}"), own(place));
        run(&["ip", "netns", "add", name])?;
        run(&["ip", "link", "add", &tap, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", name])?;
        run(&["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        run(&["ip", "link", "set", &tap, "master", "bridge", "up"])?;
        run(&["ip", "-n", name, "link", "set", "eth0", "up"])?;
        run(&["ip", "-n", name, "address", "add", &format!("10.77.0.{}/24", place + 1), "dev", "eth0"])?;
        let namespace = Namespace::open(&Path::new("/run/netns").join(name))?;
        let index = namespace.run(|| ifindex("eth0")).await??;
        let points = [point(&namespace, index, format!("eth0@{name}")), point(host, ifindex(&tap)?, tap)];
        Ok(Self { namespace, points })
    }

    /// Says which MAC address an address has.
    fn know(name: &str, address: usize) -> Result<()> {
        let (address, mac) = (format!("10.77.0.{}", address + 1), own(address));
        run(&["ip", "-n", name, "neighbour", "replace", &address, "lladdr", &mac, "dev", "eth0", "nud", "permanent"])
            .map(drop)
    }
}

/// The network, and the frames.
pub(super) struct Scene {
    instances: Vec<Instance>,
    socket: OwnedFd,
    frames: Frames,
}

impl Scene {
    /// Lays the cables.
    pub(super) async fn new() -> Result<Self> {
        for family in ["all", "default"] {
            run(&["sysctl", "-qw", &format!("net.ipv6.conf.{family}.disable_ipv6=1")])?;
        }
        run(&["ip", "link", "add", "bridge", "up", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0"])?;
        if Path::new("/proc/sys/net/bridge").exists() {
            run(&["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"])?;
        }
        let host = Namespace::open(Path::new("/proc/self/ns/net"))?;
        let mut instances = Vec::new();
        for place in 0..NAMES.len() {
            instances.push(Instance::new(&host, place).await?);
        }
        for (mac, tap) in MACS.into_iter().zip(["tapa", "tapb"]) {
            run(&["bridge", "fdb", "replace", &text(mac), "dev", tap, "master", "static"])?;
        }
        Instance::know("a", 1)?;
        Instance::know("b", 0)?;
        let from = &instances[0].namespace;
        let socket = from.run(|| ifindex("eth0").and_then(|index| Ok(packet_socket(index)?))).await??;
        let [here, there] = [(MACS[0], HERE, 40_000), (MACS[1], THERE, OPEN)].map(|(mac, address, port)| frames::End {
            mac,
            address: IpAddr::from(address),
            port,
        });
        let frames = Frames::new(vec![tcp(here, there, ACK, LENGTH); BATCH]);
        Ok(Self { instances, socket, frames })
    }

    /// The namespace of an instance.
    pub(super) fn namespace(&self, place: usize) -> &Namespace {
        &self.instances[place].namespace
    }

    /// Both sides of the devices of the instances at these places.
    pub(super) fn points(&self, places: std::ops::Range<usize>) -> Vec<Point> {
        self.instances[places].iter().flat_map(|instance| instance.points.clone()).collect()
    }

    /// Attaches programs in which there is nothing to both sides of the devices of the instances at these places, for as long as what is
    /// returned lives.
    pub(super) async fn attach_empty(&self, places: std::ops::Range<usize>) -> Result<Vec<OwnedFd>> {
        // r0 = TCX_NEXT; exit
        let program = Arc::new(kernel::load(Kind::Classifier, &[0xffff_ffff_0000_00b7, 0x95])?);
        let mut links = Vec::new();
        for instance in &self.instances[places] {
            let [inside, outside] = instance.points.each_ref().map(|point| point.link.ifindex.0);
            let attach =
                |program: &OwnedFd, device| [false, true].map(|egress| kernel::attach(program, device, egress));
            links.extend(attach(&program, outside));
            let program = Arc::clone(&program);
            links.extend(instance.namespace.run(move || attach(&program, inside)).await?);
        }
        Ok(links.into_iter().collect::<std::io::Result<_>>()?)
    }

    /// Sends one batch of frames, which adds a sample.
    pub(super) fn send(&mut self, samples: &mut Samples) -> Result<()> {
        self.frames.measure(&self.socket, (0, 1), samples)
    }

    /// Frames that have arrived.
    pub(super) async fn arrived(&self) -> Result<u64> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
        let text = self.namespace(1).run(read).await??;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).context("no eth0")?;
        Ok(line.split_whitespace().nth(1).context("no count of packets")?.parse()?)
    }
}

/// A filter that covers everything that is sent here, or nothing of it.
pub(super) fn filter(covers: bool) -> Filter {
    let end = |address: Ipv4Addr| End { prefix: Some((IpAddr::from(address), 32)), ports: None };
    let here = end(if covers { HERE } else { NOBODY });
    let clause = Clause { protocol: Some(6), here, there: end(THERE), ..Clause::default() };
    Filter { clauses: vec![clause], products: vec![Product { covered: 1, uncovered: 0 }] }
}
