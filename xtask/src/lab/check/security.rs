//! What security groups let through, decided from the inventory's rules alone, so that `check` can hold it against what
//! the packet filter of the lab really does.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Action, Probe, members, outside, probe, probe_from_host};
use crate::lab::inventory::{
    Instance, Inventory, Port,
    security::{Direction, Ethertype, Peer, SecurityRule, Traffic},
};

/// TCP ports of the example's rules, and the one no rule is about.
const PORTS: [u16; 4] = [22, 5432, 8050, 9];
/// ICMP type of an echo request.
const ECHO: u8 = 8;

/// Packets from one end to another, and the ports of instances they pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow<'a> {
    sender: Option<&'a Port>,
    receiver: Option<&'a Port>,
    /// Where the sender sends to.
    to: Ipv4Addr,
    /// What the receiver sees as their source.
    pub(super) seen: Ipv4Addr,
}

/// What a probe's first packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packet {
    Echo,
    Tcp(u16),
}

impl<'a> Flow<'a> {
    /// From instance to instance.
    pub(super) fn between(sender: &'a Port, receiver: &'a Port) -> Self {
        let (to, seen) = (receiver.address.address, sender.address.address);
        Self { sender: Some(sender), receiver: Some(receiver), to, seen }
    }

    /// From an instance to what is none.
    pub(super) fn outward(sender: &'a Port, to: Ipv4Addr) -> Self {
        Self { sender: Some(sender), receiver: None, to, seen: sender.address.address }
    }

    /// From a machine that is no instance, by a floating IP.
    pub(super) fn inward(from: Ipv4Addr, receiver: &'a Port) -> Self {
        Self { sender: None, receiver: Some(receiver), to: receiver.address.address, seen: from }
    }

    /// From an instance to the floating IP of another: the router puts an address of its own in place of the sender's,
    /// or the sender's floating IP.
    pub(super) fn hairpin(lab: &Inventory, from: &'a Instance, (to, floating): (&'a Port, Ipv4Addr)) -> Option<Self> {
        let sender = from.default_port()?;
        let router = lab.router(sender.router.as_ref()?)?;
        let seen = sender.floating_ip.unwrap_or(router.gateway.address.address);
        Some(Self { sender: Some(sender), receiver: Some(to), to: floating, seen })
    }

    /// The action, or that nothing answers where the rules of either end do not allow it.
    pub(super) fn judge(&self, lab: &Inventory, action: Action) -> Action {
        let (to, packet, target) = match &action {
            Action::Ping { to, target } => (*to, Packet::Echo, target),
            Action::Fetch { to, port, target, .. } | Action::Knock { to, port, target } => {
                (*to, Packet::Tcp(*port), target)
            }
            Action::Silence { .. } | Action::Resolve { .. } | Action::Lease { .. } => return action,
        };
        if self.permits(lab, packet) {
            return action;
        }
        let port = match packet {
            Packet::Echo => None,
            Packet::Tcp(port) => Some(port),
        };
        Action::Silence { to, port, target: format!("{target}; security groups") }
    }

    fn permits(&self, lab: &Inventory, packet: Packet) -> bool {
        let leaves = self.sender.is_none_or(|port| allows(lab, port, (Direction::Egress, self.to), packet));
        leaves && self.receiver.is_none_or(|port| allows(lab, port, (Direction::Ingress, self.seen), packet))
    }
}

/// Knocks on every filtered port from a neighbour, and by its floating IP from outside.
pub(super) fn probes(lab: &Inventory, probes: &mut Vec<Probe>) -> Result<()> {
    for instance in &lab.instances {
        for port in instance.ports.iter().filter(|port| port.security.is_some()) {
            let neighbour = members(lab, &port.network).find(|(other, _)| other.uuid != instance.uuid);
            for number in PORTS {
                let knock = |to| Action::Knock { to, port: number, target: instance.display_name.clone() };
                if let Some((from, own)) = neighbour {
                    let action = Flow::between(own, port).judge(lab, knock(port.address.address));
                    probes.push(probe(lab, from, action)?);
                }
                for ((machine, address), floating) in outside(lab).zip(port.floating_ip) {
                    let action = Flow::inward(address, port).judge(lab, knock(floating));
                    probes.push(probe_from_host(machine, action));
                }
            }
        }
    }
    Ok(())
}

/// Whether a port's groups let a new connection's first packet through. Where the host's bridges do not ask iptables, they
/// let everything through.
fn allows(lab: &Inventory, port: &Port, (direction, peer): (Direction, Ipv4Addr), packet: Packet) -> bool {
    let Some(security) = port.security.as_ref().filter(|security| security.enabled) else { return true };
    let host = lab.instances.iter().find(|instance| instance.ports.contains(port)).map(|instance| &instance.host);
    let filter = host.and_then(|name| lab.host(name)).and_then(|host| host.packet_filter.as_ref());
    if filter.is_none_or(|filter| filter.bridge_nf_call_iptables != Some(true)) {
        return true;
    }
    let groups = security.groups.iter().filter_map(|id| lab.security_group(id));
    groups
        .flat_map(|group| &group.rules)
        .filter(|rule| rule.direction == direction && rule.ethertype == Ethertype::V4)
        .any(|rule| covers(rule.traffic, packet) && knows(lab, rule, peer))
}

fn covers(traffic: Traffic, packet: Packet) -> bool {
    match (traffic, packet) {
        (Traffic::Any, _) => true,
        (Traffic::Tcp { min, max }, Packet::Tcp(port)) => (min..=max).contains(&port),
        (Traffic::Icmp { kind, code }, Packet::Echo) => {
            kind.is_none_or(|kind| kind == ECHO) && code.is_none_or(|code| code == 0)
        }
        (Traffic::Tcp { .. }, Packet::Echo) | (Traffic::Icmp { .. }, Packet::Tcp(_)) => false,
    }
}

fn knows(lab: &Inventory, rule: &SecurityRule, peer: Ipv4Addr) -> bool {
    match &rule.peer {
        Peer::Any => true,
        Peer::Prefix(prefix) => prefix.contains(peer),
        Peer::Group(group) => lab.group_members(group).contains(&peer),
    }
}

#[cfg(test)]
mod tests {
    use super::{Packet, covers};
    use crate::lab::inventory::security::Traffic;

    #[test]
    fn range_of_ports_covers_both_its_ends_and_no_more() {
        let range = Traffic::Tcp { min: 8000, max: 8100 };
        assert!(covers(range, Packet::Tcp(8000)) && covers(range, Packet::Tcp(8100)));
        assert!(!covers(range, Packet::Tcp(7999)) && !covers(range, Packet::Tcp(8101)) && !covers(range, Packet::Echo));
    }

    #[test]
    fn echo_request_is_type_8_code_0() {
        let icmp = |kind, code| covers(Traffic::Icmp { kind, code }, Packet::Echo);
        assert!(icmp(None, None) && icmp(Some(8), None) && icmp(Some(8), Some(0)));
        assert!(!icmp(Some(0), None) && !icmp(Some(8), Some(1)));
    }
}
