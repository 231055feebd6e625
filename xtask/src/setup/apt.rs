//! Installs packages with apt, without starting the daemons in them.

use std::io;

use anyhow::{Context as _, Result, bail};

use super::packages::Need;
use crate::command;

/// One script, run as root once. A shell and not this program, because its trap also runs when the terminal interrupts
/// both.
///
/// Packages of daemons start them when they are installed, unless `policy-rc.d` says otherwise. The lab runs its own
/// in namespaces of its own; on the machine itself nothing is to run that was not running before.
const SCRIPT: &str = r#"
set -eu
exec >&2
guard=/usr/sbin/policy-rc.d
mark='# Written by netdiag (cargo xtask setup) while it installs. If you find it later, remove it.'
if [ -e "$guard" ] && ! grep -qxF "$mark" "$guard"; then
    echo "$guard exists already and decides which of the installed daemons start"
else
    trap 'rm -f "$guard"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$guard"
    chmod 755 "$guard"
    echo "no daemon is started: $guard forbids it until the installation is over"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --no-install-recommends "$@"
"#;

/// Installs the packages of all these needs.
pub(super) fn install(needs: &[&Need]) -> Result<()> {
    if command::find("apt-get").is_none() {
        bail!("this machine has no apt-get; install what is listed above by its own package manager");
    }
    if let Err(error) = command::run(command::as_root("apt-get")?.arg("update").stdout(io::stderr())) {
        eprintln!("the package lists could not all be refreshed ({error}); going on with what there is");
    }
    // Only now: which package has a program can depend on the lists.
    let mut packages: Vec<_> = needs.iter().flat_map(|need| need.packages()).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    let mut shell = command::as_root("sh")?;
    shell.args(["-c", SCRIPT, "netdiag-setup"]).args(&packages);
    // Not `command::run`, whose error repeats the whole script.
    let status = shell.status().context("start a shell as root")?;
    if !status.success() {
        bail!("install {}: {status}; apt-get says above why", packages.join(" "));
    }
    if std::fs::exists("/run/systemd/system").unwrap_or(false) {
        eprintln!(
            "the next boot starts what was installed; `systemctl disable openvswitch-switch docker containerd` keeps \
             it from that"
        );
    }
    Ok(())
}
