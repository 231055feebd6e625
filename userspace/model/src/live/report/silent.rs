//! Questions that came to the instance and that it did not answer. The kernel says nothing of most of these: a connection for which
//! a listener has no room is let go without a word. Flow: explain.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::unanswered::{Counting, MOST, PATIENCE_NS, TOLD, is_question};
use crate::{
    live::{
        journey::{Ended, Journey},
        packet::{Content, Headers, ICMP, ICMPV6, TCP},
        points::{Points, Stop},
        words,
    },
    trace::{Direction, Finding, HopKind, InstanceKind, Severity, Trace},
};

/// Who asked for what: the other end, the protocol, the port of the instance.
type Question = (IpAddr, u8, u16);

/// In the place of the protocol of a question for the MAC address.
const ARP: u8 = 0;

/// What the instance was asked, and whom it has answered.
#[derive(Debug, Default)]
pub(super) struct Silent {
    asked: BTreeMap<Question, Asked>,
    answered: BTreeSet<Question>,
}

#[derive(Debug)]
struct Asked {
    counting: Counting,
    /// The first packet, in words.
    packet: String,
    /// The last device that saw it.
    device: String,
    /// The address it is for.
    of: IpAddr,
}

impl Silent {
    /// Adds a packet.
    pub(super) fn add(&mut self, journey: &Journey, points: &Points) {
        if journey.direction != Direction::Inward {
            return self.hear(journey);
        }
        let Some(last) = journey.steps.last().filter(|_| journey.ended == Ended::Delivered) else { return };
        let Some(stop) = points.stop(last.place) else { return };
        let headers = last.headers.innermost();
        let own = points.tracks.get(journey.track).map_or(&[][..], |track| &track.own);
        let Some((question, of)) = question(headers, stop, own) else { return };
        if self.asked.len() >= MOST && !self.asked.contains_key(&question) {
            return;
        }
        let (packet, device) = (words::packet(headers), stop.label());
        let none = || Asked { counting: Counting::from(journey), packet, device, of };
        self.asked.entry(question).or_insert_with(none).counting.packets += 1;
    }

    /// Takes note of whom the instance has sent something, if the packet went out.
    pub(super) fn hear(&mut self, journey: &Journey) {
        let answer = answer(&journey.packet).filter(|_| journey.direction != Direction::Inward);
        self.answered.extend(answer.filter(|_| self.answered.len() < MOST));
    }

    /// What is to be said of what was not answered by some time.
    pub(super) fn findings(self, until_ns: u64, points: &Points, trace: &Trace) -> Vec<Finding> {
        let Self { asked, answered } = self;
        // Of so many it has answered, it may have answered others.
        if answered.len() >= MOST {
            return Vec::new();
        }
        let waited = |asked: &Asked| until_ns.saturating_sub(asked.counting.since_ns) >= PATIENCE_NS;
        let silent = asked.into_iter().filter(|(question, asked)| !answered.contains(question) && waited(asked));
        silent.take(TOLD).map(|(question, asked)| finding(question, asked, points, trace)).collect()
    }
}

/// Whether a device is the last one before the instance itself.
const fn is_its_end(stop: &Stop) -> bool {
    matches!(stop.kind, HopKind::InnerDevice | HopKind::HostDevice)
}

/// What a packet asks of the instance, and of which of its addresses; of those that its router answers for, who has them.
fn question(headers: &Headers, stop: &Stop, own: &[IpAddr]) -> Option<(Question, IpAddr)> {
    match &headers.content {
        Content::Arp(arp) => {
            let asks = arp.operation == 1 && arp.sender != arp.target && own.contains(&arp.target);
            asks.then_some(((arp.sender, ARP, 0), arp.target))
        }
        Content::Ip(ip) => {
            let port = ip.transport.ports().map_or(0, |(_, port)| port);
            (is_its_end(stop) && is_question(ip)).then_some(((ip.source, ip.protocol, port), ip.destination))
        }
        Content::Other { .. } => None,
    }
}

/// The question a packet of the instance may answer.
fn answer(headers: &Headers) -> Option<Question> {
    if let Content::Arp(arp) = &headers.content {
        return (arp.operation != 1).then_some((arp.target, ARP, 0));
    }
    let ip = headers.ip()?;
    Some((ip.destination, ip.protocol, ip.transport.ports().map_or(0, |(port, _)| port)))
}

fn finding((_, protocol, port): Question, asked: Asked, points: &Points, trace: &Trace) -> Finding {
    let Asked { counting: Counting { packets, .. }, packet, device, of } = asked;
    // What the trace finds wrong with that very address is why.
    let is_it = |finding: &&Finding| finding.severity == Severity::Error && finding.object == of.to_string();
    let cause = trace.findings.iter().find(is_it);
    let inside = trace.instance.pid.filter(|_| trace.instance.kind != InstanceKind::Vm);
    let run = |command: String| inside.map(|pid| format!("nsenter -n -t {pid} {command}"));
    let (why, verify) = match protocol {
        TCP => (
            "its listener's queue is full, or nobody is there",
            run(format!("ss -tln 'sport = {port}'; nstat -az TcpExtListenOverflows")),
        ),
        ICMP | ICMPV6 => (
            "it does not answer pings, or nobody is there",
            run("sysctl net.ipv4.icmp_echo_ignore_all net.ipv6.icmp.echo_ignore_all".to_owned()),
        ),
        _ => ("nobody is there", None),
    };
    let times = if packets == 1 { "once".to_owned() } else { format!("{packets} times") };
    let why = cause.map_or(why, |cause| &cause.message);
    let whose =
        if protocol == ARP { "nobody answered".to_owned() } else { format!("{} did not answer", points.instance) };
    Finding {
        severity: if cause.is_some() { Severity::Error } else { Severity::Warning },
        code: "no-answer".to_owned(),
        object: if protocol == ARP { device.clone() } else { points.instance.clone() },
        message: format!("{packet} came to {device} {times}, and {whose}: {why}"),
        evidence: format!("{device} saw it come in, and no answer to it went out"),
        verify: cause.and_then(|cause| cause.verify.clone()).or(verify),
        fix: cause
            .and_then(|cause| cause.fix.clone())
            .or_else(|| Some("see in the instance whether the service runs and takes connections".to_owned())),
    }
}
