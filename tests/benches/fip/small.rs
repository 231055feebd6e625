//! Programs of a few instructions: those that only redirect, the one that does what no translation does without, the one at which every
//! frame ends, and the one that puts a packet right again before each run.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use netdiag_common::abi::floating::{Floating, MAX_FLOATING};

use super::{
    course::LENGTH,
    kernel::{self, Kind, Ran},
    rotor::{address, instruction},
};

/// Numbers of helpers, of `linux/bpf.h`.
mod helper {
    pub(super) const LOOKUP: i32 = 1;
    pub(super) const STORE_BYTES: i32 = 9;
    pub(super) const L4_CSUM_REPLACE: i32 = 11;
    pub(super) const REDIRECT: i32 = 23;
    pub(super) const CHANGE_TYPE: i32 = 32;
    pub(super) const REDIRECT_PEER: i32 = 155;
}

/// r0 = the number; exit.
const fn answer(number: i32) -> [u64; 2] {
    [instruction(0xb7, (0, 0), 0, number), instruction(0x95, (0, 0), 0, 0)]
}

const fn call(helper: i32) -> u64 {
    instruction(0x85, (0, 0), 0, helper)
}

/// Sends everything out of a device.
pub(super) fn redirect(device: u32) -> io::Result<OwnedFd> {
    kernel::load(
        Kind::Classifier,
        &[
            instruction(0xb7, (1, 0), 0, device.cast_signed()),
            instruction(0xb7, (2, 0), 0, 0),
            call(helper::REDIRECT),
            instruction(0x95, (0, 0), 0, 0),
        ],
    )
}

/// Puts everything into the peer of a device, as for the instance behind it.
pub(super) fn redirect_peer(device: u32) -> io::Result<OwnedFd> {
    kernel::load(Kind::Classifier, &into_peer(device))
}

/// The same for packets whose context is in r1.
const fn into_peer(device: u32) -> [u64; 6] {
    [
        // `PACKET_HOST`.
        instruction(0xb7, (2, 0), 0, 0),
        call(helper::CHANGE_TYPE),
        instruction(0xb7, (1, 0), 0, device.cast_signed()),
        instruction(0xb7, (2, 0), 0, 0),
        call(helper::REDIRECT_PEER),
        instruction(0x95, (0, 0), 0, 0),
    ]
}

/// The same for packets whose destination is found among these addresses, in a table like netdiag's: what no way past a router
/// is without that knows more than one floating IP.
pub(super) fn redirect_peer_found(device: u32, addresses: &[Ipv4Addr]) -> io::Result<OwnedFd> {
    let map = table(addresses)?;
    let mut program = find(&map);
    program.push(instruction(0xbf, (1, 6), 0, 0));
    program.extend(into_peer(device));
    kernel::load(Kind::Classifier, &program)
}

/// Addresses in a table like netdiag's.
fn table(addresses: &[Ipv4Addr]) -> io::Result<OwnedFd> {
    let map = kernel::hash(4, size_of::<Floating>(), MAX_FLOATING)?;
    for address in addresses {
        kernel::put(&map, &address.octets(), &[0_u8; size_of::<Floating>()])?;
    }
    Ok(map)
}

/// Looks the destination of a packet up, and leaves those it does not find to others; r6 = the context, r7 = the address.
fn find(map: &OwnedFd) -> Vec<u64> {
    let mut program = vec![
        instruction(0xbf, (6, 1), 0, 0),
        instruction(0x61, (2, 6), 76, 0), // r2 = where the packet begins
        instruction(0x61, (3, 6), 80, 0),
        instruction(0xbf, (4, 2), 0, 0),
        instruction(0x07, (4, 0), 0, HEADERS),
        instruction(0x3d, (3, 4), 2, 0), // long enough: on with it
    ];
    program.extend(answer(-1));
    program.extend([instruction(0x61, (7, 2), 30, 0), instruction(0x63, (10, 7), -4, 0)]);
    program.extend(address(1, 1, map));
    program.extend([
        instruction(0xbf, (2, 10), 0, 0),
        instruction(0x07, (2, 0), 0, -4),
        call(helper::LOOKUP),
        instruction(0x55, (0, 0), 2, 0), // there it is: on with it
    ]);
    program.extend(answer(-1));
    program
}

/// Bytes of Ethernet and IPv4 header, and where the checksum of TCP is.
const HEADERS: i32 = 34;
const TCP_CHECKSUM: i32 = HEADERS + 16;

/// Who finds out by nothing but the address that a packet is to be translated, and has to be told nothing more: looks the address up
/// among as many, has the kernel write both headers, whose new bytes it knows, and mend the checksum, and redirects. What it takes
/// is the least that can be reached with the kernel's helpers.
pub(super) fn least(device: u32, addresses: &[Ipv4Addr], headers: &[u8]) -> io::Result<OwnedFd> {
    let place = |place: usize| i16::try_from(place).map_err(io::Error::other);
    let map = table(addresses)?;
    let mut program = find(&map);
    for (at, word) in headers[..36].chunks(4).enumerate() {
        let word = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        program.push(instruction(0x62, (10, 0), place(4 * at)? - 40, word));
    }
    program.extend([
        instruction(0xbf, (1, 6), 0, 0),
        instruction(0xb7, (2, 0), 0, 0),
        instruction(0xbf, (3, 10), 0, 0),
        instruction(0x07, (3, 0), 0, -40),
        instruction(0xb7, (4, 0), 0, HEADERS),
        instruction(0xb7, (5, 0), 0, 0),
        call(helper::STORE_BYTES),
        instruction(0xbf, (1, 6), 0, 0),
        instruction(0xb7, (2, 0), 0, TCP_CHECKSUM),
        instruction(0xbf, (3, 7), 0, 0),
        instruction(0xb7, (4, 0), 0, 1),
        // `BPF_F_PSEUDO_HDR`, of four bytes.
        instruction(0xb7, (5, 0), 0, 0x10 | 4),
        call(helper::L4_CSUM_REPLACE),
        instruction(0xb7, (1, 0), 0, device.cast_signed()),
        instruction(0xb7, (2, 0), 0, 0),
        call(helper::REDIRECT),
        instruction(0x95, (0, 0), 0, 0),
    ]);
    kernel::load(Kind::Classifier, &program)
}

/// `TCX_NEXT`, at once.
pub(super) fn empty() -> io::Result<OwnedFd> {
    kernel::load(Kind::Classifier, &answer(-1))
}

/// Ends what comes, and counts it where it is of the length of the frames that are measured: nothing else here is.
pub(super) struct End {
    pub(super) program: OwnedFd,
    count: OwnedFd,
}

impl End {
    pub(super) fn new() -> io::Result<Self> {
        let count = kernel::array(kernel::ARRAY, 8)?;
        let length = i32::try_from(LENGTH).map_err(io::Error::other)?;
        let mut program = vec![
            instruction(0x61, (4, 1), 0, 0),      // r4 = length
            instruction(0x55, (4, 0), 5, length), // another: on with it
        ];
        program.extend(address(2, 2, &count));
        program.extend([
            instruction(0x79, (3, 2), 0, 0), // r3 = *r2
            instruction(0x07, (3, 0), 0, 1),
            instruction(0x7b, (2, 3), 0, 0),
        ]);
        // `TC_ACT_SHOT`.
        program.extend(answer(2));
        Ok(Self { program: kernel::load(Kind::Classifier, &program)?, count })
    }

    /// How many have come.
    pub(super) fn count(&self) -> io::Result<u64> {
        kernel::get(&self.count)
    }
}

/// Writes the first bytes of a packet anew and goes on, by a tail call, in the program that is measured: which has changed them.
pub(super) struct Again {
    program: OwnedFd,
    programs: OwnedFd,
    packet: Vec<u8>,
}

/// Bytes that are written: Ethernet and IP header, in words.
const FRONT: usize = 36;

impl Again {
    pub(super) fn new(packet: Vec<u8>) -> io::Result<Self> {
        let programs = kernel::array(kernel::PROGRAMS, 4)?;
        let mut program = vec![
            instruction(0xbf, (6, 1), 0, 0),  // r6 = the context
            instruction(0x61, (2, 6), 76, 0), // r2 = where the packet begins
            instruction(0x61, (3, 6), 80, 0),
            instruction(0xbf, (4, 2), 0, 0),
            instruction(0x07, (4, 0), 0, FRONT.try_into().map_err(io::Error::other)?),
            instruction(0x2d, (4, 3), (FRONT / 4).try_into().map_err(io::Error::other)?, 0), // too short: on with it
        ];
        for (place, word) in packet[..FRONT].chunks(4).enumerate() {
            let word = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            program.push(instruction(0x62, (2, 0), (4 * place).try_into().map_err(io::Error::other)?, word));
        }
        program.push(instruction(0xbf, (1, 6), 0, 0));
        program.extend(address(2, 1, &programs));
        program.extend([instruction(0xb7, (3, 0), 0, 0), call(12)]);
        program.extend(answer(2));
        Ok(Self { program: kernel::load(Kind::Classifier, &program)?, programs, packet })
    }

    /// Runs a program so often, on the same packet each time.
    pub(super) fn run(&self, program: &OwnedFd, device: u32, repeat: u32) -> io::Result<Ran> {
        kernel::set(&self.programs, &[program.as_raw_fd().unsigned_abs()])?;
        kernel::test_run(&self.program, &self.packet, device, repeat)
    }
}
