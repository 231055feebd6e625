//! Names and numbers of protocols. Flow: policy.

/// Protocols Neutron has names for.
const NAMES: [(&str, u8); 25] = [
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

/// ICMP, of IPv4.
pub(super) const ICMP: u8 = 1;
/// `ICMPv6`.
pub(super) const ICMPV6: u8 = 58;

/// Number of a protocol by its name in any case, or by the number itself.
pub fn protocol_number(text: &str) -> Option<u8> {
    let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    // A sign is no digit of a protocol number.
    named.or_else(|| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())))
}

/// Name of a protocol as Neutron prints it; the number where it has none.
pub fn protocol_name(number: u8) -> String {
    let name = match number {
        // Two names; Neutron's API keeps 0 as a number.
        0 => None,
        ICMPV6 => Some("ipv6-icmp"),
        _ => NAMES.iter().find(|(_, own)| *own == number).map(|(name, _)| *name),
    };
    name.map_or_else(|| number.to_string(), str::to_owned)
}

/// Whether a protocol has ports that rules can name.
pub(super) fn has_ports(number: u8) -> bool {
    matches!(number, 6 | 17 | 33 | 132 | 136)
}

/// Whether a protocol exists within IPv6 alone.
pub(super) fn only_ipv6(number: u8) -> bool {
    matches!(number, 41 | 43 | 44 | ICMPV6 | 59 | 60)
}

/// Every name, for whoever mistyped one.
pub(super) fn valid() -> Vec<String> {
    let names = NAMES.iter().map(|(name, _)| (*name).to_owned());
    names.chain(["any".to_owned(), "0 to 255".to_owned()]).collect()
}
