//! The logic, on packets in memory.

use netdiag_common::{
    abi::floating::Leaving,
    logic::{
        floating::{Exit, arrival},
        frame::{Frame, Head, Slice},
        rewrite::{Rewrite, translate as rewrite, updated_word},
    },
};

use super::{BEYOND, Packet, programs};

/// A packet that can be changed.
struct Bytes(Vec<u8>);

impl Bytes {
    fn slice(&self) -> Slice<'_> {
        Slice { bytes: &self.0, tagged: false }
    }
}

impl Frame for Bytes {
    fn length(&self) -> u32 {
        self.slice().length()
    }

    fn tagged(&self) -> bool {
        false
    }

    fn segment(&self) -> u32 {
        0
    }

    fn load16<const N: usize>(&self, offset: u32) -> Option<[u16; N]> {
        self.slice().load16(offset)
    }

    fn load32<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.slice().load32(offset)
    }

    fn head(&self, length: usize) -> Option<impl Head + '_> {
        (length <= self.0.len()).then_some(self.slice())
    }
}

impl Rewrite for Bytes {
    fn fits(&self, _: u32) -> bool {
        true
    }

    fn store16<const N: usize>(&mut self, offset: u32, halves: &[u16; N]) -> bool {
        let Some(place) = self.0.get_mut(offset as usize..offset as usize + 2 * N) else { return false };
        for (bytes, half) in place.chunks_mut(2).zip(halves) {
            bytes.copy_from_slice(&half.to_ne_bytes());
        }
        true
    }

    fn pseudo_header(&mut self, offset: u32, from: u32, to: u32, optional: bool) -> bool {
        let Some([old]) = self.load16::<1>(offset) else { return false };
        if optional && old == 0 {
            return true;
        }
        let new = match updated_word(old, from, to) {
            0 if optional => 0xffff,
            new => new,
        };
        self.store16(offset, &[new])
    }
}

/// What a packet becomes; none where it could not be changed.
pub fn translate(packet: &Packet) -> Option<Vec<Vec<u8>>> {
    let (key, floating) = programs::inward();
    let leaving: Leaving = programs::outward();
    let change = if packet.inward {
        arrival(&floating, key.address)
    } else {
        Exit { leaving: &leaving, mac: BEYOND, fragment: false, partial: false }.change()
    };
    let translated = packet.frames.iter().map(|frame| {
        let mut bytes = Bytes(frame.clone());
        rewrite(&mut bytes, &change).then_some(bytes.0)
    });
    translated.collect()
}
