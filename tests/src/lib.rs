//! Harness for tests on a real kernel.

use std::env;

/// A host of its own for one test.
pub mod private_host;

/// True where a test that needs root can run. Otherwise it is skipped loudly, or fails where `NETDIAG_CI=1` says that it
/// has to run: a skip is never a pass.
///
/// # Panics
/// Not root, and `NETDIAG_CI=1`.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn require_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(env::var_os("NETDIAG_CI").is_none_or(|value| value != "1"), "this test needs root and NETDIAG_CI=1 is set");
    eprintln!("SKIPPED: this test needs root");
    false
}
