//! Ports that a device's name alone gives away, before anybody has looked at what it belongs to. Flow: policy.
//!
//! Looking at the host takes its time, and a device that has just come passes everything meanwhile. So what a port asks for by
//! its name is closed at once, and the look decides what it gets. Names are hints, so nothing more than closing is done on their
//! account, and nothing where no port means the name.

use std::collections::BTreeSet;

use super::{
    super::types::{AddressPair, Attached, Binding, Hook, Mode, Policy, Port, PortId},
    find::tap,
    place::USER_SPACE,
};
use crate::{
    fact::{Facts, LinkFact},
    id::Mac,
};

/// The port that a new device of the host's is meant for by its name, closed.
pub fn ahead(policy: &Policy, device: &LinkFact, hook: Hook) -> Option<Attached> {
    let is_card = matches!(device.kind.as_deref(), Some("veth" | "tun"));
    let mut claims = policy.ports.values().filter(|port| is_card && means(port, &device.name));
    let port = claims.next()?;
    // What a trusted port sends passes anyway; one that several claim is closed until one of them lets go.
    let decided = port.filtered || claims.next().is_some();
    decided.then(|| closed(port, device.ifindex.0, hook))
}

/// Whether a port is bound to a device of this name, by it or by the name Neutron gives.
fn means(port: &Port, device: &str) -> bool {
    match &port.binding {
        Binding { device: Some(asked), .. } => asked == device,
        Binding { instance: Some(_), .. } => false,
        Binding { port_id, .. } => *port_id && tap(&port.id).as_deref() == Some(device),
    }
}

fn closed(port: &Port, ifindex: u32, hook: Hook) -> Attached {
    let mac = port.mac.unwrap_or(Mac([0; 6]));
    let pair = |AddressPair { mac: own, address }: &AddressPair| (own.unwrap_or(mac), *address);
    Attached {
        id: port.id.clone(),
        ifindex,
        mac,
        fixed_ips: port.fixed_ips.clone().unwrap_or_default(),
        pairs: port.allowed_address_pairs.iter().map(pair).collect(),
        groups: port.groups.clone(),
        mode: Mode::Closed,
        hook,
        log_allowed: port.log_allowed,
    }
}

/// Where a new device can be held whatever it is about to become part of.
pub fn hook_ahead(facts: &Facts) -> Hook {
    let mut bridges = facts.switches.iter().flat_map(|switch| &switch.bridges);
    if bridges.any(|bridge| bridge.datapath_type == USER_SPACE) { Hook::Xdp } else { Hook::Tc }
}

/// Puts closed ports beside those that a look has found, as long as that look knows nothing of their devices.
pub fn beside(found: &mut Vec<Attached>, ahead: impl IntoIterator<Item = Attached>) {
    let mut ids: BTreeSet<PortId> = found.iter().map(|port| port.id.clone()).collect();
    let devices: BTreeSet<u32> = found.iter().map(|port| port.ifindex).collect();
    for mut port in ahead.into_iter().filter(|port| !devices.contains(&port.ifindex)) {
        if !ids.insert(port.id.clone()) {
            port.id = port.id.at_device(port.ifindex);
        }
        found.push(port);
    }
}
