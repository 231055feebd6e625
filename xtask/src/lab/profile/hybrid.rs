//! Neutron's Open vSwitch agent with its hybrid iptables firewall, and nova-docker: between the tap and br-int is a Linux
//! bridge per port, because only what such a bridge forwards can be seen by iptables.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::lab::{
    command,
    host::Host,
    inventory::{self, Instance, Inventory, Port},
    neutron::{self, plan::Cabling},
    nova_docker, ovs,
    report::Built,
    runtime::Runtime,
    spec::Spec,
};

/// The example of the neutron module, plugged through a bridge and filtered.
pub(crate) fn plan(spec: &Spec) -> Inventory {
    let cabling = Cabling { host_devices: |id| ["tap", "qvb", "qvo"].map(|prefix| id.device(prefix)).into() };
    let mut lab = neutron::plan::plan(spec, &cabling);
    for port in lab.instances.iter_mut().flat_map(|instance| &mut instance.ports) {
        port.linux_bridge = Some(port.id.device("qbr"));
    }
    neutron::security::assign(&mut lab);
    lab
}

/// Builds one compute host.
pub(crate) fn build(host: &Host<'_>) -> Result<Built> {
    let agent = neutron::agent::Agent::start(host)?;
    let runtime = Runtime::start(host, &["--bridge=none", "--iptables=false", "--ip6tables=false"])?;
    let instances = nova_docker::start(host, &runtime)?;
    nova_docker::add_pairs(&instances, agent.switch.in_user_space())?;
    add_bridges(&instances, agent.switch.in_user_space())?;
    let packet_filter = neutron::firewall::install(host)?;
    for some in instances.chunks(neutron::agent::PORTS_A_TRANSACTION) {
        let mut transaction = ovs::Transaction::default();
        for instance in some {
            for port in &instance.ports {
                agent.plug_instance(&mut transaction, &port.id.device("qvo"), (instance, port));
            }
        }
        transaction.commit()?;
    }
    nova_docker::configure(&instances, agent.switch.in_user_space())?;
    agent.wire(&instances)?;
    let described = agent.describe(runtime.docker_version());
    let described = inventory::Host { packet_filter: Some(packet_filter), ..described };
    Ok(Built::new(described, instances))
}

/// Makes the bridge of every port, with the tap in it and a veth pair to br-int.
fn add_bridges(instances: &[Instance], switched_in_user_space: bool) -> Result<()> {
    let mut batch = String::new();
    let mut settings = Vec::new();
    // As for the taps: each address of the host costs the switch in user space time.
    let addresses = if switched_in_user_space { "none" } else { "eui64" };
    for port in instances.iter().flat_map(|instance| &instance.ports) {
        let bridge = port.linux_bridge.as_deref().context("a port without its bridge")?;
        writeln!(batch, "link add {bridge} type bridge stp_state 0 forward_delay 0 ageing_time 0 mcast_snooping 0")?;
        plug(&mut batch, (bridge, addresses), port)?;
        settings.extend([
            format!("net.ipv4.conf.{bridge}.arp_ignore=1"),
            format!("net.ipv4.conf.{bridge}.arp_announce=2"),
            format!("net.ipv6.conf.{bridge}.disable_ipv6=1"),
        ]);
    }
    command::feed("ip", ["-batch", "-"], &batch)?;
    // A kernel without IPv6 has no switch for it: `-e` passes over what is not there.
    command::run("sysctl", ["-e", "-q", "-w"].map(str::to_owned).into_iter().chain(settings)).map(drop)
}

fn plug(batch: &mut String, (bridge, addresses): (&str, &str), port: &Port) -> Result<()> {
    let (tap, inner, outer) = (port.id.device("tap"), port.id.device("qvb"), port.id.device("qvo"));
    writeln!(batch, "link add {inner} type veth peer name {outer}")?;
    for end in [&inner, &outer] {
        writeln!(batch, "link set {end} addrgenmode {addresses} mtu {} promisc on up", port.mtu)?;
    }
    writeln!(batch, "link set {inner} master {bridge}")?;
    writeln!(batch, "link set {bridge} up")?;
    writeln!(batch, "link set {tap} mtu {} master {bridge}", port.mtu)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Spec, plan};
    use crate::lab::inventory::{
        Profile, Uuid,
        security::{Peer, SecurityGroup},
    };

    fn planned() -> super::Inventory {
        plan(&Spec { name: "lab".into(), profile: Profile::Hybrid, instances: 40, no_docker: false })
    }

    #[test]
    fn no_two_ports_of_a_host_share_a_zone() {
        let lab = planned();
        for host in ["compute-1", "compute-2"] {
            let ports = lab.instances_on(host).flat_map(|instance| &instance.ports);
            let zones: Vec<_> = ports.filter_map(|port| port.security.as_ref()?.zone).collect();
            assert!(zones.len() > 1 && zones.iter().all(|zone| *zone > 4096));
            assert_eq!(zones.iter().collect::<BTreeSet<_>>().len(), zones.len());
        }
    }

    #[test]
    fn every_group_that_is_named_is_there() {
        let lab = planned();
        let ports = lab.instances.iter().flat_map(|instance| &instance.ports);
        let of_ports = ports.filter_map(|port| port.security.as_ref()).flat_map(|security| &security.groups);
        let of_rules = lab.security_groups.iter().flat_map(|group| &group.rules).filter_map(|rule| match &rule.peer {
            Peer::Group(id) => Some(id),
            Peer::Any | Peer::Prefix(_) => None,
        });
        let named: Vec<&Uuid> = of_ports.chain(of_rules).collect();
        assert!(!named.is_empty() && named.iter().all(|id| lab.security_group(id).is_some()));
    }

    #[test]
    fn sets_have_names_the_kernel_takes_and_tells_apart() {
        let lab = planned();
        let sets: BTreeSet<_> = lab.security_groups.iter().map(SecurityGroup::set).collect();
        assert_eq!(sets.len(), lab.security_groups.len());
        // ipset(8): at most 31 characters.
        assert!(sets.iter().all(|set| set.len() == 29 && set.starts_with("NIPv4")));
    }
}
