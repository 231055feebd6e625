//! What the programs take by themselves: `BPF_PROG_TEST_RUN`, on one CPU, over warm caches.

use std::{net::{IpAddr, Ipv4Addr}, os::fd::OwnedFd};

use anyhow::{Context as _, Result, ensure};
use netdiag_agent::enforce::Hook;
use netdiag_common::abi::flow::{Flow, FlowKey4};

use super::{
    Effort,
    frames::{ACK, End, SYN, SYN_ACK, tcp},
    kernel::{self, Kind, Ran},
    rotor::{Entry, Rotor},
    stats::Samples,
    world::{
        BenchPort, CLOSED, FOR_GROUP, FOR_PREFIX, GATEWAY, Host, MEMBERS, OPEN, PARTNERS, Size, World, after, ifindex, run,
    },
};

/// Flows that are tracked before anything is measured: half of what the map takes.
const FILLED: u32 = 131_072;
/// Flows that are met in turn.
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
    from: OwnedFd,
    to: OwnedFd,
    xdp: OwnedFd,
}

impl Programs {
    /// Attached to a device that sees no packets, which is how the agent loads them.
    fn load(host: &mut Host) -> Result<Self> {
        run(&["ip", "link", "add", "idle", "type", "bridge"])?;
        let device = ifindex("idle")?;
        let mut attach = |hook| -> Result<Vec<OwnedFd>> {
            let states = host.enforcer.attach(device, hook)?;
            states.iter().map(|state| Ok(kernel::program(state.program)?)).collect()
        };
        let [from, to] = attach(Hook::Tc)?.try_into().ok().context("two programs")?;
        let [xdp, _] = attach(Hook::Xdp)?.try_into().ok().context("two programs")?;
        // r0 = TCX_NEXT; exit
        let empty = kernel::load(Kind::Classifier, &[0xffff_ffff_0000_00b7, 0x95])?;
        Ok(Self { empty, from, to, xdp })
    }
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
            let name = format!("size{place}");
            run(&["ip", "link", "add", &name, "type", "bridge"])?;
            ports.push(BenchPort::new(ifindex(&name)?, *size));
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
        let outward = |flags| outward(port, asked, flags, FILLED);
        let ran = outward(SYN)?.run(from, port.ifindex, FILLED)?;
        ensure!(ran.verdict == TCX_NEXT, "a connection is refused: {}", ran.verdict);
        inward_reply(port, asked, FILLED)?.run(to, port.ifindex, IN_TURN)?;
        outward(ACK)?.run(from, port.ifindex, IN_TURN)?;
        for frames in [v6(port, SYN), v6(port, SYN_ACK), v6(port, ACK)] {
            let program = if frames.1 { to } else { from };
            let ran = kernel::test_run(program, &frames.0, port.ifindex, 1)?;
            ensure!(ran.verdict == TCX_NEXT, "an IPv6 connection is refused: {}", ran.verdict);
        }
        Ok(())
    }

    fn add(&mut self, name: &'static str, program: fn(&Programs) -> &OwnedFd, device: u32, packets: Packets) -> &mut Case {
        let (thread, kernel) = (Samples::default(), Samples::default());
        self.cases.push(Case { name, program, device, packets, verdict: TCX_NEXT, thread, kernel });
        let last = self.cases.len() - 1;
        &mut self.cases[last]
    }

    /// Packets of tracked flows, and what is subtracted from others.
    fn add_known(&mut self, port: &BenchPort) -> Result<()> {
        let device = port.ifindex;
        let asked = Asked { first: TRACKED, count: IN_TURN, service: OPEN };
        let there = |port: &BenchPort| end4(port, asked, 0);
        let [own, other] = there(port);
        let out = tcp(own, other, ACK, LENGTH);
        let back = tcp(other, own, ACK, LENGTH);
        run(&["ip", "link", "add", "nobody", "type", "bridge"])?;
        self.add("empty", |all| &all.empty, device, Packets::Same(out.clone()));
        self.add("rotor", |all| &all.empty, device, Packets::Turn(outward(port, asked, ACK, IN_TURN)?));
        self.add("unmanaged", |all| &all.from, ifindex("nobody")?, Packets::Same(out.clone()));
        self.add("hot v4 from", |all| &all.from, device, Packets::Same(out.clone()));
        self.add("hot v4 to", |all| &all.to, device, Packets::Same(back));
        self.add("hot v6 from", |all| &all.from, device, Packets::Same(v6(port, ACK).0));
        self.add("hot v6 to", |all| &all.to, device, Packets::Same(v6_back(port)));
        self.add("hot v4 xdp", |all| &all.xdp, device, Packets::Same(out)).verdict = XDP_PASS;
        self.add("turn v4 from", |all| &all.from, device, Packets::Turn(outward(port, asked, ACK, IN_TURN)?));
        self.add("turn v4 to", |all| &all.to, device, Packets::Turn(inward_reply_with(port, asked, ACK, IN_TURN)?));
        let refused = Asked { first: ANYBODY, count: FRESH, service: CLOSED };
        self.add("denied", |all| &all.from, device, Packets::Turn(outward(port, refused, SYN, FRESH)?)).verdict =
            TC_ACT_SHOT;
        Ok(())
    }

    /// First packets of new connections.
    fn add_new(&mut self, host: &Host, ports: &[BenchPort]) -> Result<()> {
        let filled = &ports[0];
        let any = Asked { first: ANYBODY, count: FRESH, service: OPEN };
        let prefix = Asked { first: PARTNERS, count: FRESH, service: FOR_PREFIX };
        let group = |port: &BenchPort| Asked { first: MEMBERS, count: port.size.members, service: FOR_GROUP };
        let cases = [
            ("new any", filled, any),
            ("new group", filled, group(filled)),
            ("new prefix", filled, prefix),
            ("10 rules", &ports[1], group(&ports[1])),
            ("1000 rules", &ports[2], group(&ports[2])),
            ("10000 rules", &ports[3], group(&ports[3])),
            ("10 members", &ports[4], group(&ports[4])),
            ("1000 members", &ports[1], group(&ports[1])),
            ("100000 members", &ports[5], group(&ports[5])),
        ];
        for (name, port, asked) in cases {
            let flows = fresh_flows(host, port, asked)?;
            let packets = Packets::Fresh { rotor: outward(port, asked, SYN, FRESH)?, flows, done: 0 };
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
        IpAddr::V6(_) => 0,
    };
    let [a, b] = from.port.to_be_bytes();
    let [c, d] = to.port.to_be_bytes();
    [word(from), word(to), u32::from_ne_bytes([a, b, c, d]), 0]
}

const PLACES: [i16; 3] = [26, 30, 34];

fn rotor(count: u32, flags: u8, ends: impl Fn(u32) -> [End; 2]) -> Result<Rotor> {
    let [from, to] = ends(0);
    let entries: Vec<_> = (0..count).map(|place| entry(ends(place)[0], ends(place)[1])).collect();
    Ok(Rotor::new(Kind::Classifier, tcp(from, to, flags, LENGTH), PLACES, &entries)?)
}

/// Packets from the instance.
fn outward(port: &BenchPort, asked: Asked, flags: u8, count: u32) -> Result<Rotor> {
    rotor(count, flags, |place| end4(port, asked, place))
}

/// Packets to the instance, of connections it began.
fn inward_reply_with(port: &BenchPort, asked: Asked, flags: u8, count: u32) -> Result<Rotor> {
    rotor(count, flags, |place| {
        let [own, other] = end4(port, asked, place);
        [other, own]
    })
}

fn inward_reply(port: &BenchPort, asked: Asked, count: u32) -> Result<Rotor> {
    inward_reply_with(port, asked, SYN_ACK, count)
}

/// Packets to the instance that ask it for something.
fn inward_new(port: &BenchPort, asked: Asked, count: u32) -> Result<Rotor> {
    rotor(count, SYN, |place| {
        let [own, other] = end4(port, asked, place);
        [End { port: own.port, ..other }, End { port: other.port, ..own }]
    })
}

/// A packet of the port's one IPv6 connection, and whether it goes to it.
fn v6(port: &BenchPort, flags: u8) -> (Vec<u8>, bool) {
    let own = End { mac: port.mac, address: BenchPort::ipv6().into(), port: 4000 };
    let other = End { mac: GATEWAY, address: "fd00::9".parse::<IpAddr>().unwrap_or(own.address), port: OPEN };
    let to = flags == SYN_ACK;
    (if to { tcp(other, own, flags, LENGTH) } else { tcp(own, other, flags, LENGTH) }, to)
}

fn v6_back(port: &BenchPort) -> Vec<u8> {
    let mut frame = v6(port, SYN_ACK).0;
    frame[67] = ACK;
    frame
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
