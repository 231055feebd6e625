//! Neutron's Open vSwitch agent with virtual machines as libvirt starts them: every tap is a port of br-int itself, held
//! open by the machine's hypervisor, and nothing on the host shows what is inside.

use anyhow::Result;

use super::neutron_ovs;
use crate::lab::{
    host::Host,
    hypervisor,
    inventory::{Instance, Inventory, Machine},
    neutron, ovs,
    report::Built,
    spec::Spec,
};

/// First slot of a virtio card in a guest of this machine type, which Linux names it by.
const FIRST_SLOT: usize = 3;

/// The example of the neutron module, plugged natively, with machines for instances.
pub(crate) fn plan(spec: &Spec) -> Inventory {
    let mut lab = neutron_ovs::plan(spec);
    for instance in &mut lab.instances {
        instance.machine = Some(Machine::default());
        for (number, port) in instance.ports.iter_mut().enumerate() {
            port.device = format!("ens{}", FIRST_SLOT + number);
        }
    }
    lab
}

/// Builds one compute host; the guests are started by the fabric, which is where they run.
pub(crate) fn build(host: &Host<'_>) -> Result<Built> {
    let agent = neutron::agent::Agent::start(host)?;
    hypervisor::install()?;
    // One after the other: each inherits its taps, and must not get another's.
    let start = |instance: &Instance| Ok(Instance { pid: Some(hypervisor::start(instance)?), ..instance.clone() });
    let instances = host.lab.instances_on(&host.plan.name).map(start).collect::<Result<Vec<_>>>()?;
    hypervisor::configure(&instances)?;
    for some in instances.chunks(neutron::agent::PORTS_A_TRANSACTION) {
        let mut transaction = ovs::Transaction::default();
        for instance in some {
            for port in &instance.ports {
                agent.plug_instance(&mut transaction, &port.id.device("tap"), (instance, port));
            }
        }
        transaction.commit()?;
    }
    agent.wire(&instances)?;
    Ok(Built::new(agent.describe(None), instances))
}
