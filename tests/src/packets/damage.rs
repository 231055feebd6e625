//! What goes wrong with a frame on its way: cut short, a bit turned, bytes too many, nothing but noise.

use super::dice::Dice;

/// Damages a frame in one way.
pub(super) fn damage(dice: &mut Dice, bytes: &mut Vec<u8>) {
    match dice.below(100) {
        0..25 => bytes.truncate(dice.below(bytes.len() + 1)),
        25..55 => replace_header_byte(dice, bytes),
        55..70 => flip(dice, bytes),
        // Padding, which every short frame has on the wire.
        70..95 => bytes.resize(bytes.len() + dice.below(20), 0),
        _ => *bytes = (0..dice.below(120)).map(|_| dice.u8()).collect(),
    }
}

/// Header bytes matter more than those behind them.
fn replace_header_byte(dice: &mut Dice, bytes: &mut [u8]) {
    let place = dice.below(bytes.len().min(60));
    let value = dice.u8();
    if let Some(byte) = bytes.get_mut(place) {
        *byte = value;
    }
}

fn flip(dice: &mut Dice, bytes: &mut [u8]) {
    let place = dice.below(bytes.len());
    let bit = dice.below(8);
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= 1 << bit;
    }
}
