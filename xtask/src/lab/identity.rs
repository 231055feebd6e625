//! Identities that look like the real ones and are the same in every lab: UUIDs and MAC addresses derived from what
//! they stand for.

use crate::lab::inventory::Uuid;

/// FNV-1a, 64 bit: offset basis and prime from the Fowler-Noll-Vo specification.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// 64 well mixed bits of a text.
///
/// FNV alone leaves texts that differ only in their end with alike high bits, which is where a UUID begins; the
/// finalizer of `SplitMix64` spreads every bit.
pub(crate) fn bits(text: &str, salt: u64) -> u64 {
    let hash = text.bytes().fold(FNV_BASIS ^ salt, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The UUID (version 4 in form) of what `kind` and `name` say.
pub(crate) fn uuid(kind: &str, name: &str) -> Uuid {
    let text = format!("{kind}/{name}");
    let high = bits(&text, 1) & 0xffff_ffff_ffff_0fff | 0x4000;
    let low = bits(&text, 2) & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
    Uuid(format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    ))
}

/// The MAC address number `index` under Neutron's default `base_mac`, fa:16:3e.
///
/// The multiplier is odd, so 2^24 different indices give as many different addresses that do not look counted.
pub(crate) fn mac(index: u32) -> String {
    let [_, a, b, c] = index.wrapping_add(1).wrapping_mul(0x005d_13c5).to_be_bytes();
    format!("fa:16:3e:{a:02x}:{b:02x}:{c:02x}")
}

/// The address a host with distributed routers sends under, by the host's number, under Neutron's default `dvr_base_mac`.
pub(crate) fn dvr_mac(number: u32) -> String {
    let [_, a, b, c] = number.wrapping_mul(0x005d_13c5).to_be_bytes();
    format!("fa:16:3f:{a:02x}:{b:02x}:{c:02x}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{mac, uuid};

    #[test]
    fn uuid_has_the_form_of_version_4() {
        let id = uuid("port", "web-1").0;
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!("89ab".contains(char::from(id.as_bytes()[19])));
        assert_eq!(id, uuid("port", "web-1").0);
    }

    #[test]
    fn no_two_ports_of_a_large_lab_share_a_device_name() {
        let names: BTreeSet<_> = (0..5000).map(|n| uuid("port", &format!("instance-{n}/0")).device("tap")).collect();
        assert_eq!(names.len(), 5000);
    }

    #[test]
    fn no_two_mac_addresses_are_alike() {
        let addresses: BTreeSet<_> = (0..20_000).map(mac).collect();
        assert_eq!(addresses.len(), 20_000);
    }
}
