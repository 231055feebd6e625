//! What a lab needs of the machine it runs on.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// Commands every lab uses, with the Debian and Ubuntu package that has them.
const COMMANDS: [(&str, &str); 17] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("sysctl", "procps"),
    ("tar", "tar"),
    ("busybox", "busybox-static"),
    ("ovsdb-tool", "openvswitch-switch"),
    ("ovsdb-server", "openvswitch-switch"),
    ("ovs-vswitchd", "openvswitch-switch"),
    ("ovs-vsctl", "openvswitch-switch"),
    ("ovs-ofctl", "openvswitch-switch"),
    ("ovs-dpctl", "openvswitch-switch"),
    ("dnsmasq", "dnsmasq-base"),
    ("iptables-restore", "iptables"),
    ("modprobe", "kmod"),
];

/// Commands of Docker.
const DOCKER: [(&str, &str); 2] = [("dockerd", "docker.io"), ("docker", "docker.io (docker-cli on Debian 13)")];

/// The search path with the directories of system programs, which an unprivileged user's path often lacks.
pub(crate) fn path() -> OsString {
    let given = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&given).collect();
    for directory in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    env::join_paths(directories).unwrap_or(given)
}

/// What any verb needs that enters or makes a lab, for its namespaces; whoever is not root gets it by sudo.
pub(crate) fn root() -> Result<()> {
    crate::command::become_root()
}

/// Fails with the commands that are missing to bring a lab up, and the packages that have them.
pub(crate) fn commands() -> Result<()> {
    complain(&missing(&COMMANDS))
}

/// Whether Docker's commands are there.
pub(crate) fn has_docker() -> bool {
    missing(&DOCKER).is_empty()
}

/// Whether a shortcoming must be a failure, because nobody reads the warnings.
pub(crate) fn strict() -> bool {
    ["CI", "NETDIAG_CI"].iter().any(|name| env::var(name).is_ok_and(|value| value == "1" || value == "true"))
}

fn missing(wanted: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let directories: Vec<PathBuf> = env::split_paths(&path()).collect();
    let found = |command: &str| directories.iter().any(|directory| Path::new(directory).join(command).is_file());
    wanted.iter().filter(|(command, _)| !found(command)).copied().collect()
}

fn complain(missing: &[(&str, &str)]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let commands: Vec<_> = missing.iter().map(|(command, _)| *command).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    bail!("these commands are missing: {}\ninstall them with: apt install {}", commands.join(" "), packages.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{complain, missing};

    #[test]
    fn missing_command_is_named_with_its_package() {
        let lacking = missing(&[("sh", "dash"), ("netdiag-no-such-command", "no-such-package")]);
        let error = complain(&lacking).unwrap_err().to_string();
        assert!(error.contains("netdiag-no-such-command") && error.contains("apt install no-such-package"), "{error}");
        assert!(!error.contains("dash"), "{error}");
    }
}
