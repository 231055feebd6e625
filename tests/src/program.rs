//! Programs of somebody else: two instructions that let everything pass, attached as others attach theirs; one that takes its
//! time; and a map that is full.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::{Duration, Instant},
};

/// `BPF_PROG_LOAD` and its attribute, of `linux/bpf.h`.
const PROG_LOAD: libc::c_long = 5;
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// `BPF_MAP_CREATE` and its attribute, of `linux/bpf.h`.
const MAP_CREATE: libc::c_long = 0;
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM` and their attribute, of `linux/bpf.h`.
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
#[repr(C)]
struct MapElement {
    map_fd: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// `BPF_MAP_TYPE_HASH` and `BPF_MAP_TYPE_ARRAY`.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PROG_ARRAY`.
const PROGRAMS: u32 = 3;

/// `BPF_PROG_TEST_RUN` and its attribute, of `linux/bpf.h`.
const PROG_TEST_RUN: libc::c_long = 10;
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// `BPF_OBJ_PIN` and its attribute, of `linux/bpf.h`.
const OBJ_PIN: libc::c_long = 6;
#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `BPF_LINK_CREATE` and its attribute, of `linux/bpf.h`.
const LINK_CREATE: libc::c_long = 28;
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;

/// `BPF_XDP`.
pub const ATTACH_XDP: u32 = 37;
/// `BPF_TCX_INGRESS`.
pub const ATTACH_TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`.
pub const ATTACH_TCX_EGRESS: u32 = 47;
/// `XDP_FLAGS_SKB_MODE`.
pub const XDP_SKB_MODE: u32 = 2;
/// `BPF_F_BEFORE`: before all others.
pub const BEFORE: u32 = 1 << 3;

#[expect(unsafe_code, reason = "bpf(2) is wrapped by nothing that loads a program of two instructions")]
fn bpf<A>(command: libc::c_long, attribute: &A) -> io::Result<i32> {
    // SAFETY: the attribute is `size` readable bytes for the whole call, and the pointers in it are to live data.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<A>()) };
    let result = i32::try_from(result).map_err(io::Error::other)?;
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[expect(unsafe_code, reason = "a descriptor of bpf(2) is a plain number")]
fn descriptor<A>(command: libc::c_long, attribute: &A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attribute)?;
    // SAFETY: only commands come here that return a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program that lets everything go on to whoever comes next.
fn load(prog_type: u32, name: &str) -> io::Result<OwnedFd> {
    // r0 = XDP_PASS, or TCX_NEXT; exit
    let verdict: u64 = if prog_type == XDP { 0x0000_0002 } else { 0xffff_ffff };
    load_instructions(prog_type, name, &[verdict << 32 | 0xb7, 0x95])
}

fn load_instructions(prog_type: u32, name: &str, instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..name.len()].copy_from_slice(name.as_bytes());
    let load = ProgLoad {
        prog_type,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
        kern_version: 0,
        prog_flags: 0,
        prog_name,
    };
    descriptor(PROG_LOAD, &load)
}

/// A program for TC of two instructions.
///
/// # Errors
/// The kernel refuses it.
pub fn classifier(name: &str) -> io::Result<OwnedFd> {
    load(SCHED_CLS, name)
}

/// Attaches a program to a link of the calling thread's namespace, for as long as the descriptor is open.
///
/// # Errors
/// The kernel refuses it.
pub fn link(program: &OwnedFd, ifindex: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let prog_fd = program.as_raw_fd().unsigned_abs();
    descriptor(LINK_CREATE, &LinkCreate { prog_fd, target_ifindex: ifindex, attach_type, flags })
}

/// The same for a new program.
pub fn attach(ifindex: u32, attach_type: u32, name: &str, flags: u32) -> io::Result<OwnedFd> {
    let program = load(if attach_type == ATTACH_XDP { XDP } else { SCHED_CLS }, name)?;
    link(&program, ifindex, attach_type, flags)
}

/// Pins a new program, for tools that take one by its path.
pub fn pin_classifier(name: &str, path: &Path) -> io::Result<()> {
    pin(&load(SCHED_CLS, name)?, path)
}

fn pin(what: &OwnedFd, path: &Path) -> io::Result<()> {
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let pin = ObjPin { pathname: pathname.as_ptr() as u64, bpf_fd: what.as_raw_fd().unsigned_abs(), file_flags: 0 };
    bpf(OBJ_PIN, &pin).map(drop)
}

/// Pins a map of these keys and values that takes no element more: not one whose oldest would make room. The only key it has
/// is zero.
///
/// # Errors
/// The kernel refuses it.
pub fn pin_full_map<K, V>(path: &Path) -> io::Result<()> {
    let size = |size| u32::try_from(size).map_err(io::Error::other);
    let (key_size, value_size) = (size(size_of::<K>())?, size(size_of::<V>())?);
    let map = descriptor(MAP_CREATE, &MapCreate { map_type: HASH, key_size, value_size, max_entries: 1 })?;
    let (key, value) = (vec![0_u8; size_of::<K>()], vec![0_u8; size_of::<V>()]);
    let map_fd = map.as_raw_fd().unsigned_abs().into();
    bpf(MAP_UPDATE, &MapElement { map_fd, key: key.as_ptr() as u64, value: value.as_ptr() as u64, flags: 0 })?;
    pin(&map, path)
}

/// True where the kernel knows TCX, which came with Linux 6.6.
#[expect(clippy::print_stderr, reason = "a narrower test must be seen")]
#[must_use]
pub fn has_tcx(ifindex: u32) -> bool {
    let has = attach(ifindex, ATTACH_TCX_INGRESS, "probe", 0).is_ok();
    if !has {
        eprintln!("NARROWED: this kernel has no TCX");
    }
    has
}

// === one that takes its time ===

/// How often the program sums octets up before it goes on to itself: as often as the verifier follows it, some milliseconds.
const TIMES: i32 = 90_000;
/// The most often it does that: fewer times than a program may call another one instead of returning.
const CALLS: u128 = 30;
/// How long it shall run at least, as far as it can.
const LONG: Duration = Duration::from_millis(50);
/// Octets it sums up.
const SUMMED: i32 = 512;
/// Octets before those: how often it has begun, how often it has ended, how often it has called itself, how often it shall.
const COUNTED: i32 = 32;
/// The element of its map, by words.
const WORDS: usize = (COUNTED + SUMMED) as usize / 8;

/// A program that runs for some hundredths of a second, or longer where the machine is slow, and says that it does.
#[derive(Debug)]
pub struct Slow {
    program: OwnedFd,
    counts: OwnedFd,
    /// Where the program finds itself.
    _itself: OwnedFd,
}

impl Slow {
    /// Loads it.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load() -> io::Result<Self> {
        let size = (COUNTED + SUMMED).unsigned_abs();
        let map = |map_type, value_size| {
            descriptor(MAP_CREATE, &MapCreate { map_type, key_size: 4, value_size, max_entries: 1 })
        };
        let (counts, itself) = (map(ARRAY, size)?, map(PROGRAMS, 4)?);
        let instructions = slow(counts.as_raw_fd(), itself.as_raw_fd());
        let program = load_instructions(SCHED_CLS, "slow", &instructions)?;
        let (key, value) = (0_u32, program.as_raw_fd());
        let (key, value) = (std::ptr::from_ref(&key) as u64, std::ptr::from_ref(&value) as u64);
        let map_fd = itself.as_raw_fd().unsigned_abs().into();
        bpf(MAP_UPDATE, &MapElement { map_fd, key, value, flags: 0 })?;
        let slow = Self { program, counts, _itself: itself };
        slow.shall_call(1)?;
        // Who else is busy makes it longer.
        let mut shortest = LONG;
        for _ in 0..5 {
            let started = Instant::now();
            slow.run()?;
            shortest = shortest.min(started.elapsed());
        }
        let calls = (LONG.as_nanos() / shortest.as_nanos().max(1)).clamp(1, CALLS);
        slow.shall_call(calls.try_into().map_err(io::Error::other)?)?;
        Ok(slow)
    }

    /// Has it sum up so often, and count from zero.
    fn shall_call(&self, calls: u64) -> io::Result<()> {
        let mut element = [0_u64; WORDS];
        element[3] = calls;
        let map_fd = self.counts.as_raw_fd().unsigned_abs().into();
        let key = 0_u32;
        let (key, value) = (std::ptr::from_ref(&key) as u64, element.as_ptr() as u64);
        bpf(MAP_UPDATE, &MapElement { map_fd, key, value, flags: 0 }).map(drop)
    }

    /// Runs it once.
    ///
    /// # Errors
    /// The kernel refuses to.
    pub fn run(&self) -> io::Result<()> {
        let data = [0_u8; 64];
        let run = TestRun {
            prog_fd: self.program.as_raw_fd().unsigned_abs(),
            retval: 0,
            data_size_in: 64,
            data_size_out: 0,
            data_in: data.as_ptr() as u64,
            data_out: 0,
            repeat: 1,
            duration: 0,
        };
        bpf(PROG_TEST_RUN, &run).map(drop)
    }

    /// How often it has begun, and how often it has ended.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counted(&self) -> io::Result<(u64, u64)> {
        let mut value = [0_u64; WORDS];
        let map_fd = self.counts.as_raw_fd().unsigned_abs().into();
        let key = 0_u32;
        let (key, into) = (std::ptr::from_ref(&key) as u64, value.as_mut_ptr() as u64);
        bpf(MAP_LOOKUP, &MapElement { map_fd, key, value: into, flags: 0 })?;
        Ok((value[0], value[1]))
    }
}

/// The program: what it counts in, and where it finds itself.
fn slow(counts: RawFd, itself: RawFd) -> Vec<u64> {
    // Opcode, registers, offset and number, as `struct bpf_insn` has them.
    let line = |code: u8, to: u8, from: u8, offset: i16, number: i32| {
        let [low, high] = offset.to_ne_bytes();
        let [a, b, c, d] = number.to_ne_bytes();
        u64::from_ne_bytes([code, from << 4 | to, low, high, a, b, c, d])
    };
    let load = |offset| line(0x79, 1, 6, offset, 0);
    let store = |offset| line(0x7b, 6, 1, offset, 0);
    let count = |offset| [load(offset), line(0x07, 1, 0, 0, 1), store(offset)];
    [
        // r8 = the context, r6 = the element of `counts`, or it ends.
        &[
            line(0xbf, 8, 1, 0, 0),
            line(0x18, 1, 1, 0, counts),
            0,
            line(0x62, 10, 0, -4, 0),
            line(0xbf, 2, 10, 0, 0),
            line(0x07, 2, 0, 0, -4),
            line(0x85, 0, 0, 0, 1),
            line(0x55, 0, 0, 2, 0),
            line(0xb7, 0, 0, 0, 0),
            line(0x95, 0, 0, 0, 0),
            line(0xbf, 6, 0, 0, 0),
        ][..],
        // The first time it has begun.
        &[load(16), line(0x55, 1, 0, 3, 0)],
        &count(0),
        &count(16),
        // r7 times bpf_csum_diff(0, 0, r6 + COUNTED, SUMMED, 0).
        &[
            line(0xb7, 7, 0, 0, TIMES),
            line(0xb7, 1, 0, 0, 0),
            line(0xb7, 2, 0, 0, 0),
            line(0xbf, 3, 6, 0, 0),
            line(0x07, 3, 0, 0, COUNTED),
            line(0xb7, 4, 0, 0, SUMMED),
            line(0xb7, 5, 0, 0, 0),
            line(0x85, 0, 0, 0, 28),
            line(0x07, 7, 0, 0, -1),
            line(0x55, 7, 0, -9, 0),
        ],
        // Once more: bpf_tail_call(r8, itself, 0), which does not come back.
        &[
            load(16),
            line(0x79, 2, 6, 24, 0),
            line(0x3d, 1, 2, 5, 0),
            line(0xbf, 1, 8, 0, 0),
            line(0x18, 2, 1, 0, itself),
            0,
            line(0xb7, 3, 0, 0, 0),
            line(0x85, 0, 0, 0, 12),
        ],
        // The last time it has ended.
        &[line(0xb7, 1, 0, 0, 0), store(16)],
        &count(8),
        &[line(0xb7, 0, 0, 0, 0), line(0x95, 0, 0, 0, 0)],
    ]
    .concat()
}
