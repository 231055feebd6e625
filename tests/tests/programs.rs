//! Programs attached to links of a real kernel are found, at every hook, in another namespace than the reader's.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use netdiag_agent::{
    discover::{Options, look},
    netns::Namespace,
};
use netdiag_model::fact::{Facts, ProgramFact, ProgramHook, SourceKind, XdpMode};
use netdiag_tests::private_host;

/// A namespace with a veth pair, removed at the end of the test.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("netdiag-programs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link add eth0 type veth peer name eth1"));
        Self(name)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        run(&format!("ip netns delete {}", self.0));
    }
}

fn run(command: &str) {
    run_with(command, &[]);
}

/// Runs a command with more arguments, which may hold blanks.
fn run_with(command: &str, more: &[&str]) {
    let mut words = command.split(' ').chain(more.iter().copied());
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command} {more:?}: {}", String::from_utf8_lossy(&output.stderr));
}

// === bpf(2), as far as the tests need it ===

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
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
const ATTACH_TCX_EGRESS: u32 = 47;
const XDP_SKB_MODE: u32 = 2;

#[expect(unsafe_code, reason = "bpf(2) is wrapped by nothing that loads a program of two instructions")]
fn bpf<A>(command: libc::c_long, attribute: &A) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is `size` readable bytes for the whole call, and the pointers in it are to live data.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<A>()) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program that returns 2: `XDP_PASS`, and nothing a TC program could mean harm by.
fn load(prog_type: u32, name: &str) -> io::Result<OwnedFd> {
    // r0 = 2; exit
    let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
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
    bpf(PROG_LOAD, &load)
}

/// Attaches a new program to a link of the calling thread's namespace, for as long as the descriptor is open.
fn attach(ifindex: u32, attach_type: u32, name: &str, flags: u32) -> io::Result<OwnedFd> {
    let program = load(if attach_type == ATTACH_XDP { XDP } else { SCHED_CLS }, name)?;
    let prog_fd = program.as_raw_fd().unsigned_abs();
    bpf(LINK_CREATE, &LinkCreate { prog_fd, target_ifindex: ifindex, attach_type, flags })
}

/// True where the kernel knows TCX, which came with Linux 6.6.
#[expect(clippy::print_stderr, reason = "a narrower test must be seen")]
fn has_tcx(ifindex: u32) -> bool {
    let has = attach(ifindex, ATTACH_TCX_INGRESS, "probe", 0).is_ok();
    if !has {
        eprintln!("NARROWED: this kernel has no TCX");
    }
    has
}

/// Index of a link of the calling thread's namespace.
fn ifindex(link: &str) -> u32 {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None).unwrap();
    rustix::net::netdevice::name_to_index(&socket, link).unwrap()
}

/// Programs of the links of one namespace, by hook and name.
async fn programs(namespace: &Namespace) -> (Vec<ProgramFact>, Facts) {
    let facts = look(Options::default()).await.facts;
    let programs = facts.programs.iter().filter(|fact| fact.netns == namespace.id).cloned().collect();
    (programs, facts)
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_at_xdp_and_tcx_are_found_with_their_names_and_go_when_they_are_detached() {
    if !private_host::enter("programs_at_xdp_and_tcx_are_found_with_their_names_and_go_when_they_are_detached") {
        return;
    }
    let netns = Netns::new();
    let namespace = Namespace::open(&netns.path()).unwrap();
    let attached = namespace.run(|| {
        let (one, other) = (ifindex("eth0"), ifindex("eth1"));
        let mut wanted = vec![(one, ATTACH_XDP, "native", 0), (other, ATTACH_XDP, "generic", XDP_SKB_MODE)];
        if has_tcx(one) {
            wanted.push((one, ATTACH_TCX_INGRESS, "first", 0));
            wanted.push((one, ATTACH_TCX_INGRESS, "second", 0));
            wanted.push((other, ATTACH_TCX_EGRESS, "out", 0));
        }
        wanted.into_iter().map(|(index, hook, name, flags)| attach(index, hook, name, flags).unwrap()).collect()
    });
    let attached: Vec<_> = attached.await.unwrap();
    let count = attached.len();
    let (found, facts) = programs(&namespace).await;
    drop(attached);
    let (left, _) = programs(&namespace).await;

    let found: Vec<_> = found.iter().map(|fact| (fact.hook, fact.name.as_str(), fact.xdp_mode)).collect();
    let expected = [
        (ProgramHook::Xdp, "native", Some(XdpMode::Native)),
        (ProgramHook::Xdp, "generic", Some(XdpMode::Generic)),
        (ProgramHook::TcxIngress, "first", None),
        (ProgramHook::TcxIngress, "second", None),
        (ProgramHook::TcxEgress, "out", None),
    ];
    assert_eq!(found.len(), count, "{found:?}");
    assert!(expected[..count].iter().all(|program| found.contains(program)), "{found:?}");
    // Of several at one hook, in the order they run.
    let names: Vec<_> = found.iter().filter(|fact| fact.0 == ProgramHook::TcxIngress).map(|fact| fact.1).collect();
    assert_eq!(names, ["first", "second"][..(count - 2).min(2)]);
    assert!(facts.gaps().all(|gap| gap.source != SourceKind::Bpf), "{:#?}", facts.reports);
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_of_clsact_are_found_with_their_priorities() {
    if !private_host::enter("filters_of_clsact_are_found_with_their_priorities") {
        return;
    }
    let netns = Netns::new();
    let tc = format!("tc -n {}", netns.0);
    run(&format!("{tc} qdisc add dev eth1 clsact"));
    for (hook, pref) in [("ingress", 7), ("egress", 9)] {
        // One instruction of classic BPF: return 0, which matches nothing.
        run_with(&format!("{tc} filter add dev eth1 {hook} pref {pref} bpf bytecode"), &["1,6 0 0 0,"]);
    }
    let (found, _) = programs(&Namespace::open(&netns.path()).unwrap()).await;
    let found: Vec<_> = found.iter().map(|fact| (fact.hook, fact.name.as_str(), fact.id, fact.priority)).collect();
    let expected = [(ProgramHook::TcIngress, "bpf", None, Some(7)), (ProgramHook::TcEgress, "bpf", None, Some(9))];
    assert_eq!(found, expected);
}
