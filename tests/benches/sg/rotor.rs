//! A program that makes every run of `BPF_PROG_TEST_RUN` another packet: it writes the next entry of a table into the packet and
//! goes on, by a tail call, in the program that is measured.
//!
//! So a million different packets cost one system call, in warm code, and what is measured needs no change. What the rotor
//! itself costs is measured in the same run, with a program that it calls for nothing.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use super::kernel::{self, Kind, Ran};

/// Three words of a packet, as they lie in it.
pub(super) type Entry = [u32; 4];

/// Where the words of an entry go.
pub(super) type Places = [i16; 3];

/// The program, and the packet it starts from.
pub(super) struct Rotor {
    program: OwnedFd,
    programs: OwnedFd,
    packet: Vec<u8>,
}

/// Bytes of an Ethernet, an IPv6 and the ports of a transport header, or of an IPv4 one with room: what is compared with the
/// length of the packet.
const HEAD: i32 = 58;

impl Rotor {
    /// Of a packet and the entries that are written into it; their number is a power of two.
    pub(super) fn new(kind: Kind, packet: Vec<u8>, places: Places, entries: &[Entry]) -> io::Result<Self> {
        assert!(entries.len().is_power_of_two(), "{} entries are not a power of two", entries.len());
        let bytes = u32::try_from(size_of_val(entries)).map_err(io::Error::other)?;
        let table = kernel::array(kernel::ARRAY, bytes)?;
        kernel::set(&table, entries)?;
        let next = kernel::array(kernel::ARRAY, 8)?;
        let programs = kernel::array(kernel::PROGRAMS, 4)?;
        let program = kernel::load(kind, &instructions(kind, places, entries.len(), [&next, &table, &programs]))?;
        Ok(Self { program, programs, packet })
    }

    /// Runs a program on so many packets.
    pub(super) fn run(&self, program: &OwnedFd, device: u32, repeat: u32) -> io::Result<Ran> {
        kernel::set(&self.programs, &kernel::element(program))?;
        kernel::test_run(&self.program, &self.packet, device, repeat)
    }
}

/// One instruction of eBPF.
pub(super) const fn instruction(code: u8, registers: (u8, u8), offset: i16, immediate: i32) -> u64 {
    let (to, from) = registers;
    code as u64
        | ((from << 4 | to) as u64) << 8
        | (offset.cast_unsigned() as u64) << 16
        | (immediate.cast_unsigned() as u64) << 32
}

/// The address of a map (1) or of the value of an array of one element (2) in a register.
pub(super) fn address(to: u8, kind: u8, map: &OwnedFd) -> [u64; 2] {
    [instruction(0x18, (to, kind), 0, map.as_raw_fd()), 0]
}

fn instructions(kind: Kind, places: Places, entries: usize, [next, table, programs]: [&OwnedFd; 3]) -> Vec<u64> {
    let mask = i32::try_from(entries - 1).unwrap_or(0);
    let (data, end, miss) = match kind {
        Kind::Classifier => (76, 80, 2),
        Kind::Xdp => (0, 4, 0),
    };
    let [first, second, third] = places;
    let mut program = vec![instruction(0xbf, (6, 1), 0, 0)]; // r6 = the context
    program.extend(address(2, 2, next));
    program.extend([
        instruction(0x79, (3, 2), 0, 0), // r3 = *r2
        instruction(0xbf, (4, 3), 0, 0),
        instruction(0x07, (4, 0), 0, 1),
        instruction(0x7b, (2, 4), 0, 0), // *r2 = r3 + 1
        instruction(0x57, (3, 0), 0, mask),
        instruction(0x67, (3, 0), 0, 4), // r3 = offset of the entry
    ]);
    program.extend(address(2, 2, table));
    program.extend([
        instruction(0x0f, (2, 3), 0, 0),
        instruction(0x61, (7, 2), 0, 0),
        instruction(0x61, (8, 2), 4, 0),
        instruction(0x61, (9, 2), 8, 0),
        instruction(0x61, (1, 6), data, 0), // r1 = where the packet begins
        instruction(0x61, (3, 6), end, 0),
        instruction(0xbf, (4, 1), 0, 0),
        instruction(0x07, (4, 0), 0, HEAD),
        instruction(0x2d, (4, 3), 8, 0), // too short: to the end
        instruction(0x63, (1, 7), first, 0),
        instruction(0x63, (1, 8), second, 0),
        instruction(0x63, (1, 9), third, 0),
        instruction(0xbf, (1, 6), 0, 0),
    ]);
    program.extend(address(2, 1, programs));
    program.extend([
        instruction(0xb7, (3, 0), 0, 0),
        instruction(0x85, (0, 0), 0, 12), // tail call; goes on below if there is no program
        instruction(0xb7, (0, 0), 0, miss),
        instruction(0x95, (0, 0), 0, 0),
    ]);
    program
}
