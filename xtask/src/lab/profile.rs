//! What a lab can imitate: one file per profile, each with a plan and a builder.

use anyhow::Result;

use crate::lab::{
    host::Host,
    image,
    inventory::{Inventory, Profile, Role},
    report::Built,
    spec::Spec,
};

mod docker;
mod dvr;
mod hybrid;
mod neutron_ovs;
mod vm;

/// Everything a lab will be, but for what only the kernel and Docker can say.
pub(crate) fn plan(spec: &Spec) -> Inventory {
    match spec.profile {
        Profile::NeutronOvs => neutron_ovs::plan(spec),
        Profile::Hybrid => hybrid::plan(spec),
        Profile::Dvr => dvr::plan(spec),
        Profile::Vm => vm::plan(spec),
        Profile::Docker => docker::plan(spec),
    }
}

/// Makes the host this runs in what the plan says.
pub(crate) fn build(host: &Host<'_>) -> Result<Built> {
    match (host.plan.role, host.lab.profile) {
        (Role::Outside, _) => outside(host),
        (Role::Compute, Profile::NeutronOvs) => neutron_ovs::build(host),
        (Role::Compute, Profile::Hybrid) => hybrid::build(host),
        (Role::Compute, Profile::Dvr) => dvr::build(host),
        (Role::Compute, Profile::Vm) => vm::build(host),
        (Role::Compute, Profile::Docker) => docker::build(host),
    }
}

/// A machine outside: an address, a default route and a web server.
fn outside(host: &Host<'_>) -> Result<Built> {
    for uplink in &host.plan.uplinks {
        host.configure_uplink(uplink)?;
    }
    let root = std::path::Path::new("/run/www");
    image::write_web_root(root)?;
    image::start_web_server(root, 80)?;
    Ok(Built::new(host.plan.clone(), Vec::new()))
}
