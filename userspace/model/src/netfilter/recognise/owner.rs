//! Who made a chain. Flow: explain.

use std::{fmt, slice};

use super::prefixes;
use crate::netfilter::Table;

/// Who made a chain, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The kernel's own chain, which anybody adds rules to.
    Builtin,
    /// An agent of OpenStack Neutron.
    Neutron,
    /// netdiag, for floating IPs of its own.
    Netdiag,
    /// Docker.
    Docker,
    /// The administrator, in Docker's chain for that.
    DockerUser,
    /// kube-proxy or the kubelet.
    Kubernetes,
    /// Calico.
    Calico,
    /// Cilium.
    Cilium,
    /// Flannel.
    Flannel,
    /// libvirt.
    Libvirt,
    /// Podman: netavark or the CNI plug-ins.
    Podman,
    /// LXD or Incus.
    Lxd,
    /// ufw.
    Ufw,
    /// fail2ban.
    Fail2ban,
    /// firewalld.
    Firewalld,
    /// None of these.
    Unknown,
}

impl Owner {
    /// The name people know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builtin => "built in",
            Self::Neutron => "Neutron",
            Self::Netdiag => "netdiag",
            Self::Docker => "Docker",
            Self::DockerUser => "the administrator (DOCKER-USER)",
            Self::Kubernetes => "Kubernetes",
            Self::Calico => "Calico",
            Self::Cilium => "Cilium",
            Self::Flannel => "Flannel",
            Self::Libvirt => "libvirt",
            Self::Podman => "Podman",
            Self::Lxd => "LXD",
            Self::Ufw => "ufw",
            Self::Fail2ban => "fail2ban",
            Self::Firewalld => "firewalld",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Starts of chain names; the first that fits counts.
const CHAINS: [(&str, Owner); 21] = [
    ("neutron-", Owner::Neutron),
    ("netdiag-", Owner::Netdiag),
    ("DOCKER-USER", Owner::DockerUser),
    ("DOCKER", Owner::Docker),
    ("KUBE-", Owner::Kubernetes),
    ("cali-", Owner::Calico),
    ("CALICO-", Owner::Calico),
    ("CILIUM_", Owner::Cilium),
    ("OLD_CILIUM_", Owner::Cilium),
    ("FLANNEL-", Owner::Flannel),
    ("LIBVIRT_", Owner::Libvirt),
    ("NETAVARK", Owner::Podman),
    ("CNI-", Owner::Podman),
    ("lxd_", Owner::Lxd),
    ("ufw-", Owner::Ufw),
    ("ufw6-", Owner::Ufw),
    ("f2b-", Owner::Fail2ban),
    ("fail2ban-", Owner::Fail2ban),
    ("IN_public", Owner::Firewalld),
    ("FWDI_", Owner::Firewalld),
    ("FWDO_", Owner::Firewalld),
];

/// Names of nftables tables that belong to one owner whole.
const TABLES: [(&str, Owner); 9] = [
    ("firewalld", Owner::Firewalld),
    ("docker-bridges", Owner::Docker),
    ("kube-proxy", Owner::Kubernetes),
    ("libvirt_network", Owner::Libvirt),
    ("netavark", Owner::Podman),
    ("lxd", Owner::Lxd),
    ("incus", Owner::Lxd),
    ("f2b-table", Owner::Fail2ban),
    ("calico", Owner::Calico),
];

/// Who made a chain of a table.
pub fn owner(table: &Table, chain: &str) -> Owner {
    if table.family.is_some()
        && let Some((_, owner)) = TABLES.iter().find(|(name, _)| table.name == *name)
    {
        return *owner;
    }
    if let Some((_, owner)) = CHAINS.iter().find(|(start, _)| chain.starts_with(start)) {
        return *owner;
    }
    // An agent whose program has another name still has its prefix in the built-in chains.
    let of_agent = |prefix: String| chain.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('-'));
    if prefixes(slice::from_ref(table)).into_iter().any(of_agent) {
        return Owner::Neutron;
    }
    if table.chain(chain).is_some_and(|chain| chain.base.is_some()) { Owner::Builtin } else { Owner::Unknown }
}
