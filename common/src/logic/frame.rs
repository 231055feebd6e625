//! Where a packet is: a socket buffer, an XDP frame, a slice. Flow: policy.

/// A packet from its Ethernet header on. Words come as they lie in the packet, in network byte order.
pub trait Frame {
    /// Whether a transport checksum is finished cannot be told.
    const HIDES_PARTIAL: bool = false;

    /// Bytes of the whole packet, wherever they lie.
    fn length(&self) -> u32;

    /// True if a VLAN tag travels beside the packet instead of in it.
    fn tagged(&self) -> bool;

    /// True if it stands for several packets (GSO), and so may be longer than a length field can say.
    fn aggregated(&self) -> bool {
        self.segment() != 0
    }

    /// Bytes behind the headers of each of the packets it stands for (`gso_size`); 0 if it is one packet.
    fn segment(&self) -> u32;

    /// Half-words from an offset on; `None` if the packet ends before.
    fn load16<const N: usize>(&self, offset: u32) -> Option<[u16; N]>;

    /// Words from an offset on; `None` if the packet ends before.
    fn load32<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// Its first bytes where they lie in one piece; `None` if fewer do.
    fn head(&self, length: usize) -> Option<impl Head + '_>;
}

/// The first bytes of a packet, readable without asking again how many there are.
pub trait Head {
    /// The half-word at a place (not offset), which is below half the length asked for.
    fn half(&self, place: usize) -> u16;

    /// The word that begins at a half-word's place.
    fn word<const PLACE: usize>(&self) -> u32;

    /// The two words that begin at a half-word's place, as they lie there.
    fn long<const PLACE: usize>(&self) -> u64;
}

/// A packet in memory.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// True if a VLAN tag travels beside it.
    pub tagged: bool,
}

impl Slice<'_> {
    fn at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }
}

impl Frame for Slice<'_> {
    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn tagged(&self) -> bool {
        self.tagged
    }

    fn segment(&self) -> u32 {
        0
    }

    fn load16<const N: usize>(&self, offset: u32) -> Option<[u16; N]> {
        let mut words = [0; N];
        for (place, word) in words.iter_mut().enumerate() {
            *word = u16::from_ne_bytes(self.at(offset as usize + 2 * place)?);
        }
        Some(words)
    }

    fn load32<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (place, word) in words.iter_mut().enumerate() {
            *word = u32::from_ne_bytes(self.at(offset as usize + 4 * place)?);
        }
        Some(words)
    }

    fn head(&self, length: usize) -> Option<impl Head + '_> {
        (self.bytes.len() >= length).then_some(*self)
    }
}

impl Head for Slice<'_> {
    fn half(&self, place: usize) -> u16 {
        self.at(2 * place).map_or(0, u16::from_ne_bytes)
    }

    fn word<const PLACE: usize>(&self) -> u32 {
        self.at(2 * PLACE).map_or(0, u32::from_ne_bytes)
    }

    fn long<const PLACE: usize>(&self) -> u64 {
        self.at(2 * PLACE).map_or(0, u64::from_ne_bytes)
    }
}
