//! Instances of one network and host that may send to each other past the bridge. Flow: policy.
//!
//! They may where both ends are held to their security groups at TC, and nothing between them needs to see the packets: no
//! rule, no other program, no state of a bridge port. Networks are Linux bridges: what the flows of an Open vSwitch bridge want to
//! see is not known here.

use std::collections::BTreeMap;

use netdiag_common::abi::floating::StationKey;

use crate::{
    fact::{BridgePortState, LinkDetail, LinkFact, SourceKind},
    id::{IfIndex, LinkKey},
    inventory::Inventory,
    netfilter::{ChainPolicy, Family, Outcome, Packet, Table},
    policy::types::{Attached, Hook, Mode},
    trace::between_any,
};

/// Who may send to whom past the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Straight {
    /// The network of each port that takes part, by index of the host's device: the index of its bridge.
    pub networks: BTreeMap<u32, u32>,
    /// Index of the host's device of each instance.
    pub stations: BTreeMap<StationKey, u32>,
}

/// Who may, on a host.
pub fn straight(inventory: &Inventory<'_>, enforced: &[Attached]) -> Straight {
    let mut straight = Straight::default();
    let Some(host) = inventory.host else { return straight };
    let sources = [SourceKind::Netlink, SourceKind::Netfilter, SourceKind::Bpf, SourceKind::Sysctl];
    if sources.iter().any(|source| inventory.unread(*source, host)) {
        return straight;
    }
    let mut members: BTreeMap<LinkKey, Vec<&Attached>> = BTreeMap::new();
    for port in enforced.iter().filter(|port| port.mode == Mode::Filtered && port.hook == Hook::Tc) {
        let device = LinkKey { netns: host, ifindex: IfIndex(port.ifindex) };
        let bridge = inventory.linux_bridge(device).filter(|_| takes_part(inventory, device));
        members.entry(bridge.unwrap_or(device)).or_default().push(port);
    }
    members.retain(|bridge, ports| ports.len() > 1 && only_forwards(inventory, *bridge));
    for (bridge, ports) in members {
        let network = bridge.ifindex.0;
        for port in ports {
            straight.networks.insert(port.ifindex, network);
            // Two ports with one MAC address are none: the bridge decides whose it is.
            let key = StationKey { network, mac: port.mac.0, pad: [0; 2] };
            if straight.stations.insert(key, port.ifindex).is_some() {
                straight.stations.insert(key, 0);
            }
        }
    }
    straight.stations.retain(|_, device| *device != 0);
    straight
}

/// Whether a port of a bridge does nothing but forward.
fn takes_part(inventory: &Inventory<'_>, device: LinkKey) -> bool {
    let Some(LinkFact { bridge_port: Some(port), admin_up: true, .. }) = inventory.link(device) else { return false };
    let plain = port.state == BridgePortState::Forwarding && !port.isolated && !port.locked;
    plain && inventory.foreign_programs(device).next().is_none()
}

/// Whether a bridge does nothing but forward, and nobody looks at what it forwards.
fn only_forwards(inventory: &Inventory<'_>, bridge: LinkKey) -> bool {
    let Some(link) = inventory.link(bridge) else { return false };
    let LinkDetail::Bridge { vlan_filtering: false, .. } = link.detail else { return false };
    // Whoever listens at the bridge, tcpdump for one, sees what it forwards and nothing else.
    link.promiscuity == 0 && !has_bridge_rules(inventory, bridge) && passes_iptables(inventory, bridge)
}

/// Whether nftables rules of the bridge family could want to see frames.
fn has_bridge_rules(inventory: &Inventory<'_>, bridge: LinkKey) -> bool {
    let tables = inventory.rulesets(bridge.netns).iter().flat_map(|ruleset| &ruleset.tables);
    tables
        .filter(|table| table.family == Some(Family::Bridge))
        .flat_map(Table::chains)
        .any(|chain| !chain.rules.is_empty() || chain.policy == Some(ChainPolicy::Drop))
}

/// Whether iptables, where it is asked about bridged packets, lets every one of this bridge pass.
fn passes_iptables(inventory: &Inventory<'_>, bridge: LinkKey) -> bool {
    let passes = |packet| between_any(inventory, bridge, packet).is_none_or(|outcome| outcome == Outcome::Accept);
    passes(Packet::ipv4()) && passes(Packet::ipv6())
}

#[cfg(test)]
mod tests;
