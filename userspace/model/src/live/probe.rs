//! One packet that netdiag sends itself: what it is, which packets belong to it, and what came of it. Flow: observe.
//!
//! ```text
//! what is asked --plan (inventory, trace, points)--> Probe --frame--> bytes, sent once
//! packets that are over --hear--> Heard --verdict--> works, broken, inconclusive, in one sentence
//! ```
//!
//! The packet is marked, so that neither it nor its answer can be taken for others of the same conversation: by its IP
//! identification (IPv6 has none: there by its ports), and by a number that answers repeat (TCP's sequence number, an
//! echo's, DHCP's transaction).

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{
    Clause, End,
    filter::Wanted,
    packet::{ETHERTYPE_ARP, ICMP, ICMPV6, TCP, UDP},
};
use crate::id::{LinkKey, Mac};

/// The bytes of a probe.
mod frame;
/// Packets that belong to a probe.
mod heard;
/// From what is asked to the packet that is sent.
mod plan;

pub use frame::neighbour_answer;
pub use heard::{Answer, Heard};
pub use plan::{Refusal, plan};

/// Everybody on a segment.
const BROADCAST: Mac = Mac([0xff; 6]);

/// What kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Icmp,
    /// Who has an address? Of IPv6 it is neighbour discovery that asks.
    Arp,
    /// Who gives me an address?
    Dhcp,
}

/// Whom it is for, as it is typed: `203.0.113.10`, `203.0.113.10:443`, `2001:db8::1`, `[2001:db8::1]:443`, `:443`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Address.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: Option<u16>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no address, with or without a port: 192.0.2.1:80, [2001:db8::1]:80, :80");
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let (address, port) = if let Ok(address) = text.parse() {
            (Some(address), None)
        } else if let Some(Ok(address)) = bare.map(str::parse::<Ipv6Addr>) {
            (Some(address.into()), None)
        } else if let Ok(both) = text.parse::<SocketAddr>() {
            (Some(both.ip()), Some(both.port()))
        } else {
            let port = text.strip_prefix(':').ok_or_else(wrong)?;
            (None, Some(port.parse().map_err(|_| wrong())?))
        };
        if port == Some(0) { Err(wrong()) } else { Ok(Self { address, port }) }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What kind of packet.
    pub kind: Kind,
    /// Whom it is for.
    pub to: Option<Target>,
    /// From outside to the floating IP, instead of from the instance.
    pub from_outside: bool,
    /// What marks it: any numbers that no other packet is likely to have.
    pub mark: Mark,
}

/// What tells a probe from all other packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Identification of IPv4, and identifier of an echo; not 0.
    pub id: u16,
    /// Sequence number, transaction.
    pub number: u32,
}

/// How a packet gets to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is sent by the device.
    Sent,
    /// It is handed to the host as if the device had received it.
    Received,
}

/// One packet that can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What kind.
    pub kind: Kind,
    /// From outside.
    pub from_outside: bool,
    /// Device that gets it.
    pub link: LinkKey,
    /// What it is called.
    pub device: String,
    /// How the device gets it.
    pub entry: Entry,
    /// Source address; unspecified for DHCP.
    pub source: IpAddr,
    /// Source of the frame.
    pub source_mac: Mac,
    /// Destination address.
    pub destination: IpAddr,
    /// Who takes it on the segment.
    pub next_hop: IpAddr,
    /// Destination of the frame; none where it has to be asked for.
    pub next_mac: Option<Mac>,
    /// Source and destination port.
    pub ports: (u16, u16),
    /// What marks it.
    pub mark: Mark,
}

impl Probe {
    /// Packets of its conversation. Translation may change the source port, so that is left open.
    pub fn wanted(&self) -> Wanted {
        let host = |address: IpAddr| Some((address, if address.is_ipv4() { 32 } else { 128 }));
        let end = |address, port| End { prefix: host(address), ports: port };
        let (here, there) = (end(self.source, None), end(self.destination, None));
        let port = Some((self.ports.1, self.ports.1));
        let dhcp = End { prefix: None, ports: Some((67, 68)) };
        Wanted::Clause(match self.kind {
            Kind::Tcp => Clause { protocol: Some(TCP), here, there: end(self.destination, port), ..Clause::default() },
            Kind::Udp => Clause { protocol: Some(UDP), here, there: end(self.destination, port), ..Clause::default() },
            Kind::Icmp => Clause { protocol: Some(self.icmp()), here, there, ..Clause::default() },
            // The question goes to a group of neighbours, the answer comes from whatever address it likes.
            Kind::Arp if self.is_v6() => Clause { protocol: Some(ICMPV6), here, ..Clause::default() },
            Kind::Arp => Clause { ethertype: Some(ETHERTYPE_ARP), here, there, ..Clause::default() },
            Kind::Dhcp => Clause { protocol: Some(UDP), here: dhcp.clone(), there: dhcp, ..Clause::default() },
        })
    }

    /// Whether it is of IPv6.
    const fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// The protocol of its family's ICMP.
    const fn icmp(&self) -> u8 {
        if self.is_v6() { ICMPV6 } else { ICMP }
    }

    /// Whom a question for an address goes to.
    fn asked_of(address: IpAddr) -> Mac {
        match address {
            IpAddr::V4(_) => BROADCAST,
            IpAddr::V6(address) => frame::solicited(address).1,
        }
    }

    /// The packet in words, without where it is sent.
    pub fn words(&self) -> String {
        let Self { source, destination, ports: (from, to), .. } = self;
        match self.kind {
            Kind::Tcp => format!("tcp {} > {} SYN", end(*source, *from), end(*destination, *to)),
            Kind::Udp => format!("udp {} > {}", end(*source, *from), end(*destination, *to)),
            Kind::Icmp => {
                format!("{} {source} > {destination} echo request", if self.is_v6() { "icmpv6" } else { "icmp" })
            }
            Kind::Arp => self.asks(*destination),
            Kind::Dhcp => format!("dhcp DISCOVER of {}", self.source_mac),
        }
    }

    /// A question for a neighbour, in words.
    fn asks(&self, address: IpAddr) -> String {
        format!("{} {} asks for {address}", if self.is_v6() { "ndp" } else { "arp" }, self.source)
    }

    /// All that will be sent, in one line.
    pub fn announcement(&self) -> String {
        let Self { source_mac, device, mark, .. } = self;
        let length = self.frame().map_or(0, |frame| frame.len());
        let to = self.next_mac.unwrap_or(BROADCAST);
        let place = match (self.entry, self.from_outside) {
            (Entry::Sent, _) => format!("sent by {device}, behind the rules of that namespace"),
            (Entry::Received, false) => format!("as if {device} had received it from the guest"),
            (Entry::Received, true) => format!("as if {device} had received it from outside"),
        };
        let mark = match self.kind {
            Kind::Arp => String::new(),
            Kind::Tcp if self.is_v6() => format!(", sequence number {}", mark.number),
            Kind::Icmp if self.is_v6() => format!(", identifier {:#06x}", mark.id),
            Kind::Udp if self.is_v6() => String::new(),
            Kind::Tcp | Kind::Udp | Kind::Icmp => format!(", IP id {:#06x}", mark.id),
            Kind::Dhcp => format!(", transaction {:#010x}", mark.number),
        };
        let after = match self.kind {
            Kind::Tcp => "; who gets the answer has not asked for it, and refuses it with a reset of its own",
            Kind::Udp => "; who gets an answer has not asked for it, and may refuse it by ICMP",
            Kind::Icmp | Kind::Arp | Kind::Dhcp => "",
        };
        format!("sends one packet: {}, {length} bytes, {source_mac} > {to}{mark}, {place}{after}", self.words())
    }

    /// The question that has to be asked first, in one line.
    pub fn question_announcement(&self) -> String {
        let Self { source_mac, next_hop, device, .. } = self;
        let (asks, to) = (self.asks(*next_hop), Self::asked_of(*next_hop));
        format!(
            "sends one question first, as no neighbour table says the MAC address of {next_hop}: \
             {asks}, {source_mac} > {to}, by {device}"
        )
    }
}

/// An address with a port.
fn end(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

#[cfg(test)]
mod tests;
