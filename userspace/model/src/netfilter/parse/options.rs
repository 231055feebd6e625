//! The options of a rule before its target. Flow: explain.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{RuleCounters, words::Words};
use crate::netfilter::{AddressKind, AddressRange, DevicePattern, Match, PortRange, PortSide, StateName, Test};

/// What stands before `-j`.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) matches: Vec<Match>,
    pub(super) comment: Option<String>,
    /// `-c 5 300`, as `iptables -S -v` prints them.
    pub(super) counters: Option<RuleCounters>,
}

/// Extensions whose options [`test()`] knows; what another one means is kept as one text.
const MODULES: [&str; 18] = [
    "addrtype",
    "comment",
    "connmark",
    "conntrack",
    "dccp",
    "icmp",
    "icmp6",
    "iprange",
    "mac",
    "mark",
    "multiport",
    "physdev",
    "sctp",
    "set",
    "state",
    "tcp",
    "udp",
    "udplite",
];

/// Reads up to the target, or to the end.
pub(super) fn read(words: &mut Words<'_>) -> Before {
    let mut before = Before::default();
    let mut module = String::new();
    while words.more() && !words.option().is_some_and(starts_target) {
        let start = words.place();
        if words.take_option("-m") || words.take_option("--match") {
            module = words.take().unwrap_or_default();
            if !MODULES.contains(&module.as_str()) {
                words.skip_until(ends_module);
                before.keep(words.text_since(start));
            }
        } else if words.option().is_some() {
            before.option(words, &module);
        } else {
            // A value where an option should be; it cannot be told what belongs to it.
            words.skip_until(ends_module);
            before.keep(words.text_since(start));
        }
    }
    before
}

fn starts_target(option: &str) -> bool {
    matches!(option, "-j" | "-g" | "--jump" | "--goto")
}

fn ends_module(option: &str) -> bool {
    starts_target(option) || matches!(option, "-m" | "--match")
}

impl Before {
    /// Keeps what is not understood.
    fn keep(&mut self, text: String) {
        self.matches.push(Match { not: false, test: Test::Other(text) });
    }

    /// One option with its values and the `!` before it. Takes at least one word.
    fn option(&mut self, words: &mut Words<'_>, module: &str) {
        let start = words.place();
        let mut not = words.take_option("!");
        let Some(option) = words.take() else {
            return self.keep(words.text_since(start));
        };
        let values = words.place();
        match option.as_str() {
            "--comment" => self.comment = words.take(),
            "-c" | "--set-counters" => self.counters = counters(words),
            "--limit-iface-in" | "--limit-iface-out" => self.limit_address_kind(),
            _ => {
                if let Some(test) = test(&option, module, words, &mut not) {
                    self.matches.push(Match { not, test });
                    return;
                }
                words.rewind(values);
                words.take_option("!");
                words.skip_until(|word| word.starts_with('-') || word == "!");
                self.keep(words.text_since(start));
            }
        }
    }

    fn limit_address_kind(&mut self) {
        for one in &mut self.matches {
            if let Test::AddressKind { limited, .. } = &mut one.test {
                *limited = true;
            }
        }
    }
}

fn counters(words: &mut Words<'_>) -> Option<RuleCounters> {
    Some(RuleCounters { packets: words.take()?.parse().ok()?, bytes: words.take()?.parse().ok()? })
}

/// The test an option makes, its values taken; `None` where the option or a value is not understood.
fn test(option: &str, module: &str, words: &mut Words<'_>, not: &mut bool) -> Option<Test> {
    match option {
        "-f" | "--fragment" => Some(Test::Fragment),
        "--syn" => Some(Test::TcpFlags { mask: SYN_MASK, set: SYN }),
        "--physdev-is-in" => Some(Test::PhysdevIsIn),
        "--physdev-is-out" => Some(Test::PhysdevIsOut),
        "--physdev-is-bridged" => Some(Test::PhysdevIsBridged),
        "--tcp-flags" => Some(Test::TcpFlags { mask: tcp_flags(&words.take()?)?, set: tcp_flags(&words.take()?)? }),
        "--match-set" => Some(Test::Set { name: words.take()?, fields: words.take()?, members: None }),
        _ => {
            // Before iptables 1.4.3 the `!` came after the option.
            *not ^= words.take_option("!");
            valued(option, module, &words.take()?)
        }
    }
}

/// The test of an option with exactly one value.
fn valued(option: &str, module: &str, value: &str) -> Option<Test> {
    Some(match option {
        "-s" | "--source" | "--src" => Test::Source(vec![AddressRange::Net(net(value)?)]),
        "-d" | "--destination" | "--dst" => Test::Destination(vec![AddressRange::Net(net(value)?)]),
        "--src-range" => Test::Source(vec![span(value)?]),
        "--dst-range" => Test::Destination(vec![span(value)?]),
        "-i" | "--in-interface" => Test::InDevice(device(value)),
        "-o" | "--out-interface" => Test::OutDevice(device(value)),
        "--physdev-in" => Test::PhysdevIn(device(value)),
        "--physdev-out" => Test::PhysdevOut(device(value)),
        "-p" | "--protocol" => Test::Protocol(vec![protocol(value)?]),
        "--sport" | "--sports" | "--source-port" | "--source-ports" => ports(PortSide::Source, value)?,
        "--dport" | "--dports" | "--destination-port" | "--destination-ports" => ports(PortSide::Destination, value)?,
        "--ports" => ports(PortSide::Either, value)?,
        "--icmp-type" | "--icmpv6-type" => icmp(value)?,
        "--ctstate" | "--state" => Test::States(value.split(',').map(state).collect::<Option<_>>()?),
        "--mark" => marked(module, value)?,
        "--mac-source" => Test::SourceMac(value.parse().ok()?),
        "--src-type" => Test::AddressKind { source: true, kinds: kinds(value), limited: false },
        "--dst-type" => Test::AddressKind { source: false, kinds: kinds(value), limited: false },
        _ => return None,
    })
}

/// `10.0.0.0/24`, `10.0.0.1`, `10.0.0.0/255.255.255.0`; none for a netmask with holes.
pub(in crate::netfilter) fn net(text: &str) -> Option<IpNet> {
    let net = match text.split_once('/') {
        None => IpNet::from(text.parse::<IpAddr>().ok()?),
        Some((address, length)) => {
            let address = address.parse::<IpAddr>().ok()?;
            match length.parse::<u8>() {
                Ok(length) => IpNet::new(address, length).ok()?,
                Err(_) => IpNet::with_netmask(address, length.parse().ok()?).ok()?,
            }
        }
    };
    Some(net.trunc())
}

fn span(text: &str) -> Option<AddressRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(AddressRange::Span(first.parse().ok()?, last.parse().ok()?))
}

pub(in crate::netfilter) fn device(text: &str) -> DevicePattern {
    match text.strip_suffix('+') {
        Some(start) => DevicePattern { name: start.to_owned(), prefix: true },
        None => DevicePattern { name: text.to_owned(), prefix: false },
    }
}

/// Numbers by name, as `/etc/protocols` and Neutron name them.
const PROTOCOLS: [(&str, u8); 29] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("ipencap", 4),
    ("tcp", 6),
    ("egp", 8),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("ipv6-encap", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ipsec-esp", 50),
    ("ah", 51),
    ("ipsec-ah", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("icmp6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
    ("mh", 135),
    ("udplite", 136),
];

pub(in crate::netfilter) fn protocol(text: &str) -> Option<u8> {
    text.parse().ok().or_else(|| PROTOCOLS.iter().find(|(name, _)| *name == text).map(|&(_, number)| number))
}

/// The name of a protocol, or its number.
pub(in crate::netfilter) fn protocol_name(number: u8) -> String {
    PROTOCOLS.iter().find(|&&(_, one)| one == number).map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// `22`, `8000:8100`, `22,80,8000:8100`.
fn ports(side: PortSide, text: &str) -> Option<Test> {
    let ranges = text.split(',').map(|one| port_range(one, ':')).collect::<Option<_>>()?;
    Some(Test::Ports { side, ranges })
}

/// `22` or `8000:8100`; an open end is the lowest or highest port.
pub(in crate::netfilter) fn port_range(text: &str, separator: char) -> Option<PortRange> {
    let Some((first, last)) = text.split_once(separator) else {
        let port = text.parse().ok()?;
        return Some(PortRange { first: port, last: port });
    };
    let first = if first.is_empty() { 0 } else { first.parse().ok()? };
    let last = if last.is_empty() { u16::MAX } else { last.parse().ok()? };
    Some(PortRange { first, last })
}

/// `8`, `8/0`, `any`.
fn icmp(text: &str) -> Option<Test> {
    if text == "any" {
        return Some(Test::Icmp { kind: None, code: None });
    }
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind, Some(code.parse().ok()?)),
        None => (text, None),
    };
    Some(Test::Icmp { kind: Some(kind.parse().ok()?), code })
}

pub(in crate::netfilter) fn state(word: &str) -> Option<StateName> {
    Some(match word.to_ascii_uppercase().as_str() {
        "NEW" => StateName::New,
        "ESTABLISHED" => StateName::Established,
        "RELATED" => StateName::Related,
        "INVALID" => StateName::Invalid,
        "UNTRACKED" => StateName::Untracked,
        "DNAT" => StateName::Dnat,
        "SNAT" => StateName::Snat,
        _ => return None,
    })
}

fn marked(module: &str, text: &str) -> Option<Test> {
    let (value, mask) = masked(text)?;
    match module {
        "mark" => Some(Test::Mark { value, mask }),
        "connmark" => Some(Test::Connmark { value, mask }),
        _ => None,
    }
}

/// `0x2`, `0x2/0xffff`.
pub(super) fn masked(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

/// A number as iptables takes it: decimal or `0x` hexadecimal.
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn kinds(text: &str) -> Vec<AddressKind> {
    text.split(',')
        .map(|word| match word {
            "LOCAL" => AddressKind::Local,
            "UNICAST" => AddressKind::Unicast,
            "BROADCAST" => AddressKind::Broadcast,
            "MULTICAST" => AddressKind::Multicast,
            _ => AddressKind::Other,
        })
        .collect()
}

const SYN: u8 = 0x02;
/// `--syn` looks at FIN, SYN, RST and ACK.
const SYN_MASK: u8 = 0x17;

fn tcp_flags(text: &str) -> Option<u8> {
    text.split(',').try_fold(0, |flags, word| {
        Some(
            flags
                | match word {
                    "FIN" => 0x01,
                    "SYN" => SYN,
                    "RST" => 0x04,
                    "PSH" => 0x08,
                    "ACK" => 0x10,
                    "URG" => 0x20,
                    "ALL" => 0x3f,
                    "NONE" => 0,
                    _ => return None,
                },
        )
    })
}
