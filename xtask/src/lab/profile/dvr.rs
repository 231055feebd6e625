//! Neutron's Open vSwitch agent with distributed routers, and nova-docker: the taps are ports of br-int itself, and every
//! host translates the floating IPs of its own instances.

use anyhow::Result;

use super::neutron_ovs;
use crate::lab::{host::Host, inventory::Inventory, neutron, report::Built, spec::Spec};

/// The example of the neutron module, plugged natively, with its routers on both hosts.
pub(crate) fn plan(spec: &Spec) -> Inventory {
    let mut lab = neutron_ovs::plan(spec);
    neutron::distributed::assign(&mut lab);
    lab
}

/// Builds one compute host: what is distributed follows from the plan.
pub(crate) fn build(host: &Host<'_>) -> Result<Built> {
    neutron_ovs::build(host)
}
