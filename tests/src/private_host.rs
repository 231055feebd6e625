//! A host of its own for one test: mount, network and process namespaces in which it sees nothing of the machine, and
//! the machine nothing of it. What else runs here can neither slow a test down nor change what it finds.

use std::{env, process::Command};

use crate::require_root;

/// Set inside.
const INSIDE: &str = "NETDIAG_PRIVATE_HOST";

/// Runs the calling test again on a host of its own. True inside, where the test goes on; false outside, where it is
/// done, or was skipped loudly because it needs root.
///
/// # Panics
/// The test failed inside, or there is none of this name.
#[expect(clippy::print_stderr, reason = "what the test said inside must be seen")]
pub fn enter(test: &str) -> bool {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        return true;
    }
    if require_root() {
        let script = "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec \"$0\" \"$@\"";
        let mut inside = Command::new("unshare");
        inside.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]);
        let exe = env::current_exe().expect("the path of this test");
        inside.arg(exe).args(["--exact", test, "--include-ignored", "--nocapture"]).env(INSIDE, test);
        let output = inside.output().expect("start unshare, of util-linux");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        eprintln!("{said}");
        assert!(output.status.success(), "{test} failed on its private host");
        assert!(said.contains("1 passed"), "there is no test {test}");
    }
    false
}
