//! Frames, whole and with right checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) mac: [u8; 6],
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// TCP flags.
pub(super) const SYN: u8 = 0x02;
pub(super) const SYN_ACK: u8 = 0x12;
pub(super) const ACK: u8 = 0x10;

/// A TCP segment of a connection in which nobody says anything, in a frame of at least so many bytes. Its sequence numbers are
/// those that a strict reader expects after a handshake.
pub(super) fn tcp(from: End, to: End, flags: u8, length: usize) -> Vec<u8> {
    let payload = length.saturating_sub(match from.address {
        IpAddr::V4(_) => 54,
        IpAddr::V6(_) => 74,
    });
    let mut frame: Vec<u8> = [to.mac, from.mac].concat();
    match (from.address, to.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(&mut frame, from, to, 20 + payload),
        (from, to) => ipv6(&mut frame, mapped(from), mapped(to), 20 + payload),
    }
    // Who began has sent 1000, the other 5000; after the handshake both are one further.
    let begins = from.port > to.port;
    let (own, other) = if begins { (1000_u32, 5000_u32) } else { (5000, 1000) };
    let sequence = own + u32::from(flags == ACK);
    let answer = if flags == SYN { 0 } else { other + 1 };
    let start = frame.len();
    frame.extend(from.port.to_be_bytes());
    frame.extend(to.port.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend(answer.to_be_bytes());
    frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(start + 20 + payload, 0);
    let sum = checksum(&[&pseudo(from.address, to.address, 20 + payload), &frame[start..]]);
    frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn ipv4(frame: &mut Vec<u8>, from: Ipv4Addr, to: Ipv4Addr, payload: usize) {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&short(20 + payload));
    header[6] = 0x40;
    header[8] = 64;
    header[9] = 6;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend([8, 0]);
    frame.extend(header);
}

fn ipv6(frame: &mut Vec<u8>, from: Ipv6Addr, to: Ipv6Addr, payload: usize) {
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(short(payload));
    frame.extend([6, 64]);
    frame.extend(from.octets());
    frame.extend(to.octets());
}

fn pseudo(from: IpAddr, to: IpAddr, length: usize) -> Vec<u8> {
    let mut header = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (from, to) => [mapped(from).octets(), mapped(to).octets()].concat(),
    };
    header.extend([0, 6]);
    header.extend(short(length));
    header
}

/// The sum of RFC 1071.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
