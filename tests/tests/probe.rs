//! The whole eBPF chain on the running kernel: compiler, BTF, verifier, hook, counters and ring buffer.

use std::{collections::BTreeSet, fs};

use netdiag_agent::datapath::probe::{self, Hook, ProbeError, Proof};

/// Names of the devices in the namespace of the test.
fn devices() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/net/dev").expect("every Linux has this table");
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

/// Major and minor version of the running kernel.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("every Linux has a release");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().expect("a release starts with numbers"));
    (numbers.next().expect("major"), numbers.next().expect("minor"))
}

fn assert_proven(proof: Proof, hook: Hook) {
    assert_eq!(proof.hook, hook);
    assert!(proof.sent > 0 && proof.records >= proof.sent && proof.counted >= proof.records, "{proof:?}");
}

#[tokio::test]
async fn every_frame_is_counted_and_reported_by_clsact() {
    if !netdiag_tests::require_ebpf() {
        return;
    }
    assert_proven(probe::run(Hook::Clsact).await.unwrap(), Hook::Clsact);
}

#[tokio::test]
async fn every_frame_is_counted_and_reported_by_tcx_where_the_kernel_has_it() {
    if !netdiag_tests::require_ebpf() {
        return;
    }
    match probe::run(Hook::Tcx).await {
        Ok(proof) => assert_proven(proof, Hook::Tcx),
        // The one excuse: a kernel that does not know the hook. That is Linux before 6.6.
        Err(error) => {
            assert!(matches!(error, ProbeError::Hook { step: "attach", hook: Hook::Tcx, .. }), "{error:?}");
            assert!(kernel() < (6, 6), "{error:?}");
        }
    }
}

#[tokio::test]
async fn probes_that_run_at_the_same_time_do_not_see_each_other() {
    if !netdiag_tests::require_ebpf() {
        return;
    }
    let (one, two, three) = tokio::join!(probe::run(Hook::Clsact), probe::run(Hook::Clsact), probe::run(Hook::Clsact));
    for proof in [one, two, three] {
        assert_proven(proof.unwrap(), Hook::Clsact);
    }
}

#[tokio::test]
async fn the_devices_of_the_host_are_the_same_after_a_probe() {
    if !netdiag_tests::require_ebpf() {
        return;
    }
    let before = devices();
    probe::run(Hook::Clsact).await.unwrap();
    assert_eq!(devices(), before);
}
