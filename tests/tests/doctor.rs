//! What the doctor says of the machine the tests run on.

use netdiag_agent::{discover::Options, doctor};
use netdiag_model::doctor::{Report, Status};

fn statuses(report: &Report, name: &str) -> Vec<Status> {
    report.checks.iter().filter(|check| check.name == name).map(|check| check.status).collect()
}

#[tokio::test]
async fn root_on_a_supported_kernel_has_everything_the_programs_need() {
    if !netdiag_tests::require_ebpf() {
        return;
    }
    let report = doctor::examine(&Options::default()).await;
    for name in ["kernel", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "eBPF programs", "eBPF chain", "ring buffer"] {
        assert_eq!(statuses(&report, name), [Status::Ok], "{name}: {report:#?}");
    }
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test]
async fn everything_that_is_not_well_says_what_follows_or_what_to_do() {
    let report = doctor::examine(&Options::default()).await;
    for check in &report.checks {
        assert!(!check.result.is_empty(), "{check:?}");
        let explained = !check.consequence.is_empty() || !check.fix.is_empty();
        assert!(check.status == Status::Ok || check.status == Status::Unknown || explained, "{check:?}");
    }
    let mut names: Vec<_> = report.checks.iter().map(|check| &check.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name that appears twice: {report:#?}");
}
