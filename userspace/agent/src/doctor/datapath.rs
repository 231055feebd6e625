//! The eBPF programs and the whole chain they depend on, by the probe that uses all of it. Flow: discover.
//!
//! None of these is required: tracing reads the host and needs no program of netdiag's own in the kernel.

use std::{error::Error as _, io};

use netdiag_model::doctor::Check;

use super::chain;
use crate::datapath::{
    OBJECT,
    probe::{self, Hook, ProbeError, Proof},
};

/// What does not work without the chain, and what does.
const WITHOUT: &str = "nothing that needs a program in the kernel works; tracing does";

const CHAIN: &str = "eBPF chain";
const RING: &str = "ring buffer";
const TCX: &str = "TCX";

/// Probes by TCX, and by clsact where the kernel has no TCX.
pub(super) async fn checks() -> Vec<Check> {
    let Some(object) = OBJECT else {
        return vec![
            Check::warning("eBPF programs", "not in this binary")
                .so(WITHOUT)
                .fix("build it with `cargo xtask build --release`, or install a released binary"),
        ];
    };
    let tcx = probe::run(Hook::Tcx).await;
    let clsact = if is_refused(&tcx) { Some(probe::run(Hook::Clsact).await) } else { None };
    let mut checks = vec![Check::ok("eBPF programs", format!("in this binary, {} bytes", object.len()))];
    checks.extend(judge(&tcx, clsact.as_ref()));
    checks
}

/// True if everything went well until the kernel was asked to attach by TCX.
fn is_refused(tcx: &Result<Proof, ProbeError>) -> bool {
    matches!(tcx, Err(ProbeError::Hook { step: "attach", hook: Hook::Tcx, .. }))
}

fn judge(tcx: &Result<Proof, ProbeError>, clsact: Option<&Result<Proof, ProbeError>>) -> [Check; 3] {
    let probed = clsact.unwrap_or(tcx);
    let hook = match (tcx, clsact) {
        (Ok(_), _) => Check::ok(TCX, "the kernel has it"),
        (Err(error), Some(_)) => Check::warning(TCX, chain(error))
            .so("programs are attached by clsact, where anyone who attaches later can come first")
            .fix("Linux 6.6 and newer have it"),
        (Err(_), None) => Check::unknown(TCX, "the probe did not come that far"),
    };
    [outcome(probed), ring(probed), hook]
}

fn outcome(probed: &Result<Proof, ProbeError>) -> Check {
    match probed {
        Ok(Proof { hook, sent, counted, records }) => Check::ok(
            CHAIN,
            format!("loaded, attached by {hook}, {sent} frames sent, {counted} packets counted, {records} reported"),
        ),
        // Without the right to make a namespace nothing was tried, so nothing is known.
        Err(error @ ProbeError::Namespace(_)) => {
            Check::unknown(CHAIN, chain(error)).so(WITHOUT).fix("run as root to find out")
        }
        Err(error) => Check::fail(CHAIN, chain(error)).so(WITHOUT).fix(remedy(error)),
    }
}

fn remedy(error: &ProbeError) -> &'static str {
    if is_denied(error) {
        return "run as root; in a container, give it CAP_BPF and CAP_NET_ADMIN and a seccomp profile that allows bpf(2)";
    }
    match error {
        ProbeError::Object(_) | ProbeError::Load { .. } => {
            "the kernel refuses the program: report it, with `uname -r` and the output of `netdiag doctor -vv`"
        }
        ProbeError::Hook { hook: Hook::Clsact, .. } => "the kernel needs CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS",
        ProbeError::Devices(_) => "the kernel needs veth devices: modprobe veth",
        ProbeError::NoObject
        | ProbeError::Namespace(_)
        | ProbeError::Missing { .. }
        | ProbeError::Run(_)
        | ProbeError::Verdict(_)
        | ProbeError::Hook { .. }
        | ProbeError::Map { .. }
        | ProbeError::Send(_)
        | ProbeError::Unseen { .. }
        | ProbeError::Miscounted { .. }
        | ProbeError::StillAttached(_) => "report it, with `uname -r` and this line",
    }
}

/// The ring buffer works, is at fault, or was not reached.
fn ring(probed: &Result<Proof, ProbeError>) -> Check {
    match probed {
        Ok(proof) => Check::ok(RING, format!("{} records, none lost", proof.records)),
        Err(error @ (ProbeError::Unseen { .. } | ProbeError::Miscounted { .. })) => {
            Check::fail(RING, chain(error)).so("what programs see in the kernel is not reported, or only in part")
        }
        Err(_) => Check::unknown(RING, "the probe did not come that far"),
    }
}

fn is_denied(error: &ProbeError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{is_refused, judge};
    use crate::{
        datapath::probe::{Hook, ProbeError, Proof},
        netns::NetnsError,
    };
    use aya::programs::ProgramError;
    use netdiag_model::doctor::Status;
    use std::io;

    fn proof(hook: Hook) -> Proof {
        Proof { hook, sent: 8, counted: 9, records: 9 }
    }

    fn refused() -> ProbeError {
        ProbeError::Hook { step: "attach", hook: Hook::Tcx, source: Box::new(ProgramError::NotLoaded) }
    }

    fn statuses(tcx: &Result<Proof, ProbeError>, clsact: Option<&Result<Proof, ProbeError>>) -> [Status; 3] {
        judge(tcx, clsact).map(|check| check.status)
    }

    #[test]
    fn a_kernel_without_tcx_is_served_by_clsact() {
        assert!(is_refused(&Err(refused())));
        assert_eq!(
            statuses(&Err(refused()), Some(&Ok(proof(Hook::Clsact)))),
            [Status::Ok, Status::Ok, Status::Warning]
        );
    }

    #[test]
    fn a_probe_that_was_not_allowed_to_start_leaves_everything_unknown() {
        let denied = || Err(ProbeError::Namespace(NetnsError::New(io::ErrorKind::PermissionDenied.into())));
        assert!(!is_refused(&denied()));
        assert_eq!(statuses(&denied(), None), [Status::Unknown; 3]);
    }

    #[test]
    fn a_program_the_verifier_refuses_is_a_failure_without_its_log() {
        let load = ProbeError::Load { source: io::ErrorKind::InvalidInput.into(), log: "R1 type=ctx".to_owned() };
        let [chain, ring, hook] = judge(&Err(load), None);
        assert_eq!([chain.status, ring.status, hook.status], [Status::Fail, Status::Unknown, Status::Unknown]);
        assert!(!chain.result.contains("R1") && !chain.fix.is_empty());
    }

    #[test]
    fn records_that_do_not_come_out_are_the_ring_buffers_failure() {
        let unseen = ProbeError::Unseen { hook: Hook::Tcx, sent: 8, seen: 3 };
        assert_eq!(statuses(&Err(unseen), None), [Status::Fail, Status::Fail, Status::Unknown]);
    }
}
