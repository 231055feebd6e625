//! The packet that is walked: every field known, absent or unknown. Flow: explain.
//!
//! Whoever asks "what would happen to a packet from outside" does not know its source port, and must get an answer that
//! holds for every source port or the answer "unknown". [`Packet::join`] makes of two packets one that stands for both.

use std::net::IpAddr;

use crate::id::Mac;

/// A field of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known<T> {
    /// It may be anything, or not be there.
    #[default]
    Unknown,
    /// It is not there: no device it came by, no ports.
    Absent,
    /// It is this.
    Is(T),
}

impl<T: PartialEq> Known<T> {
    /// What stands for both.
    fn join(self, other: &Self) -> Self {
        if self == *other { self } else { Self::Unknown }
    }
}

impl<T> Known<T> {
    /// The value, where it is known and there.
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// An address of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// Any.
    #[default]
    Unknown,
    /// This one.
    Is(IpAddr),
    /// A unicast address somewhere outside: not of this namespace, and in no prefix that any rule names but /0.
    Outside,
    /// An address of this namespace itself, which one is not known: what `REDIRECT` and `MASQUERADE` translate to.
    Local,
}

/// 32 bits of which some are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    /// The known bits; the others are 0.
    value: u32,
    /// Which bits are known.
    known: u32,
}

impl Bits {
    /// None known.
    pub const UNKNOWN: Self = Self { value: 0, known: 0 };

    /// All known.
    pub const fn is(value: u32) -> Self {
        Self { value, known: u32::MAX }
    }

    /// The value, where all bits are known.
    pub const fn value(self) -> Option<u32> {
        if self.known == u32::MAX { Some(self.value) } else { None }
    }

    /// Whether the bits of `mask` are `value`; `None` where that depends on an unknown one.
    pub(super) const fn equal(self, value: u32, mask: u32) -> Option<bool> {
        if value & !mask != 0 || (self.value ^ value) & mask & self.known != 0 {
            Some(false)
        } else if mask & !self.known == 0 {
            Some(true)
        } else {
            None
        }
    }

    /// Clears the bits of `mask`, then exclusive-ors `other`.
    pub(super) const fn xmark(self, other: Self, mask: u32) -> Self {
        let known = (self.known | mask) & other.known;
        Self { value: ((self.value & !mask) ^ other.value) & known, known }
    }

    /// Only the bits of `mask`, the others 0.
    pub(super) const fn masked(self, mask: u32) -> Self {
        Self { value: self.value & mask, known: self.known | !mask }
    }

    const fn join(self, other: Self) -> Self {
        let known = self.known & other.known & !(self.value ^ other.value);
        Self { value: self.value & known, known }
    }
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtState {
    /// First packet of a flow.
    New,
    /// Of a flow that was answered, or an answer.
    Established,
    /// Belongs to another flow.
    Related,
    /// Fits no flow and cannot start one.
    Invalid,
    /// Not looked at.
    Untracked,
}

/// ICMP or `ICMPv6` type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// A packet as it enters a hook.
///
/// Addresses are those it carries at that hook. For a packet of an established flow the walker translates nothing, as
/// the kernel asks no NAT rule: whoever asks gives the addresses as connection tracking has left them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// IPv6; else IPv4.
    pub ipv6: bool,
    /// ARP, which only rules about frames see.
    pub arp: bool,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// IP protocol number.
    pub protocol: Known<u8>,
    /// Source port.
    pub source_port: Known<u16>,
    /// Destination port.
    pub destination_port: Known<u16>,
    /// ICMP type and code.
    pub icmp: Known<Icmp>,
    /// TCP flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
    pub tcp_flags: Known<u8>,
    /// A fragment that is not the first; connection tracking puts fragments together before any filter sees them.
    pub fragment: Known<bool>,
    /// Device it came by; absent for what this namespace sends. Of a bridged packet: the bridge.
    pub in_device: Known<String>,
    /// Device it leaves by; absent for what this namespace receives. Of a bridged packet: the bridge.
    pub out_device: Known<String>,
    /// Bridge port it came by; absent for what came by none.
    pub physdev_in: Known<String>,
    /// Bridge port it leaves by.
    pub physdev_out: Known<String>,
    /// Goes from one port of a bridge to another, not routed.
    pub bridged: Known<bool>,
    /// Source MAC address of its frame.
    pub source_mac: Known<Mac>,
    /// Its mark.
    pub mark: Bits,
    /// Mark of its flow.
    pub connmark: Bits,
    /// Connection tracking zone; absent for the default zone 0.
    pub zone: Known<u16>,
    /// Its state.
    pub state: Known<CtState>,
    /// Its flow's destination was translated.
    pub dnatted: Known<bool>,
    /// Its flow's source was translated.
    pub snatted: Known<bool>,
    /// Its destination is an address of this namespace; asked where [`Packet::destination`] does not say it.
    pub to_local: Known<bool>,
}

impl Packet {
    /// An IPv4 packet that starts a flow, routed and whole, with no marks and nothing else known.
    pub fn ipv4() -> Self {
        Self {
            fragment: Known::Is(false),
            physdev_in: Known::Absent,
            physdev_out: Known::Absent,
            bridged: Known::Is(false),
            mark: Bits::is(0),
            connmark: Bits::is(0),
            zone: Known::Absent,
            state: Known::Is(CtState::New),
            dnatted: Known::Is(false),
            snatted: Known::Is(false),
            ..Self::default()
        }
    }

    /// The same for IPv6.
    pub fn ipv6() -> Self {
        Self { ipv6: true, ..Self::ipv4() }
    }

    /// A question of ARP, or its answer: no address of it is known.
    pub fn arp() -> Self {
        Self {
            arp: true,
            protocol: Known::Absent,
            source_port: Known::Absent,
            destination_port: Known::Absent,
            icmp: Known::Absent,
            tcp_flags: Known::Absent,
            ..Self::ipv4()
        }
    }

    /// What its frame says it carries (IEEE 802 numbers).
    pub(super) const fn ether_type(&self) -> u16 {
        match (self.arp, self.ipv6) {
            (true, _) => 0x0806,
            (false, true) => 0x86dd,
            (false, false) => 0x0800,
        }
    }

    /// A packet that starts a flow between two addresses; IPv6 where one of them is.
    pub fn between(source: Address, destination: Address) -> Self {
        let ipv6 = [source, destination].iter().any(|address| matches!(address, Address::Is(IpAddr::V6(_))));
        Self { ipv6, source, destination, ..Self::ipv4() }
    }

    /// With the first segment of a TCP connection to a port.
    #[must_use]
    pub fn tcp(self, destination_port: u16) -> Self {
        // SYN alone: what starts a connection.
        Self { tcp_flags: Known::Is(0x02), ..self.ported(6, destination_port) }
    }

    /// With a UDP datagram to a port.
    #[must_use]
    pub fn udp(self, destination_port: u16) -> Self {
        Self { tcp_flags: Known::Absent, ..self.ported(17, destination_port) }
    }

    fn ported(self, protocol: u8, destination_port: u16) -> Self {
        Self {
            protocol: Known::Is(protocol),
            destination_port: Known::Is(destination_port),
            icmp: Known::Absent,
            ..self
        }
    }

    /// With an ICMP or `ICMPv6` echo request.
    #[must_use]
    pub fn echo_request(self) -> Self {
        let (protocol, kind) = if self.ipv6 { (58, 128) } else { (1, 8) };
        Self {
            protocol: Known::Is(protocol),
            icmp: Known::Is(Icmp { kind, code: 0 }),
            source_port: Known::Absent,
            destination_port: Known::Absent,
            tcp_flags: Known::Absent,
            ..self
        }
    }

    /// A packet that stands for both: a field on which they differ is unknown.
    #[must_use]
    pub fn join(self, other: &Self) -> Self {
        let address = |one: Address, two: Address| if one == two { one } else { Address::Unknown };
        Self {
            ipv6: self.ipv6,
            arp: self.arp,
            source: address(self.source, other.source),
            destination: address(self.destination, other.destination),
            protocol: self.protocol.join(&other.protocol),
            source_port: self.source_port.join(&other.source_port),
            destination_port: self.destination_port.join(&other.destination_port),
            icmp: self.icmp.join(&other.icmp),
            tcp_flags: self.tcp_flags.join(&other.tcp_flags),
            fragment: self.fragment.join(&other.fragment),
            in_device: self.in_device.join(&other.in_device),
            out_device: self.out_device.join(&other.out_device),
            physdev_in: self.physdev_in.join(&other.physdev_in),
            physdev_out: self.physdev_out.join(&other.physdev_out),
            bridged: self.bridged.join(&other.bridged),
            source_mac: self.source_mac.join(&other.source_mac),
            mark: self.mark.join(other.mark),
            connmark: self.connmark.join(other.connmark),
            zone: self.zone.join(&other.zone),
            state: self.state.join(&other.state),
            dnatted: self.dnatted.join(&other.dnatted),
            snatted: self.snatted.join(&other.snatted),
            to_local: self.to_local.join(&other.to_local),
        }
    }
}
