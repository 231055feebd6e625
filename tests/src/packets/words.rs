//! Frames in words, as far as they can be read. It decides nothing, so it may be wrong about broken frames.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Every byte, with a gap where the Ethernet header ends.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2 + 1);
    for (place, byte) in bytes.iter().enumerate() {
        let gap = if place == 14 { " " } else { "" };
        // Writing into a string cannot fail.
        write!(text, "{gap}{byte:02x}").ok();
    }
    text
}

/// What the frame seems to be.
pub(super) fn of(bytes: &[u8]) -> String {
    let Some(payload) = bytes.get(14..) else { return format!("{} bytes", bytes.len()) };
    let source = hex(&bytes[6..12]);
    let words = match u16_at(bytes, 12) {
        0x0800 => ipv4(payload),
        0x86dd => ipv6(payload),
        0x0806 => payload.get(14..18).map(|sender| format!("ARP, sender {}", v4(sender))),
        other => Some(format!("ethertype {other:#06x}")),
    };
    format!("{} bytes, MAC {source}, {}", bytes.len(), words.as_deref().unwrap_or("cut short"))
}

fn ipv4(bytes: &[u8]) -> Option<String> {
    let header = bytes.get(..20)?;
    let mut text = format!("{} > {}", v4(&header[12..16]), v4(&header[16..20]));
    let fragment = u16_at(header, 6);
    let offset = (fragment & 0x1fff) << 3;
    if fragment & 0x3fff != 0 {
        let more = if fragment & 0x2000 != 0 { "+" } else { "" };
        write!(text, ", fragment {}@{}{more}", u16_at(header, 4), offset).ok()?;
    }
    let rest = bytes.get(usize::from(header[0] & 15) * 4..).unwrap_or_default();
    let rest = if offset == 0 { rest } else { &[] };
    Some(text + &transport(header[9], rest))
}

fn ipv6(bytes: &[u8]) -> Option<String> {
    let header = bytes.get(..40)?;
    let mut text = format!("{} > {}", v6(&header[8..24]), v6(&header[24..40]));
    let (mut next, mut rest) = (header[6], &bytes[40..]);
    while let (0 | 43 | 44 | 60, Some(start)) = (next, rest.get(..8)) {
        write!(text, ", header {next}").ok()?;
        let length = if next == 44 { 8 } else { usize::from(start[1]) * 8 + 8 };
        let offset = if next == 44 { u16_at(start, 2) & 0xfff8 } else { 0 };
        if next == 44 {
            let more = if start[3] & 1 != 0 { "+" } else { "" };
            write!(text, " (fragment {}@{offset}{more})", hex(&start[4..8])).ok()?;
        }
        next = start[0];
        rest = rest.get(length..).unwrap_or_default();
        if offset != 0 {
            return Some(text + &transport(next, &[]));
        }
    }
    Some(text + &transport(next, rest))
}

fn transport(protocol: u8, bytes: &[u8]) -> String {
    let ports = bytes.get(..4).map(|bytes| format!(" {} > {}", u16_at(bytes, 0), u16_at(bytes, 2)));
    let message = bytes.get(..6).map(|bytes| format!(" {}/{} id {}", bytes[0], bytes[1], u16_at(bytes, 4)));
    let flags = bytes.get(13).map(|flags| format!(" flags {flags:#04x}"));
    match protocol {
        1 | 58 => format!(", ICMP({protocol}){}", message.unwrap_or_default()),
        6 => format!(", TCP{}{}", ports.unwrap_or_default(), flags.unwrap_or_default()),
        17 => format!(", UDP{}", ports.unwrap_or_default()),
        33 | 132 | 136 => format!(", protocol {protocol}{}", ports.unwrap_or_default()),
        _ => format!(", protocol {protocol}"),
    }
}

fn u16_at(bytes: &[u8], place: usize) -> u16 {
    u16::from_be_bytes([bytes[place], bytes[place + 1]])
}

fn v4(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap_or_default())
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default())
}
