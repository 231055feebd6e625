//! Questions of the instance that nobody answered: they left what is watched, or went to its segment, and nothing came back.
//! Flow: explain.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    live::{
        journey::{Ended, Journey, is_to_many},
        packet::{Content, Headers, ICMP, ICMPV6, Ip, Transport},
        points::Points,
        words,
    },
    trace::{Direction, Finding, HopKind, Severity, Trace},
};

/// The most addresses that are remembered: whoever asks more at once looks for somebody.
pub(super) const MOST: usize = 1_024;
/// The most that are told of.
pub(super) const TOLD: usize = 5;
/// Whoever was asked no longer ago than this may yet answer.
pub(super) const PATIENCE_NS: u64 = 1_000_000_000;

/// SYN without ACK.
const OPENS: (u8, u8) = (0x12, 0x02);

/// What was asked of whom.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    asked: BTreeMap<IpAddr, Questions>,
    /// Whoever has sent anything.
    heard: BTreeSet<IpAddr>,
}

/// Questions that are alike.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) packets: u64,
    /// When the first was asked.
    pub(super) since_ns: u64,
}

impl Counting {
    /// None yet, the first of which is about to be counted.
    pub(super) fn from(journey: &Journey) -> Self {
        Self { packets: 0, since_ns: journey.began_ns() }
    }
}

/// Questions to one address.
#[derive(Debug)]
struct Questions {
    counting: Counting,
    /// The last device that saw them.
    device: String,
    /// They went to the instance's own segment.
    aside: bool,
}

impl Unanswered {
    /// Adds a packet.
    pub(super) fn add(&mut self, journey: &Journey, points: &Points) {
        if journey.direction == Direction::Inward {
            return self.hear(journey);
        }
        let aside = match journey.ended {
            Ended::Delivered => false,
            Ended::Aside => true,
            Ended::Dropped { .. } | Ended::NotSeenAfter | Ended::Inconclusive => return,
        };
        // Others on its segment ask for the instance itself.
        let own = |whom: &IpAddr| points.tracks.get(journey.track).is_some_and(|track| track.own.contains(whom));
        let Some(whom) = asks(&journey.packet).filter(|whom| !own(whom)) else { return };
        let room = self.asked.len() < MOST || self.asked.contains_key(&whom);
        let last = journey.steps.last().and_then(|step| points.stop(step.place));
        if let Some(stop) = last.filter(|_| room) {
            let none = || Questions { counting: Counting::from(journey), device: stop.label(), aside };
            self.asked.entry(whom).or_insert_with(none).counting.packets += 1;
        }
    }

    /// Takes note of who has sent something, if the packet came in.
    pub(super) fn hear(&mut self, journey: &Journey) {
        let source = journey.packet.addresses().map(|(source, _)| source);
        let source = source.filter(|_| journey.direction == Direction::Inward && self.heard.len() < MOST);
        self.heard.extend(source);
    }

    /// What is to be said of those who had not answered by some time.
    pub(super) fn findings(self, until_ns: u64, points: &Points, trace: &Trace) -> Vec<Finding> {
        let Self { asked, heard } = self;
        // Of so many who sent something, others may have too.
        if heard.len() >= MOST {
            return Vec::new();
        }
        let waited = |questions: &Questions| until_ns.saturating_sub(questions.counting.since_ns) >= PATIENCE_NS;
        let silent = asked.into_iter().filter(|(whom, questions)| !heard.contains(whom) && waited(questions));
        silent.take(TOLD).map(|(whom, questions)| questions.finding(whom, points, trace)).collect()
    }
}

impl Questions {
    fn finding(self, whom: IpAddr, points: &Points, trace: &Trace) -> Finding {
        let Self { counting: Counting { packets, .. }, device, aside } = self;
        let tunnels = if aside && !is_here(points, whom) { tunnels(trace) } else { Vec::new() };
        let (object, by) = match &tunnels[..] {
            [] if aside => (whom.to_string(), "to the instance's segment".to_owned()),
            [] => (device.clone(), format!("by {device}")),
            [(name, note)] => {
                (name.clone(), format!("to the instance's segment, whose rest is behind {name} ({note})"))
            }
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                let names = names.join(", ");
                (names.clone(), format!("to the instance's segment, whose rest is behind {names}"))
            }
        };
        Finding {
            severity: Severity::Warning,
            code: "unanswered".to_owned(),
            object,
            message: format!("{} for {whom} went {by}, and nothing came back from it", words::packets(packets)),
            evidence: format!("they were seen at {device}, and no packet from {whom} came in"),
            verify: None,
            fix: Some(format!("see on the way to {whom} whether they arrive there, and what becomes of its answers")),
        }
    }
}

/// Whether an address is of an instance of this host.
fn is_here(points: &Points, address: IpAddr) -> bool {
    points.others.values().any(|addresses| addresses.contains(&address))
}

/// Tunnels to the rest of the segment, with their ends.
fn tunnels(trace: &Trace) -> Vec<(String, String)> {
    let hops = trace.interfaces.iter().flat_map(|interface| &interface.hops);
    let lateral = hops.filter(|hop| hop.direction == Direction::Lateral && hop.kind == HopKind::Tunnel);
    lateral.map(|hop| (hop.name.clone(), hop.note.clone())).collect()
}

/// Whom a packet asks for an answer.
fn asks(headers: &Headers) -> Option<IpAddr> {
    match &headers.content {
        Content::Arp(arp) => (arp.operation == 1 && arp.sender != arp.target).then_some(arp.target),
        // Of many who are asked at once nobody has to answer, and nobody does by the address of all.
        Content::Ip(ip) => (is_question(ip) && !is_to_many(headers)).then_some(ip.destination),
        Content::Other { .. } => None,
    }
}

pub(super) fn is_question(ip: &Ip) -> bool {
    let to_many = match ip.destination {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    };
    let asks = match &ip.transport {
        Transport::Tcp { flags, .. } => flags & OPENS.0 == OPENS.1,
        Transport::Icmp(icmp) => matches!((ip.protocol, icmp.kind), (ICMP, 8) | (ICMPV6, 128)),
        Transport::Udp { .. }
        | Transport::Tunnel { .. }
        | Transport::Sctp { .. }
        | Transport::Ports { .. }
        | Transport::None => false,
    };
    asks && !to_many
}
