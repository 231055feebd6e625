//! Each capability by name. Flow: discover.

use netdiag_model::doctor::Check;

use super::{read, unreadable};

/// Where a process reads its own.
const STATUS: &str = "/proc/self/status";

/// A capability and what netdiag does with it.
struct Capability {
    /// The bits of a set that grant it (`linux/capability.h`): its own, and that of the one it was split off from.
    bits: &'static [u32],
    name: &'static str,
    /// What does not work without it.
    without: &'static str,
    /// True if tracing cannot do without.
    required: bool,
}

const CAPABILITIES: &[Capability] = &[
    Capability {
        bits: &[21],
        name: "CAP_SYS_ADMIN",
        without: "no namespace but this one can be entered: instances, routers and DHCP servers stay invisible",
        required: true,
    },
    Capability {
        bits: &[12],
        name: "CAP_NET_ADMIN",
        without: "iptables and nft rules cannot be listed, and no program can be attached to a device",
        required: true,
    },
    Capability {
        bits: &[19],
        name: "CAP_SYS_PTRACE",
        without: "namespaces of other users' processes cannot be opened: instances without a name in /run/netns are \
                  missed",
        required: true,
    },
    Capability {
        bits: &[39, 21],
        name: "CAP_BPF",
        without: "eBPF programs of others cannot be named, and netdiag's own cannot be loaded",
        required: false,
    },
    Capability {
        bits: &[38, 21],
        name: "CAP_PERFMON",
        without: "the verifier holds programs to stricter rules and may refuse some",
        required: false,
    },
];

/// What the process holds, one check per capability.
pub(super) fn checks() -> Vec<Check> {
    match read(STATUS) {
        Ok(Some(status)) => from_status(&status),
        Ok(None) => vec![Check::unknown("capabilities", format!("{STATUS} does not exist")).fix("mount /proc")],
        Err(error) => vec![unreadable("capabilities", STATUS, &error)],
    }
}

fn from_status(status: &str) -> Vec<Check> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()) else {
        return vec![Check::unknown("capabilities", format!("{STATUS} has no CapEff line that can be read"))];
    };
    CAPABILITIES.iter().map(|capability| check(capability, held)).collect()
}

fn check(capability: &Capability, held: u64) -> Check {
    let check = if capability.bits.iter().any(|bit| held >> bit & 1 == 1) {
        Check::ok(capability.name, "held")
    } else {
        Check::fail(capability.name, "not held")
            .so(capability.without)
            .fix(format!("run as root, or give the binary its capabilities: setcap {} <netdiag>", all()))
    };
    if capability.required { check.required() } else { check }
}

/// All of them in the notation of setcap, permitted and effective.
fn all() -> String {
    let names: Vec<_> = CAPABILITIES.iter().map(|capability| capability.name.to_ascii_lowercase()).collect();
    format!("{}+ep", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::from_status;
    use netdiag_model::doctor::Status;

    fn statuses(set: &str) -> Vec<(String, Status, bool)> {
        let checks = from_status(&format!("Name:\tnetdiag\nCapPrm:\t0000000000000000\nCapEff:\t{set}\n"));
        checks.into_iter().map(|check| (check.name, check.status, check.required)).collect()
    }

    #[test]
    fn root_holds_all_of_them() {
        assert!(statuses("000001ffffffffff").iter().all(|(_, status, _)| *status == Status::Ok));
    }

    #[test]
    fn a_user_lacks_all_of_them_and_tracing_needs_three() {
        let statuses = statuses("0000000000000000");
        assert!(statuses.iter().all(|(_, status, _)| *status == Status::Fail));
        assert_eq!(statuses.iter().filter(|(_, _, required)| *required).count(), 3);
    }

    #[test]
    fn each_is_read_from_its_own_bit() {
        let held = |bit: u32| {
            let statuses = statuses(&format!("{:016x}", 1_u64 << bit));
            let held = statuses.into_iter().filter(|(_, status, _)| *status == Status::Ok);
            held.map(|(name, ..)| name).collect::<Vec<_>>()
        };
        assert_eq!(held(12), ["CAP_NET_ADMIN"]);
        assert_eq!(held(19), ["CAP_SYS_PTRACE"]);
        assert_eq!(held(39), ["CAP_BPF"]);
        assert_eq!(held(38), ["CAP_PERFMON"]);
        // The kernel takes CAP_SYS_ADMIN for either of the two that were split off from it (Linux 5.8).
        assert_eq!(held(21), ["CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn a_status_without_the_line_is_unknown_and_not_a_failure() {
        let checks = from_status("Name:\tnetdiag\n");
        assert_eq!((checks.len(), checks[0].status), (1, Status::Unknown));
    }
}
