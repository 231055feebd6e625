//! Map keys and values of tracked flows. Flow: observe.
//!
//! The programs write them; user space reads them, and removes those that have expired.

/// How many IPv4 flows can be tracked by quota.
pub const MAX_FLOWS4: u32 = 262_144;
/// How many IPv6 flows can be tracked by quota.
pub const MAX_FLOWS6: u32 = 131_072;
/// How many flows beyond the quotas can be tracked, for each family; there the oldest makes room for the newest.
pub const MAX_OVERFLOW: u32 = 65_536;
/// How many datagrams in fragments can be followed at once.
pub const MAX_FRAGMENTS: u32 = 16_384;

/// Time in ticks of 2^30 ns (1.07 s) of the coarse monotonic clock, modulo 2^32.
pub type Tick = u32;

/// Nanoseconds to ticks.
#[expect(clippy::cast_possible_truncation, reason = "ticks are modulo 2^32")]
pub const fn tick(nanoseconds: u64) -> Tick {
    (nanoseconds >> 30) as Tick
}

/// An IPv4 flow as one port sees it. Addresses and ports are in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey4 {
    /// Address at the instance.
    pub local: u32,
    /// Address of the other end.
    pub remote: u32,
    /// Port at the instance; the identifier of an ICMP query; 0 for protocols without ports.
    pub local_port: u16,
    /// Port of the other end; the type of an ICMP request (in host byte order); 0 for protocols without ports.
    pub remote_port: u16,
    /// Place of the port.
    pub slot: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
}

impl FlowKey4 {
    /// The key as it lies in memory, by whole words.
    ///
    /// A processor that reads what it has just written in smaller pieces waits for them; hash and comparison read words.
    #[inline]
    pub const fn words(&self) -> [u64; 2] {
        let Self { local, remote, local_port, remote_port, slot, protocol, pad } = *self;
        [pair(local, remote), pair(halves(local_port, remote_port), halves(slot, bytes(protocol, pad)))]
    }
}

/// Two words side by side in memory.
const fn pair(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

/// Two half-words side by side in memory.
const fn halves(first: u16, second: u16) -> u32 {
    if cfg!(target_endian = "little") {
        first as u32 | (second as u32) << 16
    } else {
        (first as u32) << 16 | second as u32
    }
}

/// Two bytes side by side in memory.
const fn bytes(first: u8, second: u8) -> u16 {
    u16::from_ne_bytes([first, second])
}

/// An IPv6 flow as one port sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey6 {
    /// Address at the instance.
    pub local: [u32; 4],
    /// Address of the other end.
    pub remote: [u32; 4],
    /// As in [`FlowKey4`].
    pub local_port: u16,
    /// As in [`FlowKey4`].
    pub remote_port: u16,
    /// Place of the port.
    pub slot: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
}

impl FlowKey6 {
    /// The key as it lies in memory, by whole words; see [`FlowKey4::words`].
    #[inline]
    pub const fn words(&self) -> [u64; 5] {
        let Self { local, remote, local_port, remote_port, slot, protocol, pad } = *self;
        let rest = pair(halves(local_port, remote_port), halves(slot, bytes(protocol, pad)));
        let [local, more_local] = [pair(local[0], local[1]), pair(local[2], local[3])];
        let [remote, more_remote] = [pair(remote[0], remote[1]), pair(remote[2], remote[3])];
        [local, more_local, remote, more_remote, rest]
    }
}

/// The flow's first packet went to the instance.
pub const FLOW_INGRESS: u8 = 1;
/// What had allowed the flow is gone: nothing of it passes.
pub const FLOW_DEAD: u8 = 1 << 1;
/// The side that began has sent a FIN.
pub const FLOW_FIN_ORIGINAL: u8 = 1 << 2;
/// The side that answered has sent a FIN.
pub const FLOW_FIN_REPLY: u8 = 1 << 3;
/// The flow began on the fast way of a floating IP and stays there: the router has not seen it.
pub const FLOW_FAST: u8 = 1 << 4;

/// A tracked flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Generation of the policy that allowed it last.
    pub generation: u32,
    /// [`super::policy::Port::epoch`] of the port it belongs to.
    pub epoch: u32,
    /// When a packet of it was last seen.
    pub seen: Tick,
    /// When it began.
    pub born: Tick,
    /// The rule that allows it: an index of `RULES`.
    pub rule: u32,
    /// Service its first packet asked for, in host byte order: destination port, or ICMP type and code.
    pub service: u16,
    /// [`crate::logic::flow::State`] as a number.
    pub state: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
}

/// What makes fragments belong together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Source; IPv4 addresses are mapped.
    pub source: [u32; 4],
    /// Destination.
    pub destination: [u32; 4],
    /// Identification.
    pub id: u32,
    /// Place of the port.
    pub slot: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Bit 0: to the instance, not from it. Bit 1: IPv6, not IPv4.
    pub ingress: u8,
}

/// The first fragment was refused.
pub const FRAGMENT_REFUSED: u8 = 0;
/// The first fragment passed and belongs to no flow.
pub const FRAGMENT_PASSES: u8 = 1;
/// The first fragment passed as part of the flow with these ports.
pub const FRAGMENT_FLOW: u8 = 2;

/// What the first fragment of a datagram said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// As in [`FlowKey4`].
    pub local_port: u16,
    /// As in [`FlowKey4`].
    pub remote_port: u16,
    /// As in [`Flow`].
    pub service: u16,
    /// `FRAGMENT_*`.
    pub kind: u8,
    /// Always 0.
    pub pad: u8,
    /// When the first fragment was seen.
    pub seen: Tick,
    /// [`super::policy::Port::epoch`] of the port.
    pub epoch: u32,
}

#[cfg(test)]
mod tests {
    use super::{FlowKey4, FlowKey6};

    const REST: [u8; 8] = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 17, 0];

    #[test]
    fn the_words_of_a_key_are_its_fields_in_their_order() {
        let (local_port, remote_port) = (u16::from_ne_bytes([0x12, 0x34]), u16::from_ne_bytes([0x56, 0x78]));
        let slot = u16::from_ne_bytes([0x9a, 0xbc]);
        let word = |first: u8| u32::from_ne_bytes([first, first + 1, first + 2, first + 3]);
        let (local, remote) = (word(1), word(5));
        let key = FlowKey4 { local, remote, local_port, remote_port, slot, protocol: 17, pad: 0 };
        let [first, second] = key.words().map(u64::to_ne_bytes);
        assert_eq!((first, second), ([1, 2, 3, 4, 5, 6, 7, 8], REST));

        let (local, remote) = ([word(1), word(5), word(9), word(13)], [word(17), word(21), word(25), word(29)]);
        let key = FlowKey6 { local, remote, local_port, remote_port, slot, protocol: 17, pad: 0 };
        let [addresses @ .., rest] = key.words().map(u64::to_ne_bytes);
        assert!(addresses.as_flattened().iter().copied().eq(1..=32));
        assert_eq!(rest, REST);
    }
}
