//! What a test needs of the machine it runs on, and what happens where it is not there.

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
};

/// The variable that turns a skip into a failure.
const STRICT: &str = "NETDIAG_CI";

/// `CAP_SYS_ADMIN`: bit 21 of a capability set (`linux/capability.h`).
const SYS_ADMIN: u64 = 1 << 21;

/// True if the test may go on; false, with a note, if it must be skipped.
///
/// # Panics
/// Something is missing and `NETDIAG_CI` is `1`.
#[must_use]
pub fn require(what: &str, there: bool) -> bool {
    if there {
        return true;
    }
    assert!(!is_strict(env::var(STRICT).ok().as_deref()), "this test needs {what}, and {STRICT}=1 forbids to skip it");
    // Not `eprintln!`, which the test harness keeps to itself unless the test fails. Without a standard error there is
    // nobody to tell.
    drop(writeln!(io::stderr(), "SKIPPED: this test needs {what}"));
    false
}

/// The right to make namespaces and to do as one likes in them.
#[must_use]
pub fn require_root() -> bool {
    require("root (CAP_SYS_ADMIN)", effective_capabilities() & SYS_ADMIN != 0)
}

/// Root, and the eBPF programs in the agent.
#[must_use]
pub fn require_ebpf() -> bool {
    let built = netdiag_agent::datapath::OBJECT.is_some();
    require_root() && require("the eBPF programs (cargo xtask test builds them)", built)
}

/// Programs that can be started by name.
#[must_use]
pub fn require_programs(names: &[&str]) -> bool {
    names.iter().all(|name| require(&format!("the program {name}"), is_program(name)))
}

fn is_strict(value: Option<&str>) -> bool {
    value == Some("1")
}

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

fn is_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).any(|place| place.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::{is_program, is_strict};

    #[test]
    fn only_the_value_1_is_strict() {
        assert!(is_strict(Some("1")));
        assert!(!is_strict(Some("0")) && !is_strict(Some("")) && !is_strict(None));
    }

    #[test]
    fn a_program_is_found_by_name() {
        assert!(is_program("sh") && !is_program("no-such-program-anywhere"));
    }
}
