//! Random packets of one flow, and about it.

use std::net::Ipv4Addr;

use netdiag_common::logic::flow::protocol::{ICMP, SCTP, TCP, UDP, UDPLITE};

use super::{
    BEYOND, FIXED, FLOATING, INNER, INSTANCE, Kind, OUTER, Packet, Talk,
    bytes::{DF, Header, Load, MF, half},
};
use crate::packets::dice::Dice;

/// GRE.
const GRE: u8 = 47;
/// Protocols of which netfilter knows nothing: ESP, AH, VRRP, two for experiments, one nobody has.
const OTHERS: [u8; 6] = [50, 51, 112, 253, 254, 200];
/// What the programs take for system traffic, whatever the flow.
const SYSTEM_PORTS: [u16; 4] = [67, 68, 546, 547];
/// Bytes behind an IP header that still fit.
const LONGEST: usize = 1480;
/// Bytes of a quoted transport header that an error has at least (RFC 792).
const QUOTED: usize = 8;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;

/// A flow between the instance and somebody outside.
struct Flow {
    dice: Dice,
    remote: Ipv4Addr,
    protocol: u8,
    /// Ports, of the instance first; identifier and kind of an ICMP query.
    ports: [u16; 2],
    /// Who begins: true if it is the outside.
    inward: bool,
    /// Words that say which association it is, by direction (SCTP).
    tags: [[u8; 4]; 2],
    /// What has been sent, by whom.
    sent: Vec<(bool, Load)>,
}

pub(super) fn write(seed: u64) -> Talk {
    let mut flow = Flow::new(seed);
    let begins = flow.inward;
    let mut packets = vec![flow.plain(begins, 0), flow.plain(!begins, 1), flow.plain(begins, 2)];
    for _ in 0..2 + flow.dice.below(6) {
        let inward = flow.dice.chance(50);
        let what = flow.dice.below(100);
        packets.push(match what {
            0..40 => flow.error(inward),
            40..60 => flow.fragments(inward),
            _ => flow.plain(inward, 3),
        });
    }
    Talk { packets }
}

impl Flow {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let what = dice.below(100);
        let protocol = match what {
            0..25 => TCP,
            25..50 => UDP,
            50..65 => ICMP,
            65..73 => SCTP,
            73..83 => UDPLITE,
            83..90 => GRE,
            _ => dice.pick(&OTHERS),
        };
        // No two talks of a run have the same.
        let place = u32::try_from(seed & 0x1_ffff).unwrap_or(0);
        let remote = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() | place);
        let mut port = || match dice.between(1, u16::MAX) {
            port if SYSTEM_PORTS.contains(&port) => 53,
            port => port,
        };
        let mut ports = [port(), port()];
        if protocol == ICMP {
            ports[1] = dice.pick(&[8, 8, 8, 13]);
        }
        let mut tag = || [dice.u8(), dice.u8(), dice.u8(), 1];
        let tags = [tag(), tag()];
        let inward = dice.chance(50);
        Self { dice, remote, protocol, ports, inward, tags, sent: Vec::new() }
    }

    /// A packet of the flow that belongs at a place: first, its answer, what follows that, anything.
    fn plain(&mut self, inward: bool, place: usize) -> Packet {
        let length = self.length();
        let load = self.load(inward, place, length);
        let header = self.header();
        let what = format!("{} bytes of protocol {}, number {place}", load.bytes.len(), load.protocol);
        self.sent.push((inward, load.clone()));
        self.packet(inward, vec![(header, self.whole(inward, &load))], load.protocol, what)
    }

    /// The bytes behind the IP header as the router gets them.
    fn whole(&self, inward: bool, load: &Load) -> Vec<u8> {
        let [source, destination] = self.addresses(inward, inward);
        load.between(source, destination)
    }

    /// Source and destination of the packets of a direction, as seen from outside or from inside.
    fn addresses(&self, inward: bool, outside: bool) -> [Ipv4Addr; 2] {
        let own = if outside { FLOATING } else { FIXED };
        if inward { [self.remote, own] } else { [own, self.remote] }
    }

    /// Frames of a packet, between the flow's two ends.
    fn packet(&self, inward: bool, parts: Vec<(Header, Vec<u8>)>, protocol: u8, what: String) -> Packet {
        let [source, destination] = self.addresses(inward, inward);
        let frame = |(header, bytes): (Header, Vec<u8>)| frame(inward, header, (protocol, source, destination), &bytes);
        let kind = if parts.len() > 1 { Kind::Fragments } else { Kind::Plain };
        Packet { kind, inward, frames: parts.into_iter().map(frame).collect(), what }
    }

    /// Bytes of data: often few.
    fn length(&mut self) -> usize {
        let most = self.dice.pick(&[4, 40, 200, LONGEST - 64]);
        self.dice.below(most)
    }

    fn header(&mut self) -> Header {
        let fragment = if self.dice.chance(50) { DF } else { 0 };
        let dice = &mut self.dice;
        let ttl = dice.pick(&[2, 3, 64, 64, 128, 254, 255]);
        Header { tos: dice.u8(), ttl, id: dice.u16(), fragment, options: 0 }
    }

    fn random(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.dice.u8()).collect()
    }

    fn load(&mut self, inward: bool, place: usize, length: usize) -> Load {
        let data = self.random(length);
        let [own, other] = self.ports;
        let [source, destination] = if inward { [other, own] } else { [own, other] };
        let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        let asks = inward == self.inward;
        let mut covered = 0;
        let bytes = match self.protocol {
            TCP => self.tcp(ports, place, asks, data),
            UDP => {
                covered = if self.dice.chance(15) { 0 } else { 8 + length };
                [ports, half(8 + length).to_vec(), vec![0; 2], data].concat()
            }
            UDPLITE => {
                covered = if self.dice.chance(50) { 8 + length } else { 8 + self.dice.below(length + 1) };
                let told = if covered == 8 + length && self.dice.chance(50) { 0 } else { covered };
                [ports, half(told).to_vec(), vec![0; 2], data].concat()
            }
            ICMP => {
                let kind = u8::try_from(other).unwrap_or(8);
                let kind = if asks {
                    kind
                } else if kind == 8 {
                    0
                } else {
                    kind + 1
                };
                [vec![kind, 0, 0, 0], own.to_be_bytes().to_vec(), vec![0, 1], data].concat()
            }
            SCTP => self.sctp(ports, place, asks, data),
            // Version 0, no key, no sequence. Netfilter takes what is shorter than 8 bytes for no packet of any flow.
            GRE => [vec![0, 0, 8, 0, 0x45, 0, 0, 0], data].concat(),
            // What is shorter cannot be quoted as RFC 792 has it.
            _ => [vec![0; QUOTED], data].concat(),
        };
        let mut load = Load { protocol: self.protocol, bytes, covered };
        self.aim(inward, &mut load);
        load
    }

    /// Now and then the checksum comes to 0, before or after.
    fn aim(&mut self, inward: bool, load: &mut Load) {
        let place = match load.protocol {
            TCP => 4,
            UDP | UDPLITE if load.covered == load.bytes.len() && load.bytes.len() >= 10 => 8,
            _ => return,
        };
        if self.dice.chance(20) {
            let outside = self.dice.chance(50);
            let [source, destination] = self.addresses(inward, outside);
            load.aim(place, source, destination);
        }
    }

    fn tcp(&mut self, ports: Vec<u8>, place: usize, asks: bool, data: Vec<u8>) -> Vec<u8> {
        let flags = match (place, asks) {
            (0, _) => SYN,
            (1, _) => SYN | ACK,
            (2, _) => ACK,
            _ => ACK | if self.dice.chance(50) { PUSH } else { 0 },
        };
        let options = self.dice.pick(&[0, 0, 1, 3, 10]);
        let mut bytes = ports;
        bytes.extend(self.random(8));
        if flags == SYN {
            bytes[8..12].fill(0);
        }
        bytes.extend([u8::try_from(5 + options).unwrap_or(5) << 4, flags]);
        bytes.extend(self.random(2));
        bytes.extend([0; 4]);
        // No operation, as often as there is room.
        bytes.resize(20 + 4 * options, 1);
        if place > 2 {
            bytes.extend(data);
        }
        bytes
    }

    /// One chunk, after two that begin an association for whoever only looks on.
    fn sctp(&self, ports: Vec<u8>, place: usize, asks: bool, mut data: Vec<u8>) -> Vec<u8> {
        const DATA: u8 = 0;
        const HEARTBEAT: u8 = 4;
        let kind = match place {
            0 | 1 => HEARTBEAT + u8::from(!asks),
            _ => DATA,
        };
        let length = half(4 + data.len());
        data.resize(data.len().next_multiple_of(4), 0);
        [ports, self.tags[usize::from(asks)].to_vec(), vec![0; 4], vec![kind, 3], length.to_vec(), data].concat()
    }

    /// An ICMP error about a packet of the other direction.
    fn error(&mut self, inward: bool) -> Packet {
        let quotable: Vec<_> = self.sent.iter().filter(|(other, _)| *other != inward).cloned().collect();
        let Some((_, load)) = self.dice.choose(&quotable).cloned() else { return self.plain(inward, 3) };
        let quote = self.quote(inward, &load);
        let [kind, codes] = self.dice.pick(&[[3, 14], [3, 14], [11, 2], [12, 3], [4, 1]]);
        let code = u8::try_from(self.dice.below(codes.into())).unwrap_or(0);
        let rest = self.random(4);
        let bytes = [vec![kind, code, 0, 0], rest, quote].concat();
        let what = format!(
            "ICMP {kind}/{code}, {} bytes, about {:?} of protocol {}",
            bytes.len(),
            load.bytes.len(),
            load.protocol
        );
        let error = Load { protocol: ICMP, bytes, covered: 0 };
        let [mut source, destination] = self.addresses(inward, inward);
        if inward && self.dice.chance(50) {
            // A router on the way complains.
            source = Ipv4Addr::new(203, 0, 113, self.dice.u8());
        }
        let bytes = error.between(source, destination);
        let header = self.header();
        Packet {
            kind: Kind::Error,
            inward,
            frames: vec![frame(inward, header, (ICMP, source, destination), &bytes)],
            what,
        }
    }

    /// What an error quotes of a packet that went the other way.
    fn quote(&mut self, inward: bool, load: &Load) -> Vec<u8> {
        // Whoever complains has seen the packet as it was on their side.
        let [source, destination] = self.addresses(!inward, inward);
        let bytes = load.between(source, destination);
        let mut header = self.header();
        header.ttl = self.dice.u8();
        header.options = if self.dice.chance(30) { self.dice.below(11) } else { 0 };
        header.fragment = self.dice.pick(&[0, DF, DF, MF]);
        let room = LONGEST - 8 - 20 - 4 * header.options;
        let most = bytes.len().min(room);
        let length = match self.dice.below(3) {
            0 => most.min(QUOTED),
            1 => most.min(QUOTED + self.dice.below(24)),
            _ => QUOTED.min(most) + self.dice.below(most.saturating_sub(QUOTED) + 1),
        };
        // Netfilter computes the checksum of a quoted SCTP packet anew from as much of it as there is.
        let length = if load.protocol == SCTP && (12..bytes.len()).contains(&length) { 11 } else { length };
        [header.bytes(load.protocol, source, destination, bytes.len()), bytes[..length].to_vec()].concat()
    }

    /// A packet in fragments, where those go past the router: what leaves, and what answers a ping.
    fn fragments(&mut self, inward: bool) -> Packet {
        let answers = inward != self.inward;
        if if self.protocol == ICMP { !answers } else { inward } {
            return self.plain(inward, 3);
        }
        let length = 200 + self.dice.below(2800);
        let load = self.load(inward, 3, length);
        let bytes = self.whole(inward, &load);
        let count = 2 + self.dice.below(3);
        // Those of one length netfilter puts together and takes apart again as they were.
        let piece = (bytes.len() / count).next_multiple_of(8).clamp(64, LONGEST);
        let header = Header { fragment: 0, ..self.header() };
        let pieces: Vec<_> = bytes.chunks(piece).map(<[u8]>::to_vec).collect();
        let last = pieces.len() - 1;
        let what = format!("{} bytes of protocol {} in {} fragments", bytes.len(), load.protocol, pieces.len());
        let parts = pieces.into_iter().enumerate().map(|(place, bytes)| {
            let offset = u16::try_from(place * piece / 8).unwrap_or(0);
            (Header { fragment: offset | if place < last { MF } else { 0 }, ..header }, bytes)
        });
        let protocol = load.protocol;
        self.packet(inward, parts.collect(), protocol, what)
    }
}

/// A frame as the router gets it.
fn frame(
    inward: bool,
    header: Header,
    (protocol, source, destination): (u8, Ipv4Addr, Ipv4Addr),
    bytes: &[u8],
) -> Vec<u8> {
    let macs = if inward { [OUTER, BEYOND] } else { [INNER, INSTANCE] };
    let ip = header.bytes(protocol, source, destination, bytes.len());
    [macs.concat(), vec![8, 0], ip, bytes.to_vec()].concat()
}
