//! Packets as they are seen on their way: what the probes say, before anybody joins it to a path. Flow: observe.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::LinkKey;

/// Where and why a packet died, and what is guilty.
pub mod blame;
/// Packets that were given up anywhere on the host.
pub mod drops;
/// Which packets are wanted.
pub mod filter;
/// One packet recognised across its sightings.
pub mod journey;
/// Bytes of a sighting to what its headers say.
pub mod packet;
/// Which devices to watch for an instance.
pub mod points;
/// One packet that netdiag sends itself.
pub mod probe;
/// How much passes in each flow.
pub mod rates;
/// The kernel's reasons to give a packet up, in sentences.
pub mod reasons;
/// What watching came to.
pub mod report;
/// Rules of the packet filter that would drop a packet.
mod rules;
/// Packets in words.
pub mod words;

/// Names of netdiag's own programs at TC that watch packets and do nothing to them.
pub const PROGRAMS: [&str; 6] = ["live_in", "live_out", "live_in_ip", "live_out_ip", "live_either", "live_either_ip"];

/// One packet, seen once: at a device, or where the kernel gave it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The CPU that saw it.
    pub cpu: u32,
    /// The device; none where a packet that was given up belonged to none.
    pub link: Option<LinkKey>,
    /// What became of it there.
    pub what: What,
    /// Address of the kernel's buffer, which stays the same while nobody copies the packet; 0 where the probe cannot know.
    pub buffer: u64,
    /// Length of the whole packet from the first byte of `head` on, in bytes; more than one packet's on devices that
    /// segment.
    pub length: u32,
    /// The packet's mark (`SO_MARK`, `fwmark`).
    pub mark: u32,
    /// VLAN tag beside the frame, priority bits included; none where there is none or it is in the frame.
    pub tag: Option<u16>,
    /// Where `head` begins.
    pub layer: Layer,
    /// The first bytes of the packet.
    pub head: Vec<u8>,
}

/// What became of a packet where it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// It came out of the device into this host's network stack, seen before what filters there.
    Received(View),
    /// It went into the device, seen after what filters there.
    Sent(View),
    /// The kernel gave it up (`skb:kfree_skb`).
    Dropped {
        /// Reason as the kernel names it, without `SKB_DROP_REASON_`: `NETFILTER_DROP`, `NO_SOCKET`, `OVS_DROP_LAST_ACTION`.
        reason: String,
        /// Who names it: `core`, `openvswitch`, `mac80211_unusable`, ….
        subsystem: String,
        /// Function that gave it up, with its offset, where kallsyms says: `nf_hook_slow+0xcd`.
        location: Option<String>,
        /// True of a copy that a packet socket had not read when it was closed: the packet itself went its way.
        #[serde(default)]
        copy: bool,
    },
}

/// Through what a device was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// A program at TCX or clsact.
    Tc,
    /// A packet socket, where frames are taken before TC sees them.
    Socket,
}

/// Where the first byte of a packet lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// At an Ethernet header.
    Ethernet,
    /// At an IP header.
    Network,
}

/// Which packets a probe speaks of: those for which one of the products holds; with no product every packet.
///
/// Every boolean expression over clauses can be written so, and a program in the kernel evaluates it without a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The questions about a packet, at most [`Filter::CLAUSES`].
    pub clauses: Vec<Clause>,
    /// Answers that are wanted, at most [`Filter::PRODUCTS`].
    pub products: Vec<Product>,
}

impl Filter {
    /// How many clauses a filter can have.
    pub const CLAUSES: usize = 16;
    /// How many products a filter can have.
    pub const PRODUCTS: usize = 16;
}

/// Answers to the clauses of a filter: bit n is about clause n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Clauses that must cover the packet.
    pub covered: u16,
    /// Clauses that must not.
    pub uncovered: u16,
}

/// Packets between two ends. None means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clause {
    /// Ethertype: 0x0800, 0x0806, 0x86dd.
    pub ethertype: Option<u16>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// One end.
    pub here: End,
    /// The other end.
    pub there: End,
    /// True if only packets from `here` to `there` are meant, and not the answers.
    pub one_way: bool,
}

/// An end of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Address and length of the prefix, in bits.
    pub prefix: Option<(IpAddr, u8)>,
    /// First and last port.
    pub ports: Option<(u16, u16)>,
}

/// Sightings of which there is no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Packets the filter covered for which the ring buffer had no room.
    pub lost: u64,
    /// Packets the filter covered that the probe left out to keep its cost down.
    pub throttled: u64,
}

/// What watching costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Share of one CPU netdiag itself used, 1.0 being one whole CPU.
    pub own_cpu: f64,
    /// Share of one CPU its programs used in the kernel; none where the kernel does not count it.
    pub programs_cpu: Option<f64>,
    /// Records a second.
    pub records: f64,
}
