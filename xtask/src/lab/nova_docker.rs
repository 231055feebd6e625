//! How nova-docker gives an instance its network: a container without one, a name for its namespace, and a veth pair per
//! port whose inner end is moved there. The instance does not ask DHCP.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::lab::{
    command,
    host::Host,
    inventory::{Instance, Port},
    netns, parallel,
    runtime::Runtime,
};

/// Starts every instance of the host, still without network, and returns them with their pids.
pub(crate) fn start(host: &Host<'_>, runtime: &Runtime) -> Result<Vec<Instance>> {
    let planned: Vec<_> = host.lab.instances_on(&host.plan.name).cloned().collect();
    parallel::map(&planned, |instance| {
        let name = format!("nova-{}", instance.uuid);
        let container = runtime.run(&name, &instance.name)?;
        netns::link(&container.id, container.pid)?;
        let container_name = runtime.docker_version().map(|_| name);
        Ok(Instance { container_name, container_id: Some(container.id), pid: Some(container.pid), ..instance.clone() })
    })
}

/// Makes the veth pair of every port, with the inner end in the instance and the outer end up.
pub(crate) fn add_pairs(instances: &[Instance], switched_in_user_space: bool) -> Result<()> {
    let mut batch = String::new();
    // Where Open vSwitch compares every address of the host with every port of a broadcast, useless ones cost time.
    let addresses = if switched_in_user_space { "none" } else { "eui64" };
    for instance in instances {
        let netns = namespace(instance)?;
        for port in &instance.ports {
            let outer = port.host_devices.first().context("a port without a device on the host")?;
            writeln!(batch, "link add {outer} type veth peer name {} netns {netns}", port.device)?;
            writeln!(batch, "link set {outer} addrgenmode {addresses}\nlink set {outer} up")?;
        }
    }
    command::feed("ip", ["-batch", "-"], &batch).map(drop)
}

/// Gives every inner end its addresses and routes.
pub(crate) fn configure(instances: &[Instance], switched_in_user_space: bool) -> Result<()> {
    parallel::map(instances, |instance| {
        let netns = namespace(instance)?;
        let mut batch = String::new();
        for port in &instance.ports {
            configure_port(&mut batch, port)?;
        }
        netns::batch(netns, &batch)?;
        for port in &instance.ports {
            let mut words = vec!["ethtool", "-K", &port.device, "tso", "off"];
            if switched_in_user_space {
                // Open vSwitch reads these frames with AF_PACKET and does not finish a checksum that is left to hardware.
                words.extend(["tx", "off"]);
            }
            netns::run(netns, &words)?;
        }
        Ok(())
    })
    .map(drop)
}

fn configure_port(batch: &mut String, port: &Port) -> Result<()> {
    let device = &port.device;
    writeln!(batch, "link set {device} address {} mtu {}", port.mac, port.mtu)?;
    writeln!(batch, "address add {} dev {device}", port.address)?;
    writeln!(batch, "link set {device} up")?;
    writeln!(batch, "route replace default via {} dev {device}", port.gateway)?;
    Ok(())
}

/// The `/run/netns` name of an instance's namespace.
fn namespace(instance: &Instance) -> Result<&str> {
    instance.container_id.as_deref().with_context(|| format!("{} has not been started", instance.name))
}
