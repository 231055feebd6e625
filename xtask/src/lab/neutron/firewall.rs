//! The packet filter of a compute host as the hybrid iptables firewall driver of Neutron's Open vSwitch agent leaves it.
//!
//! Each port has three chains: `i` for what goes to the instance, `o` for what comes from it, `s` for the addresses it may
//! send with. RETURN means that a chain allows a packet; it goes on in `sg-chain`, so that the chains of both ends are
//! asked when both are on this host, and only then is accepted.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::security::PREFIX;
use crate::lab::{
    command,
    host::Host,
    inventory::{
        Inventory,
        security::{PacketFilter, Peer},
    },
};

mod port;
mod sized;
mod tables;

pub(crate) use sized::sized;

/// IP version of a set of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge";

/// Installs the rules of every port of the host, and lets its bridges ask them where the kernel can.
pub(crate) fn install(host: &Host<'_>) -> Result<PacketFilter> {
    let here = &host.plan.name;
    let ipset = make_sets(host.lab, here)?;
    for (family, program) in [(Family::V4, "iptables-restore"), (Family::V6, "ip6tables-restore")] {
        // A kernel without IPv6 has no such tables, and no such packets.
        if family == Family::V4 || Path::new("/proc/net/if_inet6").exists() {
            command::feed(program, [""; 0], &tables::text(host.lab, here, (family, ipset))?)?;
        }
    }
    Ok(PacketFilter { prefix: PREFIX.into(), bridge_nf_call_iptables: ask_from_bridges()?, ipset })
}

/// Switches `br_netfilter` on and says what came of it.
fn ask_from_bridges() -> Result<Option<bool>> {
    let directory = Path::new(BRIDGE_NETFILTER);
    if !directory.exists() {
        // Where it is a module that is not there, the rules stay unasked; that is reported, and no failure.
        command::run("modprobe", ["br_netfilter"]).ok();
    }
    if !directory.exists() {
        return Ok(None);
    }
    for name in ["arptables", "iptables", "ip6tables"] {
        let path = directory.join(format!("bridge-nf-call-{name}"));
        fs::write(&path, "1").with_context(|| format!("write {}", path.display()))?;
    }
    let path = directory.join("bridge-nf-call-iptables");
    let value = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(value.trim() == "1"))
}

/// Makes the sets of the remote groups the host's ports refer to; false where there is no `ipset`.
fn make_sets(lab: &Inventory, host: &str) -> Result<bool> {
    if command::run("ipset", ["--version"]).is_err() {
        return Ok(false);
    }
    let ports = lab.instances_on(host).flat_map(|instance| &instance.ports);
    let own = ports.filter_map(|port| port.security.as_ref()).flat_map(|security| &security.groups);
    let rules = own.filter_map(|id| lab.security_group(id)).flat_map(|group| &group.rules);
    let remote: BTreeSet<_> = rules
        .filter_map(|rule| match &rule.peer {
            Peer::Group(id) => lab.security_group(id),
            Peer::Any | Peer::Prefix(_) => None,
        })
        .map(|group| (group.set(), &group.id))
        .collect();
    let mut commands = String::new();
    for (set, group) in remote {
        writeln!(commands, "create {set} hash:net family inet")?;
        for member in lab.group_members(group) {
            writeln!(commands, "add {set} {member}")?;
        }
    }
    command::feed("ipset", ["restore", "-exist"], &commands)?;
    Ok(true)
}
