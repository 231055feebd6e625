//! What the whole way costs: instance, veth, bridge, veth, instance, on one CPU.
//!
//! The same frames go through a bridge without a filter, through the same bridge with netdiag at both instances' devices,
//! and through what Neutron's `iptables_hybrid` builds of bridges and veths around an instance, with and without its rules.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use netdiag_agent::{enforce::Hook, netns::Namespace};

use super::{
    batches::{BATCH, Frames},
    frames::{ACK, End, SYN, SYN_ACK, tcp},
    hybrid::Rules,
    kernel::{self, Kind, packet_socket},
    least::Least,
    stats::Samples,
    world::{BenchPort, Host, OPEN, Size, World, bytes_of_notes, ifindex, run},
};

/// Connections that are tracked; a multiple of the batch.
pub(super) const TRACKED: u32 = 100_032;
/// Length of the frames: the shortest there is.
const LENGTH: usize = 60;

/// The two instances, with the addresses Neutron's rules know.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) from: BenchPort,
    pub(super) to: BenchPort,
}

/// A way from one instance to another.
struct Way {
    there: OwnedFd,
    back: OwnedFd,
    /// In the receiver's namespace, to count what has arrived.
    arrivals: Namespace,
}

/// One thing that is measured.
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// Through the cables of the hybrid plug.
    hybrid: bool,
    pub(super) one: Samples,
    pub(super) turn: Samples,
    pub(super) new: Samples,
}

impl Variant {
    fn new(name: &'static str) -> Self {
        let hybrid = [CABLES, HYBRID10, HYBRID1000].contains(&name);
        Self { name, hybrid, one: Samples::default(), turn: Samples::default(), new: Samples::default() }
    }
}

/// Both ends of the connection of a place among many.
fn ends(pair: &Pair, place: u32) -> [End; 2] {
    // Of each pair of addresses 40,000 connections, then the next address.
    let port = u16::try_from(20_000 + place % 40_000).unwrap_or(u16::MAX);
    let end = |of: &BenchPort, port| End { mac: of.mac, address: IpAddr::V4(of.ipv4), port };
    let service = OPEN + u16::try_from(place / 40_000).unwrap_or(0);
    [end(&pair.from, port), end(&pair.to, service)]
}

fn frames(pair: &Pair, places: std::ops::Range<u32>, flags: u8) -> Frames {
    let frame = |place| {
        let [own, other] = ends(pair, place);
        if flags == SYN_ACK { tcp(other, own, flags, LENGTH) } else { tcp(own, other, flags, LENGTH) }
    };
    Frames::new(places.map(frame).collect())
}

/// Adds an instance: a namespace with a device, whose other end gets a name here.
fn instance(name: &str, tap: &str) -> Result<()> {
    run(&["ip", "netns", "add", name])?;
    run(&["ip", "link", "add", tap, "type", "veth", "peer", "name", "eth0", "netns", name])?;
    run(&["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
    run(&["ip", "-n", name, "link", "set", "eth0", "up"])?;
    run(&["ip", "link", "set", tap, "up"]).map(drop)
}

fn bridge(name: &str, ports: &[&str]) -> Result<()> {
    run(&["ip", "link", "add", name, "up", "type", "bridge", "mcast_snooping", "0"])?;
    ports.iter().try_for_each(|port| run(&["ip", "link", "set", port, "master", name, "up"]).map(drop))
}

/// Tells a bridge where a MAC address is. The instances' own devices have others, so that what arrives ends there.
fn learn(mac: [u8; 6], port: &str) -> Result<()> {
    let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
    run(&["bridge", "fdb", "replace", &mac, "dev", port, "master", "static"]).map(drop)
}

async fn socket(namespace: &str) -> Result<(OwnedFd, Namespace)> {
    let namespace = Namespace::open(&Path::new("/run/netns").join(namespace))?;
    let socket = namespace.run(|| ifindex("eth0").and_then(|index| Ok(packet_socket(index)?))).await??;
    Ok((socket, namespace))
}

impl Way {
    async fn between(from: &str, to: &str) -> Result<Self> {
        let ((there, _), (back, arrivals)) = (socket(from).await?, socket(to).await?);
        Ok(Self { there, back, arrivals })
    }

    /// Frames that have arrived.
    async fn arrived(&self) -> Result<u64> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
        let text = self.arrivals.run(read).await??;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).context("no eth0")?;
        Ok(line.split_whitespace().nth(1).context("no count of packets")?.parse()?)
    }
}

/// The plain bridge and the one of the hybrid plug, and everything that goes through them.
pub(super) struct Bench {
    plain: Way,
    hybrid: Way,
    taps: [u32; 2],
    rules: Rules,
    one: Frames,
    turn: Frames,
    fresh: Frames,
    handshake: [Frames; 3],
    least: Least,
    pub(super) variants: Vec<Variant>,
    /// Bytes of the map of IPv4 flows, with those of one instance of the two.
    pub(super) flow_bytes: u64,
    /// The same of the notes of settled flows.
    pub(super) note_bytes: u64,
}

/// What is measured, in this order.
const BRIDGE: &str = "bridge, no filter";
const EMPTY: &str = "two hooks, empty programs";
const LEAST: &str = "two hooks, a flow looked up at each";
const HOOKS: &str = "netdiag's hooks, no port";
const NETDIAG10: &str = "netdiag, 10 rules";
const NETDIAG1000: &str = "netdiag, 1000 rules";
const CABLES: &str = "hybrid's cables, no filter";
const HYBRID10: &str = "iptables_hybrid, 10 rules";
const HYBRID1000: &str = "iptables_hybrid, 1000 rules";
/// What is measured of two objects, in this order.
const OTHER: &str = "the other object, 10 rules";
const THIS: &str = "this object, 10 rules";

impl Bench {
    /// Lays the cables.
    pub(super) async fn new(rules: Rules, compared: bool) -> Result<Self> {
        let pair = rules.pair();
        run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        instance("a", "tapa")?;
        instance("b", "tapb")?;
        bridge("plain", &["tapa", "tapb"])?;
        learn(pair.from.mac, "tapa")?;
        learn(pair.to.mac, "tapb")?;
        hybrid_cables(&rules, &pair)?;
        let [plain, hybrid] = [Way::between("a", "b").await?, Way::between("ha", "hb").await?];
        let many = || 0..TRACKED;
        let handshake = [SYN, SYN_ACK, ACK].map(|flags| frames(&pair, many(), flags));
        let one = Frames::new(vec![tcp(ends(&pair, 0)[0], ends(&pair, 0)[1], ACK, LENGTH); BATCH]);
        let (turn, fresh) = (frames(&pair, many(), ACK), frames(&pair, FRESH, SYN));
        let least = Least::new(&[&turn, &fresh]).context("make the map of the least programs")?;
        let all: &[_] = if compared {
            &[BRIDGE, EMPTY, LEAST, OTHER, THIS]
        } else {
            &[BRIDGE, EMPTY, LEAST, HOOKS, NETDIAG10, NETDIAG1000, CABLES, HYBRID10, HYBRID1000]
        };
        let variants = all.iter().copied().map(Variant::new).collect();
        let taps = [ifindex("tapa")?, ifindex("tapb")?];
        let (flow_bytes, note_bytes) = (0, 0);
        Ok(Self { plain, hybrid, taps, rules, one, turn, fresh, handshake, least, variants, flow_bytes, note_bytes })
    }

    /// Policy of both instances.
    fn world(&self, rules: u32) -> Result<World> {
        let pair = self.rules.pair();
        let size = Size { rules, members: 1000 };
        let [from, to] = self.taps;
        World::new(&[BenchPort { ifindex: from, size, ..pair.from }, BenchPort { ifindex: to, size, ..pair.to }])
    }

    /// Measures every variant so often; `host` is empty.
    pub(super) async fn measure(&mut self, host: &mut Host, (rounds, batches): (u32, usize)) -> Result<()> {
        for round in 0..usize::try_from(rounds)? {
            let from = round * batches;
            self.sample(BRIDGE, from, batches).await?;
            self.empty_hooks(from, batches).await?;
            self.least_hooks(from, batches).await?;
            self.taps.into_iter().try_for_each(|tap| host.enforcer.attach(tap, Hook::Tc).map(drop))?;
            host.apply(&World::new(&[])?)?;
            self.sample(HOOKS, from, batches).await?;
            self.detach(host)?;
            for (name, rules) in [(NETDIAG10, 10), (NETDIAG1000, 1000)] {
                self.enforced(name, host, rules, (from, batches)).await?;
            }
            Self::ask_rules(false)?;
            self.sample(CABLES, from, batches).await?;
            Self::ask_rules(true)?;
            for (name, rules) in [(HYBRID10, 10), (HYBRID1000, 1000)] {
                self.rules.install(rules)?;
                self.track(true).await?;
                self.sample(name, from, batches).await?;
                run(&["conntrack", "-F"])?;
            }
        }
        Ok(())
    }

    /// Measures two objects in turn so often.
    pub(super) async fn compare(&mut self, hosts: &mut [Host; 2], (rounds, batches): (u32, usize)) -> Result<()> {
        for round in 0..usize::try_from(rounds)? {
            let from = round * batches;
            self.sample(BRIDGE, from, batches).await?;
            self.empty_hooks(from, batches).await?;
            self.least_hooks(from, batches).await?;
            for (name, host) in [OTHER, THIS].into_iter().zip(&mut *hosts) {
                self.enforced(name, host, 10, (from, batches)).await?;
            }
        }
        Ok(())
    }

    /// Measures what the hooks take by themselves.
    async fn empty_hooks(&mut self, from: usize, batches: usize) -> Result<()> {
        // r0 = TCX_NEXT; exit
        let empty = kernel::load(Kind::Classifier, &[0xffff_ffff_0000_00b7, 0x95])?;
        let [sender, receiver] = self.taps;
        let _links = [kernel::attach(&empty, sender, false)?, kernel::attach(&empty, receiver, true)?];
        self.sample(EMPTY, from, batches).await
    }

    /// Measures what it costs to find flows, and nothing more.
    async fn least_hooks(&mut self, from: usize, batches: usize) -> Result<()> {
        let ([sender, receiver], [at_ingress, at_egress]) = (self.taps, &self.least.programs);
        let _links = [kernel::attach(at_ingress, sender, false)?, kernel::attach(at_egress, receiver, true)?];
        self.sample(LEAST, from, batches).await
    }

    /// Measures a host that enforces so many rules.
    async fn enforced(
        &mut self,
        name: &str,
        host: &mut Host,
        rules: u32,
        (from, batches): (usize, usize),
    ) -> Result<()> {
        for tap in self.taps {
            let [from, _] = host.enforcer.attach(tap, Hook::Tc)?;
            self.note_bytes = bytes_of_notes(from.program)?;
        }
        host.apply(&self.world(rules)?)?;
        host.enforcer.collect()?;
        self.track(false).await?;
        self.flow_bytes = host.bytes("FLOWS4")?;
        self.sample(name, from, batches).await?;
        host.forget_flows()?;
        self.detach(host)
    }

    fn detach(&self, host: &mut Host) -> Result<()> {
        for tap in self.taps {
            ensure!(host.enforcer.detach(tap).is_empty(), "detach from {tap}");
        }
        Ok(())
    }

    /// Whether the bridges beside the instances ask the rules.
    fn ask_rules(ask: bool) -> Result<()> {
        let word = if ask { "1" } else { "0" };
        let ask = |bridge| run(&["ip", "link", "set", bridge, "type", "bridge", "nf_call_iptables", word]).map(drop);
        ["qbra", "qbrb"].into_iter().try_for_each(ask)
    }

    /// Goes through the handshake of every connection that is tracked.
    async fn track(&mut self, hybrid: bool) -> Result<()> {
        let way = if hybrid { &self.hybrid } else { &self.plain };
        let before = way.arrived().await?;
        for (place, frames) in self.handshake.iter_mut().enumerate() {
            frames.send(if place == 1 { &way.back } else { &way.there })?;
        }
        let arrived = way.arrived().await? - before;
        ensure!(arrived == u64::from(2 * TRACKED), "{arrived} of {} frames of handshakes arrived", 2 * TRACKED);
        Ok(())
    }

    /// Measures one variant as it is set up now. What is sent and does not arrive is an error: it would be cheap.
    async fn sample(&mut self, name: &str, from: usize, batches: usize) -> Result<()> {
        let variant = self.variants.iter_mut().find(|variant| variant.name == name).context("no such variant")?;
        let way = if variant.hybrid { &self.hybrid } else { &self.plain };
        let before = way.arrived().await?;
        self.one.measure(&way.there, (from, batches), &mut variant.one)?;
        self.turn.measure(&way.there, (from, batches), &mut variant.turn)?;
        // The connections are new because all are forgotten before the next round.
        let new = batches.min(self.fresh.batches());
        self.fresh.measure(&way.there, (0, new), &mut variant.new)?;
        let (arrived, sent) = (way.arrived().await? - before, u64::try_from((2 * batches + new) * BATCH)?);
        ensure!(arrived == sent, "{}: {arrived} of {sent} frames arrived", variant.name);
        Ok(())
    }
}

/// Places of connections that are new.
const FRESH: std::ops::Range<u32> = 110_016..118_208;

/// What `iptables_hybrid` puts between an instance and br-int: a bridge of its own and a veth pair; br-int is a bridge here.
fn hybrid_cables(rules: &Rules, pair: &Pair) -> Result<()> {
    let [from, to] = &rules.ports;
    instance("ha", &from.tap)?;
    instance("hb", &to.tap)?;
    for port in [from, to] {
        run(&["ip", "link", "add", &port.qvb, "type", "veth", "peer", "name", &port.qvo])?;
    }
    bridge("qbra", &[&from.tap, &from.qvb])?;
    bridge("qbrb", &[&to.tap, &to.qvb])?;
    bridge("integration", &[&from.qvo, &to.qvo])?;
    run(&["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"])?;
    let (own, other) = (pair.from.mac, pair.to.mac);
    for (mac, port) in
        [(own, &from.tap), (other, &from.qvb), (own, &from.qvo), (other, &to.qvo), (own, &to.qvb), (other, &to.tap)]
    {
        learn(mac, port)?;
    }
    Ok(())
}

/// An address of the hybrid rules.
pub(super) fn port(mac: [u8; 6], ipv4: Ipv4Addr) -> BenchPort {
    BenchPort { ifindex: 0, mac, ipv4, size: Size { rules: 0, members: 0 } }
}
