//! How much passes in each flow, by packets that were seen at the host's ends of instances. Flow: observe.
//!
//! Of much traffic only a part is seen: what comes first in each moment. What a device itself has counted meanwhile says how large
//! that part is, so what was seen there is scaled by it, and what comes of that is called an estimate.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Losses, Sighting,
    packet::{Headers, ICMP, ICMPV6, Transport},
    points::Side,
};
use crate::{
    fact::enforcement::FlowFact,
    groups::FlowRow,
    id::LinkKey,
    inventory::{Enforcement, Inventory},
};

/// Spans of which a rate is taken.
const SPANS: usize = 3;
/// Flows that are counted in a span: of more than that only those that came first.
const MOST: usize = 16_384;
/// Type of an ICMP answer, and of the question it answers.
const ANSWERS: [(u8, u8, u8); 2] = [(ICMP, 0, 8), (ICMPV6, 129, 128)];

/// What both directions of a flow have in common, as the tracker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    protocol: u8,
    /// Address and port at the instance; the identifier of an ICMP query.
    local: (IpAddr, u16),
    /// Address and port of the other end; the type of an ICMP request.
    remote: (IpAddr, u16),
}

/// The host's end of an instance whose flows are tracked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Name of the device.
    pub name: String,
    /// Networks the instance is in.
    pub networks: Vec<IpNet>,
    /// Its addresses whose packets to and from elsewhere go past the router: taken at XDP, or put right into the instance's own
    /// device, before anybody can see them here.
    pub fast: Vec<IpAddr>,
}

impl End {
    /// Those of a host.
    pub fn all(inventory: &Inventory<'_>) -> HashMap<LinkKey, Self> {
        let loaded = inventory.snapshot.facts.enforcement.iter().flat_map(|loaded| &loaded.floating);
        let nics = inventory.instances.iter().flat_map(|instance| &instance.nics);
        let held = nics.filter_map(|nic| match inventory.enforcement(nic) {
            Enforcement::Port(port) => Some((nic.outer?, nic, port.slot)),
            Enforcement::Absent | Enforcement::Unknown | Enforcement::Unmanaged | Enforcement::Refused(_) => None,
        });
        let end = |(link, nic, slot): (LinkKey, &crate::inventory::Nic<'_>, u32)| {
            let fast = loaded.clone().filter(|one| one.slot == slot).map(|one| one.fixed.into()).collect();
            let networks = nic.addresses.iter().map(IpNet::trunc).collect();
            Some((link, Self { name: nic.outer_name(inventory)?.to_owned(), networks, fast }))
        };
        held.filter_map(end).collect()
    }

    /// Whether packets of a flow are seen here.
    fn sees(&self, flow: &FlowFact) -> bool {
        !self.fast.contains(&flow.local) || self.networks.iter().any(|network| network.contains(&flow.remote))
    }
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Packets, as the host has them: what is cut into segments later is one.
    pub packets: u64,
    /// Bytes, frames included.
    pub bytes: u64,
}

/// What a device has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Out of it, into the network stack: from the instance.
    pub received: Amount,
    /// Into it: to the instance.
    pub sent: Amount,
}

/// What passes in a flow each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// To the instance.
    pub inward: Amount,
    /// From the instance.
    pub outward: Amount,
}

impl Rate {
    /// Both directions.
    pub const fn bytes(&self) -> u64 {
        self.inward.bytes.saturating_add(self.outward.bytes)
    }

    /// Both directions.
    pub const fn packets(&self) -> u64 {
        self.inward.packets.saturating_add(self.outward.packets)
    }
}

/// What passes in all flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// By device.
    flows: HashMap<String, HashMap<Ends, Rate>>,
    /// Devices that are watched: of flows at others nothing is known.
    watched: HashMap<String, End>,
    /// Over how long, in nanoseconds.
    pub took_ns: u64,
    /// Packets that were seen.
    pub seen: u64,
    /// Packets that were not, and are in no flow's rate but by scaling.
    pub missed: u64,
    /// Packets seen in flows for which there was no room.
    pub crowded: u64,
}

impl Rates {
    /// What passes in a flow; none where nobody watches it.
    pub fn of(&self, row: &FlowRow) -> Option<Rate> {
        let device = row.device.as_ref().filter(|_| self.took_ns > 0)?;
        if !self.watched.contains_key(device) || self.is_unseen(row) {
            return None;
        }
        let known = self.flows.get(device).and_then(|flows| flows.get(&Ends::of_flow(&row.flow))).copied();
        // Where some were not seen, a flow of which nothing was may have had something.
        known.or_else(|| (self.missed == 0 && self.crowded == 0).then(Rate::default))
    }

    /// Whether the packets of a flow go where nobody sees them.
    pub fn is_unseen(&self, row: &FlowRow) -> bool {
        let end = row.device.as_ref().and_then(|device| self.watched.get(device));
        end.is_some_and(|end| !end.sees(&row.flow))
    }

    /// Whether rates are scaled from a part of the packets.
    pub const fn is_estimate(&self) -> bool {
        self.missed > 0
    }
}

impl Ends {
    fn of_flow(flow: &FlowFact) -> Self {
        let FlowFact { protocol, local, local_port, remote, remote_port, .. } = *flow;
        Self { protocol, local: (local, local_port), remote: (remote, remote_port) }
    }

    /// Of a packet at the host's end of an instance.
    fn of_packet(headers: &Headers, side: Side) -> Option<Self> {
        let ip = headers.ip()?;
        let (from, to) = match &ip.transport {
            Transport::Icmp(icmp) => {
                let (identifier, _) = icmp.echo?;
                let asked =
                    ANSWERS.iter().find(|(protocol, answer, _)| (*protocol, *answer) == (ip.protocol, icmp.kind));
                let kind = asked.map_or(icmp.kind, |(.., question)| *question);
                return Some(match side {
                    Side::Received => {
                        Self::between(ip.protocol, (ip.source, identifier), (ip.destination, kind.into()))
                    }
                    Side::Sent => Self::between(ip.protocol, (ip.destination, identifier), (ip.source, kind.into())),
                });
            }
            Transport::Tcp { .. }
            | Transport::Udp { .. }
            | Transport::Tunnel { .. }
            | Transport::Sctp { .. }
            | Transport::Ports { .. }
            | Transport::None => ip.transport.ports().unwrap_or_default(),
        };
        let (source, destination) = ((ip.source, from), (ip.destination, to));
        Some(match side {
            Side::Received => Self::between(ip.protocol, source, destination),
            Side::Sent => Self::between(ip.protocol, destination, source),
        })
    }

    const fn between(protocol: u8, local: (IpAddr, u16), remote: (IpAddr, u16)) -> Self {
        Self { protocol, local, remote }
    }
}

/// Packets being counted.
#[derive(Debug)]
pub struct Counter {
    ends: HashMap<LinkKey, End>,
    now: Span,
    spans: VecDeque<Span>,
    began_ns: u64,
    losses: Losses,
    /// What each device had counted when the span began.
    passed: HashMap<LinkKey, Passed>,
}

/// What was counted in a while.
#[derive(Debug, Default)]
struct Span {
    flows: HashMap<(LinkKey, Ends), Rate>,
    /// What was seen at each device, and what it has counted, where that is known.
    devices: HashMap<LinkKey, Device>,
    took_ns: u64,
    seen: u64,
    missed: u64,
    crowded: u64,
}

/// A device in a span.
#[derive(Clone, Copy, Debug, Default)]
struct Device {
    seen: Passed,
    passed: Option<Passed>,
}

impl Counter {
    /// Nothing counted yet, at the host's ends of instances; `passed` is what these have counted by themselves.
    pub fn new(ends: HashMap<LinkKey, End>, now_ns: u64, passed: HashMap<LinkKey, Passed>) -> Self {
        let (now, spans, losses) = (Span::default(), VecDeque::new(), Losses::default());
        Self { ends, now, spans, began_ns: now_ns, losses, passed }
    }

    /// Counts a packet.
    pub fn see(&mut self, sighting: &Sighting) {
        let Some(link) = sighting.link.filter(|link| self.ends.contains_key(link)) else { return };
        let Some(side) = Side::of(&sighting.what) else { return };
        self.now.seen += 1;
        let packet = Amount { packets: 1, bytes: sighting.length.into() };
        self.now.devices.entry(link).or_default().seen.of(side).add(packet);
        let Some(ends) = Ends::of_packet(&Headers::of(sighting), side) else { return };
        let is_full = self.now.flows.len() >= MOST;
        if is_full && !self.now.flows.contains_key(&(link, ends)) {
            self.now.crowded += 1;
            return;
        }
        let rate = self.now.flows.entry((link, ends)).or_default();
        let amount = if side == Side::Received { &mut rate.outward } else { &mut rate.inward };
        amount.add(packet);
    }

    /// Ends a span, and says what passes by the last ones. `passed` is what devices have counted, of those where it is known.
    pub fn turn(&mut self, now_ns: u64, losses: Losses, passed: HashMap<LinkKey, Passed>) -> Rates {
        for (link, now) in &passed {
            let before = self.passed.get(link);
            self.now.devices.entry(*link).or_default().passed = before.map(|before| now.since(before));
        }
        self.passed = passed;
        let before = std::mem::replace(&mut self.losses, losses);
        let all = |losses: Losses| losses.lost + losses.throttled;
        self.now.missed = all(losses).saturating_sub(all(before));
        self.now.took_ns = now_ns.saturating_sub(std::mem::replace(&mut self.began_ns, now_ns));
        self.spans.push_back(std::mem::take(&mut self.now));
        if self.spans.len() > SPANS {
            self.spans.pop_front();
        }
        self.rates()
    }

    fn rates(&self) -> Rates {
        let sum = |of: fn(&Span) -> u64| self.spans.iter().map(of).sum::<u64>();
        let mut rates = Rates {
            flows: HashMap::new(),
            watched: self.ends.values().map(|end| (end.name.clone(), end.clone())).collect(),
            took_ns: sum(|span| span.took_ns),
            seen: sum(|span| span.seen),
            missed: sum(|span| span.missed),
            crowded: sum(|span| span.crowded),
        };
        for span in &self.spans {
            for ((link, ends), counted) in &span.flows {
                let Some(end) = self.ends.get(link) else { continue };
                let rate = rates.flows.entry(end.name.clone()).or_default().entry(*ends).or_default();
                rate.inward.add(span.scaled(*link, Side::Sent, counted.inward));
                rate.outward.add(span.scaled(*link, Side::Received, counted.outward));
            }
        }
        for rate in rates.flows.values_mut().flat_map(HashMap::values_mut) {
            rate.inward = rate.inward.a_second(rates.took_ns);
            rate.outward = rate.outward.a_second(rates.took_ns);
        }
        rates
    }
}

impl Span {
    /// What there was of something at one side of a device, when so much of it was seen: what was not seen is taken to be like what
    /// was.
    fn scaled(&self, link: LinkKey, side: Side, counted: Amount) -> Amount {
        let mut device = self.devices.get(&link).copied().unwrap_or_default();
        let all = device.passed.filter(|_| self.missed > 0).map(|mut passed| *passed.of(side));
        let seen = *device.seen.of(side);
        if let Some(all) = all.filter(|all| all.packets >= seen.packets && all.bytes > 0) {
            let (packets, bytes) =
                (part(counted.packets, all.packets, seen.packets), part(counted.bytes, all.bytes, seen.bytes));
            return Amount { packets, bytes };
        }
        // How many were not seen is known exactly, and not where.
        let scaled = |number: u64| part(number, self.seen + self.missed, self.seen);
        Amount { packets: scaled(counted.packets), bytes: scaled(counted.bytes) }
    }
}

impl Passed {
    const fn of(&mut self, side: Side) -> &mut Amount {
        match side {
            Side::Received => &mut self.received,
            Side::Sent => &mut self.sent,
        }
    }

    const fn since(&self, before: &Self) -> Self {
        Self { received: self.received.since(before.received), sent: self.sent.since(before.sent) }
    }
}

impl Amount {
    const fn add(&mut self, more: Self) {
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    /// A device that was made anew begins at nothing.
    const fn since(self, before: Self) -> Self {
        let Self { packets, bytes } = self;
        Self { packets: packets.saturating_sub(before.packets), bytes: bytes.saturating_sub(before.bytes) }
    }

    fn a_second(self, took_ns: u64) -> Self {
        let rate = |number: u64| part(number, 1_000_000_000, took_ns);
        Self { packets: rate(self.packets), bytes: rate(self.bytes) }
    }
}

/// So many times a fraction, to the nearest.
fn part(number: u64, above: u64, below: u64) -> u64 {
    let below = u128::from(below.max(1));
    let product = u128::from(number) * u128::from(above) + below / 2;
    u64::try_from(product / below).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
