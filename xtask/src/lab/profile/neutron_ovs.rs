//! Neutron's Open vSwitch agent with nova-docker: every tap is a port of br-int itself, and nothing filters.

use anyhow::Result;

use crate::lab::{
    host::Host,
    inventory::{Inventory, Port},
    neutron::{self, plan::Cabling},
    nova_docker, ovs,
    report::Built,
    runtime::Runtime,
    spec::Spec,
};

/// The example of the neutron module, plugged natively.
pub(crate) fn plan(spec: &Spec) -> Inventory {
    neutron::plan::plan(spec, &Cabling { host_devices: |id| vec![id.device("tap")] })
}

/// Builds one compute host.
pub(crate) fn build(host: &Host<'_>) -> Result<Built> {
    let agent = neutron::agent::Agent::start(host)?;
    // The filter table of the host itself stays empty: nova-docker ran with Nova's firewall driver that does nothing.
    let runtime = Runtime::start(host, &["--bridge=none", "--iptables=false", "--ip6tables=false"])?;
    let instances = nova_docker::start(host, &runtime)?;
    nova_docker::add_pairs(&instances)?;
    for some in instances.chunks(neutron::agent::PORTS_A_TRANSACTION) {
        let mut transaction = ovs::Transaction::default();
        for instance in some {
            for port in &instance.ports {
                agent.plug_instance(&mut transaction, &tap(port), (instance, port));
            }
        }
        transaction.commit()?;
    }
    nova_docker::configure(&instances, agent.switch.in_user_space())?;
    agent.wire(&instances)?;
    Ok(Built { host: agent.describe(runtime.docker_version()), instances })
}

fn tap(port: &Port) -> String {
    port.id.device("tap")
}
