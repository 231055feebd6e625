//! Packets that belong to a probe, and what they come to. Flow: explain.

use std::net::IpAddr;

use super::{
    Kind, Probe,
    frame::{ECHO, ECHO_V6, SOLICITATION, advertisement, octets},
};
use crate::{
    live::{
        journey::{Ended, Journey},
        packet::{Content, Headers, Icmp, Ip, TCP, Transport, UDP},
        report::Told,
    },
    trace::{Direction, Verdict},
};

/// Flags of TCP.
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Type and code of "port unreachable", of ICMP and of `ICMPv6`.
const NO_PORT: (u8, u8) = (3, 3);
const NO_PORT_V6: (u8, u8) = (1, 4);

/// An answer to an echo, of ICMP and of `ICMPv6`.
const REPLY: u8 = 0;
const REPLY_V6: u8 = 129;

/// What answers a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What was hoped for, in words.
    Reply(String),
    /// Whoever it was for says that nobody listens.
    Refused(&'static str),
    /// Somebody on the way says that it goes no further.
    Stopped {
        /// Who.
        by: IpAddr,
        /// What it says.
        says: String,
    },
}

/// What was heard of a probe so far.
#[derive(Debug, Default)]
pub struct Heard {
    probe: Option<End>,
    answer: Option<(Answer, End)>,
}

/// How a packet ended.
#[derive(Debug)]
struct End {
    ended: Ended,
    began_ns: u64,
    last_ns: u64,
    why: Option<String>,
}

impl End {
    fn of(told: &Told) -> Self {
        let journey = &told.journey;
        let began_ns = journey.began_ns();
        let why = told.blame.as_ref().map(|blame| blame.sentence.clone());
        Self { ended: journey.ended.clone(), began_ns, last_ns: began_ns + journey.took_ns(), why }
    }

    const fn is_dead(&self) -> bool {
        self.ended.is_death()
    }

    fn why(&self) -> &str {
        self.why.as_deref().unwrap_or("nobody knows why")
    }
}

impl Probe {
    /// Whether a packet is the probe or an answer to it.
    pub fn concerns(&self, journey: &Journey) -> bool {
        self.is_it(journey) || self.answer(journey).is_some()
    }

    /// The same packet, but that an answer which the instance's own stack gives up because nobody there has asked for it has
    /// come back: netdiag sent the question, and opens nothing to take the answer.
    #[must_use]
    pub fn settled(&self, journey: Journey) -> Journey {
        // Linux gives an advertisement of a neighbour that it has not asked for up without a reason (`ndisc_recv_na`).
        let reason = if self.kind == Kind::Arp { "NOT_SPECIFIED" } else { "NO_SOCKET" };
        let unasked = journey.drop().is_some_and(|drop| drop.reason == reason);
        let is_home = journey.steps.last().is_some_and(|step| step.place.stop == 0);
        let inward = journey.direction == Direction::Inward;
        if unasked && is_home && inward && !self.from_outside && self.answer(&journey).is_some() {
            return Journey { ended: Ended::Delivered, ..journey };
        }
        journey
    }

    /// Whether a packet is the probe.
    fn is_it(&self, journey: &Journey) -> bool {
        headers(journey).any(|headers| self.is_sent(headers))
    }

    /// What a packet answers to the probe.
    fn answer(&self, journey: &Journey) -> Option<Answer> {
        headers(journey).find_map(|headers| self.answered(headers))
    }

    fn is_sent(&self, headers: &Headers) -> bool {
        match (&headers.content, self.kind) {
            (Content::Arp(arp), Kind::Arp) => {
                arp.operation == 1 && (arp.sender, arp.target) == (self.source, self.destination)
            }
            (Content::Ip(ip), _) => self.has_mark(ip) && self.carries(ip),
            (Content::Arp(_) | Content::Other { .. }, _) => false,
        }
    }

    /// Whether a packet has the identification; of IPv6 there is none.
    const fn has_mark(&self, ip: &Ip) -> bool {
        self.is_v6() == ip.source.is_ipv6() && (self.is_v6() || ip.id == self.mark.id)
    }

    fn carries(&self, ip: &Ip) -> bool {
        match (&ip.transport, self.kind) {
            (Transport::Tcp { sequence, flags, .. }, Kind::Tcp) => {
                *sequence == self.mark.number && flags & (SYN | ACK) == SYN
            }
            // Translation may change where it comes from; without an identification that is all there is to know it by.
            (Transport::Udp { ports, .. }, Kind::Udp) => {
                ports.1 == self.ports.1 && (!self.is_v6() || ports.0 == self.ports.0)
            }
            (Transport::Udp { body, .. }, Kind::Dhcp) => self.is_transaction(body, 1),
            (Transport::Icmp(icmp), Kind::Icmp) => {
                icmp.kind == (if self.is_v6() { ECHO_V6 } else { ECHO }) && self.is_echo(icmp)
            }
            (Transport::Icmp(icmp), Kind::Arp) => {
                let target = icmp.body.get(..16);
                icmp.kind == SOLICITATION && ip.source == self.source && target == Some(&octets(self.destination)[..])
            }
            _ => false,
        }
    }

    fn is_echo(&self, icmp: &Icmp) -> bool {
        // Translation of IPv4 may change the identifier.
        icmp.echo.is_some_and(|(id, number)| number == self.echo_number() && (!self.is_v6() || id == self.mark.id))
    }

    /// Whether a message of DHCP is of this transaction: 1 asks, 2 answers.
    fn is_transaction(&self, body: &[u8], operation: u8) -> bool {
        body.first() == Some(&operation) && body.get(4..8) == Some(&self.mark.number.to_be_bytes()[..])
    }

    fn answered(&self, headers: &Headers) -> Option<Answer> {
        let ip = match (&headers.content, self.kind) {
            (Content::Ip(ip), _) => ip,
            (Content::Arp(arp), Kind::Arp) => {
                let is_it = arp.operation == 2 && arp.sender == self.destination;
                return is_it.then(|| Answer::Reply(format!("{} is at {}", arp.sender, arp.sender_mac)));
            }
            (Content::Arp(_) | Content::Other { .. }, _) => return None,
        };
        match (&ip.transport, self.kind) {
            (Transport::Tcp { acknowledgement, flags, .. }, Kind::Tcp) => {
                let is_it = flags & ACK != 0 && *acknowledgement == self.mark.number.wrapping_add(1);
                let answer =
                    if flags & RST == 0 { Answer::Reply("SYN ACK".to_owned()) } else { Answer::Refused("RST") };
                // The reset of whoever has not asked acknowledges nothing of the probe.
                is_it.then_some(answer)
            }
            (Transport::Udp { ports, length, .. }, Kind::Udp) => {
                let is_it = ports.0 == self.ports.1 && ports.1 == self.ports.0;
                is_it.then(|| Answer::Reply(format!("{length} bytes")))
            }
            (Transport::Udp { body, .. }, Kind::Dhcp) => self.is_transaction(body, 2).then(|| offer(ip, body)),
            (Transport::Icmp(icmp), Kind::Icmp) if icmp.kind == (if self.is_v6() { REPLY_V6 } else { REPLY }) => {
                self.is_echo(icmp).then(|| Answer::Reply("echo reply".to_owned()))
            }
            (Transport::Icmp(icmp), Kind::Arp) => self.advertised(icmp),
            (Transport::Icmp(icmp), _) => self.error(headers, ip, icmp),
            _ => None,
        }
    }

    /// Whether what an error quotes may be the probe: of IPv6 it quotes all of it.
    fn has_ports(&self, quoted: &Ip) -> bool {
        !self.is_v6() || self.carries(quoted)
    }

    /// Who says that it has the address that is asked for.
    fn advertised(&self, icmp: &Icmp) -> Option<Answer> {
        let IpAddr::V6(address) = self.destination else { return None };
        let mac = advertisement(icmp.kind, &icmp.body, address)?;
        Some(Answer::Reply(format!("{address} is at {mac}")))
    }

    /// An ICMP error about the probe.
    fn error(&self, headers: &Headers, ip: &Ip, icmp: &Icmp) -> Option<Answer> {
        let protocol = match self.kind {
            Kind::Tcp => TCP,
            Kind::Udp => UDP,
            Kind::Icmp => self.icmp(),
            Kind::Arp | Kind::Dhcp => return None,
        };
        let is_about = |quoted: &&Ip| quoted.protocol == protocol && self.has_mark(quoted) && self.has_ports(quoted);
        let quoted = icmp.quoted.as_deref().filter(is_about)?;
        let from_end = ip.source == quoted.destination;
        if from_end && (icmp.kind, icmp.code) == (if self.is_v6() { NO_PORT_V6 } else { NO_PORT }) {
            return Some(Answer::Refused("port unreachable"));
        }
        Some(Answer::Stopped { by: ip.source, says: crate::live::words::packet(headers) })
    }
}

fn offer(ip: &Ip, body: &[u8]) -> Answer {
    let address: Option<[u8; 4]> = body.get(16..20).and_then(|bytes| bytes.try_into().ok());
    let address = address.map_or_else(String::new, |address| format!(" offers {}", std::net::Ipv4Addr::from(address)));
    Answer::Reply(format!("{}{address}", ip.source))
}

/// The packet at all places where it was seen.
fn headers(journey: &Journey) -> impl Iterator<Item = &Headers> {
    let steps = journey.steps.iter().map(|step| step.headers.innermost());
    steps.chain(journey.drops.iter().map(|drop| drop.headers.innermost()))
}

impl Heard {
    /// Takes a packet that is over.
    pub fn hear(&mut self, probe: &Probe, told: &Told) {
        if probe.is_it(&told.journey) {
            self.probe.get_or_insert_with(|| End::of(told));
        } else if let Some(answer) = probe.answer(&told.journey) {
            self.answer.get_or_insert_with(|| (answer, End::of(told)));
        }
    }

    /// Whether nothing more can change the verdict.
    pub fn is_enough(&self) -> bool {
        self.answer.is_some() || self.probe.as_ref().is_some_and(End::is_dead)
    }

    /// What it came to.
    pub fn verdict(&self, probe: &Probe) -> (Verdict, String) {
        let what = probe.words();
        match (&self.probe, &self.answer) {
            (_, Some((_, end))) if end.is_dead() => {
                (Verdict::Broken, format!("{what}: it was answered, and the answer died: {}", end.why()))
            }
            (sent, Some((answer, end))) => answered(&what, answer, (sent.as_ref(), end)),
            (Some(sent), None) if sent.is_dead() => (Verdict::Broken, format!("{what}: it died: {}", sent.why())),
            (Some(sent), None) => (Verdict::Inconclusive, format!("{what}: {}", unanswered(&sent.ended))),
            (None, None) => {
                (Verdict::Inconclusive, format!("{what}: it was sent by {} and seen nowhere on its way", probe.device))
            }
        }
    }
}

/// What an answer means.
fn answered(what: &str, answer: &Answer, (sent, end): (Option<&End>, &End)) -> (Verdict, String) {
    let after = sent.map_or_else(String::new, |sent| {
        let took = end.last_ns.saturating_sub(sent.began_ns) / 1_000;
        format!(" after {}.{:03} ms", took / 1_000, took % 1_000)
    });
    match answer {
        Answer::Reply(words) => (Verdict::Works, format!("{what}: it was answered{after}: {words}")),
        Answer::Refused(words) => {
            (Verdict::Works, format!("{what}: it came there and back{after}: nobody listens there ({words})"))
        }
        Answer::Stopped { by, says } => match sent.filter(|sent| sent.is_dead()) {
            Some(sent) => (Verdict::Broken, format!("{what}: it died: {}", sent.why())),
            None => (Verdict::Broken, format!("{what}: {by} says that it goes no further: {says}")),
        },
    }
}

/// Why the end of what has no answer is not known.
const fn unanswered(ended: &Ended) -> &'static str {
    match ended {
        Ended::Delivered => "it came to the end of what is watched, and no answer came back in time",
        Ended::Aside => "it went to others on its own segment, and no answer came back in time",
        Ended::Inconclusive => "sightings were lost, or watching ended before its end was known",
        Ended::Dropped { .. } | Ended::NotSeenAfter => "it died",
    }
}
