//! The Debian and Ubuntu packages netdiag's build, lab and tests use, and how to tell that one is not needed.

use std::process::Command;

use super::Scope;
use crate::command;

/// Something that must be on the machine, the packages that bring it, and what it is for.
#[derive(Debug)]
pub(crate) struct Need {
    /// How to tell that it is there already.
    pub(crate) sign: Sign,
    /// Packages that bring it; where there are several lists, the first whose packages the machine's archive has.
    pub(crate) from: &'static [&'static [&'static str]],
    /// What netdiag uses it for.
    pub(crate) reason: &'static str,
    /// The smallest scope that needs it.
    pub(crate) scope: Scope,
}

/// How to tell that something is installed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sign {
    /// All these programs can be found.
    Programs(&'static [&'static str]),
    /// This program can be found, and runs where there is no dynamic linker.
    StaticProgram(&'static str),
}

impl Need {
    /// Programs of the lab.
    const fn lab(
        programs: &'static [&'static str],
        from: &'static [&'static [&'static str]],
        reason: &'static str,
    ) -> Self {
        Self { sign: Sign::Programs(programs), from, reason, scope: Scope::Lab }
    }

    /// Programs that only tests run.
    const fn test(
        programs: &'static [&'static str],
        from: &'static [&'static [&'static str]],
        reason: &'static str,
    ) -> Self {
        Self { scope: Scope::Test, ..Self::lab(programs, from, reason) }
    }

    /// True if it is there, wherever it came from.
    pub(crate) fn is_met(&self) -> bool {
        match self.sign {
            Sign::Programs(names) => names.iter().all(|name| command::find(name).is_some()),
            Sign::StaticProgram(name) => is_static(name),
        }
    }

    /// Names of the packages to install on this machine; needs its package lists where there are alternatives.
    pub(crate) fn packages(&self) -> &'static [&'static str] {
        choose(self.from, is_known).or(self.from.last().copied()).unwrap_or_default()
    }

    /// The packages and the reason, for a reader.
    pub(crate) fn describe(&self) -> String {
        format!("{} (apt): {}", name(self.from, is_known), self.reason)
    }
}

/// The first of several lists of packages that are all known; nothing has to be known where there is no choice.
fn choose(
    from: &'static [&'static [&'static str]],
    is_known: impl Fn(&str) -> bool,
) -> Option<&'static [&'static str]> {
    match from {
        [only] => Some(only),
        alternatives => alternatives.iter().copied().find(|names| names.iter().all(|name| is_known(name))),
    }
}

/// The lists of packages, or the one that is chosen. A machine fresh from an image has no package lists before the first
/// `apt-get update` and cannot tell the alternatives apart.
fn name(from: &'static [&'static [&'static str]], is_known: impl Fn(&str) -> bool) -> String {
    let chosen = choose(from, is_known).map(|names| vec![names]);
    chosen.unwrap_or_else(|| from.to_vec()).iter().map(|names| names.join(", ")).collect::<Vec<_>>().join(" or ")
}

/// Everything.
pub(crate) const NEEDS: &[Need] = &[
    Need {
        sign: Sign::Programs(&["cc"]),
        from: &[&["gcc", "libc6-dev"]],
        reason: "links every Rust program",
        scope: Scope::Build,
    },
    Need::lab(
        &["ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "ovs-dpctl", "ovs-appctl"],
        &[&["openvswitch-switch"]],
        "the lab's virtual switch",
    ),
    Need::lab(&["dockerd"], &[&["docker.io"]], "the lab's instances are Docker containers"),
    // Debian 13 has the client in a package of its own; before, and in Ubuntu, it comes with the daemon.
    Need::lab(&["docker"], &[&["docker-cli"], &["docker.io"]], "starts the lab's instances"),
    Need::lab(&["dnsmasq"], &[&["dnsmasq-base"]], "the DHCP server of the lab's networks"),
    Need::lab(
        &["iptables", "iptables-save", "iptables-restore", "iptables-legacy-save", "ip6tables-save"],
        &[&["iptables"]],
        "the lab's NAT and security-group rules, and reading them",
    ),
    Need::lab(&["ipset"], &[&["ipset"]], "remote groups in the lab's security-group rules, and reading them"),
    Need::lab(&["nft"], &[&["nftables"]], "reading nftables rules"),
    Need::lab(&["ip", "bridge", "tc"], &[&["iproute2"]], "the lab's namespaces, devices and routes"),
    Need {
        sign: Sign::StaticProgram("busybox"),
        from: &[&["busybox-static"]],
        reason: "the image of the lab's containers",
        scope: Scope::Lab,
    },
    Need::lab(&["ethtool"], &[&["ethtool"]], "offloads of the lab's devices"),
    Need::lab(&["conntrack"], &[&["conntrack"]], "tracked connections, to look at in a lab"),
    Need::test(&["tmux"], &[&["tmux"]], "the terminal in which the tests drive netdiag tui"),
    Need::lab(&["ping"], &[&["iputils-ping"]], "traffic between the lab's instances"),
    Need::test(&["curl"], &[&["curl"]], "asks the agent's API, as the documentation does"),
    Need::test(&["tshark"], &[&["tshark"]], "reads the capture files netdiag writes, in a test"),
    Need::lab(&["tcpdump"], &[&["tcpdump"]], "what is on the wire, to look at in a lab"),
    Need::lab(&["nsenter", "unshare", "setpriv"], &[&["util-linux"]], "enters and makes the lab's namespaces"),
    Need::lab(&["sysctl"], &[&["procps"]], "the lab's forwarding settings"),
    Need::test(&["systemctl", "systemd-sysusers"], &[&["systemd"]], "boots the agent's unit in a test"),
    Need::lab(&["modprobe"], &[&["kmod"]], "loads the kernel's openvswitch where it is a module"),
    Need {
        sign: Sign::Programs(&["qemu-system-x86_64"]),
        from: &[&["qemu-system-x86"]],
        reason: "the virtual machine that boots other kernels",
        scope: Scope::Vm,
    },
];

/// True if the machine's package lists have the package.
fn is_known(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["show", "--no-all-versions", package])
        .output()
        .is_ok_and(|out| out.status.success())
}

/// True if the program exists and has no dynamic linker to look for.
fn is_static(name: &str) -> bool {
    let Some(path) = command::find(name) else { return false };
    // `ldd` fails on a static program and says "statically linked" of a position-independent one.
    let listed = Command::new("ldd").arg(path).env("LC_ALL", "C").output();
    listed.is_ok_and(|out| !out.status.success() || out.stdout.windows(17).any(|part| part == b"statically linked"))
}

#[cfg(test)]
mod tests {
    use super::{NEEDS, choose, is_static, name};

    const CLIENT: &[&[&str]] = &[&["docker-cli"], &["docker.io"]];

    #[test]
    fn every_need_names_packages_and_a_reason() {
        for need in NEEDS {
            assert!(need.from.iter().all(|names| !names.is_empty()) && !need.from.is_empty(), "{need:?}");
            assert!(!need.reason.is_empty(), "{need:?}");
        }
    }

    #[test]
    fn a_dynamic_program_is_not_taken_for_a_static_one() {
        assert!(!is_static("apt-get"));
        assert!(!is_static("no-such-program-anywhere"));
    }

    #[test]
    fn the_first_alternative_the_archive_has_is_chosen() {
        assert_eq!(choose(CLIENT, |_| true), Some(["docker-cli"].as_slice()));
        assert_eq!(choose(CLIENT, |package| package == "docker.io"), Some(["docker.io"].as_slice()));
        assert_eq!(name(CLIENT, |package| package == "docker.io"), "docker.io");
    }

    #[test]
    fn without_package_lists_every_alternative_is_named_and_none_is_chosen() {
        assert_eq!(choose(CLIENT, |_| false), None);
        assert_eq!(name(CLIENT, |_| false), "docker-cli or docker.io");
        assert_eq!(name(&[&["gcc", "libc6-dev"]], |_| false), "gcc, libc6-dev");
    }
}
