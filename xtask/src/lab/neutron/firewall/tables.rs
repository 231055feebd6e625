//! The tables as input for `iptables-restore`, in the wording and order of `iptables-save`.

use std::fmt::{self, Write as _};

use super::{Family, port};
use crate::lab::{
    inventory::{Inventory, Port},
    neutron::security::PREFIX,
};

const TO_GROUP_CHAIN: &str = "Direct traffic from the VM interface to the security group chain.";
const TO_PORT_CHAIN: &str = "Jump to the VM specific chain.";
const FROM_INSTANCE: &str = "Direct incoming traffic from VM to the security group chain.";
const OPEN_PORT: &str = "Accept all packets when port security is disabled.";
const UNMATCHED: &str = "Default drop rule for unmatched traffic.";
const SOURCE_NAT: &str = "Perform source NAT on outgoing traffic.";

/// Every table of one family; `sets` tells whether remote groups are ipsets.
pub(super) fn text(lab: &Inventory, host: &str, (family, sets): (Family, bool)) -> Result<String, fmt::Error> {
    let ports: Vec<_> = lab.instances_on(host).flat_map(|instance| &instance.ports).collect();
    let mut text = String::new();
    raw(&mut text, &ports)?;
    if family == Family::V4 {
        nat(&mut text, &ports)?;
    }
    filter(&mut text, (lab, &ports), (family, sets))?;
    Ok(text)
}

/// The part of a rule that says what it is for.
pub(super) fn comment(words: &str) -> String {
    format!("-m comment --comment \"{words}\"")
}

/// The tap of a port: the first device outside the instance.
fn tap(port: &Port) -> String {
    port.id.device("tap")
}

/// Opens a table with its built-in chains, the agent's, and the jumps between them.
fn open(text: &mut String, table: &str, built_in: &[&str], own: &[&str]) -> fmt::Result {
    writeln!(text, "*{table}")?;
    built_in.iter().try_for_each(|chain| writeln!(text, ":{chain} ACCEPT [0:0]"))?;
    built_in.iter().chain(own).try_for_each(|chain| writeln!(text, ":{PREFIX}-{chain} - [0:0]"))
}

/// A connection tracking zone per port, so that equal addresses of different networks are different connections.
fn raw(text: &mut String, ports: &[&Port]) -> fmt::Result {
    let built_in = ["PREROUTING", "OUTPUT"];
    open(text, "raw", &built_in, &[])?;
    built_in.iter().try_for_each(|chain| writeln!(text, "-A {chain} -j {PREFIX}-{chain}"))?;
    for port in ports {
        let Some(zone) = port.security.as_ref().and_then(|security| security.zone) else { continue };
        let (tap, bridge_end) = (tap(port), port.id.device("qvb"));
        let rest = format!("{} -j CT --zone {zone}", comment(&format!("Set zone for {}", port.id)));
        writeln!(text, "-A {PREFIX}-PREROUTING -m physdev --physdev-in {bridge_end} {rest}")?;
        writeln!(text, "-A {PREFIX}-PREROUTING -i {bridge_end} {rest}")?;
        writeln!(text, "-A {PREFIX}-PREROUTING -m physdev --physdev-in {tap} {rest}")?;
    }
    text.write_str("COMMIT\n")
}

/// What passes a tap is not for whoever else translates addresses on this host.
fn nat(text: &mut String, ports: &[&Port]) -> fmt::Result {
    let built_in = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"];
    writeln!(text, "*nat")?;
    built_in.iter().try_for_each(|chain| writeln!(text, ":{chain} ACCEPT [0:0]"))?;
    for chain in ["OUTPUT", "POSTROUTING", "PREROUTING", "float-snat", "snat"] {
        writeln!(text, ":{PREFIX}-{chain} - [0:0]")?;
    }
    writeln!(text, ":neutron-postrouting-bottom - [0:0]")?;
    for chain in ["PREROUTING", "OUTPUT", "POSTROUTING"] {
        writeln!(text, "-A {chain} -j {PREFIX}-{chain}")?;
    }
    writeln!(text, "-A POSTROUTING -j neutron-postrouting-bottom")?;
    for port in ports {
        for direction in ["out", "in"] {
            writeln!(text, "-A {PREFIX}-PREROUTING -m physdev --physdev-{direction} {} -j ACCEPT", tap(port))?;
        }
    }
    writeln!(text, "-A {PREFIX}-snat -j {PREFIX}-float-snat")?;
    writeln!(text, "-A neutron-postrouting-bottom {} -j {PREFIX}-snat", comment(SOURCE_NAT))?;
    text.write_str("COMMIT\n")
}

fn filter(text: &mut String, (lab, ports): (&Inventory, &[&Port]), (family, sets): (Family, bool)) -> fmt::Result {
    let built_in = ["INPUT", "FORWARD", "OUTPUT"];
    open(text, "filter", &built_in, &["local", "sg-chain", "sg-fallback"])?;
    writeln!(text, ":neutron-filter-top - [0:0]")?;
    let filtered: Vec<_> = ports.iter().filter_map(|port| port::Chains::of(lab, port, (family, sets))).collect();
    for chains in &filtered {
        chains.names().iter().try_for_each(|name| writeln!(text, ":{name} - [0:0]"))?;
    }
    writeln!(text, "-A INPUT -j {PREFIX}-INPUT")?;
    for chain in ["FORWARD", "OUTPUT"] {
        writeln!(text, "-A {chain} -j neutron-filter-top\n-A {chain} -j {PREFIX}-{chain}")?;
    }
    writeln!(text, "-A neutron-filter-top -j {PREFIX}-local")?;
    for port in ports {
        entries(text, port)?;
    }
    writeln!(text, "-A {PREFIX}-sg-chain -j ACCEPT")?;
    writeln!(text, "-A {PREFIX}-sg-fallback {} -j DROP", comment(UNMATCHED))?;
    filtered.iter().try_for_each(|chains| chains.write(text))?;
    text.write_str("COMMIT\n")
}

/// The rules that lead to the chains of a port, or accept in their place.
fn entries(text: &mut String, port: &Port) -> fmt::Result {
    let Some(security) = &port.security else { return Ok(()) };
    let bridged = |direction: &str| format!("-m physdev --physdev-{direction} {} --physdev-is-bridged", tap(port));
    let (to, from) = (bridged("out"), bridged("in"));
    let Some(chains) = &security.chains else {
        let accept = format!("{} -j ACCEPT", comment(OPEN_PORT));
        writeln!(text, "-A {PREFIX}-FORWARD {to} {accept}")?;
        writeln!(text, "-A {PREFIX}-FORWARD {from} {accept}")?;
        return writeln!(text, "-A {PREFIX}-INPUT {from} {accept}");
    };
    let group_chain = format!("{} -j {PREFIX}-sg-chain", comment(TO_GROUP_CHAIN));
    writeln!(text, "-A {PREFIX}-FORWARD {to} {group_chain}")?;
    writeln!(text, "-A {PREFIX}-FORWARD {from} {group_chain}")?;
    writeln!(text, "-A {PREFIX}-INPUT {from} {} -j {}", comment(FROM_INSTANCE), chains.egress)?;
    writeln!(text, "-A {PREFIX}-sg-chain {to} {} -j {}", comment(TO_PORT_CHAIN), chains.ingress)?;
    writeln!(text, "-A {PREFIX}-sg-chain {from} {} -j {}", comment(TO_PORT_CHAIN), chains.egress)
}
