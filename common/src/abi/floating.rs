//! Map keys and values of floating IPs. Flow: policy.
//!
//! User space writes all of them but the counters. A floating IP that is not served from here is not in them: its packets
//! go the slow way, through the router, as if nobody were here. Numbers are in the byte order of the host, addresses in that of
//! the network.

/// How many floating IPs can be served at once.
pub const MAX_FLOATING: u32 = 16_384;
/// How many prefixes and neighbours all routers can have together.
pub const MAX_HOPS: u32 = 262_144;
/// How many flows can be held on the slow way.
pub const MAX_HELD: u32 = 65_536;
/// How many far ends are known that were asked through a router.
pub const MAX_ASKED: u32 = 16_384;

/// What `skb->mark` is between the program at the external device and the one at the instance's: the packet comes the
/// fast way. Packets from outside the host have no mark, and a mark does not leave a namespace.
pub const FAST_MARK: u32 = 0x6e64_6661;

/// A floating IP as packets from outside name it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FloatingKey {
    /// Index of the external device.
    pub device: u32,
    /// VLAN of the external network at that device; 0 is untagged.
    pub vlan: u32,
    /// The floating IP.
    pub address: u32,
}

/// New flows may begin the fast way. Without it only those that began so go on.
pub const FLOATING_BEGINS: u32 = 1;
/// The instance's own device is the peer of the host's device, in another namespace: packets are put right there.
pub const FLOATING_PEER: u32 = 1 << 1;
/// What leaves is received by the external device instead of sent: it is the internal device of a bridge without a NIC.
pub const FLOATING_RECEIVED: u32 = 1 << 2;

/// Inward: who a floating IP stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floating {
    /// `FLOATING_*` bits.
    pub flags: u32,
    /// The fixed address.
    pub fixed: u32,
    /// Place of the port.
    pub slot: u32,
    /// [`super::policy::Port::epoch`] of the port that was meant.
    pub epoch: u32,
    /// Index of the host's device of the instance.
    pub device: u32,
    /// Bytes an IP packet may have on the way to the instance.
    pub mtu: u32,
    /// MAC address packets for the floating IP come to: the router's on the external network.
    pub outer_mac: [u8; 6],
    /// Destination MAC address the instance is to see: its own.
    pub destination_mac: [u8; 6],
    /// Source MAC address the instance is to see: the router's on its own network.
    pub source_mac: [u8; 6],
    /// Routers on the slow way: how much smaller the TTL becomes.
    pub hops: u16,
}

/// A fixed address that has a floating IP, beyond the first of its port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeavingKey {
    /// Place of the port.
    pub slot: u32,
    /// The fixed address.
    pub fixed: u32,
}

/// Outward: what a fixed address leaves as. All zeros: the port has no floating IP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// `FLOATING_*` bits.
    pub flags: u32,
    /// The fixed address.
    pub fixed: u32,
    /// The floating IP.
    pub floating: u32,
    /// [`super::policy::Port::epoch`] of the port that was meant.
    pub epoch: u32,
    /// Which router's prefixes and neighbours: the first half of a key of `HOPS`.
    pub router: u32,
    /// Index of the external device.
    pub device: u32,
    /// Bytes an IP packet may have on the external network.
    pub mtu: u32,
    /// VLAN of the external network at that device; 0 is untagged.
    pub vlan: u16,
    /// Routers on the slow way: how much smaller the TTL becomes.
    pub hops: u16,
    /// MAC address of the router on the instance's network: what it sends elsewhere is not for the router.
    pub inner_mac: [u8; 6],
    /// Source MAC address the outside is to see: the router's on the external network.
    pub outer_mac: [u8; 6],
}

/// The data part of a key of the trie of prefixes and neighbours of a router. The prefix covers the router whole (32
/// bits) and then as much of the address as the prefix has: 32 bits for a neighbour.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HopKey {
    /// The router.
    pub router: u32,
    /// The destination.
    pub address: u32,
}

/// Not translated: inside, or on a way that is not served from here. Also where no prefix matches.
pub const HOP_SLOW: u32 = 0;
/// The next hop is known.
pub const HOP_KNOWN: u32 = 1;
/// Outside, and the next hop has not been resolved.
pub const HOP_UNRESOLVED: u32 = 2;
/// The next hop is known, and is the destination itself, which may be a floating IP of this host.
pub const HOP_ON_LINK: u32 = 3;

/// Where a router sends what goes to a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// `HOP_*`.
    pub kind: u32,
    /// MAC address of the next hop.
    pub mac: [u8; 6],
    /// Always 0.
    pub pad: [u8; 2],
}

/// An instance of a network of this host, by the MAC address it is sent to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationKey {
    /// The network: a number user space gives to ports that may send to each other past the bridge. Never 0.
    pub network: u32,
    /// The MAC address.
    pub mac: [u8; 6],
    /// Always 0.
    pub pad: [u8; 2],
}

/// How many ways a port has counters for, by direction; a power of two, above the highest number.
pub const WAYS: usize = 32;

/// Where a way of a port and direction is counted.
#[expect(clippy::cast_possible_truncation, reason = "there are few ways")]
pub const fn way_index(slot: u32, ingress: bool, way: u8) -> u32 {
    (slot * 2 + ingress as u32) * WAYS as u32 + way as u32
}

/// A way a packet of a floating IP takes. The number is what counters are indexed by.
macro_rules! ways {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// Which way a packet went past router or bridge, or why through the router.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Way {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Way {
            /// Every way, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for counters and filters: `slow-flow`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

ways! {
    /// Translated here and delivered past bridge and router.
    Fast = 0, "fast";
    /// The flow began on the slow way and stays there; or it may be the answer to one that did.
    SlowFlow = 1, "slow-flow";
    /// The flow was there before the floating IP was served from here.
    HeldFlow = 2, "held-flow";
    /// A TCP packet of a connection, or the answer to a ping, that nobody here saw begin.
    UnknownFlow = 3, "unknown-flow";
    /// New flows begin on the slow way: the floating IP was taken off the fast way.
    Draining = 4, "draining";
    /// The TTL ends at the router, which has to say so.
    Ttl = 5, "ttl";
    /// The IP header has options.
    Options = 6, "ip-options";
    /// A fragment, which only the router can put in order.
    Fragment = 7, "fragment";
    /// Too long for the next network: the router fragments it or says so.
    Mtu = 8, "mtu";
    /// The MAC address of the next hop is not known.
    Unresolved = 9, "unresolved-neighbour";
    /// To a floating IP or a router of this host.
    Hairpin = 10, "hairpin";
    /// The first packet of a flow may have a checksum that is not computed yet, which cannot be told here.
    PartialChecksum = 11, "partial-checksum";
    /// ICMP that is about no flow of the fast way.
    Icmp = 12, "icmp";
    /// The port's security groups are not enforced here, or keep no state.
    Port = 13, "port";
    /// Not to the router's MAC address, or in another VLAN.
    Link = 14, "link";
    /// Headers that contradict themselves or are not where they can be read.
    Header = 15, "header";
    /// Translated here, and refused by the security groups of the port.
    Refused = 16, "refused";
    /// Sent straight to another instance of the same network and host, past the bridge.
    Straight = 17, "straight";
    /// The device it would go to is gone, or takes no packet as long.
    Gone = 18, "gone-device";
}

#[cfg(test)]
mod tests {
    use super::{WAYS, Way};

    #[test]
    fn every_way_has_a_counter_and_a_name_of_its_own() {
        for (place, way) in Way::ALL.iter().enumerate() {
            assert!((*way as usize) < WAYS);
            assert_eq!(*way as usize, place);
            assert!(Way::ALL.iter().filter(|other| other.name() == way.name()).count() == 1, "{}", way.name());
        }
    }
}
