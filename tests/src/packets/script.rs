//! The steps of a scenario: conversations that go on beside each other, with all that can disturb them.

use std::sync::Arc;

use netdiag_common::{
    abi::flow::Tick,
    logic::flow::{State, timeout},
};
use netdiag_model::{
    id::Mac,
    policy::types::{Attached, Direction, Ethertype},
};

use super::{
    Packet, Scenario, Step, World,
    bytes::{self, Ip},
    damage::damage,
    dice::Dice,
    system::{self, Content},
    talk::{Talk, other},
    world,
};

/// Who is at the other end of the wire.
const PEER: Mac = Mac([0xfa, 0x16, 0x3e, 0xff, 0, 1]);
/// How many earlier frames can come again.
const REMEMBERED: usize = 64;
/// How many conversations go on at a time.
const TALKS: usize = 12;

struct Script {
    dice: Dice,
    world: Arc<World>,
    talks: Vec<Talk>,
    /// Fragments that are still to come.
    pending: Vec<Packet>,
    recent: Vec<Packet>,
    steps: Vec<Step>,
    packets: usize,
}

/// The scenario of a seed.
pub(super) fn write(seed: u64, packets: usize) -> Scenario {
    let mut dice = Dice::new(seed);
    let world = world::random(&mut dice);
    let mut script = Script {
        dice,
        world: Arc::new(world.clone()),
        talks: Vec::new(),
        pending: Vec::new(),
        recent: Vec::new(),
        steps: Vec::new(),
        packets: 0,
    };
    while script.packets < packets {
        script.step();
    }
    Scenario { seed, world, steps: script.steps }
}

impl Script {
    fn step(&mut self) {
        match self.dice.below(1000) {
            0..50 => self.advance(),
            50..75 => self.change(),
            75..200 => self.begin(),
            200..680 => self.go_on(),
            680..750 => self.complain(),
            750..800 => self.split(),
            800..870 => self.pend(),
            870..960 => self.system(),
            960..999 => self.repeat(),
            _ => self.cut_everywhere(),
        }
    }

    /// Mostly moments; now and then as long as some state lasts, a little less or a little more.
    fn advance(&mut self) {
        let dice = &mut self.dice;
        let ticks: Tick = match dice.below(100) {
            0..60 => dice.between(1, 3).into(),
            60..75 => dice.between(27, 30).into(),
            _ => {
                let state = State::of(dice.u8() % 9);
                let protocol = dice.pick(&[6, 17, 1, 132, 47]);
                let limit = timeout(protocol, state);
                let limit = if limit > 1000 && dice.chance(90) { 100 } else { limit };
                (limit + Tick::from(dice.u8() % 3)).saturating_sub(1)
            }
        };
        self.steps.push(Step::Advance(ticks));
    }

    fn change(&mut self) {
        self.world = Arc::new(world::change(&mut self.dice, &self.world));
        self.steps.push(Step::Change(Arc::clone(&self.world)));
    }

    fn any_port(&mut self) -> Option<Attached> {
        self.dice.choose(&self.world.ports).cloned()
    }

    fn begin(&mut self) {
        let Some(port) = self.any_port() else { return };
        let talk = Talk::random(&mut self.dice, &self.world, &port);
        if self.talks.len() < TALKS {
            self.talks.push(talk);
        } else {
            let place = self.dice.below(TALKS);
            self.talks[place] = talk;
        }
        let last = self.talks.len() - 1;
        self.say(last);
    }

    fn go_on(&mut self) {
        if self.talks.is_empty() {
            return self.begin();
        }
        let place = self.dice.below(self.talks.len());
        self.say(place);
    }

    /// The next packet of a conversation, now and then with options or extension headers, and now and then not from who it
    /// says.
    fn say(&mut self, place: usize) {
        let data = self.dice.below(24);
        let Some(talk) = self.talks.get_mut(place) else { return };
        let (direction, mut ip, payload) = talk.next(&mut self.dice, data);
        let talk = talk.clone();
        if self.dice.chance(12) {
            self.lengthen(&mut ip);
        }
        let mut mac = talk.mac;
        match self.dice.below(100) {
            0..2 => mac = world::mac(self.dice.below(8)),
            2..4 => ip.source = world::host(&mut self.dice, family(&ip)),
            _ => {}
        }
        self.send(&talk, direction, &Content::ip(mac, &ip, &payload));
    }

    fn lengthen(&mut self, ip: &mut Ip) {
        let count = if self.dice.chance(15) { 5 + self.dice.below(4) } else { 1 + self.dice.below(3) };
        let dice = &mut self.dice;
        ip.extra = (0..count).map(|_| dice.pick(&[0, 43, 60, 60, 60, 44])).collect();
        ip.id = dice.between(1, 9).into();
    }

    /// An ICMP error about a conversation, mostly to whom it concerns.
    fn complain(&mut self) {
        let Some(talk) = self.dice.choose(&self.talks).cloned() else { return };
        let quoted = self.dice.pick(&[Direction::Egress, Direction::Ingress]);
        let flags = self.dice.pick(&[0x02, 0x10]);
        let (ip, payload) = talk.packet(quoted, flags, 8);
        let mut body = ip.packet(&payload);
        let mut destination = ip.source;
        match self.dice.below(100) {
            0..6 => body.truncate(self.dice.below(body.len() + 1)),
            6..12 => damage(&mut self.dice, &mut body),
            12..18 => destination = world::host(&mut self.dice, family(&ip)),
            _ => {}
        }
        let (protocol, kinds) = if ip.source.is_ipv6() { (58, [1, 2, 3, 4]) } else { (1, [3, 4, 11, 12]) };
        let source = match other(quoted) {
            Direction::Egress => talk.local,
            Direction::Ingress if self.dice.chance(50) => talk.remote,
            Direction::Ingress => world::host(&mut self.dice, family(&ip)),
        };
        let kind = self.dice.pick(&kinds);
        let outer = Ip::new(source, destination, protocol);
        let payload = bytes::icmp(kind, self.dice.u8() % 5, 0, &body);
        self.send(&talk, other(quoted), &Content::ip(talk.mac, &outer, &payload));
    }

    /// A datagram in fragments, of which the others come later, in some order.
    fn split(&mut self) {
        if self.talks.is_empty() {
            return self.begin();
        }
        let place = self.dice.below(self.talks.len());
        let Some(talk) = self.talks.get_mut(place) else { return };
        let (direction, mut ip, payload) = talk.next(&mut self.dice, 56);
        let talk = talk.clone();
        ip.id = self.dice.between(1, 9).into();
        let words = payload.len().div_ceil(8);
        let mut start = 0;
        while start < words {
            let length = if self.dice.chance(10) { 1 } else { 3 + self.dice.below(5) };
            let end = (start + length).min(words);
            ip.fragment = Some((u16::try_from(start).unwrap_or(0), end < words));
            let bytes = &payload[start * 8..(end * 8).min(payload.len())];
            let frame = frame(&talk, direction, &Content::ip(talk.mac, &ip, bytes));
            self.pending.push(frame);
            start = end;
        }
        self.pend();
    }

    /// A fragment that is still to come: the oldest, or any.
    fn pend(&mut self) {
        if self.pending.is_empty() {
            return self.go_on();
        }
        let place = if self.dice.chance(75) { 0 } else { self.dice.below(self.pending.len()) };
        let mut packet = self.pending.remove(place);
        self.pending.truncate(24);
        // Somebody else gets it, who knows nothing of the first one.
        if self.dice.chance(5)
            && let Some(port) = self.any_port()
        {
            packet.port = port.id;
        }
        self.emit(packet);
    }

    fn system(&mut self) {
        let Some(port) = self.any_port() else { return };
        let direction = self.dice.pick(&[Direction::Egress, Direction::Egress, Direction::Ingress]);
        let content = system::random(&mut self.dice, &self.world, &port, direction);
        let (source, destination) = way(port.mac, direction, content.mac);
        let bytes = bytes::ethernet(destination, source, content.ethertype, &content.payload);
        self.emit(Packet { port: port.id, direction, vlan_beside: false, bytes });
    }

    /// A frame of a while ago.
    fn repeat(&mut self) {
        if let Some(packet) = self.dice.choose(&self.recent).cloned() {
            self.emit(packet);
        }
    }

    /// One frame cut at every length.
    fn cut_everywhere(&mut self) {
        let Some(packet) = self.dice.choose(&self.recent).cloned() else { return };
        for length in 0..packet.bytes.len() {
            let bytes = packet.bytes[..length].to_vec();
            self.packets += 1;
            self.steps.push(Step::Packet(Packet { bytes, ..packet.clone() }));
        }
    }

    fn send(&mut self, talk: &Talk, direction: Direction, content: &Content) {
        self.emit(frame(talk, direction, content));
    }

    fn emit(&mut self, mut packet: Packet) {
        if self.recent.len() < REMEMBERED {
            self.recent.push(packet.clone());
        } else {
            let place = self.dice.below(REMEMBERED);
            self.recent[place] = packet.clone();
        }
        if self.dice.chance(8) {
            damage(&mut self.dice, &mut packet.bytes);
        }
        packet.vlan_beside = self.dice.below(200) == 0;
        self.packets += 1;
        self.steps.push(Step::Packet(packet));
    }
}

fn family(ip: &Ip) -> Ethertype {
    if ip.source.is_ipv6() { Ethertype::IPv6 } else { Ethertype::IPv4 }
}

fn frame(talk: &Talk, direction: Direction, content: &Content) -> Packet {
    let (source, destination) = way(talk.mac, direction, content.mac);
    let bytes = bytes::ethernet(destination, source, content.ethertype, &content.payload);
    Packet { port: talk.port.clone(), direction, vlan_beside: false, bytes }
}

/// Source and destination MAC address.
fn way(own: Mac, direction: Direction, sender: Mac) -> (Mac, Mac) {
    match direction {
        Direction::Egress => (sender, PEER),
        Direction::Ingress => (PEER, own),
    }
}
