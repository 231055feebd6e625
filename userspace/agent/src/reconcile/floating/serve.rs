//! What netdiag serves by itself of a plan. Flow: policy.

use std::net::Ipv4Addr;

use netdiag_model::floating::{Owner, Plan, Service, State};

use super::{Served, Wanted};

/// Floating IPs that the host is to serve.
pub(super) fn wanted(plan: &Plan) -> Wanted {
    let serve = |service: &Service| {
        let Service { fixed_ip_address, device, network, hairpin, .. } = service;
        let (device, hairpin) = (device.clone(), hairpin.clone());
        (service.floating_ip_address, Served { fixed: *fixed_ip_address, device, network: Some(*network), hairpin })
    };
    plan.services.iter().map(serve).collect()
}

/// Says of a floating IP that it cannot be served.
pub(super) fn refuse(plan: &mut Plan, address: Ipv4Addr, why: &str) {
    for floating in &mut plan.floating_ips {
        if floating.floating_ip_address == address && floating.owner == Owner::Netdiag {
            floating.way = State::Broken { why: why.to_owned() };
        }
    }
}
