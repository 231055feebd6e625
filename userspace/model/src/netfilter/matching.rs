//! One rule against one packet, three-valued. Flow: explain.
//!
//! A rule matches where all its tests hold: one "no" is "no" whatever the others are, else one "unknown" is "unknown".
//! A negated test turns "yes" and "no" around and leaves "unknown".

use std::net::IpAddr;

use super::{
    Address, AddressKind, AddressRange, CtState, DevicePattern, Known, Packet, PortRange, PortSide, Rule, StateName,
    Test,
};

/// An answer that may not be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    Unknown,
}

impl Truth {
    const fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }

    /// True where one of them is.
    fn any(all: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Self::No;
        for one in all {
            match one {
                Self::Yes => return Self::Yes,
                Self::Unknown => any = Self::Unknown,
                Self::No => {}
            }
        }
        any
    }
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::Yes } else { Self::No }
    }
}

impl From<Option<bool>> for Truth {
    fn from(truth: Option<bool>) -> Self {
        truth.map_or(Self::Unknown, Self::from)
    }
}

/// Whether a rule matches, and the first test that could not be decided where it is unknown.
pub(super) fn rule<'a>(rule: &'a Rule, packet: &Packet) -> (Truth, Option<&'a Test>) {
    let mut unknown = None;
    for one in &rule.matches {
        let truth = test(&one.test, packet);
        match if one.not { truth.not() } else { truth } {
            Truth::Yes => {}
            Truth::No => return (Truth::No, None),
            Truth::Unknown => unknown = unknown.or(Some(&one.test)),
        }
    }
    (if unknown.is_some() { Truth::Unknown } else { Truth::Yes }, unknown)
}

fn test(test: &Test, packet: &Packet) -> Truth {
    match test {
        Test::Source(ranges) => in_ranges(packet.source, ranges),
        Test::Destination(ranges) => in_ranges(packet.destination, ranges),
        Test::InDevice(pattern) => device(&packet.in_device, pattern),
        Test::OutDevice(pattern) => device(&packet.out_device, pattern),
        Test::Protocol(numbers) => holds(&packet.protocol, |number| numbers.contains(number)),
        Test::Ports { side, ranges } => ports(packet, *side, ranges),
        Test::Icmp { kind, code } => holds(&packet.icmp, |icmp| {
            kind.is_none_or(|kind| kind == icmp.kind) && code.is_none_or(|code| code == icmp.code)
        }),
        Test::States(names) => Truth::any(names.iter().map(|&name| state(packet, name))),
        Test::Mark { value, mask } => packet.mark.equal(*value, *mask).into(),
        Test::Connmark { value, mask } => packet.connmark.equal(*value, *mask).into(),
        Test::PhysdevIn(pattern) => device(&packet.physdev_in, pattern),
        Test::PhysdevOut(pattern) => device(&packet.physdev_out, pattern),
        Test::PhysdevIsIn => present(&packet.physdev_in),
        Test::PhysdevIsOut => present(&packet.physdev_out),
        Test::PhysdevIsBridged => holds(&packet.bridged, |&bridged| bridged),
        Test::SourceMac(mac) => holds(&packet.source_mac, |is| is == mac),
        Test::AddressKind { source, kinds, limited } => {
            Truth::any(kinds.iter().map(|&kind| address_kind(packet, *source, kind, *limited)))
        }
        Test::Fragment => holds(&packet.fragment, |&fragment| fragment),
        Test::TcpFlags { mask, set } => holds(&packet.tcp_flags, |flags| flags & mask == *set),
        Test::Ipv6(ipv6) => (!packet.arp && packet.ipv6 == *ipv6).into(),
        Test::EtherType(types) => types.contains(&packet.ether_type()).into(),
        Test::Set { fields, members: Some(members), .. } => members.has(fields, packet),
        Test::Set { members: None, .. } | Test::Other(_) => Truth::Unknown,
    }
}

/// A field that is absent holds nothing.
fn holds<T>(field: &Known<T>, test: impl FnOnce(&T) -> bool) -> Truth {
    match field {
        Known::Unknown => Truth::Unknown,
        Known::Absent => Truth::No,
        Known::Is(value) => test(value).into(),
    }
}

fn present<T>(field: &Known<T>) -> Truth {
    holds(field, |_| true)
}

/// The kernel compares with the empty name where there is no device, so a bare `+` matches even then.
fn device(field: &Known<String>, pattern: &DevicePattern) -> Truth {
    match field {
        Known::Unknown if pattern.prefix && pattern.name.is_empty() => Truth::Yes,
        Known::Unknown => Truth::Unknown,
        Known::Absent => pattern.matches("").into(),
        Known::Is(name) => pattern.matches(name).into(),
    }
}

fn in_ranges(address: Address, ranges: &[AddressRange]) -> Truth {
    if ranges.iter().any(AddressRange::is_everything) {
        return Truth::Yes;
    }
    match address {
        Address::Is(address) => ranges.iter().any(|range| range.contains(address)).into(),
        Address::Outside => Truth::No,
        Address::Unknown | Address::Local => Truth::Unknown,
    }
}

fn ports(packet: &Packet, side: PortSide, ranges: &[PortRange]) -> Truth {
    let one = |port| holds(port, |&port| ranges.iter().any(|range| range.contains(port)));
    match side {
        PortSide::Source => one(&packet.source_port),
        PortSide::Destination => one(&packet.destination_port),
        PortSide::Either => Truth::any([one(&packet.source_port), one(&packet.destination_port)]),
    }
}

fn state(packet: &Packet, name: StateName) -> Truth {
    let is = |state| holds(&packet.state, |is| *is == state);
    match name {
        StateName::New => is(CtState::New),
        StateName::Established => is(CtState::Established),
        StateName::Related => is(CtState::Related),
        StateName::Invalid => is(CtState::Invalid),
        StateName::Untracked => is(CtState::Untracked),
        StateName::Dnat => holds(&packet.dnatted, |&translated| translated),
        StateName::Snat => holds(&packet.snatted, |&translated| translated),
    }
}

fn address_kind(packet: &Packet, source: bool, kind: AddressKind, limited: bool) -> Truth {
    let address = if source { packet.source } else { packet.destination };
    match (kind_of(address, if source { Known::Unknown } else { packet.to_local }), kind) {
        // Which device an address is on is not asked of the packet.
        (Ok(AddressKind::Local), AddressKind::Local) if limited => Truth::Unknown,
        (_, AddressKind::Other) => Truth::Unknown,
        (Ok(is), kind) => (is == kind).into(),
        (Err(NotLocal(true)), AddressKind::Local) => Truth::No,
        (Err(_), _) => Truth::Unknown,
    }
}

/// All that is known of an address whose kind is not: that it is not the namespace's own.
struct NotLocal(bool);

/// Whether another address than 255.255.255.255 is some subnet's broadcast address is the routing table's to say.
fn kind_of(address: Address, local: Known<bool>) -> Result<AddressKind, NotLocal> {
    match address {
        Address::Local => Ok(AddressKind::Local),
        Address::Outside => Ok(AddressKind::Unicast),
        Address::Is(ip) if ip.is_loopback() => Ok(AddressKind::Local),
        Address::Is(ip) if ip.is_multicast() => Ok(AddressKind::Multicast),
        Address::Is(IpAddr::V4(ip)) if ip.is_broadcast() => Ok(AddressKind::Broadcast),
        Address::Is(_) | Address::Unknown => match local {
            Known::Is(true) => Ok(AddressKind::Local),
            Known::Is(false) => Err(NotLocal(true)),
            Known::Absent | Known::Unknown => Err(NotLocal(false)),
        },
    }
}
