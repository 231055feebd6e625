//! Bytes of a ring-buffer record to what they say. Flow: observe.
//!
//! Bytes come from the kernel, but from whichever program is attached: one that is newer writes kinds nobody knows here.
//! Those are values, not errors; nothing here panics on any bytes.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netdiag_common::{
    ABI_VERSION,
    abi::{
        event::{DECIDED_INGRESS, DECIDED_IPV6, Decided, Header, KIND_DECIDED},
        reason::Reason,
    },
};

use super::{Decision, VerdictEvent};
use crate::{id::IfIndex, policy::types::Direction};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A packet met its verdict.
    Decided(Verdict),
    /// Something this netdiag does not know.
    Unknown {
        /// `ABI_VERSION` of the program that wrote it; 0 where the record is too short to say.
        version: u16,
        /// Its kind.
        kind: u8,
        /// How long it is.
        length: usize,
    },
}

/// A packet met its verdict, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The device the program is attached to.
    pub ifindex: IfIndex,
    /// Nanoseconds of the coarse monotonic clock.
    pub time: u64,
    /// Place of the port.
    pub slot: u32,
    /// Direction.
    pub direction: Direction,
    /// [`Reason`] as a number.
    pub reason: u8,
    /// Ethertype.
    pub ethertype: u16,
    /// IP protocol; 0 where the packet has no addresses.
    pub protocol: u8,
    /// Source and destination; none where the packet has none.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Source port.
    pub source_port: u16,
    /// Destination port; `type * 256 + code` for ICMP.
    pub destination_port: u16,
    /// The rule that allowed it; 0 is none.
    pub rule: u32,
    /// Length from the link-layer header on.
    pub length: u32,
}

/// What a record says.
pub fn decode(bytes: &[u8]) -> Record {
    let reader = Reader(bytes);
    let version = reader.u16(offset_of!(Header, version));
    let kind = reader.u8(offset_of!(Header, kind)).unwrap_or(0);
    let verdict = match (version, kind) {
        (Some(ABI_VERSION), KIND_DECIDED) => verdict(&reader),
        _ => None,
    };
    verdict.map_or(Record::Unknown { version: version.unwrap_or(0), kind, length: bytes.len() }, Record::Decided)
}

fn verdict(reader: &Reader<'_>) -> Option<Verdict> {
    let flags = reader.u8(offset_of!(Decided, flags))?;
    let source = reader.words(offset_of!(Decided, source))?;
    let destination = reader.words(offset_of!(Decided, destination))?;
    let ipv6 = flags & DECIDED_IPV6 != 0;
    Some(Verdict {
        ifindex: IfIndex(reader.u32(offset_of!(Decided, header) + offset_of!(Header, ifindex))?),
        time: reader.u64(offset_of!(Decided, time))?,
        slot: reader.u32(offset_of!(Decided, slot))?,
        direction: if flags & DECIDED_INGRESS != 0 { Direction::Ingress } else { Direction::Egress },
        reason: reader.u8(offset_of!(Decided, reason))?,
        ethertype: reader.u16(offset_of!(Decided, ethertype))?,
        protocol: reader.u8(offset_of!(Decided, protocol))?,
        addresses: address(source, ipv6).zip(address(destination, ipv6)),
        source_port: reader.u16(offset_of!(Decided, source_port))?,
        destination_port: reader.u16(offset_of!(Decided, destination_port))?,
        rule: reader.u32(offset_of!(Decided, rule))?,
        length: reader.u32(offset_of!(Decided, length))?,
    })
}

/// The address in four words; IPv4 is mapped, and where a packet has none the words are zeros.
fn address(bytes: [u8; 16], ipv6: bool) -> Option<IpAddr> {
    let address = Ipv6Addr::from(bytes);
    if ipv6 { Some(address.into()) } else { address.to_ipv4_mapped().map(Ipv4Addr::into) }
}

/// Reads integers in the host's byte order, and nothing beyond the end.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn chunk<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn u8(&self, offset: usize) -> Option<u8> {
        self.chunk(offset).map(u8::from_ne_bytes)
    }

    fn u16(&self, offset: usize) -> Option<u16> {
        self.chunk(offset).map(u16::from_ne_bytes)
    }

    fn u32(&self, offset: usize) -> Option<u32> {
        self.chunk(offset).map(u32::from_ne_bytes)
    }

    fn u64(&self, offset: usize) -> Option<u64> {
        self.chunk(offset).map(u64::from_ne_bytes)
    }

    /// Words in network byte order are bytes in order.
    fn words(&self, offset: usize) -> Option<[u8; 16]> {
        self.chunk(offset)
    }
}

impl Verdict {
    /// With names instead of numbers; which record it was, only its reader knows. `epoch` is the time at which the coarse monotonic clock was 0, in nanoseconds since 1970.
    pub fn named(&self, epoch: u64, port_id: String, rule: Option<String>) -> VerdictEvent {
        let reason = Reason::try_from(self.reason);
        // Of a reason that is not known: what has a rule has passed.
        let passes = reason.map_or(self.rule != 0, Reason::passes);
        VerdictEvent {
            number: 0,
            time_ns: epoch.saturating_add(self.time),
            port_id,
            instance: None,
            device: None,
            direction: self.direction,
            verdict: if passes { Decision::Allow } else { Decision::Deny },
            reason: reason.map_or_else(|unknown| format!("reason-{}", unknown.0), |reason| reason.name().to_owned()),
            ethertype: self.ethertype,
            protocol: self.addresses.map(|_| self.protocol),
            source: self.addresses.map(|(source, _)| source),
            destination: self.addresses.map(|(_, destination)| destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            rule,
            length: self.length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The record of a refused DNS query of 74 bytes from 10.0.0.5, as the program writes it.
    fn bytes() -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Decided>()];
        let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(0, &ABI_VERSION.to_ne_bytes());
        put(2, &[KIND_DECIDED]);
        put(4, &7_u32.to_ne_bytes());
        put(offset_of!(Decided, time), &1_500_000_000_u64.to_ne_bytes());
        put(offset_of!(Decided, source), &"10.0.0.5".parse::<Ipv4Addr>().unwrap().to_ipv6_mapped().octets());
        put(offset_of!(Decided, destination), &"10.0.0.2".parse::<Ipv4Addr>().unwrap().to_ipv6_mapped().octets());
        put(offset_of!(Decided, source_port), &40_000_u16.to_ne_bytes());
        put(offset_of!(Decided, destination_port), &53_u16.to_ne_bytes());
        put(offset_of!(Decided, slot), &3_u32.to_ne_bytes());
        put(offset_of!(Decided, length), &74_u32.to_ne_bytes());
        put(offset_of!(Decided, ethertype), &0x0800_u16.to_ne_bytes());
        put(offset_of!(Decided, protocol), &[17]);
        put(offset_of!(Decided, reason), &[Reason::NoRule as u8]);
        bytes
    }

    fn verdict_of(bytes: &[u8]) -> Verdict {
        match decode(bytes) {
            Record::Decided(verdict) => verdict,
            unknown @ Record::Unknown { .. } => panic!("{unknown:?}"),
        }
    }

    #[test]
    fn a_refused_packet_is_read_field_by_field() {
        let verdict = verdict_of(&bytes());
        let addresses = Some(("10.0.0.5".parse().unwrap(), "10.0.0.2".parse().unwrap()));
        let expected = Verdict {
            ifindex: IfIndex(7),
            time: 1_500_000_000,
            slot: 3,
            direction: Direction::Egress,
            reason: Reason::NoRule as u8,
            ethertype: 0x0800,
            protocol: 17,
            addresses,
            source_port: 40_000,
            destination_port: 53,
            rule: 0,
            length: 74,
        };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn a_packet_to_the_instance_over_ipv6_keeps_its_addresses() {
        let mut bytes = bytes();
        bytes[offset_of!(Decided, flags)] = DECIDED_INGRESS | DECIDED_IPV6;
        let address: Ipv6Addr = "2001:db8::5".parse().unwrap();
        bytes[offset_of!(Decided, source)..][..16].copy_from_slice(&address.octets());
        let verdict = verdict_of(&bytes);
        assert_eq!(verdict.direction, Direction::Ingress);
        assert_eq!(verdict.addresses.unwrap().0, IpAddr::from(address));
    }

    #[test]
    fn a_packet_without_addresses_has_none_and_no_protocol() {
        let mut bytes = bytes();
        bytes[offset_of!(Decided, source)..][..32].fill(0);
        let event = verdict_of(&bytes).named(0, "port".to_owned(), None);
        assert_eq!((event.source, event.destination, event.protocol), (None, None, None));
    }

    #[test]
    fn an_event_has_names_and_the_time_of_day() {
        let event = verdict_of(&bytes()).named(1_000, "port".to_owned(), None);
        assert_eq!((event.time_ns, event.reason.as_str(), event.verdict), (1_500_001_000, "no-rule", Decision::Deny));
    }

    #[test]
    fn a_reason_of_a_newer_program_is_named_by_its_number() {
        let mut bytes = bytes();
        bytes[offset_of!(Decided, reason)] = 63;
        let event = verdict_of(&bytes).named(0, "port".to_owned(), None);
        assert_eq!((event.reason.as_str(), event.verdict), ("reason-63", Decision::Deny));
    }

    #[test]
    fn a_kind_or_version_nobody_knows_is_a_value() {
        let mut newer = bytes();
        newer[2] = 99;
        assert_eq!(decode(&newer), Record::Unknown { version: ABI_VERSION, kind: 99, length: newer.len() });
        let mut other = bytes();
        other[..2].copy_from_slice(&(ABI_VERSION + 1).to_ne_bytes());
        assert!(matches!(decode(&other), Record::Unknown { version, .. } if version == ABI_VERSION + 1));
    }

    #[test]
    fn a_record_cut_short_anywhere_is_unknown_and_never_a_panic() {
        let bytes = bytes();
        // The last bytes are padding.
        for length in 0..offset_of!(Decided, pad) {
            assert!(matches!(decode(&bytes[..length]), Record::Unknown { .. }), "{length}");
        }
    }
}
