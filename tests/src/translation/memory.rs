//! The logic, on packets in memory.

use netdiag_common::{
    abi::floating::Leaving,
    logic::{
        floating::{Exit, arrival},
        rewrite::{Memory, translate as rewrite},
    },
};

use super::{BEYOND, Packet, programs};

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
        let mut bytes = frame.clone();
        rewrite(&mut Memory(&mut bytes), &change).then_some(bytes)
    });
    translated.collect()
}
