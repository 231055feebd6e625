//! System calls that no library wraps: bpf(2) to run programs, sendmmsg(2), and the clock of a thread.

use std::{
    ffi::CString,
    io,
    mem::zeroed,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    ptr::from_ref,
    time::Duration,
};

use rustix::{
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// Commands of bpf(2), of `linux/bpf.h`.
mod command {
    pub(super) const MAP_CREATE: libc::c_long = 0;
    pub(super) const MAP_LOOKUP: libc::c_long = 1;
    pub(super) const MAP_UPDATE: libc::c_long = 2;
    pub(super) const PROG_LOAD: libc::c_long = 5;
    pub(super) const OBJ_GET: libc::c_long = 7;
    pub(super) const PROG_TEST_RUN: libc::c_long = 10;
    pub(super) const PROG_GET_FD_BY_ID: libc::c_long = 13;
    pub(super) const MAP_DELETE_BATCH: libc::c_long = 27;
    pub(super) const LINK_CREATE: libc::c_long = 28;
}

/// `BPF_PROG_TYPE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// A classifier.
    Classifier = 3,
    /// An XDP program.
    Xdp = 6,
}

/// Calls bpf(2) with an attribute that it may write to.
#[expect(unsafe_code, reason = "bpf(2) has no wrapper that runs a program so many times")]
fn bpf<A>(command: libc::c_long, attribute: &mut A) -> io::Result<i32> {
    // SAFETY: the attribute is so many bytes that can be read and written, and the pointers in it are to live data.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

#[expect(unsafe_code, reason = "a descriptor comes as a number")]
fn descriptor<A>(command: libc::c_long, attribute: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attribute)?;
    // SAFETY: the commands this is called with return a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A number for an attribute.
fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Makes an array map (or, with kind 3, one of programs).
pub(super) fn array(kind: u32, value_size: u32) -> io::Result<OwnedFd> {
    descriptor(command::MAP_CREATE, &mut [kind, 4, value_size, 1, 0_u32])
}

/// Makes a hash map (kind 1).
pub(super) fn hash(key_size: usize, value_size: usize, entries: u32) -> io::Result<OwnedFd> {
    let [key_size, value_size] = [key_size, value_size].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    descriptor(command::MAP_CREATE, &mut [1, key_size, value_size, entries, 0_u32])
}

/// `BPF_MAP_TYPE_PROG_ARRAY` and `BPF_MAP_TYPE_ARRAY`.
pub(super) const PROGRAMS: u32 = 3;
pub(super) const ARRAY: u32 = 2;

/// Writes the only element of an array map.
pub(super) fn set<T>(map: &OwnedFd, value: &[T]) -> io::Result<()> {
    set_at(map, 0, value)
}

/// Writes an element of an array map.
pub(super) fn set_at<T>(map: &OwnedFd, key: u32, value: &[T]) -> io::Result<()> {
    put(map, &key, value)
}

/// Writes an element of a map by its key.
pub(super) fn put<K, V>(map: &OwnedFd, key: &K, value: &[V]) -> io::Result<()> {
    let mut attribute = [u64::from(number(map)), from_ref(key) as u64, value.as_ptr() as u64, 0_u64];
    bpf(command::MAP_UPDATE, &mut attribute).map(drop)
}

/// Reads the only element of an array map of numbers.
pub(super) fn get(map: &OwnedFd) -> io::Result<u64> {
    let (key, mut value) = (0_u32, 0_u64);
    let mut attribute = [u64::from(number(map)), from_ref(&key) as u64, std::ptr::from_mut(&mut value) as u64, 0_u64];
    bpf(command::MAP_LOOKUP, &mut attribute)?;
    Ok(value)
}

/// The number that a map of programs takes.
pub(super) fn element(program: &OwnedFd) -> [u32; 1] {
    [number(program)]
}

/// Opens a pinned map.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    descriptor(command::OBJ_GET, &mut [path.as_ptr() as u64, 0_u64])
}

/// Opens a program by its id.
pub(super) fn program(id: u32) -> io::Result<OwnedFd> {
    descriptor(command::PROG_GET_FD_BY_ID, &mut [id, 0_u32, 0])
}

/// Removes elements of a hash map by their keys, which are all there.
pub(super) fn remove<K>(map: &OwnedFd, keys: &[K]) -> io::Result<()> {
    #[repr(C)]
    struct Batch {
        batches: [u64; 2],
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        flags: [u64; 2],
    }
    let count = u32::try_from(keys.len()).map_err(io::Error::other)?;
    let mut batch =
        Batch { batches: [0; 2], keys: keys.as_ptr() as u64, values: 0, count, map: number(map), flags: [0; 2] };
    bpf(command::MAP_DELETE_BATCH, &mut batch).map(drop)
}

/// Loads a program made of instructions.
pub(super) fn load(kind: Kind, instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        version: u32,
        flags: u32,
        name: [u8; 16],
        device: u32,
        attach_type: u32,
    }
    let mut log = vec![0_u8; 1 << 16];
    let count = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    let mut load = Load {
        kind: kind as u32,
        count,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: 1 << 16,
        log: log.as_mut_ptr() as u64,
        version: 0,
        flags: 0,
        name: [0; 16],
        device: 0,
        // `BPF_XDP`, as the agent's programs have it: a tail call goes to programs of one kind.
        attach_type: if kind == Kind::Xdp { 37 } else { 0 },
    };
    descriptor(command::PROG_LOAD, &mut load).map_err(|error| {
        let said = String::from_utf8_lossy(&log);
        io::Error::new(error.kind(), format!("{error}: {}", said.trim_end_matches('\0')))
    })
}

/// Attaches a classifier to a device with TCX, at egress or at ingress, for as long as what is returned lives.
pub(super) fn attach(program: &OwnedFd, device: u32, egress: bool) -> io::Result<OwnedFd> {
    // `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`.
    let kind = if egress { 47 } else { 46 };
    descriptor(command::LINK_CREATE, &mut [number(program), device, kind, 0_u32, 0, 0, 0, 0])
}

/// What running a program came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    /// What it returned the last time.
    pub(super) verdict: i32,
    /// Nanoseconds a run, by the clock of the thread.
    pub(super) thread: f64,
    /// Nanoseconds a run, as the kernel says.
    pub(super) kernel: u32,
}

/// Runs a program so many times on a packet at a device. 1 is the loopback device, and nothing else will do for XDP.
pub(super) fn test_run(program: &OwnedFd, packet: &[u8], device: u32, repeat: u32) -> io::Result<Ran> {
    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        program: u32,
        verdict: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_size_in: u32,
        context_size_out: u32,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
    }
    // `__sk_buff` up to `ifindex`, which is word 10.
    let mut context = [0_u32; 11];
    context[10] = device;
    let size_in = u32::try_from(packet.len()).map_err(io::Error::other)?;
    let mut run =
        TestRun { program: number(program), size_in, data_in: packet.as_ptr() as u64, repeat, ..TestRun::default() };
    if device != 1 {
        run.context_size_in = 44;
        run.context_in = context.as_ptr() as u64;
    }
    let before = thread_time();
    bpf(command::PROG_TEST_RUN, &mut run)?;
    let spent = thread_time().saturating_sub(before);
    let thread = spent.as_secs_f64() * 1e9 / f64::from(repeat);
    Ok(Ran { verdict: run.verdict.cast_signed(), thread, kernel: run.duration })
}

/// How long this thread has run.
pub(super) fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// How long all threads of this process have run.
pub(super) fn process_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Keeps this thread on one CPU.
pub(super) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// A socket that sends whole frames from a device of the namespace the caller is in.
#[expect(unsafe_code, reason = "no library makes a socket address of frames")]
pub(super) fn packet_socket(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer. Protocol 0: nothing is received.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: zeros are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET.unsigned_abs().try_into().map_err(io::Error::other)?;
    address.sll_ifindex = ifindex.cast_signed();
    let length = size_of::<libc::sockaddr_ll>().try_into().map_err(io::Error::other)?;
    // SAFETY: the address is so many readable bytes.
    let result = unsafe { libc::bind(socket.as_raw_fd(), from_ref(&address).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Frames to be sent by one call.
pub(super) struct Batch {
    /// What the headers point into.
    _parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Batch {
    /// Of frames that stay where they are.
    #[expect(unsafe_code, reason = "message headers hold pointers")]
    pub(super) fn new<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Self {
        let part = |frame: &[u8]| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        let mut parts: Vec<_> = frames.map(part).collect();
        let headers = parts.iter_mut().map(|part| {
            // SAFETY: zeros are a valid header.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        Self { headers: headers.collect(), _parts: parts }
    }

    /// Sends all of them, and says how long it took.
    #[expect(unsafe_code, reason = "sendmmsg(2) has no wrapper")]
    pub(super) fn send(&mut self, socket: &OwnedFd) -> io::Result<Duration> {
        let count = u32::try_from(self.headers.len()).map_err(io::Error::other)?;
        let before = std::time::Instant::now();
        // SAFETY: the headers point to frames that live as long as the caller's data, and nothing is written to them.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, 0) };
        let took = before.elapsed();
        match sent {
            sent if sent < 0 => Err(io::Error::last_os_error()),
            sent if sent.unsigned_abs() == count => Ok(took),
            sent => Err(io::Error::other(format!("{sent} of {count} frames sent"))),
        }
    }
}
