//! `match` expressions of nftables. Flow: explain.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::netfilter::{
    AddressKind, AddressRange, DevicePattern, Family, PortRange, PortSide, StateName, Test, parse, rule::Match,
};

/// The conditions of a match; `None` where it is not understood.
///
/// `tcp dport 22` also asks for TCP, and `ip saddr` in a table of several families for IPv4: nft leaves out in print what
/// it adds in the kernel.
pub(super) fn read(inner: &Value, family: Family) -> Option<Vec<Match>> {
    let not = match inner.get("op")?.as_str()? {
        "==" | "in" => false,
        "!=" => true,
        _ => return None,
    };
    let (left, right) = (inner.get("left")?, inner.get("right")?);
    let (needs, test) = if let Some(payload) = left.get("payload") {
        of_payload(payload, right, family)?
    } else if let Some(meta) = left.get("meta") {
        (None, of_meta(meta.get("key")?.as_str()?, right)?)
    } else if let Some(ct) = left.get("ct") {
        (None, of_ct(ct.get("key")?.as_str()?, right)?)
    } else if let Some(fib) = left.get("fib") {
        (None, of_fib(fib, right)?)
    } else {
        (None, masked_mark(left.get("&")?, right)?)
    };
    Some(needs.map(|test| Match { not: false, test }).into_iter().chain([Match { not, test }]).collect())
}

fn of_payload(payload: &Value, right: &Value, family: Family) -> Option<(Option<Test>, Test)> {
    let (protocol, field) = (payload.get("protocol")?.as_str()?, payload.get("field")?.as_str()?);
    let several = !matches!(family, Family::Ip | Family::Ip6);
    let version = |ipv6| several.then_some(Test::Ipv6(ipv6));
    match (protocol, field) {
        ("ip", "saddr") => Some((version(false), Test::Source(addresses(right)?))),
        ("ip", "daddr") => Some((version(false), Test::Destination(addresses(right)?))),
        ("ip6", "saddr") => Some((version(true), Test::Source(addresses(right)?))),
        ("ip6", "daddr") => Some((version(true), Test::Destination(addresses(right)?))),
        ("ip", "protocol") => Some((version(false), Test::Protocol(protocols(right)?))),
        ("ip6", "nexthdr") => Some((version(true), Test::Protocol(protocols(right)?))),
        ("th", "sport") => Some((None, ports(PortSide::Source, right)?)),
        ("th", "dport") => Some((None, ports(PortSide::Destination, right)?)),
        (_, "sport") => Some((Some(one_protocol(protocol)?), ports(PortSide::Source, right)?)),
        (_, "dport") => Some((Some(one_protocol(protocol)?), ports(PortSide::Destination, right)?)),
        ("icmp", "type") => Some((Some(Test::Protocol(vec![1])), icmp(&ICMP, right)?)),
        ("icmpv6", "type") => Some((Some(Test::Protocol(vec![58])), icmp(&ICMPV6, right)?)),
        ("ether", "type") => Some((None, Test::EtherType(each(right, ether_type)?))),
        ("ether", "saddr") => Some((None, Test::SourceMac(right.as_str()?.parse().ok()?))),
        _ => None,
    }
}

fn of_meta(key: &str, right: &Value) -> Option<Test> {
    match key {
        "iifname" | "iif" => Some(Test::InDevice(device(right)?)),
        "oifname" | "oif" => Some(Test::OutDevice(device(right)?)),
        "l4proto" => Some(Test::Protocol(protocols(right)?)),
        "protocol" => Some(Test::EtherType(each(right, ether_type)?)),
        "nfproto" => match right.as_str()? {
            "ipv4" => Some(Test::Ipv6(false)),
            "ipv6" => Some(Test::Ipv6(true)),
            _ => None,
        },
        "mark" => Some(Test::Mark { value: number(right)?, mask: u32::MAX }),
        _ => None,
    }
}

fn of_ct(key: &str, right: &Value) -> Option<Test> {
    match key {
        "state" => named_states(right),
        "status" => match words(right).as_slice() {
            ["dnat"] => Some(Test::States(vec![StateName::Dnat])),
            ["snat"] => Some(Test::States(vec![StateName::Snat])),
            _ => None,
        },
        "mark" => Some(Test::Connmark { value: number(right)?, mask: u32::MAX }),
        _ => None,
    }
}

fn named_states(right: &Value) -> Option<Test> {
    let names = words(right);
    let states: Vec<_> = names.iter().map(|name| parse::state(name)).collect::<Option<_>>()?;
    (!states.is_empty()).then_some(Test::States(states))
}

/// `fib daddr type local`.
fn of_fib(fib: &Value, right: &Value) -> Option<Test> {
    let source = match words(fib.get("flags")?).as_slice() {
        ["saddr"] => true,
        ["daddr"] => false,
        _ => return None,
    };
    let kind = match right.as_str().filter(|_| fib.get("result").and_then(Value::as_str) == Some("type"))? {
        "local" => AddressKind::Local,
        "unicast" => AddressKind::Unicast,
        "broadcast" => AddressKind::Broadcast,
        "multicast" => AddressKind::Multicast,
        _ => return None,
    };
    Some(Test::AddressKind { source, kinds: vec![kind], limited: false })
}

/// `meta mark and 0xff == 0x1`.
fn masked_mark(operands: &Value, right: &Value) -> Option<Test> {
    let [left, mask] = operands.as_array()?.as_slice() else { return None };
    let (value, mask) = (number(right)?, number(mask)?);
    let key = |of| left.get(of).and_then(|inner: &Value| inner.get("key")).and_then(Value::as_str);
    match (key("meta"), key("ct")) {
        (Some("mark"), _) => Some(Test::Mark { value, mask }),
        (_, Some("mark")) => Some(Test::Connmark { value, mask }),
        _ => None,
    }
}

/// The values of an anonymous set, or the one value. A named set is a text that starts with `@`.
fn values(right: &Value) -> &[Value] {
    match right.get("set").and_then(Value::as_array) {
        Some(values) => values,
        None => std::slice::from_ref(right),
    }
}

/// Words of a list, a set, or alone.
pub(super) fn words(value: &Value) -> Vec<&str> {
    let all = value.get("set").unwrap_or(value);
    match all.as_array() {
        Some(list) => list.iter().filter_map(Value::as_str).collect(),
        None => all.as_str().into_iter().collect(),
    }
}

/// All values of a set read in one way; `None` where one of them is not understood.
fn each<T>(right: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    let read: Vec<T> = values(right).iter().map(read).collect::<Option<_>>()?;
    (!read.is_empty()).then_some(read)
}

fn addresses(right: &Value) -> Option<Vec<AddressRange>> {
    each(right, |value| {
        if let Some(prefix) = value.get("prefix") {
            let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
            let net = IpNet::new(prefix.get("addr")?.as_str()?.parse().ok()?, length).ok()?;
            return Some(AddressRange::Net(net.trunc()));
        }
        if let Some([first, last]) = range(value) {
            return Some(AddressRange::Span(first.as_str()?.parse().ok()?, last.as_str()?.parse().ok()?));
        }
        value.as_str()?.parse::<IpAddr>().ok().map(|address| AddressRange::Net(address.into()))
    })
}

fn range(value: &Value) -> Option<&[Value; 2]> {
    value.get("range")?.as_array()?.as_slice().try_into().ok()
}

fn protocols(right: &Value) -> Option<Vec<u8>> {
    each(right, |value| match value.as_str() {
        Some(name) => parse::protocol(name),
        None => u8::try_from(value.as_u64()?).ok(),
    })
}

fn one_protocol(name: &str) -> Option<Test> {
    parse::protocol(name).map(|number| Test::Protocol(vec![number]))
}

fn ports(side: PortSide, right: &Value) -> Option<Test> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let ranges = each(right, |value| match range(value) {
        Some([first, last]) => Some(PortRange { first: port(first)?, last: port(last)? }),
        None => port(value).map(|port| PortRange { first: port, last: port }),
    })?;
    Some(Test::Ports { side, ranges })
}

/// One device; `br*` is any whose name starts so.
fn device(right: &Value) -> Option<DevicePattern> {
    let name = right.as_str().filter(|name| !name.starts_with('@'))?;
    Some(match name.strip_suffix('*') {
        Some(start) => DevicePattern { name: start.to_owned(), prefix: true },
        None => DevicePattern { name: name.to_owned(), prefix: false },
    })
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// A name nft gives to what a frame carries, or a number, which it prints as text (`0x88cc`).
fn ether_type(value: &Value) -> Option<u16> {
    match value.as_str() {
        Some("ip") => Some(0x0800),
        Some("arp") => Some(0x0806),
        Some("ip6") => Some(0x86dd),
        Some("vlan" | "8021q") => Some(0x8100),
        Some("8021ad") => Some(0x88a8),
        Some(text) => u16::from_str_radix(text.strip_prefix("0x")?, 16).ok(),
        None => u16::try_from(value.as_u64()?).ok(),
    }
}

/// Names nft gives to ICMP types (RFC 792).
const ICMP: [(&str, u8); 9] = [
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
];

/// Names nft gives to ICMP types of IPv6 (RFC 4443, 4861, 2710, 3810).
const ICMPV6: [(&str, u8); 15] = [
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("mld2-listener-report", 143),
];

/// One type; a set of them is more than a test holds.
fn icmp(names: &[(&str, u8)], right: &Value) -> Option<Test> {
    let kind = match right.as_str() {
        Some(name) => names.iter().find(|(one, _)| *one == name).map(|&(_, number)| number)?,
        None => u8::try_from(right.as_u64()?).ok()?,
    };
    Some(Test::Icmp { kind: Some(kind), code: None })
}
