//! Programs of somebody else: two instructions that let everything pass, attached as others attach theirs.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
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
    let instructions: [u64; 2] = [verdict << 32 | 0xb7, 0x95];
    let mut prog_name = [0; 16];
    prog_name[..name.len()].copy_from_slice(name.as_bytes());
    let load = ProgLoad {
        prog_type,
        insn_cnt: 2,
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
    let program = load(SCHED_CLS, name)?;
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let pin = ObjPin { pathname: pathname.as_ptr() as u64, bpf_fd: program.as_raw_fd().unsigned_abs(), file_flags: 0 };
    bpf(OBJ_PIN, &pin).map(drop)
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
