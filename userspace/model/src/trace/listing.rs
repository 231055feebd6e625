//! Every instance of a host on one page.

use super::{HopState, InterfaceTrace, Severity, Trace, explain};
use crate::{
    inventory::Inventory,
    list::{Listing, Row, RowInterface},
};

/// Lists every instance with the state its paths are in.
pub fn list(inventory: &Inventory<'_>) -> Listing {
    let facts = &inventory.snapshot.facts;
    Listing {
        hostname: inventory.snapshot.hostname.clone(),
        taken_at: inventory.snapshot.taken_at,
        instances: inventory.instances.iter().map(|instance| row(explain(inventory, instance))).collect(),
        gaps: facts.gaps().filter(|gap| !gap.absent).cloned().collect(),
    }
}

fn row(trace: Trace) -> Row {
    let broken = trace.findings.iter().any(|finding| finding.severity == Severity::Error);
    let warned = trace.findings.iter().any(|finding| finding.severity == Severity::Warning);
    let hops = trace.interfaces.iter().map(state).max().unwrap_or(HopState::Ok);
    let worst = if broken {
        HopState::Broken
    } else if warned {
        hops.max(HopState::Warning)
    } else {
        hops
    };
    Row { identity: trace.instance, interfaces: trace.interfaces.into_iter().map(interface).collect(), worst }
}

fn state(interface: &InterfaceTrace) -> HopState {
    interface.hops.iter().map(|hop| hop.state).max().unwrap_or(HopState::Ok)
}

fn interface(interface: InterfaceTrace) -> RowInterface {
    RowInterface {
        state: state(&interface),
        floating_ips: interface.floating_ips.iter().map(|floating| floating.address).collect(),
        device: interface.device,
        mac: interface.mac,
        addresses: interface.addresses,
        port_id: interface.port_id,
        host_device: interface.host_device,
        bridge: interface.bridge,
        vlan_tag: interface.vlan_tag,
        network_id: interface.network_id,
        network_name: interface.network_name,
        network_type: interface.network_type,
        segmentation_id: interface.segmentation_id,
    }
}
