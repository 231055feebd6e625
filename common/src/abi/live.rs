//! What programs and user space say to each other while packets are watched. Flow: observe.
//!
//! Nothing of it is pinned: program and reader are always of one netdiag, so there is no version in it.

use crate::logic::live::plain::Answers4;

/// How many of a packet's first bytes are kept. With it a record and the ring buffer's own header take 256 bytes.
pub const HEAD: usize = 184;

/// It came out of a device.
pub const SEEN_RECEIVED: u8 = 1;
/// It went into a device.
pub const SEEN_SENT: u8 = 2;
/// The kernel gave it up.
pub const SEEN_DROPPED: u8 = 3;

/// `head` begins at an IP header, else at an Ethernet header.
pub const SEEN_NETWORK: u8 = 1;
/// There is a VLAN tag beside the frame.
pub const SEEN_TAGGED: u8 = 1 << 1;
/// Seen by a packet socket.
pub const SEEN_BY_SOCKET: u8 = 1 << 2;
/// It belonged to a packet socket: one that was to have it, or one that sent it.
pub const SEEN_OF_SOCKET: u8 = 1 << 3;

/// A packet was seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// Address of the kernel's buffer.
    pub buffer: u64,
    /// Cookie of the namespace; 0 where it is not known.
    pub cookie: u64,
    /// Address of the instruction that gave it up.
    pub location: u64,
    /// Inode of the namespace.
    pub inode: u32,
    /// Index of the device; 0 where it has none.
    pub ifindex: u32,
    /// Length of the whole packet from the first byte of `head` on.
    pub length: u32,
    /// Mark of the packet.
    pub mark: u32,
    /// The CPU.
    pub cpu: u32,
    /// Why the kernel gave it up: `enum skb_drop_reason`, with a subsystem in the upper half.
    pub reason: u32,
    /// VLAN tag beside the frame, priority bits included.
    pub tag: u16,
    /// How many bytes of `head` are the packet's; the others are of whatever was there before.
    pub known: u16,
    /// `SEEN_*` of what became of it.
    pub kind: u8,
    /// `SEEN_*` bits.
    pub flags: u8,
    /// Always 0.
    pub pad: [u8; 2],
    /// The first bytes of the packet.
    pub head: [u8; HEAD],
}

/// How many clauses a filter has room for.
pub const CLAUSES: usize = 16;
/// How many products a filter has room for.
pub const PRODUCTS: usize = 16;

/// The packet must go from here to there, and not the other way.
pub const CLAUSE_ONE_WAY: u32 = 1;

/// Packets between two ends: of every field the bits that count, and what they have to be.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// One end.
    pub here: End,
    /// The other end.
    pub there: End,
    /// Ethertype in host byte order.
    pub ethertype: u16,
    /// Bits of it that count.
    pub ethertype_mask: u16,
    /// IP protocol.
    pub protocol: u16,
    /// Bits of it that count.
    pub protocol_mask: u16,
    /// 4 or 6.
    pub family: u16,
    /// Bits of it that count.
    pub family_mask: u16,
    /// `CLAUSE_*` bits.
    pub flags: u32,
}

/// An end of a clause.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Address in network byte order; IPv4 is mapped.
    pub address: [u32; 4],
    /// Bits of it that count.
    pub mask: [u32; 4],
    /// The first port.
    pub first_port: u32,
    /// How many ports come after it. What has no port has one that is beyond all others.
    pub more_ports: u32,
}

/// Answers to clauses: bit n is about clause n.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Product {
    /// Clauses that must cover the packet.
    pub covered: u16,
    /// Clauses that must not.
    pub uncovered: u16,
}

/// How many namespaces there is room for.
pub const NAMESPACES: usize = 8;

/// Which packets are spoken of, and how often.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How many clauses there are.
    pub clauses: u32,
    /// How many products there are; with none every packet is covered.
    pub products: u32,
    /// The most records of one CPU in a tick; 0 is no limit.
    pub budget: u32,
    /// How many of the kernel's own ticks are one of the budget's: 2 to the power of this.
    pub tick_shift: u32,
    /// Number of this filter, which is even: another for each, and for each that is being written. What was answered by another is
    /// not asked for again.
    pub generation: u32,
    /// `CONFIG_*` bits.
    pub flags: u32,
    /// The clauses.
    pub clause: [Clause; CLAUSES],
    /// The products.
    pub product: [Product; PRODUCTS],
    /// Inodes of the namespaces of which it is said what is given up there, the first being 0 if of all; where nobody knows in which
    /// namespace it was, it is said as well.
    pub given_up_in: [u32; NAMESPACES],
}

/// The index of a device says which it is: no two that are watched have the same, in whatever namespaces they are.
pub const CONFIG_INDEX_IS_ENOUGH: u32 = 1;

/// What one CPU has counted, and what its programs keep beside that: what a packet needs lies together.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// The kernel's tick in which the next one of the budget's begins.
    pub next: u64,
    /// How many records there may be until then.
    pub until: u64,
    /// Records that were begun: written, being written, or lost.
    pub records: u64,
    /// Packets that were left out to keep the cost down.
    pub throttled: u64,
    /// Packets for which the ring buffer had no room.
    pub lost: u64,
    /// Always 0: an answer begins at a multiple of 32 bytes.
    pub pad: [u64; 3],
    /// What the filter said of flows of IPv4.
    pub answers: Answers4,
}

/// Tallies of programs that see packets on their way.
pub const TALLY_WAY: u32 = 0;
/// Tallies of the program that sees packets given up. It may be interrupted by the others, so it has its own.
pub const TALLY_DROPPED: u32 = 1;
/// Tallies of programs at packet sockets, which may be interrupted as well.
pub const TALLY_SOCKET: u32 = 2;
/// How many tallies each CPU has.
pub const TALLIES: usize = 3;

/// Where the running kernel has what the programs read: offsets in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `sk_buff.dev`
    pub skb_dev: u32,
    /// `sk_buff.head`
    pub skb_head: u32,
    /// `sk_buff.data`
    pub skb_data: u32,
    /// `sk_buff.tail`
    pub skb_tail: u32,
    /// `sk_buff.len`
    pub skb_len: u32,
    /// `sk_buff.mark`
    pub skb_mark: u32,
    /// `sk_buff.mac_header`
    pub skb_mac_header: u32,
    /// `sk_buff.network_header`
    pub skb_network_header: u32,
    /// `sk_buff.vlan_tci`
    pub skb_vlan_tci: u32,
    /// The word that says whether there is a tag.
    pub skb_tagged: u32,
    /// Bits of it that say so.
    pub skb_tagged_mask: u32,
    /// The word that says whether the packet is at TC ingress.
    pub skb_ingress: u32,
    /// Bits of it that say so; none where that is not known.
    pub skb_ingress_mask: u32,
    /// `sk_buff.skb_iif`
    pub skb_iif: u32,
    /// `sk_buff._skb_refdst`
    pub skb_dst: u32,
    /// `sk_buff.sk`
    pub skb_sk: u32,
    /// `net_device.ifindex`
    pub dev_ifindex: u32,
    /// `net_device.nd_net`
    pub dev_net: u32,
    /// `net_device.type`
    pub dev_type: u32,
    /// `net.net_cookie`
    pub net_cookie: u32,
    /// `net.ns.inum`
    pub net_inode: u32,
    /// `net.loopback_dev`
    pub net_loopback: u32,
    /// `dst_entry.dev`
    pub dst_dev: u32,
    /// `sock.__sk_common.skc_net`
    pub sk_net: u32,
    /// `sock.__sk_common.skc_family`
    pub sk_family: u32,
    /// The reason that is none: the packet was used up.
    pub consumed: u32,
    /// 1 where the kernel says which socket was to receive a packet that it gives up.
    pub receiver: u32,
}
