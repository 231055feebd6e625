//! The least that anybody who tracks flows does at a hook: looks the flow up, in a map as large, and does nothing with what it finds.
//!
//! What it costs, no policy, no state and no counter included, is what is left to be saved by whoever does all of that.

use std::{io, os::fd::OwnedFd};

use netdiag_common::abi::flow::{Flow, MAX_FLOWS4};

use super::{
    batches::Frames,
    kernel::{self, Kind},
    rotor::{address, instruction},
};

/// Addresses and ports as they lie in a packet, and the hook.
type Key = [u32; 4];

/// Where addresses begin in a frame without tags and options.
const ADDRESSES: usize = 26;

/// Numbers of helpers, of `linux/bpf.h`.
const LOOKUP: i32 = 1;
const LOAD_BYTES: i32 = 26;

/// Programs for two hooks, which share a map as flows of two ports do.
pub(super) struct Least {
    pub(super) programs: [OwnedFd; 2],
}

impl Least {
    /// With the flows of frames, at each of both hooks.
    pub(super) fn new(frames: &[&Frames]) -> io::Result<Self> {
        let map = kernel::hash(size_of::<Key>(), size_of::<Flow>(), MAX_FLOWS4)?;
        let value = [0_u8; size_of::<Flow>()];
        for hook in [0, 1] {
            for frame in frames.iter().flat_map(|frames| frames.iter()) {
                kernel::put(&map, &key(frame, hook), &value)?;
            }
        }
        Ok(Self { programs: [program(&map, 0)?, program(&map, 1)?] })
    }
}

fn key(frame: &[u8], hook: u32) -> Key {
    let mut key = [hook; 4];
    for (word, bytes) in key.iter_mut().zip(frame[ADDRESSES..ADDRESSES + 12].chunks(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    key
}

/// Passes a packet whose flow is there, and ends any other: that a frame does not arrive fails the run.
fn program(map: &OwnedFd, hook: i32) -> io::Result<OwnedFd> {
    let mut program = vec![
        instruction(0x62, (10, 0), -4, hook), // the key is at r10 - 16
        instruction(0xb7, (2, 0), 0, i32::try_from(ADDRESSES).map_err(io::Error::other)?),
        instruction(0xbf, (3, 10), 0, 0),
        instruction(0x07, (3, 0), 0, -16),
        instruction(0xb7, (4, 0), 0, 12),
        instruction(0x85, (0, 0), 0, LOAD_BYTES),
        instruction(0x55, (0, 0), 9, 0), // too short: to the end
    ];
    program.extend(address(1, 1, map));
    program.extend([
        instruction(0xbf, (2, 10), 0, 0),
        instruction(0x07, (2, 0), 0, -16),
        instruction(0x85, (0, 0), 0, LOOKUP),
        instruction(0x15, (0, 0), 3, 0), // no flow: to the end
        instruction(0x61, (1, 0), 0, 0), // r1 = its first word
        instruction(0xb7, (0, 0), 0, -1),
        instruction(0x95, (0, 0), 0, 0),
        instruction(0xb7, (0, 0), 0, 2),
        instruction(0x95, (0, 0), 0, 0),
    ]);
    kernel::load(Kind::Classifier, &program)
}
