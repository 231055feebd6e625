//! What neighbours there are, as rtnetlink tells it: most of what it tells is that one is still there. Flow: policy.

use std::collections::BTreeMap;

use netlink_packet_core::NlasIterator;

/// `RTM_NEWNEIGH` and `RTM_DELNEIGH` of `linux/rtnetlink.h`.
const NEW: u16 = 28;
const DELETE: u16 = 29;
/// `NDA_DST` and `NDA_LLADDR` of `linux/neighbour.h`.
const ADDRESS: u16 = 1;
const MAC: u16 = 2;
/// `NUD_INCOMPLETE` and `NUD_FAILED`: nobody knows its MAC address.
const UNUSABLE: u16 = 0x01 | 0x20;
/// Bytes of `struct nlmsghdr` and of `struct ndmsg`.
const HEADER: usize = 16;
const NEIGHBOUR: usize = 12;

/// Bytes of the question which neighbours there are.
const LENGTH: usize = HEADER + NEIGHBOUR;
/// `NLMSG_DONE` of `linux/netlink.h`.
const DONE: u16 = 3;

/// The question which IPv4 neighbours there are: `RTM_GETNEIGH` with `NLM_F_REQUEST` and `NLM_F_DUMP`.
pub(super) const ASK: [u8; LENGTH] = {
    let ([kind, more], [low, high]) = (30_u16.to_ne_bytes(), 0x301_u16.to_ne_bytes());
    let mut ask = [0; LENGTH];
    let [a, b, c, d] = 28_u32.to_ne_bytes();
    (ask[0], ask[1], ask[2], ask[3]) = (a, b, c, d);
    (ask[4], ask[5], ask[6], ask[7]) = (kind, more, low, high);
    // `AF_INET`.
    ask[HEADER] = 2;
    ask
};

/// MAC addresses by device and address.
#[derive(Debug, Default)]
pub(super) struct Neighbours(BTreeMap<(u32, Vec<u8>), Vec<u8>>);

impl Neighbours {
    /// Takes a datagram; true where it says something new.
    pub(super) fn take(&mut self, mut datagram: &[u8]) -> bool {
        let mut new = false;
        while let Some((kind, payload, rest)) = next(datagram) {
            new |= match kind {
                NEW | DELETE => self.neighbour(kind, payload),
                DONE => false,
                // A link, an address, a route or a rule.
                _ => true,
            };
            datagram = rest;
        }
        new
    }

    fn neighbour(&mut self, kind: u16, payload: &[u8]) -> bool {
        let Some((header, attributes)) = payload.split_at_checked(NEIGHBOUR) else { return true };
        let device = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let state = u16::from_ne_bytes([header[8], header[9]]);
        let (mut address, mut mac) = (Vec::new(), None);
        for nla in NlasIterator::new(attributes).map_while(Result::ok) {
            match nla.kind() {
                ADDRESS => address = nla.value().to_vec(),
                MAC => mac = Some(nla.value().to_vec()),
                _ => {}
            }
        }
        let usable = kind == NEW && state & UNUSABLE == 0;
        match mac.filter(|_| usable) {
            Some(mac) => self.0.insert((device, address), mac.clone()) != Some(mac),
            None => self.0.remove(&(device, address)).is_some(),
        }
    }
}

/// Kind and payload of the next message, and what follows it.
fn next(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes([*datagram.get(4)?, *datagram.get(5)?]);
    let payload = datagram.get(HEADER..length)?;
    Some((kind, payload, datagram.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::{DELETE, NEW, Neighbours};

    /// A message about 192.0.2.1 at device 7.
    fn message(kind: u16, state: u16, mac: Option<u8>) -> Vec<u8> {
        let mut payload = vec![2, 0, 0, 0];
        payload.extend(7_u32.to_ne_bytes());
        payload.extend(state.to_ne_bytes());
        payload.extend([0, 0]);
        let mut attribute = |kind: u16, value: &[u8]| {
            payload.extend((4 + u16::try_from(value.len()).unwrap()).to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        };
        attribute(1, &[192, 0, 2, 1]);
        if let Some(mac) = mac {
            attribute(2, &[2, 0, 0, 0, 0, mac]);
        }
        let length = u32::try_from(16 + payload.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &payload].concat()
    }

    #[test]
    fn a_neighbour_is_news_when_its_mac_address_comes_changes_or_goes_and_not_when_it_is_still_there() {
        let mut neighbours = Neighbours::default();
        for (what, message, news) in [
            ("is asked for", message(NEW, 0x01, None), false),
            ("answers", message(NEW, 0x02, Some(1)), true),
            ("has been silent", message(NEW, 0x04, Some(1)), false),
            ("has another MAC address", message(NEW, 0x02, Some(2)), true),
            ("does not answer any more", message(NEW, 0x20, Some(2)), true),
            ("still does not", message(NEW, 0x20, None), false),
            ("answers again", message(NEW, 0x02, Some(2)), true),
            ("is removed", message(DELETE, 0x02, Some(2)), true),
        ] {
            assert_eq!(neighbours.take(&message), news, "{what}");
        }
    }

    #[test]
    fn everything_else_is_news_and_a_datagram_that_is_cut_short_does_no_harm() {
        let mut neighbours = Neighbours::default();
        assert!(neighbours.take(&message(24, 0, None)), "a route");
        let two = [message(NEW, 0x01, None), message(24, 0, None)].concat();
        assert!(neighbours.take(&two), "behind a neighbour");
        assert!(!neighbours.take(&two[..20]));
    }
}
