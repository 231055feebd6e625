//! What the programs take by themselves: `BPF_PROG_TEST_RUN`, on one CPU, over warm caches.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use netdiag_agent::enforce::Hook;
use netdiag_common::abi::flow::{Flow, FlowKey4};

use super::{
    Effort,
    frames::{ACK, End, SYN, SYN_ACK, tcp},
    kernel::{self, Kind, Ran},
    rotor::{Entry, Places, Rotor},
    stats::Samples,
    world::{
        BenchPort, CLOSED, FOR_GROUP, FOR_PREFIX, GATEWAY, Host, MEMBERS, OPEN, PARTNERS, Size, World, after, ifindex,
        run,
    },
};

/// Flows that are tracked before anything is measured: half of what the map takes.
const FILLED: u32 = 131_072;
/// Flows that are met in turn where all are to be hot: several, as a flow may share its place in the map with others.
const HOT: u32 = 16;
/// The same where none is.
const IN_TURN: u32 = 65_536;
/// New connections before they are forgotten again.
const FRESH: u32 = 32_768;
/// Of these, how many at once.
const AT_ONCE: u32 = 4096;
/// Length of the frames.
const LENGTH: usize = 96;

/// What the other ends of tracked flows begin with.
const TRACKED: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);
/// What the other ends of new connections begin with, where anybody may be there.
const ANYBODY: Ipv4Addr = Ipv4Addr::new(30, 0, 0, 0);

const TCX_NEXT: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const XDP_PASS: i32 = 2;

/// The programs.
struct Programs {
    empty: OwnedFd,
    empty_xdp: OwnedFd,
    from: OwnedFd,
    to: OwnedFd,
    xdp: OwnedFd,
}

impl Programs {
    /// Attached to a device that sees no packets, as the agent attaches them.
    fn load(host: &mut Host) -> Result<Self> {
        static IDLE: AtomicUsize = AtomicUsize::new(0);
        let device = device(&format!("idle{}", IDLE.fetch_add(1, Ordering::Relaxed)))?;
        let mut attach = |hook| -> Result<Vec<OwnedFd>> {
            let states = host.enforcer.attach(device, hook)?;
            states.iter().map(|state| Ok(kernel::program(state.program)?)).collect()
        };
        let [from, to] = attach(Hook::Tc)?.try_into().ok().context("two programs")?;
        let [xdp, _] = attach(Hook::Xdp)?.try_into().ok().context("two programs")?;
        // r0 = TCX_NEXT; exit
        let empty = kernel::load(Kind::Classifier, &[0xffff_ffff_0000_00b7, 0x95])?;
        let empty_xdp = kernel::load(Kind::Xdp, &[0x0000_0002_0000_00b7, 0x95])?;
        Ok(Self { empty, empty_xdp, from, to, xdp })
    }
}

/// A device of this name, with which nothing else is done.
fn device(name: &str) -> Result<u32> {
    if let Ok(index) = ifindex(name) {
        return Ok(index);
    }
    run(&["ip", "link", "add", name, "type", "bridge"])?;
    ifindex(name)
}

/// How a case gets its packets.
enum Packets {
    /// One.
    Same(Vec<u8>),
    /// Some in turn.
    Turn(Rotor),
    /// Some in turn, whose flows are removed again.
    Fresh { rotor: Rotor, flows: Vec<FlowKey4>, done: usize },
}

/// One thing that is measured.
pub(super) struct Case {
    pub(super) name: &'static str,
    program: fn(&Programs) -> &OwnedFd,
    device: u32,
    packets: Packets,
    verdict: i32,
    pub(super) thread: Samples,
    pub(super) kernel: Samples,
}

/// Everything that is measured, and what it needs.
pub(super) struct Bench {
    programs: Programs,
    flows: OwnedFd,
    pub(super) cases: Vec<Case>,
}

/// The sizes whose cost is compared; the first is the one all else is measured with.
pub(super) const SIZES: [Size; 7] = [
    Size { rules: 10_000, members: 100_000 },
    Size { rules: 10, members: 1000 },
    Size { rules: 1000, members: 1000 },
    Size { rules: 10_000, members: 1000 },
    Size { rules: 10, members: 10 },
    Size { rules: 10, members: 100_000 },
    Size { rules: 1000, members: 100_000 },
];

/// What a new connection asks for, and with whom.
#[derive(Clone, Copy)]
struct Asked {
    first: Ipv4Addr,
    count: u32,
    service: u16,
}

impl Bench {
    /// Makes the ports, the policy and the tracked flows.
    pub(super) fn new(host: &mut Host) -> Result<Self> {
        let programs = Programs::load(host)?;
        let mut ports = vec![BenchPort::new(1, SIZES[0])];
        for (place, size) in SIZES.iter().enumerate().skip(1) {
            ports.push(BenchPort::new(device(&format!("size{place}"))?, *size));
        }
        host.apply(&World::new(&ports)?)?;
        let allowance = kernel::open(&host.map("ALLOWANCE"))?;
        for port in &ports {
            kernel::set_at(&allowance, host.slot(port.ifindex)?, &[u64::MAX >> 1])?;
        }
        let flows = kernel::open(&host.map("FLOWS4"))?;
        let mut bench = Self { programs, flows, cases: Vec::new() };
        bench.fill(&ports[0])?;
        bench.add_known(&ports[0])?;
        bench.add_new(host, &ports)?;
        Ok(bench)
    }

    /// Tracks flows, and lets those that are to be met in turn be answered.
    fn fill(&self, port: &BenchPort) -> Result<()> {
        let Programs { from, to, .. } = &self.programs;
        let asked = Asked { first: TRACKED, count: FILLED, service: OPEN };
        let outward = |flags| outward(Kind::Classifier, port, asked, flags, FILLED);
        let ran = outward(SYN)?.run(from, port.ifindex, FILLED)?;
        ensure!(ran.verdict == TCX_NEXT, "a connection is refused: {}", ran.verdict);
        inward_reply(port, asked, SYN_ACK, FILLED)?.run(to, port.ifindex, IN_TURN)?;
        outward(ACK)?.run(from, port.ifindex, IN_TURN)?;
        for (flags, program) in [(SYN, from), (SYN_ACK, to), (ACK, from)] {
            let ran = v6(port, flags, flags == SYN_ACK)?.run(program, port.ifindex, HOT)?;
            ensure!(ran.verdict == TCX_NEXT, "an IPv6 connection is refused: {}", ran.verdict);
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &'static str,
        program: fn(&Programs) -> &OwnedFd,
        device: u32,
        packets: Packets,
    ) -> &mut Case {
        let (thread, kernel) = (Samples::default(), Samples::default());
        self.cases.push(Case { name, program, device, packets, verdict: TCX_NEXT, thread, kernel });
        let last = self.cases.len() - 1;
        &mut self.cases[last]
    }

    /// Packets of tracked flows, and what is subtracted from others.
    fn add_known(&mut self, port: &BenchPort) -> Result<()> {
        let device = port.ifindex;
        let asked = Asked { first: TRACKED, count: IN_TURN, service: OPEN };
        let [own, other] = end4(port, asked, 0);
        let plain = || Packets::Same(tcp(own, other, ACK, LENGTH));
        let out = |count| Ok::<_, anyhow::Error>(Packets::Turn(outward(Kind::Classifier, port, asked, ACK, count)?));
        let back = |count| Ok::<_, anyhow::Error>(Packets::Turn(inward_reply(port, asked, ACK, count)?));
        let out_xdp = || Ok::<_, anyhow::Error>(Packets::Turn(outward(Kind::Xdp, port, asked, ACK, HOT)?));
        self.add("empty", |all| &all.empty, device, plain());
        self.add("unmanaged", |all| &all.from, self::device("nobody")?, plain());
        self.add("rotor", |all| &all.empty, device, out(HOT)?);
        self.add("hot v4 from", |all| &all.from, device, out(HOT)?);
        self.add("hot v4 to", |all| &all.to, device, back(HOT)?);
        self.add("hot v6 from", |all| &all.from, device, Packets::Turn(v6(port, ACK, false)?));
        self.add("hot v6 to", |all| &all.to, device, Packets::Turn(v6(port, ACK, true)?));
        self.add("rotor xdp", |all| &all.empty_xdp, device, out_xdp()?).verdict = XDP_PASS;
        self.add("hot v4 xdp", |all| &all.xdp, device, out_xdp()?).verdict = XDP_PASS;
        self.add("rotor turn", |all| &all.empty, device, out(IN_TURN)?);
        self.add("turn v4 from", |all| &all.from, device, out(IN_TURN)?);
        self.add("turn v4 to", |all| &all.to, device, back(IN_TURN)?);
        let refused = Asked { first: ANYBODY, count: FRESH, service: CLOSED };
        self.add(
            "denied",
            |all| &all.from,
            device,
            Packets::Turn(outward(Kind::Classifier, port, refused, SYN, FRESH)?),
        )
        .verdict = TC_ACT_SHOT;
        Ok(())
    }

    /// First packets of new connections.
    fn add_new(&mut self, host: &Host, ports: &[BenchPort]) -> Result<()> {
        let filled = &ports[0];
        let any = Asked { first: ANYBODY, count: FRESH, service: OPEN };
        let prefix = Asked { first: PARTNERS, count: FRESH, service: FOR_PREFIX };
        let group = |count| Asked { first: MEMBERS, count, service: FOR_GROUP };
        let cases = [
            ("new any", filled, any),
            ("new group", filled, group(SIZES[0].members)),
            ("new prefix", filled, prefix),
            ("10 rules", &ports[1], group(10)),
            ("1000 rules", &ports[2], group(10)),
            ("10000 rules", &ports[3], group(10)),
            ("10 members", &ports[4], group(10)),
            ("1000 members", &ports[1], group(10)),
            ("100000 members", &ports[5], group(10)),
        ];
        for (name, port, asked) in cases {
            let flows = fresh_flows(host, port, asked)?;
            let packets = Packets::Fresh { rotor: outward(Kind::Classifier, port, asked, SYN, FRESH)?, flows, done: 0 };
            self.add(name, |all| &all.from, port.ifindex, packets);
        }
        let flows = fresh_flows(host, filled, any)?.into_iter();
        // They begin at the other end: its port is the one that varies.
        let flows = flows.map(|key| FlowKey4 { local_port: key.remote_port, remote_port: key.local_port, ..key });
        let rotor = inward_new(filled, any, FRESH)?;
        let packets = Packets::Fresh { rotor, flows: flows.collect(), done: 0 };
        self.add("new any to", |all| &all.to, filled.ifindex, packets);
        Ok(())
    }

    /// Measures every case, one after the other, so often.
    pub(super) fn measure(&mut self, effort: Effort) -> Result<()> {
        for round in 0..effort.rounds {
            for case in &mut self.cases {
                let ran = case.packets.run((case.program)(&self.programs), case.device, effort.repeat, &self.flows);
                let ran = ran.with_context(|| case.name)?;
                ensure!(ran.verdict == case.verdict, "{}: verdict {} in round {round}", case.name, ran.verdict);
                case.thread.add(ran.thread);
                case.kernel.add(f64::from(ran.kernel));
            }
        }
        Ok(())
    }

    /// The samples of a case.
    pub(super) fn case(&self, name: &str) -> Result<&Case> {
        self.cases.iter().find(|case| case.name == name).with_context(|| format!("no case {name}"))
    }
}

impl Packets {
    fn run(&mut self, program: &OwnedFd, device: u32, repeat: u32, flows: &OwnedFd) -> Result<Ran> {
        match self {
            Self::Same(packet) => Ok(kernel::test_run(program, packet, device, repeat)?),
            Self::Turn(rotor) => Ok(rotor.run(program, device, repeat)?),
            Self::Fresh { rotor, flows: keys, done } => {
                let ran = rotor.run(program, device, AT_ONCE)?;
                // That all of them are there proves that every packet began a flow.
                let begun = &keys[*done..*done + AT_ONCE as usize];
                kernel::remove(flows, begun).context("remove the flows of new connections")?;
                *done = (*done + begun.len()) % keys.len();
                Ok(ran)
            }
        }
    }
}

/// Both ends of a connection, the port's first.
fn end4(port: &BenchPort, asked: Asked, place: u32) -> [End; 2] {
    let own = End { mac: port.mac, address: IpAddr::V4(port.ipv4), port: own_port(place) };
    let address = IpAddr::V4(after(asked.first, place % asked.count));
    [own, End { mac: GATEWAY, address, port: asked.service }]
}

/// No two connections with one address have the same.
fn own_port(place: u32) -> u16 {
    u16::try_from(1024 + place % FRESH).unwrap_or(u16::MAX)
}

/// Source address, destination address and ports, as they lie in a packet.
fn entry(from: End, to: End) -> Entry {
    let word = |end: End| match end.address {
        IpAddr::V4(address) => u32::from_ne_bytes(address.octets()),
        IpAddr::V6(address) => u32::from_ne_bytes(address.to_bits().to_be_bytes().as_chunks().0[3]),
    };
    let [a, b] = from.port.to_be_bytes();
    let [c, d] = to.port.to_be_bytes();
    [word(from), word(to), u32::from_ne_bytes([a, b, c, d]), 0]
}

/// Where these are in a packet; of an IPv6 address, the last word.
const PLACES4: Places = [26, 30, 34];
const PLACES6: Places = [34, 50, 54];

fn rotor(kind: Kind, count: u32, flags: u8, ends: impl Fn(u32) -> [End; 2]) -> Result<Rotor> {
    let [from, to] = ends(0);
    let places = if from.address.is_ipv6() { PLACES6 } else { PLACES4 };
    let entries: Vec<_> = (0..count).map(|place| entry(ends(place)[0], ends(place)[1])).collect();
    Ok(Rotor::new(kind, tcp(from, to, flags, LENGTH), places, &entries)?)
}

/// Packets from the instance.
fn outward(kind: Kind, port: &BenchPort, asked: Asked, flags: u8, count: u32) -> Result<Rotor> {
    rotor(kind, count, flags, |place| end4(port, asked, place))
}

/// Packets to the instance, of connections it began.
fn inward_reply(port: &BenchPort, asked: Asked, flags: u8, count: u32) -> Result<Rotor> {
    rotor(Kind::Classifier, count, flags, |place| {
        let [own, other] = end4(port, asked, place);
        [other, own]
    })
}

/// Packets to the instance that ask it for something.
fn inward_new(port: &BenchPort, asked: Asked, count: u32) -> Result<Rotor> {
    rotor(Kind::Classifier, count, SYN, |place| {
        let [own, other] = end4(port, asked, place);
        [End { port: own.port, ..other }, End { port: other.port, ..own }]
    })
}

/// Packets of the port's IPv6 connections.
fn v6(port: &BenchPort, flags: u8, inward: bool) -> Result<Rotor> {
    rotor(Kind::Classifier, HOT, flags, |place| {
        let own = End { mac: port.mac, address: BenchPort::ipv6().into(), port: own_port(place) };
        let other = Ipv6Addr::from_bits(BenchPort::ipv6().to_bits() + 1 + u128::from(place));
        let other = End { mac: GATEWAY, address: other.into(), port: OPEN };
        if inward { [other, own] } else { [own, other] }
    })
}

/// Keys of the flows that packets of `outward` begin.
fn fresh_flows(host: &Host, port: &BenchPort, asked: Asked) -> Result<Vec<FlowKey4>> {
    const { assert!(size_of::<Flow>() == 24, "the memory target counts on it") };
    let slot = u16::try_from(host.slot(port.ifindex)?)?;
    Ok((0..FRESH)
        .map(|place| {
            let [own, other] = end4(port, asked, place);
            let [local, remote, _, _] = entry(own, other);
            let (local_port, remote_port) = (own.port.to_be(), other.port.to_be());
            FlowKey4 { local, remote, local_port, remote_port, slot, protocol: 6, pad: 0 }
        })
        .collect())
}
