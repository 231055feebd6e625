//! A frame that a device has not received, handed to the host as if it had. Flow: observe.
#![expect(unsafe_code, reason = "no library runs programs over live frames")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Commands of `linux/bpf.h`.
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`: what the program passes goes on into the host's stack (since Linux 5.18).
const LIVE_FRAMES: u32 = 1 << 1;
/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] =
    [u64::from_ne_bytes([0xb7, 0, 0, 0, 2, 0, 0, 0]), u64::from_ne_bytes([0x95, 0, 0, 0, 0, 0, 0, 0])];

/// `BPF_PROG_LOAD`, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    returned: u32,
    data_size_in: u32,
    data_size_out: u32,
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
    batch_size: u32,
    padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Lets the calling thread's namespace take one frame as received by a device.
pub(super) fn receive(ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let program = load()?;
    let size = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let length = size(frame.len())?;
    let context = Context { data_end: length, ingress_ifindex: ifindex, ..Context::default() };
    let mut run = Run {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: length,
        data_in: address(frame.as_ptr()),
        repeat: 1,
        context_size_in: size(size_of_val(&context))?,
        context_in: address(&raw const context),
        flags: LIVE_FRAMES,
        batch_size: 1,
        ..Run::default()
    };
    // SAFETY: frame and context are live for the whole call and have the sizes that are said; nothing is asked back.
    unsafe { bpf(PROG_TEST_RUN, &mut run) }.map(drop).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => {
            io::Error::new(io::ErrorKind::Unsupported, "the kernel hands no frames in: that takes Linux 5.18")
        }
        _ => error,
    })
}

/// A program that passes everything.
fn load() -> io::Result<OwnedFd> {
    let license = c"GPL";
    let code = address(PASS.as_ptr());
    let mut load = Load { kind: XDP, instructions: 2, code, license: address(license.as_ptr()) };
    // SAFETY: instructions and license are live for the whole call.
    let number = unsafe { bpf(PROG_LOAD, &mut load) }?;
    // SAFETY: the kernel has just given it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A part of `union bpf_attr`. The kernel takes what is not there for zeros.
///
/// # Safety
/// Pointers in it are valid for what the command makes the kernel read or write through them.
unsafe fn bpf<A>(command: libc::c_long, attribute: &mut A) -> io::Result<i32> {
    // SAFETY: the attribute is exclusively borrowed, and readable and writable in its whole size; what its pointers lead
    // to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A pointer as attributes have it.
fn address<T>(data: *const T) -> u64 {
    data.expose_provenance() as u64
}
