//! Headers and checksums: packets a strict reader takes.

use std::net::Ipv4Addr;

use netdiag_common::logic::flow::protocol::{ICMP, SCTP, TCP, UDP, UDPLITE};

/// What is behind an IP header, without the checksum, which is of the addresses, too.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) protocol: u8,
    pub(super) bytes: Vec<u8>,
    /// UDP: there shall be no checksum. UDP-Lite: how much it covers.
    pub(super) covered: usize,
}

/// Where in an IP header what is not in every packet alike comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) id: u16,
    /// Flags and offset of the fragment, as in the header.
    pub(super) fragment: u16,
    /// Words of options.
    pub(super) options: usize,
}

/// Flag of the header: do not fragment.
pub(super) const DF: u16 = 0x4000;
/// Flag of the header: more fragments follow.
pub(super) const MF: u16 = 0x2000;

impl Load {
    /// Its bytes between two addresses.
    pub(super) fn between(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let sum = |bytes: &[u8]| !sum(pseudo(source, destination, self.protocol, self.bytes.len()), bytes);
        match self.protocol {
            TCP => {
                let sum = sum(&bytes);
                put(&mut bytes, 16, sum);
            }
            // 0 says that there is none, so that what comes to 0 is said otherwise.
            UDP | UDPLITE if self.covered > 0 => match sum(&bytes[..self.covered]) {
                0 => put(&mut bytes, 6, 0xffff),
                sum => put(&mut bytes, 6, sum),
            },
            ICMP => {
                let sum = !self::sum(0, &bytes);
                put(&mut bytes, 2, sum);
            }
            SCTP => {
                let sum = crc32c(&bytes);
                bytes[8..12].copy_from_slice(&sum.to_le_bytes());
            }
            _ => {}
        }
        bytes
    }

    /// Chooses the half-word at an even place so that the checksum between two addresses comes to 0.
    pub(super) fn aim(&mut self, place: usize, source: Ipv4Addr, destination: Ipv4Addr) {
        put(&mut self.bytes, place, 0);
        let start = pseudo(source, destination, self.protocol, self.bytes.len());
        let missing = !sum(start, &self.bytes);
        put(&mut self.bytes, place, missing);
    }
}

impl Header {
    /// The header of so many bytes behind it.
    pub(super) fn bytes(&self, protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Vec<u8> {
        let Self { tos, ttl, id, fragment, options } = *self;
        let words = 5 + options;
        let [high, low] = half(words * 4 + length);
        let mut header = vec![0x40 | u8::try_from(words).unwrap_or(0xf), tos, high, low];
        header.extend(id.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([ttl, protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        // No operation, as often as there is room.
        header.resize(words * 4, 1);
        let sum = !sum(0, &header);
        put(&mut header, 10, sum);
        header
    }
}

/// A number as a half-word in network byte order.
pub(super) fn half(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes()
}

fn put(bytes: &mut [u8], place: usize, half: u16) {
    bytes[place..place + 2].copy_from_slice(&half.to_be_bytes());
}

/// The sum over a pseudo-header.
fn pseudo(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> u32 {
    let addresses = [source.octets(), destination.octets()].concat();
    u32::from(sum(u32::from(protocol) + u32::from(u16::from_be_bytes(half(length))), &addresses))
}

/// The sum of RFC 1071.
pub(super) fn sum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

/// The checksum of SCTP (RFC 9260 appendix A), over a packet whose own one is 0.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_checksum_of_sctp_is_that_of_the_known_text() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
