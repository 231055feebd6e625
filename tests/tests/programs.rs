//! Programs attached to links of a real kernel are found, at every hook, in another namespace than the reader's.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use netdiag_agent::{
    discover::{Options, look},
    netns::Namespace,
};
use netdiag_model::fact::{Facts, ProgramFact, ProgramHook, SourceKind, XdpMode};
use netdiag_tests::{
    private_host,
    program::{ATTACH_TCX_EGRESS, ATTACH_TCX_INGRESS, ATTACH_XDP, XDP_SKB_MODE, attach, has_tcx},
};

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
