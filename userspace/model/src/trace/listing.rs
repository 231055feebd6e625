//! Every instance of a host on one page.

use super::{FloatingIp, HopState, InterfaceTrace, Severity, Trace, Verdict, explain};
use crate::{
    inventory::Inventory,
    list::{FloatingWay, Listing, Row, RowInterface},
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
    let unknown = trace.verdict == Verdict::Inconclusive;
    let worst = match (broken, unknown, warned) {
        (true, ..) => HopState::Broken,
        (_, true, _) => HopState::Unknown,
        (_, _, true) => HopState::Warning,
        (false, false, false) => HopState::Ok,
    };
    let why = why(&trace);
    let interfaces = trace.interfaces.into_iter().map(|one| interface(one, unknown)).collect();
    Row { identity: trace.instance, interfaces, worst, why }
}

/// The first of the worst findings; without any, why it is not known how the instance is.
fn why(trace: &Trace) -> Option<String> {
    let of = |severity| trace.findings.iter().find(|finding| finding.severity == severity);
    let found = of(Severity::Error).or_else(|| of(Severity::Warning)).map(|finding| finding.message.clone());
    found.or_else(|| (trace.verdict == Verdict::Inconclusive).then(|| trace.sentence.clone()))
}

/// The worst state of any hop. A hop that depends on the packet, or a next hop nobody has asked for yet, speaks neither
/// for nor against the path: unless something could not be read, it does not make the whole unknown.
fn state(interface: &InterfaceTrace, unknown: bool) -> HopState {
    let states = interface.hops.iter().map(|hop| hop.state);
    states.filter(|state| unknown || *state != HopState::Unknown).max().unwrap_or(HopState::Ok)
}

fn interface(interface: InterfaceTrace, unknown: bool) -> RowInterface {
    RowInterface {
        state: state(&interface, unknown),
        floating_ways: interface.floating_ips.iter().filter_map(way).collect(),
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
        enforcement: interface.enforcement,
    }
}

fn way(floating: &FloatingIp) -> Option<FloatingWay> {
    let row = floating.way.as_ref()?;
    Some(FloatingWay { address: floating.address, standing: row.standing, why: row.why.clone() })
}
